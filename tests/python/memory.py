#!/usr/bin/env python3
"""Memory and time to get ready: a tconvc binary against onnxruntime, as rows of a Markdown table.

  python memory.py BINARY DIR... [--write docs/benchmarks.md]

Each DIR holds NAME.onnx with NAME.in.npy (one input) or NAME.npz (input_0, input_1, ..). Every network runs in a fresh
process of either runtime, with one thread. onnxruntime's figure is by how much its process grows from before the session is
made to behind a few runs; tconvc's are the workspace and packed weights that it reports, and the growth of its process over
the same range. Times are the median of five: making a session, which reads the file, and compiling, with and without
reading. --write puts the table into the section "Memory" of a file. Needs numpy, onnx and onnxruntime.
"""

import argparse
import json
import math
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROUNDS = 5
MIB = 1 << 20


def inputs(path):
    """The arrays of a network, in the order of its inputs; None where there are none beside it."""
    npz, npy = path.with_suffix(".npz"), path.with_suffix(".in.npy")
    if npz.exists():
        arrays = np.load(npz)
        return [arrays[f"input_{i}"] for i in range(sum(name.startswith("input_") for name in arrays.files))]
    return [np.load(npy)] if npy.exists() else None


def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024


def measure(path):
    """Prints by how much this process grows for a network, and the milliseconds until its session is there."""
    import onnxruntime as ort

    feeds = inputs(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    before, start = resident(), time.perf_counter()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ready = (time.perf_counter() - start) * 1e3
    named = {port.name: feed for port, feed in zip(session.get_inputs(), feeds)}
    for _ in range(4):
        session.run(None, named)
    print(json.dumps({"growth": resident() - before, "ready": ready}))


def onnxruntime(path):
    rounds = []
    for _ in range(ROUNDS):
        command = [sys.executable, __file__, "--measure", str(path)]
        rounds.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}


def tconvc(binary, path):
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {constant.name for constant in graph.initializer}
    names = [port.name for port in graph.input if port.name not in constants]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        arrays = pathlib.Path(folder) / "in.npz"
        np.savez(arrays, **dict(zip(names, inputs(path))))
        for _ in range(ROUNDS):
            command = [binary, "bench", str(path), "--inputs", str(arrays), "--seconds", "0", "--json"]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                return ran.stderr.strip().splitlines()[-1]
            rounds.append(json.loads(ran.stdout.splitlines()[-1]))
    keys = ["workspace_bytes", "weight_bytes", "resident_growth_bytes", "read_ms", "compile_ms"]
    return {key: statistics.median(row[key] for row in rounds) for key in keys}


def cpu():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def table(binary, folders):
    import onnxruntime as ort

    rows, sizes, times = [], [], []
    for path in sorted(path for folder in folders for path in folder.glob("*.onnx")):
        if inputs(path) is None:
            continue
        peer, own = onnxruntime(path), tconvc(binary, path)
        if isinstance(own, str):
            rows.append(f"| {path.stem} | {own} |")
            continue
        held = own["workspace_bytes"] + own["weight_bytes"]
        sizes.append(held / max(peer["growth"], 1))
        ready = own["read_ms"] + own["compile_ms"]
        times.append(ready / peer["ready"])
        mib = [own["workspace_bytes"], own["weight_bytes"], held, own["resident_growth_bytes"], peer["growth"]]
        cells = [f"{value / MIB:.2f}" for value in mib] + [f"{own['compile_ms']:.1f}", f"{ready:.1f}", f"{peer['ready']:.1f}"]
        rows.append(f"| {path.stem} | " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    mean = lambda values: math.exp(sum(map(math.log, values)) / len(values))
    head = ["network", "workspace", "weights", "both", "tconvc grows", "onnxruntime grows", "compile ms", "with reading", "session ms"]
    text = [
        f"MiB, one thread, {cpu()}, onnxruntime {ort.__version__}, {time.strftime('%Y-%m-%d')}. "
        "`python tests/python/memory.py BINARY DIR...` makes this table.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *rows,
        "",
        f"Workspace and weights over onnxruntime's growth: geometric mean {mean(sizes):.2f}, most {max(sizes):.2f}, "
        f"above 1 in {sum(size > 1 for size in sizes)} of {len(sizes)}. Time to read and compile over session time: geometric mean "
        f"{mean(times):.2f}, most {max(times):.2f}.",
    ]
    return "\n".join(text) + "\n"


def write(path, title, text):
    """Replaces a section of a file, or appends it; prints where there is no file."""
    if path is None:
        print(text)
        return
    before, after = (path.read_text() if path.exists() else "# Benchmarks\n"), ""
    if f"\n## {title}\n" in before:
        before, rest = before.split(f"\n## {title}\n", 1)
        at = rest.find("\n## ")
        after = rest[at:] if at >= 0 else ""
    path.write_text(before.rstrip() + f"\n\n## {title}\n\n" + text + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--measure", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    write(options.write, "Memory", table(options.binary, options.folders))


if __name__ == "__main__":
    main()
