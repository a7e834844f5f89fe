/* The four pipeline sections of a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Each becomes a flat list of steps; a Sequence is its members in order.  Several pre-tokenizers of the tokenizers
 * library are one kind of step here, a split by a pattern.  What is not understood is refused by name, because ids that
 * are almost right are worse than an error. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

typedef plumb_status (*reader)(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out);

static plumb_status bad(const plumb_tokenizer *t, const char *type, const char *key, const char *expected) {
    return plumb_error(PLUMB_E_FORMAT, "%s: %s.%s: %s expected", t->name, type, key, expected);
}

static plumb_status read_flag(const plumb_tokenizer *t, const json_t *item, const char *type, const char *key,
                              bool otherwise, bool *out) {
    const json_t *value = json_object_get(item, key);
    *out = value ? json_is_true(value) : otherwise;
    return !value || json_is_boolean(value) ? PLUMB_OK : bad(t, type, key, "true or false");
}

static plumb_status new_step(plumb_steps *s, plumb_step_kind kind, plumb_step **out) {
    PLUMB_TRY(plumb_grow(&s->list, &s->capacity, s->count + 1, sizeof *s->list));
    *out = &s->list[s->count++];
    **out = (plumb_step){.kind = kind};
    return PLUMB_OK;
}

static plumb_status set_text(plumb_step *s, const char *text, size_t length) {
    PLUMB_TRY(plumb_alloc(&s->text, length + 1, 1, "a tokenizer's text"));
    memcpy(s->text, text, length);
    s->length = length;
    return PLUMB_OK;
}

static plumb_status read_text(const plumb_tokenizer *t, const json_t *item, const char *type, const char *key,
                              plumb_step *s) {
    const json_t *value = json_object_get(item, key);
    if (!json_is_string(value)) return bad(t, type, key, "a string");
    return set_text(s, json_string_value(value), json_string_length(value));
}

static plumb_status read_character(const plumb_tokenizer *t, const json_t *item, const char *type, const char *key,
                                   plumb_step *s) {
    PLUMB_TRY(read_text(t, item, type, key, s));
    if (!s->length || plumb_utf8_size((unsigned char)s->text[0]) != s->length)
        return bad(t, type, key, "one character");
    return PLUMB_OK;
}

/* {"String": s} or {"Regex": s}, or a plain string */
static plumb_status read_pattern(const plumb_tokenizer *t, const json_t *item, const char *type, const char *key,
                                 plumb_step *s) {
    const json_t *value = json_object_get(item, key), *text = json_object_get(value, "String"),
                 *regex = json_object_get(value, "Regex");
    if (json_is_string(value)) text = value;
    bool literal = json_is_string(text);
    if (!literal && !json_is_string(regex)) return bad(t, type, key, "{\"String\": …} or {\"Regex\": …}");
    const json_t *pattern = literal ? text : regex;
    if (!json_string_length(pattern)) return bad(t, type, key, "a pattern that is not empty");
    return plumb_regex_compile(&s->regex, json_string_value(pattern), json_string_length(pattern), literal, t->name);
}

static plumb_status read_behavior(const plumb_tokenizer *t, const json_t *item, const char *type, plumb_behavior *out) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(item, "behavior"));
    for (int i = 0; name && i < 5; i++) {
        if (strcmp(name, names[i])) continue;
        *out = (plumb_behavior)i;
        return PLUMB_OK;
    }
    return bad(t, type, "behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/* The members of a section one after the other; Sequences are opened. */
static plumb_status read_section(plumb_tokenizer *t, const json_t *item, const char *section, const char *members,
                                 reader read, plumb_steps *out) {
    if (!item || json_is_null(item)) return PLUMB_OK;
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!type) return bad(t, section, "type", "a string");
    if (strcmp(type, "Sequence")) return read(t, item, type, out);
    const json_t *list = json_object_get(item, members);
    if (!json_is_array(list)) return bad(t, section, members, "an array");
    for (size_t i = 0; i < json_array_size(list); i++)
        PLUMB_TRY(read_section(t, json_array_get(list, i), section, members, read, out));
    return PLUMB_OK;
}

