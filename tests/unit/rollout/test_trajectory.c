/* Trajectories in memory and on disk. Every field is filled from a formula, so that whatever comes back from a file
 * can be compared with what must be there. */
#include <math.h>
#include <sys/resource.h>
#include <signal.h>
#include "rollout_test.h"
#include "../../../src/rollout/trajectory_internal.h"

enum { PARTS = 2 };

/* exact in fp32 */
static double number(int64_t iteration, int64_t i, int salt) {
    return (double)((iteration * 1009 + i * 31 + salt * 7) % 2003) / 64.0 - 9.0;
}

static const char *const texts[] = {"", "plain", "zwei\nZeilen", "日本語 🙂", "\xc3\xa9t\xc3\xa9 \"quoted\" \\ \t"};

/* Sequence s of a batch has s % 4 prompt tokens and (s + iteration) % 5 tokens. */
static void fill(plumb_trajectories *t, int64_t iteration, int writer, int64_t n) {
    int64_t prompts = 0, tokens = 0;
    for (int64_t s = 0; s < n; s++) prompts += s % 4, tokens += (s + iteration) % 5;
    *t = (plumb_trajectories){.iteration = iteration, .policy_version = 10 * iteration, .n_parts = PARTS,
                              .part_names = {"model", "exact_match"}};
    assert_ok(plumb_trajectories_alloc(t, n, prompts, tokens));
    for (int64_t s = 0; s < n; s++) {
        t->record[s] = 1000 * writer + s, t->group[s] = s / 2, t->branch[s] = (int32_t)(s % 2);
        t->prompt_offset[s + 1] = t->prompt_offset[s] + s % 4, t->token_offset[s + 1] = t->token_offset[s] + (s + iteration) % 5;
        t->score[s] = number(iteration, s, writer);
        for (int p = 0; p < PARTS; p++) t->parts[s * PARTS + p] = number(iteration, s, 20 + p);
        t->finish[s] = (uint8_t)(s % 3), t->seed[s] = UINT64_MAX - (uint64_t)s;
        t->prompt_text[s] = strdup(texts[s % 5]), t->text[s] = strdup(texts[(s + writer + 1) % 5]);
    }
    for (int64_t i = 0; i < prompts; i++) t->prompt_ids[i] = (int32_t)(i * 3 + writer);
    for (int64_t i = 0; i < tokens; i++) {
        t->ids[i] = (int32_t)(i * 5 + iteration), t->mask[i] = i % 3 != 0;
        double *rows[] = {t->logp, t->policy_logp, t->ref_logp, t->entropy, t->values, t->rewards, t->advantages, t->returns};
        for (int r = 0; r < 8; r++) rows[r][i] = number(iteration, i, r + 40 * writer);
        t->rewards[i] += 1e-12, t->advantages[i] += 1e-12, t->returns[i] += 1e-12; /* kept in fp64 alone */
    }
}

static void assert_same(const plumb_trajectories *a, const plumb_trajectories *b) {
    assert_int_equal(a->iteration, b->iteration);
    assert_int_equal(a->policy_version, b->policy_version);
    assert_int_equal(a->n_sequences, b->n_sequences);
    assert_int_equal(a->n_prompt_tokens, b->n_prompt_tokens);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_true(trajectory_same_parts(a, b));
    size_t n = (size_t)a->n_sequences;
    assert_memory_equal(a->prompt_offset, b->prompt_offset, (n + 1) * 8);
    assert_memory_equal(a->token_offset, b->token_offset, (n + 1) * 8);
    if (n && a->n_parts) assert_memory_equal(a->parts, b->parts, n * (size_t)a->n_parts * 8);
    for (int i = 0; i < TRAJECTORY_FIELDS; i++) {
        const trajectory_field *f = &trajectory_fields[i];
        size_t bytes = (size_t)trajectory_length(a, f->axis) * plumb_hdf5_size(f->type);
        if (bytes && memcmp(trajectory_array(a, f), trajectory_array(b, f), bytes)) fail_msg("%s differs", f->dataset);
    }
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(a->prompt_text[i] ? a->prompt_text[i] : "", b->prompt_text[i] ? b->prompt_text[i] : "");
        assert_string_equal(a->text[i] ? a->text[i] : "", b->text[i] ? b->text[i] : "");
    }
}

