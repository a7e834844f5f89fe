/* Escaping: whatever a text holds, the page shows it and nothing of it is markup. */
#include "report_test.h"

static void check(const char *text, size_t length, const char *expected) {
    report_page p = {0};
    report_put_escaped(&p, text, length);
    assert_ok(p.status);
    assert_string_equal(p.text.data, expected);
    plumb_str_free(&p.text);
}

static void markup_becomes_entities(void **state) {
    (void)state;
    static const char text[] = "</script><b a=\"x\" c='y'>&amp;";
    check(text, strlen(text), "&lt;/script&gt;&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;amp;");
    check("a\n\tb", 4, "a\n\tb");
    check("", 0, "");
}

static void what_is_invisible_is_shown(void **state) {
    (void)state;
    static const struct { const char *text, *expected; } cases[] = {
        {"a\rb", "a&#x240d;b"},                        /* carriage return: its picture */
        {"\x1b[31m", "&#x241b;[31m"},                  /* a terminal's escape */
        {"\x7f", "&#x2421;"},                          /* delete */
        {"\xc2\x85", "[U+0085]"},                      /* a control of the upper half */
        {"\xe2\x80\xae""abc", "[U+202E]abc"},          /* turns the direction of what follows */
        {"\xe2\x81\xa6x\xe2\x81\xa9", "[U+2066]x[U+2069]"},
        {"\xe2\x80\x8b", "[U+200B]"},                  /* no width */
        {"\xef\xbb\xbf", "[U+FEFF]"},
        {"\xef\xbf\xbe", "[U+FFFE]"},                  /* no character */
        /* an emoji of two with a joiner stays */
        {"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb"},
        {"\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d", "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d"},                         /* Hebrew stays */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(cases[i].text, strlen(cases[i].text), cases[i].expected);
    check("a\0b", 3, "a&#x2400;b");
}

static void broken_utf8_is_replaced(void **state) {
    (void)state;
    static const struct { const char *text, *expected; } cases[] = {
        {"\xff", "&#xfffd;"},
        {"a\x80z", "a&#xfffd;z"},
        {"\xc3", "&#xfffd;"},                          /* cut off */
        {"\xc0\xbc", "&#xfffd;&#xfffd;"},              /* an overlong '<' is no '<' */
        {"\xe0\x80\xbc", "&#xfffd;&#xfffd;&#xfffd;"},
        {"\xed\xa0\x80", "&#xfffd;&#xfffd;&#xfffd;"},  /* half of a pair */
        {"\xf4\x90\x80\x80", "&#xfffd;&#xfffd;&#xfffd;&#xfffd;"},
        {"\xe2\x82<", "&#xfffd;&#xfffd;&lt;"},         /* the rest of a torn character does not swallow what follows */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(cases[i].text, strlen(cases[i].text), cases[i].expected);
}

static void long_texts_are_folded(void **state) {
    (void)state;
    report_page p = {0};
    char *text = malloc(300001);
    memset(text, 'x', 300000);
    text[300000] = 0;
    memcpy(text + 699, "\xe2\x82\xac", 3); /* a character across the place of the fold */
    memcpy(text + 65535, "\xe2\x82\xac", 3);
    report_put_long(&p, text);
    assert_ok(p.status);
    assert_non_null(strstr(p.text.data, "<details><summary>"));
    assert_non_null(strstr(p.text.data, "bytes more are left out"));
    assert_null(strstr(p.text.data, "&#xfffd;")); /* not cut through a character */
    assert_true(p.text.length < 70000);
    p.text.length = 0;
    text[800] = 0;
    report_put_long(&p, text);
    assert_null(strstr(p.text.data, "<details>"));
    p.text.length = 0;
    report_put_long(&p, "");
    report_put_long(&p, NULL);
    assert_non_null(strstr(p.text.data, "(empty)"));
    free(text);
    plumb_str_free(&p.text);
}

static void a_failure_stays(void **state) {
    (void)state;
    report_page p = {0};
    char big[5000];
    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = 0;
    report_put(&p, "%s", big); /* longer than its own buffer */
    assert_int_equal(p.text.length, sizeof big - 1);
    p.status = PLUMB_E_MEMORY;
    report_put(&p, "more");
    report_put_escaped(&p, "more", 4);
    assert_int_equal(p.text.length, sizeof big - 1);
    plumb_str_free(&p.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markup_becomes_entities), cmocka_unit_test(what_is_invisible_is_shown), cmocka_unit_test(broken_utf8_is_replaced),
        cmocka_unit_test(long_texts_are_folded),   cmocka_unit_test(a_failure_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
