/* Loading a data set: records -> texts -> ids -> samples, and what was lost on the way.
 *
 *   storage: [branches][ids of sample 0: prompt, branch 0, branch 1][ids of sample 1] … [masks in the same
 * order][texts]
 *
 * Branches, ids, masks and texts are gathered in growing arrays and moved into one block at the end; until then samples
 * and branches know only their counts, and their pointers follow from walking the block.  Everything is a function of
 * the file, the tokenizer and the options, so ranks agree without talking. */
#include "encode.h"
#include "records.h"
#include <stdlib.h>
#include <string.h>

typedef struct loader {
    const plumb_tokenizer *tokenizer;
    const plumb_data_options *options;
    example_rules rules;
    records records;
    example example;
    encoded encoded;
    plumb_ids ids;   /* of all samples */
    plumb_str masks; /* of all branches */
    plumb_branch *branches;
    size_t n_branches, branch_capacity;
    plumb_str texts;      /* of all samples, each with its NUL */
    int64_t *text_places; /* a sample's prompt, messages, answer and branches in turn: byte in texts, -1 for none */
    size_t n_text_places, text_place_capacity;
    size_t sample_capacity;
    plumb_dataset *d;
} loader;

void plumb_dataset_free(plumb_dataset *d) {
    if (!d) return;
    free(d->samples);
    free(d->storage);
    *d = (plumb_dataset){0};
}

static void loader_free(loader *l) {
    records_free(&l->records);
    example_free(&l->example);
    encoded_free(&l->encoded);
    plumb_ids_free(&l->ids);
    plumb_str_free(&l->masks);
    free(l->branches);
    plumb_str_free(&l->texts);
    free(l->text_places);
    free((char *)l->rules.eos);
}

/* --- options ---------------------------------------------------------------------------------- */

static plumb_status set_rules(loader *l) {
    const plumb_data_options *o = l->options;
#define NAME(field) (o->field_##field && *o->field_##field ? o->field_##field : #field)
    l->rules = (example_rules){
        .field = {NAME(prompt), NAME(completion), NAME(messages), NAME(text), NAME(instruction), NAME(input),
                  NAME(output), NAME(chosen), NAME(rejected), NAME(margin), NAME(answer), NAME(label)},
        .kind = o->kind,
        .loss_on = o->kind == PLUMB_DATA_SFT ? o->loss_on : PLUMB_LOSS_AUTO,
        .chat_template = o->template_name ? o->template_name : "chatml",
        .alpaca_template = o->template_name ? o->template_name : "alpaca",
    };
#undef NAME
    if (o->max_length < 0 || o->skip_first < 0 || o->take_last < 0 || o->skip_last < 0)
        return plumb_error(
            PLUMB_E_CONFIG, "%s: max_length %d, skip_first %lld, take_last %lld, skip_last %lld: expected none below 0",
            o->path, o->max_length, (long long)o->skip_first, (long long)o->take_last, (long long)o->skip_last);
    PLUMB_TRY(plumb_prompt_check(l->rules.chat_template));

    int32_t eos = plumb_tokenizer_eos(l->tokenizer);
    plumb_str text = {0};
    if (eos < 0) return PLUMB_OK;
    plumb_status status = plumb_detokenize(l->tokenizer, &eos, 1, false, &text);
    if (status == PLUMB_OK && text.length)
        l->rules.eos = text.data;
    else
        plumb_str_free(&text);
    return status;
}

static plumb_status choose_part(const loader *l, int64_t *first, int64_t *end) {
    const plumb_data_options *o = l->options;
    int64_t n = l->records.count;
    *first = plumb_min64(o->skip_first, n);
    *end = n - plumb_min64(o->skip_last, n);
    if (o->take_last && o->take_last < n) *first = plumb_max64(*first, n - o->take_last);
    if (*first < *end) return PLUMB_OK;
    if (n && o->skip_last >= n)
        return plumb_error(PLUMB_E_DATA, "%s: no record is left of %lld when the last %lld are held out (eval_last)", o->path, (long long)n,
                           (long long)o->skip_last);
    return plumb_error(PLUMB_E_DATA,
                       "%s: no record is left of %lld after skip_first %lld, take_last %lld, skip_last %lld", o->path,
                       (long long)n, (long long)o->skip_first, (long long)o->take_last, (long long)o->skip_last);
}

