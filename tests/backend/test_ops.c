/* Runs the list of operation cases (ops_cases.c):
 *
 *   gradients   every backward of ref against finite differences of its forward (fourth order, exact steps)
 *   values      cpu against ref within a tolerance per operation and type, for every instruction set of this machine,
 * fp32 and bf16 bits        on cpu: threads 1 = 2; what lies between the rows does not matter; a row alone = the row
 * among others; a path alone = in its tree memory      nothing outside a view is written, inputs stay as they were
 * (checked in every run) decoding    token by token through pages = one full forward, bit for bit
 *
 * test_ops [--time] [--case TEXT] [--isa NAME] [--precision fp32|bf16] [--ref-only].  With PLUMB_GUARD=1 the same list
 * runs on guarded memory. */
#include "ops.h"
#include "special.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, checks;
static char case_text[256];

static void fail(const char *where, const char *what) {
    if (failures++ < 60) printf("FAIL  %s: %s: %s\n", where, case_text, what);
}

static void verify(bool good, const char *where, const char *what) {
    checks++;
    if (!good) fail(where, what);
}

/* --- gradients: ref against finite differences ------------------------------------------------ */
static double loss(device *d) { /* sum of outputs times cotangents */
    const context *x = d->x;
    double sum = 0;
    x->op->forward(d);
    must(plumb_backend_fault(d->be), "forward");
    for (int i = 0; i < x->n_args; i++) {
        const arg *cot = &x->args[i];
        if (cot->role != ROLE_COTANGENT || !cot->present) continue;
        const arg *out = &x->args[cot->of];
        double *value = malloc((size_t)(out->rows * out->cols + 1) * sizeof *value);
        PLUMB_RUN(d->be, read_f64, d->t[cot->of], value);
        for (int64_t r = 0; r < cot->rows; r++)
            for (int64_t c = 0; c < cot->cols; c++)
                sum += value[r * out->cols + c] * (double)cot->value[r * cot->cols + c];
        free(value);
    }
    return sum;
}

/* Derivative of the loss when argument i moves along `direction`. */
static double slope(device *d, int i, const float *direction) {
    const arg *a = &d->x->args[i];
    int64_t n = a->rows * a->cols;
    float *moved = malloc((size_t)n * sizeof *moved);
    const float step = 0x1p-11f, at[4] = {1, -1, 2, -2};
    double value[4];
    for (int s = 0; s < 4; s++) {
        for (int64_t e = 0; e < n; e++) moved[e] = a->value[e] + at[s] * step * direction[e];
        device_set(d, i, moved);
        value[s] = loss(d);
    }
    device_set(d, i, a->value);
    free(moved);
    return (8 * (value[0] - value[1]) - (value[2] - value[3])) / (12 * (double)step);
}

static void check_gradient(device *d, int i, const double *found) {
    const arg *g = &d->x->args[i];
    int64_t n = g->rows * g->cols;
    float *direction = calloc((size_t)n + 1, sizeof *direction);
    double norm = 0, largest = 0;
    for (int64_t e = 0; e < n; e++) {
        double value = found[e] - (g->role == ROLE_GRADIENT_SUM ? (double)g->value[e] : 0);
        norm += value * value;
        largest = fmax(largest, fabs(value));
    }
    int trials = d->x->op->flops && d->x->op->flops(d->x) > 5e6 ? 3 : 8;
    for (int trial = 0; trial < trials && n; trial++) { /* two directions through all elements, then single elements */
        double expected = 0, scale = trial < 2 ? sqrt(norm) : largest;
        for (int64_t e = 0; e < n; e++) {
            double r = value_of("direction", trial, e, 0, 1, false);
            bool chosen = trial < 2 || e == (int64_t)(value_of("element", i, trial, 0, 1, false) * 7919 + 1e6) % n;
            direction[e] = chosen ? (r < 0 ? -1 : 1) : 0;
            double value = found[e] - (g->role == ROLE_GRADIENT_SUM ? (double)g->value[e] : 0);
            expected += value * (double)direction[e];
        }
        double measured = slope(d, g->of, direction), error = fabs(measured - expected);
        char what[200];
        snprintf(what, sizeof what, "%s: derivative %.10g, finite difference %.10g (scale %.3g)", g->name, expected,
                 measured, scale);
        verify(error <= 1e-6 * scale + 1e-8, "ref gradient", what);
    }
    free(direction);
}

