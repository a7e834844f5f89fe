/* Prompts for reinforcement learning, rated records, margins, and pairs that are dropped where they are too long. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "plumb/data.h"

#define HERE PLUMB_TEST_DATA "/data/"
static plumb_tokenizer *tokenizer, *with_bos;

#define ASSERT_OK(expression)                                                                                          \
    do {                                                                                                               \
        if ((expression) != PLUMB_OK) fail_msg("%s", plumb_error_message());                                           \
    } while (0)

static int set_up(void **state) {
    (void)state;
    if (plumb_tokenizer_load(&tokenizer, HERE "tokenizer") == PLUMB_OK &&
        plumb_tokenizer_load(&with_bos, HERE "tokenizer_bos") == PLUMB_OK)
        return 0;
    print_error("%s\n", plumb_error_message());
    return 1;
}

static int tear_down(void **state) {
    (void)state;
    plumb_tokenizer_free(tokenizer);
    plumb_tokenizer_free(with_bos);
    return 0;
}

static plumb_dataset load(const plumb_data_options *o, const char *text) {
    plumb_dataset d;
    if (plumb_dataset_parse(&d, tokenizer, o, text, strlen(text)) != PLUMB_OK)
        fail_msg("%s\n  says: %s", text, plumb_error_message());
    return d;
}

static void assert_text_ids(const plumb_tokenizer *t, const char *text, bool special, const int32_t *ids, int32_t n) {
    plumb_ids expected = {0};
    ASSERT_OK(plumb_tokenize(t, text, strlen(text), special, &expected));
    assert_int_equal(n, expected.count);
    assert_memory_equal(ids, expected.data, expected.count * sizeof *ids);
    plumb_ids_free(&expected);
}

#define USER(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define BOT(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define CHAT(text) "<|im_start|>user\n" text "<|im_end|>\n"
#define ANSWER(text) "<|im_start|>assistant\n" text "<|im_end|>\n"
#define OPENING "<|im_start|>assistant\n"
#define ALPACA(instruction)                                                                                            \
    "Below is an instruction that describes a task. Write a response that appropriately completes the "                \
    "request.\n\n### Instruction:\n" instruction "\n\n### Response:\n"

/* --- prompts ---------------------------------------------------------------------------------- */

static const plumb_data_options prompts = {.path = "f.jsonl", .kind = PLUMB_DATA_PROMPTS};

