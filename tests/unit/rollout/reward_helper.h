/* Reward programs of every temper: the test runs itself as one, `TEST helper TEMPER [K]`.  Every process and child puts
 * its id into the file of PLUMB_TEST_PIDS, so that the test can see them gone. */
#ifndef REWARD_HELPER_H
#define REWARD_HELPER_H
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/io.h"

static int starts; /* processes before this one */

static void note_pid(void) {
    const char *path = getenv("PLUMB_TEST_PIDS");
    FILE *f = path ? fopen(path, "a+") : NULL;
    if (!f) return;
    for (int c; (c = fgetc(f)) != EOF;) starts += c == '\n';
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

static void child_that_stays(void) {
    if (fork() == 0) {
        note_pid();
        for (;;) pause();
    }
}

static void stay(void) {
    for (;;) pause();
}

/* The request's fields as one number: record + length of the completion / 1000, negative where an answer says so. */
static double value_of(const char *line, size_t length) {
    json_t *o;
    const char *prompt, *completion, *answer = NULL;
    long long record;
    if (plumb_json_parse(&o, line, length, "request", 1) != PLUMB_OK) return -99;
    double value = -98;
    prompt = json_string_value(json_object_get(o, "prompt"));
    completion = json_string_value(json_object_get(o, "completion"));
    answer = json_string_value(json_object_get(o, "answer"));
    record = json_integer_value(json_object_get(o, "record"));
    if (prompt && completion && json_object_get(o, "answer") && json_object_size(o) == 4)
        value = (double)record + (double)strlen(completion) / 1000;
    if (answer && !strcmp(answer, "minus")) value = -value;
    json_decref(o);
    return value;
}

static int reward_helper(const char *temper, int k) {
    char *line = NULL, text[64];
    size_t capacity = 0;
    int answered = 0;
    double held[64];
    note_pid();
#define IS(name) (!strcmp(temper, name))
    setvbuf(stdout, NULL, IS("unflushed") ? _IOFBF : _IOLBF, 1 << 16);
    if (IS("exits")) return 9;
    if (IS("deaf")) child_that_stays(), stay();
    while (IS("floods")) puts("1");
    while (IS("floods_bytes")) fputs("11111111", stdout);
    if (IS("closes_output")) fclose(stdout), stay();
    if (IS("closes_input")) fclose(stdin), stay();
    if (IS("stubborn")) signal(SIGTERM, SIG_IGN), signal(SIGINT, SIG_IGN);
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        double value = value_of(line, (size_t)n);
        if (IS("garbage") && answered == k)
            puts("I think \x01\xff it is good");
        else if (IS("nan"))
            puts("nan");
        else if (IS("inf"))
            puts("1e999");
        else if (IS("hexadecimal"))
            puts("0x10");
        else if (IS("blank"))
            puts("");
        else if (IS("two"))
            puts("1 2");
        else if (IS("text_reward"))
            puts("{\"reward\": \"1\"}");
        else if (IS("nan_reward"))
            puts("{\"reward\": NaN}");
        else if (IS("other_object"))
            puts("{\"score\": 1}");
        else if (IS("nul"))
            fwrite("1\0x\n", 1, 4, stdout);
        else if (IS("ahead") && answered > 0)
            held[answered % 64] = value;
        else if (IS("object"))
            snprintf(text, sizeof text, "{\"reward\": %.17g, \"why\": []}\r", value), puts(text);
        else
            printf("%.17g\n", value);
        answered++;
        if (IS("ahead") && answered > 1 && (answered - 1) % k == 0)
            for (int i = answered - k; i < answered; i++) printf("%.17g\n", held[i % 64]);
        if (IS("twice")) puts("0.5");
        if (IS("once_twice") && starts == 0 && answered == k) puts("0.5");
        if (IS("half_line") && starts == 0 && answered == k) fputs("0.5", stdout), fflush(stdout);
        if (IS("slow")) usleep(60000);
        if (answered < k) continue;
        if (IS("dies")) _exit(3);
        if (IS("stops_reading")) fclose(stdin), stay();
        if (IS("killed")) raise(SIGKILL);
        if (IS("dies_once") && starts == 0) _exit(3);
        if (IS("hangs")) child_that_stays(), stay();
        if (IS("hangs_once") && starts == 0) stay();
    }
    free(line);
    if (IS("stubborn")) stay();
    return 0;
#undef IS
}
#endif
