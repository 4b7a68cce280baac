/* A matrix transposed, block by block: 16 rows of x make a whole cache line of y. */
#include "../gemm_f32/gemm_f32.h"

enum { COLUMNS = 64 /* of a block: more lines of y, which may be a power of two apart, would drive each other out of L1 */ };

typedef struct {
    int64_t rows, columns, row_blocks;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    ec_transpose_f32_fn *transpose;
} job;

static void turn_block(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t row0 = chunk % j->row_blocks * EC_PANEL, rows = EC_MIN(j->rows - row0, EC_PANEL);
    const int64_t column0 = chunk / j->row_blocks * COLUMNS, columns = EC_MIN(j->columns - column0, COLUMNS);
    float lines[COLUMNS][EC_PANEL];
    j->transpose((int)rows, columns, j->x + row0 * j->ldx + column0, j->ldx, lines[0], EC_PANEL);
    float *y = j->y + column0 * j->ldy + row0;
    for (int64_t c = 0; c < columns; c++, y += j->ldy)
        if (rows == EC_PANEL)
            memcpy(y, lines[c], sizeof lines[c]);
        else
            memcpy(y, lines[c], sizeof(float) * (size_t)rows);
}

void ec_transpose(int64_t rows, int64_t columns, const float *x, int64_t ldx, float *y, int64_t ldy, int threads)
{
    job j = {rows, columns, ec_div_up(rows, EC_PANEL), x, ldx, y, ldy, ec_use_transpose_f32()};
    /* 0.25 ns a value */
    threads = ec_threads_that_pay(ec_thread_limit(threads), 0.25 * (double)rows * (double)columns);
    ec_parallel(threads, j.row_blocks * ec_div_up(columns, COLUMNS), turn_block, &j);
}
