/* plumb merge: a model as one Hugging Face directory, with an adapter folded into its weights.
 *
 * A reward model's adapter makes a sequence classifier of the two, with its head. Without an adapter it is a conversion:
 * GGUF to Hugging Face, or a change of type. Nothing existing is overwritten: the output must not hold a model yet. The
 * tokenizer comes first and config.json last, so that a directory with a config.json is complete. */
#include "cmd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/arch.h"
#include "plumb/text.h"

static const char help[] =
    "usage: plumb merge --model MODEL [--adapter DIR] --output DIR [--dtype TYPE] [--no-tokenizer]\n"
    "\n"
    "Writes MODEL as a Hugging Face directory; with an adapter, its LoRA matrices are added to the weights. A reward\n"
    "model's adapter has a score head: the result is a sequence classifier.\n"
    "\n"
    "  --model MODEL    a Hugging Face directory or a .gguf file\n"
    "  --adapter DIR    a PEFT LoRA adapter (adapter_config.json, adapter_model.safetensors), or a head\n"
    "                   alone (value_head.safetensors)\n"
    "  --output DIR     the directory to write; made when it does not exist\n"
    "  --dtype TYPE     float32, bfloat16 or float16; default: bfloat16 or float16 when all of the\n"
    "                   model's tensors are stored so, else float32\n"
    "  --no-tokenizer   write the weights and configuration alone\n"
    "  --help           print this\n"
    "\n"
    "model=MODEL, adapter=DIR, output_dir=DIR and dtype=TYPE, as other commands have them, are the same.\n"
    "Sums are made in double and rounded once. Exit status: 0 written, 1 failed, 2 wrong usage.\n";

typedef struct options {
    const char *model, *adapter, *output, *dtype;
    bool no_tokenizer;
} options;

typedef struct merge { /* what fetch needs */
    const plumb_source *source;
    const plumb_adapter *adapter; /* NULL: none */
    plumb_file_type type;
} merge;

static const struct {
    const char *name;
    plumb_file_type type;
} dtypes[] = {{"float32", PLUMB_FT_F32}, {"bfloat16", PLUMB_FT_BF16}, {"float16", PLUMB_FT_F16}};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static const char *dtype_name(plumb_file_type type) {
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].type == type) return dtypes[i].name;
    return "float32";
}

static plumb_status fetch_merged(void *user, int param, float *out) {
    const merge *m = user;
    const plumb_params *p = plumb_source_params(m->source);
    if (param < 0) { /* the scalar head of a classifier */
        if (!m->adapter || !m->adapter->score) return plumb_source_score(m->source, out);
        memcpy(out, m->adapter->score, (size_t)m->adapter->n_score * sizeof *out);
        return PLUMB_OK;
    }
    PLUMB_TRY(plumb_source_read(m->source, param, 0, p->items[param].rows, out));
    return m->adapter ? plumb_adapter_merge(m->adapter, p, param, m->type, out) : PLUMB_OK;
}

static plumb_status holds(const char *dir, const char *name, bool *found) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    *found = plumb_path_exists(path);
    free(path);
    return PLUMB_OK;
}

static plumb_status check_output(const char *dir) {
    static const char *const names[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
                                        "adapter_config.json"};
    if (plumb_path_exists(dir) && !plumb_path_is_dir(dir))
        return plumb_error(PLUMB_E_CONFIG, "--output %s: not a directory", dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool found = false;
        PLUMB_TRY(holds(dir, names[i], &found));
        if (found)
            return plumb_error(PLUMB_E_CONFIG, "--output %s: holds %s already; choose an empty or new directory", dir,
                               names[i]);
    }
    return PLUMB_OK;
}

/* *out stays NULL where the model comes without a tokenizer: weights alone are useful too. */
static plumb_status load_tokenizer(plumb_tokenizer **out, const char *model) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"};
    bool found = plumb_is_gguf(model);
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) PLUMB_TRY(holds(model, names[i], &found));
    if (!found) {
        fprintf(stderr, "plumb merge: %s has no tokenizer; none is written\n", model);
        return PLUMB_OK;
    }
    plumb_status status = plumb_tokenizer_load(out, model);
    return status == PLUMB_OK ? status : plumb_error_prefix(status, "tokenizer (--no-tokenizer leaves it out)");
}

static int64_t count_values(const plumb_params *p) {
    int64_t n = 0;
    for (int i = 0; i < p->count; i++) n += p->items[i].rows * p->items[i].cols;
    return n;
}

