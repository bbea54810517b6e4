#!/usr/bin/env python3
"""Random networks, computed by tconvc and by onnxruntime.

  python differential.py BINARY FOLDER [--count N] [--seed S] [--most M] [--keep]

Networks of up to a dozen nodes are drawn from the operators that decoders are made
of: convolutions of every kind, resizes, pools, norms, elementwise and moving
operators, quantisation; in f32, f16, f64 and integers; with open extents, zero
extents, default inputs, If, Loop, Scan and functions. Each is written to FOLDER as
NUMBER.onnx, with its inputs and onnxruntime's outputs in NUMBER.npz, and BINARY
verifies them. What onnxruntime refuses is compared with onnx.reference. Where the
two differ, onnx.reference has the last word, or the same network in f32 where only
onnx.reference takes it as it is: a network that one of these explains is counted apart. Files of networks that pass are deleted.
Prints what fails and a summary; exit status 1 if more than --most did (0). A few in 10,000 round to another step, as
processors and engines add in another order: whoever looks at each wants 0, a machine of any kind wants to know of faults,
which show in many.

Needs: pip install onnx onnxruntime numpy
"""
import argparse
import pathlib
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from random_networks import network


def session(model, feeds):
    """onnxruntime's outputs, without its optimiser."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    run = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in run.get_outputs()]
    return dict(zip(names, run.run(names, feeds)))


def reference(model, feeds):
    """The outputs by onnx.reference."""
    names = [output.name for output in model.graph.output]
    full = dict(feeds)
    return dict(zip(names, ReferenceEvaluator(model).run(None, full)))


def verify(binary, paths):
    """For each of the files that fail, what the program says."""
    found = subprocess.run([binary, "verify", *map(str, paths)], capture_output=True, text=True, check=False)
    failed = {}
    for line in found.stdout.splitlines():
        if line.startswith("FAILED"):
            path, problem = line.removeprefix("FAILED").strip().split(": ", 1)
            failed[pathlib.Path(path)] = problem
    if found.returncode not in (0, 1):
        failed[None] = f"status {found.returncode}: {found.stderr[-600:]}"
    return failed


def is_rounding(model, problem):
    """Whether a network computes in f16, and what differs is a few of its steps, or may jump by one of them: engines round
    between other operators."""
    halves = any(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 for value in model.graph.input)
    found = re.search(r"is (\S+), expected is (\S+) \(allowed difference (\S+)\)", problem)
    if not halves or not found:
        return False
    jumps = JUMPS & {node.op_type for node in nodes_of(model.graph)}
    return bool(jumps) or abs(float(found[1]) - float(found[2])) <= 8 * float(found[3])


# Operators whose result jumps where an element passes a threshold.
JUMPS = {"Greater", "Floor", "Ceil", "Round", "Sign", "TopK", "ArgMax", "ArgMin", "QuantizeLinear"}


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


def twin_passes(options, path):
    """Whether the same network in f32 agrees with onnxruntime, where only onnx.reference takes it as it is."""
    rng = np.random.default_rng([options.seed, int(path.stem)])
    with np.errstate(all="ignore"):
        model, feeds = network(rng, "float32")
    twin = path.with_name(f"{path.stem}_f32.onnx")
    try:
        np.savez(twin.with_suffix(".npz"), **feeds, **session(model, feeds))
    except Exception:  # onnxruntime cannot say either.
        return False
    twin.write_bytes(model.SerializeToString())
    passes = not verify(options.binary, [twin])
    twin.unlink()
    twin.with_suffix(".npz").unlink()
    return passes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=0, help="how many may differ, none of them by ending badly")
    parser.add_argument("--keep", action="store_true", help="keep the files of networks that pass")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    counts = {"passed": 0, "failed": 0, "refused by both": 0,
              "compared with onnx.reference alone": 0, "explained": 0}
    for start in range(0, options.count, 100):
        paths, alone = [], set()
        for number in range(start, min(start + 100, options.count)):
            rng = np.random.default_rng([options.seed, number])
            with np.errstate(all="ignore"):
                made = network(rng)
            if made is None:
                continue
            model, feeds = made
            by_reference = False
            try:
                outputs = session(model, feeds)
            except Exception:  # What onnxruntime refuses, for its types, is compared with the definition.
                try:
                    with np.errstate(all="ignore"):
                        outputs = reference(model, feeds)
                    counts["compared with onnx.reference alone"] += 1
                    by_reference = True
                except Exception:  # The network is at fault.
                    counts["refused by both"] += 1
                    continue
            path = options.folder / f"{number}.onnx"
            if by_reference:
                alone.add(path)
            path.write_bytes(model.SerializeToString())
            np.savez(path.with_suffix(".npz"), **feeds, **outputs)
            paths.append(path)
        failed = verify(options.binary, paths)
        if crash := failed.pop(None, None):
            print(f"{paths[0]} .. {paths[-1]}: {crash}")
            counts["failed"] += options.most + 1
        for path in paths:
            problem = failed.get(path)
            if problem is not None:
                model = onnx.load(path)
                stored = dict(np.load(path.with_suffix(".npz")))
                names = {output.name for output in model.graph.output}
                feeds = {name: array for name, array in stored.items() if name not in names}
                try:
                    with np.errstate(all="ignore"):
                        outputs = reference(model, feeds)
                    again = path.with_name(f"{path.stem}_reference.onnx")
                    again.write_bytes(path.read_bytes())
                    np.savez(again.with_suffix(".npz"), **feeds, **outputs)
                    agrees = again not in verify(options.binary, [again])
                    again.unlink()
                    again.with_suffix(".npz").unlink()
                except Exception:  # The reference cannot say.
                    agrees = False
                if not agrees and (path in alone or is_rounding(model, problem)):
                    agrees = twin_passes(options, path)
                if agrees:
                    counts["explained"] += 1
                    problem = None
                else:
                    print(f"{path}: {problem}", flush=True)
                    counts["failed"] += 1
                    continue
            else:
                counts["passed"] += 1
            if problem is None and not options.keep:
                path.unlink()
                path.with_suffix(".npz").unlink()
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    sys.exit(1 if counts["failed"] > options.most or not counts["passed"] else 0)


if __name__ == "__main__":
    main()
