/* float32 tile, NEON: up to 6 rows x 16 columns, 24 registers of sums. fmla takes one row's value from a lane of its last
 * operand: per 4 k and row one load of x and 16 fmla. */
#include "gemm_f32.h"
#ifdef EC_ARM64
#include <arm_neon.h>

/* As inline asm: gcc copies the lane into a register of its own instead. The lane has to be a literal. */
EC_INLINE float32x4_t fma_lane(float32x4_t acc, float32x4_t w, float32x4_t x, int lane)
{
    switch (lane) {
    case 0: __asm__("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(acc) : "w"(w), "w"(x)); break;
    case 1: __asm__("fmla %0.4s, %1.4s, %2.s[1]" : "+w"(acc) : "w"(w), "w"(x)); break;
    case 2: __asm__("fmla %0.4s, %1.4s, %2.s[2]" : "+w"(acc) : "w"(w), "w"(x)); break;
    default: __asm__("fmla %0.4s, %1.4s, %2.s[3]" : "+w"(acc) : "w"(w), "w"(x));
    }
    return acc;
}

/* 4 columns of one row: quarter h of the panel. */
EC_INLINE void finish(const ec_gemm_f32_tile *t, int i, int h, float32x4_t acc)
{
    float *y = t->y + i * t->ldy + 4 * h;
    if (!t->first)
        acc = vaddq_f32(acc, vld1q_f32(y));
    if (t->last) {
        acc = vaddq_f32(acc, vld1q_f32(t->bias + 4 * h));
        if (t->relu) /* not > 0 and not NaN: +0 */
            acc = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(acc), vclezq_f32(acc)));
    }
    vst1q_f32(y, acc);
}

/* sets: how many k are summed separately, so that small tiles still have enough independent sums. */
EC_INLINE void tile(int mr, int sets, const ec_gemm_f32_tile *t)
{
    const float *x = t->x, *w = t->w;
    float32x4_t acc[4][6][4];
    EC_UNROLL(4)
    for (int s = 0; s < sets; s++)
        EC_UNROLL(6)
        for (int i = 0; i < mr; i++)
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                acc[s][i][h] = vdupq_n_f32(0);
    int64_t k = t->k;
    for (; k >= 4; k -= 4, w += 64, x += 4 * mr)
        EC_UNROLL(4)
        for (int u = 0; u < 4; u++) {
            float32x4_t b[4];
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                b[h] = vld1q_f32(w + 16 * u + 4 * h);
            EC_UNROLL(6)
            for (int i = 0; i < mr; i++) {
                const int lane = mr * u + i; /* of the 4 * mr in this step's vectors of x */
                const float32x4_t a = vld1q_f32(x + lane / 4 * 4);
                EC_UNROLL(4)
                for (int h = 0; h < 4; h++)
                    acc[u % sets][i][h] = fma_lane(acc[u % sets][i][h], b[h], a, lane % 4);
            }
        }
    for (; k > 0; k--, w += 16, x += mr)
        EC_UNROLL(6)
        for (int i = 0; i < mr; i++)
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                acc[0][i][h] = vfmaq_n_f32(acc[0][i][h], vld1q_f32(w + 4 * h), x[i]);
    EC_UNROLL(6)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++) {
            EC_UNROLL(4)
            for (int s = 1; s < sets; s++)
                acc[0][i][h] = vaddq_f32(acc[0][i][h], acc[s][i][h]);
            finish(t, i, h, acc[0][i][h]);
        }
}

/* The tile stores whole vectors: a panel of which fewer columns exist goes through a buffer. */
static void ragged(int mr, const ec_gemm_f32_tile *t)
{
    float y[EC_MAX_ROWS][EC_PANEL] = {{0}}, bias[EC_PANEL] = {0};
    const size_t bytes = 4 * (size_t)t->cols;
    ec_gemm_f32_tile whole = *t;
    whole.cols = EC_PANEL;
    whole.ldy = EC_PANEL;
    whole.y = y[0];
    whole.bias = bias;
    memcpy(bias, t->bias, bytes);
    for (int i = 0; i < mr && !t->first; i++)
        memcpy(y[i], t->y + i * t->ldy, bytes);
    ec_gemm_f32_tile_neon(mr, 1, &whole);
    for (int i = 0; i < mr; i++)
        memcpy(t->y + i * t->ldy, y[i], bytes);
}

void ec_gemm_f32_tile_neon(int mr, int nv, const ec_gemm_f32_tile *t)
{
    assert(nv == 1);
    (void)nv;
    if (t->cols < EC_PANEL) {
        ragged(mr, t);
        return;
    }
    switch (mr) {
    case 1: tile(1, 4, t); break;
    case 2: tile(2, 2, t); break;
    case 3: tile(3, 1, t); break;
    case 4: tile(4, 1, t); break;
    case 5: tile(5, 1, t); break;
    default: tile(6, 1, t);
    }
}
#endif
