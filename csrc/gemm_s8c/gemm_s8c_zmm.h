/* What the 512-bit int8 kernels of N:M weights share with the dense tile's arithmetic. Included inside their target region. */

/* As inline asm: see gemm_s8c_avx512vnni.c. */
EC_INLINE __m512i dot(__m512i acc, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "vm"(s8));
    return acc;
}

EC_INLINE __mmask16 columns(const ec_gemm_s8c_tile *t, int v)
{
    const int left = t->cols - 16 * v;
    return left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1);
}

/* Dequantises 16 columns of one row, adds the bias, clamps and stores: as the dense tile does, which says why it is one vfixupimm. */
EC_INLINE void finish(const ec_gemm_s8c_tile *t, int64_t i, int v, __m512i acc)
{
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    const __m512i fix = _mm512_set1_epi32(t->relu ? 0x18181800 : 0x11111100);
    const __mmask16 mask = columns(t, v);
    __m512 y = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_set1_ps(t->sx[i])), _mm512_loadu_ps(t->sw + 16 * v));
    y = _mm512_fixupimm_ps(nan, _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, t->bias + 16 * v)), fix, 0);
    _mm512_mask_storeu_ps(t->y + i * t->ldy + 16 * v, mask, y);
}
