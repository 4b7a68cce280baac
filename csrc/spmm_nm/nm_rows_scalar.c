/* Few rows times outputs with places of their own, in plain C: any CPU. */
#include "../kernels.h"

void ec_nm_rows_scalar(int mr, const ec_nm_rows *p)
{
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < p->cols; c++) {
            float sum = 0;
            for (int64_t e = 0; e < p->kept; e++)
                sum += p->x[i * p->ldx + p->window[e] + (p->base[e] | ec_nm_place(p->places + c, EC_PANEL, p->bits, e))] * p->w[EC_PANEL * e + c];
            sum += p->bias[c];
            p->y[i * p->ldy + c] = p->relu && sum <= 0 ? 0.0f : sum;
        }
}
