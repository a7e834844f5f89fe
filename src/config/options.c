/* The one table of options.  A new option is a field in config.h and a row here; everything else follows: validation,
 * --help, docs/options.md, the resolved config.yaml. After a change, write the page anew with `plumb options --markdown
 * > docs/options.md` (a test compares).
 *
 * Names are TRL's and transformers' where the meaning is the same. Defaults too, with these differences, each for a
 * reason: batch_size is the whole optimizer step (a result must not depend on the number of ranks); lora is true (one
 * frozen base, many adapters); epochs is 1; logging_steps is 1 (a CPU step takes seconds); gradient_checkpointing is
 * false (micro-batches are small); lora_dropout is 0 (DPO runs without dropout anyway); save_total_limit is 2 (a
 * cluster's quota). */
#include <float.h>
#include "config_internal.h"

#define AT(field) offsetof(plumb_options, field)
#define STRING PLUMB_OPT_STRING
#define INT PLUMB_OPT_INT
#define FLOAT PLUMB_OPT_FLOAT
#define BOOL PLUMB_OPT_BOOL
#define LIST PLUMB_OPT_LIST
#define CHOICE PLUMB_OPT_CHOICE
#define ABOVE_0 DBL_TRUE_MIN /* an open end of a range is the nearest double inside */
#define BELOW_1 (1.0 - DBL_EPSILON / 2)
#define BELOW_HALF (0.5 - DBL_EPSILON / 4)
#define PATH 1, PLUMB_PATH_BYTES, NULL
#define COUNT_MAX 1e15              /* counts, exact in double */
#define SEED_MAX 9007199254740992.0 /* 2^53 */

enum {
    SFT = PLUMB_FOR_SFT,
    DPO = PLUMB_FOR_DPO,
    EVAL = PLUMB_FOR_EVAL,
    GENERATE = PLUMB_FOR_GENERATE,
    REWARD = PLUMB_FOR_REWARD,
    SCORE = PLUMB_FOR_SCORE,
    PPO = PLUMB_FOR_PPO,
    GRPO = PLUMB_FOR_GRPO,
    RLOO = PLUMB_FOR_RLOO,
    BESTOFN = PLUMB_FOR_BESTOFN,
    ONLINE = PPO | GRPO | RLOO,            /* sample and learn */
    ROLLS = ONLINE | BESTOFN,              /* sample many completions */
    RECORDS = SFT | DPO | REWARD,          /* learn from answers that are given */
    TRAIN = RECORDS | ONLINE,
    PAIRS = DPO | REWARD,
    DATA = RECORDS | EVAL | SCORE | ROLLS,
    RUNS = DATA | GENERATE
};

