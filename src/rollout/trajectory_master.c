/* The master file: one HDF5 file that shows all iterations of a folder, without copying them. Its datasets are virtual: they say which
 * rows lie in which file. It is made from the manifest alone, in a moment, whenever files come together or go, and holds nothing that
 * could be lost. HDF5 reads a missing source without a word, as fill values; ours are such that nobody takes them for data, but only the
 * manifest knows what is complete.
 *
 * Offsets count within a file and cannot be strung together; lengths can, so the master has lengths only. Files may have other parts of
 * the score than their neighbours (the run went on with other rewards): the master has all of them, and NaN where a
 * file has no such part. */
#include "trajectory_internal.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum count { OF_ITERATIONS, OF_SEQUENCES, OF_PROMPTS, OF_TOKENS, OF_PROMPT_TEXT, OF_TEXT } count;
static const struct { const char *dataset; plumb_hdf5_type stored; count rows; } others[] = {
    {"/iterations/number", PLUMB_HDF5_I64, OF_ITERATIONS},
    {"/iterations/policy_version", PLUMB_HDF5_I64, OF_ITERATIONS},
    {"/iterations/sequences", PLUMB_HDF5_I64, OF_ITERATIONS},
    {"/sequences/iteration", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/policy_version", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/prompt_length", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/length", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/prompt_text_length", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/text_length", PLUMB_HDF5_I64, OF_SEQUENCES},
    {"/sequences/prompt_text", PLUMB_HDF5_U8, OF_PROMPT_TEXT},
    {"/sequences/text", PLUMB_HDF5_U8, OF_TEXT},
};
enum { OTHERS = sizeof others / sizeof *others };

static int64_t rows_of(const trajectory_entry *e, count what) {
    switch (what) {
    case OF_ITERATIONS: return e->n_iterations;
    case OF_SEQUENCES: return e->sequences;
    case OF_PROMPTS: return e->prompt_tokens;
    case OF_TOKENS: return e->tokens;
    case OF_PROMPT_TEXT: return e->prompt_text_bytes;
    default: return e->text_bytes;
    }
}

typedef struct builder {
    plumb_hdf5 *file;
    const trajectory_manifest *m;
    plumb_hdf5_source *sources; /* [entries] */
    char (*names)[PLUMB_PART_NAME]; /* of all parts */
    int *column_of;                 /* [entries][PLUMB_SCORE_PARTS] */
    size_t n_names, capacity;
} builder;

static plumb_status string_together(builder *b, const char *dataset, plumb_hdf5_type stored, count what) {
    for (size_t i = 0; i < b->m->count; i++)
        b->sources[i] = (plumb_hdf5_source){b->m->entries[i].name, rows_of(&b->m->entries[i], what), 0, NULL};
    return plumb_hdf5_write_virtual(b->file, dataset, stored, 0, b->sources, (int64_t)b->m->count);
}

static plumb_status name_parts(builder *b) {
    for (size_t i = 0; i < b->m->count; i++)
        for (int p = 0; p < b->m->entries[i].n_parts; p++) {
            const char *name = b->m->entries[i].part_names[p];
            size_t k = 0;
            while (k < b->n_names && strcmp(b->names[k], name)) k++;
            if (k == b->n_names) {
                PLUMB_TRY(plumb_grow(&b->names, &b->capacity, k + 1, sizeof *b->names));
                memset(b->names[k], 0, sizeof *b->names);
                strcpy(b->names[b->n_names++], name);
            }
            b->column_of[i * PLUMB_SCORE_PARTS + (size_t)p] = (int)k;
        }
    return PLUMB_OK;
}

static plumb_status write_parts(builder *b) {
    PLUMB_TRY(name_parts(b));
    if (b->n_names == 0) return PLUMB_OK;
    for (size_t i = 0; i < b->m->count; i++) {
        const trajectory_entry *e = &b->m->entries[i];
        b->sources[i] = (plumb_hdf5_source){e->name, e->sequences, e->n_parts, b->column_of + i * PLUMB_SCORE_PARTS};
    }
    PLUMB_TRY(plumb_hdf5_write_virtual(b->file, "/sequences/parts", PLUMB_HDF5_F64, (int64_t)b->n_names, b->sources, (int64_t)b->m->count));
    return plumb_hdf5_set_texts(b->file, "parts", b->names[0], PLUMB_PART_NAME, (int64_t)b->n_names);
}

static plumb_status build(builder *b) {
    static const count along[] =
        {[TRAJECTORY_SEQUENCES] = OF_SEQUENCES, [TRAJECTORY_PROMPTS] = OF_PROMPTS, [TRAJECTORY_TOKENS] = OF_TOKENS};
    PLUMB_TRY(plumb_hdf5_set_texts(b->file, "plumb", PLUMB_VERSION, sizeof PLUMB_VERSION, 0));
    PLUMB_TRY(plumb_hdf5_set_integer(b->file, "format", TRAJECTORY_FORMAT));
    PLUMB_TRY(plumb_alloc(&b->sources, b->m->count, sizeof *b->sources, "a master file"));
    PLUMB_TRY(plumb_alloc(&b->column_of, b->m->count, PLUMB_SCORE_PARTS * sizeof *b->column_of, "a master file"));
    for (int i = 0; i < OTHERS; i++) PLUMB_TRY(string_together(b, others[i].dataset, others[i].stored, others[i].rows));
    for (int i = 0; i < TRAJECTORY_FIELDS; i++)
        PLUMB_TRY(string_together(b, trajectory_fields[i].dataset, trajectory_fields[i].stored, along[trajectory_fields[i].axis]));
    return write_parts(b);
}

plumb_status trajectory_master_write(const trajectory_manifest *m, const char *dir) {
    builder b = {.m = m};
    char *path;
    uint8_t *bytes = NULL;
    size_t size;
    PLUMB_TRY(plumb_path_join(&path, dir, TRAJECTORY_MASTER));
    plumb_status status = PLUMB_OK;
    if (m->count == 0) {
        unlink(path); /* nothing to show; when it stays it shows fill values */
        goto done;
    }
    status = plumb_hdf5_create(&b.file, path);
    if (status == PLUMB_OK) status = build(&b);
    if (status == PLUMB_OK) status = plumb_hdf5_image(b.file, &bytes, &size);
    if (status == PLUMB_OK) status = plumb_write_file(path, bytes, size);
done:
    plumb_hdf5_close(b.file);
    free(b.sources);
    free(b.names);
    free(b.column_of);
    free(bytes);
    free(path);
    return status;
}
