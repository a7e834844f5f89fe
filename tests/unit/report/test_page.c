/* The page of whole runs: as they end, as they are killed, and as somebody with bad intentions would make them. */
#include "report_test.h"
#include "plumb/trajectory.h"

static char folder[64], run[96], page_path[128];

static int enter(void **state) {
    (void)state;
    strcpy(folder, "/tmp/plumb_report_XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(run, sizeof run, "%s/my-run", folder);
    snprintf(page_path, sizeof page_path, "%s/report.html", run);
    return plumb_make_dirs(run) != PLUMB_OK;
}
static int leave(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void put_file(const char *name, const char *text) {
    char path[192];
    snprintf(path, sizeof path, "%s/%s", run, name);
    assert_ok(plumb_write_file(path, text, strlen(text)));
}

static char *page_of(const plumb_report_options *o) { /* to be freed */
    char *text;
    assert_ok(plumb_report_write(o));
    assert_ok(plumb_read_file(o->file ? o->file : page_path, &text, NULL));
    return text;
}
static char *page(void) { return page_of(&(plumb_report_options){.dir = run}); }

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}
static void check_has(const char *text, const char *what) {
    if (!strstr(text, what)) fail_msg("the page has no '%s'", what);
}
static void check_lacks(const char *text, const char *what) {
    if (strstr(text, what)) fail_msg("the page has '%s'", what);
}

static void set_text(char **to, const char *text) {
    *to = strdup(text);
    assert_non_null(*to);
}
/* n completions with these scores; texts say which they are. */
static void put_iteration(int64_t iteration, const double *scores, int n, const char *prompt, const char *text, const char *part) {
    char dir[192], numbered[512];
    plumb_trajectories t = {0};
    snprintf(dir, sizeof dir, "%s/trajectories", run);
    t.iteration = iteration, t.n_parts = part ? 1 : 0;
    if (part) snprintf(t.part_names[0], sizeof t.part_names[0], "%s", part);
    assert_ok(plumb_trajectories_alloc(&t, n, n, 3 * n));
    for (int i = 0; i < n; i++) {
        t.record[i] = 100 + i, t.group[i] = i, t.score[i] = scores[i], t.finish[i] = i == 0 ? PLUMB_FINISH_EOS : PLUMB_FINISH_LENGTH;
        t.prompt_offset[i + 1] = i + 1, t.token_offset[i + 1] = 3 * (i + 1);
        for (int k = 3 * i; k < 3 * i + 3; k++) t.logp[k] = -1, t.ref_logp[k] = -1.25;
        if (part) t.parts[i] = scores[i] / 2;
        set_text(&t.prompt_text[i], prompt);
        snprintf(numbered, sizeof numbered, "%s #%d of %lld", text, i, (long long)iteration);
        set_text(&t.text[i], numbered);
    }
    assert_ok(plumb_trajectories_write(dir, 0, 1, &t));
    assert_ok(plumb_trajectories_commit(dir, iteration, 1));
    plumb_trajectories_free(&t);
}

static const char online_line[] = "{\"step\": %d, \"reward\": %g, \"reward_std\": 1, \"rewards/model/mean\": 1, \"rewards/model/std\": 2, "
                                  "\"entropy\": 1.5, \"completions/mean_length\": 20, "
                                  "\"completions/min_length\": 3, \"completions/max_length\": 40, \"completions/clipped_ratio\": 0.25, "
                                  "\"time/sample\": 1, \"time/score\": 1, \"time/pass\": 1, "
                                  "\"time/learn\": 2, \"time/log\": 0.1, \"kl\": 0.5, \"frac_reward_zero_std\": 0.25, \"loss\": 0.1, "
                                  "\"grad_norm\": 1, \"learning_rate\": 1e-5, "
                                  "\"my/own\": 7, \"tokens_per_second\": 100, \"step_seconds\": 5}\n";

static void put_online_metrics(int steps) {
    plumb_str text = {0};
    for (int i = 1; i <= steps; i++) assert_ok(plumb_str_printf(&text, online_line, i, (double)i / 10));
    put_file("metrics.jsonl", text.data);
    plumb_str_free(&text);
}

static void shows_an_online_run(void **state) {
    (void)state;
    static const double scores[] = {5, -3, 1, 0, 2};
    put_file("config.yaml", "# plumb grpo, version 0.1.0: every option with its value.\n\n# help\nrun_name: \"a \\\"b\\\"\"\nbatch_size: "
                            "16\nnum_generations: 4\nlearning_rate: 1e-06\nseed: 42\n");
    put_online_metrics(30);
    for (int64_t i = 1; i <= 30; i++) put_iteration(i, scores, 5, "Once", "text", "model");
    char *text = page();
    check_has(text, "<title>a &quot;b&quot;</title>");
    static const char *const sections[] = {"reward", "completions", "policy", "learning", "speed", "other", "texts", "settings"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        char mark[64];
        snprintf(mark, sizeof mark, "<section id=%s>", sections[i]);
        check_has(text, mark);
        snprintf(mark, sizeof mark, "href=\"#%s\"", sections[i]);
        check_has(text, mark);
    }
    check_lacks(text, "<section id=value>"); /* no value model: no section */
    check_has(text, "0.75</b>");             /* EOS rate: 1 - clipped_ratio */
    check_has(text, "0.25 (1 of 4)");        /* groups without spread: 16 completions in groups of 4 */
    check_has(text, "my/own");
    check_has(text, "Part: model");
    static const int chosen[] = {1, 11, 20, 30};
    for (int i = 0; i < 4; i++) {
        char mark[64];
        snprintf(mark, sizeof mark, "Iteration %d ", chosen[i]);
        check_has(text, mark);
        snprintf(mark, sizeof mark, ">text #0 of %d<", chosen[i]); /* the best */
        check_has(text, mark);
        snprintf(mark, sizeof mark, ">text #2 of %d<", chosen[i]); /* the middle one */
        check_has(text, mark);
        snprintf(mark, sizeof mark, ">text #1 of %d<", chosen[i]); /* the worst */
        check_has(text, mark);
        snprintf(mark, sizeof mark, ">text #3 of %d<", chosen[i]);
        check_lacks(text, mark);
    }
    assert_int_equal(count(text, "<table class=samples "), 1);
    check_has(text, "KL 0.75");
    check_has(text, "ended (end token)");
    check_has(text, "<tr><td>batch_size</td><td>16</td>");
    check_lacks(text, "<tr><td>seed</td>"); /* as the default is */
    check_lacks(text, "://");               /* nothing is loaded */
    check_lacks(text, "url(");
    check_lacks(text, "<div class=box>");   /* nothing to complain of */
    free(text);
}

static void takes_the_iterations_asked_for(void **state) {
    (void)state;
    const int64_t some[] = {2, 17}, wrong[] = {2, 31};
    char other[160];
    snprintf(other, sizeof other, "%s/other.html", folder);
    char *text = page_of(&(plumb_report_options){.dir = run, .file = other, .title = "<T>", .iterations = some, .n_iterations = 2});
    check_has(text, "<title>&lt;T&gt;</title>");
    check_has(text, "Iteration 2 ");
    check_has(text, "Iteration 17 ");
    check_lacks(text, "Iteration 30 ");
    free(text);
    text = page_of(&(plumb_report_options){.dir = run, .file = other, .max_iterations = 1});
    check_has(text, "Iteration 30 ");
    check_lacks(text, "Iteration 1 ");
    free(text);
    text = page_of(&(plumb_report_options){.dir = run, .file = other, .max_iterations = 64});
    assert_int_equal(count(text, ">Iteration "), 30);
    free(text);
    assert_int_equal(plumb_report_write(&(plumb_report_options){.dir = run, .file = other, .iterations = wrong, .n_iterations = 2}),
                     PLUMB_E_DATA);
    assert_non_null(strstr(plumb_error_message(), "iteration 31"));
    assert_int_equal(plumb_report_write(&(plumb_report_options){.dir = run, .file = "/dev/null/x.html"}), PLUMB_E_IO);
    assert_int_equal(plumb_report_write(&(plumb_report_options){.dir = "/tmp/not-there-at-all"}), PLUMB_E_IO);
    assert_int_equal(plumb_report_write(&(plumb_report_options){.dir = folder}), PLUMB_E_IO); /* a folder of nothing */
}

static const char hostile[] = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\" ' & \x01 \xff \xe2\x80\xae "
                              "\xf0\x9f\x98\x80 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d";

static void survives_hostile_texts(void **state) {
    (void)state;
    const double scores[] = {NAN, INFINITY, -2};
    plumb_str config = {0};
    assert_ok(plumb_str_printf(&config, "# plumb ppo, version <b>: x\nrun_name: %s\n<i>: <u>\n</pre><h1>: 1\n", hostile));
    put_file("config.yaml", config.data);
    put_file("metrics.jsonl", "{\"step\": 1, \"</script><b>\": 1, \"rewards/<i>\\\"/mean\": 2, \"rewards/<i>\\\"/std\": 1e308, \"loss\": "
                              "-1e308, \"big\": 1e400}\n"
                              "{\"step\": 2, \"</script><b>\": 2, \"loss\": 1e308, \"s\": \"<b>\", \"o\": {}, \"n\": null}\n");
    put_iteration(1, scores, 3, hostile, hostile, "<b>\"x");
    char *text = page();
    assert_int_equal(count(text, "<script"), 1);
    assert_int_equal(count(text, "</script"), 1);
    static const char *const markup[] = {"<img", "<b>\"", "<i>\"", "<u>", "<h1>:", "\x01", "\xff", "\xe2\x80\xae", "nan", "inf "};
    for (size_t i = 0; i < sizeof markup / sizeof *markup; i++) check_lacks(text, markup[i]);
    check_has(text, "&lt;img src=x onerror=alert(2)&gt;&quot; &#39; &amp; &#x2401; &#xfffd; [U+202E] \xf0\x9f\x98\x80 "
                    "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d");
    check_has(text, ">NaN</b>"); /* a score that is no number comes last */
    free(text);
    plumb_str_free(&config);
}

static void begin_again(void) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s && mkdir %s", run, run);
    assert_int_equal(system(command), 0);
}

