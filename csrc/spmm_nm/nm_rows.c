/* float32 N:M weights whose outputs have places of their own, times rows of x: the driver. */
#include "spmm_nm.h"
#include "../activation/activation.h"

enum { ROWS = 8, WIDE = 16 /* inputs of a window */ };

typedef struct {
    int64_t m, n, kept, ldx, tiles, word_x, word_at;
    const ec_nm *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    ec_nm_rows_fn *rows;
    ec_activation_fn *activation;
    float *x;               /* workspace: rows with room for a window beyond the last input, */
    int32_t *window, *base; /* and of each kept input where to look */
} job;

static int64_t row_floats(int64_t k) { return ec_div_up(k + WIDE, WIDE) * WIDE; }

size_t ec_nm_rows_workspace(int64_t m, int64_t k, const ec_nm *w)
{
    return 64 + 4 * (size_t)(m * row_floats(k) + 2 * ec_nm_kept(k, w));
}

static void rows_chunk(void *ctx, int64_t panel, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t col0 = panel * EC_PANEL, cols = EC_MIN(j->n - col0, EC_PANEL);
    for (int64_t tile = 0; tile < j->tiles; tile++) {
        const int64_t row = ec_part(j->m, j->tiles, tile);
        j->rows((int)(ec_part(j->m, j->tiles, tile + 1) - row), &(ec_nm_rows){
            .kept = j->kept,
            .bits = ec_nm_bits(j->w),
            .x = j->x + row * j->ldx,
            .ldx = j->ldx,
            .window = j->window,
            .base = j->base,
            .word_x = j->word_x,
            .word_at = j->word_at,
            .w = j->w->values + col0 * j->kept,
            .places = j->w->packed + col0 * ec_nm_words(j->kept, j->w),
            .bias = j->bias ? j->bias + col0 : ec_no_bias,
            .y = j->y + row * j->ldy + col0,
            .ldy = j->ldy,
            .cols = (int)cols,
            .relu = j->act == EC_ACT_RELU,
        });
    }
    if (j->act > EC_ACT_RELU)
        j->activation(j->act, j->m, cols, j->y + col0, j->ldy);
}

int ec_nm_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_nm *w, const float *bias, int act, float *y,
                  int64_t ldy, int threads, void *workspace, size_t size)
{
    threads = ec_thread_limit(threads);
    if (size < ec_nm_rows_workspace(m, k, w))
        return EC_E_WORKSPACE;
    if (m == 0 || n == 0)
        return EC_OK;
    job j = {.m = m, .n = n, .kept = ec_nm_kept(k, w), .ldx = row_floats(k), .tiles = ec_div_up(m, ROWS), .w = w, .bias = bias, .act = act,
             .y = y, .ldy = ldy};
    j.rows = ec_use_nm_rows();
    j.activation = ec_use_activation();
    j.x = ec_line_from(workspace);
    j.window = (int32_t *)(j.x + m * j.ldx);
    j.base = j.window + j.kept;
    for (int64_t i = 0; i < m; i++) {
        memcpy(j.x + i * j.ldx, x + i * ldx, 4 * (size_t)k);
        memset(j.x + i * j.ldx + k, 0, 4 * (size_t)(j.ldx - k));
    }
    for (int64_t e = 0, group = 0; e < j.kept; group += w->m) {
        /* A window begins at a cache line if that line holds the whole group: base | place is then a sum, as m is a power of two. */
        const int64_t window = WIDE % w->m == 0 ? group / WIDE * WIDE : group;
        for (int i = 0; i < w->n && e < j.kept; i++, e++) {
            j.window[e] = (int32_t)window;
            j.base[e] = (int32_t)(group - window);
        }
    }
    const int64_t each = 32 / ec_nm_bits(w), inputs = each / w->n * w->m; /* of a word of places */
    const int repeats = WIDE % w->m == 0 && each % w->n == 0 && inputs % WIDE == 0;
    j.word_x = repeats ? inputs : 0;
    j.word_at = repeats ? 0 : each;
    ec_parallel(ec_spmm_nm_threads(m, n, j.kept, threads), ec_div_up(n, EC_PANEL), rows_chunk, &j);
    return EC_OK;
}
