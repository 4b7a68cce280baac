/* Unstructured sparse weights: the forms that are derived from them, and their kernels. */
#ifndef EC_SPMM_CSR_H
#define EC_SPMM_CSR_H
#include "../kernels.h"

/* Most tokens that pass a block of a weight's form together: of EC_CSR_PAIRS, of EC_CSR_BLOCKS. */
enum { EC_MAX_LANES = 128, EC_LANES1 = 64 };

/* One block times some tokens, the lanes: sums = (first ? 0 : sums) + w * x. Row order[i] of the block has count[i] entries, the next
 * ones of `local`, an entry's input within the block, and of `value`. Counts fall, so that the CPU can predict where rows end. */
typedef struct {
    int64_t rows;
    int first;
    const uint16_t *count, *order, *local;
    const float *value;
    const float *x; /* [inputs][lanes] */
    float *sums;    /* [rows][lanes] */
    int ahead;      /* prefetch entries. Not read for pairs */
} ec_csr_block;
typedef void ec_spmm_csr_fn(int lanes, const ec_csr_block *b); /* lanes: 8, 16, 32, 48 or 64 */
ec_spmm_csr_fn ec_spmm_csr_scalar, ec_spmm_csr_avx2, ec_spmm_csr_avx512, ec_spmm_csr_neon;

/* The same for pairs of rows, `rows` of them: order[i][2]; count[i][3] says how many inputs both have, then only the first, then only
 * the second. Entries follow in that order: in `local` an input of both once, in `value` its two values side by side. lanes: 16, 32,
 * ... 128. */
typedef void ec_csr_pairs_fn(int lanes, const ec_csr_block *b);
ec_csr_pairs_fn ec_csr_pairs_avx512;

/* x in lanes, as ec_transpose_f32_fn makes them, but nothing is written past the end; lanes: a multiple of 16. */
typedef void ec_csr_pack_fn(int64_t tokens, int64_t k, const float *x, int64_t ldx, float *out, int64_t lanes);
ec_csr_pack_fn ec_csr_pack_avx512;

/* y[t][r] = sums[r][t] + bias[r], then relu if set, for r < rows and t < tokens <= lanes; lanes: a multiple of 16. bias may be NULL. */
typedef void ec_csr_finish_fn(int64_t rows, int64_t tokens, const float *sums, int64_t lanes, const float *bias, int relu, float *y,
                              int64_t ldy);
ec_csr_finish_fn ec_csr_finish_avx512;

/* sums[row1 - row0] = rows row0 .. row1 - 1 of w times one token x[k]. With int8 codes x holds q - zero, and each sum is exact and
 * rounded once. */
typedef void ec_spmv_csr_fn(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums);
ec_spmv_csr_fn ec_spmv_csr_scalar, ec_spmv_csr_avx2, ec_spmv_csr_avx512, ec_spmv_csr_avx512fp16;

/* The same from the masks of w (csr_masks.c), float32: a row has 4 * words bytes of them, x 32 * words inputs. May read 32 bytes from
 * the last entry of these rows on. */
typedef void ec_spmv_masks_fn(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, const float *x, float *sums);
ec_spmv_masks_fn ec_spmv_masks_avx2, ec_spmv_masks_avx512;

/* The same for 1 .. EC_MASKS_TOKENS tokens x[tokens][ldx], to sums[tokens][ld]. finite: whether all of x is. A sum has the same bits
 * whatever other rows and tokens the call has. */
enum { EC_MASKS_TOKENS = 4 };
typedef void ec_spmm_masks_fn(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, int tokens, int finite,
                              const float *x, int64_t ldx, float *sums, int64_t ld);
ec_spmm_masks_fn ec_spmm_masks_avx512;

/* A weight in slices of 16 rows: see csr_sell.c. */
typedef struct {
    int64_t entry, tail; /* where its entries begin, and its part of `active` */
    int32_t full, steps; /* steps that all 16 rows have, and steps that they make together */
} ec_sell_slice;
typedef struct {
    const ec_sell_slice *slice;
    const int32_t *row;    /* [n]: the row of a lane */
    const uint8_t *active; /* how many rows, the first lanes, have each step from `full` on */
    const void *input;     /* as the weight's indices */
    const void *value;     /* and its values or codes */
} ec_sell;
enum { EC_SELL_WINDOW = 128 }; /* rows that are sorted together before they are sliced */

