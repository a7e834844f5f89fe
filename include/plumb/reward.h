/* Where rewards come from, beside a reward model: built-in verifiable functions, an external program.  Local.
 *
 * A source is made from its specification, NAME or NAME:ARGUMENT:
 *   exact_match         1 when the completion equals the answer, both stripped of white space at the ends, else 0
 *   number              1 when the last number in the completion equals the answer's (1,000 = 1000 = 1000.0), else 0; an answer that
 *                       has "#### 42" means what follows it (GSM8K). Numbers are plain decimals, an exponent allowed, compared exactly;
 *                       fractions (3/4) are none
 *   regex:PATTERN       1 when the PCRE2 pattern matches anywhere in the completion, else 0; where it backtracks without end 0 too,
 *                       and counted as a failure
 *   length:N            -|tokens - N| / N
 *   json                1 when the completion is valid JSON as a whole (a ```json fence around it is allowed), else 0
 *   program:COMMAND     COMMAND runs under /bin/sh; per completion it reads one JSON line {"prompt","completion","answer","record"}
 *                       (answer: null when there is none) and writes one line, in the same order, flushed: a number, or
 *                       {"reward": number}. Requests run up to 32 lines ahead of the answers, but no answer may wait for a further
 *                       request. One process per rank, killed and restarted when it dies, when an answer takes
 *                       longer than the limit, or when a line makes no sense; after `retries` failures in a row that is the caller's error
 * A reward that is not finite is an error that names the source and the record. */
#ifndef PLUMB_REWARD_H
#define PLUMB_REWARD_H
#include "plumb/base.h"

typedef struct plumb_reward_item { /* borrowed */
    const char *prompt, *completion; /* UTF-8, without special tokens */
    const char *answer;              /* the record's answer field; NULL when it has none */
    int64_t record, tokens;          /* of the completion */
} plumb_reward_item;

typedef struct plumb_reward_source plumb_reward_source;
/* of a program: per completion, from the answer before; restarts in a row */
typedef struct plumb_reward_limits { double seconds; int retries; } plumb_reward_limits;
enum { PLUMB_REWARD_SECONDS = 30, PLUMB_REWARD_RETRIES = 3 }; /* where limits is NULL */
/* PLUMB_E_CONFIG for an unknown name (with the nearest), a bad pattern, a missing argument, limits of no sense. A source
 * is used by one thread at a time. */
plumb_status plumb_reward_source_create(plumb_reward_source **out, const char *spec, const plumb_reward_limits *limits) PLUMB_CHECKED;
/* Starts its program, which then has time to get ready. Called again later: a command that the shell could not run is PLUMB_E_CONFIG. Both
 * are no more than a favour: scoring starts what does not run. */
plumb_status plumb_reward_source_start(plumb_reward_source *s) PLUMB_CHECKED;
void plumb_reward_source_free(plumb_reward_source *s); /* ends its program */
const char *plumb_reward_source_name(const plumb_reward_source *s); /* "exact_match", "program", … */
bool plumb_reward_source_needs_answer(const plumb_reward_source *s);
/* What is counted of it, and how often since it was made: "errors" on completions, which then get 0 (regex), "restarts" of its program;
 * NULL: nothing. */
const char *plumb_reward_source_counts(const plumb_reward_source *s);
int64_t plumb_reward_source_count(const plumb_reward_source *s);
/* `leaving` is asked while a program works: does the caller want to leave? It waits two seconds more at most. Did the last scoring end
 * early for it? Its rewards are then of no use. */
void plumb_reward_source_leave_when(plumb_reward_source *s, bool (*leaving)(void));
bool plumb_reward_source_left(const plumb_reward_source *s);
/* rewards [n]. An item without an answer where one is needed, or (number) without a number in it: PLUMB_E_DATA with its record (counted
 * from 1, as in messages about data). A program that fails too often: PLUMB_E_IO (died, silent), PLUMB_E_DATA (nonsense); the message
 * has the command, the record, what came. After an error the source can be used again. */
plumb_status plumb_reward_source_score(plumb_reward_source *s, const plumb_reward_item *items, int64_t n, double *rewards) PLUMB_CHECKED;
#endif
