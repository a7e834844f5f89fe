/* The pages that people read, made from the table: `plumb sft --help` and docs/options.md. */
#include "config_internal.h"
#include <string.h>

/* "required", "default 1e-4 (2e-5 without lora)"; nothing where unset is the default and the help says what that means.
 */
static plumb_status append_default(plumb_str *out, const plumb_option *row, int command, const char *quote) {
    if (row->required & command) return plumb_str_printf(out, "required");
    PLUMB_TRY(plumb_str_printf(out, "%s%s%s", quote, row->fallback, quote));
    return row->fallback_full ? plumb_str_printf(out, "; %s%s%s with lora: false", quote, row->fallback_full, quote)
                              : PLUMB_OK;
}

static const char *usage_of(int command) {
    switch (command) {
    case PLUMB_FOR_SFT:
    case PLUMB_FOR_DPO:
    case PLUMB_FOR_REWARD:
    case PLUMB_FOR_PPO:
    case PLUMB_FOR_GRPO:
    case PLUMB_FOR_RLOO: return "CONFIG.yaml [key=value ...] [--resume PATH|auto|never] [--dry-run]";
    case PLUMB_FOR_BESTOFN: return "[CONFIG.yaml] [key=value ...] [--resume auto|never] [--dry-run]";
    default: return "[CONFIG.yaml] [key=value ...] [--dry-run]";
    }
}

void plumb_options_help(int command, FILE *out) {
    const char *group = "", *name = plumb_options_command_name(command);
    plumb_str note = {0};
    fprintf(
        out,
        "Usage: plumb %s %s\n\n"
        "Settings come from the file and then from key=value, which counts more. A list is written [a, b] or a,b.\n",
        name, usage_of(command));
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        if (!(row->commands & command)) continue;
        if (strcmp(group, row->group)) fprintf(out, "\n%s\n", row->group);
        group = row->group;
        note.length = 0;
        bool complete = append_default(&note, row, command, "") == PLUMB_OK &&
                        plumb_str_append(&note, "; ", 2) == PLUMB_OK && plumb_config_expected(row, &note) == PLUMB_OK;
        fprintf(out, "  %-24s  %s (%s%s)\n", row->key, row->help, row->required & command ? "" : "default ",
                complete ? note.data : row->fallback);
    }
    plumb_str_free(&note);
}

static plumb_status append_cell(plumb_str *out, const char *text) {
    for (; *text; text++)
        PLUMB_TRY(strchr("|*", *text) ? plumb_str_printf(out, "\\%c", *text) : plumb_str_append(out, text, 1));
    return PLUMB_OK;
}

static plumb_status append_row(plumb_str *out, const plumb_option *row) {
    plumb_str expected = {0};
    plumb_status status = plumb_str_printf(out, "| `%s` | ", row->key);
    if (status == PLUMB_OK) status = plumb_config_expected(row, &expected);
    if (status == PLUMB_OK) status = append_cell(out, expected.data);
    plumb_str_free(&expected);
    PLUMB_TRY(status);
    PLUMB_TRY(plumb_str_append(out, " | ", 3));
    PLUMB_TRY(append_default(out, row, row->commands, "`"));
    PLUMB_TRY(plumb_str_append(out, " | ", 3));
    bool first = true;
    for (int bit = 1; bit <= ALL_COMMANDS; bit <<= 1) {
        if (!(row->commands & bit)) continue;
        PLUMB_TRY(plumb_str_printf(out, "%s%s", first ? "" : ", ", plumb_options_command_name(bit)));
        first = false;
    }
    PLUMB_TRY(plumb_str_append(out, " | ", 3));
    PLUMB_TRY(append_cell(out, row->help));
    return plumb_str_append(out, " |\n", 3);
}

plumb_status plumb_options_reference(plumb_str *out) {
    static const char head[] =
        "# Options\n\n"
        "Written by `plumb options --markdown` from the table in `src/config/options.c`; `plumb sft --help` shows the "
        "same for one command.\n\n"
        "## Where settings come from\n\n"
        "```\n"
        "plumb sft CONFIG.yaml key=value ... [--resume PATH|auto|never] [--dry-run]\n"
        "```\n\n"
        "Defaults first, then the file, then `key=value` arguments in their order; the last one counts. The file may "
        "be left out. `--resume X` is "
        "`resume=X`, `--dry-run` is `dry_run=true`. Relative paths are relative to the working directory, not to the "
        "file. The resolved settings are "
        "written to `config.yaml` in `output_dir`.\n\n"
        "## The file\n\n"
        "YAML, read strictly: an unknown key, a value of the wrong type or out of range, or a key that stands there "
        "twice stops the program with file, line "
        "and column. Files of more than 1 MiB are refused.\n\n"
        "- Keys are flat. A key with a dot may be written `lr_scheduler_kwargs.min_lr: 1e-6` or nested, "
        "`lr_scheduler_kwargs: {min_lr: 1e-6}`.\n"
        "- A number has decimal digits, without quotes: `8`, `1e-5`, `.5`. A whole number has neither point nor "
        "exponent. A leading zero (`010`) is refused, "
        "because YAML 1.1 and 1.2 read it differently; so are hexadecimal numbers, `.inf` and `.nan`.\n"
        "- `true` and `false` are the only truth values.\n"
        "- `null` (or nothing) stands for the default of a text; other types do not take it.\n"
        "- A list may be one text: `lora_target_modules: all-linear`. Text that begins with `*` or `&` needs quotes: "
        "`train_modules: ['*.mlp.*']`.\n"
        "- Anchors, aliases, tags, merge keys and a second document are refused.\n\n"
        "## Arguments\n\n"
        "The value of `key=value` is taken as it stands, so `prompt=\"Hello: you\"` needs the shell's quotes only; "
        "`key=null` or `key=` is null. A list is "
        "`key=[a, b]`, as in YAML, or `key=a,b`.\n";
    const char *group = "";
    PLUMB_TRY(plumb_str_append(out, head, sizeof head - 1));
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        if (strcmp(group, row->group))
            PLUMB_TRY(plumb_str_printf(
                out, "\n## %s\n\n| key | value | default | commands | meaning |\n|---|---|---|---|---|\n", row->group));
        group = row->group;
        PLUMB_TRY(append_row(out, row));
    }
    return PLUMB_OK;
}
