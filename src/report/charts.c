/* The list of drawings: which metrics belong together, in which unit, and what they mean.
 *
 * A row is a drawing; it appears when one of its metrics was logged. A metric with a held-out twin (eval_NAME) gets it as a second line.
 * Metrics that no row names are not lost: they come last, folded, one drawing each. So a new metric of a trainer shows up without a
 * change here, and gets its place and its words by a row. */
#include "report_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ZERO = 1, SHARE = 2, SMOOTH = 4, GROUPS = 8, VARIES = 16, FROM_ONE = 32, MARK_0 = 64, MARK_1 = 128, ENDED = 256 }; /* flags */
enum { LINES = 4, MOST = 64 };

typedef struct spec {
    const char *section, *title, *unit, *help;
    struct { const char *metric, *label; } lines[LINES];
    const char *low, *high, *deviation, *band; /* of the first line */
    int flags;
    const char *unless; /* not when this metric is there */
} spec;

static const char REWARD[] = "Reward", COMPLETIONS[] = "Lengths and ends", POLICY[] = "Policy", VALUE[] = "Value model",
                  LEARNING[] = "Learning", SPEED[] = "Time and speed";
static const char *const order_online[] = {REWARD, COMPLETIONS, POLICY, VALUE, LEARNING, SPEED, NULL};
static const char *const order_offline[] = {LEARNING, REWARD, SPEED, NULL};