static void log_iteration(const char *dir, int64_t iteration, int n_writers, int64_t n) {
    for (int w = 0; w < n_writers; w++) {
        plumb_trajectories t;
        fill(&t, iteration, w, n);
        assert_ok(plumb_trajectories_write(dir, w, n_writers, &t));
        plumb_trajectories_free(&t);
    }
    assert_ok(plumb_trajectories_commit(dir, iteration, n_writers));
}

/* The iteration is there, whole. */
static void assert_logged(const char *dir, int64_t iteration, int n_writers, int64_t n) {
    plumb_trajectories batches[8], joined = {0}, found;
    for (int w = 0; w < n_writers; w++) fill(&batches[w], iteration, w, n);
    assert_ok(trajectory_join(&joined, batches, n_writers));
    assert_ok(plumb_trajectories_read(dir, iteration, &found));
    assert_same(&joined, &found);
    for (int w = 0; w < n_writers; w++) plumb_trajectories_free(&batches[w]);
    plumb_trajectories_free(&joined);
    plumb_trajectories_free(&found);
}

static void assert_iterations(const char *dir, int64_t first, int64_t last) {
    int64_t *list, n;
    assert_ok(plumb_trajectories_list(dir, &list, &n));
    assert_int_equal(n, last - first + 1);
    for (int64_t i = 0; i < n; i++) assert_int_equal(list[i], first + i);
    free(list);
}

static void test_round_trip(void **state) {
    log_iteration(*state, 12, 1, 9);
    assert_string_equal(listing(*state), "iteration-000012.w000.h5 manifest.pb");
    assert_logged(*state, 12, 1, 9);
    log_iteration(*state, 13, 3, 6);
    assert_logged(*state, 13, 3, 6);
    assert_logged(*state, 12, 1, 9);
    int64_t iterations, sequences, tokens;
    assert_ok(plumb_trajectories_verify(*state, &iterations, &sequences, &tokens));
    assert_int_equal(iterations, 2);
    assert_int_equal(sequences, 9 + 18);
}

static void test_same_bytes(void **state) { /* of the same data: a replay can be compared with cmp */
    plumb_trajectories t;
    fill(&t, 4, 0, 7);
    uint8_t *a, *b;
    size_t n, m;
    assert_ok(trajectory_encode(&t, 1, 1, "a", &a, &n));
    sleep(1);
    assert_ok(trajectory_encode(&t, 1, 1, "b", &b, &m));
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    plumb_trajectories_free(&t);
    (void)state;
}

static void test_small(void **state) {
    log_iteration(*state, 0, 1, 0); /* nothing was sampled */
    assert_logged(*state, 0, 1, 0);
    plumb_trajectories t = {.iteration = 1, .policy_version = 5}, found;
    assert_ok(plumb_trajectories_alloc(&t, 1, 0, 1)); /* one token, no prompt, no parts, no texts */
    t.token_offset[1] = 1, t.ids[0] = 7, t.logp[0] = -INFINITY, t.ref_logp[0] = NAN, t.score[0] = NAN, t.rewards[0] = INFINITY,
    t.values[0] = 1e300;
    assert_ok(plumb_trajectories_write(*state, 0, 2, &t));
    assert_ok(plumb_trajectories_commit(*state, 1, 1));
    assert_ok(plumb_trajectories_read(*state, 1, &found));
    assert_int_equal(found.ids[0], 7);
    assert_int_equal(found.n_parts, 0);
    assert_string_equal(found.text[0], "");
    assert_true(found.logp[0] == -INFINITY && isnan(found.ref_logp[0]) && isnan(found.score[0]) && found.rewards[0] == INFINITY);
    assert_true(found.values[0] == INFINITY); /* beyond float */
    plumb_trajectories_free(&t);
    plumb_trajectories_free(&found);
    assert_ok(plumb_trajectories_compact(*state)); /* parts differ: they stay apart */
    assert_string_equal(listing(*state), "iteration-000000.w000.h5 iteration-000001.w000.h5 manifest.pb trajectories.h5");
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
}

