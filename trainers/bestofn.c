/* Best of n: sample several completions of every prompt, score them, and write the best (and the worst) as a data set for SFT or
 * preference training.
 *
 *     OUTPUT.partial/records.jsonl   the records of finished chunks, on disk before the checkpoint is
 *     OUTPUT.partial/step-000012/    a checkpoint after chunk 12: how many bytes of records.jsonl count, their checksum, sums for the
 *                                    summary
 *     OUTPUT                         records.jsonl under its final name, when every prompt is done
 *
 * Prompts are taken in chunks of a fixed number, so that what is sampled does not depend on the number of ranks, and what a chunk gives
 * does not depend on those before it. A run that was stopped or killed therefore goes on behind its last chunk, on any number of ranks,
 * and leaves the bytes of one that was not. */
#include "online.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* of all chunks so far; alike on every rank. cut: answers among the written ones (of pairs the chosen) that max_completion_length ended */
typedef struct totals { int64_t bytes, hash, prompts, completions, written, cut, without_spread, errors; double best, mean; } totals;
static const char *const total_names[] = {"bytes", "hash",           "prompts", "completions", "written",
                                          "cut",   "without_spread", "errors",  "best",        "mean"};
enum { TOTALS = sizeof total_names / sizeof *total_names };
_Static_assert(sizeof(totals) == TOTALS * sizeof(int64_t), "a counter for each number, doubles as their bits");

typedef struct output {
    totals sum;
    plumb_str lines; /* of the chunk under way; rank 0 */
    plumb_str dir, records;
    char *identity;
    plumb_claim *claim; /* of dir; rank 0 */
} output;

/* --- records ---------------------------------------------------------------------------------- */
/* "NAME": the answer, as text or, where the prompt is a chat, as its turn; then how it ended and its score. */
static plumb_status write_answer(const plumb_online *o, int64_t i, const char *name, const char *suffix, plumb_str *s) {
    const plumb_trajectories *t = &o->t;
    bool chat = o->s->train.samples[o->prompt_of[t->group[i]]].messages;
    char *text;
    PLUMB_TRY(plumb_online_text_behind_prompt(o, i, &text));
    plumb_status status = chat ? plumb_str_printf(s, ", \"%s\": [{\"role\": \"assistant\"", name) : PLUMB_OK;
    if (status == PLUMB_OK) status = plumb_recipe_append_text(s, ", ", chat ? "content" : name, text);
    if (status == PLUMB_OK && chat) status = plumb_str_printf(s, "}]");
    free(text);
    PLUMB_TRY(status);
    return plumb_str_printf(s, ", \"finish%s\": \"%s\", \"score%s\": %.9g", suffix, plumb_finish_names[t->finish[i]], suffix, t->score[i]);
}
/* Of equal scores the first is taken. */
static plumb_status write_group(const plumb_online *o, int64_t first, output *out) {
    const plumb_trajectories *t = &o->t;
    const plumb_sample *x = &o->s->train.samples[o->prompt_of[t->group[first]]];
    int64_t best = first, worst = first;
    for (int64_t i = first; i < first + o->group_size; i++) {
        if (t->score[i] > t->score[best]) best = i;
        if (t->score[i] < t->score[worst]) worst = i;
        out->sum.mean += t->score[i], out->sum.completions++;
    }
    bool pairs = !strcmp(o->s->o->output_format, "preference");
    out->sum.best += t->score[best], out->sum.prompts++;
    if (t->score[best] == t->score[worst]) {
        out->sum.without_spread++;
        if (pairs) return PLUMB_OK; /* nothing to prefer */
    }
    plumb_str *s = &out->lines;
    if (x->messages) PLUMB_TRY(plumb_str_printf(s, "{\"prompt\": %s", x->messages));
    else PLUMB_TRY(plumb_recipe_append_text(s, "{", "prompt", t->prompt_text[first]));
    PLUMB_TRY(write_answer(o, best, pairs ? "chosen" : "completion", pairs ? "_chosen" : "", s));
    if (pairs) PLUMB_TRY(write_answer(o, worst, "rejected", "_rejected", s));
    out->sum.written++, out->sum.cut += t->finish[best] == PLUMB_FINISH_LENGTH;
    return plumb_str_printf(s, ", \"record\": %lld}\n", (long long)t->record[first]);
}
static plumb_status write_chunk(plumb_online *o, output *out) {
    int64_t before = out->sum.bytes;
    out->lines.length = 0;
    PLUMB_TRY(plumb_online_texts(o, 0, o->t.n_sequences));
    for (int64_t g = 0; g < o->n_groups; g++) PLUMB_TRY(write_group(o, g * o->group_size, out));
    for (int k = 0; k < o->n_sources; k++) {
        const char *counts = plumb_reward_source_counts(o->sources[k]);
        if (counts && !strcmp(counts, "errors")) out->sum.errors += o->failed[k];
    }
    out->sum.bytes += (int64_t)out->lines.length;
    out->sum.hash = (int64_t)plumb_session_mix((uint64_t)out->sum.hash, out->lines.data, out->lines.length);
    return plumb_append_file(out->records.data, (size_t)before, out->lines.data, out->lines.length);
}

