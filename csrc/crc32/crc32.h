/* CRC-32: what kernels and driver agree on. */
#ifndef EC_CRC32_H
#define EC_CRC32_H
#include "../kernels.h"

/* The remainder after these bytes, from the one before them. The driver complements it before the first byte and after the last. Data
 * need no alignment. */
typedef uint32_t ec_crc32_fn(uint32_t crc, const uint8_t *data, int64_t size);
ec_crc32_fn ec_crc32_scalar, ec_crc32_avx2, ec_crc32_avx512, ec_crc32_neondot;

ec_crc32_fn *ec_use_crc32(void);
#endif
