/* The entries of a CSR block in the order of ec_csr_pairs_fn. */
#include "spmm_csr.h"

enum { MOST_K = 64 };

/* Two rows of one block, their entries in order. */
static int64_t put_pair(const ec_csr *w, const int64_t first[2], const int64_t found[2], int64_t k0, uint16_t count[3], uint16_t *local,
                        float *value)
{
    int64_t e[2] = {first[0], first[1]};
    const int64_t end[2] = {first[0] + found[0], first[1] + found[1]};
    uint16_t alone[2][MOST_K];
    float own[2][MOST_K];
    int both = 0, n[2] = {0, 0};
    while (e[0] < end[0] || e[1] < end[1]) {
        const int64_t i0 = e[0] < end[0] ? ec_csr_input(w, e[0]) : INT64_MAX, i1 = e[1] < end[1] ? ec_csr_input(w, e[1]) : INT64_MAX;
        if (i0 == i1) {
            local[both] = (uint16_t)(i0 - k0);
            value[2 * both] = w->values[e[0]++];
            value[2 * both++ + 1] = w->values[e[1]++];
            continue;
        }
        const int which = i1 < i0;
        alone[which][n[which]] = (uint16_t)((which ? i1 : i0) - k0);
        own[which][n[which]++] = w->values[e[which]++];
    }
    count[0] = (uint16_t)both;
    local += both;
    value += 2 * both;
    for (int r = 0; r < 2; r++) {
        count[1 + r] = (uint16_t)n[r];
        memcpy(local, alone[r], sizeof *local * (size_t)n[r]);
        memcpy(value, own[r], sizeof *value * (size_t)n[r]);
        local += n[r];
        value += n[r];
    }
    return both + n[0] + n[1];
}

int64_t ec_csr_put_pairs(const ec_csr *w, int rows, const int64_t *done, const int64_t *found, int64_t k0, uint16_t *count,
                         uint16_t *local, float *value)
{
    const int pairs = (rows + 1) / 2;
    uint16_t *order = count + 3 * pairs;
    int64_t out = 0, values = 0;
    for (int p = 0; p < pairs; p++) {
        const int a = 2 * p, b = a + 1; /* an odd row's partner has no entries, and sums behind all others */
        order[a] = (uint16_t)a;
        order[b] = (uint16_t)b;
        out += put_pair(w, (const int64_t[]){done[a], b < rows ? done[b] : 0}, (const int64_t[]){found[a], b < rows ? found[b] : 0}, k0,
                        count + 3 * p, local + out, value + values);
        values += found[a] + (b < rows ? found[b] : 0);
    }
    return out;
}
