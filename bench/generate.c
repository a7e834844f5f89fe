/* How fast does the rollout engine complete prompts? mpirun -n RANKS bench_generate MODEL PAIRS.jsonl[.gz] BATCH fp32|bf16
 * native|int8|int4|w8a8|w4a8 [THREADS [NEW_TOKENS [ROUNDS]]]
 *
 * BATCH prompts (the first of the file), at most 256 tokens of each, split over the ranks, NEW_TOKENS tokens each: no end token stops
 * them. Prints, of the best round: tokens/s with and without the time of the first pass (prefill), and seconds per pass. Then, of all
 * rounds: how many bytes of weights a second a rank has read in passes, beside what plain reading of memory by as many ranks and threads
 * gave in turns with the rounds. (Keys and values come on top of the weights.) */
#include "plumb/comm.h"
#include "plumb/data.h"
#include "plumb/rollout.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ceiling.h"

enum { MOST_PROMPT = 256 };
static double first_pass;
static bool note_first(void *user, const plumb_rollout_stats *s, int64_t requests) {
    (void)user, (void)requests;
    if (s->steps == 1) first_pass = s->seconds;
    return true;
}
static int fail(void) {
    fprintf(stderr, "bench_generate: %s\n", plumb_error_message());
    return 1;
}

/* Bytes of the matrices that every pass reads. */
static double matrix_bytes(const plumb_source *source, plumb_backend *be, plumb_storage storage) {
    const plumb_params *p = plumb_source_params(source);
    double bytes = 0;
    bool tied = plumb_params_find(p, PLUMB_ROLE_HEAD, -1, false) < 0;
    for (int i = 0; i < p->count; i++)
        if (p->items[i].rows > 1 && (p->items[i].role != PLUMB_ROLE_EMBED || tied))
            bytes += (double)be->ops->weight_bytes(be, p->items[i].rows, p->items[i].cols, storage);
    return bytes;
}

int main(int argc, char **argv) {
    if (argc < 6)
        return fprintf(stderr, "usage: bench_generate MODEL PAIRS BATCH fp32|bf16 native|int8|int4|w8a8|w4a8 "
                               "[THREADS [NEW_TOKENS [ROUNDS]]]\n"), 2;
    plumb_backend *be;
    plumb_source *source;
    plumb_tokenizer *tokenizer;
    plumb_dataset data;
    plumb_model *m;
    plumb_rollout *engine;
    const char *note = NULL;
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK) return fail();
    int64_t batch = atoll(argv[3]), tokens = argc > 7 ? atoll(argv[7]) : 64, rank = plumb_comm_rank(PLUMB_AXIS_WORLD),
            ranks = plumb_comm_size(PLUMB_AXIS_WORLD);
    int threads = argc > 6 ? atoi(argv[6]) : 1, rounds = argc > 8 ? atoi(argv[8]) : 3;
    plumb_storage storage;
    if (!plumb_storage_named(argv[5], &storage))
        return fprintf(stderr, "bench_generate: %s is not native, int8, int4, w8a8 or w4a8\n", argv[5]), 2;
    if (plumb_backend_create(&be, &(plumb_backend_options){.backend = "cpu", .isa = "auto", .precision = argv[4], .threads = threads},
                             &note) != PLUMB_OK)
        return fail();
    if (plumb_source_open(&source, argv[1]) != PLUMB_OK || plumb_tokenizer_load(&tokenizer, argv[1]) != PLUMB_OK) return fail();
    plumb_data_options d = {.kind = PLUMB_DATA_PROMPTS, .path = argv[2]};
    if (plumb_dataset_load(&data, tokenizer, &d) != PLUMB_OK) return fail();
    if (plumb_model_create(&m, be, source, &(plumb_model_options){.frozen = storage}) != PLUMB_OK) return fail();
    int64_t first = batch * rank / ranks, n = batch * (rank + 1) / ranks - first, prompt_tokens = 0;
    plumb_rollout_request *requests = calloc((size_t)n + 1, sizeof *requests);
    plumb_completion *out = calloc((size_t)n + 1, sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const plumb_sample *x = &data.samples[(first + i) % data.count];
        int64_t count = plumb_min64(x->prompt_count, MOST_PROMPT);
        requests[i] = (plumb_rollout_request){x->prompt, count, (uint32_t)(first + i), 0};
        prompt_tokens += count;
    }
    plumb_rollout_options o = {.sampling = {.do_sample = true,
                                            .temperature = 1,
                                            .top_p = 1,
                                            .typical_p = 1,
                                            .repetition_penalty = 1,
                                            .min_new_tokens = tokens,
                                            .max_new_tokens = tokens},
                               .batch = plumb_max64(n, 1),
                               .prefill_tokens = 1 << 20,
                               .threads = threads,
                               .progress = note_first};
    if (plumb_rollout_create(&engine, m, &o) != PLUMB_OK) return fail();
    double best = 1e30, best_decode = 1e30, decode = 0, reading = 0;
    int64_t read_bytes = (int64_t)256 << 20;
    char *memory = bench_large_block((size_t)read_bytes);
    int reads = 0;
    for (int r = 0; r < rounds; r++) {
        plumb_rollout_stats stats = {0};
        plumb_comm_barrier(PLUMB_AXIS_WORLD);
        double began = plumb_clock();
        if (n && plumb_rollout_run(engine, requests, n, out, &stats) != PLUMB_OK) return fail();
        double seconds[2] = {plumb_clock() - began, stats.seconds - first_pass};
        plumb_comm_max_f64(PLUMB_AXIS_WORLD, seconds, 2);
        if (seconds[0] < best) best = seconds[0];
        if (seconds[1] < best_decode) best_decode = seconds[1];
        decode += seconds[1];
        plumb_comm_barrier(PLUMB_AXIS_WORLD);
        for (double until = plumb_clock() + 0.2; plumb_clock() < until; reads++)
            reading += (double)read_bytes / bench_read(memory, read_bytes, threads) / 1e9;
    }
    plumb_comm_sum_i64(PLUMB_AXIS_WORLD, &prompt_tokens, 1);
    double bytes = matrix_bytes(source, be, storage), rate = bytes * (double)((tokens - 1) * rounds) / decode / 1e9,
           plain = (double)read_bytes * reads / reading / 1e9;
    if (rank == 0) {
        printf("batch %3lld  %s %-6s  %lld ranks x %d threads: %8.1f tokens/s, prompts (%lld tokens) included; %8.1f decoding alone, %6.2f "
               "ms a pass\n",
               (long long)batch, argv[4], argv[5], (long long)ranks, threads, (double)(batch * tokens) / best, (long long)prompt_tokens,
               (double)(batch * (tokens - 1)) / best_decode, 1e3 * best_decode / (double)(tokens - 1));
        if (tokens > 1)
            printf("    %.0f MB of weights a pass: %.1f GB/s over %d rounds, %.0f %% of %.1f read in turns with them\n", bytes / 1e6, rate,
                   rounds, 100 * rate / plain, plain);
    }
    plumb_rollout_free(engine);
    plumb_model_free(m);
    for (int64_t i = 0; i < n; i++) plumb_completion_free(&out[i]);
    free(requests), free(out), free(memory);
    plumb_dataset_free(&data);
    plumb_tokenizer_free(tokenizer);
    plumb_source_close(source);
    plumb_backend_free(be);
    plumb_comm_finalize();
    return 0;
}
