/* The form in which the kernels read a CSR weight for more than one token: blocks of rows times blocks of inputs, so that a block's
 * activations stay in L1 and its sums in L2.
 *
 *   int64 blocks_n, blocks_k, block_k
 *   int64 start[blocks_n][blocks_k], then the number of entries
 *   int32 row[blocks_n + 1]; int8: int32 sum[n][2]
 *   then, block after block (all blocks of inputs of the first rows, then of the next): uint16 count[rows], order[rows]; likewise
 *   uint16 local[entries], the input within its block, and float value[entries]; int8: uint8 value[entries], see ec_csr8_block.
 * Each part begins at a multiple of 8 bytes. Rows with many entries make a block short: a block is a share of the work. Within a block
 * rows are sorted by their entries, most first. */
#include "../kernels.h"

enum {
    K_MAX = 66311, /* 255 * 127 * K < 2^31 */
    HEADER = 24,
    SHARES = 32,
    ROW_WORK = 4 /* what a row costs beside its entries, in entries */
};

static size_t round8(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

/* Inputs of a block: few enough for L1 (64 tokens of 4 bytes each, 32 of 2), but a dozen entries in each of its rows, or six quads. */
static int64_t block_inputs(int64_t n, int64_t k, const ec_csr *w)
{
    const int64_t least = w->codes ? 512 : 128, most = 32768;
    const double inputs = (w->codes ? 24 : 12) * (double)n * (double)k / ((double)w->indptr[n] + 1);
    const int64_t wanted = inputs > (double)most ? most : ((int64_t)inputs + 15) / 16 * 16;
    return wanted < least ? least : EC_MIN(wanted, most);
}

/* One token reads the CSR arrays; so do all where blocks of inputs would be emptier than one entry a row, and int8 sums that need 64 bits. */
int ec_csr_needs_form(int64_t m, int64_t n, int64_t k, const ec_csr *w)
{
    return m > 1 && n > 0 && k > 0 && (!w->codes || k <= K_MAX) && w->indptr[n] >= n * (ec_div_up(k, block_inputs(n, k, w)) - 1);
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

/* Entries of row j below input `limit`, from entry `from` on. */
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
    int64_t quads = 0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t k0 = 0, e = w->indptr[j]; k0 < k; k0 += block_k) {
            const int64_t count = entries_below(w, j, e, k0 + block_k);
            e += count;
            quads += ec_div_up(count, 4);
        }
    return 4 * quads;
}

static int64_t count_blocks(int64_t n, const ec_csr *w)
{
    int64_t blocks = 0;
    for (int64_t row = 0; row < n; row = block_end(n, w, row))
        blocks++;
    return blocks;
}

/* Bytes of the starts, rows, sums, counts and order. */
static size_t part_bytes(int64_t n, int int8, const ec_csr_parts *p, int part)
{
    switch (part) {
    case 0: return 8 * (size_t)(p->blocks_n * p->blocks_k + 1);
    case 1: return round8(4 * (size_t)(p->blocks_n + 1));
    case 2: return int8 ? 8 * (size_t)n : 0;
    default: return round8(4 * (size_t)(n * p->blocks_k));
    }
}

size_t ec_csr_form_bytes(int64_t n, int64_t k, const ec_csr *w)
{
    ec_csr_parts p = {.block_k = block_inputs(n, k, w), .blocks_n = count_blocks(n, w)};
    p.blocks_k = ec_div_up(k, p.block_k);
    const size_t entries = (size_t)count_entries(n, k, w, p.block_k);
    size_t bytes = HEADER + round8(2 * entries) + (w->codes ? 1 : 4) * entries;
    for (int part = 0; part < 4; part++)
        bytes += part_bytes(n, w->codes != NULL, &p, part);
    return bytes;
}

ec_csr_parts ec_csr_open(int64_t n, int int8, const void *form)
{
    const char *at = form;
    const int64_t *header = form;
    ec_csr_parts p = {.blocks_n = header[0], .blocks_k = header[1], .block_k = header[2]};
    p.start = (const int64_t *)(at += HEADER);
    p.row = (const int32_t *)(at += part_bytes(n, int8, &p, 0));
    p.sum = (const int32_t *)(at += part_bytes(n, int8, &p, 1));
    p.count = (const uint16_t *)(at += part_bytes(n, int8, &p, 2));
    p.local = (const uint16_t *)(at += part_bytes(n, int8, &p, 3));
    p.value = at + round8(2 * (size_t)p.start[p.blocks_n * p.blocks_k]);
    return p;
}

