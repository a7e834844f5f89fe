/* --dry-run: what a run would cost, from the same tables that the run uses, without taking a step. */
#include "online.h"
#include "plan.h"
#include <stdio.h>

static double mib(double bytes) { return bytes / 1048576.0; }
static int64_t parameters_of(const plumb_source *s) { /* a scalar head is no row of the table */
    const plumb_params *p = plumb_source_params(s);
    int64_t n = plumb_source_arch(s)->classifier ? plumb_source_arch(s)->hidden : 0;
    for (int i = 0; i < p->count; i++) n += p->items[i].rows * p->items[i].cols;
    return n;
}
static double judge_bytes(const plumb_session *s, const plumb_source *source) {
    const plumb_params *p = plumb_source_params(source);
    double bytes = 0;
    for (int i = 0; i < p->count; i++)
        bytes += (double)s->be->ops->weight_bytes(s->be, p->items[i].rows, p->items[i].cols, plumb_session_storage(s->o));
    return bytes;
}

/* Of what trains: values, gradients, what the optimizer holds, and the copies that products read. */
static double state_bytes(const plumb_session *s, const plumb_model *m, int ranks) {
    double bytes = (double)plumb_model_trainable_count(m) * 4 * (2 + 4.0 / ranks + 2 + (s->elastic ? 2 : 0));
    int count;
    const plumb_trainable *t = plumb_model_trainables(m, &count);
    for (int i = 0; i < count; i++)
        if (t[i].rows > 1) bytes += (double)s->be->ops->weight_bytes(s->be, t[i].rows, t[i].cols, PLUMB_STORE_NATIVE);
    return bytes;
}

/* Best of n trains nothing: what it costs is what it samples. */
static void print_sampling(const plumb_session *s, int64_t tokens, int64_t widest) {
    int64_t prompts = s->train.count, n = s->o->num_generations, chunk = plumb_online_chunk(s->o),
            positions = plumb_source_arch(s->source)->max_positions, generated = 0;
    for (int64_t i = 0; i < prompts; i++)
        generated += n * plumb_min64(s->o->max_completion_length, positions - s->train.samples[i].prompt_count);
    printf("prompts             %12lld  of at most %lld tokens, %lld together\n", (long long)prompts, (long long)widest, (long long)tokens);
    printf("completions         %12lld  (%lld of each prompt)\n", (long long)(prompts * n), (long long)n);
    printf("tokens to generate  %12lld  at most (max_completion_length %lld)\n", (long long)generated,
           (long long)s->o->max_completion_length);
    printf("chunks              %12lld  of %lld completions, each kept when it is done\n", (long long)((prompts + chunk - 1) / chunk),
           (long long)(chunk * n));
}

plumb_status plumb_session_dry_run(plumb_session *s) {
    if (!plumb_is_root()) return PLUMB_OK;
    int64_t parameters = parameters_of(s->source), trainable = plumb_trained_count(s), widest = 0, tokens = s->train.counts.tokens;
    double base = (double)plumb_model_base_bytes(s->model), state = 0;
    for (int64_t i = 0; i < s->train.count; i++) widest = plumb_max64(widest, plumb_sample_cost(&s->train.samples[i]));
    int64_t rows = plumb_max64(widest, s->o->micro_batch_tokens);
    int ranks = plumb_comm_size(PLUMB_AXIS_WORLD);
    bool trains = s->command & PLUMB_FOR_TRAINING;
    double workspace = (double)plumb_model_workspace_bytes(s->model, rows, rows);
    if (s->value_model) {
        parameters += parameters_of(s->value_source), base += (double)plumb_model_base_bytes(s->value_model);
        state += state_bytes(s, s->value_model, ranks);
        workspace += (double)plumb_model_workspace_bytes(s->value_model, rows, rows);
    }
    if (s->judge_base) parameters += parameters_of(s->judge_base), base += judge_bytes(s, s->judge_base);
    state += state_bytes(s, s->model, ranks);
    printf("parameters          %12lld  (%.1fM)\n", (long long)parameters, (double)parameters / 1e6);
    if (trains) printf("trainable           %12lld  (%.2f %%)\n", (long long)trainable, 100.0 * (double)trainable / (double)parameters);
    printf("ranks x threads     %12d  x %d, %s %s\n", ranks, s->be->threads, s->be->compute == PLUMB_COMPUTE_BF16 ? "bf16" : "fp32",
           s->be->isa);
    printf("base weights        %9.1f MiB  %s\n", mib(base), plumb_model_shared(s->model) ? "once on each node" : "on each rank");
    if (trains) printf("trainable state     %9.1f MiB  on each rank (values, gradients, AdamW shard, copies for products)\n", mib(state));
    printf("activations         %9.1f MiB  on each rank at most (%lld tokens)\n", mib(workspace), (long long)rows);
    if (s->command & (PLUMB_FOR_ONLINE | PLUMB_FOR_BESTOFN))
        printf("keys and values     %9lld MiB  on each rank at most (kv_budget_mb)\n", (long long)s->o->kv_budget_mb);
    if (s->command == PLUMB_FOR_BESTOFN) {
        print_sampling(s, tokens, widest);
        return PLUMB_OK;
    }
    if (s->command & PLUMB_FOR_ONLINE)
        printf("start of iteration  %9.1f MiB  on each rank (values and moments, kept to go back to)\n",
               mib((double)trainable * 12.0 / ranks));
    printf("samples             %12lld  of at most %lld tokens\n", (long long)s->train.count, (long long)widest);
    printf("tokens per epoch    %12lld\n", (long long)tokens);
    printf("steps               %12lld  of %lld %s (%lld per epoch)\n", (long long)s->total_steps, (long long)s->o->batch_size,
           s->command & PLUMB_FOR_ONLINE ? "completions" : "samples", (long long)s->steps_per_epoch);
    return PLUMB_OK;
}
