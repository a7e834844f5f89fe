/* Batches of trajectories <-> the bytes of one HDF5 file (docs/formats.md has the layout as users see it).
 *
 *   /iterations   number, policy_version, sequences        one row for each iteration in the file, those without sequences too
 *   /sequences    record, group, …, offsets and lengths    one row for each sequence, in order of iteration, then writer
 *   /prompts      ids                                      flat
 *   /tokens       ids, mask, logp, …                       flat
 *
 * A file of one iteration and a compacted file have the same layout, so that there is one reader. Lengths repeat what offsets say:
 * offsets count within their file, lengths can be strung together over files, which is what the master file does. A dataset is gathered
 * over the batches and written before the next one is touched: one of them is held twice.
 *
 * Sealed: the attribute `checksum`, "xxh3:" and 16 digits, is the XXH3-64 of all bytes of the file with '0' for those digits, so that a
 * file without a manifest speaks for itself. It is the first attribute, and so lies before everything that a user's text could imitate. */
#include "trajectory_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* --- writing ---------------------------------------------------------------------------------- */
typedef struct encoder {
    plumb_hdf5 *file;
    const plumb_trajectories *batches;
    int64_t n, total[3]; /* batches; elements along each axis */
} encoder;

static plumb_status write_field(const encoder *e, const trajectory_field *f) {
    size_t size = plumb_hdf5_size(f->type), at = 0;
    if (e->n == 1) return plumb_hdf5_write(e->file, f->dataset, f->stored, trajectory_array(e->batches, f), f->type, e->total[f->axis], 0);
    char *all;
    PLUMB_TRY(plumb_alloc(&all, (size_t)e->total[f->axis], size, f->dataset));
    for (int64_t i = 0; i < e->n; i++) {
        size_t bytes = (size_t)trajectory_length(&e->batches[i], f->axis) * size;
        if (bytes) memcpy(all + at, trajectory_array(&e->batches[i], f), bytes);
        at += bytes;
    }
    plumb_status status = plumb_hdf5_write(e->file, f->dataset, f->stored, all, f->type, e->total[f->axis], 0);
    free(all);
    return status;
}

static plumb_status write_i64(const encoder *e, const char *dataset, const int64_t *values, int64_t n) {
    return plumb_hdf5_write(e->file, dataset, PLUMB_HDF5_I64, values, PLUMB_HDF5_I64, n, 0);
}

/* Lengths [n] and the offsets [n + 1] that follow from them. */
static plumb_status write_lengths(const encoder *e, const char *lengths, const char *offsets, const int64_t *length) {
    int64_t *offset, n = e->total[TRAJECTORY_SEQUENCES];
    PLUMB_TRY(plumb_alloc(&offset, (size_t)n + 1, sizeof *offset, offsets));
    for (int64_t i = 0; i < n; i++) offset[i + 1] = offset[i] + length[i];
    plumb_status status = write_i64(e, lengths, length, n);
    if (status == PLUMB_OK) status = write_i64(e, offsets, offset, n + 1);
    free(offset);
    return status;
}

/* What has one number for each sequence and is no array of a batch: iteration, policy version, lengths. */
static plumb_status write_numbers(const encoder *e) {
    int64_t *values, n = e->total[TRAJECTORY_SEQUENCES];
    PLUMB_TRY(plumb_alloc(&values, (size_t)n, 4 * sizeof *values, "trajectories"));
    int64_t *iteration = values, *version = values + n, *prompt = values + 2 * n, *length = values + 3 * n, at = 0;
    for (int64_t b = 0; b < e->n; b++) {
        const plumb_trajectories *t = &e->batches[b];
        for (int64_t i = 0; i < t->n_sequences; i++, at++) {
            iteration[at] = t->iteration, version[at] = t->policy_version;
            prompt[at] = t->prompt_offset[i + 1] - t->prompt_offset[i];
            length[at] = t->token_offset[i + 1] - t->token_offset[i];
        }
    }
    plumb_status status = write_i64(e, "/sequences/iteration", iteration, n);
    if (status == PLUMB_OK) status = write_i64(e, "/sequences/policy_version", version, n);
    if (status == PLUMB_OK) status = write_lengths(e, "/sequences/prompt_length", "/sequences/prompt_offset", prompt);
    if (status == PLUMB_OK) status = write_lengths(e, "/sequences/length", "/sequences/token_offset", length);
    free(values);
    return status;
}

