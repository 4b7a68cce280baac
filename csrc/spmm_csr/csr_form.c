/* The form in which the kernels read a CSR weight for more than one token: blocks of rows times blocks of inputs, so that a block's
 * activations stay in L1 and its sums in L2.
 *
 *   int64 blocks_n, blocks_k, block_k
 *   int64 start[blocks_n][blocks_k], then the number of entries
 *   int32 row[blocks_n + 1]
 *   then, block after block (all blocks of inputs of the first rows, then of the next): uint16 count[rows]; likewise
 *   uint16 local[entries], the input within its block; and float value[entries], or int16 of int8 codes.
 * Each part begins at a multiple of 8 bytes. Rows with many entries make a block short: a block is a share of the work. */
#include "../kernels.h"

enum {
    K_MAX = 66311, /* 255 * 127 * K < 2^31 */
    HEADER = 24,
    SHARES = 24,
    ROW_WORK = 4 /* what a row costs beside its entries, in entries */
};

static size_t round8(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

/* Inputs of a block: few enough for L1 (64 tokens of 4 or 2 bytes each), but a dozen entries in each of its rows. */
static int64_t block_inputs(int64_t n, int64_t k, const ec_csr *w)
{
    const int64_t least = w->codes ? 224 : 112, most = 32768;
    const double rows = 12 * (double)n * (double)k / ((double)w->indptr[n] + 1);
    const int64_t wanted = rows > (double)most ? most : ((int64_t)rows + 15) / 16 * 16;
    return wanted < least ? least : EC_MIN(wanted, most);
}

/* One token, and two of float32, read the CSR arrays; so do all where blocks of inputs would be emptier than one entry a row, and int8 sums that need 64
 * bits. */
int ec_csr_needs_form(int64_t m, int64_t n, int64_t k, const ec_csr *w)
{
    return m > (w->codes ? 1 : 2) && n > 0 && k > 0 && (!w->codes || k <= K_MAX) && w->indptr[n] >= n * (ec_div_up(k, block_inputs(n, k, w)) - 1);
}

/* The row after a block that begins at `row`. */
static int64_t block_end(int64_t n, const ec_csr *w, int64_t row)
{
    const int64_t share = (w->indptr[n] + ROW_WORK * n) / SHARES + 1;
    int64_t end = row + 1;
    while (end < n && end - row < EC_FORM_ROWS && w->indptr[end + 1] - w->indptr[row] + ROW_WORK * (end + 1 - row) <= share)
        end++;
    return end;
}

static int64_t input(const ec_csr *w, int64_t e) { return w->short_indices ? w->short_indices[e] : w->indices[e]; }

/* Entries of row j below input `limit`, from entry `from` on; int8 rounded up to pairs by the caller. */
static int64_t entries_below(const ec_csr *w, int64_t j, int64_t from, int64_t limit)
{
    int64_t e = from;
    while (e < w->indptr[j + 1] && input(w, e) < limit)
        e++;
    return e - from;
}

static int64_t count_entries(int64_t n, int64_t k, const ec_csr *w, int64_t block_k)
{
    if (!w->codes)
        return w->indptr[n];
    int64_t total = 0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t k0 = 0, e = w->indptr[j]; k0 < k; k0 += block_k) {
            const int64_t count = entries_below(w, j, e, k0 + block_k);
            e += count;
            total += (count + 1) & ~1;
        }
    return total;
}

static int64_t count_blocks(int64_t n, const ec_csr *w)
{
    int64_t blocks = 0;
    for (int64_t row = 0; row < n; row = block_end(n, w, row))
        blocks++;
    return blocks;
}

static size_t part_bytes(int64_t n, const ec_csr_parts *p, int part)
{
    const size_t blocks = (size_t)(p->blocks_n * p->blocks_k);
    return round8(part == 0 ? 8 * (blocks + 1) : part == 1 ? 4 * (size_t)(p->blocks_n + 1) : 2 * (size_t)(n * p->blocks_k));
}

size_t ec_csr_form_bytes(int64_t n, int64_t k, const ec_csr *w)
{
    ec_csr_parts p = {.block_k = block_inputs(n, k, w), .blocks_n = count_blocks(n, w)};
    p.blocks_k = ec_div_up(k, p.block_k);
    const size_t entries = (size_t)count_entries(n, k, w, p.block_k);
    return HEADER + part_bytes(n, &p, 0) + part_bytes(n, &p, 1) + part_bytes(n, &p, 2) + round8(2 * entries) + (w->codes ? 2 : 4) * entries;
}

ec_csr_parts ec_csr_open(int64_t n, const void *form)
{
    const char *at = form;
    const int64_t *header = form;
    ec_csr_parts p = {.blocks_n = header[0], .blocks_k = header[1], .block_k = header[2]};
    p.start = (const int64_t *)(at += HEADER);
    p.row = (const int32_t *)(at += part_bytes(n, &p, 0));
    p.count = (const uint16_t *)(at += part_bytes(n, &p, 1));
    p.local = (const uint16_t *)(at += part_bytes(n, &p, 2));
    p.value = at + round8(2 * (size_t)p.start[p.blocks_n * p.blocks_k]);
    return p;
}

void ec_csr_form(int64_t n, int64_t k, const ec_csr *w, void *form)
{
    int64_t *header = form;
    header[2] = block_inputs(n, k, w);
    header[0] = count_blocks(n, w);
    header[1] = ec_div_up(k, header[2]);
    ec_csr_parts p = {.blocks_n = header[0], .blocks_k = header[1], .block_k = header[2]};
    int64_t *start = header + 3;
    start[p.blocks_n * p.blocks_k] = count_entries(n, k, w, p.block_k);
    p = ec_csr_open(n, form);
    /* Just opened from memory that is the caller's to write. */
    int32_t *row = (int32_t *)(uintptr_t)p.row;
    uint16_t *count = (uint16_t *)(uintptr_t)p.count, *local = (uint16_t *)(uintptr_t)p.local;
    float *values = (float *)(uintptr_t)p.value;
    int16_t *codes = (int16_t *)(uintptr_t)p.value;

    int64_t out = 0, at = 0;
    row[0] = 0;
    for (int64_t b = 0; b < p.blocks_n; b++) {
        row[b + 1] = (int32_t)block_end(n, w, row[b]);
        int64_t done[EC_FORM_ROWS];
        for (int64_t j = row[b]; j < row[b + 1]; j++)
            done[j - row[b]] = w->indptr[j];
        for (int64_t kb = 0; kb < p.blocks_k; kb++) {
            *start++ = out;
            for (int64_t j = row[b]; j < row[b + 1]; j++) {
                const int64_t first = done[j - row[b]], found = entries_below(w, j, first, (kb + 1) * p.block_k);
                done[j - row[b]] += found;
                for (int64_t e = first; e < first + found; e++, out++) {
                    local[out] = (uint16_t)(input(w, e) - kb * p.block_k);
                    if (w->codes)
                        codes[out] = w->codes[e];
                    else
                        values[out] = w->values[e];
                }
                const int odd = w->codes && found & 1;
                if (odd) {
                    local[out] = local[out - 1];
                    codes[out++] = 0;
                }
                count[at++] = (uint16_t)(found + odd);
            }
        }
    }
}

int64_t ec_csr_split(int64_t n, const int32_t *indptr, int64_t parts, int64_t i)
{
    const int64_t target = ec_part(indptr[n] + ROW_WORK * n, parts, i);
    int64_t lo = 0, hi = n;
    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        if (indptr[mid] + ROW_WORK * mid < target)
            lo = mid + 1;
        else
            hi = mid;
    }
    return i == parts ? n : lo;
}
