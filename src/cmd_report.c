/* plumb report: a page about a run that is over, was killed, or is going on. Reads its folder alone; starts no MPI. */
#include "cmd.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/report.h"

static const char help[] =
    "usage: plumb report RUN_DIR [-o FILE] [--iterations 1,10,20 | --max-iterations N] [--title TEXT]\n"
    "\n"
    "Writes RUN_DIR/report.html: one file with curves (metrics.jsonl), completions (trajectories/) and\n"
    "settings (config.yaml) of a run. It needs no network: open it in a browser, or mail it. The training\n"
    "commands write it at the end of a run (report: false does without); of a run that goes on or was\n"
    "killed it shows what is there.\n"
    "\n"
    "  RUN_DIR               the output_dir of plumb sft, dpo, reward, ppo, grpo or rloo\n"
    "  -o, --output FILE     where to write instead\n"
    "  --iterations LIST     iterations whose completions are shown, ascending: 1,10,20\n"
    "  --max-iterations N    how many are chosen otherwise, evenly from the first to the last: 1 to 64,\n"
    "                        default 4\n"
    "  --title TEXT          heading; default: the run's name\n"
    "  --help                print this\n"
    "\n"
    "Examples\n"
    "  plumb report runs/ppo\n"
    "  plumb report runs/ppo --iterations 1,50,100 -o /tmp/ppo.html\n"
    "\n"
    "Exit status: 0 written, 1 failed, 2 wrong usage.\n";

static int usage(const char *why, const char *what) {
    fprintf(stderr, "plumb report: %s%.200s\nTry 'plumb report --help'.\n", why, what);
    return PLUMB_EXIT_USAGE;
}

/* A whole number from the start of *text, which moves behind it. */
static bool read_number(const char **text, int64_t *value) {
    char *end;
    if (**text < '0' || **text > '9') return false;
    errno = 0;
    *value = strtoll(*text, &end, 10);
    *text = end;
    return errno == 0;
}

static bool read_iterations(const char *text, int64_t *list, int *count) {
    for (*count = 0; *count < PLUMB_REPORT_ITERATIONS_MAX; text++) {
        if (!read_number(&text, &list[*count]) || (*count && list[*count] <= list[*count - 1])) return false;
        ++*count;
        if (!*text) return true;
        if (*text != ',') return false;
    }
    return false;
}

int cmd_report(int argc, char **argv) {
    plumb_report_options o = {0};
    int64_t iterations[PLUMB_REPORT_ITERATIONS_MAX];
    const char *list = NULL, *most = NULL;
    const struct {
        const char *name;
        const char **value;
    } known[] = {{"-o", &o.file}, {"--output", &o.file}, {"--iterations", &list}, {"--max-iterations", &most}, {"--title", &o.title}};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return PLUMB_EXIT_DONE;
        }
        size_t k = 0, count = sizeof known / sizeof *known;
        while (k < count && strcmp(argv[i], known[k].name)) k++;
        if (k == count && argv[i][0] == '-') return usage("unknown argument ", argv[i]);
        if (k == count && o.dir) return usage("a second folder: ", argv[i]);
        if (k == count) o.dir = argv[i];
        else if (++i == argc) return usage("a value is missing after ", argv[i - 1]);
        else *known[k].value = argv[i];
    }
    if (!o.dir) return usage("the folder of a run is missing", "");
    if (!o.dir[0] || (o.file && !o.file[0])) return usage("an empty path", "");
    if (list && most) return usage("--iterations excludes --max-iterations", "");
    if (list && !read_iterations(list, iterations, &o.n_iterations))
        return usage("--iterations takes up to 64 ascending numbers, as in 1,10,20, not ", list);
    o.iterations = iterations;
    if (most) {
        const char *end = most;
        if (!read_number(&end, &o.max_iterations) || *end || o.max_iterations < 1 || o.max_iterations > PLUMB_REPORT_ITERATIONS_MAX)
            return usage("--max-iterations is a number from 1 to 64, not ", most);
    }
    if (plumb_report_write(&o) != PLUMB_OK) {
        fprintf(stderr, "plumb report: %s\n", plumb_error_message());
        return PLUMB_EXIT_FAILED;
    }
    if (o.file) printf("%s\n", o.file);
    else printf("%s%sreport.html\n", o.dir, o.dir[strlen(o.dir) - 1] == '/' ? "" : "/");
    return PLUMB_EXIT_DONE;
}
