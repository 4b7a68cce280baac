/* int8 block of a CSR weight in plain C: any CPU. */
#include "spmm_csr8.h"

void ec_spmm_csr8_scalar(int lanes, const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const uint8_t *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        int32_t *sums = b->sums + b->order[r] * lanes;
        if (b->first)
            memset(sums, 0, sizeof *sums * (size_t)lanes);
        for (int c = 4 * b->count[r]; c > 0; c--, local++, value++) {
            const int8_t *x = b->x + (int64_t)*local * lanes;
            for (int g = 0; g < lanes / 16; g++)
                for (int t = 0; t < 4; t++)
                    for (int e = 0; e < 4; e++)
                        sums[lanes / 4 * t + 4 * g + e] += *value * x[16 * g + 4 * t + e];
        }
    }
}

void ec_pack_csr8_scalar(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x)
{
    for (int64_t k = 0; k < 4 * quads; k++, x += 2 * lanes)
        for (int i = 0; i < lanes; i++) {
            const int t = i / 4 % 4, row = 4 * (i / 16) + i % 4;
            x[i] = (int8_t)q[t * panel + (k / 4 * (lanes / 4) + row) * 4 + k % 4];
            x[lanes + i] = (int8_t)~x[i];
        }
}
