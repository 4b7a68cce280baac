/* CRC-32 against the division of polynomials, bit by bit. */
#ifndef CRC_H
#define CRC_H
#include "calls.h"

static uint32_t oracle_crc32(uint32_t crc, const uint8_t *data, int64_t size)
{
    crc = ~crc;
    for (int64_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static void make_crc(problem *p)
{
    p->x = place(X, (size_t)p->k);
    for (int64_t i = 0; i < p->k; i++)
        ((uint8_t *)p->x)[i] = (uint8_t)below(256);
}

/* In one piece, and in two that begin anywhere. */
static void check_crc(const problem *p)
{
    const uint8_t *data = (const uint8_t *)p->x;
    for (int turn = 0; turn < 20; turn++) {
        const uint32_t start = below(2) ? rnd() : 0, want = oracle_crc32(start, data, p->k);
        const int64_t cut = below((int)p->k + 1);
        snprintf(now->call, sizeof now->call, "crc32 from %08x on, cut at %lld", start, (long long)cut);
        const uint32_t whole = ec_crc32(start, data, p->k), parts = ec_crc32(ec_crc32(start, data, cut), data + cut, p->k - cut);
        if (whole != want || parts != want)
            fail("%08x, in parts %08x, instead of %08x", whole, parts, want);
        now->passed++;
    }
}
#endif
