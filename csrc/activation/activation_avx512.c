/* Activations, AVX-512. */
#include "activation.h"
#ifdef EC_X86
#include <immintrin.h>
#ifdef __clang__ /* it has no such target option, and vectorises with 256 bits */
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma")
#else
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#include "vmath.h"

#include "activation_loops.h"

void ec_activation_avx512(int act, int64_t rows, int64_t cols, float *y, int64_t ldy) { activate(act, rows, cols, y, ldy); }
EC_TARGET_END
#endif
