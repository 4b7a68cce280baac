/* Grouped weights times up to 3 rows of floats, the weights made in registers. Included inside a target region, after the vectors of
 * the ISA: LANES floats each, CHAINS sums of an output, and on vectors load, store, words (of codes), bytes, floats, set1, set1_bits,
 * add, sub, fused (multiply-add), field (v & mask | magic), shifted.
 *
 * A code becomes a float without a conversion: masked where it lies in its word and put under the exponent whose unit is that bit, it
 * is 2^(23 - bit) + code; the difference to that power is exact. Bits from 20 on (16 for bytes) do not fit the mantissa: one shift
 * brings them down. */
enum { H = EC_STRIP / LANES };

/* A code's mask in its word, what is put over it, and the same plus the middle of the codes. Read where they are used: they are more
 * than the registers, and gcc would keep each in its own. */
typedef struct {
    uint32_t mask;
    float magic, middle;
} place;

#define AT(bits, bit) {((1u << (bits)) - 1) << (bit), (float)(1 << (23 - (bit))), (float)((1 << (23 - (bit))) + (1 << ((bits) - 1)))}
static const place NIBBLES[8] = {AT(4, 0), AT(4, 4), AT(4, 8), AT(4, 12), AT(4, 16), AT(4, 8), AT(4, 12), AT(4, 16)};
static const place BYTES[4] = {AT(8, 0), AT(8, 8), AT(8, 0), AT(8, 8)};

/* Adds the products of one word of codes per output: `vecs` vectors of outputs, 8 inputs (bytes: 4). */
EC_INLINE void word(int mr, int bits, int affine, int vecs, const uint8_t *codes, const float *x, const vec *a, const vec *b,
                    vec (*acc)[3][H])
{
    vec v[H];
    EC_UNROLL(8)
    for (int h = 0; h < vecs; h++)
        v[h] = words(codes + 4 * LANES * h);
    const place *at = bits == 4 ? NIBBLES : BYTES;
    const int inputs = 32 / bits;
    EC_UNROLL(8)
    for (int f = 0; f < inputs; f++) {
        __asm__("" : "+r"(at));
        if (f == (bits == 4 ? 5 : 2))
            EC_UNROLL(8)
            for (int h = 0; h < vecs; h++)
                v[h] = shifted(v[h], bits == 4 ? 12 : 16);
        const vec mask = set1_bits(at[f].mask), magic = set1(at[f].magic), minus = affine ? magic : set1(at[f].middle);
        /* bits of a word from the lowest: nibbles of the first quad are every second, those of the second quad between them */
        const float *from = x + mr * (bits == 8 ? f : f % 2 * 4 + f / 2);
        EC_UNROLL(8)
        for (int h = 0; h < vecs; h++) {
            vec w = sub(field(v[h], mask, magic), minus);
            if (affine)
                w = fused(w, a[h], b[h]);
            EC_UNROLL(3)
            for (int i = 0; i < mr; i++)
                acc[f % CHAINS][i][h] = fused(w, set1(from[i]), acc[f % CHAINS][i][h]);
        }
    }
}

/* Outputs from the vector h0 on. affine: a weight is code * a + b, rounded once, else code - middle. A group's sum is multiplied with
 * its scale at the end. */
EC_INLINE void outputs(int mr, int bits, int affine, int h0, int vecs, const ec_gemv_sg *t)
{
    const int64_t record_bytes = (int64_t)ec_record_bytes(t->form, t->bits);
    const int header = ec_header_bytes(t->form), scale_bytes = t->form->scale_bytes, has_offset = t->form->zero == EC_ZERO_OFFSET;
    const uint8_t *record = t->w;
    const float *x = t->x;
    float *sums = t->sums + LANES * h0; /* in L1: the registers are for the inner loop */
    for (int i = 0; i < mr; i++)
        for (int h = 0; h < vecs; h++)
            store(sums + EC_STRIP * i + LANES * h, set1(0));
    for (int64_t g = 0; g < t->groups; g++, record += record_bytes) {
        const uint8_t *codes = record + header + 4 * LANES * h0;
        vec a[H], b[H], acc[CHAINS][3][H];
        EC_UNROLL(8)
        for (int h = 0; h < vecs; h++) {
            if (affine) {
                a[h] = has_offset ? floats(record, scale_bytes, 0, h0 + h) : set1(1);
                b[h] = has_offset ? floats(record, scale_bytes, 1, h0 + h)
                                  : sub(set1(0), bytes(ec_record_zeros(record, scale_bytes) + LANES * (h0 + h)));
            }
            EC_UNROLL(2)
            for (int c = 0; c < CHAINS; c++)
                EC_UNROLL(3)
                for (int i = 0; i < mr; i++)
                    acc[c][i][h] = set1(0);
        }
        for (int k = t->form->group; k > 0; k -= 32 / bits, codes += 4 * EC_STRIP, x += mr * 32 / bits)
            word(mr, bits, affine, vecs, codes, x, a, b, acc);
        EC_UNROLL(8)
        for (int h = 0; h < vecs; h++) {
            const vec scale = has_offset ? set1(1) : floats(record, scale_bytes, 0, h0 + h);
            EC_UNROLL(3)
            for (int i = 0; i < mr; i++) {
                const vec sum = CHAINS == 1 ? acc[0][i][h] : add(acc[0][i][h], acc[CHAINS - 1][i][h]);
                store(sums + EC_STRIP * i + LANES * h, fused(sum, scale, load(sums + EC_STRIP * i + LANES * h)));
            }
        }
    }
}

EC_INLINE void strip(int mr, int bits, int affine, const ec_gemv_sg *t)
{
    const int vecs = LANES == 16 || mr + affine == 1 ? H : mr == 1 || !affine ? H / 2 : H / 4; /* what the registers hold */
    for (int h = 0; h < H; h += vecs)
        outputs(mr, bits, affine, h, vecs, t);
}

EC_INLINE void strips(int mr, int bits, const ec_gemv_sg *t)
{
    switch (2 * mr + (t->form->zero != EC_ZERO_MIDDLE)) {
    case 2: strip(1, bits, 0, t); break;
    case 3: strip(1, bits, 1, t); break;
    case 4: strip(2, bits, 0, t); break;
    case 5: strip(2, bits, 1, t); break;
    case 6: strip(3, bits, 0, t); break;
    default: strip(3, bits, 1, t);
    }
}
