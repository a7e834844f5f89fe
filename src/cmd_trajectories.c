/* plumb trajectories: what a run sampled, without a line of Python. The default is one line for each iteration; --print, --json and
 * --tokens show sequences.
 *
 * A table streams: one iteration is in memory at a time. Sorting keeps what may still be shown: with --limit N never more than a few
 * times N sequences. May run beside the run whose folder it reads. Texts come from a model, so they are made
 * printable before a terminal sees them. */
#include "cmd.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"
#include "plumb/trajectory.h"

static const char help[] =
    "usage: plumb trajectories DIR [options]\n"
    "\n"
    "Shows the trajectories that a run of reinforcement learning has logged: one line for each\n"
    "iteration, or the sequences themselves.\n"
    "\n"
    "  DIR              the folder of a run (its output_dir), or the folder trajectories in it\n"
    "\n"
    "which sequences\n"
    "  --iteration N    one iteration; A-B: from A to B\n"
    "  --finish F       those that ended with eos (an end token), stop (a stop string) or\n"
    "                   length (out of tokens)\n"
    "  --min-score X    those with a score of at least X; --max-score X: of at most X\n"
    "  --contains TEXT  those whose completion contains TEXT, to the letter\n"
    "\n"
    "how to show them\n"
    "  --print          prompts and completions with score, parts of the score and KL\n"
    "  --tokens         a table of their tokens: id, log-probabilities, value, reward, ...\n"
    "  --json           one JSON object a line; with --tokens, the columns of that table too\n"
    "  --sort KEY       largest score, length or kl first; --reverse: smallest first\n"
    "  --limit N        at most N sequences\n"
    "\n"
    "  --verify         instead: read every file and compare it with the manifest\n"
    "  --rebuild        instead: make a lost or damaged manifest.pb, and the master file, again from\n"
    "                   the files; not beside a run. Damaged files and incomplete iterations are\n"
    "                   named and renamed NAME.left-out\n"
    "  --partial        with --rebuild: exit status 0 also where something was left out\n"
    "  --help           this page\n"
    "\n"
    "kl is the sum of logp - ref_logp over the tokens in the loss; in the list its mean over\n"
    "sequences. Sequences without a score (NaN) count nowhere in the score's columns.\n"
    "\n"
    "examples:\n"
    "  plumb trajectories runs/my-run\n"
    "  plumb trajectories runs/my-run --iteration 40-50 --print --sort score --limit 3\n"
    "  plumb trajectories runs/my-run --finish length --json | jq .text\n"
    "  plumb trajectories runs/my-run --verify\n"
    "  plumb trajectories runs/my-run --rebuild\n"
    "\n"
    "Exit status: 0 shown, or complete; 1 cannot be read, --verify found a difference, or\n"
    "--rebuild left something out; 2 wrong usage.\n";

typedef enum sort_key { SORT_NONE, SORT_SCORE, SORT_LENGTH, SORT_KL } sort_key;

typedef struct options {
    const char *dir, *contains;
    int64_t first, last, limit; /* limit -1: none */
    double min_score, max_score;
    bool has_min, has_max, reverse, print, json, tokens, verify, rebuild, partial;
    int finish; /* -1: any */
    sort_key sort;
} options;

/* --- one sequence ----------------------------------------------------------------------------- */
static int64_t length_of(const plumb_trajectories *t, int64_t s) { return t->token_offset[s + 1] - t->token_offset[s]; }

static double kl_of(const plumb_trajectories *t, int64_t s) {
    double sum = 0;
    for (int64_t i = t->token_offset[s]; i < t->token_offset[s + 1]; i++)
        if (t->mask[i]) sum += t->logp[i] - t->ref_logp[i];
    return sum;
}

static bool chosen(const options *o, const plumb_trajectories *t, int64_t s) {
    if (o->finish >= 0 && t->finish[s] != o->finish) return false;
    if (o->has_min && !(t->score[s] >= o->min_score)) return false; /* NaN is neither */
    if (o->has_max && !(t->score[s] <= o->max_score)) return false;
    return !o->contains || strstr(t->text[s], o->contains);
}

