/* UTF-8 as Unicode 3.9 defines it (table 3-7): what is a character, what is not, and where the damage ends.
 * Everything behind plumb_tokenize may trust its text to be valid, because it was repaired here once. */
#include "tokenizer.h"
#include <string.h>
#include <utf8proc.h>

size_t plumb_utf8_step(const char *text, size_t length, size_t *bad) {
    const uint8_t *s = (const uint8_t *)text;
    uint8_t lead = s[0], low = 0x80, high = 0xbf;
    size_t size = lead < 0x80                   ? 1
                  : lead >= 0xc2 && lead < 0xe0 ? 2
                  : (lead & 0xf0) == 0xe0       ? 3
                  : lead >= 0xf0 && lead < 0xf5 ? 4
                                                : 0;
    *bad = 1;
    if (size == 0) return 0;
    if (lead == 0xe0) low = 0xa0; /* no overlong forms, no surrogates, nothing above U+10FFFF */
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    for (size_t i = 1; i < size; i++) {
        if (i == length || s[i] < low || s[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return size;
}

bool plumb_utf8_valid(const char *text, size_t length) {
    size_t i = 0, bad;
    while (i < length) {
        size_t n = (uint8_t)text[i] < 0x80 ? 1 : plumb_utf8_step(text + i, length - i, &bad);
        if (!n) return false;
        i += n;
    }
    return true;
}

plumb_status plumb_utf8_repair(const char *text, size_t length, plumb_str *out) {
    size_t from = 0, i = 0, bad;
    if (!length) return plumb_str_append(out, "", 0); /* nothing may be NULL, and stays a string */
    while (i < length) {
        size_t n = plumb_utf8_step(text + i, length - i, &bad);
        if (n) {
            i += n;
            continue;
        }
        PLUMB_TRY(plumb_str_append(out, text + from, i - from));
        PLUMB_TRY(plumb_str_append(out, "\xef\xbf\xbd", 3));
        from = i += bad;
    }
    return plumb_str_append(out, text + from, length - from);
}

size_t plumb_utf8_size(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

uint32_t plumb_utf8_decode(const char *text, size_t *size) {
    const uint8_t *s = (const uint8_t *)text;
    *size = plumb_utf8_size(s[0]);
    switch (*size) {
    case 1: return s[0];
    case 2: return (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
    case 3: return (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
    default: return (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 | (uint32_t)(s[2] & 63) << 6 | (s[3] & 63);
    }
}

size_t plumb_utf8_encode(uint32_t point, char out[4]) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | point >> 6);
        out[1] = (char)(0x80 | (point & 63));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 63));
        out[2] = (char)(0x80 | (point & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 63));
    out[2] = (char)(0x80 | (point >> 6 & 63));
    out[3] = (char)(0x80 | (point & 63));
    return 4;
}

size_t plumb_utf8_last(const char *text, size_t length) {
    size_t i = length - 1;
    while (i > 0 && ((uint8_t)text[i] & 0xc0) == 0x80) i--;
    return i;
}

bool plumb_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool plumb_is_word(uint32_t c) {
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9))
        return true; /* joiners; circled letters are Alphabetic */
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
    }
}
