/* The line that a person watches.
 *
 * On a terminal one line is drawn over and over: carriage return, the line, "clear to the end". It is never as wide as
 * the window, since a line that wraps cannot be drawn over. A message first clears the bar, then prints, then draws it
 * again, in a single write, so that the two never mix. Elsewhere (a file, a pipe, a dumb terminal) each step is a line.
 *
 * The time that is left comes from a moving average of the seconds per step: weights fall by a fixed factor per
 * interval, and the sum of the weights divides, so that the first intervals count in full (as Adam corrects its bias).
 * A slow start or a checkpoint is forgotten after some ten lines. */
#include "log_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_DEFAULT = 80, BAR_MIN = 8, BAR_MAX = 30 };
static const double redraw_seconds = 0.05, forget = 0.85;

static bool wants_bar(void) {
    const char *asked = getenv("PLUMB_PROGRESS"), *terminal = getenv("TERM");
    if (asked && !strcmp(asked, "bar")) return true;
    if (asked && !strcmp(asked, "plain")) return false;
    return isatty(STDERR_FILENO) && !(terminal && !strcmp(terminal, "dumb"));
}

static int window_width(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
    return WIDTH_DEFAULT;
}

static void write_all(const plumb_str *text) {
    if (text->length) fwrite(text->data, 1, text->length, stderr); /* unbuffered: one write */
    fflush(stderr);
}

/* --- what the line says ----------------------------------------------------------------------- */
void plumb_progress_duration(char *out, size_t room, double seconds) {
    long long s = seconds < 3.6e8 ? (long long)(seconds + 0.5) : 359999999; /* under 100,000 hours */
    if (s >= 3600)
        snprintf(out, room, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, room, "%lld:%02lld", s / 60, s % 60);
}

double plumb_progress_eta(plumb_progress *p, int64_t step, double now) {
    if (step > p->last_step) {
        double pace = (now - p->last_time) / (double)(step - p->last_step);
        p->pace = forget * p->pace + (1 - forget) * pace;
        p->weight = forget * p->weight + (1 - forget);
        p->last_step = step;
        p->last_time = now;
    }
    if (p->total <= 0 || p->weight == 0) return -1;
    return step < p->total ? (double)(p->total - step) * p->pace / p->weight : 0;
}

static const plumb_metric *metric(const char *name, const plumb_metric *metrics, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(metrics[i].name, name)) return &metrics[i];
    return NULL;
}

static void append(char *out, size_t room, const char *text) {
    size_t n = strlen(out);
    snprintf(out + n, room - n, "%s", text);
}

static void append_number(char *out, size_t room, const char *format, double value) {
    char text[64], number[48];
    if (isnan(value))
        snprintf(number, sizeof number, "nan"); /* printf may say -nan */
    else
        snprintf(number, sizeof number, strchr(format, '!') ? "%.0f" : "%.4g", value);
    const char *mark = strpbrk(format, "!#"); /* where the number goes: ! whole, # four digits */
    snprintf(text, sizeof text, "%.*s%s%s", (int)(mark - format), format, number, mark + 1);
    append(out, room, text);
}

static void append_bar(char *out, size_t room, int cells, int64_t step, int64_t total) {
    char bar[BAR_MAX + 4] = " [";
    int done = step >= total ? cells : (int)((double)step / (double)total * cells);
    for (int i = 0; i < cells; i++) bar[2 + i] = i < done ? '=' : i == done && step > 0 ? '>' : ' ';
    bar[2 + cells] = ']';
    bar[3 + cells] = 0;
    append(out, room, bar);
}