static void test_slice(void **state) {
    plumb_trajectories t, a = {0}, b = {0}, none = {0}, joined = {0};
    fill(&t, 3, 0, 11);
    assert_ok(plumb_trajectories_slice(&a, &t, 0, 4));
    assert_ok(plumb_trajectories_slice(&b, &t, 4, 7));
    assert_ok(plumb_trajectories_slice(&none, &t, 11, 0));
    assert_int_equal(none.n_sequences, 0);
    assert_int_equal(b.prompt_offset[0], 0);
    assert_int_equal(b.record[0], 4);
    assert_ptr_not_equal(b.text[1], t.text[5]);
    assert_ok(plumb_trajectories_check(&b));
    assert_ok(trajectory_join(&joined, (plumb_trajectories[]){a, none, b}, 3));
    assert_same(&joined, &t);
    plumb_trajectories_free(&t);
    plumb_trajectories_free(&a);
    plumb_trajectories_free(&b);
    plumb_trajectories_free(&none);
    plumb_trajectories_free(&joined);
    (void)state;
}

static void test_bad_batches(void **state) {
    plumb_trajectories t;
    fill(&t, 2, 0, 5);
    t.token_offset[2] = t.token_offset[3] + 1;
    assert_refused(plumb_trajectories_write(*state, 0, 2, &t), PLUMB_E_DATA, "sequence 2: token_offset");
    plumb_trajectories_free(&t);
    fill(&t, 2, 0, 5);
    t.finish[3] = 3;
    assert_refused(plumb_trajectories_write(*state, 0, 2, &t), PLUMB_E_DATA, "sequence 3: finish 3");
    t.finish[3] = 0;
    strcpy(t.part_names[1], "model");
    assert_refused(plumb_trajectories_write(*state, 0, 2, &t), PLUMB_E_DATA, "two parts of the score are called \"model\"");
    plumb_trajectories_free(&t);
    assert_string_equal(listing(*state), "");
}

static void test_compact(void **state) {
    for (int64_t i = 1; i <= 4; i++) log_iteration(*state, i, 2, i == 3 ? 0 : 5 + i);
    assert_ok(plumb_trajectories_compact(*state));
    assert_string_equal(listing(*state), "iterations-000001-000004.h5 manifest.pb trajectories.h5");
    for (int64_t i = 1; i <= 4; i++) assert_logged(*state, i, 2, i == 3 ? 0 : 5 + i);
    for (int64_t i = 5; i <= 7; i++) log_iteration(*state, i, 1, 4);
    assert_ok(plumb_trajectories_compact(*state));
    assert_string_equal(listing(*state), "iterations-000001-000004.h5 iterations-000005-000007.h5 manifest.pb trajectories.h5");
    log_iteration(*state, 8, 1, 4);
    assert_iterations(*state, 1, 8);
    int64_t iterations, sequences;
    assert_ok(plumb_trajectories_verify(*state, &iterations, &sequences, NULL));
    assert_int_equal(iterations, 8);
    assert_int_equal(sequences, 2 * (6 + 7 + 0 + 9) + 4 * 4);
    plumb_trajectory_reader *r;
    assert_ok(plumb_trajectory_reader_open(&r, *state));
    log_iteration(*state, 9, 1, 4); /* after the reader's manifest */
    assert_ok(plumb_trajectories_compact(*state));
    for (int64_t i = 9; i >= 1; i--) {
        plumb_trajectories t;
        assert_ok(plumb_trajectory_reader_read(r, i, &t));
        assert_int_equal(t.iteration, i);
        plumb_trajectories_free(&t);
    }
    plumb_trajectory_reader_close(r);
}

