/* What the files about adapters share. */
#ifndef PLUMB_MODEL_LORA_INTERNAL_H
#define PLUMB_MODEL_LORA_INTERNAL_H
#include "plumb/arch.h"

/* Length of the module's name in p->name (without ".weight"); 0 for a bias. */
size_t plumb_lora_module_length(const plumb_param *p);
/* target_modules is the shorthand "all-linear". */
bool plumb_lora_is_all_linear(const plumb_lora_config *c);
/* adapter_config.json's root into *c; `path` for messages. *tensors_decide: the file restricts its targets in a way
 * that plumb_lora_config cannot say (exclude_modules, layers_to_transform): the tensors tell which modules are meant.
 */
plumb_status plumb_lora_config_read(plumb_lora_config *c, bool *tensors_decide, const json_t *root,
                                    const char *path) PLUMB_CHECKED;
/* Replaces target_modules by copies of `names`. */
plumb_status plumb_lora_set_targets(plumb_lora_config *c, const char *const *names, int count) PLUMB_CHECKED;
/* "base_model.model.<module>.lora_A.weight"; half is 'A' or 'B'. */
#define PLUMB_SCORE_KEY "base_model.model.score.weight"
/* A head alone: TRL's names in a file of their own. plumb's head has no bias; it is written as 0 for readers that expect one. */
#define PLUMB_HEAD_FILE "value_head"
#define PLUMB_HEAD_KEY "v_head.summary.weight"
#define PLUMB_HEAD_BIAS "v_head.summary.bias"
enum { PLUMB_LORA_KEY = 160 };
void plumb_lora_key(char out[PLUMB_LORA_KEY], const plumb_param *p, char half);
#endif
