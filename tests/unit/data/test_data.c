/* The data loader: TRL's own samples, the readers, what is refused and what is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>
#include "plumb/data.h"
#include "json_cases.h"

#define HERE PLUMB_TEST_DATA "/data/"
static plumb_tokenizer *tokenizer;

static int set_up(void **state) {
    (void)state;
    if (plumb_tokenizer_load(&tokenizer, HERE "tokenizer") == PLUMB_OK) return 0;
    print_error("%s\n", plumb_error_message());
    return 1;
}

static int tear_down(void **state) {
    (void)state;
    plumb_tokenizer_free(tokenizer);
    return 0;
}

#define ASSERT_OK(expression)                                                                                          \
    do {                                                                                                               \
        if ((expression) != PLUMB_OK) fail_msg("%s", plumb_error_message());                                           \
    } while (0)

/* --- TRL -------------------------------------------------------------------------------------- */

static void assert_ids(const golden_node *expected, const int32_t *ids, int32_t count, const char *what) {
    int64_t i = 0;
    if (expected->count != count) fail_msg("%s: %d ids, expected %d", what, (int)count, (int)expected->count);
    for (const golden_node *n = expected->child; n; n = n->next, i++)
        if ((int32_t)n->number != ids[i])
            fail_msg("%s: id %d is %d, expected %d", what, (int)i, (int)ids[i], (int)n->number);
}

static void check_sample(const golden_node *expected, const plumb_sample *s, plumb_data_kind kind, const char *what) {
    if (kind == PLUMB_DATA_SFT) {
        const char *mask = golden_text(expected, "mask");
        assert_int_equal(s->n_branches, 1);
        assert_int_equal(s->prompt_count, 0);
        assert_ids(golden_need(expected, "ids"), s->branch[0].ids, s->branch[0].count, what);
        assert_int_equal(s->branch[0].mask[0], 0); /* nothing predicts a first token */
        for (int32_t i = 1; i < s->branch[0].count; i++)
            if (s->branch[0].mask[i] != (mask[i] == '1'))
                fail_msg("%s: mask %d is %d", what, (int)i, s->branch[0].mask[i]);
        return;
    }
    assert_int_equal(s->n_branches, 2);
    assert_ids(golden_need(expected, "prompt"), s->prompt, s->prompt_count, what);
    assert_ids(golden_need(expected, "chosen"), s->branch[0].ids, s->branch[0].count, what);
    assert_ids(golden_need(expected, "rejected"), s->branch[1].ids, s->branch[1].count, what);
    for (int k = 0; k < 2; k++)
        for (int32_t i = 0; i < s->branch[k].count; i++)
            assert_int_equal(s->branch[k].mask[i], i > 0 || s->prompt_count > 0);
}

static plumb_loss_on loss_on_of(const char *name) {
    return !strcmp(name, "all") ? PLUMB_LOSS_ALL : !strcmp(name, "assistant") ? PLUMB_LOSS_ASSISTANT : PLUMB_LOSS_AUTO;
}

static void check_case(const golden_node *c) {
    char path[512], folder[512], what[640];
    plumb_tokenizer *t;
    plumb_dataset d;
    snprintf(path, sizeof path, HERE "%s", golden_text(c, "file"));
    snprintf(folder, sizeof folder, HERE "%s", golden_text(c, "tokenizer"));
    ASSERT_OK(plumb_tokenizer_load(&t, folder));
    plumb_data_options o = {.path = path,
                            .kind = strcmp(golden_text(c, "kind"), "sft") ? PLUMB_DATA_PAIRS : PLUMB_DATA_SFT,
                            .template_name = golden_text(c, "template"), /* null: the default */
                            .loss_on = loss_on_of(golden_text(c, "loss_on")),
                            .max_length = (int32_t)golden_need(c, "max_length")->number};
    ASSERT_OK(plumb_dataset_load(&d, t, &o));
    const golden_node *samples = golden_need(c, "samples");
    snprintf(what, sizeof what, "%s, %s, loss on %s, max_length %d", golden_text(c, "file"),
             golden_text(c, "tokenizer"), golden_text(c, "loss_on"), o.max_length);
    if (d.count != samples->count) fail_msg("%s: %d samples, expected %d", what, (int)d.count, (int)samples->count);
    int64_t i = 0, tokens = 0, targets = 0;
    for (const golden_node *s = samples->child; s; s = s->next, i++) {
        char which[700];
        snprintf(which, sizeof which, "%s: sample %d (record %d)", what, (int)i, (int)d.samples[i].record);
        check_sample(s, &d.samples[i], o.kind, which);
        tokens += d.samples[i].prompt_count;
        for (int k = 0; k < d.samples[i].n_branches; k++) {
            tokens += d.samples[i].branch[k].count;
            for (int32_t j = 0; j < d.samples[i].branch[k].count; j++) targets += d.samples[i].branch[k].mask[j];
        }
    }
    assert_int_equal(d.counts.records, golden_need(c, "records")->number);
    assert_int_equal(d.counts.truncated + d.counts.dropped_long, golden_need(c, "longer")->number);
    assert_int_equal(d.counts.dropped_long, d.counts.records - d.count);
    assert_int_equal(d.counts.merged_border, golden_need(c, "merged_border")->number);
    assert_int_equal(d.counts.dropped_empty, 0);
    assert_int_equal(d.counts.tokens, tokens);
    assert_int_equal(d.counts.targets, targets);
    plumb_dataset_free(&d);
    plumb_tokenizer_free(t);
}

