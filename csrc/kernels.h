/* Private to csrc: what drivers, microkernels, dispatch.c and threads.c agree on. The public contract is edgecomp.h. */
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
    EC_MAX_ROWS = 8, /* most rows a tile takes */
    EC_MAX_VECS = 3, /* most panels a tile takes */
    EC_TILE_COLS = EC_PANEL * EC_MAX_VECS,
    EC_MAX_THREADS = 1024
};

/* Whether this CPU's memory is so far away that prefetching in software pays for few rows. */
int ec_memory_is_far(void);

/* Bytes that streams ask for ahead of their use into L2, beside what they ask for into L1: L2 has room for more requests. Some do where memory is
 * far, and those of CSR, whose use of an entry takes long, everywhere. */
enum { EC_FAR_AHEAD = 16384 };

static inline int64_t ec_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* [0, total) cut into `parts` nearly equal ranges: where range i begins. Tiles of 5 + 5 rows beat 8 + 2. */
static inline int64_t ec_part(int64_t total, int64_t parts, int64_t i) { return total / parts * i + EC_MIN(total % parts, i); }

/* v, and for every NaN the one with the bits 0x7FC00000: CPUs differ in sign and payload of those they make. */
EC_INLINE float ec_canonical(float v)
{
    static const union { uint32_t bits; float f; } quiet_nan = {0x7FC00000};
    return v == v ? v : quiet_nan.f;
}

/* ---- quantize_rows --------------------------------------------------------------------------------------------- */

/* Quantises mr rows (1..EC_MAX_ROWS) of k floats, row stride ldx elements, into one activation panel [k/4][mr][4]
 * (k rounded up to 16, the rest quantised zeros), every byte XORed with `flip`. scale[mr], zero[mr] as promise 1 of
 * the design says; a row with NaN or Inf gets scale NaN, zero 0. `panel` holds ec_panel_bytes(k, mr) bytes. */
typedef void ec_quantize_rows_fn(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero);

static inline int64_t ec_panel_bytes(int64_t k, int64_t rows) { return ec_div_up(k, 16) * 16 * rows; }

/* The arithmetic of a row, once for all ISAs: from its smallest and largest value (0 among them) to scale and zero
 * point. Returns what to multiply x with. */
static inline float ec_row_scale(float lo, float hi, int finite, float *scale, int32_t *zero)
{
    const float s = hi / 255.0f - lo / 255.0f;
    *scale = finite ? 1 : ec_canonical(NAN);
    *zero = 0;
    if (!finite || s < 0x1p-126f)
        return 0;
    const float inv = 1.0f / s, z = rintf(-lo * inv);
    *scale = s;
    *zero = z < 0 ? 0 : z > 255 ? 255 : (int32_t)z;
    return inv;
}

/* The same from the bits of lo (sign set) and hi; Inf and NaN are the bits from 0x7F800000 on. */
static inline float ec_row_scale_bits(uint32_t lo, uint32_t hi, float *scale, int32_t *zero)
{
    float l, h;
    memcpy(&l, &lo, 4);
    memcpy(&h, &hi, 4);
    return ec_row_scale(l, h, lo < 0xFF800000u && hi < 0x7F800000u, scale, zero);
}

/* The bias of who has none: adding -0.0 changes no value. */
extern const float ec_no_bias[EC_TILE_COLS];

/* ---- gemm_s8c -------------------------------------------------------------------------------------------------- */

/* One tile: mr rows of x times nv weight panels. Sums in int32, then either stored as they are (yi) or finished:
 * y = ((float(sum) * sx) * sw) + bias, NaN as 0x7FC00000, clamped from below if relu. */
