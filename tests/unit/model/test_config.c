/* config.json of both styles, and what is refused by name. */
#include "model_test.h"
#include <math.h>
#include "../../../src/model/arch_table.h"

static const char *const llama = GOLDEN "/models/llama/config.json";

static plumb_status read_changed(const char *folder, const char *from, const char *changes, plumb_arch *a) {
    put_changed(from, changes, folder, "config.json");
    return plumb_arch_from_hf(a, folder);
}

static void reads_both_styles(void **state) {
    plumb_arch a;
    (void)state;
    assert_ok(plumb_arch_from_hf(&a, GOLDEN "/models/llama"));
    assert_string_equal(a.family, "llama");
    assert_int_equal(a.vocab, 131);
    assert_int_equal(a.hidden, 48);
    assert_int_equal(a.intermediate, 80);
    assert_int_equal(a.layers, 2);
    assert_int_equal(a.heads, 6);
    assert_int_equal(a.kv_heads, 2);
    assert_int_equal(a.head_dim, 8);
    assert_int_equal(a.max_positions, 64);
    assert_true(a.norm_eps == 1e-6 && a.rope_theta == 10000.0 && a.rope == PLUMB_ROPE_DEFAULT);
    assert_false(a.tied || a.attention_bias || a.mlp_bias);
    assert_int_equal(a.bos, 1);
    assert_int_equal(a.pad, -1);
    assert_int_equal(a.n_eos, 1);
    assert_int_equal(a.eos[0], 2);
    assert_ok(plumb_arch_from_hf(&a, GOLDEN "/models/llama3-tied"));
    assert_true(a.tied && a.rope == PLUMB_ROPE_LLAMA3 && a.rope_theta == 500000.0);
    assert_true(a.rope_factor == 8 && a.rope_low == 1 && a.rope_high == 4 && a.rope_original == 16);
}

static void fills_defaults(void **state) {
    plumb_arch a;
    assert_ok(read_changed(
        *state, llama,
        "{\"num_key_value_heads\":null,\"head_dim\":null,\"rope_parameters\":null,\"rms_norm_eps\":null,"
        "\"max_position_embeddings\":null,\"tie_word_embeddings\":null,\"bos_token_id\":null,\"eos_token_id\":null}",
        &a));
    assert_int_equal(a.kv_heads, 6);
    assert_int_equal(a.head_dim, 8);
    assert_int_equal(a.max_positions, 2048);
    assert_true(a.rope_theta == 10000.0 && a.norm_eps == 1e-6 && !a.tied && a.bos == -1 && a.n_eos == 0);
}

static void reads_labels(void **state) {
    static const char *const one[] = {"\"id2label\":{\"0\":\"LABEL_0\"}", "\"num_labels\":1",
                                      "\"num_labels\":1,\"id2label\":{\"0\":\"good\"}"};
    plumb_arch a;
    plumb_params p;
    char changes[256];
    for (int i = 0; i < 3; i++) {
        snprintf(changes, sizeof changes, "{\"architectures\":[\"LlamaForSequenceClassification\"],%s}", one[i]);
        assert_ok(read_changed(*state, llama, changes, &a));
        assert_true(a.classifier);
        assert_ok(plumb_params_build(&p, &a));
        assert_int_equal(plumb_params_find(&p, PLUMB_ROLE_HEAD, -1, false), -1);
        plumb_params_free(&p);
    }
    assert_ok(read_changed(*state, llama, "{\"id2label\":{\"0\":\"a\"}}", &a)); /* of no interest to a language model */
    assert_false(a.classifier);
}

static void merges_ends(void **state) {
    plumb_arch a;
    put_text(*state, "generation_config.json", "{\"eos_token_id\":[5,2,7],\"pad_token_id\":9,\"bos_token_id\":4}");
    assert_ok(read_changed(*state, llama, "{\"eos_token_id\":[2,3]}", &a));
    const int32_t expected[] = {2, 3, 5, 7};
    assert_int_equal(a.n_eos, 4);
    assert_memory_equal(a.eos, expected, sizeof expected);
    assert_int_equal(a.pad, 9);
    assert_int_equal(a.bos, 1); /* config.json's */
    put_text(*state, "generation_config.json", "{\"eos_token_id\":[10,11,12,13,14,15,16,17,18]}");
    assert_refused(plumb_arch_from_hf(&a, *state), PLUMB_E_UNSUPPORTED, "generation_config.json");
    put_text(*state, "generation_config.json", "{\"eos_token_id\":131}");
    assert_refused(plumb_arch_from_hf(&a, *state), PLUMB_E_FORMAT, "131");
}

