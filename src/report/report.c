/* The page as a whole: what was run, what came out, curves, texts, settings; written at once under its final name. */
#include "report_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/config.h"

/* --- loading ---------------------------------------------------------------------------------- */
static plumb_status holds(const char *dir, const char *name, bool *found) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    *found = plumb_path_exists(path);
    free(path);
    return PLUMB_OK;
}

static plumb_status load_history(report_run *r) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, r->o->dir, "metrics.jsonl"));
    plumb_status status = report_history_read(&r->history, path);
    free(path);
    return status;
}

static plumb_status load_settings(report_run *r) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, r->o->dir, "config.yaml"));
    plumb_status status = report_settings_read(&r->settings, path);
    free(path);
    return status;
}

static plumb_status load(report_run *r, const plumb_report_options *o) {
    bool adapter, model, trajectories;
    *r = (report_run){.o = o};
    if (!plumb_path_is_dir(o->dir))
        return plumb_error(PLUMB_E_IO, "%s: %s; expected the folder of a run", o->dir,
                           plumb_path_exists(o->dir) ? "not a folder" : "not there");
    PLUMB_TRY(holds(o->dir, "adapter", &adapter));
    PLUMB_TRY(holds(o->dir, "model", &model));
    PLUMB_TRY(holds(o->dir, "trajectories", &trajectories));
    PLUMB_TRY(load_settings(r));
    PLUMB_TRY(load_history(r));
    if (trajectories) PLUMB_TRY(plumb_path_join(&r->trajectories, o->dir, "trajectories"));
    if (!trajectories && !r->settings.text && r->history.missing)
        return plumb_error(PLUMB_E_IO,
                           "%s: no metrics.jsonl, config.yaml or trajectories/ in it; expected the folder of a run (output_dir)", o->dir);
    const char *command = r->settings.command;
    r->online = !strcmp(command, "ppo") || !strcmp(command, "grpo") || !strcmp(command, "rloo") || trajectories ||
                report_find(&r->history, "completions/mean_length");
    r->finished = adapter || model;
    r->x_label = r->online ? "iteration" : "step";
    return PLUMB_OK;
}

/* The title asked for, the run's name, or the last part of the folder's path; to be freed. */
static plumb_status choose_title(const report_run *r, char **title) {
    const char *given = r->o->title, *dir = r->o->dir;
    if (!given) {
        PLUMB_TRY(report_setting_text(&r->settings, "run_name", title));
        if (*title) return PLUMB_OK;
    }
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/') length--;
    size_t from = length;
    while (from > 0 && dir[from - 1] != '/') from--;
    plumb_str text = {0};
    plumb_status status = given           ? plumb_str_append(&text, given, strlen(given))
                          : from < length ? plumb_str_append(&text, dir + from, length - from)
                                          : plumb_str_append(&text, dir, length);
    *title = text.data;
    return status;
}

/* --- the head of the page --------------------------------------------------------------------- */
static double last_of(const report_series *s, double *first) {
    double last = NAN;
    *first = NAN;
    for (size_t i = 0; s && i < s->n; i++)
        if (isfinite(s->y[i])) {
            if (isnan(*first)) *first = s->y[i];
            last = s->y[i];
        }
    return last;
}

static void put_tile(report_page *p, const char *name, const char *value, const char *more) {
    report_put(p, "<div class=tile><dt>%s</dt><dd>%s<small>%s</small></dd></div>", name, value, more);
}

/* The last value of a metric, and where it began; nothing when it is not there. */
static bool put_metric_tile(report_page *p, const report_run *r, const char *metric, const char *name, double scale, double shift) {
    char value[REPORT_NUMBER], from[REPORT_NUMBER], more[REPORT_NUMBER + 32];
    double first, last = last_of(report_find(&r->history, metric), &first);
    if (isnan(last)) return false;
    report_number(value, shift + scale * last), report_number(from, shift + scale * first);
    snprintf(more, sizeof more, "at first %s", from);
    put_tile(p, name, value, more);
    return true;
}

static double mean_of(const report_series *s) {
    double sum = 0, n = 0;
    for (size_t i = 0; s && i < s->n; i++)
        if (isfinite(s->y[i])) sum += s->y[i], n += 1;
    return n > 0 ? sum / n : NAN;
}