static void shows_what_a_killed_run_left(void **state) {
    (void)state;
    begin_again();
    put_file("metrics.jsonl", "{\"step\": 1, \"loss\": 3.5, \"grad_norm\": \"NaN\"}\n{\"step\": 2, \"loss\": \"Infinity\", \"grad_norm\": "
                              "\"-Infinity\"}\nnot JSON\n{\"step\": 2, \"eval_loss\": 3}\n"
                              "{\"step\": 3, \"loss\": 2.25, \"grad_norm\": \"NaN\"}\n{\"step\": 4, \"loss\": 1.1");
    char *text = page();
    check_has(text, "The last line of metrics.jsonl is incomplete");
    check_has(text, "1 of 6 lines of metrics.jsonl could not be understood");
    check_has(text, "4 values are NaN or infinite");
    check_has(text, "data-p=\"1 3.5 2 - 3 2.25\"");
    check_has(text, "class=gaps");
    check_has(text, "no config.yaml");
    check_has(text, "not finished");
    check_has(text, "No finite value."); /* grad_norm */
    check_has(text, "held-out <b>3</b>");
    check_lacks(text, "<section id=texts>");
    free(text);

    put_file("metrics.jsonl", ""); /* nothing yet */
    text = page();
    check_has(text, "no metrics yet");
    free(text);
    put_file("metrics.jsonl", "[]\n\n{}\n{\"step\": \"x\", \"loss\": 1}\n\xff\n");
    text = page();
    check_has(text, "no metrics yet");
    free(text);
    /* computed again */
    put_file("metrics.jsonl",
             "{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"loss\": 3}\n{\"step\": 3, \"loss\": 4}\n{\"step\": 2, \"loss\": 30}\n");
    text = page();
    check_has(text, "data-p=\"1 2 2 30\"");
    free(text);
    put_file("metrics.jsonl", "{\"step\": 1, \"loss\": 2}\n"); /* one step */
    text = page();
    check_has(text, "data-p=\"1 2\"");
    check_has(text, "h0");
    free(text);
    assert_int_equal(plumb_report_write(&(plumb_report_options){.dir = run, .iterations = (const int64_t[]){1}, .n_iterations = 1}),
                     PLUMB_E_DATA);
}

