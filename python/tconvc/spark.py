"""Models over a cluster with Spark.

>>> import tconvc.spark
>>> results = tconvc.spark.predict(frame, "model.onnx", columns={"mel": "x"}, shapes={"mel": [80, -1]})

An array is a column of `array<float>` (or of other numbers), flat, with its extents in `shapes`, of which one may be -1; or a
`struct<shape: array<int>, data: array<float>>`, which is what outputs are.

Needs the package pyspark: `pip install tconvc[spark]`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._errors import ArgumentError
from ._model import CompiledModel, Model, Port, load
from ._rows import Rows, compiled_once

if TYPE_CHECKING:
    from ._arrays import Array

ERROR = "error"
"""The column that says what went wrong with a row; null where nothing did."""

# Spark's types of elements; those of less than a word are widened, because Spark has no others.
_TYPES = {
    "f32": "float", "f16": "float", "bf16": "float", "f64": "double",
    "i8": "tinyint", "u8": "smallint", "i16": "smallint", "u16": "int", "i32": "int", "u32": "bigint", "i64": "bigint",
    "bool": "boolean", "str": "string",
}  # fmt: skip
_ARROW = {
    "float": "float32", "double": "float64", "tinyint": "int8", "smallint": "int16", "int": "int32", "bigint": "int64",
    "boolean": "bool", "string": "object",
}  # fmt: skip

# Compiled models of this worker, by what they were made of: made for the first batch, and kept for the others.
_KEPT: dict[str, Rows] = {}


class _Udf:
    """What `mapInArrow` calls in each worker."""

    def __init__(self, key: str, pickled: Any, columns: Mapping[str, str] | None, shapes: Mapping[str, Sequence[int]],
                 names: Mapping[str, str], kinds: Mapping[str, str], most: int, options: Mapping[str, Any]) -> None:  # fmt: skip
        self._key, self._pickled, self._columns, self._shapes = key, pickled, columns, dict(shapes)
        self._names, self._kinds, self._most, self._options = dict(names), dict(kinds), most, dict(options)

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Record batches with the model's outputs."""
        rows = _KEPT.get(self._key)
        if rows is None:
            pickled = self._pickled if isinstance(self._pickled, bytes) else self._pickled.value
            compiled = compiled_once(pickle.loads(pickled), 1, self._options)
            rows = _KEPT[self._key] = Rows(compiled, self._columns, self._most)
        for batch in batches:
            yield self._run(rows, batch)

    def _run(self, rows: Rows, batch: Any) -> Any:
        import pyarrow as pa

        columns = []
        for column, name in rows.columns.items():
            dtype = self._kinds[name]
            columns.append(_arrays(batch.column(batch.schema.get_field_index(column)), dtype, self._shapes.get(column)))
        known: list[str | None] = [None] * batch.num_rows
        if ERROR in batch.schema.names:
            known = batch.column(batch.schema.get_field_index(ERROR)).to_pylist()
        given = []
        for number, row in enumerate(zip(*columns, strict=True)):
            wrong = [value for value in row if isinstance(value, str)]
            if wrong and known[number] is None:
                known[number] = wrong[0]
            given.append(None if wrong or any(value is None for value in row) else list(row))
        found = rows.run(given, known)
        kept = [name for name in batch.schema.names if name != ERROR]
        arrays = [batch.column(batch.schema.get_field_index(name)) for name in kept]
        for name, made in found.outputs.items():
            kept.append(self._names.get(name, name))
            arrays.append(_column(made, _ARROW[_TYPES[self._kinds[name]]], found.errors))
        return pa.RecordBatch.from_arrays([*arrays, pa.array(found.errors, pa.string())], names=[*kept, ERROR])


