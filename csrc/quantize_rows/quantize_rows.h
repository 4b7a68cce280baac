/* Quantising rows of activations: what kernels and drivers agree on. */
#ifndef EC_QUANTIZE_ROWS_H
#define EC_QUANTIZE_ROWS_H
#include "../kernels.h"

/* Quantises mr rows (1 .. EC_MAX_ROWS) of k floats, ldx floats apart, as ec_quantize_rows says, into one activation panel [k/4][mr][4]:
 * k rounded up to 16, the rest quantised zeros, every byte XORed with `flip`. scale[mr], zero[mr]. `panel` holds ec_panel_bytes(k, mr)
 * bytes. */
typedef void ec_quantize_rows_fn(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero);
ec_quantize_rows_fn ec_quantize_rows_scalar, ec_quantize_rows_avx2, ec_quantize_rows_avx512, ec_quantize_rows_neon;

static inline int64_t ec_panel_bytes(int64_t k, int64_t rows) { return ec_div_up(k, 16) * 16 * rows; }

/* The arithmetic of a row, once for all ISAs: scale and zero point from its smallest and largest value (0 counted among the values).
 * Returns the factor for x. */
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

ec_quantize_rows_fn *ec_use_quantize_rows(void);
#endif
