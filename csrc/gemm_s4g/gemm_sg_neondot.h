/* The grouped tile with sdot: up to 4 rows x 32 columns in two halves of 16. Included inside a dotprod target region.
 *
 * sdot takes signed bytes: nibbles are, and bytes become so with their top bit flipped, which moves every zero by 128. */
#include "../neon.h"
#include "record_neon.h"

EC_INLINE int32x4_t dot(int32x4_t acc, int8x16_t w, int8x16_t x)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(w), "w"(x)); /* inline: see gemm_s8c_neondot.c */
    return acc;
}

EC_INLINE void tile(int mr, int bits, const ec_gemm_sg_tile *t)
{
    enum { V = 4 };
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    float32x4_t y[4][2 * V];
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < 2 * V; v++)
            y[i][v] = vdupq_n_f32(0);
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += ec_group_bytes(4 * t->quads, mr)) {
        const float *sx = (const float *)(const void *)(x + 4 * t->quads * mr);
        const int32_t *sum = (const int32_t *)(const void *)(sx + mr);
        for (int half = 0; half < 2; half++) {
            const uint8_t *codes = w + t->header + 64 * half;
            const int8_t *a = x;
            int32x4_t acc[4][V];
            EC_UNROLL(4)
            for (int v = 0; v < V; v++) {
                int32x4_t zero = vdupq_n_s32(t->zero == EC_ZERO_OFFSET ? 0 : 1);
                if (t->zero == EC_ZERO_POINT)
                    zero = vreinterpretq_s32_u32(zeros_at(ec_record_zeros(w, t->scale_bytes) + 16 * half + 4 * v));
                if (bits == 8) /* the top bit: 128 times what the panel's sum is a multiple of */
                    zero = t->zero == EC_ZERO_MIDDLE ? vdupq_n_s32(0) : vsubq_s32(zero, vdupq_n_s32(t->zero == EC_ZERO_POINT ? 128 : -128));
                EC_UNROLL(4)
                for (int i = 0; i < mr; i++)
                    acc[i][v] = vmulq_n_s32(zero, sum[i]);
            }
            for (int q = 0; q < t->quads; q += bits == 4 ? 2 : 1, codes += 4 * EC_STRIP, a += (bits == 4 ? 8 : 4) * mr) {
                int8x16_t low[V], high[V];
                EC_UNROLL(4)
                for (int v = 0; v < V; v++) {
                    const uint8x16_t c = vld1q_u8(codes + 16 * v);
                    low[v] = vreinterpretq_s8_u8(bits == 4 ? vandq_u8(c, vdupq_n_u8(15)) : veorq_u8(c, vdupq_n_u8(0x80)));
                    high[v] = vreinterpretq_s8_u8(vshrq_n_u8(c, 4));
                }
                EC_UNROLL(4)
                for (int i = 0; i < mr; i++) {
                    const int8x16_t first = bcast_quad(a + 4 * i);
                    EC_UNROLL(4)
                    for (int v = 0; v < V; v++)
                        acc[i][v] = dot(acc[i][v], low[v], first);
                    if (bits == 8)
                        continue;
                    const int8x16_t second = bcast_quad(a + 4 * (mr + i));
                    EC_UNROLL(4)
                    for (int v = 0; v < V; v++)
                        acc[i][v] = dot(acc[i][v], high[v], second);
                }
            }
            EC_UNROLL(4)
            for (int v = 0; v < V; v++) {
                const float32x4_t sw = floats(w, t->scale_bytes, 0, V * half + v);
                EC_UNROLL(4)
                for (int i = 0; i < mr; i++) {
                    float32x4_t *to = &y[i][V * half + v];
                    *to = vaddq_f32(*to, vmulq_f32(vcvtq_f32_s32(acc[i][v]), vmulq_n_f32(sw, sx[i])));
                    if (t->zero == EC_ZERO_OFFSET)
                        *to = vaddq_f32(*to, vmulq_n_f32(vmulq_n_f32(floats(w, t->scale_bytes, 1, V * half + v), sx[i]), (float)sum[i]));
                }
            }
        }
    }
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < t->cols; c++) {
            const float v = y[i][c / 4][c % 4] + t->bias[c];
            t->y[i * t->ldy + c] = t->relu && v <= 0 ? 0.0f : ec_canonical(v);
        }
}

EC_INLINE void tiles(int mr, int bits, const ec_gemm_sg_tile *t)
{
    switch (mr) {
    case 1: tile(1, bits, t); break;
    case 2: tile(2, bits, t); break;
    case 3: tile(3, bits, t); break;
    default: tile(4, bits, t);
    }
}
