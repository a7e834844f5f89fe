#!/bin/bash
# Rejection sampling as a pipeline: SFT, a reward model, best of n, DPO on its pairs, and what the models are worth. Stopped by TERM in the middle of sampling, it goes on on another number of ranks to the bits of one
# that nobody stopped.
. "$(dirname "$0")/common.sh"
for name in Lily Ben Max Sue Tim Mia Sam Zoe; do
    for start in "Once upon a time" "The little dog" "One day, a big bear" "Tom and"; do echo "{\"prompt\": \"$start $name\"}"; done
done >"$work/prompts.jsonl"
# A judge that stops its rank once.
cat >"$work/judge.sh" <<-'END'
	n=0
	while read -r line; do
	    n=$((n + 1))
	    if [ $n -eq 300 ] && rmdir "$(dirname "$0")/stop" 2>/dev/null; then kill -TERM $PPID; fi
	    echo 0
	done
END
cat >"$work/pipeline.yaml" <<END
output_dir: $work/whole
defaults:
  model: $model
  train_file: $pairs
  eval_last: 8
  template_name: alpaca
  max_length: 400
  batch_size: 8
  max_steps: 3
  save_steps: 2
  learning_rate: 1e-3
  determinism: elastic
stages:
  - command: sft
    field_output: chosen
  - command: reward
  - name: best
    command: bestofn
    adapter: \${sft.adapter}
    reward_adapter: \${reward.adapter}
    reward_funcs: ['program:exec bash $work/judge.sh']
    input_file: $work/prompts.jsonl
    num_generations: 128
    max_completion_length: 24
    min_p: 0.02
  - command: dpo
    adapter: \${sft.adapter}
    train_file: \${best.output_file}
  - name: judged
    command: score
    adapter: \${reward.adapter}
    input_file: \${best.output_file}
  - command: eval
    adapter: \${dpo.adapter}
    train_file: \${best.output_file}
END
run() { # ranks, further arguments
    local n=$1
    shift
    ranks "$n" run "$work/pipeline.yaml" "$@"
}
# What is there before is not written over; records that their reader cannot use are known before the first step.
cp "$work/prompts.jsonl" "$work/mine.jsonl"
run 2 best.output_file="$work/mine.jsonl" dpo.train_file="$work/mine.jsonl"
[ "$code" -eq 1 ] || fail "a file of the user's as output: exit code $code"
has "$work/log" "^plumb run: .*pipeline.yaml:[0-9]+:5: output_file: stage best, which has not begun yet, would write over $work/mine.jsonl, .*stage dpo .*reads as train_file"
run 2 best.output_file="$work/prompts.jsonl" judged.output_file="$work/mine.jsonl" best.input_file="$work/mine.jsonl"
[ "$code" -eq 1 ] || fail "an input as output: exit code $code"
has "$work/log" "^plumb run: argument 3: output_file: stage judged would write over $work/mine.jsonl, which stage best .*reads before as input_file"
run 1 best.output_format=sft --dry-run
[ "$code" -eq 1 ] || fail "pairs wanted, answers written: exit code $code"
has "$work/log" "train_file: stage dpo \(plumb dpo\) cannot read what stage best .*expected pairs"
same "$work/prompts.jsonl" "$work/mine.jsonl"
run 2 eval.train_file="$work/nowhere.jsonl"
[ "$code" -eq 1 ] || fail "an input that is not there: exit code $code"
has "$work/log" "^plumb run: .*pipeline.yaml:[0-9]+: stage eval: train_file: $work/nowhere.jsonl: no such file or folder, and no stage before it makes it"
run 2 --dry-run
[ "$code" -eq 0 ] || fail "--dry-run: exit code $code"
has "$work/log" "^tokens to generate +98304  at most" # also without the adapters that earlier stages have yet to make
[ ! -e "$work/whole" ] || fail "something was run"

run 2
[ "$code" -eq 0 ] || fail "exit code $code"
has "$work/log" "^ *3\. best +bestofn +done +[0-9.]+  $work/whole/best/records.jsonl$"
has "$work/log" "^ *6\. eval +eval +done"
[ "$(grep -c '"chosen".*"rejected"' "$work/whole/best/records.jsonl")" -gt 20 ] || fail "few pairs"

mkdir "$work/stop"
run 2 output_dir="$work/stopped"
[ "$code" -eq 75 ] || fail "TERM: exit code $code"
has "$work/log" "^plumb run: stopped in stage 3/6 best"
has "$work/log" "^ *3\. best +bestofn +stopped"
[ ! -e "$work/stopped/best/records.jsonl" ] || fail "a stage that was stopped has a result"
run 3 output_dir="$work/stopped" best.seed=7
[ "$code" -eq 1 ] || fail "another seed in the middle of a stage: exit code $code"
has "$work/log" "belongs to another run"
run 3 output_dir="$work/stopped"
[ "$code" -eq 0 ] || fail "after TERM: exit code $code"
has "$work/log" "^stage 3/6 best: .*; goes on$"
has "$work/log" "^resumed from $work/stopped/best/records.jsonl.partial"
for product in best/records.jsonl judged/scores.jsonl dpo/adapter/adapter_model.safetensors eval/eval_results.json; do same "$work/whole/$product" "$work/stopped/$product"; done

# What a stage wrote before --from is its own, also where the run stops before the stage has begun again; a file of another name is not.
mine=(dpo.train_file="$work/stopped/best/records.jsonl")
run 2 output_dir="$work/stopped" --from sft "${mine[@]}" sft.field_output=nothing
[ "$code" -eq 1 ] || fail "--from, a stage that fails: exit code $code"
has "$work/stopped/pipeline.json" "\"writes\": \"$work/stopped/best/records.jsonl\""
run 2 output_dir="$work/stopped" "${mine[@]}" best.output_file="$work/mine.jsonl" dpo.train_file="$work/mine.jsonl"
[ "$code" -eq 1 ] || fail "another file: exit code $code"
has "$work/log" "would write over $work/mine.jsonl"
run 2 output_dir="$work/stopped" "${mine[@]}"
[ "$code" -eq 0 ] || fail "after --from: exit code $code"

# What depends on other samples is not taken for done; --from forgets what was sampled.
run 2 output_dir="$work/stopped" best.seed=7
[ "$code" -eq 1 ] || fail "another seed: exit code $code"
has "$work/log" "stage best is done, with other settings .*--from best"
mkdir "$work/stop"
run 2 output_dir="$work/stopped" --from best
[ "$code" -eq 75 ] || fail "--from, stopped: exit code $code"
run 2 output_dir="$work/stopped" --from best best.seed=7
[ "$code" -eq 0 ] || fail "--from: exit code $code"
if cmp -s "$work/whole/best/records.jsonl" "$work/stopped/best/records.jsonl"; then fail "another seed gives other records"; fi
[ ! -e "$work/stopped/best/records.jsonl.partial" ] || fail "something is left beside the records"
