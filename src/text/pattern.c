/* A user's pattern on PCRE2, as PCRE2 reads it; tokenizers' patterns are another dialect (regex.c).
 *
 * The pattern comes from a configuration and the text from a model, so that neither can be trusted to be quick: (a+)+$
 * doubles its work with every a.  A match may take MATCH_LIMIT steps from each start, some hundredths of a second; more
 * are an error and not "no match": whoever asked decides what that is worth, and counts it. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "plumb/text.h"
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 1000000, JIT_STACK_MOST = 16 << 20, SHOWN = 300 };

struct plumb_pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    char *text; /* for messages */
    plumb_str repaired;
};

static plumb_status compile(plumb_pattern *p, const char *name) {
    int error;
    PCRE2_SIZE where;
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    p->code = pcre2_compile((PCRE2_SPTR)p->text, strlen(p->text), flags, &error, &where, NULL);
    if (!p->code) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(error, reason, sizeof reason);
        return plumb_error(PLUMB_E_CONFIG, "%s: the pattern \"%.*s\" is no PCRE2 pattern: %s, at offset %zu", name,
                           SHOWN, p->text, (char *)reason, (size_t)where);
    }
    p->data = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->data || !p->context) return plumb_error(PLUMB_E_MEMORY, "out of memory: a pattern");
    pcre2_set_match_limit(p->context, MATCH_LIMIT);
    if (pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE)) return PLUMB_OK; /* slower, not different */
    p->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MOST, NULL);
    if (!p->stack) return plumb_error(PLUMB_E_MEMORY, "out of memory: a stack for a pattern");
    pcre2_jit_stack_assign(p->context, NULL, p->stack);
    return PLUMB_OK;
}

plumb_status plumb_pattern_create(plumb_pattern **out, const char *pattern, const char *name) {
    plumb_pattern *p;
    *out = NULL;
    PLUMB_TRY(plumb_alloc(&p, 1, sizeof *p, "a pattern"));
    plumb_status status = plumb_alloc(&p->text, strlen(pattern) + 1, 1, "a pattern");
    if (status == PLUMB_OK) {
        memcpy(p->text, pattern, strlen(pattern));
        status = compile(p, name);
    }
    if (status == PLUMB_OK)
        *out = p;
    else
        plumb_pattern_free(p);
    return status;
}

void plumb_pattern_free(plumb_pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_data_free(p->data);
    pcre2_match_context_free(p->context);
    pcre2_jit_stack_free(p->stack);
    plumb_str_free(&p->repaired);
    free(p->text);
    free(p);
}

plumb_status plumb_pattern_found(plumb_pattern *p, const char *text, size_t length, bool *found) {
    *found = false;
    if (!plumb_utf8_valid(text, length)) {
        p->repaired.length = 0;
        PLUMB_TRY(plumb_utf8_repair(text, length, &p->repaired));
        text = p->repaired.data;
        length = p->repaired.length;
    }
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, length, 0, PCRE2_NO_UTF_CHECK, p->data, p->context);
    *found = rc >= 0; /* 0: more groups than there is room for, none of which is read */
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return PLUMB_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return plumb_error(PLUMB_E_MEMORY, "out of memory: matching a pattern");
    PCRE2_UCHAR reason[160];
    pcre2_get_error_message(rc, reason, sizeof reason);
    return plumb_error(PLUMB_E_DATA,
                       "the pattern \"%.*s\" failed on a text of %zu bytes: %s; write it so that it backtracks less",
                       SHOWN, p->text, length, (char *)reason);
}
