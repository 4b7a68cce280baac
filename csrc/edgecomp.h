/* edgecomp: sparse and quantized kernels for compressed neural networks on CPUs. The public C API.
 *
 * Conventions. m rows of activations, n output features, k input features. Matrices are row-major; ld* is the distance
 * from one row to the next in elements, at least the row's length. Nothing needs an alignment beyond its element type.
 * m, n, k may be 0. Pointers may not overlap unless said. Sizes and pointers are the caller's promise: a release build
 * checks none of them.
 *
 * `threads` is a limit: 0 means edgecomp_get_num_threads(), and an op may use fewer. An op without it runs on its caller's
 * thread. Ops may be called from many threads at once: a call that finds the pool busy runs on its caller. Ops allocate
 * nothing: those with a *_workspace() query want that many bytes in `workspace`, at any address, which the call
 * overwrites; `size` tells how many there are.
 *
 * Ops that can fail return EC_OK or another value of the first enum below, with no output written unless said.
 *
 * What stands between the two cdef markers is also what cffi reads: plain declarations only. */
#ifndef EDGECOMP_H
#define EDGECOMP_H
#include <stddef.h>
#include <stdint.h>

#define EC_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* cdef */
enum {
    EC_OK = 0,
    EC_E_NAME = 1,      /* no such ISA on this architecture, or no such op */
    EC_E_NONFINITE = 2, /* x has NaN or Inf and the output is int8; of ec_ggml_records a scale or an offset */
    EC_E_WORKSPACE = 3  /* the workspace is too small: ask the op's query */
};

enum {
    EC_ACT_NONE, EC_ACT_RELU, EC_ACT_RELU6, EC_ACT_LEAKY_RELU, EC_ACT_HARDSWISH, EC_ACT_HARDSIGMOID,
    EC_ACT_GELU, EC_ACT_GELU_TANH, EC_ACT_SILU, EC_ACT_TANH, EC_ACT_SIGMOID
};

const char *ec_version(void);

/* ---- which code runs -------------------------------------------------------------------------------------------- */

/* The ISA lines of this architecture, least first: i in 0 .. ec_isa_count() - 1. Compiled and detected are 0 or 1. The
 * strings that this section returns are static. */
int ec_isa_count(void);
const char *ec_isa_name(int i);
int ec_isa_compiled(int i);
int ec_isa_detected(int i);

/* Whether this CPU has the named line and the cap permits it: 0 or 1, 0 for an unknown name. */
int ec_isa_allows(const char *isa);

/* Caps what dispatch may use at the named line, which this CPU need not have; NULL or "" lifts the cap. EC_E_NAME, and the
 * cap stays, if there is no such line. Not while ops run on other threads. */
int ec_set_isa(const char *name);

/* The line that serves `op` now, the best one where it has several; NULL for an unknown op. Ops: "gemm_f32", "gemm_s8c", "gemm_s4g",
 * "gemm_s8g", "spmm_csr", "spmm_csr8", "spmm_nm", "spmm_nm8", "quantize_rows", "quantize_groups", "activation", "kd_loss", "crc32". */
const char *ec_variant(const char *op);

/* The same for m rows of x. `form`: of gemm_s4g the inputs of a group; of spmm_csr and spmm_csr8 what ec_csr_kind() gives; of spmm_nm and
 * spmm_nm8 the weight's block; not read for the others. */
const char *ec_variant_for(const char *op, int64_t m, int64_t form);

/* ---- threads ------------------------------------------------------------------------------------------------------ */

/* The default thread limit, at most 1024: n >= 1, or 0 for EDGECOMP_NUM_THREADS, OMP_NUM_THREADS or the CPUs this process
 * may use (affinity, cgroup quota, physical cores: ec_cpu_count), whichever is found first. Found once, and kept until the
 * next set. get never returns 0. */
void edgecomp_set_num_threads(int n);
int edgecomp_get_num_threads(void);
int ec_cpu_count(void);

/* Nanoseconds to hand a job to the pool and have all threads at work; 0 for one thread. Measured by the first call for each
 * power of two of threads; 50,000 while the threads do not come or the pool is busy, and measured again later. */
double ec_dispatch_ns(int threads);

/* How many threads a call that takes ns nanoseconds on one thread is given under this limit (0: the default). */
int ec_threads_that_pay(int limit, double ns);

/* ---- int8 --------------------------------------------------------------------------------------------------------- */