/* --- samples ---------------------------------------------------------------------------------- */

static plumb_status append_ids(loader *l, const int32_t *ids, size_t count) {
    PLUMB_TRY(plumb_grow(&l->ids.data, &l->ids.capacity, l->ids.count + count + 1, sizeof *ids));
    if (count) memcpy(l->ids.data + l->ids.count, ids, count * sizeof *ids);
    l->ids.count += count;
    return PLUMB_OK;
}

/* Room for the mask of a branch, at the end of l->masks. */
static plumb_status append_mask(loader *l, size_t count, uint8_t **mask) {
    PLUMB_TRY(plumb_grow(&l->masks.data, &l->masks.capacity, l->masks.length + count + 1, 1));
    *mask = (uint8_t *)l->masks.data + l->masks.length;
    l->masks.length += count;
    return PLUMB_OK;
}

static plumb_status append_text(loader *l, const char *text, size_t length) {
    PLUMB_TRY(plumb_grow(&l->text_places, &l->text_place_capacity, l->n_text_places + 1, sizeof *l->text_places));
    l->text_places[l->n_text_places++] = text ? (int64_t)l->texts.length : -1;
    if (!text) return PLUMB_OK;
    PLUMB_TRY(plumb_str_append(&l->texts, text, length));
    return plumb_str_append(&l->texts, "", 1);
}

/* Texts that rewards read, in the order in which settle hands them out. */
static plumb_status append_texts(loader *l, int n_branches) {
    const example *e = &l->example;
    plumb_data_kind kind = l->options->kind;
    bool rated = kind == PLUMB_DATA_RATED && l->options->keep_texts;
    const char *prompt = e->prompt.length ? e->prompt.data : "",
               *answer = e->extras.answer.length ? e->extras.answer.data : "";
    PLUMB_TRY(append_text(l, rated || kind == PLUMB_DATA_PROMPTS ? prompt : NULL, e->prompt.length));
    PLUMB_TRY(append_text(l, e->messages.length ? e->messages.data : NULL, e->messages.length));
    PLUMB_TRY(append_text(l, e->extras.has_answer ? answer : NULL, e->extras.answer.length));
    for (int i = 0; i < n_branches; i++) {
        const char *text = rated ? e->completion[i] : NULL;
        PLUMB_TRY(append_text(l, text, text ? strlen(text) : 0));
    }
    return PLUMB_OK;
}

/* counts: [s->n_branches] tokens of each branch */
static plumb_status push_sample(loader *l, const plumb_sample *s, const int32_t *counts) {
    plumb_dataset *d = l->d;
    size_t n = (size_t)s->n_branches;
    PLUMB_TRY(plumb_grow(&d->samples, &l->sample_capacity, (size_t)d->count + 1, sizeof *s));
    PLUMB_TRY(plumb_grow(&l->branches, &l->branch_capacity, l->n_branches + n + 1, sizeof *l->branches));
    PLUMB_TRY(append_texts(l, s->n_branches));
    d->samples[d->count] = *s;
    d->samples[d->count].margin = l->example.extras.margin;
    d->samples[d->count++].label = l->example.extras.label;
    d->counts.tokens += s->prompt_count;
    for (size_t i = 0; i < n; i++) {
        l->branches[l->n_branches++] = (plumb_branch){.count = counts[i]};
        d->counts.tokens += counts[i];
    }
    return PLUMB_OK;
}

static int32_t cut(size_t count, int32_t max_length) {
    return max_length && count > (size_t)max_length ? max_length : (int32_t)count;
}

static plumb_status add_sft(loader *l, int64_t record) {
    const encoded *c = &l->encoded;
    plumb_data_counts *counts = &l->d->counts;
    int32_t whole = (int32_t)c->whole[0].count, kept = cut(c->whole[0].count, l->options->max_length), targets = 0,
            lost = 0;
    bool all = l->rules.loss_on == PLUMB_LOSS_ALL;
    uint8_t *mask;
    PLUMB_TRY(append_mask(l, (size_t)whole, &mask));
    for (int32_t i = 0; i < whole; i++) {
        mask[i] = i > 0 && (all || i >= c->start) && (!l->example.assistant_only || c->assistant[i]);
        *(i < kept ? &targets : &lost) += mask[i];
    }
    if (targets == 0) {
        l->masks.length -= (size_t)whole;
        *(lost ? &counts->dropped_long : &counts->dropped_empty) += 1;
        return PLUMB_OK;
    }
    l->masks.length -= (size_t)(whole - kept);
    counts->truncated += kept < whole;
    counts->targets += targets;
    PLUMB_TRY(append_ids(l, c->whole[0].data, (size_t)kept));
    return push_sample(l, &(plumb_sample){.record = record, .n_branches = 1}, &kept);
}

