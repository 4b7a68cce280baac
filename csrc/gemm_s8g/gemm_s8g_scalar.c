/* int8 tile with a scale per group, plain C. */
#include "../gemm_s4g/gemm_sg_scalar.h"

void ec_gemm_s8g_tile_scalar(int mr, const ec_gemm_sg_tile *t) { tile(mr, 8, t); }