typedef struct {
    int64_t quads;       /* ceil(k / 4) */
    const uint8_t *x;    /* [quads][mr][4]: bytes as the variant's `flip` says */
    const int8_t *w;     /* nv panels of [quads][16][4], */
    int64_t panel;       /* bytes from one to the next */
    const int32_t *zero; /* [mr]: what to subtract from each byte of x */
    const int32_t *wsum; /* [16 * nv]: sum of each column's weights */
    const float *sx;     /* [mr] */
    const float *sw;     /* [16 * nv] */
    const float *bias;   /* [cols]; -0.0 for none, which changes no sum */
    float *y;            /* [mr][ldy] */
    int32_t *yi;         /* [mr][ldy], or NULL. If set, sx, sw, bias and y are not read */
    int64_t ldy;
    int cols, relu;      /* columns that exist, 1 .. 16 * nv: the others are computed and not stored */
    const char *ahead;   /* memory to bring into L2 meanwhile: the weights of the tile after */
    int64_t ahead_bytes; /* a multiple of 64; 0 for none */
    int far;             /* memory is far: up to 3 rows ask for their weights ahead of their use */
} ec_gemm_s8c_tile;
typedef void ec_gemm_s8c_tile_fn(int mr, int nv, const ec_gemm_s8c_tile *t);

/* ---- gemm_s4g, gemm_s8g ----------------------------------------------------------------------------------------- */

enum {
    EC_STRIP = 32,    /* outputs of a record */
    EC_TALL_ROWS = 12 /* most rows a panel of groups has */
};

/* A panel of mr rows, group after group: int8 q[group/4][mr][4] (as codes: inputs in quads, then rows), float scale[mr],
 * int32 sum[mr] of the q, times the `factor` that the tile wants (ec_sum_factor). The last group is as long as the others; what is
 * beyond k is zeros. */
static inline int64_t ec_group_bytes(int64_t group, int64_t rows) { return (group + 8) * rows; }

typedef void ec_quantize_groups_fn(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel);

/* -zero where it is the same for all codes, so that a group's int32 sums begin at what stands in the panel; -1 where it is to be
 * multiplied with the zero of each output; 1 with offsets, which want the sum. */
static inline int ec_sum_factor(int bits, int zero) { return zero == EC_ZERO_MIDDLE ? -(1 << (bits - 1)) : zero == EC_ZERO_POINT ? -1 : 1; }

/* The arithmetic of a group, once for all ISAs. Returns what to multiply x with: 0 for a group of zeros, and one that is not finite. */
static inline float ec_group_scale(float absmax, int finite, float *scale)
{
    const float s = absmax / 127.0f;
    *scale = finite ? 1 : ec_canonical(NAN);
    if (!finite || s < 0x1p-126f)
        return 0;
    *scale = s;
    return 1.0f / s;
}

/* One tile: mr rows of x times a strip of records. */
typedef struct {
    int64_t groups;
    int quads;           /* of a group: a multiple of 4 */
    const int8_t *x;     /* panel, see ec_group_bytes */
    const uint8_t *w;    /* records of the strip */
    int64_t record;      /* bytes from one to the next */
    int header;          /* bytes before the codes */
    int scale_bytes, zero;
    const float *bias;   /* [cols]; -0.0 for none */
    float *y;            /* [mr][ldy] */
    int64_t ldy;
    int cols, relu;      /* columns that exist, 1 .. 32 */
    int far;             /* memory is far, and no tile before has had these records: ask for them ahead of their use */
} ec_gemm_sg_tile;
typedef void ec_gemm_sg_tile_fn(int mr, const ec_gemm_sg_tile *t);

/* sums[mr][32] = 1 to 3 rows of floats times a strip of records, nothing but float32 rounding added to the weights' own. */
typedef struct {
    int64_t groups;
    const float *x;      /* [groups * group][mr], zeros beyond k */
    const uint8_t *w;    /* records of the strip */
    const ec_grouped *form;
    int bits;
    float *sums;
} ec_gemv_sg;
typedef void ec_gemv_sg_fn(int mr, const ec_gemv_sg *t);

/* 16 outputs from col0 (a multiple of 16) and inputs k0 (a multiple of 4) .. k0 + k of the weights as float32 out[k][16]. */
typedef void ec_expand_sg_fn(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out);

static inline int ec_header_bytes(const ec_grouped *w)
{
    const int zeros = w->zero == EC_ZERO_MIDDLE ? 0 : w->zero == EC_ZERO_POINT ? 1 : w->scale_bytes;
    return (EC_STRIP * (w->scale_bytes + zeros) + 63) & ~63;
}

