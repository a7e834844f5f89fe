/* Rewards by rule: what counts as equal, as a number, as JSON; specifications that are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "plumb/reward.h"

#define ASSERT_OK(expression)                                                                                          \
    do {                                                                                                               \
        if ((expression) != PLUMB_OK) fail_msg("%s", plumb_error_message());                                           \
    } while (0)

static double score(const char *spec, const char *completion, const char *answer, int64_t tokens) {
    plumb_reward_source *s;
    double reward = NAN;
    ASSERT_OK(plumb_reward_source_create(&s, spec, NULL));
    ASSERT_OK(plumb_reward_source_score(
        s, &(plumb_reward_item){.prompt = "p", .completion = completion, .answer = answer, .tokens = tokens}, 1,
        &reward));
    plumb_reward_source_free(s);
    return reward;
}

static void expect(const char *spec, const char *completion, const char *answer, double expected) {
    double reward = score(spec, completion, answer, 0);
    if (reward != expected)
        fail_msg("%s on \"%s\" with \"%s\" is %g, expected %g", spec, completion, answer ? answer : "", reward,
                 expected);
}

static void test_exact_match(void **state) {
    (void)state;
    expect("exact_match", " Paris\n", "Paris", 1);
    expect("exact_match", "Paris", "\t Paris \r\n", 1);
    expect("exact_match", "", " \n", 1);
    expect("exact_match", "paris", "Paris", 0);
    expect("exact_match", "Paris.", "Paris", 0);
    expect("exact_match", "New  York", "New York", 0);
    expect("exact_match", "Par", "Paris", 0);
}

static void test_number(void **state) {
    (void)state;
    static const struct {
        const char *completion, *answer;
        double reward;
    } cases[] = {
        {"1,000", "1000", 1},
        {"1000", "1000.0", 1},
        {"1000.00", "1,000", 1},
        {"It is 1,234,567 in all.", "1234567", 1},
        {"The answer is 42.", "42", 1},
        {"3 + 4 = 7", "7", 1},
        {"7 is 3 + 4", "7", 0},
        {"$1,250.50", "1250.5", 1},
        {"-$5", "-5", 1},
        {"$-5", "-5", 1},
        {"\xe2\x82\xac"
         "5",
         "5", 1},
        {"-\xe2\x82\xac"
         "5",
         "-5", 1},
        {"-\xc2\xa3"
         "5",
         "-5", 1},
        {"\xe2\x88\x92"
         "5",
         "-5", 1}, /* U+2212 */
        {"15%", "15", 1},
        {"15 %.", "15", 1},
        {"x = -5", "-5", 1},
        {"x=-5", "-5", 1},
        {"(-5)", "-5", 1},
        {"\xe2\x89\x88-5", "-5", 1},
        {"-5", "5", 0},
        {"10-3", "3", 1}, /* a difference or a range */
        {"10-3", "-3", 0},
        {"10 -3", "-3", 1},
        {"10%-20%", "20", 1},
        {"(2)-7", "7", 1},
        {"covid-19", "19", 1},
        {"- 5", "5", 1},
        {"--5", "5", 1},
        {"0", "-0.0", 1},
        {"-0", "0", 1},
        {".5", "0.50", 1},
        {"is .5", "0.5", 1},
        {"-.5", "-0.5", 1},
        {"it is.5", "5", 1},
        {"the answer...5", "5", 1},
        {"007", "7", 1},
        {"0.007", "7e-3", 1},
        {"1e3", "1000", 1},
        {"1.5E+3", "1500", 1},
        {"1e", "1", 1},
        {"2e-", "2", 1},
        {"1e999999999999999999999", "1e1000000001", 0},
        {"9007199254740993", "9007199254740992", 0}, /* equal as doubles */
        {"9,007,199,254,740,993", "9007199254740993", 1},
        {"0.1", "0.10000000000000000001", 0},
        {"12,34", "34", 1},
        {"1,2345", "2345", 1},
        {"1,234,56", "56", 1},
        {"1234,567", "567", 1},
        {"1, 2, 3", "3", 1},
        {"3/4", "4", 0},
        {"3/4", "3", 0},
        {"7 is more than 3/4", "7", 1},
        {"7 is more than 3 / 4", "7", 1},
        {"7 on 1/2/2024", "7", 1},
        {"8 / 2 = 4", "4", 1},
        {"60 km/h", "60", 1},
        {"no number", "0", 0},
        {"", "0", 0},
        {"-", "0", 0},
        {".", "0", 0},
        {"\\boxed{18}", "18", 1},
        {"**18**", "18", 1},
        {"18\xc2\xb0", "18", 1},
        {"x1y", "1", 1},
        {"so 72", "Natalia sold 48/2 = 24.\n48+24 = 72 in all.\n#### 72", 1},
        {"72", "#### 1 and #### 72 (3/4 of it)", 1},
        {"5,000", "#### 5,000", 1},
        {"#### 72\n", "72", 1},
        {"-3", "####-3", 1},
        {"12", "the 12 of them", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect("number", cases[i].completion, cases[i].answer, cases[i].reward);
}

