#!/usr/bin/env bash
# How long is an iteration of reinforcement learning, and how fast does it sample, beside peers in the same run?
#
#   bench/rl.sh grpo|ppo --model GGUF|DIR --data PAIRS.jsonl[.gz] [--ranks N] [--threads N] [--iterations N] [--build DIR] [key=value]… [--peer 'COMMAND …']…
#
# grpo: one prompt x 8 completions of 64 tokens, KL in the loss, LoRA r 16.   ppo: 8 prompts of at most 256 tokens, 64 new tokens, 4 epochs, LoRA, rewards by a pattern (the cost of a reward
# model is one pass more; give reward_adapter=… reward_funcs=[] for one).   A peer prints seconds per iteration as its last line of output. Prints the ratio at the first update (correctness),
# seconds per iteration (median after the first) and where they go.
set -euo pipefail
mode=$1
shift
model= data= ranks=2 threads=1 iterations=6 build=build/release peers=() extra=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --ranks) ranks=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --iterations) iterations=$2; shift 2 ;;
    --build) build=$2; shift 2 ;;
    --peer) peers+=("$2"); shift 2 ;;
    *=*) extra+=("$1"); shift ;;
    *) echo "rl.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ -n "$model" ] && [ -n "$data" ] || { echo "rl.sh: --model and --data are needed" >&2; exit 2; }
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=(model="$model" train_file="$data" output_dir="$work/run" max_prompt_length=256 max_completion_length=64 batch_size=8 max_steps="$iterations" shuffle=false save_steps=0 report=false
  resume=never threads="$threads" reward_funcs=regex:the min_new_tokens=64)
if [ "$mode" = grpo ]; then common+=(num_generations=8 beta=0.04 learning_rate=1e-5); else common+=(learning_rate=3e-6 num_ppo_epochs=4 temperature=0.7); fi
mpirun --bind-to none -n "$ranks" "$build"/plumb "$mode" "${common[@]}" "${extra[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
python3 - "$mode" "$work/run/metrics.jsonl" "$ranks" "$threads" <<'P'
import json, statistics, sys
mode, path, ranks, threads = sys.argv[1:]
s = [json.loads(l) for l in open(path)]
m = lambda k: statistics.median(x[k] for x in s[1:])
print(f"plumb {mode}, {ranks} ranks x {threads} threads: mean |log ratio| at the first update {max(x['policy/first_log_ratio'] for x in s):g}; {m('step_seconds'):.2f} s an iteration: "
      + ", ".join(f"{k[5:]} {m(k):.2f}" for k in s[0] if k.startswith("time/")) + f"; {m('rollout_tokens_per_second'):.0f} tokens/s sampled")
P
for peer in "${peers[@]}"; do bash -c "$peer" 2>/dev/null | tail -n 1; done
