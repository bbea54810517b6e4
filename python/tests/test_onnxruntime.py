"""The drop-in for onnxruntime: `import tconvc as ort`. What its documentation shows a session do, in our words."""

import copy
import pickle

import numpy as np
import onnx
import pytest
from conftest import identity, model
from onnx import TensorProto, helper

import tconvc as ort


@pytest.fixture
def session(upsample):
    return ort.InferenceSession(upsample[0].SerializeToString(), providers=["CPUExecutionProvider"])


def random(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_a_session_as_its_documentation_shows_it(upsample):
    made, expected = upsample
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("x", "tensor(float)", ["N", 2, 5, "W"])
    assert (found.name, found.type, found.shape) == ("y", "tensor(float)", ["N", 3, 10, "V"])
    x = random(2, 2, 5, 3)
    for names in (None, [], ["y"]):
        (y,) = session.run(names, {given.name: x})
        np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-5)
    (y,) = session.run(None, {"x": x}, ort.RunOptions())
    assert session.get_providers() == ["CPUExecutionProvider"] == ort.get_available_providers()
    assert ort.get_device() == "CPU"
    assert session.get_session_options().intra_op_num_threads == 1


def test_paths_are_read_as_they_come(fsrcnn):
    path, low, expected = fsrcnn
    for source in (path, str(path), path.read_bytes()):
        (high,) = ort.InferenceSession(source).run(["high"], {"low": low})
        np.testing.assert_allclose(high, expected, atol=2e-4)


def test_outputs_come_in_the_order_that_is_asked_for():
    ports = {name: (TensorProto.FLOAT, [2]) for name in "xyz"}
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    made = model(nodes, {"x": ports["x"]}, {"y": ports["y"], "z": ports["z"]})
    session = ort.InferenceSession(made.SerializeToString())
    x = np.array([-1, 2], np.float32)
    for names, expected in [
        (None, [-x, abs(x)]),
        (["z", "y"], [abs(x), -x]),
        (["z"], [abs(x)]),
        (["z", "z"], [abs(x)] * 2),
    ]:
        np.testing.assert_array_equal(session.run(names, {"x": x}), expected)


@pytest.mark.parametrize("extents", [["N", 2, None], ["batch-size", 3, "a b"], [None, "2*W", "-1"], [], ["d0", "?", 7]])
def test_extents_are_those_of_the_file(extents):
    ports = {name: (TensorProto.FLOAT, extents) for name in "xy"}
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ports["x"]}, {"y": ports["y"]})
    session = ort.InferenceSession(made.SerializeToString())
    for port in (session.get_inputs()[0], session.get_outputs()[0]):
        assert port.shape == extents


def test_metadata(upsample):
    made = onnx.ModelProto()
    made.CopyFrom(upsample[0])
    made.producer_name, made.domain = "maker", "org.example"
    made.model_version, made.doc_string, made.graph.doc_string = 7, "what it does", "how"
    made.graph.name = "net"
    helper.set_model_props(made, {"author": "somebody", "licence": "any"})
    about = ort.InferenceSession(made.SerializeToString()).get_modelmeta()
    assert (about.producer_name, about.domain) == ("maker", "org.example")
    assert (about.version, about.description) == (7, "what it does")
    assert (about.graph_name, about.graph_description) == ("net", "how")
    assert about.custom_metadata_map == {"author": "somebody", "licence": "any"}


def test_inputs_with_defaults_are_overridable_initializers():
    made = model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (TensorProto.FLOAT, [3]), "factor": (TensorProto.FLOAT, [1])},
        {"y": (TensorProto.FLOAT, [3])},
        {"factor": np.array([2], np.float32)},
    )
    session = ort.InferenceSession(made.SerializeToString())
    assert [port.name for port in session.get_inputs()] == ["x"]
    assert [port.name for port in session.get_overridable_initializers()] == ["factor"]
    x = np.ones(3, np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)
    np.testing.assert_array_equal(session.run(None, {"x": x, "factor": np.array([5], np.float32)})[0], 5 * x)


