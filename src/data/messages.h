/* Lists of chat messages in JSON. */
#ifndef PLUMB_DATA_MESSAGES_H
#define PLUMB_DATA_MESSAGES_H
#include "plumb/data.h"

typedef struct messages { /* zero-initialise; strings are borrowed from the record; free with messages_free */
    plumb_message *items;
    size_t capacity;
    int count;
} messages;

/* Appends the messages of a list; `field` names it in messages. */
plumb_status messages_add(messages *m, const json_t *list, const char *field) PLUMB_CHECKED;
plumb_status messages_push(messages *m, const char *role, const char *content) PLUMB_CHECKED;
void messages_free(messages *m);
#endif
