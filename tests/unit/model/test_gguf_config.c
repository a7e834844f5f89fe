/* GGUF metadata: a file written here key by key, so that one thing at a time can be different. */
#include "model_test.h"
#include <math.h>

enum { HIDDEN = 32, INTERMEDIATE = 64, VOCAB = 40, HEADS = 2, HEAD_DIM = 16 };

typedef struct writer { /* metadata and tensor list grow apart and are joined at the end */
    plumb_str values, tensors, data;
    uint64_t n_values, n_tensors;
} writer;

static void add(plumb_str *s, const void *bytes, size_t n) {
    assert_ok(plumb_str_append(s, bytes, n));
}
static void add_u32(plumb_str *s, uint32_t v) {
    add(s, &v, sizeof v);
}
static void add_u64(plumb_str *s, uint64_t v) {
    add(s, &v, sizeof v);
}
static void add_text(plumb_str *s, const char *text) {
    add_u64(s, strlen(text));
    add(s, text, strlen(text));
}

static void key(writer *w, const char *name, plumb_gguf_type type) {
    add_text(&w->values, name);
    add_u32(&w->values, (uint32_t)type);
    w->n_values++;
}

static void key_u32(writer *w, const char *name, uint32_t v) {
    key(w, name, PLUMB_GGUF_U32);
    add_u32(&w->values, v);
}

static void key_f32(writer *w, const char *name, float v) {
    key(w, name, PLUMB_GGUF_F32);
    add(&w->values, &v, sizeof v);
}

static void key_text(writer *w, const char *name, const char *v) {
    key(w, name, PLUMB_GGUF_STRING);
    add_text(&w->values, v);
}

static void tensor(writer *w, const char *name, uint64_t cols, uint64_t rows,
                   const float *values) { /* rows 0: a vector */
    add_text(&w->tensors, name);
    add_u32(&w->tensors, rows ? 2 : 1);
    add_u64(&w->tensors, cols);
    if (rows) add_u64(&w->tensors, rows);
    add_u32(&w->tensors, 0); /* F32 */
    add_u64(&w->tensors, w->data.length);
    for (uint64_t i = 0; i < cols * (rows ? rows : 1); i++) {
        float v = values ? values[i] : (float)(i % 7);
        add(&w->data, &v, sizeof v);
    }
    while (w->data.length % 32) add(&w->data, "", 1);
    w->n_tensors++;
}

/* A model of one layer; `skip` names a key to leave out. */
static writer small_model(const char *skip) {
    static const struct {
        const char *name;
        uint32_t value;
    } sizes[] = {{"llama.context_length", 64},
                 {"llama.embedding_length", HIDDEN},
                 {"llama.block_count", 1},
                 {"llama.feed_forward_length", INTERMEDIATE},
                 {"llama.attention.head_count", HEADS},
                 {"llama.rope.dimension_count", HEAD_DIM}};
    writer w = {0};
    if (strcmp(skip, "general.architecture")) key_text(&w, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(skip, sizes[i].name)) key_u32(&w, sizes[i].name, sizes[i].value);
    if (strcmp(skip, "llama.attention.layer_norm_rms_epsilon"))
        key_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tensor(&w, "token_embd.weight", HIDDEN, VOCAB, NULL);
    tensor(&w, "output_norm.weight", HIDDEN, 0, NULL);
    tensor(&w, "blk.0.attn_norm.weight", HIDDEN, 0, NULL);
    tensor(&w, "blk.0.ffn_norm.weight", HIDDEN, 0, NULL);
    tensor(&w, "blk.0.attn_q.weight", HIDDEN, HIDDEN, NULL);
    tensor(&w, "blk.0.attn_k.weight", HIDDEN, HIDDEN, NULL);
    tensor(&w, "blk.0.attn_v.weight", HIDDEN, HIDDEN, NULL);
    tensor(&w, "blk.0.attn_output.weight", HIDDEN, HIDDEN, NULL);
    tensor(&w, "blk.0.ffn_gate.weight", HIDDEN, INTERMEDIATE, NULL);
    tensor(&w, "blk.0.ffn_up.weight", HIDDEN, INTERMEDIATE, NULL);
    tensor(&w, "blk.0.ffn_down.weight", INTERMEDIATE, HIDDEN, NULL);
    return w;
}

static const char *finish(writer *w, const char *folder) { /* frees w */
    plumb_str all = {0};
    add(&all, "GGUF", 4);
    add_u32(&all, 3);
    add_u64(&all, w->n_tensors);
    add_u64(&all, w->n_values);
    add(&all, w->values.data, w->values.length);
    add(&all, w->tensors.data, w->tensors.length);
    while (all.length % 32) add(&all, "", 1);
    add(&all, w->data.data, w->data.length);
    const char *path = put(folder, "model.gguf", all.data, all.length);
    plumb_str_free(&all);
    plumb_str_free(&w->values);
    plumb_str_free(&w->tensors);
    plumb_str_free(&w->data);
    return path;
}

