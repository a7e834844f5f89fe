/* plumb run: the stages of a pipeline in one job, under one MPI.
 *
 *   1 recall   rank 0 reads what is done; a stage that is done with other settings ends the run with its name
 *   2 stage    noted as running, run by the recipe of its command (which opens and closes everything of its own), noted as done
 *   3 stop     a signal, or stop_after: the recipe saves and returns 75, and so does the pipeline; between stages it is asked here
 *   4 table    what became of each
 *
 * A recipe knows nothing of pipelines: it gets the options that its command line would have given it, and resumes from its checkpoints
 * like any run. So a pipeline gives the bits that its commands give one after the other. */
#include "pipeline.h"
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"
#include "session.h"

static const struct { int command; int (*run)(const plumb_options *o);
} recipes[] = {
    {PLUMB_FOR_SFT, plumb_train_sft}, {PLUMB_FOR_DPO, plumb_train_dpo},   {PLUMB_FOR_REWARD, plumb_train_reward},
    {PLUMB_FOR_PPO, plumb_train_ppo}, {PLUMB_FOR_GRPO, plumb_train_grpo}, {PLUMB_FOR_RLOO, plumb_train_rloo},
    {PLUMB_FOR_EVAL, plumb_evaluate}, {PLUMB_FOR_SCORE, plumb_score},     {PLUMB_FOR_BESTOFN, plumb_bestofn},
};
static int run_recipe(const plumb_stage *s) {
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (recipes[i].command == s->command) return recipes[i].run(&s->options);
    PLUMB_BUG("no recipe for command %d", s->command);
}

typedef struct run {
    plumb_stages *p;
    const plumb_run_choice *choice;
    plumb_stage_state *states;
    bool *was_done; /* before this start */
    plumb_claim *claim; /* of output_dir; rank 0 */
    double began, stop_after;
} run;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
    if (!plumb_is_root()) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}
static bool is_chosen(const run *r, int k) { return r->choice->only < 0 || r->choice->only == k; }

/* --- 1: what is done -------------------------------------------------------------------------- */
static bool counts(const run *r, int k) {
    return r->states[k].progress == PLUMB_STAGE_DONE && (r->choice->from < 0 || k < r->choice->from);
}

/* Alike on every rank: states have been broadcast. */
static plumb_status check_settings(const run *r) {
    const plumb_stages *p = r->p;
    for (int k = 0; k < p->count; k++) {
        const plumb_stage *s = &p->stages[k];
        if (counts(r, k) && strcmp(r->states[k].settings, s->settings))
            return plumb_error(PLUMB_E_CONFIG,
                               "%s:%d:%d: stage %s is done, with other settings than these (or those of a stage that it needs); expected "
                               "the same, or --from %s to run it and what follows anew",
                               p->path, s->line, s->column, s->name, s->name);
    }
    int only = r->choice->only;
    for (int j = 0; j < p->count && only >= 0; j++)
        if ((p->stages[only].needs >> j & 1) && !counts(r, j))
            return plumb_error(PLUMB_E_CONFIG, "--only %s: the stage needs %s, which is not done", p->stages[only].name, p->stages[j].name);
    return PLUMB_OK;
}
static plumb_status check_products(const run *r) {
    for (int k = 0; k < r->p->count; k++) {
        const plumb_stage *s = &r->p->stages[k];
        if (counts(r, k) && !plumb_path_exists(s->product))
            return plumb_error(PLUMB_E_IO, "%s: stage %s is done, but this product of it is not there; put it back, or run --from %s",
                               s->product, s->name, s->name);
    }
    return PLUMB_OK;
}
static plumb_status check_there(const run *r) {
    uint64_t begun = 0;
    for (int k = 0; k < r->p->count; k++) begun |= (uint64_t)(r->states[k].written || counts(r, k)) << k;
    PLUMB_TRY(plumb_stages_check_there(r->p, begun));
    uint64_t to_run = 0;
    for (int k = 0; k < r->p->count; k++) to_run |= (uint64_t)(is_chosen(r, k) && !counts(r, k)) << k;
    return plumb_stages_check_inputs(r->p, to_run);
}
/* The same file on every rank, and rank 0's word on what is done. */
static plumb_status agree_on_states(run *r) {
    int from = r->choice->from, n = r->p->count;
    int64_t prints[2] = {(int64_t)(r->p->fingerprint >> 1), -(int64_t)(r->p->fingerprint >> 1)};
    plumb_comm_max_i64(PLUMB_AXIS_WORLD, prints, 2);
    if (prints[0] != -prints[1])
        return plumb_error(PLUMB_E_CONFIG, "%s: the ranks read different files or arguments; expected the same one on every node",
                           r->p->path);
    /* A folder that is there is claimed before it is read; one that is not, only by a run that is let in. */
    for (bool mine = false; !mine;) {
        plumb_status local = PLUMB_OK;
        if (plumb_is_root() && !r->claim && !r->choice->dry_run && plumb_path_is_dir(r->p->output_dir))
            local = plumb_claim_take(&r->claim, r->p->output_dir);
        mine = r->choice->dry_run || (plumb_is_root() && r->claim);
        plumb_comm_bcast(PLUMB_AXIS_WORLD, &mine, sizeof mine, 0);
        if (plumb_is_root() && local == PLUMB_OK) local = plumb_stages_recall(r->p, r->states);
        PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, local));
        plumb_comm_bcast(PLUMB_AXIS_WORLD, r->states, (size_t)n * sizeof *r->states, 0);
        PLUMB_TRY(check_settings(r));
        if (plumb_is_root()) local = check_products(r);
        if (plumb_is_root() && local == PLUMB_OK) local = check_there(r);
        if (plumb_is_root() && local == PLUMB_OK && !mine) local = plumb_make_dirs(r->p->output_dir);
        PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, local));
    }
    bool resets = plumb_is_root() && from >= 0 && !r->choice->dry_run;
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, resets ? plumb_stages_reset(r->p, r->states, from) : PLUMB_OK));
    for (int k = from; k >= 0 && k < n; k++) r->states[k] = (plumb_stage_state){.written = r->states[k].written};
    for (int k = 0; k < n; k++) r->was_done[k] = r->states[k].progress == PLUMB_STAGE_DONE;
    return PLUMB_OK;
}

