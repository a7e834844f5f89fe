/* What every recipe shares: the nouns of a run, not its loop.
 *
 * A session owns the model, the data, the optimizer and the folder of a run. A step is one global batch: which samples, how they are cut
 * into micro-batches, which of those are this rank's, and the statistics of every sample. Everything that decides what happens next is
 * computed alike on every rank or agreed upon. */
#ifndef PLUMB_SESSION_H
#define PLUMB_SESSION_H
#include "plumb/checkpoint.h"
#include "plumb/comm.h"
#include "plumb/config.h"
#include "plumb/data.h"
#include "plumb/log.h"
#include "plumb/model.h"
#include "plumb/optim.h"
#include "plumb/zero.h"

enum { PLUMB_STATS = 12 }; /* numbers that a recipe keeps per sample */
enum { PLUMB_NUMERICS = 5 }; /* grows when the program comes to other bits: cutting of batches, order of sums */

typedef struct plumb_micro_batch { /* samples [first, first+count) of step.members */
    int32_t first, count;
    int64_t tokens, weight;
    uint64_t path; /* its place in the tree of halves */
    int32_t rank;
} plumb_micro_batch;

typedef struct plumb_plan { /* one set of samples, cut by data and budget alone, then dealt to the ranks */
    int64_t *samples; int64_t count;        /* indices into the dataset, in the order of the data */
    int32_t *members;                       /* positions in `samples`, micro-batch after micro-batch */
    plumb_micro_batch *batches; int32_t n_batches;
    double *stats;                          /* [count][PLUMB_STATS] */
    int64_t tokens, targets;                /* tokens as the user counts them: a pair counts its prompt twice */
    size_t cap_samples, cap_members, cap_batches, cap_stats;
} plumb_plan;

typedef struct plumb_session {
    plumb_options resolved;                 /* the caller's, strings borrowed, with what the model decides: lengths that nobody wrote */
    const plumb_options *o;                 /* &resolved */
    int command;
    const char *name;                       /* "sft", "dpo" */
    plumb_backend *be;
    plumb_source *source;
    plumb_tokenizer *tokenizer;
    plumb_adapter adapter; bool has_adapter;
    plumb_lora_config lora;                 /* borrows the options' strings */
    plumb_model *model;
    plumb_source *value_source; plumb_model *value_model; /* PPO's value model where it is one of its own; NULL otherwise */
    plumb_dataset train, eval;
    plumb_zero *zero;
    plumb_schedule schedule;
    plumb_log *log;                         /* rank 0 */
    plumb_claim *claim;                     /* of the folder; rank 0 */
    char *dir, *checkpoints, *identity;
    bool elastic;
    /* step: of the log; in reinforcement learning an iteration of several optimizer updates */
    int64_t step, total_steps, steps_per_epoch, tokens_seen;
    int64_t updates;                        /* optimizer updates so far */
    double kl_coef;                         /* PPO: as adapted so far */
    double target_tokens;                   /* what the LM head costs for one target, in tokens through the layers */
    double began, step_began, stop_after;   /* seconds; plumb_clock */
    int64_t saved_step;                     /* -1: none */
    bool stopping, interrupted;             /* interrupted: TERM came, on any rank, as of the last check */
    uint64_t judge;                         /* identity of the reward model, 0 without one */
    const plumb_source *judge_base;         /* of a reward model that no trained model's base serves; borrowed, for what a run costs */
    void *user;                             /* of the recipe: what its work on a micro-batch needs */
    plumb_status pending;                   /* a local failure between agreement points, kept for the next one */
    char pending_message[512];
    plumb_signal signal;                    /* agreed on in the last step */
    float *gradient;                        /* [plumb_trained_count]: gradients on their way out, new values on their way in */
    int64_t *order; int64_t order_epoch;
    plumb_plan plan, eval_plan;
    /* values and moments of this rank's shard at the last mark, and the scales of all units */
    float *kept; int64_t kept_updates, kept_tokens, *kept_scales;
    plumb_forest forest;
    plumb_forward_result policy, reference;
    double *derivatives; size_t cap_derivatives;
} plumb_session;

