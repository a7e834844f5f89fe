/* Configuration files: what they may say, and that everything else is refused with its place. */
#include "config_test.h"

static void reads_every_form(void **state) {
    (void)state;
    plumb_options o;
    assert_ok(plumb_options_load(&o, PLUMB_FOR_SFT, PLUMB_TEST_DATA "/config/full.yaml", NULL, 0));
    assert_string_equal(o.model, "models/a b: c");
    assert_string_equal(o.output_dir, "runs/it's");
    assert_string_equal(o.train_file, "data/train.jsonl");
    assert_int_equal(o.eval_last, 100);
    assert_string_equal(o.template_name, "alpaca");
    assert_string_equal(o.field_output, "chosen");
    assert_int_equal(o.max_length, 512);
    assert_false(o.shuffle);
    assert_int_equal(o.seed, 7);
    assert_true(o.epochs == 2.5 && o.learning_rate == 1e-5 && o.lr_min == 0.5e-6 && o.max_grad_norm == 1);
    assert_string_equal(o.lr_scheduler_type, "cosine_with_min_lr");
    assert_true(o.lora_alpha == 64 && o.use_rslora && o.lora);
    assert_int_equal(o.n_lora_target_modules, 2);
    assert_string_equal(o.lora_target_modules[0], "q_proj");
    assert_string_equal(o.lora_target_modules[1], "v_proj");
    assert_int_equal(o.n_train_modules, 2);
    assert_string_equal(o.train_modules[0], "*.norm.weight");
    assert_string_equal(o.run_name, "it's"); /* null: the last part of output_dir */
    assert_string_equal(o.stop_after, "3h30m");
    assert_string_equal(o.resume, "auto"); /* null: the default */
    plumb_options_free(&o);
}

static void has_defaults_of_the_command(void **state) {
    (void)state;
    plumb_options o;
    static const char *const nothing[] = {"",         "# only a comment\n",   "---\n",
                                          "--- {}\n", "\xef\xbb\xbf# mark\n", "null\n"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        assert_ok(load_yaml(&o, PLUMB_FOR_SFT, nothing[i]));
        assert_true(o.learning_rate == 1e-4 && o.weight_decay == 0 && o.adam_beta1 == 0.9 && o.adam_beta2 == 0.999);
        assert_true(o.adam_eps == 1e-8 && o.max_grad_norm == 1 && o.epochs == 1 && o.lora && o.shuffle && !o.dry_run);
        assert_true(o.batch_size == 8 && o.micro_batch_tokens == 320 && o.logits_budget_mb == 16 && o.seed == 42);
        assert_true(o.lora_r == 16 && o.lora_alpha == 32 && o.save_total_limit == 2 && o.threads == 0);
        assert_int_equal(o.n_lora_target_modules, 1);
        assert_string_equal(o.lora_target_modules[0], "all-linear");
        assert_int_equal(o.n_train_modules, 0);
        assert_null(o.model);
        assert_null(o.template_name);
        assert_string_equal(o.stop_after, "");
        plumb_options_free(&o);
    }
    assert_ok(load_yaml(&o, PLUMB_FOR_DPO, ""));
    assert_true(o.learning_rate == 5e-6 && o.beta == 0.1);
    assert_string_equal(o.loss_type, "sigmoid");
    plumb_options_free(&o);
}

/* Full training has its own learning rate and trains everything, unless the file says otherwise. */
static void full_training_has_its_defaults(void **state) {
    (void)state;
    plumb_options o;
    assert_ok(load_yaml(&o, PLUMB_FOR_SFT, "lora: false\n"));
    assert_true(o.learning_rate == 2e-5);
    assert_int_equal(o.n_train_modules, 1);
    assert_string_equal(o.train_modules[0], "all");
    plumb_options_free(&o);
    assert_ok(load_yaml(&o, PLUMB_FOR_DPO, "lora: false\ntrain_modules: lm_head\nlearning_rate: 3e-6\n"));
    assert_true(o.learning_rate == 3e-6);
    assert_string_equal(o.train_modules[0], "lm_head");
    plumb_options_free(&o);
    assert_ok(load_yaml(&o, PLUMB_FOR_DPO, "lora: false"));
    assert_true(o.learning_rate == 1e-6);
    plumb_options_free(&o);
}