static void reads_rope(void **state) {
    plumb_arch a;
    assert_ok(read_changed(
        *state, llama,
        "{\"rope_parameters\":null,\"rope_theta\":5000,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", &a));
    assert_true(a.rope == PLUMB_ROPE_LINEAR && a.rope_factor == 4 && a.rope_theta == 5000);
    assert_ok(read_changed(*state, llama,
                           "{\"rope_theta\":7,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}}",
                           &a)); /* wins over rope_parameters */
    assert_true(a.rope == PLUMB_ROPE_LINEAR && a.rope_factor == 2.5 && a.rope_theta == 7);
    assert_ok(read_changed(*state, llama, "{\"rope_theta\":7,\"rope_scaling\":{}}", &a));
    assert_true(a.rope == PLUMB_ROPE_DEFAULT && a.rope_theta == 10000);
    assert_ok(read_changed(
        *state, llama,
        "{\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}}",
        &a));
    assert_int_equal(a.rope_original, 64); /* max_position_embeddings */
}

static void frequencies(void **state) {
    plumb_arch a;
    double f[4];
    (void)state;
    assert_ok(plumb_arch_from_hf(&a, GOLDEN "/models/llama"));
    plumb_arch_inverse_frequencies(&a, f);
    const double plain[] = {1, 0.1, 0.01, 0.001};
    for (int i = 0; i < 4; i++) assert_true(fabs(f[i] - plain[i]) <= 1e-15);
    a.rope = PLUMB_ROPE_LINEAR;
    a.rope_factor = 4;
    plumb_arch_inverse_frequencies(&a, f);
    for (int i = 0; i < 4; i++) assert_true(fabs(f[i] - plain[i] / 4) <= 1e-15);
    assert_ok(plumb_arch_from_hf(&a, GOLDEN "/models/llama3-tied"));
    plumb_arch_inverse_frequencies(&a, f);
    /* transformers 5.23, _compute_llama3_parameters on this configuration (float32): one kept in part, three divided */
    const double scaled[] = {0.576056361, 0.00470075384, 0.000176776681, 6.64786967e-06};
    for (int i = 0; i < 4; i++) assert_true(fabs(f[i] - scaled[i]) <= 2e-7 * scaled[i]);
}

typedef struct refusal {
    const char *changes;
    plumb_status status;
    const char *mentions;
} refusal;