/* --- 2: a stage ------------------------------------------------------------------------------- */
/* The time that is left counts for the stage, unless its own limit is shorter. */
static plumb_status limit_time(const run *r, plumb_options *o, double left) {
    double own;
    if (!r->stop_after || !o->stop_after) return PLUMB_OK;
    PLUMB_TRY(plumb_duration_parse(o->stop_after, &own));
    if (own > 0 && own <= left) return PLUMB_OK;
    char text[32];
    snprintf(text, sizeof text, "%.0fs", fmax(1, ceil(left)));
    char *copy = strdup(text);
    if (!copy) return plumb_error(PLUMB_E_MEMORY, "out of memory");
    free(o->stop_after);
    o->stop_after = copy;
    return PLUMB_OK;
}
static plumb_status begin(run *r, int k, double left) {
    plumb_stage *s = &r->p->stages[k];
    plumb_stage_state *state = &r->states[k];
    bool again = state->progress == PLUMB_STAGE_RUNNING, same = !strcmp(state->settings, s->settings);
    say("stage %d/%d %s: plumb %s, output %s%s", k + 1, r->p->count, s->name, plumb_options_command_name(s->command), s->dir,
        again ? "; goes on" : "");
    state->progress = PLUMB_STAGE_RUNNING, state->exit_code = 0, state->written = 1;
    memcpy(state->settings, s->settings, sizeof state->settings);
    plumb_status local = limit_time(r, &s->options, left);
    if (plumb_is_root() && local == PLUMB_OK) local = plumb_make_dirs(s->dir);
    if (plumb_is_root() && local == PLUMB_OK && again && !same) local = plumb_stage_make_room(s);
    if (plumb_is_root() && local == PLUMB_OK) local = plumb_stages_note(r->p, r->states);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, local);
}
static plumb_status run_stage(run *r, int k, double left, int *exit_code) {
    plumb_stage *s = &r->p->stages[k];
    plumb_stage_state *state = &r->states[k];
    bool again = state->progress == PLUMB_STAGE_RUNNING;
    PLUMB_TRY(begin(r, k, left));
    double began = plumb_clock();
    int64_t done = again && plumb_is_root() && s->command == PLUMB_FOR_BESTOFN && plumb_bestofn_is_done(s->options.output_file);
    plumb_comm_bcast(PLUMB_AXIS_WORLD, &done, sizeof done, 0); /* the job ended before it was noted */
    int64_t outcome = done ? 0 : run_recipe(s);
    plumb_comm_max_i64(PLUMB_AXIS_WORLD, &outcome, 1);
    malloc_trim(0); /* the next stage's blocks are of other sizes */
    fflush(stdout); /* what an evaluation prints stands before the next stage's lines */
    double seconds = plumb_clock() - began;
    state->seconds += seconds, state->exit_code = outcome;
    if (outcome == 0) state->progress = PLUMB_STAGE_DONE;
    *exit_code = (int)outcome;
    plumb_status local = PLUMB_OK;
    if (plumb_is_root() && outcome == 0 && !plumb_path_exists(s->product)) {
        local = plumb_error(PLUMB_E_IO, "%s: not there, although stage %s ended without an error", s->product, s->name);
        state->progress = PLUMB_STAGE_RUNNING, state->exit_code = 1;
    }
    plumb_status noted = plumb_is_root() ? plumb_stages_note(r->p, r->states) : PLUMB_OK;
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, local == PLUMB_OK ? noted : local));
    const char *name = s->name;
    if (outcome == 0) say("stage %d/%d %s: done in %.1f s, %s", k + 1, r->p->count, name, seconds, s->product);
    else if (outcome == PLUMB_EXIT_RESUME)
        say("plumb run: stopped in stage %d/%d %s after %.1f s; the same command goes on from there", k + 1, r->p->count, name, seconds);
    else
        say("plumb run: stage %d/%d %s failed, as the message above says; the same command tries it again, --from %s begins it anew", k + 1,
            r->p->count, name, name);
    return PLUMB_OK;
}

