/* int4 tile with a scale per group, NEON with sdot. */
#include "gemm_s4g.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("dotprod")

#include "../gemm_s4g/gemm_sg_neondot.h"

void ec_gemm_s4g_tile_neondot(int mr, const ec_gemm_sg_tile *t) { tiles(mr, 4, t); }
EC_TARGET_END
#endif