static void test_trl(void **state) {
    (void)state;
    golden_node *root = golden_load(HERE "trl_expected.json");
    int checked = 0;
    for (const golden_node *c = golden_need(root, "cases")->child; c; c = c->next, checked++) check_case(c);
    golden_free(root);
    assert_int_equal(checked, 37);
}

/* --- files ------------------------------------------------------------------------------------ */

static const char first_record[] = "{\"prompt\": \"One and \", \"completion\": \"two.\"}";
static const char second_record[] = "{\"prompt\": \"A\\u00e9\\n\", \"completion\": \"b\"}";

static void assert_same(const plumb_dataset *a, const plumb_dataset *b) {
    assert_int_equal(a->count, b->count);
    for (int64_t i = 0; i < a->count; i++) {
        const plumb_sample *s = &a->samples[i], *t = &b->samples[i];
        assert_int_equal(s->record, t->record);
        assert_int_equal(s->n_branches, t->n_branches);
        assert_int_equal(s->prompt_count, t->prompt_count);
        assert_memory_equal(s->prompt, t->prompt, (size_t)s->prompt_count * sizeof *s->prompt);
        for (int k = 0; k < s->n_branches; k++) {
            const plumb_branch *x = &s->branch[k], *y = &t->branch[k];
            assert_int_equal(x->count, y->count);
            assert_memory_equal(x->ids, y->ids, (size_t)x->count * sizeof *x->ids);
            assert_memory_equal(x->mask, y->mask, (size_t)x->count);
        }
    }
}

static void write_file(const char *path, const char *text, bool zipped) {
    if (zipped) {
        gzFile f = gzopen(path, "wb");
        assert_int_equal(gzwrite(f, text, (unsigned)strlen(text)), strlen(text));
        gzclose(f);
    } else {
        ASSERT_OK(plumb_write_file(path, text, strlen(text)));
    }
}

static void test_files(void **state) {
    (void)state;
    static const struct {
        const char *name, *format;
        bool zipped;
    } files[] = {
        {"plain.jsonl", "%s\n%s\n", false},
        {"end.jsonl", "%s\n%s", false},
        {"crlf.jsonl", "%s\r\n%s\r\n", false},
        {"mark.jsonl", "\xef\xbb\xbf%s\n%s\n", false},
        {"blank.jsonl", "\n  \n%s\r\n\t\n%s\n\n", false},
        {"zipped.jsonl.gz", "%s\n%s\n", true},
        {"array.json", "[%s, %s]\n", false},
        {"marked.json", "\xef\xbb\xbf\n[\n%s,\n%s\n]", false},
        {"zipped.json.gz", "[%s, %s]", true},
        {"lines.json", "%s\n%s\n", false},
    };
    char folder[] = "/tmp/plumb_data_XXXXXX", path[64], text[400];
    assert_non_null(mkdtemp(folder));
    plumb_dataset expected, found;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        snprintf(text, sizeof text, files[i].format, first_record, second_record);
        write_file(path, text, files[i].zipped);
        ASSERT_OK(plumb_dataset_load(i ? &found : &expected, tokenizer, &(plumb_data_options){.path = path}));
        unlink(path);
        if (i == 0) continue;
        assert_same(&expected, &found);
        plumb_dataset_free(&found);
    }
    assert_int_equal(expected.count, 2);
    plumb_dataset_free(&expected);
    snprintf(path, sizeof path, "%s/absent.jsonl", folder);
    assert_int_equal(plumb_dataset_load(&found, tokenizer, &(plumb_data_options){.path = path}), PLUMB_E_IO);
    assert_non_null(strstr(plumb_error_message(), "absent.jsonl"));
    rmdir(folder);
}