static void test_compact_limit(void **state) { /* writers of an iteration stay together, files stay small */
    for (int64_t i = 1; i <= 5; i++) log_iteration(*state, i, 2, 10); /* 28 prompt tokens and 40 tokens each */
    assert_ok(trajectory_compact(*state, 2 * 68));
    assert_string_equal(listing(*state),
                        "iterations-000001-000002.h5 iterations-000003-000004.h5 iterations-000005-000005.h5 manifest.pb trajectories.h5");
    for (int64_t i = 1; i <= 5; i++) assert_logged(*state, i, 2, 10);
}

static void test_rewind(void **state) {
    char missing[4096];
    snprintf(missing, sizeof missing, "%s/none", (char *)*state);
    assert_ok(plumb_trajectories_rewind(missing, 3));
    for (int64_t i = 1; i <= 6; i++) log_iteration(*state, i, 2, 5);
    assert_ok(plumb_trajectories_rewind(*state, 5));
    assert_iterations(*state, 1, 5);
    assert_null(strstr(listing(*state), "000006"));
    assert_ok(plumb_trajectories_compact(*state));
    log_iteration(*state, 6, 2, 5);
    assert_ok(plumb_trajectories_rewind(*state, 3)); /* in the middle of a compacted file */
    assert_string_equal(listing(*state), "iterations-000001-000003.h5 manifest.pb trajectories.h5");
    assert_iterations(*state, 1, 3);
    for (int64_t i = 1; i <= 3; i++) assert_logged(*state, i, 2, 5);
    log_iteration(*state, 4, 1, 7); /* another number of ranks */
    assert_logged(*state, 4, 1, 7);
    assert_refused(plumb_trajectories_read(*state, 5, &(plumb_trajectories){0}), PLUMB_E_DATA, "iteration 5 is not among");
    assert_ok(plumb_trajectories_rewind(*state, -1));
    assert_string_equal(listing(*state), "manifest.pb");
    assert_iterations(*state, 1, 0);
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
}

/* Without its manifest a folder of committed files is not one of leftovers. */
static void test_rewind_without_manifest(void **state) {
    for (int64_t i = 1; i <= 3; i++) log_iteration(*state, i, 1, 5);
    assert_ok(plumb_trajectories_compact(*state));
    assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
    assert_refused(plumb_trajectories_rewind(*state, 2), PLUMB_E_DATA, "manifest.pb is not there, but iterations-000001-000003.h5 is");
    assert_string_equal(listing(*state), "iterations-000001-000003.h5 trajectories.h5");
    assert_ok(plumb_trajectories_rewind(*state, 0)); /* a run that begins anew */
    assert_string_equal(listing(*state), "");
}

static void test_commit(void **state) {
    log_iteration(*state, 1, 3, 5);
    assert_ok(plumb_trajectories_commit(*state, 1, 3)); /* twice is once */
    assert_logged(*state, 1, 3, 5);
    assert_iterations(*state, 1, 1);
    for (int64_t i = 2; i <= 4; i++) log_iteration(*state, i, 3, 5);
    log_iteration(*state, 2, 2, 4); /* again, with fewer writers: what follows is forgotten */
    assert_string_equal(listing(*state), "iteration-000001.w000.h5 iteration-000001.w001.h5 iteration-000001.w002.h5 "
                                           "iteration-000002.w000.h5 iteration-000002.w001.h5 manifest.pb");
    assert_logged(*state, 2, 2, 4);
    plumb_trajectories t;
    fill(&t, 3, 0, 2);
    assert_ok(plumb_trajectories_write(*state, 0, 2, &t));
    assert_refused(plumb_trajectories_commit(*state, 3, 2), PLUMB_E_IO, "iteration-000003.w001.h5: not there: writer 1 of 2");
    assert_iterations(*state, 1, 2);
    t.policy_version++;
    assert_ok(plumb_trajectories_write(*state, 1, 2, &t));
    assert_refused(plumb_trajectories_commit(*state, 3, 2), PLUMB_E_DATA, "policy version 31, writer 0 has 30");
    t.policy_version--;
    strcpy(t.part_names[1], "other");
    assert_ok(plumb_trajectories_write(*state, 1, 2, &t));
    assert_refused(plumb_trajectories_commit(*state, 3, 2), PLUMB_E_DATA, "other parts of the score than writer 0");
    plumb_trajectories_free(&t);
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
}

