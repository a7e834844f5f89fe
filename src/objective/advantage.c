/* From scores to advantages: what reinforcement learning computes once per batch, before it differentiates anything.
 *
 * Two roads. With a critic: the score of a completion stands at its last token, every token pays for its distance from
 * the reference (plumb_rewards_shape), GAE spreads both over the tokens, and whitening makes one scale of the batch.
 * Without: completions of one prompt are each other's baseline (GRPO, RLOO), and all tokens of one share its advantage.
 *
 * Statistics are two-pass - the mean first, then squares of what is left - because rewards often differ little at a large
 * level.  Groups are centred on their first member for the same reason, which also makes equal rewards exactly 0 apart:
 * 0.1 + 0.1 + 0.1 is not 3 * 0.1, and a division by 1e-4 would show it.
 */
#include "scalar.h"

double plumb_kl_estimate(plumb_kl_estimator e, double logp, double ref_logp) {
    double x = logp - ref_logp;
    switch (e) {
    case PLUMB_KL_K1: return x;
    case PLUMB_KL_K2: return 0.5 * x * x;
    case PLUMB_KL_K3: break;
    }
    return exp(fmin(-x, PLUMB_LOG_RATIO_LARGEST)) - 1 + x;
}

void plumb_rewards_shape(plumb_kl_estimator e, double kl_coef, double score, const double *logp, const double *ref_logp, int64_t n,
                         double *rewards) {
    for (int64_t t = 0; t < n; t++) rewards[t] = -kl_coef * plumb_kl_estimate(e, logp[t], ref_logp[t]);
    if (n > 0) rewards[n - 1] += score;
}

/* A_t = d_t + gamma lambda A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t, from the end, where both successors are 0. */
void plumb_gae(const double *rewards, const double *values, int64_t n, double gamma, double lambda, double *advantages, double *returns) {
    double next_advantage = 0, next_value = 0;
    for (int64_t t = n - 1; t >= 0; t--) {
        double value = values[t];
        next_advantage = rewards[t] + gamma * next_value - value + gamma * lambda * next_advantage;
        next_value = value;
        if (advantages) advantages[t] = next_advantage;
        if (returns) returns[t] = next_advantage + value;
    }
}

/* A sum in blocks: of every 4,096 terms one partial sum, these added in order.  The cut counts terms, not places, so that
 * padding between them changes nothing; the error grows with the block and the number of blocks, not with their product. */
enum { BLOCK = 4096 };
typedef struct block_sum {
    double total, block;
    int64_t in_block;
} block_sum;
static void add(block_sum *s, double x) {
    s->block += x;
    if (++s->in_block < BLOCK) return;
    s->total += s->block;
    s->block = 0, s->in_block = 0;
}
static double sum_of(const block_sum *s) { return s->total + s->block; }

void plumb_whiten(double *x, const uint8_t *mask, int64_t n, bool shift_mean) {
    block_sum sum = {0}, squares = {0};
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (!mask || mask[i]) add(&sum, x[i]), count++;
    double mean = count ? sum_of(&sum) / (double)count : 0, scale = 1;
    if (count > 1) {
        for (int64_t i = 0; i < n; i++)
            if (!mask || mask[i]) add(&squares, (x[i] - mean) * (x[i] - mean));
        scale = 1 / sqrt(sum_of(&squares) / (double)(count - 1) + 1e-8);
    }
    for (int64_t i = 0; i < n; i++) x[i] = mask && !mask[i] ? 0 : (x[i] - mean) * scale + (shift_mean ? 0 : mean);
}

typedef struct spread {
    double mean, std; /* mean: above the first of them */
} spread;
/* Bessel's standard deviation; 0 for fewer than two. */
static spread spread_of(const double *x, int64_t n) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] - x[0];
    double mean = sum / (double)plumb_max64(1, n);
    for (int64_t i = 0; i < n; i++) squares += (x[i] - x[0] - mean) * (x[i] - x[0] - mean);
    return (spread){mean, n > 1 ? sqrt(squares / (double)(n - 1)) : 0};
}
static bool all_equal(const double *x, int64_t n) {
    for (int64_t i = 1; i < n; i++)
        if (x[i] != x[0]) return false;
    return true;
}

void plumb_grpo_advantages(plumb_reward_scaling scaling, const double *rewards, int64_t n, int64_t group_size, double *advantages,
                           int64_t *zero_spread) {
    double batch = scaling == PLUMB_SCALE_BATCH ? spread_of(rewards, n).std : 0;
    int64_t equal = 0;
    for (int64_t g = 0; g < n; g += group_size) {
        int64_t size = plumb_min64(group_size, n - g);
        spread s = spread_of(rewards + g, size);
        double first = rewards[g], divisor = scaling == PLUMB_SCALE_NONE ? 1 : (scaling == PLUMB_SCALE_BATCH ? batch : s.std) + 1e-4;
        equal += all_equal(rewards + g, size);
        for (int64_t i = g; i < g + size; i++) advantages[i] = (rewards[i] - first - s.mean) / divisor;
    }
    if (zero_spread) *zero_spread = equal;
}

void plumb_rloo_advantages(const double *rewards, int64_t n, int64_t group_size, double *advantages) {
    for (int64_t g = 0; g < n; g += group_size) {
        int64_t size = plumb_min64(group_size, n - g);
        double first = rewards[g], sum = 0;
        for (int64_t i = g; i < g + size; i++) sum += rewards[i] - first;
        for (int64_t i = g; i < g + size; i++) {
            double own = rewards[i] - first;
            advantages[i] = size > 1 ? own - (sum - own) / (double)(size - 1) : 0;
        }
    }
}

int plumb_kl_estimator_from_name(const char *name) {
    static const char *const names[] = {"k1", "k2", "k3"};
    return PLUMB_NAME_INDEX(names, name);
}
int plumb_reward_scaling_from_name(const char *name) {
    static const char *const names[] = {"group", "batch", "none"};
    return PLUMB_NAME_INDEX(names, name);
}
