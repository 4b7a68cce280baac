/* Few rows times grouped weights, plain C. */
#include "gemm_f32.h"

void ec_gemv_sg_scalar(int mr, const ec_gemv_sg *t)
{
    const int64_t record_bytes = (int64_t)ec_record_bytes(t->form, t->bits);
    const uint8_t *record = t->w;
    const float *x = t->x;
    memset(t->sums, 0, sizeof *t->sums * (size_t)(EC_STRIP * mr));
    for (int64_t g = 0; g < t->groups; g++, record += record_bytes)
        for (int p = 0; p < t->form->group; p++, x += mr)
            for (int c = 0; c < EC_STRIP; c++) {
                const float w = ec_record_weight(record, t->form, t->bits, c, p);
                for (int i = 0; i < mr; i++)
                    t->sums[EC_STRIP * i + c] += w * x[i];
            }
}
