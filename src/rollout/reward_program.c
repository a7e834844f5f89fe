/* Rewards from a user's program: a line out, a line in, in the same order.
 *
 *     items    [0 … answered … sent … made … n)      sent - answered <= WINDOW: the program has them
 *
 * Requests run ahead of answers so that a program which works in batches has some, and both ends are served from one
 * poll so that neither side can wait for the other with full pipes.  A failure is a process that ends, is silent for
 * longer than the limit, or writes what is no answer to a request it has read in full.  It is killed, a new one gets
 * the items that are unanswered, and the caller's error comes after `retries` more failures without an answer between
 * them.
 *
 * A line too many means that answers and requests are out of step, and nobody knows since when: all that this process
 * answered in this call is asked again.  Only an item answered for the first time counts as progress, or such a program
 * would be restarted for ever.  While requests are ahead a line too many passes for an answer; so a process gets one
 * request alone at first, and must be silent for a moment after its answer (two lines for each request is the likely
 * mistake) and after the last answer of a call. */
#include "reward_internal.h"
#include "reward_process.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 32, LINE_MOST = 1 << 20, READ_AT_ONCE = 1 << 16, SHOWN = 80 };
static const double first_silence = 0.05, last_silence = 0.02, patience = 2, glance = 0.25; /* seconds */

struct reward_program {
    process process;
    plumb_str out, in; /* requests not written yet; answers not read as lines yet */
    size_t out_at, in_at;
    bool proven;    /* it answered one request with one line */
    plumb_str text; /* a repaired string */
};

typedef struct call { /* of plumb_reward_source_score */
    plumb_reward_source *s;
    reward_program *p;
    const plumb_reward_item *items;
    double *rewards;
    int64_t n, first; /* first: asked first of this process */
    int64_t answered, sent, made, furthest;
    double leaving_since; /* 0: the caller does not want to leave */
    int failures; /* in a row */
    bool ended;   /* the last failure: by itself; else it is to be killed */
    plumb_status code;
    char reason[256]; /* of the last failure; "" while all is well */
} call;

plumb_status reward_program_open(plumb_reward_source *s) {
    PLUMB_TRY(plumb_alloc(&s->program, 1, sizeof *s->program, "a reward program"));
    s->program->process = (process){0, -1, -1};
    return PLUMB_OK;
}

plumb_status reward_program_start(plumb_reward_source *s) {
    process *p = &s->program->process;
    if (!p->pid) return process_start(p, s->argument);
    if (!process_is_unknown(p)) return PLUMB_OK;
    process_stop(p, 0, NULL, 0);
    return plumb_error(PLUMB_E_CONFIG, "reward program \"%.200s\": the shell cannot run it", s->argument);
}

void reward_program_free(reward_program *p) {
    if (!p) return;
    process_stop(&p->process, 2, NULL, 0); /* its input ends: time to write its own files */
    plumb_str_free(&p->out);
    plumb_str_free(&p->in);
    plumb_str_free(&p->text);
    free(p);
}

static void fail(call *c, plumb_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void fail(call *c, plumb_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->reason, sizeof c->reason, format, arguments);
    va_end(arguments);
    c->code = code;
    c->ended = false;
}

static void surplus(call *c, const char *text) {
    fail(c, PLUMB_E_DATA, "wrote \"%s\" before it was asked, or more than one line for a request", text);
    c->answered = c->first;
}

/* --- requests --------------------------------------------------------------------------------- */

static plumb_status put(plumb_str *out, const char *text) {
    return plumb_str_append(out, text, strlen(text));
}

/* "key": "text" with all escapes; text that is no UTF-8 is repaired, as JSON has no other. */
static plumb_status put_string(reward_program *p, const char *key, const char *text) {
    PLUMB_TRY(plumb_str_printf(&p->out, "\"%s\":", key));
    if (!text) return put(&p->out, "null");
    if (!plumb_utf8_valid(text, strlen(text))) {
        p->text.length = 0;
        PLUMB_TRY(plumb_utf8_repair(text, strlen(text), &p->text));
        text = p->text.data;
    }
    json_t *value = json_string(text);
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    plumb_status status =
        dump ? put(&p->out, dump) : plumb_error(PLUMB_E_MEMORY, "out of memory for a reward's request");
    free(dump);
    json_decref(value);
    return status;
}

