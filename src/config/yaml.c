/* YAML to rows, event by event.
 *
 * libyaml's events and not its documents: the document API follows aliases and drops anchors, and cannot tell two
 * documents from one. The shape that is allowed is so small (a mapping of scalars and lists of scalars, and one level
 * more for dotted keys) that anything deeper is refused at its first event; nothing recurses on what the file says.
 * Positions are those of libyaml's marks, in characters, counted from 1. */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct plumb_yaml {
    yaml_event_t *events; /* owned */
    size_t count, capacity;
};

typedef struct reader {
    yaml_parser_t parser;
    const plumb_yaml *kept; /* events come from here and stay there; NULL: from the parser */
    size_t at;              /* the next of them */
    yaml_event_t event;     /* the present one; zero type: none */
    plumb_binding *binding;
    bool is_fixed; /* the place is given, that of an argument or default, and not that of the event */
    plumb_place fixed;
    const char *text; /* the input */
    size_t size;
} reader;

static int clamp(size_t n) {
    return n < 1000000000 ? (int)n + 1 : 1000000000;
}

static plumb_place place_of(const reader *r, yaml_mark_t mark) {
    if (r->is_fixed) return r->fixed;
    return (plumb_place){.line = clamp(mark.line), .column = clamp(mark.column), .part = (int)r->binding->part};
}

static plumb_place place(const reader *r) {
    return place_of(r, r->event.start_mark);
}

/* The reader's errors have a byte offset and no mark. */
static yaml_mark_t mark_of_offset(const reader *r, size_t offset) {
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < r->size; i++) {
        if (r->text[i] == '\n') {
            mark.line++;
            mark.column = 0;
        } else if (((unsigned char)r->text[i] & 0xc0) != 0x80) {
            mark.column++;
        }
    }
    return mark;
}

static plumb_status syntax_error(const reader *r) {
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return plumb_error(PLUMB_E_MEMORY, "%.400s: out of memory while reading YAML", r->binding->name);
    const char *problem = p->problem ? p->problem : "cannot be read";
    if (p->error == YAML_READER_ERROR)
        return plumb_config_fault(r->binding, place_of(r, mark_of_offset(r, p->problem_offset)), NULL,
                                  "not valid YAML: %s", problem);
    bool alias = p->context && (strstr(p->context, "alias") || strstr(p->context, "anchor"));
    return plumb_config_fault(r->binding, place_of(r, p->problem_mark), NULL, "not valid YAML: %s%s%s%s", problem,
                              p->context ? ", " : "", p->context ? p->context : "",
                              alias ? "; text that begins with * or & needs quotes" : "");
}

static plumb_status refuse_extras(const reader *r) {
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_SCALAR_EVENT) anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    if (e->type == YAML_SEQUENCE_START_EVENT) anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    if (e->type == YAML_MAPPING_START_EVENT) anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    char excerpt[EXCERPT_SIZE];
    if (e->type == YAML_ALIAS_EVENT)
        return plumb_config_fault(r->binding, place(r), NULL,
                                  "found an alias (*name); expected the value itself: anchors and aliases are not "
                                  "supported, and text that begins with * "
                                  "needs quotes");
    if (anchor)
        return plumb_config_fault(r->binding, place(r), NULL,
                                  "found an anchor (&name); expected the value itself: anchors and aliases are not "
                                  "supported, and text that begins with & "
                                  "needs quotes");
    if (tag)
        return plumb_config_fault(
            r->binding, place(r), NULL,
            "found a tag (%s); expected the value alone: a key has one type, tags are not supported",
            plumb_config_excerpt(excerpt, (const char *)tag, strlen((const char *)tag)));
    return PLUMB_OK;
}

static plumb_status next(reader *r) {
    if (r->kept) {
        r->event = r->kept->events[r->at++]; /* borrowed; a mapping that was opened is closed before they end */
        return PLUMB_OK;
    }
    yaml_event_delete(&r->event);
    memset(&r->event, 0, sizeof r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) return syntax_error(r);
    return refuse_extras(r);
}

