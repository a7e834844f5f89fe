/* plumb sft, dpo, reward, ppo and the others: the commands that run on every rank. Options are read alike on all ranks; rank 0 alone
 * reports what is wrong with them. */
#include "cmd.h"
#include "session.h"
#include <stdio.h>
#include <string.h>

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

static int run(int argc, char **argv, int command, int (*recipe)(const plumb_options *o)) {
    plumb_options o;
    bool help_shown = false;
    if (asks_for_help(argc, argv)) { /* without starting MPI: login nodes often cannot */
        plumb_status status = plumb_options_parse_args(&o, command, argc, argv, &help_shown);
        return status == PLUMB_OK ? 0 : 2;
    }
    plumb_status status = plumb_comm_init(&argc, &argv);
    if (status != PLUMB_OK) {
        fprintf(stderr, "plumb %s: %s\n", argv[0], plumb_error_message());
        return 1;
    }
    int code = 1;
    status = plumb_options_parse_args(&o, command, argc, argv, &help_shown);
    if (status == PLUMB_OK) {
        code = recipe(&o);
        plumb_options_free(&o);
    } else if (plumb_is_root()) {
        fprintf(stderr, "plumb %s: %s\n", argv[0], plumb_error_message());
    }
    plumb_comm_finalize();
    return code;
}

int cmd_sft(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_SFT, plumb_train_sft); }
int cmd_dpo(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_DPO, plumb_train_dpo); }
int cmd_reward(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_REWARD, plumb_train_reward); }
int cmd_score(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_SCORE, plumb_score); }
int cmd_ppo(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_PPO, plumb_train_ppo); }
int cmd_grpo(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_GRPO, plumb_train_grpo); }
int cmd_rloo(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_RLOO, plumb_train_rloo); }
int cmd_bestofn(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_BESTOFN, plumb_bestofn); }
int cmd_eval(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_EVAL, plumb_evaluate); }
int cmd_generate(int argc, char **argv) { return run(argc, argv, PLUMB_FOR_GENERATE, plumb_run_generate); }
