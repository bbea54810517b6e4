"""Models and compiled models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from . import _arrays, _native
from ._arrays import Array
from ._native import TconvcError

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Port:
    """An input or output: its name, element type (`f32`, ..), and extents.

    Extents are numbers, or names where the model leaves them open; None where the rank is open, too. An
    optional input has a default, which the caller may override.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str, ...] | None
    optional: bool = False


def _ports(ports: Iterable[tuple[str, str | None, list[str] | None, bool]]) -> list[Port]:
    def extent(text: str) -> int | str:
        return int(text) if text.isdigit() else text

    return [
        Port(name, dtype, None if shape is None else tuple(map(extent, shape)), optional)
        for name, dtype, shape, optional in ports
    ]


def default_threads() -> int:
    """Threads that a compiled model takes unless it is told: `TCONVC_NUM_THREADS`, or the least of
    `OMP_NUM_THREADS`, the processors this process may use, and the quota of its control group."""
    own = os.environ.get("TCONVC_NUM_THREADS", "")
    if own.isdigit() and int(own) > 0:
        return int(own)
    most = _native.available_threads()
    omp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(most, int(omp)) if omp.isdigit() and int(omp) > 0 else most


class Model:
    """A network as read from ONNX. Make one with :func:`load`."""

    def __init__(self, source: str | bytes) -> None:
        self._source = source
        self._native = (
            _native.Model.from_bytes(source) if isinstance(source, bytes) else _native.Model.from_path(source)
        )

    @property
    def inputs(self) -> list[Port]:
        """The inputs, in order."""
        return _ports(self._native.inputs())

    @property
    def outputs(self) -> list[Port]:
        """The outputs, in order."""
        return _ports(self._native.outputs())

    def text(self) -> str:
        """The graph as text, as it was read."""
        return self._native.to_text()

    def compile(
        self,
        *,
        shapes: Shapes | None = None,
        threads: int | None = None,
        form: str = "auto",
        target: str = "host",
        fast_math: bool = True,
        workspace_limit: int | None = None,
    ) -> CompiledModel:
        """Compiles the model; for the shapes of its inputs where all are known or given, else for those of
        each call, when they are first seen.

        :param shapes: extents of inputs that the model leaves open, by name.
        :param threads: threads that share each layer; see :func:`default_threads`. Results do not depend on it.
        :param form: of all transposed convolutions: `auto`, `scatter`, `zero-insert` or `sub-pixel`.
        :param target: processor: `host`, `x86-64-v3`, `x86-64-v4`, `aarch64`, ..
        :param fast_math: whether convolutions may be computed with fewer products, which rounds otherwise.
        :param workspace_limit: bytes of workspace that the network may take.
        :raises TconvcError: when the model cannot be compiled; names node and operator.
        """
        options = _options(shapes, threads, form, target, fast_math, workspace_limit)
        return CompiledModel(self, options)

    def explain(
        self,
        *,
        shapes: Shapes | None = None,
        threads: int | None = None,
        form: str = "auto",
        target: str = "host",
    ) -> Explanation:
        """For each transposed convolution: forms considered, their costs, the choice, and why."""
        text, data = self._native.explain(_options(shapes, threads, form, target, True, None))
        return Explanation(text, json.loads(data))

    def export_onnx(self, *, shapes: Shapes | None = None, form: str = "auto") -> bytes:
        """The rewritten network as ONNX that any runtime can run."""
        return bytes(self._native.export_onnx(_options(shapes, 1, form, "host", True, None)))

    def __reduce__(self) -> tuple[type[Model], tuple[str | bytes]]:
        return Model, (self._source,)

    def __deepcopy__(self, memo: object) -> Model:
        # Models do not change.
        return self

    def __repr__(self) -> str:
        names = ", ".join(port.name for port in self.inputs)
        return f"<tconvc.Model of {names} to {', '.join(port.name for port in self.outputs)}>"


def _options(
    shapes: Shapes | None,
    threads: int | None,
    form: str,
    target: str,
    fast_math: bool,
    workspace_limit: int | None,
) -> _native._Options:
    if threads is not None and threads < 1:
        raise TconvcError(f"threads is {threads}; 1 and up are accepted")
    return {
        "shapes": {name: [int(extent) for extent in shape] for name, shape in (shapes or {}).items()},
        "threads": default_threads() if threads is None else threads,
        "form": form,
        "target": target,
        "fast_math": fast_math,
        "workspace_limit": workspace_limit,
    }