/* --- the list of iterations ------------------------------------------------------------------- */
static void print_number(int width, double value) {
    if (isnan(value))
        printf(" %*s", width, "-");
    else
        printf(" %*.4g", width, value);
}

static void print_summary(const options *o, const plumb_trajectories *t) {
    int64_t n = 0, tokens = 0, scored = 0, ended = 0;
    double sum = 0, least = NAN, most = NAN, kl = 0;
    for (int64_t s = 0; s < t->n_sequences; s++) {
        if (!chosen(o, t, s)) continue;
        n++, tokens += length_of(t, s), ended += t->finish[s] == PLUMB_FINISH_EOS, kl += kl_of(t, s);
        if (isnan(t->score[s])) continue;
        scored++, sum += t->score[s];
        least = fmin(least, t->score[s]), most = fmax(most, t->score[s]); /* of a number and NaN: the number */
    }
    printf("%9" PRId64 " %7" PRId64 " %9" PRId64 " %9" PRId64, t->iteration, t->policy_version, n, tokens);
    print_number(10, scored ? sum / (double)scored : NAN);
    print_number(10, least);
    print_number(10, most);
    print_number(8, n ? (double)tokens / (double)n : NAN);
    print_number(7, n ? 100.0 * (double)ended / (double)n : NAN);
    print_number(10, n ? kl / (double)n : NAN);
    putchar('\n');
}

/* --- text ------------------------------------------------------------------------------------- */
/* As it is, with line ends and tabs; other control characters (those of Latin-1 too) are escaped. */
static void print_text(const char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            printf("\\x%02x", c);
        else if (c == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0)
            printf("\\u00%02x", (unsigned char)*++s);
        else
            putchar(c);
    }
}

static void print_tokens(const plumb_trajectories *t, int64_t s) {
    printf("%6s %8s %4s %10s %10s %10s %10s %10s %10s %10s %10s\n", "token", "id", "mask", "logp", "policy", "ref", "entropy", "value",
           "reward", "advantage", "return");
    for (int64_t i = t->token_offset[s]; i < t->token_offset[s + 1]; i++)
        printf("%6" PRId64 " %8d %4d %10.4g %10.4g %10.4g %10.4g %10.4g %10.4g %10.4g %10.4g\n", i - t->token_offset[s], t->ids[i],
               t->mask[i], t->logp[i], t->policy_logp[i], t->ref_logp[i], t->entropy[i], t->values[i], t->rewards[i], t->advantages[i],
               t->returns[i]);
}

/* `number`: its place in the iteration. */
static void print_sequence(const options *o, const plumb_trajectories *t, int64_t s, int64_t number) {
    printf("--- iteration %" PRId64 ", sequence %" PRId64 ": record %" PRId64 ", group %" PRId64 ", branch %d; score %.6g", t->iteration,
           number, t->record[s], t->group[s], t->branch[s], t->score[s]);
    for (int p = 0; p < t->n_parts; p++) {
        printf(p ? ", " : " (");
        print_text(t->part_names[p]);
        printf(" %.6g%s", t->parts[s * t->n_parts + p], p + 1 == t->n_parts ? ")" : "");
    }
    printf("; %" PRId64 " tokens, %s, kl %.4g\n", length_of(t, s), plumb_finish_names[t->finish[s]], kl_of(t, s));
    if (o->print) {
        printf("[prompt]\n");
        print_text(t->prompt_text[s]);
        printf("\n[completion]\n");
        print_text(t->text[s]);
        putchar('\n');
    }
    if (o->tokens) print_tokens(t, s);
    putchar('\n');
}

