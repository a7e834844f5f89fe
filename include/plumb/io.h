/* Files: mapping, lines, atomic writing, JSON and the two weight formats.  All local.
 * Nothing here trusts a file: every size, offset, count and string is checked against the file's length before use, with
 * arithmetic that cannot overflow; an error names the file and what was expected. */
#ifndef PLUMB_IO_H
#define PLUMB_IO_H
#include <jansson.h>
#include "plumb/base.h"

/* --- whole files ------------------------------------------------------------------------------ */
typedef struct plumb_map { /* read-only mapping; owns it until plumb_map_close */
    const uint8_t *data;
    size_t size;
} plumb_map;
plumb_status plumb_map_open(plumb_map *m, const char *path) PLUMB_CHECKED;
void plumb_map_close(plumb_map *m);
/* Gives back the pages of a mapping until they are read again. */
void plumb_map_release(const plumb_map *m);
/* Whole file into memory, gzip (by magic bytes) inflated; *out owned by the caller, NUL after the last byte. A truncated or
 * damaged stream is PLUMB_E_FORMAT, more than PLUMB_READ_MAX bytes (inflated or not) PLUMB_E_DATA. size may be NULL. */
#define PLUMB_READ_MAX ((size_t)16 << 30)
plumb_status plumb_read_file(const char *path, char **out, size_t *size) PLUMB_CHECKED;
/* The same with a smaller limit, for files that should be small. */
plumb_status plumb_read_file_max(const char *path, size_t limit, char **out, size_t *size) PLUMB_CHECKED;
bool plumb_path_exists(const char *path);
bool plumb_same_path(const char *a, const char *b); /* both are there, and are one file or folder, however they are written */
bool plumb_path_is_dir(const char *path);
bool plumb_path_is_file(const char *path); /* a regular one, through links: no device, no pipe */
plumb_status plumb_make_dirs(const char *path) PLUMB_CHECKED; /* mkdir -p */
/* Renames a file or folder to PATH.before-1 (-2, …, the first that is free) and says so on stderr. */
plumb_status plumb_set_aside(const char *path) PLUMB_CHECKED;
/* A folder, made where it is missing, that one process alone writes to, until it frees its last claim of it or ends: PLUMB_E_CONFIG after
 * five seconds, with host and pid of the other, when another process has it. */
typedef struct plumb_claim plumb_claim;
plumb_status plumb_claim_take(plumb_claim **out, const char *dir) PLUMB_CHECKED;
void plumb_claim_free(plumb_claim *c); /* NULL is fine */
/* "<dir>/<name>" into *out, owned by the caller. */
plumb_status plumb_path_join(char **out, const char *dir, const char *name) PLUMB_CHECKED;

/* --- atomic writing: beside the final name, fsync, rename, fsync of the folder ----------------
 * A link is followed: its target is replaced. What is no regular file (a device, a pipe) is written to as it is. */
typedef struct plumb_atomic plumb_atomic;
plumb_status plumb_atomic_open(plumb_atomic **f, const char *path) PLUMB_CHECKED;
plumb_status plumb_atomic_write(plumb_atomic *f, const void *bytes, size_t n) PLUMB_CHECKED; /* disk full -> PLUMB_E_IO */
plumb_status plumb_atomic_commit(plumb_atomic *f) PLUMB_CHECKED; /* frees f, also on error (file then absent) */
void plumb_atomic_abort(plumb_atomic *f);                        /* frees f, removes the unfinished file; NULL is fine */
plumb_status plumb_write_file(const char *path, const void *bytes, size_t n) PLUMB_CHECKED; /* the four in one */
/* With fsync of the folder. Where `to` is a link, a device or a pipe the bytes go there, and `from` is removed. */
plumb_status plumb_rename_file(const char *from, const char *to) PLUMB_CHECKED;
/* Keeps the first `keep` bytes of a file, made where missing, puts others behind them and flushes all to disk. A kill in the middle
 * leaves the first `keep` bytes and some more: who goes on says again what to keep. PLUMB_E_FORMAT when the file is shorter. */
plumb_status plumb_append_file(const char *path, size_t keep, const void *bytes, size_t n) PLUMB_CHECKED;
/* Before long work on a result: makes the folder of a file where it is missing; PLUMB_E_IO when it cannot be made or written to, or a
 * folder has the file's name. */
plumb_status plumb_prepare_file(const char *path) PLUMB_CHECKED;

/* --- JSON (jansson, duplicates rejected, depth limited) --------------------------------------- */
/* Errors read "FILE:LINE:COLUMN: …". `name` is used in messages only. */
plumb_status plumb_json_parse(json_t **out, const char *text, size_t size, const char *name, int first_line) PLUMB_CHECKED;
/* Whether text is one JSON value of any kind (RFC 8259; numbers within a double's range, no ill-formed
 * UTF-8 or surrogates). Only PLUMB_E_MEMORY. */
plumb_status plumb_json_check(const char *text, size_t size, bool *valid) PLUMB_CHECKED;
plumb_status plumb_json_load(json_t **out, const char *path) PLUMB_CHECKED; /* .gz too */

