"""The part of onnxruntime's Python interface that CPU inference takes: `import tconvc as ort`.

What is not here is refused by name; nothing is ignored in silence that would change a result.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ._errors import ArgumentError, TconvcError
from ._model import Model, Port, load
from ._ort_values import OrtValue
from ._proto import About, Extents, ModelMetadata, about

if TYPE_CHECKING:
    from ._arrays import Array

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
    "c64": "complex64",
    "c128": "complex128",
    "str": "string",
    "f8e4m3fn": "float8e4m3fn",
    "f8e4m3fnuz": "float8e4m3fnuz",
    "f8e5m2": "float8e5m2",
    "f8e5m2fnuz": "float8e5m2fnuz",
    "i4": "int4",
    "u4": "uint4",
}


class GraphOptimizationLevel(enum.Enum):
    """How much a model is rewritten. Rewrites never change a result here, and all are always made."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.Enum):
    """Whether layers run side by side. They run one after the other here, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


def get_available_providers() -> list[str]:
    """There is one: the CPU."""
    return [_PROVIDER]


def get_all_providers() -> list[str]:
    """There is one: the CPU."""
    return [_PROVIDER]


def get_device() -> str:
    """`CPU`."""
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Taken and without effect: nothing is logged."""


def set_seed(seed: int) -> None:
    """Taken and without effect: random operators have the seed of their node."""


class NodeArg:
    """An input or output: `name`, `type` such as `tensor(float)`, and `shape`, whose extents are numbers, names, or None where
    the model has neither."""

    def __init__(self, port: Port, declared: Extents) -> None:
        self.name = port.name
        self.type = f"tensor({_TYPES.get(port.dtype or '', port.dtype or 'undefined')})"
        shape = port.shape or ()
        if len(declared) != len(shape):
            declared = [None] * len(shape)
        # Names that inference made up are none of the model's.
        self.shape: list[int | str | None] = [
            extent if isinstance(extent, int) else said for extent, said in zip(shape, declared, strict=True)
        ]

    def __repr__(self) -> str:
        return f"NodeArg(name='{self.name}', type='{self.type}', shape={self.shape})"


class _Options:
    """Named values; any other attribute is refused."""

    # What may be set to anything, because results do not depend on it.
    _free: ClassVar[dict[str, Any]] = {}
    # What may only have the value that it has.
    _fixed: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        for name, value in (self._free | self._fixed).items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if name in self._fixed and value != self._fixed[name]:
            raise ArgumentError(f"{kind}.{name} = {value!r} is not supported; accepted is {self._fixed[name]!r}")
        if name not in self._free and name not in self._fixed:
            raise AttributeError(f"{kind}.{name} is not supported; accepted are {', '.join(self._free)}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__}.{name} is not supported")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), dict(self.__dict__))


def _restored(kind: type[_Options], values: dict[str, Any]) -> _Options:
    options = kind()
    options.__dict__.update(values)
    return options


