/* N:M sparse weights: places, and the float32 kernels. */
#ifndef EC_SPMM_NM_H
#define EC_SPMM_NM_H
#include "../gemm_f32/gemm_f32.h"

/* A float32 tile (ec_gemm_f32_tile) of one panel of weights, in which kept input e is line input[e] of t->x, [..][mr]. */
typedef void ec_spmm_nm_tile_fn(int mr, const ec_gemm_f32_tile *t, const int32_t *input);
ec_spmm_nm_tile_fn ec_spmm_nm_tile_avx2, ec_spmm_nm_tile_avx512;

/* 1 to 8 rows times a panel of outputs with places of their own. Kept input e of each output is among 16 neighbouring inputs of x from
 * window[e] on, at base[e] | place. All 16 are read, wherever x ends.
 *
 * With every word of places x advances by word_x and the tables by word_at: a pattern that repeats from word to word needs no tables of
 * all inputs, which would take half of L1. */
typedef struct {
    int64_t kept;
    int bits;
    const float *x;          /* rows, aligned to 64, */
    int64_t ldx;             /* floats apart: a multiple of 16 */
    const int32_t *window, *base;
    int64_t word_x, word_at;
    const float *w;          /* [kept][16] */
    const uint32_t *places;  /* words [..][16] */
    const float *bias;       /* [cols] */
    float *y;                /* [mr][ldy] */
    int64_t ldy;
    int cols, relu;
} ec_nm_rows;
typedef void ec_nm_rows_fn(int mr, const ec_nm_rows *p);
ec_nm_rows_fn ec_nm_rows_scalar, ec_nm_rows_avx512;

/* The driver of these kernels, of float32 weights of block 1. The workspace query is ec_spmm_nm_workspace. */
size_t ec_nm_rows_workspace(int64_t m, int64_t k, const ec_nm *w);
int ec_nm_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
                  int64_t ldy, int threads, void *workspace, size_t size);

/* Some kept inputs of a block times one panel of outputs and 32 or 48 tokens, which fill the lanes: sums = (first ? 0 : sums) + w * x. */
typedef struct {
    int64_t kept;
    int first;
    const int32_t *input; /* [kept]: lines of x */
    const float *x;       /* [..][lanes], aligned to 64 */
    const float *w;       /* [kept][16] */
    float *sums;          /* [16][lanes], aligned to 64 */
    const float *ahead;   /* weights to prefetch into L2 meanwhile, */
    int64_t ahead_lines;  /* in cache lines */
} ec_nm_lanes;
typedef void ec_nm_lanes_fn(int lanes, const ec_nm_lanes *t);
ec_nm_lanes_fn ec_nm_lanes_avx512fp16;

/* The driver with tokens in the lanes, and whether it is faster. The workspace query is ec_spmm_nm_workspace. */
int ec_nm_in_lanes(int64_t m, const ec_nm *w);
size_t ec_nm_lanes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm_by_lanes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
                   int64_t ldy, int threads, void *workspace, size_t size);

/* input[kept] = the kept inputs of a block of outputs: for each the first input of its group, group[kept], plus its place in `words`. */
typedef void ec_nm_inputs_fn(int bits, int64_t kept, const uint32_t *words, const int32_t *group, int32_t *input);
ec_nm_inputs_fn ec_nm_inputs_scalar, ec_nm_inputs_avx512;

/* Inputs that each output keeps; bits of a place; words of 32 bits that hold the places of an output or a block. */
static inline int64_t ec_nm_kept(int64_t k, const ec_nm *w) { return k / w->m * w->n + EC_MIN(w->n, k % w->m); }
static inline int ec_nm_bits(const ec_nm *w) { return w->m <= 4 ? 2 : 4; }
static inline int64_t ec_nm_words(int64_t kept, const ec_nm *w) { return ec_div_up(kept, 32 / ec_nm_bits(w)); }

/* group[kept] = the first input of each kept input's group. */
static inline void ec_nm_groups(int64_t kept, const ec_nm *w, int32_t *group)
{
    for (int64_t e = 0, first = 0; e < kept; first += w->m)
        for (int i = 0; i < w->n && e < kept; i++)
            group[e++] = (int32_t)first;
}

/* Place of kept input e among the words of its output or block, which are `stride` apart: entry 4 i + b of a word is in byte b, from bit
 * bits * i on. */
static inline int ec_nm_place(const uint32_t *words, int64_t stride, int bits, int64_t e)
{
    const int64_t each = 32 / bits, i = e % each;
    return (int)(words[e / each * stride] >> (8 * (i % 4) + bits * (i / 4)) & ((1u << bits) - 1));
}

/* Gathers the inputs input[4 * quads] of an int8 activation panel [..][mr][4] into a panel [quads][mr][4]. paired: every two inputs are
 * of the same quad. May read and write 32 bytes from the last quad on, wherever the panel ends. */
typedef void ec_gather_s8_fn(int mr, int paired, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out);
ec_gather_s8_fn ec_gather_s8_scalar, ec_gather_s8_avx2;

typedef struct {
    ec_spmm_nm_tile_fn *tile; /* or NULL: gather, then gemm_f32 */
    int rows;
    int64_t block;            /* inputs of a block: what is gathered or found of them stays in L1 */
} ec_spmm_nm_impl;

const ec_spmm_nm_impl *ec_use_spmm_nm(void);
ec_nm_inputs_fn *ec_use_nm_inputs(void);
ec_nm_lanes_fn *ec_use_nm_lanes(void); /* or NULL */
ec_nm_rows_fn *ec_use_nm_rows(void);
ec_gather_s8_fn *ec_use_gather_s8(void);
#endif
