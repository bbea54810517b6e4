#!/usr/bin/env python3
"""Compares operators of ONNX Runtime's own domain with ONNX Runtime.

  python microsoft_cases.py TCONVC [NAME..]

Each case is a model of one `com.microsoft` operator; `TCONVC run` must give what
onnxruntime computes: 1e-4 of the maximum, one step where the result is
quantised (the runtime rounds sums of floats, or looks values up), 2e-2 where it
quantises its inputs on the way and the compiler does not. Cases that this build
of onnxruntime does not run itself are printed and not counted.

Needs: pip install -r requirements.txt
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
RANDOM = np.random.default_rng(7)


def f(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def i8(*shape):
    return RANDOM.integers(-128, 128, shape, dtype=np.int8)


def s(value, dtype=np.float32):
    return np.array(value, dtype)


def case(op, feeds, weights=(), outputs=1, slack=1e-4, domain="com.microsoft", **attributes):
    """Inputs are arrays that are given, then constants; None is absent."""
    return op, list(feeds), list(weights), outputs, slack, domain, attributes


def quantised(x, scale=0.05, zero=128):
    return [x, s(scale), s(zero, x.dtype)]


def nbits(n, k, block, bits, zeros):
    blocks = -(-k // block)
    weights = [u8(n, blocks, block * bits // 8), np.abs(f(n * blocks)) * 0.1]
    return weights + ([u8(n * (-(-blocks * bits // 8)))] if zeros else [])


def cases():
    x = f(1, 3, 6, 6)
    w, b = f(4, 3, 3, 3), f(4)
    for activation, parameters in [("Relu", []), ("LeakyRelu", [0.2]), ("Tanh", []), ("Sigmoid", []),
                                   ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4])]:
        extra = {"activation_params": parameters} if parameters else {}
        yield f"fused_conv_{activation}", case("FusedConv", [x], [w, b], activation=activation, pads=[1, 1, 1, 1], **extra)
    yield "fused_conv_sum", case("FusedConv", [x], [w, b, f(1, 4, 4, 4)], activation="Relu")
    yield "fused_matmul", case("FusedMatMul", [f(2, 3, 4), f(2, 5, 4)], transB=1, alpha=0.5)
    yield "fused_matmul_a", case("FusedMatMul", [f(4, 3), f(4, 5)], transA=1)
    yield "fused_matmul_batch", case("FusedMatMul", [f(3, 2, 4), f(2, 4, 5)], transBatchA=1)
    yield "fused_gemm", case("FusedGemm", [f(3, 4), f(4, 5), f(5)], activation="Relu", alpha=0.5)
    yield "bias_gelu", case("BiasGelu", [f(2, 5)], [f(5)])
    yield "gelu", case("Gelu", [f(2, 5)])
    yield "quick_gelu", case("QuickGelu", [f(2, 5)])
    yield "quick_gelu_alpha", case("QuickGelu", [f(2, 5)], alpha=1.0)
    yield "fast_gelu", case("FastGelu", [f(2, 5)], slack=2e-4)
    yield "fast_gelu_bias", case("FastGelu", [f(2, 5)], [f(5)], slack=2e-4)
    yield "skip_layer_norm", case("SkipLayerNormalization", [f(2, 3, 8), f(2, 3, 8)], [f(8), f(8), f(8)], epsilon=1e-3)
    yield "skip_layer_norm_sum", case("SkipLayerNormalization", [f(2, 3, 8), f(2, 3, 8)], [f(8)], outputs=[0, 3])
    yield "skip_simplified", case("SkipSimplifiedLayerNormalization", [f(2, 3, 8), f(2, 3, 8)], [f(8), f(8)], outputs=[0, 3])
    yield "simplified", case("SimplifiedLayerNormalization", [f(2, 3, 8)], [f(8)], domain="", axis=-1, epsilon=1e-3)
    ids = RANDOM.integers(0, 7, (2, 3)).astype(np.int32)
    yield "embed_layer_norm", case("EmbedLayerNormalization", [ids, (ids % 2).astype(np.int32)],
                                   [f(7, 8), f(5, 8), f(2, 8), f(8), f(8)], outputs=2)
    for bits in [4, 8]:
        for zeros in [False, True]:
            yield f"matmul_{bits}_bits_{zeros}", case("MatMulNBits", [f(2, 3, 48)], nbits(5, 48, 16, bits, zeros),
                                                      K=48, N=5, bits=bits, block_size=16)
    yield "matmul_4_bits_rest", case("MatMulNBits", [f(3, 40)], nbits(5, 40, 32, 4, True), K=40, N=5, bits=4, block_size=32)
    yield "qlinear_add", case("QLinearAdd", [u8(2, 5)], [s(0.05), s(120, np.uint8), u8(5), s(0.02), s(7, np.uint8), s(0.06), s(99, np.uint8)])
    yield "qlinear_mul", case("QLinearMul", [i8(2, 5)], [s(0.05), s(3, np.int8), i8(2, 5), s(0.02), s(-7, np.int8), s(0.06), s(9, np.int8)])
    yield "qlinear_leaky_relu", case("QLinearLeakyRelu", [u8(2, 5)], [s(0.05), s(120, np.uint8), s(0.06), s(99, np.uint8)], alpha=0.2)
    yield "qlinear_sigmoid", case("QLinearSigmoid", [u8(2, 5)], [s(0.05), s(120, np.uint8), s(1 / 256), s(0, np.uint8)])
    yield "qlinear_softmax", case("QLinearSoftmax", [u8(2, 5)], [s(0.05), s(120, np.uint8), s(1 / 256), s(0, np.uint8)], axis=-1, opset=13)
    yield "qlinear_concat", case("QLinearConcat", [], [s(0.06), s(99, np.uint8), u8(2, 3), s(0.05), s(120, np.uint8), u8(2, 4), s(0.02), s(7, np.uint8)], axis=1)
    yield "qlinear_global_pool", case("QLinearGlobalAveragePool", [u8(1, 3, 4, 4)], [s(0.05), s(120, np.uint8), s(0.02), s(99, np.uint8)], channels_last=0)
    yield "qlinear_global_pool_last", case("QLinearGlobalAveragePool", [u8(1, 4, 4, 3)], [s(0.05), s(120, np.uint8), s(0.02), s(99, np.uint8)], channels_last=1)
    yield "qlinear_average_pool", case("QLinearAveragePool", [u8(1, 3, 4, 4)], [s(0.05), s(120, np.uint8), s(0.05), s(99, np.uint8)], kernel_shape=[2, 2], strides=[2, 2])
    conv = [s(0.05), s(120, np.uint8), i8(4, 3, 3, 3), s(0.02), s(0, np.int8), s(0.3), s(99, np.uint8), RANDOM.integers(-900, 900, 4, dtype=np.int32)]
    yield "qlinear_conv_last", case("QLinearConv", [u8(1, 6, 6, 3)], conv, channels_last=1)
    yield "qgemm", case("QGemm", [u8(3, 4)], [s(0.05), s(120, np.uint8), i8(4, 5), s(0.02), s(0, np.int8), RANDOM.integers(-900, 900, 5, dtype=np.int32), s(0.05), s(99, np.uint8)])
    yield "qgemm_real", case("QGemm", [u8(3, 4)], [s(0.05), s(120, np.uint8), i8(5, 4), f(5) * 0 + 0.02, np.zeros(5, np.int8)], transB=1)
    yield "matmul_integer_to_float", case("MatMulIntegerToFloat", [u8(3, 4)], [i8(4, 5), s(0.05), s(0.02), s(120, np.uint8), s(3, np.int8), f(5)])
    yield "dynamic_matmul", case("DynamicQuantizeMatMul", [f(3, 4)], [i8(4, 5), s(0.02), s(3, np.int8), f(5)])
    lstm = [i8(1, 4, 20), i8(1, 5, 20), f(1, 40), None, None, None, None, s([0.01]), s([0], np.int8), s([0.01]), s([0], np.int8)]
    yield "dynamic_lstm", case("DynamicQuantizeLSTM", [f(3, 2, 4)], lstm, outputs=3, slack=2e-2, hidden_size=5)
    yield "conv_transpose_pads", case("ConvTransposeWithDynamicPads", [f(1, 3, 4, 4)], [f(3, 2, 4, 4), np.array([1, 1, 1, 1], np.int64), f(2)], strides=[2, 2])
    yield "attention", case("Attention", [f(2, 3, 8)], [f(8, 24), f(24)], num_heads=2)
    yield "attention_causal", case("Attention", [f(2, 3, 8)], [f(8, 24), f(24)], num_heads=2, unidirectional=1)
    keep = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    yield "attention_mask", case("Attention", [f(2, 3, 8)], [f(8, 24), f(24), keep], num_heads=2)
    yield "multi_head", case("MultiHeadAttention", [f(2, 3, 8), f(2, 5, 8), f(2, 5, 12)], [f(28)], num_heads=2)
    yield "multi_head_scale", case("MultiHeadAttention", [f(2, 3, 8), f(2, 3, 8), f(2, 3, 8)], [None, None, f(1, 2, 3, 3)], num_heads=2, scale=0.3)
    places = np.array([[0, 2, 1]], np.int64)
    yield "rotary", case("RotaryEmbedding", [f(1, 3, 8)], [places, f(4, 2), f(4, 2)], num_heads=2)


def model(op, feeds, weights, outputs, domain, attributes):
    names = [f"x{i}" for i in range(len(feeds))]
    constants = [None if value is None else numpy_helper.from_array(value, f"w{i}") for i, value in enumerate(weights)]
    wanted = list(range(outputs)) if isinstance(outputs, int) else outputs
    made = [f"y{i}" if i in wanted else "" for i in range(max(wanted) + 1)]
    node = helper.make_node(op, names + ["" if c is None else c.name for c in constants], made, domain=domain, **attributes)
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in zip(names, feeds)]
    values = [onnx.ValueInfoProto(name=f"y{i}") for i in wanted]
    graph = helper.make_graph([node], op, inputs, values, [c for c in constants if c is not None])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), dict(zip(names, feeds))


def difference(expected, found, slack):
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype}{found.shape}, expected {expected.dtype}{expected.shape}"
    a, b = expected.astype(np.float64), found.astype(np.float64)
    worst = np.abs(a - b).max(initial=0)
    allowed = slack * max(np.abs(a).max(initial=0), 1e-3) if expected.dtype.kind == "f" else 1
    return f"differs by {worst:.3g} where {allowed:.3g} are allowed" if not worst <= allowed else None


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    passed, failed, missing = 0, 0, 0
    for name, (op, feeds, weights, outputs, slack, domain, attributes) in cases():
        if only and name not in only:
            continue
        proto, inputs = model(op, feeds, weights, outputs, domain, attributes)
        try:
            session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
            expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
            types = [onnx.helper.np_dtype_to_tensor_dtype(expected[o.name].dtype) for o in proto.graph.output]
        except Exception as error:  # Says so and goes on.
            missing += 1
            print(f"{name}: onnxruntime does not run it: {' '.join(str(error).split())[:160]}")
            continue
        for output, dtype in zip(proto.graph.output, types):
            output.type.tensor_type.elem_type = dtype
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            onnx.save(proto, folder / "model.onnx")
            np.savez(folder / "in.npz", **inputs)
            command = [binary, "run", folder / "model.onnx", "--output", folder / "out.npz"]
            run = subprocess.run(command + (["--inputs", folder / "in.npz"] if inputs else []), capture_output=True, text=True)
            if run.returncode:
                problem = run.stderr.strip()[-300:]
            else:
                found = np.load(folder / "out.npz")
                problems = [difference(expected[key], found[key], slack) for key in expected]
                problem = next((problem for problem in problems if problem), None)
        passed, failed = (passed, failed + 1) if problem else (passed + 1, failed)
        if problem:
            print(f"{name}: {problem}")
    print(f"{passed} passed, {failed} failed, {missing} that onnxruntime does not run")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