/* y[row] for the rows of the slices slice0 .. slice1 - 1 of a weight of n rows, as ec_spmv_csr_fn. */
typedef void ec_spmv_sell_fn(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, const float *x, float *y);
ec_spmv_sell_fn ec_spmv_sell_avx512, ec_spmv_sell_avx512fp16;

/* Where the parts of a form are, see csr_form.c. */
typedef struct {
    int64_t blocks_n, blocks_k, block_k, most_rows; /* of a block */
    const int64_t *start;  /* [blocks_n][blocks_k][2], and the ends: where the `local` and `value` of a block begin */
    const int32_t *row;    /* [blocks_n + 1]: the first row */
    const int32_t *sum;    /* int8: [n][2] what to add for each row: all its codes (times 128 - zero), and the negative ones without sign;
                              EC_CSR_SIGNED: [n] all its codes */
    const uint16_t *count; /* [blocks_n][blocks_k]: count[rows], order[rows], or for each pair count[3], and order[2] */
    const uint16_t *local;
    const void *value;     /* float, uint8_t, or int8_t */
} ec_csr_parts;
ec_csr_parts ec_csr_open(int kind, int64_t n, int int8, const void *form);

enum { EC_FORM_ROWS = 128 }; /* most rows of a block, even */

/* Inputs of a block. */
int64_t ec_csr_block_inputs(int kind, int64_t n, int64_t k, const ec_csr *w);

/* Whether the kind is one that gemm_s8c multiplies, see csr8_dense.c. */
int ec_csr_made_dense(int kind);

/* The share of the weights that is stored. */
static inline double ec_csr_density(int64_t n, int64_t k, const ec_csr *w)
{
    return ((double)w->indptr[n] + 1) / ((double)n * (double)k);
}

/* The index of an entry. */
static inline int64_t ec_csr_input(const ec_csr *w, int64_t e) { return w->short_indices ? w->short_indices[e] : w->indices[e]; }

/* order[rows] = the rows by their number of entries, most first; equal ones stay in order. O(rows^2). */
void ec_csr_sort_rows(int rows, const int64_t *entries, uint16_t *order);

size_t ec_csr_sell_bytes(int64_t n, const ec_csr *w);
void ec_csr_sell(int64_t n, const ec_csr *w, void *form);
ec_sell ec_csr_open_sell(int64_t n, const ec_csr *w, const void *form);

size_t ec_csr_masks_bytes(int64_t n, int64_t k, const ec_csr *w);
uint64_t *ec_csr_masks8(int64_t n, void *memory); /* the masks behind the sums of int8 rows */
void ec_csr_masks(int64_t n, int64_t k, const ec_csr *w, void *masks);

/* Writes a block of pairs, in the order of ec_csr_pairs_fn: the entries of its row i are done[i] .. done[i] + found[i] - 1 of w.
 * Returns how many `local` it wrote. */
int64_t ec_csr_put_pairs(const ec_csr *w, int rows, const int64_t *done, const int64_t *found, int64_t k0, uint16_t *count, uint16_t *local,
                         float *value);

/* The row at which part i of `parts` with nearly equal work begins, 0 <= i <= parts. */
int64_t ec_csr_split(int64_t n, const int32_t *indptr, int64_t parts, int64_t i);

/* How many threads pay for m tokens and so many entries under a limit. */
int ec_csr_threads(double m, double entries, int threads);

/* The driver for one token, or a few one after the other, of float32 and int8; `workspace` has at least ec_csr_rows_workspace(k) bytes,
 * for several float32 tokens EC_MASKS_TOKENS times as many. k is the inputs of w; x or xq as in ec_spmm_csr8. */
size_t ec_csr_rows_workspace(int64_t k);
int ec_csr_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                   const uint8_t *xzero, const ec_csr *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace);

ec_spmm_csr_fn *ec_use_spmm_csr(void);
ec_csr_pairs_fn *ec_use_csr_pairs(void); /* or NULL */
ec_csr_pack_fn *ec_use_csr_pack(void); /* or NULL */
ec_csr_finish_fn *ec_use_csr_finish(void); /* or NULL */
ec_spmv_csr_fn *ec_use_spmv_csr(void);
ec_spmv_sell_fn *ec_use_spmv_sell(const ec_csr *w); /* or NULL */
ec_spmv_masks_fn *ec_use_spmv_masks(void); /* or NULL */
ec_spmm_masks_fn *ec_use_spmm_masks(void); /* or NULL */
#endif
