"""Expected samples of the data loader, prepared by TRL's own trainers.

python make_expected.py       run in this folder; writes the other tokenizers, all chat templates, <records>.jsonl (all but sft, chat, pref) and trl_expected.json

tokenizer/             a byte-level BPE of 384 pieces with ChatML's special tokens and ChatML with the assistant's turns marked; tokenizer_bos/ is the
                       same with a post-processor that puts <|endoftext|> before every text,
                       tokenizer_nfc/ the same with Unicode normalisation, tokenizer_spm/ one in the manner of SentencePiece
sft, chat, pref.jsonl  the first 24 records of the training curves' data (Apache-2.0, see SOURCES.md); the other records are written here
trl_expected.json      {versions, cases: [...]}: file, tokenizer, kind, loss_on, max_length, how many samples TRL kept, cut and merged a border in, the template where it is not ChatML, and per sample
                       SFT: ids and mask (a digit per token, 1 where TRL's label is not -100);  pairs: prompt, chosen, rejected after truncation
"""
import json, os, tempfile, datasets, tokenizers, torch, transformers, trl
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl.data_utils import common_prefix_length, maybe_extract_prompt, is_conversational

os.environ["HF_HUB_OFFLINE"] = "1"
transformers.logging.set_verbosity_error(); datasets.disable_progress_bars()
here = os.path.dirname(os.path.abspath(__file__)); os.chdir(here)
E = "<|im_end|>"; scratch = tempfile.mkdtemp()

def write(name, rows):
    with open(name + ".jsonl", "w") as f:
        for r in rows: f.write(json.dumps(r, ensure_ascii=False) + "\n")

