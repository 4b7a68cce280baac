/* int8 tile, AVX-VNNI (VEX): client CPUs without AVX-512. */
#include "gemm_s8c.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,avxvnni")
#define DOT "%{vex%} vpdpbusd"
#include "gemm_s8c_avxvnni.h"

void ec_gemm_s8c_tile_avxvnni(int mr, int nv, const ec_gemm_s8c_tile *t) { any_tile(mr, nv, t); }
EC_TARGET_END
#endif