static void check_gradients(plumb_backend *ref, const context *x) {
    if (!x->op->backward || plumb_rounds_rows(x->c->storage)) return; /* rows rounded to 8 bits do not move by small steps either */
    results r;
    run_context(ref, x, true, 0, 0, &r);
    device d;
    device_create(&d, ref, x, 0, 0);
    for (int i = 0; i < x->n_args; i++)
        if (x->args[i].present && (x->args[i].role == ROLE_GRADIENT || x->args[i].role == ROLE_GRADIENT_SUM) &&
            x->args[x->args[i].of].storage == PLUMB_STORE_NATIVE) /* a quantised weight does not move by small steps */
            check_gradient(&d, i, r.value[i]);
    device_free(&d);
    results_free(&r);
}

/* --- values: a back end against ref ----------------------------------------------------------- */
static double tolerance_of(const context *x, const arg *a) {
    bool gradient = a->role == ROLE_GRADIENT || a->role == ROLE_GRADIENT_SUM;
    if (x->bf16 && x->c->storage != PLUMB_STORE_NATIVE && gradient) return 1e-2; /* backward rounds dequantised values */
    if (x->bf16 && x->c->scaled && plumb_rounds_rows(x->c->storage)) return 2e-2; /* rounded twice, some end beside ref's whole number */
    bool rounds =
        x->bf16 && !a->exact &&
        (strcmp(x->op->name, "linear") != 0 || x->c->scaled); /* an unscaled product packs representable values */
    return rounds ? x->op->tolerance_bf16 : x->op->tolerance;
}

static void check_values(const char *where, const context *x, const results *found, const results *expected) {
    for (int i = 0; i < x->n_args; i++) {
        const arg *a = &x->args[i];
        if (!a->present || a->role == ROLE_WEIGHT) continue;
        double largest = 1e-6, error = 0;
        char what[200];
        bool input = a->role == ROLE_INPUT || a->role == ROLE_COTANGENT, same = true;
        for (int64_t e = 0; e < a->rows * a->cols; e++) {
            double difference = fabs(found->value[i][e] - expected->value[i][e]);
            largest = fmax(largest, fabs(expected->value[i][e]));
            error = difference >= error || isnan(difference) ? difference : error;
            if (isnan(error)) break;
            same &= !input || found->value[i][e] == (double)a->value[e];
        }
        snprintf(what, sizeof what, "%s: largest error %.3g of %.3g, allowed %.3g", a->name, error, largest,
                 tolerance_of(x, a) * largest);
        verify(input || error <= tolerance_of(x, a) * largest, where, what);
        snprintf(what, sizeof what, "%s is an input and was changed", a->name);
        verify(same, where, what);
    }
}

/* --- bits ------------------------------------------------------------------------------------- */
static void check_same(const char *where, const char *why, const context *x, const results *a, const results *b) {
    for (int i = 0; i < x->n_args; i++) {
        if (!a->value[i]) continue;
        char what[200];
        snprintf(what, sizeof what, "%s: the bits depend on %s", x->args[i].name, why);
        verify(memcmp(a->value[i], b->value[i], (size_t)(x->args[i].rows * x->args[i].cols) * sizeof(double)) == 0,
               where, what);
    }
}

