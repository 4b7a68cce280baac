/* Which code runs: what the CPU has, and one table per op, best first. The first entry that the CPU has and the cap
 * permits is used for every call. To add a variant, add its line. */
#define _GNU_SOURCE /* syscall */
#include "activation/activation.h"
#include "crc32/crc32.h"
#include "gemm_f32/gemm_f32.h"
#include "gemm_s4g/gemm_s4g.h"
#include "gemm_s8c/gemm_s8c.h"
#include "kd_loss/kd_loss.h"
#include "quantize_groups/quantize_groups.h"
#include "quantize_rows/quantize_rows.h"
#include "spmm_csr/spmm_csr.h"
#include "spmm_csr8/spmm_csr8.h"
#include "spmm_nm/spmm_nm.h"
#include "spmm_nm8/spmm_nm8.h"

#include <stdatomic.h>
#if defined(EC_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(EC_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#ifdef EC_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

/* ---- the lines: position is the order of EDGECOMP_ISA ---------------------------------------------------------------- */

#ifdef EC_X86
enum { SCALAR, AVX2, AVXVNNI, AVXVNNI_EVEX, AVX512, AVX512VNNI, AVX512VBMI, AVX512FP16, AMX, ISA_COUNT };
static const char *const ISA_NAMES[] = {"scalar", "avx2", "avxvnni", "avxvnni_evex", "avx512", "avx512vnni", "avx512vbmi", "avx512fp16",
                                        "amx"};
#elif defined(EC_ARM64)
enum { SCALAR, NEON, NEONDOT, I8MM, ISA_COUNT };
static const char *const ISA_NAMES[] = {"scalar", "neon", "neondot", "i8mm"};
#else
enum { SCALAR, ISA_COUNT };
static const char *const ISA_NAMES[] = {"scalar"};
#endif

#ifdef EC_X86
#ifdef __linux__
/* Whether Linux gives this process the state of AMX, 8 KB a thread, for which it has to be asked. */
static int may_use_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA) == 0;
}
#else
static int may_use_tiles(void) { return 0; }
#endif

