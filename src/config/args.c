/* The command line of a subcommand: plumb sft CONFIG.yaml key=value … [--resume PATH|auto|never] [--dry-run] [--help].
 */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>

typedef struct line { /* what the arguments come to */
    const char *path;
    char **overrides; /* owned, as are the texts of `made` */
    int *positions, n_overrides;
    char *made; /* "resume=PATH" */
    bool help;
} line;

static plumb_status refuse(int position, const char *argument, const char *expected) {
    char excerpt[EXCERPT_SIZE];
    return plumb_error(PLUMB_E_CONFIG, "argument %d: found %s; expected %s", position,
                       plumb_config_excerpt(excerpt, argument, strlen(argument)), expected);
}

static void add(line *l, char *text, int position) {
    l->overrides[l->n_overrides] = text;
    l->positions[l->n_overrides++] = position;
}

static plumb_status add_resume(line *l, const char *value, int position) {
    plumb_str text = {0};
    plumb_status status = plumb_str_printf(&text, "resume=%s", value);
    if (status != PLUMB_OK) {
        plumb_str_free(&text);
        return status;
    }
    for (int i = 0; i < l->n_overrides;
         i++) /* given twice: the last counts, and the first must not point at freed memory */
        if (l->overrides[i] == l->made) l->overrides[i] = text.data;
    free(l->made);
    l->made = text.data;
    add(l, l->made, position);
    return PLUMB_OK;
}

static plumb_status read_flag(line *l, int argc, char **argv, int *i) {
    static char dry_run[] = "dry_run=true";
    const char *flag = argv[*i];
    if (!strcmp(flag, "--dry-run")) {
        add(l, dry_run, *i);
    } else if (!strncmp(flag, "--resume=", 9)) {
        return add_resume(l, flag + 9, *i);
    } else if (!strcmp(flag, "--resume")) {
        if (*i + 1 >= argc) return refuse(*i, flag, "a path, auto or never after it");
        ++*i;
        return add_resume(l, argv[*i], *i);
    } else {
        return refuse(*i, flag, "--resume, --dry-run or --help; settings are written key=value, without dashes");
    }
    return PLUMB_OK;
}

static plumb_status read_line(line *l, int argc, char **argv) {
    size_t room = argc > 0 ? (size_t)argc : 1;
    PLUMB_TRY(plumb_alloc(&l->overrides, room, sizeof *l->overrides, "arguments"));
    PLUMB_TRY(plumb_alloc(&l->positions, room, sizeof *l->positions, "arguments"));
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            PLUMB_TRY(read_flag(l, argc, argv, &i));
        else if (plumb_config_key_length(argv[i]))
            add(l, argv[i], i);
        else if (argv[i][0] == 0)
            return refuse(i, argv[i], "the path of a configuration file or key=value");
        else if (l->path)
            return refuse(i, argv[i], "key=value: the configuration file was named already");
        else
            l->path = argv[i];
    }
    return PLUMB_OK;
}

plumb_status plumb_options_parse_args(plumb_options *o, int command, int argc, char **argv, bool *help_shown) {
    line l = {0};
    *o = (plumb_options){0};
    *help_shown = false;
    for (int i = 1; i < argc; i++)
        l.help |= !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"); /* before any complaint */
    if (l.help) {
        plumb_options_help(command, stdout);
        *help_shown = true;
        return PLUMB_OK;
    }
    plumb_status status = read_line(&l, argc, argv);
    plumb_sources from = {
        .path = l.path, .overrides = l.overrides, .positions = l.positions, .n_overrides = l.n_overrides};
    if (status == PLUMB_OK) status = plumb_config_load(o, command, &from);
    if (status == PLUMB_OK) status = plumb_config_check_required(o, command, l.path);
    if (status != PLUMB_OK) plumb_options_free(o);
    free(l.overrides);
    free(l.positions);
    free(l.made);
    return status;
}