static const char spread[] = "shaded: \xc2\xb1 one standard deviation";
static const spec specs[] = {
    {REWARD, "Reward", "score", "Mean score of the iteration's completions, after penalties.",
     .lines = {{"reward", "mean"}}, .deviation = "reward_std", .band = spread, .flags = SMOOTH},
    {REWARD, "Reward of the learner", "score", "The score, and what is left of it after the price of leaving the reference.",
     .lines = {{"objective/scores", "score"}, {"objective/rlhf_reward", "score and KL"}, {"objective/non_score_reward", "KL alone"}}},
    {REWARD, "Rewards of answers", "score", "What the reward model gives to the answers of a step.",
     .lines = {{"mean_reward", "mean"}}, .low = "min_reward", .high = "max_reward", .band = "shaded: least to greatest"},
    {REWARD, "Implicit rewards", "nats", "Beta times the log-ratio to the reference.",
     .lines = {{"rewards/chosen", "chosen"}, {"rewards/rejected", "rejected"}}, .flags = SMOOTH},
    {REWARD, "Log-probabilities", "nats", "Of whole answers.", .lines = {{"logps/chosen", "chosen"}, {"logps/rejected", "rejected"}}},

    {COMPLETIONS, "Length", "tokens", "Of completions; ended: those that came to an end token or a stop string.",
     .lines = {{"completions/mean_length", "mean"}, {"completions/mean_terminated_length", "mean of ended"}},
     .low = "completions/min_length", .high = "completions/max_length", .band = "shaded: shortest to longest", .flags = ZERO | ENDED},
    {COMPLETIONS, "EOS rate", "share", "Completions that ended by themselves; the others ran out of tokens.",
     .lines = {{"completions/clipped_ratio", "ended"}}, .flags = SHARE | FROM_ONE},
    {COMPLETIONS, "Groups without spread", "share", "All completions of a prompt have the same score: nothing to learn from.",
     .lines = {{"frac_reward_zero_std", "groups"}}, .flags = SHARE | GROUPS},

    {POLICY, "KL from the reference", "nats per completion", "Sampled log-ratio (k1) and its estimate that cannot be negative (k3).",
     .lines = {{"objective/kl", "k1"}, {"objective/kl_k3", "k3"}}, .flags = ZERO},
    {POLICY, "KL from the reference", "nats per token", "How far the policy has moved from where it began.",
     .lines = {{"kl", "KL"}}, .flags = ZERO, .unless = "objective/kl"},
    {POLICY, "KL coefficient", "", "Price of the KL, as adapted.", .lines = {{"kl_coef", "coefficient"}}, .flags = VARIES | ZERO},
    {POLICY, "Entropy", "nats per token", "Of the predicted distributions; a fall to zero means that one answer is left.",
     .lines = {{"entropy", "sampling"}, {"policy/entropy_avg", "learning"}}, .flags = ZERO},
    {POLICY, "Step of the policy", "nats per token", "Approximate KL between the policy that sampled and the one that learns.",
     .lines = {{"policy/approxkl_avg", "approx. KL"}}, .flags = ZERO},
    {POLICY, "Clipped tokens", "share", "Where the ratio is outside the range that counts.",
     .lines = {{"policy/clipfrac_avg", "policy"}, {"val/clipfrac_avg", "value"}}, .flags = ZERO},
    {POLICY, "Clipped ratios", "share", "Where the ratio is outside the range that counts.",
     .lines = {{"clip_ratio/region_mean", "all"}, {"clip_ratio/low_mean", "below"}, {"clip_ratio/high_mean", "above"}}, .flags = ZERO},
    {POLICY, "Ratio", "", "Probability now by probability when sampled, mean.",
     .lines = {{"ratio", "mean"}, {"val/ratio", "mean"}}, .flags = MARK_1},
    {POLICY, "Sampler and trainer", "nats per token",
     "Difference of log-probabilities before the first update; above rounding, something is wrong.",
     .lines = {{"policy/first_log_ratio", "difference"}}, .flags = ZERO},

    {VALUE, "Value loss", "", "Mean squared error of the value model, halved and clipped.",
     .lines = {{"loss/value_avg", "loss"}}, .flags = ZERO | SMOOTH},
    {VALUE, "Explained variance", "", "Of the returns by the values: 1 is perfect, 0 no better than their mean.",
     .lines = {{"val/explained_variance", "share"}}, .flags = MARK_0 | SMOOTH},

    {LEARNING, "Loss", "", NULL, .lines = {{"loss", "training"}}, .flags = SMOOTH},
    {LEARNING, "Policy loss", "", "The clipped objective; its height says little.",
     .lines = {{"loss/policy_avg", "loss"}}, .flags = SMOOTH},
    {LEARNING, "Perplexity", "", "exp(held-out loss).", .lines = {{"eval_perplexity", "held-out"}}},
    {LEARNING, "Token accuracy", "share", "Targets that are the most likely token.",
     .lines = {{"mean_token_accuracy", "training"}}, .flags = SMOOTH},
    {LEARNING, "Entropy", "nats per token", "Of the predicted distributions.",
     .lines = {{"entropy", "training"}}, .flags = ZERO | SMOOTH, .unless = "completions/mean_length"},
    {LEARNING, "Pair accuracy", "share", "Pairs whose chosen answer has the higher reward.",
     .lines = {{"accuracy", "training"}, {"rewards/accuracies", "training"}}, .flags = SHARE | SMOOTH},
    {LEARNING, "Margin", "", "Reward of the chosen answer minus that of the other.",
     .lines = {{"margin", "training"}, {"rewards/margins", "training"}}, .flags = SMOOTH},
    {LEARNING, "Learning rate", "", NULL, .lines = {{"learning_rate", "rate"}}, .flags = ZERO},
    {LEARNING, "Gradient norm", "", "Of all gradients together, before clipping.",
     .lines = {{"grad_norm", "norm"}}, .flags = ZERO | SMOOTH},

    {SPEED, "Rollout speed", "tokens/s", "New tokens by the time spent sampling.",
     .lines = {{"rollout_tokens_per_second", "sampling"}}, .flags = ZERO},
    {SPEED, "Speed", "tokens/s", "Tokens of a step by its whole time.", .lines = {{"tokens_per_second", "all"}}, .flags = ZERO | SMOOTH},
    {SPEED, "Time of a step", "s", NULL, .lines = {{"step_seconds", "all"}}, .flags = ZERO},
};
enum { SPECS = sizeof specs / sizeof *specs };
static const char *const phases[][2] = {{"time/sample", "sample"},
                                        {"time/score", "score"},
                                        {"time/pass", "log-probabilities, values"},
                                        {"time/learn", "learn"},
                                        {"time/log", "log"}};
