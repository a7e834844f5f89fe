/* A process of a user's command beside an MPI program with threads.
 *
 * posix_spawn, because between fork and exec of such a program nothing may run that takes a lock.  The child leads a
 * process group of its own, so that killing the group reaches what the shell started, and has default signals.  Our
 * ends are closed on exec: a second program must not hold the first one's input open.
 *
 * Writing to a program that has gone raises SIGPIPE.  Pipes and not sockets are used all the same, since a command may
 * open /dev/stdin; so the signal is blocked in this thread around a write and taken from the queue when the write
 * raised it: the process's disposition, which others may have set, stays as it is. */
#include "reward_process.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* A pipe closed on exec, with both ends above standard error: a process started without standard streams would get them
 * as 0 to 2, and they would overwrite each other in the child. */
static plumb_status open_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC)) {
        ends[0] = ends[1] = -1;
        return plumb_error(PLUMB_E_IO, "a pipe for a program: %s", strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        if (ends[i] > 2) continue;
        int moved = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
        if (moved < 0) return plumb_error(PLUMB_E_IO, "a pipe for a program: %s", strerror(errno));
        close(ends[i]);
        ends[i] = moved;
    }
    return PLUMB_OK;
}

static int set_attributes(posix_spawnattr_t *a) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_setflags(a, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (!error) error = posix_spawnattr_setpgroup(a, 0);
    if (!error) error = posix_spawnattr_setsigmask(a, &none);
    return error ? error : posix_spawnattr_setsigdefault(a, &all);
}

static int spawn(pid_t *pid, const char *command, int in, int out) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *arguments[] = {"sh", "-c", (char *)command, NULL};
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    if ((error = posix_spawnattr_init(&attributes))) goto actions_only;
    error = set_attributes(&attributes);
    if (!error) error = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    if (!error) error = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (!error) error = posix_spawn(pid, "/bin/sh", &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
actions_only:
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static void close_end(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

plumb_status process_start(process *p, const char *command) {
    int input[2] = {-1, -1}, output[2] = {-1, -1};
    *p = (process){0, -1, -1};
    plumb_status status = open_pipe(input);
    if (status == PLUMB_OK) status = open_pipe(output);
    if (status == PLUMB_OK && (fcntl(input[1], F_SETFL, O_NONBLOCK) || fcntl(output[0], F_SETFL, O_NONBLOCK)))
        status = plumb_error(PLUMB_E_IO, "a pipe for a program: %s", strerror(errno));
    if (status == PLUMB_OK) {
        int error = spawn(&p->pid, command, input[0], output[1]);
        if (error)
            status = plumb_error(PLUMB_E_IO, "/bin/sh -c \"%.200s\" cannot be started: %s", command, strerror(error));
    }
    close_end(&input[0]);
    close_end(&output[1]);
    if (status == PLUMB_OK) {
        p->in = input[1];
        p->out = output[0];
        return PLUMB_OK;
    }
    close_end(&input[1]);
    close_end(&output[0]);
    p->pid = 0;
    return status;
}

ssize_t process_write(process *p, const char *bytes, size_t n) {
    if (p->in < 0) return -1;
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    bool had_one = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t written = write(p->in, bytes, n);
    int error = errno;
    if (written < 0 && error == EPIPE && !had_one)
        while (sigtimedwait(&pipe_signal, NULL, &(struct timespec){0, 0}) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (written >= 0) return written;
    if (error == EAGAIN || error == EINTR) return 0;
    close_end(&p->in);
    return -1;
}

ssize_t process_read(process *p, char *bytes, size_t n) {
    ssize_t got = read(p->out, bytes, n);
    if (got >= 0) return got;
    return errno == EAGAIN || errno == EINTR ? -1 : 0;
}

void process_wait(const process *p, bool writing, double seconds) {
    struct pollfd ends[2] = {{.fd = p->out, .events = POLLIN}, {.fd = writing ? p->in : -1, .events = POLLOUT}};
    int milliseconds = seconds <= 0 ? 0 : seconds > 1e6 ? 1000000000 : (int)(seconds * 1e3) + 1;
    (void)poll(ends, 2, milliseconds); /* an interrupted wait is a short one */
}

/* Whether it has ended, without giving its number back to the system. */
static bool has_ended(pid_t pid, siginfo_t *info) {
    *info = (siginfo_t){0};
    return waitid(P_PID, (id_t)pid, info, WEXITED | WNOHANG | WNOWAIT) || info->si_pid == pid;
}

bool process_is_unknown(const process *p) {
    siginfo_t info;
    return p->pid && has_ended(p->pid, &info) && info.si_code == CLD_EXITED && (info.si_status == 126 || info.si_status == 127);
}

void process_stop(process *p, double grace, char *how, size_t size) {
    if (!p->pid) return;
    int status = 0;
    close_end(&p->in);
    close_end(&p->out);
    double end = plumb_clock() + grace;
    bool ended;
    siginfo_t info;
    while (!(ended = has_ended(p->pid, &info)) && plumb_clock() < end) nanosleep(&(struct timespec){0, 2000000}, NULL);
    kill(-p->pid, SIGKILL); /* before waitpid: until then nobody else can have the group's number */
    pid_t waited;
    while ((waited = waitpid(p->pid, &status, 0)) < 0 && errno == EINTR) continue;
    p->pid = 0;
    if (!how) return;
    if (!ended || waited < 0)
        snprintf(how, size, "was killed");
    else if (WIFSIGNALED(status))
        snprintf(how, size, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, size, "exited with status %d%s", WEXITSTATUS(status),
                 WEXITSTATUS(status) == 127 ? " (the shell found no such command)" : "");
}
