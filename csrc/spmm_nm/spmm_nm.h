/* N:M sparse weights: places, and the float32 kernels. */
#ifndef EC_SPMM_NM_H
#define EC_SPMM_NM_H
#include "../gemm_f32/gemm_f32.h"

/* A float32 tile of one panel of weights whose line e of x is not the e-th but input[e]: t->x [..][mr]. */
typedef void ec_spmm_nm_tile_fn(int mr, const ec_gemm_f32_tile *t, const int32_t *input);

/* 1 to 8 rows times a panel of outputs that have places of their own. Up to 16 neighbouring inputs of x from window[e] on hold kept input e
 * of all outputs: each has its own at base[e] | place. May read 16 floats from a window, wherever x ends.
 *
 * With every word of places x advances by word_x and the tables by word_at: patterns that repeat from word to word need no tables of all
 * inputs, which would take half of L1. */
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

/* The driver of these: up to 8 rows at a time, with the workspace of ec_spmm_nm. */
size_t ec_nm_rows_workspace(int64_t m, int64_t k, const ec_nm *w);
int ec_nm_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy,
                  int threads, void *workspace, size_t size);

/* Some kept inputs of a block times one panel of outputs and 32 or 48 tokens, the lanes: sums = (first ? 0 : sums) + w * x. */
typedef struct {
    int64_t kept;
    int first;
    const int32_t *input; /* [kept]: lines of x */
    const float *x;       /* [..][lanes], aligned to 64 */
    const float *w;       /* [kept][16] */
    float *sums;          /* [16][lanes], aligned to 64 */
    const float *ahead;   /* weights to bring into L2 meanwhile, */
    int64_t ahead_lines;  /* in cache lines */
} ec_nm_lanes;
typedef void ec_nm_lanes_fn(int lanes, const ec_nm_lanes *t);

/* The driver with tokens in the lanes, and whether it is faster; its workspace is counted by ec_spmm_nm_workspace. */
int ec_nm_in_lanes(int64_t m, const ec_nm *w);
size_t ec_nm_lanes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm_by_lanes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy,
                   int threads, void *workspace, size_t size);

/* The kept inputs of a block of outputs: the places of its words, from the first input of each one's group on. */
typedef void ec_nm_inputs_fn(int bits, int64_t kept, const uint32_t *words, const int32_t *group, int32_t *input);

/* Inputs that each output keeps; bits of a place; words of 32 bits that hold the places of an output or a block. */
static inline int64_t ec_nm_kept(int64_t k, const ec_nm *w) { return k / w->m * w->n + EC_MIN(w->n, k % w->m); }
static inline int ec_nm_bits(const ec_nm *w) { return w->m <= 4 ? 2 : 4; }
static inline int64_t ec_nm_words(int64_t kept, const ec_nm *w) { return ec_div_up(kept, 32 / ec_nm_bits(w)); }

/* Where the group of each kept input begins. */
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

/* From an int8 activation panel [..][mr][4] the inputs input[4 * quads], as a panel [quads][mr][4]. paired: of every two inputs both are of
 * the same quad. May read and write 32 bytes from the last quad on, wherever it ends. */
typedef void ec_gather_s8_fn(int mr, int paired, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out);

typedef struct {
    ec_spmm_nm_tile_fn *tile; /* or NULL: gather, then gemm_f32 */
    int rows;
    int64_t block;            /* inputs of a block: what of them is gathered, or found, stays in L1 */
} ec_spmm_nm_impl;

const ec_spmm_nm_impl *ec_use_spmm_nm(void);
ec_nm_inputs_fn *ec_use_nm_inputs(void);
ec_nm_lanes_fn *ec_use_nm_lanes(void); /* or NULL */
ec_nm_rows_fn *ec_use_nm_rows(void);
ec_gather_s8_fn *ec_use_gather_s8(void);
#endif
