/* A bit for each weight of a CSR matrix. */
#include "spmm_csr.h"

/* float32: [n][ceil(k/32)][4], bit i % 8 of byte i / 8 of a row is set where input i has an entry. */
static void masks(int64_t n, int64_t k, const ec_csr *w, uint8_t *row)
{
    for (int64_t j = 0; j < n; j++, row += 4 * ec_div_up(k, 32))
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++)
            row[ec_csr_input(w, e) / 8] |= (uint8_t)(1 << ec_csr_input(w, e) % 8);
}

/* int8: the sum of each row's codes, then [ceil(n/4)][ceil(k/64)][4] words: four rows side by side. */
static void masks8(int64_t n, int64_t k, const ec_csr *w, void *memory)
{
    int32_t *sum = memory;
    uint64_t *mask = ec_csr_masks8(n, memory);
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++) {
            const int64_t i = ec_csr_input(w, e);
            sum[j] += w->codes[e];
            mask[(j / 4 * ec_div_up(k, 64) + i / 64) * 4 + j % 4] |= 1ull << i % 64;
        }
}

uint64_t *ec_csr_masks8(int64_t n, void *memory) { return (uint64_t *)((char *)memory + 8 * ec_div_up(n, 2)); }

size_t ec_csr_masks_bytes(int64_t n, int64_t k, const ec_csr *w)
{
    return (size_t)(w->codes ? 8 * ec_div_up(n, 2) + 32 * ec_div_up(n, 4) * ec_div_up(k, 64) : 4 * n * ec_div_up(k, 32));
}

void ec_csr_masks(int64_t n, int64_t k, const ec_csr *w, void *memory)
{
    memset(memory, 0, ec_csr_masks_bytes(n, k, w));
    if (w->codes)
        masks8(n, k, w, memory);
    else
        masks(n, k, w, memory);
}
