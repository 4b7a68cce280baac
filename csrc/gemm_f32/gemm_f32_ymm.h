/* What the 256-bit float32 tiles share. Included inside their target region. */
#include "../ymm.h"

/* 8 columns of one row: half h of the tile. */
EC_INLINE void finish(const ec_gemm_f32_tile *t, int i, int h, __m256 acc)
{
    const int left = t->cols - 8 * h;
    float *y = t->y + i * t->ldy + 8 * h;
    if (left <= 0)
        return;
    const __m256i mask = first_lanes(left);
    if (!t->first)
        acc = _mm256_add_ps(acc, left >= 8 ? _mm256_loadu_ps(y) : _mm256_maskload_ps(y, mask));
    if (t->last) {
        acc = _mm256_add_ps(acc, left >= 8 ? _mm256_loadu_ps(t->bias + 8 * h) : _mm256_maskload_ps(t->bias + 8 * h, mask));
        if (t->relu) /* not > 0 and not NaN: +0 */
            acc = _mm256_andnot_ps(_mm256_cmp_ps(acc, _mm256_setzero_ps(), _CMP_LE_OQ), acc);
    }
    if (left >= 8)
        _mm256_storeu_ps(y, acc);
    else
        _mm256_maskstore_ps(y, mask, acc);
}
