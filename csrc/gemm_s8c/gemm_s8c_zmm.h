/* What the 512-bit int8 kernels, dense and N:M, share. Included inside their target region. */
#include "../zmm.h"

/* As inline asm: gcc's partial-redundancy pass copies and spills the accumulators of the intrinsic (a factor of two). */
EC_INLINE __m512i dot(__m512i acc, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "vm"(s8));
    return acc;
}

/* What finishes the sums of 16 columns. By value: else the compiler reloads it after each store to y, which might have changed the
 * tile. */
typedef struct {
    __m512 sw, bias;
    __m512i fix;
    __mmask16 mask;
} columns;

EC_INLINE columns columns_of(const ec_gemm_s8c_tile *t, int v)
{
    const int left = t->cols - 16 * v;
    const __mmask16 mask = left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1);
    const __m512i fix = _mm512_set1_epi32(t->relu ? FIX_NAN_AND_RELU : FIX_NAN);
    return (columns){_mm512_loadu_ps(t->sw + 16 * v), _mm512_maskz_loadu_ps(mask, t->bias + 16 * v), fix, mask};
}

/* Dequantises one row, adds the bias, clamps and stores. Promise 1 (docs/numerics.md) fixes the order and forbids fma. */
EC_INLINE void finish(columns c, __m512i acc, float sx, float *y)
{
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    const __m512 sum = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_set1_ps(sx)), c.sw), c.bias);
    _mm512_mask_storeu_ps(y, c.mask, _mm512_fixupimm_ps(nan, sum, c.fix, 0));
}
