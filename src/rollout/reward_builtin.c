/* Rewards that can be checked without a model.  Each is a pure function of the item.
 *
 * `number` reads decimals as people and models write them and compares them as text, digit by digit in a normal form
 * (sign, digits without zeros at either end, place of the point), since doubles would make 0.1 + 2^-60 equal to 0.1 and
 * 9007199254740993 to its neighbour. */
#include "reward_internal.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct slice {
    const char *at;
    size_t length;
} slice;

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static slice strip(const char *text, size_t length) {
    while (length && is_blank(text[length - 1])) length--;
    while (length && is_blank(*text)) text++, length--;
    return (slice){text, length};
}

plumb_status reward_exact_match(plumb_reward_source *s, const plumb_reward_item *item, double *reward) {
    (void)s;
    slice a = strip(item->completion, strlen(item->completion)), b = strip(item->answer, strlen(item->answer));
    *reward = a.length == b.length && !memcmp(a.at, b.at, a.length);
    return PLUMB_OK;
}

/* --- number ----------------------------------------------------------------------------------- */

typedef struct number { /* (-1)^negative * 0.d1 d2 … * 10^point; the digits are those of `text` from `first` on, less
                           separators */
    bool found, negative;
    const char *first; /* first digit that is not 0 */
    size_t digits;     /* up to the last that is not 0; 0 for zero */
    long long point;
} number;

/* The digits at p, in groups of three after commas where they are written so. */
static const char *skip_integer(const char *p) {
    const char *first = p;
    while (is_digit(*p)) p++;
    if (p - first > 3) return p;
    while (*p == ',' && is_digit(p[1]) && is_digit(p[2]) && is_digit(p[3]) && !is_digit(p[4])) p += 4;
    return p;
}

static const char *skip_exponent(const char *p, long long *exponent) {
    *exponent = 0;
    if (*p != 'e' && *p != 'E') return p;
    const char *q = p + 1;
    bool negative = *q == '-';
    long long value = 0;
    if (*q == '-' || *q == '+') q++;
    if (!is_digit(*q)) return p;
    for (; is_digit(*q); q++)
        if (value < 1000000000) value = value * 10 + (*q - '0');
    *exponent = negative ? -value : value;
    return q;
}

/* Reads the number at p, a digit or the point before one; returns its end. */
static const char *read_number(const char *p, number *n) {
    const char *begin = p, *point = skip_integer(p), *end = point;
    long long exponent, seen = 0, integer = 0;
    if (*point == '.' && is_digit(point[1]))
        for (end = point + 1; is_digit(*end);) end++;
    const char *after = skip_exponent(end, &exponent);
    *n = (number){.found = true};
    for (p = begin; p < end; p++) {
        if (!is_digit(*p)) continue;
        integer += p < point;
        if (*p != '0' && !n->first) n->first = p, n->point = -seen;
        if (*p != '0') n->digits = (size_t)(seen + 1 + n->point);
        seen++;
    }
    n->point = n->first ? n->point + integer + exponent : 0;
    return after;
}

/* A minus directly before the number or its currency sign, and nothing before that which would make it a hyphen or a
 * difference. */
static bool has_minus(const char *text, const char *p) {
    static const char *const currencies[] = {"$", "\xc2\xa3", "\xc2\xa5", "\xe2\x82\xac", "\xe2\x82\xb9"};
    for (size_t i = 0; i < sizeof currencies / sizeof *currencies; i++) {
        size_t n = strlen(currencies[i]);
        if ((size_t)(p - text) < n || memcmp(p - n, currencies[i], n)) continue;
        p -= n;
        break;
    }
    if (p - text >= 3 && !memcmp(p - 3, "\xe2\x88\x92", 3)) /* U+2212 */
        p -= 3;
    else if (p > text && p[-1] == '-')
        p--;
    else
        return false;
    if (p == text) return true;
    return !is_letter(p[-1]) && !is_digit(p[-1]) && !strchr(")]%-", p[-1]);
}

static const char *skip_gap(const char *p) {
    while (*p == ' ' || *p == '\t') p++;
    return p;
}

/* Where a fraction goes on behind p: the next digit, or NULL. */
static const char *fraction(const char *p) {
    p = skip_gap(p);
    if (*p != '/') return NULL;
    p = skip_gap(p + 1);
    return is_digit(*p) ? p : NULL;
}

