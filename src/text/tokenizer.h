/* The inside of a tokenizer: one structure that both loaders fill and one pipeline that reads it.
 *
 *   text --> added tokens cut out --> normalizer --> pre-tokenizer --> BPE per piece --> template (BOS, EOS)
 *   ids  --> contents of tokens   --> decoder    --> text
 *
 * Invariant: after loading nothing changes but the memo in `whole`, whose cells only ever go from 0 to their one
 * possible value, so that threads may share a tokenizer.  A GGUF file is loaded as if it were the tokenizer.json that
 * plumb_tokenizer_save writes for it: its pipeline is a JSON text, kept in `pipeline` and read by the same code. */
#ifndef PLUMB_TEXT_TOKENIZER_H
#define PLUMB_TEXT_TOKENIZER_H
#include <stdatomic.h>
#include "plumb/text.h"

/* --- UTF-8 (utf8.c) --------------------------------------------------------------------------- */
/* Length of the valid character at text[0], or 0 with *bad = bytes of the maximal ill-formed part (at least 1). */
size_t plumb_utf8_step(const char *text, size_t length, size_t *bad);
uint32_t plumb_utf8_decode(const char *text, size_t *size); /* valid text only */
size_t plumb_utf8_encode(uint32_t point, char out[4]);
size_t plumb_utf8_size(unsigned char lead);              /* bytes of a valid character, by its first byte */
size_t plumb_utf8_last(const char *text, size_t length); /* start of the last character of valid text */
bool plumb_is_space(uint32_t point);                     /* White_Space */
bool plumb_is_word(uint32_t point);                      /* \w of UTS 18 */

/* --- vocabulary and merges (vocab.c) ---------------------------------------------------------- */
typedef struct plumb_vocab_entry {
    size_t offset;
    uint32_t length;
    uint8_t flags;
} plumb_vocab_entry;
enum {
    PLUMB_TOKEN_PRESENT = 1,
    PLUMB_TOKEN_IN_MODEL = 2,
    PLUMB_TOKEN_ADDED = 4,
    PLUMB_TOKEN_SPECIAL = 8,
    PLUMB_TOKEN_RENAMED = 16
};
enum { PLUMB_VOCAB_LIMIT = 1 << 24 };
typedef struct plumb_vocab {    /* text <-> id; ids may have holes */
    plumb_str bytes;            /* all contents, back to back */
    plumb_vocab_entry *entries; /* [capacity], zero where no token has the id */
    size_t count, capacity;     /* count: largest id + 1 */
    int32_t *slots;             /* open addressing, id + 1, 0 is free */
    size_t mask, used;
} plumb_vocab;
/* Room for ids below `ids`; called once, before the first plumb_vocab_add, and again to make room for added tokens. */
plumb_status plumb_vocab_reserve(plumb_vocab *v, size_t ids) PLUMB_CHECKED;
/* PLUMB_E_FORMAT when the id is taken or the text is there under another id. */
plumb_status plumb_vocab_add(plumb_vocab *v, const char *text, size_t length, int32_t id, uint8_t flags) PLUMB_CHECKED;
int32_t plumb_vocab_find(const plumb_vocab *v, const char *text, size_t length); /* -1 */
/* As above, but only tokens of the model itself: what BPE may produce. */
int32_t plumb_vocab_find_model(const plumb_vocab *v, const char *text, size_t length);
const char *plumb_vocab_text(const plumb_vocab *v, int32_t id, size_t *length); /* NULL for a hole */
void plumb_vocab_free(plumb_vocab *v);

typedef struct plumb_pair {
    uint64_t key;
    int32_t rank, id;
} plumb_pair; /* key = left << 32 | right; id -1 is free */
typedef struct plumb_pairs {
    plumb_pair *slots;
    size_t mask, used;
} plumb_pairs;
plumb_status plumb_pairs_reserve(plumb_pairs *p, size_t count) PLUMB_CHECKED;
/* A later rank for the same pair replaces the earlier one, as in the tokenizers library. */
plumb_status plumb_pairs_add(plumb_pairs *p, int32_t left, int32_t right, int32_t rank, int32_t id) PLUMB_CHECKED;
const plumb_pair *plumb_pairs_find(const plumb_pairs *p, int32_t left, int32_t right); /* NULL */

/* --- patterns (regex.c) ----------------------------------------------------------------------- */
typedef struct plumb_regex plumb_regex;
typedef struct plumb_matcher plumb_matcher; /* what one call needs to match; not shared */
/* `name` says where the pattern stands, for messages. */
plumb_status plumb_regex_compile(plumb_regex **out, const char *pattern, size_t length, bool literal,
                                 const char *name) PLUMB_CHECKED;
