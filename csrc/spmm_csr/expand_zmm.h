/* The entries of sixteen inputs at their places, by a mask. Included inside a target region with AVX-512.
 *
 * On Zen 4 even a load that zeroes the rest waits for what the register held before, unless that is cleared. */
EC_INLINE __m512 expand(uint16_t mask, const float *from)
{
    __m512 v;
    __asm__("vpxord %0,%0,%0\n\tvexpandps %2,%0%{%1%}%{z%}" : "=&v"(v) : "Yk"((__mmask16)mask), "m"(*(const float(*)[16])from));
    return v;
}
