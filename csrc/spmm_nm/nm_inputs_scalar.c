/* The kept inputs of a block of outputs, in plain C: any CPU. */
#include "spmm_nm.h"

void ec_nm_inputs_scalar(int bits, int64_t kept, const uint32_t *words, const int32_t *group, int32_t *input)
{
    const int each = 32 / bits;
    for (int64_t e = 0; e < kept; e += each, words++)
        for (int i = 0; i < EC_MIN(each, kept - e); i++)
            input[e + i] = group[e + i] + (int)(*words >> (8 * (i % 4) + bits * (i / 4)) & ((1u << bits) - 1));
}
