/* float32 N:M weights whose outputs share their inputs in blocks, for many rows, with the rows in the lanes: the driver.
 *
 * x becomes groups of 32 tokens, [groups][k][32]; the last group has 48 where 16 are left over. A step is some inputs of a group, which
 * stay in L1 while a thread's blocks of outputs pass by. Their sums stay in L2 from step to step, and are transposed into rows of y at
 * the end. */
#include "spmm_nm.h"
#include "../activation/activation.h"
#include "../spmm_csr/spmm_csr.h"

enum {
    FROM = 30,       /* rows: fewer are faster with outputs in the lanes */
    LANES = 32, MOST_LANES = 48,
    STEP = 256,      /* inputs, 32 KB, */
    KEPT = 64,       /* and most kept ones, of a step */
    GROUPS = 8,      /* of a chunk, with at most so many tokens */
    TOKENS = (GROUPS - 1) * LANES + MOST_LANES,
    OUTPUTS = 512,   /* of a chunk: 512 KB of sums */
    PACK_K = 256     /* inputs to pack at a time */
};

typedef struct {
    int64_t m, n, k, kept;
    const float *x;
    int64_t ldx;
    const ec_nm *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    ec_nm_lanes_fn *multiply;
    ec_csr_pack_fn *pack;
    ec_csr_finish_fn *finish;
    ec_nm_inputs_fn *inputs;
    ec_activation_fn *activation;
    int64_t panels, blocks, groups, token_blocks, chunk_blocks;
    float *lanes;   /* workspace: x, */
    int32_t *group; /* the first input of each kept input's group, */
    char *scratch;  /* then for each thread sums, and the inputs of its blocks */
} job;

int ec_nm_in_lanes(int64_t m, const ec_nm *w) { return !w->codes && w->block > 1 && m >= FROM && ec_use_nm_lanes(); }

/* Most blocks of a chunk. */
static int64_t most_blocks(const ec_nm *w) { return ec_div_up(OUTPUTS, w->block); }

static int64_t input_stride(int64_t kept) { return ec_div_up(kept, 16) * 16; }

static int64_t scratch_bytes(int64_t k, const ec_nm *w)
{
    return 4 * most_blocks(w) * ((int64_t)w->block * TOKENS + input_stride(ec_nm_kept(k, w)));
}

static int64_t padded(int64_t m) { return ec_div_up(m, 16) * 16; }

size_t ec_nm_lanes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads)
{
    return 128 + (size_t)(4 * (padded(m) * k + input_stride(ec_nm_kept(k, w))) + ec_thread_limit(threads) * scratch_bytes(k, w));
}

static int lanes_of(const job *j, int64_t group) { return group + 1 < j->groups ? LANES : (int)(padded(j->m) - group * LANES); }

static void pack_chunk(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t group = chunk % j->groups, k0 = chunk / j->groups * PACK_K, token0 = group * LANES;
    const int lanes = lanes_of(j, group);
    j->pack(EC_MIN(j->m - token0, lanes), EC_MIN(j->k - k0, PACK_K), j->x + token0 * j->ldx + k0, j->ldx,
            j->lanes + token0 * j->k + k0 * lanes, lanes);
}