void plumb_regex_free(plumb_regex *r);
plumb_status plumb_matcher_create(plumb_matcher **out) PLUMB_CHECKED;
void plumb_matcher_free(plumb_matcher *m);
typedef struct plumb_span {
    size_t start, end;
    bool match;
} plumb_span;
typedef struct plumb_spans {
    plumb_span *list;
    size_t count, capacity;
} plumb_spans;
/* Cuts text into spans, matches and what lies between, in order and without a gap. Valid UTF-8 only. */
plumb_status plumb_regex_cut(const plumb_regex *r, plumb_matcher *m, const char *text, size_t length,
                             plumb_spans *out) PLUMB_CHECKED;

/* --- the steps of the pipeline ---------------------------------------------------------------- */
typedef enum plumb_step_kind {
    PLUMB_NORM_NFC,
    PLUMB_NORM_NFD,
    PLUMB_NORM_NFKC,
    PLUMB_NORM_NFKD,
    PLUMB_NORM_PREPEND,
    PLUMB_NORM_REPLACE,
    PLUMB_NORM_LOWERCASE,
    PLUMB_NORM_STRIP,
    PLUMB_PRE_SPLIT,
    PLUMB_PRE_PREFIX_SPACE,
    PLUMB_PRE_BYTES,
    PLUMB_PRE_METASPACE,
    PLUMB_DEC_BYTE_LEVEL,
    PLUMB_DEC_REPLACE,
    PLUMB_DEC_BYTE_FALLBACK,
    PLUMB_DEC_FUSE,
    PLUMB_DEC_STRIP,
    PLUMB_DEC_METASPACE
} plumb_step_kind;
typedef enum plumb_behavior {
    PLUMB_REMOVED,
    PLUMB_ISOLATED,
    PLUMB_MERGED_PREVIOUS,
    PLUMB_MERGED_NEXT,
    PLUMB_CONTIGUOUS
} plumb_behavior;
typedef enum plumb_prepend { PLUMB_PREPEND_ALWAYS, PLUMB_PREPEND_FIRST, PLUMB_PREPEND_NEVER } plumb_prepend;
typedef struct plumb_step { /* one flat record for all kinds; a kind uses the fields that its name suggests */
    plumb_step_kind kind;
    plumb_regex *regex; /* owns; SPLIT, REPLACE */
    char *text;         /* owns; PREPEND, REPLACE (content), METASPACE (replacement), DEC_STRIP (one character) */
    size_t length;
    plumb_behavior behavior; /* SPLIT */
    bool invert;             /* SPLIT: what lies between matches is the delimiter */
    bool left, right;        /* NORM_STRIP */
    bool split;              /* METASPACE */
    plumb_prepend prepend;   /* METASPACE */
    size_t start, stop;      /* DEC_STRIP */
} plumb_step;
typedef struct plumb_steps {
    plumb_step *list;
    size_t count, capacity;
} plumb_steps;
void plumb_steps_free(plumb_steps *s);

typedef struct plumb_piece {
    size_t start, length;
    int32_t id;
    bool first;
} plumb_piece; /* id -1: text; first: at the text's start */
typedef struct plumb_pieces {
    plumb_str text;
    plumb_piece *list;
    size_t count, capacity;
} plumb_pieces;
plumb_status plumb_pieces_push(plumb_pieces *p, plumb_piece piece) PLUMB_CHECKED;
void plumb_pieces_clear(plumb_pieces *p);
void plumb_pieces_free(plumb_pieces *p);

typedef struct plumb_added_token {
    char *content, *shown; /* shown: the normalised content where it differs; that is what decoding gives */
    size_t length, shown_length;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} plumb_added_token;
typedef struct plumb_trie_node {
    uint8_t byte;
    int32_t child, sibling, token;
} plumb_trie_node;
typedef struct plumb_trie {
    plumb_trie_node *nodes;
    size_t count, capacity;
    int32_t roots[256];
} plumb_trie;