/* A float16 as float: exact, NaN and Inf do not come here. */
static inline float ec_half(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, bits = (uint32_t)(h & 0x7FFF) << 13;
    float v;
    memcpy(&v, &bits, 4);
    v *= 0x1p112f; /* the exponent's bias is 15 there, 127 here */
    uint32_t out;
    memcpy(&out, &v, 4);
    out |= sign;
    memcpy(&v, &out, 4);
    return v;
}

/* Entry i of a record's scales (which = 0) or offsets (1). */
static inline float ec_record_float(const uint8_t *record, int scale_bytes, int which, int i)
{
    uint16_t h;
    float v;
    const uint8_t *at = record + scale_bytes * (EC_STRIP * which + i);
    if (scale_bytes == 2) {
        memcpy(&h, at, 2);
        return ec_half(h);
    }
    memcpy(&v, at, 4);
    return v;
}

/* Where a record has its zero points, if it has. */
static inline const uint8_t *ec_record_zeros(const uint8_t *record, int scale_bytes) { return record + EC_STRIP * scale_bytes; }

/* Weight p of output i of a record: the exact value rounded once, as dequantize() has it. */
static inline float ec_record_weight(const uint8_t *record, const ec_grouped *w, int bits, int i, int64_t p)
{
    const uint8_t *codes = record + ec_header_bytes(w);
    const int64_t quad = p / 4;
    const int code = bits == 8 ? codes[(quad * EC_STRIP + i) * 4 + p % 4] : codes[(quad / 2 * EC_STRIP + i) * 4 + p % 4] >> 4 * (quad & 1) & 15;
    const float scale = ec_record_float(record, w->scale_bytes, 0, i);
    if (w->zero == EC_ZERO_OFFSET)
        return fmaf((float)code, scale, ec_record_float(record, w->scale_bytes, 1, i));
    return (float)(code - (w->zero == EC_ZERO_POINT ? ec_record_zeros(record, w->scale_bytes)[i] : 1 << (bits - 1))) * scale;
}

/* ---- gemm_f32 -------------------------------------------------------------------------------------------------- */

/* One tile over one block of k: y = (first ? 0 : y) + x * w, and after the last block + bias, clamped if relu. */
typedef struct {
    int64_t k;
    const float *x;      /* [k][mr] */
    const float *w;      /* nv panels of [k][16], */
    int64_t panel;       /* floats from one to the next */
    const float *bias;   /* [cols]; -0.0 for none. Read with `last` only */
    float *y;            /* [mr][ldy] */
    int64_t ldy;
    int cols, first, last, relu;
    const float *ahead;  /* as in ec_gemm_s8c_tile, for each panel */
    int64_t ahead_panel; /* floats from one panel's to the next's */
    int64_t ahead_lines; /* cache lines of each */
    int far;             /* as there */
} ec_gemm_f32_tile;
typedef void ec_gemm_f32_tile_fn(int mr, int nv, const ec_gemm_f32_tile *t);

/* Transposes `rows` rows of k floats, row stride ldx, to out[k][stride], stride >= rows; columns rows..stride-1 of out are set to
 * zero. May write 8 floats past the end, unless the stride is a multiple of 8. */
typedef void ec_transpose_f32_fn(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride);

/* k columns (from a whole quad on) of one int8 panel [ceil(k/4)][16][4], times their scale[16], as float32 out[k][16]. */
typedef void ec_expand_s8_fn(int64_t k, const int8_t *panel, const float *scale, float *out);

/* ---- spmm_csr, spmm_csr8 --------------------------------------------------------------------------------------- */

/* Tokens that pass a block of a CSR weight's form together, at most: pairs of rows, single rows, and of int8, of either form. */
enum { EC_MAX_LANES = 128, EC_LANES1 = 64, EC_LANES8 = 32, EC_LANES8_SIGNED = 64 };

/* One block times some tokens, the lanes: sums = (first ? 0 : sums) + w * x. Row order[i] of the block has count[i] entries; they are the next
 * ones of `local`, an entry's input within the block, and `value`. Counts fall, so that the ends of rows can be predicted. */
