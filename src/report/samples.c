/* What the model wrote: of some iterations the best, the middle and the worst completion by score.
 *
 *                  iteration 1   iteration 14   iteration 27   iteration 40
 *      best        text          text           ...
 *      median      text          ...
 *      worst       ...
 *
 * Curves say that a reward rises; only the texts say what for. The middle one is what the model usually does now, the best one where it
 * is led, the worst what remains. Iterations are read one at a time: a page needs as much memory as one of them. */
#include "report_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/trajectory.h"

enum { BEST, MEDIAN, WORST, ROWS };
enum { COLUMN_WIDTH = 270, STRIP_WIDTH = 240, STRIP_HEIGHT = 26, STRIP_MARGIN = 8, STRIP_POINTS = 400 };
static const char *const row_names[ROWS] = {"Best", "Median", "Worst"};

/* One completion, out of its batch. */
typedef struct sample {
    bool there;
    int64_t sequence, record, tokens;
    char *prompt, *text; /* owned */
    double score, parts[PLUMB_SCORE_PARTS], kl;
    bool has_kl;
    int finish;
} sample;
typedef struct column {
    int64_t iteration, sequences;
    int n_parts; char part_names[PLUMB_SCORE_PARTS][PLUMB_PART_NAME];
    sample rows[ROWS];
    double *scores; /* [sequences] ascending, NaN last; owned */
    char problem[512];
} column;

static void free_column(column *c) {
    for (int i = 0; i < ROWS; i++) {
        free(c->rows[i].prompt);
        free(c->rows[i].text);
    }
    free(c->scores);
}

/* --- choosing --------------------------------------------------------------------------------- */
static plumb_status choose_evenly(const int64_t *all, int64_t count, int64_t most, int64_t *chosen, int *n) {
    *n = (int)plumb_min64(count, plumb_min64(most, PLUMB_REPORT_ITERATIONS_MAX));
    for (int i = 0; i < *n; i++) chosen[i] = all[*n == 1 ? count - 1 : (i * (count - 1) + (*n - 1) / 2) / (*n - 1)];
    return PLUMB_OK;
}

static plumb_status choose(const report_run *r, const int64_t *all, int64_t count, int64_t *chosen, int *n) {
    const plumb_report_options *o = r->o;
    if (!o->n_iterations) return choose_evenly(all, count, o->max_iterations ? o->max_iterations : PLUMB_REPORT_ITERATIONS, chosen, n);
    *n = (int)plumb_min64(o->n_iterations, PLUMB_REPORT_ITERATIONS_MAX);
    for (int i = 0; i < *n; i++) {
        bool found = false;
        for (int64_t k = 0; k < count && !found; k++) found = all[k] == o->iterations[i];
        if (!found)
            return plumb_error(PLUMB_E_DATA, "iteration %lld: not among the %lld of %s (%lld to %lld)", (long long)o->iterations[i],
                               (long long)count, r->trajectories, count ? (long long)all[0] : 0, count ? (long long)all[count - 1] : 0);
        chosen[i] = o->iterations[i];
    }
    return PLUMB_OK;
}

typedef struct ranked { double score; int64_t sequence; } ranked;
static int by_score(const void *a, const void *b) { /* the greatest first; what is no number last; then by place */
    const ranked *x = a, *y = b;
    if (isnan(x->score) != isnan(y->score)) return isnan(x->score) ? 1 : -1;
    if (x->score != y->score && !isnan(x->score)) return x->score > y->score ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static plumb_status take_sample(sample *s, const plumb_trajectories *t, int64_t i) {
    const char *prompt = t->prompt_text[i] ? t->prompt_text[i] : "", *text = t->text[i] ? t->text[i] : "";
    *s = (sample){.there = true, .sequence = i, .record = t->record[i], .tokens = t->token_offset[i + 1] - t->token_offset[i],
                  .score = t->score[i], .finish = t->finish[i]};
    memcpy(s->parts, t->parts + i * t->n_parts, (size_t)t->n_parts * sizeof *s->parts);
    for (int64_t k = t->token_offset[i]; k < t->token_offset[i + 1]; k++) {
        s->kl += t->logp[k] - t->ref_logp[k];
        s->has_kl = s->has_kl || t->ref_logp[k] != 0; /* zeros alone: there was no reference */
    }
    PLUMB_TRY(plumb_alloc(&s->prompt, strlen(prompt) + 1, 1, "a prompt"));
    strcpy(s->prompt, prompt);
    PLUMB_TRY(plumb_alloc(&s->text, strlen(text) + 1, 1, "a completion"));
    strcpy(s->text, text);
    return PLUMB_OK;
}

static plumb_status take_column(column *c, const plumb_trajectories *t) {
    ranked *order;
    int64_t n = t->n_sequences;
    PLUMB_TRY(plumb_alloc(&order, (size_t)n, sizeof *order, "scores"));
    plumb_status status = plumb_alloc(&c->scores, (size_t)n, sizeof *c->scores, "scores");
    for (int64_t i = 0; i < n; i++) order[i] = (ranked){t->score[i], i};
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n && status == PLUMB_OK; i++) c->scores[i] = order[i].score;
    c->sequences = n, c->n_parts = t->n_parts;
    memcpy(c->part_names, t->part_names, sizeof c->part_names);
    if (status == PLUMB_OK && n > 0) status = take_sample(&c->rows[BEST], t, order[0].sequence);
    if (status == PLUMB_OK && n > 2) status = take_sample(&c->rows[MEDIAN], t, order[n / 2].sequence);
    if (status == PLUMB_OK && n > 1) status = take_sample(&c->rows[WORST], t, order[n - 1].sequence);
    free(order);
    return status;
}