static plumb_scalar scalar_in(const yaml_event_t *e) {
    return (plumb_scalar){.text = (const char *)e->data.scalar.value,
                          .length = e->data.scalar.length,
                          .quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE};
}

static plumb_scalar scalar_of(const reader *r) {
    return scalar_in(&r->event);
}

static int depth_change(const yaml_event_t *e) {
    bool opens = e->type == YAML_MAPPING_START_EVENT || e->type == YAML_SEQUENCE_START_EVENT;
    return opens - (e->type == YAML_MAPPING_END_EVENT || e->type == YAML_SEQUENCE_END_EVENT);
}

/* --- lists ------------------------------------------------------------------------------------ */
static plumb_status read_item(reader *r, const plumb_option *row, char **item) {
    if (r->event.type != YAML_SCALAR_EVENT)
        return plumb_config_mismatch(r->binding, place(r), row,
                                     r->event.type == YAML_MAPPING_START_EVENT ? "a mapping in the list"
                                                                               : "a list in the list");
    plumb_scalar value = scalar_of(r);
    if (plumb_config_is_null(value))
        return plumb_config_mismatch(r->binding, place(r), row, value.length ? "null in the list" : "an empty item");
    if (strlen(value.text) != value.length) return plumb_config_mismatch(r->binding, place(r), row, "a NUL character");
    return plumb_config_copy(item, value.text, value.length);
}

/* The present event opens the list; afterwards it is the one that closes it. */
static plumb_status read_list(reader *r, const plumb_option *row) {
    plumb_place at = place(r);
    char **items = NULL;
    size_t capacity = 0;
    int count = 0;
    plumb_status status;
    for (;;) {
        status = next(r);
        if (status != PLUMB_OK || r->event.type == YAML_SEQUENCE_END_EVENT) break;
        if (count >= row->high) {
            status = plumb_config_fault(r->binding, place(r), row->key, "found more than %.0f items", row->high);
            break;
        }
        status = plumb_grow(&items, &capacity, (size_t)count + 1, sizeof *items);
        if (status == PLUMB_OK) status = read_item(r, row, &items[count]);
        if (status != PLUMB_OK) break;
        count++;
    }
    if (status == PLUMB_OK) return plumb_config_set_list(r->binding, row, at, items, count);
    plumb_config_free_list(items, count);
    return status;
}

/* --- mappings --------------------------------------------------------------------------------- */
/* The whole name of the key in the present event: prefix.key. */
static plumb_status read_key(reader *r, const char *prefix, char key[KEY_MAX]) {
    if (r->event.type != YAML_SCALAR_EVENT)
        return plumb_config_fault(r->binding, place(r), NULL, "found a list or mapping as a key; expected a word");
    plumb_scalar text = scalar_of(r);
    char excerpt[EXCERPT_SIZE];
    if (text.length == 0 || strlen(text.text) != text.length || strlen(prefix) + text.length + 2 > KEY_MAX)
        return plumb_config_fault(r->binding, place(r), NULL, "unknown key %s",
                                  plumb_config_excerpt(excerpt, text.text, text.length));
    snprintf(key, KEY_MAX, "%s%s%s", prefix, *prefix ? "." : "", text.text);
    return PLUMB_OK;
}

static plumb_status read_value(reader *r, const plumb_option *row) {
    if (r->event.type == YAML_SCALAR_EVENT) return plumb_config_set_scalar(r->binding, row, place(r), scalar_of(r));
    if (r->event.type == YAML_MAPPING_START_EVENT) return plumb_config_mismatch(r->binding, place(r), row, "a mapping");
    if (row->type != PLUMB_OPT_LIST) return plumb_config_mismatch(r->binding, place(r), row, "a list");
    return read_list(r, row);
}

