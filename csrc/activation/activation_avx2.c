/* Activations, AVX2. */
#include "activation.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")
#include "vmath.h"

#include "activation_loops.h"

void ec_activation_avx2(int act, int64_t rows, int64_t cols, float *y, int64_t ldy) { activate(act, rows, cols, y, ldy); }
EC_TARGET_END
#endif
