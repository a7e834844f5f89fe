/* Supervised fine-tuning: cross-entropy of the targets, averaged over all targets of the global batch.
 *
 *   for each step:  take a global batch, cut it into micro-batches
 *     for each micro-batch of this rank:  pack its samples as roots of a forest, log-probabilities of the targets, loss, backward
 *     agree, reduce, clip, update;  log;  evaluate, save or stop when it is time
 *
 * The loss of a step is sum(-logp) over its targets divided by their number, whatever ranks and
 * micro-batches (TRL's SFTTrainer with accumulation). */
#include "plan.h"
#include "recipe.h"
#include "plumb/objective.h"
#include <math.h>

enum { NLL, TARGETS, CORRECT, ENTROPY };

/* Every sample is a root; a target is predicted by the row before it. */
static plumb_status pack(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, const plumb_dataset *d) {
    plumb_forest *f = &s->forest;
    plumb_forest_reset(f);
    for (int32_t i = b->first; i < b->first + b->count; i++) {
        const plumb_branch *text = &plumb_plan_sample(p, d, p->members[i])->branch[0];
        int32_t root;
        PLUMB_TRY(plumb_forest_add(f, -1, text->ids, text->count, plumb_model_adapter_of(s->model, PLUMB_VIEW_POLICY),
                                   (int32_t)p->samples[p->members[i]], &root));
        for (int32_t t = 1; t < text->count; t++)
            if (text->mask[t]) PLUMB_TRY(plumb_forest_target(f, plumb_forest_row_before(f, root, t), text->ids[t], root));
    }
    return plumb_forest_finish(f);
}

static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    const plumb_dataset *d = training ? &s->train : &s->eval;
    plumb_dropout dropout = plumb_recipe_dropout(s);
    PLUMB_TRY(pack(s, p, b, d));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest,
                                  &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = training, .logprobs = true, .dropout = &dropout},
                                  &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, s->policy.count));
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++) {
        int64_t n = plumb_branch_targets(&plumb_plan_sample(p, d, p->members[i])->branch[0]);
        double *stats = plumb_plan_stats(p, p->members[i]);
        stats[NLL] = plumb_objective_nll(s->policy.logp + at, n, s->derivatives + at);
        stats[TARGETS] = (double)n;
        for (int64_t t = at; t < at + n; t++) {
            stats[CORRECT] += s->policy.is_argmax[t];
            stats[ENTROPY] += s->policy.entropy[t];
            s->derivatives[t] /= (double)p->targets;
        }
        at += n;
    }
    return training ? plumb_model_backward(s->model, &(plumb_gradients){.logp = s->derivatives}) : PLUMB_OK;
}

static int metrics_of(const plumb_plan *p, bool evaluation, plumb_metric *m) {
    double n = plumb_plan_sum(p, TARGETS), loss = plumb_plan_sum(p, NLL) / n;
    m[0] = (plumb_metric){evaluation ? "eval_loss" : "loss", loss};
    m[1] = (plumb_metric){evaluation ? "eval_mean_token_accuracy" : "mean_token_accuracy", plumb_plan_sum(p, CORRECT) / n};
    m[2] = (plumb_metric){evaluation ? "eval_entropy" : "entropy", plumb_plan_sum(p, ENTROPY) / n};
    if (!evaluation) return 3;
    m[3] = (plumb_metric){"eval_perplexity", exp(loss)};
    return 4;
}

const plumb_recipe plumb_recipe_sft = {"sft", PLUMB_FOR_SFT, PLUMB_DATA_SFT, micro_batch, metrics_of};

static plumb_status train(plumb_session *s) {
    PLUMB_TRY(plumb_recipe_evaluate_start(s, &plumb_recipe_sft));
    while (s->step < s->total_steps && !s->stopping) {
        plumb_step_result r;
        plumb_step_begin(s);
        PLUMB_TRY(plumb_step_run(s, micro_batch, &r));
        if (r.updated) PLUMB_TRY(plumb_recipe_log(s, &plumb_recipe_sft, &r));
        PLUMB_TRY(plumb_recipe_evaluate(s, &plumb_recipe_sft));
        PLUMB_TRY(plumb_session_after_step(s));
    }
    return PLUMB_OK;
}

int plumb_train_sft(const plumb_options *o) { return plumb_recipe_run(o, &plumb_recipe_sft, train); }
