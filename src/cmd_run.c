/* plumb run: a pipeline's file and command line, on every rank alike; the stages run in trainers/pipeline.c. */
#include "cmd.h"
#include "pipeline.h"
#include "session.h"
#include <stdio.h>

static void print_help(void) {
    printf("Usage: plumb run PIPELINE.yaml [STAGE.key=value ...] [--from STAGE] [--only STAGE] [--dry-run]\n"
           "   or: mpirun -n RANKS plumb run PIPELINE.yaml ...\n\n"
           "Runs the stages of a pipeline one after the other in one job. A stage that is done is not run again; one that was stopped or "
           "killed goes on from its\n"
           "checkpoints. Exit code 75: stopped on request; the same command goes on.\n\n"
           "  STAGE.key=value     a setting of a stage, as in its own command; defaults.key=value: of all stages that know it\n"
           "  output_dir=DIR      folder that receives a folder for each stage, and pipeline.json\n"
           "  stop_after=TIME     save and leave with exit code 75 after this long, counted for the whole job: 90s, 55m, 3h30m\n"
           "  --from STAGE        begin this stage and all behind it anew; what they left is kept as DIR.before-1\n"
           "  --only STAGE        run no other stage\n"
           "  --dry-run           check everything, say what each stage would cost, and stop\n\n"
           "The file:\n"
           "  output_dir: runs/assistant\n"
           "  defaults: {model: models/base, max_length: 512}    # for every stage whose command knows the key\n"
           "  stages:\n"
           "    - {command: sft, train_file: data/chats.jsonl}   # name: sft, output_dir: runs/assistant/sft\n"
           "    - {command: reward, train_file: data/pairs.jsonl}\n"
           "    - {command: ppo, adapter: '${sft.adapter}', reward_adapter: '${reward.adapter}', train_file: data/prompts.jsonl}\n\n"
           "Commands: sft, reward, dpo, ppo, grpo, rloo, eval, score, bestofn. Products: output_dir, adapter, model (full training), value "
           "(ppo), output_file (score,\n"
           "bestofn).\n"
           "See configs/pipeline.yaml and docs/operations.md.\n");
}

static plumb_status choose(const plumb_stages *p, const plumb_run_line *line, plumb_run_choice *choice) {
    *choice = (plumb_run_choice){-1, -1, line->dry_run};
    if (line->from) PLUMB_TRY(plumb_stages_find(p, line->from, &choice->from));
    if (line->only) PLUMB_TRY(plumb_stages_find(p, line->only, &choice->only));
    if (line->from && line->only && choice->only < choice->from)
        return plumb_error(PLUMB_E_CONFIG, "--only %s comes before --from %s; expected one of those that are begun anew", line->only,
                           line->from);
    return PLUMB_OK;
}

static int run(const plumb_run_line *line) {
    plumb_stages p;
    plumb_run_choice choice;
    plumb_status status = plumb_stages_load(&p, line->path, line->arguments, line->positions, line->n_arguments);
    if (status == PLUMB_OK) status = choose(&p, line, &choice);
    status = plumb_comm_agree(PLUMB_AXIS_WORLD, status);
    int code = 1;
    if (status == PLUMB_OK) code = plumb_stages_run(&p, &choice);
    else if (plumb_is_root()) fprintf(stderr, "plumb run: %s\n", plumb_error_message());
    plumb_stages_free(&p);
    return code;
}

int cmd_run(int argc, char **argv) {
    plumb_run_line line;
    plumb_status status = plumb_run_parse_args(&line, argc, argv);
    if (status == PLUMB_OK && line.help) { /* without starting MPI: login nodes often cannot */
        print_help();
        return PLUMB_EXIT_DONE;
    }
    plumb_status started = plumb_comm_init(&argc, &argv);
    if (started != PLUMB_OK) {
        fprintf(stderr, "plumb run: %s\n", plumb_error_message());
        plumb_run_line_free(&line);
        return PLUMB_EXIT_FAILED;
    }
    int code = PLUMB_EXIT_FAILED;
    if (status == PLUMB_OK) code = run(&line);
    else if (plumb_is_root()) fprintf(stderr, "plumb run: %s\n", plumb_error_message());
    plumb_comm_finalize();
    plumb_run_line_free(&line);
    return code;
}