/* Time grows with the text, not with its square. */
static void test_number_is_linear(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    static const char *const parts[] = {"1,", "1 ", "/", "1/", "-", ".", "1.", "1 / ", "#"};
    char *text = malloc(SIZE + 1);
    double begin = plumb_clock();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        for (size_t k = 0; k < SIZE; k++) text[k] = parts[i][k % strlen(parts[i])];
        text[SIZE] = 0;
        (void)score("number", text, "3", 0);
    }
    memset(text, '7', SIZE);
    expect("number", text, text, 1);
    free(text);
    assert_true(plumb_clock() - begin < 5);
}

static void test_regex(void **state) {
    (void)state;
    expect("regex:^[A-D]$", "B", NULL, 1);
    expect("regex:^[A-D]$", "BC", NULL, 0);
    expect("regex:answer: \\d+", "my answer: 7 apples", NULL, 1);
    expect("regex:a:b", "xa:by", NULL, 1); /* only the first colon parts name and pattern */
    expect("regex:(?s)<think>.*</think>", "<think>\n</think>", NULL, 1);
    expect("regex:<think>.*</think>", "<think>\n</think>", NULL, 0);
    expect("regex:(\\w)\\1", "book", NULL, 1); /* more groups than are read */
    expect("regex:^.$", "\xc3\xa9", NULL, 1);
    expect("regex:^\\w$", "\xc3\xa9", NULL, 1);
    expect("regex:^.b$",
           "\xff"
           "b",
           NULL, 1); /* ill-formed text reads as U+FFFD */
    expect("regex:^\\x{fffd}b$",
           "\xff"
           "b",
           NULL, 1);
    expect("regex: ", "a b", NULL, 1);
}

static void test_regex_without_end(void **state) {
    (void)state;
    plumb_reward_source *s;
    double rewards[3] = {9, 9, 9}, begin = plumb_clock();
    char text[100];
    memset(text, 'a', 99);
    text[98] = 'b', text[99] = 0;
    ASSERT_OK(plumb_reward_source_create(&s, "regex:^(a+)+$", NULL));
    assert_string_equal(plumb_reward_source_counts(s), "errors");
    plumb_reward_item items[] = {{.completion = "aaa"}, {.completion = text, .record = 6}, {.completion = "aaaa"}};
    for (int64_t pass = 1; pass <= 2; pass++) { /* it goes on, and counts */
        ASSERT_OK(plumb_reward_source_score(s, items, 3, rewards));
        assert_true(rewards[0] == 1 && rewards[1] == 0 && rewards[2] == 1);
        assert_int_equal(plumb_reward_source_count(s), pass);
    }
    assert_true(plumb_clock() - begin < 5);
    plumb_reward_source_free(s);
}

static void test_length(void **state) {
    (void)state;
    assert_true(score("length:100", "", NULL, 100) == 0);
    assert_true(score("length:100", "", NULL, 50) == -0.5);
    assert_true(score("length:100", "", NULL, 300) == -2);
    assert_true(score("length:1", "", NULL, 0) == -1);
}

