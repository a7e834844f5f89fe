#!/bin/bash
# An adapter folded into its model predicts as the two together; inspect shows what was written.
. "$(dirname "$0")/common.sh"
must 1 sft configs/quickstart/sft.yaml model="$model" max_steps=3 warmup_steps=0 learning_rate=5e-3 eval_last=4 output_dir="$work/run"
loss() { # arguments of eval
    must 1 eval configs/quickstart/eval-answers.yaml eval_last=10 precision=fp32 "$@"
    printed "$work/log" loss
}
"$plumb" merge --model "$model" --adapter "$work/run/adapter" --output "$work/merged" --dtype float32 >"$work/log" 2>&1 || fail "merge: exit code $?"
for file in config.json model.safetensors tokenizer.json; do [ -s "$work/merged/$file" ] || fail "no $file"; done
base=$(loss model="$model") together=$(loss model="$model" adapter="$work/run/adapter") merged=$(loss model="$work/merged")
holds "$together - $merged < 1e-5 && $merged - $together < 1e-5" "merged = base + adapter"
holds "$base - $merged > 1e-3 || $merged - $base > 1e-3" "the adapter changes the model"

"$plumb" inspect "$work/merged" >"$work/log" || fail "inspect: exit code $?"
has "$work/log" "model.layers.4.mlp.down_proj.weight"
"$plumb" inspect --json "$work/run/adapter" >"$work/log" || fail "inspect: exit code $?"
has "$work/log" "lora_A.weight"
"$plumb" merge model="$model" adapter="$work/run/adapter" output_dir="$work/again" dtype=float32 >"$work/log" 2>&1 || fail "merge with keys: exit code $?"
same "$work/merged/model.safetensors" "$work/again/model.safetensors"
if "$plumb" merge --model "$model" --output "$work/merged" >"$work/log" 2>&1; then fail "merge overwrites a model"; fi
has "$work/log" "merged: holds "