class SessionOptions(_Options):
    """The options of a session. `intra_op_num_threads` is the number of threads, 0 for :func:`tconvc.default_threads`; those about
    memory, order and optimisation are taken and have no effect; any other is refused."""

    _free: ClassVar[dict[str, Any]] = {
        "intra_op_num_threads": 0,
        "inter_op_num_threads": 0,
        "graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_ALL,
        "execution_mode": ExecutionMode.ORT_SEQUENTIAL,
        "enable_cpu_mem_arena": True,
        "enable_mem_pattern": True,
        "enable_mem_reuse": True,
        "use_deterministic_compute": False,
        "log_severity_level": 2,
        "log_verbosity_level": 0,
        "logid": "",
    }
    _fixed: ClassVar[dict[str, Any]] = {
        "enable_profiling": False,
        "optimized_model_filepath": "",
        "use_per_session_threads": True,
    }

    intra_op_num_threads: int

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "_extents", {})
        object.__setattr__(self, "_entries", {})

    def add_free_dimension_override_by_name(self, name: str, extent: int) -> None:
        """Fixes an extent that the model leaves open under this name."""
        self.__dict__["_extents"][name] = extent

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Entries about threads that spin and about denormal numbers as the processor has them are taken and have no effect;
        others are refused."""
        harmless = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning", "session.dynamic_block_base")
        if key not in harmless and (key, value) != ("session.set_denormal_as_zero", "0"):
            raise ArgumentError(f"the session config entry `{key}` = `{value}` is not supported")
        self.__dict__["_entries"][key] = value

    def get_session_config_entry(self, key: str) -> str:
        """An entry that was added."""
        try:
            entry: str = self.__dict__["_entries"][key]
        except KeyError:
            raise ArgumentError(f"there is no session config entry `{key}`") from None
        return entry


class RunOptions(_Options):
    """The options of a run; those that would change one are refused."""

    _free: ClassVar[dict[str, Any]] = {
        "log_severity_level": 2,
        "log_verbosity_level": 0,
        "logid": "",
        "only_execute_path_to_fetches": False,
    }
    _fixed: ClassVar[dict[str, Any]] = {"terminate": False}


class InferenceSession:
    """A model, ready to run, with onnxruntime's interface. Can be pickled."""

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        """Reads and compiles a model; for open shapes, code is made when they are first seen.

        :raises ArgumentError: when something is asked for that is not here; it is named.
        :raises TconvcError: when the model cannot be read or compiled.
        """
        for name in others:
            raise ArgumentError(f"InferenceSession takes no `{name}` here")
        self.set_providers(providers, provider_options)
        options = SessionOptions() if sess_options is None else sess_options
        if not isinstance(options, SessionOptions):
            raise ArgumentError(f"sess_options are tconvc.SessionOptions; {type(options).__name__} is given")
        self._start(load(path_or_bytes), options, about(path_or_bytes))

    def _start(self, model: Model, options: SessionOptions, told: About) -> None:
        extents: dict[str, int] = options.__dict__["_extents"]
        shapes = {}
        for port in model.inputs:
            if port.shape is not None and any(extent in extents for extent in port.shape):
                shape = [extents.get(extent, extent) if isinstance(extent, str) else extent for extent in port.shape]
                still_open = [extent for extent in shape if isinstance(extent, str)]
                if still_open:
                    raise ArgumentError(
                        f"input `{port.name}` has the extent {still_open[0]}, too; an override for all of its extents is accepted"
                    )
                shapes[port.name] = [int(extent) for extent in shape]
        self._options, self._about = options, told
        self._compiled = model.compile(threads=options.intra_op_num_threads or None, shapes=shapes)
        inputs = [(port.optional, NodeArg(port, told.extents.get(port.name, []))) for port in self._compiled.inputs]
        self._inputs = [port for optional, port in inputs if not optional]
        self._overridable = [port for optional, port in inputs if optional]
        self._outputs = [NodeArg(port, told.extents.get(port.name, [])) for port in self._compiled.outputs]

    def __reduce__(self) -> tuple[Any, ...]:
        return _session, (self._compiled.model, self._options, self._about)

    def __deepcopy__(self, memo: object) -> InferenceSession:
        return _session(self._compiled.model, self._options, self._about)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that have to be given, in order."""
        return self._inputs

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that have a default."""
        return self._overridable

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in order."""
        return self._outputs

    def get_modelmeta(self) -> ModelMetadata:
        """What the model's file says of itself."""
        return self._about.metadata

    def get_providers(self) -> list[str]:
        """There is one: the CPU."""
        return [_PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """There are none."""
        return {_PROVIDER: {}}

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Refuses every provider but the CPU, and options."""
        for provider in providers or ():
            name, options = (provider, {}) if isinstance(provider, str) else provider
            if name != _PROVIDER:
                raise ArgumentError(f"the provider `{name}` is not here; accepted is `{_PROVIDER}`")
            _refuse_options(options)
        for options in provider_options or ():
            _refuse_options(options)

    def get_session_options(self) -> SessionOptions:
        """What the session was made with."""
        return self._options

    def disable_fallback(self) -> None:
        """Nothing falls back in any case."""

    def enable_fallback(self) -> None:
        """Nothing falls back: there is one provider. Taken, because code calls it by habit."""

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Array]:
        """Runs on arrays by name; gives the named outputs in that order, or all of them.

        :raises ArgumentError: which is a ValueError, too: when a name is unknown, an input is missing, or of another type or shape.
        """
        _check_run_options(run_options)
        names = [output.name for output in self._outputs]
        chosen = list(output_names) if output_names else names
        for name in chosen:
            if name not in names:
                raise ArgumentError(f"the model has no output `{name}`; its outputs are {_listing(names)}")
        feed = {name: value._array if isinstance(value, OrtValue) else value for name, value in input_feed.items()}
        outputs = self._compiled.run(feed)
        return [outputs[name] for name in chosen]

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As :meth:`run`, on and to :class:`OrtValue`."""
        return [OrtValue(array) for array in self.run(output_names, input_dict_ort_values, run_options)]

    def io_binding(self) -> IOBinding:
        """Arrays that are bound once and used by many runs."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Runs on what is bound."""
        _check_run_options(run_options)
        iobinding._run()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"InferenceSession.{name} is not supported")


