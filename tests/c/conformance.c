/* Checks every ISA variant that this CPU runs, through the public API, against the plain loops of oracle.h.
 *
 *     conformance [--quick] [--small] [--op=NAME] [--need=ISA] [--from=ISA] [--emulated]
 *
 * --quick: fewer problems. --small: none of the large ones. --need: fail if that line cannot run here. --from: without the
 * lines before that one. --emulated: without what qemu's user mode lacks.
 *
 * Integer results, and float results of the int8 ops before a smooth activation, have to have the oracle's bits: hence
 * those of every other ISA, thread count and m. The float ops have to stay within an error bound, and to give the same
 * bits for every thread count. All buffers touch forbidden pages; the caller's floating-point mode is hostile in half of
 * the calls. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/wait.h>

#include "crc.h"
#include "ggml.h"
#include "grouped.h"
#include "kd.h"
#include "nm.h"
#include "pool.h"
#include "split.h"

typedef struct {
    const char *name;
    void (*make)(problem *);
    void (*check)(const problem *);
    int m, n, k;         /* which sizes mean something */
    const char *uses[4]; /* the rows of dispatch's table that it runs through, the most interesting first */
} op;

static const op OPS[] = {
    {"quantize_rows", make_rows, check_quantize_rows, 1, 0, 1, {"quantize_rows"}},
    {"requantize", make_rows, check_requantize, 0, 0, 1, {NULL}},
    {"gemm_s8c", make_gemm_s8c, check_gemm_s8c, 1, 1, 1, {"gemm_s8c", "quantize_rows", "activation"}},
    {"gemm_s8c_i32", make_gemm_s8c_i32, check_gemm_s8c_i32, 1, 1, 1, {"gemm_s8c"}},
    {"gemm_s8c_f32", make_gemm_s8c_f32, check_gemm_s8c_f32, 1, 1, 1, {"gemm_f32", "activation"}},
    {"quantize_groups", make_rows, check_quantize_groups, 1, 0, 1, {"quantize_groups"}},
    {"gemm_s4g", make_grouped, check_gemm_s4g, 1, 1, 1, {"gemm_s4g", "quantize_groups", "activation"}},
    {"gemm_s8g", make_grouped, check_gemm_s8g, 1, 1, 1, {"gemm_s8g", "quantize_groups", "activation"}},
    {"gemm_sg_f32", make_gemm_sg_f32, check_gemm_sg_f32, 1, 1, 1, {"gemm_f32", "activation"}},
    {"gemm_f32", make_gemm_f32, check_gemm_f32, 1, 1, 1, {"gemm_f32", "activation"}},
    {"spmm_csr", make_spmm_csr, check_spmm_csr, 1, 1, 1, {"spmm_csr", "activation"}},
    {"spmm_csr8", make_spmm_csr8, check_spmm_csr8, 1, 1, 1, {"spmm_csr8", "quantize_rows", "activation"}},
    {"spmm_nm", make_spmm_nm, check_spmm_nm, 1, 1, 1, {"spmm_nm", "gemm_f32", "activation"}},
    {"spmm_nm8", make_spmm_nm8, check_spmm_nm8, 1, 1, 1, {"spmm_nm8", "quantize_rows", "activation"}},
    {"transpose", make_rows, check_transpose, 1, 0, 1, {"gemm_f32"}},
    {"activation", make_activation, check_activation, 1, 1, 0, {"activation", "gemm_s8c"}},
    {"kd_loss", make_kd, check_kd, 1, 1, 0, {"kd_loss"}},
    {"crc32", make_crc, check_crc, 0, 0, 1, {"crc32"}},
    {"ggml_records", make_ggml, check_ggml, 0, 1, 1, {NULL}},
    {"first_nonfinite", make_nothing, check_first_nonfinite, 0, 1, 1, {NULL}},
    {"pool", make_pool, check_pool, 0, 0, 0, {"gemm_s8c"}},
    {"roof", make_nothing, check_roof, 0, 0, 0, {"gemm_f32", "gemm_s8c"}},
};
enum { MAX_ISAS = 16 };

static int64_t at_most(int64_t a, int64_t limit) { return a < limit ? a : limit; }

static int quick, small, first; /* first: the line to begin at */
static long long passed[MAX_ISAS];

/* A line at which dispatch chooses what it has chosen at the line before, for this op, need not run. */
static int differs_from_last(const op *op, char *last, size_t size)
{
    char chosen[96] = "";
    for (int i = 0; op->uses[i]; i++)
        snprintf(chosen + strlen(chosen), sizeof chosen - strlen(chosen), " %s", ec_variant(op->uses[i]));
    const int differs = strcmp(chosen, last) != 0;
    snprintf(last, size, "%s", chosen);
    return differs;
}