/* Rows of `part` against the same rows of `full`. */
static void check_rows(const char *where, const char *why, const context *full, const results *a, const context *part,
                       const results *b, bool backward) {
    for (int i = 0; i < part->n_args; i++) {
        const arg *p = &part->args[i];
        bool gradient = p->role == ROLE_GRADIENT || p->role == ROLE_GRADIENT_SUM;
        if (!p->present || p->axis == AXIS_FIXED || (gradient && !backward) || (p->collects && !full->roots_only))
            continue;
        const int64_t *id = p->axis == AXIS_TOKENS ? part->row_id : part->target_id;
        for (int64_t r = 0; r < p->rows; r++) {
            bool same =
                memcmp(a->value[i] + id[r] * p->cols, b->value[i] + r * p->cols, (size_t)p->cols * sizeof(double)) == 0;
            char what[200];
            snprintf(what, sizeof what, "%s: the bits of row %lld depend on %s (%lld of %lld rows)", p->name,
                     (long long)id[r], why, (long long)part->T, (long long)full->T);
            verify(same, where, what);
            if (!same) break;
        }
    }
}

static void check_part(const char *where, const char *why, plumb_backend *be, const context *full, const results *r,
                       context *part, bool backward) {
    results alone;
    run_context(be, part, backward, NAN, 0, &alone);
    check_rows(where, why, full, r, part, &alone, backward);
    results_free(&alone);
    context_free(part);
}

static void check_subsets(const char *where, plumb_backend *be, const context *x, const results *r) {
    static const int64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33}; /* both ways of the forward product */
    context part;
    for (size_t i = 0; !x->c->forest && i < sizeof counts / sizeof *counts; i++)
        for (int64_t first = 0; first <= 3; first += 3) {
            if (first + counts[i] > x->T) continue;
            context_create_rows(&part, x->c, x->bf16, first, counts[i]);
            check_part(where, "the other rows", be, x, r, &part, true);
        }
    bool keyed_by_branch = !strcmp(x->op->name, "dropout") && !x->roots_only; /* a path alone has other keys */
    for (int32_t s = 0; !keyed_by_branch && s<x->forest.n_segments; s += x->forest.n_segments> 20 ? 9 : 1) {
        context_create_path(&part, x, s);
        check_part(where, "the other segments", be, x, r, &part, true);
    }
}

/* --- every instruction set -------------------------------------------------------------------- */
typedef struct config {
    const char *isa;
    bool bf16;
    plumb_backend *one, *two; /* threads */
    char name[40];
} config;
enum { MAX_CONFIGS = 8 };
static config configs[MAX_CONFIGS];
static int n_configs;

static void open_configs(const char *only_isa, const char *only_precision) {
    static const char *const isas[] = {"plain", "avx2", "avx512", "avx512bf16"};
    for (int i = 0; i < 4; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            const char *precision = bf16 ? "bf16" : "fp32";
            if ((only_isa && strcmp(only_isa, isas[i]) != 0) ||
                (only_precision && strcmp(only_precision, precision) != 0))
                continue;
            config *c = &configs[n_configs];
            *c = (config){.isa = isas[i], .bf16 = bf16};
            snprintf(c->name, sizeof c->name, "cpu %s %s", isas[i], precision);
            c->one = open_backend("cpu", isas[i], precision, true, 1);
            if (!c->one) {
                printf("skip  %s: %s\n", c->name, plumb_error_message());
                continue;
            }
            c->two = open_backend("cpu", isas[i], precision, true, 2);
            if (!c->two || (c->one->compute == PLUMB_COMPUTE_BF16) != c->bf16)
                die("%s: another precision was chosen", c->name);
            n_configs++;
        }
    if (!n_configs) die("the cpu back end has none of the instruction sets that were asked for");
}

static void check_config(const config *c, const context *x, const results *expected) {
    results first, again;
    run_context(c->one, x, true, 777.25f, 3, &first);
    check_values(c->name, x, &first, expected);
    run_context(c->one, x, true, NAN, 5, &again);
    check_same(c->name, "what lies between the rows", x, &first, &again);
    results_free(&again);
    run_context(c->two, x, true, NAN, 0, &again);
    check_same(c->name, "the number of threads", x, &first, &again);
    results_free(&again);
    check_subsets(c->name, c->one, x, &first);
    results_free(&first);
}

