/* PEFT adapters: matching of target_modules, loading what PEFT wrote, saving and loading again, and what is refused. */
#include "model_test.h"
#include <math.h>

typedef struct fixture {
    plumb_source *source;
    const plumb_params *params;
} fixture;

static fixture open_model(const char *path) {
    fixture f = {0};
    assert_ok(plumb_source_open(&f.source, path));
    f.params = plumb_source_params(f.source);
    return f;
}

static plumb_status match(const plumb_params *p, const char *targets, bool regex, char *found, size_t size) {
    plumb_lora_config c = {.r = 4, .alpha = 8, .target_regex = regex};
    char *names[16], *copy = strdup(targets);
    for (char *t = regex ? copy : strtok(copy, " "); t; t = regex ? NULL : strtok(NULL, " "))
        names[c.n_target_modules++] = t;
    c.target_modules = names;
    bool *chosen = calloc((size_t)p->count, sizeof *chosen);
    plumb_status status = plumb_lora_match(&c, p, chosen);
    found[0] = 0;
    for (int i = 0; i < p->count; i++) { /* "0q 0k ...": layer and the first letter of the projection */
        if (!chosen[i]) continue;
        const char *last = strstr(p->items[i].name, "_proj");
        if (!last) fail_msg("%s was chosen", p->items[i].name);
        size_t n = strlen(found);
        snprintf(found + n, size - n, "%s%d%c", n ? " " : "", (int)p->items[i].layer,
                 *(last - 1) == 'e' ? 'g' : *(last - 1));
    }
    free(chosen);
    free(copy);
    return status;
}

static void matches_as_peft(void **state) { /* expectations: peft 0.21's check_target_module_exists on the same names */
    (void)state;
    static const struct {
        const char *targets;
        bool regex;
        const char *chosen;
    } cases[] = {
        {"all-linear", false, "0q 0k 0v 0o 0g 0p 0n 1q 1k 1v 1o 1g 1p 1n"},
        {"All-Linear", false, "0q 0k 0v 0o 0g 0p 0n 1q 1k 1v 1o 1g 1p 1n"},
        {"q_proj v_proj", false, "0q 0v 1q 1v"},
        {"self_attn.q_proj", false, "0q 1q"},
        {"1.mlp.up_proj", false, "1p"},
        {"model.layers.1.self_attn.k_proj", false, "1k"},
        {"q_proj model.layers.0.mlp.down_proj", false, "0q 0n 1q"},
        {".*\\.(q_proj|v_proj)", true, "0q 0v 1q 1v"},
        {"model\\.layers\\.\\d+\\.mlp\\.(?:up|down)_proj", true, "0p 0n 1p 1n"},
        {".*layers\\.[1-9]\\.self_attn.*proj$", true, "1q 1k 1v 1o"},
    };
    fixture f = open_model(GOLDEN "/models/llama");
    char found[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(match(f.params, cases[i].targets, cases[i].regex, found, sizeof found));
        assert_string_equal(found, cases[i].chosen);
    }
    assert_refused(match(f.params, "q_prj", false, found, sizeof found), PLUMB_E_CONFIG, "did you mean 'q_proj'");
    assert_refused(match(f.params, "self_atn.k_proj", false, found, sizeof found), PLUMB_E_CONFIG,
                   "did you mean 'self_attn.k_proj'");
    assert_refused(match(f.params, "_proj", false, found, sizeof found), PLUMB_E_CONFIG,
                   "'_proj' matches no linear layer");
    assert_refused(match(f.params, "query_key_value_everything", false, found, sizeof found), PLUMB_E_CONFIG,
                   "q_proj, k_proj");
    assert_refused(match(f.params, "", false, found, sizeof found), PLUMB_E_CONFIG, "target_modules is empty");
    assert_refused(match(f.params, "lm_head", false, found, sizeof found), PLUMB_E_UNSUPPORTED, "lm_head");
    assert_refused(match(f.params, "q_proj embed_tokens", false, found, sizeof found), PLUMB_E_UNSUPPORTED,
                   "model.embed_tokens");
    assert_refused(match(f.params, "input_layernorm", false, found, sizeof found), PLUMB_E_CONFIG,
                   "not a linear layer");
    assert_refused(match(f.params, ".*", true, found, sizeof found), PLUMB_E_UNSUPPORTED, "embed");
    assert_refused(match(f.params, "q_proj", true, found, sizeof found), PLUMB_E_CONFIG,
                   "matches no linear layer"); /* the whole name */
    assert_refused(match(f.params, "(?=.*q).*proj", true, found, sizeof found), PLUMB_E_UNSUPPORTED, "(?...)");
    assert_refused(match(f.params, ".*?_proj", true, found, sizeof found), PLUMB_E_UNSUPPORTED, "lazy");
    assert_refused(match(f.params, "((.{1,99}){1,99}){1,99}", true, found, sizeof found), PLUMB_E_UNSUPPORTED, "{m,n}");
    assert_refused(match(f.params, "(q_proj", true, found, sizeof found), PLUMB_E_CONFIG, "not a regular expression");
    plumb_source_close(f.source);
    f = open_model(GOLDEN "/models/llama3-tied"); /* no head in the table */
    assert_refused(match(f.params, "lm_head", false, found, sizeof found), PLUMB_E_UNSUPPORTED, "lm_head");
    plumb_source_close(f.source);
}

