/* The loops whose speed is the machine's. */
#ifndef EC_ROOF_H
#define EC_ROOF_H
#include "../kernels.h"

/* Runs `reps` rounds of one loop over a (and b), returns the operations or bytes done. */
typedef double ec_roof_fn(int64_t reps, float *a, float *b, size_t bytes);
#endif
