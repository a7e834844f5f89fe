/* Checkpoints on 1 to 4 ranks: saved on n ranks and loaded on others (the ranks of one job stand in for jobs of other
 * sizes by taking other ranges), damage, mismatches, pruning, hostile manifests. */
#include "mpi_test.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include "plumb/checkpoint.h"
#include "plumb/io.h"

static char folder[256];

static void shell(const char *command) { /* rank 0 alone; the others wait */
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    if (my_rank == 0 && system(command) != 0) fprintf(stderr, "failed: %s\n", command);
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
}

static int fresh_folder(void **state) {
    mpi_test_begin(state);
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/plumb-ckpt-XXXXXX", temporary ? temporary : "/tmp");
    if (my_rank == 0 && !mkdtemp(folder)) return 1;
    plumb_comm_bcast(PLUMB_AXIS_WORLD, folder, sizeof folder, 0);
    return 0;
}

static int remove_folder(void **state) {
    char command[300];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    shell(command);
    return mpi_test_end(state);
}
#define folder_test(function)                                                                                          \
    { #function, function, fresh_folder, remove_folder, (void *)#function }

/* Ranges of `total` over `parts`, uneven on purpose: part 0 is empty when there are three or more. */
static void range(int64_t total, int part, int parts, int64_t *first, int64_t *count) {
    if (parts >= 3) {
        *first = part == 0 ? 0 : total * (part - 1) / (parts - 1);
        *count = (part == 0 ? 0 : total * part / (parts - 1)) - *first;
    } else
        *first = total * part / parts, *count = total * (part + 1) / parts - *first;
}

enum { WEIGHTS = 100003, TINY = 1, EMPTY = 0, DOUBLES = 5001 };
typedef struct state_arrays {
    plumb_ckpt_array list[4];
    float *weights;
    uint8_t *tiny;
    double *doubles;
} state_arrays;

static float weight(int64_t i, int64_t step) {
    return (float)(i * 3 + step * 7) * 0.25f;
}

static void make_arrays(state_arrays *s, int part, int parts) {
    const int64_t totals[] = {WEIGHTS, TINY, EMPTY, DOUBLES};
    const char *names[] = {"model/weights", "tiny", "empty", "adam/doubles"};
    const size_t sizes[] = {sizeof(float), 1, 4, sizeof(double)};
    for (int a = 0; a < 4; a++) {
        int64_t first, count;
        range(totals[a], part, parts, &first, &count);
        s->list[a] =
            (plumb_ckpt_array){names[a], totals[a], first, count, sizes[a], calloc((size_t)count + 1, sizes[a])};
    }
    s->weights = s->list[0].data, s->tiny = s->list[1].data, s->doubles = s->list[3].data;
}

static void fill(state_arrays *s, int64_t step) {
    for (int64_t i = 0; i < s->list[0].count; i++) s->weights[i] = weight(s->list[0].first + i, step);
    if (s->list[1].count) s->tiny[0] = 42;
    for (int64_t i = 0; i < s->list[3].count; i++) s->doubles[i] = (double)(s->list[3].first + i) / 3;
}

static int64_t wrong_values(const state_arrays *s, int64_t step) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < s->list[0].count; i++) wrong += s->weights[i] != weight(s->list[0].first + i, step);
    if (s->list[1].count) wrong += s->tiny[0] != 42;
    for (int64_t i = 0; i < s->list[3].count; i++) wrong += s->doubles[i] != (double)(s->list[3].first + i) / 3;
    return wrong;
}

static void free_arrays(state_arrays *s) {
    for (int a = 0; a < 4; a++) free(s->list[a].data);
}

static const char identity[] = "model=tiny; objective=dpo\nseed=1";

static plumb_status save_step(int64_t step, int keep) {
    state_arrays s;
    make_arrays(&s, my_rank, rank_count);
    fill(&s, step);
    plumb_ckpt_counter counters[] = {{"samples", step * 100}, {"negative", -5}};
    plumb_status status = plumb_checkpoint_save(folder, step, identity, s.list, 4, counters, 2, keep);
    free_arrays(&s);
    return status;
}

static void expect_names(const char *expected) { /* sorted, without the dots */
    if (my_rank == 0) {
        struct dirent **entries;
        int n = scandir(folder, &entries, NULL, alphasort);
        char text[512] = "";
        for (int i = 0; i < n; i++) {
            if (strcmp(entries[i]->d_name, ".") && strcmp(entries[i]->d_name, ".."))
                strcat(strcat(text, entries[i]->d_name), " ");
            free(entries[i]);
        }
        free(entries);
        if (strcmp(text, expected)) fprintf(stderr, "found \"%s\", expected \"%s\"\n", text, expected);
        check_all(!strcmp(text, expected));
    } else
        check_all(true);
}

