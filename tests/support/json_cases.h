/* Golden cases for tests: a small JSON reader, so that a test of a low library needs no other library.
 *
 * The files are ours and small: a fault in one is a failed test, said with file and offset, not an error to handle.
 * Nodes of a tree are linked by first child and next sibling; strings are kept with their escapes undone. */
#ifndef PLUMB_TEST_JSON_CASES_H
#define PLUMB_TEST_JSON_CASES_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum golden_kind {
    GOLDEN_NULL,
    GOLDEN_BOOL,
    GOLDEN_NUMBER,
    GOLDEN_STRING,
    GOLDEN_ARRAY,
    GOLDEN_OBJECT
} golden_kind;
typedef struct golden_node {
    golden_kind kind;
    char *key, *text; /* key of a member; value of a string */
    double number;    /* of a number; 0 or 1 of a boolean */
    int64_t count;    /* children */
    struct golden_node *child, *next;
} golden_node;

typedef struct golden_reader {
    const char *file, *begin, *at;
} golden_reader;

static inline void golden_fault(const golden_reader *r, const char *what) {
    fprintf(stderr, "%s: byte %ld: %s\n", r->file, (long)(r->at - r->begin), what);
    exit(2);
}

static inline void *golden_memory(size_t size) {
    void *block = calloc(1, size);
    if (!block) abort();
    return block;
}

static inline void golden_space(golden_reader *r) {
    r->at += strspn(r->at, " \t\r\n");
}

static inline void golden_utf8(char **out, unsigned code) {
    if (code < 0x80)
        *(*out)++ = (char)code;
    else {
        int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
        *(*out)++ = (char)(lead[more] | code >> (6 * more));
        while (more--) *(*out)++ = (char)(0x80 | (code >> (6 * more) & 63));
    }
}

static inline unsigned golden_hex4(golden_reader *r) {
    char digits[5] = {0};
    strncpy(digits, r->at, 4);
    if (strspn(digits, "0123456789abcdefABCDEF") != 4) golden_fault(r, "bad \\u escape");
    r->at += 4;
    return (unsigned)strtoul(digits, NULL, 16);
}

static inline char *golden_string(golden_reader *r) {
    if (*r->at++ != '"') golden_fault(r, "a string was expected");
    const char *end = r->at;
    while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
    if (!*end) golden_fault(r, "unfinished string");
    char *text = golden_memory((size_t)(end - r->at) + 1), *out = text;
    while (r->at < end) {
        if (*r->at != '\\') {
            *out++ = *r->at++;
            continue;
        }
        r->at++;
        char c = *r->at++;
        if (c == 'u') {
            unsigned code = golden_hex4(r);
            if (code >= 0xD800 && code < 0xDC00 && r->at[0] == '\\' && r->at[1] == 'u') {
                r->at += 2;
                code = 0x10000 + ((code - 0xD800) << 10) + (golden_hex4(r) - 0xDC00);
            }
            golden_utf8(&out, code);
        } else {
            const char *from = "nrtbf", *to = "\n\r\t\b\f", *found = strchr(from, c);
            *out++ = found ? to[found - from] : c;
        }
    }
    r->at = end + 1;
    return text;
}

static inline golden_node *golden_value(golden_reader *r) {
    golden_node *node = golden_memory(sizeof *node);
    golden_space(r);
    char c = *r->at;
    if (c == '"') {
        node->kind = GOLDEN_STRING;
        node->text = golden_string(r);
    } else if (c == '[' || c == '{') {
        node->kind = c == '[' ? GOLDEN_ARRAY : GOLDEN_OBJECT;
        golden_node **link = &node->child;
        r->at++;
        for (golden_space(r); *r->at != ']' && *r->at != '}'; golden_space(r)) {
            if (node->count && *r->at++ != ',') golden_fault(r, "a comma was expected");
            golden_space(r);
            char *key = NULL;
            if (c == '{') {
                key = golden_string(r);
                golden_space(r);
                if (*r->at++ != ':') golden_fault(r, "a colon was expected");
            }
            *link = golden_value(r);
            (*link)->key = key;
            link = &(*link)->next;
            node->count++;
        }
        r->at++;
    } else if (!strncmp(r->at, "null", 4)) {
        r->at += 4;
    } else if (!strncmp(r->at, "true", 4) || !strncmp(r->at, "false", 5)) {
        node->kind = GOLDEN_BOOL;
        node->number = c == 't';
        r->at += c == 't' ? 4 : 5;
    } else {
        char *end;
        node->kind = GOLDEN_NUMBER;
        node->number = strtod(r->at, &end);
        if (end == r->at) golden_fault(r, "a value was expected");
        r->at = end;
    }
    return node;
}

/* The tree of a file; freed by golden_free. */
static inline golden_node *golden_load(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = golden_memory((size_t)size + 1);
    if (fread(text, 1, (size_t)size, f) != (size_t)size) abort();
    fclose(f);
    golden_reader r = {path, text, text};
    golden_node *root = golden_value(&r);
    free(text);
    return root;
}

static inline void golden_free(golden_node *node) {
    while (node) {
        golden_node *next = node->next;
        golden_free(node->child);
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
}

static inline const golden_node *golden_get(const golden_node *object, const char *key) { /* NULL when absent */
    for (const golden_node *n = object->child; n; n = n->next)
        if (n->key && !strcmp(n->key, key)) return n;
    return NULL;
}
static inline const golden_node *golden_need(const golden_node *object, const char *key) {
    const golden_node *n = golden_get(object, key);
    if (!n) {
        fprintf(stderr, "a golden case has no \"%s\"\n", key);
        exit(2);
    }
    return n;
}
static inline const golden_node *golden_item(const golden_node *array, int64_t index) { /* NULL past the end */
    const golden_node *n = array->child;
    while (n && index--) n = n->next;
    return n;
}
static inline double golden_number_or(const golden_node *object, const char *key, double fallback) {
    const golden_node *n = golden_get(object, key);
    return n && n->kind == GOLDEN_NUMBER ? n->number : fallback;
}
static inline const char *golden_text(const golden_node *object, const char *key) {
    return golden_need(object, key)->text;
}

/* The numbers of an array, in memory the caller frees. */
static inline double *golden_doubles(const golden_node *array, int64_t *count) {
    double *out = golden_memory(sizeof *out * (size_t)(array->count + 1));
    int64_t i = 0;
    for (const golden_node *n = array->child; n; n = n->next) out[i++] = n->number;
    if (count) *count = array->count;
    return out;
}
#endif
