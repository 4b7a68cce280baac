/* Activations, NEON: fma is part of it. */
#include "activation.h"
#ifdef EC_ARM64
#include "vmath.h"

#include "activation_loops.h"

void ec_activation_neon(int act, int64_t rows, int64_t cols, float *y, int64_t ldy) { activate(act, rows, cols, y, ldy); }
#endif
