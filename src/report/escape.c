/* Any bytes as HTML that shows them, in elements and in attributes within double quotes.
 *
 * A completion is written by a model, and a prompt by anybody: it may hold markup, bytes that are no UTF-8, control characters that some
 * browsers drop, and characters that turn the direction of everything after them. Markup becomes entities; what cannot be seen becomes
 * visible: control characters as their pictures (U+2400 ...), direction marks and other invisible ones as [U+202E], bytes that are no
 * UTF-8 as U+FFFD. Joiners stay, since emoji and many scripts are made with them. */
#include "report_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREVIEW = 700, LIMIT = 64 << 10 }; /* bytes of a text that are shown at once, and at all */

void report_put(report_page *p, const char *format, ...) {
    if (!report_good(p)) return;
    char text[1024], *longer = NULL;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n >= (int)sizeof text) {
        p->status = plumb_alloc(&longer, (size_t)n + 1, 1, "a report");
        if (!report_good(p)) return;
        va_start(arguments, format);
        vsnprintf(longer, (size_t)n + 1, format, arguments);
        va_end(arguments);
    }
    if (n > 0) p->status = plumb_str_append(&p->text, longer ? longer : text, (size_t)n);
    free(longer);
}

/* The character at s and its size; U+FFFD of one byte where it is none. */
static uint32_t decode(const unsigned char *s, size_t room, size_t *size) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* no overlong forms */
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
    *size = 1;
    if (n == 1) return s[0];
    if (n == 0 || n > room) return 0xfffd;
    uint32_t c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0xfffd;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0xfffd;
    *size = n;
    return c;
}

/* Nothing to see, but it changes what is seen; or no character at all. */
static bool invisible(uint32_t c) {
    return (c >= 0x80 && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e || c == 0x200b || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfdd0 && c <= 0xfdef) ||
           (c & 0xfffe) == 0xfffe;
}

static const char *entity(uint32_t c) {
    switch (c) {
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '&': return "&amp;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return NULL;
    }
}

void report_put_escaped(report_page *p, const char *text, size_t length) {
    const unsigned char *s = (const unsigned char *)text;
    size_t from = 0, size;
    for (size_t i = 0; i < length && report_good(p); i += size) {
        uint32_t c = decode(s + i, length - i, &size);
        char shown[24] = "";
        const char *name = entity(c);
        if (name) snprintf(shown, sizeof shown, "%s", name);
        else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            snprintf(shown, sizeof shown, "&#x%x;", c == 0x7f ? 0x2421 : 0x2400 + c);
        else if (invisible(c)) snprintf(shown, sizeof shown, "[U+%04X]", c);
        else if (c == 0xfffd) snprintf(shown, sizeof shown, "&#xfffd;");
        else continue;
        p->status = plumb_str_append(&p->text, text + from, i - from);
        from = i + size;
        if (report_good(p)) p->status = plumb_str_append(&p->text, shown, strlen(shown));
    }
    if (report_good(p)) p->status = plumb_str_append(&p->text, text + from, length - from);
}

/* The last place up to `at` where a character begins. */
static size_t whole(const char *text, size_t at) {
    size_t i = at;
    while (i > 0 && at - i < 4 && ((unsigned char)text[i] & 0xc0) == 0x80) i--;
    return at - i < 4 ? i : at;
}

void report_put_long(report_page *p, const char *text) {
    size_t length = text ? strlen(text) : 0;
    if (length == 0) {
        report_put(p, "<div class=\"text none\">(empty)</div>");
        return;
    }
    size_t shown = length > PREVIEW + PREVIEW / 4 ? whole(text, PREVIEW) : length, end = length > LIMIT ? whole(text, LIMIT) : length;
    report_put(p, "<div class=text dir=auto>");
    report_put_escaped(p, text, shown);
    if (shown < length) report_put(p, "\xe2\x80\xa6"); /* an ellipsis */
    report_put(p, "</div>");
    if (shown == length) return;
    report_put(p, "<details><summary>%zu more bytes</summary><div class=text dir=auto>", length - shown);
    report_put_escaped(p, text + shown, end - shown);
    report_put(p, "</div>");
    if (end < length) report_put(p, "<p class=note>%zu bytes more are left out here; they are in trajectories/.</p>", length - end);
    report_put(p, "</details>");
}