static void test_leftovers(void **state) { /* ours go, others stay */
    const char *const names[] = {"iteration-000001.w000.h5.77-1.part", "iterations-000001-000009.h5", "manifest.pb.77-2.part",
                                 "trajectories.h5.1-2.part", "iteration-000009.w000.h5"};
    const char *const kept[] = {"notes.txt", "iteration-plot.png", "my.h5"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_ok(plumb_write_file(in(*state, names[i]), "x", 1));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) assert_ok(plumb_write_file(in(*state, kept[i]), "x", 1));
    log_iteration(*state, 1, 1, 3);
    assert_string_equal(listing(*state), "iteration-000001.w000.h5 iteration-plot.png manifest.pb my.h5 notes.txt");
}

static void test_verify(void **state) {
    char *part = strdup(in(*state, "iteration-000002.w001.h5")), *merged = strdup(in(*state, "iterations-000001-000003.h5")),
         *manifest = strdup(in(*state, "manifest.pb"));
    for (int64_t i = 1; i <= 3; i++) log_iteration(*state, i, 2, 5);
    char *bytes;
    size_t size;
    assert_ok(plumb_read_file(part, &bytes, &size));
    for (size_t at = 0; at < size; at += 1 + size / 50) { /* wherever it is */
        flip(part, (long)at);
        assert_refused(plumb_trajectories_verify(*state, NULL, NULL, NULL), PLUMB_E_FORMAT, "iteration-000002.w001.h5");
        assert_refused(plumb_trajectories_read(*state, 2, &(plumb_trajectories){0}), PLUMB_E_FORMAT, "iteration-000002.w001.h5");
        flip(part, (long)at);
    }
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
    assert_int_equal(truncate(part, (off_t)size - 1), 0);
    assert_refused(plumb_trajectories_verify(*state, NULL, NULL, NULL), PLUMB_E_FORMAT, "iteration-000002.w001.h5");
    assert_refused(plumb_trajectories_compact(*state), PLUMB_E_FORMAT, "iteration-000002.w001.h5"); /* damage is not copied */
    assert_int_equal(unlink(part), 0);
    assert_refused(plumb_trajectories_verify(*state, NULL, NULL, NULL), PLUMB_E_IO, "iteration-000002.w001.h5");
    assert_ok(plumb_write_file(part, bytes, size));
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
    assert_ok(plumb_trajectories_compact(*state));
    flip(merged, 3000);
    assert_refused(plumb_trajectories_verify(*state, NULL, NULL, NULL), PLUMB_E_FORMAT, "iterations-000001-000003.h5");
    flip(merged, 3000);
    flip(manifest, 12);
    assert_refused(plumb_trajectories_verify(*state, NULL, NULL, NULL), PLUMB_E_FORMAT, "manifest.pb");
    flip(manifest, 12);
    assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
    free(bytes);
    free(part);
    free(merged);
    free(manifest);
}

