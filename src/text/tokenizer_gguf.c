/* The tokenizer in a GGUF file's metadata.
 *
 * "gpt2" is byte-level BPE with merges; its pre-tokenizer is only a name (tokenizer.ggml.pre), spelled out here as the
 * sections of a tokenizer.json.  "llama" is SentencePiece's BPE by scores.  The pipeline is put together as JSON and
 * read by pipeline_json.c, so that what plumb does and what plumb_tokenizer_save writes cannot part. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define ENDINGS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
typedef struct pre_kind {
    const char *name;
    bool nfc, digits, whole_words, bos; /* whole_words: ignore_merges; bos: added when the file does not say */
    const char *patterns[5];            /* splits, in order; none: ByteLevel's own */
} pre_kind;
static const pre_kind pre_kinds[] = {
    {"gpt-2", .patterns = {NULL}},
    {"smollm", .digits = true},
    {"llama-bpe", .whole_words = true, .bos = true, .patterns = {CONTRACTIONS "\\p{N}{1,3}" ENDINGS}},
    {"smaug-bpe", .patterns = {CONTRACTIONS "\\p{N}{1,3}" ENDINGS}},
    {"qwen2", .nfc = true, .patterns = {CONTRACTIONS "\\p{N}" ENDINGS}},
    {"default", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};
static const char kind_names[] = "default, gpt-2, llama-bpe, qwen2, smaug-bpe and smollm";

typedef struct source { /* the metadata, checked */
    const plumb_gguf *file;
    const plumb_gguf_string *tokens;
    int64_t count;
    const uint8_t *types;  /* [count] int32, unaligned; NULL when absent */
    const uint8_t *scores; /* [count] float, unaligned; NULL when absent */
    const pre_kind *pre;   /* NULL: llama */
} source;

static int32_t type_of(const source *s, int64_t id) {
    int32_t type = TYPE_NORMAL;
    if (s->types) memcpy(&type, s->types + 4 * id, 4);
    return type;
}

static const plumb_gguf_value *find(const source *s, const char *key) {
    char name[96] = "tokenizer.ggml.";
    strncat(name, key, sizeof name - strlen(name) - 1);
    return plumb_gguf_find(s->file, name);
}

static plumb_status bad(const plumb_tokenizer *t, const char *key, const char *expected) {
    return plumb_error(PLUMB_E_FORMAT, "%s: tokenizer.ggml.%s: %s expected", t->name, key, expected);
}

static bool text_is(const plumb_gguf_value *v, const char *text) {
    return v && v->type == PLUMB_GGUF_STRING && v->s.length == strlen(text) && !memcmp(v->s.data, text, v->s.length);
}

static plumb_status read_tokens(plumb_tokenizer *t, source *s) {
    const plumb_gguf_value *tokens = find(s, "tokens"), *types = find(s, "token_type"), *scores = find(s, "scores");
    if (!tokens || tokens->type != PLUMB_GGUF_ARRAY || tokens->item != PLUMB_GGUF_STRING)
        return bad(t, "tokens", "an array of strings");
    if (tokens->count >= PLUMB_VOCAB_LIMIT) return bad(t, "tokens", "fewer than 16,777,216 tokens");
    s->tokens = tokens->strings;
    s->count = tokens->count;
    if (types && (types->type != PLUMB_GGUF_ARRAY || (types->item != PLUMB_GGUF_I32 && types->item != PLUMB_GGUF_U32) ||
                  types->count != s->count))
        return bad(t, "token_type", "one 32-bit integer per token");
    if (scores && (scores->type != PLUMB_GGUF_ARRAY || scores->item != PLUMB_GGUF_F32 || scores->count != s->count))
        return bad(t, "scores", "one float per token");
    s->types = types ? types->items : NULL;
    s->scores = scores ? scores->items : NULL;
    PLUMB_TRY(plumb_vocab_reserve(&t->vocab, (size_t)s->count));
    for (int64_t id = 0; id < s->count; id++) {
        plumb_gguf_string text = s->tokens[id];
        if (!plumb_utf8_valid(text.data, text.length))
            return plumb_error(PLUMB_E_FORMAT, "%s: tokenizer.ggml.tokens[%lld] is not valid UTF-8", t->name,
                               (long long)id);
        plumb_status status = plumb_vocab_add(&t->vocab, text.data, text.length, (int32_t)id, PLUMB_TOKEN_IN_MODEL);
        if (status != PLUMB_OK) return plumb_error_prefix(status, "%s: tokenizer.ggml.tokens", t->name);
    }
    return PLUMB_OK;
}

static plumb_status add_merge(plumb_tokenizer *t, plumb_gguf_string text, int64_t rank, plumb_str *joined) {
    const char *space = text.length > 1 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
    size_t left = space ? (size_t)(space - text.data) : 0, right = space ? text.length - left - 1 : 0;
    int32_t ids[3] = {-1, -1, -1};
    if (space) {
        joined->length = 0;
        PLUMB_TRY(plumb_str_append(joined, text.data, left));
        PLUMB_TRY(plumb_str_append(joined, space + 1, right));
        ids[0] = plumb_vocab_find(&t->vocab, text.data, left);
        ids[1] = plumb_vocab_find(&t->vocab, space + 1, right);
        ids[2] = plumb_vocab_find(&t->vocab, joined->data, joined->length);
    }
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: tokenizer.ggml.merges[%lld] \"%.*s\": two tokens with a space between, whose joined "
                           "text is a token, expected",
                           t->name, (long long)rank, (int)plumb_min64((int64_t)text.length, 200), text.data);
    t->merges[2 * t->merge_count] = ids[0];
    t->merges[2 * t->merge_count++ + 1] = ids[1];
    return plumb_pairs_add(&t->pairs, ids[0], ids[1], (int32_t)rank, ids[2]);
}

