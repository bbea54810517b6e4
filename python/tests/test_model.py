"""Loading, compiling, running: values and errors."""

import numpy as np
import pytest
from conftest import model
from onnx import TensorProto, helper

import tconvc


def test_a_trained_network_gives_its_stored_output(fsrcnn):
    path, low, expected = fsrcnn
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
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
    loaded = tconvc.load(upsample[0])
    assert loaded.inputs == [("x", "f32", ("N", 2, 5, "W"), False)]
    assert loaded.compile(shapes={"x": np.array([1, 2, 5, 3])}).inputs[0].shape == (1, 2, 5, 3)
    assert repr(loaded) == "<tconvc.Model 'test': x f32[N, 2, 5, W] to y f32[N, 3, 10, V]>"


@pytest.mark.parametrize("form", ["auto", "scatter", "zero-insert", "sub-pixel"])
def test_every_form_computes_the_same(upsample, form):
    made, expected = upsample
    x = np.random.default_rng(2).standard_normal([1, 2, 5, 9]).astype(np.float32)
    found = tconvc.load(made).compile(form=form, shapes={"x": x.shape})
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-5, atol=1e-5)


def test_several_outputs_come_as_a_tuple_in_order():
    nodes = [helper.make_node("Neg", ["a"], ["n"]), helper.make_node("Add", ["a", "b"], ["s"])]
    ports = {name: (TensorProto.FLOAT, [2]) for name in "abns"}
    made = model(nodes, {"a": ports["a"], "b": ports["b"]}, {"s": ports["s"], "n": ports["n"]})
    compiled = tconvc.load(made).compile()
    a, b = np.array([1, 2], np.float32), np.array([10, 20], np.float32)
    for found in (compiled(a, b), compiled(a, b=b), compiled(b=b, a=a), tuple(compiled.run({"b": b, "a": a}).values())):
        assert isinstance(found, tuple)
        np.testing.assert_array_equal(found, [a + b, -a])
    assert list(compiled.run({"a": a, "b": b})) == ["s", "n"]


def test_exports_run_and_hold_no_transposed_convolution(upsample):
    made, expected = upsample
    exported = tconvc.export_onnx(made, form="sub-pixel", shapes={"x": [1, 2, 5, 4]})
    x = np.random.default_rng(3).standard_normal([1, 2, 5, 4]).astype(np.float32)
    loaded = tconvc.load(exported)
    assert "= ConvTranspose(" not in loaded.text()
    np.testing.assert_allclose(loaded.compile()(x), expected(x), rtol=1e-5, atol=1e-5)


def test_what_an_export_could_not_do_is_warned_about(upsample):
    with pytest.warns(UserWarning, match="extents are open"):
        tconvc.export_onnx(upsample[0])


def test_models_are_verified(upsample, fsrcnn):
    made, expected = upsample
    found = tconvc.verify(made, shapes={"x": [1, 2, 5, 4]}, form="sub-pixel")
    assert found and set(found.differences) == {"y"} and found.differences["y"] < 1e-5
    assert "ok      y" in str(found)
    x = np.random.default_rng(3).standard_normal([2, 2, 5, 4]).astype(np.float32)
    assert tconvc.verify(made, {"x": x}, {"y": expected(x)})
    wrong = expected(x)
    wrong[0, 0, 0, 0] += 1
    found = tconvc.verify(made, {"x": x}, {"y": wrong})
    assert not found and "element 0" in found.problems["y"] and "FAILED" in str(found)
    with pytest.raises(tconvc.TconvcError, match="`x` are open"):
        tconvc.verify(made)
    with pytest.raises(tconvc.ArgumentError, match="no output `z`"):
        tconvc.verify(made, {"x": x}, {"z": x})