/* --- a lost manifest -------------------------------------------------------------------------- */
static char left_out[1024];
static void note(const char *message) {
    strncat(left_out, message, sizeof left_out - strlen(left_out) - 2);
    strcat(left_out, ";");
}
static void assert_rebuilt(const char *dir, int64_t iterations, int64_t sequences, int64_t n_left_out) {
    plumb_trajectories_rebuilt r;
    int64_t listed[3];
    left_out[0] = 0;
    assert_ok(plumb_trajectories_rebuild(dir, note, &r));
    assert_ok(plumb_trajectories_verify(dir, &listed[0], &listed[1], &listed[2]));
    assert_true(r.iterations == listed[0] && r.sequences == listed[1] && r.tokens == listed[2]);
    assert_int_equal(r.iterations, iterations);
    assert_int_equal(r.sequences, sequences);
    assert_int_equal(r.left_out, n_left_out);
    assert_true((n_left_out == 0) == (left_out[0] == 0));
}
static void copy(const char *from, const char *to) {
    char *bytes;
    size_t size;
    assert_ok(plumb_read_file(from, &bytes, &size));
    assert_ok(plumb_write_file(to, bytes, size));
    free(bytes);
}

static void test_rebuild(void **state) { /* to the byte what it was: merged files, single ones, several writers */
    char *manifest = strdup(in(*state, "manifest.pb")), *was, *now;
    size_t n, m;
    for (int64_t i = 1; i <= 7; i++) {
        log_iteration(*state, i, 2, 5);
        if (i == 2 || i == 5) assert_ok(plumb_trajectories_compact(*state));
    }
    assert_ok(plumb_read_file(manifest, &was, &n));
    for (int damaged = 0; damaged < 2; damaged++) {
        if (damaged) flip(manifest, 12);
        else assert_int_equal(unlink(manifest), 0);
        assert_int_equal(unlink(in(*state, "trajectories.h5")), 0);
        assert_rebuilt(*state, 7, 70, 0);
        assert_ok(plumb_read_file(manifest, &now, &m));
        assert_int_equal(n, m);
        assert_memory_equal(was, now, n);
        assert_true(plumb_path_exists(in(*state, "trajectories.h5")));
        free(now);
    }
    for (int64_t i = 1; i <= 7; i++) assert_logged(*state, i, 2, 5);
    free(was);
    free(manifest);
}

/* what kills leave: merged files beside their parts, a longer one beside a shorter, one writer of an iteration */
static void test_rebuild_overlap(void **state) {
    char *part = strdup(in(*state, "iteration-000002.w001.h5")), *merged = strdup(in(*state, "iterations-000001-000003.h5")),
         *kept = strdup(in(*state, "kept"));
    for (int64_t i = 1; i <= 3; i++) log_iteration(*state, i, 2, 5);
    copy(part, kept);
    assert_ok(plumb_trajectories_compact(*state));
    copy(kept, part);
    copy(merged, kept);
    assert_ok(plumb_trajectories_rewind(*state, 2));
    copy(kept, merged);
    plumb_trajectories t;
    fill(&t, 4, 0, 5);
    assert_ok(plumb_trajectories_write(*state, 0, 2, &t));
    plumb_trajectories_free(&t);
    assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
    assert_rebuilt(*state, 3, 30, 1);
    assert_non_null(strstr(left_out, "iteration-000004.w000.h5: the iteration is not complete"));
    for (int64_t i = 1; i <= 3; i++) assert_logged(*state, i, 2, 5);
    log_iteration(*state, 4, 2, 5); /* the run goes on: what is twice is gone, what was left out stays */
    assert_string_equal(listing(*state), "iteration-000004.w000.h5 iteration-000004.w000.h5.left-out iteration-000004.w001.h5 "
                                         "iterations-000001-000003.h5 kept manifest.pb trajectories.h5");
    free(part), free(merged), free(kept);
}