static void check_case(const op_case *c, plumb_backend *ref) {
    describe_case(c, case_text, sizeof case_text);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        context x;
        context_create(&x, c, bf16);
        results expected;
        run_context(ref, &x, true, NAN, 2, &expected);
        check_values("ref itself", &x, &expected, &expected); /* no NaN is left, inputs unchanged */
        if (!bf16) check_gradients(ref, &x);
        if (!bf16) check_subsets("ref", ref, &x, &expected);
        for (int i = 0; i < n_configs; i++)
            if (configs[i].bf16 == bf16) check_config(&configs[i], &x, &expected);
        results_free(&expected);
        context_free(&x);
    }
}

/* --- timing ----------------------------------------------------------------------------------- */
static double seconds_of(device *d, bool backward) { /* the best of as many runs as fit in 0.15 s */
    double best = DBL_MAX, begin = plumb_clock();
    for (int runs = 0; runs < 3 || plumb_clock() - begin < 0.15; runs++) {
        double start = plumb_clock();
        if (backward)
            d->x->op->backward(d);
        else
            d->x->op->forward(d);
        best = fmin(best, plumb_clock() - start);
    }
    return best;
}

static void time_case(const op_case *c, plumb_backend *ref, const config *where) {
    describe_case(c, case_text, sizeof case_text);
    context x;
    results expected, found;
    context_create(&x, c, where->bf16);
    run_context(ref, &x, true, 0, 0, &expected); /* correctness first */
    run_context(where->one, &x, true, 0, 0, &found);
    check_values(where->name, &x, &found, &expected);
    results_free(&expected);
    results_free(&found);
    device d;
    device_create(&d, where->one, &x, 0, 0);
    double forward = seconds_of(&d, false), backward = x.op->backward ? seconds_of(&d, true) : 0;
    printf("%-16s %9.3f ms  %9.3f ms", where->name + 4, 1e3 * forward, 1e3 * backward);
    if (x.op->flops)
        printf("  %7.1f GFLOP/s forward", 1e-9 * x.op->flops(&x) / forward);
    else
        printf("  %7.1f million rows/s  ", 1e-6 * (double)plumb_max64(x.T, 1) / forward);
    printf("  %s\n", case_text);
    fflush(stdout);
    device_free(&d);
    context_free(&x);
}

int main(int argc, char **argv) {
    const char *only_case = NULL, *isa = NULL, *precision = NULL;
    bool timing = false, ref_only = false;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--time"))
            timing = true;
        else if (!strcmp(argv[i], "--ref-only"))
            ref_only = true;
        else if (!strcmp(argv[i], "--case") && more)
            only_case = argv[++i];
        else if (!strcmp(argv[i], "--isa") && more)
            isa = argv[++i];
        else if (!strcmp(argv[i], "--precision") && more)
            precision = argv[++i];
        else
            die("usage: %s [--time] [--case TEXT] [--isa NAME] [--precision fp32|bf16] [--ref-only]", argv[0]);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    plumb_backend *ref = open_backend("ref", NULL, NULL, false, 1);
    if (!ref_only) open_configs(isa, precision);
    int ran = 0;
    for (int i = 0; i < n_cases; i++) {
        describe_case(&cases[i], case_text, sizeof case_text);
        if (only_case && !strstr(case_text, only_case)) continue;
        ran++;
        for (int k = 0; timing && k < n_configs; k++) time_case(&cases[i], ref, &configs[k]);
        if (!timing && !cases[i].only_time) check_case(&cases[i], ref);
    }
    for (int k = -1; !timing && !only_case && k < n_configs; k++) {
        plumb_backend *be = k < 0 ? ref : configs[k].one;
        snprintf(case_text, sizeof case_text, "special");
        check_special(k < 0 ? "ref" : configs[k].name, be, verify);
    }
    printf("%d cases, %d configurations, %d checks, %d failures\n", ran, n_configs, checks, failures);
    for (int i = 0; i < n_configs; i++) {
        plumb_backend_free(configs[i].one);
        plumb_backend_free(configs[i].two);
    }
    plumb_backend_free(ref);
    return failures || !ran;
}
