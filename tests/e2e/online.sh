#!/bin/bash
# A reward model, then PPO, GRPO and RLOO: the same bits on any number of ranks, ratios of exactly 1 at the first update, trajectories that verify and replay, and a run that is stopped
# and goes on on other ranks.
. "$(dirname "$0")/common.sh"
cat >"$work/prompts.jsonl" <<-'END'
	{"prompt": "Once upon a time", "answer": "Lily"}
	{"prompt": "The little dog", "answer": "ran"}
	{"prompt": "Lily was happy because she", "answer": "smiled"}
	{"prompt": "One day, a big bear", "answer": "came"}
	{"prompt": "Tom and Sam", "answer": "played"}
END

must 2 reward model="$model" train_file=$pairs eval_last=100 max_length=300 max_steps=20 learning_rate=1e-3 batch_size=16 determinism=elastic output_dir="$work/reward"
has "$work/reward/adapter/adapter_config.json" '"task_type": "SEQ_CLS"'
has "$work/reward/adapter/adapter_config.json" '"modules_to_save"'
holds "$(metric "$work/reward/metrics.jsonl" eval_accuracy | tail -n 1) > 0.5" "the reward model has learned nothing"
must 3 score model="$model" adapter="$work/reward/adapter" input_file=$pairs max_length=300 output_file="$work/scores.jsonl"
has "$work/log" '^accuracy 0\.[5-9]'
has "$work/log" '^expected_calibration_error'
ranks 1 dpo configs/quickstart/dpo.yaml model="$model" adapter="$work/reward/adapter" output_dir="$work/no"
[ "$code" -eq 1 ] || fail "a reward model was taken for a policy"
has "$work/log" "is a reward model"

online() { # ranks, command, folder, further settings
    local n=$1 command=$2 folder=$3
    shift 3
    ranks "$n" "$command" model="$model" train_file="$work/prompts.jsonl" determinism=elastic max_completion_length=40 batch_size=8 max_steps=3 learning_rate=1e-3 \
        micro_batch_tokens=100 output_dir="$folder" "$@"
}
check() { # command, folders, settings
    local command=$1 folder=$2
    shift 2
    for n in 1 2 3; do
        online $n "$command" "$work/$folder$n" "$@"
        [ "$code" -eq 0 ] || fail "plumb $command on $n ranks: exit code $code"
    done
    for n in 2 3; do
        same "$work/${folder}1/adapter/adapter_model.safetensors" "$work/$folder$n/adapter/adapter_model.safetensors"
        same <(metric "$work/${folder}1/metrics.jsonl" reward) <(metric "$work/$folder$n/metrics.jsonl" reward)
    done
    [ "$(metric "$work/${folder}2/metrics.jsonl" policy/first_log_ratio | tr '\n' ' ')" = "0 0 0 " ] || fail "plumb $command: the log-ratio at the first update is not 0"
    "$plumb" trajectories "$work/${folder}3" --verify >"$work/log" 2>&1 || fail "plumb trajectories --verify"
    "$plumb" replay "$work/${folder}3" >"$work/log" 2>&1 || fail "plumb replay"
    [ "$(grep -c "rewards 0, advantages 0, returns 0;" "$work/log")" -eq 3 ] || fail "replay differs from the log"
}
check ppo ppo reward_adapter="$work/reward/adapter" num_mini_batches=2 adap_kl_ctrl=true
[ "$(metric "$work/ppo1/metrics.jsonl" kl | head -n 1)" = 0 ] || fail "KL is not 0 at the first iteration"
has "$work/ppo1/value/adapter_config.json" SEQ_CLS
check grpo grpo reward_adapter="$work/reward/adapter" reward_funcs=length:20,regex:Lily,regex:Tom reward_weights=1,0.5,2,1 num_generations=4 beta=0.04 num_iterations=2
# Five prompts, two in an iteration, four completions each; tokens that were sampled count once, however often they are learned from.
[ "$(metric "$work/grpo1/metrics.jsonl" episode | tr '\n' ' ')" = "8 16 20 " ] || fail "completions so far: $(metric "$work/grpo1/metrics.jsonl" episode)"
sampled=$("$plumb" trajectories "$work/grpo1" --iteration 1 --json | sed -E 's/.*"prompt_tokens":([0-9]+),"tokens":([0-9]+).*/\1 \2/' | awk '{ n += $1 + $2 } END { print n }')
[ "$(metric "$work/grpo1/metrics.jsonl" num_tokens | head -n 1)" = "$sampled" ] || fail "num_tokens is not $sampled"
check rloo rloo reward_funcs=length:20 num_generations=4 min_new_tokens=3 top_k=50

