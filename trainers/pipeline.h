/* Running a pipeline: stage after stage in one job, and what is remembered of it.
 *
 *     pending --begun--> running --exit code 0--> done
 *                          |  ^
 *                 75, 1, killed: begun again, on from its checkpoints
 *
 * Rank 0 alone reads and writes <output_dir>/pipeline.json; what follows from it is broadcast, so that every rank takes the same way. */
#ifndef PLUMB_TRAINERS_PIPELINE_H
#define PLUMB_TRAINERS_PIPELINE_H
#include "plumb/pipeline.h"

typedef enum plumb_stage_progress { PLUMB_STAGE_PENDING, PLUMB_STAGE_RUNNING, PLUMB_STAGE_DONE } plumb_stage_progress;
typedef struct plumb_stage_state { /* plain bytes: it is broadcast */
    int64_t progress, exit_code; /* the code of the last try */
    double seconds;              /* over all tries that came to an end */
    int64_t written;             /* begun some time, before --from too, with this product: what is there is its own */
    char settings[17];           /* with which it was begun */
} plumb_stage_state;

/* States of all stages from <output_dir>/pipeline.json; pending where the file is not there or does not know the stage. Local, rank 0. */
plumb_status plumb_stages_recall(const plumb_stages *p, plumb_stage_state *states) PLUMB_CHECKED;
/* Writes it, complete or not at all. Local, rank 0. */
plumb_status plumb_stages_note(const plumb_stages *p, const plumb_stage_state *states) PLUMB_CHECKED;
/* The file that a stage has sampled with other settings gets another name. */
plumb_status plumb_stage_make_room(const plumb_stage *s) PLUMB_CHECKED;
/* Makes the stages from `first` on pending; what they left is kept under another name. Local, rank 0. */
plumb_status plumb_stages_reset(const plumb_stages *p, plumb_stage_state *states, int first) PLUMB_CHECKED;

typedef struct plumb_run_choice { /* stages by index; -1: none */
    int from; /* this one and those behind it are begun anew */
    int only; /* no other stage is run */
    bool dry_run;
} plumb_run_choice;
/* Runs what is not done. Returns an exit code, the same on every rank: 0, 1 (an error, printed, with the stage's name), 75 (stopped, to
 * be run again). The stages' options are changed (stop_after, dry_run). Collective. */
int plumb_stages_run(plumb_stages *p, const plumb_run_choice *choice);
#endif