static void test_json(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double reward;
    } cases[] = {
        {"{\"a\": [1, 2.5, null]}", 1},
        {" [1]\n", 1},
        {"42", 1},
        {"\"x\"", 1},
        {"null", 1},
        {"123456789012345678901234567890", 1},
        {"{\"a\": 1, \"a\": 2}", 1},
        {"[\"\\u0000\"]", 1},
        {"```json\n{\"a\": 1}\n```", 1},
        {"```\n{\"a\": 1}\n```", 1},
        {"\n```JSON \r\n[]\r\n```\n", 1},
        {"```json\n[]```", 1},
        {"", 0},
        {"{", 0},
        {"{\"a\": 1} ", 1},
        {"{\"a\": 1} done", 0},
        {"Here: {\"a\": 1}", 0},
        {"{'a': 1}", 0},
        {"[1,]", 0},
        {"NaN", 0},
        {"[\"\xff\"]", 0},
        {"```json\n[]\n", 0},
        {"```python\n[]\n```", 0},
        {"```json [] ```", 0},
        {"```\n```", 0},
        {"```", 0},
        {"`````", 0},
        {"``````", 0},
        {"```json\n[]\n``` so", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) expect("json", cases[i].text, NULL, cases[i].reward);
    char *deep = calloc(1 << 20, 1); /* no stack is used up */
    memset(deep, '[', (1 << 20) - 1);
    expect("json", deep, NULL, 0);
    free(deep);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *spec, *says;
        plumb_reward_limits limits;
    } cases[] = {
        {"exact_mach", "unknown reward \"exact_mach\", did you mean \"exact_match\"?", {1, 1}},
        {"", "unknown reward \"\"", {1, 1}},
        {":x", "unknown reward", {1, 1}},
        {"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
         "unknown reward",
         {1, 1}},
        {"number:5", "found \"5\" after the colon, expected number alone", {1, 1}},
        {"regex", "expected regex:PATTERN", {1, 1}},
        {"regex:", "expected regex:PATTERN", {1, 1}},
        {"program: ", "expected program:COMMAND", {1, 1}},
        {"regex:(a", "reward regex: the pattern \"(a\" is no PCRE2 pattern", {1, 1}},
        {"regex:\xff", "no PCRE2 pattern", {1, 1}},
        {"length:0", "found \"0\", expected length:N", {1, 1}},
        {"length:-5", "expected length:N", {1, 1}},
        {"length: 5", "expected length:N", {1, 1}},
        {"length:5x", "expected length:N", {1, 1}},
        {"length:99999999999999999999", "expected length:N", {1, 1}},
        {"json", "found 0 seconds", {0, 1}},
        {"json", "found nan seconds", {NAN, 1}},
        {"json", "-1 retries", {1, -1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_reward_source *s = NULL;
        const char *spec = cases[i].spec;
        plumb_status status = plumb_reward_source_create(&s, spec, &cases[i].limits);
        if (status != PLUMB_E_CONFIG || !strstr(plumb_error_message(), cases[i].says))
            fail_msg("%s says %s, expected %s", spec, status ? plumb_error_message() : "nothing", cases[i].says);
        assert_null(s);
    }
}

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        bool needs;
    } cases[] = {{"exact_match", true}, {"number", true}, {"regex:a", false},
                 {"length:3", false},   {"json", false},  {"program:cat", false}};
    double rewards[2];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_reward_source *s;
        ASSERT_OK(plumb_reward_source_create(&s, cases[i].spec, NULL));
        assert_int_equal(plumb_reward_source_needs_answer(s), cases[i].needs);
        size_t n = strcspn(cases[i].spec, ":");
        assert_int_equal(strlen(plumb_reward_source_name(s)), n);
        assert_memory_equal(plumb_reward_source_name(s), cases[i].spec, n);
        if (cases[i].needs) {
            plumb_reward_item items[] = {{.completion = "1", .answer = "1"}, {.completion = "1", .record = 4}};
            assert_int_equal(plumb_reward_source_score(s, items, 2, rewards), PLUMB_E_DATA);
            assert_non_null(strstr(plumb_error_message(), "record 5 has no answer"));
        }
        plumb_reward_source_free(s);
    }
    plumb_reward_source *s;
    ASSERT_OK(plumb_reward_source_create(&s, "number", NULL));
    plumb_reward_item item = {.completion = "1", .answer = "about 3/4", .record = 8};
    assert_int_equal(plumb_reward_source_score(s, &item, 1, rewards), PLUMB_E_DATA);
    assert_non_null(strstr(plumb_error_message(), "reward number: record 9: the answer \"about 3/4\" has no number"));
    plumb_reward_source_free(s);
    plumb_reward_source_free(NULL);
}

static void test_memory(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        plumb_reward_source *s;
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_reward_source_create(&s, "regex:a", NULL);
        plumb_alloc_fail_after(0);
        if (status == PLUMB_OK) {
            plumb_reward_source_free(s);
            assert_true(n > 3);
            return;
        }
        assert_int_equal(status, PLUMB_E_MEMORY);
        assert_null(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact_match),
                                       cmocka_unit_test(test_number),
                                       cmocka_unit_test(test_number_is_linear),
                                       cmocka_unit_test(test_regex),
                                       cmocka_unit_test(test_regex_without_end),
                                       cmocka_unit_test(test_length),
                                       cmocka_unit_test(test_json),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
