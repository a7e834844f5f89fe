/* A command under /bin/sh with pipes on its standard input and output. */
#ifndef PLUMB_REWARD_PROCESS_H
#define PLUMB_REWARD_PROCESS_H
#include "plumb/base.h"
#include <sys/types.h>

typedef struct process { /* pid 0: none runs, and the ends are -1 */
    pid_t pid;
    int in, out; /* our ends: what it reads, what it writes; both never block; in is -1 once it stopped reading */
} process;

plumb_status process_start(process *p, const char *command) PLUMB_CHECKED;
/* It has ended, since the shell could not run the command (status 126, 127). */
bool process_is_unknown(const process *p);
/* Bytes written, 0 when the pipe is full; -1 when nobody reads any more (in is closed then). */
ssize_t process_write(process *p, const char *bytes, size_t n);
/* Bytes read, 0 at the end of its output, -1 when there is nothing now. */
ssize_t process_read(process *p, char *bytes, size_t n);
/* Waits until either end is ready, at most `seconds`. `writing`: there is something to write. */
void process_wait(const process *p, bool writing, double seconds);
/* Ends it with all its children, once it had `grace` seconds to end by itself with its pipes closed. how (NULL: do not
 * say): "exited with status 3", … */
void process_stop(process *p, double grace, char *how, size_t size);
#endif
