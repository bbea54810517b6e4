"""Arrays as onnxruntime hands them about."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import ArgumentError

if TYPE_CHECKING:
    from ._arrays import Array

# ONNX's numbers of element types, where an interface takes them in the place of NumPy's types.
_ONNX_TYPES = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64", 12: "u32", 13: "u64",
    14: "c64", 15: "c128", 16: "bf16",
}  # fmt: skip
_ORT_NAMES = {"float32": "float", "float64": "double"}


class OrtValue:
    """An array in this machine's memory."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @staticmethod
    def ortvalue_from_numpy(numpy_obj: Any, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
        """Over the same memory."""
        from ._arrays import as_array

        OrtValue._check_device(device_type)
        return OrtValue(as_array("OrtValue", numpy_obj))

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        """Over new memory, which is not set."""
        import numpy as np

        OrtValue._check_device(device_type)
        return OrtValue(np.empty(shape, _dtype(element_type)))

    @staticmethod
    def _check_device(device_type: str) -> None:
        if device_type.lower() != "cpu":
            raise ArgumentError(f"the device `{device_type}` is not here; accepted is `cpu`")

    @staticmethod
    def _at(device_type: str, element_type: Any, shape: Sequence[int], address: int) -> Array:
        import numpy as np

        OrtValue._check_device(device_type)
        dtype = _dtype(element_type)
        memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def numpy(self) -> Array:
        """The array."""
        return self._array

    def shape(self) -> list[int]:
        """Its extents."""
        return list(self._array.shape)

    def data_type(self) -> str:
        """Its type, such as `tensor(float)`."""
        name = self._array.dtype.name
        return f"tensor({_ORT_NAMES.get(name, name)})"

    def data_ptr(self) -> int:
        """The address of its first element."""
        return int(self._array.ctypes.data)

    def tensor_size_in_bytes(self) -> int:
        """The bytes of its elements."""
        return self._array.nbytes

    def device_name(self) -> str:
        """`cpu`."""
        return "cpu"

    def has_value(self) -> bool:
        """It always has one."""
        return True

    def is_tensor(self) -> bool:
        """It always is one."""
        return True

    def update_inplace(self, np_arr: Any) -> None:
        """Overwrites the elements with those of an array of the same type and shape."""
        import numpy as np

        array = np.asarray(np_arr)
        if (array.dtype, array.shape) != (self._array.dtype, self._array.shape):
            raise ArgumentError(
                f"the value is {self._array.dtype}{list(self._array.shape)}, {array.dtype}{list(array.shape)} is given"
            )
        self._array[...] = array


def _dtype(element_type: Any) -> Any:
    import numpy as np

    from ._arrays import dtype_of

    if isinstance(element_type, int):
        kind = _ONNX_TYPES.get(element_type)
        if kind is None:
            raise ArgumentError(f"{element_type} is no element type of ONNX that NumPy has")
        return dtype_of(kind)
    try:
        return np.dtype(element_type)
    except TypeError:
        raise ArgumentError(f"{element_type!r} is no element type") from None