/* --- writing ---------------------------------------------------------------------------------- */
static void put_number(report_page *p, double value) {
    char text[REPORT_NUMBER];
    report_number(text, value);
    report_put(p, "%s", text);
}

/* All scores of the iteration on the range of all columns, the three shown ones taller. */
static void put_strip(report_page *p, const column *c, double low, double high) {
    if (!(high > low) || c->sequences < 2) return;
    int64_t every = c->sequences / STRIP_POINTS + 1;
    double scale = (STRIP_WIDTH - 2 * STRIP_MARGIN) / (high - low);
    report_put(p, "<svg class=strip viewBox=\"0 0 %d %d\" role=img aria-label=\"Scores of the iteration from ", STRIP_WIDTH, STRIP_HEIGHT);
    put_number(p, c->scores[c->sequences - 1]);
    report_put(p, " to ");
    put_number(p, c->scores[0]);
    report_put(p, "\"><path class=grid d=\"M0 20H%d\"/><path class=all d=\"", STRIP_WIDTH);
    for (int64_t i = 0; i < c->sequences; i += every)
        if (isfinite(c->scores[i])) report_put(p, "M%.1f 15v10", STRIP_MARGIN + (c->scores[i] - low) * scale);
    report_put(p, "\"/>");
    for (int k = 0; k < ROWS; k++)
        if (c->rows[k].there && isfinite(c->rows[k].score))
            report_put(p, "<path class=r%d d=\"M%.1f 4v21\"/>", k, STRIP_MARGIN + (c->rows[k].score - low) * scale);
    report_put(p, "</svg>");
}

static void put_cell(report_page *p, const column *c, const sample *s, int row) {
    static const char *const finishes[] = {"ended (end token)", "ended (stop string)", "cut: out of tokens"};
    if (!s->there) {
        report_put(p, "<td><p class=note>%s</p></td>", c->problem[0] ? "not readable" : "too few completions");
        return;
    }
    report_put(p, "<td class=r%d><div class=facts><b class=score>", row);
    put_number(p, s->score);
    report_put(p, "</b><span>%lld token%s</span><span%s>%s</span>", (long long)s->tokens, s->tokens == 1 ? "" : "s",
               s->finish == PLUMB_FINISH_LENGTH ? " class=cut" : "", finishes[s->finish]);
    if (s->has_kl) {
        report_put(p, "<span title=\"log-ratio to the reference, summed over the completion\">KL ");
        put_number(p, s->kl);
        report_put(p, "</span>");
    }
    report_put(p, "</div>");
    if (c->n_parts) {
        report_put(p, "<dl class=parts>");
        for (int k = 0; k < c->n_parts; k++) {
            report_put(p, "<div><dt>");
            report_put_escaped(p, c->part_names[k], strlen(c->part_names[k]));
            report_put(p, "</dt><dd>");
            put_number(p, s->parts[k]);
            report_put(p, "</dd></div>");
        }
        report_put(p, "</dl>");
    }
    report_put(p, "<h4>Prompt <small title=\"in the training file, counted from 0\">record %lld</small></h4>", (long long)s->record);
    report_put_long(p, s->prompt);
    report_put(p, "<h4>Completion</h4>");
    report_put_long(p, s->text);
    report_put(p, "</td>");
}