/* Keys that are read elsewhere: what a stage is, and what only another stage's command knows. */
static bool is_elsewhere(const plumb_binding *b, const char *key) {
    if (b->part == PLUMB_PART_STAGE) return !strcmp(key, "name") || !strcmp(key, "command");
    if (b->part != PLUMB_PART_DEFAULTS || plumb_config_find(b->command, key) || plumb_config_is_group(b->command, key)) return false;
    return plumb_config_find(b->commands, key) || plumb_config_is_group(b->commands, key);
}

static plumb_status pass_over(reader *r) {
    int depth = 0;
    do {
        PLUMB_TRY(next(r));
        depth += depth_change(&r->event);
    } while (depth > 0);
    return PLUMB_OK;
}

/* The present event opens the mapping. Recurses only into groups of the table, which lie one deep. */
static plumb_status read_mapping(reader *r, const char *prefix) {
    plumb_binding *b = r->binding;
    for (;;) {
        char key[KEY_MAX];
        PLUMB_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return PLUMB_OK;
        PLUMB_TRY(read_key(r, prefix, key));
        plumb_place at = place(r);
        const plumb_option *row = plumb_config_find(b->command, key);
        if (is_elsewhere(b, key)) {
            PLUMB_TRY(pass_over(r));
        } else if (row) {
            plumb_place before = plumb_config_place(b, key);
            int line = before.line;
            if (line && before.part == at.part)
                return plumb_config_fault(b, at, key, "found the key again (it is also in line %d); expected it once",
                                          line);
            PLUMB_TRY(next(r));
            PLUMB_TRY(read_value(r, row));
        } else if (plumb_config_is_group(b->command, key)) {
            PLUMB_TRY(next(r));
            if (r->event.type != YAML_MAPPING_START_EVENT) return plumb_config_unknown(b, at, key);
            PLUMB_TRY(read_mapping(r, key));
        } else {
            return plumb_config_unknown(b, at, key);
        }
    }
}

static plumb_status open_reader(reader *r, plumb_binding *b, const char *text, size_t size) {
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, size -= 3; /* byte order mark */
    *r = (reader){.binding = b, .text = text, .size = size};
    if (!yaml_parser_initialize(&r->parser))
        return plumb_error(PLUMB_E_MEMORY, "%.400s: out of memory while reading YAML", b->name);
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, size);
    return PLUMB_OK;
}

static void close_reader(reader *r) {
    yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
}

static plumb_status read_document(reader *r) {
    PLUMB_TRY(next(r)); /* stream start */
    PLUMB_TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return PLUMB_OK; /* nothing but comments: all defaults */
    PLUMB_TRY(next(r));
    bool empty = r->event.type == YAML_SCALAR_EVENT && plumb_config_is_null(scalar_of(r));
    if (!empty && r->event.type != YAML_MAPPING_START_EVENT)
        return plumb_config_fault(r->binding, place(r), NULL, "found %s; expected lines such as 'model: path'",
                                  r->event.type == YAML_SCALAR_EVENT ? "a text" : "a list");
    if (!empty) PLUMB_TRY(read_mapping(r, ""));
    PLUMB_TRY(next(r)); /* document end */
    PLUMB_TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return PLUMB_OK;
    return plumb_config_fault(r->binding, place(r), NULL, "found a second document; expected one");
}

plumb_status plumb_config_read_yaml(plumb_binding *b, const char *text, size_t size) {
    reader r;
    PLUMB_TRY(open_reader(&r, b, text, size));
    plumb_status status = read_document(&r);
    close_reader(&r);
    return status;
}

static plumb_status read_flow_list(reader *r, const plumb_option *row) {
    for (int i = 0; i < 3; i++) PLUMB_TRY(next(r)); /* stream, document, list */
    if (r->event.type != YAML_SEQUENCE_START_EVENT)
        return plumb_config_mismatch(r->binding, r->fixed, row, "no list in brackets");
    PLUMB_TRY(read_list(r, row));
    for (int i = 0; i < 2; i++) PLUMB_TRY(next(r));
    return r->event.type == YAML_STREAM_END_EVENT
               ? PLUMB_OK
               : plumb_config_mismatch(r->binding, r->fixed, row, "more than a list");
}