check ppo on-trunk reward_funcs=length:20 value_model=trunk num_mini_batches=2 # values come from the ranks that drew the tokens

# The value head on the policy's trunk; the adapter stays a language model's.
online 2 ppo "$work/trunk" reward_adapter="$work/reward/adapter" value_model=trunk
[ "$code" -eq 0 ] || fail "value_model: trunk: exit code $code"
has "$work/trunk/adapter/adapter_config.json" CAUSAL_LM
"$plumb" generate model="$model" adapter="$work/trunk/adapter" prompt="Once upon a time" max_new_tokens=5 >"$work/log" 2>&1 || fail "the trained policy does not generate"

# The head is saved beside a policy of either kind, and a further run starts from it: at a rate of almost 0 it ends as it began. A policy in full has the head alone beside it.
trunk() { # folder, further settings
    online 2 ppo "$@" reward_funcs=length:20 value_model=trunk
    [ "$code" -eq 0 ] || fail "value_model: trunk: exit code $code"
}
trunk "$work/whole" lora=false learning_rate=1e-4
has "$work/whole/model/config.json" LlamaForCausalLM
[ "$(ls "$work/whole/value")" = value_head.safetensors ] || fail "expected the head alone"
trunk "$work/whole-on" model="$work/whole/model" value_adapter="$work/whole/value" lora=false learning_rate=1e-30 max_steps=1
same "$work/whole/value/value_head.safetensors" "$work/whole-on/value/value_head.safetensors"
trunk "$work/trunk-on" adapter="$work/trunk/adapter" value_adapter="$work/trunk/value" learning_rate=1e-30 max_steps=1
same "$work/trunk/value/adapter_model.safetensors" "$work/trunk-on/value/adapter_model.safetensors"
for folder in whole-on trunk-on; do
    "$plumb" trajectories "$work/$folder" --tokens --json --limit 1 >"$work/log" || fail "trajectories: exit code $?"
    has "$work/log" '"values":\[-?[0-9.e-]*[1-9]'
done
must 1 score model="$work/whole/model" adapter="$work/whole/value" input_file=$pairs max_length=300 output_file="$work/alone.jsonl"
"$plumb" merge --model "$work/whole/model" --adapter "$work/whole/value" --output "$work/classifier" >"$work/log" 2>&1 || fail "merge: exit code $?"
must 1 score model="$work/classifier" input_file=$pairs max_length=300 output_file="$work/merged.jsonl"
same "$work/alone.jsonl" "$work/merged.jsonl"
online 1 ppo "$work/by-head" model="$work/whole/model" reward_adapter="$work/whole/value" max_steps=1 # a head alone judges; the value model is a fresh adapter
[ "$code" -eq 0 ] || fail "a head alone as the judge: exit code $code"
has "$work/by-head/value/adapter_config.json" SEQ_CLS
refused_head() { # what is said, COMMAND, settings
    ranks 2 "$2" model="$model" train_file="$work/prompts.jsonl" reward_funcs=length:20 output_dir="$work/no" max_prompt_length=200 "${@:3}"
    [ "$code" -eq 1 ] || fail "plumb ${*:2}: exit code $code"
    has "$work/log" "$1"
}
"$plumb" inspect "$work/whole/value" >"$work/log" || fail "inspect of a value head: exit code $?"
has "$work/log" 'value head'
refused_head "value_adapter: .* is a value head alone; expected value_model: trunk" ppo value_adapter="$work/whole/value"
refused_head "adapter: .* is a value head alone; plumb ppo" ppo adapter="$work/whole/value"

