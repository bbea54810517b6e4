"""Random quantised layers for differential.py, as exporters write them: QuantizeLinear and DequantizeLinear around a
layer, the QLinear operators, and those on integers. Scales are powers of two, so that sums are exact whatever their
order, and no rounding of one engine moves a value over the edge of a step in another."""
import numpy as np


def scale_of(net, shape=(), least=-6, most=-3, dtype=np.float32):
    return net.constant(np.exp2(net.rng.integers(least, most + 1, shape)).astype(dtype), "scale")


def zero_of(net, kind):
    return net.constant(np.asarray(net.choice([0, 0, 3, 100 if kind == "uint8" else -5]), kind), "zero")


def input_of(net):
    return net.pick(lambda v: v.dtype == np.float32 and 3 <= len(v.shape) <= 4 and min(v.shape) > 0
                    and max(v.shape[1:]) <= 24 and np.prod(v.shape) < 3000)


def quantised(net, x, kind):
    """A value of the type of eight bits, with the names of its scale and zero point."""
    scale, zero = scale_of(net), zero_of(net, kind)
    # Multiples of a step and a quarter: nothing that was computed before lies on an edge, or lies there by rounding.
    steps = net.node("Mul", [x.name, net.constant(np.asarray(64, np.float32))], np.float32, x.shape)
    whole = net.node("Round", [steps.name], np.float32, x.shape)
    shifted = net.node("Add", [whole.name, net.constant(np.asarray(0.25, np.float32))], np.float32, x.shape)
    back = net.node("Mul", [shifted.name, net.constant(np.asarray(1 / 64, np.float32))], np.float32, x.shape)
    return net.node("QuantizeLinear", [back.name, scale, zero], kind, x.shape), scale, zero


