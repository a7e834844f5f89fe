/* log_program log DIR [WRITERS [LAST]]   logs one iteration after another, continuing after the last committed one, until it is killed or
 *                                        LAST is there; compacts now and then
 * log_program check DIR                  verifies the folder and compares everything that is committed with what it must hold; prints the
 *                                        last iteration. May run beside "log"
 * log_program full DIR                   logs and compacts until there is no room, then all that was committed must be there */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/trajectory.h"

enum { SEQUENCES = 24, PROMPT = 5, TOKENS = 40, COMPACT_EVERY = 4 };

static int fail(const char *what) {
    fprintf(stderr, "log_program: %s: %s\n", what, plumb_error_message());
    return 1;
}

static double number(int64_t iteration, int64_t i, int array) {
    return (double)((iteration * 7919 + i * 104729 + array * 31) % 65521) / 64.0;
}

static plumb_status fill(plumb_trajectories *t, int64_t iteration, int writer) {
    *t = (plumb_trajectories){.iteration = iteration, .policy_version = iteration, .n_parts = 1, .part_names = {"model"}};
    PLUMB_TRY(plumb_trajectories_alloc(t, SEQUENCES, SEQUENCES * PROMPT, SEQUENCES * TOKENS));
    for (int64_t s = 0; s < SEQUENCES; s++) {
        char text[64];
        t->prompt_offset[s + 1] = (s + 1) * PROMPT, t->token_offset[s + 1] = (s + 1) * TOKENS;
        t->record[s] = writer * SEQUENCES + s, t->score[s] = t->parts[s] = s == 5 ? NAN : number(iteration, s, writer),
        t->finish[s] = (uint8_t)(s % 3);
        snprintf(text, sizeof text, "iteration %lld, sequence %lld", (long long)iteration, (long long)t->record[s]);
        t->prompt_text[s] = strdup(text), t->text[s] = strdup(text + 3);
    }
    for (int64_t i = 0; i < SEQUENCES * TOKENS; i++) {
        t->mask[i] = 1, t->ref_logp[i] = number(iteration, i, 1 + writer) - 0.5; /* a KL of 20 for each sequence */
        t->ids[i] = (int32_t)(i + writer), t->logp[i] = number(iteration, i, 1 + writer),
        t->advantages[i] = number(iteration, i, 2 + writer);
    }
    return PLUMB_OK;
}

/* Holds writer 0's sequences, then writer 1's, and so on. */
static bool as_written(const plumb_trajectories *t) {
    if (t->n_sequences % SEQUENCES || t->n_sequences == 0) return false;
    for (int64_t w = 0; w < t->n_sequences / SEQUENCES; w++) {
        plumb_trajectories want;
        if (fill(&want, t->iteration, (int)w) != PLUMB_OK) return false;
        size_t first = (size_t)(w * SEQUENCES), token = first * TOKENS;
        bool same = !memcmp(t->record + first, want.record, sizeof *want.record * SEQUENCES) &&
                    !memcmp(t->score + first, want.score, sizeof *want.score * SEQUENCES) &&
                    !memcmp(t->parts + first, want.parts, sizeof *want.parts * SEQUENCES) &&
                    !memcmp(t->ids + token, want.ids, sizeof *want.ids * SEQUENCES * TOKENS) &&
                    !memcmp(t->logp + token, want.logp, sizeof *want.logp * SEQUENCES * TOKENS) &&
                    !memcmp(t->advantages + token, want.advantages, sizeof *want.advantages * SEQUENCES * TOKENS);
        for (size_t s = 0; same && s < SEQUENCES; s++)
            same = !strcmp(t->prompt_text[first + s], want.prompt_text[s]) && !strcmp(t->text[first + s], want.text[s]);
        plumb_trajectories_free(&want);
        if (!same) return false;
    }
    return true;
}

static int check(const char *dir) {
    int64_t *list, n;
    plumb_trajectory_reader *r;
    if (plumb_trajectories_verify(dir, NULL, NULL, NULL) != PLUMB_OK) return fail("verify");
    if (plumb_trajectories_list(dir, &list, &n) != PLUMB_OK) return fail("list");
    if (plumb_trajectory_reader_open(&r, dir) != PLUMB_OK) return fail("reader");
    for (int64_t i = 0; i < n; i++) {
        plumb_trajectories t;
        if (list[i] != i + 1) return fail("an iteration is missing or there twice");
        if (plumb_trajectory_reader_read(r, list[i], &t) != PLUMB_OK) return fail("read");
        if (!as_written(&t)) return fail("a committed iteration holds other things than were written");
        plumb_trajectories_free(&t);
    }
    plumb_trajectory_reader_close(r);
    printf("%lld\n", (long long)n);
    free(list);
    return 0;
}

static plumb_status log_one(const char *dir, int64_t iteration, int writers) {
    for (int w = 0; w < writers; w++) {
        plumb_trajectories t;
        plumb_status status = fill(&t, iteration, w);
        if (status == PLUMB_OK) status = plumb_trajectories_write(dir, w, writers, &t);
        plumb_trajectories_free(&t);
        PLUMB_TRY(status);
    }
    return plumb_trajectories_commit(dir, iteration, writers);
}

static plumb_status last_committed(const char *dir, int64_t *last) {
    int64_t *list, n;
    PLUMB_TRY(plumb_trajectories_list(dir, &list, &n));
    *last = n ? list[n - 1] : 0;
    free(list);
    return PLUMB_OK;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *dir = argv[2];
    bool full = !strcmp(argv[1], "full");
    int writers = argc > 3 ? atoi(argv[3]) : 1;
    int64_t last, end = argc > 4 ? atoll(argv[4]) : INT64_MAX;
    if (!strcmp(argv[1], "check")) return check(dir);
    signal(SIGXFSZ, SIG_IGN);
    if (last_committed(dir, &last) != PLUMB_OK || plumb_trajectories_rewind(dir, last) != PLUMB_OK) return fail("resume");
    for (int64_t iteration = last + 1; iteration <= end; iteration++) {
        plumb_status status = log_one(dir, iteration, writers);
        if (status == PLUMB_OK) printf("%lld\n", (long long)iteration), fflush(stdout); /* a promise: this iteration will be found */
        if (status == PLUMB_OK && iteration % COMPACT_EVERY == 0) status = plumb_trajectories_compact(dir);
        if (status == PLUMB_OK) continue;
        if (!full || status != PLUMB_E_IO) return fail("log");
        fprintf(stderr, "%s\n", plumb_error_message());
        return check(dir);
    }
    return 0;
}
