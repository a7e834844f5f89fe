/* Chat messages: {"role": …, "content": …}, both strings.  Other members (names, tool calls) are refused where they
 * would change what is rendered and ignored elsewhere. */
#include "messages.h"
#include "records.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

plumb_status messages_push(messages *m, const char *role, const char *content) {
    PLUMB_TRY(plumb_grow(&m->items, &m->capacity, (size_t)m->count + 1, sizeof *m->items));
    m->items[m->count++] = (plumb_message){role, content};
    return PLUMB_OK;
}

static plumb_status member(const json_t *message, const char *field, size_t index, const char *key, const char **out) {
    const json_t *value = json_object_get(message, key);
    if (json_is_string(value)) {
        *out = json_string_value(value);
        return PLUMB_OK;
    }
    const char *hint = value || !json_object_get(message, "from")
                           ? ""
                           : " (\"from\" and \"value\" must be renamed to role and content)";
    return plumb_error(PLUMB_E_DATA, "%s[%zu].%s: found %s, expected a string%s", field, index, key,
                       json_kind_name(value), hint);
}

plumb_status messages_add(messages *m, const json_t *list, const char *field) {
    size_t n = json_array_size(list);
    if (n == 0) return plumb_error(PLUMB_E_DATA, "%s: found an empty list, expected messages", field);
    if (n > (size_t)(INT_MAX - m->count))
        return plumb_error(PLUMB_E_DATA, "%s: found %zu messages, expected fewer", field, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, i);
        const char *role, *content;
        if (!json_is_object(message))
            return plumb_error(PLUMB_E_DATA, "%s[%zu]: found %s, expected a message with role and content", field, i,
                               json_kind_name(message));
        PLUMB_TRY(member(message, field, i, "role", &role));
        PLUMB_TRY(member(message, field, i, "content", &content));
        if (!*role)
            return plumb_error(PLUMB_E_DATA, "%s[%zu].role: found \"\", expected system, user or assistant", field, i);
        const json_t *calls = json_object_get(message, "tool_calls");
        if (calls && !json_is_null(calls) && !(json_is_array(calls) && json_array_size(calls) == 0))
            return plumb_error(PLUMB_E_DATA, "%s[%zu].tool_calls: tool calls are not supported, expected plain content",
                               field, i);
        PLUMB_TRY(messages_push(m, role, content));
    }
    return PLUMB_OK;
}

void messages_free(messages *m) {
    free(m->items);
    *m = (messages){0};
}