static void test_prompt_shapes(void **state) {
    (void)state;
    static const struct {
        const char *template_name, *text, *prompt, *answer;
    } cases[] = {
        {NULL, "{\"prompt\": \"One and \"}", "One and ", NULL},
        {NULL, "{\"prompt\": \"One and \", \"answer\": \"two\"}", "One and ", "two"},
        {NULL, "{\"prompt\": \"a\", \"answer\": \"\"}", "a", ""},
        {NULL, "{\"prompt\": \"a\", \"answer\": null}", "a", NULL},
        {NULL, "{\"prompt\": \"a\", \"answer\": 72}", "a", "72"},
        {NULL, "{\"prompt\": \"a\", \"answer\": -0.1}", "a", "-0.1"},
        {NULL, "{\"prompt\": \"a\", \"answer\": 0.30000000000000004}", "a", "0.30000000000000004"},
        {NULL, "{\"prompt\": \"a\", \"completion\": \"b\"}", "a", NULL},
        {NULL, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "a", NULL},
        {NULL, "{\"chosen\": \"Say yes\", \"rejected\": \"Say no\"}", "Say", NULL},
        {NULL, "{\"prompt\": [" USER("hi") "]}", CHAT("hi") OPENING, NULL},
        {"chatml-trimmed", "{\"prompt\": [" USER("hi") "]}", "<|im_start|>user\nhi<|im_end|>" OPENING, NULL},
        {"none", "{\"prompt\": [" USER("hi") "]}", "hi", NULL},
        {NULL, "{\"messages\": [" USER("hi") "]}", CHAT("hi") OPENING, NULL},
        {NULL, "{\"messages\": [" USER("hi") "," BOT("ho") "," USER("so") "," BOT("x") "," BOT("y") "]}",
         CHAT("hi") ANSWER("ho") CHAT("so") OPENING, NULL},
        {NULL, "{\"chosen\": [" USER("hi") "," BOT("x") "], \"rejected\": [" USER("hi") "," BOT("y") "]}",
         CHAT("hi") OPENING, NULL},
        {NULL,
         "{\"prompt\": \"hi\", \"chosen\": [" USER("hi") "," BOT("x") "], \"rejected\": [" USER("hi") "," BOT("y") "]}",
         CHAT("hi") OPENING, NULL},
        {NULL, "{\"instruction\": \"Sum\", \"output\": \"-\", \"answer\": \"4\"}", ALPACA("Sum"), "4"},
        {"chatml", "{\"instruction\": \"Sum\", \"input\": \"2 2\"}", CHAT("Sum\n2 2") OPENING, NULL},
        {"none", "{\"instruction\": \"Sum\", \"input\": \"2 2\"}", "Sum\n2 2\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_data_options o = prompts;
        o.template_name = cases[i].template_name;
        plumb_dataset d = load(&o, cases[i].text);
        const plumb_sample *s = &d.samples[0];
        assert_int_equal(d.count, 1);
        assert_int_equal(s->n_branches, 0);
        assert_string_equal(s->prompt_text, cases[i].prompt);
        assert_int_equal(!s->answer, !cases[i].answer);
        if (s->answer) assert_string_equal(s->answer, cases[i].answer);
        assert_text_ids(tokenizer, cases[i].prompt, false, s->prompt, s->prompt_count);
        assert_int_equal(d.counts.tokens, s->prompt_count);
        assert_int_equal(d.counts.targets, 0);
        plumb_dataset_free(&d);
    }
}

/* A beginning-of-sequence token stands before texts, as in the other kinds, and not before rendered chats. */
static void test_prompt_bos(void **state) {
    (void)state;
    static const char *const texts[] = {"{\"prompt\": \"One\"}", "{\"prompt\": [" USER("One") "]}"};
    for (int chat = 0; chat < 2; chat++) {
        plumb_dataset d;
        ASSERT_OK(plumb_dataset_parse(&d, with_bos, &prompts, texts[chat], strlen(texts[chat])));
        assert_text_ids(with_bos, chat ? CHAT("One") OPENING : "One", !chat, d.samples[0].prompt,
                        d.samples[0].prompt_count);
        plumb_ids bare = {0};
        ASSERT_OK(plumb_tokenize(with_bos, "One", 3, false, &bare));
        if (!chat) assert_int_equal(d.samples[0].prompt_count, bare.count + 1);
        plumb_ids_free(&bare);
        plumb_dataset_free(&d);
    }
}

/* What a writer of records needs to give a chat's prompt back; and pairs whose prompt nobody has named are counted. */
static void test_prompt_messages(void **state) {
    (void)state;
    plumb_dataset d =
        load(&prompts, "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}," USER("x") "," BOT("y") "]}\n{\"prompt\": \"text\"}");
    assert_string_equal(d.samples[0].messages, "[{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"x\"}]");
    assert_null(d.samples[1].messages);
    plumb_dataset_free(&d);
    plumb_data_options plain = prompts, two = prompts;
    two.kind = PLUMB_DATA_PAIRS;
    plain.template_name = "none"; /* marks no end of a turn */
    d = load(&plain, "{\"messages\": [" USER("x") "]}");
    assert_null(d.samples[0].messages);
    plumb_dataset_free(&d);
    d = load(&two, "{\"question\": \"q\", \"chosen\": \"He sat\", \"rejected\": \"He ran\"}\n{\"prompt\": \"q\", \"chosen\": \"a\", "
                     "\"rejected\": \"b\"}");
    assert_int_equal(d.counts.common_prompt, 1);
    plumb_dataset_free(&d);
}

static void test_prompt_fields(void **state) {
    (void)state;
    plumb_data_options gsm8k = prompts, mawps = prompts;
    gsm8k.field_prompt = "question";
    mawps.field_prompt = "input", mawps.field_answer = "target";
    plumb_dataset d = load(&gsm8k, "{\"question\": \"How many?\", \"answer\": \"Two\\n#### 2\"}");
    assert_string_equal(d.samples[0].prompt_text, "How many?");
    assert_string_equal(d.samples[0].answer, "Two\n#### 2");
    plumb_dataset_free(&d);
    d = load(&mawps, "{\"input\": \"How many?\", \"target\": 7.0}\n{\"input\": \"And?\", \"target\": \"8\"}");
    assert_string_equal(d.samples[0].answer, "7");
    assert_string_equal(d.samples[1].prompt_text, "And?");
    assert_string_equal(d.samples[1].answer, "8");
    plumb_dataset_free(&d);
}

static void test_prompt_lengths(void **state) {
    (void)state;
    plumb_data_options o = prompts;
    plumb_dataset d = load(&o, "{\"prompt\": \"One and two\"}");
    o.max_length = d.samples[0].prompt_count;
    plumb_dataset_free(&d);
    d = load(&o, "{\"prompt\": \"\"}\n{\"prompt\": \"One and two and three\"}\n{\"prompt\": \"One and two\", "
                 "\"answer\": \"x\"}");
    assert_int_equal(d.count, 1); /* as long as allowed */
    assert_int_equal(d.samples[0].record, 2);
    assert_int_equal(d.samples[0].prompt_count, o.max_length);
    assert_string_equal(d.samples[0].answer, "x");
    assert_int_equal(d.counts.dropped_long, 1);
    assert_int_equal(d.counts.dropped_empty, 1);
    assert_int_equal(d.counts.truncated, 0);
    plumb_dataset_free(&d);
}

/* --- rated ------------------------------------------------------------------------------------ */

static const plumb_data_options rated = {.path = "f.jsonl", .kind = PLUMB_DATA_RATED, .keep_texts = true};

static void test_labels(void **state) {
    (void)state;
    static const struct {
        const char *label;
        double expected;
    } cases[] = {{"", NAN},
                 {", \"label\": null", NAN},
                 {", \"label\": true", 1},
                 {", \"label\": false", 0},
                 {", \"label\": 1", 1},
                 {", \"label\": -2.5", -2.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"prompt\": \"One \", \"completion\": \"two\"%s}", cases[i].label);
        plumb_dataset d = load(&rated, text);
        double label = d.samples[0].label;
        assert_true(isnan(cases[i].expected) ? isnan(label) : label == cases[i].expected);
        plumb_dataset_free(&d);
    }
}

static void test_rated_shapes(void **state) {
    (void)state;
    static const struct {
        const char *output, *text, *prompt, *whole[2], *completion[2];
    } cases[] = {
        {NULL, "{\"prompt\": \"One, \", \"completion\": \"two\"}", "One, ", {"One, two<eos>"}, {"two"}},
        {NULL,
         "{\"prompt\": [" USER("hi") "], \"completion\": [" BOT("ho") "]}",
         CHAT("hi") OPENING,
         {CHAT("hi") ANSWER("ho")},
         {"ho"}},
        {NULL,
         "{\"messages\": [" USER("hi") "," BOT("ho") "," USER("so") "," BOT("x") "]}",
         CHAT("hi") ANSWER("ho") CHAT("so") OPENING,
         {CHAT("hi") ANSWER("ho") CHAT("so") ANSWER("x")},
         {"x"}},
        {NULL,
         "{\"instruction\": \"Sum\", \"output\": \"four\"}",
         ALPACA("Sum"),
         {ALPACA("Sum") "four<eos>"},
         {"four"}},
        {NULL,
         "{\"prompt\": \"One, \", \"chosen\": \"two\", \"rejected\": \"six\", \"label\": 1}",
         "One, ",
         {"One, two<eos>", "One, six<eos>"},
         {"two", "six"}},
        {"rejected",
         "{\"instruction\": \"Sum\", \"chosen\": \"four\", \"rejected\": \"five\"}",
         ALPACA("Sum"),
         {ALPACA("Sum") "five<eos>"},
         {"five"}},
    };
    plumb_str eos = {0};
    int32_t id = plumb_tokenizer_eos(tokenizer);
    ASSERT_OK(plumb_detokenize(tokenizer, &id, 1, false, &eos));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_data_options o = rated;
        o.field_output = cases[i].output;
        plumb_dataset d = load(&o, cases[i].text);
        const plumb_sample *s = &d.samples[0];
        int n = 1 + (cases[i].whole[1] != NULL);
        assert_int_equal(s->n_branches, n);
        assert_string_equal(s->prompt_text, cases[i].prompt);
        assert_true(isnan(s->label));
        assert_null(s->answer);
        for (int k = 0; k < n; k++) {
            int32_t ids[256];
            plumb_str whole = {0};
            const char *mark = strstr(cases[i].whole[k], "<eos>");
            ASSERT_OK(plumb_str_printf(&whole, "%.*s%s", mark ? (int)(mark - cases[i].whole[k]) : 9999,
                                       cases[i].whole[k], mark ? eos.data : ""));
            memcpy(ids, s->prompt, (size_t)s->prompt_count * sizeof *ids);
            memcpy(ids + s->prompt_count, s->branch[k].ids, (size_t)s->branch[k].count * sizeof *ids);
            assert_text_ids(tokenizer, whole.data, false, ids, s->prompt_count + s->branch[k].count);
            for (int32_t j = 0; j < s->branch[k].count; j++) assert_int_equal(s->branch[k].mask[j], 1);
            assert_string_equal(s->branch[k].text, cases[i].completion[k]);
            plumb_str_free(&whole);
        }
        plumb_dataset_free(&d);
    }
    plumb_str_free(&eos);
}

