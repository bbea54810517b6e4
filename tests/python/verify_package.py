#!/usr/bin/env python3
"""What `tconvc verify` checks, through the Python package.

  python verify_package.py [verify] [--threads N] PATH...

Each PATH is an ONNX file with its arrays beside it (MODEL.npz, under the model's names or as
input_0, output_0 ..), or a folder that holds such files, or cases in ONNX's backend-test layout.
A model is loaded, compiled and run by the native interface, and again as an
onnxruntime session; both must give the same bits, and agree with the stored
outputs. Prints lines as `tconvc verify` does, so that it can stand in for the
command in differential.py; exit status 1 if anything failed.

Needs: pip install ./python onnx numpy ml_dtypes
"""
import argparse
import pathlib
import re
import sys

import numpy as np
import onnx
from onnx import numpy_helper

import tconvc

# As ONNX's own runner has it; for networks, see tconvc.verify.
RELATIVE, ABSOLUTE = 1e-3, 1e-7


class Wrong(Exception):
    """What is wrong with a case."""


def named(ports, kind, arrays):
    """Arrays by the names of these ports, or by their numbers."""
    names = [port.name for port in ports]
    if any(name in arrays for name in names):
        return {name: arrays[name] for name in names if name in arrays}
    numbered = {int(found[1]): array for key, array in arrays.items() if (found := re.fullmatch(rf"{kind}_(\d+)", key))}
    return {name: numbered[i] for i, name in enumerate(names) if i in numbered}


def converted(ports, arrays):
    """Arrays as the model has them: npz files know no bfloat16, and hold its bits."""
    from tconvc._arrays import dtype_of

    for port in ports:
        array = arrays.get(port.name)
        if array is not None and port.dtype not in (None, "str"):
            wanted = dtype_of(port.dtype)
            if array.dtype != wanted and array.dtype.kind in "Vu" and array.dtype.itemsize == wanted.itemsize:
                arrays[port.name] = array.view(wanted)
    return arrays


def run(model, path, feeds, threads):
    """Outputs by name, the same from both interfaces."""
    compiled = model.compile(threads=threads)
    found = compiled.run(feeds)
    options = tconvc.SessionOptions()
    options.intra_op_num_threads = threads
    session = tconvc.InferenceSession(path, options)
    again = session.run(None, feeds)
    for name, array in zip(found, again, strict=True):
        if found[name].dtype != array.dtype or found[name].shape != array.shape:
            raise Wrong(f"output `{name}`: the two interfaces give another type or shape")
        # Whatever allocates, and NaN has many spellings: compared as bits where there are such.
        same = found[name].tolist() == array.tolist() if array.dtype == object else found[name].tobytes() == array.tobytes()
        if not same:
            raise Wrong(f"output `{name}`: the two interfaces give different bits")
    return found


def network(path, threads):
    model = tconvc.load(path)
    stored = path.with_suffix(".npz")
    if not stored.exists():
        if not (found := tconvc.verify(model, threads=threads)):
            raise Wrong(str(found.problems))
        return f"{len(found.differences)} output(s) against the definition"
    arrays = dict(np.load(stored))
    feeds = converted(model.inputs, named(model.inputs, "input", arrays))
    expected = converted(model.outputs, named(model.outputs, "output", arrays))
    outputs = run(model, path, feeds, threads)
    for name, array in expected.items():
        _, problem = model._native.differs(name, outputs[name], array)
        if problem is not None:
            raise Wrong(f"output `{name}`: {problem}")
    return f"{len(expected)} output(s) within tolerance of stored outputs"


def tensors(folder, kind, ports):
    arrays = {}
    for file in sorted(folder.glob(f"{kind}_*.pb"), key=lambda file: int(file.stem.split("_")[-1])):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(file.read_bytes())
        number = int(file.stem.split("_")[-1])
        name = tensor.name or ports[number].name
        arrays[name] = numpy_helper.to_array(tensor)
    return arrays


def case(folder, threads):
    path = folder / "model.onnx"
    model = tconvc.load(path)
    sets = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    for data in sets:
        outputs = run(model, path, tensors(data, "input", model.inputs), threads)
        for name, expected in tensors(data, "output", model.outputs).items():
            found = outputs[name]
            if found.shape != expected.shape:
                raise Wrong(f"output `{name}`: shape {found.shape}, expected is {expected.shape}")
            if expected.dtype.kind in "OUS":
                same = [str(text) for text in found.reshape(-1)] == [
                    text.decode() if isinstance(text, bytes) else str(text) for text in expected.reshape(-1)]
            elif found.dtype != expected.dtype:
                raise Wrong(f"output `{name}`: type {found.dtype}, expected is {expected.dtype}")
            elif found.dtype.kind in "biu":
                same = np.array_equal(found, expected)
            else:
                wide = np.complex128 if found.dtype.kind == "c" else np.float64
                same = np.allclose(found.astype(wide), expected.astype(wide), RELATIVE, ABSOLUTE, equal_nan=True)
            if not same:
                raise Wrong(f"output `{name}`: values differ")
    return f"{len(sets)} data set(s)"


def collect(path):
    """Cases below a path, each with what checks it."""
    if path.is_file():
        return [(path, network)]
    if (path / "model.onnx").is_file():
        return [(path, case)]
    below = sorted(entry for entry in path.iterdir() if entry.is_dir() or entry.suffix == ".onnx")
    return [found for entry in below for found in collect(entry)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    paths = [path for path in options.paths if str(path) != "verify"]
    counts = [0, 0]
    for path, check in (found for path in paths for found in collect(path)):
        try:
            print(f"ok      {path}: {check(path, options.threads)}")
            counts[0] += 1
        except (Wrong, tconvc.TconvcError) as error:
            problem = str(error).removeprefix(f"{path}: ")
            print(f"FAILED  {path}: {problem}")
            counts[1] += 1
    print(f"{counts[0]} passed, {counts[1]} failed")
    sys.exit(1 if counts[1] else 0)


if __name__ == "__main__":
    main()