/* --- what is refused -------------------------------------------------------------------------- */

static plumb_status parse(plumb_dataset *d, const plumb_data_options *o, const char *text) {
    return plumb_dataset_parse(d, tokenizer, o, text, strlen(text));
}

static void test_bad_records(void **state) {
    (void)state;
    static const plumb_data_options sft = {.path = "f.jsonl"}, pairs = {.path = "f.jsonl", .kind = PLUMB_DATA_PAIRS},
                                    array = {.path = "f.json"},
                                    assistant = {.path = "f.jsonl", .loss_on = PLUMB_LOSS_ASSISTANT},
                                    completion = {.path = "f.jsonl", .loss_on = PLUMB_LOSS_COMPLETION};
    static const struct {
        const plumb_data_options *o;
        const char *text, *says;
    } cases[] = {
        {&sft, "", "f.jsonl: the file is empty"},
        {&sft, " \n\n", "f.jsonl: the file is empty"},
        {&array, "[]", "f.json: the array is empty"},
        {&array, "[{\"text\": \"a\"}, 3]", "f.json: record 2: found a number, expected an object"},
        {&array, "[{\"text\": \"a\"}, {\"text\": 4}]", "f.json: record 2: text: found a number, expected a string"},
        {&array, "[{\"text\": \"a\"},", "f.json:1:"},
        {&sft, "\xff\xfe{", "UTF-16"},
        {&sft, "{\"text\": \"a\"}\n\n[1]\n", "f.jsonl:3: found a list, expected an object"},
        {&sft, "{\"text\": \"a\"}\n{\"text\": \"b\"\n", "f.jsonl:2:"},
        {&sft, "{\"text\": \"a\", \"text\": \"b\"}", "f.jsonl:1:"},
        {&sft, "{\"text\": \"a\\u0000b\"}", "f.jsonl:1:19: found a NUL character"},
        {&sft, "{\"text\": \"a\xff\"}", "f.jsonl:1:"},
        {&sft, "{\"text\": \"\xed\xa0\x80\"}", "f.jsonl:1:"},
        {&sft, "{\"text\": [1]}", "f.jsonl:1: text: found a list, expected a string"},
        {&sft, "{}", "fields: found none, expected messages, or prompt and completion"},
        {&sft, "{\"prompt\": \"a\", \"answer\": \"b\", \"completion\": null}",
         "fields: found prompt, answer, completion"},
        {&sft, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "field_completion: chosen"},
        {&sft, "{\"prompt\": true, \"completion\": \"b\"}",
         "prompt: found true or false, expected a string or a list of messages"},
        {&sft, "{\"prompt\": \"a\", \"completion\": 5}", "completion: found a number, expected a string"},
        {&sft, "{\"prompt\": [{\"role\": \"user\", \"content\": \"x\"}], \"completion\": \"b\"}",
         "completion: found a string, expected a list"},
        {&sft, "{\"messages\": \"x\"}", "messages: found a string, expected a list of messages"},
        {&sft, "{\"messages\": []}", "messages: found an empty list"},
        {&sft, "{\"messages\": [\"x\"]}", "messages[0]: found a string, expected a message"},
        {&sft, "{\"messages\": [{\"role\": \"user\"}]}", "messages[0].content: found nothing, expected a string"},
        {&sft, "{\"messages\": [{\"role\": 1, \"content\": \"\"}]}",
         "messages[0].role: found a number, expected a string"},
        {&sft, "{\"messages\": [{\"from\": \"human\", \"value\": \"\"}]}", "must be renamed to role and content"},
        {&sft, "{\"instruction\": \"a\", \"input\": 1, \"output\": \"b\"}", "input: found a number, expected a string"},
        {&assistant, "{\"text\": \"a\"}", "text: plain text has no assistant turns"},
        {&assistant, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "messages: found no assistant turn"},
        {&completion, "{\"text\": \"a\"}", "text: has no prompt"},
        {&completion, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "messages: has no prompt"},
        {&pairs, "{\"prompt\": \"a\", \"chosen\": \"b\"}",
         "fields: found prompt, chosen, expected prompt, chosen and rejected"},
        {&pairs, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": {}}",
         "rejected: found an object, expected a string"},
        {&pairs, "{\"chosen\": \"b\", \"rejected\": 7}", "rejected: found a number, expected a string"},
        {&pairs,
         "{\"chosen\": [{\"role\": \"user\", \"content\": \"x\"}], \"rejected\": [{\"role\": \"user\", \"content\": "
         "\"y\"}]}",
         "common beginning"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_dataset d;
        plumb_status status = parse(&d, cases[i].o, cases[i].text);
        if (status == PLUMB_OK || !strstr(plumb_error_message(), cases[i].says))
            fail_msg("%s\n  says: %s\n  expected: %s", cases[i].text, status ? plumb_error_message() : "nothing",
                     cases[i].says);
        assert_true(status == PLUMB_E_DATA || status == PLUMB_E_FORMAT);
        assert_null(d.samples);
    }
}

static void test_bad_options(void **state) {
    (void)state;
    static const struct {
        plumb_data_options o;
        const char *says;
    } cases[] = {
        {{.path = "f.jsonl", .max_length = -1}, "max_length -1"},
        {{.path = "f.jsonl", .skip_first = -2}, "skip_first -2"},
        {{.path = "f.jsonl", .template_name = "chatlm"}, "chatml"},
        {{.path = "f.jsonl", .skip_first = 9}, "f.jsonl: no record is left of 1"},
        {{.path = "f.jsonl", .skip_last = 1}, "f.jsonl: no record is left of 1 when the last 1 are held out (eval_last)"},
        {{.path = "f.jsonl", .skip_first = INT64_MAX, .take_last = INT64_MAX, .skip_last = INT64_MAX},
         "no record is left"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_dataset d;
        assert_true(parse(&d, &cases[i].o, "{\"text\": \"a\"}") != PLUMB_OK);
        if (!strstr(plumb_error_message(), cases[i].says))
            fail_msg("%s, expected %s", plumb_error_message(), cases[i].says);
    }
}

static void test_skip_bad(void **state) {
    (void)state;
    plumb_dataset d;
    plumb_data_options o = {.path = "f.jsonl", .skip_bad = true};
    ASSERT_OK(parse(&d, &o, "{\"text\": \"a\"}\nnonsense\n{\"text\": 3}\n{\"text\": \"b\"}\n"));
    assert_int_equal(d.count, 2);
    assert_int_equal(d.samples[1].record, 3);
    assert_int_equal(d.counts.bad, 2);
    assert_int_equal(d.counts.records, 4);
    assert_ptr_equal(strstr(d.first_bad, "f.jsonl:2:"), d.first_bad);
    plumb_dataset_free(&d);

    assert_int_equal(parse(&d, &o, "{\"text\": 3}\n{}\n"), PLUMB_E_DATA);
    assert_non_null(strstr(plumb_error_message(), "no usable sample in 2 records: 2 bad"));
    assert_non_null(strstr(plumb_error_message(), "f.jsonl:1: text"));
    o.max_length = 3;
    assert_int_equal(parse(&d, &o, "{\"prompt\": \"a long prompt\", \"completion\": \"x\"}\n{\"text\": \"\"}\n"),
                     PLUMB_E_DATA);
    assert_non_null(strstr(plumb_error_message(), "0 bad, 1 too long for max_length 3, 1 without a target"));
}

/* --- choices ---------------------------------------------------------------------------------- */

static void test_splits(void **state) {
    (void)state;
    static const struct {
        int64_t skip_first, take_last, skip_last;
        const char *records;
    } cases[] = {{0, 0, 0, "012345"}, {0, 0, 2, "0123"},    {0, 2, 0, "45"}, {1, 0, 0, "12345"},
                 {1, 0, 2, "123"},    {0, 99, 0, "012345"}, {3, 4, 1, "34"}};
    const char *text = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n\n{\"text\": \"c\"}\n{\"text\": \"d\"}\n{\"text\": "
                       "\"e\"}\n{\"text\": \"f\"}\n";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_dataset d;
        plumb_data_options o = {.path = "f.jsonl",
                                .skip_first = cases[i].skip_first,
                                .take_last = cases[i].take_last,
                                .skip_last = cases[i].skip_last};
        ASSERT_OK(parse(&d, &o, text));
        assert_int_equal(d.count, strlen(cases[i].records));
        assert_int_equal(d.counts.records, d.count);
        for (int64_t k = 0; k < d.count; k++) assert_int_equal(d.samples[k].record, cases[i].records[k] - '0');
        plumb_dataset_free(&d);
    }
}

/* The sample of a record is that of another record, which says the same in plain terms. */
static void assert_alike(const plumb_data_options *a, const char *text_a, const plumb_data_options *b,
                         const char *text_b) {
    plumb_dataset x, y;
    ASSERT_OK(parse(&x, a, text_a));
    ASSERT_OK(parse(&y, b, text_b));
    assert_same(&x, &y);
    plumb_dataset_free(&x);
    plumb_dataset_free(&y);
}

/* A prompt/completion or preference record that writes Alpaca's prompt out. */
static char *written_out(const char *rest) {
    plumb_str prompt = {0}, record = {0};
    ASSERT_OK(plumb_prompt_alpaca("Say", "hi", &prompt));
    assert_non_null(strstr(prompt.data, "Say"));
    ASSERT_OK(plumb_str_printf(&record, "{\"prompt\": \""));
    for (const char *c = prompt.data; *c; c++)
        ASSERT_OK(plumb_str_append(&record, *c == '\n' ? "\\n" : c, *c == '\n' ? 2 : 1));
    ASSERT_OK(plumb_str_printf(&record, "\", %s}", rest));
    plumb_str_free(&prompt);
    return record.data;
}

static void test_alpaca(void **state) {
    (void)state;
    const char *record = "{\"instruction\": \"Say\", \"input\": \"hi\", \"output\": \"ok\"}";
    plumb_data_options plain = {.path = "f.jsonl"}, none = {.path = "f.jsonl", .template_name = "none"},
                       chat = {.path = "f.jsonl", .template_name = "chatml"},
                       pairs = {.path = "f.jsonl", .kind = PLUMB_DATA_PAIRS};
    char *same = written_out("\"completion\": \"ok\"");
    assert_alike(&plain, record, &plain, same);
    free(same);
    assert_alike(&none, record, &plain, "{\"prompt\": \"Say\\nhi\\n\", \"completion\": \"ok\"}");
    assert_alike(&chat, record, &chat,
                 "{\"prompt\": [{\"role\": \"user\", \"content\": \"Say\\nhi\"}], \"completion\": [{\"role\": "
                 "\"assistant\", \"content\": \"ok\"}]}");
    same = written_out("\"chosen\": \"a\", \"rejected\": \"b\"");
    assert_alike(
        &pairs,
        "{\"instruction\": \"Say\", \"input\": \"hi\", \"output\": \"-\", \"chosen\": \"a\", \"rejected\": \"b\"}",
        &pairs, same);
    free(same);
}

/* Under a template without end marks a talk is plain text, ended by EOS, which belongs to the last turn. */
static void test_plain_talk(void **state) {
    (void)state;
    plumb_data_options plain = {.path = "f.jsonl", .loss_on = PLUMB_LOSS_COMPLETION},
                       none = {.path = "f.jsonl", .template_name = "none", .loss_on = PLUMB_LOSS_ASSISTANT};
    assert_alike(&none,
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"One\\n\"}, {\"role\": \"assistant\", "
                 "\"content\": \"two\"}]}",
                 &plain, "{\"prompt\": \"One\\n\", \"completion\": \"two\"}");
}

static void test_field_names(void **state) {
    (void)state;
    plumb_data_options plain = {.path = "f.jsonl"},
                       named = {.path = "f.jsonl", .field_prompt = "q", .field_completion = "chosen"};
    assert_alike(&named, "{\"q\": \"One \", \"chosen\": \"two\", \"rejected\": \"three\"}", &plain,
                 "{\"prompt\": \"One \", \"completion\": \"two\"}");
    plumb_data_options output = {.path = "f.jsonl", .field_output = "chosen"};
    assert_alike(&output, "{\"instruction\": \"a\", \"output\": \"no\", \"chosen\": \"yes\", \"rejected\": \"z\"}",
                 &plain, "{\"instruction\": \"a\", \"input\": null, \"output\": \"yes\"}");
    plumb_data_options text = {.path = "f.jsonl", .field_text = "body"};
    assert_alike(&text, "{\"body\": \"x y\", \"text\": 7}", &plain, "{\"text\": \"x y\"}");
    plumb_data_options messages = {.path = "f.jsonl", .field_messages = "turns"};
    assert_alike(
        &messages, "{\"turns\": [{\"role\": \"user\", \"content\": \"x\"}], \"text\": \"y\"}", &plain,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"prompt\": \"a\", \"completion\": \"b\"}");
}

static void test_order(void **state) {
    (void)state;
    plumb_dataset d = {.count = 200};
    int64_t file[200], a[200], again[200], b[200], other[200];
    ASSERT_OK(plumb_dataset_order(&d, false, 1, 0, file));
    ASSERT_OK(plumb_dataset_order(&d, true, 1, 0, a));
    ASSERT_OK(plumb_dataset_order(&d, true, 1, 0, again));
    ASSERT_OK(plumb_dataset_order(&d, true, 1, 1, b));
    ASSERT_OK(plumb_dataset_order(&d, true, 2, 0, other));
    char seen[200] = {0};
    for (int64_t i = 0; i < 200; i++) {
        assert_int_equal(file[i], i);
        assert_int_equal(seen[a[i]]++, 0);
    }
    assert_memory_equal(a, again, sizeof a);
    assert_memory_not_equal(a, file, sizeof a);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, other, sizeof a);
}

/* --- hostile ---------------------------------------------------------------------------------- */

static void test_large(void **state) {
    (void)state;
    enum { SIZE = 3 << 20 };
    plumb_str text = {0};
    plumb_dataset d;
    plumb_data_options o = {.path = "f.jsonl", .max_length = 64, .skip_bad = true};
    ASSERT_OK(plumb_str_printf(&text, "{\"text\": \""));
    for (int i = 0; i < SIZE / 8; i++) ASSERT_OK(plumb_str_append(&text, "word on ", 8));
    ASSERT_OK(plumb_str_printf(&text, "\"}\n"));
    for (int i = 0; i < 200000; i++) ASSERT_OK(plumb_str_append(&text, "[", 1)); /* too deep: a bad record */
    ASSERT_OK(plumb_dataset_parse(&d, tokenizer, &o, text.data, text.length));
    assert_int_equal(d.count, 1);
    assert_int_equal(d.samples[0].branch[0].count, 64);
    assert_int_equal(d.counts.truncated, 1);
    assert_int_equal(d.counts.bad, 1);
    plumb_dataset_free(&d);
    plumb_str_free(&text);
}

/* Every allocation fails once: the fault is reported, nothing leaks (the sanitizers look), and the next load works. */
static void test_memory(void **state) {
    (void)state;
    const char *text =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"y\"}]}\n";
    const char *pair =
        "{\"chosen\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"y\"}], "
        "\"rejected\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"z\"}]}\n";
    plumb_data_options sft = {.path = "f.jsonl", .loss_on = PLUMB_LOSS_ASSISTANT, .skip_bad = true},
                       pairs = {.path = "f.jsonl", .kind = PLUMB_DATA_PAIRS};
    for (int kind = 0; kind < 2; kind++) {
        plumb_status status = PLUMB_E_MEMORY;
        long n = 0;
        while (status != PLUMB_OK) {
            plumb_dataset d;
            plumb_alloc_fail_after(++n);
            status = kind ? parse(&d, &pairs, pair) : parse(&d, &sft, text);
            plumb_alloc_fail_after(0);
            assert_true(status == PLUMB_OK || status == PLUMB_E_MEMORY);
            plumb_dataset_free(&d);
            assert_true(n < 10000);
        }
        assert_true(n > 8);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trl),         cmocka_unit_test(test_files),      cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_bad_options), cmocka_unit_test(test_skip_bad),   cmocka_unit_test(test_splits),
        cmocka_unit_test(test_alpaca),      cmocka_unit_test(test_plain_talk), cmocka_unit_test(test_field_names),
        cmocka_unit_test(test_order),       cmocka_unit_test(test_large),      cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
