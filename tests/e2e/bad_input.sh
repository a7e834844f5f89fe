#!/bin/bash
# What a user may get wrong: exit code 1, and one message that names it, however many ranks there are.
. "$(dirname "$0")/common.sh"
command=sft
refused() { # what, pattern of the message, arguments of the command
    local what=$1 pattern=$2
    shift 2
    ranks 2 $command "$@"
    [ "$code" -eq 1 ] || fail "$what: exit code $code"
    has "$work/log" "$pattern"
    [ "$(grep -c "^plumb $command: " "$work/log")" -eq 1 ] || fail "$what: the message is not there once"
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

# Lengths that the model cannot do: a default becomes what it can, with a line that says so and in the run's config.yaml; what is written is refused.
long=$(printf 'word %.0s' {1..700})
echo "{\"prompt\": \"$long\", \"chosen\": \"a\", \"rejected\": \"b\"}" >"$work/long.jsonl"
echo '{"prompt": "Hi", "chosen": "a", "rejected": "b"}' >"$work/short.jsonl"
pair=(model="$model" max_steps=1 output_dir="$work/lengths" train_file="$work/short.jsonl")
must 2 dpo "${pair[@]}"
has "$work/log" "^max_length: 512, as the model has 512 positions \(the default is 1024\)$"
must 1 dpo "$work/lengths/config.yaml" max_steps=1
has "$work/lengths/config.yaml" "^max_length: 512$"
command=dpo
refused "more than the positions" "max_length: found 1024; expected at most 512, as the model has 512 positions" "${pair[@]}" max_length=1024
refused "no limit" "long.jsonl: record 1 has [0-9]+ tokens, the model 512 positions" "${pair[@]}" train_file="$work/long.jsonl" max_length=0
command=reward
refused "all dropped" "long.jsonl: no usable sample in 1 records: .*1 too long for max_length 512" "${pair[@]}" train_file="$work/long.jsonl"
command=bestofn
best=(model="$model" input_file="$work/short.jsonl" output_file="$work/best.jsonl" reward_funcs=length:20 max_completion_length=5 num_generations=2)
refused "no room for a token" "max_prompt_length: found 512; expected at most 511" "${best[@]}" max_prompt_length=512
refused "no room for a prompt" "max_completion_length: found 512; expected at most 511, as the model has 512 positions" "${best[@]}" max_completion_length=512
refused "all prompts dropped" "1 too long for max_prompt_length 511" "${best[@]}" input_file="$work/long.jsonl"
refused "the result in place of the records" "output_file: found $work/../.*/short.jsonl, which is input_file" "${best[@]}" output_file="$work/../$(basename "$work")/short.jsonl"
refused "resume from a path" "resume: found '/x'; expected auto or never" "${best[@]}" resume=/x
for name in ppo grpo rloo; do
    command=$name
    refused "no room for a prompt" "max_completion_length: found 600; expected at most 511" model="$model" train_file="$work/short.jsonl" output_dir="$work/no" reward_funcs=length:20 max_completion_length=600
done
command=bestofn
must 1 "$command" "${best[@]}" max_completion_length=511 --dry-run
has "$work/log" "max_completion_length: 1 of 1 prompts leave room for fewer tokens, as the model has 512 positions"
cp -r "$model" "$work/few"
chmod -R u+w "$work/few"
sed -i 's/"max_position_embeddings": 512/"max_position_embeddings": 200/' "$work/few/config.json"
must 1 "$command" model="$work/few" input_file="$work/short.jsonl" output_file="$work/best.jsonl" reward_funcs=length:20 --dry-run
has "$work/log" "^max_completion_length: 199, as the model has 200 positions \(the default is 256\)"
refused "more tokens than positions" "min_new_tokens: found 250; expected at most 199" model="$work/few" input_file="$work/short.jsonl" output_file="$work/best.jsonl" reward_funcs=length:20 min_new_tokens=250
refused "too many tokens at least" "min_new_tokens: found 9 with max_completion_length: 5" "${best[@]}" min_new_tokens=9
refused "a bad time" "stop_after: found '1x'" "${best[@]}" stop_after=1x

# A place that cannot be written to is said before the work, not after it.
must 1 reward "${pair[@]}" output_dir="$work/judge"
command=score
score=(model="$model" adapter="$work/judge/adapter" input_file="$work/short.jsonl")
refused "a folder in place of the file" "$work/judge: cannot write the file: a directory has this name" "${score[@]}" output_file="$work/judge"
refused "a file in place of the folder" "short.jsonl: cannot make the directory" "${score[@]}" output_file="$work/short.jsonl/x/scores.jsonl"
must 2 score "${score[@]}" output_file="$work/new/folder/scores.jsonl"
[ -s "$work/new/folder/scores.jsonl" ] || fail "scores in a folder that was missing"
command=eval
refused "a file in place of the folder" "short.jsonl: cannot make the directory" model="$model" eval_file="$work/short.jsonl" output_dir="$work/short.jsonl"

# A run that goes on must not take trajectories whose list was lost for leftovers.
echo '{"prompt": "Hi"}' >"$work/prompt.jsonl"
online=(model="$model" train_file="$work/prompt.jsonl" output_dir="$work/online" reward_funcs=length:20 max_completion_length=5 num_generations=2 batch_size=2 max_steps=2 save_steps=1)
must 2 rloo "${online[@]}"
rm "$work/online/trajectories/manifest.pb"
command=rloo
refused "a lost manifest" "manifest.pb is not there, but iterations-.*.h5 is" "${online[@]}"
[ "$(ls "$work/online/trajectories"/*.h5 | wc -l)" -ge 2 ] || fail "trajectories were removed"
code=0
"$plumb" replay "$work/online" >"$work/log" 2>&1 || code=$?
[ "$code" -eq 1 ] || fail "replay without trajectories: exit code $code"
has "$work/log" "^plumb replay: $work/online/trajectories: no trajectories"