void plumb_progress_format(char *out, size_t room, int width, bool bar, int64_t step, int64_t total, double eta,
                           const plumb_metric *metrics, int count) {
    char head[64], tail[256] = "", time[32];
    const plumb_metric *reward = metric("reward", metrics, count), *kl = metric("kl", metrics, count);
    const plumb_metric *loss = metric("loss", metrics, count), *rate = metric("learning_rate", metrics, count),
                       *speed = metric("tokens_per_second", metrics, count);
    if (total > 0)
        snprintf(head, sizeof head, "step %lld/%lld", (long long)step, (long long)total);
    else
        snprintf(head, sizeof head, "step %lld", (long long)step);
    if (reward) append_number(tail, sizeof tail, "  reward #", reward->value);
    if (kl) append_number(tail, sizeof tail, "  kl #", kl->value);
    if (loss) append_number(tail, sizeof tail, "  loss #", loss->value);
    if (rate) append_number(tail, sizeof tail, "  lr #", rate->value);
    if (speed) append_number(tail, sizeof tail, "  ! tok/s", speed->value);
    if (eta >= 0) {
        plumb_progress_duration(time, sizeof time, eta);
        append(tail, sizeof tail, "  ETA ");
        append(tail, sizeof tail, time);
    }
    out[0] = 0;
    append(out, room, head);
    int spare = width - (int)strlen(head) - (int)strlen(tail) - 3; /* what a bar may have between its brackets */
    if (bar && total > 0 && spare >= BAR_MIN) append_bar(out, room, spare < BAR_MAX ? spare : BAR_MAX, step, total);
    append(out, room, tail);
    if (bar && (int)strlen(out) > width) out[width] = 0;
}

/* An evaluation: every metric by name. */
static void format_metrics(plumb_str *out, int64_t step, const plumb_metric *metrics, int count) {
    char text[128];
    plumb_status status = plumb_str_printf(out, "step %lld", (long long)step);
    for (int i = 0; i < count && status == PLUMB_OK; i++) {
        text[0] = 0;
        append_number(text, sizeof text, " #", metrics[i].value);
        status = plumb_str_printf(out, "  %s%s", metrics[i].name, text);
    }
    if (status != PLUMB_OK) out->length = 0; /* out of memory: say nothing rather than half a line */
}

/* --- the screen ------------------------------------------------------------------------------- */
void plumb_progress_start(plumb_progress *p, int64_t total, int64_t first_step) {
    *p = (plumb_progress){
        .bar = wants_bar(), .total = total, .last_step = first_step, .last_time = plumb_clock(), .drawn_at = -1};
}

void plumb_progress_print(plumb_progress *p, const char *text) {
    plumb_str out = {0};
    plumb_status status = plumb_str_printf(&out, "%s%s\n%s", p->shown ? "\r\033[K" : "", text, p->shown ? p->line : "");
    if (status == PLUMB_OK) write_all(&out);
    plumb_str_free(&out);
}

static void draw(plumb_progress *p) {
    fprintf(stderr, "\r%s\033[K", p->line);
    fflush(stderr);
    p->shown = true;
}

void plumb_progress_step(plumb_progress *p, int64_t step, const plumb_metric *metrics, int count) {
    if (!metric("loss", metrics, count)) {
        plumb_str line = {0};
        format_metrics(&line, step, metrics, count);
        if (line.length) plumb_progress_print(p, line.data);
        plumb_str_free(&line);
        return;
    }
    double now = plumb_clock(), eta = plumb_progress_eta(p, step, now);
    int width = p->bar ? window_width() - 1 : PROGRESS_LINE - 1;
    if (width > PROGRESS_LINE - 1) width = PROGRESS_LINE - 1;
    plumb_progress_format(p->line, sizeof p->line, width, p->bar, step, p->total, eta, metrics, count);
    if (!p->bar) {
        plumb_progress_print(p, p->line);
    } else if (!p->shown || now - p->drawn_at >= redraw_seconds || step >= p->total) {
        p->drawn_at = now;
        draw(p);
    }
}

void plumb_progress_inside(plumb_progress *p, const char *what, int64_t done, int64_t of, double tokens_per_second) {
    double now = plumb_clock();
    if (!p->bar || (p->shown && now - p->drawn_at < redraw_seconds)) return;
    char line[128] = "";
    if (tokens_per_second > 0) append_number(line, sizeof line, "  ! tok/s", tokens_per_second);
    fprintf(stderr, "\r%.200s  | %s %lld/%lld%s\033[K", p->line, what, (long long)done, (long long)of, line);
    fflush(stderr);
    p->shown = true, p->drawn_at = now;
}

void plumb_progress_stop(plumb_progress *p) {
    if (!p->shown) return;
    fprintf(stderr, "\r%s\033[K\n", p->line); /* the last state, also when its turn to be drawn had not come */
    fflush(stderr);
    p->shown = false;
}
