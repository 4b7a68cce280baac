/* What the AVX-512 kernels of several ops share. Included inside their target region. */
#ifndef EC_ZMM_H
#define EC_ZMM_H

/* The first n of 16 lanes, n >= 0; all of them from 16 on. Not in the tiles of products, whose code gcc orders otherwise with it. */
EC_INLINE __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1); }

/* The four bytes at x in each lane. */
EC_INLINE __m512i bcast_quad(const void *x)
{
    int32_t v;
    memcpy(&v, x, 4);
    return _mm512_set1_epi32(v);
}

/* Tables of vfixupimm: a response for each class of the value, lowest nibble first: qnan, snan, zero, one, -inf, inf, negative,
 * positive. 0 keeps the first operand, 1 takes the value, 8 gives +0. With our NaN as the first operand one instruction is relu and the
 * rule of NaN. */
enum { FIX_NAN = 0x11111100, FIX_NAN_AND_RELU = 0x18181800 };
#endif
