"""How many threads a model takes unless it is told."""

from __future__ import annotations

import os
import sys

from ._native import available_threads


def default_threads() -> int:
    """Threads that a compiled model takes unless it is told: the least of the processors that this process may use, the
    quota of its control group, `OMP_NUM_THREADS` and `TCONVC_NUM_THREADS`. In a process that `multiprocessing` started
    (so does PyTorch's `DataLoader`) one, unless `TCONVC_NUM_THREADS` allows more: such workers share the processors."""
    own = _number("TCONVC_NUM_THREADS")
    others = [number for number in (_number("OMP_NUM_THREADS"), own) if number is not None]
    if own is None and _is_worker():
        return 1
    return min([available_threads(), *others])


def _number(name: str) -> int | None:
    # OpenMP has a number for each level of nesting.
    text = os.environ.get(name, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _is_worker() -> bool:
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None
