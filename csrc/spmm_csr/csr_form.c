/* The forms in which the kernels read a CSR weight for several tokens (for one: csr_masks.c, csr_sell.c): blocks of rows times blocks
 * of inputs, so that a block's activations stay in L1 and its sums in L2. EC_CSR_BLOCKS and, in int8, EC_CSR_SIGNED have the rows one
 * by one, EC_CSR_PAIRS two by two.
 *
 *   int64 blocks_n, blocks_k, block_k, most_rows
 *   int64 start[blocks_n][blocks_k][2], then the number of entries, as many as there are `local` and `value`
 *   int32 row[blocks_n + 1]; int8: int32 sum[n][2], or [n]
 *   then, block after block (all blocks of inputs of the first rows, then of the next): uint16 count[rows], order[rows], or for each pair
 *   count[3], and order[2]; likewise uint16 local[], the input within its block, and float value[]; int8: see ec_csr8_block.
 * Each part begins at a multiple of 8 bytes. Rows with many entries make a block short: a block is a share of the work. Single rows of a
 * block are sorted by their entries, most first. */
#include "spmm_csr.h"
#include "../spmm_csr8/spmm_csr8.h"

enum {
    HEADER = 32,
    SHARES = 32,
    ROW_WORK = 4 /* what a row costs beside its entries, in entries */
};

