/* curves/<run>: twenty optimizer steps by TRL, run again by plumb's own trainers from files to files: config.json becomes options,
 * metrics.jsonl is compared with log.json step by step, and the adapter or model written at the end with TRL's. */
#include "golden.h"
#include "session.h"
#include "plumb/objective.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_OVERRIDES = 48 };
typedef struct overrides { char *items[MAX_OVERRIDES]; int count; } overrides;
static void add(overrides *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(overrides *o, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (o->count < MAX_OVERRIDES && vasprintf(&o->items[o->count], format, arguments) >= 0) o->count++;
    va_end(arguments);
}
static void forget(overrides *o) {
    while (o->count) free(o->items[--o->count]);
}

typedef struct curve { golden *g; const char *name; json_t *config; char *dir, *initial, *final, *out; const char *kind; bool lora; } curve;

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

/* An option of TRL that plumb does not know makes the case unsupported, by name. */
static plumb_status add_trl_options(const curve *c, overrides *o) {
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(c->config, "options"), key, value) {
        if (!strcmp(key, "beta") || !strcmp(key, "label_smoothing") || !strcmp(key, "center_rewards_coefficient"))
            add(o, "%s=%.17g", key, json_number_value(value));
        else if (!strcmp(key, "loss_type")) {
            json_t *only = json_is_array(value) && json_array_size(value) == 1 ? json_array_get(value, 0) : value;
            const char *name = json_string_value(only);
            if (!name || plumb_dpo_loss_from_name(name) < 0)
                return plumb_error(PLUMB_E_UNSUPPORTED, "loss_type %s is not known", name ? name : "(a mixture)");
            add(o, "loss_type=%s", name);
        } else if (!strcmp(key, "completion_only_loss")) add(o, "loss_on=%s", json_is_true(value) ? "completion" : "all");
        else if (!strcmp(key, "assistant_only_loss")) add(o, "loss_on=%s", json_is_true(value) ? "assistant" : "all");
        else return plumb_error(PLUMB_E_UNSUPPORTED, "option %s is not known", key);
    }
    return PLUMB_OK;
}

