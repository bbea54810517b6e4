"""The part of onnxruntime's Python interface that CPU inference takes: `import tconvc as ort`.

What is not here is refused by name; nothing is ignored in silence that would change a result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _arrays
from ._arrays import Array
from ._model import CompiledModel, Model, Port
from ._native import TconvcError

_PROVIDER = "CPUExecutionProvider"
_TYPES = {
    "f32": "float",
    "f64": "double",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
    "str": "string",
}


def get_available_providers() -> list[str]:
    """There is one: the CPU."""
    return [_PROVIDER]


def get_device() -> str:
    """`CPU`."""
    return "CPU"


class NodeArg:
    """An input or output, as onnxruntime describes it."""

    def __init__(self, port: Port) -> None:
        self.name = port.name
        self.type = f"tensor({_TYPES.get(port.dtype or '', port.dtype)})"
        shape = port.shape or ()
        self.shape: list[int | str | None] = [None if extent == "?" else extent for extent in shape]

    def __repr__(self) -> str:
        return f"NodeArg(name='{self.name}', type='{self.type}', shape={self.shape})"


class SessionOptions:
    """The options that mean something here; any other attribute is refused."""

    __slots__ = ("enable_cpu_mem_arena", "enable_mem_pattern", "graph_optimization_level", "inter_op_num_threads",
                 "intra_op_num_threads", "log_severity_level")  # fmt: skip

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.inter_op_num_threads = 0
        # Taken and without effect: memory is always planned, and rewrites never change a result.
        self.enable_cpu_mem_arena = True
        self.enable_mem_pattern = True
        self.graph_optimization_level: Any = None
        self.log_severity_level = 2


class InferenceSession:
    """A model, ready to run, with onnxruntime's interface."""

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for provider in providers or ():
            name = provider if isinstance(provider, str) else provider[0]
            if name != _PROVIDER:
                raise TconvcError(f"provider `{name}` is not here; accepted is {_PROVIDER}")
        if provider_options and any(provider_options):
            raise TconvcError(f"{_PROVIDER} takes no options here")
        self._options = sess_options or SessionOptions()
        threads = self._options.intra_op_num_threads or None
        source = path_or_bytes if isinstance(path_or_bytes, bytes) else os.fspath(path_or_bytes)
        self._compiled: CompiledModel = Model(source).compile(threads=threads)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that have to be given, in order."""
        return [NodeArg(port) for port in self._compiled.inputs if not port.optional]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that have a default."""
        return [NodeArg(port) for port in self._compiled.inputs if port.optional]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in order."""
        return [NodeArg(port) for port in self._compiled.outputs]

    def get_providers(self) -> list[str]:
        """There is one: the CPU."""
        return [_PROVIDER]

    def get_session_options(self) -> SessionOptions:
        """What the session was made with."""
        return self._options

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: None = None
    ) -> list[Array]:
        """Runs on arrays by name; gives the named outputs in that order, or all of them."""
        if run_options is not None:
            raise TconvcError("run options are not supported; accepted is None")
        outputs = self._compiled.run(input_feed)
        names = list(outputs) if not output_names else output_names
        for name in names:
            if name not in outputs:
                known = ", ".join(f"`{known}`" for known in outputs)
                raise TconvcError(f"the model has no output `{name}`; its outputs are {known}")
        return [outputs[name] for name in names]

    def io_binding(self) -> IOBinding:
        """Arrays that are bound once and used by many runs."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: None = None) -> None:
        """Runs on what is bound."""
        if run_options is not None:
            raise TconvcError("run options are not supported; accepted is None")
        iobinding._run()


class IOBinding:
    """Arrays bound to inputs and outputs, in this machine's memory."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Array | None] = {}
        self._found: dict[str, Array] = {}

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Binds an array to an input."""
        self._inputs[name] = arr_on_cpu

    def bind_output(self, name: str, device_type: str = "cpu") -> None:
        """Asks for an output in new memory."""
        if device_type != "cpu":
            raise TconvcError(f"device `{device_type}` is not here; accepted is cpu")
        self._outputs[name] = None

    def bind_cpu_output(self, name: str, arr_on_cpu: Array) -> None:
        """Binds an output to an array, which runs write."""
        self._outputs[name] = arr_on_cpu

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The outputs that were asked for, in that order."""
        return [self._found[name] for name in self._outputs]

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs."""
        self._outputs.clear()

    def _run(self) -> None:
        names = [port.name for port in self._session._compiled.outputs]
        bound = {name: array for name, array in self._outputs.items() if array is not None}
        if bound and set(bound) == set(names):
            self._found = self._session._compiled.run(self._inputs, out=bound)
            return
        self._found = self._session._compiled.run(self._inputs)
        for name, array in bound.items():
            if name not in self._found:
                raise TconvcError(f"the model has no output `{name}`")
            _arrays.taken(name, array)
            np.copyto(array, self._found[name], casting="no")
            self._found[name] = array
