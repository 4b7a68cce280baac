/* int4 tile of 7 to 12 rows x 16 columns, for CPUs whose two 512-bit units do all the vector work: a code is unpacked for 12 rows, not
 * for 6, and one GFNI product takes a high nibble down. The dot product itself broadcasts x, a load for each. No FP16 instruction is
 * used: AVX512-FP16 is how these CPUs are told. Up to 6 rows are gemm_s4g_avx512vnni.c's. */
#include "gemm_s4g.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,gfni")

#include "../gemm_s4g/gemm_sg_avx512vnni.h"

enum { BLOCK_INPUTS = 512 }; /* the codes and x of so many stay in L1 from one half of the columns to the other */

/* Adds `groups` groups to sums[mr] of vector v of the strip, whose codes are every second line. */
EC_INLINE void half(int mr, int kind, int v, int ahead, const ec_gemm_sg_tile *t, int64_t groups, const int8_t *x, const uint8_t *w,
                    __m512 *sums)
{
    const __m512i nibble = _mm512_set1_epi8(15), shift4 = _mm512_set1_epi64(0x1020408000000000);
    const int scale_bytes = t->scale_bytes;
    __m512 y[12];
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
        y[i] = sums[i];
    for (int64_t g = 0; g < groups; g++, w += t->record) {
        const uint8_t *codes = w + t->header + 64 * v;
        const int8_t *sx = x + 4 * t->quads * mr, *sum = sx + 4 * mr;
        __m512i acc[12];
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++)
            acc[i] = start(kind, t, w, v, bcast_quad(sum + 4 * i));
        for (int q = t->quads; q > 0; q -= 4) {
#pragma GCC unroll 2
            for (int l = 0; l < 2; l++, codes += 128, x += 8 * mr) {
                if (ahead)
                    prefetch(ahead, codes);
                const __m512i c = _mm512_loadu_si512(codes), low = _mm512_and_si512(c, nibble);
                const __m512i high = _mm512_gf2p8affine_epi64_epi8(c, shift4, 0);
#pragma GCC unroll 12
                for (int i = 0; i < mr; i++)
                    acc[i] = dot_quad(acc[i], low, x + 4 * i);
#pragma GCC unroll 12
                for (int i = 0; i < mr; i++)
                    acc[i] = dot_quad(acc[i], high, x + 4 * (mr + i));
            }
        }
        x += 8 * mr;
        const __m512 sw = floats(w, scale_bytes, 0, v);
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++) {
            y[i] = add_scaled(y[i], acc[i], sx + 4 * i, sw);
            __asm__ volatile("" : "+v"(y[i])); /* row by row: gcc would convert all sums first, which costs 4 % */
        }
        if (kind != EC_ZERO_OFFSET)
            continue;
        const __m512 offset = floats(w, scale_bytes, 1, v);
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++)
            y[i] = add_scaled(y[i], bcast_quad(sum + 4 * i), sx + 4 * i, offset);
    }
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
        sums[i] = y[i];
}

EC_INLINE void halves(int mr, int kind, const ec_gemm_sg_tile *t)
{
    const int64_t block = ec_div_up(BLOCK_INPUTS, 4 * t->quads), panel = ec_group_bytes(4 * t->quads, mr);
    __m512 y[2][12];
    for (int i = 0; i < mr; i++)
        y[0][i] = y[1][i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < t->groups; g += block) {
        const int64_t groups = EC_MIN(block, t->groups - g);
        half(mr, kind, 0, t->ahead, t, groups, t->x + g * panel, t->w + g * t->record, y[0]);
        if (t->cols > 16)
            half(mr, kind, 1, 0, t, groups, t->x + g * panel, t->w + g * t->record, y[1]);
    }
    finish(mr, t, 0, y[0]);
    finish(mr, t, 1, y[1]);
}

EC_INLINE void tall(int mr, const ec_gemm_sg_tile *t)
{
    switch (t->zero) {
    case EC_ZERO_MIDDLE: halves(mr, EC_ZERO_MIDDLE, t); break;
    case EC_ZERO_POINT: halves(mr, EC_ZERO_POINT, t); break;
    default: halves(mr, EC_ZERO_OFFSET, t);
    }
}

void ec_gemm_s4g_tile_avx512fp16(int mr, const ec_gemm_sg_tile *t)
{
    switch (mr) {
    case 7: tall(7, t); break;
    case 8: tall(8, t); break;
    case 9: tall(9, t); break;
    case 10: tall(10, t); break;
    case 11: tall(11, t); break;
    case 12: tall(12, t); break;
    default: ec_gemm_s4g_tile_avx512vnni(mr, t);
    }
}
EC_TARGET_END
#endif
