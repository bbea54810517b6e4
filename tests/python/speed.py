#!/usr/bin/env python3
"""Time of a run: a tconvc binary against onnxruntime and OpenVINO, as a Markdown table.

  python speed.py BINARY TITLE DIR... [--threads 1,2] [--rounds 5] [--block 0.1] [--write docs/benchmarks.md]

Each DIR holds NAME.onnx with NAME.in.npy (one input) or NAME.npz (input_0, input_1, ..). For a network the runtimes take turns:
a block of runs each, ROUNDS times, so that the drift of a machine falls on all of them alike; a figure is the median of a
runtime's block medians. The ratio is the fastest peer's time over ours: above 1, tconvc is faster. --write puts the table
into the section TITLE of a file. Needs numpy, onnx, onnxruntime and openvino.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
from memory import cpu, inputs, write


def onnxruntime(path, feeds, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    named = {port.name: feed for port, feed in zip(session.get_inputs(), feeds)}
    return lambda: session.run(None, named)


def openvino(path, feeds, threads):
    import openvino as ov

    model = ov.Core().read_model(path)
    model.reshape({port: list(feed.shape) for port, feed in zip(model.inputs, feeds)})
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(model, "CPU", {**hints, "INFERENCE_NUM_THREADS": threads})
    request, tensors = compiled.create_infer_request(), [ov.Tensor(feed) for feed in feeds]
    return lambda: request.infer(tensors, share_inputs=True)


def block(run, seconds):
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(options, path, arrays, threads):
    """Milliseconds of each runtime; the message of what fails."""
    feeds = inputs(path)
    peers, times = {}, {"tconvc": []}
    for make in (onnxruntime, openvino):
        try:
            peers[make.__name__] = make(path, feeds, threads)
            peers[make.__name__]()
            times[make.__name__] = []
        except Exception as error:
            peers.pop(make.__name__, None)
            print(f"{path.stem}: {make.__name__} does not run it: {str(error).splitlines()[0]}")
    command = [options.binary, "bench", str(path), "--inputs", str(arrays), "--threads", str(threads)]
    for _ in range(options.rounds):
        for name, run in peers.items():
            times[name].append(block(run, options.block))
        ran = subprocess.run(
            [*command, "--seconds", str(options.block), "--json"], capture_output=True, text=True
        )
        if ran.returncode:
            return ran.stderr.strip().splitlines()[-1]
        times["tconvc"].append(json.loads(ran.stdout.splitlines()[-1])["median_ms"])
    return {name: statistics.median(values) for name, values in times.items() if values}


def table(options):
    import onnx
    import onnxruntime as ort
    import openvino as ov

    rows, ratios = [], {threads: [] for threads in options.threads}
    paths = (path for folder in options.folders for path in folder.glob("*.onnx"))
    for path in sorted(path for path in paths if inputs(path) is not None):
        graph = onnx.load(path, load_external_data=False).graph
        constants = {constant.name for constant in graph.initializer}
        names = [port.name for port in graph.input if port.name not in constants]
        with tempfile.TemporaryDirectory() as folder:
            arrays = pathlib.Path(folder) / "in.npz"
            np.savez(arrays, **dict(zip(names, inputs(path))))
            for threads in options.threads:
                times = measure(options, path, arrays, threads)
                if isinstance(times, str):
                    rows.append(f"| {path.stem} | {threads} | {times} |")
                    continue
                own = times.pop("tconvc")
                ratio = min(times.values()) / own
                ratios[threads].append(ratio)
                cells = [f"{times[peer]:.3f}" if peer in times else "-" for peer in ("onnxruntime", "openvino")]
                rows.append(f"| {path.stem} | {threads} | " + " | ".join([*cells, f"{own:.3f}", f"{ratio:.2f}"]) + " |")
                print(rows[-1], flush=True)
    mean = lambda values: math.exp(sum(map(math.log, values)) / len(values))
    means = ", ".join(
        f"{mean(values):.2f} on {threads} thread(s) (least {min(values):.2f})"
        for threads, values in ratios.items()
        if values
    )
    return "\n".join([
        f"Milliseconds, {cpu()}, onnxruntime {ort.__version__}, OpenVINO {ov.__version__.split('-')[0]}, "
        f"{time.strftime('%Y-%m-%d')}; {options.rounds} turns of {options.block} s.",
        "",
        "| network | threads | onnxruntime | OpenVINO | tconvc | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Geometric mean of the fastest peer over tconvc: {means}.",
        "",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("title")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", default=[1, 2], type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--block", default=0.1, type=float)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    write(options.write, options.title, table(options))


if __name__ == "__main__":
    main()
