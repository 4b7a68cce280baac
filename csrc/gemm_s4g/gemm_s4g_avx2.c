/* int4 tile with a scale per group, AVX2. */
#include "gemm_s4g.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,f16c")

#include "../gemm_s4g/gemm_sg_avx2.h"

void ec_gemm_s4g_tile_avx2(int mr, const ec_gemm_sg_tile *t) { tiles(mr, 4, t); }
EC_TARGET_END
#endif