static void put_tiles(report_page *p, const report_run *r) {
    char value[REPORT_NUMBER], more[REPORT_NUMBER + 32] = "";
    const report_history *h = &r->history;
    double first, seconds = mean_of(report_find(h, "step_seconds")), tokens = last_of(report_find(h, "num_tokens"), &first),
                  total = report_setting_number(&r->settings, "max_steps");
    if (h->count == 0) return;
    report_put(p, "<dl class=tiles>");
    snprintf(value, sizeof value, "%.0f", h->last);
    if (total > 0) snprintf(more, sizeof more, "of %.0f", total);
    put_tile(p, r->online ? "Iterations" : "Steps", value, more);
    if (r->online) {
        put_metric_tile(p, r, "reward", "Reward", 1, 0);
        put_metric_tile(p, r, "kl", "KL", 1, 0);
        put_metric_tile(p, r, "entropy", "Entropy", 1, 0);
        put_metric_tile(p, r, "completions/mean_length", "Length", 1, 0);
        put_metric_tile(p, r, "completions/clipped_ratio", "EOS rate", -1, 1);
    } else {
        put_metric_tile(p, r, "loss", "Loss", 1, 0);
        put_metric_tile(p, r, "eval_loss", "Held-out loss", 1, 0);
        if (!put_metric_tile(p, r, "eval_accuracy", "Held-out accuracy", 1, 0) &&
            !put_metric_tile(p, r, "eval_rewards/accuracies", "Held-out accuracy", 1, 0))
            put_metric_tile(p, r, "eval_mean_token_accuracy", "Held-out accuracy", 1, 0);
    }
    if (isfinite(tokens)) {
        if (tokens < 1e6) report_number(value, tokens);
        else snprintf(value, sizeof value, "%.3g%s", tokens < 1e9 ? tokens / 1e6 : tokens / 1e9, tokens < 1e9 ? "M" : "G");
        put_tile(p, "Tokens", value, "");
    }
    if (isfinite(seconds)) {
        char each[REPORT_NUMBER];
        report_duration(value, seconds * h->last), report_duration(each, seconds);
        snprintf(more, sizeof more, "%s each", each);
        put_tile(p, "Time", value, more);
    }
    report_put(p, "</dl>\n");
}

static void put_notes(report_page *p, const report_run *r) {
    const report_history *h = &r->history;
    size_t gaps = 0;
    for (size_t i = 0; i < h->count; i++) gaps += h->items[i].gaps;
    if (!h->missing && h->count && !h->unfinished && !h->bad && !gaps && r->settings.text) return;
    report_put(p, "<div class=box>");
    if (h->missing) report_put(p, "<p>There is no metrics.jsonl: no curves.</p>");
    else if (h->count == 0) report_put(p, "<p>metrics.jsonl holds no metrics yet: no curves.</p>");
    if (h->unfinished) report_put(p, "<p>The last line of metrics.jsonl is incomplete, as a killed run leaves it, and was left out.</p>");
    if (h->bad)
        report_put(p, "<p>%lld of %lld lines of metrics.jsonl could not be understood and were left out.</p>", (long long)h->bad,
                   (long long)h->lines);
    if (gaps)
        report_put(p, "<p>%zu value%s NaN or infinite: gaps in the curves, marked in red on the axis.</p>", gaps,
                   gaps == 1 ? " is" : "s are");
    if (!r->settings.text) report_put(p, "<p>There is no config.yaml: the settings are not known.</p>");
    report_put(p, "</div>\n");
}

