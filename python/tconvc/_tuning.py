"""What was measured to be the fastest."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from . import _native


class Tuning:
    """Forms and schedules that :meth:`Model.tune` measured to be the fastest, by processor, number of threads and geometry;
    :meth:`Model.compile` takes them in the place of estimates. Its length is the number of layers that are known."""

    def __init__(self) -> None:
        self._native = _native.Tuning()

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Tuning:
        """What :meth:`write` has written, or `tconvc --tune`; nothing where there is no such file, or another version has written
        it.

        :raises TconvcError: when the file cannot be read, or is another's.
        """
        return _tuning(_native.Tuning.read(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, together with what others have measured and written there in the meantime.

        :raises TconvcError: when it cannot be written.
        """
        self._native.write(path)

    def __len__(self) -> int:
        return self._native.count()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tuning) and self._native.to_json() == other._native.to_json()

    def __hash__(self) -> int:
        return hash(self._native.to_json())

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _restored, (self._native.to_json(),)


def _tuning(native: _native.Tuning) -> Tuning:
    tuning = Tuning()
    tuning._native = native
    return tuning


def _restored(json: str) -> Tuning:
    return _tuning(_native.Tuning.from_json(json))


class Bar:
    """A line that says how far something has come: on a terminal, and in a notebook."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out
        self._shown = self._out.isatty() or "ipykernel" in sys.modules
        self._width = 0

    def __call__(self, done: int, of: int, what: str) -> None:
        if self._shown:
            filled = 20 * done // max(of, 1)
            self._write(f"[{'#' * filled}{' ' * (20 - filled)}] {done}/{of} {what}")

    def close(self) -> None:
        """Takes the line away, where there is one."""
        if self._width > 0:
            self._write("")
            self._out.write("\r")
            self._out.flush()

    def _write(self, line: str) -> None:
        self._out.write("\r" + line.ljust(self._width))
        self._out.flush()
        self._width = len(line)
