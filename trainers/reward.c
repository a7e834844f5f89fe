/* Reward model (Bradley & Terry 1952; Ouyang et al. 2022): a scalar head on the last token of an answer learns to score the chosen
 * answer above the rejected one.
 *
 *   for each step:  take a global batch of pairs, cut it into micro-batches
 *     for each micro-batch of this rank:
 *       a forest with the prompt of each pair once and both answers as its children; the head on the last row of each
 *       answer; loss; backward
 *     agree, reduce, clip, update;  log;  evaluate, save or stop when it is time
 *
 * The loss of a step is the mean over its pairs. The adapter and the head are saved together in PEFT's layout of a sequence classifier.
 * Dropout is off, as in TRL. */
#include "plan.h"
#include "recipe.h"
#include "plumb/objective.h"
#include <math.h>

enum { LOSS, ACCURACY, MARGIN, CHOSEN, REJECTED };

/* Adds an answer, with what comes behind it, and asks for the head on the last row (of the prompt, where all is empty). */
static plumb_status add_scored(plumb_forest *f, int32_t prompt, const plumb_branch *answer, int32_t adapter, int32_t mark) {
    int32_t segment, count = answer->count;
    PLUMB_TRY(plumb_forest_add(f, prompt, answer->ids, count, adapter, mark, &segment));
    if (answer->n_after) {
        count = answer->n_after;
        PLUMB_TRY(plumb_forest_add(f, segment, answer->after, count, adapter, mark, &segment));
    }
    return plumb_forest_target(f, plumb_forest_row_before(f, segment, count), 0, segment);
}

plumb_status plumb_reward_pack(plumb_forest *f, const plumb_plan *p, const plumb_micro_batch *b, const plumb_dataset *d, int32_t adapter) {
    plumb_forest_reset(f);
    for (int32_t i = b->first; i < b->first + b->count; i++) {
        const plumb_sample *sample = plumb_plan_sample(p, d, p->members[i]);
        int32_t mark = (int32_t)p->samples[p->members[i]], prompt;
        PLUMB_TRY(plumb_forest_add(f, -1, sample->prompt, sample->prompt_count, adapter, mark, &prompt));
        for (int k = 0; k < sample->n_branches; k++) PLUMB_TRY(add_scored(f, prompt, &sample->branch[k], adapter, mark));
    }
    return plumb_forest_finish(f);
}

static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    const plumb_dataset *d = training ? &s->train : &s->eval;
    PLUMB_TRY(plumb_reward_pack(&s->forest, p, b, d, plumb_model_adapter_of(s->model, PLUMB_VIEW_POLICY)));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = training, .values = true},
                                  &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, s->policy.count));
    for (int32_t i = 0; i < b->count; i++) {
        const plumb_sample *pair = plumb_plan_sample(p, d, p->members[b->first + i]);
        double chosen = s->policy.values[2 * i], rejected = s->policy.values[2 * i + 1], *derivative = s->derivatives + 2 * i;
        double *stats = plumb_plan_stats(p, p->members[b->first + i]);
        stats[LOSS] =
            plumb_objective_reward(pair->margin, s->o->center_rewards_coefficient, chosen, rejected, &derivative[0], &derivative[1]);
        stats[ACCURACY] = chosen > rejected, stats[MARGIN] = chosen - rejected, stats[CHOSEN] = chosen, stats[REJECTED] = rejected;
        derivative[0] /= (double)p->count, derivative[1] /= (double)p->count;
    }
    return training ? plumb_model_backward(s->model, &(plumb_gradients){.values = s->derivatives}) : PLUMB_OK;
}

static int metrics_of(const plumb_plan *p, bool evaluation, plumb_metric *m) {
    static const char *const names[2][6] = {{"loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward"},
                                            {"eval_loss", "eval_accuracy", "eval_margin", "eval_mean_reward", "eval_min_reward",
                                             "eval_max_reward"}};
    double n = (double)p->count, least = INFINITY, most = -INFINITY;
    for (int32_t i = 0; i < p->count; i++) {
        const double *stats = plumb_plan_stats(p, i);
        least = fmin(least, fmin(stats[CHOSEN], stats[REJECTED])), most = fmax(most, fmax(stats[CHOSEN], stats[REJECTED]));
    }
    double values[6] = {plumb_plan_sum(p, LOSS) / n, plumb_plan_sum(p, ACCURACY) / n, plumb_plan_sum(p, MARGIN) / n,
                        (plumb_plan_sum(p, CHOSEN) + plumb_plan_sum(p, REJECTED)) / (2 * n), least, most};
    for (int k = 0; k < 6; k++) m[k] = (plumb_metric){names[evaluation][k], values[k]};
    return 6;
}

const plumb_recipe plumb_recipe_reward = {"reward", PLUMB_FOR_REWARD, PLUMB_DATA_PAIRS, micro_batch, metrics_of};

static plumb_status train(plumb_session *s) {
    PLUMB_TRY(plumb_recipe_evaluate_start(s, &plumb_recipe_reward));
    while (s->step < s->total_steps && !s->stopping) {
        plumb_step_result r;
        plumb_step_begin(s);
        PLUMB_TRY(plumb_step_run(s, micro_batch, &r));
        if (r.updated) PLUMB_TRY(plumb_recipe_log(s, &plumb_recipe_reward, &r));
        PLUMB_TRY(plumb_recipe_evaluate(s, &plumb_recipe_reward));
        PLUMB_TRY(plumb_session_after_step(s));
    }
    return PLUMB_OK;
}

int plumb_train_reward(const plumb_options *o) { return plumb_recipe_run(o, &plumb_recipe_reward, train); }
