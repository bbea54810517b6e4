"""Models over a cluster with Ray Data.

>>> import ray.data, tconvc.ray
>>> images = ray.data.read_images("photographs")
>>> results = tconvc.ray.predict(images, "model.onnx", columns={"image": "x"})

Needs the package ray: `pip install tconvc[ray]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._model import CompiledModel, Model, load
from ._rows import Rows, compiled_once

if TYPE_CHECKING:
    from ._arrays import Array

ERROR = "error"
"""The column that says what went wrong with a row; empty where nothing did."""


class Predictor:
    """A class for `ray.data.Dataset.map_batches`: batches of columns in, the same with the model's outputs out.

    Images of different shapes are grouped, each group is a batch. Read-only arrays, such as those of Ray's object store, are read
    where they lie. A row that fails has an empty array for each output and a message in the column `error`; rows whose `error` is
    set already, because they could not be decoded, say, are passed on. See :func:`predict` for an actor a processor.

    :param model: a model, a compiled one, or what :func:`tconvc.load` takes. As one of `fn_constructor_args` it may be a reference
        of `ray.put`, so that it is sent to each machine once.
    :param columns: names of inputs by name of column; by default columns have the names of the inputs.
    :param outputs: names of columns by name of output; by default those of the outputs.
    :param keep: whether the columns that are read are passed on, too.
    :param threads: threads of an actor.
    :param most: rows that run as one batch at most; more take more memory, and spare little.
    :param options: others of :meth:`tconvc.Model.compile`.
    """

    def __init__(
        self,
        model: Any,
        *,
        columns: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: bool = False,
        threads: int = 1,
        most: int = 16,
        **options: Any,
    ) -> None:
        if type(model).__name__ == "ObjectRef":
            import ray

            model = ray.get(model)
        loaded = model if isinstance(model, Model | CompiledModel) else load(model)
        self._rows = Rows(compiled_once(loaded, threads, options), columns, most)
        self._names, self._keep = dict(outputs or {}), keep

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Runs on a batch of columns."""
        import numpy as np

        columns = [batch[column] for column in self._rows.columns]
        known = [str(told) or None if told is not None else None for told in batch.get(ERROR, [None] * len(columns[0]))]
        rows = [
            None if any(v is None for v in row) else [np.asarray(v) for v in row] for row in zip(*columns, strict=True)
        ]
        found = self._rows.run(rows, known)
        made = {name: column for name, column in batch.items() if self._keep or name not in self._rows.columns}
        for name, arrays in found.outputs.items():
            made[self._names.get(name, name)] = _column(arrays)
        made[ERROR] = np.array([told or "" for told in found.errors], object)
        return made


def predict(
    dataset: Any,
    model: Any,
    *,
    columns: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    keep: bool = False,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    batch_size: int | None = 32,
    **options: Any,
) -> Any:
    """A dataset with the model's outputs: :class:`Predictor` by `map_batches`, one actor with one thread a processor.

    The model is put into the object store, and sent to each machine once.

    :param dataset: a `ray.data.Dataset` with the model's inputs as columns of arrays.
    :param concurrency: actors, or the least and the most of them; one a processor of the cluster by default.
    :param num_cpus: processors that an actor counts as; half of one by default, so that tasks that read and write find some, and
        none where there is only one.
    :param batch_size: rows that an actor is given at a time.
    :param options: others of :class:`Predictor`.
    """
    import ray

    if not ray.is_initialized():
        ray.init()
    loaded = model if isinstance(model, Model | CompiledModel) else load(model)
    processors = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    if num_cpus is None:
        num_cpus = 0.5 if processors > 1 else 0
    return dataset.map_batches(
        Predictor,
        fn_constructor_args=(ray.put(loaded),),
        fn_constructor_kwargs={"columns": columns, "outputs": outputs, "keep": keep, "threads": 1, **options},
        concurrency=processors if concurrency is None else concurrency,
        num_cpus=num_cpus,
        batch_size=batch_size,
        zero_copy_batch=True,
    )


def _column(arrays: list[Array]) -> Array:
    """Arrays of one shape as one; others one by one."""
    import numpy as np

    if arrays and all(array.shape == arrays[0].shape for array in arrays):
        return np.stack(arrays)
    column = np.empty(len(arrays), object)
    for number, array in enumerate(arrays):
        column[number] = array
    return column