# Two iterations on 3 ranks, the third on 1.
rm -r "$work/ppo3"
online 3 ppo "$work/ppo3" reward_adapter="$work/reward/adapter" num_mini_batches=2 adap_kl_ctrl=true save_steps=2
rm -r "$work/ppo3/checkpoints/step-000003" "$work/ppo3/adapter"
online 1 ppo "$work/ppo3" reward_adapter="$work/reward/adapter" num_mini_batches=2 adap_kl_ctrl=true save_steps=2
has "$work/log" "resumed from .*step-000002"
same "$work/ppo1/adapter/adapter_model.safetensors" "$work/ppo3/adapter/adapter_model.safetensors"
same <(metric "$work/ppo1/metrics.jsonl" loss) <(metric "$work/ppo3/metrics.jsonl" loss)
"$plumb" trajectories "$work/ppo3" --verify >"$work/log" 2>&1 || fail "plumb trajectories --verify after going on"

# TERM in the middle of an iteration of many updates: it is given up, what was before it is saved, and the run goes on to the bits of one that nobody stopped.
long() { online 2 ppo "$1" reward_funcs=length:20 num_ppo_epochs=80 max_steps=4; }
long "$work/long"
[ "$code" -eq 0 ] || fail "exit code $code"
long "$work/term" &
shell=$!
appears "$work/term/metrics.jsonl" '"step": 2,'
sleep 0.15
send TERM "$shell"
has "$work/log" "stopped after step [0-9]+; saved in "
long "$work/term"
[ "$code" -eq 0 ] || fail "after TERM: exit code $code"
has "$work/log" "resumed from "
same "$work/long/adapter/adapter_model.safetensors" "$work/term/adapter/adapter_model.safetensors"
same <(metric "$work/long/metrics.jsonl" num_tokens) <(metric "$work/term/metrics.jsonl" num_tokens)
"$plumb" trajectories "$work/term" --verify >"$work/log" 2>&1 || fail "plumb trajectories --verify after TERM"

# Best of n: a data set that trains.
best() { # ranks, output file, further settings
    local n=$1 to=$2
    shift 2
    must "$n" bestofn model="$model" input_file="$work/prompts.jsonl" output_file="$to" reward_adapter="$work/reward/adapter" num_generations=6 max_completion_length=40 min_p=0.01 threads=1 "$@"
}
best 2 "$work/best.jsonl"
best 1 "$work/best1.jsonl"
same "$work/best.jsonl" "$work/best1.jsonl"
[ "$(grep -c '"chosen".*"rejected"' "$work/best.jsonl")" -eq 5 ] || fail "best-of-n for preference training"
best 1 "$work/best-sft.jsonl" output_format=sft
[ "$(grep -c '"completion"' "$work/best-sft.jsonl")" -eq 5 ] || fail "best-of-n for SFT"
must 1 dpo configs/quickstart/dpo.yaml model="$model" adapter=null lora=true train_file="$work/best.jsonl" eval_last=0 max_steps=2 warmup_steps=0 output_dir="$work/from-best"

# Ratings without pairs: the area under the ROC curve, on any number of ranks.
for i in 1 2 3 4; do echo "{\"prompt\": \"Say $i.\", \"completion\": \"It is $i.\", \"label\": true}"; echo "{\"prompt\": \"Say $i.\", \"completion\": \"No $i no.\", \"label\": false}"; done >"$work/rated.jsonl"
for n in 1 2; do
    must $n score model="$model" adapter="$work/reward/adapter" input_file="$work/rated.jsonl" output_file="$work/rated$n.jsonl" max_length=256 threads=1
    has "$work/log" '^auc [01]'
    has "$work/log" '^rated 8 \(4 good\)'
done
same "$work/rated1.jsonl" "$work/rated2.jsonl"

