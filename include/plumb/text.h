/* Tokenizers and prompt templates.  All local; a tokenizer is immutable after loading and may be shared by threads. */
#ifndef PLUMB_TEXT_H
#define PLUMB_TEXT_H
#include "plumb/base.h"
#include "plumb/io.h"

typedef struct plumb_tokenizer plumb_tokenizer;

/* From a Hugging Face directory (tokenizer.json + tokenizer_config.json when present), a tokenizer.json, or a GGUF file.
 * BPE only: byte-level (ByteLevel with its regex or a Split/Digits/Sequence pre-tokenizer; GGUF "gpt2" with its `pre`
 * name) and SentencePiece-like (Prepend/Replace/Metaspace, byte fallback; GGUF "llama" by scores). Anything else is
 * PLUMB_E_UNSUPPORTED, by name. */
plumb_status plumb_tokenizer_load(plumb_tokenizer **out, const char *path) PLUMB_CHECKED;
void plumb_tokenizer_free(plumb_tokenizer *t);

typedef struct plumb_ids { /* zero-initialise; owned by the caller, free with plumb_ids_free */
    int32_t *data;
    size_t count, capacity;
} plumb_ids;
plumb_status plumb_ids_push(plumb_ids *ids, int32_t id) PLUMB_CHECKED;
void plumb_ids_free(plumb_ids *ids);

/* Appends the ids of UTF-8 text to *ids. `special`: add what the post-processor adds (BOS, EOS); special tokens that are
 * written out in the text are recognised either way, as in transformers. Invalid UTF-8 is replaced by U+FFFD. */
plumb_status plumb_tokenize(const plumb_tokenizer *t, const char *text, size_t length, bool special, plumb_ids *ids) PLUMB_CHECKED;
/* Appends the text; `skip_special` leaves out special tokens. Ids outside the vocabulary: PLUMB_E_DATA. */
plumb_status plumb_detokenize(const plumb_tokenizer *t, const int32_t *ids, size_t count, bool skip_special, plumb_str *out) PLUMB_CHECKED;

int32_t plumb_tokenizer_vocab(const plumb_tokenizer *t); /* number of ids, added tokens included */
int32_t plumb_tokenizer_bos(const plumb_tokenizer *t);   /* -1 when there is none */
int32_t plumb_tokenizer_eos(const plumb_tokenizer *t);   /* as tokenizer_config.json / GGUF say; -1 when none */
int32_t plumb_tokenizer_pad(const plumb_tokenizer *t);
int32_t plumb_tokenizer_id(const plumb_tokenizer *t, const char *token); /* exact content of a token; -1 */
/* Whether a model comes with a tokenizer: a directory with a tokenizer.json, a GGUF file that says of which kind its tokenizer is. */
bool plumb_tokenizer_is_there(const char *path);
/* PLUMB_OK when the same ids are the same tokens, special ones included, and byte-level BPE has the same merges; a GGUF file
 * and a directory of one model are then alike. Chat templates and the roles of tokens (which one ends a text) do not count.
 * Otherwise PLUMB_E_DATA with the first id that differs and both spellings. */
plumb_status plumb_tokenizer_compare(const plumb_tokenizer *a, const plumb_tokenizer *b) PLUMB_CHECKED;
/* Copies tokenizer files for a Hugging Face directory written at `dir`: the same files when the source was a directory,
 * tokenizer.json and tokenizer_config.json generated from the metadata when it was a GGUF file. */
plumb_status plumb_tokenizer_save(const plumb_tokenizer *t, const char *dir) PLUMB_CHECKED;

/* --- UTF-8 and patterns ----------------------------------------------------------------------- */
bool plumb_utf8_valid(const char *text, size_t length);
/* Appends text with every ill-formed part replaced by U+FFFD (as Unicode 3.9, "maximal subpart"). */
plumb_status plumb_utf8_repair(const char *text, size_t length, plumb_str *out) PLUMB_CHECKED;

/* A user's PCRE2 pattern, as PCRE2 reads it (UTF, UCP). Not shared between threads. `name` says where the pattern stands, for messages.
 * PLUMB_E_CONFIG with PCRE2's reason and the offset. */
typedef struct plumb_pattern plumb_pattern;
plumb_status plumb_pattern_create(plumb_pattern **out, const char *pattern, const char *name) PLUMB_CHECKED;
void plumb_pattern_free(plumb_pattern *p);
/* Whether it matches anywhere in text (ill-formed UTF-8 reads as U+FFFD). Work is limited: a pattern that backtracks without end on this
 * text is PLUMB_E_DATA, which names it. */
plumb_status plumb_pattern_found(plumb_pattern *p, const char *text, size_t length, bool *found) PLUMB_CHECKED;

/* --- prompts ---------------------------------------------------------------------------------- */
typedef struct plumb_message { const char *role; const char *content; } plumb_message;
/* Names: "chatml", "chatml-smollm2" (adds SmolLM2's default system turn when the first message is not a system turn), "chatml-trimmed"
 * (no line end after <|im_end|>, as templates whose turns end with a trimmed Jinja block render), "alpaca", "none". PLUMB_E_CONFIG names
 * the nearest when unknown. */
plumb_status plumb_prompt_check(const char *name) PLUMB_CHECKED;
/* Renders messages; generation adds the opening of an assistant turn. When `mask_spans` is not NULL it receives, for
 * every assistant turn, [begin,end) byte offsets of its content and end marker (for ChatML: content and <|im_end|>, not the newline
 * after it): 2 * *n_spans int64, owned by the caller. */
plumb_status plumb_prompt_render(const char *name, const plumb_message *messages, int count, bool generation, plumb_str *out,
                                 int64_t **mask_spans, int *n_spans) PLUMB_CHECKED;
/* What the template writes at the end of an assistant's turn: its mark, which is what a policy ends on, and what follows that. NULL
 * where it marks no end. */
const char *plumb_prompt_turn_end(const char *name, const char **after);
/* Alpaca's prompt text of instruction and input (input may be NULL or ""). */
plumb_status plumb_prompt_alpaca(const char *instruction, const char *input, plumb_str *out) PLUMB_CHECKED;
#endif
