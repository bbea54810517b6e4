"""A compiled model against the definitions of its operators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _native
from ._errors import ArgumentError, TconvcError
from ._model import Model, Port, Shapes, load

if TYPE_CHECKING:
    from ._arrays import Array


class Verification(NamedTuple):
    """How far a compiled model is from what is expected of it; true when it is near enough."""

    differences: dict[str, float]
    """The largest difference of an element, by output that is near enough."""
    problems: dict[str, str]
    """What is wrong, by output that is not."""

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"ok      {name}: within {difference:.3g}" for name, difference in self.differences.items()]
        lines += [f"FAILED  {name}: {problem}" for name, problem in self.problems.items()]
        return "\n".join(lines)


def verify(
    model: Model | str | os.PathLike[str] | bytes | Any,
    inputs: Mapping[str, Any] | None = None,
    expected: Mapping[str, Any] | None = None,
    *,
    shapes: Shapes | None = None,
    threads: int | None = None,
    form: str = "auto",
    target: str = "host",
    fast_math: bool = True,
) -> Verification:
    """Compiles a model, and compares what it computes with `expected`, or with the definitions of its operators, which are exact
    and slow.

    :param model: a model, or what :func:`load` takes.
    :param inputs: arrays by name; seeded ones by default, for which all extents have to be known or given as `shapes`.
    :param expected: outputs by name.

    Other arguments are those of :meth:`Model.compile`. The tolerance is that of `tconvc verify`: integers must be equal, unless
    they are rounded floats.
    """
    loaded = model if isinstance(model, Model) else load(model)
    compiled = loaded.compile(shapes=shapes, threads=threads, form=form, target=target, fast_math=fast_math)
    if inputs is None:
        inputs = {port.name: _seeded(port, seed) for seed, port in enumerate(compiled.inputs, 1) if not port.optional}
    found = compiled.run(inputs)
    wanted = dict(loaded._native.interpret(dict(inputs)) if expected is None else expected)
    differences, problems = {}, {}
    for name, array in wanted.items():
        if name not in found:
            raise ArgumentError(
                f"the model has no output `{name}`; its outputs are {', '.join(f'`{n}`' for n in found)}"
            )
        difference, problem = loaded._native.differs(name, found[name], array)
        if problem is not None:
            problems[name] = problem
        else:
            differences[name] = difference or 0.0
    return Verification(differences, problems)


def _seeded(port: Port, seed: int) -> Array:
    shape = [extent for extent in port.shape or () if isinstance(extent, int)]
    if port.dtype is None or port.shape is None or len(shape) != len(port.shape):
        raise TconvcError(f"the extents of input `{port.name}` are open; give `shapes`, or `inputs`")
    return _native.Model.seeded(port.dtype, shape, seed)
