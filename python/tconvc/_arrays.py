"""Arrays in and out: anything NumPy can see without a copy, as bytes with a type and a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._native import TconvcError

Array = npt.NDArray[Any]
Native = tuple[npt.NDArray[np.uint8], tuple[int, ...], str]

_NAMES: dict[str, str] = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "bool": "bool",
    "complex64": "c64",
    "complex128": "c128",
    # Types that the package ml_dtypes adds to NumPy.
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8e4m3fn",
    "float8_e4m3fnuz": "f8e4m3fnuz",
    "float8_e5m2": "f8e5m2",
    "float8_e5m2fnuz": "f8e5m2fnuz",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ALIGNMENT = 64


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy type of an element type such as `f32`."""
    known = _DTYPES.get(name)
    if known is None:
        raise TconvcError(f"NumPy has no type for elements of type {name}")
    try:
        return np.dtype(known)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise TconvcError(f"arrays of type {name} need the package ml_dtypes") from None
    return np.dtype(getattr(ml_dtypes, known))


def as_array(value: Any) -> Array:
    """An array over the same memory where that can be: NumPy's own, the array interface, DLPack, buffers."""
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "__array_interface__") and hasattr(value, "__dlpack__"):
        if hasattr(value, "detach"):
            # A tensor that PyTorch keeps a gradient of.
            value = value.detach()
        return np.from_dlpack(value)
    return np.asarray(value)


def given(name: str, value: Any) -> Native:
    """An input as the native half takes it. Contiguous arrays are not copied; strided ones are."""
    array = as_array(value)
    kind = _NAMES.get(array.dtype.name)
    if kind is None:
        raise TconvcError(f"input `{name}`: arrays of type {array.dtype} are not accepted")
    if array.dtype.byteorder not in "=|" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    shape = array.shape
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8), shape, kind


def taken(name: str, value: Any) -> Native:
    """An output array of the caller's, to be written in place."""
    if not isinstance(value, np.ndarray):
        raise TconvcError(f"output `{name}`: a NumPy array is expected, {type(value).__name__} is given")
    if not value.flags.c_contiguous or not value.flags.writeable:
        raise TconvcError(f"output `{name}`: the array must be contiguous and writable")
    kind = _NAMES.get(value.dtype.name)
    if kind is None or not value.dtype.isnative:
        raise TconvcError(f"output `{name}`: arrays of type {value.dtype} are not accepted")
    return value.reshape(-1).view(np.uint8), value.shape, kind


def empty(kind: str, shape: Sequence[int]) -> Array:
    """An array that begins with a cache line; its elements are not set."""
    dtype = dtype_of(kind)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def allocate(kind: str, shape: Sequence[int]) -> tuple[Array, Native]:
    """An array for an output, and the same as the native half takes it."""
    array = empty(kind, shape)
    return array, (array.reshape(-1).view(np.uint8), array.shape, kind)
