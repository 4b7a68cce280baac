/* How a product is split: every group meets every tile once, whatever the sizes. */
#ifndef SPLIT_H
#define SPLIT_H
#include "grid.h"

#include "guard.h"

static void check_split(int threads, int64_t groups, int64_t m, int64_t tiles, int64_t row_bytes)
{
    const ec_grid grid = ec_grid_of(threads, groups, m, tiles, row_bytes, EC_SECTION_L3);
    if (grid.blocks < 1 || grid.blocks > tiles || grid.section < 1)
        fail("%d threads, %lld rows of %lld bytes: %lld blocks of %lld tiles", threads, (long long)m, (long long)row_bytes,
             (long long)grid.blocks, (long long)tiles);
    unsigned char *seen = calloc((size_t)(groups * tiles), 1);
    if (!seen)
        fail("no memory");
    for (int64_t chunk = 0; chunk < ec_grid_chunks(&grid); chunk++) {
        const ec_chunk c = ec_grid_at(&grid, chunk);
        if (c.group < 0 || c.group >= groups || c.tile0 < 0 || c.tile0 >= c.tile1 || c.tile1 > tiles)
            fail("chunk %lld of %lld groups and %lld blocks", (long long)chunk, (long long)groups, (long long)grid.blocks);
        for (int64_t tile = c.tile0; tile < c.tile1; tile++)
            if (seen[c.group * tiles + tile]++)
                fail("tile %lld twice, in chunk %lld", (long long)tile, (long long)chunk);
        if (ec_grid_next(&grid, chunk) != (chunk + 1 < ec_grid_chunks(&grid) ? ec_grid_at(&grid, chunk + 1).group : 0))
            fail("the chunk after %lld", (long long)chunk);
    }
    for (int64_t i = 0; i < groups * tiles; i++)
        if (!seen[i])
            fail("group %lld never meets tile %lld", (long long)(i / tiles), (long long)(i % tiles));
    free(seen);
}

static void check_grid(void)
{
    const int64_t rows[] = {1, 7, 255, 257, 1000, 2048, 5000}, bytes[] = {0, 16, 4096, 16384, 1 << 20, (int64_t)1 << 33};
    for (int threads = 1; threads <= 4; threads++)
        for (int64_t groups = 1; groups <= 20; groups = 2 * groups + 1)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (size_t b = 0; b < sizeof bytes / sizeof *bytes; b++)
                    for (int mr = 4; mr <= 12; mr += 4)
                        check_split(threads, groups, rows[r], ec_div_up(rows[r], mr), bytes[b]);
}
#endif
