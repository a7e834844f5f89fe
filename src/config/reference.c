/* ${NAME.product}: what an earlier stage of a pipeline makes, as a path.
 *
 * Which products there are follows from the stage's settings, so that a reference to an adapter that a stage will not write is refused
 * before anything runs:
 *
 *     output_dir   every stage's folder
 *     adapter      training of an adapter alone
 *     model        training of parameters in full (an adapter beside them is merged in)
 *     value        PPO: the value model, an adapter with a score head, or (trunk, trained in full) its head alone
 *     output_file  commands that write a file: the scores, the records of best-of-n */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>
#include "plumb/pipeline.h"

enum { WORD_MAX = 64 };

static bool trains_adapter_alone(const plumb_stage *s) {
    return (s->command & PLUMB_FOR_TRAINING) && s->options.lora && s->options.n_train_modules == 0;
}
static bool makes(const plumb_stage *s, const char *product) {
    const plumb_options *o = &s->options;
    if (!strcmp(product, "output_dir")) return true;
    if (!strcmp(product, "output_file")) return s->command & PLUMB_FOR_FILE;
    if (!strcmp(product, "adapter")) return trains_adapter_alone(s);
    if (!strcmp(product, "model")) return (s->command & PLUMB_FOR_TRAINING) && !trains_adapter_alone(s);
    if (s->command != PLUMB_FOR_PPO) return false;
    bool own = strcmp(o->value_model, "adapter") != 0 && strcmp(o->value_model, "trunk") != 0, whole = own && !trains_adapter_alone(s);
    return !strcmp(product, whole ? "value_model" : "value");
}
static const char *const products[] = {"output_dir", "adapter", "model", "value", "value_model", "output_file"};
enum { PRODUCTS = sizeof products / sizeof *products };

static plumb_status append_product(plumb_str *out, const plumb_stage *s, const char *product) {
    if (!strcmp(product, "output_file")) return plumb_str_append(out, s->options.output_file, strlen(s->options.output_file));
    PLUMB_TRY(plumb_str_append(out, s->dir, strlen(s->dir)));
    return strcmp(product, "output_dir") ? plumb_str_printf(out, "/%s", product) : PLUMB_OK;
}

static plumb_status no_such_stage(const plumb_binding *b, plumb_place at, const char *key, const char *name) {
    const plumb_stages *p = b->earlier;
    const char *names[PLUMB_MAX_STAGES];
    char list[256] = "";
    int later = -1;
    for (int i = 0; i < p->count; i++) {
        names[i] = p->stages[i].name;
        if (!strcmp(names[i], name)) later = i;
        if (p->stages[i].dir && strlen(list) + strlen(names[i]) + 3 < sizeof list) strcat(strcat(list, *list ? ", " : ""), names[i]);
    }
    const char *earlier = *list ? list : "there is none before this one";
    if (later >= 0)
        return plumb_config_fault(b, at, key,
                                  "found ${%s.…}, but stage %s (line %d) does not come before this one; expected an earlier stage: %s",
                                  name, name, p->stages[later].line, earlier);
    int nearest = plumb_nearest(name, names, p->count);
    if (nearest >= 0)
        return plumb_config_fault(b, at, key, "found ${%s.…}, and no stage has this name; did you mean %s?", name, names[nearest]);
    return plumb_config_fault(b, at, key, "found ${%s.…}, and no stage has this name; expected an earlier stage: %s", name, earlier);
}

static plumb_status no_such_product(const plumb_binding *b, plumb_place at, const char *key, const plumb_stage *s, const char *product) {
    char list[128] = "";
    for (int i = 0; i < PRODUCTS; i++)
        if (makes(s, products[i])) strcat(strcat(list, *list ? ", " : ""), products[i]);
    return plumb_config_fault(b, at, key, "found ${%s.%s}, which stage %s (plumb %s) does not make; expected one of %s", s->name, product,
                              s->name, plumb_options_command_name(s->command), list);
}

/* What stands between the braces. */
static plumb_status append_reference(const plumb_binding *b, plumb_place *at, const char *key, const char *inside, size_t length,
                                     plumb_str *out) {
    char name[WORD_MAX], product[WORD_MAX], excerpt[EXCERPT_SIZE];
    const char *dot = memchr(inside, '.', length);
    size_t n = dot ? (size_t)(dot - inside) : 0, m = dot ? length - n - 1 : 0;
    if (n == 0 || m == 0 || n >= WORD_MAX || m >= WORD_MAX)
        return plumb_config_fault(b, *at, key,
                                  "found %s between ${ and }; expected STAGE.PRODUCT, as in ${sft.adapter} (write $${ for the characters "
                                  "${)",
                                  plumb_config_excerpt(excerpt, inside, length));
    memcpy(name, inside, n), name[n] = 0;
    memcpy(product, dot + 1, m), product[m] = 0;
    for (int i = 0; i < b->earlier->count; i++) {
        const plumb_stage *s = &b->earlier->stages[i];
        if (!s->dir || strcmp(s->name, name)) continue; /* without a folder: not bound yet, this one or a later one */
        if (!makes(s, product)) return no_such_product(b, *at, key, s, product);
        at->refers |= (uint64_t)1 << i;
        return append_product(out, s, product);
    }
    plumb_config_excerpt(excerpt, name, n);
    return no_such_stage(b, *at, key, name);
}

static plumb_status expand(const plumb_binding *b, plumb_place *at, const char *key, const char *text, size_t length, plumb_str *out) {
    const char *end = text + length;
    for (const char *s = text; s < end;) {
        const char *dollar = memchr(s, '$', (size_t)(end - s));
        if (!dollar) return plumb_str_append(out, s, (size_t)(end - s));
        PLUMB_TRY(plumb_str_append(out, s, (size_t)(dollar - s)));
        if (end - dollar >= 3 && !memcmp(dollar, "$${", 3)) {
            PLUMB_TRY(plumb_str_append(out, "${", 2));
            s = dollar + 3;
        } else if (end - dollar >= 2 && dollar[1] == '{') {
            const char *close = memchr(dollar, '}', (size_t)(end - dollar));
            if (!close)
                return plumb_config_fault(b, *at, key,
                                          "found ${ without }; expected STAGE.PRODUCT between them (write $${ for the characters ${)");
            PLUMB_TRY(append_reference(b, at, key, dollar + 2, (size_t)(close - dollar - 2), out));
            s = close + 1;
        } else {
            PLUMB_TRY(plumb_str_append(out, "$", 1));
            s = dollar + 1;
        }
    }
    return PLUMB_OK;
}

plumb_status plumb_config_expand(const plumb_binding *b, plumb_place *at, const char *key, const char *text, size_t length, char **out) {
    *out = NULL;
    if (!b->earlier || !memchr(text, '$', length)) return plumb_config_copy(out, text, length);
    plumb_str s = {0};
    plumb_status status = expand(b, at, key, text, length, &s);
    if (status == PLUMB_OK) status = plumb_config_copy(out, s.data ? s.data : "", s.length);
    plumb_str_free(&s);
    return status;
}

/* What a stage is for: the path that says it is done. Called when its folder is known. */
plumb_status plumb_config_product(plumb_stage *s) {
    plumb_str path = {0};
    const char *product = s->command & PLUMB_FOR_FILE ? "output_file" : makes(s, "adapter") ? "adapter" : "model";
    plumb_status status =
        s->command == PLUMB_FOR_EVAL ? plumb_str_printf(&path, "%s/eval_results.json", s->dir) : append_product(&path, s, product);
    if (status == PLUMB_OK) status = plumb_config_copy(&s->product, path.data, path.length);
    plumb_str_free(&path);
    return status;
}
