/* GGML's blocks of 32 weights to records: value by value. And the search for scales that are not finite. */
#ifndef GGML_H
#define GGML_H
#include "calls.h"

static void make_ggml(problem *p) { p->k = (p->k + 31) / 32 * 32; }

static int ggml_code(int bits, const uint8_t *codes, int i)
{
    return bits == 8 ? codes[i] ^ 128 : codes[i % 16] >> (i < 16 ? 0 : 4) & 15;
}

static void check_ggml_form(const problem *p, int bits, int offset, int infinite)
{
    const int64_t groups = p->k / 32, count = p->n * groups, strips = (p->n + 31) / 32;
    const size_t fields = 2 + 2 * (size_t)offset, block = fields + 4 * (size_t)bits, header = 32 * fields, record = header + 128 * (size_t)bits;
    uint8_t *blocks = place(W_PLAIN, (size_t)count * block), *records = place(W, (size_t)(strips * groups) * record);
    uint8_t *wanted = calloc((size_t)(strips * groups) * record + 1, 1);
    if (!wanted)
        fail("no memory");
    for (int64_t b = 0; b < count; b++)
        for (size_t i = 0; i < block; i++)
            blocks[(size_t)b * block + i] = (uint8_t)(i < fields && i & 1 ? below(128) * 251 & 0xBB : below(256)); /* no exponent of ones */
    if (infinite && count) {
        uint8_t *field = blocks + (size_t)below((int)count) * block + (offset ? 2 * (size_t)below(2) : 0);
        field[1] = (uint8_t)(below(2) ? 0x7C : 0xFE);
    }
    for (int64_t j = 0; j < p->n; j++)
        for (int64_t g = 0; g < groups; g++) {
            const uint8_t *from = blocks + (size_t)(j * groups + g) * block;
            uint8_t *to = wanted + (size_t)(j / 32 * groups + g) * record;
            for (size_t i = 0; i < fields; i++)
                to[64 * (i / 2) + 2 * (size_t)(j % 32) + i % 2] = from[i];
            for (int i = 0; i < 32; i++) {
                const int code = ggml_code(bits, from + fields, i), per_word = bits == 8 ? 4 : 8;
                to[header + 4 * (size_t)(i / per_word * 32 + j % 32) + (size_t)(i % 4)] |= (uint8_t)(code << (bits == 4 && i & 4 ? 4 : 0));
            }
        }
    const int threads = below(4);
    snprintf(now->call, sizeof now->call, "ggml_records bits=%d offset=%d infinite=%d threads=%d", bits, offset, infinite, threads);
    memset(records, 0xA5, (size_t)(strips * groups) * record);
    const int status = ec_ggml_records(p->n, groups, bits, offset, blocks, records, threads);
    if (status != (infinite && count ? EC_E_NONFINITE : EC_OK))
        fail("status %d", status);
    for (size_t i = 0; i < (size_t)(strips * groups) * record; i++)
        if (records[i] != wanted[i])
            fail("byte %zu is %02x instead of %02x", i, records[i], wanted[i]);
    free(wanted);
    now->passed++;
}

static void check_ggml(const problem *p)
{
    for (int infinite = 0; infinite < 2; infinite++) {
        check_ggml_form(p, 8, 0, infinite);
        check_ggml_form(p, 4, 0, infinite);
        check_ggml_form(p, 4, 1, infinite);
    }
}

static void check_first_nonfinite(const problem *p)
{
    for (int turn = 0; turn < 10; turn++) {
        const int bytes = below(2) ? 2 : 4;
        const int64_t per = turn % 2 ? 32 : p->k, rows = p->n, stride = bytes * per + below(80), wrong = below(3) ? below((int)(rows * per + 1)) : -1;
        uint8_t *data = place(W, extent(rows, bytes * per, stride));
        for (int64_t i = 0; i < (int64_t)extent(rows, bytes * per, stride); i++)
            data[i] = (uint8_t)(below(256) & 0x3B); /* no exponent of ones */
        const int found = wrong >= 0 && wrong < rows * per;
        if (found)
            for (int64_t at = wrong; at < rows * per; at += 1 + below(40)) { /* that one, and some after it */
                uint8_t *value = data + at / per * stride + bytes * (at % per);
                value[bytes - 1] = (uint8_t)(below(2) ? 0x7F : 0xFF);
                value[bytes - 2] = 0x80;
            }
        snprintf(now->call, sizeof now->call, "first_nonfinite per=%lld stride=%lld bytes=%d", (long long)per, (long long)stride, bytes);
        const int64_t got = ec_first_nonfinite(data, rows, per, stride, bytes), want = found ? wrong : -1;
        if (got != want)
            fail("%lld instead of %lld", (long long)got, (long long)want);
        now->passed++;
    }
}
#endif
