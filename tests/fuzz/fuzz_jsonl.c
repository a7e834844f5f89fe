// library: plumb_data
/* Data files from hostile hands: any bytes, as lines and as an array, for every kind of sample.
 *
 * The first byte chooses kind, loss (or, for the kinds without one, dropping and keeping texts) and length; the rest is the file.
 * Whatever loads must hold together: counts add up, every sample has a target (a prompt has a token), no id lies outside the vocabulary,
 * texts end in their NUL. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/data.h"

static plumb_tokenizer *tokenizer;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need_tokenizer(void) { /* once; kept until the process ends */
    if (!tokenizer && plumb_tokenizer_load(&tokenizer, PLUMB_TEST_DATA "/data/tokenizer") != PLUMB_OK)
        plumb_bug(__FILE__, __LINE__, "%s", plumb_error_message());
}

static void check_branch(const plumb_branch *b, int64_t *targets) {
    for (int32_t i = 0; i < b->count; i++) {
        PLUMB_CHECK(b->ids[i] >= 0 && b->ids[i] < plumb_tokenizer_vocab(tokenizer));
        PLUMB_CHECK(b->mask[i] <= 1);
        *targets += b->mask[i];
    }
}

static void check_texts(const plumb_data_options *o, const plumb_sample *s) {
    bool wanted = o->kind == PLUMB_DATA_PROMPTS || (o->kind == PLUMB_DATA_RATED && o->keep_texts);
    size_t length = 0;
    PLUMB_CHECK((s->prompt_text != NULL) == wanted && isfinite(s->margin));
    if (s->prompt_text) length += strlen(s->prompt_text);
    if (s->answer) length += strlen(s->answer);
    for (int k = 0; k < s->n_branches; k++) {
        PLUMB_CHECK((s->branch[k].text != NULL) == (wanted && o->kind == PLUMB_DATA_RATED));
        if (s->branch[k].text) length += strlen(s->branch[k].text);
    }
    PLUMB_CHECK(length < SIZE_MAX / 2);
}

static void load(const plumb_data_options *o, const char *text, size_t size) {
    plumb_dataset d;
    if (plumb_dataset_parse(&d, tokenizer, o, text, size) == PLUMB_OK) {
        const plumb_data_counts *c = &d.counts;
        int64_t targets = 0;
        PLUMB_CHECK(d.count > 0 && c->records == d.count + c->bad + c->dropped_long + c->dropped_empty);
        for (int64_t i = 0; i < d.count; i++) {
            int64_t before = targets;
            for (int k = 0; k < d.samples[i].n_branches; k++) {
                check_branch(&d.samples[i].branch[k], &targets);
                PLUMB_CHECK(!o->max_length ||
                            d.samples[i].prompt_count + d.samples[i].branch[k].count <= o->max_length);
            }
            PLUMB_CHECK(targets > before || (o->kind == PLUMB_DATA_PROMPTS && d.samples[i].prompt_count > 0));
            check_texts(o, &d.samples[i]);
        }
        PLUMB_CHECK(targets == c->targets);
    }
    plumb_dataset_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    need_tokenizer();
    static const plumb_loss_on losses[] = {PLUMB_LOSS_AUTO, PLUMB_LOSS_COMPLETION, PLUMB_LOSS_ALL,
                                           PLUMB_LOSS_ASSISTANT};
    static const plumb_data_kind kinds[] = {PLUMB_DATA_SFT, PLUMB_DATA_PAIRS, PLUMB_DATA_PROMPTS, PLUMB_DATA_RATED};
    plumb_data_options o = {.kind = kinds[(data[0] & 1) | (data[0] >> 6 & 1) << 1],
                            .loss_on = losses[data[0] >> 1 & 3],
                            .max_length = data[0] & 8 ? 12 : 0,
                            .drop_long = data[0] & 2,
                            .keep_texts = data[0] & 4,
                            .skip_bad = data[0] & 16,
                            .path = data[0] & 32 ? "fuzz.json" : "fuzz.jsonl"};
    load(&o, (const char *)data + 1, size - 1);
    return 0;
}