/* transformers renders Jinja with trimmed blocks: a turn that ends "{% endif %}\n" has no line end after <|im_end|>. */
static bool trims_turns(const golden *g) {
    char *path = golden_path(g, "curves/model/chat_template.jinja"), *text = NULL;
    size_t size;
    bool trims = path && plumb_read_file(path, &text, &size) == PLUMB_OK && strstr(text, "{% endif %}\n{% endfor %}");
    free(text);
    free(path);
    return trims;
}
static plumb_status describe(const curve *c, overrides *o) {
    const json_t *k = c->config, *betas = json_object_get(k, "betas");
    bool chat = json_is_true(json_object_get(json_object_get(k, "options"), "assistant_only_loss"));
    const char *data = json_string_value(json_object_get(k, "data"));
    if (strcmp(c->kind, "sft") != 0 && strcmp(c->kind, "dpo") != 0 && strcmp(c->kind, "reward") != 0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "trainer %s is not known", c->kind);
    add(o, c->lora ? "model=%s/curves/model" : "model=%s/curves/%s/initial", c->g->dir, c->name);
    add(o, "tokenizer=%s/curves/model", c->g->dir);
    if (c->lora) add(o, "adapter=%s", c->initial);
    else add(o, "lora=false");
    add(o, "train_file=%s/curves/%s", c->g->dir, data ? data : chat ? "chat.jsonl" : !strcmp(c->kind, "sft") ? "sft.jsonl" : "pref.jsonl");
    add(o, "output_dir=%s", c->out);
    add(o, "batch_size=%lld", (long long)(number(k, "batch") * number(k, "accumulation")));
    add(o, "max_steps=%lld", (long long)number(k, "steps"));
    add(o, "learning_rate=%.17g", number(k, "lr"));
    add(o, "lr_scheduler_type=%s", json_string_value(json_object_get(k, "schedule")));
    add(o, "warmup_steps=%lld", (long long)number(k, "warmup_steps"));
    add(o, "weight_decay=%.17g", number(k, "weight_decay"));
    add(o, "max_grad_norm=%.17g", number(k, "max_grad_norm"));
    add(o, "adam_beta1=%.17g", json_number_value(json_array_get(betas, 0)));
    add(o, "adam_beta2=%.17g", json_number_value(json_array_get(betas, 1)));
    add(o, "adam_eps=%.17g", number(k, "eps"));
    add(o, "max_length=%lld", (long long)number(k, "max_length"));
    if (number(k, "dropout") != 0) return plumb_error(PLUMB_E_UNSUPPORTED, "a curve with dropout cannot be compared");
    add(o, "backend=%s", c->g->backend);
    if (c->g->isa) add(o, "isa=%s", c->g->isa);
    static const char *const always[] = {"shuffle=false", "precision=fp32", "resume=never", "threads=1", "save_steps=0"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        add(o, "%s", always[i]);
    if (chat) add(o, "template_name=%s", trims_turns(c->g) ? "chatml-trimmed" : "chatml");
    return add_trl_options(c, o);
}

/* loss, grad_norm, learning_rate and logps at 1e-4 relative, rewards at 1e-4 (1 + |value|); returns the worst over 1e-4. */
static double compare_step(const json_t *expected, const json_t *got) {
    static const char *const keys[] = {"loss",   "grad_norm",   "learning_rate",  "logps/chosen",     "logps/rejected",
                                       "margin", "mean_reward", "rewards/chosen", "rewards/rejected", "rewards/margins"};
    double worst = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *e = json_object_get(expected, keys[i]);
        if (!e) continue;
        double b = json_number_value(e), a = json_object_get(got, keys[i]) ? number(got, keys[i]) : NAN;
        bool reward = strstr(keys[i], "reward") || !strcmp(keys[i], "margin"); /* around 0 */
        double error = fabs(a - b) / (reward ? 1 + fabs(b) : fmax(fabs(b), 1e-12));
        if (!(error <= 1e-4)) fprintf(stderr, "  step %lld: %s %.9g, TRL %.9g\n", (long long)number(expected, "step"), keys[i], a, b);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}
static plumb_status compare_log(const curve *c) {
    char *path = golden_path(c->g, "curves/%s/log.json", c->name), *text = NULL, line_path[600];
    json_t *log = NULL;
    size_t size;
    snprintf(line_path, sizeof line_path, "%s/metrics.jsonl", c->out);
    plumb_status status = plumb_json_load(&log, path);
    if (status == PLUMB_OK) status = plumb_read_file(line_path, &text, &size);
    double worst = status == PLUMB_OK ? 0 : NAN;
    char *at = text;
    for (size_t i = 0; status == PLUMB_OK && i < json_array_size(log); i++) {
        json_t *step = at ? json_loads(at, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
        double error = compare_step(json_array_get(log, i), step);
        if (!(error <= worst)) worst = error;
        json_decref(step);
        at = at ? strchr(at, '\n') : NULL;
        if (at) at++;
    }
    if (status == PLUMB_OK) golden_result(c->g, worst, 1e-4, "curves/%s log", c->name);
    json_decref(log);
    free(text);
    free(path);
    return status;
}

/* 99.9 % of all elements within 1e-4 of their tensor's largest value, every one within 2e-3. */
static plumb_status compare_weights(const curve *c) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", c->out, c->lora ? "adapter" : "model");
    const char *stem = c->lora ? "adapter_model" : "model";
    plumb_safetensors ours, theirs;
    PLUMB_TRY(plumb_safetensors_open(&ours, path, stem));
    plumb_status status = plumb_safetensors_open(&theirs, c->final, stem);
    int64_t far = 0, total = 0;
    double worst = 0;
    for (int64_t i = 0; status == PLUMB_OK && i < theirs.count; i++) {
        const plumb_file_tensor *b = &theirs.tensors[i], *a = plumb_safetensors_find(&ours, b->name);
        int64_t n = (int64_t)b->bytes / 4;
        float *x = malloc(b->bytes), *y = malloc(b->bytes), largest = 0;
        if (!a || a->bytes != b->bytes || plumb_tensor_to_float(a, 0, n, x) != PLUMB_OK || plumb_tensor_to_float(b, 0, n, y) != PLUMB_OK) {
            fprintf(stderr, "  %s is missing or of another shape\n", b->name);
            worst = NAN;
        } else {
            for (int64_t j = 0; j < n; j++) largest = fmaxf(largest, fabsf(y[j]));
            for (int64_t j = 0; j < n; j++) {
                double d = fabs((double)x[j] - (double)y[j]) / (double)largest;
                far += !(d <= 1e-4);
                if (!(d <= worst)) worst = d;
            }
            total += n;
        }
        free(x);
        free(y);
    }
    if (status == PLUMB_OK) {
        golden_result(c->g, (double)far / (double)total, 1e-3, "curves/%s weights beyond 1e-4", c->name);
        golden_result(c->g, worst, 2e-3, "curves/%s weights", c->name);
    }
    plumb_safetensors_close(&ours);
    plumb_safetensors_close(&theirs);
    return status;
}

static plumb_status run(curve *c) {
    overrides o = {0};
    plumb_options options;
    plumb_status status = describe(c, &o);
    int command = !strcmp(c->kind, "dpo") ? PLUMB_FOR_DPO : !strcmp(c->kind, "reward") ? PLUMB_FOR_REWARD : PLUMB_FOR_SFT;
    if (status == PLUMB_OK) status = plumb_options_load(&options, command, NULL, o.items, o.count);
    forget(&o);
    if (status != PLUMB_OK) return status;
    int code = command == PLUMB_FOR_DPO      ? plumb_train_dpo(&options)
               : command == PLUMB_FOR_REWARD ? plumb_train_reward(&options)
                                             : plumb_train_sft(&options);
    plumb_options_free(&options);
    if (code) return plumb_error(PLUMB_E_DATA, "training ended with code %d", code);
    if (plumb_comm_rank(PLUMB_AXIS_WORLD) != 0) return PLUMB_OK;
    PLUMB_TRY(compare_log(c));
    return compare_weights(c);
}

void golden_curves(golden *g) {
    char **names = golden_names(g, "curves", "");
    for (char **name = names; *name; name++) {
        char *config = golden_path(g, "curves/%s/config.json", *name), out[] = "/tmp/plumb-golden-XXXXXX";
        char *initial = golden_path(g, "curves/%s/initial", *name), *final = golden_path(g, "curves/%s/final", *name);
        if (config && initial && final) {
            if (plumb_comm_rank(PLUMB_AXIS_WORLD) == 0 && !mkdtemp(out)) return;
            plumb_comm_bcast(PLUMB_AXIS_WORLD, out, sizeof out, 0);
            curve c = {.g = g, .name = *name, .initial = initial, .final = final, .out = out};
            plumb_status status = plumb_json_load(&c.config, config);
            c.kind = json_string_value(json_object_get(c.config, "kind"));
            c.lora = json_is_object(json_object_get(c.config, "lora"));
            if (status == PLUMB_OK) status = run(&c);
            if (status != PLUMB_OK) golden_failed(g, status, "curves/%s", *name);
            json_decref(c.config);
            char command[700];
            snprintf(command, sizeof command, "rm -rf '%s'", out);
            if (plumb_comm_rank(PLUMB_AXIS_WORLD) == 0 && system(command) != 0) fprintf(stderr, "cannot remove %s\n", out);
        }
        free(config);
        free(initial);
        free(final);
    }
    golden_names_free(names);
}
