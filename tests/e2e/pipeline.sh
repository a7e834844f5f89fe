#!/bin/bash
# plumb run on two ranks: a pipeline gives the bits of its commands run one after the other, also when a rank is killed in the middle of a stage; what is done is not
# run again, other settings are refused, --from begins anew.
. "$(dirname "$0")/common.sh"
cat >"$work/pipeline.yaml" <<END
output_dir: $work/whole
defaults:
  model: $model
  train_file: $pairs
  eval_last: 8
  template_name: alpaca
  max_length: 512
  batch_size: 8
  micro_batch_tokens: 512
  max_steps: 4
  save_steps: 2
  learning_rate: 1e-3
  determinism: elastic
stages:
  - command: sft
    field_output: chosen
  - name: judge
    command: reward
    lora_dropout: 0.1
    max_steps: 12
  - command: dpo
    adapter: \${sft.adapter}
  - command: ppo
    adapter: \${dpo.adapter}
    reward_adapter: \${judge.adapter}
    max_steps: 3
    max_completion_length: 12
  - command: eval
    adapter: \${ppo.adapter}
END
run() { ranks 2 run "$work/pipeline.yaml" "$@"; }
ended() { [ "$code" -eq "$1" ] || fail "exit code $code, not $1: $2"; }
stages="sft judge dpo ppo"
same_products() { # folder of another run
    for stage in $stages; do same "$work/whole/$stage/adapter/adapter_model.safetensors" "$1/$stage/adapter/adapter_model.safetensors"; done
    same "$work/whole/ppo/value/adapter_model.safetensors" "$1/ppo/value/adapter_model.safetensors"
}

run --dry-run
ended 0 "--dry-run"
has "$work/log" "^stage 4/5 ppo: plumb ppo, output $work/whole/ppo: to be run"
has "$work/log" "have yet to make"
[ ! -e "$work/whole" ] || fail "--dry-run wrote $work/whole"

run
ended 0 "the whole pipeline"
has "$work/log" "^stage 2/5 judge: plumb reward, output $work/whole/judge$"
has "$work/log" "^ *5\. eval +eval +done +[0-9.]+  $work/whole/eval/eval_results.json$"
[ "$(grep -c '"state": "done"' "$work/whole/pipeline.json")" -eq 5 ] || fail "pipeline.json does not have five stages that are done"

# The same as its commands, each with the settings that its stage left.
for stage in $stages; do
    case $stage in
    judge) command=reward from= ;;
    sft) command=sft from= ;;
    dpo) command=dpo from="adapter=$work/alone/sft/adapter" ;;
    ppo) command=ppo from="adapter=$work/alone/dpo/adapter reward_adapter=$work/alone/judge/adapter" ;;
    esac
    must 2 $command "$work/whole/$stage/config.yaml" $from output_dir="$work/alone/$stage"
done
same_products "$work/alone"

# A second start runs nothing, whatever changes no result.
stamp=$(stat -c %Y%Z "$work/whole/sft/adapter/adapter_model.safetensors")
run defaults.logging_steps=2
ended 0 "a second start"
[ "$(grep -c 'done before, ' "$work/log")" -eq 5 ] || fail "a stage was run again"
[ "$(stat -c %Y%Z "$work/whole/sft/adapter/adapter_model.safetensors")" = "$stamp" ] || fail "a product was written again"

# Other settings of a stage that is done, or of one that it needs.
run judge.lora_r=4
ended 1 "changed settings"
has "$work/log" "^plumb run: .*pipeline.yaml:[0-9]+:5: stage judge is done, with other settings .*--from judge"
[ "$(grep -c '^plumb run: ' "$work/log")" -eq 1 ] || fail "the message is not there once"
run dpo.beta=0.4 --from dpo
ended 0 "--from"
has "$work/log" "^stage 2/5 judge: done before"
has "$work/log" "$work/whole/dpo is now $work/whole/dpo.before-1"
if cmp -s "$work/whole/dpo/adapter/adapter_model.safetensors" "$work/whole/dpo.before-1/adapter/adapter_model.safetensors"; then fail "another beta gives another adapter"; fi
run --from dpo
ended 0 "--from, back to the old settings"
same_products "$work/alone"
run --from ppo --only eval
ended 1 "--only with a stage that it needs not done"
has "$work/log" "^plumb run: --only eval: the stage needs ppo, which is not done"

# A rank is killed in the middle of stage 2.
run output_dir="$work/killed" &
shell=$!
appears "$work/killed/judge/metrics.jsonl" '"step": 5,'
rank=$(last_child "$(first_child "$shell")")
if [ -n "$rank" ]; then kill -9 "$rank"; fi
wait "$shell" || true # its own code; what happened is in the log
if grep -q '^stage 2/5 judge: done' "$work/log"; then
    echo "kill -9: stage 2 was over before"
else
    has "$work/killed/pipeline.json" '"state": "running"'
    [ ! -e "$work/killed/judge/adapter" ] || fail "a killed stage has a result"
fi
run output_dir="$work/killed"
ended 0 "after kill -9"
has "$work/log" "^stage 1/5 sft: done before"
same_products "$work/killed"

# stop_after counts for the whole job, and the same command goes on until all is done.
for ((i = 0; i < 60; i++)); do
    run output_dir="$work/pieces" stop_after=1s
    [ "$code" -eq 75 ] || break
    has "$work/log" "^plumb run: stopped (in|before) stage ./5 [a-z]+.*the same command goes on"
done
ended 0 "in pieces of a second"
same_products "$work/pieces"

# A stage that fails ends the pipeline with its name; put right, it goes on.
echo '{"broken' >"$work/none.jsonl"
run output_dir="$work/broken" judge.train_file="$work/none.jsonl"
ended 1 "a broken file"
has "$work/log" "^plumb reward: .*none.jsonl"
has "$work/log" "^plumb run: stage 2/5 judge failed"
has "$work/log" "^ *2\. judge +reward +failed"
[ ! -e "$work/broken/dpo" ] || fail "a stage ran after one that failed"
run output_dir="$work/broken" --only judge
ended 0 "--only"
has "$work/broken/pipeline.json" '"state": "pending"'

# Files that do not make sense.
sed 's/\${sft.adapter}/${ppo.adapter}/' "$work/pipeline.yaml" >"$work/forward.yaml"
ranks 2 run "$work/forward.yaml"
ended 1 "a forward reference"
has "$work/log" "^plumb run: .*forward.yaml:22:14: adapter: found .*ppo.*does not come before"
[ "$(grep -c '^plumb run: ' "$work/log")" -eq 1 ] || fail "the message is not there once"
echo '{"version": 1, "stages": [{"name": "sft"}]}' >"$work/broken/pipeline.json"
run output_dir="$work/broken"
ended 1 "a damaged pipeline.json"
has "$work/log" "broken/pipeline.json: stage 1 is damaged"