static void scales(void **state) {
    (void)state;
    plumb_lora_config c = {.r = 16, .alpha = 8};
    assert_true(plumb_lora_scale(&c) == 0.5);
    c.rslora = true;
    assert_true(plumb_lora_scale(&c) == 2.0);
}

static void compare_adapters(const plumb_adapter *x, const plumb_adapter *y, const plumb_params *p) {
    assert_int_equal(x->n_params, y->n_params);
    for (int i = 0; i < p->count; i++) {
        assert_int_equal(x->a[i] != NULL, y->a[i] != NULL);
        if (!x->a[i]) continue;
        assert_memory_equal(x->a[i], y->a[i], (size_t)(x->config.r * p->items[i].cols) * sizeof(float));
        assert_memory_equal(x->b[i], y->b[i], (size_t)(x->config.r * p->items[i].rows) * sizeof(float));
    }
}

static void loads_and_saves(void **state) {
    static const char *const names[] = {"llama", "llama3-tied"};
    for (int m = 0; m < 2; m++) {
        char model[512], dir[512];
        snprintf(model, sizeof model, GOLDEN "/models/%s", names[m]);
        snprintf(dir, sizeof dir, GOLDEN "/adapters/%s", names[m]);
        fixture f = open_model(model);
        plumb_adapter a, again;
        assert_ok(plumb_adapter_load(&a, dir, f.params));
        assert_int_equal(a.config.r, 4);
        assert_true(a.config.alpha == 8 && a.config.dropout == 0 && !a.config.rslora && !a.config.target_regex &&
                    !a.config.base_model);
        assert_int_equal(a.config.n_target_modules, m ? 7 : 14);
        plumb_safetensors file;
        int64_t count, total = 0;
        assert_ok(plumb_safetensors_open(&file, dir, "adapter_model"));
        for (int i = 0; i < f.params->count; i++) {
            const plumb_param *p = &f.params->items[i];
            assert_int_equal(a.a[i] != NULL, p->linear);
            if (!p->linear) continue;
            for (int half = 0; half < 2; half++) {
                char key[160];
                snprintf(key, sizeof key, "base_model.model.%.*s.lora_%c.weight", (int)strlen(p->name) - 7, p->name,
                         'A' + half);
                float *expected = load_tensor(&file, key, &count);
                assert_int_equal(count, 4 * (half ? p->rows : p->cols));
                assert_memory_equal(half ? a.b[i] : a.a[i], expected, (size_t)count * sizeof(float));
                free(expected);
                total++;
            }
        }
        assert_int_equal(total, file.count);
        plumb_safetensors_close(&file);
        char saved[512];
        snprintf(saved, sizeof saved, "%.490s/%s", (const char *)*state, names[m]);
        assert_ok(plumb_adapter_save(&a, saved, f.params));
        assert_ok(plumb_adapter_load(&again, saved, f.params));
        compare_adapters(&a, &again, f.params);
        assert_int_equal(again.config.n_target_modules, a.config.n_target_modules);
        char *x, *y;
        size_t nx, ny;
        assert_ok(plumb_read_file(in(dir, "adapter_model.safetensors"), &x, &nx));
        assert_ok(plumb_read_file(in(saved, "adapter_model.safetensors"), &y, &ny));
        assert_int_equal(nx, ny);
        assert_memory_equal(x, y, nx); /* PEFT's own file, byte for byte */
        free(x);
        free(y);
        plumb_adapter_free(&a);
        plumb_adapter_free(&again);
        plumb_adapter_free(&again); /* twice is fine */
        plumb_source_close(f.source);
    }
}

