/* The thread pool: the only file that knows threads.
 *
 * Workers are started at the first job that wants them, never stopped, and own nothing. A job is an open gate: workers
 * that see it enter, take indices until none are left, and go. The caller does the same, then closes the gate and waits
 * for those inside only, so a worker that wakes too late costs nothing. Each thread has a part of the indices, which it
 * takes in order, so that it reads on where it left off and the prefetchers with it; then it helps with the others'
 * parts. One job at a time: a caller that finds the pool busy works alone, and so does a call made from within a task. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "kernels.h"
#ifdef EC_X86
#include <immintrin.h>
#endif

enum {
    STACK_BYTES = 1 << 19,
    SPIN_NS = 200000, /* how long a worker waits awake: calls come in bursts, and some kernels wake a thread on its waker's CPU */
    LATE_NS = 50000   /* what a job for several threads is taken to cost while they do not come */
};
#define OPEN ((uint64_t)1 << 31)

static struct {
    atomic_int busy;            /* a job is running */
    _Atomic uint64_t gate;      /* job number << 32 | OPEN | threads the job wants << 16 | workers inside */
    atomic_int sleeping;        /* workers in pthread_cond_wait */
    atomic_int started;         /* workers that exist; written by the thread that holds busy */
    ec_task *task;              /* the job */
    void *ctx;
    int threads;
    struct {
        _Alignas(64) atomic_llong next; /* a cache line each: no thread waits for another's */
        int64_t end;
    } part[EC_MAX_THREADS];             /* of the indices */
    pthread_mutex_t lock;
    pthread_cond_t wake;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void relax(void)
{
#if defined(EC_X86)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- floating-point mode: results must not depend on who called ----------------------------------------------------- */

#if defined(EC_X86)
typedef unsigned fp_mode;
static fp_mode fp_default(void)
{
    const fp_mode was = _mm_getcsr();
    _mm_setcsr(0x1F80); /* round to nearest, denormals kept, exceptions masked */
    return was;
}
static void fp_restore(fp_mode was) { _mm_setcsr(was); }
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
static fp_mode fp_default(void)
{
    fp_mode was;
    __asm__ volatile("mrs %0, fpcr" : "=r"(was));
    __asm__ volatile("msr fpcr, %0" : : "r"((fp_mode)0));
    return was;
}
static void fp_restore(fp_mode was) { __asm__ volatile("msr fpcr, %0" : : "r"(was)); }
#else
typedef int fp_mode;
static fp_mode fp_default(void) { return 0; }
static void fp_restore(fp_mode was) { (void)was; }
#endif

/* ---- workers ----------------------------------------------------------------------------------------------------------- */

static void take_indices(int thread)
{
    for (int p = 0, t = thread; p < pool.threads; p++, t = t + 1 < pool.threads ? t + 1 : 0)
        for (int64_t i; (i = atomic_fetch_add_explicit(&pool.part[t].next, 1, memory_order_relaxed)) < pool.part[t].end;)
            pool.task(pool.ctx, i, thread);
}

/* The gate once a job other than `seen` is there: spins, then sleeps. */
static uint64_t wait_for_job(uint64_t seen)
{
    uint64_t gate;
    const int spin = pool.started < ec_cpu_count(); /* with more threads than CPUs spinning robs the workers */
    for (double end = now_ns() + SPIN_NS; spin && now_ns() < end;)
        for (int i = 0; i < 32; i++, relax())
            if ((gate = atomic_load(&pool.gate)) >> 32 != seen)
                return gate;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleeping, 1);
    while ((gate = atomic_load(&pool.gate)) >> 32 == seen)
        pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
    return gate;
}

static void *work(void *arg)
{
    const int thread = (int)(intptr_t)arg; /* 1, 2, ...: the caller is 0 */
    fp_default();
    for (uint64_t seen = 0;;) {
        uint64_t gate = wait_for_job(seen);
        seen = gate >> 32;
        while (gate >> 32 == seen && gate & OPEN && thread < (int)(gate >> 16 & 0x7FFF))
            if (atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1)) {
                take_indices(thread);
                atomic_fetch_sub(&pool.gate, 1);
                break;
            }
    }
    return NULL;
}

