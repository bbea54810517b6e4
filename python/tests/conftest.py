"""Models for the tests: the trained ones of the repository, and small ones made here."""

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tconvc

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="session")
def fsrcnn():
    """Super-resolution by 3: its path, and the array `low` with what `high` must be."""
    path = MODELS / "fsrcnn_x3.onnx"
    arrays = dict(np.load(path.with_suffix(".npz")))
    names = [port.name for port in tconvc.load(path).outputs]
    expected = arrays.pop(names[0])
    (low,) = arrays.values()
    return path, low, expected


def model(nodes, inputs, outputs, initializers=None, opset=17):
    """A model of nodes; inputs and outputs are names with a type and a shape."""

    def infos(ports):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in ports.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    graph = helper.make_graph(nodes, "test", infos(inputs), infos(outputs), tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def identity(kind, shape):
    """y = x, of any type."""
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


@pytest.fixture(scope="session")
def upsample():
    """y = ConvTranspose(x), open in batch and width: [N, 2, 5, W] to [N, 3, 10, 2 W]."""
    rng = np.random.default_rng(7)
    weights = rng.standard_normal([2, 3, 2, 2]).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    made = model(
        [node],
        {"x": (TensorProto.FLOAT, ["N", 2, 5, "W"])},
        {"y": (TensorProto.FLOAT, ["N", 3, 10, "V"])},
        {"w": weights},
    )

    def expected(x):
        y = np.einsum("nihw,iokl->nohkwl", x, weights)
        n, o, h, k, w, columns = y.shape
        return y.reshape(n, o, h * k, w * columns)

    return made, expected