/* Dynamic per-row asymmetric uint8. With lo = min(x, 0) and hi = max(x, 0) of a row: scale = hi/255 - lo/255, inv = 1/scale,
 * zero = clip(rint(-lo * inv), 0, 255), q = clip(rint(x * inv) + zero, 0, 255), so that x is about (q - zero) * scale. A row
 * whose scale is below 2^-126 gives q = 0, scale 1, zero 0; a row with NaN or Inf gives q = 0, scale NaN, zero 0.
 * q[m][k] contiguous, scale[m], zero[m]. */
size_t ec_quantize_rows_workspace(int64_t m, int64_t k);
int ec_quantize_rows(int64_t m, int64_t k, const float *x, int64_t ldx, uint8_t *q, float *scale, uint8_t *zero, int threads,
                     void *workspace, size_t size);

/* y = act(x w^T + bias) with int8 weights, one scale per output feature.
 * x: float32 [m][ldx], quantised as above; or NULL, and xq[m][k], xscale[m], xzero[m] are the quantised rows.
 * w: panels n16k4: [ceil(n/16)][ceil(k/4)][16][4], element (j, i) of the n x k matrix at panel j/16, quad i/4, column
 *    j%16, byte i%4; values -127..127, zeros where j >= n or i >= k.
 * wscale, wsum: [16 * ceil(n/16)]; wsum[j] = sum of row j's weights.
 * bias: [n] or NULL. act: EC_ACT_*.
 * Output float32 y[m][ldy]; or, if yq is not NULL, int8 yq[m][ldy] = clip(rint(y/out_scale) + out_zero, -128, 127), and y,
 * which may be NULL, is not written. out_scale and out_zero are read with yq only.
 * The sums are exact integers; y = ((float(sum) * xscale) * wscale) + bias in float32, NaN stored as 0x7FC00000: the
 * same bits on every ISA, thread count and m. A row of x with NaN or Inf gives a row of NaN; with yq, EC_E_NONFINITE. */
size_t ec_gemm_s8c_workspace(int64_t m, int64_t k);
int ec_gemm_s8c_threads(int64_t m, int64_t n, int64_t k, int threads); /* how many a call under this limit uses */
int ec_gemm_s8c(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                const uint8_t *xzero, const int8_t *w, const float *wscale, const int32_t *wsum, const float *bias, int act,
                float *y, int8_t *yq, int64_t ldy, float out_scale, int out_zero, int threads, void *workspace, size_t size);

/* y = a w^T exactly, in int32: a uint8, or int8 if a_signed, [m][lda]; k at most 66311 (uint8) or 132104 (int8).
 * Workspace: ec_gemm_s8c_workspace(m, k). */
int ec_gemm_s8c_i32(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, int a_signed, const int8_t *w, const int32_t *wsum,
                    int32_t *y, int64_t ldy, int threads, void *workspace, size_t size);

/* As ec_gemm_s8c on float activations that are not quantised: the weights are expanded to float32 block by block.
 * Workspace: ec_gemm_f32_workspace(m, k, 0, threads). */
int ec_gemm_s8c_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *w, const float *wscale, const float *bias,
                    int act, float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* q[count] = clip(rint(y/scale) + zero, -128, 127), NaN as zero; y[count]. */
int ec_requantize(int64_t count, const float *y, float scale, int zero, int8_t *q);

/* ---- int4 and int8 with a scale per group of inputs ---------------------------------------------------------------- */

/* Which code stands for 0: the middle one (8 or 128); an integer for each output and group; or none, with a float offset for each. */
enum { EC_ZERO_MIDDLE, EC_ZERO_POINT, EC_ZERO_OFFSET };

/* Weights in records [ceil(n/32)][ceil(k/group)] of 32 outputs and one group of inputs each. A record is its header and its codes:
 *   float or float16 scale[32]; with EC_ZERO_POINT uint8 zero[32] (of int4 at most 128), with EC_ZERO_OFFSET offset[32] of the scales'
 *   type; zeros up to a multiple of 64 bytes;
 *   int8: uint8 code[group/4][32][4]: quad of inputs, output, input within the quad;
 *   int4: uint8 code[ceil(group/8)][32][4]: the low nibbles are the first quad of eight inputs, the high nibbles the second.
 * A weight is scale * (code - zero), or scale * code + offset. Codes beyond n and k may be anything; scales and offsets are finite. */
typedef struct {
    const void *records;
    const int32_t *permutation; /* [k] or NULL: input i of the weights is x[permutation[i]] */
    int32_t group;              /* inputs of a group, a multiple of 16 from 16 to 66320; k rounded up to 16 for a single group */
    int32_t scale_bytes;        /* 2 or 4 */
    int32_t zero;               /* EC_ZERO_* */
} ec_grouped;
size_t ec_record_bytes(const ec_grouped *w, int bits);

