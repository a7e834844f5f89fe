/* Which weights an adapter adapts: PEFT's rules for target_modules.
 *
 * A module's name is its weight's name without ".weight" ("model.layers.3.self_attn.q_proj"). A target selects the
 * module whose name it is, or that ends with "." and the target; "all-linear" alone selects the seven projections of
 * every layer and not the head; a string (not a list) in adapter_config.json is a regular expression for the whole
 * name. Python's expressions are run by POSIX's engine after rewriting the three spellings that people use and POSIX
 * lacks: (?:...), \d and \w. What then differs still (look-around, lazy quantifiers, (?i)) is refused. Unlike PEFT, a
 * target that matches nothing is an error: it is a typing error that would silently train less. */
#include "lora_internal.h"
#include <ctype.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

double plumb_lora_scale(const plumb_lora_config *c) {
    return c->rslora ? c->alpha / sqrt((double)c->r) : c->alpha / (double)c->r;
}

void plumb_lora_config_free(plumb_lora_config *c) {
    if (!c) return;
    for (int i = 0; i < c->n_target_modules; i++) free(c->target_modules[i]);
    free(c->target_modules);
    free(c->base_model);
    *c = (plumb_lora_config){0};
}

size_t plumb_lora_module_length(const plumb_param *p) {
    static const char end[] = ".weight";
    size_t n = strlen(p->name), m = sizeof end - 1;
    return !p->bias && n > m && !strcmp(p->name + n - m, end) ? n - m : 0;
}

static bool target_selects(const char *target, const char *module, size_t length) {
    size_t n = strlen(target);
    if (n == 0 || n > length || strncmp(module + length - n, target, n)) return false;
    return n == length || module[length - n - 1] == '.';
}

bool plumb_lora_is_all_linear(const plumb_lora_config *c) {
    return c->n_target_modules == 1 && !strcasecmp(c->target_modules[0], "all-linear");
}

/* The module was chosen by `target`: it must be one that can have an adapter. */
static plumb_status choose(const plumb_param *p, const char *target, bool *chosen) {
    int length = (int)plumb_lora_module_length(p);
    *chosen = p->linear;
    if (p->linear) return PLUMB_OK;
    if (p->role == PLUMB_ROLE_HEAD || p->role == PLUMB_ROLE_EMBED)
        return plumb_error(
            PLUMB_E_UNSUPPORTED,
            "target_modules: '%.100s' selects %.*s; adapters on embeddings and on the head are not supported", target,
            length, p->name);
    return plumb_error(PLUMB_E_CONFIG, "target_modules: '%.100s' selects %.*s, which is not a linear layer", target,
                       length, p->name);
}

/* Candidates are what a user would write: the last one and two parts of each linear module's name, once each. */
static plumb_status nothing_matches(const char *target, const plumb_params *p) {
    const char *candidates[2 * PLUMB_ROLE_COUNT];
    char names[2 * PLUMB_ROLE_COUNT][sizeof p->items->name];
    int count = 0;
    for (int i = 0; i < p->count && count < 2 * PLUMB_ROLE_COUNT; i++) {
        if (!p->items[i].linear || p->items[i].layer != 0) continue;
        size_t length = plumb_lora_module_length(&p->items[i]), start = length;
        for (int parts = 0; parts < 2 && count < 2 * PLUMB_ROLE_COUNT; parts++) {
            if (parts) start--;
            while (start > 0 && p->items[i].name[start - 1] != '.') start--;
            memcpy(names[count], p->items[i].name + start, length - start);
            names[count][length - start] = 0;
            candidates[count] = names[count];
            count++;
        }
    }
    if (count == 0)
        return plumb_error(PLUMB_E_CONFIG, "target_modules: '%.100s' matches no linear layer of the model", target);
    const char *last = strrchr(target, '.');
    int best = plumb_nearest(target, candidates, count);
    if (best < 0 && last) best = plumb_nearest(last + 1, candidates, count);
    if (best < 0) {
        plumb_str list = {0};
        plumb_status status = PLUMB_OK;
        for (int i = 0; i < count && status == PLUMB_OK; i += 2)
            status = plumb_str_printf(&list, "%s%s", i ? ", " : "", candidates[i]);
        if (status == PLUMB_OK)
            status = plumb_error(
                PLUMB_E_CONFIG,
                "target_modules: '%.100s' matches no linear layer; there are %s, and all-linear for all of them",
                target, list.data);
        plumb_str_free(&list);
        return status;
    }
    return plumb_error(PLUMB_E_CONFIG, "target_modules: '%.100s' matches no linear layer; did you mean '%s'?", target,
                       candidates[best]);
}

/* --- regular expressions ---------------------------------------------------------------------- */

static plumb_status unsupported_pattern(const char *pattern, const char *what) {
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "target_modules: the regular expression '%.150s' uses %s; write a list of module names instead",
                       pattern, what);
}