/* --- normalizer ------------------------------------------------------------------------------- */
static plumb_status read_normalizer(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out) {
    static const struct {
        const char *name;
        plumb_step_kind kind;
    } kinds[] = {{"NFC", PLUMB_NORM_NFC},
                 {"NFD", PLUMB_NORM_NFD},
                 {"NFKC", PLUMB_NORM_NFKC},
                 {"NFKD", PLUMB_NORM_NFKD},
                 {"Prepend", PLUMB_NORM_PREPEND},
                 {"Replace", PLUMB_NORM_REPLACE},
                 {"Lowercase", PLUMB_NORM_LOWERCASE},
                 {"Strip", PLUMB_NORM_STRIP}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].name)) continue;
        plumb_step *s;
        PLUMB_TRY(new_step(out, kinds[i].kind, &s));
        if (s->kind == PLUMB_NORM_PREPEND) return read_text(t, item, type, "prepend", s);
        if (s->kind == PLUMB_NORM_REPLACE) {
            PLUMB_TRY(read_pattern(t, item, type, "pattern", s));
            return read_text(t, item, type, "content", s);
        }
        if (s->kind != PLUMB_NORM_STRIP) return PLUMB_OK;
        PLUMB_TRY(read_flag(t, item, type, "strip_left", true, &s->left));
        return read_flag(t, item, type, "strip_right", true, &s->right);
    }
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: normalizer \"%s\" is not supported (NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, "
                       "Strip and Sequence are)",
                       t->name, type);
}

/* What the regex crate calls \w: the pre-tokenizer Whitespace does not go through Oniguruma. */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

/* --- pre-tokenizer ---------------------------------------------------------------------------- */
static plumb_status add_split(plumb_tokenizer *t, const char *pattern, plumb_behavior behavior, bool invert,
                              plumb_steps *out) {
    plumb_step *s;
    PLUMB_TRY(new_step(out, PLUMB_PRE_SPLIT, &s));
    s->behavior = behavior;
    s->invert = invert;
    return plumb_regex_compile(&s->regex, pattern, strlen(pattern), false, t->name);
}

static plumb_status read_byte_level(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out) {
    bool space, regex;
    plumb_step *s;
    PLUMB_TRY(read_flag(t, item, type, "add_prefix_space", true, &space));
    PLUMB_TRY(read_flag(t, item, type, "use_regex", true, &regex));
    if (space) PLUMB_TRY(new_step(out, PLUMB_PRE_PREFIX_SPACE, &s));
    if (regex) PLUMB_TRY(add_split(t, plumb_byte_level_regex, PLUMB_ISOLATED, false, out));
    return new_step(out, PLUMB_PRE_BYTES, &s);
}

static plumb_status read_metaspace(plumb_tokenizer *t, const json_t *item, const char *type, plumb_step *s) {
    PLUMB_TRY(read_character(t, item, type, "replacement", s));
    PLUMB_TRY(read_flag(t, item, type, "split", true, &s->split));
    const json_t *scheme = json_object_get(item, "prepend_scheme");
    const char *name = scheme ? json_string_value(scheme) : "always";
    if (!name) return bad(t, type, "prepend_scheme", "a string");
    if (!strcmp(name, "always"))
        s->prepend = PLUMB_PREPEND_ALWAYS;
    else if (!strcmp(name, "first"))
        s->prepend = PLUMB_PREPEND_FIRST;
    else if (!strcmp(name, "never"))
        s->prepend = PLUMB_PREPEND_NEVER;
    else
        return bad(t, type, "prepend_scheme", "\"always\", \"first\" or \"never\"");
    bool prefix; /* the older spelling */
    PLUMB_TRY(read_flag(t, item, type, "add_prefix_space", true, &prefix));
    if (!prefix && !scheme) s->prepend = PLUMB_PREPEND_NEVER;
    if (!prefix && scheme && s->prepend != PLUMB_PREPEND_NEVER)
        return bad(t, type, "prepend_scheme", "\"never\" beside add_prefix_space: false");
    return PLUMB_OK;
}

static plumb_status read_pre_tokenizer(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out) {
    plumb_step *s;
    if (!strcmp(type, "ByteLevel")) return read_byte_level(t, item, type, out);
    if (!strcmp(type, "Split")) {
        PLUMB_TRY(new_step(out, PLUMB_PRE_SPLIT, &s));
        PLUMB_TRY(read_pattern(t, item, type, "pattern", s));
        PLUMB_TRY(read_behavior(t, item, type, &s->behavior));
        return read_flag(t, item, type, "invert", false, &s->invert);
    }
    if (!strcmp(type, "Digits")) {
        bool individual;
        PLUMB_TRY(read_flag(t, item, type, "individual_digits", false, &individual));
        return add_split(t, "\\p{N}", individual ? PLUMB_ISOLATED : PLUMB_CONTIGUOUS, false, out);
    }
    if (!strcmp(type, "Metaspace")) {
        PLUMB_TRY(new_step(out, PLUMB_PRE_METASPACE, &s));
        return read_metaspace(t, item, type, s);
    }
    if (!strcmp(type, "Whitespace")) return add_split(t, "[" WORDS "]+|[^" WORDS "\\s]+", PLUMB_REMOVED, true, out);
    if (!strcmp(type, "WhitespaceSplit")) return add_split(t, "\\s", PLUMB_REMOVED, false, out);
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: pre_tokenizer \"%s\" is not supported (ByteLevel, Split, Digits, Metaspace, Whitespace, "
                       "WhitespaceSplit and Sequence are)",
                       t->name, type);
}

