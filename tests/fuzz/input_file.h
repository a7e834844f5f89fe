/* For entry points whose subject takes a path: the input as a file in memory. */
#ifndef FUZZ_INPUT_FILE_H
#define FUZZ_INPUT_FILE_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Returns a descriptor to close; `path` (64 bytes) opens the same contents again. */
static inline int input_file(const uint8_t *data, size_t size, char *path) {
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        perror("memfd");
        exit(1);
    }
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}
#endif
