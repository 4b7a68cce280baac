/* int8 N:M panel in plain C: any CPU, and what every other kernel has to equal bit for bit. */
#include "spmm_nm8.h"

void ec_spmm_nm8_scalar(const ec_nm8_panel *p)
{
    const ec_gemm_s8c_tile *t = &p->tile;
    for (int64_t i = 0; i < p->m; i++) {
        uint32_t acc[EC_PANEL] = {0}; /* unsigned: parts of a sum that fits may pass 2^31 */
        const uint8_t *row = t->x + i * p->ldx;
        if (p->quad0)
            memcpy(acc, p->sums + EC_PANEL * i, sizeof acc);
        for (int64_t q = p->quad0; q < p->quad1; q++)
            for (int c = 0; c < EC_PANEL; c++) {
                const uint32_t take = ec_nm_take(p, q, c);
                const int8_t *w = t->w + 64 * q + 4 * c;
                for (int b = 0; b < 4; b++)
                    acc[c] += (uint32_t)(row[p->window[q] + (take >> 8 * b & 255)] * w[b]);
            }
        if (p->quad1 < t->quads) {
            memcpy(p->sums + EC_PANEL * i, acc, sizeof acc);
            continue;
        }
        for (int c = 0; c < t->cols; c++) {
            const int32_t sum = (int32_t)(acc[c] - (uint32_t)t->zero[i] * (uint32_t)t->wsum[c]);
            const float y = (float)sum * t->sx[i] * t->sw[c] + t->bias[c];
            t->y[i * t->ldy + c] = t->relu && y <= 0 ? 0.0f : ec_canonical(y);
        }
    }
}
