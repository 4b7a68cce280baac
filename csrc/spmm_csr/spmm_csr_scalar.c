/* float32 block of a CSR weight in plain C: any CPU. */
#include "../kernels.h"

void ec_spmm_csr_scalar(int vecs, const ec_csr_block *b)
{
    const uint16_t *local = b->local;
    const float *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        float *sums = b->sums + r * vecs * EC_LANES;
        if (b->first)
            memset(sums, 0, sizeof *sums * (size_t)(vecs * EC_LANES));
        for (int c = b->count[r]; c > 0; c--, local++, value++)
            for (int v = 0; v < vecs; v++)
                for (int t = 0; t < EC_LANES; t++)
                    sums[v * EC_LANES + t] += *value * b->x[v * b->panel + *local * EC_LANES + t];
    }
}