/* --- post-processor --------------------------------------------------------------------------- */
static plumb_status read_special(plumb_tokenizer *t, const json_t *item, const json_t *special, plumb_ids *out) {
    const char *id = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
    const json_t *ids = id ? json_object_get(json_object_get(special, id), "ids") : NULL;
    if (!json_is_array(ids))
        return bad(t, "TemplateProcessing", "single", "special tokens that special_tokens defines, with their ids,");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        size_t length;
        json_int_t value = json_is_integer(json_array_get(ids, i)) ? json_integer_value(json_array_get(ids, i)) : -1;
        if (value < 0 || value >= PLUMB_VOCAB_LIMIT || !plumb_vocab_text(&t->vocab, (int32_t)value, &length))
            return bad(t, "TemplateProcessing", "special_tokens", "ids of the vocabulary");
        PLUMB_TRY(plumb_ids_push(out, (int32_t)value));
    }
    return PLUMB_OK;
}

static plumb_status read_template(plumb_tokenizer *t, const json_t *item) {
    const json_t *single = json_object_get(item, "single"), *special = json_object_get(item, "special_tokens");
    int sequences = 0;
    if (!json_is_array(single)) return bad(t, "TemplateProcessing", "single", "an array");
    if (t->prefix.count || t->suffix.count)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: post_processor: more than one TemplateProcessing is not supported",
                           t->name);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i);
        const char *name = json_string_value(json_object_get(json_object_get(part, "Sequence"), "id"));
        if (name && !strcmp(name, "A"))
            sequences++;
        else
            PLUMB_TRY(read_special(t, part, special, sequences ? &t->suffix : &t->prefix));
    }
    return sequences == 1 ? PLUMB_OK : bad(t, "TemplateProcessing", "single", "the sequence A exactly once");
}

static plumb_status read_post_processor(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out) {
    (void)out;
    if (!strcmp(type, "ByteLevel")) return PLUMB_OK; /* it moves offsets only */
    if (!strcmp(type, "TemplateProcessing")) return read_template(t, item);
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: post_processor \"%s\" is not supported (TemplateProcessing, ByteLevel and Sequence are)",
                       t->name, type);
}

/* --- decoder ---------------------------------------------------------------------------------- */
static plumb_status read_count(const plumb_tokenizer *t, const json_t *item, const char *key, size_t *out) {
    const json_t *value = json_object_get(item, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0) return bad(t, "Strip", key, "a number of characters");
    *out = (size_t)json_integer_value(value);
    return PLUMB_OK;
}

static plumb_status read_decoder(plumb_tokenizer *t, const json_t *item, const char *type, plumb_steps *out) {
    static const struct {
        const char *name;
        plumb_step_kind kind;
    } kinds[] = {{"ByteLevel", PLUMB_DEC_BYTE_LEVEL},
                 {"Replace", PLUMB_DEC_REPLACE},
                 {"ByteFallback", PLUMB_DEC_BYTE_FALLBACK},
                 {"Fuse", PLUMB_DEC_FUSE},
                 {"Strip", PLUMB_DEC_STRIP},
                 {"Metaspace", PLUMB_DEC_METASPACE}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].name)) continue;
        plumb_step *s;
        PLUMB_TRY(new_step(out, kinds[i].kind, &s));
        if (s->kind == PLUMB_DEC_METASPACE) return read_metaspace(t, item, type, s);
        if (s->kind == PLUMB_DEC_REPLACE) {
            PLUMB_TRY(read_pattern(t, item, type, "pattern", s));
            return read_text(t, item, type, "content", s);
        }
        if (s->kind != PLUMB_DEC_STRIP) return PLUMB_OK;
        PLUMB_TRY(read_character(t, item, type, "content", s));
        PLUMB_TRY(read_count(t, item, "start", &s->start));
        return read_count(t, item, "stop", &s->stop);
    }
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: decoder \"%s\" is not supported (ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace "
                       "and Sequence are)",
                       t->name, type);
}

plumb_status plumb_pipeline_load(plumb_tokenizer *t, json_t *root) {
    const json_t *decoder = json_object_get(root, "decoder");
    PLUMB_TRY(read_section(t, json_object_get(root, "normalizer"), "normalizer", "normalizers", read_normalizer,
                           &t->normalizer));
    PLUMB_TRY(read_section(t, json_object_get(root, "pre_tokenizer"), "pre_tokenizer", "pretokenizers",
                           read_pre_tokenizer, &t->pre));
    PLUMB_TRY(read_section(t, json_object_get(root, "post_processor"), "post_processor", "processors",
                           read_post_processor, NULL));
    t->decoder_given = decoder && !json_is_null(decoder);
    return read_section(t, decoder, "decoder", "decoders", read_decoder, &t->decoder);
}
