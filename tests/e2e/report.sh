#!/bin/bash
# report.html: written at the end of a run, made again by plumb report, well-formed, with every section; and what happens when it cannot be written.
. "$(dirname "$0")/common.sh"
check() { # PAGE SECTION ...
    [ -s "$1" ] || fail "no $1"
    if python3 -c 'import html.parser' 2>/dev/null; then
        python3 "$root/tests/e2e/html_check.py" "$@" || fail "$1 is not a sound page"
    else
        for section in "${@:2}"; do has "$1" "<section id=$section>"; done
        has "$1" "</html>"
    fi
}
for i in 1 2 3 4; do echo "{\"prompt\": \"Once upon a time <b>&$i\"}"; done >"$work/prompts.jsonl"
small="model=$model batch_size=4 max_steps=3 learning_rate=1e-3 warmup_steps=0"
online="$small train_file=$work/prompts.jsonl reward_funcs=[length:12] max_completion_length=16"

must 2 sft configs/quickstart/sft.yaml $small eval_last=4 output_dir="$work/sft"
has "$work/log" "report written to .*sft/report.html"
check "$work/sft/report.html" learning speed settings
has "$work/sft/report.html" "held-out <b>"
must 2 grpo $online num_generations=2 beta=0.1 output_dir="$work/grpo"
check "$work/grpo/report.html" reward completions policy learning speed texts settings
must 1 ppo $online output_dir="$work/ppo"
check "$work/ppo/report.html" reward completions policy value learning speed texts settings
for word in "Explained variance" "EOS rate" "Part: length" "Time per phase" "Iteration 1 " "Iteration 3 " "Once upon a time &lt;b&gt;&amp;"; do has "$work/ppo/report.html" "$word"; done

# By hand: the same page, chosen iterations, another place.
cp "$work/ppo/report.html" "$work/first.html"
"$plumb" report "$work/ppo" >"$work/log" || fail "plumb report: exit code $?"
same "$work/first.html" "$work/ppo/report.html"
"$plumb" report "$work/ppo" -o "$work/two.html" --iterations 2,3 --title "a <title>" >"$work/log" || fail "plumb report: exit code $?"
check "$work/two.html" texts
has "$work/two.html" "<title>a &lt;title&gt;</title>"
has "$work/two.html" "Iteration 2 "
if grep -q "Iteration 1 " "$work/two.html"; then fail "iteration 1 was not asked for"; fi

# A killed run: half a line, no result.
mkdir "$work/killed"
head -c -20 "$work/grpo/metrics.jsonl" >"$work/killed/metrics.jsonl"
"$plumb" report "$work/killed/" >"$work/log" || fail "plumb report: exit code $?"
check "$work/killed/report.html" reward policy
has "$work/killed/report.html" "is incomplete"

# Wrong usage is 2, what cannot be done 1.
refused() { # CODE ARGUMENT ...
    code=0
    "$plumb" report "${@:2}" >"$work/log" 2>&1 || code=$?
    [ "$code" -eq "$1" ] || fail "exit code $code, expected $1: plumb report ${*:2}"
}
refused 2
refused 2 "$work/ppo" --iterations 3,2
refused 2 "$work/ppo" --iterations 1,
refused 2 "$work/ppo" --iterations x
refused 2 "$work/ppo" --iterations 1 --max-iterations 2
refused 2 "$work/ppo" --max-iterations 0
refused 2 "$work/ppo" --max-iterations 65
refused 2 "$work/ppo" "$work/sft"
refused 2 "$work/ppo" --colour
refused 2 "$work/ppo" -o
refused 1 "$work/ppo" --iterations 4
has "$work/log" "iteration 4: not among the 3"
refused 1 "$work/nothing"
refused 1 "$work/ppo" -o "$work/no/such/folder.html"
"$plumb" report --help | grep -q "iterations LIST" || fail "--help"

# report: false does without; a page that cannot be written fails the run, after everything else was written.
must 1 sft configs/quickstart/sft.yaml $small report=false output_dir="$work/without"
[ ! -e "$work/without/report.html" ] || fail "report=false wrote one"
mkdir -p "$work/blocked/report.html"
ranks 2 ppo $online output_dir="$work/blocked"
[ "$code" -ne 0 ] || fail "a page that was not written is no success"
has "$work/log" "report.html was not written"
[ -s "$work/blocked/adapter/adapter_model.safetensors" ] || fail "the adapter is lost"
[ -s "$work/blocked/value/adapter_model.safetensors" ] || fail "the value model is lost"