/* Loads everything, prints what was found (rank 0), resumes from a checkpoint where there is one. Collective. On
 * error nothing is left to close. */
plumb_status plumb_session_open(plumb_session *s, const plumb_options *o, int command, const char *name,
                                plumb_data_kind kind) PLUMB_CHECKED;
/* The same for a recipe whose model has further parts: `more` adds to the model's options (local; source and tokenizer are open), and
 * where it opens s->value_source says in `value` what is made of it. */
typedef plumb_status (*plumb_more_model)(plumb_session *s, plumb_model_options *m, plumb_model_options *value);
plumb_status plumb_session_open_with(plumb_session *s, const plumb_options *o, int command, const char *name, plumb_data_kind kind,
                                     void *user, plumb_more_model more) PLUMB_CHECKED;
void plumb_session_close(plumb_session *s);

/* The global batch of step s->step. Local and the same on every rank; a failure is kept for plumb_step_run. */
void plumb_step_begin(plumb_session *s);
/* Calls work for each of this rank's micro-batches, stops early on a fault or TERM, brings gradients home. A local
 * failure is kept for plumb_step_end. */
typedef plumb_status (*plumb_micro_batch_work)(plumb_session *s, const plumb_plan *plan, const plumb_micro_batch *b, bool training);
/* Agrees on faults and signals, then reduces, clips and updates. *updated is false when the step was dropped (TERM): the weights are
 * those of the last finished step. */
typedef struct plumb_step_result { bool updated; double grad_norm, learning_rate; } plumb_step_result;
plumb_status plumb_step_run(plumb_session *s, plumb_micro_batch_work work, plumb_step_result *r) PLUMB_CHECKED;
/* One optimizer update from the samples of s->plan, without counting a step. */
plumb_status plumb_update_run(plumb_session *s, plumb_micro_batch_work work, plumb_step_result *r) PLUMB_CHECKED;
/* Statistics of every sample of a plan, on every rank, after agreeing on faults; no gradient. */
plumb_status plumb_session_pass(plumb_session *s, plumb_plan *p, plumb_micro_batch_work work) PLUMB_CHECKED;
/* What this rank has been asked: a signal, or to save when its time (stop_after) is over. Local. */
plumb_signal plumb_session_signal(const plumb_session *s);
/* Has TERM come, anywhere? Sets s->interrupted alike on every rank. Collective. */
void plumb_session_check_term(plumb_session *s);
/* Remembers the state of training; goes back to it (a step of several updates that TERM interrupts). Local; the second is collective. */
plumb_status plumb_session_mark(plumb_session *s) PLUMB_CHECKED;
void plumb_session_back(plumb_session *s);
/* Statistics of every sample of the plan, on every rank, after agreeing on faults: an evaluation. */
plumb_status plumb_session_evaluate(plumb_session *s, plumb_micro_batch_work work) PLUMB_CHECKED;
/* Keeps a local failure (a full disk under the log) for the next agreement; returns it as this thread's error,
 * PLUMB_OK when there is none. Local. */
void plumb_session_keep(plumb_session *s, plumb_status status);
plumb_status plumb_session_pending(const plumb_session *s) PLUMB_CHECKED;
/* Saves when it is time (save_steps, a signal, stop_after); sets s->stopping when the run must leave. Collective. */
plumb_status plumb_session_after_step(plumb_session *s) PLUMB_CHECKED;
/* The run's product: adapter/ or model/, and report.html when asked for, written by rank 0. That the page was not written is kept
 * (plumb_session_pending). Collective. */