# In a chat a reward model reads an answer as the template writes it, whether a policy has sampled it or a file has it.
chat=$root/tests/golden/curves/model
cat >"$work/chat.jsonl" <<-'END'
	{"messages": [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A red apple."}]}
	{"messages": [{"role": "user", "content": "What is blue?"}, {"role": "assistant", "content": "The blue sky."}]}
END
cat >"$work/chat_pairs.jsonl" <<-'END'
	{"prompt": [{"role": "user", "content": "What is red?"}], "chosen": [{"role": "assistant", "content": "A red apple."}], "rejected": [{"role": "assistant", "content": "no"}]}
	{"prompt": [{"role": "user", "content": "What is blue?"}], "chosen": [{"role": "assistant", "content": "The blue sky."}], "rejected": [{"role": "assistant", "content": "so"}]}
END
must 1 sft model="$chat" train_file="$work/chat.jsonl" lora=false max_steps=60 learning_rate=5e-3 batch_size=2 precision=fp32 report=false output_dir="$work/chat"
must 1 reward model="$work/chat/model" train_file="$work/chat_pairs.jsonl" max_steps=10 learning_rate=1e-2 batch_size=2 precision=fp32 report=false output_dir="$work/chat_reward"
must 2 grpo model="$work/chat/model" train_file="$work/chat.jsonl" reward_adapter="$work/chat_reward/adapter" batch_size=8 num_generations=4 max_completion_length=40 top_k=1 max_steps=1 \
    beta=0 precision=fp32 report=false output_dir="$work/chat_grpo"
must 1 score model="$work/chat/model" adapter="$work/chat_reward/adapter" input_file="$work/chat.jsonl" precision=fp32 output_file="$work/chat_scores.jsonl"
read -r sampled <<<"$(metric "$work/chat_grpo/metrics.jsonl" reward)"
read -r written <<<"$(printed "$work/log" mean_reward)"
holds "($sampled - $written)^2 < 1e-8" "sampled answers are read elsewhere than written ones"
# What best of n keeps of a chat is a chat, which its reader turns into the ids that were sampled.
must 2 bestofn model="$work/chat/model" input_file="$work/chat.jsonl" num_generations=4 max_completion_length=40 temperature=0.5 reward_funcs=length:3 precision=fp32 output_format=sft \
    output_file="$work/chat_best.jsonl"
has "$work/chat_best.jsonl" '^."prompt": .."role": "user", "content": "What is red.".., "completion": .."role": "assistant", "content": "A red apple.".., "finish": "eos"'
must 1 eval model="$work/chat/model" eval_file="$work/chat_best.jsonl" precision=fp32
read -r written <<<"$(printed "$work/log" loss)"
must 1 eval model="$work/chat/model" eval_file="$work/chat.jsonl" loss_on=assistant precision=fp32
holds "$written < 2 * $(printed "$work/log" loss) + 0.1" "other ids than those that were learned"
# A run that is refused in a folder leaves its settings.
cp "$work/chat_grpo/config.yaml" "$work/config.before"
online 1 grpo "$work/chat_grpo" num_generations=4 reward_funcs=length:3
[ "$code" -eq 1 ] || fail "another run's folder: exit code $code"
same "$work/config.before" "$work/chat_grpo/config.yaml"

# What replay computes nothing from is refused; parts of a score can be weighed anew.
refuses() {
    "$plumb" replay "$work/chat_grpo" "$2" >"$work/log" 2>&1 && fail "replay $2"
    has "$work/log" "$1"
}
refuses "^plumb replay: temperature: no loss is computed from it without sampling; expected beta, epsilon" temperature=0.5
refuses "^plumb replay: beta: found 0.5, but iteration 1 has no log-probabilities of a reference; expected 0" beta=0.5
"$plumb" replay "$work/chat_grpo" "reward_weights=[2]" >"$work/log" 2>&1 || fail "replay reward_weights"
has "$work/log" "largest difference from the log: rewards [1-9]"

# TERM does not wait for a judge that takes its time.
cat >"$work/slow.sh" <<-'END'
	while read -r line; do touch "$(dirname "$0")/asked"; sleep 20; echo 0; done
END
(online 2 grpo "$work/leaving" num_generations=4 reward_funcs="program:exec bash $work/slow.sh"; echo "exit code $code" >>"$work/log") &
run=$!
for ((i = 0; i < 6000; i++)); do [ -e "$work/asked" ] && break; sleep 0.01; done
began=$SECONDS
kill -TERM $(ps -o pid= --ppid "$(first_child $run)") # the ranks, as srun does
wait $run || true
has "$work/log" "exit code 75"
[ $((SECONDS - began)) -lt 12 ] || fail "TERM waited $((SECONDS - began)) s for a judge"

# A program as judge, on two ranks; one that dies now and then is started again.
cat >"$work/judge.sh" <<-'END'
	n=0
	while read -r line; do
	    n=$((n + 1)); if [ $n -gt 3 ]; then exit 1; fi
	    echo "{\"reward\": $((${#line} % 7))}"
	done
END
online 2 grpo "$work/judged" num_generations=4 reward_funcs="program:bash $work/judge.sh"
[ "$code" -eq 0 ] || fail "a program as judge: exit code $code"
holds "$(metric "$work/judged/metrics.jsonl" reward | head -n 1) > 0" "the program's rewards"
holds "$(metric "$work/judged/metrics.jsonl" rewards/program/restarts | awk '{ n += $1 } END { print n }') > 0" "restarts are counted"

# A pattern that backtracks without end on what the model writes costs those completions their point, not the run.
online 2 grpo "$work/endless" num_generations=4 min_new_tokens=40 "reward_funcs=['regex:^(.+)+[#@]','length:20']"
[ "$code" -eq 0 ] || fail "a pattern without end: exit code $code"
[ "$(grep -c 'regex:.*backtracks without end on [1-8] of 8 completions' "$work/log")" -eq 1 ] || fail "a pattern without end is not said once"
holds "$(metric "$work/endless/metrics.jsonl" rewards/regex/errors | head -n 1) > 0" "completions on which a pattern failed are not counted"

# A disk that is full while trajectories are written: a message that names the file, and nothing half-written is left.  A limit on the size of files does the same; the judge sets it,
# because a limit from the start would stop Open MPI itself.
cat >"$work/limit.sh" <<-'END'
	prlimit --pid $PPID --fsize=24576
	while read -r line; do echo '{"reward": 1}'; done
END
online 2 grpo "$work/full" num_generations=8 batch_size=64 reward_funcs="program:exec bash $work/limit.sh" report=false
[ "$code" -eq 1 ] || fail "a full disk: exit code $code"
has "$work/log" 'trajectories/iteration-000001'
has "$work/log" 'File too large'
[ -z "$(ls "$work/full/trajectories")" ] || fail "a full disk left $(ls "$work/full/trajectories")"

# What cannot be is said by name.
refused() { # text, further settings of plumb grpo
    local text=$1
    shift
    online 2 grpo "$work/no" "$@"
    [ "$code" -eq 1 ] || fail "plumb grpo $*: exit code $code"
    has "$work/log" "$text"
}
refused "batch_size: found 8; expected a multiple of num_generations" num_generations=3 reward_funcs=length:20
refused "lenght" num_generations=4 reward_funcs=lenght:20
refused "expected length:N" num_generations=4 reward_funcs=length
refused "regex" num_generations=4 "reward_funcs=regex:("
refused "the answer .Lily. has no number" num_generations=4 reward_funcs=number
refused "lenght" num_generations=4 reward_funcs=lenght:20 --dry-run
[ ! -e "$work/no" ] || fail "what was refused left an output folder"
refused "reward_adapter is missing" num_generations=4
refused "no-such-judge" num_generations=4 reward_funcs=program:no-such-judge
refused "exit 3" num_generations=4 reward_funcs="program:exit 3"
refused "missing_eos" num_generations=4 reward_funcs=length:20 missing_eos=replace
