"""Golden ids for the tokenizer tests, from the tokenizers library.

python make_cases.py ENCODER_JSON VOCAB_BPE TOK512_BIN     (in this directory; GPT-2's two files, and tok512.bin of stories260K)
  gpt2.json.gz       GPT-2's vocabulary and merges as a tokenizer.json
  pre-<name>.gguf    a small byte-level vocabulary, trained here without a pre-tokenizer so that its merges cross every border, once for each
                     name of tokenizer.ggml.pre
  sentencepiece.gguf stories260K's pieces and scores as a GGUF of kind "llama"
  cases.json.gz      {"texts": [...], "tokenizers": [{"name", "file" or "base", "change" (members that replace those of the base's file;
                     "model" is merged), "ids": one list for each text, "decoded", "skipped"}]}; every other text is decoded, the second
                     time without special tokens
Made with tokenizers 0.23.3 and gguf 0.19.0; the seed is fixed. Texts leave out characters newer than Unicode 14, where libraries differ.
"""
import gzip, json, random, struct, sys, unicodedata
import gguf
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers

WORDS = """the of and Hello world don't I'll you're they've she'd It'S WE'RE 'ſ naïve café résumé 123 3.14 1,000,000 2016 0x1F def f(n): http://a.b/c?d=e&f
user@host.com ... --- !!! ?! ((x)) [y] {z} «q» “q” 你好世界 こんにちは 안녕하세요 Привет Ελληνικά עברית العربية हिन्दी ไทย 👍 👨‍👩‍👧‍👦 🇩🇪 é é ﬁ Å Å ½ ² Ⅷ ① ٣ ﷺ ß İ ı ſ ǆ
\u200b \u200d \ufeff \u00a0 \u3000 \u2003 \u2028 \u180e \u1680 _x a_b camelCase ▁ ▁▁ Ġ Ċ ĠĠ <s> </s> <unk> <0x0A> <0xFF> \x7f � 한글 한글 q̣̇ q̣̇ 𝒳 𐍈 ℌ ﾊﾝ
<|im_start|> <|im_end|> <|endoftext|> <bos> <start_of_turn> <a> <b> <c> <a><b> 漢、字。〆 々 word sword Norm norm NORM é É then then""".split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", " \n \n ", "       ", "\u00a0", "\u3000", "\x0b", "\x85", "\u2028", ""]

def texts(count, seed):
    r = random.Random(seed)
    def character():
        while True:
            c = chr(r.randrange(r.choice([0x80, 0x800, 0x3000, 0x10000, 0x30000])) or 1)
            if unicodedata.category(c) not in ("Cs", "Cn"): return c
    out = ["", " ", "  ", "\n", "a", " a", "a ", "  a  ", "friend WORLD Norms swords", "friend", "WORLD", "12345 1234 a1\n\n1. b:  \n2", "-" * 70 + "=" * 33, "a" * 300, " " * 300 + "x", "\u0301" * 40 + "\u0323" * 40]
    while len(out) < count:
        k = r.random()
        if k < .5: s = "".join(r.choice(WORDS) + r.choice(SPACES) for _ in range(r.randrange(1, 14)))
        elif k < .7: s = "".join(character() for _ in range(r.randrange(1, 30)))
        elif k < .8: s = "".join(r.choice(["a", " ", "\n", "A", "1", "é", "▁", "'", ".", "\u0301"]) * r.randrange(1, 12) for _ in range(r.randrange(1, 6)))
        else: s = "".join(r.choice("abcdefghijklmnopqrstuvwxyz     ''ABC.,!?0123456789\n") for _ in range(r.randrange(1, 80)))
        out.append(s)
    return out