/* y = act(x w^T + bias), x quantised per row and group: scale = absmax/127, q = rint(x * (1/scale)).
 * x: float32 [m][ldx]; or NULL, and xq[m][k], xscale[m][ceil(k/group)] are what it was quantised to, in the weights' order.
 * The sums of a group are exact integers. y = 0; then for each group in order y = y + float(sum (code - zero) * q) * (xscale * scale)
 * in float32, and with offsets y = y + float(sum code * q) * (xscale * scale), y = y + float(sum q) * (xscale * offset); at last + bias.
 * NaN is stored as 0x7FC00000: the same bits on every ISA, thread count and m. A row of x with NaN or Inf gives a row of NaN. */
size_t ec_gemm_s4g_workspace(int64_t m, int64_t k, const ec_grouped *w);
int ec_gemm_s4g_threads(int64_t m, int64_t n, int64_t k, int threads);
int ec_gemm_s4g(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *xq, const float *xscale, const ec_grouped *w,
                const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size);
size_t ec_gemm_s8g_workspace(int64_t m, int64_t k, const ec_grouped *w);
int ec_gemm_s8g_threads(int64_t m, int64_t n, int64_t k, int threads);
int ec_gemm_s8g(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *xq, const float *xscale, const ec_grouped *w,
                const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* GGML's blocks of 32 weights, [n][groups], as records (float16 scales, groups of 32), no weight changed: Q8_0 (bits = 8), Q4_0 (bits =
 * 4) or, if `offset`, Q4_1. Padding is zeros. EC_E_NONFINITE, with the records written, if a scale or an offset is NaN or infinite.
 * Little-endian CPUs only. */
int ec_ggml_records(int64_t n, int64_t groups, int bits, int offset, const void *blocks, void *records, int threads);

/* Quantises rows as these ops do: q[m][k] contiguous, scale[m][ceil(k/group)]. A group whose scale is below 2^-126 gives q = 0, scale
 * 1; a group with NaN or Inf gives q = 0, scale NaN. */
size_t ec_quantize_groups_workspace(int64_t m, int64_t k, int64_t group);
int ec_quantize_groups(int64_t m, int64_t k, int64_t group, const float *x, int64_t ldx, int8_t *q, float *scale, int threads,
                       void *workspace, size_t size);

/* As ec_gemm_s4g and ec_gemm_s8g on float activations that are not quantised, each weight rounded once to float32; bits is 4 or 8. x is in
 * the weights' order: w->permutation is not read. Workspace: ec_gemm_f32_workspace(m, k, 0, threads). */
int ec_gemm_sg_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_grouped *w, int bits, const float *bias, int act,
                   float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* ---- sparse ------------------------------------------------------------------------------------------------------- */

/* Weights in CSR: row j has the entries indptr[j] .. indptr[j + 1] - 1, their indices ascending, each once, in 0 .. k - 1.
 * The indices are `indices`, or `short_indices` if that is not NULL (k at most 65536), in half the bytes.
 * float32 `values`; or, if `codes` is not NULL, int8 in -127 .. 127 with scale[n].
 * `derived`: the same entries in the order of a kernel, of the kind that ec_csr_kind() names for m rows of x on this ISA, in
 * ec_csr_derived_bytes() bytes, aligned to 8, which ec_csr_derive writes once for all calls.
 * Where it is NULL, as always for EC_CSR_ROWS, a call reads the arrays above row
 * by row, for each of its m by itself; and of a weight that never has any, indices may be in any order, and more than once. */
enum { EC_CSR_ROWS, EC_CSR_BLOCKS, EC_CSR_PAIRS, EC_CSR_MASKS, EC_CSR_SIGNED, EC_CSR_SELL, EC_CSR_DENSE, EC_CSR_PANELS, EC_CSR_KINDS };
typedef struct {
    const int32_t *indptr, *indices;
    const uint16_t *short_indices;
    const float *values;
    const int8_t *codes;
    const float *scale;
    const void *derived[EC_CSR_KINDS];
} ec_csr;
int ec_csr_kind(int64_t m, int64_t n, int64_t k, const ec_csr *w);
int ec_csr_by_token(int kind); /* whether kernels of that kind take one row of x after the other */
size_t ec_csr_derived_bytes(int kind, int64_t n, int64_t k, const ec_csr *w);
void ec_csr_derive(int kind, int64_t n, int64_t k, const ec_csr *w, void *memory);

