/* How a product is split for the pool: groups of outputs times blocks of rows of x.
 *
 * A group's weights stay in L2 while blocks of rows pass by. Where the activations of all rows are more than L3 keeps beside weights and
 * outputs, rows come in sections, each of which meets all groups before the next: without them, 2048 rows of k = 4096 came from memory
 * again for each group. */
#ifndef EC_GRID_H
#define EC_GRID_H
#include "kernels.h"

enum {
    EC_BLOCK_ROWS = 256,       /* rows that pass by one group before the next group's turn */
    EC_SECTION_L3 = 3 << 20,   /* bytes of activations in a section, about, for L3 to keep */
    EC_SECTION_L2 = 1 << 20    /* and for L2, of 2 MB: tiles that outrun L3 want that */
};

typedef struct {
    int64_t groups, tiles, blocks, section; /* blocks: of all tiles; section: blocks of a section, of which the last may have fewer */
} ec_grid;

/* A group of outputs, and the tiles tile0 .. tile1 - 1 of rows, at least one. */
typedef struct {
    int64_t group, tile0, tile1;
} ec_chunk;

/* For m rows in `tiles` tiles, each row row_bytes in its panel; m and groups are positive. */
static inline ec_grid ec_grid_of(int threads, int64_t groups, int64_t m, int64_t tiles, int64_t row_bytes, int64_t section_bytes)
{
    const int64_t wanted = threads == 1 ? 1 : ec_div_up((int64_t)EC_CHUNKS_PER_THREAD * threads, groups);
    const int64_t least = ec_div_up(m, EC_BLOCK_ROWS);
    const int64_t bytes = m * row_bytes, sections = bytes > section_bytes ? EC_MIN(tiles, ec_div_up(bytes, section_bytes)) : 1;
    int64_t blocks = EC_MIN(tiles, wanted > least ? wanted : least);
    blocks = blocks > sections ? blocks : sections;
    return (ec_grid){.groups = groups, .tiles = tiles, .blocks = blocks, .section = ec_div_up(blocks, sections)};
}

static inline int64_t ec_grid_chunks(const ec_grid *g) { return g->groups * g->blocks; }

/* 0 <= chunk < ec_grid_chunks */
static inline ec_chunk ec_grid_at(const ec_grid *g, int64_t chunk)
{
    const int64_t all = g->groups * g->section, first = chunk / all * g->section, here = EC_MIN(g->section, g->blocks - first);
    const int64_t block = first + chunk % all % here;
    return (ec_chunk){chunk % all / here, ec_part(g->tiles, g->blocks, block), ec_part(g->tiles, g->blocks, block + 1)};
}

/* The group of the next chunk, 0 if there is none. */
static inline int64_t ec_grid_next(const ec_grid *g, int64_t chunk)
{
    return chunk + 1 < ec_grid_chunks(g) ? ec_grid_at(g, chunk + 1).group : 0;
}
#endif
