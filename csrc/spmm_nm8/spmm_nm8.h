/* N:M sparse int8 weights: their kernels. */
#ifndef EC_SPMM_NM8_H
#define EC_SPMM_NM8_H
#include "../gemm_s8c/gemm_s8c.h"
#include "../spmm_nm/spmm_nm.h"

/* Quads quad0 .. quad1 - 1 of one panel of int8 weights, or of two neighbours, times m rows: a block of quads, or all of them. */
enum { EC_NM8_SCRATCH = 1 << 16 };
typedef struct {
    ec_gemm_s8c_tile tile;   /* of row 0 and the first panel; x: rows of bytes, */
    int64_t m, ldx;          /* so many, so far apart */
    int panels;
    int64_t quad0, quad1;
    int32_t *sums;           /* [m][16 * panels], aligned to 64: kept from block to block; the first does not read, the last not write */
    const int32_t *negative; /* [16]: sum of each column's negative weights */
    const int32_t *window;   /* [quads]: where in a row the window of a quad begins */
    const uint32_t *base;    /* [quads]: byte b is how far from there the group of entry b of the quad begins */
    const uint32_t *places;  /* words [..][16]; shared: [..], the same for all outputs */
    int64_t places_panel;    /* words from one panel's to the next's */
    int bits, shared;
    int halves;              /* a window is 8 inputs, then the same 8 inverted; then comes the next */
    int ahead;               /* whether as many panels follow, to be prefetched */
    uint8_t *scratch;        /* EC_NM8_SCRATCH bytes, aligned to 64 */
} ec_nm8_panel;
typedef void ec_spmm_nm8_fn(const ec_nm8_panel *p);
ec_spmm_nm8_fn ec_spmm_nm8_scalar, ec_spmm_nm8_avx2, ec_spmm_nm8_avx512vbmi, ec_spmm_nm8_neondot;

/* Byte b is where in the window entry b of quad q of output c is. */
static inline uint32_t ec_nm_take(const ec_nm8_panel *p, int64_t q, int c)
{
    const int64_t each = 8 / p->bits;
    const uint32_t word = p->places[p->shared ? q / each : q / each * EC_PANEL + c];
    return (word >> q % each * p->bits & (p->bits == 2 ? 0x03030303 : 0x0F0F0F0F)) + p->base[q];
}

/* Whether ec_spmm_nm8 goes by the places, with this much workspace; else it gathers, by the driver in spmm_nm.c. The workspace query of
 * both is ec_spmm_nm_workspace. */
int ec_nm8_by_places(int64_t m, const ec_nm *w);
size_t ec_nm8_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm8_gathered(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                    const uint8_t *xzero, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                    size_t size);

/* int8 over the inputs that a block of outputs keeps: 64 rows times one panel. */
enum { EC_PLANE = 64 };
typedef struct {
    ec_gemm_s8c_tile tile; /* of one panel and `rows` rows; zero[64]; x is not read: */
    const uint8_t *planes; /* a line of 64 bytes for each input, in the order of `pack` */
    const int32_t *input;  /* [4 * quads + 32]: the kept inputs; the last 32 are only prefetched */
    int64_t rows;          /* 1 .. 64 */
    int32_t *sums;         /* scratch [16][64], aligned to 64 */
} ec_planes_s8;
typedef void ec_planes_s8_fn(const ec_planes_s8 *p);
ec_planes_s8_fn ec_planes_s8_avx512vnni, ec_planes_s8_avx512fp16;

/* planes[4 * quads][64] from 8 activation panels [quads][8][4], `panel` bytes apart. */
typedef void ec_planes_s8_pack_fn(int64_t quads, const uint8_t *panels, int64_t panel, uint8_t *planes);
ec_planes_s8_pack_fn ec_planes_s8_pack_avx512vnni;

/* The driver with planes, and whether it is faster. The workspace query is ec_spmm_nm_workspace. */
int ec_nm8_in_planes(int64_t m, const ec_nm *w);
size_t ec_nm8_planes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_nm8_planes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                  const uint8_t *xzero, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                  size_t size);

typedef struct {
    ec_planes_s8_fn *multiply;
    ec_planes_s8_pack_fn *pack;
    int64_t group_bytes; /* of planes that stay in a cache while all outputs pass by; at least one tile's */
} ec_planes_s8_impl;

typedef struct {
    ec_spmm_nm8_fn *panel;
    uint8_t flip; /* as in ec_gemm_s8c_impl */
    int window;   /* inputs it reaches from the window on; below 64 not every pattern fits */
    int whole;    /* up to so many rows take all quads of one panel at once, more rows a block of quads at a time */
    int block;    /* quads of a block, */
    int panels;   /* and panels */
    int halves;   /* wants windows of 8 inputs doubled */
    int places;   /* with places of each output it is faster than dense int8: a few rows, and many of what keeps less than half, */
    int half;     /* or many of half and more, too; */
    int shared;   /* and than gathering what a block of outputs shares; */
    int shared_few; /* or for so many rows */
} ec_spmm_nm8_impl;

const ec_spmm_nm8_impl *ec_use_spmm_nm8(void);
const ec_planes_s8_impl *ec_use_planes_s8(void); /* .multiply is NULL if there is none */
#endif
