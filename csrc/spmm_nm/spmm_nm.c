/* N:M weights whose outputs share their inputs in blocks, the driver of both kinds of values: a dense product over the inputs that a
 * block keeps.
 *
 * Rows of x become activation panels as for dense weights. For a block of outputs a thread gathers the kept inputs of a panel into its
 * scratch, and the dense tile multiplies them by the block's panels of values. */
#include "spmm_nm.h"
#include "../grid.h"
#include "../activation/activation.h"
#include "../gemm_s8c/gemm_s8c.h"
#include "../quantize_rows/quantize_rows.h"
#include "../spmm_nm8/spmm_nm8.h"

enum {
    BLOCK_K = 1024,        /* most float32 inputs of a block that is gathered */
    FEW = 3,               /* rows that stream through all of k, in tiles of their own */
    GROUP = 16,            /* most blocks that pass a tile together, so that its inputs come into L1 once for all; */
    GROUP_BYTES = 160 << 10, /* and bytes of their values, to stay in L2: more are slower */
    EXACT_K = 66311        /* 255 * 127 * K < 2^31 */
};

typedef struct {
    int64_t m, n, k, kept;
    const float *x;
    int64_t ldx;
    const uint8_t *xq, *xzero; /* or quantised rows */
    const float *xscale;
    const ec_nm *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    /* what run() plans */
    const ec_gemm_f32_impl *f32;
    const ec_gemm_s8c_impl *s8c;
    ec_transpose_f32_fn *transpose;
    ec_quantize_rows_fn *quantize;
    const ec_spmm_nm_impl *own; /* float32 tiles of this op, if the CPU has them */
    ec_nm_inputs_fn *inputs;
    ec_gather_s8_fn *gather_s8;
    ec_activation_fn *activation;
    int64_t panels, blocks, group_blocks, tiles;
    ec_grid grid; /* of groups of blocks */
    char *panel;    /* workspace: activation panels, */
    float *sx;      /* scale and zero of each row, */
    int32_t *zero;
    int32_t *group; /* the first input of each kept input's group, */
    char *scratch;  /* then for each thread what it gathers, and the inputs of a block */
    int64_t scratch_bytes;
} job;

/* Where the panel of a tile begins, in bytes; with a cache line more for what is read and written past its end. */
static int64_t panel_at(const ec_nm *w, int64_t k, int64_t row, int64_t tile)
{
    return w->codes ? ec_panel_bytes(k, row) + 64 * tile : 4 * (row * k + EC_PANEL * tile);
}

/* From the inputs of one block to those of the next: whole cache lines. */
static int64_t input_stride(int64_t kept) { return (ec_div_up(kept, 16) + 1) * 16; }

static int64_t scratch_bytes(int64_t k, const ec_nm *w)
{
    const int64_t kept = ec_nm_kept(k, w);
    const int64_t gathered = (w->codes ? ec_div_up(kept, 16) * 16 + 8 : (BLOCK_K + 1) * 4) * EC_MAX_ROWS;
    return 4 * GROUP * input_stride(kept) + gathered + 64;
}

size_t ec_spmm_nm_workspace(int64_t m, int64_t k, const ec_nm *w, int threads)
{
    if (!w->codes && w->block == 1)
        return ec_nm_rows_workspace(m, k, w);
    if (ec_nm_in_lanes(m, w))
        return ec_nm_lanes_workspace(m, k, w, threads);
    if (w->codes && ec_nm8_in_planes(m, w))
        return ec_nm8_planes_workspace(m, k, w, threads);
    if (w->codes && ec_nm8_by_places(m, w))
        return ec_nm8_workspace(m, k, w, threads);
    return 192 + (size_t)panel_at(w, k, m, m) + 8 * (size_t)m + 4 * (size_t)ec_nm_kept(k, w) +
           (size_t)(ec_thread_limit(threads) * scratch_bytes(k, w));
}

static void pack_tile(void *ctx, int64_t tile, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t row = ec_part(j->m, j->tiles, tile);
    const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
    char *panel = j->panel + panel_at(j->w, j->k, row, tile);
    if (!j->w->codes) {
        j->transpose(mr, j->k, j->x + row * j->ldx, j->ldx, (float *)panel, mr);
        return;
    }
    const uint8_t flip = j->s8c->flip;
    if (j->x)
        j->quantize(mr, j->k, j->x + row * j->ldx, j->ldx, flip, (uint8_t *)panel, j->sx + row, j->zero + row);
    for (int i = 0; i < mr; i++) {
        if (!j->x) {
            for (int64_t p = 0; p < j->k; p++)
                panel[p / 4 * 4 * mr + 4 * i + p % 4] = (char)(j->xq[(row + i) * j->k + p] ^ flip);
            j->sx[row + i] = j->xscale[row + i];
            j->zero[row + i] = j->xzero[row + i];
        }
        j->zero[row + i] -= flip;
    }
}