static plumb_status translate_escape(plumb_str *out, const char *pattern, char c, bool in_class) {
    if (c == 'd') return plumb_str_printf(out, in_class ? "0-9" : "[0-9]");
    if (c == 'w') return plumb_str_printf(out, in_class ? "A-Za-z0-9_" : "[A-Za-z0-9_]");
    if (c == 0 || isalnum((unsigned char)c)) return unsupported_pattern(pattern, "an escape that is not supported");
    if (in_class)
        return c == ']' || c == '\\' || c == '^' || c == '-' ? unsupported_pattern(pattern, "an escape inside [...]")
                                                             : plumb_str_append(out, &c, 1);
    return plumb_str_printf(out, "\\%c", c);
}

static plumb_status translate(plumb_str *out, const char *pattern) {
    bool in_class = false;
    int bounds = 0;
    PLUMB_TRY(plumb_str_printf(out, "^("));
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\') {
            PLUMB_TRY(translate_escape(out, pattern, p[1], in_class));
            p++;
            continue;
        }
        if (!in_class && !strncmp(p, "(?:", 3)) {
            PLUMB_TRY(plumb_str_append(out, "(", 1));
            p += 2;
            continue;
        }
        if (!in_class && !strncmp(p, "(?", 2)) return unsupported_pattern(pattern, "(?...)");
        if (!in_class && strchr("*+?}", *p) && p[1] && strchr("?+", p[1]))
            return unsupported_pattern(pattern, "a lazy or possessive quantifier");
        if (!in_class && *p == '[') {
            in_class = true;
            PLUMB_TRY(plumb_str_append(out, p, 1));
            if (p[1] == '^') PLUMB_TRY(plumb_str_append(out, ++p, 1));
            if (p[1] == ']') PLUMB_TRY(plumb_str_append(out, ++p, 1));
            continue;
        }
        if (!in_class && *p == '{' &&
            (++bounds > 1 || strcspn(p, "}") > 6)) /* nested bounds cost POSIX's engine gigabytes */
            return unsupported_pattern(pattern, "several or large {m,n}");
        if (in_class && *p == ']') in_class = false;
        PLUMB_TRY(plumb_str_append(out, p, 1));
    }
    return plumb_str_printf(out, ")$");
}

static plumb_status match_expression(const char *pattern, const plumb_params *p, bool *chosen) {
    plumb_str translated = {0};
    regex_t compiled;
    bool any = false;
    plumb_status status = strlen(pattern) > 4096 ? unsupported_pattern(pattern, "more than 4096 characters")
                                                 : translate(&translated, pattern);
    if (status == PLUMB_OK && regcomp(&compiled, translated.data, REG_EXTENDED | REG_NOSUB) != 0)
        status = plumb_error(PLUMB_E_CONFIG, "target_modules: '%.150s' is not a regular expression", pattern);
    plumb_str_free(&translated);
    if (status != PLUMB_OK) return status;
    for (int i = 0; i < p->count && status == PLUMB_OK; i++) {
        char module[sizeof p->items->name];
        size_t length = plumb_lora_module_length(&p->items[i]);
        if (!length) continue;
        memcpy(module, p->items[i].name, length);
        module[length] = 0;
        if (regexec(&compiled, module, 0, NULL, 0) != 0) continue;
        any = true;
        status = choose(&p->items[i], pattern, &chosen[i]);
    }
    regfree(&compiled);
    if (status == PLUMB_OK && !any) status = nothing_matches(pattern, p);
    return status;
}

plumb_status plumb_lora_match(const plumb_lora_config *c, const plumb_params *p, bool *chosen) {
    for (int i = 0; i < p->count; i++) chosen[i] = false;
    if (c->n_target_modules == 0)
        return plumb_error(PLUMB_E_CONFIG, "target_modules is empty; all-linear selects every linear layer");
    if (plumb_lora_is_all_linear(c)) {
        for (int i = 0; i < p->count; i++) chosen[i] = p->items[i].linear;
        return PLUMB_OK;
    }
    if (c->target_regex) return match_expression(c->target_modules[0], p, chosen);
    for (int t = 0; t < c->n_target_modules; t++) {
        bool any = false;
        for (int i = 0; i < p->count; i++) {
            size_t length = plumb_lora_module_length(&p->items[i]);
            if (!length || !target_selects(c->target_modules[t], p->items[i].name, length)) continue;
            any = true;
            PLUMB_TRY(choose(&p->items[i], c->target_modules[t], &chosen[i]));
        }
        if (!any) {
            if (!strcmp(c->target_modules[t], "lm_head")) /* tied: the table has no head of its own */
                return plumb_error(
                    PLUMB_E_UNSUPPORTED,
                    "target_modules: 'lm_head': adapters on embeddings and on the head are not supported");
            return nothing_matches(c->target_modules[t], p);
        }
    }
    return PLUMB_OK;
}
