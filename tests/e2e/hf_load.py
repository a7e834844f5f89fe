"""Loads what plumb wrote with transformers and PEFT.

python hf_load.py --merged DIR --model DIR [--adapter DIR] [--dtype float32|bfloat16|float16] [--logits FILE] [--tokenizer]
    DIR of --merged opens with AutoModelForCausalLM, without missing or unexpected weights. Its weights are those of
    --model with --adapter merged in (W + scale * B @ A in float64 here, beside PEFT's own merge_and_unload), rounded
    once to the type of the file. --model may be a GGUF file: transformers dequantises it.
    --logits: a case of make_models.py; the logits must be its lora.logits.* (or logits.* without an adapter).
    --tokenizer: the merged model's tokenizer gives the model's ids.
python hf_load.py --adapter DIR --same-as DIR --model DIR
    both adapters open with PeftModel on the model and give the same logits, bit for bit.
python hf_load.py --classifier DIR --scores FILE
    DIR opens with AutoModelForSequenceClassification, without missing or unexpected weights, and gives the scores that
    plumb score --output_file FILE has for the first pairs (fp32, an end token behind every answer).
python hf_load.py --jobs FILE
    each line of FILE is the arguments of one of the above: one start of Python for all.

Exit status 0: equal; 1: not; 77: a Python package is missing (tests count it as skipped).
"""
import argparse
import json
import os
import shlex
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore")
try:
    import peft
    import torch
    import transformers
    from safetensors import safe_open
    from safetensors.torch import load_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
failures = []


def check(condition, message):
    print(("ok      " if condition else "FAILED  ") + message)
    if not condition:
        failures.append(message)


def load_model(path):
    if path.endswith(".gguf"):
        folder, name = os.path.split(path)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def load_whole(path):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        check(not info[kind], f"{path}: {kind}: {sorted(info[kind])[:3]}")
    return model


def scale_of(config):
    return config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)


def merged_exactly(state, adapter, dtype):
    """state_dict with the adapter's product added in float64 and rounded once; float32 values of the rounded weights."""
    config = peft.PeftConfig.from_pretrained(adapter)
    tensors = load_file(f"{adapter}/adapter_model.safetensors")
    out = dict(state)
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = tensors[key.replace("lora_A", "lora_B")]
        out[f"{name}.weight"] = state[f"{name}.weight"].double() + scale_of(config) * (b.double() @ a.double())
    return {k: round_once(v, dtype) for k, v in out.items()}


def round_once(v, dtype):
    """torch narrows float64 by way of float32, which would round twice: round the significand here instead."""
    if v.dtype != torch.float64 or dtype == torch.float32:
        return v.to(dtype).float()
    bits, lowest = {torch.bfloat16: (8, -133), torch.float16: (11, -24)}[dtype]
    exponent = torch.clamp(torch.frexp(v).exponent.long() - bits, min=lowest).double()
    return (torch.round(v * 2.0**-exponent) * 2.0**exponent).float()


def stored_type(path):
    names = [f for f in os.listdir(path) if f.endswith(".safetensors")]
    with safe_open(f"{path}/{names[0]}", "pt") as f:
        return f.get_tensor(next(iter(f.keys()))).dtype


def compare_weights(merged, state, what, tolerance):
    worst, where = 0.0, "nothing"
    for name, value in merged.items():
        expected = state[name]
        if value.shape != expected.shape:
            check(False, f"{name}: shape {tuple(value.shape)}, {what} has {tuple(expected.shape)}")
            return
        error = ((value - expected).abs().max() / expected.abs().max()).item()
        if error > worst:
            worst, where = error, name
    check(worst <= tolerance, f"weights equal {what} within {tolerance:g} of each tensor's largest ({worst:.2g} in {where})")