static size_t round8(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

/* Few enough for L1 (64 tokens of 4 bytes each, 32 of 2, 64 of 1), but enough for a dozen entries, or six quads, in each row. */
int64_t ec_csr_block_inputs(int kind, int64_t n, int64_t k, const ec_csr *w)
{
    if (kind == EC_CSR_PAIRS) /* 128 tokens */
        return ec_csr_density(n, k, w) < 0.4 ? 64 : 56;
    const int64_t least = w->codes ? 512 : 128, most = 32768;
    const double inputs = (w->codes ? 24 : 12) / ec_csr_density(n, k, w);
    const int64_t wanted = inputs > (double)most ? most : ((int64_t)inputs + 15) / 16 * 16;
    return wanted < least ? least : EC_MIN(wanted, most);
}

/* The row after a block that begins at `row`. */
static int64_t block_end(int64_t n, const ec_csr *w, int64_t row)
{
    const int64_t share = (w->indptr[n] + ROW_WORK * n) / SHARES + 1;
    int64_t end = EC_MIN(row + 2, n); /* pairs of rows, but for the last */
    while (end < n && end - row < EC_FORM_ROWS && w->indptr[end + 1] - w->indptr[row] + ROW_WORK * (end + 1 - row) <= share)
        end = EC_MIN(end + 2, n);
    return end;
}

/* Entries of row j below input `limit`, from entry `from` on. */
static int64_t entries_below(const ec_csr *w, int64_t j, int64_t from, int64_t limit)
{
    int64_t e = from;
    while (e < w->indptr[j + 1] && ec_csr_input(w, e) < limit)
        e++;
    return e - from;
}

/* How many `value` there are, and `local`. */
static int64_t count_entries(int kind, int64_t n, int64_t k, const ec_csr *w, int64_t block_k, int64_t *locals)
{
    int64_t entries = w->indptr[n];
    *locals = entries;
    for (int64_t j = 0; kind == EC_CSR_PAIRS && j + 1 < n; j += 2)
        for (int64_t a = w->indptr[j], b = w->indptr[j + 1]; a < w->indptr[j + 1] && b < w->indptr[j + 2];) {
            const int64_t i0 = ec_csr_input(w, a), i1 = ec_csr_input(w, b);
            *locals -= i0 == i1;
            a += i0 <= i1;
            b += i1 <= i0;
        }
    if (w->codes) {
        entries = 0;
        for (int64_t j = 0; j < n; j++)
            for (int64_t k0 = 0, e = w->indptr[j]; k0 < k; k0 += block_k) {
                const int64_t count = entries_below(w, j, e, k0 + block_k);
                e += count;
                entries += 4 * ec_div_up(count, 4);
            }
        *locals = entries;
    }
    return entries;
}

static int64_t count_blocks(int64_t n, const ec_csr *w)
{
    int64_t blocks = 0;
    for (int64_t row = 0; row < n; row = block_end(n, w, row))
        blocks++;
    return blocks;
}

/* uint16 in front of the counts of a block whose first row, or place among all rows of all blocks of inputs, is `rows`. */
static int64_t counts_before(int kind, int64_t rows) { return kind == EC_CSR_PAIRS ? 5 * ((rows + 1) / 2) : 2 * rows; }

/* Bytes of the starts, rows, sums, counts with order, and `local`. */
static size_t part_bytes(int kind, int64_t n, int int8, const ec_csr_parts *p, int64_t locals, int part)
{
    switch (part) {
    case 0: return 16 * (size_t)(p->blocks_n * p->blocks_k + 1);
    case 1: return round8(4 * (size_t)(p->blocks_n + 1));
    case 2: return int8 ? round8((kind == EC_CSR_SIGNED ? 4 : 8) * (size_t)n) : 0;
    case 3: return round8(2 * (size_t)counts_before(kind, (n + n % 2) * p->blocks_k));
    default: return round8(2 * (size_t)locals);
    }
}

static size_t form_bytes(int kind, int64_t n, int64_t k, const ec_csr *w)
{
    ec_csr_parts p = {.block_k = ec_csr_block_inputs(kind, n, k, w), .blocks_n = count_blocks(n, w)};
    p.blocks_k = ec_div_up(k, p.block_k);
    int64_t locals;
    const size_t entries = (size_t)count_entries(kind, n, k, w, p.block_k, &locals);
    size_t bytes = HEADER + (w->codes ? 1 : 4) * entries;
    for (int part = 0; part < 5; part++)
        bytes += part_bytes(kind, n, w->codes != NULL, &p, locals, part);
    return bytes;
}

ec_csr_parts ec_csr_open(int kind, int64_t n, int int8, const void *form)
{
    const char *at = form;
    const int64_t *header = form;
    ec_csr_parts p = {.blocks_n = header[0], .blocks_k = header[1], .block_k = header[2], .most_rows = header[3]};
    p.start = (const int64_t *)(at += HEADER);
    p.row = (const int32_t *)(at += part_bytes(kind, n, int8, &p, 0, 0));
    p.sum = (const int32_t *)(at += part_bytes(kind, n, int8, &p, 0, 1));
    p.count = (const uint16_t *)(at += part_bytes(kind, n, int8, &p, 0, 2));
    p.local = (const uint16_t *)(at += part_bytes(kind, n, int8, &p, 0, 3));
    p.value = at + part_bytes(kind, n, int8, &p, p.start[2 * p.blocks_n * p.blocks_k], 4);
    return p;
}

void ec_csr_sort_rows(int rows, const int64_t *found, uint16_t *order)
{
    for (int i = 0; i < rows; i++) {
        int at = i;
        for (; at > 0 && found[order[at - 1]] < found[i]; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)i;
    }
}

/* Entries first .. first + found - 1 as those of a block whose inputs begin at k0; returns how many they became. */
static int64_t put(int kind, const ec_csr *w, int64_t first, int64_t found, int64_t k0, uint16_t *local, void *value)
{
    if (!w->codes) {
        for (int64_t i = 0; i < found; i++)
            local[i] = (uint16_t)(ec_csr_input(w, first + i) - k0);
        if (found)
            memcpy(value, w->values + first, sizeof *w->values * (size_t)found);
        return found;
    }
    const int64_t padded = 4 * ec_div_up(found, 4);
    for (int64_t i = 0; i < padded; i++) {
        const int code = i < found ? w->codes[first + i] : 0;
        const int64_t input = i < found ? ec_csr_input(w, first + i) - k0 : 0;
        const int is_signed = kind == EC_CSR_SIGNED;
        local[i] = i >= found ? local[found - 1] : (uint16_t)(is_signed ? input : 2 * input + (code < 0));
        ((uint8_t *)value)[i] = (uint8_t)(code < 0 && !is_signed ? -code : code);
    }
    return padded;
}

static void form(int kind, int64_t n, int64_t k, const ec_csr *w, void *memory)
{
    const int int8 = w->codes != NULL, pairs = kind == EC_CSR_PAIRS;
    int64_t *header = memory;
    header[2] = ec_csr_block_inputs(kind, n, k, w);
    header[0] = count_blocks(n, w);
    header[1] = ec_div_up(k, header[2]);
    header[3] = 0;
    int64_t *start = header + 4, *end = start + 2 * header[0] * header[1];
    end[1] = count_entries(kind, n, k, w, header[2], end);
    const ec_csr_parts p = ec_csr_open(kind, n, int8, memory);
    /* Just opened from memory that is the caller's to write. */
    int32_t *row = (int32_t *)(uintptr_t)p.row, *sum = (int32_t *)(uintptr_t)p.sum;
    uint16_t *count = (uint16_t *)(uintptr_t)p.count, *local = (uint16_t *)(uintptr_t)p.local;
    char *value = (char *)(uintptr_t)p.value;

    for (int64_t j = 0; int8 && j < n; j++) {
        int32_t all = 0, negative = 0;
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++) {
            all += w->codes[e];
            negative -= EC_MIN(w->codes[e], 0);
        }
        if (kind == EC_CSR_SIGNED)
            sum[j] = all;
        else {
            sum[2 * j] = all;
            sum[2 * j + 1] = negative;
        }
    }
    int64_t out = 0, values = 0;
    row[0] = 0;
    for (int64_t b = 0; b < p.blocks_n; b++) {
        row[b + 1] = (int32_t)block_end(n, w, row[b]);
        const int rows = row[b + 1] - row[b];
        int64_t done[EC_FORM_ROWS], found[EC_FORM_ROWS];
        header[3] = rows > header[3] ? rows : header[3];
        for (int i = 0; i < rows; i++)
            done[i] = w->indptr[row[b] + i];
        for (int64_t kb = 0; kb < p.blocks_k; kb++, count += counts_before(kind, rows)) {
            *start++ = out;
            *start++ = values;
            for (int i = 0; i < rows; i++)
                found[i] = entries_below(w, row[b] + i, done[i], (kb + 1) * p.block_k);
            if (pairs)
                out += ec_csr_put_pairs(w, rows, done, found, kb * p.block_k, count, local + out, (float *)value + values);
            else
                ec_csr_sort_rows(rows, found, count + rows);
            for (int at = 0; at < rows; at++) {
                const int i = pairs ? at : count[rows + at];
                if (!pairs) {
                    const int64_t entries = put(kind, w, done[i], found[i], kb * p.block_k, local + out, value + out * (int8 ? 1 : 4));
                    count[at] = (uint16_t)(int8 ? entries / 4 : entries);
                    out += entries;
                    values += entries;
                } else
                    values += found[i];
                done[i] += found[i];
            }
        }
    }
}

size_t ec_csr_derived_bytes(int kind, int64_t n, int64_t k, const ec_csr *w)
{
    switch (kind) {
    case EC_CSR_ROWS: return 0;
    case EC_CSR_MASKS: return ec_csr_masks_bytes(n, k, w);
    case EC_CSR_SELL: return ec_csr_sell_bytes(n, w);
    case EC_CSR_DENSE:
    case EC_CSR_PANELS: return ec_csr8_dense_bytes(kind, n, k, w);
    default: return form_bytes(kind, n, k, w);
    }
}

void ec_csr_derive(int kind, int64_t n, int64_t k, const ec_csr *w, void *memory)
{
    switch (kind) {
    case EC_CSR_ROWS: break;
    case EC_CSR_MASKS: ec_csr_masks(n, k, w, memory); break;
    case EC_CSR_SELL: ec_csr_sell(n, w, memory); break;
    case EC_CSR_DENSE:
    case EC_CSR_PANELS: ec_csr8_dense(kind, n, k, w, memory); break;
    default: form(kind, n, k, w, memory);
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
