/* A model on disk: which tensor holds which parameter, and its rows as floats.
 *
 * Opening matches the file's tensors against the parameter table in both directions: every parameter has a tensor of
 * the right shape and of a type that can be read, and every tensor is a parameter or known to be superfluous. After
 * that, reading can fail only on the values themselves.
 *
 * Nothing is copied: tensors lie in the mapping, and a read converts straight into the caller's memory. GGUF's llama
 * files store each head's q and k rows in pairs for interleaved rotation (Hugging Face row half*D/2 + i is GGUF row 2i
 * + half); a row is a whole number of quantisation blocks, so they are put back by converting row by row in the
 * permuted order, at the same speed as a straight read. Values are checked for NaN and infinities in the pieces just
 * converted, while they are in the nearest cache. */
#include "arch_table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 8192 }; /* elements converted and checked at once: 32 KiB, and a multiple of every block size */

struct plumb_source {
    plumb_arch arch;
    plumb_params params;
    const plumb_family *family;
    char *path;
    bool is_gguf;
    plumb_safetensors safetensors;
    plumb_gguf gguf;
    const plumb_file_tensor **tensors; /* by parameter; borrowed from the containers */
    const plumb_file_tensor *score;    /* a classifier's scalar head; NULL: none */
};

static const char *param_name(const plumb_source *s, int param) {
    return s->is_gguf ? s->params.items[param].gguf : s->params.items[param].name;
}

static const plumb_file_tensor *find_tensor(const plumb_source *s, const char *name) {
    return s->is_gguf ? plumb_gguf_tensor(&s->gguf, name) : plumb_safetensors_find(&s->safetensors, name);
}

/* --- opening ---------------------------------------------------------------------------------- */

enum { SHAPE_SIZE = 96 };
static const char *shape_text(char found[SHAPE_SIZE], const plumb_file_tensor *t) {
    found[0] = 0;
    for (int i = 0; i < t->n_dims && strlen(found) < SHAPE_SIZE - 24; i++) {
        size_t used = strlen(found);
        snprintf(found + used, SHAPE_SIZE - used, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    }
    return found;
}

static plumb_status wrong_shape(const plumb_source *s, const plumb_param *p, const plumb_file_tensor *t) {
    const plumb_size_names *names = s->is_gguf ? &plumb_size_names_gguf : &plumb_size_names_hf;
    const plumb_role_row *row = &s->family->roles[p->role];
    char found[SHAPE_SIZE];
    shape_text(found, t);
    if (p->rows == 1)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor %s has shape [%s], expected [%lld] (%s)", s->path, t->name,
                           found, (long long)p->cols, names->axis[p->bias ? row->rows : row->cols]);
    return plumb_error(PLUMB_E_FORMAT, "%s: tensor %s has shape [%s], expected [%lld, %lld] (%s, %s)", s->path, t->name,
                       found, (long long)p->rows, (long long)p->cols, names->axis[row->rows], names->axis[row->cols]);
}

static plumb_status check_type(const plumb_source *s, const plumb_file_tensor *t) {
    switch (t->type) {
    case PLUMB_FT_F32:
    case PLUMB_FT_F16:
    case PLUMB_FT_BF16:
    case PLUMB_FT_F64: return PLUMB_OK;
    case PLUMB_FT_Q4_0:
    case PLUMB_FT_Q4_1:
    case PLUMB_FT_Q5_0:
    case PLUMB_FT_Q5_1:
    case PLUMB_FT_Q8_0: return PLUMB_OK;
    default:
        return plumb_error(
            PLUMB_E_UNSUPPORTED,
            "%s: tensor %s is stored as %s; supported weights: F32, F16, BF16, F64, and Q4_0, Q4_1, Q5_0, Q5_1, Q8_0",
            s->path, t->name, t->type_name ? t->type_name : plumb_file_type_name(t->type));
    }
}

static plumb_status match_param(plumb_source *s, int param) {
    const plumb_param *p = &s->params.items[param];
    const plumb_file_tensor *t = find_tensor(s, param_name(s, param));
    if (!t && p->role == PLUMB_ROLE_EMBED && s->arch.tied && !s->is_gguf)
        t = find_tensor(s, "lm_head.weight"); /* the twin that was kept */
    if (!t)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor %s is missing; a model of %lld layers%s needs it", s->path,
                           param_name(s, param), (long long)s->arch.layers,
                           p->role == PLUMB_ROLE_HEAD ? " without tie_word_embeddings" : "");
    bool fits = p->rows == 1 ? t->n_dims == 1 && t->shape[0] == p->cols
                             : t->n_dims == 2 && t->shape[0] == p->rows && t->shape[1] == p->cols;
    if (!fits) return wrong_shape(s, p, t);
    s->tensors[param] = t;
    return check_type(s, t);
}

