"""Models and compiled models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _native
from ._errors import ArgumentError
from ._report import Explanation, Report
from ._threads import default_threads
from ._tuning import Bar, Tuning

if TYPE_CHECKING:
    from ._arrays import Array

Shapes = Mapping[str, Sequence[int]]


class Port(NamedTuple):
    """An input or output of a model."""

    name: str
    """Its name in the model."""
    dtype: str | None
    """Its element type: `f32`, `i64`, `bool`, `str`, ..; None where the model does not say."""
    shape: tuple[int | str, ...] | None
    """Its extents: numbers, or names where the model leaves them open; None where the rank is open, too."""
    optional: bool = False
    """Whether it may be left out, because the model has a default for it."""


def _ports(ports: Iterable[tuple[str, str | None, list[str] | None, bool]]) -> list[Port]:
    def extent(text: str) -> int | str:
        if text.isdecimal():
            return int(text)
        # Names that are no words are quoted.
        is_name = len(text) > 1 and text.startswith('"') and text.endswith('"') and '"' not in text[1:-1]
        return text[1:-1] if is_name else text

    return [
        Port(name, dtype, None if shape is None else tuple(map(extent, shape)), optional)
        for name, dtype, shape, optional in ports
    ]


class Model:
    """A network as read from ONNX. Make one with :func:`load`. Models do not change, and can be pickled."""

    def __init__(self, source: str | bytes) -> None:
        self._native = (
            _native.Model.from_bytes(source) if isinstance(source, bytes) else _native.Model.from_path(source)
        )

    @property
    def inputs(self) -> list[Port]:
        """The inputs, in order, with those that may be left out."""
        return _ports(self._native.inputs())

    @property
    def outputs(self) -> list[Port]:
        """The outputs, in order."""
        return _ports(self._native.outputs())

    @property
    def name(self) -> str:
        """The name of the model's graph."""
        return self._native.name()

    @property
    def metadata(self) -> dict[str, str]:
        """What the model says of itself: its `metadata_props`, and its description as `doc_string`."""
        return self._native.metadata()

    def text(self) -> str:
        """The graph as text, a node a line, as it was read."""
        return self._native.to_text()

    def to_onnx(self) -> bytes:
        """The model as it was read, as an ONNX file that holds all weights."""
        return self._native.to_onnx()

    def compile(
        self,
        *,
        shapes: Shapes | None = None,
        threads: int | None = None,
        form: str = "auto",
        target: str = "host",
        fast_math: bool = True,
        deny_interpreted: bool = False,
        workspace_limit: int | None = None,
        tuning: Tuning | None = None,
    ) -> CompiledModel:
        """Compiles the model; for the shapes of its inputs where all are known or given, else for those of each call,
        when they are first seen.

        :param shapes: extents of inputs that the model leaves open, by name.
        :param threads: threads that share each layer, :func:`default_threads` of them by default. Results do not depend
            on it.
        :param form: of all transposed convolutions: `auto`, `scatter`, `zero-insert` or `sub-pixel`.
        :param target: processor: `host`, `x86-64-v3`, `x86-64-v4`, `aarch64`, ..; code for another than this machine's
            cannot run.
        :param fast_math: whether convolutions may be computed with fewer products (Winograd), which rounds otherwise.
        :param deny_interpreted: whether a step for which there is no machine code is an error; by default it is run by its
            definition, which is slow, and :attr:`CompiledModel.report` says why.
        :param workspace_limit: bytes that the network may take besides its weights, inputs and outputs; 1 GiB by default.
        :param tuning: what :meth:`tune` has measured.
        :raises ArgumentError: when an option is no value that is accepted.
        :raises TconvcError: when the shapes do not fit, or something cannot be compiled; names node and operator.
        """
        options = _options(shapes, threads, form, target, fast_math, workspace_limit, deny_interpreted)
        return CompiledModel(self, options, tuning)

    def tune(
        self,
        *,
        shapes: Shapes | None = None,
        threads: int | None = None,
        form: str = "auto",
        fast_math: bool = True,
        into: Tuning | None = None,
        progress: Callable[[int, int, str], object] | None = None,
    ) -> Tuning:
        """Measures forms and schedules of the convolutions on this machine, for :meth:`compile` with the same options. A layer
        takes a part of a second, or up to a minute where a run of it takes long. A signal, such as that of Ctrl-C, ends it within
        some runs of a layer; layers that were done stay in `into`.

        :param into: what was measured before, and is not measured again; what is found is added. New by default.
        :param progress: is called before each layer with the number of layers done, that of all, and the layer's name. By default
            there is a line on a terminal and in a notebook.
        :raises TconvcError: when extents are open, or something cannot be compiled.
        """
        found = Tuning() if into is None else into
        bar = Bar()
        try:
            self._native.tune(_options(shapes, threads, form, "host", fast_math), found._native, progress or bar)
        finally:
            bar.close()
        return found

    def explain(
        self,
        *,
        shapes: Shapes | None = None,
        threads: int | None = None,
        form: str = "auto",
        target: str = "host",
        fast_math: bool = True,
    ) -> Explanation:
        """For each transposed convolution: the forms considered, their costs, the choice, and why. Arguments are those of
        :meth:`compile`."""
        return Explanation(*self._native.explain(_options(shapes, threads, form, target, fast_math)))

    def export_onnx(self, *, shapes: Shapes | None = None, form: str = "auto", target: str = "host") -> bytes:
        """The network with its transposed convolutions rewritten, as an ONNX file that any runtime can run.

        :param shapes: extents of inputs that the model leaves open, by name; some forms need them.
        :param form: as in :meth:`compile`.
        :raises TconvcError: when the network holds something that ONNX cannot say.

        A layer that could not get its form is a warning of class :class:`UserWarning`.
        """
        made, warnings = self._native.export_onnx(_options(shapes, 1, form, target, True))
        if warnings:
            from warnings import warn

            for warning in warnings:
                warn(warning, stacklevel=2)
        return made

    def __reduce__(self) -> tuple[type[Model], tuple[bytes]]:
        return Model, (self.to_onnx(),)

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: object) -> Model:
        return self

    def __repr__(self) -> str:
        return f"<tconvc.Model {self.name!r}: {_names(self.inputs)} to {_names(self.outputs)}>"


