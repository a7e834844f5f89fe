/* The command table.  main reads one word and hands over; it starts no MPI, so that --help works on a login node. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmd.h"
#include "plumb/config.h"

typedef struct command {
    const char *name, *summary; /* no summary: not listed */
    int (*run)(int argc, char **argv);
} command;

/* For the maintainers of docs/options.md. */
static int cmd_options(int argc, char **argv) {
    if (argc != 2 || strcmp(argv[1], "--markdown")) {
        fprintf(stderr, "Usage: plumb options --markdown > docs/options.md\n");
        return PLUMB_EXIT_USAGE;
    }
    plumb_str page = {0};
    plumb_status status = plumb_options_reference(&page);
    if (status == PLUMB_OK)
        fputs(page.data, stdout);
    else
        fprintf(stderr, "plumb: %s\n", plumb_error_message());
    plumb_str_free(&page);
    return status == PLUMB_OK ? PLUMB_EXIT_DONE : PLUMB_EXIT_FAILED;
}

static const command commands[] = {
    {"run", "a pipeline: several of the commands below, one after the other in one job", cmd_run},
    {"sft", "supervised fine-tuning on instructions, chats or text", cmd_sft},
    {"dpo", "direct preference optimisation on pairs of answers", cmd_dpo},
    {"reward", "a reward model from pairs of answers", cmd_reward},
    {"ppo", "reinforcement learning from a reward, with a value model", cmd_ppo},
    {"grpo", "the same without one: completions of a prompt are compared", cmd_grpo},
    {"rloo", "the same with a leave-one-out baseline", cmd_rloo},
    {"bestofn", "sample, keep the best (and worst) by reward as a data set", cmd_bestofn},
    {"replay", "losses of logged iterations, without sampling", cmd_replay},
    {"score", "scores of a reward model for answers in a file", cmd_score},
    {"generate", "let a model go on from a prompt", cmd_generate},
    {"eval", "loss and perplexity on held-out records", cmd_eval},
    {"merge", "merge an adapter into a model and write it in Hugging Face format", cmd_merge},
    {"trajectories", "show, search and verify what a run has sampled", cmd_trajectories},
    {"inspect", "show what is in a model, an adapter or a checkpoint", cmd_inspect},
    {"report", "a page about a run: curves, completions, settings", cmd_report},
    {"tokenize", "text to token ids and back", cmd_tokenize},
    {"options", NULL, cmd_options},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fprintf(out, "plumb aligns language models on clusters.\n\nUsage: plumb COMMAND ...    or    mpirun -n RANKS plumb "
                 "COMMAND ...\n\nCommands\n");
    for (int i = 0; i < COMMANDS; i++)
        if (commands[i].summary) fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nplumb COMMAND --help shows a command's settings; plumb --version the version.\n");
}

static int unknown_command(const char *word) {
    const char *names[COMMANDS];
    int count = 0;
    for (int i = 0; i < COMMANDS; i++)
        if (commands[i].summary) names[count++] = commands[i].name;
    int nearest = plumb_nearest(word, names, count);
    fprintf(stderr, "plumb: unknown command '%.60s'", word);
    if (nearest >= 0) fprintf(stderr, "; did you mean %s?", names[nearest]);
    fprintf(stderr, "\nplumb --help lists the commands.\n");
    return PLUMB_EXIT_USAGE;
}

/* What was printed must have arrived: `plumb options --markdown > file` on a full disk is a failure. */
static int finish_output(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    fprintf(stderr, "plumb: cannot write to the standard output\n");
    return code ? code : PLUMB_EXIT_FAILED;
}

static int run(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return PLUMB_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        print_usage(stdout);
        return PLUMB_EXIT_DONE;
    }
    if (!strcmp(word, "--version")) {
        printf("plumb %s\n", PLUMB_VERSION);
        return PLUMB_EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(word, commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    return unknown_command(word);
}

/* OpenMP's threads spin for milliseconds before they sleep, which starves a neighbour - another rank, another user - on a processor that
 * is shared: decoding was seen to slow down thirty times. A short spin serves the gaps between our loops. libgomp reads its settings
 * before main, so the program starts itself once more where nobody has chosen any. */
static void choose_spinning(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1); /* by its name, which ps and top then show */
    if (n <= 0 || setenv("GOMP_SPINCOUNT", "2000", 1) != 0) return;
    path[n] = 0;
    execv(path, argv);
}

int main(int argc, char **argv) {
    choose_spinning(argv);
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a write error with a message, without MPI too */
    return finish_output(run(argc, argv));
}
