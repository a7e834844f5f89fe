/* metrics.jsonl as series of points.
 *
 * The file may be of a run that is going on or was killed: its last line may be half a line. Lines that are no metrics are counted and
 * passed over. A number that is not finite is written as a string ("NaN", "Infinity", "-Infinity"): a gap. When a step comes again, it
 * was computed again after the run was resumed: what was there from that step on is dropped. */
#include "report_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LARGE = 1e100; /* beyond it a value counts as infinite: no drawing can hold it beside others */
enum { NAMES = 1024 }; /* of metrics; a file with more is not ours, and would make a page of that many drawings */

void report_history_free(report_history *h) {
    for (size_t i = 0; i < h->count; i++) {
        free(h->items[i].name);
        free(h->items[i].x);
        free(h->items[i].y);
    }
    free(h->items);
    *h = (report_history){0};
}

const report_series *report_find(const report_history *h, const char *name) {
    for (size_t i = 0; i < h->count; i++)
        if (!strcmp(h->items[i].name, name)) return &h->items[i];
    return NULL;
}

/* The series of a name, made when it is new; names come in the same order on every line, so the one after the last found is tried first.
 * *s is NULL where there are too many. */
static plumb_status series_of(report_history *h, const char *name, size_t *hint, report_series **s) {
    for (size_t k = 0; k < h->count; k++) {
        size_t i = (*hint + k) % h->count;
        if (strcmp(h->items[i].name, name)) continue;
        *hint = i + 1, *s = &h->items[i];
        return PLUMB_OK;
    }
    *s = NULL;
    if (h->count == NAMES) return PLUMB_OK;
    PLUMB_TRY(plumb_grow(&h->items, &h->capacity, h->count + 1, sizeof *h->items));
    report_series fresh = {0};
    PLUMB_TRY(plumb_alloc(&fresh.name, strlen(name) + 1, 1, "a metric's name"));
    strcpy(fresh.name, name);
    h->items[h->count] = fresh;
    *s = &h->items[h->count++], *hint = h->count;
    return PLUMB_OK;
}

static plumb_status add_point(report_series *s, double x, double y) {
    while (s->n && s->x[s->n - 1] >= x) s->gaps -= isnan(s->y[--s->n]) != 0;
    PLUMB_TRY(plumb_grow(&s->x, &s->cap_x, s->n + 1, sizeof *s->x));
    PLUMB_TRY(plumb_grow(&s->y, &s->cap_y, s->n + 1, sizeof *s->y));
    s->x[s->n] = x, s->y[s->n++] = y;
    s->gaps += isnan(y) != 0;
    return PLUMB_OK;
}

/* Whether the value is a number, or one that JSON has no digits for (*y is NaN then). */
static bool value_of(const json_t *v, double *y) {
    const char *text = json_string_value(v);
    *y = NAN;
    if (json_is_number(v)) {
        *y = json_number_value(v);
        if (!(fabs(*y) <= LARGE)) *y = NAN;
        return true;
    }
    return text && (!strcmp(text, "NaN") || !strcmp(text, "Infinity") || !strcmp(text, "-Infinity"));
}

static plumb_status take_line(report_history *h, const json_t *object, bool *taken) {
    const json_t *step = json_object_get(object, "step");
    const char *name;
    json_t *value;
    size_t hint = 0;
    double x, y;
    *taken = json_is_number(step);
    if (!*taken) return PLUMB_OK;
    x = json_number_value(step);
    json_object_foreach((json_t *)object, name, value) {
        report_series *s;
        if (!strcmp(name, "step") || !value_of(value, &y)) continue;
        PLUMB_TRY(series_of(h, name, &hint, &s));
        if (s) PLUMB_TRY(add_point(s, x, y));
    }
    return PLUMB_OK;
}

static plumb_status read_line(report_history *h, const char *line, size_t length, const char *path) {
    json_t *object;
    bool taken = false;
    plumb_status status = plumb_json_parse(&object, line, length, path, (int)plumb_min64(h->lines + 1, INT32_MAX));
    if (status == PLUMB_OK) {
        status = take_line(h, object, &taken);
        json_decref(object);
    } else if (status == PLUMB_E_FORMAT) {
        status = PLUMB_OK;
    }
    h->bad += !taken;
    return status;
}

plumb_status report_history_read(report_history *h, const char *path) {
    char *text;
    size_t size;
    plumb_status status = PLUMB_OK;
    *h = (report_history){.missing = !plumb_path_exists(path)};
    if (h->missing) return PLUMB_OK;
    PLUMB_TRY(plumb_read_file(path, &text, &size));
    for (size_t i = 0; i < size && status == PLUMB_OK; h->lines++) {
        const char *end = memchr(text + i, '\n', size - i);
        size_t length = end ? (size_t)(end - (text + i)) : size - i;
        int64_t bad = h->bad;
        status = read_line(h, text + i, length, path);
        if (!end && h->bad > bad) h->unfinished = true, h->bad = bad;
        i += length + 1;
    }
    free(text);
    h->first = INFINITY, h->last = -INFINITY;
    for (size_t i = 0; i < h->count; i++) {
        const report_series *s = &h->items[i];
        if (s->n) h->first = fmin(h->first, s->x[0]), h->last = fmax(h->last, s->x[s->n - 1]);
    }
    if (!(h->first <= h->last)) h->first = h->last = 0;
    if (status != PLUMB_OK) report_history_free(h);
    return status;
}