const plumb_option plumb_option_table[] = {
    {"model", "Model", STRING, AT(model), "null", NULL, PATH, RUNS, RUNS,
     "base model: a Hugging Face directory (config.json, safetensors) or a GGUF file"},
    {"adapter", "Model", STRING, AT(adapter), "null", NULL, PATH, TRAIN, 0,
     "PEFT adapter to go on from, for instance DPO after SFT; its r, alpha, targets and rsLoRA replace the lora_ keys"},
    {"adapter", "Model", STRING, AT(adapter), "null", NULL, PATH, EVAL | GENERATE | BESTOFN, 0, "PEFT adapter to use with the model"},
    {"adapter", "Model", STRING, AT(adapter), "null", NULL, PATH, SCORE, 0,
     "reward model: a PEFT adapter with a score head, as plumb reward writes it; null = model is a sequence classifier with a head of its "
     "own"},
    {"tokenizer", "Model", STRING, AT(tokenizer), "null", NULL, PATH, RUNS, 0,
     "directory, tokenizer.json or GGUF file of the tokenizer; null = the model's own"},
    {"output_dir", "Model", STRING, AT(output_dir), "null", NULL, PATH, TRAIN, TRAIN,
     "folder that receives everything the command writes; created when missing"},
    {"output_dir", "Model", STRING, AT(output_dir), "null", NULL, PATH, EVAL, 0,
     "folder that receives the results; null = they are only printed"},
    {"run_name", "Model", STRING, AT(run_name), "null", NULL, 1, 255, NULL, TRAIN, 0,
     "name of the run in messages; null = the last part of output_dir"},

    {"train_file", "Data", STRING, AT(train_file), "null", NULL, PATH, ONLINE, ONLINE,
     "records with prompts (and answers, for verifiable rewards): .jsonl or .json (an array), either as .gz"},
    {"train_file", "Data", STRING, AT(train_file), "null", NULL, PATH, RECORDS, RECORDS,
     "training records: .jsonl or .json (an array), either as .gz"},
    {"train_file", "Data", STRING, AT(train_file), "null", NULL, PATH, EVAL, 0, "the file whose last eval_last records are evaluated"},
    {"eval_file", "Data", STRING, AT(eval_file), "null", NULL, PATH, RECORDS | EVAL, 0, "held-out records; excludes eval_last"},
    {"eval_last", "Data", INT, AT(eval_last), "0", NULL, 0, COUNT_MAX, NULL, TRAIN | EVAL, 0,
     "the last N records of train_file are held out, not trained on; 0 = none"},
    {"input_file", "Data", STRING, AT(input_file), "null", NULL, PATH, SCORE, SCORE,
     "records to score: prompt and completion (with a label, for AUC) or preference pairs: .jsonl or .json, either as .gz"},
    {"input_file", "Data", STRING, AT(input_file), "null", NULL, PATH, BESTOFN, BESTOFN,
     "records with prompts: .jsonl or .json, either as .gz"},
    {"output_file", "Data", STRING, AT(output_file), "null", NULL, PATH, SCORE | BESTOFN, SCORE | BESTOFN,
     "JSONL file that receives the results"},
    {"output_format", "Data", CHOICE, AT(output_format), "preference", NULL, 0, 0, "preference|sft", BESTOFN, 0,
     "preference = the best and the worst completion of a prompt as a pair; sft = the best alone"},
    {"template_name", "Data", CHOICE, AT(template_name), "null", NULL, 0, 0, "chatml|chatml-smollm2|chatml-trimmed|alpaca|none", DATA, 0,
     "how messages and Alpaca records become text; null = chatml for messages, alpaca for Alpaca records"},
    {"template_name", "Data", CHOICE, AT(template_name), "null", NULL, 0, 0, "chatml|chatml-smollm2|chatml-trimmed|alpaca|none", GENERATE,
     0, "how the prompt becomes text; null = as it is"},
    {"loss_on", "Data", CHOICE, AT(loss_on), "auto", NULL, 0, 0, "auto|completion|all|assistant", SFT | EVAL, 0,
     "tokens in the loss; auto = the completion where the record has one, all for text and messages"},
    {"on_error", "Data", CHOICE, AT(on_error), "stop", NULL, 0, 0, "stop|skip", DATA, 0,
     "a bad record stops the run with file and line, or is skipped and counted"},
    {"field_prompt", "Data", STRING, AT(field_prompt), "prompt", NULL, 1, 255, NULL, DATA, 0, "name of the prompt's field"},
    {"field_completion", "Data", STRING, AT(field_completion), "completion", NULL, 1, 255, NULL, SFT | EVAL | SCORE, 0,
     "name of the completion's field"},
    {"field_messages", "Data", STRING, AT(field_messages), "messages", NULL, 1, 255, NULL, SFT | EVAL | ROLLS, 0,
     "name of the field with a list of messages"},
    {"field_text", "Data", STRING, AT(field_text), "text", NULL, 1, 255, NULL, SFT | EVAL, 0, "name of the field with plain text"},
    {"field_instruction", "Data", STRING, AT(field_instruction), "instruction", NULL, 1, 255, NULL, DATA, 0,
     "Alpaca records: name of the instruction's field"},
    {"field_input", "Data", STRING, AT(field_input), "input", NULL, 1, 255, NULL, DATA, 0, "Alpaca records: name of the input's field"},
    {"field_output", "Data", STRING, AT(field_output), "output", NULL, 1, 255, NULL, SFT | EVAL, 0,
     "Alpaca records: name of the answer's field; chosen trains on the preferred answers of pairs"},
    {"field_chosen", "Data", STRING, AT(field_chosen), "chosen", NULL, 1, 255, NULL, PAIRS | SCORE, 0,
     "name of the preferred answer's field"},
    {"field_rejected", "Data", STRING, AT(field_rejected), "rejected", NULL, 1, 255, NULL, PAIRS | SCORE, 0,
     "name of the other answer's field"},
    {"field_margin", "Data", STRING, AT(field_margin), "margin", NULL, 1, 255, NULL, REWARD, 0,
     "name of an optional number: by how much the chosen answer should win"},
    {"field_label", "Data", STRING, AT(field_label), "label", NULL, 1, 255, NULL, SCORE, 0,
     "name of an optional rating, true or false (or a number, above 0 = good): gives the AUC"},
    {"field_answer", "Data", STRING, AT(field_answer), "answer", NULL, 1, 255, NULL, ROLLS, 0,
     "name of the expected answer's field, for verifiable rewards"},
    {"max_length", "Data", INT, AT(max_length), "1024", NULL, 0, 1 << 24, NULL, SFT | DPO | EVAL, 0,
     "tokens of prompt and answer together, or the model's positions where it has fewer; longer ones are cut at the end and counted; 0 = "
     "no limit"},
    {"max_length", "Data", INT, AT(max_length), "1024", NULL, 0, 1 << 24, NULL, REWARD | SCORE, 0,
     "tokens of prompt and answer together, or the model's positions where it has fewer; longer ones are dropped and counted; 0 = no "
     "limit"},
    {"max_prompt_length", "Data", INT, AT(max_prompt_length), "512", NULL, 1, 1 << 24, NULL, ROLLS, 0,
     "tokens of a prompt, or one less than the model's positions where it has fewer; longer ones are dropped and counted"},
    {"shuffle", "Data", BOOL, AT(shuffle), "true", NULL, 0, 0, NULL, TRAIN, 0,
     "new order of samples in each epoch, by the seed; false = the file's order"},
    {"seed", "Data", INT, AT(seed), "42", NULL, 0, SEED_MAX, NULL, TRAIN | GENERATE | BESTOFN, 0,
     "of everything random: order, initial adapter, dropout, sampling"},

    {"epochs", "Training", FLOAT, AT(epochs), "1", NULL, ABOVE_0, 1e6, NULL, TRAIN, 0,
     "passes over the training records; fractions are allowed"},
    {"max_steps", "Training", INT, AT(max_steps), "0", NULL, 0, COUNT_MAX, NULL, RECORDS, 0,
     "optimizer steps of the run, instead of epochs; 0 = by epochs"},
    {"max_steps", "Training", INT, AT(max_steps), "0", NULL, 0, COUNT_MAX, NULL, ONLINE, 0,
     "iterations of the run (sample, score, learn), instead of epochs over the prompts; 0 = by epochs"},
    {"batch_size", "Training", INT, AT(batch_size), "8", NULL, 1, 1 << 24, NULL, RECORDS, 0,
     "samples (of preferences: pairs) per optimizer step over all ranks, however they are computed"},
    {"batch_size", "Training", INT, AT(batch_size), "8", NULL, 1, 1 << 24, NULL, ONLINE, 0,
     "completions per iteration over all ranks: prompts times num_generations"},
    {"micro_batch_tokens", "Training", INT, AT(micro_batch_tokens), "320", NULL, 1, 1 << 24, NULL, RECORDS | EVAL | SCORE, 0,
     "tokens computed at a time, at most; a longer sample is computed alone; changes memory and speed"},
    {"micro_batch_tokens", "Training", INT, AT(micro_batch_tokens), "512", NULL, 1, 1 << 24, NULL, ROLLS, 0,
     "tokens computed at a time, at most: a prompt with as many of its completions as fit; changes memory and speed"},
    {"learning_rate", "Training", FLOAT, AT(learning_rate), "1e-4", "2e-5", 0, 10, NULL, SFT, 0, "peak learning rate"},
    {"learning_rate", "Training", FLOAT, AT(learning_rate), "5e-6", "1e-6", 0, 10, NULL, DPO, 0, "peak learning rate"},
    {"learning_rate", "Training", FLOAT, AT(learning_rate), "1e-4", NULL, 0, 10, NULL, REWARD, 0, "peak learning rate"},
    {"learning_rate", "Training", FLOAT, AT(learning_rate), "3e-6", NULL, 0, 10, NULL, PPO, 0, "peak learning rate"},
    {"learning_rate", "Training", FLOAT, AT(learning_rate), "1e-6", NULL, 0, 10, NULL, GRPO | RLOO, 0, "peak learning rate"},
    {"lr_scheduler_type", "Training", CHOICE, AT(lr_scheduler_type), "linear", NULL, 0, 0,
     "linear|cosine|constant|constant_with_warmup|cosine_with_restarts|polynomial|inverse_sqrt|warmup_stable_decay|"
     "cosine_with_min_lr",
     TRAIN, 0, "course of the learning rate, as in transformers"},
    {"warmup_steps", "Training", INT, AT(warmup_steps), "0", NULL, 0, COUNT_MAX, NULL, TRAIN, 0,
     "steps (of reinforcement learning: iterations) in which the learning rate rises from 0"},
    {"warmup_ratio", "Training", FLOAT, AT(warmup_ratio), "0", NULL, 0, 1, NULL, TRAIN, 0,
     "the same as a share of all steps, rounded up; excludes warmup_steps"},
    {"lr_scheduler_kwargs.min_lr", "Training", FLOAT, AT(lr_min), "0", NULL, 0, 10, NULL, TRAIN, 0, "cosine_with_min_lr: rate at the end"},
    {"lr_scheduler_kwargs.power", "Training", FLOAT, AT(lr_power), "0", NULL, 0, 100, NULL, TRAIN, 0, "polynomial: exponent; 0 = 1"},
    {"lr_scheduler_kwargs.num_decay_steps", "Training", INT, AT(lr_decay_steps), "0", NULL, 0, COUNT_MAX, NULL, TRAIN, 0,
     "warmup_stable_decay: steps of the decay; 0 = a tenth of the run"},
    {"weight_decay", "Training", FLOAT, AT(weight_decay), "0", NULL, 0, 10, NULL, TRAIN, 0,
     "AdamW's decoupled decay; norms and biases do not decay"},
    {"adam_beta1", "Training", FLOAT, AT(adam_beta1), "0.9", NULL, 0, BELOW_1, NULL, TRAIN, 0, "AdamW's decay of the first moment"},
    {"adam_beta2", "Training", FLOAT, AT(adam_beta2), "0.999", NULL, 0, BELOW_1, NULL, TRAIN, 0, "AdamW's decay of the second moment"},
    {"adam_eps", "Training", FLOAT, AT(adam_eps), "1e-8", NULL, ABOVE_0, 1, NULL, RECORDS | GRPO | RLOO, 0, "AdamW's epsilon"},
    {"adam_eps", "Training", FLOAT, AT(adam_eps), "1e-5", NULL, ABOVE_0, 1, NULL, PPO, 0, "AdamW's epsilon"},
    {"max_grad_norm", "Training", FLOAT, AT(max_grad_norm), "1.0", NULL, 0, 1e9, NULL, TRAIN, 0,
     "gradients with a larger norm are scaled down to it; 0 = never"},
    {"gradient_checkpointing", "Training", BOOL, AT(gradient_checkpointing), "false", NULL, 0, 0, NULL, TRAIN, 0,
     "keep one activation per layer and compute the others again: less memory, about a third more work"},

    {"lora", "LoRA", BOOL, AT(lora), "true", NULL, 0, 0, NULL, TRAIN, 0,
     "train an adapter on the frozen model; false = train the model's own weights (train_modules)"},
    {"lora_r", "LoRA", INT, AT(lora_r), "16", NULL, 1, 65536, NULL, TRAIN, 0, "rank of the adapter"},
    {"lora_alpha", "LoRA", FLOAT, AT(lora_alpha), "32", NULL, ABOVE_0, 1e6, NULL, TRAIN, 0, "scale: the adapter counts alpha / r times"},
    {"lora_dropout", "LoRA", FLOAT, AT(lora_dropout), "0", NULL, 0, BELOW_1, NULL, RECORDS, 0,
     "dropout on the adapter's input while training; SFT alone applies it, as in TRL"},
    {"lora_target_modules", "LoRA", LIST, AT(lora_target_modules), "[all-linear]", NULL, 1, 4096, NULL, TRAIN, 0,
     "modules that get an adapter: all-linear, or ends of names such as q_proj"},
    {"use_rslora", "LoRA", BOOL, AT(use_rslora), "false", NULL, 0, 0, NULL, TRAIN, 0, "scale by alpha / sqrt(r) (rank-stabilised LoRA)"},
    {"train_modules", "LoRA", LIST, AT(train_modules), "[]", "[all]", 0, 4096, NULL, TRAIN, 0,
     "patterns (with * and ?) of parameters trained in full, beside the adapter or without; all = every parameter"},

    {"loss_type", "DPO", CHOICE, AT(loss_type), "sigmoid", NULL, 0, 0, "sigmoid|ipo", DPO, 0,
     "DPO's loss: sigmoid (Rafailov et al. 2023), ipo (Azar et al. 2023)"},
    {"beta", "DPO", FLOAT, AT(beta), "0.1", NULL, ABOVE_0, 1000, NULL, DPO, 0, "strength of the pull towards the reference model"},
    {"label_smoothing", "DPO", FLOAT, AT(label_smoothing), "0", NULL, 0, BELOW_HALF, NULL, DPO, 0,
     "share of pairs whose order is taken to be wrong (cDPO); sigmoid only"},

    {"center_rewards_coefficient", "Reward model", FLOAT, AT(center_rewards_coefficient), "0", NULL, 0, 1000, NULL, REWARD, 0,
     "pulls the sum of a pair's rewards to zero; 0.01 is usual"},

    {"num_generations", "Rollout", INT, AT(num_generations), "1", NULL, 1, 65536, NULL, PPO, 0, "completions of each prompt"},
    {"num_generations", "Rollout", INT, AT(num_generations), "8", NULL, 2, 65536, NULL, GRPO, 0,
     "completions of each prompt: the group that its rewards are compared with"},
    {"num_generations", "Rollout", INT, AT(num_generations), "2", NULL, 2, 65536, NULL, RLOO, 0,
     "completions of each prompt: the group that its rewards are compared with"},
    {"num_generations", "Rollout", INT, AT(num_generations), "8", NULL, 2, 65536, NULL, BESTOFN, 0, "completions of each prompt"},
    {"max_completion_length", "Rollout", INT, AT(max_completion_length), "256", NULL, 1, 1 << 24, NULL, ROLLS, 0,
     "tokens generated for a completion at most, or one less than the model's positions where it has fewer; a completion also ends where "
     "the positions do"},
    {"rollout_batch", "Rollout", INT, AT(rollout_batch), "64", NULL, 1, 65536, NULL, ROLLS, 0,
     "completions that a rank decodes at a time, at most; changes memory and speed"},
    {"kv_budget_mb", "Rollout", INT, AT(kv_budget_mb), "1024", NULL, 1, 1 << 24, NULL, ROLLS, 0,
     "MiB of keys and values on a rank; completions wait for room"},
    {"log_trajectories", "Rollout", BOOL, AT(log_trajectories), "true", NULL, 0, 0, NULL, ONLINE, 0,
     "every completion with all that was computed about it goes to trajectories/ (HDF5)"},

    {"reward_adapter", "Reward", STRING, AT(reward_adapter), "null", NULL, PATH, ROLLS, 0,
     "reward model: a PEFT adapter with a score head, as plumb reward writes it, on the base model (or on reward_model, whose own head it "
     "replaces)"},
    {"reward_model", "Reward", STRING, AT(reward_model), "null", NULL, PATH, ROLLS, 0,
     "reward model of its own: a sequence classifier with one label, as plumb reward with lora: false writes it, or a base for "
     "reward_adapter; reads the policy's tokens"},
    {"reward_funcs", "Reward", LIST, AT(reward_funcs), "[]", NULL, 0, 15, NULL, ROLLS, 0,
     "verifiable rewards: exact_match, number, regex:PATTERN, length:N, json, program:COMMAND"},
    {"reward_weights", "Reward", LIST, AT(reward_weights), "[]", NULL, 0, 16, NULL, ROLLS, 0,
     "weights of the sum: the reward model first, if there is one, then reward_funcs; empty = all 1"},
    {"reward_timeout", "Reward", FLOAT, AT(reward_timeout), "30", NULL, 0.001, 1e6, NULL, ROLLS, 0,
     "seconds that a program may take for one completion"},
    {"reward_retries", "Reward", INT, AT(reward_retries), "3", NULL, 0, 1000, NULL, ROLLS, 0,
     "times in a row that a program which died or timed out is started again"},
    {"missing_eos_penalty", "Reward", FLOAT, AT(missing_eos_penalty), "1.0", NULL, 0, 1e9, NULL, PPO | RLOO, 0,
     "subtracted from the score of a completion that did not end by itself; 0 = nothing"},
    {"missing_eos_penalty", "Reward", FLOAT, AT(missing_eos_penalty), "0", NULL, 0, 1e9, NULL, GRPO | BESTOFN, 0,
     "subtracted from the score of a completion that did not end by itself; 0 = nothing"},
    {"missing_eos", "Reward", CHOICE, AT(missing_eos), "penalty", NULL, 0, 0, "penalty|replace", ROLLS, 0,
     "penalty = missing_eos_penalty is subtracted; replace = it is the score, negated"},

    {"num_ppo_epochs", "PPO", INT, AT(num_ppo_epochs), "4", NULL, 1, 1000, NULL, PPO, 0, "passes over the completions of an iteration"},
    {"num_mini_batches", "PPO", INT, AT(num_mini_batches), "1", NULL, 1, 65536, NULL, ONLINE, 0,
     "optimizer steps that a pass over the completions is cut into"},
    {"kl_coef", "PPO", FLOAT, AT(kl_coef), "0.05", NULL, 0, 1000, NULL, PPO, 0, "weight of the KL penalty per token against the reference"},
    {"kl_estimator", "PPO", CHOICE, AT(kl_estimator), "k1", NULL, 0, 0, "k1|k2|k3", PPO, 0,
     "k1 = logp - ref_logp; k2 = half its square; k3 = exp(-k1) - 1 + k1"},
    {"adap_kl_ctrl", "PPO", BOOL, AT(adap_kl_ctrl), "false", NULL, 0, 0, NULL, PPO, 0,
     "adapt kl_coef so that the KL of a completion comes to kl_target (Ziegler et al. 2019)"},
    {"kl_target", "PPO", FLOAT, AT(kl_target), "6", NULL, ABOVE_0, 1e6, NULL, PPO, 0, "adap_kl_ctrl: KL of a completion that is aimed at"},
    {"kl_horizon", "PPO", FLOAT, AT(kl_horizon), "10000", NULL, 1, 1e15, NULL, PPO, 0,
     "adap_kl_ctrl: completions over which the coefficient adapts"},
    {"cliprange", "PPO", FLOAT, AT(cliprange), "0.2", NULL, ABOVE_0, 1000, NULL, PPO, 0,
     "the ratio of probabilities counts within 1 - c and 1 + c"},
    {"cliprange_value", "PPO", FLOAT, AT(cliprange_value), "0.2", NULL, 0, 1e9, NULL, PPO, 0,
     "new values count within old value +- c; 0 = no clipping"},
    {"dual_clip", "PPO", FLOAT, AT(dual_clip), "0", NULL, 0, 1e9, NULL, PPO, 0,
     "bound of the loss at c times a negative advantage (Ye et al. 2020), c > 1; 0 = none"},
    {"vf_coef", "PPO", FLOAT, AT(vf_coef), "0.1", NULL, 0, 1000, NULL, PPO, 0, "weight of the value loss"},
    {"entropy_coef", "PPO", FLOAT, AT(entropy_coef), "0", NULL, 0, 1000, NULL, ONLINE, 0,
     "weight of a bonus for the mean entropy of the policy; costs two more products of the head"},
    {"gamma", "PPO", FLOAT, AT(gamma), "1", NULL, 0, 1, NULL, PPO, 0, "discount of later rewards"},
    {"lam", "PPO", FLOAT, AT(lam), "0.95", NULL, 0, 1, NULL, PPO, 0, "lambda of generalised advantage estimation"},
    {"whiten_rewards", "PPO", BOOL, AT(whiten_rewards), "false", NULL, 0, 0, NULL, PPO, 0,
     "scale the rewards of an iteration to variance 1 before advantages are estimated"},
    {"value_model", "PPO", STRING, AT(value_model), "adapter", NULL, PATH, PPO, 0,
     "adapter = the value model is an adapter of its own on the base; trunk = a second head on the policy: faster; a path = a model of its "
     "own (a reward model with its head, or a language model), "
     "trained as the policy is: by an adapter of its own, or in full where lora is false"},
    {"value_adapter", "PPO", STRING, AT(value_adapter), "null", NULL, PATH, PPO, 0,
     "adapter with a score head that the value model starts from (trunk: its head alone, also as value_head.safetensors); null = "
     "reward_adapter (value_model: adapter), or a fresh one, with the model's "
     "own head or a zero one"},

    {"num_iterations", "GRPO and RLOO", INT, AT(num_iterations), "1", NULL, 1, 1000, NULL, GRPO | RLOO, 0,
     "passes over the completions of an iteration"},
    {"loss_type", "GRPO and RLOO", CHOICE, AT(loss_type), "dapo", NULL, 0, 0, "grpo|bnpo|dr_grpo|dapo|cispo", GRPO, 0,
     "how tokens are weighed: grpo = mean over completions of their means; dapo, bnpo = mean over all tokens; dr_grpo = sum over "
     "max_completion_length; cispo = detached, capped ratio"},
    {"beta", "GRPO and RLOO", FLOAT, AT(beta), "0", NULL, 0, 1000, NULL, GRPO, 0,
     "weight of the KL penalty (k3) in the loss; 0 = no reference model"},
    {"beta", "GRPO and RLOO", FLOAT, AT(beta), "0.05", NULL, 0, 1000, NULL, RLOO, 0,
     "weight of the KL penalty that is subtracted from a completion's reward; 0 = no reference model"},
    {"epsilon", "GRPO and RLOO", FLOAT, AT(epsilon), "0.2", NULL, 0, 1, NULL, GRPO | RLOO, 0,
     "the ratio of probabilities counts from 1 - epsilon"},
    {"epsilon_high", "GRPO and RLOO", FLOAT, AT(epsilon_high), "0", NULL, 0, 1e6, NULL, GRPO, 0,
     "to 1 + epsilon_high; 0 = epsilon (cispo: the cap of the ratio itself)"},
    {"delta", "GRPO and RLOO", FLOAT, AT(delta), "0", NULL, 0, 1e6, NULL, GRPO, 0,
     "two-sided clipping: the unclipped ratio counts up to delta, above 1 + epsilon; 0 = off"},
    {"importance_sampling_level", "GRPO and RLOO", CHOICE, AT(importance_sampling_level), "token", NULL, 0, 0, "token|sequence", GRPO, 0,
     "ratios of tokens, or of whole completions (GSPO)"},
    {"scale_rewards", "GRPO and RLOO", CHOICE, AT(scale_rewards), "group", NULL, 0, 0, "group|batch|none", GRPO, 0,
     "advantages are divided by the rewards' standard deviation of the group, of the batch, or not"},

    {"eval_steps", "Evaluation, log, checkpoints", INT, AT(eval_steps), "0", NULL, 0, COUNT_MAX, NULL, RECORDS, 0,
     "evaluate after every N steps; 0 = only at the end"},
    {"eval_at_start", "Evaluation, log, checkpoints", BOOL, AT(eval_at_start), "false", NULL, 0, 0, NULL, RECORDS, 0,
     "evaluate before the first step too"},
    {"logging_steps", "Evaluation, log, checkpoints", INT, AT(logging_steps), "1", NULL, 1, COUNT_MAX, NULL, TRAIN, 0,
     "a line in the log and in metrics.jsonl after every N steps"},
    {"report", "Evaluation, log, checkpoints", BOOL, AT(report), "true", NULL, 0, 0, NULL, TRAIN, 0,
     "at the end, report.html is written to output_dir: curves, completions and settings on one page (plumb report)"},
    {"save_steps", "Evaluation, log, checkpoints", INT, AT(save_steps), "500", NULL, 0, COUNT_MAX, NULL, TRAIN, 0,
     "a checkpoint after every N steps; 0 = only at the end and when asked to stop"},
    {"save_total_limit", "Evaluation, log, checkpoints", INT, AT(save_total_limit), "2", NULL, 0, 1 << 24, NULL, TRAIN, 0,
     "checkpoints that are kept, the newest; 0 = all"},
    {"resume", "Evaluation, log, checkpoints", STRING, AT(resume), "auto", NULL, PATH, TRAIN, 0,
     "auto = go on from the newest complete checkpoint in output_dir if there is one; never; or the path of a "
     "checkpoint"},
    {"resume", "Evaluation, log, checkpoints", STRING, AT(resume), "auto", NULL, PATH, BESTOFN, 0,
     "auto = go on with what a run that was stopped or killed has left in output_file.partial; never = begin anew, "
     "also where output_file is there"},
    {"stop_after", "Evaluation, log, checkpoints", STRING, AT(stop_after), "\"\"", NULL, 0, 255, NULL, TRAIN | BESTOFN, 0,
     "save and leave with exit code 75 after this long: 90s, 55m, 3h30m, 1d; empty = no limit"},

    {"prompt", "Generation", STRING, AT(prompt), "null", NULL, 0, 1 << 20, NULL, GENERATE, GENERATE, "the text to go on from"},
    {"max_new_tokens", "Generation", INT, AT(max_new_tokens), "256", NULL, 1, 1 << 24, NULL, GENERATE, 0, "tokens generated at most"},
    {"do_sample", "Generation", BOOL, AT(do_sample), "false", NULL, 0, 0, NULL, GENERATE, 0,
     "draw tokens by their probability; false = always the most likely one"},
    {"min_new_tokens", "Generation", INT, AT(min_new_tokens), "0", NULL, 0, 1 << 24, NULL, GENERATE | ROLLS, 0,
     "tokens generated at least: until then no end token may come"},
    {"stop_strings", "Generation", LIST, AT(stop_strings), "[]", NULL, 0, 64, NULL, GENERATE | ROLLS, 0,
     "texts that end a completion; the text keeps them"},
    {"temperature", "Generation", FLOAT, AT(temperature), "1.0", NULL, ABOVE_0, 1000, NULL, GENERATE | GRPO | RLOO | BESTOFN, 0,
     "sampling: divides the logits"},
    {"temperature", "Generation", FLOAT, AT(temperature), "0.7", NULL, ABOVE_0, 1000, NULL, PPO, 0,
     "divides the logits, in sampling and in learning"},
    {"top_k", "Generation", INT, AT(top_k), "0", NULL, 0, 1 << 24, NULL, GENERATE | ROLLS, 0,
     "sampling: only the k most likely tokens; 0 = all"},
    {"top_p", "Generation", FLOAT, AT(top_p), "1.0", NULL, ABOVE_0, 1, NULL, GENERATE | ROLLS, 0,
     "sampling: only the likeliest tokens that together reach this probability"},
    {"min_p", "Generation", FLOAT, AT(min_p), "0", NULL, 0, 1, NULL, GENERATE | ROLLS, 0,
     "sampling: only tokens at least this many times as likely as the likeliest; 0 = all"},
    {"typical_p", "Generation", FLOAT, AT(typical_p), "1.0", NULL, ABOVE_0, 1, NULL, GENERATE | ROLLS, 0,
     "sampling: only the tokens nearest to the expected information that together reach this probability"},
    {"repetition_penalty", "Generation", FLOAT, AT(repetition_penalty), "1.0", NULL, ABOVE_0, 1000, NULL, GENERATE | ROLLS, 0,
     "logits of tokens seen before, in prompt or answer, are divided by it, negative ones multiplied"},

    {"precision", "Machine", CHOICE, AT(precision), "auto", NULL, 0, 0, "auto|fp32|bf16", RUNS, 0,
     "of products, with fp32 sums and weights; auto = bf16 where the processor has it, else fp32"},
    {"base_weights", "Machine", CHOICE, AT(base_weights), "native", NULL, 0, 0, "native|int8|int4|w8a8|w4a8", RUNS, 0,
     "how the frozen base model is held: native = as precision says; int8 and int4 = in blocks of 32 with a scale: less memory, faster "
     "decoding; w8a8 and w4a8 = the same, and activations that meet them are rounded to 8 bits: faster still, less exact"},
    {"backend", "Machine", CHOICE, AT(backend), "cpu", NULL, 0, 0, "cpu|ref", RUNS, 0,
     "ref = plain loops in double precision, slow, to compare with"},
    {"isa", "Machine", CHOICE, AT(isa), "auto", NULL, 0, 0, "auto|avx512bf16|avx512|avx2|plain", RUNS, 0,
     "instruction set of the CPU kernels; auto = the best there is"},
    {"threads", "Machine", INT, AT(threads), "0", NULL, 0, 4096, NULL, RUNS, 0,
     "threads of each rank; 0 = OMP_NUM_THREADS, else a rank's cores: those it is bound to, shared where ranks share them"},
    {"logits_budget_mb", "Machine", INT, AT(logits_budget_mb), "16", NULL, 1, 1 << 20, NULL, DATA, 0, "MiB of logits held at a time"},
    {"determinism", "Machine", CHOICE, AT(determinism), "fixed", NULL, 0, 0, "fixed|elastic", TRAIN, 0,
     "fixed = the same bits on the same number of ranks; elastic = on any number"},
    {"dry_run", "Machine", BOOL, AT(dry_run), "false", NULL, 0, 0, NULL, RUNS, 0,
     "check settings, model and data, say what would be done, and stop (--dry-run)"},
};
const int plumb_option_count = (int)(sizeof plumb_option_table / sizeof *plumb_option_table);

const char *plumb_options_command_name(int command) {
    switch (command) {
    case SFT: return "sft";
    case DPO: return "dpo";
    case EVAL: return "eval";
    case GENERATE: return "generate";
    case REWARD: return "reward";
    case SCORE: return "score";
    case PPO: return "ppo";
    case GRPO: return "grpo";
    case RLOO: return "rloo";
    case BESTOFN: return "bestofn";
    default: return "plumb";
    }
}