static void test_rebuild_damaged(void **state) {
    char *part = strdup(in(*state, "iteration-000002.w001.h5")), *other = strdup(in(*state, "iteration-000007.w000.h5"));
    for (int64_t i = 1; i <= 4; i++) log_iteration(*state, i, 2, 5);
    copy(part, other); /* a name that is not its own */
    char *bytes;
    size_t size;
    assert_ok(plumb_read_file(part, &bytes, &size));
    assert_int_equal(truncate(part, (off_t)size - 1), 0);
    assert_int_equal(unlink(in(*state, "iteration-000003.w000.h5")), 0);
    assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
    assert_rebuilt(*state, 2, 20, 4);
    assert_non_null(strstr(left_out, "iteration-000002.w001.h5"));
    assert_non_null(strstr(left_out, "iteration-000002.w000.h5: the iteration is not complete"));
    assert_non_null(strstr(left_out, "iteration-000003.w001.h5: the iteration is not complete"));
    assert_non_null(strstr(left_out, "iteration-000007.w000.h5: its name is not"));
    assert_logged(*state, 1, 2, 5);
    assert_logged(*state, 4, 2, 5);
    assert_ok(plumb_write_file(in(*state, "iteration-000004.w001.h5"), bytes, size)); /* a whole manifest knows more than the files */
    assert_rebuilt(*state, 1, 10, 2);
    assert_non_null(strstr(left_out, "iteration-000004.w001.h5: not the bytes that the manifest lists"));
    flip(in(*state, "iteration-000001.w000.h5"), 4);
    assert_refused(plumb_trajectories_rebuild(*state, note, &(plumb_trajectories_rebuilt){0}), PLUMB_E_DATA, "no complete iteration");
    assert_true(plumb_path_exists(in(*state, "iteration-000001.w000.h5")));
    free(bytes), free(part), free(other);
}

static void test_rebuild_any_byte(void **state) { /* without a manifest: what changed a number is noticed */
    char *path = strdup(in(*state, "iteration-000001.w000.h5")), *bytes;
    size_t size;
    int noticed = 0, tried = 0;
    log_iteration(*state, 1, 1, 5);
    assert_ok(plumb_read_file(path, &bytes, &size));
    for (size_t at = 0; at < size; at += 1 + size / 300, tried++) {
        plumb_trajectories_rebuilt r;
        flip(path, (long)at);
        assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
        left_out[0] = 0;
        if (plumb_trajectories_rebuild(*state, note, &r) == PLUMB_OK) assert_logged(*state, 1, 1, 5);
        else assert_non_null(strstr(left_out, "iteration-000001.w000.h5")), noticed++;
        assert_ok(plumb_write_file(path, bytes, size));
        assert_ok(plumb_trajectories_commit(*state, 1, 1));
    }
    assert_int_equal(noticed, tried);
    free(bytes), free(path);
}

static void test_rebuild_last_writer(void **state) { /* missing in every iteration */
    for (int64_t i = 1; i <= 2; i++) log_iteration(*state, i, 3, 5);
    for (int64_t i = 1; i <= 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "iteration-%06lld.w002.h5", (long long)i);
        assert_int_equal(unlink(in(*state, name)), 0);
    }
    assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
    assert_refused(plumb_trajectories_rebuild(*state, note, &(plumb_trajectories_rebuilt){0}), PLUMB_E_DATA, "no complete iteration");
    log_iteration(*state, 3, 3, 5);
    log_iteration(*state, 4, 2, 3); /* a run that went on with fewer ranks and another batch */
    assert_int_equal(unlink(in(*state, "manifest.pb")), 0);
    assert_rebuilt(*state, 2, 21, 0);
}

static void test_rebuild_gone(void **state) { /* while the manifest can be read, it is known what was there */
    for (int64_t i = 1; i <= 4; i++) {
        log_iteration(*state, i, 2, 5);
        if (i == 2) assert_ok(plumb_trajectories_compact(*state));
    }
    assert_int_equal(unlink(in(*state, "iterations-000001-000002.h5")), 0);
    assert_rebuilt(*state, 2, 20, 1);
    assert_string_equal(left_out, "iterations-000001-000002.h5: the manifest lists it, and it is not there;");
    assert_int_equal(unlink(in(*state, "iteration-000004.w001.h5")), 0);
    assert_rebuilt(*state, 1, 10, 2);
    assert_non_null(strstr(left_out, "iteration-000004.w000.h5: the iteration is not complete"));
    assert_non_null(strstr(left_out, "iteration-000004.w001.h5: the manifest lists it"));
    assert_rebuilt(*state, 1, 10, 0);
}