static void keeps_the_configuration(void **state) {
    fixture f = open_model(GOLDEN "/models/llama");
    plumb_adapter a, again;
    assert_ok(plumb_adapter_load(&a, GOLDEN "/adapters/llama", f.params));
    const char *const one[] = {"all-linear"};
    for (int i = 0; i < a.config.n_target_modules; i++) free(a.config.target_modules[i]);
    a.config.target_modules[0] = strdup(one[0]);
    a.config.n_target_modules = 1;
    a.config.alpha = 2.5;
    a.config.dropout = 0.05;
    a.config.rslora = true;
    a.config.base_model = strdup("/models/\"base\"");
    assert_ok(plumb_adapter_save(&a, in(*state, "a/b/c"), f.params));
    json_t *root;
    assert_ok(plumb_json_load(&root, in(*state, "a/b/c/adapter_config.json")));
    assert_int_equal(json_array_size(json_object_get(root, "target_modules")),
                     7); /* older PEFT does not know all-linear */
    assert_string_equal(json_string_value(json_object_get(root, "peft_type")), "LORA");
    assert_string_equal(json_string_value(json_object_get(root, "task_type")), "CAUSAL_LM");
    json_decref(root);
    assert_ok(plumb_adapter_load(&again, in(*state, "a/b/c"), f.params));
    assert_true(again.config.alpha == 2.5 && again.config.dropout == 0.05 && again.config.rslora);
    assert_string_equal(again.config.base_model, "/models/\"base\"");
    compare_adapters(&a, &again, f.params);
    plumb_adapter_free(&again);
    for (int i = 0; i < f.params->count; i++) /* layer 1 alone, by an expression */
        if (f.params->items[i].layer == 0) {
            free(a.a[i]);
            free(a.b[i]);
            a.a[i] = a.b[i] = NULL;
        }
    free(a.config.target_modules[0]);
    a.config.target_modules[0] = strdup("model\\.layers\\.1\\..*_proj");
    a.config.target_regex = true;
    assert_ok(plumb_adapter_save(&a, in(*state, "r"), f.params));
    assert_ok(plumb_adapter_load(&again, in(*state, "r"), f.params));
    assert_true(again.config.target_regex);
    assert_string_equal(again.config.target_modules[0], "model\\.layers\\.1\\..*_proj");
    compare_adapters(&a, &again, f.params);
    plumb_adapter_free(&again);
    plumb_adapter_free(&a);
    plumb_source_close(f.source);
}

static plumb_status load_changed(const char *folder, const char *changes, plumb_adapter *a, const plumb_params *p) {
    put_changed(GOLDEN "/adapters/llama/adapter_config.json", changes, folder, "adapter_config.json");
    return plumb_adapter_load(a, folder, p);
}

