/* key=value, flags, required keys, durations. */
#include "config_test.h"

enum { WORDS_MAX = 16 };

/* Runs parse_args on words separated by NUL-terminated strings up to NULL. */
static plumb_status parse(plumb_options *o, int command, bool *help, ...) {
    char *words[WORDS_MAX];
    static char name[] = "sft";
    int n = 0;
    words[n++] = name;
    va_list list;
    va_start(list, help);
    for (char *word; n < WORDS_MAX && (word = va_arg(list, char *));) words[n++] = word;
    va_end(list);
    return plumb_options_parse_args(o, command, n, words, help);
}

static void reads_a_command_line(void **state) {
    (void)state;
    plumb_options o;
    bool help;
    assert_ok(parse(&o, PLUMB_FOR_SFT, &help, "batch_size=4", PLUMB_TEST_DATA "/config/full.yaml", "--resume",
                    "runs/x/checkpoints/step-000010", "learning_rate=3e-4", "--dry-run", "learning_rate=4e-4",
                    "run_name=a=b c", NULL));
    assert_false(help);
    assert_int_equal(o.batch_size, 4); /* the file says 16; arguments come after it wherever they stand */
    assert_true(o.learning_rate == 4e-4);
    assert_string_equal(o.resume, "runs/x/checkpoints/step-000010");
    assert_string_equal(o.run_name, "a=b c");
    assert_true(o.dry_run);
    assert_int_equal(o.max_length, 512);
    plumb_options_free(&o);

    assert_ok(parse(&o, PLUMB_FOR_SFT, &help, "model=a", "train_file=b", "output_dir=runs/deep/name//", "--resume=x",
                    "--resume", "never", NULL));
    assert_string_equal(o.resume, "never");
    assert_string_equal(o.run_name, "name");
    plumb_options_free(&o);
    assert_ok(parse(&o, PLUMB_FOR_SFT, &help, "model=a", "train_file=b", "output_dir=c", "--resume", "x", "resume=auto",
                    NULL));
    assert_string_equal(o.resume, "auto");
    plumb_options_free(&o);
}

static void reads_lists_and_texts(void **state) {
    (void)state;
    plumb_options o;
    bool help;
    assert_ok(parse(&o, PLUMB_FOR_DPO, &help, "model=a", "train_file=b", "output_dir=c",
                    "lora_target_modules=q_proj, v_proj", "train_modules=['*.a', \"b, c\"]", NULL));
    assert_int_equal(o.n_lora_target_modules, 2);
    assert_string_equal(o.lora_target_modules[1], "v_proj");
    assert_int_equal(o.n_train_modules, 2);
    assert_string_equal(o.train_modules[0], "*.a");
    assert_string_equal(o.train_modules[1], "b, c");
    plumb_options_free(&o);
    assert_ok(parse(&o, PLUMB_FOR_DPO, &help, "model=a", "train_file=b", "output_dir=c", "train_modules=*.norm.weight",
                    "train_modules=", NULL));
    assert_int_equal(o.n_train_modules, 0);
    plumb_options_free(&o);
    assert_ok(parse(&o, PLUMB_FOR_GENERATE, &help, "model=a", "prompt=\"Hello: you\" # no comment", "adapter=x",
                    "adapter=null", NULL));
    assert_string_equal(o.prompt, "\"Hello: you\" # no comment");
    assert_null(o.adapter);
    assert_int_equal(o.n_stop_strings, 0);
    assert_true(o.min_p == 0 && o.typical_p == 1 && o.repetition_penalty == 1 && o.min_new_tokens == 0);
    plumb_options_free(&o);
    assert_ok(parse(&o, PLUMB_FOR_GENERATE, &help, "model=a", "prompt=x", "stop_strings=[\"\\n\\n\", 'User:']", "do_sample=true",
                    "min_p=0.05", "typical_p=0.9", "repetition_penalty=1.1", "min_new_tokens=256", NULL));
    assert_int_equal(o.n_stop_strings, 2);
    assert_string_equal(o.stop_strings[0], "\n\n");
    assert_string_equal(o.stop_strings[1], "User:");
    assert_true(o.min_p == 0.05 && o.typical_p == 0.9 && o.repetition_penalty == 1.1 && o.min_new_tokens == 256);
    plumb_options_free(&o);
}

