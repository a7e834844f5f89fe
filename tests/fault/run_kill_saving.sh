#!/usr/bin/env bash
# run_kill_saving.sh PROGRAM MPIRUN: SIGKILL at random moments of saving; the newest complete checkpoint must always load, hold the right
# values, and be no older than the last step that was reported as saved. Then: a rank whose disk is full.
set -u
program=$1 mpirun=$2
trials=${TRIALS:-12} parallel_trials=${PARALLEL_TRIALS:-4}
dir=$(mktemp -d)
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0} # MPI libraries keep memory to the end
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 PLUMB_WATCHDOG_SECONDS=5
running=
trap '[ -n "$running" ] && kill -9 $running 2>/dev/null; rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*"; ls -la "$dir"/run/* "$dir/run"; cat "$dir"/err*; exit 1; }
RANDOM=${SEED:-17}
partials=0 last=0

await_first_save() {
  local i
  for i in $(seq 1 600); do [ -s "$dir/out" ] && return; sleep 0.05; done
  fail "nothing was saved in 30 s"
}
verify() { # the promise and what is there
  local promised found
  promised=$(tail -n 1 "$dir/out" 2>/dev/null); promised=${promised:-$last}
  found=$("$@" "$program" check "$dir/run" 2>"$dir/err-check") || fail "the newest checkpoint does not load after a kill"
  [ -s "$dir/err-check" ] && fail "a damaged folder was found under a final name"
  [ "$found" = none ] && found=0
  [ "$found" -ge "$promised" ] && [ "$found" -ge "$last" ] || fail "step $promised was saved, the newest is $found"
  ls -d "$dir"/run/.step-* >/dev/null 2>&1 && partials=$((partials + 1))
  last=$found
}

for trial in $(seq 1 "$trials"); do # one rank without a launcher: killed between any two instructions
  rm -f "$dir/out"
  "$program" save "$dir/run" >"$dir/out" 2>"$dir/err" &
  running=$!
  await_first_save
  sleep 0.0$((RANDOM % 90 + 10))
  kill -9 $running; wait $running 2>/dev/null; running=
  verify
done
for trial in $(seq 1 "$parallel_trials"); do # three ranks; checked on another number of ranks
  rm -f "$dir/out"
  "$mpirun" --timeout 60 -n 3 --oversubscribe "$program" save "$dir/run" >"$dir/out" 2>"$dir/err" &
  running=$!
  await_first_save
  sleep 0.0$((RANDOM % 90 + 10))
  victim=$(pgrep -P $running -f 'save_program save' | tail -n 1)
  [ -n "$victim" ] || fail "found no rank to kill"
  kill -9 $victim; wait $running 2>/dev/null; running=
  verify "$mpirun" -n $((trial % 3 + 1)) --oversubscribe
done
[ "$partials" -gt 0 ] || fail "no kill came in the middle of a save: the test shows nothing"
[ "$(ls -d "$dir"/run/step-* | wc -l)" -le 3 ] || fail "old checkpoints are not removed"

for ranks in 1 3; do # the last rank cannot write
  rm -rf "$dir/run"
  "$mpirun" -n $ranks --oversubscribe "$program" full "$dir/run" >"$dir/out" 2>"$dir/err" || fail "a full disk was not handled"
  grep -q 'File too large' "$dir/out" || fail "the message does not say why"
  [ $ranks = 1 ] || grep -q '^rank 2 (' "$dir/out" || fail "the message does not name the rank"
  [ "$(ls -A "$dir/run")" = step-000001 ] || fail "more than the older checkpoint is left"
  "$program" check "$dir/run" >/dev/null || fail "the older checkpoint does not load"
done
echo "ok: $trials + $parallel_trials kills, $partials of them in the middle of a save, newest step $last"