static void start_workers(int wanted)
{
    pthread_attr_t attr;
    sigset_t all, was;
    if (pool.started >= wanted || pthread_attr_init(&attr))
        return;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all); /* signals are for the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &was);
    pthread_t id;
    while (pool.started < wanted && !pthread_create(&id, &attr, work, (void *)(intptr_t)(pool.started + 1)))
        pool.started++;
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    pthread_attr_destroy(&attr);
}

/* A forked child has the caller's thread only: it starts with an empty pool. */
static void forget_workers(void)
{
    atomic_store(&pool.busy, 0);
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.gate, 0);
    pool.started = 0;
    pool.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* ---- jobs ---------------------------------------------------------------------------------------------------------------- */

int ec_parallel(int threads, int64_t count, ec_task *task, void *ctx)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const fp_mode was = fp_default();
    int idle = 0;
    threads = (int)EC_MIN(threads, count);
    if (threads > 1) /* before the pool is busy: a child forked in between would find it busy for ever */
        pthread_once(&once, register_fork_handler);
    if (threads < 2 || !atomic_compare_exchange_strong(&pool.busy, &idle, 1)) {
        for (int64_t i = 0; i < count; i++)
            task(ctx, i, 0);
        fp_restore(was);
        return 0;
    }
    start_workers(threads - 1);
    pool.task = task;
    pool.ctx = ctx;
    pool.threads = threads;
    for (int t = 0; t < threads; t++) {
        atomic_store_explicit(&pool.part[t].next, ec_part(count, threads, t), memory_order_relaxed);
        pool.part[t].end = ec_part(count, threads, t + 1);
    }
    const uint64_t number = (atomic_load(&pool.gate) >> 32) + 1;
    atomic_store(&pool.gate, number << 32 | OPEN | (uint64_t)threads << 16);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    take_indices(0);
    uint64_t gate = atomic_fetch_and(&pool.gate, ~OPEN);
    for (int spins = 0; gate & 0xFFFF; gate = atomic_load(&pool.gate))
        if (++spins < 4096) /* the workers inside are finishing their last index */
            relax();
        else
            sched_yield();
    atomic_store(&pool.busy, 0);
    fp_restore(was);
    return 1;
}

/* Waits until every thread of the job is here, but not long: workers may sleep, or have no CPU to run on. */
static void meet(void *ctx, int64_t i, int thread)
{
    (void)i, (void)thread;
    atomic_int *missing = ctx;
    atomic_fetch_sub(missing, 1);
    for (double end = now_ns() + LATE_NS; atomic_load(missing) > 0 && now_ns() < end;)
        relax();
}

double ec_dispatch_ns(int threads)
{
    enum { SLOTS = 11, ROUNDS = 15, LATE_ROUNDS = 3 };
    static _Atomic double measured[SLOTS];           /* by the logarithm of the number of threads */
    static _Atomic double again[SLOTS], wait[SLOTS]; /* after a failure: when to try again, and how much later then */
    int slot = 0;
    threads = ec_thread_limit(threads);
    while (1 << slot < threads)
        slot++;
    double ns = slot ? atomic_load_explicit(&measured[slot], memory_order_relaxed) : 0;
    if (slot == 0 || ns > 0)
        return ns;
    if (now_ns() < atomic_load_explicit(&again[slot], memory_order_relaxed))
        return LATE_NS;
    ns = LATE_NS;
    for (int r = 0, late = 0; r < ROUNDS && late < LATE_ROUNDS; r++) {
        atomic_int missing = threads;
        const double start = now_ns();
        if (!ec_parallel(threads, threads, meet, &missing)) /* another call has the pool */
            return LATE_NS;
        const double took = now_ns() - start;
        late += took >= LATE_NS;
        ns = EC_MIN(ns, took);
    }
    if (ns < LATE_NS) {
        atomic_store(&measured[slot], ns);
        return ns;
    }
    /* Other work has the CPUs, or the threads are still where they were started: it may be worth while later. */
    const double last = atomic_load(&wait[slot]), pause = last > 0 ? EC_MIN(2 * last, 1e9) : 1e6;
    atomic_store(&wait[slot], pause);
    atomic_store(&again[slot], now_ns() + pause);
    return LATE_NS;
}

int ec_thread_limit(int threads) { return threads > 0 ? EC_MIN(threads, EC_MAX_THREADS) : edgecomp_get_num_threads(); }

int ec_threads_that_pay(int limit, double ns)
{
    int threads = ec_thread_limit(limit);
    /* A job for fewer threads costs less: halve until the time saved is at least twice what it takes to bring the threads
     * together; what moves between the caches of their cores comes on top of it. */
    while (threads > 1 && (ns < 1000 || ns - ns / threads < 2 * ec_dispatch_ns(threads)))
        threads /= 2;
    return threads;
}
