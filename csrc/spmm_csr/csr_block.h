/* A float32 block of a CSR weight's form, tokens in lanes, for the ISA's file that includes this inside its target region. That file
 * defines vec, LANES, vload, vstore, vset1, vzero, vadd and vfma. */

/* `vecs` vectors of sums for each row, in `chains` sets that take entries in turn where vecs alone are fewer than FMAs in flight. */
EC_INLINE void block(int vecs, int chains, const ec_csr_block *b)
{
    const int lanes = vecs * LANES;
    const uint16_t *local = b->local;
    const float *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        float *sums = b->sums + (int64_t)b->order[r] * lanes;
        vec acc[4][16];
        EC_UNROLL(16)
        for (int h = 0; h < vecs; h++)
            acc[0][h] = b->first ? vzero() : vload(sums + LANES * h);
        EC_UNROLL(4)
        for (int u = 1; u < chains; u++)
            EC_UNROLL(16)
            for (int h = 0; h < vecs; h++)
                acc[u][h] = vzero();
        if (b->ahead) { /* a row's entries are a few lines at most */
            __builtin_prefetch((const char *)value + 4096);
            __builtin_prefetch((const char *)local + 2048);
        }
        int left = b->count[r];
        for (; left >= chains; left -= chains, local += chains, value += chains)
            EC_UNROLL(4)
            for (int u = 0; u < chains; u++) {
                const float *x = b->x + (size_t)local[u] * (size_t)lanes;
                const vec w = vset1(value[u]);
                EC_UNROLL(16)
                for (int h = 0; h < vecs; h++)
                    acc[u][h] = vfma(w, vload(x + LANES * h), acc[u][h]);
            }
        for (; chains > 1 && left > 0; left--, local++, value++) {
            const float *x = b->x + (size_t)*local * (size_t)lanes;
            const vec w = vset1(*value);
            EC_UNROLL(16)
            for (int h = 0; h < vecs; h++)
                acc[0][h] = vfma(w, vload(x + LANES * h), acc[0][h]);
        }
        EC_UNROLL(16)
        for (int h = 0; h < vecs; h++) {
            vec sum = acc[0][h];
            EC_UNROLL(4)
            for (int u = 1; u < chains; u++)
                sum = vadd(sum, acc[u][h]);
            vstore(sums + LANES * h, sum);
        }
    }
}
