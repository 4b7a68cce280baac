/* int8 tile with a scale per group, AVX-512 VNNI. */
#include "../gemm_s4g/gemm_s4g.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,prfchw")

#include "../gemm_s4g/gemm_sg_avx512vnni.h"

void ec_gemm_s8g_tile_avx512vnni(int mr, const ec_gemm_sg_tile *t) { tiles(mr, 8, t); }
EC_TARGET_END
#endif