static plumb_status read_merges(plumb_tokenizer *t, const source *s) {
    const plumb_gguf_value *merges = find(s, "merges");
    plumb_str joined = {0};
    if (!merges || merges->type != PLUMB_GGUF_ARRAY || merges->item != PLUMB_GGUF_STRING || merges->count >= INT32_MAX)
        return bad(t, "merges", "an array of strings");
    PLUMB_TRY(plumb_alloc(&t->merges, 2 * (size_t)merges->count, sizeof *t->merges, "the merges"));
    PLUMB_TRY(plumb_pairs_reserve(&t->pairs, (size_t)merges->count));
    plumb_status status = PLUMB_OK;
    for (int64_t i = 0; i < merges->count && status == PLUMB_OK; i++)
        status = add_merge(t, merges->strings[i], i, &joined);
    plumb_str_free(&joined);
    return status;
}

static plumb_status read_scores(plumb_tokenizer *t, const source *s) {
    float *scores = NULL;
    uint8_t *mergeable = NULL;
    if (!s->scores) return bad(t, "scores", "an array of floats");
    plumb_status status = plumb_alloc(&scores, (size_t)s->count, sizeof *scores, "the scores");
    if (status == PLUMB_OK) status = plumb_alloc(&mergeable, (size_t)s->count, 1, "the token types");
    for (int64_t id = 0; status == PLUMB_OK && id < s->count; id++) {
        int32_t type = type_of(s, id);
        mergeable[id] = type == TYPE_NORMAL || type == TYPE_UNUSED;
        memcpy(&scores[id], s->scores + 4 * id, 4);
    }
    if (status == PLUMB_OK) status = plumb_sentencepiece_merges(t, scores, mergeable);
    free(scores);
    free(mergeable);
    return status;
}

static plumb_status read_id(const plumb_tokenizer *t, const source *s, const char *key, int32_t *out) {
    const plumb_gguf_value *v = find(s, key);
    if (!v) return PLUMB_OK;
    bool integer = v->type != PLUMB_GGUF_STRING && v->type != PLUMB_GGUF_ARRAY && v->type != PLUMB_GGUF_BOOL &&
                   v->type != PLUMB_GGUF_F32 && v->type != PLUMB_GGUF_F64;
    if (!integer || v->i < 0 || v->i >= s->count) return bad(t, key, "the id of a token");
    *out = (int32_t)v->i;
    return PLUMB_OK;
}

static plumb_status read_flag(const plumb_tokenizer *t, const source *s, const char *key, bool otherwise, bool *out) {
    const plumb_gguf_value *v = find(s, key);
    *out = v ? v->b : otherwise;
    return !v || v->type == PLUMB_GGUF_BOOL ? PLUMB_OK : bad(t, key, "true or false");
}

