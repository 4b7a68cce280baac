/* Unstructured sparse int8 weights: their kernels. */
#ifndef EC_SPMM_CSR8_H
#define EC_SPMM_CSR8_H
#include "../spmm_csr/spmm_csr.h"

/* Tokens that pass a block of a weight's form together, at most: of EC_CSR_BLOCKS, of EC_CSR_SIGNED. */
enum { EC_LANES8 = 32, EC_LANES8_SIGNED = 64 };

/* ec_csr_block in integers, times 16 or 32 tokens and four entries at a time: count[i] quads, filled up with zeros. So that one factor
 * has no sign, x holds two lines for each input, c = q - 128 and ~c = -c - 1; an entry is its absolute value, and `local` the line.
 * EC_CSR_SIGNED, up to 64 tokens: one line, q itself, and an entry is its code. */
typedef struct {
    int64_t rows;
    int first;
    const uint16_t *count, *order, *local;
    const uint8_t *value; /* or int8_t */
    const int8_t *x; /* [inputs][2][lanes], or uint8_t [inputs][lanes]; byte 16 g + 4 t + e of a line is token lanes / 4 * t + 4 g + e,
                        so that sums are in order */
    int32_t *sums;   /* [rows][lanes] */
} ec_csr8_block;
typedef void ec_spmm_csr8_fn(int lanes, const ec_csr8_block *b);
ec_spmm_csr8_fn ec_spmm_csr8_scalar, ec_spmm_csr8_avx2, ec_spmm_csr8_avxvnni, ec_spmm_csr8_avx512vnni, ec_spmm_csr8_neon,
    ec_spmm_csr8_neondot;

/* x for the above from panels of lanes / 4 quantised rows, or 8 at most, [quads][rows][4] q - 128, or q, which lie `panel` bytes apart. */
typedef void ec_pack_csr8_fn(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x);
ec_pack_csr8_fn ec_pack_csr8_scalar, ec_pack_csr8_avx2, ec_pack_csr8_avx512vnni, ec_pack_csr8_neon;

/* y[t][r] = (sums[r][t] - zero[t] * sum[r]) * sx[t] * sw[r] + bias[r] as in ec_gemm_s8c, of r < rows, t < tokens <= lanes. */
typedef struct {
    const int32_t *zero, *sum;
    const float *sx, *sw;
    const float *bias; /* or NULL */
    int relu;
} ec_csr8_scales;
typedef void ec_csr8_finish_fn(int64_t rows, int64_t tokens, const int32_t *sums, int64_t lanes, const ec_csr8_scales *s, float *y,
                               int64_t ldy);
ec_csr8_finish_fn ec_csr8_finish_avx512;

/* ec_spmv_masks_fn in int8 and for a few tokens: `sum` and `mask` of ec_csr_masks; x as quantised, each token padded to 64 inputs `words`
 * times. sums[tokens][ld] are of (x - zero), rounded once. */
typedef void ec_spmv_masks8_fn(const ec_csr *w, int64_t n, int64_t words, const int32_t *sum, const uint64_t *mask, int64_t row0,
                               int64_t row1, int tokens, const uint8_t *x, const int32_t *zero, float *sums, int64_t ld);
ec_spmv_masks8_fn ec_spmv_masks8_avx512vnni;

/* A panel of gemm_s8c, [quads][16][4], from a bit for each of its weights and the codes of those that are stored, in order. May read
 * 64 bytes from where the codes end. */
typedef void ec_csr8_panels_fn(int64_t quads, const uint64_t *mask, const int8_t *code, int8_t *to);
ec_csr8_panels_fn ec_csr8_panels_avx512vnni;

/* The forms EC_CSR_DENSE and EC_CSR_PANELS, and what multiplies by them; its workspace is ec_gemm_s8c_made_workspace. */
size_t ec_csr8_dense_bytes(int kind, int64_t n, int64_t k, const ec_csr *w);
void ec_csr8_dense(int kind, int64_t n, int64_t k, const ec_csr *w, void *form);
int ec_csr8_as_dense(int kind, int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                     const uint8_t *xzero, const void *form, const float *bias, int act, float *y, int64_t ldy, int threads,
                     void *workspace, size_t size);

ec_spmm_csr8_fn *ec_use_spmm_csr8(void);
ec_pack_csr8_fn *ec_use_pack_csr8(void);
ec_csr8_finish_fn *ec_use_csr8_finish(void); /* or NULL, where the form is EC_CSR_BLOCKS */
ec_spmv_masks8_fn *ec_use_spmv_masks8(void); /* or NULL, as the next */
ec_csr8_panels_fn *ec_use_csr8_panels(void);

/* [4]: up to how many tokens the dense forms are faster, from 9, 15, 25 and 40 % of the weights on. */
const int32_t *ec_use_csr8_dense_tokens(void);
#endif