static void put_table(report_page *p, const column *columns, int n) {
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < columns[i].sequences; k++)
            if (isfinite(columns[i].scores[k])) low = fmin(low, columns[i].scores[k]), high = fmax(high, columns[i].scores[k]);
    report_put(p,
               "<div class=wide tabindex=0 role=region aria-label=\"Completions over time\"><table class=samples "
               "style=\"min-width:%dpx\"><thead><tr><td></td>",
               84 + n * COLUMN_WIDTH);
    for (int i = 0; i < n; i++) {
        report_put(p, "<th scope=col>Iteration %lld <small>%lld completion%s</small>", (long long)columns[i].iteration,
                   (long long)columns[i].sequences, columns[i].sequences == 1 ? "" : "s");
        put_strip(p, &columns[i], low, high);
        if (columns[i].problem[0]) {
            report_put(p, "<p class=\"note bad\">");
            report_put_escaped(p, columns[i].problem, strlen(columns[i].problem));
            report_put(p, "</p>");
        }
        report_put(p, "</th>");
    }
    report_put(p, "</tr></thead><tbody>\n");
    for (int row = 0; row < ROWS; row++) {
        report_put(p, "<tr><th scope=row class=r%d>%s</th>", row, row_names[row]);
        for (int i = 0; i < n; i++) put_cell(p, &columns[i], &columns[i].rows[row], row);
        report_put(p, "</tr>\n");
    }
    report_put(p, "</tbody></table></div>");
}

static plumb_status read_column(column *c, plumb_trajectory_reader *reader, int64_t iteration) {
    plumb_trajectories t = {0};
    c->iteration = iteration;
    plumb_status status = plumb_trajectory_reader_read(reader, iteration, &t);
    if (status == PLUMB_OK) status = take_column(c, &t);
    else if (status != PLUMB_E_MEMORY) { /* a damaged file: the others can be shown */
        strncat(c->problem, plumb_error_message(), sizeof c->problem - 1);
        status = PLUMB_OK;
    }
    plumb_trajectories_free(&t);
    return status;
}

/* The columns of the chosen iterations; *n of them. */
static plumb_status read_columns(const report_run *r, column **columns, int *n) {
    int64_t *all = NULL, count = 0, chosen[PLUMB_REPORT_ITERATIONS_MAX];
    plumb_trajectory_reader *reader = NULL;
    plumb_status status = plumb_trajectories_list(r->trajectories, &all, &count);
    if (status == PLUMB_OK) status = choose(r, all, count, chosen, n);
    if (status == PLUMB_OK) status = plumb_alloc(columns, (size_t)*n, sizeof **columns, "completions");
    if (status == PLUMB_OK) status = plumb_trajectory_reader_open(&reader, r->trajectories);
    for (int i = 0; i < *n && status == PLUMB_OK; i++) status = read_column(&(*columns)[i], reader, chosen[i]);
    plumb_trajectory_reader_close(reader);
    free(all);
    return status;
}

static void put_columns(report_page *p, const column *columns, int n) {
    if (n == 0) {
        report_put(p, "<p class=note>There are no completions: none was kept (log_trajectories: false), or no iteration has ended.</p>");
        return;
    }
    report_put(p,
               "<p class=help>The best, the middle and the worst completion of %s, by score. The marks above a column are all scores of "
               "that iteration, on one scale.</p>",
               n == 1 ? "an iteration" : "some iterations");
    put_table(p, columns, n);
}

void report_samples(report_page *p, const report_run *r) {
    column *columns = NULL;
    int n = 0;
    bool asked = r->o->n_iterations > 0; /* then what cannot be shown is an error, not a note */
    if (!report_good(p) || (!r->online && !asked)) return;
    plumb_status status =
        r->trajectories ? read_columns(r, &columns, &n)
        : asked         ? plumb_error(PLUMB_E_DATA, "iteration %lld: %s has no trajectories/", (long long)r->o->iterations[0], r->o->dir)
                        : PLUMB_OK;
    if (status == PLUMB_E_MEMORY || (status != PLUMB_OK && asked)) {
        p->status = status;
    } else {
        report_put(p, "<section id=texts><h2>Completions over time</h2>");
        if (status != PLUMB_OK) { /* a damaged manifest: the curves are there all the same */
            report_put(p, "<p class=\"note bad\">Not readable: ");
            report_put_escaped(p, plumb_error_message(), strlen(plumb_error_message()));
            report_put(p, "</p>");
        } else {
            put_columns(p, columns, n);
        }
        report_put(p, "</section>\n");
    }
    for (int i = 0; i < n && columns; i++) free_column(&columns[i]);
    free(columns);
}
