/* A run in miniature: resume_program DIR STEPS. Each step changes a distributed array in a way that does not depend on
 * the number of ranks; a signal is agreed on, the state saved, and the program leaves with 75; at the end rank 0 writes
 * DIR/final. It stands for plumb where only the life of a job under a scheduler is tested. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/checkpoint.h"
#include "plumb/io.h"

enum { ELEMENTS = 10007, SAVE_EVERY = 50 };

static int fail(void) {
    fprintf(stderr, "resume_program: %s\n", plumb_error_message());
    plumb_comm_finalize();
    return 1;
}

static plumb_status finish(const char *dir, const plumb_ckpt_array *a) {
    int64_t sum = 0;
    for (int64_t i = 0; i < a->count; i++) sum += ((int64_t *)a->data)[i] % 1000003;
    plumb_comm_sum_i64(PLUMB_AXIS_DATA, &sum, 1);
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s/final", dir);
    int n = snprintf(text, sizeof text, "%lld\n", (long long)sum);
    return plumb_comm_agree(PLUMB_AXIS_DATA,
                            plumb_comm_rank(PLUMB_AXIS_DATA) ? PLUMB_OK : plumb_write_file(path, text, (size_t)n));
}

int main(int argc, char **argv) {
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK || argc != 3) return 2;
    int rank = plumb_comm_rank(PLUMB_AXIS_DATA), size = plumb_comm_size(PLUMB_AXIS_DATA);
    char checkpoints[4096], *path;
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", argv[1]);
    int64_t first = (int64_t)ELEMENTS * rank / size, last = (int64_t)ELEMENTS * (rank + 1) / size, step = 0,
            steps = atoll(argv[2]);
    int64_t *values = calloc((size_t)(last - first), sizeof *values);
    plumb_ckpt_array a = {"values", ELEMENTS, first, last - first, sizeof *values, values};
    plumb_ckpt_counter counter = {"step", 0};
    if (plumb_checkpoint_latest(checkpoints, &path, &step) != PLUMB_OK) return fail();
    if (path && plumb_checkpoint_load(path, "miniature", &a, 1, &counter, 1) != PLUMB_OK) return fail();
    free(path);
    step = counter.value;
    if (rank == 0)
        printf("pid %d: %d ranks begin at step %lld\n", (int)getpid(), size, (long long)step), fflush(stdout);
    for (;;) {
        int64_t wanted = plumb_comm_signal();
        plumb_comm_doing("step", step);
        plumb_comm_max_i64(PLUMB_AXIS_DATA, &wanted, 1);
        if (wanted != PLUMB_SIGNAL_NONE || step % SAVE_EVERY == 0 || step == steps) {
            counter.value = step;
            if (plumb_checkpoint_save(checkpoints, step, "miniature", &a, 1, &counter, 1, 2) != PLUMB_OK) return fail();
        }
        if (wanted != PLUMB_SIGNAL_NONE || step == steps) {
            if (wanted == PLUMB_SIGNAL_NONE && finish(argv[1], &a) != PLUMB_OK) return fail();
            free(values);
            plumb_comm_finalize();
            return wanted == PLUMB_SIGNAL_NONE ? 0 : PLUMB_EXIT_RESUME;
        }
        for (int64_t i = 0; i < a.count; i++) values[i] = (values[i] * 31 + (first + i) + step) % 1000000007;
        usleep(10000);
        step++;
    }
}
