/* The table itself, and what is made from it: config.yaml, --help, docs/options.md. */
#include "config_test.h"
#include <math.h>
#include "plumb/io.h"

enum { ALL = 2047 };

static void the_table_is_sound(void **state) {
    (void)state;
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        assert_true(row->commands > 0 && row->commands <= ALL && (row->required & ~row->commands) == 0);
        assert_true(strlen(row->help) > 8 && row->offset < sizeof(plumb_options));
        assert_true((row->type == PLUMB_OPT_CHOICE) == (row->choices != NULL));
        assert_true(!row->required || !strcmp(row->fallback, "null")); /* the check for required keys looks for NULL */
        assert_true(!row->required || row->type == PLUMB_OPT_STRING);
        if (row->type == PLUMB_OPT_INT)
            assert_true(row->low == floor(row->low) && row->high == floor(row->high) && row->high < 0x1p62);
        if (row->type != PLUMB_OPT_BOOL && row->type != PLUMB_OPT_CHOICE) assert_true(row->low < row->high);
        bool same_group = i == 0 || !strcmp(row->group, row[-1].group);
        for (int j = 0; j < i; j++) {
            const plumb_option *other = &plumb_option_table[j];
            if (!strcmp(other->key, row->key)) {
                assert_int_equal(other->commands & row->commands, 0); /* one row a command */
                assert_true(other->offset == row->offset && other->type == row->type);
            } else {
                assert_true(other->offset != row->offset);
            }
            if (!same_group) assert_string_not_equal(other->group, row->group); /* a group is in one piece */
        }
    }
}

static void round_trip(const plumb_options *o, int command, plumb_options *again) {
    plumb_str first = {0}, second = {0};
    assert_ok(plumb_options_write(o, command, &first));
    plumb_status status = plumb_options_load_text(again, command, first.data, first.length, "written", NULL, 0);
    if (status != PLUMB_OK) fail_msg("%s in\n%s", plumb_error_message(), first.data);
    assert_ok(plumb_options_write(again, command, &second));
    assert_string_equal(first.data, second.data);
    plumb_str_free(&first);
    plumb_str_free(&second);
}

static void written_options_load_again(void **state) {
    (void)state;
    plumb_options o, again;
    for (int command = 1; command <= ALL; command <<= 1) {
        assert_ok(load_yaml(&o, command, ""));
        round_trip(&o, command, &again);
        plumb_options_free(&o);
        plumb_options_free(&again);
    }
    assert_ok(plumb_options_load(&o, PLUMB_FOR_SFT, PLUMB_TEST_DATA "/config/full.yaml", NULL, 0));
    o.learning_rate = 0.1 + 0.2; /* needs 17 digits */
    o.epochs = 1.0 / 3;
    round_trip(&o, PLUMB_FOR_SFT, &again);
    assert_true(again.learning_rate == o.learning_rate && again.epochs == o.epochs && again.lr_min == o.lr_min);
    assert_string_equal(again.model, o.model);
    assert_int_equal(again.n_train_modules, 2);
    assert_string_equal(again.train_modules[0], o.train_modules[0]);
    plumb_options_free(&o);
    plumb_options_free(&again);
}

/* Texts that YAML would take for something else, fold, or refuse. */
static void any_text_survives(void **state) {
    (void)state;
    static const char *const texts[] = {"null",
                                        "~",
                                        "true",
                                        "No",
                                        "12",
                                        "1e5",
                                        "",
                                        " a ",
                                        "a: b",
                                        "a #b",
                                        "- a",
                                        "[a]",
                                        "{a}",
                                        "*a",
                                        "&a",
                                        "!a",
                                        "'a'",
                                        "\"a\"",
                                        "a\\b",
                                        "a\nb",
                                        "\n\n",
                                        "a\tb",
                                        "a\rb",
                                        "\x01\x1b[31m",
                                        "\x7f",
                                        "ä",
                                        "語",
                                        "😀",
                                        "\xc2\x85",
                                        "a \xe2\x80\xa8 x",
                                        "\xef\xbb\xbfx",
                                        "\xef\xbf\xbe",
                                        "\xf0\x9f\xbf\xbf",
                                        "...",
                                        "---",
                                        "%a",
                                        "@a",
                                        "`a",
                                        "a,b",
                                        "<<",
                                        "=",
                                        "?",
                                        "-",
                                        ".5",
                                        "/a/b-c_d.e"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        plumb_options o, again;
        assert_ok(load_yaml(&o, PLUMB_FOR_GENERATE, ""));
        o.prompt = strdup(texts[i]);
        round_trip(&o, PLUMB_FOR_GENERATE, &again);
        assert_string_equal(again.prompt, texts[i]);
        plumb_options_free(&o);
        plumb_options_free(&again);
    }
    srand(1);
    for (int i = 0; i < 2000; i++) { /* random code points */
        plumb_options o, again;
        plumb_str text = {0};
        for (int j = 0; j < 8; j++) {
            uint32_t c = (uint32_t)rand() % (j % 2 ? 0x80 : 0x10000);
            if (c == 0 || (c >= 0xd800 && c < 0xe000)) c = '"';
            if (c < 0x80)
                assert_ok(plumb_str_printf(&text, "%c", (int)c));
            else if (c < 0x800)
                assert_ok(plumb_str_printf(&text, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63))));
            else
                assert_ok(plumb_str_printf(&text, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
                                           (int)(0x80 | (c & 63))));
        }
        assert_ok(load_yaml(&o, PLUMB_FOR_GENERATE, ""));
        o.prompt = text.data;
        round_trip(&o, PLUMB_FOR_GENERATE, &again);
        assert_string_equal(again.prompt, o.prompt);
        plumb_options_free(&o);
        plumb_options_free(&again);
    }
}

static void the_reference_page_is_up_to_date(void **state) {
    (void)state;
    plumb_str page = {0};
    char *file;
    size_t size;
    assert_ok(plumb_options_reference(&page));
    assert_ok(plumb_read_file(PLUMB_SOURCE_DIR "/docs/options.md", &file, &size));
    if (strcmp(file, page.data))
        fail_msg(
            "docs/options.md is not what the table says; write it anew: plumb options --markdown > docs/options.md");
    free(file);
    plumb_str_free(&page);
}

static void help_lists_the_command_s_keys(void **state) {
    (void)state;
    for (int command = 1; command <= ALL; command <<= 1) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        plumb_options_help(command, out);
        fclose(out);
        assert_non_null(strstr(text, plumb_options_command_name(command)));
        for (int i = 0; i < plumb_option_count; i++) {
            char line[128];
            bool known = false;
            for (int j = 0; j < plumb_option_count; j++)
                known |= (plumb_option_table[j].commands & command) &&
                         !strcmp(plumb_option_table[j].key, plumb_option_table[i].key);
            snprintf(line, sizeof line, "\n  %s ", plumb_option_table[i].key);
            assert_int_equal(strstr(text, line) != NULL, known);
        }
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(written_options_load_again),
        cmocka_unit_test(any_text_survives),
        cmocka_unit_test(the_reference_page_is_up_to_date),
        cmocka_unit_test(help_lists_the_command_s_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
