/* Peak of AMX: tdpbusd, 16 x 16 sums of 64 products of bytes each, with the loads that a product of matrices cannot do without. */
#include "roof.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,amx-tile,amx-int8")

#include "../amx.h"

double ec_roof_tile_s8_amx(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const ec_tile_config config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    uint8_t x[2][1024] __attribute__((aligned(64))), w[2][1024] __attribute__((aligned(64)));
    memset(x, 3, sizeof x);
    memset(w, -2, sizeof w);
    ec_tile_configure(&config);
    for (int64_t r = 0; r < reps; r++) {
        EC_TILE_LOAD(4, x[0], 64);
        EC_TILE_LOAD(6, w[0], 64);
        EC_TILE_DOT("us", 0, 4, 6);
        EC_TILE_LOAD(7, w[1], 64);
        EC_TILE_DOT("us", 1, 4, 7);
        EC_TILE_LOAD(5, x[1], 64);
        EC_TILE_DOT("us", 2, 5, 6);
        EC_TILE_DOT("us", 3, 5, 7);
    }
    ec_tile_release();
    return (double)reps * 4 * 16 * 16 * 64 * 2;
}
EC_TARGET_END
#endif
