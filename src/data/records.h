/* Records of a file: a list of JSON objects with a place to name in messages. */
#ifndef PLUMB_DATA_RECORDS_H
#define PLUMB_DATA_RECORDS_H
#include "plumb/io.h"

typedef struct line {
    size_t offset, length;
    int64_t number;
} line; /* number from 1, blank lines counted */

typedef struct records { /* zero-initialise; borrows text and path; free with records_free */
    const char *path, *text;
    json_t *array; /* a JSON array, or NULL for lines */
    line *lines;
    size_t capacity;
    int64_t count;
} records;

plumb_status records_open(records *r, const char *path, const char *text, size_t size) PLUMB_CHECKED;
/* The object of record `index`: a new reference. Text that is no JSON object is an error that names its place. */
plumb_status records_parse(const records *r, int64_t index, json_t **object) PLUMB_CHECKED;
/* Puts "FILE:LINE: " or "FILE: record N: " before the recorded message; returns `code`. */
plumb_status records_blame(const records *r, int64_t index, plumb_status code);
void records_free(records *r);
/* The value of a field; NULL when it is absent or null. */
const json_t *json_present(const json_t *record, const char *field);
/* "a string", "a number", …, for messages. */
const char *json_kind_name(const json_t *value);
#endif
