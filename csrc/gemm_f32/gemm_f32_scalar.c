/* float32 tile in plain C: any CPU. */
#include "gemm_f32.h"

void ec_gemm_f32_tile_scalar(int mr, int nv, const ec_gemm_f32_tile *t)
{
    for (int v = 0; v < nv; v++)
        for (int i = 0; i < mr; i++) {
            float acc[EC_PANEL] = {0};
            const float *w = t->w + v * t->panel;
            for (int64_t k = 0; k < t->k; k++, w += EC_PANEL)
                for (int c = 0; c < EC_PANEL; c++)
                    acc[c] += t->x[k * mr + i] * w[c];
            for (int c = 0; c < EC_MIN(EC_PANEL, t->cols - EC_PANEL * v); c++) {
                float *y = t->y + i * t->ldy + EC_PANEL * v + c;
                const float sum = t->first ? acc[c] : *y + acc[c];
                const float biased = t->last ? sum + t->bias[EC_PANEL * v + c] : sum;
                *y = t->last && t->relu && biased <= 0 ? 0 : biased;
            }
        }
}
