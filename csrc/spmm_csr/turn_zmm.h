/* A square of 16 by 16 words turned in registers. Included inside an AVX-512 target region. */
#define QUARTERS(a, b, which) _mm512_shuffle_f32x4(a, b, which)

/* Afterwards v[i] is element i of all 16. */
EC_INLINE void turn(__m512 v[16])
{
    __m512 u[16];
    EC_UNROLL(8)
    for (int i = 0; i < 8; i++) {
        u[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        u[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    EC_UNROLL(4)
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(u[i]), b = _mm512_castps_pd(u[i + 1]);
        const __m512d c = _mm512_castps_pd(u[i + 2]), d = _mm512_castps_pd(u[i + 3]);
        v[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        v[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        v[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        v[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    EC_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        const __m512 lo = QUARTERS(v[i], v[i + 4], 0x44), hi = QUARTERS(v[i], v[i + 4], 0xEE);
        const __m512 lo2 = QUARTERS(v[i + 8], v[i + 12], 0x44), hi2 = QUARTERS(v[i + 8], v[i + 12], 0xEE);
        v[i] = QUARTERS(lo, lo2, 0x88);
        v[i + 4] = QUARTERS(lo, lo2, 0xDD);
        v[i + 8] = QUARTERS(hi, hi2, 0x88);
        v[i + 12] = QUARTERS(hi, hi2, 0xDD);
    }
}