/* --- JSON ------------------------------------------------------------------------------------- */
static json_t *real(double v) {
    if (isfinite(v)) return json_real(v);
    return json_string(isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity"); /* as in metrics.jsonl: JSON has no such numbers */
}

/* Bytes that are not part of a character, such as half of one at the end of a text, become '?'. */
static void repair(char *s) {
    for (unsigned char *p = (unsigned char *)s; *p;) {
        int size = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0, n = 1;
        while (n < size && (p[n] & 0xc0) == 0x80) n++; /* a NUL ends it */
        if (size == 0 || n < size) memset(p, '?', (size_t)n);
        p += n;
    }
}

static json_t *text(const char *s) {
    json_t *value = json_string(s);
    char *copy = value ? NULL : strdup(s);
    if (copy) {
        repair(copy);
        value = json_string(copy);
        for (char *p = copy; !value && *p; p++) /* well-formed, and still no text: surrogates, overlong forms */
            if ((unsigned char)*p >= 0x80) *p = '?';
        if (!value) value = json_string(copy);
    }
    free(copy);
    return value;
}

/* A NULL value (no memory) makes the result false, here and in what follows. */
static bool put(json_t *object, const char *key, json_t *value) { return json_object_set_new(object, key, value) == 0; }

static bool put_reals(json_t *object, const char *key, const double *values, int64_t n) {
    json_t *array = json_array();
    bool good = put(object, key, array);
    for (int64_t i = 0; i < n && good; i++) good = json_array_append_new(array, real(values[i])) == 0;
    return good;
}

static bool put_tokens(json_t *object, const plumb_trajectories *t, int64_t s) {
    int64_t first = t->token_offset[s], n = length_of(t, s);
    const struct { const char *key; const double *values; } columns[] = {
        {"logp", t->logp}, {"policy_logp", t->policy_logp}, {"ref_logp", t->ref_logp}, {"entropy", t->entropy}, {"values", t->values},
        {"rewards", t->rewards}, {"advantages", t->advantages}, {"returns", t->returns}};
    json_t *prompt = json_array(), *ids = json_array(), *mask = json_array();
    bool good = put(object, "prompt_ids", prompt);
    good &= put(object, "ids", ids);
    good &= put(object, "mask", mask);
    for (int64_t i = t->prompt_offset[s]; i < t->prompt_offset[s + 1] && good; i++)
        good = json_array_append_new(prompt, json_integer(t->prompt_ids[i])) == 0;
    for (int64_t i = first; i < first + n && good; i++)
        good = json_array_append_new(ids, json_integer(t->ids[i])) == 0 && json_array_append_new(mask, json_integer(t->mask[i])) == 0;
    for (size_t c = 0; c < sizeof columns / sizeof *columns && good; c++)
        good = put_reals(object, columns[c].key, columns[c].values + first, n);
    return good;
}

static plumb_status print_json(const options *o, const plumb_trajectories *t, int64_t s, int64_t number) {
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, t->seed[s]); /* as text: 64 bits are more than a JSON number keeps */
    json_t *object = json_object(), *parts = json_object();
    bool good = put(object, "iteration", json_integer(t->iteration)) && put(object, "policy_version", json_integer(t->policy_version)) &&
                put(object, "sequence", json_integer(number)) && put(object, "record", json_integer(t->record[s])) &&
                put(object, "group", json_integer(t->group[s])) && put(object, "branch", json_integer(t->branch[s])) &&
                put(object, "score", real(t->score[s]));
    for (int p = 0; p < t->n_parts && good; p++) {
        json_t *name = text(t->part_names[p]);
        good = name && put(parts, json_string_value(name), real(t->parts[s * t->n_parts + p]));
        json_decref(name);
    }
    good = put(object, "parts", parts) && good; /* takes parts in any case */
    good = good && put(object, "finish", json_string(plumb_finish_names[t->finish[s]])) && put(object, "kl", real(kl_of(t, s))) &&
           put(object, "prompt_tokens", json_integer(t->prompt_offset[s + 1] - t->prompt_offset[s])) &&
           put(object, "tokens", json_integer(length_of(t, s))) && put(object, "seed", json_string(seed)) &&
           put(object, "prompt", text(t->prompt_text[s])) && put(object, "text", text(t->text[s]));
    if (good && o->tokens) good = put_tokens(object, t, s);
    good = good && json_dumpf(object, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    json_decref(object);
    if (good) return PLUMB_OK;
    return ferror(stdout) ? plumb_error(PLUMB_E_IO, "cannot write the output: %m")
                          : plumb_error(PLUMB_E_MEMORY, "out of memory: a sequence as JSON");
}

static plumb_status show(const options *o, const plumb_trajectories *t, int64_t s, int64_t number) {
    if (o->json) return print_json(o, t, s, number);
    print_sequence(o, t, s, number);
    return PLUMB_OK;
}

/* --- sorting ---------------------------------------------------------------------------------- */
typedef struct item { /* a sequence that may be shown; owns it */
    plumb_trajectories t;
    int64_t number, order;
    double key; /* smallest first */
} item;
typedef struct shelf {
    item *items;
    size_t count, capacity;
    int64_t taken;
} shelf;

static int by_key(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (isnan(x->key) != isnan(y->key)) return isnan(x->key) ? 1 : -1; /* without a number: last */
    if (x->key < y->key || x->key > y->key) return x->key < y->key ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static void keep_first(shelf *b, int64_t limit) {
    if (b->count) qsort(b->items, b->count, sizeof *b->items, by_key);
    while (limit >= 0 && b->count > (size_t)limit) plumb_trajectories_free(&b->items[--b->count].t);
}

static plumb_status put_aside(const options *o, shelf *b, const plumb_trajectories *t, int64_t s) {
    double key = o->sort == SORT_SCORE ? t->score[s] : o->sort == SORT_LENGTH ? (double)length_of(t, s) : kl_of(t, s);
    if (o->limit >= 0 && b->count >= 2 * (size_t)o->limit + 64) keep_first(b, o->limit);
    PLUMB_TRY(plumb_grow(&b->items, &b->capacity, b->count + 1, sizeof *b->items));
    item *i = &b->items[b->count];
    *i = (item){.number = s, .order = b->taken++, .key = o->reverse ? key : -key};
    PLUMB_TRY(plumb_trajectories_slice(&i->t, t, s, 1));
    b->count++;
    return PLUMB_OK;
}

/* --- all together ----------------------------------------------------------------------------- */
static bool shows_sequences(const options *o) { return o->print || o->json || o->tokens; }

static plumb_status one_iteration(const options *o, const plumb_trajectories *t, shelf *b, int64_t *shown) {
    if (!shows_sequences(o)) {
        print_summary(o, t);
        return PLUMB_OK;
    }
    for (int64_t s = 0; s < t->n_sequences; s++) {
        if (!chosen(o, t, s)) continue;
        if (o->sort) {
            PLUMB_TRY(put_aside(o, b, t, s));
        } else if (o->limit < 0 || *shown < o->limit) {
            PLUMB_TRY(show(o, t, s, s));
            ++*shown;
        }
    }
    return PLUMB_OK;
}

static plumb_status check_range(const options *o, const int64_t *list, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (list[i] >= o->first && list[i] <= o->last) return PLUMB_OK;
    if (n == 0) return plumb_error(PLUMB_E_DATA, "%s: no iteration is committed yet", o->dir);
    return plumb_error(PLUMB_E_DATA, "%s: no such iteration: %" PRId64 " of them are there, from %" PRId64 " to %" PRId64, o->dir, n,
                       list[0], list[n - 1]);
}

static plumb_status show_all(const options *o, const char *dir) {
    int64_t *list = NULL, n = 0, shown = 0;
    plumb_trajectory_reader *r = NULL;
    shelf b = {0};
    plumb_status status = plumb_trajectories_list(dir, &list, &n);
    if (status == PLUMB_OK) status = check_range(o, list, n);
    if (status == PLUMB_OK) status = plumb_trajectory_reader_open(&r, dir);
    if (status == PLUMB_OK && !shows_sequences(o))
        printf("%9s %7s %9s %9s %10s %10s %10s %8s %7s %10s\n", "iteration", "version", "sequences", "tokens", "score", "min", "max",
               "length", "eos %", "kl");
    for (int64_t i = 0; i < n && status == PLUMB_OK && (o->sort || o->limit < 0 || shown < o->limit); i++) {
        if (list[i] < o->first || list[i] > o->last) continue;
        plumb_trajectories t;
        status = plumb_trajectory_reader_read(r, list[i], &t);
        if (status != PLUMB_OK) break;
        status = one_iteration(o, &t, &b, &shown);
        plumb_trajectories_free(&t);
        if (status == PLUMB_OK && ferror(stdout)) status = plumb_error(PLUMB_E_IO, "cannot write the output: %m");
    }
    keep_first(&b, o->limit);
    for (size_t i = 0; i < b.count; i++) {
        if (status == PLUMB_OK) status = show(o, &b.items[i].t, 0, b.items[i].number);
        plumb_trajectories_free(&b.items[i].t);
    }
    free(b.items);
    plumb_trajectory_reader_close(r);
    free(list);
    return status;
}

/* DIR/trajectories, or DIR itself. */
static plumb_status find_folder(char **folder, const char *dir, bool without_manifest) {
    char *manifest = NULL;
    PLUMB_TRY(plumb_path_join(folder, dir, "trajectories"));
    if (!plumb_path_is_dir(*folder)) {
        free(*folder);
        PLUMB_TRY(plumb_path_join(folder, dir, ""));
    }
    plumb_status status = plumb_path_join(&manifest, *folder, "manifest.pb");
    if (status == PLUMB_OK && !without_manifest && !plumb_path_exists(manifest))
        status = plumb_error(PLUMB_E_DATA,
                             "%s: no trajectories: expected the folder of a run that has logged some, or its folder trajectories (with "
                             "manifest.pb; --rebuild makes a lost one again)",
                             dir);
    free(manifest);
    return status;
}

static void say_left_out(const char *message) { fprintf(stderr, "plumb trajectories: left out: %s\n", message); }

static plumb_status rebuild(const options *o, const char *folder) {
    plumb_trajectories_rebuilt r;
    PLUMB_TRY(plumb_trajectories_rebuild(folder, say_left_out, &r));
    printf("rebuilt: %" PRId64 " iterations, %" PRId64 " sequences, %" PRId64 " tokens\n", r.iterations, r.sequences, r.tokens);
    if (r.left_out == 0 || o->partial) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA, "%s: the manifest lacks %" PRId64 " files; what is there of them is named NAME.left-out now", o->dir,
                       r.left_out);
}

static plumb_status run(const options *o) {
    char *folder = NULL;
    plumb_status status = find_folder(&folder, o->dir, o->rebuild);
    if (status == PLUMB_OK && o->rebuild) {
        status = rebuild(o, folder);
    } else if (status == PLUMB_OK && o->verify) {
        int64_t iterations, sequences, tokens;
        status = plumb_trajectories_verify(folder, &iterations, &sequences, &tokens);
        if (status == PLUMB_OK)
            printf("complete: %" PRId64 " iterations, %" PRId64 " sequences, %" PRId64 " tokens\n", iterations, sequences, tokens);
    } else if (status == PLUMB_OK) {
        status = show_all(o, folder);
    }
    if (fflush(stdout) != 0 && status == PLUMB_OK) status = plumb_error(PLUMB_E_IO, "cannot write the output: %m");
    free(folder);
    return status;
}

/* --- the command line ------------------------------------------------------------------------- */
static bool parse_count(const char *s, const char **end, int64_t *value) {
    if (*s < '0' || *s > '9') return false;
    char *rest;
    errno = 0;
    *value = strtoll(s, &rest, 10);
    *end = rest;
    return errno == 0;
}

static bool parse_iterations(const char *s, options *o) {
    if (!parse_count(s, &s, &o->first)) return false;
    o->last = o->first;
    if (*s == '-' && !parse_count(s + 1, &s, &o->last)) return false;
    return *s == 0 && o->first <= o->last;
}

static bool parse_real(const char *s, double *value, bool *given) {
    char *end;
    *value = strtod(s, &end);
    *given = true;
    return *s && *s != ' ' && *end == 0 && !isnan(*value);
}

static bool parse_limit(const char *s, options *o) { return parse_count(s, &s, &o->limit) && *s == 0; }

static bool parse_word(const char *s, const char *const *words, int n, int *index) {
    for (*index = 0; *index < n; ++*index)
        if (!strcmp(s, words[*index])) return true;
    return false;
}

static bool parse_sort(const char *s, options *o) {
    static const char *const keys[] = {"score", "length", "kl"};
    int k;
    bool known = parse_word(s, keys, 3, &k);
    o->sort = known ? (sort_key)(k + 1) : SORT_NONE;
    return known;
}

/* An option that has a value. NULL: fine; else what was expected. */
static const char *take_value(options *o, const char *name, const char *value) {
    if (!strcmp(name, "--iteration")) return parse_iterations(value, o) ? NULL : "a number, or two with a dash between (3-7)";
    if (!strcmp(name, "--sort")) return parse_sort(value, o) ? NULL : "score, length or kl";
    if (!strcmp(name, "--limit")) return parse_limit(value, o) ? NULL : "a number";
    if (!strcmp(name, "--finish")) return parse_word(value, plumb_finish_names, PLUMB_FINISHES, &o->finish) ? NULL : "eos, stop or length";
    if (!strcmp(name, "--min-score")) return parse_real(value, &o->min_score, &o->has_min) ? NULL : "a number";
    if (!strcmp(name, "--max-score")) return parse_real(value, &o->max_score, &o->has_max) ? NULL : "a number";
    o->contains = value;
    return *value ? NULL : "a text";
}

static int usage(const char *why, const char *what) {
    fprintf(stderr, "plumb trajectories: %s%s\n\n%s", why, what, help);
    return PLUMB_EXIT_USAGE;
}

static int parse(options *o, int argc, char **argv) {
    static const char *const valued[] = {"--iteration", "--sort", "--limit", "--finish", "--min-score", "--max-score", "--contains"};
    const struct { const char *name; bool *flag; } flags[] = {
        {"--reverse", &o->reverse}, {"--print", &o->print}, {"--json", &o->json}, {"--tokens", &o->tokens}, {"--verify", &o->verify},
        {"--rebuild", &o->rebuild}, {"--partial", &o->partial}};
    int value_options = 0, k;
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        size_t f = 0, n = sizeof flags / sizeof *flags;
        if (options_end || word[0] != '-') {
            if (o->dir) return usage("one folder at a time, found also ", word);
            o->dir = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            options_end = true;
            continue;
        }
        while (f < n && strcmp(word, flags[f].name)) f++;
        if (f < n) {
            *flags[f].flag = true;
        } else if (parse_word(word, valued, sizeof valued / sizeof *valued, &k)) {
            if (++i == argc) return usage("a value is missing after ", word);
            const char *expected = take_value(o, word, argv[i]);
            char why[200];
            snprintf(why, sizeof why, "%s \"%.60s\": expected ", word, argv[i]);
            if (expected) return usage(why, expected);
            value_options++;
        } else {
            return usage("unknown option ", word);
        }
    }
    if (!o->dir) return usage("which folder?", "");
    bool shows = value_options || o->reverse || shows_sequences(o);
    if (o->verify && (shows || o->rebuild)) return usage("--verify goes with no other option: it reads everything", "");
    if (o->rebuild && shows) return usage("--rebuild goes with --partial alone: it reads everything", "");
    if (o->partial && !o->rebuild) return usage("--partial needs --rebuild", "");
    if ((o->sort || o->limit >= 0) && !shows_sequences(o))
        return usage("--sort and --limit are for sequences: add --print, --json or --tokens", "");
    if (o->reverse && !o->sort) return usage("--reverse needs --sort", "");
    if (o->print && o->json) return usage("--print or --json: texts are in both", "");
    return 0;
}

int cmd_trajectories(int argc, char **argv) {
    options o = {.last = INT64_MAX, .limit = -1, .finish = -1};
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return PLUMB_EXIT_DONE;
        }
    int code = parse(&o, argc, argv);
    if (code) return code;
    if (run(&o) == PLUMB_OK) return PLUMB_EXIT_DONE;
    fprintf(stderr, "plumb trajectories: %s\n", plumb_error_message());
    return PLUMB_EXIT_FAILED;
}
