/* Gathers kept inputs from an int8 activation panel, in plain C: any CPU. */
#include "spmm_nm.h"

void ec_gather_s8_scalar(int mr, int paired, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out)
{
    (void)paired;
    for (int64_t q = 0; q < quads; q++, input += 4, out += 4 * mr)
        for (int b = 0; b < 4; b++) {
            const uint8_t *from = x + (int64_t)(input[b] >> 2) * 4 * mr + (input[b] & 3);
            for (int i = 0; i < mr; i++)
                out[4 * i + b] = from[4 * i];
        }
}