static void nested_and_dotted_keys_are_the_same(void **state) {
    (void)state;
    static const char *const forms[] = {
        "lr_scheduler_type: polynomial\nlr_scheduler_kwargs.power: 2\n",
        "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {power: 2}\n",
        "lr_scheduler_kwargs:\n  power: 2\nlr_scheduler_type: polynomial\n",
    };
    plumb_options o;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        assert_ok(load_yaml(&o, PLUMB_FOR_SFT, forms[i]));
        assert_true(o.lr_power == 2);
        plumb_options_free(&o);
    }
    assert_yaml_refused(PLUMB_FOR_SFT, "lr_scheduler_kwargs: {power: 2}\nlr_scheduler_kwargs.power: 2\n",
                        "c.yaml:2:1: lr_scheduler_kwargs.power: found the key again (it is also in line 1)");
    assert_yaml_refused(
        PLUMB_FOR_SFT, "lr_scheduler_kwargs: {pover: 2}\n",
        "c.yaml:1:23: unknown key 'lr_scheduler_kwargs.pover'; did you mean lr_scheduler_kwargs.power?");
    assert_yaml_refused(PLUMB_FOR_SFT, "lr_scheduler_kwargs: 3\n",
                        "c.yaml:1:1: lr_scheduler_kwargs: found a value; expected keys below it");
    assert_yaml_refused(PLUMB_FOR_SFT, "lr_scheduler_kwargs: {power: {a: 1}}\n",
                        "lr_scheduler_kwargs.power: found a mapping; expected a number");
}

static void refuses_wrong_types(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"batch_size: 3.7", "c.yaml:1:13: batch_size: found '3.7'; expected a whole number from 1 to 16777216"},
        {"batch_size: 3.0", "found '3.0'; expected a whole number"},
        {"batch_size: 1e3", "found '1e3'"},
        {"batch_size: 010", "found '010' (a leading zero is refused"},
        {"batch_size: 0x10", "found '0x10'"},
        {"batch_size: 0o10", "found '0o10'"},
        {"batch_size: 1_000", "found '1_000'"},
        {"batch_size: auto", "found 'auto'"},
        {"batch_size: \"8\"", "found the text '8' in quotes; expected a whole number"},
        {"batch_size: |\n  8\n", "in quotes"},
        {"batch_size: null", "found null; expected a whole number"},
        {"batch_size:", "found nothing; expected a whole number"},
        {"batch_size: true", "found 'true'"},
        {"batch_size: 0", "found '0'"},
        {"batch_size: -8", "found '-8'"},
        {"batch_size: 16777217", "expected a whole number from 1 to 16777216"},
        {"batch_size: 9223372036854775808", "found '9223372036854775808'"},
        {"seed: 9007199254740993", "found '9007199254740993'; expected a whole number from 0"},
        {"seed: -9223372036854775809", "found '-9223372036854775809'"},
        {"batch_size: [8]", "c.yaml:1:13: batch_size: found a list; expected a whole number"},
        {"batch_size: {a: 8}", "found a mapping"},
        {"learning_rate: 1e-5x", "c.yaml:1:16: learning_rate: found '1e-5x'; expected a number from 0 to 10"},
        {"learning_rate: 1e", "found '1e'"},
        {"learning_rate: .", "found '.'"},
        {"learning_rate: 1.2.3", "found '1.2.3'"},
        {"learning_rate: 1,5", "found '1,5'"},
        {"learning_rate: .inf", "found '.inf'"},
        {"learning_rate: inf", "found 'inf'"},
        {"learning_rate: nan", "found 'nan'"},
        {"learning_rate: 0x1p-3", "found '0x1p-3'"},
        {"learning_rate: 00.5", "a leading zero"},
        {"learning_rate: 1e400", "found '1e400'"},
        {"learning_rate: 1e-400", "found '1e-400'"},
        {"learning_rate: -1e-5", "found '-1e-5'"},
        {"epochs: 0", "found '0'; expected a number above 0, at most 1e+06"},
        {"adam_beta1: 1", "found '1'; expected a number from 0 below 1"},
        {"adam_beta1: 1.0000000000000000000001", "expected a number from 0 below 1"},
        {"lora: yes", "c.yaml:1:7: lora: found 'yes'; expected true or false"},
        {"lora: True", "found 'True'"},
        {"lora: 1", "found '1'"},
        {"lora: null", "found 'null'"},
        {"lora: 'true'", "found the text 'true' in quotes"},
        {"lora: maybe", "found 'maybe'"},
        {"loss_on: asistant",
         "found 'asistant' (did you mean assistant?); expected one of auto, completion, all, assistant"},
        {"loss_on: auto|all", "found 'auto|all'"},
        {"loss_on: null", "found null; expected one of"},
        {"loss_on: ''", "found ''"},
        {"loss_on: \"auto\\0\"", "expected one of"},
        {"model: [a]", "model: found a list; expected text"},
        {"model: ''", "model: found an empty text"},
        {"model: \"a\\0b\"", "model: found a NUL character"},
        {"lora_target_modules: []", "found an empty list; expected a list of texts with at least one"},
        {"lora_target_modules: null", "found null"},
        {"lora_target_modules: [a, [b]]", "c.yaml:1:26: lora_target_modules: found a list in the list"},
        {"lora_target_modules: [a, {b: c}]", "found a mapping in the list"},
        {"lora_target_modules: [a, null]", "found null in the list"},
        {"lora_target_modules: [a, '']", "found an empty text"},
        {"lora_target_modules: {a: b}", "found a mapping"},
        {"lora_target_modules: [\"a\\0b\"]", "found a NUL character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_yaml_refused(PLUMB_FOR_SFT, cases[i][0], cases[i][1]);
}

