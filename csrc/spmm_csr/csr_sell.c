/* Sliced ELLPACK, in which CPUs with AVX-512 read a CSR weight for one token (SELL-C-sigma, Kreutzer et al., 2014, with C = 16, sigma =
 * 128, and no padding). Rows come in windows, in each the longest first, and of these in slices of 16. The first `steps` entries of a
 * slice's rows lie step by step, one of each row that has so many; then what the longest rows have beyond that, row by row, as a few
 * long rows would leave lanes empty.
 *
 *   ec_sell_slice [ceil(n/16)], and one that holds the ends; int32 row[n]; uint8 active[]; uint16 or int32 input[]; float or int8 value[]
 * The last three begin at multiples of 64 bytes. Slices begin at cache lines of values, unless rows are so short that it costs more than it
 * gains. */
#include "spmm_csr.h"

enum {
    ROW_COST = 2, /* what a row by itself costs besides its entries, in steps */
    SHORT = 32    /* entries of a row, on average */
};

static size_t round_up(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static int64_t entries_of(const ec_csr *w, int64_t row) { return w->indptr[row + 1] - w->indptr[row]; }

/* The rows of a window, most entries first. */
static void sort_window(int rows, const ec_csr *w, int64_t row0, int32_t *order)
{
    int64_t entries[EC_SELL_WINDOW];
    uint16_t place[EC_SELL_WINDOW];
    for (int i = 0; i < rows; i++)
        entries[i] = entries_of(w, row0 + i);
    ec_csr_sort_rows(rows, entries, place);
    for (int i = 0; i < rows; i++)
        order[i] = (int32_t)row0 + place[i];
}

/* How many steps a slice's rows make together, a number of entries that one of them has: each row with more costs some steps for
 * itself. */
static int32_t steps_together(const ec_csr *w, int lanes, const int32_t *row)
{
    int64_t best = 0, least = INT64_MAX;
    for (int i = 0; i <= lanes; i++) {
        const int64_t steps = i < lanes ? entries_of(w, row[i]) : 0;
        int64_t cost = steps;
        for (int l = 0; l < lanes && entries_of(w, row[l]) > steps; l++)
            cost += ec_div_up(entries_of(w, row[l]) - steps, 16) + ROW_COST;
        if (cost < least) {
            least = cost;
            best = steps;
        }
    }
    return (int32_t)best;
}

/* Writes the rows in their order, and the slices; where these are NULL, only returns the ends. */
static ec_sell_slice plan(int64_t n, const ec_csr *w, int32_t *row, ec_sell_slice *slice)
{
    const int64_t align = w->indptr[n] < SHORT * n ? 1 : 16;
    ec_sell_slice s = {0};
    for (int64_t row0 = 0; row0 < n; row0 += EC_SELL_WINDOW) {
        int32_t here[EC_SELL_WINDOW], *order = row ? row + row0 : here;
        const int rows = (int)EC_MIN(n - row0, EC_SELL_WINDOW);
        sort_window(rows, w, row0, order);
        for (int i = 0; i < rows; i += 16) {
            const int lanes = EC_MIN(rows - i, 16);
            s.steps = steps_together(w, lanes, order + i);
            s.full = lanes == 16 ? (int32_t)EC_MIN(entries_of(w, order[i + 15]), s.steps) : 0;
            if (slice)
                *slice++ = s;
            for (int l = 0; l < lanes; l++)
                s.entry += entries_of(w, order[i + l]);
            s.entry = ec_div_up(s.entry, align) * align;
            s.tail += s.steps - s.full;
        }
    }
    return s;
}

/* Where a form's parts begin behind the slices: rows, `active`, inputs, values; and its end. */
static void offsets(int64_t n, const ec_csr *w, const ec_sell_slice *ends, size_t *at)
{
    at[0] = round_up(sizeof *ends * (size_t)(ec_div_up(n, 16) + 1));
    at[1] = at[0] + round_up(4 * (size_t)n);
    at[2] = at[1] + round_up((size_t)ends->tail);
    at[3] = at[2] + round_up((w->short_indices ? 2 : 4) * (size_t)ends->entry);
    at[4] = at[3] + (w->codes ? 1 : 4) * (size_t)ends->entry;
}

size_t ec_csr_sell_bytes(int64_t n, const ec_csr *w)
{
    size_t at[5];
    const ec_sell_slice ends = plan(n, w, NULL, NULL);
    offsets(n, w, &ends, at);
    return at[4];
}

ec_sell ec_csr_open_sell(int64_t n, const ec_csr *w, const void *form)
{
    size_t at[5];
    const char *begin = form;
    ec_sell f = {.slice = form};
    offsets(n, w, f.slice + ec_div_up(n, 16), at);
    f.row = (const int32_t *)(const void *)(begin + at[0]);
    f.active = (const uint8_t *)begin + at[1];
    f.input = begin + at[2];
    f.value = begin + at[3];
    return f;
}

/* Entry `from` of the weight as entry `to` of the form. */
static void put(const ec_csr *w, int64_t from, int64_t to, char *input, char *value)
{
    if (w->short_indices)
        memcpy(input + 2 * to, w->short_indices + from, 2);
    else
        memcpy(input + 4 * to, w->indices + from, 4);
    if (w->codes)
        memcpy(value + to, w->codes + from, 1);
    else
        memcpy(value + 4 * to, w->values + from, 4);
}

void ec_csr_sell(int64_t n, const ec_csr *w, void *form)
{
    const int64_t slices = ec_div_up(n, 16);
    ec_sell_slice *slice = form;
    char *begin = form;
    size_t at[5];
    int32_t *rows = (int32_t *)(void *)(begin + round_up(sizeof *slice * (size_t)(slices + 1)));
    slice[slices] = plan(n, w, rows, slice);
    offsets(n, w, slice + slices, at);
    uint8_t *active = (uint8_t *)begin + at[1];
    for (int64_t i = 0; i < slices; i++, slice++, rows += 16) {
        const int lanes = (int)EC_MIN(n - 16 * i, 16);
        int64_t to = slice->entry;
        for (int64_t k = 0; k < slice->steps; k++) {
            int l = 0;
            for (; l < lanes && entries_of(w, rows[l]) > k; l++)
                put(w, w->indptr[rows[l]] + k, to++, begin + at[2], begin + at[3]);
            if (k >= slice->full)
                *active++ = (uint8_t)l;
        }
        for (int l = 0; l < lanes; l++)
            for (int64_t e = (int64_t)w->indptr[rows[l]] + slice->steps; e < w->indptr[rows[l] + 1]; e++)
                put(w, e, to++, begin + at[2], begin + at[3]);
    }
}
