/* The tiles of AMX: eight registers of up to 16 rows of 64 bytes. Included inside a target region with amx-tile and amx-int8.
 *
 * A product adds to each of 16 x 16 int32 the products of a row of A (64 bytes) with a column of B. A row of B holds four bytes of each of
 * 16 columns: int8 panels are such rows already. As inline asm: gcc's intrinsics do not say that they read and write memory. */

/* What ldtilecfg reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} ec_tile_config;

EC_INLINE void ec_tile_configure(const ec_tile_config *c) { __asm__ volatile("ldtilecfg %0" ::"m"(*c)); }

/* Tiles in use make the switch to another thread slower. */
EC_INLINE void ec_tile_release(void) { __asm__ volatile("tilerelease"); }

#define EC_TILE_ZERO(t) __asm__ volatile("tilezero %tmm" #t)
#define EC_TILE_LOAD(t, at, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(at), "r"((int64_t)(stride)) : "memory")
#define EC_TILE_STORE(t, at, stride) __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(at), "r"((int64_t)(stride)) : "memory")
/* c += a x b: "us" unsigned a, signed b; "ss" both signed. */
#define EC_TILE_DOT(us, c, a, b) __asm__ volatile("tdpb" us "d %tmm" #b ", %tmm" #a ", %tmm" #c)
