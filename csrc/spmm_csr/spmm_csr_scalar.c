/* float32 block of a CSR weight in plain C: any CPU. */
#include "spmm_csr.h"

void ec_spmm_csr_scalar(int lanes, const ec_csr_block *b)
{
    const uint16_t *local = b->local;
    const float *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        float *sums = b->sums + b->order[r] * lanes;
        if (b->first)
            memset(sums, 0, sizeof *sums * (size_t)lanes);
        for (int c = b->count[r]; c > 0; c--, local++, value++)
            for (int t = 0; t < lanes; t++)
                sums[t] += *value * b->x[(int64_t)*local * lanes + t];
    }
}