plumb_status plumb_session_finish(plumb_session *s) PLUMB_CHECKED;
/* What a run trains, as one flat array: trained.c. Local; values and gradients pass through s->gradient. */
int64_t plumb_trained_count(const plumb_session *s);
int plumb_trained_units(const plumb_session *s);
/* *parts: owned by the caller */
plumb_status plumb_trained_parts(const plumb_session *s, plumb_zero_part **parts, int *n_parts) PLUMB_CHECKED;
void plumb_trained_read(plumb_session *s);           /* values */
void plumb_trained_write(plumb_session *s);          /* values, and the packed copies that products read */
void plumb_trained_gradient(plumb_session *s);
void plumb_trained_clear_gradient(plumb_session *s);
/* Says (rank 0) when an adapter was made for a base that is there and is not this one: the shapes may fit all the same. Local. */
void plumb_session_note_base(const char *key, const plumb_adapter *a, const plumb_source *base);
/* The settings of the policy's adapter. Local. */
const plumb_lora_config *plumb_session_lora(const plumb_session *s);
/* A trained model for the run's folder: a view's adapter, with or without its head, to NAME; or the whole model, where parameters were
 * trained in full (an adapter beside them merged in), to FULL_NAME (NULL: the adapter in any case). Local: rank 0. */
typedef struct plumb_output {
    plumb_model *model;
    const plumb_source *source;
    plumb_view view;
    const plumb_lora_config *lora;
    bool head;
} plumb_output;
plumb_status plumb_session_write(plumb_session *s, const plumb_output *p, const char *name, const char *full_name) PLUMB_CHECKED;
/* The scalar head of a model that is itself trained in full, to NAME. Local: rank 0. */
plumb_status plumb_session_write_head(plumb_session *s, plumb_model *m, const char *name) PLUMB_CHECKED;
bool plumb_session_in_full(const plumb_model *m); /* whether parameters of the model are trained in full */
/* FNV-1a (Fowler, Noll, Vo): what tells runs apart. Local. */
#define PLUMB_MIX_START 0xcbf29ce484222325ull
uint64_t plumb_session_mix(uint64_t h, const void *bytes, size_t n);
uint64_t plumb_session_data_hash(const plumb_dataset *d);
/* Prints parameters, memory, steps and tokens (rank 0). */
plumb_status plumb_session_dry_run(plumb_session *s) PLUMB_CHECKED;
/* Sum over samples of statistic k. */
double plumb_plan_sum(const plumb_plan *p, int k);
/* Room for the derivatives of n targets. */
plumb_status plumb_session_derivatives(plumb_session *s, int64_t n) PLUMB_CHECKED;
plumb_storage plumb_session_storage(const plumb_options *o); /* base_weights */
/* Whether step `step` has its line in the log (logging_steps, and the last one). */
static inline bool plumb_session_logs(const plumb_session *s, int64_t step) {
    return step % s->o->logging_steps == 0 || step == s->total_steps;
}
static inline bool plumb_is_root(void) { return plumb_comm_rank(PLUMB_AXIS_WORLD) == 0; }
static inline const plumb_sample *plumb_plan_sample(const plumb_plan *p, const plumb_dataset *d, int32_t member) {
    return &d->samples[p->samples[member]];
}
static inline double *plumb_plan_stats(const plumb_plan *p, int32_t member) { return p->stats + (size_t)member * PLUMB_STATS; }

/* Recipes. Return an exit code: 0, 1 (error, printed), 75 (saved, to be resumed). Collective. */
int plumb_train_sft(const plumb_options *o);
int plumb_train_dpo(const plumb_options *o);
int plumb_train_reward(const plumb_options *o);
int plumb_score(const plumb_options *o);
int plumb_train_ppo(const plumb_options *o);
int plumb_train_grpo(const plumb_options *o);
int plumb_train_rloo(const plumb_options *o);
int plumb_bestofn(const plumb_options *o);
bool plumb_bestofn_is_done(const char *output_file);
plumb_status plumb_bestofn_forget(const char *output_file) PLUMB_CHECKED; /* what an unfinished run has left beside it; local */
int plumb_evaluate(const plumb_options *o);
int plumb_run_generate(const plumb_options *o);
#endif
