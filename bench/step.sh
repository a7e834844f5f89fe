#!/usr/bin/env bash
# How fast is a training step, beside the machine's arithmetic and beside peers in the same run?
#
#   bench/step.sh sft|dpo --model GGUF|DIR --data PAIRS.jsonl[.gz] [--steps N] [--batch N] [--max-length N] [--ranks N] [--build DIR]
#                 [--peer 'COMMAND …']…        a peer prints one JSON line with real_tokens_per_s and losses (see docs/performance.md)
#
# Prints: the loss of the first step (correctness), real tokens per second (a pair counts its prompt twice; median over the steps after the first two), the share
# of the ceiling, memory as the sum of PSS over ranks, seconds from a rank's start to its first step's end; then each peer and the ratio to it.
set -euo pipefail
mode=$1
shift
model= data= steps=8 batch=8 length=512 ranks=2 build=build/release peers=() extra=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --batch) batch=$2; shift 2 ;;
    --max-length) length=$2; shift 2 ;;
    --ranks) ranks=$2; shift 2 ;;
    --build) build=$2; shift 2 ;;
    --peer) peers+=("$2"); shift 2 ;;
    *=*) extra+=("$1"); shift ;;
    *) echo "step.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ -n "$model" ] && [ -n "$data" ] || { echo "step.sh: --model and --data are needed" >&2; exit 2; }
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ "$mode" = dpo ] || extra+=(field_completion=chosen)

read -r fp32 bf16 < <("$build"/bench/bench_ceiling "$ranks")
mpirun -n "$ranks" "$build"/plumb "$mode" model="$model" train_file="$data" output_dir="$work/run" max_length="$length" batch_size="$batch" max_steps="$steps" learning_rate=1e-4 \
  shuffle=false resume=never save_steps=0 "${extra[@]}" >"$work/log" 2>&1 &
launcher=$!
peak=0
while kill -0 $launcher 2>/dev/null; do # PSS shares a page among those who map it: shared weights count once
  sum=0
  for pid in $(pgrep -P "$launcher" 2>/dev/null); do
    pss=$(awk '/^Pss:/ {print $2}' "/proc/$pid/smaps_rollup" 2>/dev/null || true)
    sum=$((sum + ${pss:-0}))
  done
  [ $sum -le $peak ] || peak=$sum
  sleep 1
done
wait $launcher || { cat "$work/log"; exit 1; }

"$build"/plumb inspect --json "$model" >"$work/model.json"
python=$(command -v python3)
"$python" - "$mode" "$work/run/metrics.jsonl" "$work/log" "$fp32" "$bf16" "$peak" "$work/model.json" <<'P'
import json, re, statistics, sys
mode, metrics, log, fp32, bf16, peak, model = sys.argv[1:]
steps = [s for s in map(json.loads, open(metrics)) if "loss" in s]
text = open(log).read()
used = float(bf16) if " bf16 " in text and float(bf16) else float(fp32)
rate = statistics.median([s["tokens_per_second"] for s in steps[2:]])
tensors = json.load(open(model))["tensors"]
count = lambda t: eval("*".join(map(str, t["shape"])) or "1")
head = max(count(t) for t in tensors if re.search(r"embd|embed", t["name"]))
layers = sum(count(t) for t in tensors if len(t["shape"]) == 2) - head * sum(bool(re.search(r"embd|embed|^output.weight|lm_head", t["name"])) for t in tensors)
tokens, twice, targets = re.search(r"training: \d+ samples, (\d+) tokens(?: \((\d+) with [^)]*\))?, (\d+) targets", text).groups()
computed, targets, real = int(tokens), int(targets), int(twice or tokens)
lora = float(re.search(r"training ([\d.]+)M", text).group(1)) * 1e6
# Operations per real token. 2 for each weight and computed token: forward and dX of the frozen layers, LoRA three times, the head forward and back on target rows;
# attention about 15 MFLOP. DPO: the reference's forward too.
policy, reference = (2 * 2 * layers + 3 * 2 * lora + 15e6) * computed + 2 * 2 * head * targets, (2 * layers + 5e6) * computed + 2 * head * targets
flops = (policy + (reference if mode == "dpo" else 0)) / real
print(f"plumb {mode}: loss of step 1 {steps[0]['loss']:.4f}; {rate:.1f} real tokens/s; ceiling {used:.0f} GFLOP/s = {used * 1e9 / flops:.0f} tokens/s: {100 * rate * flops / used / 1e9:.0f} %; PSS of all ranks {int(peak) / 1024:.0f} MiB")
open(log + ".rate", "w").write(str(rate))
P
rate=$(cat "$work/log.rate")
for peer in "${peers[@]}"; do
  line=$(bash -c "$peer" 2>/dev/null | tail -n 1)
  "$python" - "$rate" "$line" <<'P'
import json, sys
mine, peer = float(sys.argv[1]), json.loads(sys.argv[2])
name = "TRL " + peer["trl"] if "trl" in peer else peer.get("peer", "peer")
kind = peer.get("dtype") or ("bf16 weights" if peer.get("bf16w") else "bf16 autocast" if peer.get("bf16") else "fp32")
print(f"{name}, {kind}: losses {peer['losses']}; {peer['real_tokens_per_s']} real tokens/s; peak {peer['peak_rss_MiB']} MiB; plumb is {mine / peer['real_tokens_per_s']:.2f}x")
P
done