typedef struct {
    int64_t rows;
    int first;
    const uint16_t *count, *order, *local;
    const float *value;
    const float *x; /* [inputs][lanes] */
    float *sums;    /* [rows][lanes] */
    int far;        /* memory is far: ask for entries ahead of their use. Single rows only */
} ec_csr_block;
typedef void ec_spmm_csr_fn(int lanes, const ec_csr_block *b); /* 8, 16, 32, 48 or 64 */

/* The same for pairs of rows, `rows` of them: order[i][2], and count[i][3] says how many inputs both have, then the first alone, then the second.
 * In that order they are in `local`, each once, and in `value`, where both have one side by side. lanes: 16, 32, ... 128. */
typedef void ec_csr_pairs_fn(int lanes, const ec_csr_block *b);

/* x in lanes, as ec_transpose_f32_fn; lanes are sixteens. */
typedef void ec_csr_pack_fn(int64_t tokens, int64_t k, const float *x, int64_t ldx, float *out, int64_t lanes);

/* y[t][r] = sums[r][t] + bias[r], clamped for relu, of r < rows, t < tokens <= lanes; lanes are sixteens. */
typedef void ec_csr_finish_fn(int64_t rows, int64_t tokens, const float *sums, int64_t lanes, const float *bias, int relu, float *y, int64_t ldy);

/* The same in integers, times 16 or 32 tokens and four entries at a time: count[i] quads, filled up with zeros. So that one factor has no
 * sign, x holds two lines for each input, c = q - 128 and ~c = -c - 1; an entry is its absolute value, and `local` the line. EC_CSR_SIGNED, up
 * to 64 tokens: one line, q itself, and an entry is its code. */
typedef struct {
    int64_t rows;
    int first;
    const uint16_t *count, *order, *local;
    const uint8_t *value; /* or int8_t */
    const int8_t *x; /* [inputs][2][lanes], or uint8_t [inputs][lanes]; byte 16 g + 4 t + e of a line is token lanes / 4 * t + 4 g + e, so that sums are in order */
    int32_t *sums;   /* [rows][lanes] */
} ec_csr8_block;
typedef void ec_spmm_csr8_fn(int lanes, const ec_csr8_block *b);

/* x for the above from panels of lanes / 4 quantised rows, or 8 at most, [quads][rows][4] q - 128, or q, which lie `panel` bytes apart. */
typedef void ec_pack_csr8_fn(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x);

/* y[t][r] = (sums[r][t] - zero[t] * sum[r]) * sx[t] * sw[r] + bias[r] as in ec_gemm_s8c, of r < rows, t < tokens <= lanes. */
typedef struct {
    const int32_t *zero, *sum;
    const float *sx, *sw;
    const float *bias; /* or NULL */
    int relu;
} ec_csr8_scales;
typedef void ec_csr8_finish_fn(int64_t rows, int64_t tokens, const int32_t *sums, int64_t lanes, const ec_csr8_scales *s, float *y, int64_t ldy);

/* sums[row1 - row0] = rows of w times one token x. int8 codes: x holds q - zero, and a sum is rounded once. */
typedef void ec_spmv_csr_fn(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums);

/* The same from the masks of w, float32: row r has 4 * words bytes of them. May read 32 bytes from the last entry of these rows on. */
typedef void ec_spmv_masks_fn(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, const float *x, float *sums);

/* The same in int8: `sum` and `mask` of ec_csr_masks, x as quantised, padded to 64 inputs `words` times. Sums are of (x - zero), rounded once. */
typedef void ec_spmv_masks8_fn(const ec_csr *w, int64_t n, int64_t words, const int32_t *sum, const uint64_t *mask, int64_t row0, int64_t row1,
                               const uint8_t *x, int zero, float *sums);

/* A weight in slices of 16 rows: see csr_sell.c. */
typedef struct {
    int64_t entry, tail; /* where its entries begin, and its part of `active` */
    int32_t full, steps; /* steps that all 16 rows have, and those that are made together */
} ec_sell_slice;
typedef struct {
    const ec_sell_slice *slice;
    const int32_t *row;    /* [n]: the row of a lane */
    const uint8_t *active; /* rows that have the steps from `full` on, the first so many lanes */
    const void *input;     /* as the weight's indices */
    const void *value;     /* and its values or codes */
} ec_sell;
enum { EC_SELL_WINDOW = 128 }; /* rows, among which those of a slice are */