/* The rows of a block, most entries first; equal ones as they were. */
static void sort_rows(int rows, const int64_t *found, uint16_t *order)
{
    for (int i = 0; i < rows; i++) {
        int at = i;
        for (; at > 0 && found[order[at - 1]] < found[i]; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)i;
    }
}

/* Entries first .. first + found - 1 as those of a block whose inputs begin at k0; returns how many they became. */
static int64_t put(const ec_csr *w, int64_t first, int64_t found, int64_t k0, uint16_t *local, void *value)
{
    if (!w->codes) {
        for (int64_t i = 0; i < found; i++)
            local[i] = (uint16_t)(input(w, first + i) - k0);
        if (found)
            memcpy(value, w->values + first, sizeof *w->values * (size_t)found);
        return found;
    }
    const int64_t padded = 4 * ec_div_up(found, 4);
    for (int64_t i = 0; i < padded; i++) {
        const int code = i < found ? w->codes[first + i] : 0;
        local[i] = i < found ? (uint16_t)(2 * (input(w, first + i) - k0) + (code < 0)) : local[found - 1];
        ((uint8_t *)value)[i] = (uint8_t)(code < 0 ? -code : code);
    }
    return padded;
}

void ec_csr_form(int64_t n, int64_t k, const ec_csr *w, void *form)
{
    const int int8 = w->codes != NULL;
    int64_t *header = form;
    header[2] = block_inputs(n, k, w);
    header[0] = count_blocks(n, w);
    header[1] = ec_div_up(k, header[2]);
    ec_csr_parts p = {.blocks_n = header[0], .blocks_k = header[1], .block_k = header[2]};
    int64_t *start = header + 3;
    start[p.blocks_n * p.blocks_k] = count_entries(n, k, w, p.block_k);
    p = ec_csr_open(n, int8, form);
    /* Just opened from memory that is the caller's to write. */
    int32_t *row = (int32_t *)(uintptr_t)p.row, *sum = (int32_t *)(uintptr_t)p.sum;
    uint16_t *count = (uint16_t *)(uintptr_t)p.count, *local = (uint16_t *)(uintptr_t)p.local;
    char *value = (char *)(uintptr_t)p.value;

    for (int64_t j = 0; int8 && j < n; j++) {
        sum[2 * j] = sum[2 * j + 1] = 0;
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++) {
            sum[2 * j] += w->codes[e];
            sum[2 * j + 1] -= EC_MIN(w->codes[e], 0);
        }
    }
    int64_t out = 0;
    row[0] = 0;
    for (int64_t b = 0; b < p.blocks_n; b++) {
        row[b + 1] = (int32_t)block_end(n, w, row[b]);
        const int rows = row[b + 1] - row[b];
        int64_t done[EC_FORM_ROWS], found[EC_FORM_ROWS];
        for (int i = 0; i < rows; i++)
            done[i] = w->indptr[row[b] + i];
        for (int64_t kb = 0; kb < p.blocks_k; kb++, count += 2 * rows) {
            *start++ = out;
            for (int i = 0; i < rows; i++)
                found[i] = entries_below(w, row[b] + i, done[i], (kb + 1) * p.block_k);
            sort_rows(rows, found, count + rows);
            for (int at = 0; at < rows; at++) {
                const int i = count[rows + at];
                const int64_t entries = put(w, done[i], found[i], kb * p.block_k, local + out, value + out * (int8 ? 1 : 4));
                count[at] = (uint16_t)(int8 ? entries / 4 : entries);
                done[i] += found[i];
                out += entries;
            }
        }
    }
}

/* One token of float32: where two fifths of the weights are stored, spreading the values of eight inputs costs less than fetching their
 * activations one by one, and a bit for each weight is less to read than the indices. */
int ec_csr_needs_masks(int64_t m, int64_t n, int64_t k, const ec_csr *w)
{
    return m == 1 && !w->codes && k > 0 && (double)w->indptr[n] >= 0.4 * (double)n * (double)k && ec_use_spmv_masks();
}

size_t ec_csr_masks_bytes(int64_t n, int64_t k, const ec_csr *w)
{
    (void)w;
    return 4 * (size_t)(n * ec_div_up(k, 32));
}

/* [n][ceil(k/32)][4]: bit i % 8 of byte i / 8 of a row is set where input i has an entry. */
void ec_csr_masks(int64_t n, int64_t k, const ec_csr *w, void *masks)
{
    uint8_t *row = masks;
    memset(masks, 0, ec_csr_masks_bytes(n, k, w));
    for (int64_t j = 0; j < n; j++, row += 4 * ec_div_up(k, 32))
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++)
            row[input(w, e) / 8] |= (uint8_t)(1 << input(w, e) % 8);
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