static void refuses(void **state) {
    static const refusal cases[] = {
        {"{\"model_type\":\"mistral\"}", PLUMB_E_UNSUPPORTED,
         "model_type 'mistral' is not supported; supported: llama"},
        {"{\"model_type\":null}", PLUMB_E_FORMAT, "model_type"},
        {"{\"model_type\":7}", PLUMB_E_FORMAT, "model_type"},
        {"{\"hidden_act\":\"gelu\"}", PLUMB_E_UNSUPPORTED, "hidden_act 'gelu'"},
        {"{\"sliding_window\":4096}", PLUMB_E_UNSUPPORTED, "sliding_window"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}", PLUMB_E_UNSUPPORTED, "gptq"},
        {"{\"attention_dropout\":0.1}", PLUMB_E_UNSUPPORTED, "attention_dropout"},
        {"{\"partial_rotary_factor\":0.5}", PLUMB_E_UNSUPPORTED, "partial_rotary_factor"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", PLUMB_E_UNSUPPORTED, "layer_types[1]"},
        {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", PLUMB_E_UNSUPPORTED, "'yarn'"},
        {"{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", PLUMB_E_UNSUPPORTED, "'dynamic'"},
        {"{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", PLUMB_E_UNSUPPORTED, "'longrope'"},
        {"{\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}}", PLUMB_E_UNSUPPORTED,
         "partial_rotary_factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\"}}", PLUMB_E_FORMAT, "factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}}", PLUMB_E_FORMAT, "factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":\"2\"}}", PLUMB_E_FORMAT, "factor is a string"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}}",
         PLUMB_E_FORMAT, "high_freq_factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":0}}",
         PLUMB_E_FORMAT, "original_max_position_embeddings"},
        {"{\"rope_scaling\":[1]}", PLUMB_E_FORMAT, "rope_scaling is an array"},
        {"{\"rope_parameters\":{\"rope_theta\":-1}}", PLUMB_E_FORMAT, "rope_theta"},
        {"{\"hidden_size\":null}", PLUMB_E_FORMAT, "hidden_size is missing"},
        {"{\"hidden_size\":\"48\"}", PLUMB_E_FORMAT, "hidden_size is a string, expected an integer"},
        {"{\"hidden_size\":48.0}", PLUMB_E_FORMAT, "hidden_size is a real number"},
        {"{\"hidden_size\":-48}", PLUMB_E_FORMAT, "hidden_size is -48"},
        {"{\"hidden_size\":0}", PLUMB_E_FORMAT, "hidden_size is 0"},
        {"{\"hidden_size\":9223372036854775807}", PLUMB_E_FORMAT, "hidden_size is 9223372036854775807"},
        {"{\"vocab_size\":-9223372036854775808}", PLUMB_E_FORMAT, "vocab_size"},
        {"{\"intermediate_size\":0}", PLUMB_E_FORMAT, "intermediate_size"},
        {"{\"num_hidden_layers\":2147483648}", PLUMB_E_FORMAT, "num_hidden_layers"},
        {"{\"num_attention_heads\":0}", PLUMB_E_FORMAT, "num_attention_heads"},
        {"{\"num_attention_heads\":5}", PLUMB_E_FORMAT, "hidden_size 48 is not a multiple of num_attention_heads 5"},
        {"{\"num_key_value_heads\":4}", PLUMB_E_FORMAT,
         "num_attention_heads 6 is not a multiple of num_key_value_heads 4"},
        {"{\"num_key_value_heads\":12}", PLUMB_E_FORMAT, "num_key_value_heads is 12"},
        {"{\"head_dim\":7}", PLUMB_E_FORMAT, "head_dim 7 is odd"},
        {"{\"head_dim\":268435456}", PLUMB_E_FORMAT, "head_dim"},
        {"{\"rms_norm_eps\":0}", PLUMB_E_FORMAT, "rms_norm_eps"},
        {"{\"rms_norm_eps\":\"1e-6\"}", PLUMB_E_FORMAT, "rms_norm_eps is a string"},
        {"{\"tie_word_embeddings\":1}", PLUMB_E_FORMAT, "tie_word_embeddings"},
        {"{\"eos_token_id\":131}", PLUMB_E_FORMAT, "131"},
        {"{\"eos_token_id\":[1,\"2\"]}", PLUMB_E_FORMAT, "eos_token_id is a string"},
        {"{\"pad_token_id\":-2}", PLUMB_E_FORMAT, "pad_token_id"},
        {"{\"bos_token_id\":4294967296}", PLUMB_E_FORMAT, "bos_token_id"},
        {"{\"max_position_embeddings\":0}", PLUMB_E_FORMAT, "max_position_embeddings"},
        {"{\"architectures\":\"LlamaForCausalLM\"}", PLUMB_E_FORMAT, "architectures is a string"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"]}", PLUMB_E_UNSUPPORTED,
         "num_labels is 2 (where neither it nor id2label is there); supported: a LlamaForSequenceClassification with one"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"],\"num_labels\":3}", PLUMB_E_UNSUPPORTED, "num_labels is 3;"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"],\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}",
         PLUMB_E_UNSUPPORTED, "num_labels is 2;"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"],\"num_labels\":1,\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}",
         PLUMB_E_FORMAT, "num_labels is 1, but id2label has 2"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"],\"id2label\":[\"a\"]}", PLUMB_E_FORMAT, "id2label is an array"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_arch a;
        assert_refused(read_changed(*state, llama, cases[i].changes, &a), cases[i].status, cases[i].mentions);
        assert_non_null(strstr(plumb_error_message(), "config.json"));
    }
    plumb_arch a;
    put_text(*state, "config.json", "[]");
    assert_refused(plumb_arch_from_hf(&a, *state), PLUMB_E_FORMAT, "expected an object");
    put_text(*state, "config.json", "{\"model_type\": \"llama\",\n \"hidden_size\": }");
    assert_refused(plumb_arch_from_hf(&a, *state), PLUMB_E_FORMAT, "config.json:2");
}

