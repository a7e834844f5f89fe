/* plumb score: what a reward model says about answers in a file. One JSON line per record in the order of the file, and a summary:
 * accuracy and calibration for pairs, the area under the ROC curve for answers that carry a rating. */
#include "plan.h"
#include "recipe.h"
#include "plumb/metrics.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 10 };

static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    (void)training;
    PLUMB_TRY(plumb_reward_pack(&s->forest, p, b, &s->eval, plumb_model_adapter_of(s->model, PLUMB_VIEW_POLICY)));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .values = true}, &s->policy));
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++)
        for (int k = 0; k < plumb_plan_sample(p, &s->eval, p->members[i])->n_branches; k++)
            plumb_plan_stats(p, p->members[i])[k] = s->policy.values[at++];
    return PLUMB_OK;
}

static plumb_status append_line(plumb_str *out, const plumb_sample *x, const double *scores) {
    bool pair = x->n_branches == 2;
    PLUMB_TRY(plumb_str_printf(out, "{\"record\": %lld", (long long)x->record));
    PLUMB_TRY(plumb_recipe_append_text(out, ", ", "prompt", x->prompt_text));
    for (int k = 0; k < x->n_branches; k++)
        PLUMB_TRY(plumb_recipe_append_text(out, ", ", !pair ? "completion" : k ? "rejected" : "chosen", x->branch[k].text));
    for (int k = 0; k < x->n_branches; k++)
        if (!isfinite(scores[k])) return plumb_error(PLUMB_E_NUMERIC, "the score of record %lld is not finite", (long long)x->record + 1);
    if (pair) PLUMB_TRY(plumb_str_printf(out, ", \"score_chosen\": %.9g, \"score_rejected\": %.9g", scores[0], scores[1]));
    else PLUMB_TRY(plumb_str_printf(out, ", \"score\": %.9g", scores[0]));
    if (!isnan(x->label)) PLUMB_TRY(plumb_str_printf(out, ", \"label\": %.9g", x->label));
    return plumb_str_append(out, "}\n", 2);
}

static void print_pairs(const double *margins, int64_t n) {
    plumb_calibration_bin bins[BINS];
    int64_t right = 0;
    double sum = 0, error = plumb_metric_calibration(margins, n, BINS, bins);
    for (int64_t i = 0; i < n; i++) right += margins[i] > 0, sum += margins[i];
    printf("pairs %lld\naccuracy %.6g\nmargin %.6g\nexpected_calibration_error %.6g\n", (long long)n, (double)right / (double)n,
           sum / (double)n, error);
    for (int i = 0; i < BINS; i++)
        if (bins[i].count)
            printf("  sure %.2f to %.2f: %6lld pairs, predicted %.3f, right %.3f\n", bins[i].low, bins[i].high, (long long)bins[i].count,
                   bins[i].predicted, bins[i].observed);
}
static plumb_status print_rated(const double *scores, const uint8_t *labels, int64_t n) {
    double auc;
    int64_t good = 0;
    PLUMB_TRY(plumb_metric_auc(scores, labels, n, &auc));
    for (int64_t i = 0; i < n; i++) good += labels[i];
    printf("rated %lld (%lld good)\n", (long long)n, (long long)good);
    if (isnan(auc)) printf("auc: needs good and bad answers\n");
    else printf("auc %.6g\n", auc);
    return PLUMB_OK;
}

static plumb_status report(const plumb_session *s) {
    const plumb_plan *p = &s->eval_plan;
    int64_t n_pairs = 0, n_rated = 0, n_scores = 0;
    double *margins = NULL, *rated = NULL, mean = 0, squares = 0; /* of distances from the mean so far (Welford 1962) */
    uint8_t *labels = NULL;
    plumb_str lines = {0};
    plumb_status status = plumb_alloc(&margins, (size_t)p->count, sizeof *margins, "scores");
    if (status == PLUMB_OK) status = plumb_alloc(&rated, (size_t)p->count, sizeof *rated, "scores");
    if (status == PLUMB_OK) status = plumb_alloc(&labels, (size_t)p->count, sizeof *labels, "labels");
    for (int32_t i = 0; i < p->count && status == PLUMB_OK; i++) {
        const plumb_sample *x = plumb_plan_sample(p, &s->eval, i);
        const double *scores = plumb_plan_stats(p, i);
        for (int k = 0; k < x->n_branches; k++) {
            double before = scores[k] - mean;
            mean += before / (double)++n_scores;
            squares += before * (scores[k] - mean);
        }
        if (x->n_branches == 2) margins[n_pairs++] = scores[0] - scores[1];
        else if (!isnan(x->label)) rated[n_rated] = scores[0], labels[n_rated++] = x->label > 0;
        status = append_line(&lines, x, scores);
    }
    if (status == PLUMB_OK) status = plumb_write_file(s->o->output_file, lines.data ? lines.data : "", lines.length);
    if (status == PLUMB_OK) {
        printf("records %lld\nmean_reward %.6g\nstd_reward %.6g\n", (long long)p->count, mean, sqrt(squares / (double)n_scores));
        if (n_pairs) print_pairs(margins, n_pairs);
        if (n_rated) status = print_rated(rated, labels, n_rated);
        printf("scores in %s\n", s->o->output_file);
    }
    plumb_str_free(&lines);
    free(margins), free(rated), free(labels);
    return status;
}

int plumb_score(const plumb_options *o) {
    plumb_session s = {0};
    bool stopped = false;
    plumb_status status = plumb_session_open(&s, o, PLUMB_FOR_SCORE, "score", PLUMB_DATA_RATED);
    if (status == PLUMB_OK && !o->dry_run) {
        status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? plumb_prepare_file(o->output_file) : PLUMB_OK);
        if (status == PLUMB_OK) status = plumb_session_evaluate(&s, micro_batch);
        stopped = status == PLUMB_OK && s.interrupted;
        if (stopped && plumb_is_root()) fprintf(stderr, "plumb score: stopped by a signal; nothing was written\n");
        if (status == PLUMB_OK && !stopped) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? report(&s) : PLUMB_OK);
    }
    if (status != PLUMB_OK && plumb_is_root()) fprintf(stderr, "plumb score: %s\n", plumb_error_message());
    plumb_session_close(&s);
    return status != PLUMB_OK ? 1 : stopped ? PLUMB_EXIT_RESUME : 0;
}
