#!/bin/bash
# A frozen base in 8 and 4 bits: sampler and trainer still see the same numbers on any number of ranks, the policy learns, what is not known is refused.
. "$(dirname "$0")/common.sh"
cat >"$work/prompts.jsonl" <<-'END'
	{"prompt": "Once upon a time"}
	{"prompt": "The little dog"}
	{"prompt": "Lily was happy because she"}
END
run() { # ranks, folder, storage, further settings
    must "$1" grpo model="$model" train_file="$work/prompts.jsonl" reward_funcs=regex:Lily num_generations=4 batch_size=8 max_completion_length=30 max_steps=4 learning_rate=2e-3 beta=0.02 \
        micro_batch_tokens=100 determinism=elastic base_weights="$3" output_dir="$work/$2" "${@:4}"
}
for storage in int8 int4 w8a8 w4a8; do
    run 1 "$storage-1" $storage
    run 2 "$storage-2" $storage
    same "$work/$storage-1/adapter/adapter_model.safetensors" "$work/$storage-2/adapter/adapter_model.safetensors"
    [ "$(metric "$work/$storage-2/metrics.jsonl" policy/first_log_ratio | tr '\n' ' ')" = "0 0 0 0 " ] || fail "$storage: the log-ratio at the first update is not 0"
    [ "$(metric "$work/$storage-2/metrics.jsonl" kl | head -n 1)" = 0 ] || fail "$storage: KL is not 0 at the first iteration"
done
# Rows in 8 bits are something else than rows in bf16 or fp32.
if cmp -s "$work/int8-1/adapter/adapter_model.safetensors" "$work/w8a8-1/adapter/adapter_model.safetensors"; then fail "w8a8 computes what int8 does"; fi
run 2 fp32 w4a8 precision=fp32

# A held-out loss moves little.
for storage in native int8 w8a8; do
    must 2 eval configs/quickstart/eval-answers.yaml model="$model" eval_last=20 base_weights=$storage
    declare "loss_$storage=$(printed "$work/log" loss)"
done
holds "$loss_int8 - $loss_native < 0.02 && $loss_native - $loss_int8 < 0.02" "int8 changes the loss"
holds "$loss_w8a8 - $loss_native < 0.03 && $loss_native - $loss_w8a8 < 0.03" "w8a8 changes the loss"

ranks 1 eval configs/quickstart/eval-answers.yaml model="$model" base_weights=w4a4
[ "$code" -eq 1 ] || fail "base_weights=w4a4: exit code $code"
has "$work/log" "native, int8, int4, w8a8|native\|int8\|int4\|w8a8\|w4a8"
