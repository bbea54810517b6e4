#!/usr/bin/env python3
"""Checks what `tconvc compile --emit onnx` writes against ONNX itself.

  python check_export.py BINARY OUT_DIR MODEL-OR-FOLDER...

For each model and each form it writes OUT_DIR/NAME.FORM.onnx and asks that
  - onnx.checker accepts it, with full shape inference;
  - no ConvTranspose is left in it, subgraphs included;
  - its inputs and outputs have the names of the model's;
  - onnxruntime computes the same outputs from both, within 1e-4 of each
    output's maximum.
Inputs are taken from NAME.npz or NAME.in.npy beside the model, else seeded; the
extents of those that the model leaves open are given to tconvc by --shape.
Prints a line for each failure and a summary; exit status 1 if there was one.

Needs: pip install onnx onnxruntime numpy
"""
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime

from check_cases import difference

FORMS = ["auto", "scatter", "zero-insert", "sub-pixel"]

# Forms under which every transposed convolution has to be rewritten.
REWRITING = ["scatter", "zero-insert", "sub-pixel"]

# An extent that neither the model nor an input file says.
OPEN_EXTENT = 24

SECONDS = 600

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Its optimiser makes outputs differ by nearly the tolerance.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs_of(path, runtime):
    """Arrays by name: from the file beside the model, else seeded."""
    declared = runtime.get_inputs()
    archive, single = path.with_suffix(".npz"), path.with_suffix(".in.npy")
    if archive.exists():
        stored = np.load(archive)
        # Under the model's own names, or by their places.
        for keys in ([value.name for value in declared], [f"input_{i}" for i in range(len(declared))]):
            if all(key in stored for key in keys):
                return {value.name: stored[key] for value, key in zip(declared, keys)}
    if single.exists() and len(declared) == 1:
        return {declared[0].name: np.load(single)}
    random = np.random.default_rng(7)
    arrays = {}
    for value in declared:
        shape = [
            extent if isinstance(extent, int) else 1 if axis == 0 else OPEN_EXTENT
            for axis, extent in enumerate(value.shape)
        ]
        kind = TYPES[value.type]
        if np.issubdtype(kind, np.floating):
            arrays[value.name] = random.standard_normal(shape).astype(kind)
        else:
            arrays[value.name] = random.integers(0, 2, shape).astype(kind)
    return arrays


def shape_options(runtime, arrays):
    options = []
    for value in runtime.get_inputs():
        if not all(isinstance(extent, int) for extent in value.shape):
            extents = "x".join(str(extent) for extent in arrays[value.name].shape)
            options += ["--shape", f"{value.name}={extents}"]
    return options


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from operators(inner)


def check(binary, path, form, out, runtime, arrays, expected):
    """What is wrong with the model in that form, or None."""
    command = [binary, "compile", path, "--emit", "onnx", "--form", form, "-o", out]
    command += shape_options(runtime, arrays)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        return f"tconvc: {done.stderr.strip() or done.returncode}"
    try:
        onnx.checker.check_model(str(out), full_check=True)
        model = onnx.load(out)
        if form in REWRITING and "ConvTranspose" in operators(model.graph):
            return "a ConvTranspose is left"
        rewritten = session(out)
        for kind in ("get_inputs", "get_outputs"):
            names = [[value.name for value in getattr(which, kind)()] for which in (runtime, rewritten)]
            if names[0] != names[1]:
                return f"{kind[4:]} are {names[1]}, expected {names[0]}"
        found = rewritten.run(None, arrays)
    except Exception as error:  # Whatever the libraries throw is what is wrong.
        return " ".join(str(error).split())[:300]
    for value, a, b in zip(runtime.get_outputs(), expected, found):
        if problem := difference(a, b):
            return f"output `{value.name}`: {problem}"
    return None


def models(arguments):
    for argument in map(pathlib.Path, arguments):
        yield from sorted(argument.glob("*.onnx")) if argument.is_dir() else [argument]


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    for path in models(sys.argv[3:]):
        runtime = session(path)
        arrays = inputs_of(path, runtime)
        expected = runtime.run(None, arrays)
        for form in FORMS:
            out = folder / f"{path.stem}.{form}.onnx"
            problem = check(binary, path, form, out, runtime, arrays, expected)
            passed, failed = passed + (problem is None), failed + (problem is not None)
            if problem:
                print(f"{path.name}, {form}: {problem}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