static void test_save_and_load(void **state) {
    (void)state;
    char *path;
    int64_t step;
    check_all(plumb_checkpoint_latest(folder, &path, &step) == PLUMB_OK && !path); /* none yet */
    char missing[300];
    snprintf(missing, sizeof missing, "%s/absent", folder);
    check_all(plumb_checkpoint_latest(missing, &path, &step) == PLUMB_OK && !path);
    check_all(save_step(100, 0) == PLUMB_OK);
    expect_names("step-000100 ");
    check_all(plumb_checkpoint_latest(folder, &path, &step) == PLUMB_OK && path && step == 100);
    for (int parts = rank_count; parts <= 7; parts++) { /* as a job of `parts` ranks would read it */
        state_arrays s;
        make_arrays(&s, parts - 1 - my_rank, parts);
        plumb_ckpt_counter counters[] = {{"negative", 0}, {"samples", 0}};
        check_all(plumb_checkpoint_load(path, identity, s.list, 4, counters, 2) == PLUMB_OK);
        check_all(wrong_values(&s, 100) == 0 && counters[0].value == -5 && counters[1].value == 10000);
        free_arrays(&s);
    }
    state_arrays whole; /* all of it on every rank, as one rank would */
    make_arrays(&whole, 0, 1);
    check_all(plumb_checkpoint_load(path, identity, whole.list, 4, NULL, 0) == PLUMB_OK &&
              wrong_values(&whole, 100) == 0);
    free_arrays(&whole);
    free(path);
}

static void test_same_step_again_and_prune(void **state) {
    (void)state;
    for (int64_t step = 1; step <= 5; step++) check_all(save_step(step, 3) == PLUMB_OK);
    expect_names("step-000003 step-000004 step-000005 ");
    check_all(save_step(5, 3) == PLUMB_OK);
    check_all(save_step(1234567, 1) == PLUMB_OK);
    expect_names("step-1234567 ");
    check_all(save_step(-1, 1) == PLUMB_E_CONFIG);
}

static void test_leftovers_are_ignored_and_removed(void **state) {
    (void)state;
    char command[800], *path;
    int64_t step;
    check_all(save_step(3, 0) == PLUMB_OK);
    snprintf(command, sizeof command,
             "cd %s && mkdir step-000009 .step-000008.partial && cp step-000003/* .step-000008.partial && mkdir "
             ".step-000002.old step-7 step-000010x && touch step-000011",
             folder);
    shell(command);
    check_all(plumb_checkpoint_latest(folder, &path, &step) == PLUMB_OK && path &&
              step == 3); /* 9 and 11 are no checkpoints */
    free(path);
    check_all(save_step(4, 0) == PLUMB_OK);
    expect_names("step-000003 step-000004 step-000009 step-000010x step-000011 step-7 ");
}

/* A checkpoint may be nothing but counters; a folder of them goes, unless something else is in it. */
static void test_counters_alone_and_discarding(void **state) {
    (void)state;
    char nested[300], command[700], *path;
    snprintf(nested, sizeof nested, "%s/counted", folder);
    plumb_ckpt_counter counters[] = {{"bytes", -7}};
    check_all(plumb_checkpoint_save(nested, 1, identity, NULL, 0, counters, 1, 1) == PLUMB_OK);
    counters[0].value = 8;
    check_all(plumb_checkpoint_save(nested, 2, identity, NULL, 0, counters, 1, 1) == PLUMB_OK);
    counters[0].value = 0;
    check_all(plumb_checkpoint_latest(nested, &path, NULL) == PLUMB_OK && path);
    check_all(plumb_checkpoint_load(path, identity, NULL, 0, counters, 1) == PLUMB_OK && counters[0].value == 8);
    free(path);
    snprintf(command, sizeof command, "mkdir %s/.step-000009.partial && touch %s/records", nested, nested);
    shell(command);
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    check_all(my_rank != 0 || plumb_checkpoint_discard(nested) == PLUMB_OK);
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    check_all(plumb_path_exists(nested)); /* the records are there */
    snprintf(command, sizeof command, "test \"$(ls -A %s)\" = records && rm %s/records", nested, nested);
    shell(command);
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    for (int i = 0; i < 2; i++) check_all(my_rank != 0 || plumb_checkpoint_discard(nested) == PLUMB_OK); /* absent is fine */
    check_all(!plumb_path_exists(nested));
}

/* Changes the file on rank 0 only. */
static void damage(const char *name, long offset, bool truncate_there) {
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    if (my_rank == 0) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, name);
        int fd = open(path, O_RDWR);
        uint8_t byte = 0;
        if (fd < 0)
            fprintf(stderr, "cannot open %s\n", path);
        else if (truncate_there) {
            if (ftruncate(fd, offset)) perror(path);
        } else if (pread(fd, &byte, 1, offset) == 1) {
            byte ^= 4;
            if (pwrite(fd, &byte, 1, offset) != 1) perror(path);
        }
        close(fd);
    }
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
}