static void run_problem(const op *op, int64_t m, int64_t n, int64_t k)
{
    problem p = {.m = m, .n = n, .k = k, .panels = (n + 15) / 16};
    now->m = m, now->n = n, now->k = k;
    strcpy(now->isa, "any");
    strcpy(now->call, "making the problem");
    alarm(300); /* a pool that hangs */
    seed(m, n, k);
    op->make(&p);
    char last[96] = "none";
    for (int isa = 0; isa < ec_isa_count(); isa++) {
        const long long before = now->passed;
        if (!ec_isa_detected(isa))
            continue;
        if (ec_set_isa(ec_isa_name(isa)) != EC_OK)
            fail("ec_set_isa refuses %s", ec_isa_name(isa));
        if (!differs_from_last(op, last, sizeof last) || isa < first)
            continue;
        snprintf(now->isa, sizeof now->isa, "%s", ec_isa_name(isa));
        op->check(&p);
        passed[isa] += now->passed - before;
    }
}

static void run_op(const op *op)
{
    static const int16_t M[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 0};
    static const int16_t N[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 129, 0};
    static const int16_t K[] = {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 130, 1000, 0};
    static const int LARGE[][3] = {{3, 17, 66312}, {9, 33, 70001}, {1, 2, 140000}, {64, 520, 512}, {33, 777, 1030}, {1100, 33, 520}};
    /* Every second problem, or one in 31: primes to the lengths of the lists, so that every size meets every other. */
    const int stride = op->m + op->n + op->k < 3 ? 1 : quick ? 31 : 2;
    int count = 0;
    snprintf(now->op, sizeof now->op, "%s", op->name);
    memset(passed, 0, sizeof passed);
    for (size_t m = 0; m < (op->m ? sizeof M / sizeof *M : 1); m++)
        for (size_t n = 0; n < (op->n ? sizeof N / sizeof *N : 1); n++)
            for (size_t k = 0; k < (op->k ? sizeof K / sizeof *K : 1); k++)
                if (count++ % stride == 0)
                    run_problem(op, M[m], N[n], K[k]);
    const int is_i32 = op->check == check_gemm_s8c_i32;
    for (size_t i = 0; i < sizeof LARGE / sizeof *LARGE && op->m && op->k && !small; i++)
        run_problem(op, LARGE[i][0], LARGE[i][1], is_i32 ? at_most(LARGE[i][2], 132104) : LARGE[i][2]);
    if (is_i32 && !small)
        run_problem(op, 5, 18, 66311); /* the largest k for uint8 */
    if (op->check == check_activation)
        run_problem(op, 3, quick || small ? 4001 : 100003, 0);
    if (op->check == check_kd) {
        run_problem(op, 3, 2500, 0);
        run_problem(op, quick || small ? 9 : 300, 5001, 0); /* large: written past the caches */
    }
    for (int isa = 0; isa < ec_isa_count(); isa++)
        if (passed[isa]) {
            ec_set_isa(ec_isa_name(isa));
            const char *variant = op->uses[0] ? ec_variant(op->uses[0]) : "";
            printf("%-14s %-12s %-12s %8lld\n", op->name, ec_isa_name(isa), strcmp(variant, ec_isa_name(isa)) ? variant : "", passed[isa]);
        }
    fflush(stdout);
}

static void check_lines(const char *need)
{
    int found = !need;
    printf("lines:");
    for (int isa = 0; isa < ec_isa_count(); isa++) {
        printf(" %s%s", ec_isa_name(isa), ec_isa_detected(isa) ? "" : "(not here)");
        found |= need && !strcmp(need, ec_isa_name(isa)) && ec_isa_detected(isa);
    }
    printf("\n%-14s %-12s %-12s %8s\n", "op", "line", "served by", "checks");
    if (!found)
        fail("this CPU does not run %s", need);
    if (ec_isa_count() > MAX_ISAS || ec_set_isa("no such line") != EC_E_NAME || ec_variant("no such op") || ec_set_isa(NULL) != EC_OK)
        fail("unknown names have to be refused");
}