/* y[row] of the slices slice0 .. slice1 - 1 of a weight of n rows, as ec_spmv_csr_fn. */
typedef void ec_spmv_sell_fn(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, const float *x, float *y);

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

/* The index of an entry. */
static inline int64_t ec_csr_input(const ec_csr *w, int64_t e) { return w->short_indices ? w->short_indices[e] : w->indices[e]; }

/* Rows by their entries, most first; equal ones as they were. */
void ec_csr_sort_rows(int rows, const int64_t *entries, uint16_t *order);

size_t ec_csr_sell_bytes(int64_t n, const ec_csr *w);
void ec_csr_sell(int64_t n, const ec_csr *w, void *form);
ec_sell ec_csr_open_sell(int64_t n, const ec_csr *w, const void *form);

size_t ec_csr_masks_bytes(int64_t n, int64_t k, const ec_csr *w);
uint64_t *ec_csr_masks8(int64_t n, void *memory); /* behind the sums of int8 rows */
void ec_csr_masks(int64_t n, int64_t k, const ec_csr *w, void *masks);

/* Entries of a block of pairs: those of row order[i] are done[i] .. done[i] + found[i] - 1. Returns how many `local` it wrote. */
int64_t ec_csr_put_pairs(const ec_csr *w, int rows, const int64_t *done, const int64_t *found, int64_t k0, uint16_t *count, uint16_t *local, float *value);

/* Row at which part i of `parts` with nearly equal work begins. */
int64_t ec_csr_split(int64_t n, const int32_t *indptr, int64_t parts, int64_t i);

/* How many threads pay for m tokens and so many entries. */
int ec_csr_threads(double m, double entries, int threads);

/* The driver for one token after another, of float32 and int8; `workspace` has at least ec_csr_rows_workspace(k) bytes. */
size_t ec_csr_rows_workspace(int64_t k);
int ec_csr_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale, const uint8_t *xzero,
                   const ec_csr *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace);

/* ---- spmm_nm, spmm_nm8 ------------------------------------------------------------------------------------------- */

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

/* Quads quad0 .. quad1 of one panel of int8 weights, or two that are neighbours, times m rows: a block of quads, or all of them. */
enum { EC_NM8_SCRATCH = 1 << 16 };
typedef struct {
    ec_gemm_s8c_tile tile;   /* of row 0 and the first panel; x: rows of bytes, */
    int64_t m, ldx;          /* so many, so far apart */
    int panels;
    int64_t quad0, quad1;
    int32_t *sums;           /* [m][16 * panels], aligned to 64: carried from block to block, not read with the first, not written with the last */
    const int32_t *negative; /* [16]: sum of each column's negative weights */
    const int32_t *window;   /* [quads]: where in a row the inputs of a quad begin that the kernel reaches */
    const uint32_t *base;    /* [quads]: byte b is how far from there the group of the quad's entry b begins */
    const uint32_t *places;  /* words [..][16]; shared: [..], the same for all outputs */
    int64_t places_panel;    /* words from one panel's to the next's */
    int bits, shared;
    int halves;              /* a window is 8 inputs, then the same with all bits turned; then comes the next */
    int ahead;               /* whether as many panels come after these */
    uint8_t *scratch;        /* EC_NM8_SCRATCH bytes, aligned to 64 */
} ec_nm8_panel;
typedef void ec_spmm_nm8_fn(const ec_nm8_panel *p);

/* Byte b: where in the window entry b of quad q of output c is. */
static inline uint32_t ec_nm_take(const ec_nm8_panel *p, int64_t q, int c)
{
    const int64_t each = 8 / p->bits;
    const uint32_t word = p->places[p->shared ? q / each : q / each * EC_PANEL + c];
    return (word >> q % each * p->bits & (p->bits == 2 ? 0x03030303 : 0x0F0F0F0F)) + p->base[q];
}