def byte_level(use_regex=False, space=False): return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": use_regex}
def chain(*x): return {"type": "Sequence", "pretokenizers": list(x)}
def norms(*x): return {"type": "Sequence", "normalizers": list(x)}
def decs(*x): return {"type": "Sequence", "decoders": list(x)}
def split(p, behavior="Isolated", invert=False, kind="Regex"): return {"type": "Split", "pattern": {kind: p}, "behavior": behavior, "invert": invert}
def meta(scheme, cut): return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
def token(i, content, **k): return dict({"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}, **k)
DIGITS = {"type": "Digits", "individual_digits": True}
HEAD, TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = HEAD + r"\p{N}{1,3}" + TAIL, HEAD + r"\p{N}" + TAIL
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"

def variants():
    """name, base, what is changed"""
    B = byte_level()
    yield "cl100k", "chatml", {"pre_tokenizer": chain(split(CL100K), B)}
    yield "o200k", "chatml", {"pre_tokenizer": chain(split(O200K), B)}
    yield "scripts", "chatml", {"pre_tokenizer": chain(split(r"[\p{Han}]+|\p{Hiragana}+|\p{Letter}+\b|\w+?\B|\W"), B)}
    yield "scripts removed", "chatml", {"pre_tokenizer": chain(split(r"\p{Han}+|\p{Hiragana}", "Removed"), B)}
    yield "lines", "chatml", {"pre_tokenizer": chain(split(r"^.|.$|\n\n"), B)}
    yield "classes", "chatml", {"pre_tokenizer": chain(split(r"\w+"), split(r"[\s-]+"), split(r"[^\S\n]"), split(r".$|^x"), split("[\\u0430-я]{,2}"), B)}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield f"split {behavior} {invert}", "chatml", {"pre_tokenizer": chain(split(r"[ae ]|\n\n", behavior, invert), B)}
    yield "split by text", "chatml", {"pre_tokenizer": chain(split(" ", "MergedWithNext", False, "String"), B)}
    yield "digits", "chatml", {"pre_tokenizer": chain(DIGITS, byte_level(True))}
    yield "runs of digits", "chatml", {"pre_tokenizer": chain(dict(DIGITS, individual_digits=False), B)}
    yield "white space", "chatml", {"pre_tokenizer": chain({"type": "Whitespace"}, B)}
    yield "white space split", "chatml", {"pre_tokenizer": chain({"type": "WhitespaceSplit"}, B)}
    yield "prefix space", "chatml", {"pre_tokenizer": byte_level(True, True)}
    for n in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"): yield n, "chatml", {"normalizer": {"type": n}}
    yield "normalizers", "chatml", {"normalizer": norms({"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Replace", "pattern": {"String": "a"}, "content": "éé"}, {"type": "Lowercase"}, {"type": "NFKD"})}
    yield "strip left", "chatml", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}}
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            m = meta(scheme, cut)
            yield f"metaspace {scheme} {cut}", "stories260K", {"normalizer": None, "pre_tokenizer": m, "decoder": m}
    yield "digits and metaspace", "stories260K", {"normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": "y z"}, "pre_tokenizer": chain(DIGITS, meta("first", True)), "decoder": decs({"type": "ByteFallback"}, meta("first", True))}
    yield "unknown apart", "stories260K", {"model": {"fuse_unk": False, "byte_fallback": False}}
    yield "unknown fused", "stories260K", {"model": {"byte_fallback": False}}
    yield "unknown dropped", "stories260K", {"model": {"byte_fallback": False, "unk_token": None}}
    yield "no decoder", "stories260K", {"decoder": None}
    yield "strip decoder", "stories260K", {"decoder": decs({"type": "Replace", "pattern": {"Regex": "▁+"}, "content": "--"}, {"type": "Strip", "content": "-", "start": 2, "stop": 0}, {"type": "ByteFallback"})}
    yield "whole words", "gemma_cropped", {"model": {"ignore_merges": True}}
    chatml = json.load(open("chatml/tokenizer.json")); base, vocab = chatml["added_tokens"], chatml["model"]["vocab"]
    added = [dict(lstrip=True, content="<a>"), dict(rstrip=True, content="<b>"), dict(lstrip=True, rstrip=True, content="<c>"), dict(single_word=True, special=False, content="word"), dict(content="<a><b>"),
             dict(normalized=True, special=False, content="İx"), dict(normalized=True, special=False, single_word=True, content="Norm"), dict(normalized=True, lstrip=True, special=False, content="é"), dict(special=False, content="the"), dict(special=False, content="then")]
    free = iter(range(len(vocab), len(vocab) + len(added))); added = [token(vocab[a["content"]] if a["content"] in vocab else next(free), **a) for a in added]
    yield "added tokens", "chatml", {"added_tokens": base + added}
    yield "added tokens, normalised", "chatml", {"added_tokens": base + added, "normalizer": norms({"type": "Lowercase"}, {"type": "NFD"})}
    A, S = {"Sequence": {"id": "A", "type_id": 0}}, lambda x: {"SpecialToken": {"id": x, "type_id": 0}}
    special = {"E": {"id": "E", "ids": [0, 2], "tokens": ["<|endoftext|>", "<|im_end|>"]}, "S": {"id": "S", "ids": [1], "tokens": ["<|im_start|>"]}}
    yield "template", "chatml", {"post_processor": {"type": "Sequence", "processors": [byte_level(True), {"type": "TemplateProcessing", "single": [S("S"), A, S("E")], "pair": [A, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}]}}

def write_gguf(path, kind, tokens, types, **more):
    w = gguf.GGUFWriter(path, "llama"); w.add_tokenizer_model(kind); w.add_token_list(tokens); w.add_token_types(types)
    for k, v in more.items(): getattr(w, "add_" + k)(v)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

def main(encoder, merges, tok512):
    vocab, lines = json.load(open(encoder)), open(merges, encoding="utf8").read().split("\n")[1:]
    t = Tokenizer(models.BPE(vocab, [tuple(l.split()) for l in lines if l.strip()])); t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False); t.decoder = decoders.ByteLevel()
    t.add_special_tokens(["<|endoftext|>"]); text = t.to_str(); save = lambda name, s: open(name, "wb").write(gzip.compress(s.encode(), 9, mtime=0))
    save("gpt2.json.gz", text)
    T = texts(150, 1)
    result = []
    def add(name, tokenizer, **where):
        ids = [tokenizer.encode(x).ids for x in T]
        result.append(dict(where, name=name, ids=ids, decoded=[tokenizer.decode(i, skip_special_tokens=False) for i in ids[::2]], skipped=[tokenizer.decode(i) for i in ids[::2]]))
    files = {"tiny_bpe": "tiny_bpe.json", "gemma_cropped": "gemma_cropped.json", "stories260K": "stories260K/tokenizer.json", "chatml": "chatml/tokenizer.json"}
    add("gpt2", t, file="gpt2.json.gz")
    for n, f in files.items(): add(n, Tokenizer.from_file(f), file=f)
    for n, b, change in variants():
        d = json.load(open(files[b])); d["model"].update(change.get("model", {})); d.update({k: v for k, v in change.items() if k != "model"})
        add(n, Tokenizer.from_str(json.dumps(d)), base=files[b], change=change)
    # the names of tokenizer.ggml.pre
    trained = Tokenizer(models.BPE()); trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.train_from_iterator(texts(3000, 2), trainers.BpeTrainer(vocab_size=900, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    d = json.loads(trained.to_str()); B = byte_level()
    whole = next(w for w in ("friend", "WORLD", "Norms", "swords") if w not in d["model"]["vocab"]); d["model"]["vocab"][whole] = len(d["model"]["vocab"]) # no merge leads there: it is for ignore_merges
    pres = {"gpt-2": (byte_level(True), {}), "smollm": (chain(DIGITS, byte_level(True)), {}), "llama-bpe": (chain(split(LLAMA3), B), {"ignore_merges": True}), "smaug-bpe": (chain(split(LLAMA3), B), {}), "qwen2": (chain(split(QWEN2), B), {}),
            "default": (chain(split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split(r"[0-9][0-9][0-9]"), B), {})}
    tokens = [k for k, _ in sorted(d["model"]["vocab"].items(), key=lambda x: x[1])]
    for name, (pre, model) in pres.items():
        bos = name in ("llama-bpe", "gpt-2")
        e = dict(d, pre_tokenizer=pre, normalizer={"type": "NFC"} if name == "qwen2" else None, decoder=B, model=dict(d["model"], **model))
        e["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": tokens[1], "type_id": 0}}] * bos + [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": {tokens[1]: {"id": tokens[1], "ids": [1], "tokens": [tokens[1]]}} if bos else {}}
        more = {"add_bos_token": True} if name == "gpt-2" else {}
        write_gguf(f"pre-{name}.gguf", "gpt2", tokens, [3] * 3 + [1] * (len(tokens) - 3), tokenizer_pre=name, token_merges=[" ".join(m) for m in d["model"]["merges"]], bos_token_id=1, eos_token_id=2, pad_token_id=0,
                   chat_template="{{ messages[0]['content'] + \"\\\\ \u00e9\" }}\n", **more)
        add("pre " + name, Tokenizer.from_str(json.dumps(e)), file=f"pre-{name}.gguf")
    # SentencePiece
    raw, at, pieces, scores = open(tok512, "rb").read(), 4, [], []
    while at < len(raw):
        score, n = struct.unpack_from("<fi", raw, at); pieces.append(raw[at + 8:at + 8 + n].decode()); scores.append(score); at += 8 + n
    stories = json.load(open(files["stories260K"]))["model"]["vocab"]; names = [k for k, _ in sorted(stories.items(), key=lambda x: x[1])]
    types = [2, 3, 3] + [6 if 3 <= i < 259 else 1 for i in range(3, len(names))]
    write_gguf("sentencepiece.gguf", "llama", names, types, token_scores=scores, bos_token_id=1, eos_token_id=2, unk_token_id=0)
    add("sentencepiece", Tokenizer.from_file(files["stories260K"]), file="sentencepiece.gguf")
    save("cases.json.gz", json.dumps({"texts": T, "tokenizers": result}, ensure_ascii=False, separators=(",", ":")))

main(*sys.argv[1:])
