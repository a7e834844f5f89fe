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
    int fd, users;
    char *path;
    struct stat file;
    plumb_claim *next;
};

/* Those of this process: a lock is the process's, and closing any descriptor of its file would end it, so a folder's is opened once. Claims
 * are taken and freed by one thread. */
static plumb_claim *held;

static plumb_claim *find_held(const char *path) {
    struct stat there;
    if (stat(path, &there)) return NULL;
    for (plumb_claim *c = held; c; c = c->next)
        if (c->file.st_ino == there.st_ino && c->file.st_dev == there.st_dev) return c;
    return NULL;
}

/* Opens and locks the file; *taken: by another. Where the lock is of a file that its last owner has removed, perhaps with the folder,
 * there is another file by now. */
static plumb_status attempt(plumb_claim *c, const char *dir, bool *taken) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat there;
    *taken = false;
    PLUMB_TRY(plumb_make_dirs(dir));
    if (c->fd < 0 && (c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        return plumb_error(PLUMB_E_IO, "%s: cannot open: %m", c->path);
    if (fcntl(c->fd, F_SETLK, &whole) != 0) {
        *taken = errno == EACCES || errno == EAGAIN; /* else there are no locks */
        if (!*taken && fstat(c->fd, &c->file)) return plumb_error(PLUMB_E_IO, "%s: cannot read its state: %m", c->path);
        return PLUMB_OK;
    }
    if (!fstat(c->fd, &c->file) && !stat(c->path, &there) && c->file.st_ino == there.st_ino && c->file.st_dev == there.st_dev)
        return PLUMB_OK;
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
        PLUMB_TRY(attempt(c, dir, &taken));
    }
    if (!taken) return say_who(c);
    ssize_t n = c->fd < 0 ? 0 : pread(c->fd, who, sizeof who - 1, 0);
    who[n > 0 ? n : 0] = 0;
    return plumb_error(PLUMB_E_CONFIG, "%s: another run writes here (%s); expected another output folder, or its end", dir,
                       *who ? who : "it has not said which");
}

plumb_status plumb_claim_take(plumb_claim **out, const char *dir) {
    char *path;
    plumb_claim *c;
    *out = NULL;
    PLUMB_TRY(plumb_path_join(&path, dir, ".lock"));
    if ((c = find_held(path))) {
        c->users++;
        *out = c;
        free(path);
        return PLUMB_OK;
    }
    plumb_status status = plumb_alloc(&c, 1, sizeof *c, "a lock");
    if (status != PLUMB_OK) {
        free(path);
        return status;
    }
    *c = (plumb_claim){.fd = -1, .users = 1, .path = path};
    status = take(c, dir);
    if (status == PLUMB_OK) {
        c->next = held;
        *out = held = c;
        return PLUMB_OK;
    }
    if (c->fd >= 0) close(c->fd);
    free(path);
    free(c);
    return status;
}

void plumb_claim_free(plumb_claim *c) {
    if (!c || --c->users) return;
    plumb_claim **at = &held;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    unlink(c->path);
    close(c->fd);
    free(c->path);
    free(c);
}
