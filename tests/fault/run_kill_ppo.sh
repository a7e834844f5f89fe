#!/bin/bash
# A rank of a PPO run is killed (SIGKILL) at random moments, again and again: after each death every committed trajectory is readable and complete, the same command goes on, and the run ends with
# the bits of one that nobody killed.   run_kill_ppo.sh PLUMB MPIRUN [KILLS]
set -euo pipefail
plumb=$1 mpirun=$2 kills=${3:-${KILLS:-8}}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
fail() { echo "FAILED: $*" >&2; tail -n 20 "$work/log" >&2; exit 1; }
for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt\": \"Once upon a time there were $i\"}"; done >"$work/prompts.jsonl"
steps=$((16 * kills + 16)) # a run must not end before it was killed often enough
run() { # folder, ranks; a launcher whose rank died while it was being started may wait for ever, so it has a limit
    "$mpirun" --timeout $((60 + steps / 4)) -n "$2" --oversubscribe --bind-to none "$plumb" ppo model="$root/tests/data/models/stories260K" train_file="$work/prompts.jsonl" output_dir="$1" reward_funcs=length:20 \
        batch_size=8 max_steps="$steps" max_completion_length=48 learning_rate=1e-3 num_ppo_epochs=2 determinism=elastic save_steps=2 threads=1 >"$work/log" 2>&1
}
run "$work/whole" 1 || fail "the run that nobody kills"

died=0 tries=0
while [ "$died" -lt "$kills" ] && [ ! -e "$work/killed/adapter/adapter_config.json" ]; do
    tries=$((tries + 1))
    ranks=$((RANDOM % 3 + 2))
    run "$work/killed" "$ranks" &
    shell=$!
    sleep "$(awk -v r="$RANDOM" 'BEGIN { print 0.15 + r / 32768 * 1.1 }')"
    launcher=$(ps -o pid= --ppid "$shell" | head -n 1 | tr -d ' ' || true)
    victims=()
    if [ -n "$launcher" ]; then mapfile -t victims < <(ps -o pid= --ppid "$launcher" | tr -d ' '); fi
    if [ "${#victims[@]}" -gt 0 ]; then kill -KILL "${victims[$((RANDOM % ${#victims[@]}))]}" 2>/dev/null || true; fi
    if wait "$shell"; then break; fi
    died=$((died + 1))
    if [ -e "$work/killed/trajectories/manifest.pb" ]; then
        "$plumb" trajectories "$work/killed" --verify >"$work/verify" 2>&1 || { cat "$work/verify" >&2; fail "trajectories after death $died"; }
    fi
done
run "$work/killed" 2 || fail "the run does not go on after $died deaths"
"$plumb" trajectories "$work/killed" --verify >"$work/verify" 2>&1 || fail "trajectories at the end"
cmp "$work/whole/adapter/adapter_model.safetensors" "$work/killed/adapter/adapter_model.safetensors" >&2 || fail "the result is not that of the run that nobody killed"
"$plumb" replay "$work/killed" >"$work/replay" 2>&1 || fail "replay"
[ "$(grep -c '^iteration' "$work/replay")" -eq "$steps" ] || fail "iterations are missing from the log"
echo "killed $died times of $tries; every committed trajectory was complete, and the result is that of the run that nobody killed"
