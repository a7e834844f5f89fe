#!/bin/bash
# Models of their own beside the policy: a reward model with all its weights (a sequence classifier), as judge and as what training goes on from; a value model on a base of its own. The same bits on
# any number of ranks, and after a run was stopped.
. "$(dirname "$0")/common.sh"
cat >"$work/prompts.jsonl" <<-'END'
	{"prompt": "Once upon a time"}
	{"prompt": "The little dog"}
	{"prompt": "Lily was happy because she"}
	{"prompt": "One day, a big bear"}
	{"prompt": "Tom and Sam"}
END
judge=$work/judge1/model

# Trained in full: the head is part of the model, and the same bits come from any number of ranks.
reward() { # ranks, folder, further settings
    local n=$1 folder=$2
    shift 2
    must "$n" reward train_file=$pairs eval_last=100 max_length=300 learning_rate=1e-3 batch_size=16 determinism=elastic precision=fp32 output_dir="$folder" "$@"
}
for n in 1 2; do reward $n "$work/judge$n" model="$model" lora=false max_steps=15; done
same "$judge/model.safetensors" "$work/judge2/model/model.safetensors"
has "$judge/config.json" '"LlamaForSequenceClassification"'
has "$judge/config.json" '"0": "LABEL_0"'
"$plumb" inspect "$judge" >"$work/log" || fail "inspect: exit code $?"
has "$work/log" 'score.weight +F32 +1 x 64'
learned=$(metric "$work/judge1/metrics.jsonl" eval_loss | tail -n 1)
holds "$(metric "$work/judge1/metrics.jsonl" eval_accuracy | tail -n 1) > 0.55" "the reward model has learned nothing"
for n in 1 3; do
    must $n score model="$judge" input_file=$pairs max_length=300 output_file="$work/scores$n.jsonl" threads=1
    has "$work/log" '^accuracy 0\.[5-9]'
done
same "$work/scores1.jsonl" "$work/scores3.jsonl"

# Another spelling of the same folder is one base in memory, and --dry-run counts it; a judge's base of its own is counted too.
cost() { # further settings
    "$plumb" ppo model="$model" train_file="$work/prompts.jsonl" output_dir="$work/no" --dry-run "$@" >"$work/log" 2>&1 || fail "--dry-run $*"
    sed -n 's/^base weights *\([0-9.]*\) MiB.*/\1/p' "$work/log"
}
alone=$(cost reward_funcs=length:20) beside=$(cost reward_model="$judge")
holds "$beside > $alone" "a judge's own base costs nothing"
[ "$(cost reward_model="$judge" value_model="$judge/../model")" = "$beside" ] || fail "one folder under two names is held twice"

# Going on from it starts from its head, with an adapter or in full.
for lora in true false; do
    reward 2 "$work/further-$lora" model="$judge" lora=$lora eval_at_start=true max_steps=2
    [ "$(metric "$work/further-$lora/metrics.jsonl" eval_loss | head -n 1)" = "$learned" ] || fail "lora=$lora did not start where the reward model ended"
done
has "$work/further-true/adapter/adapter_config.json" SEQ_CLS
must 1 score model="$judge" adapter="$work/further-true/adapter" input_file=$pairs max_length=300 output_file="$work/further.jsonl"
if grep -q "names .* as its base" "$work/log"; then fail "the adapter is on its own base"; fi
must 1 score model="$model" adapter="$work/further-true/adapter" input_file=$pairs max_length=300 output_file="$work/astray.jsonl"
has "$work/log" "^adapter: its adapter_config.json names $judge as its base; here it goes on $model"
if cmp -s "$work/further.jsonl" "$work/scores1.jsonl"; then fail "the adapter's own head does not come first"; fi

# An adapter merged with its base judges as the two together.
reward 2 "$work/adapter" model="$model" max_steps=10
"$plumb" merge --model "$model" --adapter "$work/adapter/adapter" --output "$work/merged" >"$work/log" 2>&1 || fail "merge: exit code $?"
must 1 score model="$model" adapter="$work/adapter/adapter" input_file=$pairs max_length=300 output_file="$work/two.jsonl" precision=fp32
mean=$(printed "$work/log" mean_reward)
must 1 score model="$work/merged" input_file=$pairs max_length=300 output_file="$work/one.jsonl" precision=fp32
holds "$mean - $(printed "$work/log" mean_reward) < 1e-4 && $(printed "$work/log" mean_reward) - $mean < 1e-4" "merged = base + adapter"