static void refuses_wrong_words(void **state) {
    (void)state;
    plumb_options o;
    bool help;
#define REFUSED(command, message, ...)                                                                                 \
    assert_message(parse(&o, command, &help, __VA_ARGS__, NULL), PLUMB_E_CONFIG, message)
    REFUSED(PLUMB_FOR_SFT, "argument 2: batch_size: found '3.7'; expected a whole number", "model=a", "batch_size=3.7");
    REFUSED(PLUMB_FOR_SFT, "argument 1: unknown key 'batchsize'; did you mean batch_size?", "batchsize=3");
    REFUSED(PLUMB_FOR_SFT, "argument 1: beta: found a key of plumb dpo", "beta=3");
    REFUSED(
        PLUMB_FOR_SFT,
        "argument 1: found '--learning_rate'; expected --resume, --dry-run or --help; settings are written key=value",
        "--learning_rate", "1");
    REFUSED(PLUMB_FOR_SFT, "argument 1: found '--batch_size=3'", "--batch_size=3");
    REFUSED(PLUMB_FOR_SFT, "argument 2: found 'b.yaml'; expected key=value: the configuration file was named already",
            "a.yaml", "b.yaml");
    REFUSED(PLUMB_FOR_SFT, "argument 1: found '--resume'; expected a path, auto or never after it", "--resume");
    REFUSED(PLUMB_FOR_SFT, "argument 2: resume: found bytes that are not UTF-8", "model=a", "--resume=\xff");
    REFUSED(PLUMB_FOR_GENERATE, "argument 2: resume: found a key of plumb sft, dpo, reward, ppo", "--resume", "x");
    REFUSED(PLUMB_FOR_SFT, "argument 1: found ''", "");
#define RL "model=a", "train_file=b", "output_dir=c", "reward_funcs=json"
    REFUSED(PLUMB_FOR_GRPO, "delta: found 1.2; expected more than 1 + epsilon (1.2), or 0 for none", RL, "delta=1.2");
    REFUSED(PLUMB_FOR_GRPO, "delta: found 3 with loss_type: cispo", RL, "delta=3", "loss_type=cispo");
    REFUSED(PLUMB_FOR_PPO, "kl_horizon: found 6.4 with batch_size: 32; expected more than a fifth", RL, "adap_kl_ctrl=true",
            "kl_horizon=6.4", "batch_size=32");
    REFUSED(PLUMB_FOR_PPO, "unknown key 'response_length'; plumb calls it max_completion_length", "response_length=5");
    REFUSED(PLUMB_FOR_GRPO, "kl_coef: found a key of plumb ppo; expected one that plumb grpo knows; grpo and rloo call it beta",
            "kl_coef=1");
    REFUSED(PLUMB_FOR_SFT, "argument 1: model: found bytes that are not UTF-8", "model=\xc3(");
    REFUSED(PLUMB_FOR_SFT, "argument 1: train_modules: found a list in the list", "train_modules=[[a]]");
    REFUSED(PLUMB_FOR_SFT, "argument 1: not valid YAML", "train_modules=[a");
    REFUSED(PLUMB_FOR_SFT, "argument 1: not valid YAML", "train_modules=[a] b");
    REFUSED(PLUMB_FOR_SFT, "argument 1: train_modules: found an empty text", "train_modules=a,,b");
    REFUSED(PLUMB_FOR_SFT, "argument 1: found an alias", "train_modules=[*a]");
    REFUSED(PLUMB_FOR_SFT, "argument 1: lora_target_modules: found an empty list", "lora_target_modules=");
    REFUSED(PLUMB_FOR_SFT, "argument 2: warmup_ratio: found 0.1 beside", "warmup_steps=2", "warmup_ratio=0.1");
    REFUSED(PLUMB_FOR_GENERATE, "argument 3: typical_p: found '0'; expected a number above 0", "model=a", "prompt=x", "typical_p=0");
    REFUSED(PLUMB_FOR_GENERATE, "argument 2: min_new_tokens: found 257 with max_new_tokens: 256", "model=a", "min_new_tokens=257");
    REFUSED(PLUMB_FOR_GENERATE, "argument 2: top_p: found it with do_sample: false", "model=a", "top_p=0.9");
    REFUSED(PLUMB_FOR_GENERATE, "argument 1: unknown key 'stop'; plumb calls it stop_strings", "stop=x");
    assert_message(parse(&o, PLUMB_FOR_SFT, &help, "./batch_size=3", NULL), PLUMB_E_IO, "./batch_size=3"); /* a path */
}

static void asks_for_what_is_required(void **state) {
    (void)state;
    plumb_options o;
    bool help;
    REFUSED(PLUMB_FOR_SFT, "model is missing: base model", "train_file=a", "output_dir=b");
    REFUSED(PLUMB_FOR_SFT, "train_file is missing", "model=a", "output_dir=b");
    REFUSED(PLUMB_FOR_DPO, "output_dir is missing", "model=a", "train_file=b");
    REFUSED(PLUMB_FOR_GENERATE, "prompt is missing", "model=a");
    REFUSED(PLUMB_FOR_EVAL, "eval_file is missing", "model=a", "train_file=b");
    REFUSED(PLUMB_FOR_SFT, "/config/full.yaml: model is missing", PLUMB_TEST_DATA "/config/full.yaml", "model=null");
    assert_ok(parse(&o, PLUMB_FOR_EVAL, &help, "model=a", "train_file=b", "eval_last=3", NULL));
    plumb_options_free(&o);
    assert_ok(parse(&o, PLUMB_FOR_GENERATE, &help, "model=a", "prompt=x", NULL));
    plumb_options_free(&o);
}

static void reads_durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"", 0},       {"90s", 90},         {"55m", 3300}, {"3h30m", 12600},
                {"1d", 86400}, {"1d2h3m4s", 93784}, {"007m", 420}, {"999999999s", 999999999.0}};
    static const char *const bad[] = {"5",   "m",   "5x", "30m3h", "5m5m",        "1.5h", "-5m", " 5m",
                                      "5 m", "5m ", "0s", "0h0m",  "9999999999s", "5M",   "3h30"};
    double seconds;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(plumb_duration_parse(good[i].text, &seconds));
        assert_true(seconds == good[i].seconds);
    }
    assert_ok(plumb_duration_parse(NULL, &seconds));
    assert_true(seconds == 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_message(plumb_duration_parse(bad[i], &seconds), PLUMB_E_CONFIG, "expected a time");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_command_line), cmocka_unit_test(reads_lists_and_texts),
        cmocka_unit_test(refuses_wrong_words),  cmocka_unit_test(asks_for_what_is_required),
        cmocka_unit_test(reads_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
