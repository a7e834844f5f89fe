/* Patterns: Oniguruma's syntax (the one tokenizer.json is written in) on PCRE2, in UTF + UCP mode.
 *
 * The two dialects agree on the constructs that tokenizers use, with exceptions that are rewritten here before
 * compiling: \s, \w, \b mean Unicode's White_Space and Word sets (PCRE2 counts U+180E as a space and knows fewer word
 * characters), \v is one character, \uHHHH is a code point, a script name means Script and not Script_Extensions, {,n}
 * starts at 0.  Whatever has another meaning in PCRE2, or none, is refused by name instead of being matched
 * differently.
 *
 * Text is valid UTF-8 by the time it gets here, so that PCRE2's own check, which would cost O(n) for every match, is
 * off. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer.h"
#include <pcre2.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plumb_regex {
    pcre2_code *code;
};
struct plumb_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

#define SPACES                                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                     \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}"                                                                                              \
    "\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
/* Word, and six digits and fractions of Latin-1 that Oniguruma counts as well */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

typedef struct reader { /* where the translation stands */
    const char *pattern, *name;
    size_t length, at;
    bool in_class;
    plumb_str *out;
} reader;

static plumb_status refuse(const reader *r, const char *what) {
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: the regular expression \"%.*s\" has %s at offset %zu, which is not supported", r->name,
                       (int)plumb_min64((int64_t)r->length, 300), r->pattern, what, r->at);
}

static plumb_status put(reader *r, const char *text) {
    return plumb_str_append(r->out, text, strlen(text));
}

static char peek(const reader *r, size_t ahead) {
    return r->at + ahead < r->length ? r->pattern[r->at + ahead] : 0;
}

/* General categories by their long names; PCRE2 knows the short ones only. */
static const char *const long_names[][2] = {
    {"letter", "L"},
    {"lowercaseletter", "Ll"},
    {"uppercaseletter", "Lu"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"digit", "Nd"},
    {"any", "Any"},
    {"alphabetic", "Alphabetic"},
    {"alpha", "Alphabetic"},
    {"uppercase", "Uppercase"},
    {"lowercase", "Lowercase"},
    {"upper", "Uppercase"},
    {"lower", "Lowercase"},
    {"emoji", "Emoji"},
};

/* \p{Name}, \P{Name}, \p{^Name} */
static plumb_status property(reader *r) {
    bool negated = peek(r, 1) == 'P';
    size_t end = r->at + 3;
    if (peek(r, 2) != '{') return refuse(r, "\\p without braces");
    while (end < r->length && r->pattern[end] != '}') end++;
    if (end == r->length) return refuse(r, "an unclosed \\p{");
    const char *from = r->pattern + r->at + 3;
    size_t n = end - r->at - 3;
    if (n && *from == '^') negated = !negated, from++, n--;
    char plain[64];
    size_t used = 0;
    if (n >= sizeof plain) return refuse(r, "an unknown property");
    for (size_t i = 0; i < n; i++) {
        if (from[i] == ' ' || from[i] == '_' || from[i] == '-') continue;
        plain[used++] = (char)tolower((unsigned char)from[i]);
    }
    plain[used] = 0;
    const char *target = NULL;
    for (size_t i = 0; i < sizeof long_names / sizeof *long_names; i++)
        if (!strcmp(plain, long_names[i][0])) target = long_names[i][1];
    char sign = negated ? 'P' : 'p';
    r->at = end + 1;
    if (target) return plumb_str_printf(r->out, "\\%c{%s}", sign, target);
    if (used <= 2 && n == used) return plumb_str_printf(r->out, "\\%c{%.*s}", sign, (int)n, from);
    return plumb_str_printf(r->out, "\\%c{sc:%s}", sign, plain);
}

