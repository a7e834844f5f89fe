/* A batch of trajectories in memory. One table lists its arrays with their names on disk; everything that treats all arrays alike
 * (allocation, copies, the file) loops over it, so that an array cannot be forgotten in one place. Offsets, parts and texts have shapes
 * of their own and are treated by hand. */
#include "trajectory_internal.h"
#include <stdlib.h>
#include <string.h>

const char *const plumb_finish_names[PLUMB_FINISHES] = {"eos", "stop", "length"};

#define FIELD(name, member, type, stored, axis)                                                                                            \
    { name, offsetof(plumb_trajectories, member), PLUMB_HDF5_##type, PLUMB_HDF5_##stored, TRAJECTORY_##axis }
const trajectory_field trajectory_fields[TRAJECTORY_FIELDS] = {
    FIELD("/sequences/record", record, I64, I64, SEQUENCES),
    FIELD("/sequences/group", group, I64, I64, SEQUENCES),
    FIELD("/sequences/branch", branch, I32, I32, SEQUENCES),
    FIELD("/sequences/score", score, F64, F64, SEQUENCES),
    FIELD("/sequences/finish", finish, U8, U8, SEQUENCES),
    FIELD("/sequences/seed", seed, U64, U64, SEQUENCES),
    FIELD("/prompts/ids", prompt_ids, I32, I32, PROMPTS),
    FIELD("/tokens/ids", ids, I32, I32, TOKENS),
    FIELD("/tokens/mask", mask, U8, U8, TOKENS),
    FIELD("/tokens/logp", logp, F64, F32, TOKENS),
    FIELD("/tokens/policy_logp", policy_logp, F64, F32, TOKENS),
    FIELD("/tokens/ref_logp", ref_logp, F64, F32, TOKENS),
    FIELD("/tokens/entropy", entropy, F64, F32, TOKENS),
    FIELD("/tokens/values", values, F64, F32, TOKENS),
    FIELD("/tokens/rewards", rewards, F64, F64, TOKENS),
    FIELD("/tokens/advantages", advantages, F64, F64, TOKENS),
    FIELD("/tokens/returns", returns, F64, F64, TOKENS),
};

void *trajectory_array(const plumb_trajectories *t, const trajectory_field *f) {
    void *array;
    memcpy(&array, (const char *)t + f->member, sizeof array);
    return array;
}

int64_t trajectory_length(const plumb_trajectories *t, trajectory_axis axis) {
    return axis == TRAJECTORY_SEQUENCES ? t->n_sequences : axis == TRAJECTORY_PROMPTS ? t->n_prompt_tokens : t->n_tokens;
}

void plumb_trajectories_free(plumb_trajectories *t) {
    for (int i = 0; i < TRAJECTORY_FIELDS; i++) free(trajectory_array(t, &trajectory_fields[i]));
    for (int64_t i = 0; i < t->n_sequences; i++) {
        if (t->prompt_text) free(t->prompt_text[i]);
        if (t->text) free(t->text[i]);
    }
    free(t->prompt_text);
    free(t->text);
    free(t->prompt_offset);
    free(t->token_offset);
    free(t->parts);
    *t = (plumb_trajectories){0};
}

plumb_status plumb_trajectories_alloc(plumb_trajectories *t, int64_t n_sequences, int64_t n_prompt_tokens, int64_t n_tokens) {
    PLUMB_CHECK(n_sequences >= 0 && n_prompt_tokens >= 0 && n_tokens >= 0 && !t->record && !t->ids);
    t->n_sequences = n_sequences, t->n_prompt_tokens = n_prompt_tokens, t->n_tokens = n_tokens;
    size_t n = (size_t)n_sequences;
    plumb_status status = plumb_alloc(&t->prompt_offset, n + 1, sizeof *t->prompt_offset, "trajectories");
    if (status == PLUMB_OK) status = plumb_alloc(&t->token_offset, n + 1, sizeof *t->token_offset, "trajectories");
    if (status == PLUMB_OK) status = plumb_alloc(&t->prompt_text, n, sizeof *t->prompt_text, "trajectories");
    if (status == PLUMB_OK) status = plumb_alloc(&t->text, n, sizeof *t->text, "trajectories");
    if (status == PLUMB_OK) status = plumb_alloc(&t->parts, n, PLUMB_SCORE_PARTS * sizeof *t->parts, "trajectories");
    for (int i = 0; i < TRAJECTORY_FIELDS && status == PLUMB_OK; i++) {
        const trajectory_field *f = &trajectory_fields[i];
        void *array;
        status = plumb_alloc(&array, (size_t)trajectory_length(t, f->axis), plumb_hdf5_size(f->type), "trajectories");
        memcpy((char *)t + f->member, &array, sizeof array);
    }
    if (status != PLUMB_OK) plumb_trajectories_free(t);
    return status;
}

static plumb_status copy_text(char **to, const char *from) {
    if (!from) return PLUMB_OK;
    PLUMB_TRY(plumb_alloc(to, strlen(from) + 1, 1, "trajectories"));
    strcpy(*to, from);
    return PLUMB_OK;
}

static void copy_head(plumb_trajectories *to, const plumb_trajectories *from) {
    to->iteration = from->iteration, to->policy_version = from->policy_version, to->n_parts = from->n_parts;
    memcpy(to->part_names, from->part_names, sizeof to->part_names);
}

/* Sequences [first, first + count) of `from` to sequence `at` of `to`, whose offsets up to `at` are there. */
static plumb_status copy_sequences(plumb_trajectories *to, int64_t at, const plumb_trajectories *from, int64_t first, int64_t count) {
    int64_t source[] = {first, from->prompt_offset[first], from->token_offset[first]};
    int64_t target[] = {at, to->prompt_offset[at], to->token_offset[at]};
    int64_t amount[] = {count, from->prompt_offset[first + count] - source[1], from->token_offset[first + count] - source[2]};
    for (int i = 0; i < TRAJECTORY_FIELDS; i++) {
        const trajectory_field *f = &trajectory_fields[i];
        size_t size = plumb_hdf5_size(f->type), n = (size_t)amount[f->axis] * size;
        if (n)
            memcpy((char *)trajectory_array(to, f) + (size_t)target[f->axis] * size,
                   (char *)trajectory_array(from, f) + (size_t)source[f->axis] * size, n);
    }
    for (int64_t i = 0; i < count; i++) {
        to->prompt_offset[at + i + 1] = from->prompt_offset[first + i + 1] - source[1] + target[1];
        to->token_offset[at + i + 1] = from->token_offset[first + i + 1] - source[2] + target[2];
        PLUMB_TRY(copy_text(&to->prompt_text[at + i], from->prompt_text[first + i]));
        PLUMB_TRY(copy_text(&to->text[at + i], from->text[first + i]));
    }
    size_t parts = (size_t)from->n_parts;
    if (parts && count)
        memcpy(to->parts + (size_t)at * parts, from->parts + (size_t)first * parts, (size_t)count * parts * sizeof *to->parts);
    return PLUMB_OK;
}

plumb_status plumb_trajectories_slice(plumb_trajectories *to, const plumb_trajectories *from, int64_t first, int64_t count) {
    PLUMB_CHECK(first >= 0 && count >= 0 && first + count <= from->n_sequences);
    copy_head(to, from);
    PLUMB_TRY(plumb_trajectories_alloc(to, count, from->prompt_offset[first + count] - from->prompt_offset[first],
                                       from->token_offset[first + count] - from->token_offset[first]));
    plumb_status status = copy_sequences(to, 0, from, first, count);
    if (status != PLUMB_OK) plumb_trajectories_free(to);
    return status;
}

plumb_status trajectory_join(plumb_trajectories *to, const plumb_trajectories *batches, int64_t n) {
    int64_t total[3] = {0}, at = 0;
    for (int64_t i = 0; i < n; i++)
        for (int axis = 0; axis < 3; axis++) total[axis] += trajectory_length(&batches[i], (trajectory_axis)axis);
    copy_head(to, &batches[0]);
    PLUMB_TRY(plumb_trajectories_alloc(to, total[0], total[1], total[2]));
    plumb_status status = PLUMB_OK;
    for (int64_t i = 0; i < n && status == PLUMB_OK; i++) {
        status = copy_sequences(to, at, &batches[i], 0, batches[i].n_sequences);
        at += batches[i].n_sequences;
    }
    if (status != PLUMB_OK) plumb_trajectories_free(to);
    return status;
}

bool trajectory_same_parts(const plumb_trajectories *a, const plumb_trajectories *b) {
    if (a->n_parts != b->n_parts) return false;
    for (int i = 0; i < a->n_parts; i++)
        if (strcmp(a->part_names[i], b->part_names[i])) return false;
    return true;
}

/* --- is it whole? ----------------------------------------------------------------------------- */
static plumb_status check_offsets(const int64_t *offset, int64_t n, int64_t total, const char *what) {
    if (offset[0] != 0) return plumb_error(PLUMB_E_DATA, "%s of the first sequence: %lld, expected 0", what, (long long)offset[0]);
    for (int64_t i = 0; i < n; i++)
        if (offset[i + 1] < offset[i] || offset[i + 1] > total)
            return plumb_error(PLUMB_E_DATA, "sequence %lld: %s %lld to %lld, of %lld tokens", (long long)i, what, (long long)offset[i],
                               (long long)offset[i + 1], (long long)total);
    if (offset[n] != total)
        return plumb_error(PLUMB_E_DATA, "%s ends at %lld, expected %lld", what, (long long)offset[n], (long long)total);
    return PLUMB_OK;
}

plumb_status plumb_trajectories_check(const plumb_trajectories *t) {
    if (t->iteration < 0) return plumb_error(PLUMB_E_DATA, "iteration %lld, expected 0 or more", (long long)t->iteration);
    if (t->n_parts < 0 || t->n_parts > PLUMB_SCORE_PARTS)
        return plumb_error(PLUMB_E_DATA, "%d parts of the score, at most %d are supported", t->n_parts, PLUMB_SCORE_PARTS);
    for (int i = 0; i < t->n_parts; i++) {
        const char *name = t->part_names[i];
        if (!name[0] || !memchr(name, 0, PLUMB_PART_NAME))
            return plumb_error(PLUMB_E_DATA, "part %d of the score: a name of 1 to %d bytes expected", i, PLUMB_PART_NAME - 1);
        for (int k = 0; k < i; k++)
            if (!strcmp(name, t->part_names[k])) return plumb_error(PLUMB_E_DATA, "two parts of the score are called \"%s\"", name);
    }
    PLUMB_TRY(check_offsets(t->prompt_offset, t->n_sequences, t->n_prompt_tokens, "prompt_offset"));
    PLUMB_TRY(check_offsets(t->token_offset, t->n_sequences, t->n_tokens, "token_offset"));
    for (int64_t i = 0; i < t->n_sequences; i++)
        if (t->finish[i] > PLUMB_FINISH_LENGTH)
            return plumb_error(PLUMB_E_DATA, "sequence %lld: finish %d, expected 0 to %d", (long long)i, t->finish[i], PLUMB_FINISH_LENGTH);
    return PLUMB_OK;
}