/* --- 3: between stages ------------------------------------------------------------------------ */
/* Seconds that are left, alike on every rank; 0 when it is time to stop. */
static double time_left(const run *r) {
    int64_t signal = plumb_comm_signal();
    double left = r->stop_after > 0 ? fmax(0, r->stop_after - (plumb_clock() - r->began)) : HUGE_VAL;
    plumb_comm_bcast(PLUMB_AXIS_WORLD, &left, sizeof left, 0);
    plumb_comm_max_i64(PLUMB_AXIS_WORLD, &signal, 1);
    return signal == PLUMB_SIGNAL_NONE ? left : 0;
}
static plumb_status run_stages(run *r, int *exit_code) {
    for (int k = 0; k < r->p->count && *exit_code == 0; k++) {
        const plumb_stage *s = &r->p->stages[k];
        if (!is_chosen(r, k)) continue;
        if (r->states[k].progress == PLUMB_STAGE_DONE) {
            say("stage %d/%d %s: done before, %s", k + 1, r->p->count, s->name, s->product);
            continue;
        }
        plumb_comm_doing("a stage of the pipeline", k + 1);
        double left = time_left(r);
        if (left > 0) {
            plumb_status status = run_stage(r, k, left, exit_code);
            if (status != PLUMB_OK) return plumb_error_prefix(status, "stage %s", s->name);
        } else {
            say("plumb run: stopped before stage %d/%d %s; the same command goes on from there", k + 1, r->p->count, s->name);
            *exit_code = PLUMB_EXIT_RESUME;
        }
    }
    return PLUMB_OK;
}

