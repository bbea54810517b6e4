"""Rows of tables: grouped by shape, in batches, with errors kept beside them."""

import numpy as np
import pytest
from conftest import identity, model
from onnx import TensorProto, helper

import tconvc
from tconvc._rows import Rows


def images(count, seed=0):
    """Images for `upsample`, of three widths."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal([2, 5, 3 + i % 3]).astype(np.float32) for i in range(count)]


def test_rows_of_the_same_shape_run_as_one_batch(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(threads=1)
    rows = images(10)
    found = Rows(compiled, {"image": "x"}, 2).run([[row] for row in rows])
    assert found.errors == [None] * 10
    for row, y in zip(rows, found.outputs["y"], strict=True):
        np.testing.assert_allclose(y, expected(row[None])[0], rtol=1e-5, atol=1e-5)
    # Four of a width in batches of two, three of the others in two and one.
    assert compiled._native.programs() == 5


def test_a_row_that_fails_takes_no_other_with_it(upsample):
    made, expected = upsample
    rows = [[image] for image in images(6)]
    rows[1] = [np.zeros([3, 5, 4], np.float32)]
    rows[2] = [np.zeros([2, 5, 5], np.float64)]
    rows[4] = None
    found = Rows(tconvc.load(made).compile(), None, 16).run(rows, [None] * 5 + ["could not be read"])
    assert [bool(error) for error in found.errors] == [False, True, True, False, True, True]
    assert "[1, 3, 5, 4]" in found.errors[1] and "f64" in found.errors[2] and found.errors[5] == "could not be read"
    for number, y in enumerate(found.outputs["y"]):
        if found.errors[number]:
            assert y.size == 0 and y.ndim == 3 and y.dtype == np.float32
        else:
            np.testing.assert_allclose(y, expected(rows[number][0][None])[0], rtol=1e-5, atol=1e-5)


def test_models_without_a_batch_take_rows_one_by_one():
    whole = tconvc.load(identity(TensorProto.FLOAT, [2, 3])).compile()
    one = tconvc.load(identity(TensorProto.FLOAT, [1, 2, 3])).compile()
    rows = [np.full([2, 3], i, np.float32) for i in range(4)]
    for compiled in (whole, one):
        found = Rows(compiled, None, 16).run([[row] for row in rows])
        assert found.errors == [None] * 4
        np.testing.assert_array_equal(found.outputs["y"], rows)


def test_columns_name_inputs():
    ports = {name: (TensorProto.FLOAT, ["N", 2]) for name in "abs"}
    made = model([helper.make_node("Sub", ["a", "b"], ["s"])], {"a": ports["a"], "b": ports["b"]}, {"s": ports["s"]})
    compiled = tconvc.load(made).compile()
    a, b = np.ones(2, np.float32), np.full(2, 3, np.float32)
    found = Rows(compiled, {"second": "b", "first": "a"}, 16).run([[b, a], [a, b]])
    np.testing.assert_array_equal(found.outputs["s"], [a - b, b - a])
    with pytest.raises(tconvc.ArgumentError, match="no input `c`; its inputs are `a`, `b`"):
        Rows(compiled, {"x": "c"}, 16)
