#!/bin/sh
# What plumb writes opens in transformers and PEFT with the same weights and logits.
#   hf_load.sh PLUMB      the program; golden models are found beside this script
# The interpreter is $PLUMB_PYTHON, or python3; exit status 77 (skipped) where it lacks torch, transformers, peft or
# safetensors.
# PLUMB_MODELS, when it names a directory with SmolLM2-135M-Instruct.Q4_1.gguf, adds that model.
set -eu
plumb=${1:?usage: hf_load.sh PLUMB}
here=$(cd "$(dirname "$0")" && pwd)
golden=$(cd "$here/../golden" && pwd)
python=${PLUMB_PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

command -v "$python" >/dev/null || { echo "skipped: no $python"; exit 77; }
"$python" -c 'import torch, transformers, peft, safetensors' 2>/dev/null ||
    { echo "skipped: $python lacks torch, transformers, peft or safetensors"; exit 77; }

# merge NAME ARGUMENTS...: plumb merge writes the model, and Python is to compare it with the same --model and --adapter
merge() {
    name=$1
    shift
    "$plumb" merge --output "$work/$name" "$@"
    echo "--merged '$work/$name' $(printf " '%s'" "$@") $more" >>"$work/jobs"
}

for model in llama llama3-tied; do
    more="--logits '$golden/cases/$model.safetensors'"
    for dtype in float32 bfloat16 float16; do
        merge "$model-$dtype" --model "$golden/models/$model" --adapter "$golden/adapters/$model" --dtype $dtype
    done
    merge "$model-plain" --model "$golden/models/$model"
done
more=--tokenizer
merge curves --model "$golden/curves/model" --adapter "$golden/curves/sft-lora/final"
more=
if "$python" -c 'import gguf' 2>/dev/null; then
    for kind in f32 q8_0 q4_1 bf16; do
        merge "gguf-$kind" --model "$golden/gguf/tiny-$kind.gguf" --dtype float32
    done
    real=${PLUMB_MODELS:-}/SmolLM2-135M-Instruct.Q4_1.gguf
    if [ -f "$real" ]; then merge smollm2 --model "$real"; fi
else
    echo "GGUF left out: $python lacks gguf"
fi
# A reward model with all its weights, and one merged from a base and an adapter, score as transformers' class does.
root=$(cd "$here/../.." && pwd)
stories=$root/tests/data/models/stories260K
pairs=$root/configs/quickstart/data/instruction-pairs.json
"$plumb" reward model="$stories" train_file="$pairs" lora=false max_length=300 max_steps=3 learning_rate=1e-3 output_dir="$work/full" 2>/dev/null
"$plumb" reward model="$stories" train_file="$pairs" max_length=300 max_steps=3 learning_rate=1e-3 output_dir="$work/lora" 2>/dev/null
"$plumb" merge --model "$stories" --adapter "$work/lora/adapter" --output "$work/lora/model"
for kind in full lora; do
    "$plumb" score model="$work/$kind/model" input_file="$pairs" max_length=300 precision=fp32 output_file="$work/$kind.jsonl" >/dev/null 2>&1
    echo "--classifier '$work/$kind/model' --scores '$work/$kind.jsonl'" >>"$work/jobs"
done
"$python" "$here/hf_load.py" --jobs "$work/jobs"
