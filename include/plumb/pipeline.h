/* A pipeline: one file that says which commands run one after the other and how the product of one becomes the input of the next.
 * Local: every rank reads the same file and reaches the same result.
 *
 *     output_dir: runs/assistant            # each stage gets a folder in it, named after the stage
 *     stop_after: 3h30m                     # of the whole job
 *     defaults: {model: …, max_length: 512} # for every stage whose command knows the key
 *     stages:
 *       - {command: sft, train_file: …}     # name: sft
 *       - {name: judge, command: reward, train_file: …}
 *       - {command: ppo, adapter: '${sft.adapter}', reward_adapter: '${judge.adapter}', train_file: …}
 *
 * A stage is bound through the table of options like a command's own file: defaults of the table, `defaults:`, the stage's keys,
 * arguments; a message names the pipeline's file, line and column, or the argument. ${NAME.product} stands for a path of an earlier
 * stage; $${ is ${ itself. */
#ifndef PLUMB_PIPELINE_H
#define PLUMB_PIPELINE_H
#include "plumb/config.h"

enum {
    PLUMB_MAX_STAGES = 64,
    PLUMB_FOR_STAGES = PLUMB_FOR_TRAINING | PLUMB_FOR_EVAL | PLUMB_FOR_FILE /* what a stage may be */
};

typedef struct plumb_stage {
    char *name;            /* owned; a letter, then letters, digits and _ */
    int command;           /* one PLUMB_FOR_ bit */
    int line, column;      /* where it stands in the file */
    plumb_options options; /* resolved, complete, checked */
    char *dir;             /* folder that receives what it leaves; owned */
    char *product;         /* what later stages read: adapter/, model/, eval_results.json, the scores, the records; owned */
    uint64_t needs;        /* bit j: one of its settings is the product of stage j, or lies in its folder */
    uint64_t refers;       /* bit j: what it reads is named ${NAME.product}, of stage j */
    char settings[17];     /* fingerprint of the settings that decide its result, its own and those of the stages that it needs */
} plumb_stage;

typedef struct plumb_stages {
    char *path, *output_dir;
    char *stop_after; /* "" or a time (checked) */
    plumb_stage *stages;
    int count;
    uint64_t fingerprint; /* of all settings, whatever they decide: differs when ranks read different files */
} plumb_stages;

/* Arguments are output_dir=…, stop_after=…, defaults.KEY=… and STAGE.KEY=…; positions [n] are their places on the command line. A
 * product that a stage does not make, a stage that comes later, two stages with one name, folder or file, a result in place of what a
 * stage reads before, records of best-of-n that their reader cannot use, keys that decide how a pipeline runs (resume, dry_run) are
 * refused. *p is empty after an error. */
plumb_status plumb_stages_load(plumb_stages *p, const char *path, char *const *arguments, const int *positions, int n) PLUMB_CHECKED;
/* The same for a file in memory; `name` serves messages. */
plumb_status plumb_stages_load_text(plumb_stages *p, const char *text, size_t size, const char *name, char *const *arguments,
                                    const int *positions, int n) PLUMB_CHECKED;
void plumb_stages_free(plumb_stages *p);
/* Whether a path is something that the stage leaves: its product, or something in its folder. */
bool plumb_stage_made(const plumb_stage *s, const char *path);
/* PLUMB_E_CONFIG when a stage that has never begun (bit k of `begun`: stage k has) would write over what is there already and what a
 * later stage reads by that path, not by a reference: a file of the user's. Looks at the disk: one rank asks. */
plumb_status plumb_stages_check_there(const plumb_stages *p, uint64_t begun) PLUMB_CHECKED;
/* PLUMB_E_CONFIG when a stage that is to run (bit k of `chosen`) reads what is not there and no earlier stage makes. Looks at the disk. */
plumb_status plumb_stages_check_inputs(const plumb_stages *p, uint64_t chosen) PLUMB_CHECKED;
/* Index of a stage; PLUMB_E_CONFIG with the nearest name when there is none. */
plumb_status plumb_stages_find(const plumb_stages *p, const char *name, int *index) PLUMB_CHECKED;

/* The command line of plumb run. */
typedef struct plumb_run_line {
    const char *path; /* borrowed from argv, as are the others */
    const char *from, *only;
    char **arguments; /* the array is owned */
    int *positions, n_arguments;
    bool dry_run, help;
} plumb_run_line;
plumb_status plumb_run_parse_args(plumb_run_line *l, int argc, char **argv) PLUMB_CHECKED;
void plumb_run_line_free(plumb_run_line *l);
#endif
