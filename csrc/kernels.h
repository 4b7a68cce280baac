/* Private to csrc: what all ops share. What the driver and the kernels of one op agree on is <op>/<op>.h; the public contract is
 * edgecomp.h. */
#ifndef EC_KERNELS_H
#define EC_KERNELS_H
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "edgecomp.h"

#if defined(__x86_64__)
#define EC_X86 1
#elif defined(__AARCH64EL__)
#define EC_ARM64 1
#endif

/* One translation unit per ISA, built without -m flags: functions between these two may use the named features. Include
 * <immintrin.h> or <arm_neon.h> before. */
#define EC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define EC_TARGET_BEGIN(isa) EC_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define EC_TARGET_END EC_PRAGMA(clang attribute pop)
#else
#ifdef EC_ARM64 /* gcc wants the architecture with its extension */
#define EC_TARGET_BEGIN(isa) EC_PRAGMA(GCC push_options) EC_PRAGMA(GCC target("arch=armv8.2-a+" isa))
#else
#define EC_TARGET_BEGIN(isa) EC_PRAGMA(GCC push_options) EC_PRAGMA(GCC target(isa))
#endif
#define EC_TARGET_END EC_PRAGMA(GCC pop_options)
#endif

/* Before a loop of at most n iterations that is to be unrolled whole. clang takes a number only if it is the exact one. */
#if defined(__clang__)
#define EC_UNROLL(n) EC_PRAGMA(clang loop unroll(full))
#else
#define EC_UNROLL(n) EC_PRAGMA(GCC unroll n)
#endif

#define EC_INLINE static inline __attribute__((always_inline))
#define EC_MIN(a, b) ((a) < (b) ? (a) : (b))

enum {
    EC_PANEL = 16,   /* weight columns (output features) in a panel: one ZMM, two YMM or four NEON vectors of 32-bit sums */
    EC_MAX_ROWS = 8, /* most rows of a tile, but for EC_TALL_ROWS, EC_S8C_ROWS and EC_SQUARES */
    EC_MAX_VECS = 3, /* most panels of a tile */
    EC_TILE_COLS = EC_PANEL * EC_MAX_VECS,
    EC_MAX_THREADS = 1024
};

/* Whether this CPU's memory is so far away that software prefetching pays for few rows: 0 or 1, found once (cpus.c). */
int ec_memory_is_far(void);

/* Bytes ahead that weights are prefetched into L2, besides what is prefetched into L1: L2 has room for more requests. Kernels do so
 * where memory is far; those of CSR, which take long over an entry, everywhere. */
enum { EC_FAR_AHEAD = 16384 };

/* Bytes ahead that tiles of several rows prefetch weights into L1, where no tile has read them before. */
enum { EC_NEAR_AHEAD = 2048 };

static inline int64_t ec_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The distance of rows of so many bytes: an odd number of cache lines, so that the rows do not share a few sets of the cache. */
static inline int64_t ec_odd_lines(int64_t bytes) { return 64 * (ec_div_up(bytes, 64) | 1); }

/* The first whole cache line from p on: what drivers lay out in a workspace begins there. */
static inline void *ec_line_from(void *p) { return (void *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

/* Where range i begins if [0, total) is cut into `parts` nearly equal ranges, 0 <= i <= parts. Tiles of 5 + 5 rows beat 8 + 2. */
static inline int64_t ec_part(int64_t total, int64_t parts, int64_t i) { return total / parts * i + EC_MIN(total % parts, i); }

/* v; for every NaN the one with the bits 0x7FC00000: CPUs differ in sign and payload of those they make. */
EC_INLINE float ec_canonical(float v)
{
    static const union { uint32_t bits; float f; } quiet_nan = {0x7FC00000};
    return v == v ? v : quiet_nan.f;
}

/* Stands in for a bias that is NULL: adding -0.0 changes no value. */
extern const float ec_no_bias[EC_TILE_COLS];

/* ---- threads.c --------------------------------------------------------------------------------------------------- */

/* The threads that a caller's limit means, 1 .. EC_MAX_THREADS: 0 is the default. */
int ec_thread_limit(int threads);

/* Runs task(ctx, i, thread) for every i in [0, count) on the caller and at most threads - 1 workers, and returns when all are done.
 * Each thread takes a part of [0, count) in order, then helps with the others' parts. `thread` is 0 .. threads - 1, an index for
 * scratch. Tasks run in the default floating-point mode. Returns whether the pool was used: it is not with one thread or one index, nor
 * while it is busy. */
typedef void ec_task(void *ctx, int64_t i, int thread);
int ec_parallel(int threads, int64_t count, ec_task *task, void *ctx);
enum { EC_CHUNKS_PER_THREAD = 8 }; /* that drivers make, so that a late thread costs an eighth of its share at most */
#endif
