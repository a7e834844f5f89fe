/* comm/ on 1 to 4 ranks: every collective against values computed locally, agreement, shared memory, signals. */
#include "mpi_test.h"
#include <math.h>

static void test_mesh(void **state) {
    (void)state;
    check_all(plumb_comm_size(PLUMB_AXIS_DATA) == rank_count && plumb_comm_rank(PLUMB_AXIS_DATA) == my_rank);
    check_all(plumb_comm_size(PLUMB_AXIS_TENSOR) == 1 && plumb_comm_rank(PLUMB_AXIS_TENSOR) == 0);
    check_all(plumb_comm_size(PLUMB_AXIS_PIPELINE) == 1 && plumb_comm_size(PLUMB_AXIS_CONTEXT) == 1);
    check_all(plumb_comm_node_size() >= 1 && plumb_comm_node_rank() < plumb_comm_node_size() && plumb_comm_host()[0]);
    plumb_comm_barrier(PLUMB_AXIS_TENSOR);
    plumb_comm_barrier(PLUMB_AXIS_DATA);
}

/* A value that differs in every rank, element and salt, with rounding that shows the order of summation. */
static double sample(int rank, int64_t i, int salt) {
    return plumb_rng_normal(&(plumb_rng_key){
               .seed = (uint64_t)salt, .sample = (uint32_t)rank, .token = (uint32_t)i, .site = PLUMB_SITE_TEST}) *
           pow(10, (double)((i + rank) % 9));
}

static void test_sums_in_rank_order(void **state) {
    (void)state;
    int64_t sizes[] = {0, 1, 7, 70000};
    for (int s = 0; s < 4; s++) {
        int64_t n = sizes[s], wrong = 0;
        double *values = malloc((size_t)(n + 1) * 8);
        int64_t *whole = malloc((size_t)(n + 1) * 8), *most = malloc((size_t)(n + 1) * 8);
        double *largest = malloc((size_t)(n + 1) * 8);
        for (int64_t i = 0; i < n; i++) {
            values[i] = largest[i] = sample(my_rank, i, 1);
            whole[i] = most[i] = (my_rank - 1) * (i + 1) * 3000000007;
        }
        values[n] = -1, whole[n] = most[n] = -1, largest[n] = -1;
        plumb_comm_sum_f64(PLUMB_AXIS_DATA, values, n);
        plumb_comm_sum_i64(PLUMB_AXIS_DATA, whole, n);
        plumb_comm_max_f64(PLUMB_AXIS_DATA, largest, n);
        plumb_comm_max_i64(PLUMB_AXIS_DATA, most, n);
        for (int64_t i = 0; i < n; i++) {
            double sum = sample(0, i, 1), top = sum;
            int64_t total = 0, high = INT64_MIN;
            for (int r = 1; r < rank_count; r++) sum += sample(r, i, 1), top = fmax(top, sample(r, i, 1));
            for (int r = 0; r < rank_count; r++) {
                total += (r - 1) * (i + 1) * 3000000007;
                high = plumb_max64(high, (r - 1) * (i + 1) * 3000000007);
            }
            wrong += memcmp(&sum, &values[i], 8) != 0 || total != whole[i] || top != largest[i] || high != most[i];
        }
        check_all(wrong == 0);
        check_all(values[n] == -1 && whole[n] == -1 && most[n] == -1 && largest[n] == -1);
        free(values), free(whole), free(most), free(largest);
    }
}

static void test_max_keeps_nan(void **state) {
    (void)state;
    double value[2] = {my_rank == rank_count - 1 ? NAN : 5, my_rank == 0 ? NAN : 5};
    plumb_comm_max_f64(PLUMB_AXIS_DATA, value, 2);
    check_all(isnan(value[0]) && isnan(value[1]));
}

static uint8_t pattern(int rank, size_t i) {
    return (uint8_t)((size_t)rank * 37 + i * 11 + (i >> 8) + (i >> 16) * 3);
}

static void test_bcast(void **state) {
    (void)state;
    size_t sizes[] = {0, 1, 1000, 20000003}; /* the last: pieces of 8 MiB and a rest */
    for (int s = 0; s < 4; s++) {
        int root = s % rank_count;
        size_t n = sizes[s], wrong = 0;
        uint8_t *data = calloc(n + 1, 1);
        for (size_t i = 0; my_rank == root && i < n; i++) data[i] = pattern(root, i);
        data[n] = 99;
        plumb_comm_bcast(PLUMB_AXIS_DATA, data, n, root);
        for (size_t i = 0; i < n; i++) wrong += data[i] != pattern(root, i);
        check_all(wrong == 0 && data[n] == 99);
        free(data);
    }
}