static plumb_arch must_read(writer *w, const char *folder) {
    plumb_source *s;
    const char *path = finish(w, folder);
    assert_ok(plumb_source_open(&s, path));
    plumb_arch a = *plumb_source_arch(s);
    plumb_source_close(s);
    return a;
}

static void reads_the_small_model(void **state) {
    writer w = small_model("");
    plumb_arch a = must_read(&w, *state);
    assert_int_equal(a.vocab, VOCAB);
    assert_int_equal(a.kv_heads, HEADS);
    assert_int_equal(a.head_dim, HEAD_DIM);
    assert_true(a.tied && a.rope_theta == 10000 && a.norm_eps == 1e-5 && a.bos == -1 && a.n_eos == 0);
    w = small_model("");
    key_text(&w, "llama.rope.scaling.type", "linear");
    key_f32(&w, "llama.rope.scaling.factor", 4.0f);
    key_f32(&w, "llama.rope.freq_base", 1e6f);
    key_u32(&w, "llama.expert_count", 0);
    key_u32(&w, "tokenizer.ggml.eos_token_id", 3);
    key_u32(&w, "tokenizer.ggml.eot_token_id", 5);
    key_u32(&w, "tokenizer.ggml.padding_token_id", UINT32_MAX);
    a = must_read(&w, *state);
    assert_true(a.rope == PLUMB_ROPE_LINEAR && a.rope_factor == 4 && a.rope_theta == 1e6 && a.pad == -1);
    assert_int_equal(a.n_eos, 2);
    assert_int_equal(a.eos[1], 5);
}

static void puts_biases_back(void **state) {
    float stored[HIDDEN], read[HIDDEN];
    for (int i = 0; i < HIDDEN; i++) stored[i] = (float)i;
    writer w = small_model("");
    tensor(&w, "blk.0.attn_q.bias", HIDDEN, 0, stored);
    tensor(&w, "blk.0.attn_k.bias", HIDDEN, 0, stored);
    tensor(&w, "blk.0.attn_v.bias", HIDDEN, 0, stored);
    tensor(&w, "blk.0.attn_output.bias", HIDDEN, 0, stored);
    plumb_source *s;
    assert_ok(plumb_source_open(&s, finish(&w, *state)));
    assert_true(plumb_source_arch(s)->attention_bias);
    int q = plumb_params_find(plumb_source_params(s), PLUMB_ROLE_Q, 0, true),
        v = plumb_params_find(plumb_source_params(s), PLUMB_ROLE_V, 0, true);
    assert_ok(plumb_source_read(s, q, 0, 1, read));
    for (int i = 0; i < HIDDEN; i++) { /* row half*8 + j of a head was stored at 2j + half */
        int head = i / HEAD_DIM, half = i % HEAD_DIM / 8, j = i % 8;
        assert_true(read[i] == (float)(head * HEAD_DIM + 2 * j + half));
    }
    assert_ok(plumb_source_read(s, v, 0, 1, read));
    assert_memory_equal(read, stored, sizeof stored);
    plumb_source_close(s);
}

/* llama.cpp's converter: divisors from the parameters, in float32. */
static void converter_divisors(float *out, double theta, double factor, double original) {
    for (int i = 0; i < HEAD_DIM / 2; i++) {
        float f = (float)(1.0 / pow(theta, 2.0 * i / HEAD_DIM));
        double wavelength = 2 * 3.14159265358979323846 / f;
        if (wavelength < original / 4)
            out[i] = 1;
        else if (wavelength > original)
            out[i] = (float)factor;
        else {
            double smooth = (original / wavelength - 1) / 3;
            out[i] = (float)(1 / ((1 - smooth) / factor + smooth));
        }
    }
}

