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

# A file-size limit is an error with a message, and leaves no file.
(
    ulimit -f 64
    "$plumb" merge --model "$model" --output "$work/limited" --dtype float32 >"$work/log" 2>&1
) && fail "a file-size limit was not noticed"
has "$work/log" "^plumb merge: .*model.safetensors: cannot write: File too large"
[ -z "$(ls "$work/limited" | grep -E '[.]part$|^config.json$')" ] || fail "left behind: $(ls "$work/limited")"

# A reward model reads an end token: as padding it would be passed over by transformers, so it is not named.
cp -r "$model" "$work/padded"
sed -E 's/"pad_token_id": [^,]*/"pad_token_id": 2/' "$model/config.json" >"$work/padded/config.json"
has "$work/padded/config.json" '"pad_token_id": 2'
must 1 reward model="$work/padded" train_file=$pairs max_length=300 max_steps=1 batch_size=4 report=false output_dir="$work/reward"
"$plumb" merge --model "$work/padded" --adapter "$work/reward/adapter" --output "$work/classifier" >"$work/log" 2>&1 || fail "merge: exit code $?"
has "$work/classifier/config.json" '"pad_token_id": null'
"$plumb" merge --model "$work/padded" --output "$work/language" >"$work/log" 2>&1 || fail "merge: exit code $?"
has "$work/language/config.json" '"pad_token_id": 2'
