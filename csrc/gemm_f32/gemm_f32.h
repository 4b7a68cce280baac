/* float32: the tile, and what makes weights of other kinds float32. */
#ifndef EC_GEMM_F32_H
#define EC_GEMM_F32_H
#include "../gemm_s4g/gemm_s4g.h"

/* One tile over one block of k: y = (first ? 0 : y) + x * w, and after the last block + bias, then relu if set. */
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
    int far, fresh;      /* as there */
} ec_gemm_f32_tile;
typedef void ec_gemm_f32_tile_fn(int mr, int nv, const ec_gemm_f32_tile *t);
ec_gemm_f32_tile_fn ec_gemm_f32_tile_scalar, ec_gemm_f32_tile_avx2, ec_gemm_f32_tile_avx512, ec_gemm_f32_tile_neon;

/* Transposes `rows` rows of k floats, ldx floats apart, to out[k][stride], stride >= rows; columns rows .. stride - 1 of out are set to
 * zero. May write 8 floats past the end, unless the stride is a multiple of 8. */
typedef void ec_transpose_f32_fn(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride);
ec_transpose_f32_fn ec_transpose_f32_scalar, ec_transpose_f32_avx2, ec_transpose_f32_neon;

/* k columns (from a whole quad on) of one int8 panel [ceil(k/4)][16][4], times their scale[16], as float32 out[k][16]. */
typedef void ec_expand_s8_fn(int64_t k, const int8_t *panel, const float *scale, float *out);
ec_expand_s8_fn ec_expand_s8_scalar, ec_expand_s8_avx2, ec_expand_s8_neon;

/* sums[mr][32] = 1 to 3 rows of floats times a strip of records, rounded in float32 only. */
typedef struct {
    int64_t groups;
    const float *x;      /* [groups * group][mr], zeros beyond k */
    const uint8_t *w;    /* records of the strip */
    const ec_grouped *form;
    int bits;
    float *sums;
} ec_gemv_sg;
typedef void ec_gemv_sg_fn(int mr, const ec_gemv_sg *t);
ec_gemv_sg_fn ec_gemv_sg_scalar, ec_gemv_sg_avx2, ec_gemv_sg_avx512, ec_gemv_sg_neon;

/* 16 outputs from col0 (a multiple of 16) and inputs k0 (a multiple of 4) .. k0 + k of the weights as float32 out[k][16]. */
typedef void ec_expand_sg_fn(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out);
ec_expand_sg_fn ec_expand_sg_scalar, ec_expand_sg_avx2, ec_expand_sg_avx512, ec_expand_sg_neon;

typedef struct {
    ec_gemm_f32_tile_fn *tile;
    int rows, vecs;
    double macs_per_ns;
} ec_gemm_f32_impl;

const ec_gemm_f32_impl *ec_use_gemm_f32(void);
ec_transpose_f32_fn *ec_use_transpose_f32(void);
ec_expand_s8_fn *ec_use_expand_s8(void);
ec_expand_sg_fn *ec_use_expand_sg(void);
ec_gemv_sg_fn *ec_use_gemv_sg(void);
#endif
