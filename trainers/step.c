/* One optimizer step: choose, cut, compute, agree, update.
 *
 * Between its local work and the agreement a rank keeps whatever went wrong to itself; at the agreement all learn the same three numbers
 * (fault, signal, overflow) and take the same branch. */
#include "plan.h"
#include <stdlib.h>
#include <string.h>

plumb_status plumb_session_derivatives(plumb_session *s, int64_t n) {
    return plumb_grow(&s->derivatives, &s->cap_derivatives, (size_t)n, sizeof *s->derivatives);
}

static plumb_status begin(plumb_session *s) {
    const plumb_options *o = s->o;
    int64_t epoch = s->step / s->steps_per_epoch, first = s->step % s->steps_per_epoch * o->batch_size;
    plumb_comm_doing("step", s->step + 1);
    if (s->order_epoch != epoch) {
        PLUMB_TRY(plumb_dataset_order(&s->train, o->shuffle, (uint64_t)o->seed, (uint32_t)epoch, s->order));
        s->order_epoch = epoch;
    }
    s->plan.count = plumb_min64(o->batch_size, s->train.count - first);
    PLUMB_TRY(plumb_grow(&s->plan.samples, &s->plan.cap_samples, (size_t)s->plan.count, sizeof *s->plan.samples));
    memcpy(s->plan.samples, s->order + first, (size_t)s->plan.count * sizeof *s->order);
    return plumb_plan_cut(&s->plan, &s->train, o->micro_batch_tokens, s->target_tokens, plumb_comm_size(PLUMB_AXIS_DATA));
}

void plumb_step_begin(plumb_session *s) { plumb_session_keep(s, begin(s)); } /* the others learn of it in the step */

void plumb_session_keep(plumb_session *s, plumb_status status) {
    if (status == PLUMB_OK || s->pending != PLUMB_OK) return;
    s->pending = status;
    strncpy(s->pending_message, plumb_error_message(), sizeof s->pending_message - 1);
}
plumb_status plumb_session_pending(const plumb_session *s) {
    return s->pending == PLUMB_OK ? PLUMB_OK : plumb_error(s->pending, "%s", s->pending_message);
}

/* This rank's micro-batches; in elastic mode each one's gradient is added in fixed point. */
static plumb_status compute(plumb_session *s, plumb_micro_batch_work work, bool *overflow) {
    int rank = plumb_comm_rank(PLUMB_AXIS_DATA);
    *overflow = false;
    PLUMB_TRY(plumb_session_pending(s));
    plumb_trained_clear_gradient(s);
    if (s->elastic) plumb_zero_clear(s->zero);
    memset(s->plan.stats, 0, (size_t)(s->plan.count * PLUMB_STATS) * sizeof *s->plan.stats);
    for (int32_t b = 0; b < s->plan.n_batches; b++) {
        if (s->plan.batches[b].rank != rank) continue;
        if (plumb_comm_signal() == PLUMB_SIGNAL_TERM) break; /* the step will be dropped */
        PLUMB_TRY(work(s, &s->plan, &s->plan.batches[b], true));
        if (!s->elastic) continue;
        plumb_trained_gradient(s);
        if (!plumb_zero_add(s->zero, s->gradient)) *overflow = true;
        plumb_trained_clear_gradient(s);
    }
    return plumb_backend_fault(s->be);
}

plumb_signal plumb_session_signal(const plumb_session *s) {
    plumb_signal signal = plumb_comm_signal();
    return signal == PLUMB_SIGNAL_NONE && s->stop_after > 0 && plumb_clock() - s->began >= s->stop_after ? PLUMB_SIGNAL_SAVE : signal;
}

