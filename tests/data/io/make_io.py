"""Small weight files made by the reference libraries, for the tests of src/io and the fuzz targets.

python make_io.py TESTS       (TESTS is the folder tests/)
  TESTS/data/io/mixed.safetensors   F32, BF16 and F16 tensors as safetensors' own writer orders them; scalar and empty ones, a name
                                    that needs escaping
  TESTS/data/io/mixed.json          the same tensors before rounding: name, type, shape, float32 values
  TESTS/data/io/types.safetensors   one tensor of every type that NumPy shares with the format
  TESTS/data/io/values.gguf         metadata of every scalar type, arrays, alignment 64, four tensors
  TESTS/fuzz/corpus/*/              seeds: the above and smaller ones

Made with safetensors 0.8.0, torch 2.15.0, gguf 0.19.0, numpy; nothing here comes from plumb.
"""
import gzip, json, os, shutil, sys
import numpy as np, torch, gguf
from safetensors.torch import save_file
from safetensors.numpy import save_file as save_numpy

tests = sys.argv[1]
out, corpus = f"{tests}/data/io", f"{tests}/fuzz/corpus"
for name in ("safetensors", "gguf", "json"): os.makedirs(f"{corpus}/{name}", exist_ok=True)
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(7)

special = [0.0, -0.0, 1.0, 65504.0, -65504.0, 6e-8, 2.9e-8, 3e-8, 6.103515625e-05, 6.1e-05, 1.00048828125, 1.0004883, 1.00146484375, 0.33325195, 1e-30, -1e-40]
weights = {
    "b.weight": ("BF16", np.array(special, np.float32).reshape(4, 4)),
    "a.weight": ("BF16", rng.standard_normal((3, 5)).astype(np.float32)),
    "h.weight": ("F16", np.array(special, np.float32).reshape(2, 2, 4)),
    "h.noise": ("F16", rng.standard_normal((33,)).astype(np.float32)),
    "z.weight": ("F32", np.array(special, np.float32)),
    "scalar": ("F32", np.array(2.5, np.float32)),
    "empty": ("F32", np.zeros((0, 3), np.float32)),
    'quo"te\\ü\t': ("F32", np.arange(3, dtype=np.float32)),
}
kinds = dict(F32=torch.float32, BF16=torch.bfloat16, F16=torch.float16)
save_file({k: torch.from_numpy(v.copy()).to(kinds[t]) for k, (t, v) in weights.items()}, f"{out}/mixed.safetensors", metadata={"format": "pt"})
json.dump([dict(name=k, type=t, shape=list(v.shape), values=[float(x) for x in v.reshape(-1)]) for k, (t, v) in weights.items()], open(f"{out}/mixed.json", "w"), indent=0, ensure_ascii=False)
save_numpy({np.dtype(d).name: np.array([0, 1, 2, 100], np.float64).astype(d) for d in (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_, np.uint16, np.uint32, np.uint64)}, f"{out}/types.safetensors")

w = gguf.GGUFWriter(f"{out}/values.gguf", "test")
w.add_custom_alignment(64)
w.add_uint8("u8", 255); w.add_int8("i8", -128); w.add_uint16("u16", 65535); w.add_int16("i16", -32768); w.add_uint32("u32", 4294967295); w.add_int32("i32", -2147483648)
w.add_uint64("u64", 18446744073709551615); w.add_int64("i64", -9223372036854775808); w.add_float32("f32", 0.1); w.add_float64("f64", 0.1); w.add_bool("yes", True); w.add_bool("no", False); w.add_string("text", "naïve ✓")
w.add_array("numbers", [1, -2, 3]); w.add_array("reals", [0.5, -1.5]); w.add_array("texts", ["a", "", "ccc"]); w.add_array("flags", [True, False])
w.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3)); w.add_tensor("half", np.arange(5, dtype=np.float16)); w.add_tensor("int", np.arange(-3, 4, dtype=np.int32))
q = gguf.GGMLQuantizationType.Q4_1
w.add_tensor("quant", gguf.quants.quantize(rng.standard_normal((2, 64)).astype(np.float32), q), raw_dtype=q)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

shutil.copy(f"{out}/mixed.safetensors", f"{corpus}/safetensors/mixed")
save_numpy({"w": np.arange(4, dtype=np.float32)}, f"{corpus}/safetensors/one")
save_numpy({}, f"{corpus}/safetensors/none")
shutil.copy(f"{out}/values.gguf", f"{corpus}/gguf/values")
w = gguf.GGUFWriter(f"{corpus}/gguf/vocabulary", "test"); w.add_array("tokenizer.ggml.tokens", ["<s>", "a"]); w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
seeds = dict(object='{"a": [1, 2.5e-3, -7, true, false, null, "x\\u00fc\\n"], "b": {"c": {}}}', large='{"model_max_length": 1000000000000000019884624838656, "x": [123456789012345678901, -1]}', nested="[" * 40 + "]" * 40, broken='{"a": 1, "a": [1,}')
for k, v in seeds.items(): open(f"{corpus}/json/{k}", "w").write(v)
open(f"{corpus}/json/compressed", "wb").write(gzip.compress(b'{"a": [1, 2, 3]}', mtime=0))
