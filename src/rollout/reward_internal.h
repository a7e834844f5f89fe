/* The inside of reward sources: a table of kinds, each a few functions over one structure. */
#ifndef PLUMB_REWARD_INTERNAL_H
#define PLUMB_REWARD_INTERNAL_H
#include "plumb/reward.h"
#include "plumb/text.h"

typedef struct reward_program reward_program;

typedef struct reward_kind {
    const char *name, *argument; /* argument: what stands after the colon, for messages; NULL when nothing does */
    bool needs_answer;
    const char *counts; /* what is counted of it: "errors" on completions, which then score 0; "restarts" of its program; NULL */
    plumb_status (*open)(plumb_reward_source *s); /* NULL: nothing to prepare */
    plumb_status (*start)(plumb_reward_source *s); /* NULL: nothing to start */
    /* One of the two. Items have answers where they are needed. */
    plumb_status (*score_one)(plumb_reward_source *s, const plumb_reward_item *item, double *reward);
    plumb_status (*score_all)(plumb_reward_source *s, const plumb_reward_item *items, int64_t n, double *rewards);
} reward_kind;

struct plumb_reward_source {
    const reward_kind *kind;
    char *argument; /* owns; "" without one */
    plumb_reward_limits limits;
    int64_t count;
    bool (*leaving)(void); /* NULL: never */
    bool left;
    int64_t target;          /* length */
    plumb_pattern *pattern;  /* regex */
    reward_program *program; /* program */
};

/* reward_builtin.c */
plumb_status reward_exact_match(plumb_reward_source *s, const plumb_reward_item *item, double *reward) PLUMB_CHECKED;
plumb_status reward_number(plumb_reward_source *s, const plumb_reward_item *item, double *reward) PLUMB_CHECKED;
plumb_status reward_regex_open(plumb_reward_source *s) PLUMB_CHECKED;
plumb_status reward_regex(plumb_reward_source *s, const plumb_reward_item *item, double *reward) PLUMB_CHECKED;
plumb_status reward_length_open(plumb_reward_source *s) PLUMB_CHECKED;
plumb_status reward_length(plumb_reward_source *s, const plumb_reward_item *item, double *reward) PLUMB_CHECKED;
plumb_status reward_json(plumb_reward_source *s, const plumb_reward_item *item, double *reward) PLUMB_CHECKED;

/* reward_program.c: the protocol; reward_process.c: the process and its pipes */
plumb_status reward_program_open(plumb_reward_source *s) PLUMB_CHECKED;
plumb_status reward_program_start(plumb_reward_source *s) PLUMB_CHECKED;
plumb_status reward_program_score(plumb_reward_source *s, const plumb_reward_item *items, int64_t n,
                                  double *rewards) PLUMB_CHECKED;
void reward_program_free(reward_program *p);
#endif