static plumb_status read_named(plumb_tokenizer *t, const source *s) {
    bool llama = !s->pre; /* SentencePiece's usual places, when the file does not say */
    if (llama && s->count > 2) {
        if (type_of(s, 0) == TYPE_UNKNOWN) t->named_unk = 0;
        if (type_of(s, 1) == TYPE_CONTROL) t->bos = 1;
        if (type_of(s, 2) == TYPE_CONTROL) t->eos = 2;
    }
    PLUMB_TRY(read_id(t, s, "bos_token_id", &t->bos));
    PLUMB_TRY(read_id(t, s, "eos_token_id", &t->eos));
    PLUMB_TRY(read_id(t, s, "padding_token_id", &t->pad));
    PLUMB_TRY(read_id(t, s, "unknown_token_id", &t->named_unk));
    if (llama) t->unk = t->named_unk;
    int32_t named[] = {t->bos, t->eos, t->pad, t->named_unk};
    for (int64_t id = 0; id < s->count; id++) {
        int32_t type = type_of(s, id);
        bool is_named = id == named[0] || id == named[1] || id == named[2] || id == named[3];
        bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN || is_named;
        if (!special && type != TYPE_USER) continue;
        plumb_added_token flags = {.id = (int32_t)id, .special = special};
        PLUMB_TRY(plumb_added_put(t, s->tokens[id].data, s->tokens[id].length, &flags));
    }
    return PLUMB_OK;
}

/* --- the pipeline as JSON; a NULL anywhere means that memory ran out -------------------------- */
static json_t *byte_level(bool use_regex) {
    return json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     (int)use_regex);
}