/* The head of a sequence classifier, which is no row of the parameter table. */
static plumb_status match_score(plumb_source *s) {
    if (!s->arch.classifier) return PLUMB_OK;
    const plumb_file_tensor *t = find_tensor(s, "score.weight");
    if (!t)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor score.weight is missing; a %s needs it", s->path,
                           s->family->classifier);
    char found[SHAPE_SIZE];
    if (t->n_dims != 2 || t->shape[0] != 1 || t->shape[1] != s->arch.hidden)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: tensor score.weight has shape [%s], expected [1, %lld] (num_labels, hidden_size)",
                           s->path, shape_text(found, t), (long long)s->arch.hidden);
    s->score = t;
    return check_type(s, t);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* A tied model may store its head as well, when the two are the same: with different values transformers 5 keeps both
 * and transformers 4 drops the head, so that nobody can say which model is meant. */
static plumb_status check_stored_head(const plumb_source *s, const plumb_file_tensor *head) {
    const plumb_file_tensor *embedding = s->tensors[plumb_params_find(&s->params, PLUMB_ROLE_EMBED, -1, false)];
    if (head == embedding) return PLUMB_OK;
    if (head->type == embedding->type && head->bytes == embedding->bytes &&
        !memcmp(head->data, embedding->data, head->bytes))
        return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT,
                       "%s: tie_word_embeddings is true, but %s differs from %s; set it to false to use both", s->path,
                       head->name, embedding->name);
}

static plumb_status explain_extra(const plumb_source *s, const char *name) {
    long long layer;
    if (sscanf(name, s->is_gguf ? "blk.%lld." : "model.layers.%lld.", &layer) == 1 && layer >= s->arch.layers)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor %.200s belongs to layer %lld, but %s says %lld layers", s->path,
                           name, layer, s->is_gguf ? "block_count" : "num_hidden_layers", (long long)s->arch.layers);
    const char *hint = "";
    if (!strcmp(name, "score.weight")) hint = " (of a sequence classifier; architectures says which class this is)";
    if (s->arch.classifier && !strcmp(name, "lm_head.weight")) hint = " with a score: one head of the two is too many";
    if (ends_with(name, ".bias"))
        hint = s->is_gguf ? "; biases must be on all of q, k, v, o or on all of gate, up, down"
                          : " (attention_bias and mlp_bias say which biases exist)";
    return plumb_error(PLUMB_E_FORMAT, "%s: tensor %.200s is not part of a %s model%s", s->path, name, s->family->name,
                       hint);
}

static int by_address(const void *a, const void *b) {
    const plumb_file_tensor *x = *(const plumb_file_tensor *const *)a, *y = *(const plumb_file_tensor *const *)b;
    return x < y ? -1 : x > y;
}

static plumb_status check_extras(const plumb_source *s) {
    const plumb_file_tensor *all = s->is_gguf ? s->gguf.tensors : s->safetensors.tensors, **used;
    int64_t count = s->is_gguf ? s->gguf.count : s->safetensors.count;
    PLUMB_TRY(plumb_alloc(&used, (size_t)s->params.count, sizeof *used, "the list of tensors"));
    memcpy(used, s->tensors, (size_t)s->params.count * sizeof *used);
    qsort(used, (size_t)s->params.count, sizeof *used, by_address);
    plumb_status status = PLUMB_OK;
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) {
        const plumb_file_tensor *t = &all[i];
        if (t == s->score || bsearch(&t, used, (size_t)s->params.count, sizeof *used, by_address)) continue;
        if (s->is_gguf && !strcmp(t->name, "rope_freqs.weight")) continue; /* read with the metadata */
        if (!s->is_gguf && ends_with(t->name, "rotary_emb.inv_freq"))
            continue; /* computed from rope_theta; old files store it */
        if (!s->is_gguf && s->arch.tied && !strcmp(t->name, "lm_head.weight"))
            status = check_stored_head(s, t);
        else
            status = explain_extra(s, t->name);
    }
    free(used);
    return status;
}

static plumb_status copy_path(plumb_source *s, const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    PLUMB_TRY(plumb_alloc(&s->path, n + 1, 1, "a path"));
    memcpy(s->path, path, n);
    return PLUMB_OK;
}