static unsigned detect(void)
{
    unsigned a, b, c, d, found = 1u << SCALAR;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return found;
    const int fma = c & bit_FMA && c & bit_F16C && c & bit_PCLMUL; /* every CPU with AVX2 has all three */
    unsigned xcr0, high;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0)); /* which registers the OS saves: 6 is YMM, E0 adds ZMM and masks */
    if ((xcr0 & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return found;
    if (b & bit_AVX2 && fma)
        found |= 1u << AVX2;
    const unsigned f512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if (found & 1u << AVX2 && (xcr0 & 0xE0) == 0xE0 && (b & f512) == f512) {
        found |= 1u << AVX512;
        if (c & bit_AVX512VNNI)
            found |= 1u << AVX512VNNI | 1u << AVXVNNI_EVEX | (c & bit_AVX512VBMI ? 1u << AVX512VBMI : 0);
        if (d & 1u << 23 && c & bit_AVX512VNNI && c & bit_AVX512VBMI && c & bit_GFNI) /* AVX512-FP16: every CPU with it has these */
            found |= 1u << AVX512FP16;
        if (found & 1u << AVX512FP16 && (d >> 24 & 3) == 3 && (xcr0 >> 17 & 3) == 3 && may_use_tiles()) /* AMX-TILE, AMX-INT8 */
            found |= 1u << AMX;
    }
    if (found & 1u << AVX2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4) /* AVX-VNNI */
        found |= 1u << AVXVNNI;
    return found;
}
#elif defined(EC_ARM64)
#if defined(__linux__)
static int has_dotprod(void) { return (int)(getauxval(AT_HWCAP) >> 20 & 1); } /* HWCAP_ASIMDDP */
static int has_i8mm(void) { return (int)(getauxval(AT_HWCAP2) >> 13 & 1); }   /* HWCAP2_I8MM */
#elif defined(__APPLE__)
static int has(const char *feature)
{
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(feature, &value, &size, NULL, 0) && value;
}
static int has_dotprod(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int has_i8mm(void) { return has("hw.optional.arm.FEAT_I8MM"); }
#else
static int has_dotprod(void) { return 0; }
static int has_i8mm(void) { return 0; }
#endif

static unsigned detect(void)
{
    const int dotprod = has_dotprod();
    return 1u << SCALAR | 1u << NEON | (dotprod ? 1u << NEONDOT : 0) | (dotprod && has_i8mm() ? 1u << I8MM : 0);
}
#else
static unsigned detect(void) { return 1u << SCALAR; }
#endif

/* ---- op x ISA ------------------------------------------------------------------------------------------------------ */

extern const ec_kd_loss_impl ec_kd_loss_scalar, ec_kd_loss_avx2, ec_kd_loss_avx512, ec_kd_loss_neon;

static const struct { int isa; ec_gemm_s8c_impl impl; } GEMM_S8C[] = {
#ifdef EC_X86
    {AMX, {ec_gemm_s8c_tile_amx, .rows = EC_S8C_ROWS, .vecs = 2, .from = 8, .by_rows = 1, .flip = 0, .macs_per_ns = 1000}},
    {AVX512VNNI, {ec_gemm_s8c_tile_avx512vnni, .rows = 8, .vecs = 3, .flip = 0, .macs_per_ns = 200}},
    {AVXVNNI_EVEX, {ec_gemm_s8c_tile_avxvnni_evex, .rows = 6, .vecs = 1, .flip = 0, .macs_per_ns = 100}},
    {AVXVNNI, {ec_gemm_s8c_tile_avxvnni, .rows = 6, .vecs = 1, .flip = 0, .macs_per_ns = 100}},
    {AVX2, {ec_gemm_s8c_tile_avx2, .rows = 3, .vecs = 2, .flip = 0x80, .macs_per_ns = 60}},
#elif defined(EC_ARM64)
    {I8MM, {ec_gemm_s8c_tile_i8mm, .rows = 6, .vecs = 1, .flip = 0x80, .macs_per_ns = 40}},
    {NEONDOT, {ec_gemm_s8c_tile_neondot, .rows = 6, .vecs = 1, .flip = 0x80, .macs_per_ns = 25}},
    {NEON, {ec_gemm_s8c_tile_neon, .rows = 2, .vecs = 1, .flip = 0x80, .macs_per_ns = 6}},
#endif
    {SCALAR, {ec_gemm_s8c_tile_scalar, .rows = 8, .vecs = 3, .flip = 0, .macs_per_ns = 4}},
};

static const struct { int isa; ec_gemm_f32_impl impl; } GEMM_F32[] = {
#ifdef EC_X86
    {AVX512, {ec_gemm_f32_tile_avx512, .rows = 8, .vecs = 3, .macs_per_ns = 50}},
    {AVX2, {ec_gemm_f32_tile_avx2, .rows = 6, .vecs = 1, .macs_per_ns = 30}},
#elif defined(EC_ARM64)
    {NEON, {ec_gemm_f32_tile_neon, .rows = 6, .vecs = 1, .macs_per_ns = 6}},
#endif
    {SCALAR, {ec_gemm_f32_tile_scalar, .rows = 8, .vecs = 3, .macs_per_ns = 4}},
};

static const struct { int isa; ec_gemm_sg_impl impl; } GEMM_S4G[] = {
#ifdef EC_X86
    {AMX, {ec_gemm_s4g_tile_amx, .rows = EC_SQUARES, .by_rows = 1, .macs_per_ns = 200}},
    {AVX512FP16, {ec_gemm_s4g_tile_avx512fp16, .rows = 6, .tall = EC_TALL_ROWS, .macs_per_ns = 150}},
    {AVX512VNNI, {ec_gemm_s4g_tile_avx512vnni, .rows = 6, .macs_per_ns = 150}},
    {AVX2, {ec_gemm_s4g_tile_avx2, .rows = 8, .macs_per_ns = 80}},
#elif defined(EC_ARM64)
    {NEONDOT, {ec_gemm_s4g_tile_neondot, .rows = 4, .macs_per_ns = 20}},
#endif
    {SCALAR, {ec_gemm_s4g_tile_scalar, .rows = 8, .macs_per_ns = 1}},
};

static const struct { int isa; ec_gemm_sg_impl impl; } GEMM_S8G[] = {
#ifdef EC_X86
    {AVX512VNNI, {ec_gemm_s8g_tile_avx512vnni, .rows = 6, .macs_per_ns = 150}},
    {AVX2, {ec_gemm_s8g_tile_avx2, .rows = 8, .macs_per_ns = 50}},
#elif defined(EC_ARM64)
    {NEONDOT, {ec_gemm_s8g_tile_neondot, .rows = 4, .macs_per_ns = 20}},
#endif
    {SCALAR, {ec_gemm_s8g_tile_scalar, .rows = 8, .macs_per_ns = 1}},
};

static const struct { int isa; ec_quantize_groups_fn *fn; } QUANTIZE_GROUPS[] = {
#ifdef EC_X86
    {AVX512, ec_quantize_groups_avx512},
    {AVX2, ec_quantize_groups_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_quantize_groups_neon},
#endif
    {SCALAR, ec_quantize_groups_scalar},
};

static const struct { int isa; ec_expand_sg_fn *fn; } EXPAND_SG[] = {
#ifdef EC_X86
    {AVX512, ec_expand_sg_avx512},
    {AVX2, ec_expand_sg_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_expand_sg_neon},
#endif
    {SCALAR, ec_expand_sg_scalar},
};

static const struct { int isa; ec_gemv_sg_fn *fn; } GEMV_SG[] = {
#ifdef EC_X86
    {AVX512, ec_gemv_sg_avx512},
    {AVX2, ec_gemv_sg_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_gemv_sg_neon},
#endif
    {SCALAR, ec_gemv_sg_scalar},
};

static const struct { int isa; ec_spmm_csr_fn *fn; ec_csr_pairs_fn *pairs; ec_csr_pack_fn *pack; ec_csr_finish_fn *finish; } SPMM_CSR[] = {
#ifdef EC_X86
    {AVX512, ec_spmm_csr_avx512, ec_csr_pairs_avx512, ec_csr_pack_avx512, ec_csr_finish_avx512},
    {AVX2, ec_spmm_csr_avx2, NULL, NULL, NULL},
#elif defined(EC_ARM64)
    {NEON, ec_spmm_csr_neon, NULL, NULL, NULL},
#endif
    {SCALAR, ec_spmm_csr_scalar, NULL, NULL, NULL},
};

static const struct { int isa; ec_spmm_csr8_fn *fn; ec_pack_csr8_fn *pack; ec_csr8_finish_fn *finish; } SPMM_CSR8[] = {
#ifdef EC_X86
    {AVX512VNNI, ec_spmm_csr8_avx512vnni, ec_pack_csr8_avx512vnni, ec_csr8_finish_avx512},
    {AVXVNNI, ec_spmm_csr8_avxvnni, ec_pack_csr8_avx2, NULL},
    {AVX2, ec_spmm_csr8_avx2, ec_pack_csr8_avx2, NULL},
#elif defined(EC_ARM64)
    {NEONDOT, ec_spmm_csr8_neondot, ec_pack_csr8_neon, NULL},
    {NEON, ec_spmm_csr8_neon, ec_pack_csr8_neon, NULL},
#endif
    {SCALAR, ec_spmm_csr8_scalar, ec_pack_csr8_scalar, NULL},
};

#define ANY INT32_MAX
static const struct { int isa; int32_t tokens[4]; } CSR8_DENSE[] = {
#ifdef EC_X86
    {AMX, {32, ANY, ANY, ANY}},
    {AVX512VNNI, {0, 16, 32, ANY}},
    {AVXVNNI, {0, 0, 8, ANY}},
    {AVX2, {0, 0, 8, 8}},
#endif
    {SCALAR, {0}},
};
#undef ANY

static const struct { int isa; ec_spmv_csr_fn *fn; ec_spmv_sell_fn *sell, *sell_wide; } SPMV_CSR[] = {
#ifdef EC_X86
    {AVX512FP16, ec_spmv_csr_avx512fp16, ec_spmv_sell_avx512fp16, ec_spmv_sell_avx512fp16},
    {AVX512, ec_spmv_csr_avx512, ec_spmv_sell_avx512, NULL},
    {AVX2, ec_spmv_csr_avx2, NULL, NULL},
#endif
    {SCALAR, ec_spmv_csr_scalar, NULL, NULL},
};

static const struct { int isa; ec_spmv_masks_fn *fn; ec_spmm_masks_fn *few; } SPMV_MASKS[] = {
#ifdef EC_X86
    {AVX512, ec_spmv_masks_avx512, ec_spmm_masks_avx512},
    {AVX2, ec_spmv_masks_avx2, NULL},
#endif
    {SCALAR, NULL, NULL}, /* rows of CSR */
};

static const struct { int isa; ec_spmv_masks8_fn *fn; ec_csr8_panels_fn *panels; } SPMV_MASKS8[] = {
#ifdef EC_X86
    {AVX512VNNI, ec_spmv_masks8_avx512vnni, ec_csr8_panels_avx512vnni}, /* if there is VBMI2 */
#endif
    {SCALAR, NULL, NULL},
};

static const struct { int isa; ec_spmm_nm_impl impl; } SPMM_NM[] = {
#ifdef EC_X86
    {AVX512FP16, {ec_spmm_nm_tile_avx512, .rows = 12, .block = 512}}, /* elsewhere all inputs at once are a sixth faster */
    {AVX512, {ec_spmm_nm_tile_avx512, .rows = 12, .block = 1 << 30}},
    {AVX2, {ec_spmm_nm_tile_avx2, .rows = 6, .block = 1024}},
#endif
    {SCALAR, {NULL, .block = 1024}},
};

static const struct { int isa; ec_nm_rows_fn *fn; } NM_ROWS[] = {
#ifdef EC_X86
    {AVX512, ec_nm_rows_avx512},
#endif
    {SCALAR, ec_nm_rows_scalar},
};

static const struct { int isa; ec_nm_lanes_fn *fn; } NM_LANES[] = {
#ifdef EC_X86
    {AVX512FP16, ec_nm_lanes_avx512fp16}, /* with the packing and finishing of CSR */
#endif
    {SCALAR, NULL}, /* outputs in the lanes */
};

static const struct { int isa; ec_nm_inputs_fn *fn; } NM_INPUTS[] = {
#ifdef EC_X86
    {AVX512, ec_nm_inputs_avx512},
#endif
    {SCALAR, ec_nm_inputs_scalar},
};

#define NM8_AVX512VBMI .window = 64, .whole = 2, .block = 512, .panels = 2, .places = 1, .shared_few = 47
#define NM8_AVX2 .flip = 0x80, .window = 16, .whole = 2, .block = 64, .panels = 1, .halves = 1
static const struct { int isa; ec_spmm_nm8_impl impl; } SPMM_NM8[] = {
#ifdef EC_X86
    {AVX512FP16, {ec_spmm_nm8_avx512vbmi, NM8_AVX512VBMI, .half = 0}}, /* dense int8 is as fast where half is kept */
    {AVX512VBMI, {ec_spmm_nm8_avx512vbmi, NM8_AVX512VBMI, .half = 1}},
    {AVXVNNI_EVEX, {ec_spmm_nm8_avx2, NM8_AVX2, .shared = 0}}, /* a dot product for the dense tile */
    {AVXVNNI, {ec_spmm_nm8_avx2, NM8_AVX2, .shared = 0}},
    {AVX2, {ec_spmm_nm8_avx2, NM8_AVX2, .places = 1, .half = 1, .shared = 1}},
#elif defined(EC_ARM64)
    {NEONDOT, {ec_spmm_nm8_neondot, .flip = 0x80, .window = 16, .whole = 2, .block = 64, .panels = 1, .places = 1}},
#endif
    {SCALAR, {ec_spmm_nm8_scalar, .flip = 0, .window = 64, .whole = 0, .block = 64, .panels = 1, .halves = 0, .shared = 0}},
};

static const struct { int isa; ec_planes_s8_impl impl; } PLANES_S8[] = {
#ifdef EC_X86
    {AVX512FP16, {ec_planes_s8_avx512fp16, ec_planes_s8_pack_avx512vnni, .group_bytes = 200 << 10}},
    {AVX512VNNI, {ec_planes_s8_avx512vnni, ec_planes_s8_pack_avx512vnni, .group_bytes = 3 << 20}},
#endif
    {SCALAR, {NULL, NULL, .group_bytes = 0}}, /* as few rows */
};

static const struct { int isa; ec_gather_s8_fn *fn; } GATHER_S8[] = {
#ifdef EC_X86
    {AVX2, ec_gather_s8_avx2},
#endif
    {SCALAR, ec_gather_s8_scalar},
};

static const struct { int isa; ec_quantize_rows_fn *fn; } QUANTIZE_ROWS[] = {
#ifdef EC_X86
    {AVX512, ec_quantize_rows_avx512},
    {AVX2, ec_quantize_rows_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_quantize_rows_neon},
#endif
    {SCALAR, ec_quantize_rows_scalar},
};

static const struct { int isa; ec_transpose_f32_fn *fn; } TRANSPOSE_F32[] = {
#ifdef EC_X86
    {AVX2, ec_transpose_f32_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_transpose_f32_neon},
#endif
    {SCALAR, ec_transpose_f32_scalar},
};

static const struct { int isa; ec_expand_s8_fn *fn; } EXPAND_S8[] = {
#ifdef EC_X86
    {AVX2, ec_expand_s8_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_expand_s8_neon},
#endif
    {SCALAR, ec_expand_s8_scalar},
};

static const struct { int isa; ec_activation_fn *fn; } ACTIVATION[] = {
#ifdef EC_X86
    {AVX512, ec_activation_avx512},
    {AVX2, ec_activation_avx2},
#elif defined(EC_ARM64)
    {NEON, ec_activation_neon},
#endif
    {SCALAR, ec_activation_scalar},
};

static const struct { int isa; const ec_kd_loss_impl *impl; } KD_LOSS[] = {
#ifdef EC_X86
    {AVX512, &ec_kd_loss_avx512},
    {AVX2, &ec_kd_loss_avx2},
#elif defined(EC_ARM64)
    {NEON, &ec_kd_loss_neon},
#endif
    {SCALAR, &ec_kd_loss_scalar},
};

static const struct { int isa; ec_crc32_fn *fn; } CRC32[] = {
#ifdef EC_X86
    {AVX512, ec_crc32_avx512},
    {AVX2, ec_crc32_avx2},
#elif defined(EC_ARM64)
    {NEONDOT, ec_crc32_neondot}, /* Armv8.2, and CRC-32 is part of Armv8.1 */
#endif
    {SCALAR, ec_crc32_scalar},
};

/* ---- the choice ------------------------------------------------------------------------------------------------------ */

static _Atomic unsigned usable; /* bit per line; 0: not asked yet. The scalar bit is always set. */

static unsigned lines(void)
{
    unsigned u = atomic_load_explicit(&usable, memory_order_relaxed);
    if (!u)
        atomic_store_explicit(&usable, u = detect(), memory_order_relaxed);
    return u;
}

/* Index of the first usable entry of a table; the last entry of every table is scalar. */
#define CHOOSE(table, i) \
    int i = 0; \
    for (const unsigned u = lines(); !(u >> (table)[i].isa & 1); i++) \
    ;

static int gemm_s8c_entry(int64_t m)
{
    CHOOSE(GEMM_S8C, i)
    return i + (m < GEMM_S8C[i].impl.from);
}
static int gemm_s4g_entry(int64_t m, int64_t group)
{
    CHOOSE(GEMM_S4G, i)
    return i + (GEMM_S4G[i].impl.by_rows && !ec_fills_squares(m, group));
}

const ec_gemm_s8c_impl *ec_use_gemm_s8c(int64_t m) { return &GEMM_S8C[gemm_s8c_entry(m)].impl; }
const ec_gemm_f32_impl *ec_use_gemm_f32(void) { CHOOSE(GEMM_F32, i) return &GEMM_F32[i].impl; }
const ec_gemm_sg_impl *ec_use_gemm_s4g(int64_t m, int64_t group) { return &GEMM_S4G[gemm_s4g_entry(m, group)].impl; }
const ec_gemm_sg_impl *ec_use_gemm_s8g(void) { CHOOSE(GEMM_S8G, i) return &GEMM_S8G[i].impl; }
ec_quantize_groups_fn *ec_use_quantize_groups(void) { CHOOSE(QUANTIZE_GROUPS, i) return QUANTIZE_GROUPS[i].fn; }
ec_expand_sg_fn *ec_use_expand_sg(void) { CHOOSE(EXPAND_SG, i) return EXPAND_SG[i].fn; }
ec_gemv_sg_fn *ec_use_gemv_sg(void) { CHOOSE(GEMV_SG, i) return GEMV_SG[i].fn; }
ec_spmm_csr_fn *ec_use_spmm_csr(void) { CHOOSE(SPMM_CSR, i) return SPMM_CSR[i].fn; }
ec_csr_pairs_fn *ec_use_csr_pairs(void) { CHOOSE(SPMM_CSR, i) return SPMM_CSR[i].pairs; }
ec_csr_pack_fn *ec_use_csr_pack(void) { CHOOSE(SPMM_CSR, i) return SPMM_CSR[i].pack; }
ec_csr_finish_fn *ec_use_csr_finish(void) { CHOOSE(SPMM_CSR, i) return SPMM_CSR[i].finish; }
ec_spmm_csr8_fn *ec_use_spmm_csr8(void) { CHOOSE(SPMM_CSR8, i) return SPMM_CSR8[i].fn; }
ec_pack_csr8_fn *ec_use_pack_csr8(void) { CHOOSE(SPMM_CSR8, i) return SPMM_CSR8[i].pack; }
ec_csr8_finish_fn *ec_use_csr8_finish(void) { CHOOSE(SPMM_CSR8, i) return SPMM_CSR8[i].finish; }
const int32_t *ec_use_csr8_dense_tokens(void) { CHOOSE(CSR8_DENSE, i) return CSR8_DENSE[i].tokens; }
ec_spmv_csr_fn *ec_use_spmv_csr(void) { CHOOSE(SPMV_CSR, i) return SPMV_CSR[i].fn; }
ec_spmv_sell_fn *ec_use_spmv_sell(const ec_csr *w)
{
    CHOOSE(SPMV_CSR, i)
    return w->short_indices ? SPMV_CSR[i].sell : SPMV_CSR[i].sell_wide;
}
ec_spmv_masks_fn *ec_use_spmv_masks(void) { CHOOSE(SPMV_MASKS, i) return SPMV_MASKS[i].fn; }
ec_spmm_masks_fn *ec_use_spmm_masks(void) { CHOOSE(SPMV_MASKS, i) return SPMV_MASKS[i].few; }
static int masks8_entry(void)
{
    CHOOSE(SPMV_MASKS8, i)
#ifdef EC_X86
    return i + (SPMV_MASKS8[i].fn && !__builtin_cpu_supports("avx512vbmi2"));
#else
    return i;
#endif
}
ec_spmv_masks8_fn *ec_use_spmv_masks8(void) { return SPMV_MASKS8[masks8_entry()].fn; }
ec_csr8_panels_fn *ec_use_csr8_panels(void) { return SPMV_MASKS8[masks8_entry()].panels; }
const ec_spmm_nm_impl *ec_use_spmm_nm(void) { CHOOSE(SPMM_NM, i) return &SPMM_NM[i].impl; }
ec_nm_rows_fn *ec_use_nm_rows(void) { CHOOSE(NM_ROWS, i) return NM_ROWS[i].fn; }
ec_nm_lanes_fn *ec_use_nm_lanes(void) { CHOOSE(NM_LANES, i) return NM_LANES[i].fn; }
ec_nm_inputs_fn *ec_use_nm_inputs(void) { CHOOSE(NM_INPUTS, i) return NM_INPUTS[i].fn; }
const ec_spmm_nm8_impl *ec_use_spmm_nm8(void) { CHOOSE(SPMM_NM8, i) return &SPMM_NM8[i].impl; }
const ec_planes_s8_impl *ec_use_planes_s8(void) { CHOOSE(PLANES_S8, i) return &PLANES_S8[i].impl; }
ec_gather_s8_fn *ec_use_gather_s8(void) { CHOOSE(GATHER_S8, i) return GATHER_S8[i].fn; }
ec_quantize_rows_fn *ec_use_quantize_rows(void) { CHOOSE(QUANTIZE_ROWS, i) return QUANTIZE_ROWS[i].fn; }
ec_transpose_f32_fn *ec_use_transpose_f32(void) { CHOOSE(TRANSPOSE_F32, i) return TRANSPOSE_F32[i].fn; }
ec_expand_s8_fn *ec_use_expand_s8(void) { CHOOSE(EXPAND_S8, i) return EXPAND_S8[i].fn; }
ec_activation_fn *ec_use_activation(void) { CHOOSE(ACTIVATION, i) return ACTIVATION[i].fn; }
const ec_kd_loss_impl *ec_use_kd_loss(void) { CHOOSE(KD_LOSS, i) return KD_LOSS[i].impl; }
ec_crc32_fn *ec_use_crc32(void) { CHOOSE(CRC32, i) return CRC32[i].fn; }

/* ---- what explain names ---------------------------------------------------------------------------------------------- */

static int later(int isa, int other) { return isa > other ? isa : other; }

const char *ec_variant(const char *op)
{
    CHOOSE(GEMM_S8C, s8c)
    CHOOSE(GEMM_F32, f32)
    CHOOSE(GEMM_S4G, s4g)
    CHOOSE(GEMM_S8G, s8g)
    CHOOSE(SPMM_CSR, csr)
    CHOOSE(SPMM_CSR8, csr8)
    CHOOSE(SPMV_CSR, row)
    CHOOSE(NM_LANES, lanes)
    CHOOSE(SPMM_NM8, nm8)
    CHOOSE(PLANES_S8, planes)
    CHOOSE(QUANTIZE_ROWS, rows)
    CHOOSE(QUANTIZE_GROUPS, groups)
    CHOOSE(ACTIVATION, act)
    CHOOSE(KD_LOSS, kd)
    CHOOSE(CRC32, crc)
    const int dense = ec_use_csr8_dense_tokens()[3] ? GEMM_S8C[s8c].isa : SCALAR; /* what sparse weights that become dense run as */
    const struct { const char *op; int isa; } served[] = {
        {"gemm_f32", GEMM_F32[f32].isa},
        {"gemm_s8c", GEMM_S8C[s8c].isa},
        {"gemm_s4g", GEMM_S4G[s4g].isa},
        {"gemm_s8g", GEMM_S8G[s8g].isa},
        {"spmm_csr", later(SPMM_CSR[csr].isa, SPMV_CSR[row].isa)},
        {"spmm_csr8", later(dense, later(SPMM_CSR8[csr8].isa, SPMV_CSR[row].isa))},
        {"spmm_nm", later(GEMM_F32[f32].isa, NM_LANES[lanes].isa)}, /* the dense tile, or kernels of its own */
        {"spmm_nm8", later(GEMM_S8C[gemm_s8c_entry(1)].isa, later(SPMM_NM8[nm8].isa, PLANES_S8[planes].isa))}, /* likewise */
        {"quantize_rows", QUANTIZE_ROWS[rows].isa},
        {"quantize_groups", QUANTIZE_GROUPS[groups].isa},
        {"activation", ACTIVATION[act].isa},
        {"kd_loss", KD_LOSS[kd].isa},
        {"crc32", CRC32[crc].isa},
    };
    for (size_t i = 0; i < sizeof served / sizeof *served; i++)
        if (!strcmp(op, served[i].op))
            return ISA_NAMES[served[i].isa];
    return NULL;
}

static const char *csr_variant(int int8, int64_t m, int kind)
{
    CHOOSE(SPMM_CSR, csr)
    CHOOSE(SPMM_CSR8, csr8)
    CHOOSE(SPMV_CSR, row)
    CHOOSE(SPMV_MASKS, masks)
    CHOOSE(SPMV_MASKS8, masks8)
    if (kind == EC_CSR_ROWS || kind == EC_CSR_SELL)
        return ISA_NAMES[SPMV_CSR[row].isa];
    if (ec_csr_made_dense(kind))
        return ISA_NAMES[GEMM_S8C[gemm_s8c_entry(m)].isa];
    if (kind == EC_CSR_MASKS)
        return ISA_NAMES[int8 ? SPMV_MASKS8[masks8].isa : SPMV_MASKS[masks].isa];
    return ISA_NAMES[int8 ? SPMM_CSR8[csr8].isa : SPMM_CSR[csr].isa];
}

static const char *nm_variant(int64_t m, int block)
{
    CHOOSE(NM_ROWS, rows)
    CHOOSE(NM_LANES, lanes)
    CHOOSE(SPMM_NM, nm)
    return ISA_NAMES[block == 1 ? NM_ROWS[rows].isa : ec_nm_in_lanes(m, &(ec_nm){.block = block}) ? NM_LANES[lanes].isa : SPMM_NM[nm].isa];
}

static const char *nm8_variant(int64_t m, int block)
{
    CHOOSE(SPMM_NM8, nm8)
    CHOOSE(PLANES_S8, planes)
    if (ec_nm8_in_planes(m, &(ec_nm){.block = block}))
        return ISA_NAMES[PLANES_S8[planes].isa];
    const int places = block == 1 || m <= SPMM_NM8[nm8].impl.shared_few || SPMM_NM8[nm8].impl.shared;
    return ISA_NAMES[places ? SPMM_NM8[nm8].isa : GEMM_S8C[gemm_s8c_entry(1)].isa];
}

const char *ec_variant_for(const char *op, int64_t m, int64_t form)
{
    if (!strcmp(op, "gemm_s8c"))
        return ISA_NAMES[GEMM_S8C[gemm_s8c_entry(m)].isa];
    if (!strcmp(op, "gemm_s4g"))
        return ISA_NAMES[GEMM_S4G[gemm_s4g_entry(m, form)].isa];
    if (!strcmp(op, "spmm_csr") || !strcmp(op, "spmm_csr8"))
        return csr_variant(op[8] == '8', m, (int)form);
    if (!strcmp(op, "spmm_nm"))
        return nm_variant(m, (int)form);
    return !strcmp(op, "spmm_nm8") ? nm8_variant(m, (int)form) : ec_variant(op);
}

/* ---- the cap --------------------------------------------------------------------------------------------------------- */

static int isa_index(const char *name)
{
    int i = 0;
    while (i < ISA_COUNT && strcmp(name, ISA_NAMES[i]) != 0)
        i++;
    return i;
}

int ec_isa_count(void) { return ISA_COUNT; }
const char *ec_isa_name(int i) { return ISA_NAMES[i]; }
int ec_isa_compiled(int i) { return i < ISA_COUNT; }
int ec_isa_detected(int i) { return (int)(detect() >> i & 1); }
int ec_isa_allows(const char *isa) { return (int)(lines() >> isa_index(isa) & 1); }

int ec_set_isa(const char *name)
{
    const int cap = !name || !*name ? ISA_COUNT - 1 : isa_index(name);
    if (cap == ISA_COUNT)
        return EC_E_NAME;
    atomic_store(&usable, detect() & ((2u << cap) - 1));
    return EC_OK;
}

const char *ec_version(void) { return EC_VERSION; }