static void a_damaged_file_is_a_note(void **state) {
    (void)state;
    static const double scores[] = {1, 2};
    begin_again();
    put_online_metrics(2);
    put_iteration(1, scores, 2, "p", "first", NULL);
    put_iteration(2, scores, 1, "p", "second", NULL);
    put_file("trajectories/iteration-000001.w000.h5", "no such thing");
    char *text = page();
    check_has(text, "iteration-000001.w000.h5");
    check_has(text, "second #0 of 2");
    check_has(text, "too few completions"); /* one alone: the best */
    free(text);
    put_file("trajectories/manifest.pb", "torn");
    text = page();
    check_has(text, "Not readable: ");
    check_has(text, "<section id=reward>");
    free(text);
}

/* A long run: few points, all peaks, and bars that are means. */
static void a_long_run_stays_small(void **state) {
    (void)state;
    begin_again();
    plumb_str text = {0};
    for (int i = 1; i <= 20000; i++)
        assert_ok(plumb_str_printf(&text, "{\"step\": %d, \"reward\": %d, \"reward_std\": 1, \"time/sample\": 2, \"time/learn\": %d}\n", i,
                                   i == 12345 ? 777 : i % 7, 1 + i % 3));
    put_file("metrics.jsonl", text.data);
    plumb_str_free(&text);
    char *shown = page();
    check_has(shown, "12345 777 ");
    check_has(shown, "Each bar is the mean of about 200 steps.");
    assert_true(strlen(shown) < 120000);
    free(shown);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_an_online_run),      cmocka_unit_test(takes_the_iterations_asked_for),
        cmocka_unit_test(survives_hostile_texts),   cmocka_unit_test(shows_what_a_killed_run_left),
        cmocka_unit_test(a_damaged_file_is_a_note), cmocka_unit_test(a_long_run_stays_small),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