static plumb_status open_files(plumb_source *s, const char *path) {
    PLUMB_TRY(copy_path(s, path));
    s->is_gguf = plumb_is_gguf(s->path);
    if (s->is_gguf) {
        PLUMB_TRY(plumb_gguf_open(&s->gguf, s->path));
        PLUMB_TRY(plumb_arch_from_gguf(&s->arch, &s->gguf));
    } else {
        if (!plumb_path_exists(s->path)) return plumb_error(PLUMB_E_IO, "%s: no such file or directory", s->path);
        if (!plumb_path_is_dir(s->path))
            return plumb_error(
                PLUMB_E_FORMAT,
                "%s: neither a GGUF file nor a directory; a model is a Hugging Face directory or a .gguf file",
                s->path);
        PLUMB_TRY(plumb_arch_from_hf(&s->arch, s->path));
        PLUMB_TRY(plumb_safetensors_open(&s->safetensors, s->path, "model"));
    }
    s->family = plumb_family_by_name(s->arch.family);
    PLUMB_TRY(plumb_params_build(&s->params, &s->arch));
    PLUMB_TRY(plumb_alloc(&s->tensors, (size_t)s->params.count, sizeof *s->tensors, "the list of tensors"));
    for (int i = 0; i < s->params.count; i++) PLUMB_TRY(match_param(s, i));
    PLUMB_TRY(match_score(s));
    return check_extras(s);
}

plumb_status plumb_source_open(plumb_source **out, const char *path) {
    *out = NULL;
    plumb_source *s;
    PLUMB_TRY(plumb_alloc(&s, 1, sizeof *s, "a model source"));
    plumb_status status = open_files(s, path);
    if (status == PLUMB_OK)
        *out = s;
    else
        plumb_source_close(s);
    return status;
}

void plumb_source_release(const plumb_source *s) {
    plumb_map_release(&s->gguf.map);
    for (int i = 0; i < s->safetensors.n_maps; i++) plumb_map_release(&s->safetensors.maps[i]);
}

void plumb_source_close(plumb_source *s) {
    if (!s) return;
    if (s->safetensors.path || s->safetensors.tensors) plumb_safetensors_close(&s->safetensors);
    if (s->gguf.path || s->gguf.tensors) plumb_gguf_close(&s->gguf);
    plumb_params_free(&s->params);
    free(s->tensors);
    free(s->path);
    free(s);
}

const plumb_arch *plumb_source_arch(const plumb_source *s) {
    return &s->arch;
}
const plumb_params *plumb_source_params(const plumb_source *s) {
    return &s->params;
}
const char *plumb_source_path(const plumb_source *s) {
    return s->path;
}

/* F32 unless all are BF16 or all are F16: GGUF's norms are F32 beside 16-bit matrices. */
plumb_file_type plumb_source_type(const plumb_source *s) {
    plumb_file_type type = s->tensors[0]->type;
    for (int i = 1; i < s->params.count; i++)
        if (s->tensors[i]->type != type) return PLUMB_FT_F32;
    if (s->score && s->score->type != type) return PLUMB_FT_F32;
    return type == PLUMB_FT_BF16 || type == PLUMB_FT_F16 ? type : PLUMB_FT_F32;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Sixteen running maxima of the bits without sign: integer operations that vectorise, and exact: NaN and infinity are
 * the largest. */
static bool all_finite(const float *x, int64_t count) {
    enum { LANES = 16 };
    uint32_t worst[LANES] = {0}, bits[LANES], most = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        memcpy(bits, x + i, sizeof bits);
        for (int j = 0; j < LANES; j++) {
            uint32_t magnitude = bits[j] & 0x7fffffffu;
            worst[j] = worst[j] > magnitude ? worst[j] : magnitude;
        }
    }
    for (; i < count; i++) {
        memcpy(bits, x + i, sizeof *bits);
        if ((bits[0] & 0x7fffffffu) > most) most = bits[0] & 0x7fffffffu;
    }
    for (int j = 0; j < LANES; j++)
        if (worst[j] > most) most = worst[j];
    return most < 0x7f800000u;
}

static plumb_status not_finite(const plumb_source *s, int param, int64_t row, int64_t col, float value) {
    return plumb_error(PLUMB_E_NUMERIC, "%s: tensor %s has the value %g in row %lld, column %lld", s->path,
                       s->tensors[param]->name, (double)value, (long long)row, (long long)col);
}

/* `count` elements of the tensor from `at` into out, which stand for elements from `place` of the parameter. */
static plumb_status read_piece(const plumb_source *s, int param, int64_t at, int64_t count, int64_t place, float *out) {
    PLUMB_TRY(plumb_tensor_to_float(s->tensors[param], at, count, out));
    if (all_finite(out, count)) return PLUMB_OK;
    int64_t cols = s->params.items[param].cols;
    for (int64_t i = 0; i < count; i++)
        if (!all_finite(out + i, 1)) return not_finite(s, param, (place + i) / cols, (place + i) % cols, out[i]);
    return PLUMB_OK;
}

