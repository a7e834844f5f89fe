#!/bin/bash
# SFT and DPO on two ranks: files, metrics, the resolved configuration, evaluation, --dry-run.
. "$(dirname "$0")/common.sh"
sft=$work/sft dpo=$work/dpo
small="model=$model batch_size=8 warmup_steps=1 eval_last=20"

ranks 2 sft configs/quickstart/sft.yaml $small max_steps=8 learning_rate=1e-3 output_dir="$sft" --dry-run
[ "$code" -eq 0 ] || fail "--dry-run: exit code $code"
for word in parameters trainable "base weights" activations steps tokens; do has "$work/log" "$word"; done
[ ! -e "$sft" ] || fail "--dry-run wrote $sft"

must 2 sft configs/quickstart/sft.yaml $small max_steps=8 learning_rate=1e-3 eval_at_start=true output_dir="$sft"
for file in adapter/adapter_config.json adapter/adapter_model.safetensors config.yaml metrics.jsonl checkpoints/step-000008/manifest.pb; do
    [ -s "$sft/$file" ] || fail "no $file"
done
for key in step loss grad_norm learning_rate num_tokens epoch mean_token_accuracy entropy eval_loss eval_mean_token_accuracy eval_perplexity; do
    has "$sft/metrics.jsonl" "\"$key\": "
done
[ "$(metric "$sft/metrics.jsonl" loss | wc -l)" -eq 8 ] || fail "a line for each step"
[ "$(metric "$sft/metrics.jsonl" eval_loss | wc -l)" -eq 2 ] || fail "a line for each evaluation"
before=$(metric "$sft/metrics.jsonl" eval_loss | head -n 1) after=$(metric "$sft/metrics.jsonl" eval_loss | tail -n 1)
holds "$after < $before - 0.05" "training lowers the held-out loss"

# The resolved configuration is the same run: all values, and the bits of the result.
must 2 sft "$sft/config.yaml" output_dir="$work/again" run_name=sft
same <(grep -v ^output_dir: "$sft/config.yaml") <(grep -v ^output_dir: "$work/again/config.yaml")
same "$sft/adapter/adapter_model.safetensors" "$work/again/adapter/adapter_model.safetensors"

must 2 dpo configs/quickstart/dpo.yaml $small adapter="$sft/adapter" max_steps=6 learning_rate=1e-3 output_dir="$dpo"
for key in loss rewards/chosen rewards/rejected rewards/accuracies rewards/margins logps/chosen logps/rejected eval_rewards/accuracies; do
    has "$dpo/metrics.jsonl" "\"$key\": "
done
# The reference is the policy as it was at the start: ln 2, and no rewards, in the first step.
holds "$(metric "$dpo/metrics.jsonl" loss | head -n 1) - 0.693147181 < 1e-8" "the first loss is ln 2"
holds "0.693147180 - $(metric "$dpo/metrics.jsonl" loss | head -n 1) < 1e-8" "the first loss is ln 2"
holds "$(metric "$dpo/metrics.jsonl" rewards/margins | head -n 1) == 0" "the first margin is 0"
holds "$(metric "$dpo/metrics.jsonl" eval_rewards/margins | tail -n 1) > 0" "the held-out margin grows"

# What eval prints for the adapter is what the run itself measured at its end.
must 2 eval configs/quickstart/eval-answers.yaml model="$model" eval_last=20 adapter="$sft/adapter" output_dir="$work/eval"
found=$(printed "$work/log" loss)
holds "$found - $after < 1e-4 && $after - $found < 1e-4" "eval repeats the last evaluation"
has "$work/eval/eval_results.json" "\"eval_perplexity\": "
must 2 eval configs/quickstart/eval-pairs.yaml model="$model" eval_last=20 adapter="$dpo/adapter"
holds "$(printed "$work/log" rewards/margins) > 0" "pairs against the base model"

# A finished run started again trains nothing.
cp "$sft/adapter/adapter_model.safetensors" "$work/first"
must 2 sft "$sft/config.yaml"
has "$work/log" "resumed from .*step-000008"
same "$sft/adapter/adapter_model.safetensors" "$work/first"
[ "$(metric "$sft/metrics.jsonl" loss | wc -l)" -eq 8 ] || fail "metrics.jsonl has each step once"

# Threads of a rank: the setting, OMP_NUM_THREADS, or the cores that it is bound to.
threads() { # expected, command before plumb
    "${@:2}" "$plumb" sft configs/quickstart/sft.yaml $small max_steps=8 output_dir="$work/none" --dry-run >"$work/log" 2>&1 || fail "--dry-run: exit code $?"
    has "$work/log" "^ranks x threads +1  x $1, "
}
all=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # nproc minds both
threads "$all" env -u OMP_NUM_THREADS
threads "$all" env OMP_NUM_THREADS=abc
threads 1 env OMP_NUM_THREADS=1,7
threads 1 env -u OMP_NUM_THREADS taskset -c "$(taskset -cp $$ | sed -E 's/.*: ([0-9]+).*/\1/')"
threads "$all" env OMP_NUM_THREADS=4000
