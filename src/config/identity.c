/* Which settings decide a result: all but those that change where it goes, how long it takes or how often it is saved.
 *
 * A checkpoint of a run with other such settings is refused, and a stage of a pipeline that is done with others is not taken for done.
 * The list names what does not count, so that a new option counts until somebody has thought about it. */
#include "config_internal.h"
#include <string.h>
#include <xxhash.h>

static const char *const harmless[] = {
    "output_dir", "output_file", "run_name", "resume", "stop_after", "save_steps", "save_total_limit", "logging_steps", "threads",
    "dry_run", "rollout_batch", "backend", "isa", "kv_budget_mb", "reward_timeout", "reward_retries", "log_trajectories", "report", NULL};
/* A run knows its length, and what it reads by content. */
static const char *const known[] = {"max_steps", "epochs",         "model",        "adapter",       "train_file",
                                "eval_file", "reward_adapter", "reward_model", "value_adapter", NULL};

static bool is_in(const char *const *list, const char *key, size_t length) {
    for (; *list; list++)
        if (strlen(*list) == length && !strncmp(key, *list, length)) return true;
    return false;
}

plumb_status plumb_options_identity(const plumb_options *o, int command, bool all, plumb_str *out) {
    plumb_str yaml = {0};
    plumb_status status = plumb_options_write(o, command, &yaml);
    for (char *line = yaml.data; status == PLUMB_OK && line && *line;) {
        char *end = strchr(line, '\n'), *next = end ? end + 1 : line + strlen(line);
        size_t key = strcspn(line, ":#\n ");
        if (key && !is_in(harmless, line, key) && (all || !is_in(known, line, key)))
            status = plumb_str_append(out, line, (size_t)(next - line));
        line = next;
    }
    plumb_str_free(&yaml);
    return status;
}

uint64_t plumb_config_hash(const void *bytes, size_t size, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, size, seed);
}
