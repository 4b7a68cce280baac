/* Few rows times grouped weights, AVX-512: 32 outputs at a time. One row of int4 has a kernel of its own, in which a nibble is the
 * index of a table of floats: gemv_sg.h would take too many instructions. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

#include "../gemm_s4g/record_zmm.h"

enum { LANES = 16, CHAINS = 2 };
typedef __m512 vec;

EC_INLINE vec set1(float v) { return _mm512_set1_ps(v); }
EC_INLINE vec set1_bits(uint32_t v) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)v)); }
EC_INLINE vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
EC_INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
EC_INLINE vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
EC_INLINE vec load(const float *at) { return _mm512_loadu_ps(at); }
EC_INLINE void store(float *to, vec v) { _mm512_storeu_ps(to, v); }
EC_INLINE vec words(const uint8_t *at) { return _mm512_loadu_ps((const float *)(const void *)at); }
EC_INLINE vec shifted(vec v, int down) { return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(v), (unsigned)down)); }

EC_INLINE vec field(vec v, vec mask, vec magic)
{
    const __m512i a = _mm512_castps_si512(v), b = _mm512_castps_si512(mask), c = _mm512_castps_si512(magic);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(a, b, c, 0xEA)); /* a & b | c */
}

EC_INLINE vec bytes(const uint8_t *at) { return _mm512_cvtepi32_ps(zeros_at(at)); }

#include "gemv_sg.h"

/* sum + w * *x: reading x into a register first is a vector operation more. */
EC_INLINE vec fused_mem(vec w, const float *x, vec sum)
{
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*x));
    return sum;
}

/* The floats of eight nibbles of 16 words each, in the order of the inputs. vpermps takes the lowest four bits of a word as its index;
 * vpermw the lowest bits of the upper half, for which the floats' upper halves will do. So two nibbles of a word need no shift. Two
 * others are made as in gemv_sg.h, as the permutations' unit is busy. */
EC_INLINE void nibbles(__m512i v, int middle, vec *w)
{
    const vec table = _mm512_sub_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), set1((float)middle));
    const __m512i by_twos = _mm512_setr_epi32(0x30001, 0x70005, 0xB0009, 0xF000D, 0x130011, 0x170015, 0x1B0019, 0x1F001D,
                                              0x30001, 0x70005, 0xB0009, 0xF000D, 0x130011, 0x170015, 0x1B0019, 0x1F001D);
    const __m512i halves = _mm512_permutexvar_epi16(by_twos, _mm512_castps_si512(table)), by4 = _mm512_srli_epi32(v, 4),
                  by8 = _mm512_srli_epi32(v, 8), by12 = _mm512_srli_epi32(v, 12);
    w[0] = _mm512_permutexvar_ps(v, table);
    w[1] = sub(field(_mm512_castsi512_ps(v), set1_bits(15 << 8), set1(1 << 15)), set1((float)((1 << 15) + middle)));
    w[2] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, v, halves));
    w[3] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, by8, halves));
    w[4] = _mm512_permutexvar_ps(by4, table);
    w[5] = sub(field(_mm512_castsi512_ps(v), set1_bits(15 << 12), set1(1 << 11)), set1((float)((1 << 11) + middle)));
    w[6] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, by4, halves));
    w[7] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, by12, halves));
}

EC_INLINE void one_row(int kind, const ec_gemv_sg *t)
{
    enum { SUMS = 2, AHEAD = 6144 };
    const int64_t record_bytes = (int64_t)ec_record_bytes(t->form, 4);
    const int header = ec_header_bytes(t->form), scale_bytes = t->form->scale_bytes, far = ec_memory_is_far();
    const uint8_t *record = t->w;
    const float *x = t->x;
    vec y[H] = {set1(0), set1(0)};
    for (int64_t g = 0; g < t->groups; g++, record += record_bytes) {
        const uint8_t *codes = record + header;
        vec scale[H], other[H], acc[H][SUMS];
        EC_UNROLL(2)
        for (int h = 0; h < H; h++) {
            scale[h] = floats(record, scale_bytes, 0, h);
            if (kind != EC_ZERO_MIDDLE)
                other[h] = kind == EC_ZERO_POINT ? bytes(ec_record_zeros(record, scale_bytes) + LANES * h)
                                                 : floats(record, scale_bytes, 1, h);
            EC_UNROLL(4)
            for (int s = 0; s < SUMS; s++)
                acc[h][s] = set1(0);
        }
        for (int k = t->form->group; k > 0; k -= 16)
            EC_UNROLL(2)
            for (int l = 0; l < 2; l++, codes += 4 * EC_STRIP, x += 8)
                EC_UNROLL(2)
                for (int h = 0; h < H; h++) {
                    __m512i v = _mm512_loadu_si512(codes + 4 * LANES * h);
                    _mm_prefetch((const char *)codes + 4 * LANES * h + AHEAD, _MM_HINT_T0);
                    if (far && h == 0)
                        _mm_prefetch((const char *)codes + EC_FAR_AHEAD, _MM_HINT_T1);
                    __asm__("" : "+v"(v)); /* else gcc loads it again and again */
                    vec w[8];
                    nibbles(v, kind == EC_ZERO_MIDDLE ? 8 : 0, w);
                    EC_UNROLL(8)
                    for (int i = 0; i < 8; i++) {
                        if (kind == EC_ZERO_POINT)
                            w[i] = sub(w[i], other[h]);
                        if (kind == EC_ZERO_OFFSET)
                            w[i] = fused(w[i], scale[h], other[h]);
                        acc[h][i % SUMS] = fused_mem(w[i], x + i, acc[h][i % SUMS]);
                    }
                }
        EC_UNROLL(2)
        for (int h = 0; h < H; h++) {
            const vec sum = add(acc[h][0], acc[h][1]);
            y[h] = kind == EC_ZERO_OFFSET ? add(y[h], sum) : fused(sum, scale[h], y[h]);
        }
    }
    store(t->sums, y[0]);
    store(t->sums + LANES, y[1]);
}

void ec_gemv_sg_avx512(int mr, const ec_gemv_sg *t)
{
    if (mr == 1 && t->bits == 4)
        switch (t->form->zero) {
        case EC_ZERO_MIDDLE: one_row(EC_ZERO_MIDDLE, t); break;
        case EC_ZERO_POINT: one_row(EC_ZERO_POINT, t); break;
        default: one_row(EC_ZERO_OFFSET, t);
        }
    else if (t->bits == 4)
        strips(mr, 4, t);
    else
        strips(mr, 8, t);
}
EC_TARGET_END
#endif
