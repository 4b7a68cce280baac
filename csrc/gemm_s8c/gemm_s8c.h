/* int8 weights with a scale of each output: the tile. */
#ifndef EC_GEMM_S8C_H
#define EC_GEMM_S8C_H
#include "../kernels.h"

enum { EC_S8C_ROWS = 32 }; /* most rows a tile takes */

/* One tile: mr rows of x times nv weight panels. Sums in int32, then either stored as they are (yi) or finished:
 * y = ((float(sum) * sx) * sw) + bias, NaN as 0x7FC00000, clamped from below if relu. */
typedef struct {
    int64_t quads;       /* ceil(k / 4) */
    const uint8_t *x;    /* [quads][mr][4]; or, if the variant is by_rows, rows. Bytes as its `flip` says */
    int64_t ldx;         /* of rows: bytes from one to the next, a multiple of 64. Those beyond the quads may be anything */
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
    const char *ahead;   /* memory to prefetch into L2 meanwhile: the weights of a later tile */
    int64_t ahead_bytes; /* a multiple of 64; 0 for none */
    int far;             /* memory is far: up to 3 rows prefetch their weights */
    int fresh;           /* no tile has read these weights yet: several rows prefetch them a little ahead */
    int same, more;      /* the thread's last tile had as many rows; another tile follows: set-up may stay */
} ec_gemm_s8c_tile;
typedef void ec_gemm_s8c_tile_fn(int mr, int nv, const ec_gemm_s8c_tile *t);
ec_gemm_s8c_tile_fn ec_gemm_s8c_tile_scalar, ec_gemm_s8c_tile_avx2, ec_gemm_s8c_tile_avxvnni, ec_gemm_s8c_tile_avxvnni_evex,
    ec_gemm_s8c_tile_avx512vnni, ec_gemm_s8c_tile_amx, ec_gemm_s8c_tile_neon, ec_gemm_s8c_tile_neondot, ec_gemm_s8c_tile_i8mm;

typedef struct {
    ec_gemm_s8c_tile_fn *tile;
    int rows, vecs;      /* the largest tile */
    int from, by_rows;   /* the fewest rows of x that it is used for; whether it wants x as rows */
    uint8_t flip;        /* 0: the tile wants q as uint8; 0x80: it wants q - 128 as int8 */
    double macs_per_ns;  /* multiply-adds of one thread of a slow CPU that has the ISA: decides when threads pay */
} ec_gemm_s8c_impl;

/* Weights that are made when they are wanted, group by group: writes panels panel .. panel + panels - 1, [quads][16][4] each. */
typedef struct {
    void (*make)(const void *weights, int64_t panel, int64_t panels, int8_t *to);
    const void *weights;
} ec_s8c_maker;

/* ec_gemm_s8c of such weights, k at most EC_S8C_EXACT_K. wscale and wsum are padded as its are. */
enum { EC_S8C_EXACT_K = 66311 }; /* 255 * 127 * 66311 < 2^31: sums are exact in int32 */
size_t ec_gemm_s8c_made_workspace(int64_t m, int64_t k, int threads);
int ec_gemm_s8c_made(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                     const uint8_t *xzero, const ec_s8c_maker *w, const float *wscale, const int32_t *wsum, const float *bias, int act,
                     float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* For m rows of x. */
const ec_gemm_s8c_impl *ec_use_gemm_s8c(int64_t m);
#endif
