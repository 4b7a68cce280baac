/* Looking for NaN and infinity among scales that lie apart. Plain C: compilers vectorise a row. Rows to come are prefetched, which
 * hardware does not do at the distance of records. */
#include "../gemm_s4g/gemm_s4g.h"

EC_INLINE int row_is_bad(const uint8_t *row, int64_t per, int bytes)
{
    unsigned bad = 0;
    for (int64_t i = 0; i < per; i++)
        if (bytes == 2) {
            uint16_t v;
            memcpy(&v, row + 2 * i, 2);
            bad |= (v & 0x7C00) == 0x7C00;
        } else {
            uint32_t v;
            memcpy(&v, row + 4 * i, 4);
            bad |= (v & 0x7F800000) == 0x7F800000;
        }
    return bad != 0;
}

int64_t ec_first_nonfinite(const void *data, int64_t rows, int64_t per, int64_t stride, int bytes)
{
    enum { AHEAD = 24 };
    const uint8_t *row = data;
    for (int64_t r = 0; r < rows; r++, row += stride) {
        if (r + AHEAD < rows)
            __builtin_prefetch(row + AHEAD * stride);
        if (per == EC_STRIP ? (bytes == 2 ? row_is_bad(row, EC_STRIP, 2) : row_is_bad(row, EC_STRIP, 4)) : row_is_bad(row, per, bytes))
            for (int64_t i = 0; i < per; i++)
                if (row_is_bad(row + bytes * i, 1, bytes))
                    return r * per + i;
    }
    return -1;
}