static const char *running;
static void commit_meanwhile(const char *message) {
    (void)message;
    log_iteration(running, 4, 2, 5);
}
static void test_rebuild_beside_a_run(void **state) { /* what a run has committed meanwhile stays */
    for (int64_t i = 1; i <= 3; i++) log_iteration(*state, i, 2, 5);
    fclose(fopen(in(*state, "iterations-000008-000009.h5"), "w"));
    running = *state;
    assert_refused(plumb_trajectories_rebuild(*state, commit_meanwhile, &(plumb_trajectories_rebuilt){0}), PLUMB_E_DATA,
                   "the manifest has changed meanwhile");
    for (int64_t i = 1; i <= 4; i++) assert_logged(*state, i, 2, 5);
}

static void test_memory(void **state) { /* the n-th allocation fails: an error each time, and the folder stays right */
    for (int64_t i = 1; i <= 2; i++) log_iteration(*state, i, 2, 4);
    plumb_trajectories t, found;
    fill(&t, 3, 0, 4);
    int failures = 0;
    for (long n = 1;; n += 1 + n / 25) {
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_trajectories_write(*state, 0, 2, &t);
        if (status == PLUMB_OK) status = plumb_trajectories_commit(*state, 3, 1);
        if (status == PLUMB_OK) status = plumb_trajectories_compact(*state);
        if (status == PLUMB_OK) {
            status = plumb_trajectories_read(*state, 2, &found);
            if (status == PLUMB_OK) plumb_trajectories_free(&found);
        }
        plumb_alloc_fail_after(0);
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        failures++;
        assert_logged(*state, 1, 2, 4);
        assert_logged(*state, 2, 2, 4);
        assert_ok(plumb_trajectories_verify(*state, NULL, NULL, NULL));
    }
    assert_true(failures > 50);
    assert_iterations(*state, 1, 3);
    plumb_trajectories_free(&t);
}

static void test_full_disk(void **state) { /* files may not grow beyond a few KiB: an error with the reason, and nothing changes */
    log_iteration(*state, 1, 1, 5);
    log_iteration(*state, 2, 1, 5);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    char *was = strdup(listing(*state));
    plumb_trajectories t;
    fill(&t, 3, 0, 400);
    for (rlim_t limit = 0; limit <= 8192; limit += 4096) {
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        plumb_status wrote = plumb_trajectories_write(*state, 0, 2, &t), compacted = plumb_trajectories_compact(*state);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(wrote, PLUMB_E_IO);
        assert_int_equal(compacted, PLUMB_E_IO);
        assert_non_null(strstr(plumb_error_message(), "File too large"));
        assert_string_equal(listing(*state), was);
        assert_logged(*state, 1, 1, 5);
        assert_logged(*state, 2, 1, 5);
    }
    free(was);
    plumb_trajectories_free(&t);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {TEST(test_round_trip),
                                       TEST(test_same_bytes),
                                       TEST(test_small),
                                       TEST(test_slice),
                                       TEST(test_bad_batches),
                                       TEST(test_compact),
                                       TEST(test_compact_limit),
                                       TEST(test_rewind),
                                       TEST(test_rewind_without_manifest),
                                       TEST(test_commit),
                                       TEST(test_leftovers),
                                       TEST(test_verify),
                                       TEST(test_memory),
                                       TEST(test_full_disk),
                                       TEST(test_rebuild),
                                       TEST(test_rebuild_overlap),
                                       TEST(test_rebuild_damaged),
                                       TEST(test_rebuild_any_byte),
                                       TEST(test_rebuild_last_writer),
                                       TEST(test_rebuild_gone),
                                       TEST(test_rebuild_beside_a_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