enum { PHASES = sizeof phases / sizeof *phases };
static const char *const quiet[] = {"epoch", "episode", "num_tokens"}; /* straight lines: never alone */

typedef struct drawer {
    report_page *p;
    const report_run *r;
    bool *used; /* [metrics] has been drawn */
    int id;
    char held_out[LINES][64]; /* labels of the drawing at hand */
} drawer;

static const report_series *take(drawer *d, const char *name) {
    const report_series *s = name ? report_find(&d->r->history, name) : NULL;
    if (s) d->used[s - d->r->history.items] = true;
    return s;
}

static bool level(const report_series *s) {
    for (size_t i = 1; i < s->n; i++)
        if (s->y[i] != s->y[0]) return false;
    return true;
}

static void add_line(chart *c, const char *label, const report_series *s, const spec *x, double groups) {
    if (!s || s->n == 0 || c->n_lines == CHART_LINES) return;
    chart_line *l = &c->lines[c->n_lines++];
    *l = (chart_line){.label = label, .series = s, .scale = 1, .smooth = x->flags & SMOOTH, .marks = !strncmp(s->name, "eval_", 5),
                      .of = x->flags & GROUPS ? groups : 0};
    if (x->flags & FROM_ONE) l->scale = -1, l->shift = 1;
    l->smooth = l->smooth && !l->marks;
}

/* The same metric over the held-out records: points, measured now and then. */
static void add_held_out(drawer *d, chart *c, const spec *x, int i) {
    char name[160];
    snprintf(name, sizeof name, "eval_%.150s", x->lines[i].metric);
    bool several = x->lines[1].metric && report_find(&d->r->history, x->lines[0].metric) && report_find(&d->r->history, x->lines[1].metric);
    snprintf(d->held_out[i], sizeof d->held_out[i], "held-out%s%.40s", several ? ", " : "", several ? x->lines[i].label : "");
    add_line(c, d->held_out[i], take(d, name), x, 0);
}

/* A drawing of its own for each row: whether there was anything to draw. */
static bool fill(drawer *d, const spec *x, chart *c) {
    const report_run *r = d->r;
    double groups = report_setting_number(&r->settings, "batch_size") / fmax(1, report_setting_number(&r->settings, "num_generations"));
    *c = (chart){.title = x->title, .unit = x->unit, .help = x->help, .from_zero = x->flags & ZERO, .to_one = x->flags & SHARE,
                 .x0 = r->history.first, .x1 = r->history.last, .x_label = r->x_label, .has_mark = x->flags & (MARK_0 | MARK_1),
                 .mark = x->flags & MARK_1 ? 1 : 0};
    if (x->unless && report_find(&r->history, x->unless)) return false;
    for (int i = 0; i < LINES && x->lines[i].metric; i++) {
        const report_series *s = report_find(&r->history, x->lines[i].metric);
        if (s && (x->flags & VARIES) && level(s)) continue;
        if (s && i && (x->flags & ENDED) && s->n && s->y[0] == 0 && level(s)) { /* none ended: there is no length of those */
            take(d, x->lines[i].metric);
            continue;
        }
        add_line(c, x->lines[i].label, take(d, x->lines[i].metric), x, groups);
    }
    for (int i = 0; i < LINES && x->lines[i].metric; i++) add_held_out(d, c, x, i);
    if (c->n_lines && c->lines[0].scale == 1) {
        c->low = take(d, x->low), c->high = take(d, x->high), c->deviation = take(d, x->deviation);
        if (!c->low || !c->high) c->low = c->high = NULL;
        c->middle = c->deviation ? c->lines[0].series : NULL;
        c->band = c->low || c->middle ? x->band : NULL;
        char twin[160]; /* the held-out extremes belong to this drawing too */
        for (int i = 0; i < 2 && x->low; i++) {
            snprintf(twin, sizeof twin, "eval_%.150s", i ? x->high : x->low);
            take(d, twin);
        }
    }
    return c->n_lines > 0;
}