def predict_udf(
    model: Any,
    *,
    columns: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Mapping[str, str] | None = None,
    most: int = 16,
    **options: Any,
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for `DataFrame.mapInArrow`; its result has the columns that :func:`result_schema` says.

    The model is broadcast where there is a Spark session, else it is a part of the function. Each worker compiles it once, for
    one thread. A row that fails has null for each output and a message in the column `error`; rows whose `error` is set already
    are passed on.

    :param model: a model, a compiled one, or what :func:`tconvc.load` takes.
    :param columns: names of inputs by name of column; by default columns have the names of the inputs.
    :param shapes: extents of an array by name of column, where columns are flat; one may be -1.
    :param outputs: names of columns by name of output; by default those of the outputs.
    :param most: rows that run as one batch at most.
    :param options: others of :meth:`tconvc.Model.compile`.
    """
    import hashlib

    loaded = model if isinstance(model, Model | CompiledModel) else load(model)
    kinds = {port.name: _kind(port) for port in [*loaded.inputs, *loaded.outputs]}
    pickled: Any = pickle.dumps(loaded)
    key = hashlib.sha256(pickled + repr((columns, sorted(options.items()), most)).encode()).hexdigest()
    if (context := _context()) is not None:
        pickled = context.broadcast(pickled)
    return _Udf(key, pickled, columns, shapes or {}, outputs or {}, kinds, most, options)


def result_schema(frame: Any, model: Model | CompiledModel, outputs: Mapping[str, str] | None = None) -> str:
    """The columns of a frame behind :func:`predict_udf`, as Spark spells them."""
    names = outputs or {}
    kept = [f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields if field.name != ERROR]
    made = [f"`{names.get(port.name, port.name)}` {_struct(port)}" for port in model.outputs]
    return ", ".join([*kept, *made, f"`{ERROR}` string"])


def predict(
    frame: Any,
    model: Any,
    *,
    columns: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Mapping[str, str] | None = None,
    most: int = 16,
    **options: Any,
) -> Any:
    """A frame with the model's outputs: :func:`predict_udf`, whose arguments these are, by `mapInArrow`."""
    loaded = model if isinstance(model, Model | CompiledModel) else load(model)
    udf = predict_udf(loaded, columns=columns, shapes=shapes, outputs=outputs, most=most, **options)
    return frame.mapInArrow(udf, result_schema(frame, loaded, outputs))


def _kind(port: Port) -> str:
    if port.dtype not in _TYPES:
        raise ArgumentError(f"`{port.name}` is of type {port.dtype}, which Spark has not; it has {', '.join(_TYPES)}")
    return port.dtype


def _struct(port: Port) -> str:
    return f"struct<shape: array<int>, data: array<{_TYPES[_kind(port)]}>>"


def _context() -> Any:
    """The context of the session of this process; none where there is no session, or it is a remote one."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    try:
        return None if session is None else session.sparkContext
    except Exception:
        # Spark Connect has none, and says so by an exception of its own.
        return None


def _arrays(column: Any, kind: str, shape: Sequence[int] | None) -> list[Array | str | None]:
    """The array of each row; a message where there is none, or null."""
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        shapes = column.field("shape").to_pylist()
        data = column.field("data")
        missing = column.is_null().to_pylist()
        return [None if gone else _array(data[number], kind, shapes[number]) for number, gone in enumerate(missing)]
    return [_array(value, kind, shape) if value.is_valid else None for value in column]


def _array(value: Any, kind: str, shape: Sequence[int] | None) -> Array | str | None:
    from ._arrays import dtype_of

    if not value.is_valid:
        return None
    try:
        flat = value.values.to_numpy(zero_copy_only=False)
        array: Array = flat if kind == "str" else flat.astype(dtype_of(kind), copy=False)
        return array if shape is None else array.reshape(shape)
    except (ValueError, TypeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"


def _column(arrays: list[Array], dtype: str, errors: list[str | None]) -> Any:
    import numpy as np
    import pyarrow as pa

    lists = [np.asarray(array).reshape(-1).astype(dtype, copy=False) for array in arrays]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    flat = np.concatenate(lists) if lists else np.zeros(0, dtype)
    data = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    extents = pa.array([list(array.shape) for array in arrays], pa.list_(pa.int32()))
    missing = pa.array([told is not None for told in errors])
    return pa.StructArray.from_arrays([extents, data], names=["shape", "data"], mask=missing)