def _names(ports: list[Port]) -> str:
    def extents(port: Port) -> str:
        return ".." if port.shape is None else ", ".join(map(str, port.shape))

    return ", ".join(f"{port.name} {port.dtype or '?'}[{extents(port)}]" for port in ports)


def _options(
    shapes: Shapes | None,
    threads: int | None,
    form: str,
    target: str,
    fast_math: bool,
    workspace_limit: int | None = None,
    deny_interpreted: bool = False,
) -> _native._Options:
    if threads is not None and threads < 1:
        raise ArgumentError(f"threads is {threads}; 1 and up are accepted")
    return {
        "shapes": {name: _extents(name, shape) for name, shape in (shapes or {}).items()},
        "threads": default_threads() if threads is None else threads,
        "form": form,
        "target": target,
        "fast_math": fast_math,
        "deny_interpreted": deny_interpreted,
        "workspace_limit": workspace_limit,
        "tuning": None,
    }


def _extents(name: str, shape: Sequence[int]) -> list[int]:
    try:
        # Through `index`, so that 2.5 is no extent, and one of NumPy's integers is.
        extents = [extent.__index__() for extent in shape]
    except (AttributeError, TypeError):
        raise ArgumentError(f"the shape of `{name}` is {shape!r}; a sequence of integers is accepted") from None
    if any(extent < 0 for extent in extents):
        raise ArgumentError(f"the shape of `{name}` is {extents}; extents are 0 and up")
    return extents


