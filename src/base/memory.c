/* Allocation that reports what was asked for, growing arrays and strings. */
#include "plumb/base.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long fail_after;
void plumb_alloc_fail_after(long n) { fail_after = n; }

static bool allocation_fails(void) { return fail_after > 0 && --fail_after == 0; }

plumb_status plumb_alloc(void *out, size_t count, size_t size, const char *what) {
    void *block = NULL;
    if (!allocation_fails()) block = calloc(count ? count : 1, size ? size : 1); /* calloc checks the product */
    memcpy(out, &block, sizeof block);
    if (!block) return plumb_error(PLUMB_E_MEMORY, "out of memory: %zu x %zu bytes for %s", count, size, what);
    return PLUMB_OK;
}

plumb_status plumb_grow(void *block, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return PLUMB_OK;
    size_t wanted = *capacity ? *capacity : 16;
    while (wanted < need) {
        if (wanted > SIZE_MAX / 2) return plumb_error(PLUMB_E_MEMORY, "out of memory: array of %zu elements", need);
        wanted *= 2;
    }
    void *old, *grown = NULL;
    memcpy(&old, block, sizeof old);
    if (!allocation_fails()) grown = reallocarray(old, wanted, size);
    if (!grown) return plumb_error(PLUMB_E_MEMORY, "out of memory: array of %zu x %zu bytes", wanted, size);
    memcpy(block, &grown, sizeof grown);
    *capacity = wanted;
    return PLUMB_OK;
}

plumb_status plumb_str_append(plumb_str *s, const void *bytes, size_t n) {
    if (n > SIZE_MAX - s->length - 1) return plumb_error(PLUMB_E_MEMORY, "out of memory: string of %zu bytes", n);
    PLUMB_TRY(plumb_grow(&s->data, &s->capacity, s->length + n + 1, 1));
    if (n) memcpy(s->data + s->length, bytes, n);
    s->length += n;
    s->data[s->length] = 0;
    return PLUMB_OK;
}

plumb_status plumb_str_printf(plumb_str *s, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    plumb_status status = n < 0 ? plumb_error(PLUMB_E_MEMORY, "cannot format a string")
                                : plumb_grow(&s->data, &s->capacity, s->length + (size_t)n + 1, 1);
    if (status == PLUMB_OK) {
        vsnprintf(s->data + s->length, (size_t)n + 1, format, again);
        s->length += (size_t)n;
    }
    va_end(again);
    return status;
}

void plumb_str_free(plumb_str *s) {
    free(s->data);
    *s = (plumb_str){0};
}
