"""Rows of a table through a compiled model: grouped by shape, put into batches, and those that fail kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ._errors import ArgumentError, TconvcError
from ._model import CompiledModel, Model, Port

if TYPE_CHECKING:
    from ._arrays import Array


class Results(NamedTuple):
    """What became of rows."""

    outputs: dict[str, list[Array]]
    """Arrays by output, one a row; of a row that failed, an empty one of the same rank."""
    errors: list[str | None]
    """By row, what went wrong."""


class Rows:
    """Runs a model on rows.

    A row holds an array for each input. Where the first extent of every input is open, and an array has one extent less than its
    input, rows of the same shapes run as one batch; where that extent is 1, each runs as a batch of one; where an array has as many
    extents as its input, it is the input.

    :param columns: names of inputs by name of column; those of the inputs themselves by default.
    :param most: rows that run as one batch at most.
    """

    def __init__(self, compiled: CompiledModel, columns: Mapping[str, str] | None, most: int) -> None:
        inputs = {port.name: port for port in compiled.inputs}
        self._compiled, self._most = compiled, max(most, 1)
        self.columns = (
            dict(columns) if columns is not None else {n: n for n, port in inputs.items() if not port.optional}
        )
        for column, name in self.columns.items():
            if name not in inputs:
                known = ", ".join(f"`{known}`" for known in inputs)
                raise ArgumentError(f"column `{column}`: the model has no input `{name}`; its inputs are {known}")
        self._ports = [inputs[name] for name in self.columns.values()]
        self._outputs = compiled.outputs
        self._is_batched = all(_is_open(port) for port in self._ports) and all(_is_open(port) for port in self._outputs)

    def run(self, rows: Sequence[Sequence[Array] | None], errors: Sequence[str | None] | None = None) -> Results:
        """Runs rows of an array a column, in the order of `columns`. Rows for which there is an error already are left out.

        :raises TconvcError: never for a single row; that becomes its error.
        """
        results: list[list[Array] | None] = [None] * len(rows)
        told: list[str | None] = list(errors) if errors is not None else [None] * len(rows)
        groups: dict[Any, list[int]] = {}
        for number, row in enumerate(rows):
            if told[number] is None and row is not None:
                key = tuple((array.shape, array.dtype) for array in row)
                groups.setdefault(key, []).append(number)
            elif told[number] is None:
                told[number] = "there is no array"
        for key, numbers in groups.items():
            ranks = [len(shape) for shape, _ in key]
            whole = [
                port.shape is None or rank == len(port.shape) for rank, port in zip(ranks, self._ports, strict=True)
            ]
            step = self._most if self._is_batched and not any(whole) else 1
            for start in range(0, len(numbers), step):
                self._run_group(rows, numbers[start : start + step], whole, results, told)
        outputs: dict[str, list[Array]] = {}
        for index, port in enumerate(self._outputs):
            outputs[port.name] = [_empty(port) if made is None else made[index] for made in results]
        return Results(outputs, told)

    def _run_group(
        self,
        rows: Sequence[Sequence[Array] | None],
        numbers: list[int],
        whole: list[bool],
        results: list[list[Array] | None],
        told: list[str | None],
    ) -> None:
        import numpy as np

        feed = {}
        for index, name in enumerate(self.columns.values()):
            arrays = [row[index] for row in (rows[number] for number in numbers) if row is not None]
            if whole[index]:
                feed[name] = arrays[0]
            else:
                # One row is a batch without a copy.
                feed[name] = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
        try:
            made = list(self._compiled.run(feed).values())
        except TconvcError as error:
            if len(numbers) == 1:
                told[numbers[0]] = str(error)
                return
            # One of them may be at fault for all.
            for number in numbers:
                self._run_group(rows, [number], whole, results, told)
            return
        for place, number in enumerate(numbers):
            results[number] = [array if any(whole) else array[place] for array in made]


def compiled_once(model: Model | CompiledModel, threads: int, options: Mapping[str, Any]) -> CompiledModel:
    """The model compiled with these options, or as it was compiled."""
    if isinstance(model, CompiledModel):
        if options:
            raise ArgumentError(f"a compiled model takes no {', '.join(options)} any more")
        return model
    return model.compile(threads=threads, **options)


def _is_open(port: Port) -> bool:
    return bool(port.shape) and not isinstance((port.shape or (0,))[0], int)


def _empty(port: Port) -> Array:
    import numpy as np

    from ._arrays import dtype_of

    rank = len(port.shape or ()) - 1
    dtype = np.dtype(object) if port.dtype in (None, "str") else dtype_of(port.dtype or "f32")
    return np.zeros([0] * max(rank, 1), dtype)