static void refuses_options(void **state) {
    static const struct {
        const char *changes;
        plumb_status status;
        const char *mentions;
    } cases[] = {
        {"{\"peft_type\":\"IA3\"}", PLUMB_E_UNSUPPORTED, "peft_type 'IA3'"},
        {"{\"peft_type\":null}", PLUMB_E_FORMAT, "peft_type"},
        {"{\"task_type\":\"TOKEN_CLS\"}", PLUMB_E_UNSUPPORTED, "task_type 'TOKEN_CLS'"},
        {"{\"use_dora\":true}", PLUMB_E_UNSUPPORTED, "use_dora"},
        {"{\"bias\":\"all\"}", PLUMB_E_UNSUPPORTED, "bias 'all'"},
        {"{\"lora_bias\":true}", PLUMB_E_UNSUPPORTED, "lora_bias"},
        {"{\"modules_to_save\":[\"lm_head\"]}", PLUMB_E_UNSUPPORTED, "modules_to_save"},
        {"{\"rank_pattern\":{\"q_proj\":8}}", PLUMB_E_UNSUPPORTED, "rank_pattern"},
        {"{\"alpha_pattern\":{\"q_proj\":8}}", PLUMB_E_UNSUPPORTED, "alpha_pattern"},
        {"{\"layer_replication\":[[0,2]]}", PLUMB_E_UNSUPPORTED, "layer_replication"},
        {"{\"target_parameters\":[\"x\"]}", PLUMB_E_UNSUPPORTED, "target_parameters"},
        {"{\"trainable_token_indices\":[1]}", PLUMB_E_UNSUPPORTED, "trainable_token_indices"},
        {"{\"init_lora_weights\":\"pissa_niter_4\"}", PLUMB_E_UNSUPPORTED, "init_lora_weights 'pissa_niter_4'"},
        {"{\"invented_later\":true}", PLUMB_E_UNSUPPORTED, "invented_later"},
        {"{\"invented_later\":{\"x\":1}}", PLUMB_E_UNSUPPORTED, "invented_later"},
        {"{\"r\":0}", PLUMB_E_FORMAT, "r is 0"},
        {"{\"r\":9223372036854775807}", PLUMB_E_FORMAT, "r is 9223372036854775807"},
        {"{\"r\":\"4\"}", PLUMB_E_FORMAT, "r is missing or of the wrong kind"},
        {"{\"r\":8}", PLUMB_E_FORMAT, "expected [8, 48]"},
        {"{\"lora_alpha\":null}", PLUMB_E_FORMAT, "lora_alpha"},
        {"{\"lora_dropout\":1.5}", PLUMB_E_FORMAT, "lora_dropout is 1.5"},
        {"{\"use_rslora\":1}", PLUMB_E_FORMAT, "use_rslora"},
        {"{\"target_modules\":[]}", PLUMB_E_FORMAT, "target_modules"},
        {"{\"target_modules\":[3]}", PLUMB_E_FORMAT, "target_modules"},
        {"{\"target_modules\":null}", PLUMB_E_FORMAT, "target_modules"},
        {"{\"target_modules\":[\"q_proj\"]}", PLUMB_E_FORMAT, "does not select"},
        {"{\"target_modules\":[\"q_proj\",\"w_pack\"]}", PLUMB_E_CONFIG,
         "adapter_config.json: target_modules: 'w_pack'"},
    };
    fixture f = open_model(GOLDEN "/models/llama");
    plumb_adapter a;
    copy_file(GOLDEN "/adapters/llama/adapter_model.safetensors", *state, "adapter_model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(load_changed(*state, cases[i].changes, &a, f.params), cases[i].status, cases[i].mentions);
        assert_null(a.a);
    }
    static const char *const fine[] = {
        "{\"target_modules\":\"all-linear\"}",
        "{\"target_modules\":[\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"gate_proj\",\"up_proj\",\"down_proj\"]}",
        "{\"init_lora_weights\":\"gaussian\",\"invented_later\":3,\"another\":\"x\"}", "{\"task_type\":null}"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        assert_ok(load_changed(*state, fine[i], &a, f.params));
        plumb_adapter_free(&a);
    }
    assert_refused(plumb_adapter_load(&a, GOLDEN "/models/llama", f.params), PLUMB_E_IO, "adapter_config.json");
    plumb_source_close(f.source);
}

/* The tensors decide where the configuration restricts its targets in other ways. */
static void narrows_targets(void **state) {
    fixture f = open_model(GOLDEN "/models/llama");
    plumb_adapter a;
    copy_file(GOLDEN "/adapters/llama/adapter_model.safetensors", *state, "adapter_model.safetensors");
    assert_ok(load_changed(*state, "{\"target_modules\":\"all-linear\",\"layers_to_transform\":[0,1]}", &a, f.params));
    assert_int_equal(a.config.n_target_modules, 14);
    assert_false(a.config.target_regex);
    assert_string_equal(a.config.target_modules[0], "model.layers.0.self_attn.q_proj");
    plumb_adapter_free(&a);
    assert_ok(load_changed(*state, "{\"target_modules\":\"(?i).*_PROJ\"}", &a,
                           f.params)); /* an expression for Python alone */
    assert_int_equal(a.config.n_target_modules, 14);
    assert_false(a.config.target_regex);
    plumb_adapter_free(&a);
    plumb_source_close(f.source);
}