def geometry(net, x, transposed):
    rank = len(x.shape) - 2
    kernel = [int(net.rng.integers(1, 4)) for _ in range(rank)]
    strides = [int(net.rng.integers(1, 3)) for _ in range(rank)]
    begin, end = ([int(net.rng.integers(0, k)) for k in kernel] for _ in range(2))
    if transposed:
        extents = [(n - 1) * s + k - b - e for n, s, k, b, e in zip(x.shape[2:], strides, kernel, begin, end)]
    else:
        extents = [(n + b + e - k) // s + 1 for n, s, k, b, e in zip(x.shape[2:], strides, kernel, begin, end)]
    return kernel, {"kernel_shape": kernel, "strides": strides, "pads": begin + end}, extents


def qdq_layer(net):
    """DequantizeLinear of data and of weights, a layer, and QuantizeLinear behind it."""
    x = input_of(net)
    if x is None or net.opset < 13:
        return
    transposed, kind = net.rng.random() < 0.5, net.choice(["int8", "uint8"])
    kernel, attributes, extents = geometry(net, x, transposed)
    if min(extents) < 1:
        return
    cin, cout = x.shape[1], int(net.rng.integers(1, 5))
    shape = [cin, cout, *kernel] if transposed else [cout, cin, *kernel]
    q, scale, zero = quantised(net, x, kind)
    data = net.node("DequantizeLinear", [q.name, scale, zero], np.float32, x.shape)
    weights = net.constant(net.rng.integers(-127, 128, shape).astype(np.int8))
    by_channel = net.rng.random() < 0.5
    weight_scale = scale_of(net, (cout,) if by_channel else (), -9, -7)
    axis = {"axis": 1 if transposed else 0} if by_channel else {}
    inputs = [weights, weight_scale]
    if net.rng.random() < 0.5:
        inputs.append(net.constant(np.zeros((cout,) if by_channel else (), np.int8)))
    inputs = [data.name, net.node("DequantizeLinear", inputs, np.float32, shape, **axis).name]
    net.values.pop()
    if net.rng.random() < 0.5:
        bias = net.constant(net.rng.integers(-500, 500, cout).astype(np.int32))
        inputs.append(net.node("DequantizeLinear", [bias, scale_of(net, (), -13, -10)], np.float32, [cout]).name)
        net.values.pop()
    op = "ConvTranspose" if transposed else "Conv"
    y = net.node(op, inputs, np.float32, [x.shape[0], cout, *extents], **attributes)
    if net.rng.random() < 0.5:
        y = net.node("Relu", [y.name], np.float32, y.shape)
    q, scale, zero = quantised(net, y, kind)
    net.node("DequantizeLinear", [q.name, scale, zero], np.float32, y.shape)


def qlinear_conv(net):
    x = input_of(net)
    if x is None:
        return
    kernel, attributes, extents = geometry(net, x, False)
    if min(extents) < 1:
        return
    cin, cout = x.shape[1], int(net.rng.integers(1, 5))
    q, scale, zero = quantised(net, x, "uint8")
    weights = net.constant(net.rng.integers(-127, 128, [cout, cin, *kernel]).astype(np.int8))
    by_channel = (cout,) if net.rng.random() < 0.5 else ()
    inputs = [q.name, scale, zero, weights, scale_of(net, by_channel, -9, -7), net.constant(np.zeros(by_channel, np.int8)),
              scale_of(net), zero_of(net, "uint8")]
    out = inputs[-2:]
    if net.rng.random() < 0.5:
        inputs.append(net.constant(net.rng.integers(-500, 500, cout).astype(np.int32)))
    y = net.node("QLinearConv", inputs, np.uint8, [x.shape[0], cout, *extents], **attributes)
    net.node("DequantizeLinear", [y.name, *out], np.float32, y.shape)


def on_integers(net):
    """ConvInteger, MatMulInteger and QLinearMatMul."""
    x = input_of(net)
    if x is None:
        return
    op = net.choice(["ConvInteger", "MatMulInteger", "QLinearMatMul"])
    q, scale, zero = quantised(net, x, "uint8")
    weight_zero = net.constant(np.asarray(net.choice([0, 2]), np.int8))
    if op == "ConvInteger":
        kernel, attributes, extents = geometry(net, x, False)
        if min(extents) < 1:
            return
        cout = int(net.rng.integers(1, 5))
        weights = net.constant(net.rng.integers(-127, 128, [cout, x.shape[1], *kernel]).astype(np.int8))
        y = net.node(op, [q.name, weights, zero, weight_zero], np.int32, [x.shape[0], cout, *extents], **attributes)
    else:
        n = int(net.rng.integers(1, 6))
        weights = net.constant(net.rng.integers(-127, 128, [x.shape[-1], n]).astype(np.int8))
        shape = [*x.shape[:-1], n]
        if op == "QLinearMatMul":
            out = [scale_of(net), zero_of(net, "uint8")]
            inputs = [q.name, scale, zero, weights, scale_of(net, (), -9, -7), weight_zero, *out]
            y = net.node(op, inputs, np.uint8, shape)
            net.node("DequantizeLinear", [y.name, *out], np.float32, shape)
            return
        y = net.node(op, [q.name, weights, zero, weight_zero], np.int32, shape)
    real = net.node("Cast", [y.name], np.float32, y.shape, to=1)
    net.node("Mul", [real.name, scale_of(net, (), -14, -10)], np.float32, y.shape)


def halves(net):
    """Quantisation of f16, from opset 19 on."""
    x = net.pick(lambda v: v.dtype == np.float16)
    if x is None or net.opset < 19:
        return
    kind = net.choice(["int8", "uint8"])
    scale, zero = net.constant(np.asarray(0.0625, np.float16)), zero_of(net, kind)
    coarse = net.node("Mul", [x.name, net.constant(np.asarray(4, np.float16))], np.float16, x.shape)
    whole = net.node("Round", [coarse.name], np.float16, x.shape)
    q = net.node("QuantizeLinear", [whole.name, scale, zero], kind, x.shape)
    net.node("DequantizeLinear", [q.name, scale, zero], np.float16, x.shape)


def rounded_to_steps(net):
    """A pair by itself, with a scale as measurements give them."""
    x = net.pick(lambda v: v.dtype == np.float32 and np.prod(v.shape) < 3000)
    if x is None:
        return
    kind = net.choice(["int8", "uint8"])
    q, _, zero = quantised(net, x, kind)
    coarse = net.node("DequantizeLinear", [q.name, net.constant(np.asarray(0.037, np.float32)), zero], np.float32, x.shape)
    scale = net.constant(np.asarray(0.11, np.float32))
    q = net.node("QuantizeLinear", [coarse.name, scale, zero], kind, x.shape)
    net.node("DequantizeLinear", [q.name, scale, zero], np.float32, x.shape)


QUANTISED = [rounded_to_steps, qdq_layer, qdq_layer, qlinear_conv, on_integers, halves]