/* Whether ec_spmm_nm8 goes by the places; else, with the workspace of both: */
int ec_nm8_by_places(int64_t m, const ec_nm *w);
size_t ec_nm8_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm8_gathered(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                    const uint8_t *xzero, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                    size_t size);

/* int8 over the inputs that a block of outputs keeps, 64 rows times one panel. */
enum { EC_PLANE = 64 };
typedef struct {
    ec_gemm_s8c_tile tile; /* of one panel and `rows` rows; zero[64]; x is not read: */
    const uint8_t *planes; /* a line of 64 bytes for each input, in the order of `pack` */
    const int32_t *input;  /* [4 * quads + 32]: the kept inputs; the last 32 are only prefetched */
    int64_t rows;          /* 1 .. 64 */
    int32_t *sums;         /* scratch [16][64], aligned to 64 */
} ec_planes_s8;
typedef void ec_planes_s8_fn(const ec_planes_s8 *p);
/* planes [4 * quads][64] from 8 activation panels [quads][8][4], `panel` bytes apart. */
typedef void ec_planes_s8_pack_fn(int64_t quads, const uint8_t *panels, int64_t panel, uint8_t *planes);

/* The driver with planes, and whether it is faster; its workspace is counted by ec_spmm_nm_workspace. */
int ec_nm8_in_planes(int64_t m, const ec_nm *w);
size_t ec_nm8_planes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm8_planes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale, const uint8_t *xzero,
                  const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* From an int8 activation panel [..][mr][4] the inputs input[4 * quads], as a panel [quads][mr][4]. paired: of every two inputs both are of
 * the same quad. May read and write 32 bytes from the last quad on, wherever it ends. */
typedef void ec_gather_s8_fn(int mr, int paired, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out);

/* ---- activation ------------------------------------------------------------------------------------------------ */

/* y[rows][ldy] = act(y), cols of each row. Every activation but relu, which the tiles do. */
typedef void ec_activation_fn(int act, int64_t rows, int64_t cols, float *y, int64_t ldy);

/* The activations that are exact on every ISA: the same float32 operations in the same order. NaN as 0x7FC00000. */
EC_INLINE float ec_clamp_activation(int act, float v)
{
    const float base = act == EC_ACT_RELU6 ? v : v + 3;
    const float six = base < 0 ? 0 : base > 6 ? 6 : base; /* relu6 */
    const float y = act == EC_ACT_RELU6       ? six + 0.0f /* -0 becomes 0 */
                    : act == EC_ACT_LEAKY_RELU ? (v > 0 ? v : v * 0.01f)
                    : act == EC_ACT_HARDSWISH  ? v * six / 6
                                               : six / 6;
    return ec_canonical(y);
}

/* The body of ec_requantize, for who is inside a job already. */
void ec_requantize_values(int64_t count, const float *y, float scale, int zero, int8_t *q);

/* ---- kd_loss ----------------------------------------------------------------------------------------------------- */

/* A row is worked off in blocks, each relative to the largest logits met so far. With x = (s - max_s) / T and y likewise of the teacher:
 * w = e^x, z = e^y, and e = T (y - x), what the two differ by. */
enum { EC_KD_BLOCK = 1024 };

typedef struct {
    int power;          /* e^(s - max_s) = w^power: 1 to 4, or 0 where T is none of them */
    int ce;             /* whether anyone asks for e^(s - max_s) */
    float inv_s;        /* 1 / temperature of the student */
    float scale_s, scale_t; /* the same in bits: log2(e) times that. What float32 rounds away of it is a temperature 2^-25 off */
    float least_s, least_t; /* what is below has e^x = 0 */
    float ratio;            /* of the temperatures, student's / teacher's */
    float max_s, max_t;     /* the largest logits met so far, at least -FLT_MAX */
    float beta;
} ec_kd_row;

typedef struct { double w, w1, z, ze; } ec_kd_sums; /* of w, e^(s - max_s), z and z * e */

/* Rows of so few classes are worked off side by side, one in each lane of a vector: 16 at most. */
enum { EC_KD_SHORT = 128, EC_KD_LANES = 16 };

