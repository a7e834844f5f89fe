/* What the files of src/config share: one load in progress, and how a value found somewhere becomes a field.
 *
 *     yaml.c      events of a file -----+
 *     override.c  key=value ------------+--> bind.c: find the row, note the place --> value.c: text to field
 *     options.c   defaults of the table +
 *     pipeline.c  parts of a file ------+--> reference.c: ${stage.adapter} to a path, before the field is set
 *
 * Every source goes through the same two functions, so that a file, an argument and a default obey the same rules; only
 * the place in the message differs. */
#ifndef PLUMB_CONFIG_INTERNAL_H
#define PLUMB_CONFIG_INTERNAL_H
#include "plumb/config.h"

enum { KEY_MAX = 96, ALL_COMMANDS = 1023, PLUMB_PATH_BYTES = 4095 /* of a path, at most: no other row has this range */ };

typedef struct plumb_place { /* where a value was written; all zero: nowhere, a default */
    int line, column;        /* in the file, from 1 */
    int argument;            /* on the command line, from 1 */
    int part;                /* of the file, where it has several */
    uint64_t refers;         /* bit j: the value names stage j of a pipeline, by ${NAME.product} */
} plumb_place;

/* A file may be one mapping of options, or have parts that are bound one after the other (a pipeline). */
typedef enum plumb_part {
    PLUMB_PART_WHOLE,
    PLUMB_PART_DEFAULTS, /* keys that another stage's command knows are passed over */
    PLUMB_PART_STAGE     /* so are name and command, which say what the stage is */
} plumb_part;

typedef struct plumb_binding { /* one load in progress */
    plumb_options *options;    /* borrowed */
    int command;
    const char *name;    /* of the file, for messages; borrowed */
    plumb_place *places; /* [plumb_option_count], owned */
    plumb_part part;
    int commands;                         /* of a pipeline: all that its stages are */
    const struct plumb_stages *earlier; /* the stages that ${NAME.product} may name; NULL: ${ is plain text */
} plumb_binding;

typedef struct plumb_scalar { /* borrowed */
    const char *text;         /* NUL after the last byte */
    size_t length;
    bool quoted; /* or a block scalar: text, whatever it looks like */
} plumb_scalar;

/* --- bind.c ----------------------------------------------------------------------------------- */
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

/* --- value.c ---------------------------------------------------------------------------------- */
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

/* --- hints.c: what other programs call it; NULL when unknown ---------------------------------- */
const char *plumb_config_hint(const char *key);

/* --- yaml.c, the only file that knows libyaml ------------------------------------------------- */
typedef struct plumb_yaml plumb_yaml; /* a document that is kept, to be walked and bound in parts */
typedef enum plumb_yaml_kind { PLUMB_YAML_SCALAR, PLUMB_YAML_LIST, PLUMB_YAML_MAPPING } plumb_yaml_kind;
typedef struct plumb_yaml_node { /* borrows from the document */
    plumb_yaml_kind kind;
    plumb_place at;
    plumb_scalar scalar;
    size_t event; /* its first */
} plumb_yaml_node;
typedef struct plumb_yaml_walk { size_t event; bool mapping; } plumb_yaml_walk;
/* The whole document, anchors, tags and syntax errors refused; *root is its one value. b->name serves messages. */
plumb_status plumb_yaml_open(plumb_yaml **out, const plumb_binding *b, const char *text, size_t size,
                             plumb_yaml_node *root) PLUMB_CHECKED;
void plumb_yaml_close(plumb_yaml *y);
/* The entries of a mapping or list, one after the other: plumb_yaml_enter, then plumb_yaml_next while it returns true. key
 * is NULL for a list. */
plumb_yaml_walk plumb_yaml_enter(const plumb_yaml_node *node);
bool plumb_yaml_next(const plumb_yaml *y, plumb_yaml_walk *walk, plumb_yaml_node *key, plumb_yaml_node *value);
/* Binds a mapping of the document, as b->part says. */
plumb_status plumb_yaml_bind(plumb_binding *b, const plumb_yaml *y, const plumb_yaml_node *mapping) PLUMB_CHECKED;
plumb_status plumb_config_read_yaml(plumb_binding *b, const char *text, size_t size) PLUMB_CHECKED;
/* "[a, 'b']" of an argument or a default. */
plumb_status plumb_config_read_flow_list(plumb_binding *b, const plumb_option *row, plumb_place at,
                                         const char *text) PLUMB_CHECKED;

/* --- override.c ------------------------------------------------------------------------------- */
plumb_status plumb_config_override(plumb_binding *b, const char *argument, int position) PLUMB_CHECKED;
plumb_status plumb_config_set_text(plumb_binding *b, const plumb_option *row, plumb_place at,
                                   const char *text) PLUMB_CHECKED;
/* Length of the key when the argument is key=value, else 0. */
size_t plumb_config_key_length(const char *argument);

/* --- check.c: rules between keys; what is required -------------------------------------------- */
plumb_status plumb_config_check(plumb_binding *b) PLUMB_CHECKED;
plumb_status plumb_config_check_required(const plumb_options *o, int command, const char *path) PLUMB_CHECKED;

/* --- load.c ----------------------------------------------------------------------------------- */
/* The steps of a load, for those that have other sources than one file: defaults; then what follows from other
 * keys, and the rules between keys. */
plumb_status plumb_config_set_defaults(plumb_binding *b) PLUMB_CHECKED;
plumb_status plumb_config_finish(plumb_binding *b) PLUMB_CHECKED;
enum { PLUMB_CONFIG_FILE_MAX = 1 << 20 };
typedef struct plumb_sources {
    const char *path;        /* file to read; NULL: text, or nothing */
    const char *text, *name; /* YAML in memory */
    size_t size;
    char *const *overrides; /* borrowed */
    const int *positions;   /* of the overrides on the command line; NULL: 1, 2, … */
    int n_overrides;
} plumb_sources;
plumb_status plumb_config_load(plumb_options *o, int command, const plumb_sources *from) PLUMB_CHECKED;

/* --- identity.c ------------------------------------------------------------------------------- */
uint64_t plumb_config_hash(const void *bytes, size_t size, uint64_t seed);

/* --- reference.c ------------------------------------------------------------------------------ */
/* The text with every ${NAME.product} of an earlier stage put in, and noted in at->refers; $${ is ${. *out is owned by the caller. */
plumb_status plumb_config_expand(const plumb_binding *b, plumb_place *at, const char *key, const char *text, size_t length,
                                 char **out) PLUMB_CHECKED;
/* Sets the path of what a stage is for; its folder and options are known. */
struct plumb_stage;
plumb_status plumb_config_product(struct plumb_stage *s) PLUMB_CHECKED;

/* --- stage_files.c ---------------------------------------------------------------------------- */
/* Whether two paths are one as written, from the root, "." and ".." resolved: whatever is there. */
bool plumb_config_same_text(const char *a, const char *b);
bool plumb_config_lies_in(const char *path, const char *place); /* in the same way: is it the place, or in that folder? */
/* The path that a stage reads by this key; NULL: none. */
const char *plumb_config_input(const struct plumb_stage *s, const plumb_option *row);
/* Stage k, whose product is known, against itself and those before it: a file or folder of its own, nothing that was read by then
 * written over, records that it can read. */
plumb_status plumb_config_check_stage_files(const plumb_binding *b, const struct plumb_stages *p, int k) PLUMB_CHECKED;
#endif
