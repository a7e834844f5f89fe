/* SentencePiece's BPE (Kudo and Richardson 2018) as a list of merges.
 *
 * SentencePiece has no merges: two neighbours may merge when their joined text is a piece, the best score goes first,
 * the leftmost among equals.  The same follows from merges when every way of cutting a piece in two known pieces is
 * one, its rank being the place of the piece's score among all distinct scores; so one algorithm (bpe.c) serves both
 * kinds of tokenizer. tokenizer.json has no equal ranks.  The order written there is the one transformers writes: by
 * score, then by the ids of the parts. */
#include "tokenizer.h"
#include <math.h>
#include <stdlib.h>

typedef struct cut {
    float score;
    int32_t id, left, right;
} cut;

static int by_score(const void *a, const void *b) {
    const cut *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static int32_t find_mergeable(const plumb_tokenizer *t, const uint8_t *mergeable, const char *text, size_t length) {
    int32_t id = plumb_vocab_find_model(&t->vocab, text, length);
    return id >= 0 && mergeable[id] ? id : -1;
}

plumb_status plumb_sentencepiece_merges(plumb_tokenizer *t, const float *scores, const uint8_t *mergeable) {
    plumb_status status = PLUMB_OK;
    cut *cuts = NULL;
    size_t count = 0, capacity = 0;
    for (size_t id = 0; id < t->vocab.count; id++) {
        size_t length = 0;
        const char *text = plumb_vocab_text(&t->vocab, (int32_t)id, &length);
        if (!text || !mergeable[id]) continue;
        if (isnan(scores[id])) {
            status = plumb_error(PLUMB_E_FORMAT, "%s: tokenizer.ggml.scores[%zu] is not a number", t->name, id);
            goto done;
        }
        for (size_t at = length ? plumb_utf8_size((unsigned char)text[0]) : 0; at < length;
             at += plumb_utf8_size((unsigned char)text[at])) {
            int32_t left = find_mergeable(t, mergeable, text, at),
                    right = left < 0 ? -1 : find_mergeable(t, mergeable, text + at, length - at);
            if (right < 0) continue;
            if ((status = plumb_grow(&cuts, &capacity, count + 1, sizeof *cuts)) != PLUMB_OK) goto done;
            cuts[count++] = (cut){scores[id], (int32_t)id, left, right};
        }
    }
    if (count) qsort(cuts, count, sizeof *cuts, by_score);
    if ((status = plumb_alloc(&t->merges, 2 * count, sizeof *t->merges, "the merges")) != PLUMB_OK) goto done;
    if ((status = plumb_pairs_reserve(&t->pairs, count)) != PLUMB_OK) goto done;
    int32_t rank = 0;
    for (size_t i = 0; i < count; i++) {
        if (i && cuts[i].score != cuts[i - 1].score) rank++;
        t->merges[2 * i] = cuts[i].left;
        t->merges[2 * i + 1] = cuts[i].right;
        if ((status = plumb_pairs_add(&t->pairs, cuts[i].left, cuts[i].right, rank, cuts[i].id)) != PLUMB_OK) goto done;
    }
    t->merge_count = count;
done:
    free(cuts);
    return status;
}
