/* Status codes and error messages.
 *
 * Every function that can fail returns a plumb_status. The message is written once, by plumb_error(), where the fault
 * is found; callers pass the code up with PLUMB_TRY or go to their one `done:` label. Messages are kept per thread.
 * Three kinds of failure (docs/architecture.md): the same on all ranks (return it), local (keep it until the next
 * agreement point), a bug (PLUMB_BUG: prints rank, file, line and aborts). */
#ifndef PLUMB_STATUS_H
#define PLUMB_STATUS_H

#define PLUMB_STATUS_LIST(X)                                                                                           \
    X(PLUMB_OK, "ok")                                                                                                  \
    X(PLUMB_E_CONFIG, "bad configuration")                                                                             \
    X(PLUMB_E_DATA, "bad data")                                                                                        \
    X(PLUMB_E_FORMAT, "bad file format")                                                                               \
    X(PLUMB_E_IO, "input/output error")                                                                                \
    X(PLUMB_E_MEMORY, "out of memory")                                                                                 \
    X(PLUMB_E_UNSUPPORTED, "not supported")                                                                            \
    X(PLUMB_E_NUMERIC, "numerical failure")                                                                            \
    X(PLUMB_E_DEVICE, "device failure")                                                                                \
    X(PLUMB_E_COMM, "communication failure")                                                                           \
    X(PLUMB_E_STOPPED, "stopped")

typedef enum plumb_status {
#define X(code, text) code,
    PLUMB_STATUS_LIST(X)
#undef X
} plumb_status;

#define PLUMB_CHECKED __attribute__((warn_unused_result))

/* Text of a code, never NULL. */
const char *plumb_status_text(plumb_status s);

/* Records a message for this thread and returns `code`, so that `return plumb_error(PLUMB_E_IO, "…", …)` is one line.
 * Write what the user can do: file, line, key, value found, value expected. No trailing newline. */
plumb_status plumb_error(plumb_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the recorded message (for context that only the caller knows); returns `code`. */
plumb_status plumb_error_prefix(plumb_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The message recorded last by this thread; "" when there is none. */
const char *plumb_error_message(void);

#define PLUMB_TRY(expression)                                                                                          \
    do {                                                                                                               \
        plumb_status try_status_ = (expression);                                                                       \
        if (try_status_ != PLUMB_OK) return try_status_;                                                               \
    } while (0)

/* A broken invariant of the program itself. */
#define PLUMB_BUG(...) plumb_bug(__FILE__, __LINE__, __VA_ARGS__)
#define PLUMB_CHECK(condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) PLUMB_BUG("broken invariant: %s", #condition);                                               \
    } while (0)
void plumb_bug(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4), noreturn));
/* comm/ installs its abort here so that a bug on one rank ends the job; default abort(). */
extern void (*plumb_bug_abort)(void);
#endif