static plumb_status write_parts(const encoder *e) {
    const plumb_trajectories *first = e->batches;
    size_t parts = (size_t)first->n_parts, at = 0;
    if (!parts) return PLUMB_OK;
    double *all;
    PLUMB_TRY(plumb_alloc(&all, (size_t)e->total[TRAJECTORY_SEQUENCES], parts * sizeof *all, "parts of scores"));
    for (int64_t b = 0; b < e->n; b++) {
        size_t count = (size_t)e->batches[b].n_sequences * parts;
        if (count) memcpy(all + at, e->batches[b].parts, count * sizeof *all);
        at += count;
    }
    plumb_status status =
        plumb_hdf5_write(e->file, "/sequences/parts", PLUMB_HDF5_F64, all, PLUMB_HDF5_F64, e->total[TRAJECTORY_SEQUENCES], (int64_t)parts);
    if (status == PLUMB_OK) status = plumb_hdf5_set_texts(e->file, "parts", first->part_names[0], PLUMB_PART_NAME, first->n_parts);
    free(all);
    return status;
}

static char **texts_of(const plumb_trajectories *t, bool prompts) { return prompts ? t->prompt_text : t->text; }

static plumb_status write_texts(const encoder *e, bool prompts) {
    static const char *const names[2][3] = {{"/sequences/text", "/sequences/text_length", "/sequences/text_offset"},
                                            {"/sequences/prompt_text", "/sequences/prompt_text_length", "/sequences/prompt_text_offset"}};
    int64_t *length, at = 0;
    plumb_str all = {0};
    PLUMB_TRY(plumb_alloc(&length, (size_t)e->total[TRAJECTORY_SEQUENCES], sizeof *length, "texts"));
    plumb_status status = PLUMB_OK;
    for (int64_t b = 0; b < e->n; b++)
        for (int64_t i = 0; i < e->batches[b].n_sequences && status == PLUMB_OK; i++, at++) {
            const char *text = texts_of(&e->batches[b], prompts)[i];
            length[at] = text ? (int64_t)strlen(text) : 0;
            if (length[at]) status = plumb_str_append(&all, text, (size_t)length[at]);
        }
    if (status == PLUMB_OK)
        status = plumb_hdf5_write(e->file, names[prompts][0], PLUMB_HDF5_U8, all.data, PLUMB_HDF5_U8, (int64_t)all.length, 0);
    if (status == PLUMB_OK) status = write_lengths(e, names[prompts][1], names[prompts][2], length);
    plumb_str_free(&all);
    free(length);
    return status;
}

static plumb_status write_iterations(const encoder *e) {
    int64_t *values, n = 0;
    PLUMB_TRY(plumb_alloc(&values, (size_t)e->n, 3 * sizeof *values, "iterations"));
    int64_t *number = values, *version = values + e->n, *sequences = values + 2 * e->n;
    for (int64_t b = 0; b < e->n; b++) {
        const plumb_trajectories *t = &e->batches[b];
        PLUMB_CHECK((n == 0 || number[n - 1] <= t->iteration) && trajectory_same_parts(t, e->batches));
        if (n == 0 || number[n - 1] != t->iteration) number[n] = t->iteration, version[n] = t->policy_version, n++;
        sequences[n - 1] += t->n_sequences;
    }
    plumb_status status = write_i64(e, "/iterations/number", number, n);
    if (status == PLUMB_OK) status = write_i64(e, "/iterations/policy_version", version, n);
    if (status == PLUMB_OK) status = write_i64(e, "/iterations/sequences", sequences, n);
    if (status == PLUMB_OK && n == 1) status = plumb_hdf5_set_integer(e->file, "iteration", number[0]);
    if (status == PLUMB_OK && n == 1) status = plumb_hdf5_set_integer(e->file, "policy_version", version[0]);
    free(values);
    return status;
}

/* --- the seal --------------------------------------------------------------------------------- */
enum { DIGITS = 16 };
static const char mark[] = "xxh3:", no_digits[] = "0000000000000000";