static plumb_status read_range(const plumb_source *s, int param, int64_t at, int64_t count, int64_t place, float *out) {
    for (int64_t done = 0; done < count; done += PIECE)
        PLUMB_TRY(read_piece(s, param, at + done, plumb_min64(PIECE, count - done), place + done, out + done));
    return PLUMB_OK;
}

static int64_t paired_row(int64_t row, int64_t head_dim) { /* GGUF row of a Hugging Face row */
    int64_t head = row / head_dim, inside = row % head_dim, half = inside / (head_dim / 2);
    return head * head_dim + 2 * (inside - half * (head_dim / 2)) + half;
}

static plumb_status read_paired_bias(const plumb_source *s, int param, int64_t count, float *out) {
    float *stored;
    PLUMB_TRY(plumb_alloc(&stored, (size_t)count, sizeof *stored, "a bias"));
    plumb_status status = read_range(s, param, 0, count, 0, stored);
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) out[i] = stored[paired_row(i, s->arch.head_dim)];
    free(stored);
    return status;
}

plumb_status plumb_source_read(const plumb_source *s, int param, int64_t first, int64_t rows, float *out) {
    if (param < 0 || param >= s->params.count)
        return plumb_error(PLUMB_E_FORMAT, "%s: there is no parameter %d", s->path, param);
    const plumb_param *p = &s->params.items[param];
    if (first < 0 || rows < 0 || first > p->rows || rows > p->rows - first)
        return plumb_error(PLUMB_E_FORMAT, "%s: %lld rows from %lld on of %s, which has %lld", s->path, (long long)rows,
                           (long long)first, p->name, (long long)p->rows);
    bool paired = s->is_gguf && (s->family->roles[p->role].flags & PLUMB_ROW_PAIRS);
    if (!paired) return read_range(s, param, first * p->cols, rows * p->cols, first * p->cols, out);
    if (p->bias) return rows ? read_paired_bias(s, param, p->cols, out) : PLUMB_OK;
    for (int64_t row = first; row < first + rows; row++)
        PLUMB_TRY(read_range(s, param, paired_row(row, s->arch.head_dim) * p->cols, p->cols, row * p->cols,
                             out + (row - first) * p->cols));
    return PLUMB_OK;
}

/* --- a scalar head ---------------------------------------------------------------------------- */

bool plumb_source_has_score(const plumb_source *s) {
    return s->score != NULL;
}

plumb_status plumb_source_score(const plumb_source *s, float *out) {
    if (!s->score) return plumb_error(PLUMB_E_FORMAT, "%s: the model has no score head", s->path);
    PLUMB_TRY(plumb_tensor_to_float(s->score, 0, s->arch.hidden, out));
    for (int64_t i = 0; i < s->arch.hidden; i++)
        if (!isfinite(out[i]))
            return plumb_error(PLUMB_E_NUMERIC, "%s: tensor score.weight has the value %g in row 0, column %lld",
                               s->path, (double)out[i], (long long)i);
    return PLUMB_OK;
}

void plumb_source_as_classifier(plumb_source *s) {
    s->arch.classifier = true;
    if (s->params.items[s->params.count - 1].role == PLUMB_ROLE_HEAD) s->params.count--; /* it is the last */
}

/* --- identity --------------------------------------------------------------------------------- */

static uint64_t hash(uint64_t h, const void *bytes, size_t n) { /* FNV-1a */
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3ull;
    return h;
}

/* Eight samples of 64 bytes a tensor: a training step changes nearly every weight, and a large model opens without
 * being read. */
uint64_t plumb_source_identity(const plumb_source *s) {
    enum { SAMPLES = 8, SAMPLE = 64 };
    uint64_t h = 0xcbf29ce484222325ull;
    for (int i = 0; i < s->params.count; i++) {
        const plumb_param *p = &s->params.items[i];
        const plumb_file_tensor *t = s->tensors[i];
        int64_t facts[3] = {p->rows, p->cols, (int64_t)t->type};
        h = hash(h, p->name, strlen(p->name));
        h = hash(h, facts, sizeof facts);
        if (t->bytes <= SAMPLES * SAMPLE)
            h = hash(h, t->data, t->bytes);
        else
            for (size_t k = 0; k < SAMPLES; k++) h = hash(h, t->data + (t->bytes - SAMPLE) / (SAMPLES - 1) * k, SAMPLE);
    }
    if (s->score) h = hash(h, s->score->data, s->score->bytes);
    return h;
}
