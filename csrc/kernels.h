/* Private to csrc: what all ops share. What kernels and driver of one agree on is <op>/<op>.h; the public contract is edgecomp.h. */
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

/* One translation unit per ISA, built without -m flags: what stands between these two may use the named features.
 * <immintrin.h> or <arm_neon.h> has to be included before. */
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

/* Before a loop of at most n turns that has to go. clang takes n only if it is exactly the number of turns. */
#if defined(__clang__)
#define EC_UNROLL(n) EC_PRAGMA(clang loop unroll(full))
#else
#define EC_UNROLL(n) EC_PRAGMA(GCC unroll n)
#endif

#define EC_INLINE static inline __attribute__((always_inline))
#define EC_MIN(a, b) ((a) < (b) ? (a) : (b))

enum {
    EC_PANEL = 16,   /* weight columns (output features) in a panel: one ZMM, two YMM or four NEON vectors of 32-bit sums */
    EC_MAX_ROWS = 8, /* most rows a tile takes from a panel, but for EC_TALL_ROWS */
    EC_MAX_VECS = 3, /* most panels a tile takes */
    EC_TILE_COLS = EC_PANEL * EC_MAX_VECS,
    EC_MAX_THREADS = 1024
};

/* Whether this CPU's memory is so far away that prefetching in software pays for few rows. */
int ec_memory_is_far(void);

/* Bytes that streams ask for ahead of their use into L2, beside what they ask for into L1: L2 has room for more requests. Some do where memory is
 * far, and those of CSR, whose use of an entry takes long, everywhere. */
enum { EC_FAR_AHEAD = 16384 };

/* Bytes that several rows ask for weights ahead into L1, which no tile has had before. */
enum { EC_NEAR_AHEAD = 2048 };

static inline int64_t ec_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Bytes from row to row, for rows of so many: an odd number of lines, so that they do not share a few sets of the cache. */
static inline int64_t ec_odd_lines(int64_t bytes) { return 64 * (ec_div_up(bytes, 64) | 1); }

/* [0, total) cut into `parts` nearly equal ranges: where range i begins. Tiles of 5 + 5 rows beat 8 + 2. */
static inline int64_t ec_part(int64_t total, int64_t parts, int64_t i) { return total / parts * i + EC_MIN(total % parts, i); }

/* v, and for every NaN the one with the bits 0x7FC00000: CPUs differ in sign and payload of those they make. */
EC_INLINE float ec_canonical(float v)
{
    static const union { uint32_t bits; float f; } quiet_nan = {0x7FC00000};
    return v == v ? v : quiet_nan.f;
}

/* The bias of who has none: adding -0.0 changes no value. */
extern const float ec_no_bias[EC_TILE_COLS];

/* ---- threads.c --------------------------------------------------------------------------------------------------- */

/* What a caller's limit means: 0 the default, and never above EC_MAX_THREADS. */
int ec_thread_limit(int threads);

/* Runs task(ctx, i, thread) for i in [0, count), by the caller and at most threads - 1 workers. Each takes a part of [0, count) in order, and
 * then what others have left of theirs.
 * thread is 0 .. threads - 1: an index for scratch. On every thread the floating-point mode is the default meanwhile.
 * Returns whether it was handed to the pool: not with one thread or one index, nor while the pool is busy. */
typedef void ec_task(void *ctx, int64_t i, int thread);
int ec_parallel(int threads, int64_t count, ec_task *task, void *ctx);
enum { EC_CHUNKS_PER_THREAD = 8 }; /* that drivers make, so that a thread that is late costs an eighth of its share at most */
#endif