plumb_status plumb_config_read_flow_list(plumb_binding *b, const plumb_option *row, plumb_place at, const char *text) {
    reader r;
    PLUMB_TRY(open_reader(&r, b, text, strlen(text)));
    r.is_fixed = true;
    r.fixed = at;
    plumb_status status = read_flow_list(&r, row);
    close_reader(&r);
    return status;
}

/* --- documents in parts ----------------------------------------------------------------------- */
static plumb_status keep_events(reader *r, plumb_yaml *y) {
    for (;;) {
        PLUMB_TRY(next(r));
        yaml_event_type_t type = r->event.type;
        if (type == YAML_STREAM_END_EVENT) return PLUMB_OK;
        if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_END_EVENT) continue;
        if (type == YAML_DOCUMENT_START_EVENT) {
            if (y->count) return plumb_config_fault(r->binding, place(r), NULL, "found a second document; expected one");
            continue;
        }
        PLUMB_TRY(plumb_grow(&y->events, &y->capacity, y->count + 1, sizeof *y->events));
        y->events[y->count++] = r->event;
        memset(&r->event, 0, sizeof r->event); /* it has a new owner */
    }
}

static plumb_yaml_node node_at(const plumb_yaml *y, size_t event) {
    const yaml_event_t *e = &y->events[event];
    plumb_yaml_node n = {.event = event, .at = {.line = clamp(e->start_mark.line), .column = clamp(e->start_mark.column)}};
    n.kind = e->type == YAML_MAPPING_START_EVENT    ? PLUMB_YAML_MAPPING
             : e->type == YAML_SEQUENCE_START_EVENT ? PLUMB_YAML_LIST
                                                    : PLUMB_YAML_SCALAR;
    if (n.kind == PLUMB_YAML_SCALAR) n.scalar = scalar_in(e);
    return n;
}

static size_t event_after(const plumb_yaml *y, size_t event) {
    int depth = 0;
    do depth += depth_change(&y->events[event++]);
    while (depth > 0);
    return event;
}

plumb_status plumb_yaml_open(plumb_yaml **out, const plumb_binding *b, const char *text, size_t size, plumb_yaml_node *root) {
    reader r;
    plumb_yaml *y;
    *out = NULL;
    plumb_binding place_only = *b;
    PLUMB_TRY(plumb_alloc(&y, 1, sizeof *y, "a YAML document"));
    plumb_status status = open_reader(&r, &place_only, text, size);
    if (status == PLUMB_OK) {
        status = keep_events(&r, y);
        close_reader(&r);
    }
    if (status == PLUMB_OK && y->count == 0) status = plumb_error(PLUMB_E_CONFIG, "%.400s: the file is empty", b->name);
    if (status != PLUMB_OK) {
        plumb_yaml_close(y);
        return status;
    }
    *root = node_at(y, 0);
    *out = y;
    return PLUMB_OK;
}

void plumb_yaml_close(plumb_yaml *y) {
    if (!y) return;
    for (size_t i = 0; i < y->count; i++) yaml_event_delete(&y->events[i]);
    free(y->events);
    free(y);
}

plumb_yaml_walk plumb_yaml_enter(const plumb_yaml_node *node) {
    return (plumb_yaml_walk){node->event + 1, node->kind == PLUMB_YAML_MAPPING};
}

bool plumb_yaml_next(const plumb_yaml *y, plumb_yaml_walk *walk, plumb_yaml_node *key, plumb_yaml_node *value) {
    if (depth_change(&y->events[walk->event]) < 0) return false;
    if (walk->mapping) {
        *key = node_at(y, walk->event);
        walk->event = event_after(y, walk->event);
    }
    *value = node_at(y, walk->event);
    walk->event = event_after(y, walk->event);
    return true;
}

plumb_status plumb_yaml_bind(plumb_binding *b, const plumb_yaml *y, const plumb_yaml_node *mapping) {
    reader r = {.binding = b, .kept = y, .at = mapping->event};
    PLUMB_TRY(next(&r));
    return read_mapping(&r, "");
}
