"""A compiler for neural networks that up-sample: ONNX in, machine code for the shapes at hand out.

>>> import numpy as np, tconvc
>>> model = tconvc.load("models/fsrcnn_x3.onnx")
>>> compiled = model.compile(shapes={"low": [1, 1, 96, 96]})
>>> compiled(np.zeros([1, 1, 96, 96], np.float32)).shape
(1, 1, 288, 288)

Code that says `import onnxruntime as ort` runs with `import tconvc as ort` for inference on the CPU; see
:class:`InferenceSession`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._errors import ArgumentError, TconvcError
from ._model import CompiledModel, Model, Port, Session, export_onnx, load
from ._native import __version__, after_fork_in_child, after_fork_in_parent, before_fork
from ._ort_values import OrtValue
from ._proto import ModelMetadata
from ._report import Explanation, Report
from ._threads import default_threads
from ._torch import from_torch
from ._tuning import Tuning
from ._verify import Verification, verify
from .onnxruntime import (
    ExecutionMode,
    GraphOptimizationLevel,
    InferenceSession,
    IOBinding,
    NodeArg,
    RunOptions,
    SessionOptions,
    get_all_providers,
    get_available_providers,
    get_device,
    set_default_logger_severity,
    set_seed,
)

__all__ = [
    "ArgumentError",
    "CompiledModel",
    "ExecutionMode",
    "Explanation",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "Model",
    "ModelMetadata",
    "NodeArg",
    "OrtValue",
    "Port",
    "Report",
    "RunOptions",
    "Session",
    "SessionOptions",
    "TconvcError",
    "Tuning",
    "Verification",
    "__version__",
    "default_threads",
    "export_onnx",
    "from_torch",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "load",
    "set_default_logger_severity",
    "set_seed",
    "verify",
]


def _missing(name: str) -> Any:
    raise AttributeError(f"tconvc has no `{name}`, neither of its own nor in the place of onnxruntime's")


if not TYPE_CHECKING:
    __getattr__ = _missing


if hasattr(os, "register_at_fork"):
    # A fork waits for the calls that run, and the child, which has none of its parent's threads, starts new ones.
    os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
