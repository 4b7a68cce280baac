/* The distillation loss, AVX2: 8 classes at a time. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

enum { LANES = 8 };
typedef __m256 vf;
EC_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
EC_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
EC_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
EC_INLINE void vstream(float *p, vf v) { _mm256_stream_ps(p, v); }

#include "kd_loops.h"

const ec_kd_loss_impl ec_kd_loss_avx2 = {extremes, forward, squares, refine, rest, pair, gradient};
EC_TARGET_END
#endif