static int count_adapted(const plumb_adapter *a) {
    int n = 0;
    for (int i = 0; i < a->n_params; i++) n += a->a[i] != NULL;
    return n;
}

static plumb_status run(const options *o, const plumb_file_type *type) {
    plumb_source *source = NULL;
    plumb_tokenizer *tokenizer = NULL;
    plumb_adapter adapter = {0};
    plumb_status status = check_output(o->output);
    if (status == PLUMB_OK) status = plumb_source_open(&source, o->model);
    if (status != PLUMB_OK) goto done;
    const plumb_params *p = plumb_source_params(source);
    merge m = {source, o->adapter ? &adapter : NULL, type ? *type : plumb_source_type(source)};
    if (o->adapter) status = plumb_adapter_load(&adapter, o->adapter, p);
    if (adapter.score) plumb_source_as_classifier(source);
    if (status == PLUMB_OK && !o->no_tokenizer) status = load_tokenizer(&tokenizer, o->model);
    if (status == PLUMB_OK) status = plumb_make_dirs(o->output);
    if (status == PLUMB_OK && tokenizer) status = plumb_tokenizer_save(tokenizer, o->output);
    if (status == PLUMB_OK)
        status = plumb_model_export(o->output, plumb_source_arch(source), p, m.type, fetch_merged, &m);
    if (status != PLUMB_OK) goto done;
    printf("%s: %lld values in %s", o->output, (long long)count_values(p), dtype_name(m.type));
    if (adapter.config.r)
        printf(", adapter added to %d matrices (r %lld, scale %g)", count_adapted(&adapter),
               (long long)adapter.config.r, plumb_lora_scale(&adapter.config));
    printf("\n");
done:
    plumb_adapter_free(&adapter);
    plumb_tokenizer_free(tokenizer);
    plumb_source_close(source);
    return status;
}

static int usage(const char *why, const char *what) {
    fprintf(stderr, "plumb merge: %s%s\nTry 'plumb merge --help'.\n", why, what);
    return 2;
}

typedef struct flag {
    const char *name, *key; /* --name VALUE, key=VALUE */
    const char **value;     /* NULL: a switch */
    bool *on;
} flag;

/* The value of argument *i, which may be the next one; NULL: the argument is not this flag. */
static const char *value_of(const flag *f, int argc, char **argv, int *i) {
    const char *argument = argv[*i];
    size_t n = strlen(f->key);
    if (!strncmp(argument, f->key, n) && argument[n] == '=') return argument + n + 1;
    n = strlen(f->name);
    if (!strncmp(argument, f->name, n) && argument[n] == '=') return argument + n + 1;
    if (strcmp(argument, f->name)) return NULL;
    return ++*i < argc ? argv[*i] : "";
}

int cmd_merge(int argc, char **argv) {
    options o = {0};
    const plumb_file_type *type = NULL;
    const flag known[] = {{"--model", "model", &o.model, NULL},
                          {"--adapter", "adapter", &o.adapter, NULL},
                          {"--output", "output_dir", &o.output, NULL},
                          {"--dtype", "dtype", &o.dtype, NULL},
                          {"--no-tokenizer", "", NULL, &o.no_tokenizer}};
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i], *value = NULL;
        size_t k = 0, count = sizeof known / sizeof *known;
        if (!strcmp(argument, "--help") || !strcmp(argument, "-h")) {
            fputs(help, stdout);
            return 0;
        }
        for (; k < count; k++)
            if (known[k].on ? !strcmp(argument, known[k].name) : (value = value_of(&known[k], argc, argv, &i)) != NULL) break;
        if (k == count) return usage("unknown argument ", argument);
        if (known[k].on) *known[k].on = true;
        else if (!*value) return usage("a value is missing after ", argument);
        else *known[k].value = value;
    }
    if (!o.model) return usage("--model is missing", "");
    if (!o.output) return usage("--output is missing", "");
    for (int i = 0; o.dtype && i < DTYPES; i++)
        if (!strcmp(o.dtype, dtypes[i].name)) type = &dtypes[i].type;
    if (o.dtype && !type) return usage("--dtype is float32, bfloat16 or float16, not ", o.dtype);
    if (run(&o, type) == PLUMB_OK) return 0;
    fprintf(stderr, "plumb merge: %s\n", plumb_error_message());
    return 1;
}