plumb_status plumb_update_run(plumb_session *s, plumb_micro_batch_work work, plumb_step_result *r) {
    enum { FAULT, SIGNAL, OVERFLOW, AGREED };
    *r = (plumb_step_result){.learning_rate = plumb_schedule_lr(&s->schedule, s->step)};
    for (int attempt = 0;; attempt++) {
        bool overflow;
        plumb_status local = compute(s, work, &overflow);
        if (local == PLUMB_OK && attempt > 12)
            local = plumb_error(PLUMB_E_NUMERIC, "step %lld: a gradient is not finite", (long long)s->step + 1);
        int64_t agreed[AGREED] = {local != PLUMB_OK, plumb_session_signal(s), overflow};
        plumb_comm_max_i64(PLUMB_AXIS_DATA, agreed, AGREED);
        if (agreed[FAULT]) return plumb_comm_agree(PLUMB_AXIS_DATA, local);
        s->signal = (plumb_signal)agreed[SIGNAL];
        if (s->signal == PLUMB_SIGNAL_TERM) return PLUMB_OK;
        if (!agreed[OVERFLOW]) break;
        plumb_zero_lower(s->zero);
    }
    const plumb_options *o = s->o;
    plumb_adamw rule = {r->learning_rate, o->adam_beta1, o->adam_beta2, o->adam_eps, o->weight_decay, s->updates + 1};
    if (!s->elastic) plumb_trained_gradient(s);
    plumb_status status = plumb_zero_step(s->zero, &rule, o->max_grad_norm, s->gradient, s->gradient, &r->grad_norm);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "step %lld", (long long)s->step + 1);
    plumb_trained_write(s); /* the array has become the new values */
    plumb_comm_sum_f64(PLUMB_AXIS_DATA, s->plan.stats, s->plan.count * PLUMB_STATS); /* one rank's numbers plus zeros: exact */
    r->updated = true;
    s->updates++;
    if (!(s->command & PLUMB_FOR_ONLINE)) s->tokens_seen += s->plan.tokens; /* a recipe that samples counts what it sampled, once */
    return PLUMB_OK;
}
plumb_status plumb_step_run(plumb_session *s, plumb_micro_batch_work work, plumb_step_result *r) {
    PLUMB_TRY(plumb_update_run(s, work, r));
    if (r->updated) s->step++;
    return PLUMB_OK;
}

plumb_status plumb_session_mark(plumb_session *s) {
    int64_t first, count;
    plumb_zero_shard(s->zero, PLUMB_ZERO_VALUES, &first, &count);
    if (!s->kept) PLUMB_TRY(plumb_alloc(&s->kept, (size_t)(PLUMB_ZERO_ARRAYS * count) + 1, sizeof *s->kept, "the state of training"));
    for (int i = 0; i < PLUMB_ZERO_ARRAYS; i++)
        memcpy(s->kept + i * count, plumb_zero_shard(s->zero, (plumb_zero_array)i, &first, &count), (size_t)count * sizeof *s->kept);
    if (!s->kept_scales)
        PLUMB_TRY(plumb_alloc(&s->kept_scales, (size_t)plumb_zero_units(s->zero), sizeof *s->kept_scales, "the state of training"));
    for (int u = 0; u < plumb_zero_units(s->zero); u++) s->kept_scales[u] = plumb_zero_scale(s->zero, u);
    s->kept_updates = s->updates, s->kept_tokens = s->tokens_seen;
    return PLUMB_OK;
}
void plumb_session_back(plumb_session *s) {
    int64_t first, count;
    if (!s->kept || s->kept_updates == s->updates) return;
    for (int i = 0; i < PLUMB_ZERO_ARRAYS; i++) {
        float *shard = plumb_zero_shard(s->zero, (plumb_zero_array)i, &first, &count);
        memcpy(shard, s->kept + i * count, (size_t)count * sizeof *shard);
    }
    for (int u = 0; u < plumb_zero_units(s->zero); u++) plumb_zero_set_scale(s->zero, u, s->kept_scales[u]);
    s->updates = s->kept_updates, s->tokens_seen = s->kept_tokens;
    plumb_zero_gather(s->zero, s->gradient);
    plumb_trained_write(s);
}

void plumb_session_check_term(plumb_session *s) {
    int64_t term = plumb_comm_signal() == PLUMB_SIGNAL_TERM;
    plumb_comm_max_i64(PLUMB_AXIS_DATA, &term, 1);
    s->interrupted = term;
}

plumb_status plumb_session_pass(plumb_session *s, plumb_plan *p, plumb_micro_batch_work work) {
    int rank = plumb_comm_rank(PLUMB_AXIS_DATA);
    plumb_status local = plumb_session_pending(s);
    for (int32_t b = 0; b < p->n_batches && local == PLUMB_OK && plumb_comm_signal() != PLUMB_SIGNAL_TERM; b++)
        if (p->batches[b].rank == rank) local = work(s, p, &p->batches[b], false);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    plumb_session_check_term(s); /* then the statistics are not complete */
    plumb_comm_sum_f64(PLUMB_AXIS_DATA, p->stats, p->count * PLUMB_STATS); /* one rank's numbers plus zeros: exact */
    return PLUMB_OK;
}

plumb_status plumb_session_evaluate(plumb_session *s, plumb_micro_batch_work work) {
    plumb_plan *p = &s->eval_plan;
    plumb_comm_doing("evaluation after step", s->step);
    p->count = s->eval.count;
    plumb_status local = plumb_grow(&p->samples, &p->cap_samples, (size_t)p->count, sizeof *p->samples);
    for (int64_t i = 0; local == PLUMB_OK && i < p->count; i++) p->samples[i] = i;
    if (local == PLUMB_OK)
        local = plumb_plan_cut(p, &s->eval, s->o->micro_batch_tokens, s->target_tokens, plumb_comm_size(PLUMB_AXIS_DATA));
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    return plumb_session_pass(s, p, work);
}
