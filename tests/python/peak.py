#!/usr/bin/env python3
"""How near layers come to what the processor can do, as a Markdown table.

  python peak.py BINARY DIR... [--rounds 5] [--block 0.15] [--write docs/benchmarks.md]

Each DIR holds NAME.onnx of one ConvTranspose each. roofline.c beside this file is compiled (with gcc) and run before every
round, on one thread and on two; a round times every layer on both. A layer is bound by arithmetic when its inputs, weights and
outputs, each moved once, take under half the time of its multiply-adds, counted as the definition has them, without those
that are cropped. Its share is of the peak of 256-bit vectors, or else of the bandwidth of copies. Layers that are filtered take
fewer multiply-adds, and may have a share over 100 %. --write puts the table into the section "Share of peak" of a file.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from memory import cpu, write


def roofline(folder):
    program = pathlib.Path(folder) / "roofline"
    if not program.exists():
        source = pathlib.Path(__file__).with_name("roofline.c")
        flags = ["-O2", "-mavx2", "-mfma", "-pthread"]
        subprocess.run(["gcc", *flags, str(source), "-o", str(program)], check=True)
    return json.loads(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def output(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def work(binary, path):
    """Multiply-adds and bytes of a layer, at least."""
    layers = json.loads(output(binary, "explain", path, "--json"))["layers"]
    if len(layers) != 1:
        raise SystemExit(f"{path}: {len(layers)} ConvTransposes, expected is one")
    costs = [form["cost"] for form in layers[0]["considered"]]
    return min(cost["macs"] for cost in costs), min(cost["bytes"] for cost in costs)


def table(options):
    paths = sorted(path for folder in options.folders for path in folder.glob("*.onnx"))
    times = {(path, threads): [] for path in paths for threads in (1, 2)}
    peaks, copies = ([], []), ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            figures = roofline(folder)
            for i in range(2):
                peaks[i].append(figures["fma_256_gflops"][i])
                copies[i].append(figures["copy_gb_per_s"][i])
            for path, threads in times:
                ran = output(options.binary, "bench", path, "--threads", threads, "--seconds", options.block, "--json")
                times[path, threads].append(json.loads(ran)["median_ms"])
    peak, copy = max(peaks[0]), max(copies[0])
    rows = []
    for path in paths:
        macs, moved = work(options.binary, path)
        one, two = (statistics.median(times[path, threads]) for threads in (1, 2))
        gflops, rate = 2 * macs / one / 1e6, moved / one / 1e6
        computing = moved / copy < macs / peak
        share = gflops / peak if computing else rate / copy
        rows.append(
            f"| {path.stem} | {'arithmetic' if computing else 'memory'} | {2 * macs / 1e6:.0f} | {one:.3f} "
            f"| {gflops:.1f} | {rate:.1f} | {100 * share:.0f} | {one / two:.2f} |"
        )
    return "\n".join([
        f"{cpu()}, {time.strftime('%Y-%m-%d')}; the median of {options.rounds} turns of {options.block} s. On one thread "
        f"multiply-adds of 256-bit vectors reach {peak:.1f} GFLOP/s and copies {copy:.1f} GB/s, on two {max(peaks[1]):.1f} and "
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
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--block", default=0.15, type=float)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    write(options.write, "Share of peak", table(options))


if __name__ == "__main__":
    main()
