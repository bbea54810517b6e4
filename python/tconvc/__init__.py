"""A compiler for neural networks that up-sample: ONNX in, machine code for the shapes at hand out.

>>> import numpy as np, tconvc
>>> model = tconvc.load("models/fsrcnn_x3.onnx")                       # doctest: +SKIP
>>> compiled = model.compile(shapes={"low": [1, 1, 96, 96]})           # doctest: +SKIP
>>> high = compiled(np.zeros([1, 1, 96, 96], np.float32))              # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import Any

from ._model import CompiledModel, Explanation, Model, Port, Report, Session, default_threads
from ._native import TconvcError, __version__, count_fork
from .onnxruntime import InferenceSession, SessionOptions, get_available_providers, get_device

__all__ = [
    "CompiledModel",
    "Explanation",
    "InferenceSession",
    "Model",
    "Port",
    "Report",
    "Session",
    "SessionOptions",
    "TconvcError",
    "__version__",
    "default_threads",
    "export_onnx",
    "from_torch",
    "get_available_providers",
    "get_device",
    "load",
]


def load(source: str | os.PathLike[str] | bytes | Any) -> Model:
    """Reads a model: a path, the bytes of a file, or an `onnx.ModelProto`.

    :raises TconvcError: when it is no model that this program understands.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Model(bytes(source))
    if hasattr(source, "SerializeToString"):
        return Model(bytes(source.SerializeToString()))
    return Model(os.fspath(source))


def export_onnx(model: Model | str | os.PathLike[str] | bytes | Any, form: str = "auto") -> bytes:
    """The network with its transposed convolutions rewritten, as ONNX that any runtime can run."""
    return (model if isinstance(model, Model) else load(model)).export_onnx(form=form)


def from_torch(module: Any, example_inputs: Any, **options: Any) -> Model:
    """A PyTorch module by way of ONNX, in memory. `options` go to `torch.onnx.export`."""
    try:
        import torch
    except ImportError:
        raise TconvcError("from_torch needs the package torch") from None
    import io

    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    file = io.BytesIO()
    torch.onnx.export(module, inputs, file, **({"dynamo": False} | options))
    return load(file.getvalue())


if hasattr(os, "register_at_fork"):
    # A child has none of the threads of its parent: they start anew with its first run.
    os.register_at_fork(after_in_child=count_fork)
