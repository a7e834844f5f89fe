/* A data file as a list of records: JSON Lines, or one JSON array.
 *
 * Lines are indexed first and parsed one at a time, so that a bad line spoils only itself and the tree of one record is
 * in memory, not that of the file.  An array is parsed whole: it has no other structure. */
#include "records.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !memcmp(text + n - m, end, m);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static plumb_status index_lines(records *r, size_t begin, size_t size) {
    int64_t number = 0;
    while (begin < size) {
        const char *newline = memchr(r->text + begin, '\n', size - begin);
        size_t end = newline ? (size_t)(newline - r->text) : size, first = begin;
        number++;
        while (first < end && is_blank(r->text[first])) first++;
        if (first < end) {
            PLUMB_TRY(plumb_grow(&r->lines, &r->capacity, (size_t)r->count + 1, sizeof *r->lines));
            r->lines[r->count++] = (line){begin, end - begin, number};
        }
        begin = end + 1;
    }
    return PLUMB_OK;
}

static plumb_status open_array(records *r, size_t size) {
    PLUMB_TRY(plumb_json_parse(&r->array, r->text, size, r->path, 1));
    if (!json_is_array(r->array))
        return plumb_error(PLUMB_E_DATA, "%s: found %s, expected an array of records", r->path,
                           json_kind_name(r->array));
    r->count = (int64_t)json_array_size(r->array);
    return PLUMB_OK;
}

plumb_status records_open(records *r, const char *path, const char *text, size_t size) {
    *r = (records){.path = path, .text = text};
    size_t begin = size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0, first = begin;
    while (first < size && is_blank(text[first])) first++;
    if (first == size)
        return plumb_error(PLUMB_E_DATA, "%s: the file is empty, expected JSON Lines or a JSON array of records", path);
    if (size >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        return plumb_error(PLUMB_E_DATA, "%s: the file is UTF-16, expected UTF-8 (iconv -f UTF-16 -t UTF-8)", path);

    bool lines = ends_with(path, ".jsonl") || ends_with(path, ".jsonl.gz") || text[first] != '[';
    plumb_status status = lines ? index_lines(r, begin, size) : open_array(r, size);
    if (status == PLUMB_OK && r->count == 0)
        status = plumb_error(PLUMB_E_DATA, "%s: the array is empty, expected records", path);
    if (status != PLUMB_OK) records_free(r);
    return status;
}

plumb_status records_parse(const records *r, int64_t index, json_t **object) {
    if (r->array) {
        *object = json_incref(json_array_get(r->array, (size_t)index));
    } else {
        const line *l = &r->lines[index];
        PLUMB_TRY(
            plumb_json_parse(object, r->text + l->offset, l->length, r->path, (int)plumb_min64(l->number, INT_MAX)));
    }
    if (json_is_object(*object)) return PLUMB_OK;
    plumb_status status = plumb_error(PLUMB_E_DATA, "found %s, expected an object", json_kind_name(*object));
    json_decref(*object);
    *object = NULL;
    return records_blame(r, index, status);
}

plumb_status records_blame(const records *r, int64_t index, plumb_status code) {
    if (r->array) return plumb_error_prefix(code, "%s: record %lld", r->path, (long long)index + 1);
    return plumb_error_prefix(code, "%s:%lld", r->path, (long long)r->lines[index].number);
}

void records_free(records *r) {
    json_decref(r->array);
    free(r->lines);
    *r = (records){0};
}

const json_t *json_present(const json_t *record, const char *field) {
    const json_t *value = json_object_get(record, field);
    return json_is_null(value) ? NULL : value;
}

const char *json_kind_name(const json_t *value) {
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: return "null";
    }
    return "an unknown value";
}