def test_out_is_written_in_place(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(shapes={"x": [1, 2, 5, 4]})
    x = np.random.default_rng(4).standard_normal([1, 2, 5, 4]).astype(np.float32)
    out = np.full([1, 3, 10, 8], np.nan, np.float32)
    for call in (compiled, compiled.session()):
        out[:] = np.nan
        assert call.run({"x": x}, out={"y": out})["y"] is out
        np.testing.assert_allclose(out, expected(x), rtol=1e-5, atol=1e-5)
    assert compiled.run({"x": x}, out={})["y"] is not out
    frozen = out.copy()
    frozen.flags.writeable = False
    for wrong, text in [
        ({"z": out}, "no output `z`; its outputs are `y`"),
        ({"y": out.astype(np.float64)}, "f64"),
        ({"y": out[:, :, :, ::-1]}, "contiguous"),
        ({"y": np.empty([1, 3, 10, 9], np.float32)}, "10, 8"),
        ({"y": frozen}, "read-only"),
        ({"y": "text"}, "str"),
    ]:
        with pytest.raises(tconvc.ArgumentError, match=text):
            compiled.run({"x": x}, out=wrong)


def test_outputs_share_no_memory():
    ports = {name: (TensorProto.FLOAT, [4]) for name in "xyz"}
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    compiled = tconvc.load(model(nodes, {"x": ports["x"]}, {"y": ports["y"], "z": ports["z"]})).compile()
    memory = np.zeros(12, np.float32)
    compiled.run({"x": memory[:4]}, out={"y": memory[4:8], "z": memory[8:]})
    with pytest.raises(tconvc.ArgumentError, match="that of an input"):
        compiled.run({"x": memory[:4]}, out={"y": memory[2:6]})
    with pytest.raises(tconvc.ArgumentError, match="that of another"):
        compiled.run({"x": memory[:4]}, out={"y": memory[4:8], "z": memory[6:10]})


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
        (lambda: compiled(np.array(["a"])), r"str\[1\] is given"),
        (lambda: compiled(np.array([object()])), "builtins?.*object|object is in it"),
        (lambda: compiled(np.zeros(1, "datetime64[s]")), "datetime64"),
        (lambda: compiled(None), "NoneType is in it"),
        (lambda: compiled.run({1: x}), "strings"),
        (lambda: tconvc.load(b"no model"), "model"),
        (lambda: tconvc.load("no/such/file.onnx"), "file.onnx"),
        (lambda: tconvc.load(7), "int is given"),
        (lambda: tconvc.load(upsample[0]).compile(form="fast"), "scatter"),
        (lambda: tconvc.load(upsample[0]).compile(target="z80"), "x86-64-v3"),
        (lambda: tconvc.load(upsample[0]).compile(threads=0), "threads"),
        (lambda: tconvc.load(upsample[0]).compile(shapes={"u": [1]}), "`u`"),
        (lambda: tconvc.load(upsample[0]).compile(shapes={"x": [1, 3, 5, 4]}), "`x`"),
        (lambda: tconvc.load(upsample[0]).compile(shapes={"x": [1, 2, 5, -4]}), "extents are 0 and up"),
        (lambda: tconvc.load(upsample[0]).compile(shapes={"x": [1, 2, 5, 0.5]}), "integers"),
        (lambda: tconvc.load(fsrcnn[0]).compile(shapes={"low": [1, 1, 96, 96]}, workspace_limit=1000), "1000"),
    ]:
        with pytest.raises(tconvc.TconvcError, match=text):
            call()


def test_what_a_caller_got_wrong_is_a_value_error(upsample):
    for call in (
        lambda: tconvc.load(upsample[0]).compile()(),
        lambda: tconvc.load(upsample[0]).compile(form="fast"),
        lambda: tconvc.load(7),
    ):
        with pytest.raises(ValueError):
            call()


def test_errors_have_their_place():
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="here", domain="nowhere")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with pytest.raises(tconvc.TconvcError) as raised:
        tconvc.load(made).compile()
    assert raised.value.node == "here" and "NoSuchOperator" in raised.value.operator
    assert raised.value.attribute is None


