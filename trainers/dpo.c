/* Direct preference optimization (Rafailov et al. 2023) and its kin: the policy is moved towards the chosen answer and away from the
 * rejected one, measured against the reference, the policy as it was when training began.
 *
 *   for each step:  take a global batch of pairs, cut it into micro-batches
 *     for each micro-batch of this rank:
 *       a forest with the prompt of each pair once and both answers as its children
 *       reference log-probabilities of all answer tokens (no gradient), the policy's, the objective, backward
 *     agree, reduce, clip, update;  log;  evaluate, save or stop when it is time
 *
 * The loss of a step is the mean over its pairs. Dropout is off, as in TRL. */
#include "plan.h"
#include "recipe.h"
#include "plumb/objective.h"

enum { LOSS, REWARD_CHOSEN, REWARD_REJECTED, ACCURACY, LOGP_CHOSEN, LOGP_REJECTED, ENTROPY, TARGETS };

static plumb_status pack(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, const plumb_dataset *d, plumb_view view) {
    plumb_forest *f = &s->forest;
    int32_t adapter = plumb_model_adapter_of(s->model, view);
    plumb_forest_reset(f);
    for (int32_t i = b->first; i < b->first + b->count; i++) {
        const plumb_sample *pair = plumb_plan_sample(p, d, p->members[i]);
        int32_t sample = (int32_t)p->samples[p->members[i]], prompt, answer;
        PLUMB_TRY(plumb_forest_add(f, -1, pair->prompt, pair->prompt_count, adapter, sample, &prompt));
        for (int a = 0; a < 2; a++) {
            const plumb_branch *text = &pair->branch[a];
            PLUMB_TRY(plumb_forest_add(f, prompt, text->ids, text->count, adapter, sample, &answer));
            for (int32_t t = 0; t < text->count; t++) {
                int32_t row = plumb_forest_row_before(f, answer, t);
                if (row >= 0) PLUMB_TRY(plumb_forest_target(f, row, text->ids[t], answer)); /* an empty prompt predicts no first token */
            }
        }
    }
    return plumb_forest_finish(f);
}

static int64_t targets_of(const plumb_sample *pair, int answer) {
    return pair->branch[answer].count - (pair->prompt_count == 0 && pair->branch[answer].count > 0);
}

static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    const plumb_dataset *d = training ? &s->train : &s->eval;
    plumb_dpo_options options = {(plumb_dpo_loss)plumb_dpo_loss_from_name(s->o->loss_type), s->o->beta, s->o->label_smoothing};
    PLUMB_TRY(pack(s, p, b, d, PLUMB_VIEW_REFERENCE));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_REFERENCE, .logprobs = true}, &s->reference));
    PLUMB_TRY(pack(s, p, b, d, PLUMB_VIEW_POLICY));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = training, .logprobs = true},
                                  &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, s->policy.count));
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++) {
        const plumb_sample *sample = plumb_plan_sample(p, d, p->members[i]);
        int64_t chosen = targets_of(sample, 0), rejected = targets_of(sample, 1), end = at + chosen + rejected;
        plumb_dpo_pair pair =
            {s->policy.logp + at, s->policy.logp + at + chosen, s->reference.logp + at, s->reference.logp + at + chosen, chosen, rejected};
        plumb_dpo_stats r;
        double *stats = plumb_plan_stats(p, p->members[i]);
        stats[LOSS] = plumb_objective_dpo(&options, &pair, s->derivatives + at, s->derivatives + at + chosen, &r);
        stats[REWARD_CHOSEN] = r.reward_chosen, stats[REWARD_REJECTED] = r.reward_rejected, stats[ACCURACY] = r.accuracy;
        stats[LOGP_CHOSEN] = r.logp_chosen, stats[LOGP_REJECTED] = r.logp_rejected, stats[TARGETS] = (double)(chosen + rejected);
        for (; at < end; at++) {
            stats[ENTROPY] += s->policy.entropy[at];
            s->derivatives[at] /= (double)p->count;
        }
    }
    return training ? plumb_model_backward(s->model, &(plumb_gradients){.logp = s->derivatives}) : PLUMB_OK;
}

static int metrics_of(const plumb_plan *p, bool evaluation, plumb_metric *m) {
    static const char *const names[2][8] = {{"loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen",
                                             "logps/rejected", "rewards/margins", "entropy"},
                                            {"eval_loss", "eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/accuracies",
                                             "eval_logps/chosen", "eval_logps/rejected", "eval_rewards/margins", "eval_entropy"}};
    for (int k = LOSS; k <= LOGP_REJECTED; k++) m[k] = (plumb_metric){names[evaluation][k], plumb_plan_sum(p, k) / (double)p->count};
    m[6] = (plumb_metric){names[evaluation][6], m[REWARD_CHOSEN].value - m[REWARD_REJECTED].value};
    m[7] = (plumb_metric){names[evaluation][7], plumb_plan_sum(p, ENTROPY) / plumb_plan_sum(p, TARGETS)};
    return 8;
}

const plumb_recipe plumb_recipe_dpo = {"dpo", PLUMB_FOR_DPO, PLUMB_DATA_PAIRS, micro_batch, metrics_of};

static plumb_status train(plumb_session *s) {
    PLUMB_TRY(plumb_recipe_evaluate_start(s, &plumb_recipe_dpo));
    while (s->step < s->total_steps && !s->stopping) {
        plumb_step_result r;
        plumb_step_begin(s);
        PLUMB_TRY(plumb_step_run(s, micro_batch, &r));
        if (r.updated) PLUMB_TRY(plumb_recipe_log(s, &plumb_recipe_dpo, &r));
        PLUMB_TRY(plumb_recipe_evaluate(s, &plumb_recipe_dpo));
        PLUMB_TRY(plumb_session_after_step(s));
    }
    return PLUMB_OK;
}

int plumb_train_dpo(const plumb_options *o) { return plumb_recipe_run(o, &plumb_recipe_dpo, train); }