/* `body` is the text below: what it has is linked. (Texts in it cannot look like a section: they are escaped.) */
static void put_head(report_page *p, const report_run *r, const char *title, const char *body) {
    static const struct {
        const char *anchor, *name;
    } sections[] = {{"reward", "Reward"},     {"completions", "Lengths and ends"}, {"policy", "Policy"},       {"value", "Value model"},
                    {"learning", "Learning"}, {"speed", "Time and speed"},         {"other", "Other metrics"}, {"texts", "Completions"},
                    {"settings", "Settings"}};
    static const char mark[] = "<section id=";
    report_put(p, "<header><h1>");
    report_put_escaped(p, title, strlen(title));
    report_put(p, "</h1><p class=sub>");
    if (r->settings.command[0]) {
        report_put(p, "<b>plumb ");
        report_put_escaped(p, r->settings.command, strlen(r->settings.command));
        report_put(p, "</b> \xc2\xb7 ");
    }
    report_put(p, "%s \xc2\xb7 <code>", r->finished ? "finished" : "not finished when this was written");
    report_put_escaped(p, r->o->dir, strlen(r->o->dir));
    report_put(p, "</code></p>\n");
    put_tiles(p, r);
    put_notes(p, r);
    report_put(p, "<nav>");
    for (const char *at = body; (at = strstr(at, mark)); at++)
        for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
            const char *anchor = sections[i].anchor, *found = at + strlen(mark);
            if (!strncmp(found, anchor, strlen(anchor)) && found[strlen(anchor)] == '>')
                report_put(p, "<a href=\"#%s\">%s</a>", anchor, sections[i].name);
        }
    report_put(p, "<label><input type=checkbox id=smoothing checked> smoothed lines</label></nav></header>\n");
}

/* --- settings --------------------------------------------------------------------------------- */
static void put_settings(report_page *p, const report_run *r) {
    const report_settings *s = &r->settings;
    if (!s->text) return;
    report_put(p, "<section id=settings><h2>Settings</h2><p class=help>Run again with <code>plumb ");
    report_put_escaped(p, s->command[0] ? s->command : "COMMAND", strlen(s->command[0] ? s->command : "COMMAND"));
    report_put(p, " ");
    report_put_escaped(p, r->o->dir, strlen(r->o->dir));
    report_put(p, "/config.yaml output_dir=NEW</code>. What differs from the defaults of the command:</p>\n");
    size_t changed = 0, written = 0, half;
    for (size_t i = 0; i < s->count; i++) changed += s->items[i].changed;
    half = (changed + 1) / 2;
    report_put(p, "<div class=two>");
    for (size_t i = 0; i < s->count; i++) {
        if (!s->items[i].changed) continue;
        if (written == 0 || written == half) report_put(p, "%s<table class=settings>", written ? "</table>" : "");
        report_put(p, "<tr><td>");
        report_put_escaped(p, s->items[i].key, strlen(s->items[i].key));
        report_put(p, "</td><td>");
        report_put_escaped(p, s->items[i].value, strlen(s->items[i].value));
        report_put(p, "</td></tr>");
        written++;
    }
    report_put(p, "%s</div>\n<details><summary>config.yaml: every option with its value</summary><pre>", written ? "</table>" : "");
    report_put_escaped(p, s->text, strlen(s->text));
    report_put(p, "</pre></details></section>\n");
}

static plumb_status write_page(const report_run *r, const char *title, const char *path) {
    report_page p = {0}, body = {0};
    report_put(&body, "<main>\n");
    report_curves(&body, r);
    report_samples(&body, r);
    put_settings(&body, r);
    report_put(&body, "</main><footer><p>plumb %s</p></footer>\n", PLUMB_VERSION);
    p.status = body.status;
    if (report_good(&p)) {
        report_begin(&p, title);
        put_head(&p, r, title, body.text.data);
    }
    if (report_good(&p)) p.status = plumb_str_append(&p.text, body.text.data, body.text.length);
    report_end(&p);
    plumb_status status = p.status;
    if (status == PLUMB_OK) status = plumb_write_file(path, p.text.data, p.text.length);
    plumb_str_free(&body.text);
    plumb_str_free(&p.text);
    return status;
}

plumb_status plumb_report_write(const plumb_report_options *o) {
    report_run r;
    char *title = NULL, *path = NULL;
    plumb_status status = load(&r, o);
    if (status == PLUMB_OK) status = choose_title(&r, &title);
    if (status == PLUMB_OK && !o->file) status = plumb_path_join(&path, o->dir, "report.html");
    if (status == PLUMB_OK) status = write_page(&r, title, o->file ? o->file : path);
    free(title);
    free(path);
    free(r.trajectories);
    report_history_free(&r.history);
    report_settings_free(&r.settings);
    return status;
}
