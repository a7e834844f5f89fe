/* The subcommands. argv[0] is the command's name; the return value is the exit code: 0 done, 1 failed (a bad configuration
 * too), 2 a command line that was not understood, 75 (PLUMB_EXIT_RESUME) stopped and ready to be resumed. A command starts and
 * ends MPI itself where it needs it. */
#ifndef PLUMB_CMD_H
#define PLUMB_CMD_H
enum { PLUMB_EXIT_DONE = 0, PLUMB_EXIT_FAILED = 1, PLUMB_EXIT_USAGE = 2 };

int cmd_sft(int argc, char **argv);
int cmd_dpo(int argc, char **argv);
int cmd_reward(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_ppo(int argc, char **argv);
int cmd_grpo(int argc, char **argv);
int cmd_rloo(int argc, char **argv);
int cmd_bestofn(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_trajectories(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_report(int argc, char **argv);
#endif