/* y = act(x w^T + bias), x and w float32: what x holds where w has no entry plays no part. The order of summation depends on w, the
 * ISA, the kind above and whether m is 1: the same bits for every thread count. */
size_t ec_spmm_csr_workspace(int64_t m, int64_t k, int threads);
int ec_spmm_csr_threads(int64_t m, int64_t n, int64_t k, const ec_csr *w, int threads); /* of both kinds of values */
int ec_spmm_csr(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_csr *w, const float *bias, int act, float *y,
                int64_t ldy, int threads, void *workspace, size_t size);

/* y[n][ldy] = w b with b[k][ldb] of m columns: the bits that ec_spmm_csr gives for the transposes of b and y, with its workspace, but
 * neither is transposed. w has what is derived for m, of a kind that is not by token. */
int ec_spmm_csr_columns(int64_t m, int64_t n, int64_t k, const float *b, int64_t ldb, const ec_csr *w, float *y, int64_t ldy, int threads,
                        void *workspace, size_t size);

/* As ec_spmm_csr with int8 codes and x quantised per row: x float32 [m][ldx]; or NULL, and xq[m][k], xscale[m], xzero[m] are the quantised
 * rows. As in ec_gemm_s8c the sums are exact integers, and y has the same bits on every ISA, thread count and m. */
size_t ec_spmm_csr8_workspace(int64_t m, int64_t k, int threads);
int ec_spmm_csr8(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                 const uint8_t *xzero, const ec_csr *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                 size_t size);

/* Weights of which n of each m inputs are kept, 1 <= n <= m <= 16: for each m inputs n, and of a short last group n or all that it has.
 * Each output keeps its own (block 1), or `block` neighbouring outputs, a multiple of 16, keep the same.
 * kept = k / m * n + min(n, k % m).
 * `values`: float32 panels [ceil(N/16)][kept][16]; or, if `codes` is not NULL, int8 panels n16k4 [ceil(N/16)][ceil(kept/4)][16][4] with
 * scale, sums and negative [16 * ceil(N/16)], the sums of each output's codes and of those below zero, and kept at most 66311.
 * `packed`: the place of each kept input in its group, ascending, b = 2 bits (m <= 4) or 4 each, in words of 32 bits: entry 4 i + c of a
 * word is in byte c, from bit b * i on, and entries beyond kept are 0. Block 1: words [ceil(N/16)][ceil(kept * b / 32)][16]; else
 * [ceil(N/block)][ceil(kept * b / 32)]. All places are within their group, which in a short last one has k % m inputs. */
typedef struct {
    const float *values;
    const int8_t *codes;
    const float *scale;
    const int32_t *sums, *negative;
    const uint32_t *packed;
    int32_t n, m, block;
} ec_nm;

/* y = act(x w^T + bias), x and w float32: what x holds where w keeps nothing plays no part. The order of summation depends on m, k, the
 * pattern and the ISA: the same bits for every thread count. ec_spmm_nm_workspace is the query of ec_spmm_nm8 as well. */
size_t ec_spmm_nm_workspace(int64_t m, int64_t k, const ec_nm *w, int threads);
int ec_spmm_nm_threads(int64_t m, int64_t n, int64_t k, int threads); /* k: the kept inputs */
int ec_spmm_nm(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
               int64_t ldy, int threads, void *workspace, size_t size);

/* The same with int8 codes and x quantised per row: x float32 [m][ldx]; or NULL, and xq[m][k], xscale[m], xzero[m] are the quantised rows.
 * y has the bits that ec_gemm_s8c gives for the same weights with zeros where nothing is kept.
 * ec_nm8_form tells in which form n:m weights are fastest for `rows` rows on this CPU: as they are (EC_NM8_OWN), or as those of ec_gemm_s8c
 * (EC_NM8_DENSE) or ec_spmm_csr8 (EC_NM8_CSR). */
enum { EC_NM8_OWN, EC_NM8_DENSE, EC_NM8_CSR };
int ec_nm8_form(int64_t rows, int n, int m, int block);
int ec_spmm_nm8_threads(int64_t m, int64_t n, int64_t k, int threads);
int ec_spmm_nm8(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale, const uint8_t *xzero,
                const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* ---- float32 ------------------------------------------------------------------------------------------------------ */

/* y = act(x w^T + bias). w: if ldw is 0, panels [ceil(n/16)][k][16], element (j, i) at panel j/16, row i, column j%16,
 * zeros where j >= n; else the plain matrix [n][ldw], packed block by block while it runs.
 * The order of summation depends on m, k, the ISA and whether w is packed: the same bits for every thread count. */
size_t ec_gemm_f32_workspace(int64_t m, int64_t k, int packed, int threads);
int ec_gemm_f32_threads(int64_t m, int64_t n, int64_t k, int threads);
int ec_gemm_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, const float *bias, int act,
                float *y, int64_t ldy, int threads, void *workspace, size_t size);