static void recovers_llama3_scaling(void **state) {
    static const struct {
        double theta, factor, original;
    } cases[] = {{500000, 8, 8192}, {500000, 32, 8192}, {500000, 8, 64}, {10000, 4, 256}};
    float divisors[HEAD_DIM / 2];
    for (int i = 0; i < 4; i++) {
        writer w = small_model("");
        converter_divisors(divisors, cases[i].theta, cases[i].factor, cases[i].original);
        key_f32(&w, "llama.rope.freq_base", (float)cases[i].theta);
        tensor(&w, "rope_freqs.weight", HEAD_DIM / 2, 0, divisors);
        plumb_arch a = must_read(&w, *state), plain;
        double found[HEAD_DIM / 2], unscaled[HEAD_DIM / 2];
        assert_true(a.rope == PLUMB_ROPE_LLAMA3 && a.rope_factor == cases[i].factor);
        plumb_arch_inverse_frequencies(&a, found);
        plain = a;
        plain.rope = PLUMB_ROPE_DEFAULT;
        plumb_arch_inverse_frequencies(&plain, unscaled);
        for (int j = 0; j < HEAD_DIM / 2; j++) assert_true(fabs(unscaled[j] / found[j] / divisors[j] - 1) < 1e-6);
    }
    writer w = small_model("");
    for (int j = 0; j < HEAD_DIM / 2; j++) divisors[j] = 1;
    tensor(&w, "rope_freqs.weight", HEAD_DIM / 2, 0, divisors);
    assert_true(must_read(&w, *state).rope == PLUMB_ROPE_DEFAULT);
    plumb_source *s;
    w = small_model("");
    for (int j = 0; j < HEAD_DIM / 2; j++) divisors[j] = 1 + 0.1f * (float)j;
    tensor(&w, "rope_freqs.weight", HEAD_DIM / 2, 0, divisors);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED, "rope_freqs.weight");
    w = small_model("");
    divisors[3] = NAN;
    tensor(&w, "rope_freqs.weight", HEAD_DIM / 2, 0, divisors);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED, "rope_freqs.weight");
    w = small_model("");
    tensor(&w, "rope_freqs.weight", 4, 0, divisors);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT, "rope_freqs.weight");
}

static void refuses_by_name(void **state) {
    static const struct {
        const char *name;
        int64_t value;
        plumb_status status;
        const char *mentions;
    } cases[] = {
        {"llama.expert_count", 8, PLUMB_E_UNSUPPORTED, "llama.expert_count 8"},
        {"llama.attention.sliding_window", 4096, PLUMB_E_UNSUPPORTED, "sliding_window"},
        {"llama.attn_logit_softcapping", 30, PLUMB_E_UNSUPPORTED, "llama.attn_logit_softcapping is not supported"},
        {"llama.attention.key_length", 15, PLUMB_E_UNSUPPORTED, "value_length"}, /* with value_length 16 below */
        {"llama.attention.head_count_kv", 0, PLUMB_E_FORMAT, "attention.head_count_kv is 0"},
        {"llama.attention.head_count_kv", 3, PLUMB_E_FORMAT, "head_count_kv is 3"},
        {"llama.vocab_size", 41, PLUMB_E_FORMAT, "token_embd.weight has shape [40, 32], expected [41, 32]"},
        {"llama.vocab_size", UINT32_MAX, PLUMB_E_FORMAT, "vocab_size"},
        {"split.count", 2, PLUMB_E_UNSUPPORTED, "split.count"},
        {"tokenizer.ggml.eos_token_id", 40, PLUMB_E_FORMAT, "outside the vocabulary"},
    };
    plumb_source *s;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        writer w = small_model("");
        key_u32(&w, cases[i].name, (uint32_t)cases[i].value);
        if (i == 3) key_u32(&w, "llama.attention.value_length", 16);
        assert_refused(plumb_source_open(&s, finish(&w, *state)), cases[i].status, cases[i].mentions);
        assert_non_null(strstr(plumb_error_message(), "model.gguf"));
    }
    static const char *const required[] = {"general.architecture",
                                           "llama.embedding_length",
                                           "llama.block_count",
                                           "llama.feed_forward_length",
                                           "llama.attention.head_count",
                                           "llama.context_length",
                                           "llama.attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        writer w = small_model(required[i]);
        assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT, required[i]);
    }
    writer w = small_model("general.architecture");
    key_text(&w, "general.architecture", "gemma3");
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED,
                   "'gemma3' is not supported; supported: llama");
    w = small_model("");
    key_text(&w, "llama.rope.scaling.type", "yarn");
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED, "'yarn'");
    w = small_model("llama.rope.dimension_count");
    key_u32(&w, "llama.rope.dimension_count", 8);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED, "partial rotation");
    w = small_model("llama.attention.head_count");
    key(&w, "llama.attention.head_count", PLUMB_GGUF_U64);
    add_u64(&w.values, UINT64_MAX);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT, "18446744073709551615");
    w = small_model("llama.attention.head_count");
    key_text(&w, "llama.attention.head_count", "2");
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT,
                   "llama.attention.head_count is not an integer");
    w = small_model("llama.attention.head_count");
    key(&w, "llama.attention.head_count", PLUMB_GGUF_ARRAY);
    add_u32(&w.values, PLUMB_GGUF_U32);
    add_u64(&w.values, 1);
    add_u32(&w.values, 2);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_UNSUPPORTED, "differs by layer");
    w = small_model("");
    tensor(&w, "blk.0.attn_q.bias", HIDDEN, 0, NULL);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT, "biases must be on all");
    w = small_model("");
    tensor(&w, "blk.1.attn_norm.weight", HIDDEN, 0, NULL);
    assert_refused(plumb_source_open(&s, finish(&w, *state)), PLUMB_E_FORMAT, "block_count says 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_the_small_model, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(puts_biases_back, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(recovers_llama3_scaling, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_by_name, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