def _session(model: Model, options: SessionOptions, told: About) -> InferenceSession:
    session = InferenceSession.__new__(InferenceSession)
    session._start(model, options, told)
    return session


def _refuse_options(options: Mapping[str, Any]) -> None:
    # The arena is no option that a result depends on.
    for name in options:
        if name not in ("arena_extend_strategy", "use_arena"):
            raise ArgumentError(f"{_PROVIDER} takes no option `{name}` here")


def _check_run_options(options: object) -> None:
    if options is not None and not isinstance(options, RunOptions):
        raise ArgumentError(f"run options are tconvc.RunOptions or None; {type(options).__name__} is given")


def _listing(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class IOBinding:
    """Arrays bound to inputs and outputs of a session, in this machine's memory."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Array | None] = {}
        self._found: dict[str, Array] = {}

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Binds an array to an input; runs read what it holds then."""
        self._known(name, [*self._session._inputs, *self._session._overridable], "input")
        self._inputs[name] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Binds an input."""
        self.bind_cpu_input(name, ortvalue._array)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Binds memory of the caller's to an input: `shape` elements at the address `buffer_ptr`, which stay there."""
        self.bind_cpu_input(name, OrtValue._at(device_type, element_type, shape, buffer_ptr))

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Asks for an output, in new memory or in that at an address."""
        self._known(name, self._session._outputs, "output")
        if buffer_ptr is not None and (element_type is None or shape is None):
            raise ArgumentError(f"output `{name}`: memory at an address needs element_type and shape, too")
        OrtValue._check_device(device_type)
        self._outputs[name] = (
            None if buffer_ptr is None or shape is None else OrtValue._at(device_type, element_type, shape, buffer_ptr)
        )

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Binds an output to memory, which runs write."""
        self._known(name, self._session._outputs, "output")
        self._outputs[name] = ortvalue._array

    def get_outputs(self) -> list[OrtValue]:
        """The outputs that were asked for, in that order, of the last run."""
        return [OrtValue(array) for array in self.copy_outputs_to_cpu()]

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The outputs that were asked for, in that order, of the last run."""
        if any(name not in self._found for name in self._outputs):
            raise TconvcError("run_with_iobinding comes first")
        return [self._found[name] for name in self._outputs]

    def synchronize_inputs(self) -> None:
        """There is one memory."""

    def synchronize_outputs(self) -> None:
        """There is one memory."""

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs."""
        self._outputs.clear()
        self._found.clear()

    def _known(self, name: str, ports: Sequence[NodeArg], kind: str) -> None:
        names = [port.name for port in ports]
        if name not in names:
            raise ArgumentError(f"the model has no {kind} `{name}`; its {kind}s are {_listing(names)}")

    def _run(self) -> None:
        bound = {name: array for name, array in self._outputs.items() if array is not None}
        self._found = self._session._compiled.run(self._inputs, out=bound)
