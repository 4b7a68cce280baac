/* What the 256-bit int8 tiles share. Included inside their target region. */
#include "../ymm.h"

/* 8 columns of one row: half h of the tile's columns, counted from the first panel on. */
EC_INLINE void finish(const ec_gemm_s8c_tile *t, int i, int h, __m256i acc)
{
    const int left = t->cols - 8 * h;
    if (left <= 0)
        return;
    const __m256i mask = first_lanes(left);
    if (t->yi) {
        _mm256_maskstore_epi32(t->yi + i * t->ldy + 8 * h, mask, acc);
        return;
    }
    __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_set1_ps(t->sx[i]));
    y = _mm256_mul_ps(y, _mm256_loadu_ps(t->sw + 8 * h));
    y = _mm256_add_ps(y, left >= 8 ? _mm256_loadu_ps(t->bias + 8 * h) : _mm256_maskload_ps(t->bias + 8 * h, mask));
    /* max gives its second operand for a NaN and for two zeros: -0 becomes 0, and the blend restores the NaN */
    const __m256 low = t->relu ? _mm256_max_ps(y, _mm256_setzero_ps()) : y;
    y = _mm256_blendv_ps(low, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)), _mm256_cmp_ps(y, y, _CMP_UNORD_Q));
    if (left >= 8)
        _mm256_storeu_ps(t->y + i * t->ldy + 8 * h, y);
    else
        _mm256_maskstore_ps(t->y + i * t->ldy + 8 * h, mask, y);
}
