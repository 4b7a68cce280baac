/* What the conformance program stands on: random numbers, buffers between forbidden pages, and how it fails. */
#ifndef GUARD_H
#define GUARD_H
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- what is being checked --------------------------------------------------------------------------------------- */

/* In memory shared with the parent process, which prints it when a call dies by a signal: on whatever thread. */
typedef struct {
    char op[32], isa[64], call[96];
    long long m, n, k;
    long long passed;
} context;

static context *now;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "FAILED: %s on %s, m=%lld n=%lld k=%lld, %s: ", now->op, now->isa, now->m, now->n, now->k, now->call);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    _exit(1);
}

/* ---- random numbers: xorshift64*, seeded from each problem's sizes, so that a problem does not depend on those before */

static uint64_t random_state = 1;

static uint32_t rnd(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1Dull >> 32);
}

static int below(int n) { return (int)(rnd() % (uint32_t)n); }
static float uniform(void) { return (float)((double)rnd() * 0x1p-31 - 1); } /* -1 .. 1 */
static float normalish(void) { return uniform() + uniform() + uniform(); }

static void seed(int64_t a, int64_t b, int64_t c)
{
    random_state = 0x9E3779B97F4A7C15ull ^ (uint64_t)a * 0xBF58476D1CE4E5B9ull ^ (uint64_t)b * 0x94D049BB133111EBull ^ (uint64_t)c << 17;
    for (int i = 0; i < 4; i++)
        rnd();
}

/* ---- buffers ------------------------------------------------------------------------------------------------------- */

enum { X, XQ, XSCALE, XZERO, W, W_PLAIN, WSCALE, WSUM, W_NEGATIVE, BIAS, Y, Y2, WORK, ARENAS };

static int emulated;
#if defined(__x86_64__)
enum { DISTANCE = 64 }; /* for qemu 7: its masked loads read the lanes that are masked off, which no CPU does */
#else
enum { DISTANCE = 0 };
#endif

/* `bytes` bytes filled with 0xFF (a NaN as float32), right after a forbidden page or right before one. In the second
 * case the start has whatever alignment the size gives it. A buffer lives until its arena is asked again. */
static void *place(int arena, size_t bytes)
{
    enum { PAGE = 1 << 16 }; /* the largest page of any machine this runs on */
    const size_t distance = emulated ? DISTANCE : 0;
    static struct { uint8_t *base; size_t room; } arenas[ARENAS];
    uint8_t *base = arenas[arena].base;
    size_t room = arenas[arena].room;
    if (!base || bytes + distance > room) {
        if (base)
            munmap(base - PAGE, room + 2 * PAGE);
        room = (bytes + distance + PAGE) / PAGE * PAGE;
        base = mmap(NULL, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED || mprotect(base + PAGE, room, PROT_READ | PROT_WRITE))
            fail("no memory for a buffer of %zu bytes", bytes);
        arenas[arena].base = base += PAGE;
        arenas[arena].room = room;
    }
    uint8_t *buffer = rnd() & 1 ? base : base + room - distance - bytes;
    return memset(buffer, 0xFF, bytes);
}

/* A workspace, at an odd address every other time: it has no element type. */
static void *place_work(size_t bytes)
{
    const size_t odd = rnd() & 1;
    return (uint8_t *)place(WORK, bytes + odd) + odd;
}

/* Elements of a matrix whose last row is as short as it may be. */
static size_t extent(int64_t rows, int64_t cols, int64_t ld) { return rows > 0 ? (size_t)((rows - 1) * ld + cols) : 0; }

/* What lies between a row's end and the next row still holds the 0xFF that place() wrote. */
static void check_gaps(const void *y, int64_t rows, int64_t cols, int64_t ld, size_t size)
{
    const uint8_t *bytes = y;
    for (int64_t i = 0; i + 1 < rows; i++)
        for (size_t b = (size_t)(i * ld + cols) * size; b < (size_t)((i + 1) * ld) * size; b++)
            if (bytes[b] != 0xFF)
                fail("row %lld: wrote %lld bytes past its end", (long long)i, (long long)(b - (size_t)(i * ld + cols) * size + 1));
}
#endif