def test_errors_have_their_attribute():
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", group=0)]
    ports = {"x": (TensorProto.FLOAT, [1, 1, 2, 2]), "y": (TensorProto.FLOAT, list("abcd"))}
    made = model(nodes, {"x": ports["x"]}, {"y": ports["y"]}, {"w": np.zeros([1, 1, 2, 2], np.float32)})
    with pytest.raises(tconvc.TconvcError) as raised:
        tconvc.load(made).compile()
    error = raised.value
    assert (error.node, error.operator, error.attribute) == ("up", "ConvTranspose", "group")


def test_interpreted_steps_can_be_denied():
    nodes = [helper.make_node("Det", ["x"], ["y"], name="det")]
    made = model(nodes, {"x": (TensorProto.FLOAT, [2, 3, 3])}, {"y": (TensorProto.FLOAT, [2])})
    x = np.array([np.eye(3), 2 * np.eye(3)], np.float32)
    compiled = tconvc.load(made).compile()
    np.testing.assert_allclose(compiled(x), [1, 8])
    assert compiled.report.data["interpreted"][0]["node"] == "det"
    assert "reason" in compiled._repr_html_()
    with pytest.raises(tconvc.TconvcError, match="Det") as raised:
        tconvc.load(made).compile(deny_interpreted=True)
    assert (raised.value.node, raised.value.operator) == ("det", "Det")


def test_optional_inputs_have_their_defaults():
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    made = model(
        [node],
        {"x": (TensorProto.FLOAT, [3]), "factor": (TensorProto.FLOAT, [1])},
        {"y": (TensorProto.FLOAT, [3])},
        {"factor": np.array([2], np.float32)},
    )
    compiled = tconvc.load(made).compile()
    x = np.array([1, 2, 3], np.float32)
    assert [port.optional for port in compiled.inputs] == [False, True]
    np.testing.assert_array_equal(compiled(x), 2 * x)
    np.testing.assert_array_equal(compiled(x, factor=np.array([5], np.float32)), 5 * x)
    np.testing.assert_array_equal(compiled(x), 2 * x)


def test_extents_that_follow_from_data():
    made = model(
        [helper.make_node("NonZero", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, [4])},
        {"y": (TensorProto.INT64, [1, "n"])},
    )
    compiled = tconvc.load(made).compile()
    for x in ([0, 1, 0, 2], [0, 0, 0, 0], [1, 2, 3, 4]):
        np.testing.assert_array_equal(compiled(np.array(x, np.float32)), np.nonzero(x))
    out = np.empty([1, 2], np.int64)
    assert compiled.run({"x": np.array([0, 1, 0, 2], np.float32)}, out={"y": out})["y"] is out
    np.testing.assert_array_equal(out, [[1, 3]])
    with pytest.raises(tconvc.ArgumentError, match=r"i64\[1, 1\], memory for i64\[1, 2\]"):
        compiled.run({"x": np.array([0, 1, 0, 0], np.float32)}, out={"y": out})


def test_reports_print_and_are_tables(fsrcnn):
    compiled = tconvc.load(fsrcnn[0]).compile(shapes={"low": [1, 1, 96, 96]}, threads=1)
    report, explanation = compiled.report, compiled.explain()
    assert "sub-pixel" in str(report) and report.data["code_bytes"] > 0
    assert compiled._repr_html_().count("<table>") == 2 and "sub-pixel" in explanation._repr_html_()
    assert explanation.data["layers"][0]["chosen"] == "sub-pixel"
    assert "&lt;" not in repr(compiled) and repr(compiled).startswith("<tconvc.CompiledModel")


def test_shapes_that_are_many_do_not_pile_up(upsample):
    made, expected = upsample
    compiled = tconvc.load(made).compile(threads=1)
    for width in range(1, 201):
        x = np.full([1, 2, 5, width], width, np.float32)
        np.testing.assert_allclose(compiled(x), expected(x), rtol=1e-5)
    assert compiled._native.programs() <= 64
