/* The loops whose speed is the machine's. */
#ifndef EC_ROOF_H
#define EC_ROOF_H
#include "../kernels.h"

/* Runs `reps` rounds of one loop and returns the operations or bytes done. Loops of memory read `bytes` of a, and write b if they copy;
 * the others do not touch a, b and bytes. */
typedef double ec_roof_fn(int64_t reps, float *a, float *b, size_t bytes);
ec_roof_fn ec_roof_tile_s8_amx;
ec_roof_fn ec_roof_dot_s8_avx512vnni, ec_roof_dot_s8_avxvnni, ec_roof_dot_s8_i8mm, ec_roof_dot_s8_neondot;
ec_roof_fn ec_roof_chain_s8_avx2, ec_roof_chain_s8_neon;
ec_roof_fn ec_roof_fma_f32_scalar, ec_roof_fma_f32_avx2, ec_roof_fma_f32_avx512, ec_roof_fma_f32_neon;
ec_roof_fn ec_roof_read_scalar, ec_roof_read_avx2, ec_roof_read_avx512, ec_roof_read_neon;
ec_roof_fn ec_roof_copy_scalar;
#endif