/* y += x w with w [k][ldw] as it stands, and x [m][ldx], or [k][ldx] if x_turned: the gradients of y = x w^T. As ec_gemm_f32 otherwise. */
size_t ec_gemm_f32_add_workspace(int64_t m, int64_t n, int64_t k);
int ec_gemm_f32_add(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, int x_turned, const float *w, int64_t ldw, float *y,
                    int64_t ldy, int threads, void *workspace, size_t size);

/* ---- distillation -------------------------------------------------------------------------------------------------- */

/* What distils, of the teacher's p and the student's q: sum p log(p/q); sum q log(q/p); beta KL(p, m) + (1 - beta) KL(q, m) with
 * m = beta p + (1 - beta) q; sum |p - q| / 2; sum ((s - t) / temperature)^2. */
enum { EC_KD_KL, EC_KD_REVERSE_KL, EC_KD_JSD, EC_KD_TVD, EC_KD_MSE };

typedef struct {
    int32_t kind;               /* EC_KD_* */
    double temperature;         /* q = softmax(s / temperature) */
    double teacher_temperature; /* p = softmax(t / teacher_temperature): 1 for log-probabilities that are softened already */
    double kd, ce;              /* a row's loss is kd * KD + ce * CE, CE the cross entropy of softmax(s) with its label */
    double beta;                /* of EC_KD_JSD, between 0 and 1 */
    double smoothing;           /* of the labels, 0..1 */
    double scale;               /* of the gradients, not of the losses */
} ec_kd;

/* loss[i] = weight[i] * (the loss of row i), grad[m][ldg] = scale * weight[i] * its derivative by the student's logits.
 * student, teacher: float32 [m][lds], [m][ldt], n >= 1 classes. labels: [m] in 0..n-1, or NULL if ce is 0. weight: [m]; a row of
 * weight 0 gives zeros, and its label is not read. grad: NULL, or where it goes: may be student, with ldg = lds.
 * -inf masks a class. A row with NaN or +inf, or with nothing but -inf, gives NaN in its loss and gradient.
 * The order of summation depends on n and the ISA: the same bits for every thread count. */
size_t ec_kd_loss_workspace(int64_t m, int64_t n, int threads);
int ec_kd_loss_threads(int64_t m, int64_t n, int64_t k, int threads); /* k is not used */
int ec_kd_loss(int64_t m, int64_t n, const float *student, int64_t lds, const float *teacher, int64_t ldt, const int64_t *labels,
               const double *weight, const ec_kd *how, double *loss, float *grad, int64_t ldg, int threads, void *workspace, size_t size);

/* ---- matrices ------------------------------------------------------------------------------------------------------ */

/* y[columns][ldy] = the transpose of x[rows][ldx]. */
void ec_transpose(int64_t rows, int64_t columns, const float *x, int64_t ldx, float *y, int64_t ldy, int threads);

/* ---- files --------------------------------------------------------------------------------------------------------- */

/* The CRC-32 of ZIP and zlib of `size` bytes, continuing from crc, which is that of the bytes before them (0 at the start). */
uint32_t ec_crc32(uint32_t crc, const void *data, int64_t size);

/* The first NaN or infinity among `rows` rows of `per` floats of 2 or 4 bytes each, as its number in row-major order; -1 if there is none.
 * Row i begins i * stride bytes after data. */
int64_t ec_first_nonfinite(const void *data, int64_t rows, int64_t per, int64_t stride, int bytes);

/* ---- this machine's peaks ------------------------------------------------------------------------------------------ */

enum { EC_ROOF_TILE_S8, EC_ROOF_DOT_S8, EC_ROOF_CHAIN_S8, EC_ROOF_FMA_F32, EC_ROOF_READ, EC_ROOF_COPY };

/* Runs `reps` rounds of a loop that does nothing else on each of `threads` threads (the caller times it) and returns what all
 * of them did: operations (multiply and add count two each) or bytes (a copy counts both ways). READ: each thread its own
 * `bytes` of a; COPY: from a to b; for these a and b hold threads * bytes, the others read neither. 0 if this CPU has no such
 * instruction. bytes: a multiple of 4096. */
double ec_roof(int loop, int64_t reps, float *a, float *b, size_t bytes, int threads);
/* end cdef */

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