def test_free_dimensions_are_fixed_by_name(upsample):
    made, expected = upsample
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("N", 1)
    with pytest.raises(ort.ArgumentError, match="extent W, too"):
        ort.InferenceSession(made.SerializeToString(), options)
    options.add_free_dimension_override_by_name("W", 3)
    session = ort.InferenceSession(made.SerializeToString(), options)
    assert session.get_inputs()[0].shape == [1, 2, 5, 3]
    x = random(1, 2, 5, 3)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"\[1, 2, 5, 3\]"):
        session.run(None, {"x": random(1, 2, 5, 4)})


def test_bound_arrays_are_read_and_written(upsample, session):
    expected = upsample[1]
    x = random(1, 2, 5, 3)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    with pytest.raises(ort.TconvcError, match="comes first"):
        binding.copy_outputs_to_cpu()
    session.run_with_iobinding(binding)
    (y,) = binding.copy_outputs_to_cpu()
    np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-5)
    assert binding.get_outputs()[0].shape() == [1, 3, 10, 6]
    binding.clear_binding_outputs()
    out = ort.OrtValue.ortvalue_from_shape_and_type([1, 3, 10, 6], np.float32)
    binding.bind_ortvalue_output("y", out)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(out.numpy(), y)
    # Arrays are read when the network runs, not when they are bound.
    x *= 2
    session.run_with_iobinding(binding)
    np.testing.assert_allclose(out.numpy(), 2 * y, rtol=1e-5, atol=1e-5)
    binding.clear_binding_inputs()
    with pytest.raises(ValueError, match="`x`.* is missing"):
        session.run_with_iobinding(binding)


def test_memory_is_bound_by_its_address(upsample, session):
    x, y = random(1, 2, 5, 3), np.empty([1, 3, 10, 6], np.float32)
    binding = session.io_binding()
    for kind in (np.float32, TensorProto.FLOAT):
        y[:] = 0
        binding.bind_input("x", "cpu", 0, kind, x.shape, x.ctypes.data)
        binding.bind_output("y", "cpu", 0, kind, y.shape, y.ctypes.data)
        session.run_with_iobinding(binding)
        np.testing.assert_allclose(y, upsample[1](x), rtol=1e-5, atol=1e-5)


def test_values(upsample, session):
    x = random(1, 2, 5, 3)
    value = ort.OrtValue.ortvalue_from_numpy(x)
    assert (value.shape(), value.data_type(), value.device_name()) == ([1, 2, 5, 3], "tensor(float)", "cpu")
    assert value.data_ptr() == x.ctypes.data and value.tensor_size_in_bytes() == x.nbytes
    (y,) = session.run_with_ort_values(["y"], {"x": value})
    np.testing.assert_allclose(y.numpy(), upsample[1](x), rtol=1e-5, atol=1e-5)
    value.update_inplace(x + 1)
    np.testing.assert_array_equal(value.numpy(), x)
    with pytest.raises(ValueError, match="float64"):
        value.update_inplace(x.astype(np.float64))


@pytest.mark.parametrize(
    ("kind", "spelled"),
    [
        (TensorProto.DOUBLE, "double"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT64, "int64"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.STRING, "string"),
    ],
)
def test_types_are_spelled_as_there(kind, spelled):
    assert ort.InferenceSession(identity(kind, [2]).SerializeToString()).get_inputs()[0].type == f"tensor({spelled})"


