/* CRC-32, AVX-512 with VPCLMULQDQ: crc32_avx2.c with four registers of 64 bytes. A CPU with AVX-512 that has no wide multiplication
 * takes the AVX2 code. */
#include "crc32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512dq,vpclmulqdq,pclmul")

/* As there, for d = 2048, 512 and 128 bits. */
static const uint64_t BY_256[2] = {0x7CC8E1E700000000, 0x03F9F86300000000}, BY_64[2] = {0x653D982200000000, 0xCAD38E8F00000000},
                      BY_16[2] = {0x65673B4600000000, 0x9BA54C6F00000000};

EC_INLINE __m512i load(const uint8_t *data) { return _mm512_loadu_si512(data); }
EC_INLINE __m512i everywhere(const uint64_t *by) { return _mm512_broadcast_i64x2(_mm_loadu_si128((const __m128i *)(const void *)by)); }

EC_INLINE __m512i carried(__m512i v, __m512i by, __m512i onto)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, by, 0x00), _mm512_clmulepi64_epi128(v, by, 0x11), onto, 0x96);
}

EC_INLINE __m128i carried_16(__m128i v, __m128i by, __m128i onto)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(v, by, 0x00), _mm_clmulepi64_si128(v, by, 0x11)), onto);
}

uint32_t ec_crc32_avx512(uint32_t crc, const uint8_t *data, int64_t size)
{
    if (size < 256 || !__builtin_cpu_supports("vpclmulqdq"))
        return ec_crc32_avx2(crc, data, size);
    const __m512i by_256 = everywhere(BY_256), by_64 = everywhere(BY_64);
    const __m128i by_16 = _mm512_castsi512_si128(everywhere(BY_16));
    __m512i v[4] = {load(data), load(data + 64), load(data + 128), load(data + 192)};
    v[0] = _mm512_xor_si512(v[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    for (data += 256, size -= 256; size >= 256; data += 256, size -= 256)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            v[i] = carried(v[i], by_256, load(data + 64 * i));
    EC_UNROLL(4)
    for (int i = 1; i < 4; i++)
        v[0] = carried(v[0], by_64, v[i]);
    for (; size >= 64; data += 64, size -= 64)
        v[0] = carried(v[0], by_64, load(data));
    __m128i one = _mm512_castsi512_si128(v[0]);
    one = carried_16(one, by_16, _mm512_extracti64x2_epi64(v[0], 1));
    one = carried_16(one, by_16, _mm512_extracti64x2_epi64(v[0], 2));
    one = carried_16(one, by_16, _mm512_extracti64x2_epi64(v[0], 3));
    for (; size >= 16; data += 16, size -= 16)
        one = carried_16(one, by_16, _mm_loadu_si128((const __m128i *)(const void *)data));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)(void *)rest, one);
    return ec_crc32_scalar(ec_crc32_scalar(0, rest, 16), data, size);
}
EC_TARGET_END
#endif