static const uint8_t *digits_in(const uint8_t *bytes, size_t size) { /* NULL: none */
    const uint8_t *at = memmem(bytes, size, mark, sizeof mark - 1);
    return at && (size_t)(bytes + size - at) >= sizeof mark - 1 + DIGITS ? at + sizeof mark - 1 : NULL;
}
static plumb_status checksum_without(const uint8_t *bytes, size_t size, const uint8_t *digits, char text[DIGITS + 1]) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return plumb_error(PLUMB_E_MEMORY, "out of memory for a checksum");
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, bytes, (size_t)(digits - bytes));
    XXH3_64bits_update(state, no_digits, DIGITS);
    XXH3_64bits_update(state, digits + DIGITS, size - (size_t)(digits + DIGITS - bytes));
    snprintf(text, DIGITS + 1, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    XXH3_freeState(state);
    return PLUMB_OK;
}
static plumb_status seal(uint8_t *bytes, size_t size) {
    char text[DIGITS + 1];
    const uint8_t *digits = digits_in(bytes, size);
    PLUMB_CHECK(digits && !memcmp(digits, no_digits, DIGITS));
    PLUMB_TRY(checksum_without(bytes, size, digits, text));
    memcpy(bytes + (digits - bytes), text, DIGITS);
    return PLUMB_OK;
}
plumb_status trajectory_check_seal(const char *name, const uint8_t *bytes, size_t size) {
    char text[DIGITS + 1];
    const uint8_t *digits = digits_in(bytes, size);
    if (!digits) return plumb_error(PLUMB_E_FORMAT, "%s: has no checksum of its own", name);
    PLUMB_TRY(checksum_without(bytes, size, digits, text));
    if (!memcmp(digits, text, DIGITS)) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s: damaged: its bytes have checksum %s; it says %.16s", name, text, (const char *)digits);
}

plumb_status trajectory_encode(const plumb_trajectories *batches, int64_t n, int n_writers, const char *name, uint8_t **bytes,
                               size_t *size) {
    encoder e = {NULL, batches, n, {0}};
    char unsealed[sizeof mark + DIGITS];
    snprintf(unsealed, sizeof unsealed, "%s%s", mark, no_digits);
    *bytes = NULL, *size = 0;
    for (int64_t b = 0; b < n; b++)
        for (int axis = 0; axis < 3; axis++) e.total[axis] += trajectory_length(&batches[b], (trajectory_axis)axis);
    plumb_status status = plumb_hdf5_create(&e.file, name);
    if (status == PLUMB_OK) status = plumb_hdf5_set_texts(e.file, "checksum", unsealed, sizeof unsealed, 0);
    if (status == PLUMB_OK) status = plumb_hdf5_set_texts(e.file, "plumb", PLUMB_VERSION, sizeof PLUMB_VERSION, 0);
    if (status == PLUMB_OK) status = plumb_hdf5_set_integer(e.file, "format", TRAJECTORY_FORMAT);
    if (status == PLUMB_OK && n_writers) status = plumb_hdf5_set_integer(e.file, "writers", n_writers);
    if (status == PLUMB_OK) status = write_iterations(&e);
    if (status == PLUMB_OK) status = write_numbers(&e);
    for (int i = 0; i < TRAJECTORY_FIELDS && status == PLUMB_OK; i++) status = write_field(&e, &trajectory_fields[i]);
    if (status == PLUMB_OK) status = write_parts(&e);
    if (status == PLUMB_OK) status = write_texts(&e, true);
    if (status == PLUMB_OK) status = write_texts(&e, false);
    if (status == PLUMB_OK) status = plumb_hdf5_image(e.file, bytes, size);
    if (status == PLUMB_OK) status = seal(*bytes, *size);
    plumb_hdf5_close(e.file);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */
typedef struct table { /* /iterations; owns its block */
    int64_t n, *number, *version, *sequences;
} table;

static plumb_status read_table(plumb_hdf5 *f, const char *name, table *t) {
    int64_t format;
    *t = (table){0};
    PLUMB_TRY(plumb_hdf5_get_integer(f, "format", &format));
    if (format != TRAJECTORY_FORMAT)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: format %lld of trajectories; this program reads %d", name, (long long)format,
                           TRAJECTORY_FORMAT);
    PLUMB_TRY(plumb_hdf5_shape(f, "/iterations/number", &t->n, NULL));
    PLUMB_TRY(plumb_alloc(&t->number, (size_t)t->n, 3 * sizeof *t->number, "iterations"));
    t->version = t->number + t->n, t->sequences = t->version + t->n;
    plumb_status status = plumb_hdf5_read(f, "/iterations/number", t->number, PLUMB_HDF5_I64, 0, t->n, 0);
    if (status == PLUMB_OK) status = plumb_hdf5_read(f, "/iterations/policy_version", t->version, PLUMB_HDF5_I64, 0, t->n, 0);
    if (status == PLUMB_OK) status = plumb_hdf5_read(f, "/iterations/sequences", t->sequences, PLUMB_HDF5_I64, 0, t->n, 0);
    int64_t rows, total = 0;
    if (status == PLUMB_OK) status = plumb_hdf5_shape(f, "/sequences/record", &rows, NULL);
    for (int64_t i = 0; i < t->n && status == PLUMB_OK; i++) {
        if (t->number[i] < 0 || (i && t->number[i] <= t->number[i - 1]) || t->sequences[i] < 0 || t->sequences[i] > rows - total)
            status = plumb_error(PLUMB_E_FORMAT, "%s: /iterations: row %lld has iteration %lld with %lld sequences, of %lld", name,
                                 (long long)i, (long long)t->number[i], (long long)t->sequences[i], (long long)rows);
        else
            total += t->sequences[i];
    }
    if (status == PLUMB_OK && total != rows)
        status = plumb_error(PLUMB_E_FORMAT, "%s: /iterations counts %lld sequences, /sequences has %lld", name, (long long)total,
                             (long long)rows);
    if (status != PLUMB_OK) {
        free(t->number);
        *t = (table){0};
    }
    return status;
}