static json_t *pre_tokenizer(const pre_kind *pre) {
    if (!pre->digits && !pre->patterns[0]) return byte_level(true);
    json_t *list = json_array();
    if (pre->digits) json_array_append_new(list, json_pack("{s:s,s:b}", "type", "Digits", "individual_digits", 1));
    for (int i = 0; pre->patterns[i]; i++)
        json_array_append_new(list, json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex",
                                              pre->patterns[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(list, byte_level(!pre->patterns[0]));
    return json_pack("{s:s,s:o}", "type", "Sequence", "pretokenizers", list);
}

static json_t *template_of(const plumb_tokenizer *t, bool bos, bool eos) {
    json_t *single = json_array(), *pair = json_array(), *special = json_object();
    for (int k = 0; k < 2; k++) {
        for (int place = 0; place < 3; place++) { /* BOS, sequence, EOS */
            json_t *part;
            int32_t id = place == 0 ? t->bos : t->eos;
            size_t length;
            const char *text = plumb_vocab_text(&t->vocab, id, &length);
            if (place == 1)
                part = json_pack("{s:{s:s,s:i}}", "Sequence", "id", k ? "B" : "A", "type_id", k);
            else if (place == 0 ? bos : eos)
                part = json_pack("{s:{s:s%,s:i}}", "SpecialToken", "id", text, length, "type_id", k);
            else
                continue;
            if (!k) json_array_append(single, part);
            json_array_append_new(pair, part);
            if (place != 1)
                json_object_setn_new(
                    special, text, length,
                    json_pack("{s:s%,s:[i],s:[s%]}", "id", text, length, "ids", id, "tokens", text, length));
        }
    }
    return json_pack("{s:s,s:o,s:o,s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", special);
}

#define BLOCK "\xe2\x96\x81" /* U+2581 stands for a space */
static json_t *sentencepiece_normalizer(bool space) {
    json_t *replace = json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", "String", " ", "content", BLOCK);
    return space ? json_pack("{s:s,s:[{s:s,s:s},o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
                             BLOCK, replace)
                 : replace;
}

static json_t *sentencepiece_decoder(bool space) {
    json_t *list = json_pack("[{s:s,s:{s:s},s:s},{s:s},{s:s}]", "type", "Replace", "pattern", "String", BLOCK,
                             "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (space)
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:i,s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s,s:o}", "type", "Sequence", "decoders", list);
}

static plumb_status make_pipeline(plumb_tokenizer *t, const source *s) {
    bool bos, eos, space;
    PLUMB_TRY(read_flag(t, s, "add_bos_token", !s->pre || s->pre->bos, &bos));
    PLUMB_TRY(read_flag(t, s, "add_eos_token", false, &eos));
    PLUMB_TRY(read_flag(t, s, "add_space_prefix", !s->pre, &space));
    if (bos && t->bos < 0 && find(s, "add_bos_token"))
        return bad(t, "bos_token_id", "beside add_bos_token, the id of a token");
    if (eos && t->eos < 0) return bad(t, "eos_token_id", "beside add_eos_token, the id of a token");
    bos &= t->bos >= 0;
    json_t *normalizer = !s->pre       ? sentencepiece_normalizer(space)
                         : s->pre->nfc ? json_pack("{s:s}", "type", "NFC")
                                       : json_null();
    json_t *root = json_pack("{s:o,s:o,s:o,s:o}", "normalizer", normalizer, "pre_tokenizer",
                             s->pre ? pre_tokenizer(s->pre) : json_null(), "post_processor",
                             bos || eos || !s->pre ? template_of(t, bos, eos) : byte_level(true), "decoder",
                             s->pre ? byte_level(true) : sentencepiece_decoder(space));
    t->pipeline = root ? json_dumps(root, JSON_COMPACT) : NULL;
    plumb_status status = t->pipeline ? plumb_pipeline_load(t, root)
                                      : plumb_error(PLUMB_E_MEMORY, "out of memory: a tokenizer's pipeline");
    json_decref(root);
    return status;
}

static plumb_status read_kind(plumb_tokenizer *t, source *s) {
    const plumb_gguf_value *model = find(s, "model"), *pre = find(s, "pre");
    if (!model || model->type != PLUMB_GGUF_STRING) return bad(t, "model", "\"gpt2\" or \"llama\"");
    if (text_is(model, "llama")) return PLUMB_OK;
    if (!text_is(model, "gpt2"))
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "%s: tokenizer.ggml.model \"%.*s\" is not supported (gpt2 and llama are)", t->name,
                           (int)plumb_min64((int64_t)model->s.length, 100), model->s.data);
    for (size_t i = 0; i < sizeof pre_kinds / sizeof *pre_kinds; i++)
        if (text_is(pre, pre_kinds[i].name)) s->pre = &pre_kinds[i];
    if (s->pre) return PLUMB_OK;
    if (!pre || pre->type != PLUMB_GGUF_STRING)
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "%s: tokenizer.ggml.pre is missing, so that nobody knows how text is to be split; convert "
                           "the model again, or "
                           "give the Hugging Face tokenizer (supported are %s)",
                           t->name, kind_names);
    return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tokenizer.ggml.pre \"%.*s\" is not supported (%s are)", t->name,
                       (int)plumb_min64((int64_t)pre->s.length, 100), pre->s.data, kind_names);
}

static plumb_status copy_template(plumb_tokenizer *t, const plumb_gguf *g) {
    const plumb_gguf_value *v = plumb_gguf_find(g, "tokenizer.chat_template");
    if (!v || v->type != PLUMB_GGUF_STRING) return PLUMB_OK;
    plumb_str text = {0};
    plumb_status status = plumb_utf8_repair(v->s.data, v->s.length, &text);
    t->chat_template = text.data;
    return status;
}

plumb_status plumb_tokenizer_load_gguf(plumb_tokenizer *t, const char *path) {
    plumb_gguf g = {0};
    source s = {.file = &g};
    if (!(t->name = strdup(path))) return plumb_error(PLUMB_E_MEMORY, "out of memory: a file name");
    PLUMB_TRY(plumb_gguf_open(&g, path));
    t->from_gguf = true;
    plumb_status status = read_kind(t, &s);
    if (status == PLUMB_OK) status = read_tokens(t, &s);
    if (status == PLUMB_OK) status = s.pre ? read_merges(t, &s) : read_scores(t, &s);
    if (status == PLUMB_OK) status = read_named(t, &s);
    if (status == PLUMB_OK) status = make_pipeline(t, &s);
    if (status == PLUMB_OK) status = copy_template(t, &g);
    t->ignore_merges = s.pre && s.pre->whole_words;
    t->byte_fallback = t->fuse_unk = !s.pre;
    plumb_gguf_close(&g);
    return status;
}
