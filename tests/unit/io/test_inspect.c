/* plumb inspect: what it prints, and that it refuses what it should. The command is compiled in, with its output in a
 * file. */
#include "io_test.h"
#include <fcntl.h>
#if __has_include("../../../src/cmd.h")
#include "../../../src/cmd_inspect.c"

/* Runs the command; *out owns what it wrote to stdout. */
static int inspect_file(const char *folder, char **out, char *path, char *option) {
    char *arguments[] = {(char[]){"inspect"}, path, option, NULL};
    const char *captured = in(folder, "captured");
    fflush(stdout);
    int kept = dup(1), kept_error = dup(2), fd = open(captured, O_WRONLY | O_CREAT | O_TRUNC, 0600),
        sink = open("/dev/null", O_WRONLY);
    dup2(fd, 1);
    dup2(sink, 2);
    int code = cmd_inspect(option ? 3 : 2, arguments);
    fflush(stdout);
    dup2(kept, 1);
    dup2(kept_error, 2);
    close(fd), close(kept), close(sink), close(kept_error);
    assert_ok(plumb_read_file(captured, out, NULL));
    return code;
}

static void assert_shows(void **state, const char *path, const char *const *lines) {
    char *out;
    assert_int_equal(inspect_file(*state, &out, (char *)(uintptr_t)path, NULL), 0);
    for (; *lines; lines++)
        if (!strstr(out, *lines)) fail_msg("\"%s\" is not in:\n%s", *lines, out);
    free(out);
}

static void shows_weight_files(void **state) {
    assert_shows(state, PLUMB_TEST_DATA "/io/values.gguf",
                 (const char *[]){"gguf, version 3", "f32                   0.1\n",
                                  "texts                 string[3] \"a\" \"\" \"ccc\"",
                                  "quant  Q4_1   2 x 64               80\n", "4 tensors, 146 parameters, 142 bytes",
                                  NULL});
    assert_shows(state, PLUMB_TEST_DATA "/io/mixed.safetensors",
                 (const char *[]){"format  pt", "scalar      F32    scalar               4\n", "\\x09",
                                  "8 tensors, 100 parameters", NULL});
}

static void shows_folders(void **state) {
    float values[8] = {0};
    plumb_st_item items[] = {{"l.10.lora_A.weight", 2, {2, 4}, values, PLUMB_FT_F32},
                             {"l.9.lora_A.weight", 2, {2, 4}, values, PLUMB_FT_BF16}};
    assert_ok(plumb_safetensors_write(in(*state, "adapter_model.safetensors"), items, 2, NULL, NULL));
    static const char config[] = "{\"r\": 2, \"lora_alpha\": 4, \"target_modules\": [\"q_proj\"], "
                                 "\"base_model_name_or_path\": null, \"other\": 1}";
    put_file(*state, "adapter_config.json", config, sizeof config - 1);
    assert_shows(state, *state,
                 (const char *[]){": adapter", "base_model_name_or_path  none\n", "r                        2\n",
                                  "target_modules           \"q_proj\"", "16 parameters, 48 bytes", NULL});
    char *out;
    assert_int_equal(inspect_file(*state, &out, *state, (char[]){"--json"}), 0);
    json_t *report;
    assert_ok(plumb_json_parse(&report, out, strlen(out), "output", 1));
    json_t *tensors = json_object_get(report, "tensors");
    assert_string_equal(json_string_value(json_object_get(json_array_get(tensors, 0), "name")),
                        "l.9.lora_A.weight"); /* 9 before 10 */
    assert_int_equal(json_integer_value(json_object_get(json_object_get(report, "totals"), "parameters")), 16);
    assert_null(json_object_get(json_object_get(report, "config"), "other"));
    json_decref(report);
    free(out);
}

static void exit_codes(void **state) {
    char *out;
    assert_int_equal(inspect_file(*state, &out, (char *)(uintptr_t)in(*state, "none"), NULL), 1);
    assert_string_equal(out, "");
    free(out);
    assert_int_equal(inspect_file(*state, &out, (char *)(uintptr_t)put_file(*state, "bad", "GGUFxxxx", 8), NULL), 1);
    free(out);
    assert_int_equal(inspect_file(*state, &out, (char[]){"--colour"}, NULL), 2);
    free(out);
    assert_int_equal(inspect_file(*state, &out, (char[]){"--json"}, NULL), 2);
    free(out);
    assert_int_equal(inspect_file(*state, &out, (char[]){"--help"}, NULL), 0);
    assert_non_null(strstr(out, "Exit status"));
    free(out);
}

/* A report needs no more than headers: a hole of 1 TiB behind one costs nothing. */
static void reads_headers_only(void **state) {
    static const char header[] =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1099511627776],\"data_offsets\":[0,1099511627776]}}  ";
    char bytes[8 + sizeof header];
    uint64_t n = sizeof header - 1;
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    const char *path = put_file(*state, "hole", bytes, 8 + n);
    if (truncate(path, (off_t)(8 + n + (1ull << 40))) != 0) skip(); /* no sparse files here */
    assert_shows(state, path, (const char *[]){"1099511627776 bytes (1.0 TiB)", NULL});
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {T(shows_weight_files), T(shows_folders), T(exit_codes), T(reads_headers_only)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) {
    return 0;
} /* built without the program */
#endif
