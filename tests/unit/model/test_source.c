/* Models on disk: every parameter of both formats against the dequantised weights, and files that do not fit. */
#include "model_test.h"
#include <math.h>

static plumb_source *must_open(const char *path) {
    plumb_source *s;
    if (plumb_source_open(&s, path) != PLUMB_OK) fail_msg("%s", plumb_error_message());
    return s;
}

static void compare_with(const char *model, const char *truth) {
    plumb_source *s = must_open(model);
    const plumb_params *p = plumb_source_params(s);
    plumb_safetensors file;
    assert_ok(plumb_safetensors_open(&file, truth, "model"));
    for (int i = 0; i < p->count; i++) {
        int64_t count, rows = p->items[i].rows, cols = p->items[i].cols;
        float *expected = load_tensor(&file, p->items[i].name, &count), *found = calloc((size_t)count, sizeof *found);
        assert_int_equal(count, rows * cols);
        assert_ok(plumb_source_read(s, i, 0, rows, found));
        assert_memory_equal(found, expected, (size_t)count * sizeof *found);
        memset(found, 0, (size_t)count * sizeof *found);
        for (int64_t first = 0; first < rows; first += 32) /* as the loader shares the work out */
            assert_ok(plumb_source_read(s, i, first, plumb_min64(32, rows - first), found + first * cols));
        assert_memory_equal(found, expected, (size_t)count * sizeof *found);
        free(expected);
        free(found);
    }
    plumb_safetensors_close(&file);
    plumb_source_close(s);
}

static void reads_every_format(void **state) {
    (void)state;
    compare_with(GOLDEN "/models/llama", GOLDEN "/models/llama");
    compare_with(GOLDEN "/models/llama3-tied", GOLDEN "/models/llama3-tied");
    compare_with(GOLDEN "/gguf/tiny-f32.gguf", GOLDEN "/gguf/tiny-f32.safetensors");
    compare_with(GOLDEN "/gguf/tiny-q8_0.gguf", GOLDEN "/gguf/tiny-q8_0.safetensors");
    compare_with(GOLDEN "/gguf/tiny-q4_1.gguf", GOLDEN "/gguf/tiny-q4_1.safetensors");
    compare_with(GOLDEN "/gguf/tiny-bf16.gguf", GOLDEN "/gguf/tiny-bf16.safetensors");
}

static void reads_gguf_metadata(void **state) {
    (void)state;
    plumb_source *s = must_open(GOLDEN "/gguf/tiny-q4_1.gguf");
    const plumb_arch *a = plumb_source_arch(s);
    assert_int_equal(a->vocab, 96);
    assert_int_equal(a->head_dim, 16);
    assert_int_equal(a->kv_heads, 2);
    assert_int_equal(a->max_positions, 128);
    assert_true(a->norm_eps == 1e-5 && a->rope_theta == 20000 && a->rope == PLUMB_ROPE_DEFAULT && a->tied);
    assert_int_equal(a->bos, 1);
    assert_int_equal(a->eos[0], 2);
    assert_int_equal(plumb_source_type(s), PLUMB_FT_F32);
    plumb_source_close(s);
    s = must_open(GOLDEN "/gguf/tiny-bf16.gguf");
    assert_false(plumb_source_arch(s)->tied);
    assert_int_equal(plumb_source_type(s), PLUMB_FT_F32); /* its norms are */
    plumb_source_close(s);
}

static void refuses_bad_ranges(void **state) {
    (void)state;
    float row[64];
    plumb_source *s = must_open(GOLDEN "/models/llama");
    assert_refused(plumb_source_read(s, -1, 0, 1, row), PLUMB_E_FORMAT, "parameter -1");
    assert_refused(plumb_source_read(s, 0, 131, 1, row), PLUMB_E_FORMAT, "which has 131");
    assert_refused(plumb_source_read(s, 0, 1, INT64_MAX, row), PLUMB_E_FORMAT, "which has 131");
    assert_ok(plumb_source_read(s, 0, 131, 0, row));
    plumb_source_close(s);
    assert_refused(plumb_source_open(&s, GOLDEN "/models/none"), PLUMB_E_IO, "none");
    assert_null(s);
    assert_refused(plumb_source_open(&s, GOLDEN "/models/llama/model.safetensors"), PLUMB_E_FORMAT,
                   "Hugging Face directory");
    assert_refused(plumb_source_open(&s, GOLDEN "/adapters/llama"), PLUMB_E_IO, "config.json");
}

