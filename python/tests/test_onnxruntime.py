"""The drop-in for onnxruntime: `import tconvc as ort`."""

import numpy as np
import pytest

import tconvc as ort


def test_a_session_as_its_documentation_shows_it(upsample):
    made, expected = upsample
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("x", "tensor(float)", ["N", 2, 5, "W"])
    assert (found.name, found.type) == ("y", "tensor(float)")
    x = np.random.default_rng(1).standard_normal([2, 2, 5, 3]).astype(np.float32)
    for names in (None, [], ["y"]):
        (y,) = session.run(names, {given.name: x})
        np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-5)
    assert session.get_providers() == ["CPUExecutionProvider"] == ort.get_available_providers()


def test_bound_arrays_are_read_and_written(upsample):
    made, expected = upsample
    session = ort.InferenceSession(made.SerializeToString())
    x = np.random.default_rng(2).standard_normal([1, 2, 5, 3]).astype(np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    (y,) = binding.copy_outputs_to_cpu()
    np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-5)
    out = np.empty_like(y)
    binding.clear_binding_outputs()
    binding.bind_cpu_output("y", out)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(out, y)


def test_what_is_not_here_is_refused_by_name(upsample):
    made = upsample[0].SerializeToString()
    with pytest.raises(ort.TconvcError, match="CUDAExecutionProvider"):
        ort.InferenceSession(made, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(AttributeError, match="enable_profiling"):
        ort.SessionOptions().enable_profiling = True
    session = ort.InferenceSession(made)
    x = np.zeros([1, 2, 5, 3], np.float32)
    with pytest.raises(ort.TconvcError, match="no output `z`"):
        session.run(["z"], {"x": x})
    with pytest.raises(ort.TconvcError, match="no input `u`"):
        session.run(None, {"x": x, "u": x})
    with pytest.raises(ort.TconvcError, match="f64"):
        session.run(None, {"x": x.astype(np.float64)})
    with pytest.raises(ort.TconvcError, match="missing"):
        session.run(None, {})
    with pytest.raises(ort.TconvcError, match="run options"):
        session.run(None, {"x": x}, object())