typedef struct tensors {
    plumb_st_item items[64];
    int64_t count;
} tensors;

static void refuses_tensors(void **state) {
    static const char *const q = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    fixture f = open_model(GOLDEN "/models/llama");
    plumb_safetensors file;
    plumb_adapter a;
    tensors t = {0};
    assert_ok(plumb_safetensors_open(&file, GOLDEN "/adapters/llama", "adapter_model"));
    int64_t count, at = -1;
    for (int64_t i = 0; i < file.count; i++) {
        plumb_st_item *item = &t.items[t.count++];
        *item = (plumb_st_item){.name = file.tensors[i].name, .n_dims = 2, .type = PLUMB_FT_F32};
        memcpy(item->shape, file.tensors[i].shape, sizeof item->shape);
        item->data = load_tensor(&file, item->name, &count);
        if (!strcmp(item->name, q)) at = i;
    }
    copy_file(GOLDEN "/adapters/llama/adapter_config.json", *state, "adapter_config.json");
    const char *path = in(*state, "adapter_model.safetensors");
    static const struct {
        const char *name, *mentions;
    } renamed[] = {
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
         "lora_B.weight is missing; its other half is there"},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight",
         "lora_B.weight is missing; its other half is there"},
    };
    for (int i = 0; i < 2; i++) {
        t.items[at].name = renamed[i].name;
        assert_ok(plumb_safetensors_write(path, t.items, t.count, NULL, NULL));
        assert_refused(plumb_adapter_load(&a, *state, f.params), PLUMB_E_FORMAT, renamed[i].mentions);
    }
    t.items[at].name = q;
    float *extra = calloc(4, sizeof *extra);
    t.items[t.count] = (plumb_st_item){.name = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
                                       .n_dims = 1,
                                       .shape = {4},
                                       .data = extra};
    assert_ok(plumb_safetensors_write(path, t.items, t.count + 1, NULL, NULL));
    assert_refused(plumb_adapter_load(&a, *state, f.params), PLUMB_E_FORMAT,
                   "layers.2.self_attn.q_proj.lora_A.weight fits no linear layer");
    plumb_st_item kept[2] = {t.items[0], t.items[1]}; /* both halves of one module are gone */
    t.items[0] = t.items[t.count - 1];
    t.items[1] = t.items[t.count - 2];
    assert_ok(plumb_safetensors_write(path, t.items, t.count - 2, NULL, NULL));
    assert_refused(plumb_adapter_load(&a, *state, f.params), PLUMB_E_FORMAT, "selects its module");
    t.items[0] = kept[0];
    t.items[1] = kept[1];
    t.items[at].shape[0] = 4;
    t.items[at].shape[1] = 48;
    assert_ok(plumb_safetensors_write(path, t.items, t.count, NULL, NULL));
    assert_refused(plumb_adapter_load(&a, *state, f.params), PLUMB_E_FORMAT, "has shape [4, 48], expected [48, 4]");
    t.items[at].shape[0] = 48;
    t.items[at].shape[1] = 4;
    ((float *)(uintptr_t)t.items[at].data)[4 * 7 + 2] = NAN;
    assert_ok(plumb_safetensors_write(path, t.items, t.count, NULL, NULL));
    assert_refused(plumb_adapter_load(&a, *state, f.params), PLUMB_E_NUMERIC, "row 7, column 2");
    for (int64_t i = 0; i < t.count; i++) free((void *)(uintptr_t)t.items[i].data);
    free(extra);
    plumb_safetensors_close(&file);
    plumb_source_close(f.source);
}

