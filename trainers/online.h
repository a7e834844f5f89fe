/* What the recipes that sample and learn share (PPO, GRPO, RLOO, best-of-n): the nouns of an iteration, not its loop.
 *
 *   sample   prompts are dealt to ranks; each completes its share with the rollout engine; all receive all completions
 *   score    reward functions on a rank's own completions, a reward model on trees of them; weighted sum, penalties
 *   pass     log-probabilities or values of every completion token under a view of the model; values of a head on the policy come
 *            with the sampling
 *   learn    trees of a mini-batch are cut into micro-batches, as in the other recipes
 *   log      trajectories to HDF5, one file per writer
 *
 * A completion is small beside a model, so every rank holds the whole iteration: whitening, advantages, means are computed alike
 * everywhere, over the global batch. */
#ifndef PLUMB_ONLINE_H
#define PLUMB_ONLINE_H
#include "recipe.h"
#include "plumb/objective.h"
#include "plumb/reward.h"
#include "plumb/rollout.h"

enum { PLUMB_MAX_ENDS = 9 };
enum { PHASE_SAMPLE, PHASE_SCORE, PHASE_PASS, PHASE_LEARN, PHASE_LOG, PHASES };

/* A prompt with some of its completions: what a micro-batch is made of. A group that is larger than the token budget becomes several
 * trees, with the prompt repeated. */
typedef struct plumb_tree { int64_t first, count, group; } plumb_tree; /* sequences [first, first+count) */

/* What every recipe notes of a tree, before its own statistics. */
/* of the policy as it learns: sum of |log-ratio| to the sampler, of entropies */
enum { STAT_TOKENS, STAT_LOG_RATIO, STAT_ENTROPY, STAT_OWN };

/* Who scores: a model, seen in one of its views. */
typedef struct plumb_scorer { plumb_model *model; plumb_view view; } plumb_scorer;

typedef struct plumb_online {
    plumb_session *s;
    void *recipe;                          /* of the recipe that runs */
    plumb_stops *stops;
    int32_t ends[PLUMB_MAX_ENDS];
    plumb_rollout *engine;
    plumb_reward_source *sources[PLUMB_SCORE_PARTS]; int n_sources;
    /* completions of this iteration on which a source failed, over all ranks; that it was said */
    int64_t failed[PLUMB_SCORE_PARTS]; bool warned[PLUMB_SCORE_PARTS];
    plumb_adapter reward_adapter, value_adapter;
    const plumb_lora_config *value_config; /* of the value model's adapter; borrowed */
    plumb_source *reward_source; plumb_model *reward_model; /* where the reward model is one of its own that no other holds */
    plumb_ids turn_end;                    /* of the chat template: its mark, one token, and what follows; empty: no such mark */
    plumb_scorer judge, critic;            /* the reward model (of completions), the value model (of tokens); model NULL: none */
    plumb_trajectories t;                  /* of this iteration, the same on every rank */
    int64_t n_groups, group_size, mine, n_mine; /* sequences [mine, mine+n_mine) are this rank's */
    int64_t *prompt_of;                    /* [n_groups] sample of the data set */
    plumb_completion *completions; size_t n_completions; /* of this rank */
    plumb_tree *trees; int64_t n_trees; size_t cap_trees;
    plumb_dataset data;                    /* the trees as samples */
    plumb_plan plan;                       /* of passes over all trees */
    plumb_scorer passing; bool pass_values; /* what the pass under way computes, and who */
    double *passed; size_t cap_passed;     /* [tokens] what a pass brings home */
    /* learning, of this iteration */
    int64_t learning_pass, updates;        /* pass over the completions, from 0; updates so far */
    double sums[PLUMB_STATS], first_log_ratio; /* of all updates; mean |log-ratio| at the first */
    plumb_step_result last;
    double seconds[PHASES];
    char *trajectories;                    /* folder */
} plumb_online;

/* Sampling as the options say; ends [PLUMB_MAX_ENDS] receives the model's and the tokenizer's end tokens and must live as long. */
plumb_sampling plumb_online_sampling(const plumb_session *s, int32_t *ends);
/* Groups of an iteration, at most. Local. */
int64_t plumb_online_chunk(const plumb_options *o);

/* Is the value model a head on the policy? Then values come with the tokens, and one pass learns both. */
static inline bool plumb_online_on_trunk(const plumb_online *o) {
    return o->critic.model == o->s->model && o->critic.view == PLUMB_VIEW_POLICY;
}

/* The functions below are collective. TERM sets s->interrupted, alike on every rank; what follows is then left out. */
plumb_status plumb_online_sample(plumb_online *o) PLUMB_CHECKED;
plumb_status plumb_online_score(plumb_online *o) PLUMB_CHECKED;
/* out [n_tokens]: log-probabilities of all completion tokens under a view of the policy. */
plumb_status plumb_online_logprobs(plumb_online *o, plumb_view view, double *out) PLUMB_CHECKED;
/* Into t.values: what the value model expects at the states before the tokens. On the trunk sampling has brought that already. */
plumb_status plumb_online_values(plumb_online *o) PLUMB_CHECKED;
/* `passes` passes over the completions, each in num_mini_batches updates: `work` computes a micro-batch of trees, notes statistics and
 * runs backward. Leaves sums, first_log_ratio, last, and the policy's log-probabilities as the first pass found them in t.policy_logp. */