# As judge.
try() { # ranks, command, folder, further settings
    local n=$1 command=$2 folder=$3
    shift 3
    ranks "$n" "$command" model="$model" train_file="$work/prompts.jsonl" determinism=elastic precision=fp32 max_completion_length=40 max_prompt_length=200 batch_size=8 max_steps=3 \
        learning_rate=1e-3 micro_batch_tokens=100 report=false output_dir="$folder" "$@"
}
online() {
    try "$@"
    [ "$code" -eq 0 ] || fail "plumb ${*:2} on $1 ranks: exit code $code"
}
for n in 1 2 3; do online $n grpo "$work/grpo$n" num_generations=4 reward_model="$judge"; done
for n in 2 3; do
    same "$work/grpo1/adapter/adapter_model.safetensors" "$work/grpo$n/adapter/adapter_model.safetensors"
    same <(metric "$work/grpo1/metrics.jsonl" reward) <(metric "$work/grpo$n/metrics.jsonl" reward)
done
online 2 rloo "$work/one" num_generations=4 max_steps=1 reward_model="$work/merged"
online 2 rloo "$work/two" num_generations=4 max_steps=1 reward_adapter="$work/adapter/adapter"
one=$(metric "$work/one/metrics.jsonl" reward) two=$(metric "$work/two/metrics.jsonl" reward)
holds "$one - $two < 1e-4 && $two - $one < 1e-4" "a merged judge judges as the two together"
must 2 bestofn model="$model" input_file="$work/prompts.jsonl" output_file="$work/best.jsonl" reward_model="$judge" num_generations=4 max_completion_length=40 max_prompt_length=200
[ "$(grep -c '"score_chosen"' "$work/best.jsonl")" -eq 5 ] || fail "best-of-n with a judge of its own"

# A value model of its own. With the policy's base it computes what a value adapter on that base computes, bit for bit, in both modes of determinism, from a fresh adapter and from a given one.
results() { same "$1/adapter/adapter_model.safetensors" "$2/adapter/adapter_model.safetensors" && same "$1/value/adapter_model.safetensors" "$2/value/adapter_model.safetensors"; }
for determinism in fixed elastic; do
    online 2 ppo "$work/own" value_model="$model" reward_funcs=length:20 num_mini_batches=2 max_grad_norm=0.1 determinism=$determinism
    online 2 ppo "$work/base" value_model=adapter reward_funcs=length:20 num_mini_batches=2 max_grad_norm=0.1 determinism=$determinism
    results "$work/own" "$work/base"
    same <(metric "$work/own/metrics.jsonl" grad_norm) <(metric "$work/base/metrics.jsonl" grad_norm)
    rm -r "$work/own" "$work/base"
done
online 2 ppo "$work/own" value_model="$model" value_adapter="$work/adapter/adapter" reward_funcs=length:20
online 2 ppo "$work/base" value_model=adapter value_adapter="$work/adapter/adapter" reward_funcs=length:20
results "$work/own" "$work/base"

# With an adapter of its own on a reward model, and in full: the same bits on 1, 2 and 3 ranks, ratios of exactly 1 at the first update, trajectories that verify and replay.
sound() { # folder
    [ "$(metric "$1/metrics.jsonl" policy/first_log_ratio | tr '\n' ' ')" = "0 0 0 " ] || fail "$1: the log-ratio at the first update is not 0"
    "$plumb" trajectories "$1" --verify >"$work/log" 2>&1 || fail "plumb trajectories --verify"
    "$plumb" replay "$1" >"$work/log" 2>&1 || fail "plumb replay"
    [ "$(grep -c "rewards 0, advantages 0, returns 0;" "$work/log")" -eq 3 ] || fail "replay differs from the log"
}
lora() { online "$1" ppo "$2" value_model="$judge" reward_model="$judge" num_mini_batches=2 "${@:3}"; }
full() { online "$1" ppo "$2" value_model="$judge" reward_model="$judge" lora=false learning_rate=1e-4 num_mini_batches=2 "${@:3}"; }
for n in 1 2 3; do lora $n "$work/lora$n"; done
for n in 1 2 3; do full $n "$work/full$n"; done
sound "$work/lora3"
sound "$work/full2"
for n in 2 3; do
    results "$work/lora1" "$work/lora$n"
    same "$work/full1/model/model.safetensors" "$work/full$n/model/model.safetensors"
    same "$work/full1/value_model/model.safetensors" "$work/full$n/value_model/model.safetensors"
