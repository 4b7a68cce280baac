/* In which of its forms a CSR weight meets so many tokens: fixed rules, found by measurement (bench/TRIED.md). */
#include "spmm_csr.h"
#include "../gemm_s8c/gemm_s8c.h"
#include "../spmm_csr8/spmm_csr8.h"

/* One token reads the CSR arrays, or masks where two fifths of the weights are stored: spreading the values of eight inputs costs less than
 * fetching their activations one by one then, and a bit for each weight is less to read than the indices. In int8 it is 64 inputs that are
 * spread at once, and a sixteenth of the weights is enough. With AVX-512 slices take the place of rows, of matrices with wide indices only
 * where gathers are fast. */
static int kind_for_one(int64_t n, int64_t k, const ec_csr *w)
{
    const double stored = ec_csr_density(n, k, w);
    const int masks = w->codes ? stored >= 1. / 16 && ec_use_spmv_masks8() : stored >= 0.4 && ec_use_spmv_masks();
    return w->codes && k > EC_S8C_EXACT_K ? EC_CSR_ROWS : masks ? EC_CSR_MASKS : ec_use_spmv_sell(w) ? EC_CSR_SELL : EC_CSR_ROWS;
}

/* Of several tokens: blocks take for two what they take for sixteen. Masks are read once for four tokens, which takes as long whatever is
 * stored: in float32 as long as blocks of a seventh of the weights, in int8 of a tenth. Slices are read twice for two. Where a tenth
 * of the weights is made dense (AMX), that is faster from five tokens on. */
static int64_t most_by_token(int one, int64_t n, int64_t k, const ec_csr *w)
{
    const double stored = ec_csr_density(n, k, w);
    if (w->codes)
        return one != EC_CSR_MASKS ? 1 : stored < 0.15 || ec_use_csr8_dense_tokens()[0] ? EC_MASKS_TOKENS : 2 * EC_MASKS_TOKENS;
    return one == EC_CSR_ROWS || stored < 0.1 ? 1 : 2;
}

/* int8, more tokens than these: where many weights are stored, a dense product takes less than blocks, most of all with AMX. From masks
 * the weights become dense in the time of one or two tokens. Kept dense they take a byte each, as blocks of a third of them do
 * (bench/TRIED.md). */
static int64_t most_as_dense(int64_t n, int64_t k, const ec_csr *w)
{
    static const double FROM[] = {0.09, 0.15, 0.25, 0.4};
    const double stored = ec_csr_density(n, k, w);
    int at = 3;
    while (at >= 0 && stored < FROM[at])
        at--;
    if (!w->codes || k > EC_S8C_EXACT_K || at < (ec_use_csr8_panels() ? 0 : 2))
        return 0;
    return ec_use_csr8_dense_tokens()[at];
}

/* Rows are read for several tokens too where blocks of inputs would be emptier than one entry a row, and int8 sums that need 64 bits. Pairs
 * gain where two rows have inputs in common, and tokens enough to fill the registers. */
int ec_csr_kind(int64_t m, int64_t n, int64_t k, const ec_csr *w)
{
    if (n == 0 || k == 0)
        return EC_CSR_ROWS;
    if (m > 1 && m <= EC_MASKS_TOKENS && !w->codes && ec_csr_density(n, k, w) >= 0.15 && ec_use_spmm_masks())
        return EC_CSR_MASKS;
    const int one = kind_for_one(n, k, w);
    if (m <= most_by_token(one, n, k, w))
        return one;
    if (m <= most_as_dense(n, k, w))
        return ec_use_csr8_panels() ? EC_CSR_PANELS : EC_CSR_DENSE;
    if ((w->codes && k > EC_S8C_EXACT_K) || w->indptr[n] < n * (ec_div_up(k, ec_csr_block_inputs(EC_CSR_BLOCKS, n, k, w)) - 1))
        return EC_CSR_ROWS;
    if (w->codes)
        return ec_use_csr8_finish() ? EC_CSR_SIGNED : EC_CSR_BLOCKS;
    return m > 32 && ec_csr_density(n, k, w) >= 0.15 && ec_use_csr_pairs() ? EC_CSR_PAIRS : EC_CSR_BLOCKS;
}

int ec_csr_made_dense(int kind) { return kind == EC_CSR_DENSE || kind == EC_CSR_PANELS; }
int ec_csr_by_token(int kind) { return kind == EC_CSR_ROWS || kind == EC_CSR_MASKS || kind == EC_CSR_SELL; }