static void ignores_the_harmless(void **state) {
    plumb_arch a;
    assert_ok(read_changed(*state, llama,
                           "{\"pretraining_tp\":2,\"hidden_act\":\"swish\",\"sliding_window\":false,\"layer_types\":"
                           "[\"full_attention\",\"full_attention\"],\"something_new\":{\"a\":1},\"pad_token_id\":-1}",
                           &a));
    assert_int_equal(a.pad, -1);
}

static void builds_the_table(void **state) {
    plumb_arch a;
    plumb_params p;
    assert_ok(read_changed(*state, llama, "{\"attention_bias\":true,\"mlp_bias\":true}", &a));
    assert_ok(plumb_params_build(&p, &a));
    static const char *const names[] = {"model.embed_tokens.weight",
                                        "model.layers.0.input_layernorm.weight",
                                        "model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.self_attn.q_proj.bias",
                                        "model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.0.self_attn.k_proj.bias",
                                        "model.layers.0.self_attn.v_proj.weight",
                                        "model.layers.0.self_attn.v_proj.bias",
                                        "model.layers.0.self_attn.o_proj.weight",
                                        "model.layers.0.self_attn.o_proj.bias",
                                        "model.layers.0.post_attention_layernorm.weight",
                                        "model.layers.0.mlp.gate_proj.weight",
                                        "model.layers.0.mlp.gate_proj.bias",
                                        "model.layers.0.mlp.up_proj.weight",
                                        "model.layers.0.mlp.up_proj.bias",
                                        "model.layers.0.mlp.down_proj.weight",
                                        "model.layers.0.mlp.down_proj.bias",
                                        "model.layers.1.input_layernorm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_string_equal(p.items[i].name, names[i]);
    assert_int_equal(p.count, 1 + 2 * 16 + 2);
    assert_string_equal(p.items[p.count - 2].name, "model.norm.weight");
    assert_string_equal(p.items[p.count - 1].name, "lm_head.weight");
    assert_string_equal(p.items[p.count - 1].gguf, "output.weight");
    int k = plumb_params_find(&p, PLUMB_ROLE_K, 1, false), bias = plumb_params_find(&p, PLUMB_ROLE_K, 1, true);
    assert_string_equal(p.items[k].gguf, "blk.1.attn_k.weight");
    assert_int_equal(p.items[k].rows, 16);
    assert_int_equal(p.items[k].cols, 48);
    assert_true(p.items[k].decay && p.items[k].linear);
    assert_int_equal(p.items[bias].rows, 1);
    assert_int_equal(p.items[bias].cols, 16);
    assert_false(p.items[bias].decay || p.items[bias].linear);
    assert_true(p.items[0].decay && !p.items[0].linear && !p.items[1].decay);
    plumb_params_free(&p);
    a.tied = true;
    a.attention_bias = a.mlp_bias = false;
    a.layers = 1;
    assert_ok(plumb_params_build(&p, &a));
    assert_int_equal(p.count, 1 + 9 + 1);
    assert_int_equal(plumb_params_find(&p, PLUMB_ROLE_HEAD, -1, false), -1);
    plumb_params_free(&p);
    a.layers = INT64_MAX;
    assert_refused(plumb_params_build(&p, &a), PLUMB_E_FORMAT, "layers");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_both_styles),
        cmocka_unit_test_setup_teardown(fills_defaults, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_labels, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(merges_ends, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_rope, make_folder, remove_folder),
        cmocka_unit_test(frequencies),
        cmocka_unit_test_setup_teardown(refuses, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(ignores_the_harmless, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(builds_the_table, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
