/* A bit for each weight of a CSR matrix. */
#include "../kernels.h"

size_t ec_csr_masks_bytes(int64_t n, int64_t k) { return 4 * (size_t)(n * ec_div_up(k, 32)); }

/* [n][ceil(k/32)][4]: bit i % 8 of byte i / 8 of a row is set where input i has an entry. */
void ec_csr_masks(int64_t n, int64_t k, const ec_csr *w, void *masks)
{
    uint8_t *row = masks;
    memset(masks, 0, ec_csr_masks_bytes(n, k));
    for (int64_t j = 0; j < n; j++, row += 4 * ec_div_up(k, 32))
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++)
            row[ec_csr_input(w, e) / 8] |= (uint8_t)(1 << ec_csr_input(w, e) % 8);
}