/* Refused before anything is touched: the pointers lead nowhere. */
static void check_short_workspaces(void)
{
    const int64_t m = 4, n = 20, k = 70;
    const int8_t w = 0;
    const size_t rows = ec_quantize_rows_workspace(m, k) - 1, s8 = ec_gemm_s8c_workspace(m, k) - 1;
    const size_t f32 = ec_gemm_f32_workspace(m, k, 1, 2) - 1, plain = ec_gemm_f32_workspace(m, k, 0, 2) - 1;
    const ec_grouped grouped = {NULL, NULL, 32, 4, EC_ZERO_MIDDLE};
    const size_t sg = ec_gemm_s4g_workspace(m, k, &grouped) - 1, groups = ec_quantize_groups_workspace(m, k, 32) - 1;
    const int32_t none = 0;
    const ec_csr csr = {.indptr = &none, .values = &(const float){0}}, csr8 = {.indptr = &none, .codes = &w};
    const size_t sparse = ec_spmm_csr_workspace(m, k, 2) - 1, sparse8 = ec_spmm_csr8_workspace(m, k, 2) - 1;
    const ec_nm nm2 = {.values = &(const float){0}, .n = 2, .m = 4, .block = 16}, nm8 = {.codes = &w, .n = 2, .m = 4, .block = 16};
    const size_t pattern = ec_spmm_nm_workspace(m, k, &nm2, 2) - 1, pattern8 = ec_spmm_nm_workspace(m, k, &nm8, 2) - 1;
    const ec_kd how = {EC_KD_KL, 1, 1, 1, 0, 0.5, 0, 1};
    const size_t kd = ec_kd_loss_workspace(m, n, 2) - 1;
    const int refused[] = {
        ec_spmm_csr(m, n, k, NULL, k, &csr, NULL, EC_ACT_NONE, NULL, n, 2, NULL, sparse),
        ec_spmm_csr8(m, n, k, NULL, k, NULL, NULL, NULL, &csr8, NULL, EC_ACT_NONE, NULL, n, 2, NULL, sparse8),
        ec_spmm_nm(m, n, k, NULL, k, &nm2, NULL, EC_ACT_NONE, NULL, n, 2, NULL, pattern),
        ec_spmm_nm8(m, n, k, NULL, k, NULL, NULL, NULL, &nm8, NULL, EC_ACT_NONE, NULL, n, 2, NULL, pattern8),
        ec_kd_loss(m, n, NULL, n, NULL, n, NULL, NULL, &how, NULL, NULL, n, 2, NULL, kd),
        ec_quantize_groups(m, k, 32, NULL, k, NULL, NULL, 2, NULL, groups),
        ec_gemm_s4g(m, n, k, NULL, k, NULL, NULL, &grouped, NULL, EC_ACT_NONE, NULL, n, 2, NULL, sg),
        ec_gemm_s8g(m, n, k, NULL, k, NULL, NULL, &grouped, NULL, EC_ACT_NONE, NULL, n, 2, NULL, sg),
        ec_gemm_sg_f32(m, n, k, NULL, k, &grouped, 4, NULL, EC_ACT_NONE, NULL, n, 2, NULL, plain),
        ec_quantize_rows(m, k, NULL, k, NULL, NULL, NULL, 2, NULL, rows),
        ec_gemm_s8c(m, n, k, NULL, k, NULL, NULL, NULL, NULL, NULL, NULL, NULL, EC_ACT_NONE, NULL, NULL, n, 1, 0, 2, NULL, s8),
        ec_gemm_s8c_i32(m, n, k, NULL, k, 0, NULL, NULL, NULL, n, 2, NULL, s8),
        ec_gemm_s8c_f32(m, n, k, NULL, k, &w, NULL, NULL, EC_ACT_NONE, NULL, n, 2, NULL, plain),
        ec_gemm_f32(m, n, k, NULL, k, NULL, 0, NULL, EC_ACT_NONE, NULL, n, 2, NULL, f32),
        ec_gemm_f32(m, n, k, NULL, k, NULL, k, NULL, EC_ACT_NONE, NULL, n, 2, NULL, plain),
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (refused[i] != EC_E_WORKSPACE)
            fail("call %zu takes a workspace that is a byte too short", i);
}

static int run_all(const char *need, const char *only)
{
    check_lines(need);
    check_short_workspaces();
    check_grid();
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (!only || !strncmp(OPS[i].name, only, strlen(only)))
            run_op(&OPS[i]);
    printf("error, as a share of what is allowed:");
    for (int act = EC_ACT_GELU; act < ACTS; act++)
        printf(" %s %.2f", ACT_NAMES[act], worst[act]);
    printf("\n%lld passed, 0 failed\n", now->passed);
    return 0;
}

int main(int argc, char **argv)
{
    const char *need = NULL, *only = NULL;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--quick"))
            quick = 1;
        else if (!strcmp(argv[i], "--emulated"))
            emulated = 1;
        else if (!strncmp(argv[i], "--need=", 7))
            need = argv[i] + 7;
        else if (!strcmp(argv[i], "--small"))
            small = 1;
        else if (!strncmp(argv[i], "--op=", 5)) /* the ops whose names begin so */
            only = argv[i] + 5;
        else if (!strncmp(argv[i], "--from=", 7)) {
            while (first < ec_isa_count() && strcmp(argv[i] + 7, ec_isa_name(first)))
                first++;
            if (first == ec_isa_count())
                return fprintf(stderr, "conformance: no line is called %s\n", argv[i] + 7), 2;
        } else
            return fprintf(stderr, "usage: conformance [--quick] [--small] [--op=NAME] [--need=ISA] [--from=ISA] [--emulated]\n"), 2;
    now = mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(now->op, sizeof now->op, "start");

    const pid_t child = fork(); /* so that someone is left to say which call died */
    if (child == 0) {
        const int status = run_all(need, only);
        fflush(stdout);
        _exit(status);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        fail("died: %s", strsignal(WTERMSIG(status)));
    return WEXITSTATUS(status);
}
