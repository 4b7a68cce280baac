/* The grouped tile in plain C, for int4 and int8 codes: what every other tile has to equal bit for bit. */
#include "gemm_s4g.h"

EC_INLINE int code(const uint8_t *codes, int bits, int quad, int column, int i)
{
    if (bits == 8)
        return codes[(quad * EC_STRIP + column) * 4 + i];
    return codes[(quad / 2 * EC_STRIP + column) * 4 + i] >> 4 * (quad & 1) & 15;
}

EC_INLINE void tile(int mr, int bits, const ec_gemm_sg_tile *t)
{
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < t->cols; c++) {
            const int8_t *x = t->x;
            const uint8_t *w = t->w;
            float y = 0;
            for (int64_t g = 0; g < t->groups; g++, w += t->record, x += ec_group_bytes(4 * t->quads, mr)) {
                float sx;
                int32_t sum, acc = 0;
                memcpy(&sx, x + 4 * (t->quads * mr + i), 4);
                memcpy(&sum, x + 4 * ((t->quads + 1) * mr + i), 4);
                for (int q = 0; q < t->quads; q++)
                    for (int p = 0; p < 4; p++)
                        acc += code(w + t->header, bits, q, c, p) * x[4 * (mr * q + i) + p];
                if (t->zero != EC_ZERO_OFFSET)
                    acc += sum * (t->zero == EC_ZERO_POINT ? ec_record_zeros(w, t->scale_bytes)[c] : 1);
                y += (float)acc * (sx * ec_record_float(w, t->scale_bytes, 0, c));
                if (t->zero == EC_ZERO_OFFSET)
                    y += (float)sum * (sx * ec_record_float(w, t->scale_bytes, 1, c));
            }
            y += t->bias[c];
            t->y[i * t->ldy + c] = t->relu && y <= 0 ? 0.0f : ec_canonical(y);
        }
}
