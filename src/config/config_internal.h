/* What the files of src/config share: one load in progress, and how a value found somewhere becomes a field.
 *
 *     yaml.c      events of a file -----+
 *     override.c  key=value ------------+--> bind.c: find the row, note the place --> value.c: text to field
 *     options.c   defaults of the table +
 *
 * Every source goes through the same two functions, so that a file, an argument and a default obey the same rules; only
 * the place in the message differs. */
#ifndef PLUMB_CONFIG_INTERNAL_H
#define PLUMB_CONFIG_INTERNAL_H
#include "plumb/config.h"

enum { KEY_MAX = 96, ALL_COMMANDS = 2047 };

typedef struct plumb_place { /* where a value was written; all zero: nowhere, a default */
    int line, column;        /* in the file, from 1 */
    int argument;            /* on the command line, from 1 */
} plumb_place;

typedef struct plumb_binding { /* one load in progress */
    plumb_options *options;    /* borrowed */
    int command;
    const char *name;    /* of the file, for messages; borrowed */
    plumb_place *places; /* [plumb_option_count], owned */
} plumb_binding;

typedef struct plumb_scalar { /* borrowed */
    const char *text;         /* NUL after the last byte */
    size_t length;
    bool quoted; /* or a block scalar: text, whatever it looks like */
} plumb_scalar;

/* --- bind.c --- */
/* Row of `key` for the command, NULL when it has none. */
const plumb_option *plumb_config_find(int command, const char *key);
/* True when keys "prefix.something" exist for the command. */
bool plumb_config_is_group(int command, const char *prefix);
/* The error for a key without a row: a group, another command's key, a peer's name, the nearest name. */
plumb_status plumb_config_unknown(const plumb_binding *b, plumb_place at, const char *key) PLUMB_CHECKED;
/* PLUMB_E_CONFIG with "FILE:LINE:COLUMN: key: …" or "argument N: key: …". key may be NULL. */
plumb_status plumb_config_fault(const plumb_binding *b, plumb_place at, const char *key, const char *format,
                                ...) PLUMB_CHECKED __attribute__((format(printf, 4, 5)));
/* "found FOUND; expected WHAT" for a row. */
plumb_status plumb_config_mismatch(const plumb_binding *b, plumb_place at, const plumb_option *row,
                                   const char *found) PLUMB_CHECKED;
plumb_status plumb_config_set_scalar(plumb_binding *b, const plumb_option *row, plumb_place at,
                                     plumb_scalar value) PLUMB_CHECKED;
/* Takes the items and their array over, also on error. */
plumb_status plumb_config_set_list(plumb_binding *b, const plumb_option *row, plumb_place at, char **items,
                                   int count) PLUMB_CHECKED;
void plumb_config_free_list(char **items, int count);
plumb_place plumb_config_place(const plumb_binding *b, const char *key);
plumb_status plumb_config_copy(char **out, const char *text, size_t length) PLUMB_CHECKED;

/* --- value.c --- */
plumb_status plumb_config_parse_int(const plumb_binding *b, plumb_place at, const plumb_option *row, plumb_scalar value,
                                    int64_t *out) PLUMB_CHECKED;
plumb_status plumb_config_parse_float(const plumb_binding *b, plumb_place at, const plumb_option *row,
                                      plumb_scalar value, double *out) PLUMB_CHECKED;
bool plumb_config_is_null(plumb_scalar value);
/* Length of the UTF-8 character at text (1 to 4) and its code; 0 when it is not one. */
int plumb_config_utf8(const char *text, size_t length, uint32_t *code);
/* Text for a message: in quotes, control characters shown as '?', cut at a character. Returns `buffer`. */
enum { EXCERPT_SIZE = 96 };
const char *plumb_config_excerpt(char buffer[EXCERPT_SIZE], const char *text, size_t length);
/* "a whole number from 1 to 8": what a row accepts, for messages and pages. */
plumb_status plumb_config_expected(const plumb_option *row, plumb_str *out) PLUMB_CHECKED;

/* --- hints.c: what other programs call it; NULL when unknown --- */
const char *plumb_config_hint(const char *key);

/* --- yaml.c, the only file that knows libyaml --- */
plumb_status plumb_config_read_yaml(plumb_binding *b, const char *text, size_t size) PLUMB_CHECKED;
/* "[a, 'b']" of an argument or a default. */
plumb_status plumb_config_read_flow_list(plumb_binding *b, const plumb_option *row, plumb_place at,
                                         const char *text) PLUMB_CHECKED;

/* --- override.c --- */
plumb_status plumb_config_override(plumb_binding *b, const char *argument, int position) PLUMB_CHECKED;
plumb_status plumb_config_set_text(plumb_binding *b, const plumb_option *row, plumb_place at,
                                   const char *text) PLUMB_CHECKED;
/* Length of the key when the argument is key=value, else 0. */
size_t plumb_config_key_length(const char *argument);

/* --- check.c: rules between keys; what is required --- */
plumb_status plumb_config_check(plumb_binding *b) PLUMB_CHECKED;
plumb_status plumb_config_check_required(const plumb_options *o, int command, const char *path) PLUMB_CHECKED;

/* --- load.c --- */
typedef struct plumb_sources {
    const char *path;        /* file to read; NULL: text, or nothing */
    const char *text, *name; /* YAML in memory */
    size_t size;
    char *const *overrides; /* borrowed */
    const int *positions;   /* of the overrides on the command line; NULL: 1, 2, … */
    int n_overrides;
} plumb_sources;
plumb_status plumb_config_load(plumb_options *o, int command, const plumb_sources *from) PLUMB_CHECKED;
#endif