static void expect_damage(const char *what) {
    char *path, bad[300];
    int64_t step;
    snprintf(bad, sizeof bad, "%s/step-000002", folder);
    state_arrays s;
    make_arrays(&s, 0, 1);
    plumb_status status = plumb_checkpoint_load(bad, identity, s.list, 4, NULL, 0);
    if (!strstr(plumb_error_message(), what))
        fprintf(stderr, "message: %s; expected: %s\n", plumb_error_message(), what);
    check_all(status != PLUMB_OK && strstr(plumb_error_message(), what));
    free_arrays(&s);
    int quiet = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY); /* rank 0 reports what it passes over */
    dup2(null, STDERR_FILENO);
    status = plumb_checkpoint_latest(folder, &path, &step);
    dup2(quiet, STDERR_FILENO);
    close(quiet), close(null);
    check_all(status == PLUMB_OK && path && step == 1);
    free(path);
}

static void test_damage_is_found_and_named(void **state) {
    (void)state;
    char file[100], again[300];
    snprintf(file, sizeof file, "step-000002/shards-%05d.bin",
             rank_count - 1); /* the last rank's file is never empty */
    snprintf(again, sizeof again, "rm -rf %s/step-000002", folder);
    check_all(save_step(1, 0) == PLUMB_OK);
    check_all(save_step(2, 0) == PLUMB_OK);
    damage(file, 1000, false);
    expect_damage("model/weights");
    shell(again);
    check_all(save_step(2, 0) == PLUMB_OK);
    damage(file, 1000, true);
    expect_damage("truncated");
    shell(again);
    check_all(save_step(2, 0) == PLUMB_OK);
    damage("step-000002/manifest.pb", 20, false);
    expect_damage("manifest.pb: damaged: checksum");
    damage("step-000002/manifest.pb", 20, true);
    expect_damage("manifest.pb: truncated");
    damage("step-000002/manifest.pb", 0, true);
    expect_damage("manifest.pb: truncated");
    shell(again);
    check_all(save_step(2, 0) == PLUMB_OK);
    char missing[400];
    snprintf(missing, sizeof missing, "rm %s/%s", folder, file);
    shell(missing);
    expect_damage("cannot open");
}

static void expect_refusal(plumb_status status, plumb_status code, const char *what) {
    if (status != code || !strstr(plumb_error_message(), what))
        fprintf(stderr, "message: %s; expected: %s\n", plumb_error_message(), what);
    check_all(status == code && strstr(plumb_error_message(), what));
}

static void test_mismatches_are_explained(void **state) {
    (void)state;
    char path[300];
    check_all(save_step(1, 0) == PLUMB_OK);
    snprintf(path, sizeof path, "%s/step-000001", folder);
    state_arrays s;
    make_arrays(&s, 0, 1);
    expect_refusal(plumb_checkpoint_load(path, "model=tiny; objective=sft\nseed=1", s.list, 4, NULL, 0), PLUMB_E_CONFIG,
                   "\"objective=dpo\", this run has \"objective=sft\"");
    expect_refusal(plumb_checkpoint_load(path, "model=tiny; objective=dpo\nseed=12", s.list, 4, NULL, 0),
                   PLUMB_E_CONFIG, "\"seed=1\", this run has \"seed=12\"");
    expect_refusal(plumb_checkpoint_load(path, "model=tiny; objective=dpo", s.list, 4, NULL, 0), PLUMB_E_CONFIG,
                   "\"seed=1\", this run has \"\"");
    plumb_ckpt_array changed = s.list[0];
    changed.name = "model/other";
    expect_refusal(plumb_checkpoint_load(path, identity, &changed, 1, NULL, 0), PLUMB_E_DATA,
                   "has no array \"model/other\"");
    changed = s.list[0], changed.total++;
    expect_refusal(plumb_checkpoint_load(path, identity, &changed, 1, NULL, 0), PLUMB_E_DATA,
                   "has 100003 elements of 4 bytes; this run expects 100004 of 4");
    changed = s.list[0], changed.element_size = 8;
    expect_refusal(plumb_checkpoint_load(path, identity, &changed, 1, NULL, 0), PLUMB_E_DATA,
                   "this run expects 100003 of 8");
    changed = s.list[0], changed.first = INT64_MAX, changed.count = INT64_MAX;
    expect_refusal(plumb_checkpoint_load(path, identity, &changed, 1, NULL, 0), PLUMB_E_DATA, "out of bounds");
    plumb_ckpt_counter counter = {"epoch", 0};
    expect_refusal(plumb_checkpoint_load(path, identity, s.list, 4, &counter, 1), PLUMB_E_DATA,
                   "has no counter \"epoch\"");
    snprintf(path, sizeof path, "%s/step-000002", folder);
    expect_refusal(plumb_checkpoint_load(path, identity, s.list, 4, NULL, 0), PLUMB_E_IO, "manifest.pb");
    free_arrays(&s);
}

