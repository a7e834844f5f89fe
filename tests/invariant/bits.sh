#!/usr/bin/env bash
# The same bits from any number of ranks and threads, stored or recomputed, restarted or not (determinism: elastic).
# usage: bits.sh PLUMB MODEL DATA STEPS [key=value …]      compares the hash of what training wrote
set -euo pipefail
plumb=$1 model=$2 data=$3 steps=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
failed=0
expected=

hash_of() { # the adapter, or the model when weights train in full
  find "$1" -name '*.safetensors' -exec sha256sum {} + | cut -d' ' -f1 | sort | sha256sum | cut -c1-16
}
train() { # NAME COMMAND RANKS THREADS [key=value …]
  local name=$1 command=$2 ranks=$3 threads=$4
  shift 4
  mpirun -n "$ranks" --oversubscribe --bind-to none "$plumb" "$command" model="$model" train_file="$data" output_dir="$work/$name" \
    max_steps="$steps" determinism=elastic threads="$threads" "$@" >"$work/$name.log" 2>&1 || { local code=$?; [ $code = 75 ] || { cat "$work/$name.log"; return $code; }; }
}
compare() { # NAME
  local hash
  hash=$(hash_of "$work/$1")
  [ -n "$expected" ] || expected=$hash
  if [ "$hash" = "$expected" ]; then echo "same  $hash  $1"; else echo "DIFFERENT  $hash  $1 (expected $expected)"; failed=1; fi
}

for command in sft dpo; do
  expected=
  fields=(field_chosen=chosen)
  [ $command = dpo ] || fields=(field_completion=chosen)
  for ranks in 1 2 3 4; do
    for threads in 1 2; do
      train "$command-$ranks-ranks-$threads-threads" $command $ranks $threads "${fields[@]}" "$@"
      compare "$command-$ranks-ranks-$threads-threads"
    done
  done
  train "$command-recomputed" $command 2 1 gradient_checkpointing=true "${fields[@]}" "$@"
  compare "$command-recomputed"
  # stopped after a third of the steps on three ranks, resumed on two
  train "$command-restarted" $command 3 1 save_steps=$((steps / 3)) "${fields[@]}" "$@"
  rm -rf "$work/$command-restarted/adapter" "$work/$command-restarted/model"
  find "$work/$command-restarted/checkpoints" -mindepth 1 -maxdepth 1 | sort | tail -n 1 | xargs rm -r
  train "$command-restarted" $command 2 1 save_steps=$((steps / 3)) "${fields[@]}" "$@"
  grep -q 'resumed from' "$work/$command-restarted.log" || { echo "nothing was resumed"; failed=1; }
  compare "$command-restarted"
done
exit $failed