static void test_texts_are_kept_on_demand(void **state) {
    (void)state;
    plumb_data_options o = rated;
    const char *text = "{\"prompt\": \"One \", \"completion\": \"two\", \"answer\": 3}";
    o.keep_texts = false;
    plumb_dataset d = load(&o, text);
    assert_null(d.samples[0].prompt_text);
    assert_null(d.samples[0].branch[0].text);
    assert_string_equal(d.samples[0].answer, "3");
    plumb_dataset_free(&d);
}

/* --- pairs ------------------------------------------------------------------------------------ */

static const plumb_data_options pairs = {.path = "f.jsonl", .kind = PLUMB_DATA_PAIRS};

static void test_margins(void **state) {
    (void)state;
    plumb_data_options o = pairs;
    const char *text = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": 0.5, \"gap\": 3}\n"
                       "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n"
                       "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": -2, \"gap\": null}\n";
    static const double expected[2][3] = {{0.5, 0, -2}, {3, 0, 0}};
    for (int named = 0; named < 2; named++) {
        o.field_margin = named ? "gap" : NULL;
        plumb_dataset d = load(&o, text);
        for (int i = 0; i < 3; i++) assert_true(d.samples[i].margin == expected[named][i]);
        plumb_dataset_free(&d);
    }
}

static void test_long_pairs(void **state) {
    (void)state;
    const char *text = "{\"prompt\": \"One \", \"chosen\": \"two\", \"rejected\": \"six\", \"margin\": 1}\n"
                       "{\"prompt\": \"One \", \"chosen\": \"two\", \"rejected\": \"six and seven and eight\"}\n"
                       "{\"prompt\": \"One \", \"chosen\": \"two and three and four\", \"rejected\": \"six\"}\n"
                       "{\"prompt\": \"One \", \"chosen\": \"two\", \"rejected\": \"ten\", \"margin\": 4}\n";
    plumb_data_options o = pairs;
    plumb_dataset d = load(&o, text);
    o.max_length = 0;
    for (int k = 0; k < 2; k++) {
        int32_t n[] = {d.samples[0].prompt_count + d.samples[0].branch[k].count,
                       d.samples[3].prompt_count + d.samples[3].branch[k].count};
        for (int i = 0; i < 2; i++) o.max_length = n[i] > o.max_length ? n[i] : o.max_length;
    }
    plumb_dataset_free(&d);
    d = load(&o, text);
    assert_int_equal(d.count, 4);
    assert_int_equal(d.counts.truncated, 2);
    plumb_dataset_free(&d);
    o.drop_long = true;
    d = load(&o, text);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.samples[1].record, 3);
    assert_true(d.samples[0].margin == 1 && d.samples[1].margin == 4);
    assert_int_equal(d.counts.truncated, 0);
    assert_int_equal(d.counts.dropped_long, 2);
    plumb_dataset_free(&d);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const plumb_data_options *o;
        const char *text, *says;
    } cases[] = {
        {&pairs,
         "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \"a\", \"chosen\": \"b\", "
         "\"rejected\": \"c\", \"margin\": \"1\"}",
         "f.jsonl:2: margin: found a string, expected a number (or field_margin"},
        {&pairs, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": true}",
         "f.jsonl:1: margin: found true or false"},
        {&pairs, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"margin\": 1e999}", "f.jsonl:1:"},
        {&rated, "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": \"good\"}",
         "f.jsonl:1: label: found a string, expected a number, true or false (or field_label"},
        {&rated, "{\"prompt\": \"a\", \"completion\": \"b\", \"answer\": {}}",
         "f.jsonl:1: answer: found an object, expected a string or a number (or field_answer"},
        {&rated, "{\"messages\": [" USER("hi") "]}",
         "messages: the last message is the user's, expected the assistant's"},
        {&rated, "{\"prompt\": \"a\"}", "fields: found prompt, expected prompt and completion"},
        {&prompts, "{\"question\": \"a\"}", "fields: found question, expected prompt, or instruction, or messages"},
        {&prompts, "{\"prompt\": 3}", "prompt: found a number, expected a string or a list of messages"},
        {&prompts, "{\"prompt\": \"a\", \"answer\": [1]}", "answer: found a list, expected a string or a number"},
        {&prompts, "{\"prompt\": []}", "prompt: found an empty list"},
        {&prompts, "{\"prompt\": [" USER("x") "," BOT("y") "]}",
         "prompt: the last message is the assistant's, expected the user's"},
        {&prompts, "{\"messages\": [" BOT("y") "]}", "messages: found assistant turns only"},
        {&prompts, "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}," BOT("y") "]}",
         "messages: the last message is the system's, expected the user's"},
        {&prompts, "{\"messages\": 1}", "messages: found a number, expected a list of messages"},
        {&prompts, "{\"prompt\": \"\"}", "no usable sample in 1 records"},
        {&prompts, "{\"prompt\": null}", "fields: found prompt (null), expected prompt"},
        {&prompts, "{\"prompt\": \"a\", \"answer\": 12345678901234567890123}",
         "answer: found a number of more digits than are kept (1.2345678901234568e+22), expected it as a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_dataset d;
        plumb_status status = plumb_dataset_parse(&d, tokenizer, cases[i].o, cases[i].text, strlen(cases[i].text));
        if (status == PLUMB_OK || !strstr(plumb_error_message(), cases[i].says))
            fail_msg("%s\n  says: %s\n  expected: %s", cases[i].text, status ? plumb_error_message() : "nothing",
                     cases[i].says);
        assert_true(status == PLUMB_E_DATA || status == PLUMB_E_FORMAT);
    }
}

