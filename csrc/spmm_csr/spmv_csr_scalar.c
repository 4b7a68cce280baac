/* Rows of a CSR weight times one token in plain C: any CPU. */
#include "spmm_csr.h"

/* The loops take indices of either width; of the two pointers one is a constant NULL where the loop is inlined. */
#define INPUT(e) (narrow ? narrow[e] : wide[e])

/* Eight sums in turn, so that an addition does not wait for the one before. */
EC_INLINE float dot_f32(int64_t from, int64_t to, const float *value, const uint16_t *narrow, const int32_t *wide, const float *x)
{
    float s[8] = {0};
    int64_t e = from;
    for (; e + 8 <= to; e += 8)
        for (int u = 0; u < 8; u++)
            s[u] += value[e + u] * x[INPUT(e + u)];
    for (int u = 0; e < to; e++, u++)
        s[u] += value[e] * x[INPUT(e)];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* Exact: doubles hold 2^37 products of 255 * 127. */
EC_INLINE float dot_s8(int64_t from, int64_t to, const int8_t *code, const uint16_t *narrow, const int32_t *wide, const float *x)
{
    double s[4] = {0};
    int64_t e = from;
    for (; e + 4 <= to; e += 4)
        for (int u = 0; u < 4; u++)
            s[u] += (float)code[e + u] * x[INPUT(e + u)];
    for (; e < to; e++)
        s[0] += (float)code[e] * x[INPUT(e)];
    return (float)((s[0] + s[2]) + (s[1] + s[3]));
}

void ec_spmv_csr_scalar(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    const uint16_t *narrow = w->short_indices;
    for (int64_t r = row0; r < row1; r++) {
        const int64_t from = w->indptr[r], to = w->indptr[r + 1];
        if (w->codes)
            *sums++ = narrow ? dot_s8(from, to, w->codes, narrow, NULL, x) : dot_s8(from, to, w->codes, NULL, w->indices, x);
        else
            *sums++ = narrow ? dot_f32(from, to, w->values, narrow, NULL, x) : dot_f32(from, to, w->values, NULL, w->indices, x);
    }
}