def _dict(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return mapping if isinstance(mapping, dict) else dict(mapping)


class CompiledModel:
    """A compiled network; safe to call from many threads at a time. Make one with :meth:`Model.compile`."""

    def __init__(self, model: Model, options: _native._Options, tuning: Tuning | None) -> None:
        self._model, self._options, self._tuning = model, options, tuning
        self._native = model._native.compile(self._all_options())
        self._outputs = [port[0] for port in self._native.outputs()]

    @property
    def model(self) -> Model:
        """What was compiled."""
        return self._model

    @property
    def inputs(self) -> list[Port]:
        """The inputs, in order; extents given to :meth:`Model.compile` are numbers."""
        return _ports(self._native.inputs())

    @property
    def outputs(self) -> list[Port]:
        """The outputs, in order."""
        return _ports(self._native.outputs())

    @property
    def threads(self) -> int:
        """Threads that share each layer."""
        return self._options["threads"]

    @property
    def report(self) -> Report:
        """What was compiled, layer by layer: of the shapes given to :meth:`Model.compile`, else of those of the last call;
        empty before the first."""
        return Report(*self._native.report())

    def explain(self) -> Explanation:
        """As :meth:`Model.explain`, for what this was compiled for."""
        return Explanation(*self._model._native.explain(self._all_options()))

    def _all_options(self) -> _native._Options:
        return self._options | {"tuning": None if self._tuning is None else self._tuning._native}

    def session(self, *, threads: int | None = None) -> Session:
        """A workspace of its own, for many runs from one place.

        :param threads: so many threads of its own; by default it shares those of the compiled model, which serve one call at
            a time: calls that come meanwhile run on their caller's thread.
        """
        return Session(self, threads)

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Runs on arrays in the model's order, or by name. One output comes alone, several as a tuple. See :meth:`run`."""
        return self._native.call(arrays, named)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Runs on arrays by name; gives the outputs by name.

        Contiguous arrays are read where they lie, strided ones are copied. Outputs are new NumPy arrays, which begin with a
        cache line, or those in `out`, which are written in place: contiguous, of the output's type and shape, and no other
        array's memory. Other Python threads run meanwhile; they must not write to the inputs, or use the outputs.

        :raises ArgumentError: when an input is missing, unknown, or of another type or shape than the model takes; or an array
            in `out` does not fit.
        :raises TconvcError: when shapes that were not seen before cannot be compiled.
        """
        arrays = self._native.run(_dict(inputs), None if out is None else _dict(out))
        return dict(zip(self._outputs, arrays, strict=True))

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __repr__(self) -> str:
        return f"<tconvc.CompiledModel {self._model.name!r}: {_names(self.inputs)} to {_names(self.outputs)}>"

    def __reduce__(self) -> tuple[type[CompiledModel], tuple[Model, _native._Options, Tuning | None]]:
        # Compiled again where it arrives, for that machine.
        return CompiledModel, (self._model, self._options, self._tuning)

    def __copy__(self) -> CompiledModel:
        return self

    def __deepcopy__(self, memo: object) -> CompiledModel:
        # Nothing in it changes that a caller could see.
        return self


class Session:
    """A workspace for many runs of one compiled network. Make one with :meth:`CompiledModel.session`. Calls from several
    threads at a time are safe; each takes a workspace."""

    def __init__(self, compiled: CompiledModel, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ArgumentError(f"threads is {threads}; 1 and up are accepted")
        self._compiled, self._threads = compiled, threads
        self._native = compiled._native.session(threads)

    @property
    def compiled(self) -> CompiledModel:
        """What it runs."""
        return self._compiled

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """As :meth:`CompiledModel.__call__`."""
        return self._native.call(arrays, named)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """As :meth:`CompiledModel.run`."""
        arrays = self._native.run(_dict(inputs), None if out is None else _dict(out))
        return dict(zip(self._compiled._outputs, arrays, strict=True))

    def __reduce__(self) -> tuple[type[Session], tuple[CompiledModel, int | None]]:
        return Session, (self._compiled, self._threads)

    def __copy__(self) -> Session:
        return Session(self._compiled, self._threads)

    def __deepcopy__(self, memo: object) -> Session:
        return Session(self._compiled, self._threads)


def load(source: str | os.PathLike[str] | bytes | Any) -> Model:
    """Reads a model: a path, the bytes of a file, or an `onnx.ModelProto`.

    :raises TconvcError: when it cannot be read, or is no model that this program understands.
    :raises ArgumentError: when it is nothing of the kind.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Model(bytes(source))
    if hasattr(source, "SerializeToString"):
        return Model(bytes(source.SerializeToString()))
    if isinstance(source, str | os.PathLike):
        return Model(os.fspath(source))
    raise ArgumentError(
        f"a model is a path, the bytes of a file, or an onnx.ModelProto; {type(source).__name__} is given"
    )


def export_onnx(
    model: Model | str | os.PathLike[str] | bytes | Any, *, shapes: Shapes | None = None, form: str = "auto"
) -> bytes:
    """:meth:`Model.export_onnx` of a model, or of what :func:`load` takes."""
    return (model if isinstance(model, Model) else load(model)).export_onnx(shapes=shapes, form=form)