done
holds "$(metric "$work/lora1/metrics.jsonl" loss/value_avg | head -n 1) > 0" "the value model starts from the reward model's head"
if cmp -s "$judge/model.safetensors" "$work/full1/value_model/model.safetensors"; then fail "the value model has not learned"; fi
has "$work/full1/model/config.json" LlamaForCausalLM
has "$work/full1/value_model/config.json" LlamaForSequenceClassification
must 1 score model="$work/full1/value_model" input_file=$pairs max_length=300 output_file="$work/value.jsonl"
must 1 score model="$judge" adapter="$work/lora1/value" input_file=$pairs max_length=300 output_file="$work/value.jsonl"

# One folder for judge and value model is held once; the bits are those of two.
cp -r "$judge" "$work/copy"
lora 2 "$work/two-folders" reward_model="$work/copy"
results "$work/lora1" "$work/two-folders"
full 2 "$work/two-full" reward_model="$work/copy"
same "$work/full1/value_model/model.safetensors" "$work/two-full/value_model/model.safetensors"
lora 2 "$work/judged-twice" reward_adapter="$work/further-true/adapter"
lora 2 "$work/judged-once" reward_adapter="$work/further-true/adapter" reward_model="$work/copy"
results "$work/judged-twice" "$work/judged-once"

# Two iterations on 3 ranks, the third on 1; other files in the value model's place are refused.
for kind in lora full; do
    $kind 3 "$work/parts" save_steps=2
    rm -r "$work/parts/checkpoints/step-000003"
    $kind 1 "$work/parts" save_steps=2
    has "$work/log" "resumed from .*step-000002"
    if [ $kind = lora ]; then results "$work/lora1" "$work/parts"; else same "$work/full1/value_model/model.safetensors" "$work/parts/value_model/model.safetensors"; fi
    rm -r "$work/parts"
done
cp -r "$judge" "$work/moving"
lora 2 "$work/parts" value_model="$work/moving" save_steps=2
cp "$work/merged/model.safetensors" "$work/moving/model.safetensors"
rm -r "$work/parts/checkpoints/step-000003"
ranks 2 ppo "$work/parts/config.yaml"
[ "$code" -eq 1 ] || fail "a checkpoint with another value model: exit code $code"
has "$work/log" "value_model=[0-9a-f]{16}"

# TERM in the middle of an iteration of many updates gives it up in both models; the run goes on, on other ranks, to the bits of one that nobody stopped.
long() { try "$1" ppo "$2" value_model="$judge" reward_funcs=length:20 num_ppo_epochs=60 max_steps=4; }
long 1 "$work/long"
[ "$code" -eq 0 ] || fail "exit code $code"
long 2 "$work/term" &
shell=$!
appears "$work/term/metrics.jsonl" '"step": 2,'
sleep 0.15
send TERM "$shell"
has "$work/log" "stopped after step [0-9]+; saved in "
long 3 "$work/term"
[ "$code" -eq 0 ] || fail "after TERM: exit code $code"
has "$work/log" "resumed from "
results "$work/long" "$work/term"