spec = json.load(open("tokenizer/tokenizer.json"))
bos = next(t["id"] for t in spec["added_tokens"] if t["content"] == "<|endoftext|>")
spec["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [bos], "tokens": ["<|endoftext|>"]}}}
os.makedirs("tokenizer_bos", exist_ok=True)
json.dump(spec, open("tokenizer_bos/tokenizer.json", "w"), ensure_ascii=False)
spec["post_processor"] = None; spec["normalizer"] = {"type": "NFC"}
os.makedirs("tokenizer_nfc", exist_ok=True); json.dump(spec, open("tokenizer_nfc/tokenizer.json", "w"), ensure_ascii=False)

# as SentencePiece: spaces are a letter, bytes stand in for unknown characters
pieces = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"] + [f"<0x{b:02X}>" for b in range(256)]
tk = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
tk.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")])
tk.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 1, 0)])
tk.train_from_iterator((w for l in open("chat.jsonl") for m in json.loads(l)["messages"] for w in m["content"].split()), tokenizers.trainers.BpeTrainer(vocab_size=480, special_tokens=pieces, show_progress=False))
spm = json.loads(tk.to_str()); spm["added_tokens"] = [t for t in spm["added_tokens"] if not t["content"].startswith("<0x")]
spm["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
os.makedirs("tokenizer_spm", exist_ok=True); json.dump(spm, open("tokenizer_spm/tokenizer.json", "w"), ensure_ascii=False)

chatml = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
config = json.load(open("tokenizer/tokenizer_config.json"))
for d in ("tokenizer", "tokenizer_bos", "tokenizer_nfc", "tokenizer_spm"):
    open(d + "/chat_template.jinja", "w").write(chatml)
    json.dump(config | (dict(pad_token="</s>") if d == "tokenizer_spm" else {}), open(d + "/tokenizer_config.json", "w"), indent=2)

# --- records that are easy to get wrong ------------------------------------------------------------------------------
P = [("The answer is ", "the same."), ("The answer is  ", " the same."), ("What is the opposite of 'large'?\n", "\nThe opposite is small."), ("Say nothing.\n", ""),
     ("Done already?\n", "Yes." + E), ("End then a space?\n", "Yes." + E + " "), ("", "A completion without a prompt."), ("Unicode: ", "na\u00efve \u65e5\u672c\u8a9e \U0001F600\U0001F468\u200d\U0001F469 e\u0301 \u0634\u0643\u0631\u0627"),
     ("\u65e5\u672c", "\u8a9e"), ("Emoji split \U0001F600", "\U0001F601"), ("Line\r\n", "end\r\n"), ("Special <|im_start|>user\nx<|im_end|>\n", "<|im_start|>assistant\ny"), ("con", "vert the time"),
     ("A prompt that is long enough to fill the whole of a short limit by itself, so that nothing of the answer is left.\n", "Short."), ("Tab\t", "\ttab \u00a0nbsp \u2028 ls"), ("1", "500"), ("It", "'s"), ("don", "'t stop"),
     (" leading", " space"), ("\n", "\n"), ("quote \" and \\ back", "slash / end"), ("Cut the answer: ", "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen")]
write("tricky_sft", [dict(prompt=p, completion=c) for p, c in P])
write("tricky_text", [dict(text=p + c) for p, c in P])
write("tricky_pref", [dict(prompt=p, chosen=c, rejected=r) for (p, c), (_, r) in zip(P, P[1:] + P[:1])] + [dict(prompt="same ", chosen="answer", rejected="answer"), dict(prompt="one border ", chosen="merges", rejected="\tdoes not")])
M = lambda *turns: [dict(role=r, content=c) for r, c in turns]
C = [M(("user", "cafe\u0301"), ("assistant", "un cafe\u0301 e\u0301")), M(("user", "Hi"), ("assistant", "Hello.")), M(("system", "Be brief."), ("user", "Two?"), ("assistant", "2"), ("user", "Three?"), ("assistant", "3 \U0001F600")),
     M(("user", "Newline first"), ("assistant", "\n\nsecond line\n")), M(("user", ""), ("assistant", "")), M(("user", "\u65e5\u672c\u8a9e"), ("assistant", "\u306f\u3044")),
     M(("user", "marker"), ("assistant", "a" + E + "b")), M(("user", "space"), ("assistant", " leading and trailing ")), M(("assistant", "I begin."), ("user", "ok")), M(("user", "json"), ("user", "{\"x\": 1}"), ("assistant", "one")),
     M(("user", "a question that is long enough to leave no room for the answer at all when the limit is small"), ("assistant", "cut")), M(("user", "x"), ("assistant", "\U0001F600"), ("user", "y"), ("assistant", "one two three four five six seven eight nine ten"))]
write("tricky_chat", [dict(messages=m) for m in C])
Q = [(M(("user", "Hi")), "Hello.", "Go away."), (M(("system", "Be brief."), ("user", "Two?")), "2", "It is two."), (M(("user", "Newline")), "\nfirst", "not first"), (M(("user", "Empty")), "", "full"),
     (M(("user", "a"), ("assistant", "b"), ("user", "c")), "d \u65e5", "e \U0001F600"), (M(("user", "a question that is long enough to leave no room for the answer at all when the limit is small")), "one", "two")]
write("conv_sft", [dict(prompt=p, completion=M(("assistant", c))) for p, c, _ in Q] + [dict(prompt=M(("user", "q")), completion=M(("assistant", "a"), ("user", "more"), ("assistant", "b")))])
write("conv_pref", [dict(prompt=p, chosen=M(("assistant", c)), rejected=M(("assistant", r))) for p, c, r in Q])
write("implicit_pref", [dict(chosen="Human: Hi\n\nAssistant: " + c, rejected="Human: Hi\n\nAssistant: " + r) for c, r in (("Hello.", "Go."), ("Hey there", "Hey you"), ("\u65e5\u672c", "\u65e5\u8a9e"), ("\u00e9", "\u00e8"), ("yes", "yes, please"), ("no, sorry", "no"))])
write("implicit_conv_pref", [dict(chosen=p + M(("assistant", c)), rejected=p + M(("assistant", r))) for p, c, r in Q + [(M(("user", "the same")), "answer", "answer")]])
# turns that part inside a word: the ids before the border differ from those of the turn alone
write("joined_chat", [dict(messages=M(("user", u), ("assistant", a))) for u, a in (("Allite", "ration"), ("Androme", "da is"), ("Fahre", "nheit"), ("x Fre", "nch y"), ("Photo", "synthesis"), ("Telepho", "ne"), ("a b ", "c"), ("acco", "rding"))])

# --- TRL -------------------------------------------------------------------------------------------------------------
def sft(rows, tok, max_length, loss_on):
    args = trl.SFTConfig(output_dir=scratch, max_length=max_length, report_to=[], use_cpu=True, bf16=False, assistant_only_loss=loss_on == "assistant",
        completion_only_loss={"all": False, "completion": True}.get(loss_on))
    return trl.SFTTrainer(model(tok), args=args, train_dataset=datasets.Dataset.from_list(rows), processing_class=tok).train_dataset

def dpo(rows, tok, max_length):
    args = trl.DPOConfig(output_dir=scratch, max_length=max_length, report_to=[], use_cpu=True, bf16=False)
    t = trl.DPOTrainer(model(tok), ref_model=model(tok), args=args, train_dataset=datasets.Dataset.from_list(rows), processing_class=tok)
    return t.train_dataset, t.data_collator

def model(tok):
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))