class _Runs:
    """What compiled models and sessions share: calls by name."""

    _native: _native.Compiled | _native.Session
    _names: list[str]

    def __call__(self, *arrays: Any, **named: Any) -> Array | tuple[Array, ...]:
        """Runs on arrays in the model's order or by name. One output comes alone, several as a tuple."""
        if len(arrays) > len(self._names):
            raise TconvcError(f"the model has {len(self._names)} inputs, {len(arrays)} are given")
        feed = dict(zip(self._names, arrays, strict=False))
        for name in named:
            if name in feed:
                raise TconvcError(f"input `{name}` is given twice")
        outputs = tuple(self.run(feed | named).values())
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Runs on arrays by name; gives the outputs by name.

        Contiguous arrays are read where they lie, strided ones are copied. Outputs are new arrays, or those in
        `out`, which has to name all of them. Other Python threads run meanwhile; they must not write to the arrays.

        :raises TconvcError: when an input is missing, unknown, or of another type or shape than the model takes.
        """
        feed = [(name, _arrays.given(name, value)) for name, value in inputs.items()]
        if out is None:
            arrays = self._native.run(feed, _arrays.allocate)
            return dict(zip(self._outputs(), arrays, strict=True))
        names = self._outputs()
        unknown = [name for name in out if name not in names]
        missing = [name for name in names if name not in out]
        if unknown or missing:
            wrong = f"the model has no output `{unknown[0]}`" if unknown else f"output `{missing[0]}` is missing"
            raise TconvcError(f"{wrong}; its outputs are {', '.join(f'`{name}`' for name in names)}")
        self._native.run_into(feed, [_arrays.taken(name, out[name]) for name in names])
        return {name: out[name] for name in names}

    def _outputs(self) -> list[str]:
        raise NotImplementedError


class CompiledModel(_Runs):
    """A compiled network; safe to call from many threads. Make one with :meth:`Model.compile`."""

    def __init__(self, model: Model, options: _native._Options) -> None:
        self._model, self._options = model, options
        self._native: _native.Compiled = model._native.compile(options)
        self._names = [port.name for port in self.inputs]
        self._output_names = [port.name for port in self.outputs]

    @property
    def inputs(self) -> list[Port]:
        """The inputs, in order; extents given to :meth:`Model.compile` are numbers."""
        return _ports(self._native.inputs())

    @property
    def outputs(self) -> list[Port]:
        """The outputs, in order."""
        return _ports(self._native.outputs())

    @property
    def report(self) -> Report:
        """What was compiled, layer by layer; of the last shapes where several were seen."""
        text, data = self._native.report()
        return Report(text, json.loads(data))

    def explain(self) -> Explanation:
        """As :meth:`Model.explain`, for what this was compiled for."""
        text, data = self._model._native.explain(self._options)
        return Explanation(text, json.loads(data))

    def session(self) -> Session:
        """Workspace and threads of its own, for many runs from one place."""
        return Session(self)

    def _outputs(self) -> list[str]:
        return self._output_names

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __reduce__(self) -> tuple[type[CompiledModel], tuple[Model, _native._Options]]:
        return CompiledModel, (self._model, self._options)

    def __deepcopy__(self, memo: object) -> CompiledModel:
        # Compiled models do not change.
        return self


class Session(_Runs):
    """Many runs of one compiled network, one at a time. Make one with :meth:`CompiledModel.session`."""

    def __init__(self, compiled: CompiledModel) -> None:
        self.model = compiled
        self._native: _native.Session = compiled._native.session()
        self._names = compiled._names

    def _outputs(self) -> list[str]:
        return self.model._output_names

    def __reduce__(self) -> tuple[type[Session], tuple[CompiledModel]]:
        return Session, (self.model,)

    def __deepcopy__(self, memo: object) -> Session:
        return Session(self.model)


class _Told:
    """Something that prints as text, has the same as data, and is a table in a notebook."""

    def __init__(self, text: str, data: dict[str, Any]) -> None:
        self.data = data
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text


class Report(_Told):
    """What was compiled. `data` is what `tconvc compile` would print as JSON."""

    def _repr_html_(self) -> str:
        columns = ["node", "geometry", "form", "reason", "kernel", "schedule", "predicted_us"]
        sizes = ", ".join(f"{key} {self.data[key]:,}" for key in ("code_bytes", "weight_bytes", "workspace_bytes"))
        caption = f"{self.data['target']}, {self.data['threads']} thread(s), {sizes}"
        return _table(caption, columns, self.data["layers"])


class Explanation(_Told):
    """Why each transposed convolution is computed as it is. `data` is what `tconvc explain --json` prints."""

    def _repr_html_(self) -> str:
        columns = ["node", "geometry", "chosen", "reason", "checkerboard"]
        return _table(f"{self.data['target']}, {self.data['threads']} thread(s)", columns, self.data["layers"])


def _table(caption: str, columns: list[str], rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = f"{value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
        return f"<td>{escape(text)}</td>"

    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(cell(row.get(column)) for column in columns) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
