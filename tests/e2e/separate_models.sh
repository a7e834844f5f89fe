#!/bin/bash
# Models of their own beside the policy: a reward model with all its weights (a sequence classifier), as judge and as what training goes on from, on any number of ranks.
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

# Going on from it starts from its head, with an adapter or in full.
for lora in true false; do
    reward 2 "$work/further-$lora" model="$judge" lora=$lora eval_at_start=true max_steps=2
    [ "$(metric "$work/further-$lora/metrics.jsonl" eval_loss | head -n 1)" = "$learned" ] || fail "lora=$lora did not start where the reward model ended"
done
has "$work/further-true/adapter/adapter_config.json" SEQ_CLS
must 1 score model="$judge" adapter="$work/further-true/adapter" input_file=$pairs max_length=300 output_file="$work/further.jsonl"
if cmp -s "$work/further.jsonl" "$work/scores1.jsonl"; then fail "the adapter's own head does not come first"; fi

# An adapter merged with its base judges as the two together.
reward 2 "$work/adapter" model="$model" max_steps=10
"$plumb" merge --model "$model" --adapter "$work/adapter/adapter" --output "$work/merged" >"$work/log" 2>&1 || fail "merge: exit code $?"
must 1 score model="$model" adapter="$work/adapter/adapter" input_file=$pairs max_length=300 output_file="$work/two.jsonl" precision=fp32
mean=$(printed "$work/log" mean_reward)
must 1 score model="$work/merged" input_file=$pairs max_length=300 output_file="$work/one.jsonl" precision=fp32
holds "$mean - $(printed "$work/log" mean_reward) < 1e-4 && $(printed "$work/log" mean_reward) - $mean < 1e-4" "merged = base + adapter"

# As judge.
online() { # ranks, command, folder, further settings
    local n=$1 command=$2 folder=$3
    shift 3
    ranks "$n" "$command" model="$model" train_file="$work/prompts.jsonl" determinism=elastic precision=fp32 max_completion_length=40 max_prompt_length=200 batch_size=8 max_steps=3 \
        learning_rate=1e-3 micro_batch_tokens=100 report=false output_dir="$folder" "$@"
    [ "$code" -eq 0 ] || fail "plumb $command $* on $n ranks: exit code $code"
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
ranks 2 score model="$model" input_file=$pairs max_length=300 output_file="$work/no.jsonl"
[ "$code" -eq 1 ] || fail "score without a head: exit code $code"
has "$work/log" "model: .* has no score head"