static void test_allgather(void **state) {
    (void)state;
    size_t sizes[] = {0, 1, 4096, 300000, 9000001};
    for (int s = 0; s < 5; s++) {
        size_t n = sizes[s], wrong = 0;
        uint8_t *mine = malloc(n + 1), *all = calloc((size_t)rank_count * n + 1, 1);
        for (size_t i = 0; i < n; i++) mine[i] = pattern(my_rank, i);
        plumb_comm_allgather(PLUMB_AXIS_DATA, mine, n, all);
        for (int r = 0; r < rank_count; r++)
            for (size_t i = 0; i < n; i++) wrong += all[(size_t)r * n + i] != pattern(r, i);
        check_all(wrong == 0 && all[(size_t)rank_count * n] == 0);
        free(mine), free(all);
    }
}

static void test_allgatherv(void **state) {
    (void)state;
    size_t base[] = {1, 5000, 9000000};
    for (int s = 0; s < 3; s++) { /* rank 1 has nothing; a hole of 3 bytes between ranges; mine lies inside all */
        size_t counts[64] = {0}, offsets[64], total = 0, wrong = 0;
        for (int r = 0; r < rank_count; r++) {
            counts[r] = r == 1 ? 0 : base[s] + (size_t)r * 17;
            offsets[r] = total;
            total += counts[r] + 3;
        }
        uint8_t *all = malloc(total);
        memset(all, 200, total);
        for (size_t i = 0; i < counts[my_rank]; i++) all[offsets[my_rank] + i] = pattern(my_rank, i);
        plumb_comm_allgatherv(PLUMB_AXIS_DATA, all + offsets[my_rank], all, counts, offsets);
        for (int r = 0; r < rank_count; r++) {
            for (size_t i = 0; i < counts[r]; i++) wrong += all[offsets[r] + i] != pattern(r, i);
            for (size_t i = 0; i < 3; i++) wrong += all[offsets[r] + counts[r] + i] != 200;
        }
        check_all(wrong == 0);
        free(all);
    }
}

/* Uneven ranges, an empty one, several blocks; in place as well. */
static void test_reduce_scatter_f32(void **state) {
    (void)state;
    int64_t base[] = {3, 100000, 2500000};
    for (int s = 0; s < 3; s++) {
        int64_t counts[64] = {0}, offsets[64], total = 0, wrong = 0;
        for (int r = 0; r < rank_count; r++) {
            counts[r] = r == 2 ? 0 : base[s] + r * 5;
            offsets[r] = total;
            total += counts[r];
        }
        float *values = malloc((size_t)total * sizeof *values),
              *mine = malloc((size_t)(counts[my_rank] + 1) * sizeof *mine);
        for (int64_t i = 0; i < total; i++) values[i] = (float)sample(my_rank, i % 5000, 2);
        mine[counts[my_rank]] = -7;
        plumb_comm_reduce_scatter_f32(PLUMB_AXIS_DATA, values, counts, offsets, mine);
        for (int64_t i = 0; i < counts[my_rank]; i += s == 2 ? 101 : 1) {
            int64_t at = (offsets[my_rank] + i) % 5000;
            float sum = (float)sample(0, at, 2);
            for (int r = 1; r < rank_count; r++) sum += (float)sample(r, at, 2);
            wrong += memcmp(&sum, &mine[i], sizeof sum) != 0;
        }
        check_all(wrong == 0 && mine[counts[my_rank]] == -7);
        plumb_comm_reduce_scatter_f32(PLUMB_AXIS_DATA, values, counts, offsets, values + offsets[my_rank]);
        check_all(!memcmp(values + offsets[my_rank], mine, (size_t)counts[my_rank] * sizeof *mine));
        free(values), free(mine);
    }
}

static void test_reduce_scatter_i64(void **state) {
    (void)state;
    int64_t counts[64] = {0}, offsets[64], total = 0, wrong = 0;
    for (int r = 0; r < rank_count; r++) {
        counts[r] = r == 0 && rank_count > 1 ? 0 : 1200001;
        offsets[r] = total;
        total += counts[r];
    }
    int64_t *values = malloc((size_t)total * 8), *mine = malloc((size_t)(counts[my_rank] + 1) * 8);
    for (int64_t i = 0; i < total; i++) values[i] = (int64_t)1 << 53 | (i * (my_rank + 1));
    plumb_comm_reduce_scatter_i64(PLUMB_AXIS_DATA, values, counts, offsets, mine);
    for (int64_t i = 0; i < counts[my_rank]; i++) {
        int64_t sum = 0;
        for (int r = 0; r < rank_count; r++) sum += (int64_t)1 << 53 | ((offsets[my_rank] + i) * (r + 1));
        wrong += sum != mine[i];
    }
    check_all(wrong == 0);
    free(values), free(mine);
}