/* A save that cannot work leaves nothing behind: ranges with holes, overlapping ranges, ranks that disagree, a folder
 * that cannot be made. */
static void test_bad_saves_leave_nothing(void **state) {
    (void)state;
    check_all(save_step(1, 0) == PLUMB_OK);
    float values[10] = {0};
    plumb_ckpt_array a = {"values", 10, my_rank == 0 ? 0 : 10, my_rank == 0 ? 9 : 0, sizeof(float), values};
    expect_refusal(plumb_checkpoint_save(folder, 2, identity, &a, 1, NULL, 0, 0), PLUMB_E_FORMAT,
                   "shards hold 9 of 10 elements");
    a.count = my_rank == 0 ? 11 : 0, a.total = 10;
    expect_refusal(plumb_checkpoint_save(folder, 2, identity,
                                         &(plumb_ckpt_array){"values", 5, 0, my_rank == 0 ? 6 : 0, 4, values}, 1, NULL,
                                         0, 0),
                   PLUMB_E_FORMAT, "array \"values\" of 5 elements");
    plumb_ckpt_array twice[] = {{"values", 1, 0, my_rank == 0, 4, values}, {"values", 1, 0, my_rank == 0, 4, values}};
    expect_refusal(plumb_checkpoint_save(folder, 2, identity, twice, 2, NULL, 0, 0), PLUMB_E_FORMAT, "is there twice");
    if (rank_count > 1) {
        a = (plumb_ckpt_array){"values", 10 * rank_count, 10 * my_rank, 10, 4, values};
        expect_refusal(plumb_checkpoint_save(folder, my_rank == 1 ? 3 : 2, identity, &a, 1, NULL, 0, 0), PLUMB_E_DATA,
                       "this rank brings other arrays");
        a.first = my_rank == 1 ? 0 : a.first; /* rank 1 overlaps rank 0 */
        expect_refusal(plumb_checkpoint_save(folder, 2, identity, &a, 1, NULL, 0, 0), PLUMB_E_FORMAT,
                       "expected the next at");
    }
    expect_names("step-000001 ");
    char blocked[300];
    snprintf(blocked, sizeof blocked, "%s/step-000001/manifest.pb/checkpoints", folder);
    a = (plumb_ckpt_array){"values", 10 * rank_count, 10 * my_rank, 10, 4, values};
    check_all(plumb_checkpoint_save(blocked, 2, identity, &a, 1, NULL, 0, 0) == PLUMB_E_IO);
}

static void
test_allocation_failures(void **state) { /* the n-th allocation on one rank: an agreed error, never a half checkpoint */
    (void)state;
    check_all(save_step(1, 0) == PLUMB_OK);
    bool reached_end = false;
    for (int n = 1; n < 200 && !reached_end; n++) {
        if (my_rank == rank_count - 1) plumb_alloc_fail_after(n);
        plumb_status status = save_step(2, 0);
        plumb_alloc_fail_after(0);
        check_all(status == PLUMB_OK || status == PLUMB_E_MEMORY);
        if (status == PLUMB_OK)
            reached_end = true;
        else
            expect_names("step-000001 ");
    }
    check_all(reached_end);
    state_arrays s;
    char path[300];
    snprintf(path, sizeof path, "%s/step-000002", folder);
    make_arrays(&s, 0, 1);
    reached_end = false;
    for (int n = 1; n < 200 && !reached_end; n++) {
        if (my_rank == 0) plumb_alloc_fail_after(n);
        plumb_status status = plumb_checkpoint_load(path, identity, s.list, 4, NULL, 0);
        plumb_alloc_fail_after(0);
        check_all(status == PLUMB_OK || status == PLUMB_E_MEMORY);
        reached_end = status == PLUMB_OK;
    }
    check_all(reached_end && wrong_values(&s, 2) == 0);
    free_arrays(&s);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        folder_test(test_save_and_load),
        folder_test(test_same_step_again_and_prune),
        folder_test(test_leftovers_are_ignored_and_removed),
        folder_test(test_counters_alone_and_discarding),
        folder_test(test_damage_is_found_and_named),
        folder_test(test_mismatches_are_explained),
        folder_test(test_bad_saves_leave_nothing),
        folder_test(test_allocation_failures),
    };
    return mpi_test_main(argc, argv, "checkpoint", tests, sizeof tests / sizeof *tests);
}
