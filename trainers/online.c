/* Sampling, and passes over what was sampled: see online.h. */
#include "online.h"
#include "plan.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

void plumb_online_phase(plumb_online *o, int phase, double since) { o->seconds[phase] += plumb_clock() - since; }

plumb_sampling plumb_online_sampling(const plumb_session *s, int32_t *ends) {
    const plumb_options *o = s->o;
    const plumb_arch *a = plumb_source_arch(s->source);
    int n = a->n_eos;
    memcpy(ends, a->eos, sizeof a->eos);
    if (plumb_tokenizer_eos(s->tokenizer) >= 0) ends[n++] = plumb_tokenizer_eos(s->tokenizer);
    return (plumb_sampling){.do_sample = true, .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                            .typical_p = o->typical_p, .repetition_penalty = o->repetition_penalty, .min_new_tokens = o->min_new_tokens,
                            .max_new_tokens = o->max_completion_length, .ends = ends, .n_ends = n,
                            .tokens = plumb_tokenizer_vocab(s->tokenizer)};
}

/* --- sample ----------------------------------------------------------------------------------- */
/* The prompts of this iteration; the same on every rank. */
static plumb_status choose_prompts(plumb_online *o) {
    plumb_session *s = o->s;
    if (!(s->command & PLUMB_FOR_ONLINE)) { /* every prompt once, in the order of the file */
        int64_t chunk = plumb_online_chunk(s->o), from = s->step * chunk;
        o->n_groups = plumb_min64(chunk, s->train.count - from);
        for (int64_t i = 0; i < o->n_groups; i++) o->prompt_of[i] = from + i;
        return PLUMB_OK;
    }
    int64_t groups = s->o->batch_size / s->o->num_generations, epoch = s->step / s->steps_per_epoch,
            first = s->step % s->steps_per_epoch * groups;
    if (s->order_epoch != epoch) {
        PLUMB_TRY(plumb_dataset_order(&s->train, s->o->shuffle, (uint64_t)s->o->seed, (uint32_t)epoch, s->order));
        s->order_epoch = epoch;
    }
    o->n_groups = plumb_min64(groups, s->train.count - first);
    memcpy(o->prompt_of, s->order + first, (size_t)o->n_groups * sizeof *o->prompt_of);
    return PLUMB_OK;
}

bool plumb_online_progress(void *user, const plumb_rollout_stats *so_far, int64_t requests) {
    plumb_online *o = user;
    plumb_log_progress(o->s->log, "sampling", so_far->finished, requests, (double)so_far->tokens / so_far->seconds);
    return plumb_comm_signal() != PLUMB_SIGNAL_TERM;
}

/* This rank's share: a contiguous range of sequences, so that most of a group meets on one rank and shares its prompt. */
static plumb_status complete_share(plumb_online *o) {
    plumb_session *s = o->s;
    int64_t n = o->n_groups * o->group_size, rank = plumb_comm_rank(PLUMB_AXIS_DATA), ranks = plumb_comm_size(PLUMB_AXIS_DATA);
    o->mine = n * rank / ranks, o->n_mine = n * (rank + 1) / ranks - o->mine;
    plumb_rollout_request *requests;
    PLUMB_TRY(plumb_alloc(&requests, (size_t)o->n_mine, sizeof *requests, "requests"));
    for (int64_t i = 0; i < o->n_mine; i++) {
        int64_t sequence = o->mine + i;
        const plumb_sample *x = &s->train.samples[o->prompt_of[sequence / o->group_size]];
        requests[i] =
            (plumb_rollout_request){x->prompt, x->prompt_count, (uint32_t)(sequence / o->group_size), (uint32_t)(sequence % o->group_size)};
    }
    plumb_rollout_set_step(o->engine, (uint32_t)s->step);
    plumb_status status = plumb_rollout_run(o->engine, requests, o->n_mine, o->completions, NULL);
    free(requests);
    return status;
}

