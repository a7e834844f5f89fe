/* plumb tokenize: text to ids and back, one JSON value per line, so that the tokenizer of a model can be tried,
 * compared and piped. */
#include "cmd.h"
#include "plumb/io.h"
#include "plumb/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef struct options {
    const char *model, *text;
    bool no_special, decode, skip_special, json;
} options;

static const char help[] =
    "usage: plumb tokenize --model M [options] < lines\n"
    "\n"
    "Prints the token ids of each line of standard input as a JSON array, one line for each.\n"
    "\n"
    "  --model M        a Hugging Face directory, a tokenizer.json, or a GGUF file\n"
    "  --text S         take this text instead of standard input\n"
    "  --no-special     leave out what the tokenizer adds around a text (BOS, EOS);\n"
    "                   special tokens written in the text are recognised either way\n"
    "  --json           each line is a JSON string, so that a text may hold line ends\n"
    "  --decode         the other way: each line is a JSON array of ids, its text is\n"
    "                   printed as a JSON string\n"
    "  --skip-special   with --decode, leave out special tokens\n"
    "  --help           this page\n"
    "\n"
    "examples:\n"
    "  plumb tokenize --model SmolLM2-135M-Instruct.Q4_1.gguf --text 'Hello, world'\n"
    "  echo '[19556, 28, 905]' | plumb tokenize --model SmolLM2-135M-Instruct.Q4_1.gguf --decode\n";

static plumb_status print_ids(const plumb_ids *ids) {
    putchar('[');
    for (size_t i = 0; i < ids->count; i++) printf(i ? ", %d" : "%d", ids->data[i]);
    puts("]");
    return ferror(stdout) ? plumb_error(PLUMB_E_IO, "cannot write to standard output") : PLUMB_OK;
}

static plumb_status encode_text(const plumb_tokenizer *t, const options *o, const char *text, size_t length) {
    plumb_ids ids = {0};
    plumb_status status = plumb_tokenize(t, text, length, !o->no_special, &ids);
    if (status == PLUMB_OK) status = print_ids(&ids);
    plumb_ids_free(&ids);
    return status;
}

static plumb_status encode_json(const plumb_tokenizer *t, const options *o, const char *line, size_t length,
                                int number) {
    json_t *value = json_loadb(line, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    plumb_status status = json_is_string(value) ? encode_text(t, o, json_string_value(value), json_string_length(value))
                                                : plumb_error(PLUMB_E_DATA, "line %d: a JSON string expected", number);
    json_decref(value);
    return status;
}

static plumb_status decode_line(const plumb_tokenizer *t, const options *o, const char *line, size_t length,
                                int number) {
    plumb_ids ids = {0};
    plumb_str text = {0};
    json_t *array = json_loadb(line, length, 0, NULL), *string = NULL;
    char *printed = NULL;
    plumb_status status = PLUMB_OK;
    if (!json_is_array(array)) status = plumb_error(PLUMB_E_DATA, "line %d: a JSON array of ids expected", number);
    for (size_t i = 0; i < json_array_size(array) && status == PLUMB_OK; i++) {
        const json_t *id = json_array_get(array, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            status = plumb_error(PLUMB_E_DATA, "line %d: item %zu is not a token id", number, i + 1);
        else
            status = plumb_ids_push(&ids, (int32_t)json_integer_value(id));
    }
    if (status == PLUMB_OK) status = plumb_detokenize(t, ids.data, ids.count, o->skip_special, &text);
    if (status != PLUMB_OK) goto done;
    string = json_stringn(text.data, text.length);
    printed = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    if (!printed)
        status = plumb_error(PLUMB_E_MEMORY, "out of memory: a line of text");
    else if (puts(printed) < 0)
        status = plumb_error(PLUMB_E_IO, "cannot write to standard output");
done:
    free(printed);
    json_decref(string);
    json_decref(array);
    plumb_ids_free(&ids);
    plumb_str_free(&text);
    return status;
}

static plumb_status one_line(const plumb_tokenizer *t, const options *o, const char *line, size_t length, int number) {
    if (o->decode) return decode_line(t, o, line, length, number);
    return o->json ? encode_json(t, o, line, length, number) : encode_text(t, o, line, length);
}

static plumb_status run(const options *o) {
    plumb_tokenizer *t = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    plumb_status status = plumb_tokenizer_load(&t, o->model);
    if (status == PLUMB_OK && o->text) status = one_line(t, o, o->text, strlen(o->text), 1);
    for (int number = 1; status == PLUMB_OK && !o->text && (length = getline(&line, &capacity, stdin)) >= 0; number++) {
        if (length && line[length - 1] == '\n') length--;
        status = one_line(t, o, line, (size_t)length, number);
    }
    if (status == PLUMB_OK && !o->text && ferror(stdin)) status = plumb_error(PLUMB_E_IO, "cannot read standard input");
    if (fflush(stdout) && status == PLUMB_OK) status = plumb_error(PLUMB_E_IO, "cannot write to standard output");
    free(line);
    plumb_tokenizer_free(t);
    return status;
}

static int usage(const char *why, const char *what) {
    fprintf(stderr, "plumb tokenize: %s%s\nTry 'plumb tokenize --help'.\n", why, what);
    return 2;
}

int cmd_tokenize(int argc, char **argv) {
    options o = {0};
    const struct {
        const char *name;
        const char **value;
        bool *flag;
    } known[] = {{"--model", &o.model, NULL},
                 {"--text", &o.text, NULL},
                 {"--no-special", NULL, &o.no_special},
                 {"--decode", NULL, &o.decode},
                 {"--skip-special", NULL, &o.skip_special},
                 {"--json", NULL, &o.json}};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return 0;
        }
        size_t k = 0, count = sizeof known / sizeof *known;
        while (k < count && strcmp(argv[i], known[k].name)) k++;
        if (k == count) return usage("unknown argument ", argv[i]);
        if (known[k].flag)
            *known[k].flag = true;
        else if (++i == argc)
            return usage("a value is missing after ", argv[i - 1]);
        else
            *known[k].value = argv[i];
    }
    if (!o.model) return usage("--model is missing", "");
    if (o.decode && (o.json || o.no_special)) return usage("--decode does not go with --json or --no-special", "");
    if (o.skip_special && !o.decode) return usage("--skip-special needs --decode", "");
    if (run(&o) == PLUMB_OK) return 0;
    fprintf(stderr, "plumb tokenize: %s\n", plumb_error_message());
    return 1;
}
