/* The command line of plumb run: plumb run PIPELINE.yaml stage.key=value … [--from STAGE] [--only STAGE] [--dry-run] [--help]. */
#include <stdlib.h>
#include <string.h>
#include "config_internal.h"
#include "plumb/pipeline.h"

static plumb_status refuse(int position, const char *argument, const char *expected) {
    char excerpt[EXCERPT_SIZE];
    return plumb_error(PLUMB_E_CONFIG, "argument %d: found %s; expected %s", position,
                       plumb_config_excerpt(excerpt, argument, strlen(argument)), expected);
}

/* --flag NAME or --flag=NAME; false when the argument is another. */
static bool is_flag(const char *argument, const char *flag, const char **value) {
    size_t n = strlen(flag);
    *value = NULL;
    if (strncmp(argument, flag, n)) return false;
    if (argument[n] == '=') *value = argument + n + 1;
    return argument[n] == 0 || argument[n] == '=';
}

static plumb_status read_flag(plumb_run_line *l, int argc, char **argv, int *i) {
    const char *value, *flag = argv[*i];
    if (!strcmp(flag, "--dry-run")) {
        l->dry_run = true;
        return PLUMB_OK;
    }
    const char **target = is_flag(flag, "--from", &value) ? &l->from : is_flag(flag, "--only", &value) ? &l->only : NULL;
    if (!target)
        return refuse(*i, flag, "--from STAGE, --only STAGE, --dry-run or --help; settings are written STAGE.key=value, without dashes");
    if (!value && *i + 1 < argc) value = argv[++*i];
    if (!value || !*value || *value == '-') return refuse(*i, flag, "the name of a stage after it");
    *target = value;
    return PLUMB_OK;
}

static plumb_status read_line(plumb_run_line *l, int argc, char **argv) {
    size_t room = argc > 0 ? (size_t)argc : 1;
    PLUMB_TRY(plumb_alloc(&l->arguments, room, sizeof *l->arguments, "arguments"));
    PLUMB_TRY(plumb_alloc(&l->positions, room, sizeof *l->positions, "arguments"));
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            PLUMB_TRY(read_flag(l, argc, argv, &i));
        } else if (plumb_config_key_length(argv[i])) {
            l->positions[l->n_arguments] = i;
            l->arguments[l->n_arguments++] = argv[i];
        } else if (argv[i][0] == 0) {
            return refuse(i, argv[i], "the path of a pipeline's file or STAGE.key=value");
        } else if (l->path) {
            return refuse(i, argv[i], "STAGE.key=value: the pipeline's file was named already");
        } else {
            l->path = argv[i];
        }
    }
    return l->path ? PLUMB_OK
                   : plumb_error(PLUMB_E_CONFIG, "the pipeline's file is missing: plumb run PIPELINE.yaml; see plumb run --help");
}

plumb_status plumb_run_parse_args(plumb_run_line *l, int argc, char **argv) {
    *l = (plumb_run_line){0};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) { /* before any complaint */
            l->help = true;
            return PLUMB_OK;
        }
    plumb_status status = read_line(l, argc, argv);
    if (status != PLUMB_OK) plumb_run_line_free(l);
    return status;
}

void plumb_run_line_free(plumb_run_line *l) {
    free(l->arguments), free(l->positions);
    *l = (plumb_run_line){0};
}
