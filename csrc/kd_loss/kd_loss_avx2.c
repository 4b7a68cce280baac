/* The distillation loss, AVX2: 8 classes at a time. */
#include "kd_loss.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

enum { LANES = 8, SIDE = 8 /* of what `turn` turns */ };
typedef __m256 vf;
EC_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
EC_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
EC_INLINE vf vlookup(const int32_t *table, vf at)
{
    return _mm256_permutevar8x32_ps(_mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)table)), _mm256_castps_si256(at));
}
EC_INLINE void vstream(float *p, vf v) { _mm256_stream_ps(p, v); }

#include "../gemm_f32/transpose_ymm.h"
#include "kd_loops.h"
#include "kd_short.h"

const ec_kd_loss_impl ec_kd_loss_avx2 = {
    maxima, forward, squares, refine, rest, pair, gradient, LANES,
    short_forward, short_log, short_refine, short_rest, short_gradient,
};
EC_TARGET_END
#endif
