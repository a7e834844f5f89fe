/* save_program save DIR     saves one checkpoint after another, continuing from the newest one, until it is killed
 * save_program check DIR    loads the newest checkpoint and compares every element with what its step must hold
 * save_program full DIR     rank 1 hits its file-size limit: the save must fail everywhere and leave only the older
 * checkpoint */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "plumb/checkpoint.h"
#include "plumb/io.h"

enum { ELEMENTS = 300007 };

static uint32_t element(int64_t step, int64_t i, int array) {
    return (uint32_t)(step * 2654435761 + i * 40503 + array * 977);
}

static int fail(const char *what) {
    fprintf(stderr, "save_program: %s: %s\n", what, plumb_error_message());
    plumb_comm_abort(1);
    return 1;
}

static int check(const char *dir, plumb_ckpt_array *arrays, int n) {
    char *path;
    int64_t step, wrong = 0;
    if (plumb_checkpoint_latest(dir, &path, &step) != PLUMB_OK) return fail("latest");
    if (!path) {
        printf("none\n");
        return 0;
    }
    plumb_ckpt_counter counter = {"samples", 0};
    if (plumb_checkpoint_load(path, "kill test", arrays, n, &counter, 1) != PLUMB_OK) return fail("load");
    for (int a = 0; a < n; a++)
        for (int64_t i = 0; i < arrays[a].count; i++)
            wrong += ((uint32_t *)arrays[a].data)[i] != element(step, arrays[a].first + i, a);
    plumb_comm_sum_i64(PLUMB_AXIS_DATA, &wrong, 1);
    if (wrong || counter.value != step * 10) return fail("the newest checkpoint holds wrong values");
    if (plumb_comm_rank(PLUMB_AXIS_DATA) == 0) printf("%lld\n", (long long)step);
    free(path);
    return 0;
}

static plumb_status save(const char *dir, int64_t step, plumb_ckpt_array *arrays, int n) {
    for (int a = 0; a < n; a++)
        for (int64_t i = 0; i < arrays[a].count; i++)
            ((uint32_t *)arrays[a].data)[i] = element(step, arrays[a].first + i, a);
    return plumb_checkpoint_save(dir, step, "kill test", arrays, n, &(plumb_ckpt_counter){"samples", step * 10}, 1, 2);
}

int main(int argc, char **argv) {
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK || argc != 3) return 2;
    int rank = plumb_comm_rank(PLUMB_AXIS_DATA), size = plumb_comm_size(PLUMB_AXIS_DATA), code = 0;
    const char *names[] = {"weights", "moments", "scales"};
    plumb_ckpt_array arrays[3];
    for (int a = 0; a < 3; a++) {
        int64_t total = ELEMENTS + 1000 * a, first = total * rank / size, last = total * (rank + 1) / size;
        arrays[a] = (plumb_ckpt_array){
            names[a], total, first, last - first, sizeof(uint32_t), malloc((size_t)(last - first) * 4)};
    }
    if (!strcmp(argv[1], "check"))
        code = check(argv[2], arrays, 3);
    else if (!strcmp(argv[1], "full")) {
        if (save(argv[2], 1, arrays, 3) != PLUMB_OK) return fail("first save");
        if (rank == size - 1) setrlimit(RLIMIT_FSIZE, &(struct rlimit){100000, 100000});
        if (save(argv[2], 2, arrays, 3) != PLUMB_E_IO) return fail("the save did not fail");
        if (rank == 0) printf("%s\n", plumb_error_message());
        if (rank == size - 1) setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
    } else {
        char *path;
        int64_t step;
        if (plumb_checkpoint_latest(argv[2], &path, &step) != PLUMB_OK) return fail("latest");
        int64_t leave = 0;
        for (step = path ? step + 1 : 1; !leave; step++) {
            if (save(argv[2], step, arrays, 3) != PLUMB_OK) return fail("save");
            if (rank == 0) printf("%lld\n", (long long)step), fflush(stdout); /* a promise: this step will be found */
            leave = plumb_comm_signal();
            plumb_comm_max_i64(PLUMB_AXIS_DATA, &leave, 1);
        }
        free(path);
    }
    for (int a = 0; a < 3; a++) free(arrays[a].data);
    plumb_comm_finalize();
    return code;
}