/* Everybody's completions to everybody: lengths and ends as sums with zeros elsewhere, tokens as gathered ranges. */
static plumb_status gather(plumb_online *o) {
    plumb_session *s = o->s;
    plumb_trajectories *t = &o->t;
    int64_t n = o->n_groups * o->group_size, prompt_tokens = 0, tokens = 0, *sizes = NULL;
    size_t *counts = NULL, *offsets;
    int ranks = plumb_comm_size(PLUMB_AXIS_DATA);
    bool trunk = plumb_online_on_trunk(o);
    plumb_status status = plumb_comm_agree(PLUMB_AXIS_DATA, plumb_alloc(&sizes, (size_t)(2 * n), sizeof *sizes, "lengths"));
    if (status != PLUMB_OK) goto done;
    for (int64_t i = 0; i < o->n_mine; i++) sizes[o->mine + i] = o->completions[i].count, sizes[n + o->mine + i] = o->completions[i].finish;
    plumb_comm_sum_i64(PLUMB_AXIS_DATA, sizes, 2 * n);
    for (int64_t i = 0; i < n; i++) prompt_tokens += s->train.samples[o->prompt_of[i / o->group_size]].prompt_count, tokens += sizes[i];
    plumb_trajectories_free(t);
    status = plumb_comm_agree(PLUMB_AXIS_DATA, plumb_trajectories_alloc(t, n, prompt_tokens, tokens));
    if (status != PLUMB_OK) goto done;
    t->iteration = s->step + 1, t->policy_version = s->updates;
    s->tokens_seen += prompt_tokens + tokens;
    for (int64_t i = 0; i < n; i++) {
        const plumb_sample *x = &s->train.samples[o->prompt_of[i / o->group_size]];
        t->record[i] = x->record, t->group[i] = i / o->group_size, t->branch[i] = (int32_t)(i % o->group_size);
        t->finish[i] = (uint8_t)sizes[n + i], t->seed[i] = (uint64_t)s->o->seed;
        t->prompt_offset[i + 1] = t->prompt_offset[i] + x->prompt_count, t->token_offset[i + 1] = t->token_offset[i] + sizes[i];
        memcpy(t->prompt_ids + t->prompt_offset[i], x->prompt, (size_t)x->prompt_count * sizeof *x->prompt);
    }
    status = plumb_comm_agree(PLUMB_AXIS_DATA, plumb_alloc(&counts, 2 * (size_t)ranks, sizeof *counts, "lengths"));
    if (status != PLUMB_OK) goto done;
    offsets = counts + ranks;
    for (int64_t i = 0; i < o->n_mine; i++) {
        const plumb_completion *c = &o->completions[i];
        int64_t at = t->token_offset[o->mine + i];
        memcpy(t->ids + at, c->ids, (size_t)c->count * sizeof *c->ids);
        memcpy(t->logp + at, c->logp, (size_t)c->count * sizeof *c->logp);
        memcpy(t->entropy + at, c->entropy, (size_t)c->count * sizeof *c->entropy);
        if (trunk) memcpy(t->values + at, c->values, (size_t)c->count * sizeof *c->values);
    }
    struct {
        void *all;
        size_t size;
    } arrays[] = {{t->ids, sizeof *t->ids}, {t->logp, sizeof *t->logp}, {t->entropy, sizeof *t->entropy}, {t->values, sizeof *t->values}};
    for (int a = 0; a < 3 + trunk; a++) {
        for (int r = 0; r < ranks; r++) {
            int64_t first = t->token_offset[n * r / ranks], last = t->token_offset[n * (r + 1) / ranks];
            offsets[r] = (size_t)first * arrays[a].size, counts[r] = (size_t)(last - first) * arrays[a].size;
        }
        plumb_comm_allgatherv(PLUMB_AXIS_DATA, (char *)arrays[a].all + offsets[plumb_comm_rank(PLUMB_AXIS_DATA)], arrays[a].all, counts,
                              offsets);
    }
    memset(t->mask, 1, (size_t)t->n_tokens);
    for (int64_t k = 0; k < t->n_tokens; k++) t->ref_logp[k] = NAN; /* until a reference says something */
done:
    free(counts);
    free(sizes);
    return status;
}