def test_what_a_call_gets_wrong_is_said(session):
    x = random(1, 2, 5, 3)
    for feed, names, text in [
        ({"x": x}, ["z"], "no output `z`; its outputs are `y`"),
        ({"x": x, "u": x}, None, r"no input `u`; its inputs are `x` f32\[N, 2, 5, W\]"),
        ({"x": x.astype(np.float64)}, None, r"`x` f32\[N, 2, 5, W\] is expected, f64\[1, 2, 5, 3\] is given"),
        ({"x": x[0]}, None, r"f32\[2, 5, 3\] is given"),
        ({"x": random(1, 3, 5, 3)}, None, r"f32\[1, 3, 5, 3\] is given"),
        ({}, None, r"input `x` f32\[N, 2, 5, W\] is missing"),
    ]:
        with pytest.raises(ValueError, match=text):
            session.run(names, feed)
    with pytest.raises(ort.TconvcError, match="no/such.onnx"):
        ort.InferenceSession("no/such.onnx")
    with pytest.raises(ort.TconvcError, match="int is given"):
        ort.InferenceSession(3)


def test_what_is_not_here_is_refused_by_name(upsample, session):
    made = upsample[0].SerializeToString()
    x = random(1, 2, 5, 3)
    options = ort.SessionOptions()
    for call, kind, text in [
        (lambda: ort.InferenceSession(made, providers=["CUDAExecutionProvider"]), ValueError, "CUDAExecutionProvider"),
        (lambda: ort.InferenceSession(made, providers=[("CPUExecutionProvider", {"a": 1})]), ValueError, "option `a`"),
        (lambda: ort.InferenceSession(made, disabled_optimizers=["x"]), ValueError, "disabled_optimizers"),
        (lambda: ort.InferenceSession(made, sess_options=3), ValueError, "SessionOptions"),
        (lambda: setattr(options, "enable_profiling", True), ValueError, "enable_profiling"),
        (lambda: setattr(options, "optimized_model_filepath", "x"), ValueError, "optimized_model_filepath"),
        (lambda: setattr(options, "intra_op_threads", 1), AttributeError, "intra_op_threads"),
        (lambda: options.register_custom_ops_library("x"), AttributeError, "register_custom_ops_library"),
        (lambda: options.add_session_config_entry("a.b", "1"), ValueError, "a.b"),
        (lambda: session.end_profiling(), AttributeError, "end_profiling"),
        (lambda: session.run(None, {"x": x}, object()), ValueError, "RunOptions"),
        (lambda: session.io_binding().bind_output("y", "cuda"), ValueError, "cuda"),
        (lambda: session.io_binding().bind_cpu_input("u", x), ValueError, "no input `u`"),
        (lambda: ort.OrtValue.ortvalue_from_numpy(x, "cuda"), ValueError, "cuda"),
        (lambda: ort.LoraAdapter, AttributeError, "LoraAdapter"),
    ]:
        with pytest.raises(kind, match=text):
            call()


def test_sessions_are_pickled(upsample):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(upsample[0].SerializeToString(), options)
    x = random(1, 2, 5, 3)
    for other in (pickle.loads(pickle.dumps(session)), copy.deepcopy(session)):
        np.testing.assert_array_equal(other.run(None, {"x": x}), session.run(None, {"x": x}))
        assert other.get_modelmeta() == session.get_modelmeta()
        assert other.get_session_options().intra_op_num_threads == 1


def test_it_gives_what_onnxruntime_gives(upsample, fsrcnn):
    real = pytest.importorskip("onnxruntime")
    x = random(2, 2, 5, 3)
    for source, feed in [(upsample[0].SerializeToString(), {"x": x}), (str(fsrcnn[0]), {"low": fsrcnn[1]})]:
        ours, theirs = ort.InferenceSession(source), real.InferenceSession(source)
        for mine, other in zip(
            ours.get_inputs() + ours.get_outputs(), theirs.get_inputs() + theirs.get_outputs(), strict=True
        ):
            assert (mine.name, mine.type, mine.shape) == (other.name, other.type, other.shape)
        about, wanted = ours.get_modelmeta(), theirs.get_modelmeta()
        # Where a file has no version, theirs is the largest integer.
        for field in set(about._fields) - {"version"}:
            assert getattr(about, field) == getattr(wanted, field), field
        for mine, other in zip(ours.run(None, feed), theirs.run(None, feed), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=2e-4)