static void refuses_wrong_keys(void **state) {
    (void)state;
    assert_yaml_refused(PLUMB_FOR_SFT, "model: a\nlearning_rat: 1\n",
                        "c.yaml:2:1: unknown key 'learning_rat'; did you mean learning_rate?");
    assert_yaml_refused(PLUMB_FOR_SFT, "qqqqqqqqqqqq: 1\n",
                        "unknown key 'qqqqqqqqqqqq'; expected one of those that plumb sft --help lists");
    assert_yaml_refused(PLUMB_FOR_SFT, "gradient_accumulation_steps: 4\n",
                        "write batch_size: samples per optimizer step over all ranks");
    assert_yaml_refused(PLUMB_FOR_SFT, "beta: 0.1\n",
                        "c.yaml:1:1: beta: found a key of plumb dpo, grpo, rloo; expected one that plumb sft knows");
    assert_yaml_refused(PLUMB_FOR_GENERATE, "warmup_steps: 1\n",
                        "found a key of plumb sft, dpo, reward, ppo, grpo, rloo; expected one that plumb generate knows");
    assert_yaml_refused(PLUMB_FOR_SFT, "seed: 1\nmodel: a\nseed: 1\n",
                        "c.yaml:3:1: seed: found the key again (it is also in line 1); expected it once");
    assert_yaml_refused(PLUMB_FOR_SFT, "[a, b]: 1\n", "found a list or mapping as a key");
    assert_yaml_refused(PLUMB_FOR_SFT, "\"see\\0d\": 1\n", "unknown key 'see?d'");
    assert_yaml_refused(PLUMB_FOR_SFT, "'': 1\n", "unknown key ''");
    assert_yaml_refused(PLUMB_FOR_SFT, "\"\\e[31mred\": 1\n",
                        "unknown key '?[31mred'"); /* no escape sequence reaches a terminal */
    char text[4096] = "";
    memset(text, 'k', 900);
    strcat(text, ": 1\n");
    assert_yaml_refused(PLUMB_FOR_SFT, text, "unknown key 'kkkk");
    assert_true(strlen(plumb_error_message()) < 200);
}

static void refuses_what_yaml_has_beyond_values(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"seed: &a 1", "c.yaml:1:7: found an anchor"},
        {"seed: 1\nmax_steps: *a", "c.yaml:2:12: found an alias"},
        {"seed: !!int 1", "c.yaml:1:7: found a tag ('tag:yaml.org,2002:int')"},
        {"model: !secret x", "found a tag"},
        {"lora_target_modules: &l [a]", "found an anchor"},
        {"lora_target_modules: !!seq [a]", "found a tag"},
        {"&m {seed: 1}", "found an anchor"},
        {"<<: {seed: 1}", "merge keys (<<) are not supported"},
        {"seed: 1\n---\nseed: 2\n", "c.yaml:2:1: found a second document"},
        {"seed: 1\n...\n---\n", "found a second document"},
        {"- seed", "c.yaml:1:1: found a list; expected lines such as"},
        {"seed", "found a text; expected lines such as"},
        {"model: a\n  lora: b\n", "not valid YAML: mapping values are not allowed"},
        {"train_modules: [a\n", "not valid YAML"},
        {"train_modules: [*.mlp]\n", "text that begins with * or & needs quotes"},
        {"model: \"abc\n", "not valid YAML"},
        {"seed: 1\n\tlora: true\n", "c.yaml:2:1: not valid YAML"},
        {"model: \xff\xfe\n", "c.yaml:1:8: not valid YAML"},
        {"seed: 1\nmodel: \xc3(\n", "c.yaml:2:9: not valid YAML"},
        {"model: a\x01z\n", "not valid YAML"},
        {"%YAML 3.0\n---\nseed: 1\n", "not valid YAML"},
        {"\xff\xfes\0e\0", "not valid YAML"}, /* UTF-16 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_yaml_refused(PLUMB_FOR_SFT, cases[i][0], cases[i][1]);
    char *deep = malloc(100001); /* brackets do not nest: the second one is refused */
    memset(deep, '[', 100000);
    deep[100000] = 0;
    assert_yaml_refused(PLUMB_FOR_SFT, deep, "c.yaml:1:");
    memset(deep, '{', 100000);
    assert_yaml_refused(PLUMB_FOR_SFT, deep, "c.yaml:1:");
    free(deep);
}