static plumb_status read_part_names(plumb_hdf5 *f, char names[PLUMB_SCORE_PARTS][PLUMB_PART_NAME], int *n) {
    int64_t count = 0;
    if (plumb_hdf5_has(f, "parts")) PLUMB_TRY(plumb_hdf5_get_texts(f, "parts", names[0], PLUMB_PART_NAME, PLUMB_SCORE_PARTS, &count));
    *n = (int)count;
    return PLUMB_OK;
}

void trajectory_entry_free(trajectory_entry *e) {
    free(e->iterations);
    *e = (trajectory_entry){0};
}

plumb_status trajectory_describe(plumb_hdf5 *f, const char *name, trajectory_entry *e) {
    table t;
    PLUMB_TRY(read_table(f, name, &t));
    e->iterations = t.number, e->n_iterations = t.n; /* the block goes to the entry */
    plumb_status status = plumb_hdf5_shape(f, "/sequences/record", &e->sequences, NULL);
    if (status == PLUMB_OK) status = plumb_hdf5_shape(f, "/tokens/ids", &e->tokens, NULL);
    if (status == PLUMB_OK) status = plumb_hdf5_shape(f, "/prompts/ids", &e->prompt_tokens, NULL);
    if (status == PLUMB_OK) status = plumb_hdf5_shape(f, "/sequences/prompt_text", &e->prompt_text_bytes, NULL);
    if (status == PLUMB_OK) status = plumb_hdf5_shape(f, "/sequences/text", &e->text_bytes, NULL);
    if (status == PLUMB_OK) status = read_part_names(f, e->part_names, &e->n_parts);
    if (status == PLUMB_OK && plumb_hdf5_has(f, "writers")) status = plumb_hdf5_get_integer(f, "writers", &e->n_writers);
    if (status != PLUMB_OK) trajectory_entry_free(e);
    return status;
}

/* Offsets of rows [first, first + n], which must not fall and must lie within `total`. */
static plumb_status read_offsets(plumb_hdf5 *f, const char *name, const char *dataset, int64_t first, int64_t n, int64_t total,
                                 int64_t *offset) {
    PLUMB_TRY(plumb_hdf5_read(f, dataset, offset, PLUMB_HDF5_I64, first, n + 1, 0));
    for (int64_t i = 0; i <= n; i++)
        if (offset[i] < (i ? offset[i - 1] : 0) || offset[i] > total)
            return plumb_error(PLUMB_E_FORMAT, "%s: %s: row %lld is %lld, expected at least the row before and at most %lld", name, dataset,
                               (long long)(first + i), (long long)offset[i], (long long)total);
    return PLUMB_OK;
}

