#!/usr/bin/env python3
"""Checks exported models against ONNX itself: onnx.checker, then onnxruntime.

  python check_cases.py FOLDER...

Each FOLDER holds cases in the layout of ONNX's backend tests (CASE/model.onnx,
CASE/test_data_set_0/{input_K,output_K}.pb, named tensors), such as the tests of
crates/ir leave with TCONVC_KEEP=FOLDER. A case passes when the checker accepts
the model, with full shape inference, and onnxruntime computes its outputs
within 1e-4 of each output's maximum. Prints the cases that fail and a summary;
exit status 1 if any did.

Needs: pip install onnx onnxruntime numpy
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

TOLERANCE = 1e-4


def read_tensor(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return tensor.name, numpy_helper.to_array(tensor)


def run(model, inputs):
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in inputs.items() if k in wanted})))


def difference(expected, found):
    """What differs, or None."""
    if expected.shape != found.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype != found.dtype:
        return f"type {found.dtype}, expected {expected.dtype}"
    if expected.size == 0:
        return None
    a, b = expected.astype(np.float64), found.astype(np.float64)
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    if not np.allclose(a, b, rtol=0, atol=max(TOLERANCE * scale, 1e-12), equal_nan=True):
        return f"differs by {np.nanmax(np.abs(a - b)):.3g} where the maximum is {scale:.3g}"
    return None


def check(case):
    """What is wrong with a case, or None."""
    model = onnx.load(case / "model.onnx")
    try:
        onnx.checker.check_model(model, full_check=True)
        data = case / "test_data_set_0"
        inputs = dict(read_tensor(path) for path in data.glob("input_*.pb"))
        found = run(model, inputs)
    except Exception as error:  # Whatever the libraries throw is what is wrong.
        return " ".join(str(error).split())[:300]
    for path in sorted(data.glob("output_*.pb")):
        name, expected = read_tensor(path)
        if name not in found:
            return f"no output `{name}`"
        if problem := difference(expected, found[name]):
            return f"output `{name}`: {problem}"
    return None


def main():
    folders = [pathlib.Path(folder) for folder in sys.argv[1:]]
    if not folders:
        sys.exit(__doc__)
    cases = sorted(path.parent for folder in folders for path in folder.glob("*/model.onnx"))
    failed = 0
    for case in cases:
        if problem := check(case):
            failed += 1
            print(f"{case.name}: {problem}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not cases else 0)


if __name__ == "__main__":
    main()