static int64_t tokens_of(const plumb_trajectories *t, int64_t first, int64_t count) {
    return t->token_offset[first + count] - t->token_offset[first];
}
/* Would `parts` trees of like many completions keep within the budget? */
static bool fits(const plumb_trajectories *t, int64_t first, int64_t n, int64_t parts, int64_t budget) {
    int64_t prompt = t->prompt_offset[first + 1] - t->prompt_offset[first];
    for (int64_t k = 0; k < parts; k++) {
        int64_t from = n * k / parts, to = n * (k + 1) / parts;
        if (to - from > 1 && prompt + tokens_of(t, first + from, to - from) > budget) return false;
    }
    return true;
}
/* Completion i as a branch. A reward model has learned to read an answer of a chat as its template writes it: behind the mark on which a
 * policy ends comes a line end. Only where that lies beyond the model's last position is it left out. */
static plumb_branch branch_of(const plumb_online *o, int64_t i) {
    const plumb_trajectories *t = &o->t;
    int32_t count = (int32_t)(t->token_offset[i + 1] - t->token_offset[i]), after = (int32_t)o->turn_end.count - 1;
    int64_t length = count + t->prompt_offset[i + 1] - t->prompt_offset[i];
    plumb_branch b = {.ids = t->ids + t->token_offset[i], .count = count};
    bool chat = o->s->train.samples[o->prompt_of[t->group[i]]].messages;
    bool ended = after > 0 && count && b.ids[count - 1] == o->turn_end.data[0];
    if (chat && ended && o->judge.model && length + after <= plumb_model_arch(o->judge.model)->max_positions)
        b.after = o->turn_end.data + 1, b.n_after = after;
    return b;
}
/* Trees of at most the token budget (or one completion), as few of a group as that allows, alike. */
static plumb_status plant(plumb_online *o) {
    plumb_trajectories *t = &o->t;
    o->n_trees = 0;
    PLUMB_TRY(plumb_grow(&o->trees, &o->cap_trees, (size_t)t->n_sequences, sizeof *o->trees));
    for (int64_t first = 0; first < t->n_sequences; first += o->group_size) {
        int64_t n = o->group_size, parts = 1;
        while (!fits(t, first, n, parts, o->s->o->micro_batch_tokens)) parts++;
        for (int64_t k = 0; k < parts; k++)
            o->trees[o->n_trees++] = (plumb_tree){first + n * k / parts, n * (k + 1) / parts - n * k / parts, t->group[first]};
    }
    free(o->data.samples), free(o->data.storage);
    o->data = (plumb_dataset){.count = o->n_trees};
    plumb_branch *branches;
    PLUMB_TRY(plumb_alloc(&o->data.samples, (size_t)o->n_trees, sizeof *o->data.samples, "trees"));
    PLUMB_TRY(plumb_alloc(&branches, (size_t)t->n_sequences, sizeof *branches, "trees"));
    o->data.storage = branches;
    for (int64_t i = 0; i < t->n_sequences; i++) branches[i] = branch_of(o, i);
    for (int64_t i = 0; i < o->n_trees; i++) {
        const plumb_tree *tree = &o->trees[i];
        o->data.samples[i] = (plumb_sample){.record = t->record[tree->first], .prompt = t->prompt_ids + t->prompt_offset[tree->first],
                                            .prompt_count = (int32_t)(t->prompt_offset[tree->first + 1] - t->prompt_offset[tree->first]),
                                            .branch = branches + tree->first, .n_branches = (int)tree->count};
    }
    return PLUMB_OK;
}

/* All trees, cut once for the reward model and every pass. */
static plumb_status plan_passes(plumb_online *o) {
    plumb_plan *p = &o->plan;
    p->count = o->n_trees;
    PLUMB_TRY(plumb_grow(&p->samples, &p->cap_samples, (size_t)p->count, sizeof *p->samples));
    PLUMB_TRY(plumb_grow(&o->passed, &o->cap_passed, (size_t)o->t.n_tokens, sizeof *o->passed));
    for (int64_t i = 0; i < p->count; i++) p->samples[i] = i;
    return plumb_plan_cut(p, &o->data, o->s->o->micro_batch_tokens, o->s->target_tokens, plumb_comm_size(PLUMB_AXIS_DATA));
}