/* --- what is done ----------------------------------------------------------------------------- */
/* Everything that decides what is written. */
static plumb_status identify(const plumb_online *o, output *out) {
    const plumb_session *s = o->s;
    plumb_str text = {0};
    plumb_status status =
        plumb_str_printf(&text, "trainer=%s\nnumerics=%d\nmodel=%016llx\nadapter=%016llx\nreward=%016llx\ndata=%016llx\nprecision=%s\n",
                         s->name, PLUMB_NUMERICS, (unsigned long long)plumb_source_identity(s->source),
                         (unsigned long long)plumb_online_adapter_hash(PLUMB_MIX_START, &s->adapter, plumb_source_params(s->source)),
                         (unsigned long long)s->judge, (unsigned long long)plumb_session_data_hash(&s->train),
                         s->be->compute == PLUMB_COMPUTE_BF16 ? "bf16" : "fp32");
    if (status == PLUMB_OK) status = plumb_options_identity(s->o, s->command, true, &text);
    out->identity = text.data;
    return status;
}

/* Are the bytes that the checkpoint speaks of there? A run that was killed at its very end has given them their final name. Local. */
static plumb_status verify(const plumb_session *s, const output *out) {
    plumb_map m;
    bool named = out->sum.prompts == s->train.count && !plumb_path_exists(out->records.data);
    const char *path = named ? s->o->output_file : out->records.data;
    PLUMB_TRY(plumb_map_open(&m, path));
    bool good =
        m.size >= (size_t)out->sum.bytes && plumb_session_mix(PLUMB_MIX_START, m.data, (size_t)out->sum.bytes) == (uint64_t)out->sum.hash;
    plumb_map_close(&m);
    return good ? PLUMB_OK
                : plumb_error(PLUMB_E_FORMAT, "%s: damaged: its first %lld bytes are not those of the finished chunks", path,
                              (long long)out->sum.bytes);
}

/* Is there a result, and nothing that a run which has not ended would go on from? */
bool plumb_bestofn_is_done(const char *output_file) {
    plumb_str dir = {0};
    bool done =
        plumb_path_is_file(output_file) && plumb_str_printf(&dir, "%s.partial", output_file) == PLUMB_OK && !plumb_path_exists(dir.data);
    plumb_str_free(&dir);
    return done;
}