typedef struct {
    float *lines; /* s, t, w, z: [4][n][lanes] */
    float max_s[EC_KD_LANES], max_t[EC_KD_LANES];
    double w[EC_KD_LANES], w1[EC_KD_LANES], z[EC_KD_LANES], ze[EC_KD_LANES]; /* sums */
    float c[4][EC_KD_LANES], hot[EC_KD_LANES], label[EC_KD_LANES]; /* of the gradient: as below, and what class `label` gets less */
} ec_kd_short;

typedef struct {
    /* The largest s and t. */
    void (*maxima)(int64_t n, const float *s, const float *t, float out[2]);
    /* w and z of a block; adds to the sums. masked: there may be -inf, which otherwise makes the sum of z e infinite or NaN. On the way
     * finds the largest values of next_s[n] and next_t[n], which brings them near. */
    void (*forward)(int64_t n, const float *s, const float *t, const ec_kd_row *r, int masked, const float *next_s, const float *next_t,
                    float *w, float *z, ec_kd_sums *sums, float found[2]);
    /* w = e^(s - max_s), z = s - t, 0 for a class that both mask; returns the sum of z^2. */
    double (*squares)(int64_t n, const float *s, const float *t, const ec_kd_row *r, float *w, float *z, ec_kd_sums *sums);
    /* Adds to out the sums of q - p, by e where q is about p: exact to second order; and of p e. e is relative to the maxima in r; w and z
     * times scale[0] and scale[1] are q and p, both with p's normaliser. */
    void (*refine)(int64_t n, const float *s, const float *t, const ec_kd_row *r, const float *w, const float *z, const float scale[2],
                   double out[2]);
    /* Adds to out the sum of e^(s - max_s) without its largest terms, which are 1, and how many these are. */
    void (*rest)(int64_t n, const float *s, float max_s, double out[2]);
    /* Of a kind but KL: z becomes g, the loss's derivative by q; adds to out the sums of the loss and of q g. w and z times scale[0] and
     * scale[1] are q and p; log(q / p) = -inv_s * e - lambda, e relative to the maxima in r. */
    void (*pair)(int kind, int64_t n, const float *s, const float *t, const ec_kd_row *r, const float *w, float *z, const float scale[2],
                 float lambda, double out[2]);
    /* grad = c[0] e^(s - max_s) + c[1] w (z - mean) - c[3]; or, if kl, c[0] e^(s - max_s) + c[1] w - c[2] z - c[3].
     * stream: past the caches. */
    void (*gradient)(int kl, int64_t n, const float *s, const ec_kd_row *r, const float *w, const float *z, const float c[4], float mean,
                     float *grad, int stream);
    /* Short rows of kind KL without a mask, `lanes` at a time: s, t and the gradients are pointers to their rows. As above. */
    int lanes;
    void (*short_forward)(int64_t n, const float *const *s, const float *const *t, const ec_kd_row *r, ec_kd_short *l);
    void (*short_log)(double *x); /* of normal numbers, to 1e-12 */
    void (*short_refine)(int64_t n, const ec_kd_row *r, const ec_kd_short *l, double *off, double *pe);
    void (*short_rest)(int64_t n, const ec_kd_short *l, double *sum, double *ones);
    void (*short_gradient)(int64_t n, const ec_kd_row *r, ec_kd_short *l, float *const *rows); /* NULL: none for that row */
} ec_kd_loss_impl;

/* ---- crc32 ------------------------------------------------------------------------------------------------------- */

/* The remainder after these bytes, from the one before; ones at the start and complemented at the end by the driver. */
typedef uint32_t ec_crc32_fn(uint32_t crc, const uint8_t *data, int64_t size);
ec_crc32_fn ec_crc32_scalar, ec_crc32_avx2; /* what the others end with, or go on to */

/* ---- roof ------------------------------------------------------------------------------------------------------ */

/* Runs `reps` rounds of one loop over a (and b), returns the operations or bytes done. */
typedef double ec_roof_fn(int64_t reps, float *a, float *b, size_t bytes);

/* ---- dispatch.c: one row per op, resolved at the first call ------------------------------------------------------ */