plumb_status plumb_online_sample(plumb_online *o) {
    plumb_session *s = o->s;
    double since = plumb_clock();
    memset(o->seconds, 0, sizeof o->seconds);
    plumb_comm_doing("sampling for iteration", s->step + 1);
    plumb_status local = choose_prompts(o);
    if (local == PLUMB_OK && s->zero) local = plumb_session_mark(s);
    if (local == PLUMB_OK) local = plumb_session_pending(s);
    if (local == PLUMB_OK) local = complete_share(o);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    plumb_session_check_term(s);
    if (s->interrupted) return PLUMB_OK;
    PLUMB_TRY(gather(o));
    local = plant(o);
    if (local == PLUMB_OK) local = plan_passes(o);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    plumb_online_phase(o, PHASE_SAMPLE, since);
    return PLUMB_OK;
}

/* --- passes ----------------------------------------------------------------------------------- */
plumb_status plumb_online_pack(plumb_online *o, const plumb_plan *p, const plumb_micro_batch *b, int32_t adapter) {
    plumb_forest *f = &o->s->forest;
    plumb_forest_reset(f);
    for (int32_t i = b->first; i < b->first + b->count; i++) {
        const plumb_sample *x = plumb_plan_sample(p, &o->data, p->members[i]);
        int32_t mark = (int32_t)p->samples[p->members[i]], prompt, segment;
        PLUMB_TRY(plumb_forest_add(f, -1, x->prompt, x->prompt_count, adapter, mark, &prompt));
        for (int k = 0; k < x->n_branches; k++) {
            PLUMB_TRY(plumb_forest_add(f, prompt, x->branch[k].ids, x->branch[k].count, adapter, mark, &segment));
            for (int32_t j = 0; j < x->branch[k].count; j++)
                PLUMB_TRY(plumb_forest_target(f, plumb_forest_row_before(f, segment, j), x->branch[k].ids[j], segment));
        }
    }
    return plumb_forest_finish(f);
}
double *plumb_online_entropy_bonus(plumb_session *s, int64_t tokens) {
    if (s->o->entropy_coef <= 0) return NULL;
    double *d = s->derivatives + s->policy.count;
    for (int64_t i = 0; i < s->policy.count; i++) d[i] = -s->o->entropy_coef / (double)tokens;
    return d;
}
void plumb_online_note(plumb_online *o, double *stats, int64_t first, int64_t at, int64_t n) {
    const plumb_forward_result *r = &o->s->policy;
    stats[STAT_TOKENS] = (double)n;
    for (int64_t k = 0; k < n; k++)
        stats[STAT_ENTROPY] += r->entropy[at + k], stats[STAT_LOG_RATIO] += fabs(r->logp[at + k] - o->t.logp[first + k]);
    if (o->learning_pass == 0) memcpy(o->passed + first, r->logp + at, (size_t)n * sizeof *r->logp);
}

static plumb_status pass_micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    plumb_online *o = s->user;
    plumb_scorer who = o->passing;
    (void)training;
    PLUMB_TRY(plumb_online_pack(o, p, b, plumb_model_adapter_of(who.model, who.view)));
    PLUMB_TRY(plumb_model_forward(who.model, &s->forest,
                                  &(plumb_pass){.view = who.view,
                                                .logprobs = !o->pass_values,
                                                .values = o->pass_values,
                                                .temperature = s->o->temperature},
                                  &s->reference));
    const double *from = o->pass_values ? s->reference.values : s->reference.logp;
    for (int32_t i = b->first; i < b->first + b->count; i++) {
        int64_t first, n = plumb_online_tokens(o, p, p->members[i], &first);
        memcpy(o->passed + first, from, (size_t)n * sizeof *from);
        from += n;
    }
    return PLUMB_OK;
}
/* One rank's numbers plus zeros: exact. */
static void bring_home(plumb_online *o, double *out) {
    plumb_comm_sum_f64(PLUMB_AXIS_DATA, o->passed, o->t.n_tokens);
    memcpy(out, o->passed, (size_t)o->t.n_tokens * sizeof *out);
}
static plumb_status pass(plumb_online *o, plumb_scorer who, bool values, double *out) {
    double since = plumb_clock();
    if (o->s->interrupted) return PLUMB_OK;
    plumb_comm_doing("scoring tokens of iteration", o->s->step + 1);
    o->passing = who, o->pass_values = values;
    memset(o->passed, 0, (size_t)o->t.n_tokens * sizeof *o->passed);
    PLUMB_TRY(plumb_session_pass(o->s, &o->plan, pass_micro_batch));
    bring_home(o, out);
    plumb_online_phase(o, PHASE_PASS, since);
    return PLUMB_OK;
}
plumb_status plumb_online_logprobs(plumb_online *o, plumb_view view, double *out) {
    return pass(o, (plumb_scorer){o->s->model, view}, false, out);
}
plumb_status plumb_online_values(plumb_online *o) { return plumb_online_on_trunk(o) ? PLUMB_OK : pass(o, o->critic, true, o->t.values); }

