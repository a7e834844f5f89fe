/* What a recipe hands to the shared steps around its loop: how a micro-batch is computed and what its statistics are called. */
#ifndef PLUMB_RECIPE_H
#define PLUMB_RECIPE_H
#include "session.h"

enum { PLUMB_MAX_METRICS = 96 };
typedef struct plumb_recipe {
    const char *name;
    int command;
    plumb_data_kind data;
    plumb_micro_batch_work work;
    int (*metrics)(const plumb_plan *p, bool evaluation, plumb_metric *m); /* returns their number, at most 12 */
} plumb_recipe;
extern const plumb_recipe plumb_recipe_sft, plumb_recipe_dpo, plumb_recipe_reward;
/* A forest with every sample's prompt once, its answers as children, and the last row of each answer listed: what a reward model reads. */
plumb_status plumb_reward_pack(plumb_forest *f, const plumb_plan *p, const plumb_micro_batch *b, const plumb_dataset *d,
                               int32_t adapter) PLUMB_CHECKED;

/* Opens, trains, finishes, closes; prints errors once; returns the exit code. Collective. */
int plumb_recipe_run(const plumb_options *o, const plumb_recipe *recipe, plumb_status (*train)(plumb_session *s));
plumb_status plumb_recipe_log(plumb_session *s, const plumb_recipe *recipe, const plumb_step_result *r) PLUMB_CHECKED;
/* When eval_steps says so, and after the last step. */
plumb_status plumb_recipe_evaluate(plumb_session *s, const plumb_recipe *recipe) PLUMB_CHECKED;
plumb_status plumb_recipe_evaluate_start(plumb_session *s, const plumb_recipe *recipe) PLUMB_CHECKED;
/* Appends BEFORE"key": "text" with the text as JSON writes it. Local. */
plumb_status plumb_recipe_append_text(plumb_str *out, const char *before, const char *key, const char *text) PLUMB_CHECKED;
plumb_dropout plumb_recipe_dropout(const plumb_session *s);
#endif