static void multiply_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_nm *w = j->w;
    const int64_t each = w->block / EC_PANEL, stride = input_stride(j->kept), step = EC_MIN(STEP / w->m * w->n, KEPT);
    const int64_t block0 = chunk / j->token_blocks * j->chunk_blocks, block1 = EC_MIN(j->blocks, block0 + j->chunk_blocks);
    const int64_t panel0 = block0 * each, panel1 = EC_MIN(j->panels, block1 * each), col0 = panel0 * EC_PANEL;
    const int64_t group_sums = LANES * (panel1 - panel0) * EC_PANEL;
    const int64_t group0 = chunk % j->token_blocks * GROUPS, group1 = EC_MIN(j->groups, group0 + GROUPS);
    float *sums = (float *)(void *)(j->scratch + (int64_t)thread * scratch_bytes(j->k, w));
    int32_t *input = (int32_t *)(void *)(sums + most_blocks(w) * w->block * TOKENS);

    for (int64_t b = block0; b < block1; b++)
        j->inputs(ec_nm_bits(w), j->kept, w->packed + b * ec_nm_words(j->kept, w), j->group, input + (b - block0) * stride);
    for (int64_t e = 0; e == 0 || e < j->kept; e += step) {
        const int64_t kept = EC_MIN(step, j->kept - e);
        for (int64_t g = group0; g < group1; g++) {
            const int lanes = lanes_of(j, g);
            for (int64_t p = panel0; p < panel1; p++) {
                /* what comes after these weights: the same outputs' next ones, or the next outputs' first */
                const int64_t next = e + kept < j->kept ? p * j->kept + e + kept : (p + panel1 - panel0) * j->kept;
                const int64_t lines = EC_MIN(kept, j->panels * j->kept - next), part = g - group0, parts = group1 - group0;
                j->multiply(lanes, &(ec_nm_lanes){
                    .kept = kept,
                    .first = e == 0,
                    .input = input + (p - panel0) / each * stride + e,
                    .x = j->lanes + g * LANES * j->k,
                    .w = w->values + (p * j->kept + e) * EC_PANEL,
                    .sums = sums + part * group_sums + (p - panel0) * EC_PANEL * lanes,
                    .ahead = w->values + (next + ec_part(lines, parts, part)) * EC_PANEL,
                    .ahead_lines = lines > 0 ? ec_part(lines, parts, part + 1) - ec_part(lines, parts, part) : 0,
                });
            }
        }
    }
    const int64_t cols = EC_MIN(j->n, panel1 * EC_PANEL) - col0;
    for (int64_t g = group0; g < group1; g++) {
        const int64_t token0 = g * LANES, tokens = EC_MIN(j->m - token0, lanes_of(j, g));
        float *y = j->y + token0 * j->ldy + col0;
        j->finish(cols, tokens, sums + (g - group0) * group_sums, lanes_of(j, g), j->bias ? j->bias + col0 : NULL,
                  j->act == EC_ACT_RELU, y, j->ldy);
        if (j->act > EC_ACT_RELU)
            j->activation(j->act, tokens, cols, y, j->ldy);
    }
}

int ec_nm_by_lanes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
                   int64_t ldy, int threads, void *workspace, size_t size)
{
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < ec_nm_lanes_workspace(m, k, w, threads))
        return EC_E_WORKSPACE;
    if (n == 0)
        return EC_OK;
    job j = {.m = m, .n = n, .k = k, .kept = ec_nm_kept(k, w), .x = x, .ldx = ldx, .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    j.multiply = ec_use_nm_lanes();
    j.pack = ec_use_csr_pack();
    j.finish = ec_use_csr_finish();
    j.inputs = ec_use_nm_inputs();
    j.activation = ec_use_activation();
    j.panels = ec_div_up(n, EC_PANEL);
    j.blocks = ec_div_up(n, w->block);
    j.groups = padded(m) / LANES;
    j.token_blocks = ec_div_up(j.groups, GROUPS);
    j.lanes = ec_line_from(workspace);
    j.scratch = (char *)(j.lanes + padded(m) * k);
    j.group = (int32_t *)(void *)(j.scratch + threads * scratch_bytes(k, w));
    ec_nm_groups(j.kept, w, j.group);

    ec_parallel(ec_threads_that_pay(threads, 0.06 * (double)m * (double)k), ec_div_up(k, PACK_K) * j.groups, pack_chunk, &j);
    const int work = ec_spmm_nm_threads(m, n, j.kept, threads);
    const int64_t wanted = work == 1 ? 1 : ec_div_up(EC_CHUNKS_PER_THREAD * work, j.token_blocks);
    j.chunk_blocks = EC_MIN(most_blocks(w), ec_div_up(j.blocks, wanted));
    ec_parallel(work, ec_div_up(j.blocks, j.chunk_blocks) * j.token_blocks, multiply_chunk, &j);
    return EC_OK;
}