plumb_status plumb_bestofn_forget(const char *output_file) {
    plumb_str dir = {0}, records = {0};
    plumb_status status = plumb_str_printf(&dir, "%s.partial", output_file);
    if (status == PLUMB_OK) status = plumb_str_printf(&records, "%s/records.jsonl", dir.data);
    if (status == PLUMB_OK && unlink(records.data) && errno != ENOENT && errno != ENOTDIR)
        status = plumb_error(PLUMB_E_IO, "%s: cannot remove: %m", records.data);
    if (status == PLUMB_OK) status = plumb_checkpoint_discard(dir.data);
    plumb_str_free(&dir), plumb_str_free(&records);
    return status;
}

static plumb_status resume(plumb_session *s, output *out) {
    char *path = NULL;
    plumb_ckpt_counter counters[TOTALS];
    for (int i = 0; i < TOTALS; i++) counters[i] = (plumb_ckpt_counter){.name = total_names[i]};
    PLUMB_TRY(plumb_checkpoint_latest(out->dir.data, &path, &s->step));
    if (!path) {
        s->step = 0;
        return PLUMB_OK;
    }
    plumb_status status = plumb_checkpoint_load(path, out->identity, NULL, 0, counters, TOTALS);
    free(path);
    PLUMB_TRY(status);
    for (int i = 0; i < TOTALS; i++) memcpy((char *)&out->sum + (size_t)i * sizeof(int64_t), &counters[i].value, sizeof counters[i].value);
    if (plumb_is_root() && verify(s, out) != PLUMB_OK) {
        fprintf(stderr, "plumb bestofn: beginning anew: %s\n", plumb_error_message());
        s->step = 0;
        status = plumb_bestofn_forget(s->o->output_file);
        if (status == PLUMB_OK) status = plumb_make_dirs(out->dir.data);
    }
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, status));
    plumb_comm_bcast(PLUMB_AXIS_WORLD, &s->step, sizeof s->step, 0);
    if (s->step == 0) out->sum = (totals){.hash = (int64_t)PLUMB_MIX_START};
    else if (plumb_is_root())
        fprintf(stderr, "resumed from %s (%lld of %lld prompts)\n", out->dir.data, (long long)out->sum.prompts, (long long)s->train.count);
    return PLUMB_OK;
}

static plumb_status save(plumb_session *s, output *out) {
    plumb_ckpt_counter counters[TOTALS];
    plumb_comm_bcast(PLUMB_AXIS_WORLD, &out->sum, sizeof out->sum, 0); /* rank 0 has counted */
    for (int i = 0; i < TOTALS; i++) {
        counters[i].name = total_names[i];
        memcpy(&counters[i].value, (const char *)&out->sum + (size_t)i * sizeof(int64_t), sizeof counters[i].value);
    }
    plumb_comm_doing("saving after chunk", s->step);
    return plumb_checkpoint_save(out->dir.data, s->step, out->identity, NULL, 0, counters, TOTALS, 1);
}

/* --- the run ---------------------------------------------------------------------------------- */
static plumb_status there_already(const plumb_options *o) {
    return plumb_error(PLUMB_E_CONFIG, "output_file: %s is there already; expected another name, or resume=never to sample it anew",
                       o->output_file);
}
/* Another run may have finished the result while this one waited for the folder, and left nothing to go on from. */
static plumb_status check_result(const plumb_session *s) {
    bool anew = !strcmp(s->o->resume, "never");
    return !anew && s->step == 0 && plumb_path_is_file(s->o->output_file) ? there_already(s->o) : PLUMB_OK;
}
static plumb_status open_output(plumb_online *o, output *out) {
    const plumb_options *options = o->s->o;
    *out = (output){.sum.hash = (int64_t)PLUMB_MIX_START};
    PLUMB_TRY(plumb_str_printf(&out->dir, "%s.partial", options->output_file));
    PLUMB_TRY(plumb_str_printf(&out->records, "%s/records.jsonl", out->dir.data));
    PLUMB_TRY(identify(o, out));
    if (!plumb_is_root()) return PLUMB_OK;
    PLUMB_TRY(plumb_prepare_file(options->output_file));
    bool anew = !strcmp(options->resume, "never");
    if (!anew && plumb_bestofn_is_done(options->output_file)) return there_already(options);
    PLUMB_TRY(plumb_claim_take(&out->claim, out->dir.data));
    return anew ? plumb_bestofn_forget(options->output_file) : PLUMB_OK;
}

