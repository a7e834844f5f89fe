"""Golden values for the sampler and for stop strings, from transformers' own processors and criteria.

python make_sampling.py        (in this directory) writes
  filters.json   cases: options by transformers' names, history, prompt_length, ends, logits (null: -infinity) and the probabilities after the processors, in
                 the order that generate() gives them. Logits are multiples of 1/64 (or 1/4, for ties), exact in float32 too. Computed in float64.
  stops.json     for each tokenizer: texts as ids, and for each list of stop strings the lengths of those prefixes of the ids that StopStringCriteria stops
Made with transformers 5.23.0 and torch 2.15.0; the seed is fixed. torch does not promise an order of equal values, so sorts are made stable here.
"""
import json, os, random
import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation import logits_process as lp
from transformers.generation.stopping_criteria import StopStringCriteria

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
plain_sort = torch.sort
torch.sort = lambda x, dim=-1, descending=False: plain_sort(x, dim=dim, descending=descending, stable=True)
g = torch.Generator().manual_seed(11)
INF = float("inf")


def case(logits, history=(), prompt_length=0, ends=(), **kw):
    x = torch.tensor([[float(v) for v in logits]]); h = torch.tensor([list(history)], dtype=torch.long)
    y = x.clone()
    if "repetition_penalty" in kw: y = lp.RepetitionPenaltyLogitsProcessor(kw["repetition_penalty"])(h, y)
    if "min_new_tokens" in kw: y = lp.MinNewTokensLengthLogitsProcessor(prompt_length, kw["min_new_tokens"], list(ends))(h, y)
    if "temperature" in kw: y = lp.TemperatureLogitsWarper(kw["temperature"])(h, y)
    if "top_k" in kw: y = lp.TopKLogitsWarper(kw["top_k"])(h, y)
    if "top_p" in kw: y = lp.TopPLogitsWarper(kw["top_p"])(h, y)
    if "min_p" in kw: y = lp.MinPLogitsWarper(kw["min_p"])(h, y)
    if "typical_p" in kw: y = lp.TypicalLogitsWarper(kw["typical_p"])(h, y)
    p = [round(v, 13) or 0 for v in torch.softmax(y[0], -1).tolist()]
    return dict(**kw, history=list(history), prompt_length=prompt_length, ends=list(ends), logits=[None if v == -INF else v for v in logits], probabilities=p)


def logits(V, scale=2.5, step=64):
    return [(round(v * step) / step) or 0.0 for v in (torch.randn(V, generator=g) * scale).tolist()]


def filters():
    r = random.Random(5)
    out = [case([0.5], **k) for k in ({}, dict(top_k=3), dict(top_p=0.5), dict(min_p=1.0), dict(typical_p=0.1), dict(temperature=0.1, top_k=1, top_p=0.1, min_p=0.5, typical_p=0.5))]
    # ties: at the k-th value, at the border of top-p (dyadic, so that sums are exact), in typical-p, at min_p = 1
    out += [case([1, 3, 2, 2, 2, 0], top_k=k) for k in (1, 2, 3, 6, 7, 1000)]
    out += [case([0.0] * 8, top_p=p) for p in (0.125, 0.25, 0.3, 0.5, 0.75, 0.9, 1e-9)]
    out += [case([2, 2, 0, 2, 2, -1], top_p=p) for p in (0.2, 0.6, 0.97)]
    out += [case([0.0] * 4, typical_p=0.5), case([1, 1, 0, 0, 0, -3, -3], typical_p=0.4), case([1, 2, 2, 1, 0], min_p=1.0)]
    # peaky and flat
    peak = logits(40); peak[17] = 60.0
    for x in (peak, [v / 512 for v in logits(40)]):
        out += [case(x, **k) for k in (dict(top_k=4), dict(top_p=0.7), dict(min_p=0.3), dict(typical_p=0.35), dict(temperature=4.0, top_p=0.95, typical_p=0.9))]
    # entries that are out from the start
    gone = [-INF if i % 3 == 0 else v for i, v in enumerate(logits(30))]
    out += [case(gone, **k) for k in (dict(top_k=25), dict(top_k=5), dict(top_p=0.6), dict(min_p=0.02), dict(typical_p=0.7), dict(top_k=28, top_p=0.9, min_p=0.01, typical_p=0.8, temperature=1.3))]
    # penalty: ids twice, ids beyond the logits, zeros and negative logits; ends forbidden, and no longer
    x = logits(20); x[3], x[4] = 0.0, -INF
    out += [case(x, [3, 4, 5, 5, 5, 19, 0], 3, [2, 7], repetition_penalty=p, min_new_tokens=m) for p in (1.3, 0.7) for m in (4, 5, 9)]
    out += [case(x, [25, 20, 1, 1], repetition_penalty=2.0), case(x, [1], 1, [max(range(20), key=lambda i: x[i])], min_new_tokens=1, top_k=1)]
    # everything together, on vocabularies large enough for the bins; every third has many ties
    for i, V in enumerate((65, 200, 200, 700, 700, 700, 1500, 1500)):
        x = logits(V, r.choice([1, 3, 6]), 4 if i % 3 == 0 else 64)
        h = [r.randrange(V) for _ in range(30)]
        out.append(case(x, h, 10, [1, V - 1], repetition_penalty=1.2, min_new_tokens=r.choice([3, 40]), temperature=r.choice([0.7, 1.25, 2.0]), top_k=V // r.choice([2, 3]), top_p=r.choice([0.8, 0.95]), min_p=r.choice([0.001, 0.02]), typical_p=r.choice([0.6, 0.9])))
        for k in (dict(top_k=V // 4), dict(top_p=0.83), dict(typical_p=0.77), dict(min_p=0.004)) if V in (200, 1500) and i != 7 else ():
            out.append(case(x, **k))
    return out


TEXTS = ["Once upon a time there was a little cat. The end. She said: \"Stop!\" and went home.\n\nUser: hello\nAssistant: hi", "été à Noël — naïve 🙂 coeur 日本語テキスト. fin", "aaaaaaa ababababab  two  spaces   three\n\n\nlines ###\n### Instruction: x"]
STOPS = [["."], ["The end."], ["\n\n"], ["User:", "Assistant:"], ["e"], [" a"], ["abab", "zzz"], ["é"], ["🙂 c"], ["日本語", "Noël —"], ["### "], ["Once upon a time"], ["top"], ["  "]]


def stops():
    r = random.Random(9)
    out = []
    here = os.path.dirname(os.path.abspath(__file__))
    for name in ("text/stories260K/tokenizer.json", "text/chatml/tokenizer.json"):
        t = PreTrainedTokenizerFast(tokenizer_file=os.path.join(here, "..", name))
        special = set(t.all_special_ids) | {i for i, a in t.added_tokens_decoder.items() if a.special}
        usable = [i for i in range(len(t)) if i not in special]
        ids = [[i for i in t(x, add_special_tokens=False)["input_ids"] if i not in special] for x in TEXTS]
        ids += [[r.choice(usable) for _ in range(60)] for _ in range(2)]
        cases = []
        for s in STOPS:
            c = StopStringCriteria(t, s)
            cases.append(dict(stop_strings=s, hits=[[n for n in range(1, len(x) + 1) if bool(c(torch.tensor([x[:n]]), None)[0])] for x in ids]))
        out.append(dict(tokenizer=name, ids=ids, cases=cases))
    return out


for name, made in (("filters", filters()), ("stops", stops())):
    json.dump(dict(cases=made), open(f"{name}.json", "w"), separators=(",", ":"))
    print(name, len(made))
