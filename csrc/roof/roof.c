/* This machine's peaks, so that "80 % of the machine" is a measurement. The loops stand in roof_<isa>.c. */
#include "roof.h"

/* Best first. A loop without a line that this CPU runs has no peak here. */
static const struct {
    int loop;
    const char *isa;
    ec_roof_fn *run;
} table[] = {
#ifdef EC_X86
    {EC_ROOF_TILE_S8, "amx", ec_roof_tile_s8_amx},
    {EC_ROOF_DOT_S8, "avx512vnni", ec_roof_dot_s8_avx512vnni},
    {EC_ROOF_DOT_S8, "avxvnni", ec_roof_dot_s8_avxvnni},
    {EC_ROOF_CHAIN_S8, "avx2", ec_roof_chain_s8_avx2},
    {EC_ROOF_FMA_F32, "avx512", ec_roof_fma_f32_avx512},
    {EC_ROOF_FMA_F32, "avx2", ec_roof_fma_f32_avx2},
    {EC_ROOF_READ, "avx512", ec_roof_read_avx512},
    {EC_ROOF_READ, "avx2", ec_roof_read_avx2},
#elif defined(EC_ARM64)
    {EC_ROOF_DOT_S8, "i8mm", ec_roof_dot_s8_i8mm},
    {EC_ROOF_DOT_S8, "neondot", ec_roof_dot_s8_neondot},
    {EC_ROOF_CHAIN_S8, "neon", ec_roof_chain_s8_neon},
    {EC_ROOF_FMA_F32, "neon", ec_roof_fma_f32_neon},
    {EC_ROOF_READ, "neon", ec_roof_read_neon},
#endif
    {EC_ROOF_FMA_F32, "scalar", ec_roof_fma_f32_scalar},
    {EC_ROOF_READ, "scalar", ec_roof_read_scalar},
    {EC_ROOF_COPY, "scalar", ec_roof_copy_scalar},
};

typedef struct {
    ec_roof_fn *run;
    int64_t reps;
    float *a, *b;
    size_t bytes;
    double done; /* by one thread: they all do the same */
} job;

static void part(void *ctx, int64_t i, int thread)
{
    (void)thread;
    job *j = ctx;
    const size_t from = (size_t)i * j->bytes / sizeof(float);
    const double done = j->run(j->reps, j->a + from, j->b + from, j->bytes);
    if (i == 0)
        j->done = done;
}

double ec_roof(int loop, int64_t reps, float *a, float *b, size_t bytes, int threads)
{
    threads = ec_thread_limit(threads);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].loop != loop || !ec_isa_allows(table[i].isa))
            continue;
        job j = {table[i].run, reps, a, b, bytes, 0};
        ec_parallel(threads, threads, part, &j);
        return j.done * threads;
    }
    return 0;
}
