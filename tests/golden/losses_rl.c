/* losses/{reward,grpo,ppo}.json: the reward model and reinforcement learning. Every field that a case offers is compared.
 *
 * A case holds ragged lists, one per completion; they are laid end to end here, as the trainers have them.  TRL knows no limit
 * to log-ratios and makes the policy's exponent what it is, so the limit is set out of reach. */
#include "losses.h"
#include "plumb/objective.h"

enum { OUT_OF_REACH = 300 };

/* Ragged lists end to end: completion i lies at data[at[i]] .. data[at[i + 1]]. */
typedef struct rows {
    double *data;
    int64_t *at, count;
} rows;
static rows rows_of(const json_t *lists) {
    rows r = {.count = (int64_t)json_array_size(lists)};
    r.at = calloc((size_t)r.count + 1, sizeof *r.at);
    for (int64_t i = 0; i < r.count; i++) r.at[i + 1] = r.at[i] + (int64_t)json_array_size(json_array_get(lists, (size_t)i));
    r.data = calloc((size_t)r.at[r.count] + 1, sizeof *r.data);
    for (int64_t i = 0; i < r.count; i++)
        for (int64_t t = r.at[i]; t < r.at[i + 1]; t++)
            r.data[t] = json_number_value(json_array_get(json_array_get(lists, (size_t)i), (size_t)(t - r.at[i])));
    return r;
}
static void rows_free(rows *r) {
    free(r->data), free(r->at);
}
static bool same_shape(const rows *a, const rows *b) {
    return a->count == b->count && !memcmp(a->at, b->at, (size_t)(a->count + 1) * sizeof *a->at);
}
static double *blank(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }

/* Compares `got * scale` with the list, or the lists, of that name; one that is absent or of another size fails. */
static void compare(const json_t *c, const char *key, const double *got, int64_t n, double scale, double *worst) {
    const json_t *a = json_object_get(c, key);
    bool ragged = json_is_array(json_array_get(a, 0));
    int64_t at = 0;
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *row = json_array_get(a, i);
        for (size_t k = 0; k < (ragged ? json_array_size(row) : 1); k++, at++)
            *worst = at < n ? fmax(*worst, away(scale * got[at], json_number_value(ragged ? json_array_get(row, k) : row))) : INFINITY;
    }
    if (at != n) *worst = INFINITY;
}
static void compare_number(const json_t *c, const char *key, double got, double *worst) {
    *worst = json_is_number(json_object_get(c, key)) ? fmax(*worst, away(got, field(c, key))) : INFINITY;
}

plumb_status golden_reward(const json_t *c, double *worst) {
    int64_t n, m, k;
    double *chosen = list(json_object_get(c, "chosen"), &n), *rejected = list(json_object_get(c, "rejected"), &m),
           *margin = list(json_object_get(c, "margin"), &k);
    double *dchosen = blank(n), *drejected = blank(n), total = 0, right = 0, one = 1 / (double)n;
    bool whole = m == n && k == n;
    for (int64_t i = 0; whole && i < n; i++) {
        total += plumb_objective_reward(margin[i], field(c, "center_coefficient"), chosen[i], rejected[i], &dchosen[i], &drejected[i]);
        right += chosen[i] > rejected[i];
    }
    *worst = whole ? 0 : INFINITY;
    compare_number(c, "loss", total * one, worst);
    compare_number(c, "accuracy", right * one, worst);
    compare(c, "d_chosen", dchosen, n, one, worst);
    compare(c, "d_rejected", drejected, n, one, worst);
    free(chosen), free(rejected), free(margin), free(dchosen), free(drejected);
    return PLUMB_OK;
}

static plumb_status grpo_options(const json_t *c, plumb_grpo_options *o, int *scaling) {
    const char *loss = json_string_value(json_object_get(c, "loss_type")),
               *level = json_string_value(json_object_get(c, "importance_sampling_level"));
    const char *scale = json_string_value(json_object_get(c, "scale_rewards"));
    int kind = loss ? plumb_grpo_loss_from_name(loss) : -1;
    *scaling = scale ? plumb_reward_scaling_from_name(scale) : -1;
    if (kind < 0) return plumb_error(PLUMB_E_UNSUPPORTED, "loss_type %s is not known", loss ? loss : "?");
    if (*scaling < 0) return plumb_error(PLUMB_E_UNSUPPORTED, "scale_rewards %s is not known", scale ? scale : "?");
    if (level && strcmp(level, "token") && strcmp(level, "sequence"))
        return plumb_error(PLUMB_E_UNSUPPORTED, "importance_sampling_level %s is not known", level);
    bool own_high = json_is_number(json_object_get(c, "epsilon_high"));
    *o = (plumb_grpo_options){.loss = (plumb_grpo_loss)kind, .beta = field(c, "beta"), .epsilon = field(c, "epsilon"),
                              .epsilon_high = field(c, own_high ? "epsilon_high" : "epsilon"), .delta = field(c, "delta"),
                              .sequence_level = level && !strcmp(level, "sequence"), .log_ratio_limit = OUT_OF_REACH};
    return PLUMB_OK;
}