/* --- learning --------------------------------------------------------------------------------- */
/* The k-th mini-batch of a pass, into s->plan: whole groups, in an order by seed, iteration and pass. */
static plumb_status plan_mini_batch(plumb_online *o, int64_t k) {
    plumb_session *s = o->s;
    plumb_plan *p = &s->plan;
    int64_t of = s->o->num_mini_batches, first = o->n_groups * k / of, last = o->n_groups * (k + 1) / of, *order, *rank;
    plumb_status status = plumb_alloc(&order, (size_t)(2 * o->n_groups), sizeof *order, "mini-batches");
    if (status != PLUMB_OK) return plumb_comm_agree(PLUMB_AXIS_DATA, status);
    rank = order + o->n_groups;
    for (int64_t i = 0; i < o->n_groups; i++) order[i] = i;
    if (of > 1)
        status = plumb_rng_permutation((uint64_t)s->o->seed ^ 0x9e3779b97f4a7c15ull, (uint32_t)(s->step * 1009 + o->learning_pass),
                                       o->n_groups, order);
    for (int64_t i = 0; i < o->n_groups; i++) rank[order[i]] = i;
    if (status == PLUMB_OK) status = plumb_grow(&p->samples, &p->cap_samples, (size_t)o->n_trees, sizeof *p->samples);
    p->count = 0;
    for (int64_t i = 0; status == PLUMB_OK && i < o->n_trees; i++)
        if (rank[o->trees[i].group] >= first && rank[o->trees[i].group] < last) p->samples[p->count++] = i;
    free(order);
    if (status == PLUMB_OK)
        status = plumb_plan_cut(p, &o->data, s->o->micro_batch_tokens, s->target_tokens, plumb_comm_size(PLUMB_AXIS_DATA));
    return plumb_comm_agree(PLUMB_AXIS_DATA, status);
}

plumb_status plumb_online_learn(plumb_online *o, int64_t passes, plumb_micro_batch_work work) {
    plumb_session *s = o->s;
    double since = plumb_clock();
    memset(o->sums, 0, sizeof o->sums);
    memset(o->passed, 0, (size_t)o->t.n_tokens * sizeof *o->passed);
    o->updates = 0;
    for (o->learning_pass = 0; o->learning_pass < passes && !s->interrupted; o->learning_pass++) {
        for (int64_t k = 0; k < s->o->num_mini_batches && !s->interrupted; k++) {
            plumb_comm_doing("learning in iteration", s->step + 1);
            PLUMB_TRY(plan_mini_batch(o, k));
            if (!s->plan.count) continue;
            PLUMB_TRY(plumb_update_run(s, work, &o->last));
            s->interrupted = !o->last.updated;
            for (int i = 0; i < PLUMB_STATS && o->last.updated; i++) o->sums[i] += plumb_plan_sum(&s->plan, i);
            if (o->updates++ == 0) o->first_log_ratio = o->sums[STAT_LOG_RATIO] / fmax(1, o->sums[STAT_TOKENS]);
        }
        if (o->learning_pass == 0) bring_home(o, o->t.policy_logp);
    }
    plumb_online_phase(o, PHASE_LEARN, since);
    return PLUMB_OK;
}
