/* int4 and int8 weights with scales of groups: records and the tile. */
#ifndef EC_GEMM_S4G_H
#define EC_GEMM_S4G_H
#include "../quantize_groups/quantize_groups.h"

enum { EC_STRIP = 32 }; /* outputs of a record */

enum { EC_SQUARES = 32 }; /* most rows of a tile that is made of squares of 16 x 16 outputs (AMX) */

/* Whether squares pay: at most a fifth of their rows stays empty, and a block of inputs holds a group. */
static inline int ec_fills_squares(int64_t m, int64_t group) { return group <= 256 && ec_div_up(m, 16) * 16 * 4 <= 5 * m; }

/* Bytes from row to row of x for tiles that want rows, with room for a panel of one row. The codes of mr rows, group after group, stand
 * before float scale[groups][mr] and int32 sum[groups][mr], as in a panel. */
static inline int64_t ec_grouped_row_bytes(int64_t groups, int64_t group) { return ec_odd_lines(groups * ec_group_bytes(group, 1)); }

/* One tile: mr rows of x times a strip of records. */
typedef struct {
    int64_t groups;
    int quads;           /* of a group: a multiple of 4 */
    const int8_t *x;     /* panel, see ec_group_bytes; or rows, see ec_grouped_row_bytes */
    const uint8_t *w;    /* records of the strip */
    int64_t record;      /* bytes from one to the next */
    int header;          /* bytes before the codes */
    int scale_bytes, zero;
    const float *bias;   /* [cols]; -0.0 for none */
    float *y;            /* [mr][ldy] */
    int64_t ldy;
    int cols, relu;      /* columns that exist, 1 .. 32 */
    int same, more;      /* as in ec_gemm_s8c_tile */
    int ahead;           /* 1: prefetch records, which no tile has read yet; 2: some much farther ahead, too */
} ec_gemm_sg_tile;
typedef void ec_gemm_sg_tile_fn(int mr, const ec_gemm_sg_tile *t);
ec_gemm_sg_tile_fn ec_gemm_s4g_tile_scalar, ec_gemm_s4g_tile_avx2, ec_gemm_s4g_tile_avx512vnni, ec_gemm_s4g_tile_avx512fp16,
    ec_gemm_s4g_tile_amx, ec_gemm_s4g_tile_neondot, ec_gemm_s8g_tile_scalar, ec_gemm_s8g_tile_avx2, ec_gemm_s8g_tile_avx512vnni,
    ec_gemm_s8g_tile_neondot;

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

/* Where the zero points of a record stand (EC_ZERO_POINT). */
static inline const uint8_t *ec_record_zeros(const uint8_t *record, int scale_bytes) { return record + EC_STRIP * scale_bytes; }

/* Weight p of output i of a record: the exact value rounded once, as dequantize() has it. */
static inline float ec_record_weight(const uint8_t *record, const ec_grouped *w, int bits, int i, int64_t p)
{
    const uint8_t *codes = record + ec_header_bytes(w);
    const int64_t quad = p / 4;
    const int code = bits == 8 ? codes[(quad * EC_STRIP + i) * 4 + p % 4]
                               : codes[(quad / 2 * EC_STRIP + i) * 4 + p % 4] >> 4 * (quad & 1) & 15;
    const float scale = ec_record_float(record, w->scale_bytes, 0, i);
    if (w->zero == EC_ZERO_OFFSET)
        return fmaf((float)code, scale, ec_record_float(record, w->scale_bytes, 1, i));
    return (float)(code - (w->zero == EC_ZERO_POINT ? ec_record_zeros(record, w->scale_bytes)[i] : 1 << (bits - 1))) * scale;
}

typedef struct {
    ec_gemm_sg_tile_fn *tile;
    int rows;
    int tall;           /* or so many, where tile_rows() finds that faster; 0 if never */
    int by_rows;        /* whether it wants x as rows: a tile of squares, see ec_fills_squares */
    double macs_per_ns;
} ec_gemm_sg_impl;

/* The variant for m rows of x and groups of so many inputs. */
const ec_gemm_sg_impl *ec_use_gemm_s4g(int64_t m, int64_t group);
const ec_gemm_sg_impl *ec_use_gemm_s8g(void);
#endif