/* One completion after the prompt, or the two of a pair. */
static plumb_status add_answers(loader *l, int64_t record) {
    const encoded *c = &l->encoded;
    plumb_data_counts *counts = &l->d->counts;
    int32_t limit = l->options->max_length, orphan = c->start == 0; /* without a prompt the first token is no target */
    int n = l->example.wholes;
    if (limit && c->start >= limit) {
        counts->dropped_long++;
        return PLUMB_OK;
    }
    plumb_sample s = {.record = record, .n_branches = n, .prompt_count = c->start};
    int32_t kept[2];
    bool cut_any = false;
    for (int i = 0; i < n; i++) {
        size_t whole = c->whole[i].count;
        kept[i] = cut(whole, limit) - c->start;
        cut_any |= limit && whole > (size_t)limit;
        if (kept[i] > orphan) continue;
        *(whole > (size_t)(c->start + orphan) ? &counts->dropped_long : &counts->dropped_empty) += 1;
        return PLUMB_OK;
    }
    if (cut_any && l->options->drop_long) {
        counts->dropped_long++;
        return PLUMB_OK;
    }
    counts->truncated += cut_any;
    PLUMB_TRY(append_ids(l, c->whole[0].data, (size_t)c->start));
    for (int i = 0; i < n; i++) {
        uint8_t *mask;
        size_t tokens = (size_t)kept[i];
        PLUMB_TRY(append_ids(l, c->whole[i].data + c->start, tokens));
        PLUMB_TRY(append_mask(l, tokens, &mask));
        memset(mask, 1, tokens);
        if (orphan) mask[0] = 0;
        counts->targets += (int64_t)tokens - orphan;
    }
    return push_sample(l, &s, kept);
}

static plumb_status add_prompt(loader *l, int64_t record) {
    const plumb_ids *ids = &l->encoded.prompt;
    int32_t limit = l->options->max_length;
    if (ids->count == 0 || (limit && ids->count > (size_t)limit)) {
        *(ids->count ? &l->d->counts.dropped_long : &l->d->counts.dropped_empty) += 1;
        return PLUMB_OK;
    }
    PLUMB_TRY(append_ids(l, ids->data, ids->count));
    return push_sample(l, &(plumb_sample){.record = record, .prompt_count = (int32_t)ids->count}, NULL);
}

static plumb_status add_sample(loader *l, int64_t record) {
    l->d->counts.merged_border += l->encoded.merged;
    l->d->counts.common_prompt += l->example.common_prompt;
    switch (l->options->kind) {
    case PLUMB_DATA_SFT: return add_sft(l, record);
    case PLUMB_DATA_PROMPTS: return add_prompt(l, record);
    default: return add_answers(l, record);
    }
}

static plumb_status add_record(loader *l, int64_t index) {
    json_t *object = NULL;
    PLUMB_TRY(records_parse(&l->records, index, &object));
    plumb_status status = example_make(&l->example, &l->rules, object);
    if (status == PLUMB_OK) status = encode_example(&l->encoded, l->tokenizer, &l->example);
    status = status == PLUMB_OK ? add_sample(l, index) : records_blame(&l->records, index, status);
    json_decref(object); /* the example's completions point into it */
    return status;
}

/* --- the whole -------------------------------------------------------------------------------- */