def check_merged(arguments):
    merged = load_whole(arguments.merged)
    dtype = stored_type(arguments.merged)
    if arguments.dtype:
        check(dtype == getattr(torch, arguments.dtype), f"stored as {dtype}")
    base = load_model(arguments.model)
    state = {k: v.clone() for k, v in base.state_dict().items()}
    for key in ("rms_norm_eps", "num_key_value_heads", "head_dim", "tie_word_embeddings", "hidden_act", "eos_token_id"):
        a, b = getattr(merged.config, key, None), getattr(base.config, key, None)
        same = abs(a - b) < 1e-9 if isinstance(a, float) else a == b
        check(same, f"config {key}: {a} and {b}")
    a, b = merged.model.rotary_emb.inv_freq, base.model.rotary_emb.inv_freq
    check(torch.allclose(a, b, rtol=1e-7, atol=0), "rotary frequencies")
    if arguments.adapter:
        exact = merged_exactly(state, arguments.adapter, dtype)
        compare_weights(merged.state_dict(), exact, "W + scale B A, rounded once", 0.0)
        folded = peft.PeftModel.from_pretrained(base, arguments.adapter).merge_and_unload().state_dict()
        tolerance = 1e-6 if dtype == torch.float32 else 5e-3
        compare_weights(merged.state_dict(), folded, "PEFT's merge_and_unload", tolerance)
    else:
        narrowed = {k: v.to(dtype).float() for k, v in state.items()}
        compare_weights(merged.state_dict(), narrowed, "the source", 0.0)
    if arguments.logits:
        tolerance = 1e-5 if dtype == torch.float32 else 5e-2
        check_logits(merged, load_file(arguments.logits), "lora." if arguments.adapter else "", tolerance)


def check_logits(model, case, prefix, tolerance):
    for k in (0, 1):
        expected = case[f"{prefix}logits.{k}"]
        with torch.no_grad():
            found = model(input_ids=case[f"ids.{k}"][None]).logits[0].float()
        error = ((found - expected).abs().max() / expected.abs().max()).item()
        check(error <= tolerance, f"{prefix}logits.{k} within {tolerance:g} of the largest ({error:.2g})")


def check_adapters(arguments):
    ids = torch.arange(3, 23)[None]
    logits = []
    for adapter in (arguments.adapter, arguments.same_as):
        model = peft.PeftModel.from_pretrained(load_model(arguments.model), adapter).eval()
        with torch.no_grad():
            logits.append(model(input_ids=ids).logits)
    check(torch.equal(*logits), "the two adapters give the same logits")
    with torch.no_grad():
        plain = load_model(arguments.model).eval()(input_ids=ids).logits
    check(not torch.equal(logits[0], plain), "the adapter changes the logits")


def check_classifier(arguments):
    path, few = arguments.classifier, 8
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        check(not info[kind], f"{path}: {kind}: {sorted(info[kind])[:3]}")
    check(model.config.num_labels == 1, f"{model.config.num_labels} labels")
    tokenizer, worst = transformers.AutoTokenizer.from_pretrained(path), 0.0
    with open(arguments.scores) as lines:
        records = [json.loads(next(lines)) for _ in range(few)]
    for record in records:
        for answer in ("chosen", "rejected"):
            ids = tokenizer(record["prompt"] + record[answer]).input_ids + [tokenizer.eos_token_id]
            with torch.no_grad():
                worst = max(worst, abs(model.eval()(input_ids=torch.tensor([ids])).logits[0, 0].item() - record[f"score_{answer}"]))
    check(worst <= 1e-4, f"scores within 1e-4 ({worst:.2g})")


def check_tokenizers(arguments):
    a, b = (transformers.AutoTokenizer.from_pretrained(path) for path in (arguments.model, arguments.merged))
    text = "Convert 15 feet to meters.\n<|im_end|>"
    check(a(text).input_ids == b(text).input_ids and a.eos_token == b.eos_token, "tokenizers agree")


def run(parser, words):
    arguments = parser.parse_args(words)
    print("== " + " ".join(words), flush=True)
    if arguments.jobs:
        with open(arguments.jobs) as jobs:
            for line in jobs:
                run(parser, shlex.split(line))
    if arguments.merged:
        check_merged(arguments)
    if arguments.tokenizer:
        check_tokenizers(arguments)
    if arguments.same_as:
        check_adapters(arguments)
    if arguments.classifier:
        check_classifier(arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--merged", "--adapter", "--model", "--dtype", "--logits", "--same-as", "--jobs", "--classifier", "--scores"):
        parser.add_argument(name)
    parser.add_argument("--tokenizer", action="store_true", help="the merged model's tokenizer is the model's")
    run(parser, sys.argv[1:])
    print(f"{len(failures)} failed" if failures else "all equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