/* Every allocation fails once. */
static void test_memory(void **state) {
    (void)state;
    static const struct {
        const plumb_data_options *o;
        const char *text;
    } cases[] = {
        {&prompts, "{\"messages\": [" USER("x") "," BOT("y") "], \"answer\": 0.25}"},
        {&rated, "{\"messages\": [" USER("x") "," BOT("y") "], \"answer\": \"z\", \"label\": 1}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_status status = PLUMB_E_MEMORY;
        long n = 0;
        while (status != PLUMB_OK) {
            plumb_dataset d;
            plumb_alloc_fail_after(++n);
            status = plumb_dataset_parse(&d, tokenizer, cases[i].o, cases[i].text, strlen(cases[i].text));
            plumb_alloc_fail_after(0);
            assert_true(status == PLUMB_OK || status == PLUMB_E_MEMORY);
            plumb_dataset_free(&d);
            assert_true(n < 10000);
        }
        assert_true(n > 8);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompt_shapes),
                                       cmocka_unit_test(test_prompt_bos),
                                       cmocka_unit_test(test_prompt_messages), cmocka_unit_test(test_prompt_fields),
                                       cmocka_unit_test(test_prompt_lengths),
                                       cmocka_unit_test(test_labels),
                                       cmocka_unit_test(test_rated_shapes),
                                       cmocka_unit_test(test_texts_are_kept_on_demand),
                                       cmocka_unit_test(test_margins),
                                       cmocka_unit_test(test_long_pairs),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
