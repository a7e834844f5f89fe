/* --dry-run: what a run would cost, from the same tables that the run uses, without taking a step. */
#include "plan.h"
#include <stdio.h>

static double mib(double bytes) { return bytes / 1048576.0; }
static int64_t parameters_of(const plumb_source *s) { /* a scalar head is no row of the table */
    const plumb_params *p = plumb_source_params(s);
    int64_t n = plumb_source_arch(s)->classifier ? plumb_source_arch(s)->hidden : 0;
    for (int i = 0; i < p->count; i++) n += p->items[i].rows * p->items[i].cols;
    return n;
}
static double base_bytes(const plumb_session *s, const plumb_source *source) {
    const plumb_params *p = plumb_source_params(source);
    double bytes = 0;
    for (int i = 0; i < p->count; i++) bytes += (double)s->be->ops->weight_bytes(s->be, p->items[i].rows, p->items[i].cols, plumb_session_storage(s->o));
    return bytes;
}

plumb_status plumb_session_dry_run(plumb_session *s) {
    if (!plumb_is_root()) return PLUMB_OK;
    int64_t parameters = parameters_of(s->source), trainable = plumb_trained_count(s), widest = 0, tokens = s->train.counts.tokens;
    double base = base_bytes(s, s->source);
    for (int64_t i = 0; i < s->train.count; i++) widest = plumb_max64(widest, plumb_sample_cost(&s->train.samples[i]));
    int64_t rows = plumb_max64(widest, s->o->micro_batch_tokens);
    int ranks = plumb_comm_size(PLUMB_AXIS_WORLD);
    double workspace = (double)plumb_model_workspace_bytes(s->model, rows, rows);
    if (s->value_model) {
        parameters += parameters_of(s->value_source), base += base_bytes(s, s->value_source);
        workspace += (double)plumb_model_workspace_bytes(s->value_model, rows, rows);
    }
    if (s->judge_base) parameters += parameters_of(s->judge_base), base += base_bytes(s, s->judge_base);
    double state = (double)trainable * 4 * (2 + 4.0 / ranks + 2 + (s->elastic ? 2 : 0));
    printf("parameters          %12lld  (%.1fM)\n", (long long)parameters, (double)parameters / 1e6);
    printf("trainable           %12lld  (%.2f %%)\n", (long long)trainable, 100.0 * (double)trainable / (double)parameters);
    printf("ranks x threads     %12d  x %d, %s %s\n", ranks, s->be->threads, s->be->compute == PLUMB_COMPUTE_BF16 ? "bf16" : "fp32", s->be->isa);
    printf("base weights        %9.1f MiB  %s\n", mib(base), plumb_model_shared(s->model) ? "once on each node" : "on each rank");
    printf("trainable state     %9.1f MiB  on each rank (values, gradients, AdamW shard)\n", mib(state));
    printf("activations         %9.1f MiB  on each rank at most (%lld tokens)\n", mib(workspace), (long long)rows);
    if (s->command & PLUMB_FOR_ONLINE) {
        printf("keys and values     %9lld MiB  on each rank at most (kv_budget_mb)\n", (long long)s->o->kv_budget_mb);
        printf("start of iteration  %9.1f MiB  on each rank (values and moments, kept to go back to)\n", mib((double)trainable * 12.0 / ranks));
    }
    printf("samples             %12lld  of at most %lld tokens\n", (long long)s->train.count, (long long)widest);
    printf("tokens per epoch    %12lld\n", (long long)tokens);
    printf("steps               %12lld  of %lld %s (%lld per epoch)\n", (long long)s->total_steps, (long long)s->o->batch_size, s->command & PLUMB_FOR_ONLINE ? "completions" : "samples", (long long)s->steps_per_epoch);
    return PLUMB_OK;
}
