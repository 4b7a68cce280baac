/* The thread pool, seen from outside: many callers at once, jobs in quick succession, a forked child. And the loops that
 * measure peaks. */
#ifndef POOL_H
#define POOL_H
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "int8.h"

enum { CALLERS = 3 };

static const float *pool_want;
static const problem *pool_problem;

static void make_pool(problem *p)
{
    p->m = now->m = 40, p->n = now->n = 129, p->k = now->k = 1000; /* just worth a second thread on a fast CPU */
    p->panels = (p->n + 15) / 16;
    make_gemm_s8c(p);
}

static void *caller(void *arg)
{
    const problem *p = pool_problem;
    const int rounds = *(const int *)arg;
    float *y = malloc((size_t)(p->m * p->n) * sizeof *y);
    const size_t size = ec_gemm_s8c_workspace(p->m, p->k);
    void *work = malloc(size);
    if (!y || !work)
        fail("no memory");
    for (int r = 0; r < rounds; r++) {
        memset(y, 0xFF, (size_t)(p->m * p->n) * sizeof *y);
        if (ec_gemm_s8c(p->m, p->n, p->k, p->x, p->ldx, NULL, NULL, NULL, p->w, p->wscale, p->wsum, p->bias, EC_ACT_NONE, y, NULL, p->n,
                        0, 0, 2 + r % 3, work, size) != EC_OK)
            fail("call %d has failed", r);
        check_floats(p->m, p->n, y, p->n, pool_want, EC_ACT_NONE, 1);
    }
    free(work);
    free(y);
    return NULL;
}

/* Jobs that are over before the workers wake: what is left of one must not get into the next. */
static void *tiny_jobs(void *arg)
{
    const int rounds = *(const int *)arg * 100;
    const double want = 3 * ec_roof(EC_ROOF_FMA_F32, 1, NULL, NULL, 0, 1);
    for (int r = 0; r < rounds; r++) {
        const double got = ec_roof(EC_ROOF_FMA_F32, 1, NULL, NULL, 0, 3);
        if (got != want)
            fail("job %d returned %g instead of %g", r, got, want);
    }
    return NULL;
}

static void run_at_once(void *(*run)(void *), int *rounds)
{
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&threads[i], NULL, run, rounds))
            fail("no thread");
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    now->passed += CALLERS * *rounds;
}

static atomic_int settled;

/* Another thread sets the default again and again, and now and then leaves its CPU to a worker. */
static void *restless(void *arg)
{
    (void)arg;
    for (int i = 0; !atomic_load(&settled); i++) {
        edgecomp_set_num_threads(1 + 3 * (i & 1));
        if (i % 4096 == 0)
            usleep(100);
    }
    return NULL;
}

static void *asks(void *arg)
{
    (void)arg;
    while (!atomic_load(&settled))
        edgecomp_get_num_threads();
    return NULL;
}

/* A call counts its scratch by one default, whatever it becomes meanwhile: behind the workspace of one thread nothing is written. */
static void check_restless_default(int rounds)
{
    enum { M = 64, N = 2500 };
    const ec_kd how = {EC_KD_KL, 1, 1, 1, 0, 0.5, 0, 1};
    float *s = place(Y, 4 * M * N), *t = place(Y2, 4 * M * N);
    double weight[M], loss[M];
    for (int i = 0; i < M * N; i++)
        s[i] = normalish(), t[i] = normalish();
    for (int i = 0; i < M; i++)
        weight[i] = 1;
    const size_t size = ec_kd_loss_workspace(M, N, 1), more = ec_kd_loss_workspace(M, N, 4);
    uint8_t *work = place(WORK, more);
    pthread_t other;
    if (pthread_create(&other, NULL, restless, NULL))
        fail("no thread");
    for (int r = 0; r < rounds; r++) {
        const int status = ec_kd_loss(M, N, s, N, t, N, NULL, weight, &how, loss, NULL, 0, 0, work, size);
        if (status != EC_OK && status != EC_E_WORKSPACE)
            fail("returned %d", status);
    }
    atomic_store(&settled, 1);
    pthread_join(other, NULL);
    for (size_t i = size; i < more; i++)
        if (work[i] != 0xFF)
            fail("a call has written behind its workspace");
    now->passed += rounds;
}

/* What was set is not lost to a thread that asks for the default at that moment. */
static void check_default_stays(int rounds)
{
    pthread_t other;
    atomic_store(&settled, 0);
    if (pthread_create(&other, NULL, asks, NULL))
        fail("no thread");
    for (int r = 0; r < rounds; r++) {
        edgecomp_set_num_threads(0);
        edgecomp_set_num_threads(7);
        for (int i = 0; i < 100; i++) /* the other one may be on its way */
            if (edgecomp_get_num_threads() != 7)
                fail("the default is %d after 7 was set", edgecomp_get_num_threads());
    }
    atomic_store(&settled, 1);
    pthread_join(other, NULL);
    edgecomp_set_num_threads(0);
    now->passed += rounds;
}

static void check_pool(const problem *p)
{
    int rounds = strcmp(ec_variant("gemm_s8c"), "scalar") ? 300 : 20;
    float *want = resized(&pre, (size_t)(p->m * p->n));
    for (int64_t i = 0; i < p->m * p->n; i++)
        want[i] = one_nan(p->product[i] + p->bias[i % p->n]);
    pool_problem = p;
    pool_want = want;

    edgecomp_set_num_threads(3);
    if (edgecomp_get_num_threads() != 3 || ec_cpu_count() < 1 || ec_threads_that_pay(3, 1) != 1 || ec_threads_that_pay(3, 1e12) != 3)
        fail("thread limits are not what was set");
    edgecomp_set_num_threads(0);

    strcpy(now->call, "one caller");
    caller(&rounds);
    strcpy(now->call, "several callers at once");
    run_at_once(caller, &rounds);
    strcpy(now->call, "tiny jobs");
    tiny_jobs(&rounds);
    strcpy(now->call, "tiny jobs of several callers");
    run_at_once(tiny_jobs, &rounds);
    now->passed += 2 * rounds;
    static int asked; /* the line plays no part; the scalar one, which comes first, is slow */
    if (!asked && rounds == 300) {
        asked = 1;
        strcpy(now->call, "a default that changes");
        check_restless_default(emulated ? 50 : 2000);
        check_default_stays(emulated ? 2000 : 100000);
    }

#ifdef __SANITIZE_THREAD__
    const int follows_forks = 0;
#else
    const int follows_forks = !emulated;
#endif
    if (!follows_forks)
        return;
    strcpy(now->call, "forked child");
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        caller(&rounds);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail("the child did not end well: status %#x", (unsigned)status);
    now->passed += rounds;
}

/* ---- roof ------------------------------------------------------------------------------------------------------------ */

static void make_nothing(problem *p) { (void)p; }

/* Nothing outside the buffers, and the right number of bytes; how fast is for other programs. */
static void check_roof(const problem *p)
{
    (void)p;
    for (int loop = EC_ROOF_TILE_S8; loop <= EC_ROOF_COPY; loop++)
        for (int threads = 1; threads < 4; threads++) {
            const size_t bytes = 8192;
            float *a = place(X, bytes * (size_t)threads), *b = place(Y, bytes * (size_t)threads);
            snprintf(now->call, sizeof now->call, "loop %d, %d threads", loop, threads);
            const double done = ec_roof(loop, 5, a, b, bytes, threads), once = 5.0 * (double)bytes * threads;
            if (loop == EC_ROOF_READ ? done != once : loop == EC_ROOF_COPY ? done != 2 * once : done < 0)
                fail("did %g", done);
            now->passed++;
        }
}
#endif