static void a_head_alone(void **state) { /* the names and shapes of TRL's AutoModelForCausalLMWithValueHead */
    fixture f = open_model(GOLDEN "/models/llama");
    float weight[48], bias = 0;
    plumb_adapter a = {.score = weight, .n_score = 48}, again;
    plumb_safetensors file;
    int64_t count;
    for (int i = 0; i < 48; i++) weight[i] = (float)i / 7 - 2;
    assert_ok(plumb_write_file(in(*state, "adapter_config.json"), "{}", 2)); /* of an earlier run: it would be read in place of the head */
    assert_ok(plumb_head_save(&a, *state));
    assert_ok(plumb_safetensors_open(&file, *state, "value_head"));
    assert_int_equal(file.count, 2);
    float *stored = load_tensor(&file, "v_head.summary.bias", &count);
    assert_true(count == 1 && *stored == 0);
    free(stored);
    const plumb_file_tensor *t = plumb_safetensors_find(&file, "v_head.summary.weight");
    assert_true(t && t->n_dims == 2 && t->shape[0] == 1 && t->shape[1] == 48);
    plumb_safetensors_close(&file);
    assert_ok(plumb_adapter_load(&again, *state, f.params));
    assert_true(again.config.r == 0 && again.n_score == 48 && !again.a[0]);
    assert_memory_equal(again.score, weight, sizeof weight);
    plumb_adapter_free(&again);

    plumb_st_item items[] = {{"v_head.summary.weight", 2, {1, 48}, weight, PLUMB_FT_F32},
                             {"v_head.summary.bias", 1, {1}, &bias, PLUMB_FT_F32}};
    const char *path = in(*state, "value_head.safetensors");
    assert_ok(plumb_safetensors_write(path, items, 1, NULL, NULL));
    assert_ok(plumb_adapter_load(&again, *state, f.params));
    plumb_adapter_free(&again);
    bias = 0.5f;
    assert_ok(plumb_safetensors_write(path, items, 2, NULL, NULL));
    assert_refused(plumb_adapter_load(&again, *state, f.params), PLUMB_E_UNSUPPORTED, "v_head.summary.bias has the value 0.5");
    items[1].name = "v_head.scale";
    assert_ok(plumb_safetensors_write(path, items, 2, NULL, NULL));
    assert_refused(plumb_adapter_load(&again, *state, f.params), PLUMB_E_FORMAT, "and no other");
    items[0].shape[1] = 47;
    assert_ok(plumb_safetensors_write(path, items, 1, NULL, NULL));
    assert_refused(plumb_adapter_load(&again, *state, f.params), PLUMB_E_FORMAT, "expected [1, 48]");
    copy_file(GOLDEN "/adapters/llama/adapter_config.json", *state, "adapter_config.json"); /* beside an adapter it is not what counts */
    copy_file(GOLDEN "/adapters/llama/adapter_model.safetensors", *state, "adapter_model.safetensors");
    assert_ok(plumb_adapter_load(&again, *state, f.params));
    assert_true(again.config.r == 4 && !again.score);
    plumb_adapter_free(&again);
    plumb_source_close(f.source);
}

static void survives_lost_memory(void **state) {
    fixture f = open_model(GOLDEN "/models/llama");
    plumb_adapter a;
    for (int what = 0; what < 2; what++) {
        plumb_status status = PLUMB_E_MEMORY;
        long n = 1;
        for (; status == PLUMB_E_MEMORY && n < 2000; n++) {
            if (what) assert_ok(plumb_adapter_load(&a, GOLDEN "/adapters/llama", f.params));
            plumb_alloc_fail_after(n);
            status = what ? plumb_adapter_save(&a, in(*state, "a"), f.params)
                          : plumb_adapter_load(&a, GOLDEN "/adapters/llama", f.params);
            plumb_alloc_fail_after(0);
            if (what) plumb_adapter_free(&a);
        }
        assert_int_equal(status, PLUMB_OK);
        assert_true(n > 5);
        if (!what) plumb_adapter_free(&a);
    }
    plumb_source_close(f.source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_as_peft),
        cmocka_unit_test(scales),
        cmocka_unit_test_setup_teardown(loads_and_saves, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(keeps_the_configuration, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_options, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(narrows_targets, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_tensors, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_head_alone, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(survives_lost_memory, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
