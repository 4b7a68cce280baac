/* int8 CSR weights that are multiplied as dense ones, in two forms. Both begin with int32 sum[16 * panels], float scale[16 * panels].
 *
 * EC_CSR_DENSE: then int8 [panels][quads][16][4], as gemm_s8c reads them.
 * EC_CSR_PANELS: then int64 start[panels], uint64 mask[panels][quads], int8 code[entries], 64 bytes: a bit for each weight, and the codes
 * of those that are stored, in the order of these panels. A group of panels becomes dense in L2 while the tokens pass by it, as in SparAMX
 * (AbouElhamayed et al., 2025). Bit 4 r + i of a mask is input i of its quad for row r of its panel; codes ascend with the bits, and those
 * of a panel begin at its start. */
#include "spmm_csr8.h"
#include "../gemm_s8c/gemm_s8c.h"

typedef struct {
    int64_t panels, quads;
    int32_t *sum;
    float *scale;
    int8_t *dense; /* or, of EC_CSR_PANELS, */
    int64_t *start;
    uint64_t *mask;
    int8_t *code;
} parts;

static parts open_form(int64_t n, int64_t k, const void *form)
{
    parts p = {.panels = ec_div_up(n, EC_PANEL), .quads = ec_div_up(k, 4)};
    p.sum = (int32_t *)(uintptr_t)form; /* written once, by who derives */
    p.scale = (float *)(p.sum + EC_PANEL * p.panels);
    p.dense = (int8_t *)(p.scale + EC_PANEL * p.panels);
    p.start = (int64_t *)(void *)p.dense;
    p.mask = (uint64_t *)(p.start + p.panels);
    p.code = (int8_t *)(p.mask + p.panels * p.quads);
    return p;
}

size_t ec_csr8_dense_bytes(int kind, int64_t n, int64_t k, const ec_csr *w)
{
    const size_t panels = (size_t)ec_div_up(n, EC_PANEL), quads = (size_t)ec_div_up(k, 4);
    return panels * 8 * EC_PANEL + (kind == EC_CSR_DENSE ? panels * quads * 64 : panels * (8 + 8 * quads) + (size_t)w->indptr[n] + 64);
}

/* Rows row0 .. row0 + rows - 1, to `mask` and `code`. Returns how many codes there are. */
static int64_t put_panel(const ec_csr *w, int64_t row0, int64_t rows, int64_t quads, uint64_t *mask, int8_t *code)
{
    const int64_t e0 = w->indptr[row0], e1 = w->indptr[row0 + rows];
    for (int64_t e = e0; e < e1; e++) /* as counters at first, */
        mask[ec_csr_input(w, e) / 4]++;
    for (int64_t q = 0, before = 0; q < quads; q++) {
        const int64_t here = (int64_t)mask[q];
        mask[q] = (uint64_t)before;
        before += here;
    }
    for (int64_t e = e0; e < e1; e++) /* of rows in order, so that codes ascend with the bits */
        code[mask[ec_csr_input(w, e) / 4]++] = w->codes[e];
    memset(mask, 0, sizeof *mask * (size_t)quads);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = w->indptr[row0 + r]; e < w->indptr[row0 + r + 1]; e++)
            mask[ec_csr_input(w, e) / 4] |= 1ull << (4 * r + ec_csr_input(w, e) % 4);
    return e1 - e0;
}

void ec_csr8_dense(int kind, int64_t n, int64_t k, const ec_csr *w, void *form)
{
    memset(form, 0, ec_csr8_dense_bytes(kind, n, k, w));
    const parts p = open_form(n, k, form);
    int64_t codes = 0;
    for (int64_t i = 0; kind == EC_CSR_PANELS && i < p.panels; i++) {
        p.start[i] = codes;
        codes += put_panel(w, i * EC_PANEL, EC_MIN(n - i * EC_PANEL, EC_PANEL), p.quads, p.mask + i * p.quads, p.code + codes);
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = w->indptr[j]; e < w->indptr[j + 1]; e++) {
            const int64_t i = ec_csr_input(w, e);
            p.sum[j] += w->codes[e];
            if (kind == EC_CSR_DENSE)
                p.dense[((j / EC_PANEL * p.quads + i / 4) * EC_PANEL + j % EC_PANEL) * 4 + i % 4] = w->codes[e];
        }
    memcpy(p.scale, w->scale, sizeof *p.scale * (size_t)n);
}

static void make_panels(const void *form, int64_t panel, int64_t panels, int8_t *to)
{
    const parts *p = form;
    ec_csr8_panels_fn *fn = ec_use_csr8_panels();
    for (int64_t i = panel; i < panel + panels; i++, to += 64 * p->quads)
        fn(p->quads, p->mask + i * p->quads, p->code + p->start[i], to);
}

int ec_csr8_as_dense(int kind, int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                     const uint8_t *xzero, const void *form, const float *bias, int act, float *y, int64_t ldy, int threads,
                     void *workspace, size_t size)
{
    const parts p = open_form(n, k, form);
    if (kind == EC_CSR_DENSE)
        return ec_gemm_s8c(m, n, k, x, ldx, xq, xscale, xzero, p.dense, p.scale, p.sum, bias, act, y, NULL, ldy, 0, 0, threads, workspace,
                           size);
    const ec_s8c_maker weights = {make_panels, &p};
    return ec_gemm_s8c_made(m, n, k, x, ldx, xq, xscale, xzero, &weights, p.scale, p.sum, bias, act, y, ldy, threads, workspace, size);
}
