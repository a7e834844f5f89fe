#!/bin/bash
# determinism: elastic gives the same bits on 1, 2 and 3 ranks, and when a run goes on with another number of them.
. "$(dirname "$0")/common.sh"
run() { # ranks, folder, further settings
    local n=$1 folder=$2
    shift 2
    ranks "$n" dpo configs/quickstart/dpo.yaml model="$model" adapter=null lora=true batch_size=6 micro_batch_tokens=300 max_steps=4 warmup_steps=1 eval_last=4 \
        save_steps=2 learning_rate=1e-3 determinism=elastic output_dir="$folder" "$@"
    [ "$code" -eq 0 ] || fail "exit code $code on $n ranks"
}
for n in 1 2 3; do run $n "$work/$n"; done
same "$work/1/adapter/adapter_model.safetensors" "$work/2/adapter/adapter_model.safetensors"
same "$work/1/adapter/adapter_model.safetensors" "$work/3/adapter/adapter_model.safetensors"
same <(metric "$work/1/metrics.jsonl" loss) <(metric "$work/3/metrics.jsonl" loss)

# Two steps on 3 ranks, two more on 1.
rm -r "$work/3/checkpoints/step-000004" "$work/3/adapter"
run 1 "$work/3"
has "$work/log" "resumed from .*step-000002"
same "$work/1/adapter/adapter_model.safetensors" "$work/3/adapter/adapter_model.safetensors"