plumb_status plumb_online_learn(plumb_online *o, int64_t passes, plumb_micro_batch_work work) PLUMB_CHECKED;
/* Writes the iteration's trajectories, when asked to. */
plumb_status plumb_online_log(plumb_online *o) PLUMB_CHECKED;
/* What a signal on any rank, or stop_after, asks for. */
plumb_signal plumb_online_signal(plumb_session *s);
/* Ends an iteration: counts the step, checks signals and time, saves (and compacts trajectories), or goes back to its
 * start when it was interrupted. */
plumb_status plumb_online_after(plumb_online *o) PLUMB_CHECKED;

/* The functions below are local. */
/* A micro-batch's forest: every tree's prompt with its completions, all completion tokens as targets, in the order of tree and token.
 * adapter: as plumb_model_adapter_of says. */
plumb_status plumb_online_pack(plumb_online *o, const plumb_plan *p, const plumb_micro_batch *b, int32_t adapter) PLUMB_CHECKED;
static inline const plumb_tree *plumb_online_tree(const plumb_online *o, const plumb_plan *p, int32_t member) {
    return &o->trees[p->samples[member]];
}
/* Where a tree's completion tokens begin in the batch's flat arrays; returns their number. */
static inline int64_t plumb_online_tokens(const plumb_online *o, const plumb_plan *p, int32_t member, int64_t *first) {
    const plumb_tree *tree = plumb_online_tree(o, p, member);
    *first = o->t.token_offset[tree->first];
    return o->t.token_offset[tree->first + tree->count] - *first;
}
/* Notes what all recipes do of a tree's n tokens, [first, first+n) in the batch and [at, at+n) in s->policy. */
void plumb_online_note(plumb_online *o, double *stats, int64_t first, int64_t at, int64_t n);
/* Derivatives of -entropy_coef * mean entropy, behind those by the log-probabilities in s->derivatives (room for
 * 2 * count); NULL without a bonus. */
double *plumb_online_entropy_bonus(plumb_session *s, int64_t tokens);
/* Texts of sequences [first, first+count), where they are not there yet. */
plumb_status plumb_online_texts(plumb_online *o, int64_t first, int64_t count) PLUMB_CHECKED;
/* Completion i as it continues its prompt's text: decoders of SentencePiece's kind drop a space at the beginning of what they are given,
 * which is right for a reader and wrong for a record that is to give the same tokens. Its text is there
 * already. Local; *out is malloc'ed. */
plumb_status plumb_online_text_behind_prompt(const plumb_online *o, int64_t i, char **out) PLUMB_CHECKED;
/* Metrics that all recipes have: scores, lengths, ends, entropy, time per phase. Returns their number. */
int plumb_online_metrics(const plumb_online *o, plumb_metric *m);
/* Adds what all recipes end with to the n metrics (updates, progress, speed) and writes the iteration's line, on rank 0, when
 * logging_steps says so. */
void plumb_online_write_metrics(plumb_online *o, plumb_metric *m, int n);
void plumb_online_phase(plumb_online *o, int phase, double since); /* adds the time since */
/* Goes on from h with what tells adapters apart, their heads included. */
uint64_t plumb_online_adapter_hash(uint64_t h, const plumb_adapter *a, const plumb_params *p);
/* For the engine: shows what goes on and stops at TERM; user is the plumb_online. */
bool plumb_online_progress(void *user, const plumb_rollout_stats *so_far, int64_t requests);

/* Pure functions of a recipe and a batch, shared with replay. */
/* Scores from their parts: the weighted sum, the model's weight first, and the penalty of a completion that did not end.
 * PLUMB_E_NUMERIC: a part is not finite. */
plumb_status plumb_online_combine(const plumb_options *o, plumb_trajectories *t) PLUMB_CHECKED;
/* sums over all tokens: KL by k1 and k3, and what it took from the rewards */
typedef struct plumb_ppo_estimates { double kl, kl3, non_score; } plumb_ppo_estimates;
/* rewards, advantages (whitened) and returns from log-probabilities, values and scores. */
void plumb_ppo_estimate(const plumb_options *o, double kl_coef, plumb_trajectories *t, plumb_ppo_estimates *e);
plumb_ppo_options plumb_ppo_clipping(const plumb_options *o);
/* sum of logp - ref_logp; groups whose rewards are all equal */
typedef struct plumb_grpo_comparison { double kl; int64_t zero_spread; } plumb_grpo_comparison;
/* advantages [n_sequences]; fills the batch's rewards (at the last token), advantages and returns. */
plumb_status plumb_grpo_compare(const plumb_options *o, bool rloo, plumb_trajectories *t, double *advantages,
                                plumb_grpo_comparison *c) PLUMB_CHECKED;
typedef struct plumb_grpo_total { int64_t sequences, tokens; } plumb_grpo_total; /* of the global mini-batch */
/* Loss of sequence q whose tokens now have the log-probabilities logp; derivatives by them; adds to *stats. */
double plumb_grpo_loss_of(const plumb_options *o, bool rloo, const plumb_trajectories *t, int64_t q, double advantage, const double *logp,
                          const plumb_grpo_total *total, double *derivatives, plumb_grpo_stats *stats);
/* Opens, runs `train`, finishes, closes, prints errors once; returns the exit code. */
int plumb_online_run(const plumb_options *o, int command, const char *name, plumb_status (*train)(plumb_online *o));
#endif
