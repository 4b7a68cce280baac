/* How many threads: the CPUs this process may use, and the default limit that the program or its environment sets. Also whether memory is
 * far. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels.h"

/* Memory counts as far on CPUs with at least this much L2. A Xeon with 2 MB is 1.1 to 1.8 times as fast with one row or a few if it
 * prefetches weights 4 to 8 KB ahead; a Zen 4, with half of that L2, loses by it (bench/TRIED.md). */
enum { FAR_L2 = 2 << 20 };

static atomic_int default_threads; /* 0: not set */

#ifdef __linux__
static long read_long(const char *path, const char *format)
{
    long v = -1;
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, format, &v) != 1)
            v = -1;
        fclose(f);
    }
    return v;
}

static int count_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return (int)sysconf(_SC_NPROCESSORS_ONLN);
    int cpus = 0;
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (!CPU_ISSET(c, &set))
            continue;
        char path[96]; /* count a core once: by the lowest of its CPUs that we may use */
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", c);
        const long first = read_long(path, "%ld");
        cpus += first < 0 || first == c || !CPU_ISSET((int)first, &set);
    }
    long period = 100000, quota = read_long("/sys/fs/cgroup/cpu.max", "%ld"); /* "max 100000": no number, no quota */
    const long v2_period = read_long("/sys/fs/cgroup/cpu.max", "%*s %ld");
    if (quota > 0 && v2_period > 0)
        period = v2_period;
    if (quota <= 0) {
        quota = read_long("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "%ld");
        period = read_long("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "%ld");
    }
    if (quota > 0 && period > 0 && ec_div_up(quota, period) < cpus)
        cpus = (int)ec_div_up(quota, period);
    return cpus;
}
#else
static int count_cpus(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
#endif

int ec_cpu_count(void)
{
    static atomic_int cpus;
    int n = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (!n) {
        n = count_cpus();
        n = n < 1 ? 1 : EC_MIN(n, EC_MAX_THREADS);
        atomic_store(&cpus, n);
    }
    return n;
}

int ec_memory_is_far(void)
{
#ifdef _SC_LEVEL2_CACHE_SIZE
    static atomic_int known = -1; /* asking takes microseconds in a virtual machine */
    int far = atomic_load_explicit(&known, memory_order_relaxed);
    if (far < 0) {
        far = sysconf(_SC_LEVEL2_CACHE_SIZE) >= FAR_L2;
        atomic_store(&known, far);
    }
    return far;
#else
    return 0;
#endif
}

void edgecomp_set_num_threads(int n) { atomic_store(&default_threads, n < 0 ? 0 : EC_MIN(n, EC_MAX_THREADS)); }

int edgecomp_get_num_threads(void)
{
    int n = atomic_load_explicit(&default_threads, memory_order_relaxed);
    if (n)
        return n;
    const char *names[] = {"EDGECOMP_NUM_THREADS", "OMP_NUM_THREADS"};
    for (int i = 0; i < 2 && n < 1; i++) {
        const char *value = getenv(names[i]);
        n = value ? atoi(value) : 0; /* the Python layer refuses what is no number; OMP may hold a list: its first */
    }
    n = n < 1 ? ec_cpu_count() : EC_MIN(n, EC_MAX_THREADS);
    int set = 0; /* if another thread has set one meanwhile, that stays */
    return atomic_compare_exchange_strong(&default_threads, &set, n) ? n : set;
}