typedef struct {
    ec_gemm_s8c_tile_fn *tile;
    int rows, vecs;      /* the largest tile */
    uint8_t flip;        /* 0: the tile wants q as uint8; 0x80: it wants q - 128 as int8 */
    double macs_per_ns;  /* of one thread of a slow CPU that has the ISA: decides when threads pay */
} ec_gemm_s8c_impl;

typedef struct {
    ec_gemm_f32_tile_fn *tile;
    int rows, vecs;
    double macs_per_ns;
} ec_gemm_f32_impl;

typedef struct {
    ec_gemm_sg_tile_fn *tile;
    int rows;
    int tall; /* or so many, where the driver finds that faster; 0 if never */
    double macs_per_ns;
} ec_gemm_sg_impl;

typedef struct {
    ec_spmm_nm_tile_fn *tile; /* or NULL: gather, then gemm_f32 */
    int rows;
    int64_t block;            /* inputs of a block: what of them is gathered, or found, stays in L1 */
} ec_spmm_nm_impl;

typedef struct {
    ec_planes_s8_fn *multiply;
    ec_planes_s8_pack_fn *pack;
    int64_t group_bytes; /* of planes that all outputs pass by, or one tile's */
} ec_planes_s8_impl;

typedef struct {
    ec_spmm_nm8_fn *panel;
    uint8_t flip; /* as in ec_gemm_s8c_impl */
    int window;   /* inputs it reaches from one position; fewer than 16 times 4: not every pattern */
    int whole;    /* up to so many rows take all quads at once and one panel, more rows a block at a time */
    int block;    /* quads of a block, */
    int panels;   /* and panels */
    int halves;   /* wants them where a window is 8 inputs */
    int shared;   /* is faster than gathering what a block of outputs shares; */
    int shared_few; /* or for so many rows */
} ec_spmm_nm8_impl;

const ec_gemm_s8c_impl *ec_use_gemm_s8c(void);
const ec_gemm_sg_impl *ec_use_gemm_s4g(void);
const ec_gemm_sg_impl *ec_use_gemm_s8g(void);
ec_quantize_groups_fn *ec_use_quantize_groups(void);
ec_expand_sg_fn *ec_use_expand_sg(void);
ec_gemv_sg_fn *ec_use_gemv_sg(void);
const ec_gemm_f32_impl *ec_use_gemm_f32(void);
ec_spmm_csr_fn *ec_use_spmm_csr(void);
ec_csr_pairs_fn *ec_use_csr_pairs(void); /* or NULL */
ec_csr_pack_fn *ec_use_csr_pack(void); /* or NULL */
ec_csr_finish_fn *ec_use_csr_finish(void); /* or NULL */
ec_spmm_csr8_fn *ec_use_spmm_csr8(void);
ec_pack_csr8_fn *ec_use_pack_csr8(void);
ec_csr8_finish_fn *ec_use_csr8_finish(void); /* or NULL, where the form is EC_CSR_BLOCKS */
ec_spmv_csr_fn *ec_use_spmv_csr(void);
ec_spmv_sell_fn *ec_use_spmv_sell(const ec_csr *w); /* or NULL */
ec_spmv_masks8_fn *ec_use_spmv_masks8(void); /* or NULL */
ec_spmv_masks_fn *ec_use_spmv_masks(void); /* NULL: none */
ec_quantize_rows_fn *ec_use_quantize_rows(void);
const ec_spmm_nm_impl *ec_use_spmm_nm(void);
const ec_planes_s8_impl *ec_use_planes_s8(void); /* .multiply NULL: none */
ec_nm_inputs_fn *ec_use_nm_inputs(void);
ec_nm_lanes_fn *ec_use_nm_lanes(void); /* or NULL */
ec_nm_rows_fn *ec_use_nm_rows(void);
const ec_spmm_nm8_impl *ec_use_spmm_nm8(void);
ec_gather_s8_fn *ec_use_gather_s8(void);
ec_transpose_f32_fn *ec_use_transpose_f32(void);
ec_expand_s8_fn *ec_use_expand_s8(void);
ec_activation_fn *ec_use_activation(void);
const ec_kd_loss_impl *ec_use_kd_loss(void);
ec_crc32_fn *ec_use_crc32(void);

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
