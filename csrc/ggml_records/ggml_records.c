/* GGML's blocks of 32 values to records, in one pass. A strip's 32 rows of blocks are read side by side, and its records written one
 * after the other. Plain C: a block is eight words to move, or four that take eight operations, and memory is slower than that. */
#include <stdatomic.h>

#include "../gemm_s4g/gemm_s4g.h"

typedef struct {
    int64_t n, groups;
    const uint8_t *blocks;
    uint8_t *records;
    int bits, offset;
    atomic_int infinite; /* a scale or an offset was not finite */
} job;

EC_INLINE int infinite(uint16_t half) { return (half & 0x7C00) == 0x7C00; }

/* Word i of one output's codes. */
EC_INLINE void put(uint8_t *codes, int i, uint32_t word) { memcpy(codes + 4 * EC_STRIP * i, &word, 4); }

EC_INLINE void move_bytes(const uint8_t *from, uint8_t *codes)
{
    uint32_t words[8];
    memcpy(words, from, 32);
    EC_UNROLL(8)
    for (int i = 0; i < 8; i++)
        put(codes, i, words[i] ^ 0x80808080); /* signed to codes with their zero in the middle */
}

/* Byte i of a block has values i and i + 16, a byte of a record two values that are four apart. */
EC_INLINE void move_nibbles(const uint8_t *from, uint8_t *codes)
{
    const uint64_t nibbles = 0x0F0F0F0F0F0F0F0F;
    uint64_t words[2];
    memcpy(words, from, 16);
    EC_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        const uint64_t low = words[i] & nibbles, high = words[i] >> 4 & nibbles;
        put(codes, i, (uint32_t)(low | low >> 28));
        put(codes, i + 2, (uint32_t)(high | high >> 28));
    }
}

EC_INLINE int convert(int bits, int offset, const job *j, int64_t strip)
{
    const int64_t block = 2 + 2 * offset + 4 * bits, header = 64 + 64 * offset, record = header + 16 * EC_STRIP / 4 * bits;
    const int64_t row = strip * EC_STRIP, rows = EC_MIN(j->n - row, EC_STRIP);
    const uint8_t *from = j->blocks + row * j->groups * block;
    uint8_t *to = j->records + strip * j->groups * record;
    int bad = 0;
    if (rows < EC_STRIP)
        memset(to, 0, (size_t)(j->groups * record));
    for (int64_t g = 0; g < j->groups; g++, from += block, to += record)
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t *b = from + r * j->groups * block;
            uint16_t halves[2];
            __builtin_prefetch(b + EC_STRIP * j->groups * block, 0, 2); /* the next strip: hardware does not follow 32 rows */
            memcpy(halves, b, 2 + 2 * (size_t)offset);
            memcpy(to + 2 * r, halves, 2);
            bad |= infinite(halves[0]);
            if (offset) {
                memcpy(to + 64 + 2 * r, halves + 1, 2);
                bad |= infinite(halves[1]);
            }
            uint8_t *codes = to + header + 4 * r;
            if (bits == 8)
                move_bytes(b + 2, codes);
            else
                move_nibbles(b + 2 + 2 * offset, codes);
        }
    return bad;
}

static void convert_strip(void *ctx, int64_t strip, int thread)
{
    (void)thread;
    job *j = ctx;
    if (j->bits == 8 ? convert(8, 0, j, strip) : j->offset ? convert(4, 1, j, strip) : convert(4, 0, j, strip))
        atomic_store(&j->infinite, 1);
}

int ec_ggml_records(int64_t n, int64_t groups, int bits, int offset, const void *blocks, void *records, int threads)
{
    job j = {.n = n, .groups = groups, .blocks = blocks, .records = records, .bits = bits, .offset = offset};
    const double bytes = (double)n * (double)groups * (bits * 4 + 4);
    ec_parallel(ec_threads_that_pay(threads, bytes / 5), ec_div_up(n, EC_STRIP), convert_strip, &j);
    return atomic_load(&j.infinite) ? EC_E_NONFINITE : EC_OK;
}