/* Copies mr activations of each of `count` inputs. Eight are copied, and the next copy overwrites what is too much. */
static void gather_f32(int mr, int64_t count, const float *x, const int32_t *input, float *out)
{
    for (int64_t e = 0; e < count; e++, out += mr)
        memcpy(out, x + (int64_t)input[e] * mr, 4 * EC_MAX_ROWS);
}

/* `count` kept inputs from e0 on of `panels` panels times a tile. */
static void multiply_f32(const job *j, int64_t panel0, int64_t panels, int64_t tile, int64_t e0, int64_t count, int64_t lines,
                         int64_t line0, const int32_t *input, float *scratch)
{
    const int64_t groups = ec_div_up(panels, j->own->tile ? 1 : j->f32->vecs), row = ec_part(j->m, j->tiles, tile);
    const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
    const float *panel = (const float *)(j->panel + panel_at(j->w, j->k, row, tile));
    if (!j->own->tile)
        gather_f32(mr, count, panel, input + e0, scratch);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t first = ec_part(panels, groups, g), p = panel0 + first, col0 = p * EC_PANEL;
        const int nv = (int)(ec_part(panels, groups, g + 1) - first);
        const int more = p + nv < j->panels; /* the next inputs, or the next outputs, are prefetched into L2 */
        const ec_gemm_f32_tile t = {
            .k = count,
            .x = j->own->tile ? panel : scratch,
            .w = j->w->values + (p * j->kept + e0) * EC_PANEL,
            .panel = EC_PANEL * j->kept,
            .bias = j->bias ? j->bias + col0 : ec_no_bias,
            .y = j->y + row * j->ldy + col0,
            .ldy = j->ldy,
            .cols = (int)EC_MIN(j->n - col0, nv * EC_PANEL),
            .first = e0 == 0,
            .last = e0 + count == j->kept,
            .relu = j->act == EC_ACT_RELU,
            .ahead = j->w->values + (p * j->kept + e0 + (more ? count + line0 : 0)) * EC_PANEL,
            .ahead_panel = EC_PANEL * j->kept,
            .ahead_lines = more ? lines : 0,
            .far = ec_memory_is_far(),
            .fresh = line0 == 0, /* of the first tile */
        };
        if (j->own->tile)
            j->own->tile(mr, &t, input + e0);
        else
            j->f32->tile(mr, nv, &t);
    }
}

/* Kept inputs that a tile takes at once. */
static int64_t step_of(const job *j) { return j->own->tile && j->m <= FEW ? j->kept + 1 : j->own->block / j->w->m * j->w->n; }

/* All blocks of a chunk, whose inputs are `stride` apart. */
static void multiply_blocks_f32(const job *j, int64_t block0, int64_t block1, int64_t tile0, int64_t tile1, const int32_t *input,
                                int64_t stride, float *scratch)
{
    const int64_t each = j->w->block / EC_PANEL, step = step_of(j);
    for (int64_t e0 = 0; e0 == 0 || e0 < j->kept; e0 += step) {
        const int64_t count = EC_MIN(j->kept - e0, step), lines = ec_div_up(count, tile1 - tile0);
        for (int64_t tile = tile0; tile < tile1; tile++)
            for (int64_t b = block0; b < block1; b++)
                multiply_f32(j, b * each, EC_MIN(j->panels - b * each, each), tile, e0, count, lines, (tile - tile0) * lines,
                             input + (b - block0) * stride, scratch);
    }
}

static void multiply_s8(const job *j, int64_t panel0, int64_t panels, int64_t tile0, int64_t tile1, const int32_t *input, uint8_t *scratch)
{
    const int64_t quads = ec_div_up(j->kept, 4), groups = ec_div_up(panels, j->s8c->vecs);
    const int paired = j->w->m == 4 && j->w->n == 2 && j->kept % 4 == 0;
    for (int64_t tile = tile0; tile < tile1; tile++) {
        const int64_t row = ec_part(j->m, j->tiles, tile);
        const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
        j->gather_s8(mr, paired, quads, (const uint8_t *)j->panel + panel_at(j->w, j->k, row, tile), input, scratch);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t first = ec_part(panels, groups, g), p = panel0 + first, col0 = p * EC_PANEL;
            const int nv = (int)(ec_part(panels, groups, g + 1) - first);
            const ec_gemm_s8c_tile t = {
                .quads = quads,
                .x = scratch,
                .w = j->w->codes + p * quads * 64,
                .panel = quads * 64,
                .zero = j->zero + row,
                .wsum = j->w->sums + col0,
                .sx = j->sx + row,
                .sw = j->w->scale + col0,
                .bias = j->bias ? j->bias + col0 : ec_no_bias,
                .y = j->y + row * j->ldy + col0,
                .ldy = j->ldy,
                .cols = (int)EC_MIN(j->n - col0, nv * EC_PANEL),
                .relu = j->act == EC_ACT_RELU,
                .ahead = (const char *)j->w->codes,
            };
            j->s8c->tile(mr, nv, &t);
        }
    }
}

