/* Prompt templates: exact text, the spans of the assistant's words, and what is refused. */
#include "text_test.h"

#define COUNT(list) ((int)(sizeof list / sizeof *list))
static const plumb_message talk[] = {{"user", "Hi"}, {"assistant", "Hello!\n"}, {"user", "Bye %s"}, {"assistant", ""}};

static void assert_span(const plumb_str *text, const int64_t *span, const char *expected) {
    assert_int_equal(span[1] - span[0], strlen(expected));
    assert_memory_equal(text->data + span[0], expected, strlen(expected));
}

static void chatml(void **state) {
    (void)state;
    plumb_str out = {0};
    int64_t *spans;
    int n;
    assert_ok(plumb_str_append(&out, "before ", 7)); /* spans count from the start of *out */
    assert_ok(plumb_prompt_render("chatml", talk, COUNT(talk), true, &out, &spans, &n));
    assert_string_equal(
        out.data,
        "before <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!\n<|im_end|>\n<|im_start|>user\nBye "
        "%s<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n");
    assert_int_equal(n, 2);
    assert_span(&out, spans, "Hello!\n<|im_end|>");
    assert_span(&out, spans + 2, "<|im_end|>");
    free(spans);
    plumb_str_free(&out);
}

static void smollm2(void **state) {
    (void)state;
    static const plumb_message with_system[] = {{"system", "Be brief."}, {"user", "Hi"}};
    plumb_str out = {0};
    assert_ok(plumb_prompt_render("chatml-smollm2", talk, 1, false, &out, NULL, NULL));
    assert_string_equal(
        out.data, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
                  "<|im_start|>user\nHi<|im_end|>\n");
    out.length = 0;
    assert_ok(plumb_prompt_render("chatml-smollm2", with_system, 2, true, &out, NULL, NULL));
    assert_string_equal(
        out.data, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    plumb_str_free(&out);
}

static void trimmed(void **state) {
    (void)state;
    plumb_str out = {0};
    int64_t *spans;
    int n;
    assert_ok(plumb_prompt_render("chatml-trimmed", talk, 2, true, &out, &spans, &n));
    assert_string_equal(
        out.data, "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nHello!\n<|im_end|><|im_start|>assistant\n");
    assert_int_equal(n, 1);
    assert_span(&out, spans, "Hello!\n<|im_end|>");
    free(spans);
    plumb_str_free(&out);
}

static void alpaca(void **state) {
    (void)state;
    static const char start[] =
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.";
    plumb_str out = {0}, expected = {0};
    int64_t *spans;
    int n;
    assert_ok(plumb_str_printf(&expected, "%s\n\n### Input:\n1 2\n\n### Response:\n", start));
    assert_ok(plumb_prompt_alpaca("Add.", "1 2", &out));
    assert_string_equal(out.data, expected.data);
    expected.length = out.length = 0;
    assert_ok(plumb_str_printf(&expected, "%s\n\n### Response:\n", start));
    assert_ok(plumb_prompt_alpaca("Add.", "", &out));
    assert_string_equal(out.data, expected.data);
    out.length = 0;
    static const plumb_message pair[] = {{"user", "Add."}, {"assistant", "3"}, {"user", "More"}};
    assert_ok(plumb_prompt_render("alpaca", pair, 2, false, &out, &spans, &n));
    assert_ok(plumb_str_append(&expected, "3", 1));
    assert_string_equal(out.data, expected.data);
    assert_int_equal(n, 1);
    assert_span(&out, spans, "3");
    free(spans);
    assert_error(plumb_prompt_render("alpaca", pair, 3, false, &out, NULL, NULL), PLUMB_E_DATA, "one user message");
    assert_error(plumb_prompt_render("alpaca", pair + 1, 1, false, &out, NULL, NULL), PLUMB_E_DATA, "one user message");
    assert_error(plumb_prompt_render("alpaca", pair, 2, true, &out, NULL, NULL), PLUMB_E_DATA, "second answer");
    plumb_str_free(&out);
    plumb_str_free(&expected);
}

static void none(void **state) {
    (void)state;
    plumb_str out = {0};
    int64_t *spans;
    int n;
    assert_ok(plumb_prompt_render("none", talk, 3, true, &out, &spans, &n));
    assert_string_equal(out.data, "HiHello!\nBye %s");
    assert_int_equal(n, 1);
    assert_span(&out, spans, "Hello!\n");
    free(spans);
    plumb_str_free(&out);
}

static void refused(void **state) {
    (void)state;
    static const plumb_message tool[] = {{"user", "Hi"}, {"tool", "{}"}}, empty[] = {{"user", NULL}},
                               nobody[] = {{NULL, "Hi"}};
    plumb_str out = {0};
    int64_t *spans;
    int n;
    assert_ok(plumb_prompt_check("alpaca"));
    assert_error(plumb_prompt_check("chatlm"), PLUMB_E_CONFIG, "did you mean \"chatml\"");
    assert_error(plumb_prompt_check("llama-3-instruct"), PLUMB_E_CONFIG,
                 "chatml, chatml-smollm2, chatml-trimmed, alpaca and none");
    assert_error(plumb_prompt_check(NULL), PLUMB_E_CONFIG, "unknown");
    assert_error(plumb_prompt_render("chatml", tool, 2, false, &out, &spans, &n), PLUMB_E_DATA,
                 "message 2: unknown role \"tool\"");
    assert_error(plumb_prompt_render("chatml", tool, 0, false, &out, &spans, &n), PLUMB_E_DATA, "empty");
    assert_error(plumb_prompt_render("none", empty, 1, false, &out, &spans, &n), PLUMB_E_DATA, "message 1");
    assert_error(plumb_prompt_render("chatml", nobody, 1, false, &out, &spans, &n), PLUMB_E_DATA, "message 1");
    assert_null(spans);
    assert_int_equal(n, 0);
    assert_int_equal(out.length, 0);
    plumb_str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chatml), cmocka_unit_test(smollm2), cmocka_unit_test(trimmed),
                                       cmocka_unit_test(alpaca), cmocka_unit_test(none),    cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
