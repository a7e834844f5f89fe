"""The files of log_program through h5py: python trajectories.py DIR. The master file must show what the other files hold, and nothing where they are gone."""
import glob
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
merged = [h5py.File(name) for name in sorted(glob.glob(folder + "/iterations-*.h5"))]
single = h5py.File(folder + "/iteration-000010.w001.h5")
assert len(merged) == 2 and single.attrs["iteration"] == 10 and single.attrs["policy_version"] == 10
assert list(single.attrs["parts"].astype(str)) == ["model"] and single.attrs["format"] == 1


def texts(file, name):
    length = file[f"sequences/{name}_length"][:]
    end, data = np.cumsum(length), file[f"sequences/{name}"][:].tobytes()
    return [data[e - n:e].decode() for e, n in zip(end, length)]


assert texts(single, "prompt_text")[3] == "iteration 10, sequence 27"
offset = single["sequences/token_offset"][:]
assert offset[0] == 0 and offset[-1] == len(single["tokens/ids"]) and (np.diff(offset) == single["sequences/length"][:]).all()
begin = single["sequences/text_offset"][3]
assert single["sequences/text"][begin:begin + 7].tobytes() == b"ration "

master = h5py.File(folder + "/trajectories.h5")
datasets = []
master.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
assert len(datasets) == 29, datasets
for name in datasets:
    expected = np.concatenate([file[name][:] for file in merged])
    found = master[name]
    assert found.is_virtual and found.dtype == expected.dtype and np.array_equal(found[:], expected, equal_nan=expected.dtype.kind == "f"), name
assert list(master["iterations/number"][:]) == list(range(1, 9))
assert texts(master, "text")[48] == "ration 2, sequence 0"
kl = np.add.reduceat(master["tokens/logp"][:].astype(float) - master["tokens/ref_logp"][:], np.cumsum(master["sequences/length"][:]) - master["sequences/length"][:])
assert (kl == 20).all()

rows = len(merged[0]["sequences/score"])
for file in merged + [master]:
    file.close()
name = folder + "/iterations-000001-000004.h5"
os.rename(name, name + ".away")
try:
    with h5py.File(folder + "/trajectories.h5") as master:
        assert np.isnan(master["sequences/score"][:rows]).all() and (master["sequences/record"][:rows] == -1).all()
        assert (master["sequences/text"][:100] == 255).all() and not np.isnan(master["sequences/score"][rows])
finally:
    os.rename(name + ".away", name)