/* --- drawings that are not a row -------------------------------------------------------------- */
/* The parts of a score: rewards/NAME/mean with rewards/NAME/std. */
static int draw_parts(drawer *d) {
    static const char before[] = "rewards/", after[] = "/mean";
    const report_history *h = &d->r->history;
    int drawn = 0;
    for (size_t i = 0; i < h->count; i++) {
        const char *name = h->items[i].name;
        size_t length = strlen(name), around = strlen(before) + strlen(after);
        if (length <= around || length > 150 || strncmp(name, before, strlen(before)) || strcmp(name + length - strlen(after), after))
            continue;
        char title[160], std[160];
        snprintf(title, sizeof title, "Part: %.*s", (int)(length - around), name + strlen(before));
        snprintf(std, sizeof std, "%.*sstd", (int)(length - 4), name);
        spec x = {REWARD, title,  "score", "Before its weight and before penalties.", {{name, "mean"}}, NULL, NULL, std,
                  spread, SMOOTH, NULL};
        chart c;
        if (fill(d, &x, &c)) report_chart(d->p, &c, d->id++), drawn++;
    }
    return drawn;
}

static int draw_phases(drawer *d) {
    chart c = {.title = "Time per phase", .unit = "s", .help = "Where an iteration's time goes.", .stacked = true, .from_zero = true,
               .x0 = d->r->history.first, .x1 = d->r->history.last, .x_label = d->r->x_label};
    for (int i = 0; i < PHASES; i++) {
        const report_series *s = take(d, phases[i][0]);
        if (!s || s->n == 0 || (c.n_lines && s->n != c.lines[0].series->n)) continue;
        c.lines[c.n_lines++] = (chart_line){.label = phases[i][1], .series = s, .scale = 1};
    }
    report_chart(d->p, &c, d->id++);
    return c.n_lines > 0;
}

static void draw_others(drawer *d) {
    const report_history *h = &d->r->history;
    int drawn = 0;
    for (size_t i = 0; i < h->count && drawn < MOST; i++) {
        const char *name = h->items[i].name;
        bool still = d->used[i] || h->items[i].n == 0;
        for (size_t k = 0; k < sizeof quiet / sizeof *quiet; k++) still = still || !strcmp(quiet[k], name);
        if (still) continue;
        spec x = {.title = name, .unit = "", .lines = {{name, "value"}}};
        chart c;
        if (!fill(d, &x, &c)) continue;
        if (drawn++ == 0)
            report_put(d->p, "<section id=other><details class=more><summary><h2>Other metrics</h2></summary><div class=charts>\n");
        report_chart(d->p, &c, d->id++);
    }
    if (drawn) report_put(d->p, "</div></details></section>\n");
}

static const char *anchor_of(const char *section) {
    return section == REWARD        ? "reward"
           : section == COMPLETIONS ? "completions"
           : section == POLICY      ? "policy"
           : section == VALUE       ? "value"
           : section == LEARNING    ? "learning"
                                    : "speed";
}

static void draw_section(drawer *d, const char *section) {
    size_t before = d->p->text.length;
    int drawn = 0;
    report_put(d->p, "<section id=%s><h2>%s</h2><div class=charts>\n", anchor_of(section), section);
    for (int i = 0; i < SPECS; i++) {
        chart c;
        if (specs[i].section == section && fill(d, &specs[i], &c)) report_chart(d->p, &c, d->id++), drawn++;
        if (i == 0 && section == REWARD) drawn += draw_parts(d);
    }
    if (section == SPEED) drawn += draw_phases(d);
    if (drawn) report_put(d->p, "</div></section>\n");
    else if (report_good(d->p)) d->p->text.data[d->p->text.length = before] = 0; /* no drawing: no section */
}

void report_curves(report_page *p, const report_run *r) {
    drawer d = {.p = p, .r = r, .id = 1};
    if (report_good(p)) p->status = plumb_alloc(&d.used, r->history.count, sizeof *d.used, "a report");
    if (!report_good(p)) return;
    if (r->history.count == 0) report_put(p, "<section><p class=note>There are no metrics yet: no curves.</p></section>\n");
    for (const char *const *section = r->online ? order_online : order_offline; *section; section++) draw_section(&d, *section);
    draw_others(&d);
    free(d.used);
}
