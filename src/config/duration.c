/* Spans of time as people write them: "90s", "55m", "3h30m", "1d". */
#include "config_internal.h"
#include <string.h>

plumb_status plumb_duration_parse(const char *text, double *seconds) {
    static const struct {
        char unit;
        double seconds;
    } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    char excerpt[EXCERPT_SIZE];
    *seconds = 0;
    if (!text) return PLUMB_OK;
    double total = 0;
    size_t next = 0; /* larger units come first, each once */
    for (const char *s = text; *s;) {
        double number = 0;
        const char *first = s;
        while (*s >= '0' && *s <= '9' && number < 1e9) number = number * 10 + (*s++ - '0');
        while (s > first && next < sizeof units / sizeof *units && units[next].unit != *s) next++;
        if (s == first || number >= 1e9 || next == sizeof units / sizeof *units)
            return plumb_error(PLUMB_E_CONFIG,
                               "found %s; expected a time such as 90s, 55m, 3h30m or 1d (d, h, m, s in this order)",
                               plumb_config_excerpt(excerpt, text, strlen(text)));
        total += number * units[next++].seconds;
        s++;
    }
    if (total == 0 && *text)
        return plumb_error(PLUMB_E_CONFIG, "found %s; expected a time above 0, or nothing for no limit",
                           plumb_config_excerpt(excerpt, text, strlen(text)));
    *seconds = total;
    return PLUMB_OK;
}