static plumb_status read_texts(plumb_hdf5 *f, const char *name, bool prompts, int64_t first, plumb_trajectories *t) {
    const char *dataset = prompts ? "/sequences/prompt_text" : "/sequences/text";
    int64_t total, *offset, n = t->n_sequences;
    char *all = NULL, **texts = texts_of(t, prompts);
    PLUMB_TRY(plumb_hdf5_shape(f, dataset, &total, NULL));
    PLUMB_TRY(plumb_alloc(&offset, (size_t)n + 1, sizeof *offset, dataset));
    plumb_status status =
        read_offsets(f, name, prompts ? "/sequences/prompt_text_offset" : "/sequences/text_offset", first, n, total, offset);
    if (status != PLUMB_OK) goto done;
    size_t bytes = (size_t)(offset[n] - offset[0]);
    status = plumb_alloc(&all, bytes, 1, dataset);
    if (status == PLUMB_OK) status = plumb_hdf5_read(f, dataset, all, PLUMB_HDF5_U8, offset[0], (int64_t)bytes, 0);
    if (status == PLUMB_OK && bytes && memchr(all, 0, bytes))
        status = plumb_error(PLUMB_E_FORMAT, "%s: %s: a text with a NUL in it", name, dataset);
    for (int64_t i = 0; i < n && status == PLUMB_OK; i++) {
        size_t length = (size_t)(offset[i + 1] - offset[i]);
        status = plumb_alloc(&texts[i], length + 1, 1, dataset);
        if (status == PLUMB_OK && length) memcpy(texts[i], all + (offset[i] - offset[0]), length);
    }
done:
    free(all);
    free(offset);
    return status;
}

/* The sequences from `first` on, as many as *t is to have. */
static plumb_status read_sequences(plumb_hdf5 *f, const char *name, int64_t first, int64_t n, plumb_trajectories *t) {
    int64_t prompts, tokens, *prompt_offset = NULL, *token_offset = NULL;
    PLUMB_TRY(plumb_hdf5_shape(f, "/prompts/ids", &prompts, NULL));
    PLUMB_TRY(plumb_hdf5_shape(f, "/tokens/ids", &tokens, NULL));
    plumb_status status = plumb_alloc(&prompt_offset, (size_t)n + 1, sizeof *prompt_offset, "trajectories");
    if (status == PLUMB_OK) status = plumb_alloc(&token_offset, (size_t)n + 1, sizeof *token_offset, "trajectories");
    if (status == PLUMB_OK) status = read_offsets(f, name, "/sequences/prompt_offset", first, n, prompts, prompt_offset);
    if (status == PLUMB_OK) status = read_offsets(f, name, "/sequences/token_offset", first, n, tokens, token_offset);
    if (status == PLUMB_OK) status = plumb_trajectories_alloc(t, n, prompt_offset[n] - prompt_offset[0], token_offset[n] - token_offset[0]);
    if (status != PLUMB_OK) goto done;
    const int64_t start[] = {first, prompt_offset[0], token_offset[0]};
    for (int64_t i = 0; i <= n; i++) t->prompt_offset[i] = prompt_offset[i] - start[1], t->token_offset[i] = token_offset[i] - start[2];
    for (int i = 0; i < TRAJECTORY_FIELDS && status == PLUMB_OK; i++) {
        const trajectory_field *field = &trajectory_fields[i];
        status = plumb_hdf5_read(f, field->dataset, trajectory_array(t, field), field->type, start[field->axis],
                                 trajectory_length(t, field->axis), 0);
    }
    if (status == PLUMB_OK && t->n_parts) status = plumb_hdf5_read(f, "/sequences/parts", t->parts, PLUMB_HDF5_F64, first, n, t->n_parts);
    if (status == PLUMB_OK) status = read_texts(f, name, true, first, t);
    if (status == PLUMB_OK) status = read_texts(f, name, false, first, t);
done:
    free(prompt_offset);
    free(token_offset);
    return status;
}

plumb_status trajectory_decode(plumb_hdf5 *f, const char *name, int64_t iteration, plumb_trajectories *out) {
    table t;
    PLUMB_TRY(read_table(f, name, &t));
    *out = (plumb_trajectories){0};
    int64_t first = 0, row = 0;
    while (row < t.n && t.number[row] != iteration) first += t.sequences[row++];
    plumb_status status = row < t.n ? read_part_names(f, out->part_names, &out->n_parts)
                                    : plumb_error(PLUMB_E_FORMAT, "%s: has no iteration %lld", name, (long long)iteration);
    if (status == PLUMB_OK) {
        out->iteration = iteration, out->policy_version = t.version[row];
        status = read_sequences(f, name, first, t.sequences[row], out);
    }
    if (status == PLUMB_OK) {
        status = plumb_trajectories_check(out);
        if (status != PLUMB_OK) status = plumb_error_prefix(PLUMB_E_FORMAT, "%s", name);
    }
    free(t.number);
    if (status != PLUMB_OK) plumb_trajectories_free(out);
    return status;
}
