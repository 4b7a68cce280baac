/* The loops whose speed is the machine's. */
#ifndef EC_ROOF_H
#define EC_ROOF_H
#include "../kernels.h"

/* Runs `reps` rounds of one loop and returns the operations or bytes done. Loops of memory read `bytes` of a, and write b if they copy;
 * the others do not touch a, b and bytes. */
typedef double ec_roof_fn(int64_t reps, float *a, float *b, size_t bytes);
#endif
