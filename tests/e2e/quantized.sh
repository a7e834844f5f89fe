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
# The instruction sets with fused multiply-adds have one result in fp32 where rows are whole numbers.
for isa in avx2 avx512 avx512bf16; do
    ranks 1 eval configs/quickstart/eval-answers.yaml model="$model" eval_last=20 precision=fp32 base_weights=w4a8 isa=$isa
    [ "$code" -eq 0 ] && printed "$work/log" loss >>"$work/losses"
done
[ ! -s "$work/losses" ] || [ "$(sort -u "$work/losses" | wc -l)" -eq 1 ] || fail "w4a8 in fp32: $(tr '\n' ' ' <"$work/losses")"
# Rows in 8 bits are something else than rows in bf16 or fp32.
if cmp -s "$work/int8-1/adapter/adapter_model.safetensors" "$work/w8a8-1/adapter/adapter_model.safetensors"; then fail "w8a8 computes what int8 does"; fi
run 2 fp32 w4a8 precision=fp32
[ "$(metric "$work/fp32/metrics.jsonl" policy/first_log_ratio | tr '\n' ' ')" = "0 0 0 0 " ] || fail "w4a8 in fp32: the log-ratio at the first update is not 0"
# A run does not go on with rows of another kind.
ranks 1 sft configs/quickstart/sft.yaml model="$model" batch_size=8 warmup_steps=0 max_steps=2 eval_steps=0 base_weights=w8a8 output_dir="$work/sft"
[ "$code" -eq 0 ] || fail "sft in w8a8: exit code $code"
ranks 1 sft configs/quickstart/sft.yaml model="$model" batch_size=8 warmup_steps=0 max_steps=2 eval_steps=0 base_weights=int8 output_dir="$work/sft"
[ "$code" -eq 1 ] || fail "a run in w8a8 went on in int8"
has "$work/log" w8a8

# Where everything trains nothing is left to be packed, and --dry-run counts none.
ranks 1 sft configs/quickstart/sft.yaml model="$model" warmup_steps=0 max_steps=2 lora=false base_weights=int8 output_dir="$work/no" --dry-run
has "$work/log" '^base weights +0\.0 MiB'

# A held-out loss moves little.
for storage in native int8 w8a8 int4 w4a8; do
    must 2 eval configs/quickstart/eval-answers.yaml model="$model" eval_last=20 base_weights=$storage
    declare "loss_$storage=$(printed "$work/log" loss)"
done
holds "$loss_int8 - $loss_native < 0.02 && $loss_native - $loss_int8 < 0.02" "int8 changes the loss"
holds "$loss_w8a8 - $loss_native < 0.03 && $loss_native - $loss_w8a8 < 0.03" "w8a8 changes the loss"
holds "$loss_int4 - $loss_native < 0.06 && $loss_native - $loss_int4 < 0.06" "int4 changes the loss"
holds "$loss_w4a8 - $loss_int4 < 0.03 && $loss_int4 - $loss_w4a8 < 0.03" "w4a8 changes the loss of int4"

ranks 1 eval configs/quickstart/eval-answers.yaml model="$model" base_weights=w4a4
[ "$code" -eq 1 ] || fail "base_weights=w4a4: exit code $code"
has "$work/log" "expected one of native, int8, int4, w8a8, w4a8"
