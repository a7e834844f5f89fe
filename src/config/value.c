/* Text to numbers, and what is said when it is not one.
 *
 * The grammar is checked here, character by character, before strtoll or strtod sees the text: those two also take
 * leading blanks, hexadecimal, "inf", "nan" and stop silently at the first character that does not fit.  A leading zero
 * is refused because its meaning is in doubt: 010 is 8 in YAML 1.1 and 10 in YAML 1.2.  The program never calls
 * setlocale, so that the decimal point is a point. */
#include "config_internal.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { SHAPE_WHOLE, SHAPE_FRACTION, SHAPE_LEADING_ZERO, SHAPE_OTHER } shape;

static size_t digits(const char *text, size_t from) {
    size_t n = from;
    while (text[n] >= '0' && text[n] <= '9') n++;
    return n - from;
}

/* [+-]? ( D+ | D+ . D* | . D+ ) ( [eE] [+-]? D+ )? over the whole text. */
static shape shape_of(const char *text, size_t length) {
    size_t i = text[0] == '+' || text[0] == '-', start = i;
    size_t before = digits(text, i), after = 0;
    bool fraction = false;
    i += before;
    if (text[i] == '.') {
        fraction = true;
        after = digits(text, ++i);
        i += after;
    }
    if (before + after == 0) return SHAPE_OTHER;
    if (text[i] == 'e' || text[i] == 'E') {
        fraction = true;
        i++;
        if (text[i] == '+' || text[i] == '-') i++;
        size_t exponent = digits(text, i);
        if (!exponent) return SHAPE_OTHER;
        i += exponent;
    }
    if (i != length) return SHAPE_OTHER;
    if (before > 1 && text[start] == '0') return SHAPE_LEADING_ZERO;
    return fraction ? SHAPE_FRACTION : SHAPE_WHOLE;
}

bool plumb_config_is_null(plumb_scalar value) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (value.quoted) return false;
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        if (value.length == strlen(nulls[i]) && !memcmp(value.text, nulls[i], value.length)) return true;
    return false;
}

int plumb_config_utf8(const char *text, size_t length, uint32_t *code) {
    const unsigned char *s = (const unsigned char *)text;
    if (length == 0) return 0;
    *code = s[0];
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || (size_t)n > length) return 0;
    *code = s[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (*code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000)) return 0;
    return n;
}

const char *plumb_config_excerpt(char buffer[EXCERPT_SIZE], const char *text, size_t length) {
    size_t used = 0;
    buffer[used++] = '\'';
    for (size_t i = 0; i < length;) {
        uint32_t code;
        int n = plumb_config_utf8(text + i, length - i, &code);
        if (used + 9 > EXCERPT_SIZE) { /* a character, "…", the quote and NUL */
            memcpy(buffer + used, "…", strlen("…"));
            used += strlen("…");
            break;
        }
        if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
            buffer[used++] = '?'; /* a terminal must not obey what a file says */
            i += n ? (size_t)n : 1;
        } else {
            memcpy(buffer + used, text + i, (size_t)n);
            used += (size_t)n;
            i += (size_t)n;
        }
    }
    buffer[used++] = '\'';
    buffer[used] = 0;
    return buffer;
}

static plumb_status number_mismatch(const plumb_binding *b, plumb_place at, const plumb_option *row,
                                    plumb_scalar value) {
    char excerpt[EXCERPT_SIZE], found[EXCERPT_SIZE + 160];
    plumb_config_excerpt(excerpt, value.text, value.length);
    if (value.quoted)
        snprintf(found, sizeof found, "the text %s in quotes", excerpt);
    else if (plumb_config_is_null(value))
        snprintf(found, sizeof found, "%s", value.length ? "null" : "nothing");
    else if (shape_of(value.text, value.length) == SHAPE_LEADING_ZERO)
        snprintf(found, sizeof found, "%s (a leading zero is refused: YAML 1.1 and 1.2 read it differently)", excerpt);
    else
        snprintf(found, sizeof found, "%s", excerpt);
    return plumb_config_mismatch(b, at, row, found);
}

plumb_status plumb_config_parse_int(const plumb_binding *b, plumb_place at, const plumb_option *row, plumb_scalar value,
                                    int64_t *out) {
    if (value.quoted || shape_of(value.text, value.length) != SHAPE_WHOLE) return number_mismatch(b, at, row, value);
    errno = 0;
    char *end;
    long long number = strtoll(value.text, &end, 10);
    if (errno == ERANGE || end != value.text + value.length || number < (long long)row->low ||
        number > (long long)row->high) /* bounds are whole and below 2^63 */
        return number_mismatch(b, at, row, value);
    *out = number;
    return PLUMB_OK;
}

plumb_status plumb_config_parse_float(const plumb_binding *b, plumb_place at, const plumb_option *row,
                                      plumb_scalar value, double *out) {
    shape s = value.quoted ? SHAPE_OTHER : shape_of(value.text, value.length);
    if (s != SHAPE_WHOLE && s != SHAPE_FRACTION) return number_mismatch(b, at, row, value);
    errno = 0;
    char *end;
    double number = strtod(value.text, &end); /* ERANGE: beyond the largest double, or so small that digits are lost */
    if (errno == ERANGE || end != value.text + value.length || !isfinite(number) || number < row->low ||
        number > row->high)
        return number_mismatch(b, at, row, value);
    *out = number == 0 ? 0 : number; /* no negative zero */
    return PLUMB_OK;
}

static bool upper_is_open(double high, char *text, size_t room) {
    snprintf(text, room, "%g", high);
    return strtod(text, NULL) > high; /* the nearest double below a round number */
}

static plumb_status expected_number(const plumb_option *row, plumb_str *out) {
    char high[32];
    bool whole = row->type == PLUMB_OPT_INT, open = !whole && upper_is_open(row->high, high, sizeof high);
    if (whole) snprintf(high, sizeof high, "%.0f", row->high);
    PLUMB_TRY(plumb_str_printf(out, "%s ", whole ? "a whole number" : "a number"));
    if (row->low > 0 && row->low < 1e-300) {
        PLUMB_TRY(plumb_str_printf(out, "above 0, "));
    } else if (row->high >= 1e15) {
        return plumb_str_printf(out, "from %.0f", row->low);
    } else {
        PLUMB_TRY(plumb_str_printf(out, "from %g ", row->low));
        if (!open) return plumb_str_printf(out, "to %s", high);
    }
    return plumb_str_printf(out, "%s %s", open ? "below" : "at most", high);
}

plumb_status plumb_config_expected(const plumb_option *row, plumb_str *out) {
    switch (row->type) {
    case PLUMB_OPT_INT:
    case PLUMB_OPT_FLOAT: return expected_number(row, out);
    case PLUMB_OPT_BOOL: return plumb_str_printf(out, "true or false");
    case PLUMB_OPT_LIST:
        return plumb_str_printf(out, "a list of texts%s, such as [a, b]", row->low > 0 ? " with at least one" : "");
    case PLUMB_OPT_STRING: return plumb_str_printf(out, "text");
    case PLUMB_OPT_CHOICE: break;
    }
    PLUMB_TRY(plumb_str_printf(out, "one of "));
    for (const char *c = row->choices; *c; c++)
        PLUMB_TRY(*c == '|' ? plumb_str_append(out, ", ", 2) : plumb_str_append(out, c, 1));
    return PLUMB_OK;
}