/* A digit, or a point before one that follows no word, no number and no other point. */
static bool starts_number(const char *text, const char *p) {
    if (*p != '.' || !is_digit(p[1])) return is_digit(*p);
    char before = p == text ? ' ' : p[-1];
    return before != '.' && !is_digit(before) && !is_letter(before);
}

/* The last number of the text; found is false when there is none. Time is linear: every character is read a few times
 * at most. */
static number last_number(const char *text) {
    number last = {0}, n;
    for (const char *p = text; *p;) {
        if (!starts_number(text, p)) {
            p++;
            continue;
        }
        bool minus = has_minus(text, p);
        p = read_number(p, &n);
        n.negative = minus && n.digits;
        const char *next = fraction(p);
        if (!next) last = n;
        for (; next; next = fraction(p)) p = read_number(next, &n); /* 3/4, 1/2/2024: none of its parts counts */
    }
    return last;
}

static char next_digit(const char **p) {
    while (!is_digit(**p)) ++*p; /* separators and the point */
    return *(*p)++;
}

static bool equal(const number *a, const number *b) {
    if (a->negative != b->negative || a->digits != b->digits || a->point != b->point) return false;
    const char *p = a->first, *q = b->first;
    for (size_t i = 0; i < a->digits; i++)
        if (next_digit(&p) != next_digit(&q)) return false;
    return true;
}

plumb_status reward_number(plumb_reward_source *s, const plumb_reward_item *item, double *reward) {
    (void)s;
    const char *answer = item->answer;
    for (const char *mark; (mark = strstr(answer, "####"));) answer = mark + 4;
    number expected = last_number(answer), found = last_number(item->completion);
    if (!expected.found)
        return plumb_error(PLUMB_E_DATA, "the answer \"%.100s\" has no number, expected one such as 42 or #### 42",
                           item->answer);
    *reward = found.found && equal(&found, &expected);
    return PLUMB_OK;
}

/* --- patterns, lengths ------------------------------------------------------------------------ */

plumb_status reward_regex_open(plumb_reward_source *s) {
    return plumb_pattern_create(&s->pattern, s->argument, "reward regex");
}

plumb_status reward_regex(plumb_reward_source *s, const plumb_reward_item *item, double *reward) {
    bool found;
    plumb_status status = plumb_pattern_found(s->pattern, item->completion, strlen(item->completion), &found);
    if (status == PLUMB_E_DATA) s->count++, status = PLUMB_OK; /* too much backtracking: a model's text must not end a run */
    *reward = found;
    return status;
}

plumb_status reward_length_open(plumb_reward_source *s) {
    char *end;
    errno = 0;
    long long n = strtoll(s->argument, &end, 10);
    if (!is_digit(*s->argument) || *end || errno || n < 1)
        return plumb_error(PLUMB_E_CONFIG,
                           "reward length: found \"%.100s\", expected length:N with a number of tokens from 1 on",
                           s->argument);
    s->target = n;
    return PLUMB_OK;
}

plumb_status reward_length(plumb_reward_source *s, const plumb_reward_item *item, double *reward) {
    *reward = -fabs((double)item->tokens - (double)s->target) / (double)s->target;
    return PLUMB_OK;
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* What stands between ``` or ```json on a line of its own and the closing ```; text itself where there is no fence. */
static slice inside_fence(slice t) {
    size_t line = 3;
    if (t.length < 6 || memcmp(t.at, "```", 3) || memcmp(t.at + t.length - 3, "```", 3)) return t;
    while (line < t.length && t.at[line] != '\n') line++;
    slice info = strip(t.at + 3, line - 3);
    bool named = info.length == 4 && (!memcmp(info.at, "json", 4) || !memcmp(info.at, "JSON", 4));
    if (line + 3 > t.length || (info.length && !named)) return t;
    return strip(t.at + line, t.length - 3 - line);
}

plumb_status reward_json(plumb_reward_source *s, const plumb_reward_item *item, double *reward) {
    (void)s;
    bool valid;
    slice text = inside_fence(strip(item->completion, strlen(item->completion)));
    PLUMB_TRY(plumb_json_check(text.at, text.length, &valid));
    *reward = valid;
    return PLUMB_OK;
}