static plumb_status add_records(loader *l, int64_t first, int64_t end) {
    plumb_data_counts *counts = &l->d->counts;
    for (int64_t i = first; i < end; i++) {
        plumb_status status = add_record(l, i);
        counts->records++;
        if (status == PLUMB_OK) continue;
        bool record_is_bad = status == PLUMB_E_DATA || status == PLUMB_E_FORMAT;
        if (!l->options->skip_bad || !record_is_bad) return status;
        if (counts->bad++ == 0) {
            strncpy(l->d->first_bad, plumb_error_message(), sizeof l->d->first_bad - 1);
        }
    }
    if (l->d->count) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA, "%s: no usable sample in %lld records: %lld bad, %lld too long for %s %d, %lld without a target%s%s",
                       l->options->path, (long long)counts->records, (long long)counts->bad, (long long)counts->dropped_long,
                       l->options->kind == PLUMB_DATA_PROMPTS ? "max_prompt_length" : "max_length", l->options->max_length,
                       (long long)counts->dropped_empty, counts->bad ? "; the first bad one: " : "", l->d->first_bad);
}

/* The next text of `places`, in block; NULL for none. */
static const char *next_text(const int64_t **places, const char *texts) {
    int64_t place = *(*places)++;
    return place < 0 ? NULL : texts + place;
}

/* Moves branches, ids, masks and texts into one block and points every sample into it. */
static plumb_status settle(loader *l) {
    plumb_dataset *d = l->d;
    size_t branch_bytes = l->n_branches * sizeof *l->branches, id_bytes = l->ids.count * sizeof *l->ids.data;
    uint8_t *block;
    PLUMB_TRY(plumb_alloc(&block, branch_bytes + id_bytes + l->masks.length + l->texts.length, 1, "token ids"));
    if (branch_bytes) memcpy(block, l->branches, branch_bytes);
    memcpy(block + branch_bytes, l->ids.data, id_bytes);
    if (l->masks.length) memcpy(block + branch_bytes + id_bytes, l->masks.data, l->masks.length);
    char *texts = (char *)block + branch_bytes + id_bytes + l->masks.length;
    const int64_t *places = l->text_places;
    if (l->texts.length) memcpy(texts, l->texts.data, l->texts.length);
    d->storage = block;
    plumb_branch *branch = (plumb_branch *)(void *)block;
    int32_t *ids = (int32_t *)(void *)(block + branch_bytes);
    uint8_t *mask = block + branch_bytes + id_bytes;
    for (int64_t i = 0; i < d->count; i++) {
        plumb_sample *s = &d->samples[i];
        s->prompt = ids;
        ids += s->prompt_count;
        s->branch = branch;
        branch += s->n_branches;
        s->prompt_text = next_text(&places, texts);
        s->messages = next_text(&places, texts);
        s->answer = next_text(&places, texts);
        for (int k = 0; k < s->n_branches; k++) {
            s->branch[k].ids = ids;
            s->branch[k].mask = mask;
            s->branch[k].text = next_text(&places, texts);
            ids += s->branch[k].count;
            mask += s->branch[k].count;
        }
    }
    return PLUMB_OK;
}

plumb_status plumb_dataset_parse(plumb_dataset *d, const plumb_tokenizer *t, const plumb_data_options *o,
                                 const char *text, size_t size) {
    *d = (plumb_dataset){0};
    loader l = {.tokenizer = t, .options = o, .d = d};
    int64_t first, end;
    plumb_status status = set_rules(&l);
    if (status == PLUMB_OK) status = records_open(&l.records, o->path, text, size);
    if (status == PLUMB_OK) status = choose_part(&l, &first, &end);
    if (status == PLUMB_OK) status = add_records(&l, first, end);
    if (status == PLUMB_OK) status = settle(&l);
    loader_free(&l);
    if (status != PLUMB_OK) plumb_dataset_free(d);
    return status;
}

plumb_status plumb_dataset_load(plumb_dataset *d, const plumb_tokenizer *t, const plumb_data_options *o) {
    char *text = NULL;
    size_t size;
    *d = (plumb_dataset){0};
    PLUMB_TRY(plumb_read_file(o->path, &text, &size));
    plumb_status status = plumb_dataset_parse(d, t, o, text, size);
    free(text);
    return status;
}

plumb_status plumb_dataset_order(const plumb_dataset *d, bool shuffle, uint64_t seed, uint32_t epoch, int64_t *out) {
    if (shuffle) return plumb_rng_permutation(seed, epoch, d->count, out);
    for (int64_t i = 0; i < d->count; i++) out[i] = i;
    return PLUMB_OK;
}