plumb_status golden_grpo(const json_t *c, double *worst) {
    plumb_grpo_options o;
    int scaling;
    PLUMB_TRY(grpo_options(c, &o, &scaling));
    int64_t n;
    double *rewards = list(json_object_get(c, "rewards"), &n), *advantages = blank(n);
    plumb_grpo_advantages((plumb_reward_scaling)scaling, rewards, n, (int64_t)field(c, "group_size"), advantages, NULL);
    *worst = 0;
    compare(c, "advantages", advantages, n, 1, worst);

    rows logp = rows_of(json_object_get(c, "logps")), old = rows_of(json_object_get(c, "old_logps")),
         ref = rows_of(json_object_get(c, "ref_logps"));
    int64_t total = logp.at[logp.count];
    double *d = blank(total), loss = 0;
    plumb_grpo_stats stats = {0};
    bool whole = logp.count == n && same_shape(&logp, &old) && (o.beta == 0 || same_shape(&logp, &ref));
    if (!whole) *worst = INFINITY;
    for (int64_t i = 0; whole && i < n; i++) {
        int64_t at = logp.at[i], length = logp.at[i + 1] - at;
        double weight = plumb_grpo_weight(o.loss, length, n, total, (int64_t)field(c, "max_completion_length"));
        loss += plumb_objective_grpo(&o, advantages[i], weight, logp.data + at, old.data + at, o.beta != 0 ? ref.data + at : NULL, length,
                                     d + at, &stats);
    }
    compare_number(c, "loss", loss, worst);
    *worst = fmax(*worst, away(stats.loss, loss));
    compare(c, "d_logps", d, total, 1, worst);
    const json_t *metrics = json_object_get(c, "metrics");
    if (json_object_get(metrics, "kl")) compare_number(metrics, "kl", stats.kl / stats.tokens, worst);
    if (json_object_get(metrics, "clip_ratio/low_mean"))
        compare_number(metrics, "clip_ratio/low_mean", stats.clipped_low / stats.ratios, worst);
    if (json_object_get(metrics, "clip_ratio/high_mean"))
        compare_number(metrics, "clip_ratio/high_mean", stats.clipped_high / stats.ratios, worst);
    rows_free(&logp), rows_free(&old), rows_free(&ref);
    free(rewards), free(advantages), free(d);
    return PLUMB_OK;
}

plumb_status golden_ppo(const json_t *c, double *worst) {
    const char *name = json_string_value(json_object_get(c, "kl_estimator"));
    int estimator = name ? plumb_kl_estimator_from_name(name) : -1;
    if (estimator < 0) return plumb_error(PLUMB_E_UNSUPPORTED, "kl_estimator %s is not known", name ? name : "?");
    rows old = rows_of(json_object_get(c, "old_logps")), ref = rows_of(json_object_get(c, "ref_logps")),
         values = rows_of(json_object_get(c, "values"));
    rows logp = rows_of(json_object_get(c, "new_logps")), now = rows_of(json_object_get(c, "new_values"));
    int64_t n = old.at[old.count], m;
    double *scores = list(json_object_get(c, "scores"), &m), *rewards = blank(n), *advantages = blank(n), *returns = blank(n),
           *dlogp = blank(n), *dvalues = blank(n);
    *worst = 0;
    bool whole = m == old.count && same_shape(&old, &ref) && same_shape(&old, &values) && same_shape(&old, &logp) && same_shape(&old, &now);
    if (!whole) {
        *worst = INFINITY;
        goto done;
    }
    for (int64_t i = 0; i < old.count; i++) {
        int64_t at = old.at[i];
        plumb_rewards_shape((plumb_kl_estimator)estimator, field(c, "kl_coef"), scores[i], old.data + at, ref.data + at, old.at[i + 1] - at,
                            rewards + at);
    }
    if (json_is_true(json_object_get(c, "whiten_rewards"))) plumb_whiten(rewards, NULL, n, false);
    for (int64_t i = 0; i < old.count; i++) {
        int64_t at = old.at[i];
        plumb_gae(rewards + at, values.data + at, old.at[i + 1] - at, field(c, "gamma"), field(c, "lam"), advantages + at, returns + at);
    }
    compare(c, "rewards", rewards, n, 1, worst);
    compare(c, "advantages", advantages, n, 1, worst);
    compare(c, "returns", returns, n, 1, worst);
    plumb_whiten(advantages, NULL, n, true);
    compare(c, "whitened_advantages", advantages, n, 1, worst);

    /* a range of 0 is one to TRL, and off to plumb */
    double range = field(c, "cliprange_value"), vf_coef = field(c, "vf_coef"), count = (double)n;
    plumb_ppo_options o = {.clip_range = field(c, "cliprange"), .clip_range_value = range > 0 ? range : 1e-300,
                           .log_ratio_limit = OUT_OF_REACH};
    plumb_ppo_stats stats = {0};
    double policy = plumb_objective_ppo_policy(&o, logp.data, old.data, advantages, n, dlogp, &stats) / count;
    double value = plumb_objective_ppo_value(&o, now.data, values.data, returns, n, dvalues, &stats) / count;
    compare_number(c, "policy_loss", policy, worst);
    compare_number(c, "value_loss", value, worst);
    compare_number(c, "loss", policy + vf_coef * value, worst);
    compare_number(c, "clip_fraction", stats.clipped / stats.tokens, worst);
    compare_number(c, "value_clip_fraction", stats.value_clipped / stats.tokens, worst);
    compare(c, "d_new_logps", dlogp, n, 1 / count, worst);
    compare(c, "d_new_values", dvalues, n, vf_coef / count, worst);
done:
    rows_free(&old), rows_free(&ref), rows_free(&values), rows_free(&logp), rows_free(&now);
    free(scores), free(rewards), free(advantages), free(returns), free(dlogp), free(dvalues);
    return PLUMB_OK;
}