static void checks_rules_between_keys(void **state) {
    (void)state;
    assert_yaml_refused(PLUMB_FOR_SFT, "warmup_steps: 3\nwarmup_ratio: 0.1\n",
                        "c.yaml:2:15: warmup_ratio: found 0.1 beside warmup_steps: 3");
    assert_yaml_refused(PLUMB_FOR_SFT, "warmup_steps: 3\nlr_scheduler_type: constant\n",
                        "c.yaml:2:20: lr_scheduler_type: found constant with a warm-up");
    assert_yaml_refused(PLUMB_FOR_SFT, "lr_scheduler_kwargs: {min_lr: 1e-6}\n",
                        "expected cosine_with_min_lr, which alone uses it");
    assert_yaml_refused(PLUMB_FOR_SFT, "eval_file: a\neval_last: 3\n",
                        "c.yaml:2:12: eval_last: found 3 beside eval_file");
    assert_yaml_refused(PLUMB_FOR_SFT, "eval_steps: 3\n",
                        "c.yaml:1:13: eval_steps: found an evaluation without records");
    assert_yaml_refused(PLUMB_FOR_SFT, "adapter: a\nlora: false\n", "c.yaml:2:7: lora: found false with an adapter");
    assert_yaml_refused(PLUMB_FOR_SFT, "train_modules: []\nlora: false\n", "nothing would be trained");
    assert_yaml_refused(PLUMB_FOR_DPO, "loss_type: ipo\nlabel_smoothing: 0.1\n",
                        "c.yaml:2:18: label_smoothing: found 0.1 with loss_type: ipo");
    assert_yaml_refused(PLUMB_FOR_DPO, "label_smoothing: 0.5\n", "expected a number from 0 below 0.5");
    assert_yaml_refused(PLUMB_FOR_DPO, "stop_after: 5 minutes\n",
                        "c.yaml:1:13: stop_after: found '5 minutes'; expected a time such as 90s");
}

static void reads_files(void **state) {
    (void)state;
    plumb_options o;
    assert_message(plumb_options_load(&o, PLUMB_FOR_SFT, "/nonexistent/c.yaml", NULL, 0), PLUMB_E_IO,
                   "/nonexistent/c.yaml");
    assert_message(plumb_options_load(&o, PLUMB_FOR_SFT, PLUMB_TEST_DATA, NULL, 0), PLUMB_E_IO, PLUMB_TEST_DATA);
    assert_message(plumb_options_load(&o, PLUMB_FOR_SFT, "/dev/zero", NULL, 0), PLUMB_E_DATA, "/dev/zero");
    static const char *const files[] = {"quickstart/sft", "quickstart/dpo", "sft/smollm2-135m", "dpo/smollm2-135m"};
    for (int i = 0; i < 4; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/configs/%s.yaml", PLUMB_SOURCE_DIR, files[i]);
        assert_ok(plumb_options_load(&o, strstr(files[i], "sft") ? PLUMB_FOR_SFT : PLUMB_FOR_DPO, path, NULL, 0));
        assert_non_null(o.model);
        plumb_options_free(&o);
    }
}

/* Whatever allocation fails, the error says so and nothing leaks (the sanitizer build looks). */
static void survives_failed_allocations(void **state) {
    (void)state;
    char override[] = "train_modules=[a, b]", *overrides[] = {override};
    int failures = 0;
    for (long n = 1; n < 2000; n++) {
        plumb_options o;
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_options_load(&o, PLUMB_FOR_SFT, PLUMB_TEST_DATA "/config/full.yaml", overrides, 1);
        plumb_alloc_fail_after(0);
        plumb_options_free(&o);
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        failures++;
    }
    assert_in_range(failures, 30, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_form),
        cmocka_unit_test(has_defaults_of_the_command),
        cmocka_unit_test(full_training_has_its_defaults),
        cmocka_unit_test(nested_and_dotted_keys_are_the_same),
        cmocka_unit_test(refuses_wrong_types),
        cmocka_unit_test(refuses_wrong_keys),
        cmocka_unit_test(refuses_what_yaml_has_beyond_values),
        cmocka_unit_test(checks_rules_between_keys),
        cmocka_unit_test(reads_files),
        cmocka_unit_test(survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
