/* int8 tile in plain C: any CPU, and what every other tile has to equal bit for bit. */
#include "gemm_s8c.h"

void ec_gemm_s8c_tile_scalar(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    for (int v = 0; v < nv; v++)
        for (int i = 0; i < mr; i++) {
            uint32_t acc[EC_PANEL] = {0}; /* unsigned: parts of a sum that fits may pass 2^31 */
            for (int64_t q = 0; q < t->quads; q++) {
                const uint8_t *x = t->x + 4 * (mr * q + i);
                const int8_t *w = t->w + v * t->panel + 64 * q;
                for (int c = 0; c < EC_PANEL; c++)
                    acc[c] += (uint32_t)(x[0] * w[4 * c] + x[1] * w[4 * c + 1] + x[2] * w[4 * c + 2] + x[3] * w[4 * c + 3]);
            }
            for (int c = 0; c < EC_MIN(EC_PANEL, t->cols - EC_PANEL * v); c++) {
                const int col = EC_PANEL * v + c;
                const int32_t sum = (int32_t)(acc[c] - (uint32_t)t->zero[i] * (uint32_t)t->wsum[col]);
                if (t->yi) {
                    t->yi[i * t->ldy + col] = sum;
                    continue;
                }
                const float y = (float)sum * t->sx[i] * t->sw[col] + t->bias[col];
                t->y[i * t->ldy + col] = t->relu && y <= 0 ? 0.0f : ec_canonical(y);
            }
        }
}
