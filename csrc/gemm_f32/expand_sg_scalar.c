/* Grouped weights to float32 panels, plain C: the exact value rounded once, as dequantize() has it. */
#include "../kernels.h"

void ec_expand_sg_scalar(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out)
{
    const int64_t record = (int64_t)ec_record_bytes(w, bits);
    const uint8_t *strip = (const uint8_t *)w->records + col0 / EC_STRIP * groups * record;
    const int column = (int)(col0 % EC_STRIP), header = ec_header_bytes(w);
    for (int64_t p = k0; p < k0 + k; p++, out += EC_PANEL) {
        const uint8_t *r = strip + p / w->group * record, *codes = r + header;
        const int64_t at = p % w->group, quad = at / 4;
        for (int c = 0; c < EC_PANEL; c++) {
            const int i = column + c;
            const int code = bits == 8 ? codes[(quad * EC_STRIP + i) * 4 + at % 4] : codes[(quad / 2 * EC_STRIP + i) * 4 + at % 4] >> 4 * (quad & 1) & 15;
            const float scale = ec_record_float(r, w->scale_bytes, 0, i);
            if (w->zero == EC_ZERO_OFFSET)
                out[c] = fmaf((float)code, scale, ec_record_float(r, w->scale_bytes, 1, i));
            else
                out[c] = (float)(code - (w->zero == EC_ZERO_POINT ? ec_record_zeros(r, w->scale_bytes)[i] : 1 << (bits - 1))) * scale;
        }
    }
}