/* --- Hugging Face directories changed in one place -------------------------------------------- */

typedef struct weights { /* the golden model's tensors, to be changed and written */
    plumb_st_item items[64];
    int64_t count;
} weights;

static weights load_weights(const char *model) {
    weights w = {0};
    plumb_safetensors file;
    assert_ok(plumb_safetensors_open(&file, model, "model"));
    for (int64_t i = 0; i < file.count; i++) {
        int64_t count;
        plumb_st_item *item = &w.items[w.count++];
        *item = (plumb_st_item){
            .name = strdup(file.tensors[i].name), .n_dims = file.tensors[i].n_dims, .type = PLUMB_FT_F32};
        memcpy(item->shape, file.tensors[i].shape, sizeof item->shape);
        item->data = load_tensor(&file, item->name, &count);
    }
    plumb_safetensors_close(&file);
    return w;
}

static void free_weights(weights *w) {
    for (int64_t i = 0; i < w->count; i++) {
        free((void *)(uintptr_t)w->items[i].name);
        free((void *)(uintptr_t)w->items[i].data);
    }
}

static plumb_st_item *item_of(weights *w, const char *name) {
    for (int64_t i = 0; i < w->count; i++)
        if (!strcmp(w->items[i].name, name)) return &w->items[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void add_weight(weights *w, const char *name, int64_t rows, int64_t cols) {
    plumb_st_item *item = &w->items[w->count++];
    *item = (plumb_st_item){.name = strdup(name), .n_dims = cols ? 2 : 1, .shape = {rows, cols}, .type = PLUMB_FT_F32};
    item->data = calloc((size_t)(rows * (cols ? cols : 1)), sizeof(float));
}

static void put_model(const char *folder, const weights *w, const char *from, const char *changes) {
    put_changed(in(from, "config.json"), changes, folder, "config.json");
    assert_ok(plumb_safetensors_write(in(folder, "model.safetensors"), w->items, w->count, NULL, NULL));
}

static void refuses_wrong_tensors(void **state) {
    const char *llama = GOLDEN "/models/llama";
    plumb_source *s;
    weights w = load_weights(llama);
    put_model(*state, &w, llama, "{\"vocab_size\":120}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "model.embed_tokens.weight has shape [131, 48], expected [120, 48] (vocab_size, hidden_size)");
    put_model(*state, &w, llama, "{\"num_key_value_heads\":3}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "k_proj.weight has shape [16, 48], expected [24, 48] (num_key_value_heads x head_dim, hidden_size)");
    put_model(*state, &w, llama, "{\"num_hidden_layers\":3}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "model.layers.2.input_layernorm.weight is missing");
    put_model(*state, &w, llama, "{\"num_hidden_layers\":1}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "num_hidden_layers says 1");
    put_model(*state, &w, llama, "{\"attention_bias\":true}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "q_proj.bias is missing");
    add_weight(&w, "model.layers.0.rotary_emb.inv_freq", 4, 0);
    put_model(*state, &w, llama, "{}");
    assert_ok(plumb_source_open(&s, *state)); /* superfluous and known */
    plumb_source_close(s);
    add_weight(&w, "model.layers.0.self_attn.q_norm.weight", 8, 0);
    put_model(*state, &w, llama, "{}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "q_norm.weight is not part of a llama model");
    w.count--;
    free((void *)(uintptr_t)w.items[w.count].name);
    free((void *)(uintptr_t)w.items[w.count].data);
    add_weight(&w, "model.layers.1.mlp.up_proj.bias", 80, 0);
    put_model(*state, &w, llama, "{}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "mlp_bias");
    w.count--;
    free((void *)(uintptr_t)w.items[w.count].name);
    free((void *)(uintptr_t)w.items[w.count].data);
    item_of(&w, "model.norm.weight")->n_dims = 2;
    item_of(&w, "model.norm.weight")->shape[0] = 1;
    item_of(&w, "model.norm.weight")->shape[1] = 48;
    put_model(*state, &w, llama, "{}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "model.norm.weight has shape [1, 48], expected [48] (hidden_size)");
    free_weights(&w);
}

static void handles_tied_heads(void **state) {
    const char *tied = GOLDEN "/models/llama3-tied";
    plumb_source *s;
    weights w = load_weights(tied);
    put_model(*state, &w, tied, "{\"tie_word_embeddings\":false}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "lm_head.weight is missing; a model of 3 layers without tie_word_embeddings");
    add_weight(&w, "lm_head.weight", 131, 48);
    put_model(*state, &w, tied, "{}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "lm_head.weight differs from model.embed_tokens.weight");
    memcpy((void *)(uintptr_t)item_of(&w, "lm_head.weight")->data, item_of(&w, "model.embed_tokens.weight")->data,
           131 * 48 * sizeof(float));
    put_model(*state, &w, tied, "{}");
    assert_ok(plumb_source_open(&s, *state));
    assert_true(plumb_source_arch(s)->tied);
    plumb_source_close(s);
    /* only the head was kept */
    plumb_st_item *embedding = item_of(&w, "model.embed_tokens.weight");
    free((void *)(uintptr_t)embedding->name);
    embedding->name = strdup("model.rotary_emb.inv_freq"); /* its place is taken by a tensor that is ignored */
    put_model(*state, &w, tied, "{}");
    assert_ok(plumb_source_open(&s, *state));
    float row[48];
    assert_ok(plumb_source_read(s, 0, 64, 1, row));
    assert_memory_equal(row, item_of(&w, "lm_head.weight")->data + 64 * 48, sizeof row);
    plumb_source_close(s);
    free_weights(&w);
}

static void reads_sequence_classifiers(void **state) {
    const char *llama = GOLDEN "/models/llama", *classifier = "{\"architectures\":[\"LlamaForSequenceClassification\"],\"num_labels\":1}";
    plumb_source *s;
    float found[48];
    weights w = load_weights(llama);
    add_weight(&w, "score.weight", 1, 48);
    float *score = (float *)(uintptr_t)item_of(&w, "score.weight")->data;
    for (int i = 0; i < 48; i++) score[i] = (float)i - 20.5f;
    put_model(*state, &w, llama, "{}");
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "score.weight is not part of a llama model (of a sequence classifier;");
    put_model(*state, &w, llama, classifier);
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "lm_head.weight is not part of a llama model with a score");
    plumb_st_item *head = item_of(&w, "lm_head.weight");
    free((void *)(uintptr_t)head->name);
    head->name = strdup("model.rotary_emb.inv_freq");
    put_model(*state, &w, llama, classifier);
    s = must_open(*state);
    assert_true(plumb_source_has_score(s) && plumb_source_arch(s)->classifier);
    assert_ok(plumb_source_score(s, found));
    assert_memory_equal(found, score, sizeof found);
    uint64_t original = plumb_source_identity(s);
    plumb_source_close(s);
    score[47] = NAN;
    put_model(*state, &w, llama, classifier);
    s = must_open(*state);
    assert_int_not_equal(plumb_source_identity(s), original);
    assert_refused(plumb_source_score(s, found), PLUMB_E_NUMERIC, "score.weight has the value nan in row 0, column 47");
    plumb_source_close(s);
    item_of(&w, "score.weight")->shape[0] = 2, item_of(&w, "score.weight")->shape[1] = 24;
    put_model(*state, &w, llama, classifier);
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT,
                   "score.weight has shape [2, 24], expected [1, 48] (num_labels, hidden_size)");
    w.count--;
    free((void *)(uintptr_t)w.items[w.count].name);
    free(score);
    put_model(*state, &w, llama, classifier);
    assert_refused(plumb_source_open(&s, *state), PLUMB_E_FORMAT, "score.weight is missing; a LlamaForSequenceClassification needs it");
    free_weights(&w);
    s = must_open(llama); /* a language model that is to score leaves its head out */
    int count = plumb_source_params(s)->count;
    assert_false(plumb_source_has_score(s));
    assert_refused(plumb_source_score(s, found), PLUMB_E_FORMAT, "no score head");
    plumb_source_as_classifier(s);
    assert_int_equal(plumb_source_params(s)->count, count - 1);
    plumb_source_as_classifier(s);
    assert_int_equal(plumb_source_params(s)->count, count - 1);
    plumb_source_close(s);
}

static void finds_bad_values(void **state) {
    const char *llama = GOLDEN "/models/llama";
    const float bad[] = {NAN, INFINITY, -INFINITY};
    plumb_source *s;
    weights w = load_weights(llama);
    float *q = (float *)(uintptr_t)item_of(&w, "model.layers.1.self_attn.q_proj.weight")->data, out[48 * 48];
    for (int k = 0; k < 3; k++) {
        float kept = q[37 * 48 + 11];
        q[37 * 48 + 11] = bad[k];
        put_model(*state, &w, llama, "{}");
        q[37 * 48 + 11] = kept;
        s = must_open(*state);
        int param = plumb_params_find(plumb_source_params(s), PLUMB_ROLE_Q, 1, false);
        assert_ok(plumb_source_read(s, param, 0, 32, out));
        assert_refused(plumb_source_read(s, param, 32, 16, out), PLUMB_E_NUMERIC,
                       "model.layers.1.self_attn.q_proj.weight has the value");
        assert_non_null(strstr(plumb_error_message(), "row 37, column 11"));
        plumb_source_close(s);
    }
    q[0] = 3.4028234e38f; /* the largest finite value is fine */
    put_model(*state, &w, llama, "{}");
    s = must_open(*state);
    assert_ok(plumb_source_read(s, plumb_params_find(plumb_source_params(s), PLUMB_ROLE_Q, 1, false), 0, 48, out));
    plumb_source_close(s);
    free_weights(&w);
}

static void tells_models_apart(void **state) {
    const char *llama = GOLDEN "/models/llama";
    plumb_source *s = must_open(llama);
    uint64_t original = plumb_source_identity(s);
    assert_int_equal(plumb_source_identity(s), original);
    plumb_source_close(s);
    weights w = load_weights(llama);
    put_model(*state, &w, llama, "{}");
    s = must_open(*state);
    assert_int_equal(plumb_source_identity(s), original); /* the place does not matter */
    plumb_source_close(s);
    ((float *)(uintptr_t)item_of(&w, "model.norm.weight")->data)[0] += 1e-6f;
    put_model(*state, &w, llama, "{}");
    s = must_open(*state);
    assert_int_not_equal(plumb_source_identity(s), original);
    plumb_source_close(s);
    free_weights(&w);
}

static void survives_lost_memory(void **state) {
    (void)state;
    const char *const models[] = {GOLDEN "/models/llama", GOLDEN "/gguf/tiny-q4_1.gguf"};
    for (int m = 0; m < 2; m++) {
        plumb_source *s = NULL;
        plumb_status status = PLUMB_E_MEMORY;
        long n = 1;
        for (; status == PLUMB_E_MEMORY && n < 2000; n++) {
            plumb_alloc_fail_after(n);
            status = plumb_source_open(&s, models[m]);
        }
        plumb_alloc_fail_after(0);
        assert_int_equal(status, PLUMB_OK);
        assert_true(n > 5);
        plumb_source_close(s);
    }
    plumb_source_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_format),
        cmocka_unit_test(reads_gguf_metadata),
        cmocka_unit_test(refuses_bad_ranges),
        cmocka_unit_test_setup_teardown(refuses_wrong_tensors, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(handles_tied_heads, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_sequence_classifiers, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(finds_bad_values, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(tells_models_apart, make_folder, remove_folder),
        cmocka_unit_test(survives_lost_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