# A smaller one: two layers of the same model.
if command -v python3 >/dev/null; then
    mkdir "$work/small"
    python3 - "$model" "$work/small" <<-'END'
	import json, struct, sys
	source, target = sys.argv[1:]
	data = open(source + "/model.safetensors", "rb").read()
	n = struct.unpack("<Q", data[:8])[0]
	kept, body = {}, b""
	for name, t in json.loads(data[8 : 8 + n]).items():
	    if name != "__metadata__" and not any(f"layers.{k}." in name for k in (2, 3, 4)):
	        begin, end = t["data_offsets"]
	        kept[name] = dict(t, data_offsets=[len(body), len(body) + end - begin])
	        body += data[8 + n + begin : 8 + n + end]
	header = json.dumps(kept).encode()
	header += b" " * (-len(header) % 8)
	open(target + "/model.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + body)
	config = json.load(open(source + "/config.json"))
	config["num_hidden_layers"] = 2
	json.dump(config, open(target + "/config.json", "w"))
	END
    for n in 1 2; do online $n ppo "$work/small$n" value_model="$work/small" reward_funcs=length:20; done
    results "$work/small1" "$work/small2"
    must 1 score model="$work/small" tokenizer="$model" adapter="$work/small1/value" input_file=$pairs max_length=300 output_file="$work/value.jsonl"
fi

# What cannot be is said by name, on every rank.
refused() { # text, command, settings
    local text=$1
    shift
    ranks 2 "$@" train_file="$work/prompts.jsonl" output_dir="$work/no"
    [ "$code" -eq 1 ] || fail "plumb $*: exit code $code"
    has "$work/log" "$text"
}
refused "model: .* is a reward model .*plumb ppo needs a language model" ppo model="$judge" reward_funcs=length:20
refused "model: .* is a reward model .*plumb sft needs a language model" sft model="$judge"
refused "reward_model: .*stories260K has no score head" grpo model="$model" reward_model="$model" max_prompt_length=200
cp -r "$judge" "$work/short"
sed -i 's/"max_position_embeddings": 512/"max_position_embeddings": 128/' "$work/short/config.json"
refused "reward_model: .* has 128 positions, a prompt with its completion up to 240" grpo model="$model" reward_model="$work/short" max_prompt_length=200 max_completion_length=40
cp -r "$judge" "$work/labels"
sed -i 's/"0": "LABEL_0"/"0": "LABEL_0", "1": "LABEL_1"/' "$work/labels/config.json"
refused "labels/config.json: num_labels is 2; supported" grpo model="$model" reward_model="$work/labels"
cp -r "$model" "$work/headless"
chmod -R u+w "$work/headless"
sed -i 's/LlamaForCausalLM/LlamaForSequenceClassification/; s/"vocab_size"/"num_labels": 1, "vocab_size"/' "$work/headless/config.json"
refused "tensor score.weight is missing" grpo model="$model" reward_model="$work/headless"
refused "value_model: found trnk, where there is nothing; expected adapter, trunk, or the path" ppo model="$model" reward_funcs=length:20 value_model=trnk
refused "value_model: .* has a vocabulary of 131, the policy of 512" ppo model="$model" reward_funcs=length:20 value_model=tests/golden/models/llama
# As many tokens are not the same tokens; templates and roles do not count, and a model without a tokenizer is taken as it is.
cp -r "$judge" "$work/tokens"
sed -i 's/"▁upon": 407/"▁upon": 409/; s/"▁k": 409/"▁k": 407/' "$work/tokens/tokenizer.json"
others="tokens reads other tokens than the policy.s; .*: id 407 is \"▁upon\" in $model/tokenizer.json and \"▁k\" in $work/tokens/tokenizer.json"
refused "reward_model: .*$others" grpo model="$model" reward_model="$work/tokens" max_prompt_length=200
refused "value_model: .*$others" ppo model="$model" reward_funcs=length:20 value_model="$work/tokens" max_prompt_length=200
cp "$model/tokenizer.json" "$work/tokens"
echo '{"chat_template": "x", "eos_token": "<unk>"}' >"$work/tokens/tokenizer_config.json"
cost reward_model="$work/tokens" >"$work/cost"
rm "$work/tokens"/tokenizer*
cost reward_model="$work/tokens" >"$work/cost"
refused "value_adapter: found it with lora: false" ppo model="$model" reward_funcs=length:20 value_model="$judge" value_adapter="$work/adapter/adapter" lora=false
refused "value_adapter: .* has no score head" ppo model="$model" reward_funcs=length:20 value_model="$judge" value_adapter="$work/grpo1/adapter" max_prompt_length=200
refused "value_model: adapter needs lora: true, .* or a model of its own" ppo model="$model" reward_funcs=length:20 lora=false
ranks 2 score model="$model" input_file=$pairs max_length=300 output_file="$work/no.jsonl"
[ "$code" -eq 1 ] || fail "score without a head: exit code $code"
has "$work/log" "model: .* has no score head"
