/* What other programs call it.  A person who comes from TRL, transformers or axolotl writes their names; where the
 * meaning differs, translating silently would be wrong (a batch size per device is not a batch size), so the message
 * says what to write instead. */
#include "config_internal.h"
#include <string.h>

const char *plumb_config_hint(const char *key) {
    static const char *const hints[][2] = {
        {"model_name_or_path", "plumb calls it model"},
        {"base_model", "plumb calls it model"},
        {"model_path", "plumb calls it model"},
        {"adapter_name_or_path", "plumb calls it adapter"},
        {"tokenizer_name_or_path", "plumb calls it tokenizer"},
        {"dataset_name", "write the path of a file as train_file"},
        {"dataset", "write the path of a file as train_file"},
        {"datasets", "write the path of a file as train_file"},
        {"dataset_test_split", "write eval_file, or eval_last"},
        {"chat_template", "write template_name"},
        {"chat_template_path", "write template_name"},
        {"template", "write template_name"},
        {"num_train_epochs", "plumb calls it epochs"},
        {"num_epochs", "plumb calls it epochs"},
        {"per_device_train_batch_size", "write batch_size: samples per optimizer step over all ranks"},
        {"per_device_eval_batch_size", "evaluation needs no batch size; micro_batch_tokens bounds its memory"},
        {"gradient_accumulation_steps",
         "write batch_size: samples per optimizer step over all ranks; micro_batch_tokens bounds the memory"},
        {"micro_batch_size",
         "write batch_size: samples per optimizer step over all ranks; micro_batch_tokens bounds the memory"},
        {"max_seq_length", "plumb calls it max_length"},
        {"sequence_len", "plumb calls it max_length"},
        {"max_prompt_length", "only max_length is known: prompt and answer together"},
        {"packing", "not needed: samples are never padded and never see each other"},
        {"padding_free", "not needed: samples are never padded"},
        {"lr", "plumb calls it learning_rate"},
        {"lr_scheduler", "plumb calls it lr_scheduler_type"},
        {"optim", "AdamW is the only optimizer; remove the key"},
        {"optimizer", "AdamW is the only optimizer; remove the key"},
        {"adam_epsilon", "plumb calls it adam_eps"},
        {"bf16", "write precision: bf16"},
        {"fp16", "write precision: bf16 or fp32"},
        {"tf32", "write precision: bf16 or fp32"},
        {"use_peft", "write lora: true or false"},
        {"peft_config", "write lora_r, lora_alpha, lora_target_modules, …"},
        {"r", "write lora_r"},
        {"target_modules", "write lora_target_modules"},
        {"lora_modules_to_save", "write train_modules"},
        {"modules_to_save", "write train_modules"},
        {"lora_task_type", "not needed; remove the key"},
        {"completion_only_loss", "write loss_on: completion"},
        {"assistant_only_loss", "write loss_on: assistant"},
        {"train_on_inputs", "write loss_on: all or completion"},
        {"ref_model", "the reference is the model and adapter that training starts from"},
        {"precompute_ref_log_probs", "not needed; remove the key"},
        {"eval_strategy", "write eval_steps"},
        {"save_strategy", "write save_steps"},
        {"logging_strategy", "write logging_steps"},
        {"eval_on_start", "plumb calls it eval_at_start"},
        {"resume_from_checkpoint", "plumb calls it resume: auto, never or a path"},
        {"report_to", "metrics go to metrics.jsonl in output_dir; remove the key"},
        {"logging_dir", "metrics go to metrics.jsonl in output_dir; remove the key"},
        {"dataloader_num_workers", "not needed; remove the key"},
        {"data_seed", "write seed"},
        {"torch_dtype", "write precision; plumb merge has dtype"},
    };
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (!strcmp(key, hints[i][0])) return hints[i][1];
    return NULL;
}