struct plumb_tokenizer {
    char *path, *name; /* source file or directory (absolute); the file that messages name */
    bool from_gguf;
    plumb_vocab vocab;
    plumb_pairs pairs;
    int32_t *merges; /* [merge_count][2], in the order of rank: kept for saving, GGUF sources only */
    size_t merge_count;
    bool ignore_merges, byte_fallback, fuse_unk;
    int32_t unk;            /* -1 */
    int32_t byte_ids[256];  /* of <0x00> .. <0xFF>, -1 where the vocabulary has none */
    _Atomic uint8_t *whole; /* [vocab.count] 0 not known yet, 1 the token's text encodes as the token, 2 it does not */
    plumb_added_token *added;
    size_t added_count, added_capacity;
    plumb_trie raw, cooked; /* added tokens matched before and after normalisation */
    plumb_steps normalizer, pre, decoder;
    bool decoder_given;               /* without a decoder tokens are joined by spaces */
    plumb_ids prefix, suffix;         /* the template around a sequence */
    int32_t bos, eos, pad, named_unk; /* named_unk: GGUF's unknown token, which byte-level BPE never produces */
    char *pipeline, *chat_template;   /* GGUF: JSON of the four pipeline sections; owns */
};

/* Scratch memory of one call. */
typedef struct plumb_workspace {
    plumb_matcher *matcher;
    plumb_spans spans;
    plumb_pieces pieces, next;
    plumb_str a, b;
    struct plumb_symbol *symbols;
    struct plumb_candidate *heap;
    size_t symbol_capacity, heap_capacity, heap_count;
} plumb_workspace;
plumb_status plumb_workspace_open(plumb_workspace *w) PLUMB_CHECKED;
void plumb_workspace_close(plumb_workspace *w);

/* byte_level.c: the 256 printable stand-ins for bytes of GPT-2 (Radford et al. 2019). */
extern const char plumb_byte_level_regex[];
uint32_t plumb_byte_level_point(uint8_t byte);
int plumb_byte_level_byte(uint32_t point); /* -1 */
/* decode.c: the byte of a byte-fallback token, whose text is <0xHH>; -1 for any other text. */
int plumb_fallback_byte(const char *text, size_t length);
/* normalize.c: one string in, one string out (w->a is used in between; *out is replaced). */
plumb_status plumb_normalize(const plumb_steps *s, plumb_workspace *w, const char *text, size_t length,
                             plumb_str *out) PLUMB_CHECKED;
plumb_status plumb_replace(const plumb_step *s, plumb_workspace *w, const char *text, size_t length,
                           plumb_str *out) PLUMB_CHECKED;
/* pretokenize.c: w->pieces through all steps. */
plumb_status plumb_pretokenize(const plumb_steps *s, plumb_workspace *w) PLUMB_CHECKED;
/* bpe.c */
plumb_status plumb_bpe_encode(const plumb_tokenizer *t, plumb_workspace *w, const char *text, size_t length,
                              plumb_ids *ids) PLUMB_CHECKED;
/* sentencepiece_bpe.c: fills t->pairs and t->merges from scores; mergeable[id] says which tokens take part. */
plumb_status plumb_sentencepiece_merges(plumb_tokenizer *t, const float *scores,
                                        const uint8_t *mergeable) PLUMB_CHECKED;
/* added_tokens.c: a token of the same content is replaced; id -1: the vocabulary's, or the next free one. */
plumb_status plumb_added_put(plumb_tokenizer *t, const char *content, size_t length,
                             const plumb_added_token *flags) PLUMB_CHECKED;
plumb_status plumb_added_finish(plumb_tokenizer *t) PLUMB_CHECKED; /* builds the tries; needs the normalizer */
/* What decoding gives for a token of the vocabulary, and whether it is skipped with the special ones. */
const char *plumb_added_shown(const plumb_tokenizer *t, int32_t id, size_t *length, bool *special);
plumb_status plumb_added_split(const plumb_tokenizer *t, plumb_workspace *w, const char *text,
                               size_t length) PLUMB_CHECKED;
void plumb_added_free(plumb_tokenizer *t);
/* pipeline_json.c, tokenizer_json.c, tokenizer_config.c, tokenizer_gguf.c */
plumb_status plumb_pipeline_load(plumb_tokenizer *t, json_t *root) PLUMB_CHECKED;
plumb_status plumb_tokenizer_load_json(plumb_tokenizer *t, const char *path) PLUMB_CHECKED;
plumb_status plumb_tokenizer_load_config(plumb_tokenizer *t, const char *path) PLUMB_CHECKED;
plumb_status plumb_tokenizer_load_gguf(plumb_tokenizer *t, const char *path) PLUMB_CHECKED;
plumb_status
plumb_tokenizer_find_bytes(plumb_tokenizer *t) PLUMB_CHECKED; /* byte_ids and the memo, after the vocabulary is full */
#endif
