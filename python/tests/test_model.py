"""Loading, compiling, running: values, arrays of every kind, errors."""

import copy
import pickle
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from conftest import identity, model
from onnx import TensorProto, helper

import tconvc


def test_a_trained_network_gives_its_stored_output(fsrcnn):
    path, low, expected = fsrcnn
    for source in (path, str(path), path.read_bytes()):
        compiled = tconvc.load(source).compile(threads=1)
        np.testing.assert_allclose(compiled(low), expected, atol=2e-4)


def test_open_extents_are_compiled_for_as_they_come(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(threads=2)
    rng = np.random.default_rng(1)
    for batch, width in [(1, 4), (3, 7), (1, 4), (2, 1)]:
        x = rng.standard_normal([batch, 2, 5, width]).astype(np.float32)
        np.testing.assert_allclose(compiled(x), expected(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(compiled(x=x), compiled(x))


def test_ports_say_what_is_known(upsample):
    port = tconvc.load(upsample[0]).inputs[0]
    assert (port.name, port.dtype, port.shape, port.optional) == ("x", "f32", ("N", 2, 5, "W"), False)


@pytest.mark.parametrize("form", ["auto", "scatter", "zero-insert", "sub-pixel"])
def test_every_form_computes_the_same(upsample, form):
    made, expected = upsample
    x = np.random.default_rng(2).standard_normal([1, 2, 5, 9]).astype(np.float32)
    found = tconvc.load(made).compile(form=form, shapes={"x": x.shape})
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-5, atol=1e-5)


def test_exports_run_and_hold_no_transposed_convolution(upsample):
    made, expected = upsample
    exported = tconvc.export_onnx(made, form="sub-pixel")
    x = np.random.default_rng(3).standard_normal([1, 2, 5, 4]).astype(np.float32)
    np.testing.assert_allclose(tconvc.load(exported).compile()(x), expected(x), rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("name", TYPES)
def test_arrays_of_every_type_go_through(name):
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    x = np.arange(6).reshape(2, 3).astype(dtype)
    y = tconvc.load(identity(TYPES[name], [2, 3])).compile()(x)
    assert y.dtype == dtype and y.shape == (2, 3)
    np.testing.assert_array_equal(y.astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize("shape", [[], [0], [2, 0, 3]])
def test_scalars_and_empty_arrays(shape):
    x = np.ones(shape, np.float32)
    y = tconvc.load(identity(TensorProto.FLOAT, shape)).compile()(x)
    assert y.shape == tuple(shape)
    np.testing.assert_array_equal(y, x)


def test_strided_read_only_and_foreign_arrays():
    compiled = tconvc.load(identity(TensorProto.FLOAT, [2, 3])).compile()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    frozen = x.copy()
    frozen.flags.writeable = False

    class Interface:
        __array_interface__ = x.__array_interface__

    class Capsule:
        def __dlpack__(self, **options):
            return x.__dlpack__(**options)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    given = [x, frozen, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1], Interface(),
             Capsule(), memoryview(x), x.tolist()]
    for value in given[:-1]:
        np.testing.assert_array_equal(compiled(value), x)
    with pytest.raises(tconvc.TconvcError, match="f64"):
        compiled(given[-1])
    np.testing.assert_array_equal(compiled(x.astype(">f4")), x)


def test_contiguous_arrays_are_read_where_they_lie():
    from tconvc import _arrays

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    data, shape, kind = _arrays.given("x", x)
    assert data.ctypes.data == x.ctypes.data and shape == (2, 3) and kind == "f32"
    assert _arrays.given("x", x.T)[0].ctypes.data != x.ctypes.data


def test_outputs_are_aligned_writable_and_their_own():
    compiled = tconvc.load(identity(TensorProto.FLOAT, [5])).compile()
    x = np.arange(5, dtype=np.float32)
    first, second = compiled(x), compiled(x)
    assert first.ctypes.data % 64 == 0 and first.flags.writeable
    first[:] = 9
    np.testing.assert_array_equal(second, x)
    np.testing.assert_array_equal(np.from_dlpack(second), x)


def test_out_is_written_in_place(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(shapes={"x": [1, 2, 5, 4]})
    x = np.random.default_rng(4).standard_normal([1, 2, 5, 4]).astype(np.float32)
    out = np.empty([1, 3, 10, 8], np.float32)
    assert compiled.run({"x": x}, out={"y": out})["y"] is out
    np.testing.assert_allclose(out, expected(x), rtol=1e-5, atol=1e-5)
    for wrong, text in [
        ({"z": out}, "no output `z`"),
        ({}, "output `y` is missing"),
        ({"y": out.astype(np.float64)}, "f64"),
        ({"y": out[:, :, :, ::-1]}, "contiguous"),
        ({"y": np.empty([1, 3, 10, 9], np.float32)}, "10, 8"),
    ]:
        with pytest.raises(tconvc.TconvcError, match=text):
            compiled.run({"x": x}, out=wrong)


def test_errors_name_what_is_wrong(upsample, fsrcnn):
    compiled = tconvc.load(upsample[0]).compile()
    x = np.zeros([1, 2, 5, 4], np.float32)
    for call, text in [
        (lambda: compiled(), "`x`.* is missing"),
        (lambda: compiled(x, x=x), "given twice"),
        (lambda: compiled(x, x), "1 inputs"),
        (lambda: compiled(y=x), "no input `y`"),
        (lambda: compiled(x.astype(np.float64)), "f64"),
        (lambda: compiled(x[0]), r"\[2, 5, 4\]"),
        (lambda: compiled(np.array(["a"])), "not accepted"),
        (lambda: tconvc.load(b"no model"), "model"),
        (lambda: tconvc.load("no/such/file.onnx"), "file.onnx"),
        (lambda: tconvc.load(upsample[0]).compile(form="fast"), "scatter"),
        (lambda: tconvc.load(upsample[0]).compile(target="z80"), "x86-64-v3"),
        (lambda: tconvc.load(upsample[0]).compile(threads=0), "threads"),
        (lambda: tconvc.load(fsrcnn[0]).compile(shapes={"low": [1, 1, 96, 96]}, workspace_limit=1000), "1000"),
    ]:
        with pytest.raises(tconvc.TconvcError, match=text):
            call()


def test_errors_have_their_place():
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="here", domain="nowhere")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with pytest.raises(tconvc.TconvcError) as raised:
        tconvc.load(made).compile()
    assert raised.value.node == "here" and "NoSuchOperator" in raised.value.operator
    assert raised.value.attribute is None


def test_optional_inputs_have_their_defaults():
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    made = model([node], {"x": (TensorProto.FLOAT, [3]), "factor": (TensorProto.FLOAT, [1])},
                 {"y": (TensorProto.FLOAT, [3])}, {"factor": np.array([2], np.float32)})
    compiled = tconvc.load(made).compile()
    x = np.array([1, 2, 3], np.float32)
    assert [port.optional for port in compiled.inputs] == [False, True]
    np.testing.assert_array_equal(compiled(x), 2 * x)
    np.testing.assert_array_equal(compiled(x, factor=np.array([5], np.float32)), 5 * x)
    np.testing.assert_array_equal(compiled(x), 2 * x)


def test_pickles_and_copies_compute_the_same(upsample):
    made, expected = upsample
    loaded = tconvc.load(made)
    compiled = loaded.compile(shapes={"x": [1, 2, 5, 4]}, form="sub-pixel")
    x = np.random.default_rng(5).standard_normal([1, 2, 5, 4]).astype(np.float32)
    for value in (compiled, compiled.session()):
        for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            np.testing.assert_array_equal(other(x), compiled(x))
    assert pickle.loads(pickle.dumps(loaded)).inputs == loaded.inputs


def test_many_threads_share_one_compiled_model(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(threads=2)
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            x = rng.standard_normal([1, 2, 5, int(rng.integers(1, 6))]).astype(np.float32)
            if not np.allclose(compiled(x), expected(x), rtol=1e-5, atol=1e-5):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


FORK = """
import os, sys, pickle, numpy as np, tconvc
compiled = tconvc.load(sys.argv[1]).compile(threads=2)
session = compiled.session()
low = np.random.default_rng(0).random([1, 1, 96, 96], np.float32)
expected = compiled(low)
assert (session(low) == expected).all()
child = os.fork()
if child == 0:
    ok = all((call(low) == expected).all() for call in (compiled, session, compiled.session()) for _ in range(3))
    del session, compiled
    os._exit(0 if ok else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (compiled(low) == expected).all()
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system has no fork")
def test_a_forked_child_computes_the_same(fsrcnn):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, str(fsrcnn[0])], timeout=120, check=False)
    assert done.returncode == 0


def test_spawned_processes_take_compiled_models(fsrcnn):
    program = (
        "import multiprocessing as m, sys, numpy as np, tconvc\n"
        "def run(args): return args[0](args[1]).sum()\n"
        "if __name__ == '__main__':\n"
        "    c = tconvc.load(sys.argv[1]).compile(threads=1)\n"
        "    x = np.ones([1, 1, 96, 96], np.float32)\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.map(run, [(c, x)]) == [c(x).sum()]\n"
    )
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "spawn.py"
        path.write_text(program)
        done = subprocess.run([sys.executable, str(path), str(fsrcnn[0])], timeout=120, check=False)
    assert done.returncode == 0


def test_threads_by_default(monkeypatch):
    monkeypatch.setenv("TCONVC_NUM_THREADS", "3")
    assert tconvc.default_threads() == 3
    monkeypatch.delenv("TCONVC_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert tconvc.default_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "no number")
    assert tconvc.default_threads() >= 1


def test_reports_print_and_are_tables(fsrcnn):
    compiled = tconvc.load(fsrcnn[0]).compile(shapes={"low": [1, 1, 96, 96]}, threads=1)
    report, explanation = compiled.report, compiled.explain()
    assert "sub-pixel" in str(report) and report.data["code_bytes"] > 0
    assert "<table>" in compiled._repr_html_() and "sub-pixel" in explanation._repr_html_()
    assert explanation.data["layers"][0]["chosen"] == "sub-pixel"
