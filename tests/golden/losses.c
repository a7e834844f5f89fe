/* losses/<name>.json: objectives with their derivatives, schedules, AdamW with clipping: 1e-9 max(1, |value|) in double. */
#include "losses.h"
#include "plumb/objective.h"
#include "plumb/optim.h"

/* Modifiers that plumb does not know, when they are on. */
static bool plain(const json_t *params) {
    const char *f = json_string_value(json_object_get(params, "f_divergence_type"));
    json_t *ld = json_object_get(params, "ld_alpha");
    return (!f || !strcmp(f, "reverse_kl")) && (!ld || json_is_null(ld) || json_number_value(ld) == 1) &&
           !json_is_true(json_object_get(params, "use_weighting"));
}
static plumb_status dpo(const json_t *c, double *worst) {
    json_t *types = json_object_get(c, "loss_type"), *params = json_object_get(c, "params");
    const char *type = json_string_value(json_array_get(types, 0));
    int loss = type ? plumb_dpo_loss_from_name(type) : -1;
    if (json_array_size(types) != 1 || loss < 0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "loss_type %s%s is not known", type ? type : "?",
                           json_array_size(types) > 1 ? " in a mixture" : "");
    if (!plain(params)) return plumb_error(PLUMB_E_UNSUPPORTED, "a modifier of %s is not known", type);
    plumb_dpo_options o = {(plumb_dpo_loss)loss, field(params, "beta"), field(params, "label_smoothing")};
    json_t *lists[4] = {json_object_get(c, "chosen"), json_object_get(c, "rejected"), json_object_get(c, "ref_chosen"),
                        json_object_get(c, "ref_rejected")};
    json_t *expected[2] = {json_object_get(c, "d_chosen"), json_object_get(c, "d_rejected")};
    double pairs = (double)json_array_size(lists[0]), total = 0,
           weight = json_array_size(json_object_get(c, "loss_weights"))
                        ? json_number_value(json_array_get(json_object_get(c, "loss_weights"), 0))
                        : 1;
    *worst = expected[0] && expected[1] ? 0 : INFINITY;
    for (size_t i = 0; i < json_array_size(lists[0]); i++) {
        double *v[4];
        int64_t n[4];
        for (int k = 0; k < 4; k++) v[k] = list(json_array_get(lists[k], i), &n[k]);
        double *d[2] = {calloc((size_t)n[0] + 1, 8), calloc((size_t)n[1] + 1, 8)};
        plumb_dpo_stats stats;
        total += weight * plumb_objective_dpo(&o, &(plumb_dpo_pair){v[0], v[1], v[2], v[3], n[0], n[1]}, d[0], d[1], &stats) / pairs;
        for (int k = 0; k < 2; k++)
            for (int64_t j = 0; j < n[k]; j++)
                *worst = fmax(*worst,
                              away(weight * d[k][j] / pairs, json_number_value(json_array_get(json_array_get(expected[k], i), (size_t)j))));
        for (int k = 0; k < 4; k++) free(v[k]);
        free(d[0]), free(d[1]);
    }
    *worst = fmax(*worst, away(total, field(c, "loss")));
    return PLUMB_OK;
}

static plumb_status schedule(const json_t *c, double *worst) {
    const char *name = json_string_value(json_object_get(c, "name"));
    int kind = plumb_schedule_from_name(name);
    if (kind < 0) return plumb_error(PLUMB_E_UNSUPPORTED, "schedule %s is not known", name);
    plumb_schedule s = {.kind = (plumb_schedule_kind)kind, .lr = field(c, "lr"), .warmup_steps = (int64_t)field(c, "warmup_steps"),
                        .total_steps = (int64_t)field(c, "total_steps")};
    s.decay_steps = (int64_t)field(c, "num_decay_steps"), s.min_lr = field(c, "min_lr"), s.power = field(c, "power");
    json_t *lrs = json_object_get(c, "lrs");
    *worst = 0;
    for (size_t i = 0; i < json_array_size(lrs); i++) {
        double b = json_number_value(json_array_get(lrs, i)), a = plumb_schedule_lr(&s, (int64_t)i);
        *worst = fmax(*worst, fabs(a - b) / fmax(fabs(b), s.lr * 1e-6));
    }
    return PLUMB_OK;
}

static plumb_status adamw(const json_t *c, double *worst) {
    int64_t n, m;
    double *w = list(json_object_get(c, "initial"), &n), *m1 = calloc((size_t)n, 8), *v = calloc((size_t)n, 8);
    json_t *steps = json_object_get(c, "steps");
    *worst = 0;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        json_t *step = json_array_get(steps, i);
        double *g = list(json_object_get(step, "grad"), &m), *expected = list(json_object_get(step, "weights"), &m), squares = 0;
        for (int64_t j = 0; j < n; j++) squares += g[j] * g[j];
        double norm = sqrt(squares), factor = plumb_clip_factor(norm, field(c, "max_grad_norm"));
        plumb_adamw rule = {field(c, "lr"),  field(c, "beta1"),        field(c, "beta2"),
                            field(c, "eps"), field(c, "weight_decay"), (int64_t)i + 1};
        plumb_adamw_factors k = plumb_adamw_factors_of(&rule, true);
        for (int64_t j = 0; j < n; j++) plumb_adamw_core(&w[j], &m1[j], &v[j], g[j] * factor, &k);
        *worst = fmax(*worst, away(norm, field(step, "grad_norm")));
        for (int64_t j = 0; j < n; j++) *worst = fmax(*worst, away(w[j], expected[j]));
        free(g), free(expected);
    }
    free(w), free(m1), free(v);
    return PLUMB_OK;
}

static const struct { const char *name; plumb_status (*run)(const json_t *c, double *worst);
} kinds[] = {{"dpo", dpo},           {"reward", golden_reward}, {"grpo", golden_grpo},        {"ppo", golden_ppo},
             {"schedule", schedule}, {"adamw", adamw},          {"sampling", golden_sampling}};

void golden_losses(golden *g) {
    char **names = golden_names(g, "losses", ".json");
    for (char **name = names; *name; name++) {
        char *path = golden_path(g, "losses/%s.json", *name);
        json_t *file = NULL;
        plumb_status status = plumb_json_load(&file, path);
        if (status != PLUMB_OK) golden_failed(g, status, "losses/%s", *name);
        json_t *cases = json_object_get(file, "cases");
        for (size_t i = 0; i < json_array_size(cases); i++) {
            double worst = 0;
            status = plumb_error(PLUMB_E_UNSUPPORTED, "%s is not known", *name);
            for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
                if (!strcmp(kinds[k].name, *name)) status = kinds[k].run(json_array_get(cases, i), &worst);
            if (status == PLUMB_OK) golden_result(g, worst, 1e-9, "losses/%s[%zu]", *name, i);
            else golden_failed(g, status, "losses/%s[%zu]", *name, i);
        }
        json_decref(file);
        free(path);
    }
    golden_names_free(names);
}