/* \uHHHH and \x{H...}; \xHH below 0x80 */
static plumb_status hexadecimal(reader *r) {
    bool braces = peek(r, 1) == 'x' && peek(r, 2) == '{';
    size_t digits = 0, first = braces ? 3 : 2, most = braces ? 6 : peek(r, 1) == 'u' ? 4 : 2;
    uint32_t point = 0;
    while (digits < most && isxdigit((unsigned char)peek(r, first + digits))) {
        char c = peek(r, first + digits++);
        point = point * 16 + (uint32_t)(isdigit((unsigned char)c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    if (!digits || (peek(r, 1) == 'u' && digits != 4) || (braces && peek(r, first + digits) != '}') ||
        (point > 0x7f && most == 2) || point > 0x10ffff)
        return refuse(r, "a bad code point");
    r->at += first + digits + braces;
    return plumb_str_printf(r->out, "\\x{%x}", point);
}

static plumb_status escape(reader *r) {
    char c = peek(r, 1);
    const char *text = NULL;
    bool set = false; /* stands for many characters, so that a following '-' is a plain one */
    switch (c) {
    case 0: return refuse(r, "a trailing backslash");
    case 'p':
    case 'P': return property(r);
    case 'x':
    case 'u': return hexadecimal(r);
    case 's': text = r->in_class ? SPACES : "[" SPACES "]", set = true; break;
    case 'S': text = r->in_class ? NOT_SPACES : "[^" SPACES "]", set = true; break;
    case 'd': text = "\\p{Nd}", set = true; break;
    case 'D': text = "\\P{Nd}", set = true; break;
    case 'w': text = r->in_class ? WORDS : "[" WORDS "]", set = true; break;
    case 'W':
        if (r->in_class) return refuse(r, "\\W in a character class");
        text = "[^" WORDS "]";
        break;
    case 'b':
        text = r->in_class ? "\\x08" : "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))";
        break;
    case 'B':
        if (r->in_class) return refuse(r, "\\B in a character class");
        text = "(?:(?<=[" WORDS "])(?=[" WORDS "])|(?<![" WORDS "])(?![" WORDS "]))";
        break;
    case 'n': text = "\\x0a"; break;
    case 'r': text = "\\x0d"; break;
    case 't': text = "\\x09"; break;
    case 'f': text = "\\x0c"; break;
    case 'v': text = "\\x0b"; break;
    case 'a': text = "\\x07"; break;
    case 'e': text = "\\x1b"; break;
    case 'A':
    case 'z':
    case 'Z':
        if (r->in_class) return refuse(r, "an anchor in a character class");
        text = c == 'A' ? "\\A" : c == 'z' ? "\\z" : "\\Z";
        break;
    default:
        if (isalnum((unsigned char)c)) return refuse(r, (char[]){'\\', c, 0});
        if ((unsigned char)c < 0x80) PLUMB_TRY(put(r, (char[]){'\\', c, 0}));
        r->at += (unsigned char)c < 0x80 ? 2 : 1; /* an escaped character beyond ASCII is that character */
        return PLUMB_OK;
    }
    r->at += 2;
    PLUMB_TRY(put(r, text));
    if (set && r->in_class && peek(r, 0) == '-' && peek(r, 1) != ']') {
        r->at++;
        return put(r, "\\-");
    }
    return PLUMB_OK;
}

static plumb_status character_class(reader *r) {
    r->in_class = true;
    PLUMB_TRY(put(r, "["));
    r->at++;
    if (peek(r, 0) == '^') {
        PLUMB_TRY(put(r, "^"));
        r->at++;
    }
    if (peek(r, 0) == ']') return refuse(r, "an empty character class");
    while (r->at < r->length && r->pattern[r->at] != ']') {
        char c = r->pattern[r->at];
        if (c == '[') return refuse(r, "a nested character class");
        if (c == '&' && peek(r, 1) == '&') return refuse(r, "an intersection of character classes");
        if (c == '\\') {
            PLUMB_TRY(escape(r));
        } else {
            PLUMB_TRY(plumb_str_append(r->out, &c, 1));
            r->at++;
        }
    }
    if (r->at == r->length) return refuse(r, "an unclosed character class");
    r->at++;
    r->in_class = false;
    return put(r, "]");
}

static plumb_status group(reader *r) {
    static const char *const heads[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"};
    if (peek(r, 1) != '?') {
        if (peek(r, 1) == '*') return refuse(r, "(*");
        r->at++;
        return put(r, "(?:"); /* nobody reads the groups */
    }
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        size_t n = strlen(heads[i]);
        if (r->length - r->at < n || memcmp(r->pattern + r->at, heads[i], n)) continue;
        r->at += n;
        return put(r, heads[i]);
    }
    return refuse(r, "a group of this kind");
}

/* {n}, {n,}, {,m}, {n,m}; anything else is a plain brace. */
static plumb_status braces(reader *r) {
    size_t i = 1, digits = 0, commas = 0;
    for (; isdigit((unsigned char)peek(r, i)) || peek(r, i) == ','; i++) peek(r, i) == ',' ? commas++ : digits++;
    if (peek(r, i) != '}' || !digits || commas > 1) {
        r->at++;
        return put(r, "\\{");
    }
    char after = peek(r, i + 1);
    if (after == '+') return refuse(r, "a '+' after {n,m}");
    if (after == '?' && !commas) return refuse(r, "a '?' after {n}");
    PLUMB_TRY(put(r, peek(r, 1) == ',' ? "{0" : "{"));
    PLUMB_TRY(plumb_str_append(r->out, r->pattern + r->at + 1, i));
    r->at += i + 1;
    return PLUMB_OK;
}

static plumb_status translate(reader *r) {
    while (r->at < r->length) {
        char c = r->pattern[r->at];
        switch (c) {
        case '\\': PLUMB_TRY(escape(r)); break;
        case '[': PLUMB_TRY(character_class(r)); break;
        case '(': PLUMB_TRY(group(r)); break;
        case '{': PLUMB_TRY(braces(r)); break;
        default: PLUMB_TRY(plumb_str_append(r->out, &c, 1)); r->at++;
        }
    }
    return PLUMB_OK;
}

plumb_status plumb_regex_compile(plumb_regex **out, const char *pattern, size_t length, bool literal,
                                 const char *name) {
    plumb_status status;
    plumb_str text = {0};
    plumb_regex *r = NULL;
    if (!plumb_utf8_valid(pattern, length))
        return plumb_error(PLUMB_E_FORMAT, "%s: a pattern is not valid UTF-8", name);
    if ((status = plumb_alloc(&r, 1, sizeof *r, "a regular expression")) != PLUMB_OK) goto done;
    if (literal)
        status = plumb_str_append(&text, pattern, length);
    else
        status = translate(&(reader){.pattern = pattern, .name = name, .length = length, .out = &text});
    if (status != PLUMB_OK) goto done;
    int error;
    PCRE2_SIZE where;
    uint32_t flags = PCRE2_UTF | PCRE2_NO_UTF_CHECK | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    r->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.length, flags, &error, &where, NULL);
    if (!r->code) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(error, reason, sizeof reason);
        status = plumb_error(PLUMB_E_UNSUPPORTED, "%s: the regular expression \"%.*s\" is not supported: %s", name,
                             (int)plumb_min64((int64_t)length, 300), pattern, (char *)reason);
        goto done;
    }
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
    *out = r;
    r = NULL;
done:
    plumb_regex_free(r);
    plumb_str_free(&text);
    return status;
}

void plumb_regex_free(plumb_regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    free(r);
}

plumb_status plumb_matcher_create(plumb_matcher **out) {
    plumb_matcher *m;
    PLUMB_TRY(plumb_alloc(&m, 1, sizeof *m, "a matcher"));
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    *out = m;
    if (m->data && m->context) return PLUMB_OK;
    plumb_matcher_free(m);
    *out = NULL;
    return plumb_error(PLUMB_E_MEMORY, "out of memory: a matcher");
}

void plumb_matcher_free(plumb_matcher *m) {
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    free(m);
}

/* One search; *found is false when nothing matches from `at` on. */
static plumb_status search(const plumb_regex *r, plumb_matcher *m, const char *text, size_t length, size_t at,
                           bool *found) {
    for (;;) {
        int rc = pcre2_match(r->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
        if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) {
            *found = rc >= 0;
            return PLUMB_OK;
        }
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT &&
            !m->stack) { /* rare patterns need more than the 32 kB that are there without asking */
            m->stack = pcre2_jit_stack_create(64 * 1024, 64 * 1024 * 1024, NULL);
            if (!m->stack) return plumb_error(PLUMB_E_MEMORY, "out of memory: a stack for a regular expression");
            pcre2_jit_stack_assign(m->context, NULL, m->stack);
            continue;
        }
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(rc, reason, sizeof reason);
        return plumb_error(PLUMB_E_DATA, "the tokenizer's regular expression failed on a text of %zu bytes: %s", length,
                           (char *)reason);
    }
}

static plumb_status push_span(plumb_spans *s, size_t start, size_t end, bool match) {
    PLUMB_TRY(plumb_grow(&s->list, &s->capacity, s->count + 1, sizeof *s->list));
    s->list[s->count++] = (plumb_span){start, end, match};
    return PLUMB_OK;
}

plumb_status plumb_regex_cut(const plumb_regex *r, plumb_matcher *m, const char *text, size_t length,
                             plumb_spans *out) {
    size_t at = 0, last = 0, last_match = SIZE_MAX;
    out->count = 0;
    while (at <= length) {
        bool found = false;
        PLUMB_TRY(search(r, m, text, length, at, &found));
        if (!found) break;
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m->data);
        size_t start = o[0], end = o[1];
        if (start == end) { /* an empty match moves on by a character, and does not count where the last match ended */
            at = end < length ? end + plumb_utf8_size((unsigned char)text[end]) : end + 1;
            if (end == last_match) continue;
        } else {
            at = end;
        }
        if (last < start) PLUMB_TRY(push_span(out, last, start, false));
        PLUMB_TRY(push_span(out, start, end, true));
        last = last_match = end;
    }
    if (last < length) PLUMB_TRY(push_span(out, last, length, false));
    return PLUMB_OK;
}
