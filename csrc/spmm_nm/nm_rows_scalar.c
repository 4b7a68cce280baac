/* Few rows times outputs with places of their own, in plain C: any CPU. */
#include "spmm_nm.h"

void ec_nm_rows_scalar(int mr, const ec_nm_rows *p)
{
    const int each = 32 / p->bits;
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < p->cols; c++) {
            float sum = 0;
            for (int64_t e = 0; e < p->kept; e++) {
                const int64_t word = e / each, at = word * p->word_at + e % each;
                const float *x = p->x + i * p->ldx + word * p->word_x + p->window[at];
                sum += x[p->base[at] | ec_nm_place(p->places + c, EC_PANEL, p->bits, e)] * p->w[EC_PANEL * e + c];
            }
            sum += p->bias[c];
            p->y[i * p->ldy + c] = p->relu && sum <= 0 ? 0.0f : sum;
        }
}
