"""Arrays that are not read where they lie: other libraries', strided ones, texts, elements of less than a byte.

The native half calls these functions; it reads contiguous NumPy arrays of plain numbers by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import ArgumentError

Array = npt.NDArray[Any]

# Element types whose NumPy types have the same bytes. Those behind the line come with the package ml_dtypes.
_DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
    "c64": "complex64",
    "c128": "complex128",
    # ---
    "bf16": "bfloat16",
    "f8e4m3fn": "float8_e4m3fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e8m0": "float8_e8m0fnu",
}
# Element types of less than a byte: ONNX packs them, the first one lowest; ml_dtypes gives each a byte.
_PACKED = {
    "u4": ("uint4", 4),
    "i4": ("int4", 4),
    "f4e2m1": ("float4_e2m1fn", 4),
    "u2": ("uint2", 2),
    "i2": ("int2", 2),
}
_KINDS = {name: kind for kind, name in _DTYPES.items()}
_PACKED_KINDS = {name: (kind, bits) for kind, (name, bits) in _PACKED.items()}
# What an address has to be a multiple of.
_WORD = 4


def dtype_of(kind: str) -> np.dtype[Any]:
    """The NumPy type of an element type such as `f32`."""
    known = _DTYPES.get(kind) or _PACKED.get(kind, (None,))[0]
    if known is None:
        raise ArgumentError(f"NumPy has no type for elements of type {kind}")
    try:
        return np.dtype(known)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise ArgumentError(f"arrays of type {kind} need the package ml_dtypes") from None
    try:
        added: np.dtype[Any] = np.dtype(getattr(ml_dtypes, known))
    except AttributeError:
        raise ArgumentError(f"arrays of type {kind} need a newer package ml_dtypes, with {known}") from None
    return added


def as_array(what: str, value: Any) -> Array:
    """An array over the same memory where that can be: NumPy's own, the array interface, DLPack, buffers."""
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return _of_dlpack(value)
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"{what}: no array can be made of a value of type {_name(type(value))}: {error}") from error


def _of_dlpack(value: Any) -> Array:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        # Of a tensor with a gradient the values are asked for; NumPy's DLPack has no bfloat16.
        value = value.detach()
        if value.dtype == torch.bfloat16:
            words: Array = np.from_dlpack(value.view(torch.int16))
            return words.view(dtype_of("bf16"))
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):
        if not hasattr(value, "__array__"):
            raise
        return np.asarray(value)


def readable(name: str, value: Any) -> Array | tuple[str, tuple[int, ...], list[bytes]]:
    """An input as the native half takes it: a contiguous array of a type that it knows; or element type, shape,
    and bytes, of texts and of elements of less than a byte."""
    array = as_array(f"input `{name}`", value)
    shape = array.shape
    if array.dtype.kind in "OUST":
        return "str", shape, [_text(name, text) for text in array.reshape(-1).tolist()]
    packed = _PACKED_KINDS.get(array.dtype.name)
    if packed is not None:
        kind, bits = packed
        return kind, shape, [_pack(array, bits)]
    if array.dtype.name not in _KINDS:
        raise ArgumentError(
            f"input `{name}`: arrays of type {array.dtype} are not accepted; accepted are {', '.join(_KINDS)}, "
            f"{', '.join(_PACKED_KINDS)} and strings"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.c_contiguous or array.ctypes.data % _WORD:
        array = array.copy(order="C")
    return array


def _text(name: str, text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    raise ArgumentError(f"input `{name}`: an array of objects has to be one of strings, {_name(type(text))} is in it")


def _pack(array: Array, bits: int) -> bytes:
    per_byte = 8 // bits
    codes = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & (2**bits - 1)
    codes = np.concatenate([codes, np.zeros(-len(codes) % per_byte, np.uint8)]).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    packed: Array = np.bitwise_or.reduce(codes << shifts, axis=1)
    return packed.astype(np.uint8).tobytes()


def unpacked(kind: str, shape: Sequence[int], data: bytes) -> Array:
    """An array of elements of less than a byte."""
    dtype, bits = dtype_of(kind), _PACKED[kind][1]
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    codes = (np.frombuffer(data, np.uint8)[:, None] >> shifts) & np.uint8(2**bits - 1)
    codes = codes.reshape(-1)[: int(np.prod(shape, dtype=np.int64))]
    if dtype.name.startswith("int"):
        # Signed elements have their sign in all of their byte.
        codes = codes.astype(np.int8)
        codes -= (codes >> (bits - 1) << bits).astype(np.int8)
        return codes.astype(dtype).reshape(shape)
    return codes.astype(np.uint8).view(dtype).reshape(shape)


def texts(shape: Sequence[int], data: Sequence[bytes]) -> Array:
    """An array of strings."""
    array = np.empty(len(data), object)
    array[:] = [text.decode(errors="surrogateescape") for text in data]
    return array.reshape(shape)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__
