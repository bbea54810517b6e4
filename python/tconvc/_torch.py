"""Models from PyTorch."""

from __future__ import annotations

import importlib
import io
from typing import Any

from ._errors import TconvcError
from ._model import Model, load


def from_torch(module: Any, example_inputs: Any, **options: Any) -> Model:
    """A PyTorch module as a model, by way of ONNX in memory.

    :param module: a `torch.nn.Module`, in the mode that it is to run in (`module.eval()`).
    :param example_inputs: a tensor, or a tuple of tensors, that it is called with once.
    :param options: of `torch.onnx.export`, such as `input_names=`, `dynamic_axes=`, `opset_version=`. Its older exporter is taken
        unless `dynamo=True` is among them, which needs the package onnxscript.
    :raises TconvcError: when there is no PyTorch.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise TconvcError("from_torch needs the package torch") from None
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    options.setdefault("dynamo", False)
    if options["dynamo"]:
        program: Any = torch.onnx.export(module, inputs, **options)
        return load(program.model_proto)
    file = io.BytesIO()
    torch.onnx.export(module, inputs, file, **options)
    return load(file.getvalue())