static void nm_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_chunk own = ec_grid_at(&j->grid, chunk);
    const int64_t tile0 = own.tile0, tile1 = own.tile1, each = j->w->block / EC_PANEL;
    const int64_t block0 = own.group * j->group_blocks, block1 = EC_MIN(j->blocks, block0 + j->group_blocks), panel0 = block0 * each;
    const int64_t panels = EC_MIN(j->panels, block1 * each) - panel0, col0 = panel0 * EC_PANEL, stride = input_stride(j->kept);
    char *scratch = j->scratch + thread * j->scratch_bytes;
    int32_t *input = (int32_t *)scratch;
    scratch += 4 * GROUP * stride;
    for (int64_t b = block0; b < block1; b++) {
        int32_t *to = input + (b - block0) * stride;
        j->inputs(ec_nm_bits(j->w), j->kept, j->w->packed + b * ec_nm_words(j->kept, j->w), j->group, to);
        for (int64_t e = j->kept; e < ec_div_up(j->kept, 4) * 4; e++) /* the last quad's other weights are zeros */
            to[e] = to[0];
    }
    if (j->w->codes)
        multiply_s8(j, panel0, panels, tile0, tile1, input, (uint8_t *)scratch);
    else
        multiply_blocks_f32(j, block0, block1, tile0, tile1, input, stride, (float *)scratch);
    if (j->act > EC_ACT_RELU) {
        const int64_t row0 = ec_part(j->m, j->tiles, tile0), row1 = ec_part(j->m, j->tiles, tile1);
        j->activation(j->act, row1 - row0, EC_MIN(j->n - col0, panels * EC_PANEL), j->y + row0 * j->ldy + col0, j->ldy);
    }
}

int ec_spmm_nm_threads(int64_t m, int64_t n, int64_t k, int threads) { return ec_gemm_f32_threads(m, n, k, threads); }

static int run(job *j, int threads, void *workspace, size_t size)
{
    const int int8 = j->w->codes != NULL;
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    j->kept = ec_nm_kept(j->k, j->w);
    assert(j->w->block % EC_PANEL == 0 && (!int8 || j->kept <= EXACT_K));
    if (size < ec_spmm_nm_workspace(j->m, j->k, j->w, threads))
        return EC_E_WORKSPACE;
    if (j->m == 0 || j->n == 0)
        return EC_OK;
    j->f32 = ec_use_gemm_f32();
    j->s8c = ec_use_gemm_s8c(1); /* the variant of few rows: gathered panels are not rows */
    j->own = ec_use_spmm_nm();
    j->inputs = ec_use_nm_inputs();
    j->transpose = ec_use_transpose_f32();
    j->quantize = ec_use_quantize_rows();
    j->gather_s8 = ec_use_gather_s8();
    j->activation = ec_use_activation();
    j->panels = ec_div_up(j->n, EC_PANEL);
    j->blocks = ec_div_up(j->n, j->w->block);
    j->tiles = ec_div_up(j->m, int8 ? j->s8c->rows : j->own->tile ? j->own->rows : j->f32->rows);
    j->panel = ec_line_from(workspace);
    j->sx = (float *)(j->panel + panel_at(j->w, j->k, j->m, j->tiles));
    j->zero = (int32_t *)(j->sx + j->m);
    j->group = j->zero + j->m;
    ec_nm_groups(j->kept, j->w, j->group);
    j->scratch = ec_line_from(j->group + j->kept);
    j->scratch_bytes = scratch_bytes(j->k, j->w);

    ec_parallel(ec_threads_that_pay(threads, 0.06 * (double)j->m * (double)j->k), j->tiles, pack_tile, j);
    const int work = (int8 ? ec_spmm_nm8_threads : ec_spmm_nm_threads)(j->m, j->n, j->kept, threads);
    const int64_t values = 4 * EC_MIN(j->kept, step_of(j)) * j->w->block + 1; /* + 1: k may be 0 */
    j->group_blocks = !int8 && j->own->tile && j->tiles > 1 && values <= GROUP_BYTES ? EC_MIN(GROUP, GROUP_BYTES / values) : 1;
    const int64_t row_bytes = int8 ? ec_panel_bytes(j->k, 1) : 4 * j->k;
    j->grid = ec_grid_of(work, ec_div_up(j->blocks, j->group_blocks), j->m, j->tiles, row_bytes, EC_SECTION_L3);
    ec_parallel(work, ec_grid_chunks(&j->grid), nm_chunk, j);
    return EC_OK;
}

int ec_spmm_nm(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
               int64_t ldy, int threads, void *workspace, size_t size)
{
    if (w->block == 1)
        return ec_nm_by_rows(m, n, k, x, ldx, w, bias, act, y, ldy, threads, workspace, size);
    if (ec_nm_in_lanes(m, w))
        return ec_nm_by_lanes(m, n, k, x, ldx, w, bias, act, y, ldy, threads, workspace, size);
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}

int ec_nm8_gathered(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                    const uint8_t *xzero, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                    size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .xzero = xzero,
             .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}