/* --- --dry-run -------------------------------------------------------------------------------- */
enum { ADAPTER = 1, REWARD_ADAPTER = 2, VALUE_ADAPTER = 4, OTHER = 8 };
/* What a stage reads that an earlier one has yet to make. */
static int64_t find_missing(const plumb_stages *p, const plumb_stage *s) {
    const plumb_options *o = &s->options;
    const struct {
        const char *path;
        int64_t bit;
    } inputs[] = {{o->adapter, ADAPTER},
                  {o->reward_adapter, REWARD_ADAPTER},
                  {o->value_adapter, VALUE_ADAPTER},
                  {o->model, OTHER},
                  {o->reward_model, OTHER},
                  {o->train_file, OTHER},
                  {o->eval_file, OTHER},
                  {o->input_file, OTHER},
                  {o->tokenizer, OTHER}};
    int64_t missing = 0;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (int j = 0; j < p->count && inputs[i].path; j++) {
            if ((s->needs >> j & 1) && plumb_stage_made(&p->stages[j], inputs[i].path) && !plumb_path_exists(inputs[i].path))
                missing |= inputs[i].bit;
        }
    return missing;
}
static void forget(char **path, bool missing) {
    if (!missing) return;
    free(*path);
    *path = NULL;
}
/* Sizes and steps do not depend on an adapter's numbers: a fresh one stands for what is not there yet. */
static int dry_run_stage(run *r, int k) {
    plumb_stage *s = &r->p->stages[k];
    int64_t missing = find_missing(r->p, s);
    plumb_comm_bcast(PLUMB_AXIS_WORLD, &missing, sizeof missing, 0);
    bool guesses = s->command & (PLUMB_FOR_TRAINING | PLUMB_FOR_BESTOFN); /* what a fresh adapter costs is what the one to come does */
    bool waits = (missing & OTHER) || (missing && !guesses) || ((missing & REWARD_ADAPTER) && s->options.reward_model);
    static const char *const states[] = {"to be run", "begun; would go on", "done"};
    if (plumb_is_root()) {
        printf("%sstage %d/%d %s: plumb %s, output %s: %s\n", k ? "\n" : "", k + 1, r->p->count, s->name,
               plumb_options_command_name(s->command), s->dir, states[r->states[k].progress]);
        if (waits) printf("reads what earlier stages have yet to make; its cost is not known before\n");
        else if (missing) printf("earlier stages have yet to make what it starts from; sizes are those of fresh adapters\n");
        fflush(stdout);
    }
    if (waits) return 0;
    forget(&s->options.adapter, missing & ADAPTER);
    forget(&s->options.reward_adapter, missing & REWARD_ADAPTER);
    forget(&s->options.value_adapter, missing & VALUE_ADAPTER);
    s->options.dry_run = true;
    int64_t code = run_recipe(s);
    plumb_comm_max_i64(PLUMB_AXIS_WORLD, &code, 1);
    fflush(stdout);
    if (code) say("plumb run: stage %d/%d %s failed, as the message above says", k + 1, r->p->count, s->name);
    return (int)code;
}

/* --- 4: the table ----------------------------------------------------------------------------- */
static void print_table(const run *r, int exit_code) {
    if (!plumb_is_root()) return;
    printf("\n%-4s %-20s %-8s %-12s %10s  %s\n", "", "stage", "command", "result", "seconds", "product");
    for (int k = 0; k < r->p->count; k++) {
        const plumb_stage *s = &r->p->stages[k];
        const plumb_stage_state *state = &r->states[k];
        const char *result = r->was_done[k]                          ? "done before"
                             : state->progress == PLUMB_STAGE_DONE   ? "done"
                             : state->exit_code == PLUMB_EXIT_RESUME ? "stopped"
                             : state->exit_code                      ? "failed"
                                                                     : "not run";
        printf("%3d. %-20s %-8s %-12s %10.1f  %s\n", k + 1, s->name, plumb_options_command_name(s->command), result, state->seconds,
               state->progress == PLUMB_STAGE_DONE ? s->product : "-");
    }
    if (exit_code == 0) printf("%.1f s in this job; state in %s/pipeline.json\n", plumb_clock() - r->began, r->p->output_dir);
    fflush(stdout);
}

int plumb_stages_run(plumb_stages *p, const plumb_run_choice *choice) {
    run r = {.p = p, .choice = choice, .began = plumb_clock()};
    int code = 0;
    plumb_status status = plumb_alloc(&r.states, (size_t)p->count, sizeof *r.states, "states of stages");
    if (status == PLUMB_OK) status = plumb_alloc(&r.was_done, (size_t)p->count, sizeof *r.was_done, "states of stages");
    if (status == PLUMB_OK) status = plumb_duration_parse(p->stop_after, &r.stop_after);
    status = plumb_comm_agree(PLUMB_AXIS_WORLD, status);
    if (status == PLUMB_OK) status = agree_on_states(&r);
    if (status == PLUMB_OK && choice->dry_run) {
        for (int k = 0; k < p->count && code == 0; k++)
            if (is_chosen(&r, k)) code = dry_run_stage(&r, k);
    } else if (status == PLUMB_OK) {
        status = run_stages(&r, &code);
        print_table(&r, status == PLUMB_OK ? code : 1);
    }
    if (status != PLUMB_OK) {
        say("plumb run: %s", plumb_error_message());
        code = 1;
    }
    plumb_claim_free(r.claim);
    free(r.states);
    free(r.was_done);
    return code;
}
