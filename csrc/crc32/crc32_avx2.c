/* CRC-32, AVX2 with PCLMULQDQ: carry-less products carry four registers of 16 bytes on, 64 bytes at a time, after Gopal et al., "Fast
 * CRC computation for generic polynomials using PCLMULQDQ" (Intel, 2009). What is left, 16 bytes with the same remainder, goes through
 * the scalar loop. */
#include "crc32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,pclmul")

/* Bits are mirrored: bit i of a register is x^(127-i), bit i of a half x^(63-i), and the product of two halves comes out times x. To carry
 * a register d bits on, its low half is multiplied by x^(d+63) and its high half by x^(d-1), modulo P = x^32 + 0x04C11DB7:
 *     def power(n): return 1 if n == 0 else (c := power(n - 1) << 1) ^ (0x104C11DB7 if c >> 32 else 0)
 *     [int(f"{power(d + e):064b}"[::-1], 2) for d in (512, 128) for e in (63, -1)] */
static const uint64_t BY_64[2] = {0x653D982200000000, 0xCAD38E8F00000000}, BY_16[2] = {0x65673B4600000000, 0x9BA54C6F00000000};

EC_INLINE __m128i load(const uint8_t *data) { return _mm_loadu_si128((const __m128i *)(const void *)data); }

EC_INLINE __m128i carried(__m128i v, __m128i by, __m128i onto)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(v, by, 0x00), _mm_clmulepi64_si128(v, by, 0x11)), onto);
}

uint32_t ec_crc32_avx2(uint32_t crc, const uint8_t *data, int64_t size)
{
    if (size < 64)
        return ec_crc32_scalar(crc, data, size);
    const __m128i by_64 = load((const uint8_t *)BY_64), by_16 = load((const uint8_t *)BY_16);
    __m128i v[4] = {_mm_xor_si128(load(data), _mm_cvtsi32_si128((int)crc)), load(data + 16), load(data + 32), load(data + 48)};
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            v[i] = carried(v[i], by_64, load(data + 16 * i));
    EC_UNROLL(4)
    for (int i = 1; i < 4; i++)
        v[0] = carried(v[0], by_16, v[i]);
    for (; size >= 16; data += 16, size -= 16)
        v[0] = carried(v[0], by_16, load(data));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)(void *)rest, v[0]);
    return ec_crc32_scalar(ec_crc32_scalar(0, rest, 16), data, size);
}
EC_TARGET_END
#endif