static void test_agree(void **state) {
    (void)state;
    check_all(plumb_comm_agree(PLUMB_AXIS_DATA, PLUMB_OK) == PLUMB_OK);
    int guilty = rank_count - 1;
    plumb_status local = PLUMB_OK;
    if (my_rank == guilty) local = plumb_error(PLUMB_E_IO, "disk %d is full", my_rank);
    char expected[200];
    plumb_status agreed = plumb_comm_agree(PLUMB_AXIS_DATA, local);
    check_all(agreed == PLUMB_E_IO);
    snprintf(expected, sizeof expected, rank_count > 1 ? "rank %d (%s): disk %d is full" : "disk 0 is full", guilty,
             plumb_comm_host(), guilty);
    check_all(!strcmp(plumb_error_message(), expected));
    check_all(plumb_comm_agree(PLUMB_AXIS_DATA, agreed) == PLUMB_E_IO); /* agreed on again: the text stays as it is */
    check_all(!strcmp(plumb_error_message(), expected));
    if (rank_count < 3) return;
    /* two fail for different reasons: the lower one is told */
    local = my_rank == 0 ? PLUMB_OK : plumb_error(my_rank == 1 ? PLUMB_E_DATA : PLUMB_E_MEMORY, "reason %d", my_rank);
    check_all(plumb_comm_agree(PLUMB_AXIS_DATA, local) == PLUMB_E_DATA);
    check_all(strstr(plumb_error_message(), "rank 1 (") && strstr(plumb_error_message(), "reason 1") &&
              strstr(plumb_error_message(), "ranks failed"));
}

static void use_shared(bool expect_shared) {
    plumb_shared *s;
    void *memory;
    bool shared;
    size_t n = 1000003;
    check_all(plumb_shared_create(&s, n, &memory, &shared) == PLUMB_OK);
    check_all(((uintptr_t)memory & 63) == 0 && shared == expect_shared);
    uint8_t *bytes = memory;
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) wrong += bytes[i] != 0; /* new memory is zero */
    check_all(wrong == 0);
    if (!shared || plumb_comm_node_rank() == 0)
        for (size_t i = 0; i < n; i++) bytes[i] = pattern(0, i);
    plumb_shared_barrier(s);
    for (size_t i = 0; i < n; i++) wrong += bytes[i] != pattern(0, i);
    check_all(wrong == 0);
    plumb_shared_barrier(s);
    if (my_rank == rank_count - 1) bytes[5] = 123; /* seen by all only where the memory is one */
    plumb_shared_barrier(s);
    check_all((bytes[5] == 123) == (shared || my_rank == rank_count - 1));
    plumb_shared_barrier(s);
    plumb_shared_free(s);
    plumb_shared_free(NULL);
}

static void test_shared_memory(void **state) {
    (void)state;
    if (plumb_comm_node_size() != rank_count) skip();
    use_shared(true);
    setenv("PLUMB_SHM_LIMIT", "1000002", 1); /* one byte short: private memory everywhere */
    use_shared(rank_count == 1);
    setenv("PLUMB_SHM_LIMIT", "1000003", 1);
    use_shared(true);
    unsetenv("PLUMB_SHM_LIMIT");
}

static void test_shared_memory_too_large(void **state) {
    (void)state;
    plumb_shared *s = NULL;
    void *memory;
    bool shared;
    check_all(plumb_shared_create(&s, SIZE_MAX / 2, &memory, &shared) == PLUMB_E_MEMORY && s == NULL);
    check_all(plumb_shared_create(&s, SIZE_MAX, &memory, &shared) == PLUMB_E_MEMORY && s == NULL);
}

static void test_signals(void **state) { /* last: what a signal asked for is not forgotten */
    (void)state;
    check_all(plumb_comm_signal() == PLUMB_SIGNAL_NONE);
    raise(SIGUSR1), raise(SIGUSR1);
    check_all(plumb_comm_signal() == PLUMB_SIGNAL_SAVE);
    raise(SIGTERM), raise(SIGTERM);
    check_all(plumb_comm_signal() == PLUMB_SIGNAL_TERM);
    raise(SIGUSR2);
    check_all(plumb_comm_signal() == PLUMB_SIGNAL_TERM);
}

static void
test_many_small_calls(void **state) { /* latency, and that nothing leaks or mixes when calls follow closely */
    (void)state;
    int64_t wrong = 0;
    double best = 1e9;
    for (int block = 0; block < 10; block++) {
        double start = plumb_clock();
        for (int i = 0; i < 100; i++) {
            int64_t value[2] = {my_rank + i, -my_rank};
            plumb_comm_max_i64(PLUMB_AXIS_DATA, value, 2);
            wrong += value[0] != rank_count - 1 + i || value[1] != 0;
        }
        double each = (plumb_clock() - start) / 100;
        if (each < best) best = each;
    }
    check_all(wrong == 0);
    print_message("small max_i64 on %d ranks: %.1f us\n", rank_count, best * 1e6);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        mpi_test(test_mesh),
        mpi_test(test_sums_in_rank_order),
        mpi_test(test_max_keeps_nan),
        mpi_test(test_bcast),
        mpi_test(test_allgather),
        mpi_test(test_allgatherv),
        mpi_test(test_reduce_scatter_f32),
        mpi_test(test_reduce_scatter_i64),
        mpi_test(test_agree),
        mpi_test(test_shared_memory),
        mpi_test(test_shared_memory_too_large),
        mpi_test(test_many_small_calls),
        mpi_test(test_signals),
    };
    return mpi_test_main(argc, argv, "comm", tests, sizeof tests / sizeof *tests);
}
