"""Arrays in and out: where they lie, their types, and what other libraries call an array."""

import ctypes

import ml_dtypes
import numpy as np
import pytest
from conftest import identity, model
from onnx import TensorProto, helper

import tconvc
from tconvc import _native

TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
    "bfloat16": TensorProto.BFLOAT16,
}


def dtype_of(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", TYPES)
def test_arrays_of_every_type_go_through(name):
    dtype = dtype_of(name)
    x = np.arange(6).reshape(2, 3).astype(dtype)
    compiled = tconvc.load(identity(TYPES[name], [2, 3])).compile()
    out = np.zeros([2, 3], dtype)
    for y in (compiled(x), compiled(x.T.copy().T), compiled.run({"x": x}, out={"y": out})["y"]):
        assert y.dtype == dtype and y.shape == (2, 3)
        np.testing.assert_array_equal(y.astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16", "int32", "int64"])
def test_sums_of_every_type(name):
    dtype = dtype_of(name)
    ports = {port: (TYPES[name], [5]) for port in "xyz"}
    made = model([helper.make_node("Add", ["x", "y"], ["z"])], {"x": ports["x"], "y": ports["y"]}, {"z": ports["z"]})
    x, y = np.arange(5).astype(dtype), np.full(5, 3).astype(dtype)
    np.testing.assert_array_equal(tconvc.load(made).compile()(x, y).astype(np.float64), np.arange(5) + 3.0)


@pytest.mark.parametrize(("name", "kind"), [("int4", TensorProto.INT4), ("uint4", TensorProto.UINT4)])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_elements_of_less_than_a_byte(name, kind, count):
    dtype = np.dtype(getattr(ml_dtypes, name))
    low = -8 if name == "int4" else 0
    x = np.array([(low + i) for i in range(count)], np.int8).astype(dtype)
    made = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        {"x": (kind, [count])},
        {"y": (kind, [count, 1])},
        {"s": np.array([count, 1])},
        opset=21,
    )
    y = tconvc.load(made).compile()(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[:, 0].astype(np.int8), x.astype(np.int8))


@pytest.mark.parametrize("shape", [[], [0], [2, 0, 3]])
def test_scalars_and_empty_arrays(shape):
    x = np.ones(shape, np.float32)
    compiled = tconvc.load(identity(TensorProto.FLOAT, shape)).compile()
    for given in (x, x.astype(">f4")):
        y = compiled(given)
        assert isinstance(y, np.ndarray) and y.shape == tuple(shape)
        np.testing.assert_array_equal(y, x)


def test_texts():
    compiled = tconvc.load(identity(TensorProto.STRING, ["n"])).compile()
    for given in (["a", "", "bä" * 200], [b"a", b"b", b"c"]):
        for array in (np.array(given), np.array(given, object)):
            y = compiled(array)
            wanted = [text.decode() if isinstance(text, bytes) else text for text in given]
            assert y.dtype == object and y.tolist() == wanted
    with pytest.raises(tconvc.ArgumentError, match="int is in it"):
        compiled(np.array(["a", 7], object))


class Interface:
    """Has the array interface, and nothing else."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.kept = array


class Capsule:
    """Speaks DLPack, and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Elsewhere(Capsule):
    """Says that it lies in a graphics processor's memory."""

    def __dlpack__(self, **options):
        raise BufferError("on the device")

    def __dlpack_device__(self):
        return 2, 0


def test_strided_read_only_and_foreign_arrays():
    compiled = tconvc.load(identity(TensorProto.FLOAT, [2, 3])).compile()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    frozen = x.copy()
    frozen.flags.writeable = False
    odd = np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3)
    odd[:] = x
    assert odd.ctypes.data % 4
    memory = (ctypes.c_float * 3 * 2)()
    np.frombuffer(memory, np.float32)[:] = x.ravel()
    strided = [np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1], x[:, ::-1].copy()[:, ::-1], odd]
    foreign = [Interface(x), Interface(frozen), Capsule(x), memoryview(x), memory, x.astype(">f4"), np.ma.array(x)]
    for given in [x, frozen, *strided, *foreign]:
        np.testing.assert_array_equal(compiled(given), x)
    with pytest.raises(tconvc.ArgumentError, match="f64"):
        compiled(x.tolist())
    with pytest.raises(tconvc.ArgumentError, match="`x`.*Elsewhere.*on the device"):
        compiled(Elsewhere(x))


def test_contiguous_arrays_are_read_where_they_lie():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    frozen = x.view()
    frozen.flags.writeable = False
    half = np.zeros([2, 3], ml_dtypes.bfloat16)
    for given in (x, frozen, Interface(x), Capsule(x), memoryview(x), x[:1], x[1:], x.reshape(3, 2)):
        array = given if isinstance(given, np.ndarray) else x
        assert _native.address_read("x", given) == array.ctypes.data
    assert _native.address_read("x", half) == half.ctypes.data
    for given in (x.T, x[:, ::2], x[:, :2], x.astype(">f4")):
        assert _native.address_read("x", given) != given.ctypes.data


def test_outputs_are_aligned_writable_and_their_own():
    compiled = tconvc.load(identity(TensorProto.FLOAT, ["n"])).compile()
    for count in (1, 5, 16, 1000, 100_000):
        x = np.arange(count, dtype=np.float32)
        first, second = compiled(x), compiled(x)
        assert first.ctypes.data % 64 == 0 and first.flags.writeable and first.flags.c_contiguous
        first[:] = 9
        np.testing.assert_array_equal(second, x)
        # The array speaks DLPack, and its memory lives on behind it.
        other = np.from_dlpack(second)
        assert other.ctypes.data == second.ctypes.data
        del second
        np.testing.assert_array_equal(other, x)


def test_torch_tensors_go_in_and_out():
    torch = pytest.importorskip("torch")
    compiled = tconvc.load(identity(TensorProto.FLOAT, [2, 3])).compile()
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert _native.address_read("x", x) == x.data_ptr()
    np.testing.assert_array_equal(torch.from_dlpack(compiled(x)), x)
    np.testing.assert_array_equal(compiled(x.requires_grad_()), x.detach())
    half = tconvc.load(identity(TensorProto.BFLOAT16, [2, 3])).compile()
    np.testing.assert_array_equal(half(x.bfloat16()).astype(np.float32), x.detach())
