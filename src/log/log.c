/* metrics.jsonl and the way to the screen.
 *
 * A line of metrics.jsonl is one write to a file opened for appending: whoever follows the file sees whole lines. Where
 * a write fails half-way (a full disk), the file is cut back to its last whole line, so that it stays readable and a
 * later line does not run into the torn one. Numbers have nine digits, enough for every float. */
#include "log_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/io.h"

struct plumb_log {
    plumb_progress progress;
    int fd;     /* of metrics.jsonl; -1: none */
    char *path; /* owned */
    plumb_str line;
};

void plumb_log_close(plumb_log *l) {
    if (!l) return;
    plumb_progress_stop(&l->progress);
    if (l->fd >= 0) close(l->fd);
    plumb_str_free(&l->line);
    free(l->path);
    free(l);
}

static plumb_status open_metrics(plumb_log *l, const char *dir, int64_t resume_step) {
    PLUMB_TRY(plumb_make_dirs(dir));
    PLUMB_TRY(plumb_path_join(&l->path, dir, "metrics.jsonl"));
    PLUMB_TRY(plumb_log_trim_history(l->path, resume_step));
    l->fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    return l->fd >= 0 ? PLUMB_OK
                      : plumb_error(PLUMB_E_IO, "%.400s: cannot open for writing: %s", l->path, strerror(errno));
}

plumb_status plumb_log_open(plumb_log **out, const char *dir, int64_t total_steps, int64_t resume_step) {
    plumb_log *l;
    *out = NULL;
    PLUMB_TRY(plumb_alloc(&l, 1, sizeof *l, "the log"));
    l->fd = -1;
    plumb_status status = dir ? open_metrics(l, dir, resume_step) : PLUMB_OK;
    if (status != PLUMB_OK) {
        plumb_log_close(l);
        return status;
    }
    plumb_progress_start(&l->progress, total_steps, resume_step);
    *out = l;
    return PLUMB_OK;
}

/* --- metrics.jsonl ---------------------------------------------------------------------------- */
static plumb_status append_name(plumb_str *out, const char *name) {
    PLUMB_TRY(plumb_str_append(out, ", \"", 3));
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        if (c == '"' || c == '\\')
            PLUMB_TRY(plumb_str_printf(out, "\\%c", c));
        else if (c < 0x20)
            PLUMB_TRY(plumb_str_printf(out, "\\u%04x", c));
        else
            PLUMB_TRY(plumb_str_append(out, name, 1));
    }
    return plumb_str_append(out, "\": ", 3);
}

static plumb_status append_value(plumb_str *out, double value) {
    if (isnan(value)) return plumb_str_printf(out, "\"NaN\"");
    if (isinf(value)) return plumb_str_printf(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    return plumb_str_printf(out, "%.9g", value);
}

static plumb_status format_line(plumb_str *out, int64_t step, const plumb_metric *metrics, int count) {
    out->length = 0;
    PLUMB_TRY(plumb_str_printf(out, "{\"step\": %lld", (long long)step));
    for (int i = 0; i < count; i++) {
        PLUMB_TRY(append_name(out, metrics[i].name));
        PLUMB_TRY(append_value(out, metrics[i].value));
    }
    return plumb_str_append(out, "}\n", 2);
}

static plumb_status write_line(plumb_log *l) {
    off_t before = lseek(l->fd, 0, SEEK_END);
    for (size_t done = 0; done < l->line.length;) {
        ssize_t n = write(l->fd, l->line.data + done, l->line.length - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            plumb_status status =
                plumb_error(PLUMB_E_IO, "%.400s: cannot write: %s", l->path, strerror(n < 0 ? errno : ENOSPC));
            if (before >= 0 && done > 0 && ftruncate(l->fd, before) != 0)
                status = plumb_error_prefix(status,
                                            "its last line is incomplete"); /* a device, or a file system in trouble */
            return status;
        }
        done += (size_t)n;
    }
    return PLUMB_OK;
}

plumb_status plumb_log_step(plumb_log *l, int64_t step, const plumb_metric *metrics, int count) {
    if (!l) return PLUMB_OK;
    plumb_progress_step(&l->progress, step, metrics, count);
    if (l->fd < 0) return PLUMB_OK;
    PLUMB_TRY(format_line(&l->line, step, metrics, count));
    return write_line(l);
}

void plumb_log_progress(plumb_log *l, const char *what, int64_t done, int64_t of, double tokens_per_second) {
    if (l) plumb_progress_inside(&l->progress, what, done, of, tokens_per_second);
}

/* --- messages --------------------------------------------------------------------------------- */
void plumb_log_line(plumb_log *l, const char *format, ...) {
    if (!l) return;
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int n = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (n < 0) return;
    if (n > 0 && text[n - 1] == '\n') text[n - 1] = 0; /* one line, whether the caller ends it or not */
    plumb_progress_print(&l->progress, text);
    free(text);
}