/* One chunk: sample, score, keep. A chunk that TERM interrupts is given up. */
static plumb_status advance(plumb_online *o, output *out) {
    plumb_session *s = o->s;
    PLUMB_TRY(plumb_online_sample(o));
    PLUMB_TRY(plumb_online_score(o));
    if (!s->interrupted) {
        PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, plumb_is_root() ? write_chunk(o, out) : PLUMB_OK));
        s->step++;
        PLUMB_TRY(save(s, out));
    }
    s->stopping = (s->interrupted || plumb_online_signal(s) != PLUMB_SIGNAL_NONE) && out->sum.prompts < s->train.count;
    return PLUMB_OK;
}

static plumb_status finish(const plumb_session *s, const output *out) {
    const totals *t = &out->sum;
    if (plumb_path_exists(out->records.data)) PLUMB_TRY(plumb_rename_file(out->records.data, s->o->output_file));
    if (plumb_bestofn_forget(s->o->output_file) != PLUMB_OK)
        fprintf(stderr, "plumb bestofn: the result is written, but something is left: %s\n", plumb_error_message());
    printf("prompts %lld\ncompletions %lld\nmean_reward %.6g\nmean_best_reward %.6g\ngroups_without_spread %lld\n", (long long)t->prompts,
           (long long)t->completions, t->mean / (double)t->completions, t->best / (double)t->prompts, (long long)t->without_spread);
    if (!t->written) fprintf(stderr, "plumb bestofn: no prompt has completions of different scores, so there is nothing to prefer\n");
    if (t->cut) printf("records_cut_off %lld\n", (long long)t->cut);
    if (t->errors) printf("reward_errors %lld\n", (long long)t->errors);
    printf("%lld records in %s\n", (long long)t->written, s->o->output_file);
    return PLUMB_OK;
}

static plumb_status run_chunks(plumb_online *o, output *out) {
    plumb_session *s = o->s;
    double began = plumb_clock();
    int64_t tokens = 0;
    while (out->sum.prompts < s->train.count && !s->stopping) {
        PLUMB_TRY(advance(o, out));
        if (s->interrupted || !plumb_is_root()) continue;
        tokens += o->t.n_tokens;
        fprintf(stderr, "%lld/%lld prompts  mean reward %.4g  best %.4g  %.0f tok/s\n", (long long)out->sum.prompts,
                (long long)s->train.count, out->sum.mean / (double)out->sum.completions, out->sum.best / (double)out->sum.prompts,
                (double)tokens / (plumb_clock() - began));
    }
    if (s->stopping && plumb_is_root())
        fprintf(stderr, "stopped after %lld of %lld prompts; kept in %s; the same command goes on from there\n",
                (long long)out->sum.prompts, (long long)s->train.count, out->dir.data);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() && !s->stopping ? finish(s, out) : PLUMB_OK);
}

static plumb_status run(plumb_online *o) {
    output out;
    plumb_status status = plumb_comm_agree(PLUMB_AXIS_WORLD, open_output(o, &out));
    if (status == PLUMB_OK) status = resume(o->s, &out);
    if (status == PLUMB_OK) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? check_result(o->s) : PLUMB_OK);
    if (status == PLUMB_OK) status = run_chunks(o, &out);
    plumb_claim_free(out.claim);
    if (plumb_is_root() && out.dir.data) rmdir(out.dir.data); /* empty, that is: what is not through has its records there */
    plumb_str_free(&out.lines), plumb_str_free(&out.dir), plumb_str_free(&out.records);
    free(out.identity);
    return status;
}

int plumb_bestofn(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_BESTOFN, "bestofn", run); }
