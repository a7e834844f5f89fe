#!/bin/bash
# Stopped by stop_after and by USR1, with exit code 75, and started again: the bits of the run that nobody stopped.
. "$(dirname "$0")/common.sh"
run() { # folder, further settings: sets $code
    local folder=$1
    shift
    ranks 2 sft configs/quickstart/sft.yaml model="$model" batch_size=8 micro_batch_tokens=512 max_steps=16 warmup_steps=2 shuffle=true seed=7 eval_last=8 lora_dropout=0.1 \
        save_steps=5 output_dir="$folder" "$@"
}

run "$work/whole"
[ "$code" -eq 0 ] || fail "exit code $code"

run "$work/halves" stop_after=1s
if [ "$code" -eq 75 ]; then
    has "$work/log" "stopped after step [0-9]+; saved in "
    run "$work/halves" stop_after=10m
    has "$work/log" "resumed from "
else
    echo "stop_after: the run took less than a second"
fi
[ "$code" -eq 0 ] || fail "exit code $code"
same "$work/whole/adapter/adapter_model.safetensors" "$work/halves/adapter/adapter_model.safetensors"
same <(metric "$work/whole/metrics.jsonl" loss) <(metric "$work/halves/metrics.jsonl" loss)

run "$work/signal" & # in a shell of its own: the pid of mpirun is that of its child
shell=$!
appears "$work/signal/metrics.jsonl" '"step": 2,'
send USR1 "$shell"
has "$work/log" "stopped after step [0-9]+; saved in "
[ ! -e "$work/signal/adapter" ] || fail "a stopped run has a result"
run "$work/signal" --resume auto
[ "$code" -eq 0 ] || fail "exit code $code"
has "$work/log" "resumed from "
same "$work/whole/adapter/adapter_model.safetensors" "$work/signal/adapter/adapter_model.safetensors"

# A checkpoint belongs to a run: other settings are refused, and the message says which.
run "$work/signal" learning_rate=3e-4
[ "$code" -eq 1 ] || fail "another learning rate: exit code $code"
has "$work/log" "learning_rate"

# resume=never leaves nothing behind that would be taken for its own: what was there gets another name.
run "$work/signal" resume=never max_steps=4 save_steps=2 learning_rate=3e-4
[ "$code" -eq 0 ] || fail "resume=never: exit code $code"
has "$work/log" "checkpoints is now .*checkpoints.before-1"
has "$work/log" "adapter is now .*adapter.before-1"
same "$work/whole/adapter/adapter_model.safetensors" "$work/signal/adapter.before-1/adapter_model.safetensors"
[ "$(echo "$work"/signal/checkpoints/*)" = "$work/signal/checkpoints/step-000002 $work/signal/checkpoints/step-000004" ] || fail "old checkpoints: $(ls "$work/signal/checkpoints")"

# Two runs do not write to one folder.
run "$work/twice" max_steps=400 &
shell=$!
appears "$work/twice/metrics.jsonl" '"step": 1,'
"$plumb" sft configs/quickstart/sft.yaml model="$model" output_dir="$work/twice" max_steps=1 warmup_steps=0 >"$work/second" 2>&1 && fail "two runs in one folder"
has "$work/second" "twice: another run writes here \(.*, pid [0-9]+\); expected another output folder"
send USR1 "$shell"
[ ! -e "$work/twice/.lock" ] || fail "the lock is left"

# A schedule without an end lets a run go on for longer: the bits of one that was so long from the beginning.
longer() { # ranks, steps, folder, further settings
    must "$1" sft configs/quickstart/sft.yaml model="$model" batch_size=8 warmup_steps=2 lr_scheduler_type=constant_with_warmup determinism=elastic report=false \
        max_steps="$2" output_dir="$work/$3" "${@:4}"
}
longer 2 4 short
cp configs/quickstart/data/instruction-pairs.json "$work/moved.json" # what is read is known by content, not by name
longer 1 8 short train_file="$work/moved.json"
has "$work/log" "resumed from .* \(step 4\)"
ranks 1 sft configs/quickstart/sft.yaml model="$model" batch_size=8 warmup_steps=2 lr_scheduler_type=constant_with_warmup determinism=elastic max_steps=6 output_dir="$work/short"
[ "$code" -eq 1 ] || fail "a shorter run: exit code $code"
has "$work/log" "max_steps: found a run of 6 steps; $work/short has 8 already"
longer 2 8 long
same "$work/short/adapter/adapter_model.safetensors" "$work/long/adapter/adapter_model.safetensors"
run "$work/signal" max_steps=5 save_steps=2 learning_rate=3e-4
[ "$code" -eq 1 ] || fail "another length: exit code $code"
has "$work/log" 'it has "steps .max_steps, epochs.=4", this run has "steps .max_steps, epochs.=5"'
