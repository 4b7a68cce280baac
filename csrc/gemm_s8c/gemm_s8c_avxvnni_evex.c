/* int8 tile, the AVX-VNNI source in AVX-512's encoding: where a CPU has VNNI in that form only, the 256-bit tile still runs. */
#include "gemm_s8c.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,avx512f,avx512vl,avx512vnni")
#define DOT "%{evex%} vpdpbusd"
#include "gemm_s8c_avxvnni.h"

void ec_gemm_s8c_tile_avxvnni_evex(int mr, int nv, const ec_gemm_s8c_tile *t) { any_tile(mr, nv, t); }
EC_TARGET_END
#endif
