#!/usr/bin/env python3
"""How near layers come to what the processor can do, as a Markdown table.

  python peak.py BINARY DIR... [--target x86-64-v3] [--rounds 5] [--block 0.15] [--write docs/benchmarks.md]

Each DIR holds NAME.onnx of one ConvTranspose each. roofline.c beside this file is compiled (with gcc, for this processor or
the target) and run before every round, on one thread and on two; a round times every layer on both. A layer is bound by
arithmetic when its inputs, weights and outputs, each moved once, take under half the time of its multiply-adds, counted as
the definition has them, without those that are cropped; by memory when these take under half the time of moving; else by both.
Its share is of the peak of the widest vectors or of the bandwidth of copies, by both of that which takes longer. Layers that are filtered take fewer multiply-adds, and may have a share over 100 %. --write puts the
table into the section "Share of peak" (with the target, if there is one) of a file. Needs onnx.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import onnx
from memory import cpu, write


def roofline(folder, target):
    program = pathlib.Path(folder) / "roofline"
    if not program.exists():
        source = pathlib.Path(__file__).with_name("roofline.c")
        flags = ["-O2", f"-march={target or 'native'}", "-pthread"]
        subprocess.run(["gcc", *flags, str(source), "-o", str(program)], check=True)
    return json.loads(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def output(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def targeted(options):
    return ["--target", options.target] if options.target else []


def work(binary, path):
    """Multiply-adds of a layer, at least, and bytes of its input, weights and output."""
    layers = json.loads(output(binary, "explain", path, "--json"))["layers"]
    if len(layers) != 1:
        raise SystemExit(f"{path}: {len(layers)} ConvTransposes, expected is one")
    graph = onnx.load(path).graph
    constants = {constant.name for constant in graph.initializer}
    shapes = [constant.dims for constant in graph.initializer]
    for port in [*graph.input, *graph.output]:
        if port.name not in constants:
            shapes.append([dim.dim_value for dim in port.type.tensor_type.shape.dim])
    macs = min(form["cost"]["macs"] for form in layers[0]["considered"])
    return macs, 4 * sum(math.prod(shape) for shape in shapes)


def table(options):
    paths = sorted(path for folder in options.folders for path in folder.glob("*.onnx"))
    times = {(path, threads): [] for path in paths for threads in (1, 2)}
    peaks, copies = ([], []), ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            figures = roofline(folder, options.target)
            for i in range(2):
                peaks[i].append(figures["fma_gflops"][i])
                copies[i].append(figures["copy_gb_per_s"][i])
            for path, threads in times:
                command = ["bench", path, "--threads", threads, "--seconds", options.block, "--json"]
                ran = output(options.binary, *command, *targeted(options))
                times[path, threads].append(json.loads(ran)["median_ms"])
    peak, copy = max(peaks[0]), max(copies[0])
    rows = []
    for path in paths:
        macs, moved = work(options.binary, path)
        one, two = (statistics.median(times[path, threads]) for threads in (1, 2))
        gflops, rate = 2 * macs / one / 1e6, moved / one / 1e6
        computing, moving = 2 * macs / peak, moved / copy
        bound = "arithmetic" if 2 * moving < computing else "memory" if 2 * computing < moving else "both"
        share = max(computing, moving) / one / 1e6
        rows.append(
            f"| {path.stem} | {bound} | {2 * macs / 1e6:.0f} | {one:.3f} "
            f"| {gflops:.1f} | {rate:.1f} | {100 * share:.0f} | {one / two:.2f} |"
        )
    return "\n".join([
        f"{cpu()}, {time.strftime('%Y-%m-%d')}; the median of {options.rounds} turns of {options.block} s. On one thread "
        f"multiply-adds of {figures['vector_bits']}-bit vectors reach {peak:.1f} GFLOP/s and copies {copy:.1f} GB/s, on two {max(peaks[1]):.1f} and "
        f"{max(copies[1]):.1f}.",
        "",
        "| layer | bound by | MFLOP | ms | GFLOP/s | GB/s | share, % | one thread / two |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--target")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--block", default=0.15, type=float)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    title = f"Share of peak, {options.target}" if options.target else "Share of peak"
    write(options.write, title, table(options))


if __name__ == "__main__":
    main()
