#!/bin/bash
# What a user may get wrong: exit code 1, and one message that names it, however many ranks there are.
. "$(dirname "$0")/common.sh"
refused() { # what, pattern of the message, arguments of plumb sft
    local what=$1 pattern=$2
    shift 2
    ranks 2 sft "$@"
    [ "$code" -eq 1 ] || fail "$what: exit code $code"
    has "$work/log" "$pattern"
    [ "$(grep -c '^plumb sft: ' "$work/log")" -eq 1 ] || fail "$what: the message is not there once"
    if grep -qE 'Segmentation|Aborted|signal [0-9]|AddressSanitizer' "$work/log"; then fail "$what: crashed"; fi
}
config=configs/quickstart/sft.yaml
common=(model="$model" max_steps=2 warmup_steps=0 eval_last=4 output_dir="$work/run")

refused "missing configuration" "$work/none.yaml.*No such file" "$work/none.yaml"
refused "missing model" "$work/none: .*[Nn]o such file" $config "${common[@]}" model="$work/none"
refused "missing data" "none.jsonl.*[Nn]o such file" $config "${common[@]}" train_file="$work/none.jsonl"
refused "unknown key" "unknown key 'lerning_rate'; did you mean learning_rate" $config "${common[@]}" lerning_rate=1
refused "key of another command" "beta" $config "${common[@]}" beta=0.1
refused "wrong type" "batch_size.*many" $config "${common[@]}" batch_size=many
refused "out of range" "lora_dropout.*1.5" $config "${common[@]}" lora_dropout=1.5
sed 's/^batch_size:/batch_sise:/' $config >"$work/typo.yaml"
refused "unknown key in the file" "typo.yaml:[0-9]+:1: .*batch_sise.*batch_size" "$work/typo.yaml" "${common[@]}"

printf '%s\n' '{"prompt": "a", "completion": "b"}' '{"prompt": "a", "completion": "b"}' '{"prompt": "a", "completion": ' >"$work/broken.jsonl"
refused "broken record" "broken.jsonl:3" $config "${common[@]}" eval_last=0 field_output=output train_file="$work/broken.jsonl"
printf '%s\n' '{"prompt": "a", "completion": "b"}' '{"prompt": "a", "completion": 3}' >"$work/type.jsonl"
refused "number for a text" "type.jsonl:2.*completion" $config "${common[@]}" eval_last=0 field_output=output train_file="$work/type.jsonl"
printf '{"prompt": "a", "completion": "b"}\n{"prompt": "\xff\xfe", "completion": "b"}\n' >"$work/utf8.jsonl"
refused "invalid UTF-8" "utf8.jsonl:2" $config "${common[@]}" eval_last=0 field_output=output train_file="$work/utf8.jsonl"
: >"$work/empty.jsonl"
refused "empty file" "empty.jsonl" $config "${common[@]}" eval_last=0 field_output=output train_file="$work/empty.jsonl"

damaged() { # name: a copy of the model to be damaged
    mkdir "$work/$1"
    cp "$model"/*.json "$model/model.safetensors" "$work/$1/"
}
damaged short
truncate -s 500000 "$work/short/model.safetensors"
refused "truncated weights" "short/model.safetensors" $config "${common[@]}" model="$work/short"
damaged huge
printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$work/huge/model.safetensors" conv=notrunc status=none
refused "a header of 2^63 bytes" "huge/model.safetensors" $config "${common[@]}" model="$work/huge"
damaged nan
header=$(od -An -tu8 -N8 "$work/nan/model.safetensors" | tr -d ' ')
printf '\x00\x00\xc0\x7f' | dd of="$work/nan/model.safetensors" bs=1 seek=$((8 + header + 4000)) conv=notrunc status=none
refused "NaN weight" "model\.[a-z0-9_.]*weight.*([Nn]a[Nn]|not finite)" $config "${common[@]}" model="$work/nan"
damaged gelu
sed -i 's/"hidden_act": "silu"/"hidden_act": "gelu"/' "$work/gelu/config.json"
refused "another architecture" "hidden_act.*gelu" $config "${common[@]}" model="$work/gelu"
[ ! -e "$work/run/adapter" ] || fail "a refused run has a result"
