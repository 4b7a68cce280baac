/* The distillation loss, AVX-512: 16 classes at a time. */
#include "kd_loss.h"
#ifdef EC_X86
#include <immintrin.h>
#ifdef __clang__ /* it has no such target option */
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma")
#else
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif

enum { LANES = 16, SIDE = 8 /* of what `turn` turns */ };
typedef __m512 vf;
EC_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
EC_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x); }
EC_INLINE vf vlookup(const int32_t *table, vf at)
{
    const __m512i twice = _mm512_broadcast_i32x8(_mm256_loadu_si256((const __m256i *)table));
    return _mm512_permutexvar_ps(_mm512_castps_si512(at), _mm512_castsi512_ps(twice));
}
EC_INLINE void vstream(float *p, vf v) { _mm512_stream_ps(p, v); }

#include "../gemm_f32/transpose_ymm.h"
#include "kd_loops.h"
#include "kd_short.h"

const ec_kd_loss_impl ec_kd_loss_avx512 = {
    maxima, forward, squares, refine, rest, pair, gradient, LANES,
    short_forward, short_log, short_refine, short_rest, short_gradient,
};
EC_TARGET_END
#endif
