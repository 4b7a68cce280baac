/* CRC-32, the instruction of Armv8.1 and later. */
#include "crc32.h"
#ifdef EC_ARM64
#include <arm_acle.h>
#include <arm_neon.h>
EC_TARGET_BEGIN("crc")

uint32_t ec_crc32_neondot(uint32_t crc, const uint8_t *data, int64_t size)
{
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        crc = __crc32d(crc, word);
    }
    for (; size > 0; size--, data++)
        crc = __crc32b(crc, *data);
    return crc;
}
EC_TARGET_END
#endif
