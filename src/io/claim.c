/* One writer for a folder.
 *
 *     DIR/.lock     "host H, pid P", under a POSIX lock of its writer's process
 *
 * The lock goes with the process, however that ends, so that nothing has to be cleaned up after a kill; the text is for the message of
 * whoever finds it taken. A run that was killed a moment ago may not have ended yet, which is why a taken lock is waited for a little.
 * Some file systems know no locks: there nobody is kept out. */
#include "io_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 50, PAUSE_MS = 100, WHO = 400 };

struct plumb_claim {
    int fd;
    char *path;
};

/* Opens and locks the file; *taken: by another. Where the lock is of a file that its last owner has removed, the
 * folder has another by now. */
static plumb_status attempt(plumb_claim *c, bool *taken) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat mine, there;
    *taken = false;
    if (c->fd < 0 && (c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        return plumb_error(PLUMB_E_IO, "%s: cannot open: %m", c->path);
    if (fcntl(c->fd, F_SETLK, &whole) != 0) {
        *taken = errno == EACCES || errno == EAGAIN; /* else there are no locks */
        return PLUMB_OK;
    }
    if (!fstat(c->fd, &mine) && !stat(c->path, &there) && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) return PLUMB_OK;
    close(c->fd);
    c->fd = -1;
    *taken = true;
    return PLUMB_OK;
}

static plumb_status say_who(const plumb_claim *c) {
    char who[WHO] = "";
    gethostname(who, WHO - 32);
    who[WHO - 32] = 0;
    size_t n = strlen(who);
    n += (size_t)snprintf(who + n, 32, ", pid %ld", (long)getpid());
    if (!ftruncate(c->fd, 0) && pwrite(c->fd, who, n, 0) == (ssize_t)n) return PLUMB_OK;
    return plumb_error(PLUMB_E_IO, "%s: cannot write: %m", c->path);
}

static plumb_status take(plumb_claim *c, const char *dir) {
    char who[WHO] = "";
    bool taken = true;
    for (int i = 0; taken && i < TRIES; i++) {
        if (i) nanosleep(&(struct timespec){0, PAUSE_MS * 1000000L}, NULL);
        PLUMB_TRY(attempt(c, &taken));
    }
    if (!taken) return say_who(c);
    ssize_t n = c->fd < 0 ? 0 : pread(c->fd, who, sizeof who - 1, 0);
    who[n > 0 ? n : 0] = 0;
    return plumb_error(PLUMB_E_CONFIG, "%s: another run writes here (%s); expected another output folder, or its end", dir,
                       *who ? who : "it has not said which");
}

plumb_status plumb_claim_take(plumb_claim **out, const char *dir) {
    plumb_claim *c;
    *out = NULL;
    PLUMB_TRY(plumb_alloc(&c, 1, sizeof *c, "a lock"));
    c->fd = -1;
    plumb_status status = plumb_path_join(&c->path, dir, ".lock");
    if (status == PLUMB_OK) status = take(c, dir);
    if (status == PLUMB_OK) {
        *out = c;
        return PLUMB_OK;
    }
    if (c->fd >= 0) close(c->fd);
    free(c->path);
    free(c);
    return status;
}

void plumb_claim_free(plumb_claim *c) {
    if (!c) return;
    unlink(c->path);
    close(c->fd);
    free(c->path);
    free(c);
}
