#!/usr/bin/env python3
"""Times what the Python package adds, and what it spares.

  python package_speed.py NETWORKS... [--turns N] [--write DOCUMENT.md]

NETWORKS are folders of ONNX files with their arrays beside them. Prints, as Markdown:
the time to import the package beside NumPy's and onnxruntime's, the least of processes in
turns; the time of a call of a small network by each way of calling; and for each network,
on one thread, the time to make a session and run it once, here and in onnxruntime, the
least of N new processes in turns. --write replaces these tables in a document.

Needs: pip install ./python numpy ml_dtypes onnxruntime
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

FIRST_RUN = """
import json, sys, time
import numpy as np
from tconvc._arrays import dtype_of
name, path = sys.argv[1:3]
if name == "tconvc":
    import tconvc as ort
else:
    import onnxruntime as ort
import tconvc
ports = tconvc.load(path).inputs
arrays = dict(np.load(path.removesuffix(".onnx") + ".npz"))
names = [port.name for port in ports]
feeds = {n: arrays[n] for n in names if n in arrays} or {n: arrays[f"input_{i}"] for i, n in enumerate(names) if f"input_{i}" in arrays}
options = ort.SessionOptions()
options.intra_op_num_threads = 1
start = time.perf_counter()
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
session.run(None, feeds)
print(time.perf_counter() - start)
"""

CALLS = """
import json, sys, time
import numpy as np, tconvc
compiled = tconvc.load(sys.argv[1]).compile(shapes={"low": [1, 1, 8, 8]}, threads=1)
session, low, high = compiled.session(), np.zeros([1, 1, 8, 8], np.float32), np.empty([1, 1, 24, 24], np.float32)
ort = tconvc.InferenceSession(sys.argv[1])
ways = {
    "compiled(low)": lambda: compiled(low),
    "compiled(low=low)": lambda: compiled(low=low),
    "compiled.run({..})": lambda: compiled.run({"low": low}),
    "compiled.run({..}, out={..})": lambda: compiled.run({"low": low}, out={"high": high}),
    "session(low)": lambda: session(low),
    "InferenceSession.run(None, {..})": lambda: ort.run(None, {"low": low}),
}
least = dict.fromkeys(ways, float("inf"))
for _ in range(12):
    for name, call in ways.items():
        start = time.perf_counter()
        for _ in range(1000):
            call()
        least[name] = min(least[name], (time.perf_counter() - start) / 1000)
print(json.dumps(least))
"""


def imports(turns):
    programs = {"nothing": "pass", "numpy": "import numpy", "numpy and tconvc": "import numpy, tconvc",
                "tconvc": "import tconvc", "onnxruntime": "import onnxruntime"}
    least = dict.fromkeys(programs, float("inf"))
    for _ in range(turns):
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            least[name] = min(least[name], time.perf_counter() - start)
    bare = least.pop("nothing")
    rows = [f"| `import {name}` | {1e3 * (time - bare):.1f} |" for name, time in least.items()]
    return ["| beyond an empty program | ms |", "| --- | --- |", *rows]


def calls(root):
    path = str(root / "models/fsrcnn_x3.onnx")
    found = subprocess.run([sys.executable, "-c", CALLS, path], check=True, capture_output=True, text=True)
    least = json.loads(found.stdout)
    command = [sys.executable, "-m", "tconvc", "bench", path, "--shape", "low=1x1x8x8", "--threads", "1", "--seconds", "1", "--json"]
    bench = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = [f"| `{name}` | {1e6 * time:.1f} |" for name, time in least.items()]
    return ["| fsrcnn_x3 on 8 x 8, one thread | us |", "| --- | --- |",
            f"| `Session::run_into`, in Rust | {1e3 * bench['min_ms']:.1f} |", *rows]


def first_runs(folders, turns):
    rows = ["| network, one thread | onnxruntime ms | tconvc ms | ratio |", "| --- | --- | --- | --- |"]
    for path in sorted(path for folder in folders for path in folder.glob("*.onnx") if path.with_suffix(".npz").exists()):
        least = {"onnxruntime": float("inf"), "tconvc": float("inf")}
        for _ in range(turns):
            for name in least:
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                found = subprocess.run([sys.executable, "-c", FIRST_RUN, name, str(path)], env=environment,
                                       capture_output=True, text=True, check=False)
                if found.returncode == 0:
                    least[name] = min(least[name], float(found.stdout))
                else:
                    print(f"{path.name}, {name}: {found.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        theirs, ours = 1e3 * least["onnxruntime"], 1e3 * least["tconvc"]
        rows.append(f"| {path.stem} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |")
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="+", type=pathlib.Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    parts = [imports(4 * options.turns), calls(root), first_runs(options.networks, options.turns)]
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    print(text)
    if options.write:
        before = options.write.read_text()
        begin, end = "<!-- package_speed.py -->\n", "<!-- end -->"
        after = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", before, flags=re.S)
        options.write.write_text(after)


if __name__ == "__main__":
    main()