static plumb_status make_request(reward_program *p, const plumb_reward_item *item) {
    p->out.length = p->out_at = 0;
    PLUMB_TRY(put(&p->out, "{"));
    PLUMB_TRY(put_string(p, "prompt", item->prompt));
    PLUMB_TRY(put(&p->out, ","));
    PLUMB_TRY(put_string(p, "completion", item->completion));
    PLUMB_TRY(put(&p->out, ","));
    PLUMB_TRY(put_string(p, "answer", item->answer));
    return plumb_str_printf(&p->out, ",\"record\":%lld}\n", (long long)item->record);
}

/* Writes what fits into the pipe. A program that reads no more may still answer what it has: that is not for here. */
static plumb_status send_requests(call *c) {
    reward_program *p = c->p;
    for (;;) {
        if (p->out_at == p->out.length) {
            c->sent = c->made;
            if (c->made == c->n || c->made - c->answered >= (p->proven ? WINDOW : 1) || p->process.in < 0)
                return PLUMB_OK;
            PLUMB_TRY(make_request(p, &c->items[c->made]));
            c->made++;
        }
        ssize_t n = process_write(&p->process, p->out.data + p->out_at, p->out.length - p->out_at);
        if (n <= 0) return PLUMB_OK;
        p->out_at += (size_t)n;
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

/* The line for a message: printable, and not all of it. */
static const char *shown(const char *line, size_t length, char out[SHOWN + 8]) {
    size_t n = length < SHOWN ? length : SHOWN;
    for (size_t i = 0; i < n; i++) out[i] = line[i] >= 0x20 && line[i] < 0x7f ? line[i] : '?';
    snprintf(out + n, 8, "%s", n < length ? "..." : "");
    return out;
}

/* A plain decimal, blanks around it; line ends in a NUL. */
static bool read_plain(const char *line, double *value) {
    char *end;
    line += strspn(line, " \t\r");
    if (!*line || line[strspn(line, "+-.0123456789eE \t\r")]) return false; /* no hexadecimals, no words */
    *value = strtod(line, &end);
    return end != line && !end[strspn(end, " \t\r")];
}

/* Memory is the only error; *valid says whether the line is an answer. */
static plumb_status read_answer(const char *line, size_t length, double *value, bool *valid) {
    json_t *object;
    *valid = strlen(line) == length && read_plain(line, value) && isfinite(*value);
    if (*valid || line[strspn(line, " \t")] != '{') return PLUMB_OK;
    plumb_status status = plumb_json_parse(&object, line, length, "answer", 1);
    if (status != PLUMB_OK) return status == PLUMB_E_MEMORY ? status : PLUMB_OK;
    const json_t *reward = json_object_get(object, "reward");
    *valid = json_is_number(reward);
    *value = json_number_value(reward);
    json_decref(object);
    return PLUMB_OK;
}

static plumb_status take_line(call *c, const char *line, size_t length) {
    char text[SHOWN + 8];
    bool valid;
    double value = 0;
    if (c->answered >= c->sent) {
        surplus(c, shown(line, length, text));
        return PLUMB_OK;
    }
    PLUMB_TRY(read_answer(line, length, &value, &valid));
    if (!valid) {
        fail(c, PLUMB_E_DATA, "answered \"%s\", expected a finite number or {\"reward\": number}",
             shown(line, length, text));
        return PLUMB_OK;
    }
    c->rewards[c->answered++] = value;
    if (c->answered <= c->furthest) return PLUMB_OK;
    c->furthest = c->answered;
    c->failures = 0;
    return PLUMB_OK;
}

/* Lines that are complete, until one is wrong. */
static plumb_status take_lines(call *c) {
    plumb_str *in = &c->p->in;
    while (!*c->reason) {
        char *line = in->data + c->p->in_at, *end = memchr(line, '\n', in->length - c->p->in_at);
        if (!end) break;
        *end = 0;
        c->p->in_at += (size_t)(end - line) + 1;
        PLUMB_TRY(take_line(c, line, (size_t)(end - line)));
    }
    size_t rest = in->length - c->p->in_at;
    memmove(in->data, in->data + c->p->in_at, rest);
    in->length = rest;
    c->p->in_at = 0;
    char text[SHOWN + 8];
    if (*c->reason) return PLUMB_OK;
    if (rest && c->answered >= c->sent)
        surplus(c, shown(in->data, rest, text));
    else if (rest > LINE_MOST)
        fail(c, PLUMB_E_DATA, "wrote %zu bytes without a line end, expected a number", rest);
    return PLUMB_OK;
}

/* Reads once. *got: as process_read. */
static plumb_status receive(call *c, ssize_t *got) {
    reward_program *p = c->p;
    char bytes[READ_AT_ONCE];
    *got = process_read(&p->process, bytes, sizeof bytes);
    if (*got <= 0) return PLUMB_OK;
    return plumb_str_append(&p->in, bytes, (size_t)*got);
}

/* --- a process and its items ------------------------------------------------------------------ */

static plumb_status start(call *c) {
    reward_program *p = c->p;
    p->in.length = p->in_at = p->out.length = p->out_at = 0;
    p->proven = false;
    PLUMB_TRY(plumb_str_append(&p->in, "", 0));
    return process_start(&p->process, c->s->argument);
}

/* A process that ended since the last call has failed nobody: it is replaced. */
static plumb_status revive(call *c) {
    ssize_t got;
    if (c->p->process.pid) {
        PLUMB_TRY(receive(c, &got));
        if (got != 0) return PLUMB_OK;
        process_stop(&c->p->process, 0, NULL, 0);
        c->s->count++;
    }
    return start(c);
}

/* Nothing may come for a moment: no request is open. */
static plumb_status listen_on(call *c, double seconds) {
    ssize_t got;
    process_wait(&c->p->process, false, seconds);
    PLUMB_TRY(receive(c, &got));
    return take_lines(c);
}

/* A judge that is nearly through may finish; nobody waits long for one that is not. */
static bool must_leave(call *c) {
    if (!c->leaving_since && c->s->leaving && c->s->leaving()) c->leaving_since = plumb_clock();
    return c->s->left = c->leaving_since > 0 && plumb_clock() - c->leaving_since > patience;
}

/* Serves the process until all is answered, it failed, or the caller must leave; failures of our own are the status. */
static plumb_status serve(call *c) {
    const double limit = c->s->limits.seconds;
    double since = plumb_clock();
    ssize_t got;
    for (;;) {
        int64_t before = c->answered;
        PLUMB_TRY(take_lines(c));
        if (*c->reason) return PLUMB_OK;
        if (c->answered > before) since = plumb_clock();
        if (c->answered == c->n || (c->answered > c->first && !c->p->proven)) {
            PLUMB_TRY(listen_on(c, c->p->proven ? last_silence : first_silence));
            c->p->proven = true;
            since = plumb_clock();
            if (c->answered == c->n || *c->reason) return PLUMB_OK;
        }
        PLUMB_TRY(send_requests(c));
        if (c->p->process.in < 0 && c->answered == c->sent) {
            fail(c, PLUMB_E_IO, "reads no more");
            c->ended = true;
            return PLUMB_OK;
        }
        double left = since + limit - plumb_clock();
        if (left <= 0) {
            fail(c, PLUMB_E_IO, "gave no answer for %g s (answers must be flushed, line by line)", limit);
            return PLUMB_OK;
        }
        if (must_leave(c)) return PLUMB_OK;
        process_wait(&c->p->process, c->p->out_at < c->p->out.length, fmin(left, glance));
        PLUMB_TRY(receive(c, &got));
        if (got != 0) continue;
        fail(c, PLUMB_E_IO, "ended its output");
        c->ended = true;
        return PLUMB_OK;
    }
}

/* After a failure: the process is ended, the record's message made when there were too many. */
static plumb_status give_up_or_restart(call *c) {
    char how[96] = "";
    int64_t at = c->answered < c->n ? c->answered : c->n - 1;
    process_stop(&c->p->process, c->ended ? 0.2 : 0, how, sizeof how);
    if (++c->failures > c->s->limits.retries)
        return plumb_error(c->code, "reward program \"%.200s\": record %lld: it %s%s%s; tried %d times", c->s->argument,
                           (long long)c->items[at].record + 1, c->reason, c->ended ? " and " : "", c->ended ? how : "",
                           c->failures);
    c->s->count++;
    return start(c);
}

plumb_status reward_program_score(plumb_reward_source *s, const plumb_reward_item *items, int64_t n, double *rewards) {
    call c = {.s = s, .p = s->program, .items = items, .rewards = rewards, .n = n};
    plumb_status status = revive(&c);
    while (status == PLUMB_OK) {
        c.first = c.sent = c.made = c.answered;
        c.p->out.length = c.p->out_at = 0;
        *c.reason = 0;
        status = serve(&c);
        if (status == PLUMB_OK && s->left) break;
        if (status == PLUMB_OK && !*c.reason) return PLUMB_OK;
        if (status == PLUMB_OK) status = give_up_or_restart(&c);
    }
    process_stop(&s->program->process, 0, NULL, 0);
    return status;
}