def merged(rows, tok):  # samples whose prompt's ids are no prefix of the whole
    n = 0
    for r in rows:
        r = maybe_extract_prompt(r)
        if "prompt" not in r: continue
        if is_conversational(r): one = lambda x, gen: tok.apply_chat_template(x, tokenize=True, return_dict=True, add_generation_prompt=gen)["input_ids"]
        else: one = lambda x, gen: tok(x)["input_ids"]
        p = one(r["prompt"], True); add = lambda c: c if not isinstance(c, str) or c.endswith(E) else c + E
        n += any(common_prefix_length(p, one(r["prompt"] + add(r[k]), False)) < len(p) for k in ("completion", "chosen", "rejected") if k in r)
    return n

cases = []
def case(file, kind, max_length=None, loss_on="auto", tokenizer="tokenizer", template=None):
    tok = AutoTokenizer.from_pretrained(tokenizer)
    if template == "none": tok.chat_template = ("<s>" if tokenizer == "tokenizer_spm" else "") + "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + ('<|im_end|>' if loop.last else '') }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    rows = [json.loads(l) for l in open(file + ".jsonl")]
    c = dict(file=file + ".jsonl", tokenizer=tokenizer, kind=kind, template=template, loss_on=loss_on, max_length=max_length or 0, records=len(rows), merged_border=merged(rows, tok))
    if kind == "sft":
        data, whole = sft(rows, tok, max_length, loss_on), sft(rows, tok, None, loss_on)
        c["longer"] = sum(len(x) > max_length for x in whole["input_ids"]) if max_length else 0
        c["samples"] = [dict(ids=s["input_ids"], mask="".join("01"[l != -100] for l in s["labels"])) for s in data]
    else:
        data, collate = dpo(rows, tok, max_length); whole, _ = dpo(rows, tok, None)
        c["longer"] = sum(len(s["prompt_ids"]) + max(len(s["chosen_ids"]), len(s["rejected_ids"])) > max_length for s in whole) if max_length else 0
        c["samples"] = []
        for s in data:
            b = collate([s]); n = len(s["prompt_ids"]); rows_ = [b["input_ids"][i][b["attention_mask"][i] == 1].tolist() for i in (0, 1)]
            for i in (0, 1): assert b["completion_mask"][i][b["attention_mask"][i] == 1].tolist() == [0] * n + [1] * (len(rows_[i]) - n)
            c["samples"].append(dict(prompt=rows_[0][:n], chosen=rows_[0][n:], rejected=rows_[1][n:]))
    c["kept"] = len(c["samples"])
    cases.append(c); print(file, kind, loss_on, max_length, "->", c["kept"], "kept", c["longer"], "longer", c["merged_border"], "merged")

for m in (None, 48): case("sft", "sft", m)
case("sft", "sft", 64, "all")
case("chat", "sft"); case("chat", "sft", 96, "assistant")
case("pref", "pairs"); case("pref", "pairs", 56)
case("tricky_sft", "sft"); case("tricky_sft", "sft", 24); case("tricky_sft", "sft", 32, "all"); case("tricky_sft", "sft", 25, tokenizer="tokenizer_bos")
case("tricky_text", "sft"); case("tricky_text", "sft", 20); case("tricky_text", "sft", tokenizer="tokenizer_bos")
case("tricky_pref", "pairs"); case("tricky_pref", "pairs", 24); case("tricky_pref", "pairs", 16, tokenizer="tokenizer_bos")
case("tricky_chat", "sft"); case("tricky_chat", "sft", loss_on="assistant"); case("tricky_chat", "sft", 40, "assistant"); case("tricky_chat", "sft", 40, tokenizer="tokenizer_bos")
case("conv_sft", "sft"); case("conv_sft", "sft", 40); case("conv_sft", "sft", loss_on="assistant"); case("conv_sft", "sft", loss_on="all")
case("conv_pref", "pairs"); case("conv_pref", "pairs", 40); case("implicit_pref", "pairs"); case("implicit_conv_pref", "pairs")
for t in ("tokenizer_nfc", "tokenizer_spm"): case("tricky_chat", "sft", loss_on="assistant", tokenizer=t); case("tricky_sft", "sft", tokenizer=t); case("tricky_pref", "pairs", 64, tokenizer=t)
for t in ("tokenizer", "tokenizer_spm"): case("joined_chat", "sft", loss_on="assistant", tokenizer=t, template="none")
versions = dict(trl=trl.__version__, transformers=transformers.__version__, tokenizers=tokenizers.__version__, torch=torch.__version__)
json.dump(dict(versions=versions, cases=cases), open("trl_expected.json", "w"), separators=(",", ":"))
