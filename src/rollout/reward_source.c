/* Reward sources by name: the table, the specification, and what all kinds have in common. */
#include "reward_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const reward_kind kinds[] = {
    {.name = "exact_match", .needs_answer = true, .score_one = reward_exact_match},
    {.name = "number", .needs_answer = true, .score_one = reward_number},
    {.name = "regex", .argument = "PATTERN", .counts = "errors", .open = reward_regex_open, .score_one = reward_regex},
    {.name = "length", .argument = "N", .open = reward_length_open, .score_one = reward_length},
    {.name = "json", .score_one = reward_json},
    {.name = "program", .argument = "COMMAND", .counts = "restarts", .open = reward_program_open, .start = reward_program_start,
     .score_all = reward_program_score},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static plumb_status find_kind(const char *spec, size_t length, const reward_kind **out) {
    char word[64];
    const char *names[KINDS];
    for (int i = 0; i < KINDS; i++) {
        names[i] = kinds[i].name;
        if (strlen(names[i]) != length || memcmp(names[i], spec, length)) continue;
        *out = &kinds[i];
        return PLUMB_OK;
    }
    size_t n = length < sizeof word ? length : sizeof word - 1;
    memcpy(word, spec, n);
    word[n] = 0;
    int near = plumb_nearest(word, names, KINDS);
    return plumb_error(PLUMB_E_CONFIG,
                       "unknown reward \"%s\"%s%s%s; there are exact_match, number, regex:PATTERN, length:N, json and "
                       "program:COMMAND",
                       word, near >= 0 ? ", did you mean \"" : "", near >= 0 ? names[near] : "",
                       near >= 0 ? "\"?" : "");
}

static plumb_status check_argument(const reward_kind *k, const char *argument) {
    bool blank =
        !argument || !argument[strcmp(k->name, "regex") ? strspn(argument, " \t") : 0]; /* a pattern may be a space */
    if (k->argument && blank)
        return plumb_error(PLUMB_E_CONFIG, "reward %s: what it takes is missing, expected %s:%s", k->name, k->name,
                           k->argument);
    if (!k->argument && argument)
        return plumb_error(PLUMB_E_CONFIG, "reward %s: found \"%.100s\" after the colon, expected %s alone", k->name,
                           argument, k->name);
    return PLUMB_OK;
}

plumb_status plumb_reward_source_create(plumb_reward_source **out, const char *spec,
                                        const plumb_reward_limits *limits) {
    const reward_kind *k = NULL;
    plumb_reward_source *s;
    const char *colon = strchr(spec, ':'), *argument = colon ? colon + 1 : NULL;
    *out = NULL;
    PLUMB_TRY(find_kind(spec, colon ? (size_t)(colon - spec) : strlen(spec), &k));
    PLUMB_TRY(check_argument(k, argument));
    if (limits && !(limits->seconds > 0 && isfinite(limits->seconds) && limits->retries >= 0))
        return plumb_error(PLUMB_E_CONFIG,
                           "reward %s: found %g seconds and %d retries, expected more than 0 and at least 0", k->name,
                           limits->seconds, limits->retries);
    PLUMB_TRY(plumb_alloc(&s, 1, sizeof *s, "a reward source"));
    s->kind = k;
    s->limits = limits ? *limits : (plumb_reward_limits){PLUMB_REWARD_SECONDS, PLUMB_REWARD_RETRIES};
    size_t length = argument ? strlen(argument) : 0;
    plumb_status status = plumb_alloc(&s->argument, length + 1, 1, "a reward source");
    if (status == PLUMB_OK && length) memcpy(s->argument, argument, length);
    if (status == PLUMB_OK && k->open) status = k->open(s);
    if (status == PLUMB_OK)
        *out = s;
    else
        plumb_reward_source_free(s);
    return status;
}

plumb_status plumb_reward_source_start(plumb_reward_source *s) {
    return s->kind->start ? s->kind->start(s) : PLUMB_OK;
}

void plumb_reward_source_free(plumb_reward_source *s) {
    if (!s) return;
    plumb_pattern_free(s->pattern);
    reward_program_free(s->program);
    free(s->argument);
    free(s);
}

const char *plumb_reward_source_name(const plumb_reward_source *s) {
    return s->kind->name;
}

bool plumb_reward_source_needs_answer(const plumb_reward_source *s) {
    return s->kind->needs_answer;
}

const char *plumb_reward_source_counts(const plumb_reward_source *s) {
    return s->kind->counts;
}

void plumb_reward_source_leave_when(plumb_reward_source *s, bool (*leaving)(void)) {
    s->leaving = leaving;
}

bool plumb_reward_source_left(const plumb_reward_source *s) {
    return s->left;
}

int64_t plumb_reward_source_count(const plumb_reward_source *s) {
    return s->count;
}

plumb_status plumb_reward_source_score(plumb_reward_source *s, const plumb_reward_item *items, int64_t n,
                                       double *rewards) {
    s->left = false;
    for (int64_t i = 0; s->kind->needs_answer && i < n; i++)
        if (!items[i].answer)
            return plumb_error(PLUMB_E_DATA,
                               "reward %s: record %lld has no answer to compare with (field_answer names the field)",
                               s->kind->name, (long long)items[i].record + 1);
    if (s->kind->score_all) return n > 0 ? s->kind->score_all(s, items, n, rewards) : PLUMB_OK;
    for (int64_t i = 0; i < n; i++) {
        plumb_status status = s->kind->score_one(s, &items[i], &rewards[i]);
        if (status != PLUMB_OK)
            return plumb_error_prefix(status, "reward %s: record %lld", s->kind->name, (long long)items[i].record + 1);
    }
    return PLUMB_OK;
}