/* --- tensors in files ------------------------------------------------------------------------- */
typedef enum plumb_file_type { /* storage of a tensor in a file */
                               PLUMB_FT_F32,
                               PLUMB_FT_F16,
                               PLUMB_FT_BF16,
                               PLUMB_FT_F64,
                               PLUMB_FT_I64,
                               PLUMB_FT_I32,
                               PLUMB_FT_I16,
                               PLUMB_FT_I8,
                               PLUMB_FT_U8,
                               PLUMB_FT_BOOL,
                               PLUMB_FT_Q4_0,
                               PLUMB_FT_Q4_1,
                               PLUMB_FT_Q5_0,
                               PLUMB_FT_Q5_1,
                               PLUMB_FT_Q8_0,
                               PLUMB_FT_OTHER /* known to the format, not readable here; type_name says which */
} plumb_file_type;
const char *plumb_file_type_name(plumb_file_type t);
typedef struct plumb_file_tensor {
    char *name;             /* owned by the container */
    plumb_file_type type;
    const char *type_name;  /* as the format spells it, for messages */
    int n_dims;
    int64_t shape[4];       /* row-major, slowest first (GGUF's order is reversed on reading) */
    const uint8_t *data;    /* borrowed from the mapping */
    size_t bytes;
} plumb_file_tensor;
/* Converts `count` elements starting at element `first` (both multiples of 32 for quantised types) to float.
 * GGUF blocks are exact to the bit against gguf's own code. PLUMB_E_UNSUPPORTED names the type and those supported. */
plumb_status plumb_tensor_to_float(const plumb_file_tensor *t, int64_t first, int64_t count, float *out) PLUMB_CHECKED;

typedef struct plumb_safetensors { /* one or many files seen as one; owns mappings and names */
    plumb_file_tensor *tensors;     /* in order of name */
    int64_t count;
    plumb_map *maps;
    int n_maps;
    char *path;       /* of the file or index that was opened */
    json_t *metadata; /* __metadata__ of the first file that has one (an object of strings), else NULL; owned */
} plumb_safetensors;
/* `path` is a .safetensors file, an index (*.index.json), or a directory that holds one of them
 * (model.safetensors, model.safetensors.index.json; `stem` other than "model" for adapters). Overlapping or
 * out-of-range tensors, duplicate names and unknown dtypes are PLUMB_E_FORMAT. */
plumb_status plumb_safetensors_open(plumb_safetensors *s, const char *path, const char *stem) PLUMB_CHECKED;
void plumb_safetensors_close(plumb_safetensors *s);
const plumb_file_tensor *plumb_safetensors_find(const plumb_safetensors *s, const char *name); /* NULL when absent */

typedef struct plumb_st_item { /* a tensor to write; data is float32, converted on the way out */
    const char *name;
    int n_dims;
    int64_t shape[4];
    const float *data;
    plumb_file_type type; /* F32, BF16 or F16 */
} plumb_st_item;
/* Writes atomically, header padded to 8 bytes as Hugging Face does, with metadata {"format":"pt"}. Items are written in
 * the order of names (as safetensors does: by dtype size, then name). For tensors too large to hold at once, `fetch` (may be NULL) is
 * called to fill a buffer instead of reading data. */
typedef plumb_status (*plumb_st_fetch)(void *user, int64_t item, float *out);
plumb_status plumb_safetensors_write(const char *path, const plumb_st_item *items, int64_t count, plumb_st_fetch fetch,
                                     void *user) PLUMB_CHECKED;

typedef enum plumb_gguf_type { PLUMB_GGUF_U8, PLUMB_GGUF_I8, PLUMB_GGUF_U16, PLUMB_GGUF_I16, PLUMB_GGUF_U32, PLUMB_GGUF_I32, PLUMB_GGUF_F32,
    PLUMB_GGUF_BOOL, PLUMB_GGUF_STRING, PLUMB_GGUF_ARRAY, PLUMB_GGUF_U64, PLUMB_GGUF_I64, PLUMB_GGUF_F64 } plumb_gguf_type;
typedef struct plumb_gguf_string { const char *data; size_t length; } plumb_gguf_string; /* borrowed from the mapping, no NUL */
typedef struct plumb_gguf_value {
    char *key;
    plumb_gguf_type type, item;     /* item: element type of an array */
    int64_t count;                  /* of an array */
    /* the scalar, widened: integers and booleans fill u, i (at most INT64_MAX) and f */
    uint64_t u; int64_t i; double f; bool b; plumb_gguf_string s;
    plumb_gguf_string *strings;     /* arrays of strings; owned by the container */
    const uint8_t *items;           /* arrays of scalars: packed, unaligned, little endian */
} plumb_gguf_value;
typedef struct plumb_gguf {
    plumb_gguf_value *values; int64_t n_values;
    plumb_file_tensor *tensors; int64_t count; /* in order of name */
    plumb_map map; uint32_t version; char *path;
} plumb_gguf;
plumb_status plumb_gguf_open(plumb_gguf *g, const char *path) PLUMB_CHECKED; /* versions 2 and 3, little endian */
void plumb_gguf_close(plumb_gguf *g);
const plumb_gguf_value *plumb_gguf_find(const plumb_gguf *g, const char *key); /* NULL when absent */
const plumb_file_tensor *plumb_gguf_tensor(const plumb_gguf *g, const char *name);
bool plumb_is_gguf(const char *path); /* a regular file that begins with "GGUF" */
#endif
