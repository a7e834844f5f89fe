/* plumb replay RUN_DIR: the losses of logged iterations, without sampling and without a model. */
#include "cmd.h"
#include "plumb/base.h"
#include "replay.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: plumb replay RUN_DIR [--iteration N | N-M] [key=value ...]\n\n"
    "Computes rewards per token, advantages, returns and losses of logged iterations again from the trajectories in RUN_DIR\n"
    "(a run of plumb ppo, grpo or rloo), compares them with the log, and prints the losses of the first pass. key=value changes a\n"
    "setting of the run from which losses follow: what would kl_coef=0.1, lam=0.9, reward_weights=[1,0.5] or loss_type=dr_grpo\n"
    "have made of the same completions? Settings that need sampling are refused.\n";

static bool read_range(const char *text, int64_t *first, int64_t *last) {
    char *end;
    *first = *last = strtoll(text, &end, 10);
    if (end == text || *first < 1) return false;
    if (*end == '-') {
        const char *second = end + 1;
        *last = strtoll(second, &end, 10);
        if (end == second) return false;
    }
    return *end == 0 && *last >= *first;
}

int cmd_replay(int argc, char **argv) {
    const char *dir = NULL;
    char **overrides = NULL;
    int n = 0, code = PLUMB_EXIT_USAGE;
    int64_t first = 1, last = INT64_MAX;
    if (plumb_alloc(&overrides, (size_t)argc, sizeof *overrides, "arguments") != PLUMB_OK) return PLUMB_EXIT_FAILED;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            code = PLUMB_EXIT_DONE;
            goto done;
        }
        if (!strcmp(argv[i], "--iteration")) {
            if (i + 1 < argc && read_range(argv[++i], &first, &last)) continue;
            fprintf(stderr, "plumb replay: --iteration: found '%s'; expected a number from 1, or a range such as 3-7\n", argv[i]);
            goto done;
        }
        if (argv[i][0] != '-' && strchr(argv[i], '=')) overrides[n++] = argv[i];
        else if (argv[i][0] != '-' && !dir) dir = argv[i];
        else {
            fprintf(stderr, "plumb replay: unknown argument '%.100s'\n%s", argv[i], usage);
            goto done;
        }
    }
    if (!dir) {
        fputs(usage, stderr);
        goto done;
    }
    code = PLUMB_EXIT_DONE;
    if (plumb_replay(dir, first, last, overrides, n) != PLUMB_OK) {
        fprintf(stderr, "plumb replay: %s\n", plumb_error_message());
        code = PLUMB_EXIT_FAILED;
    }
done:
    free(overrides);
    return code;
}
