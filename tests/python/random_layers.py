"""Random layers for differential.py: a network under construction, and what appends one node or a few to it."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSETS = [11, 13, 15, 17, 18, 19, 20, 21, 22, 23]
NAMES = {
    np.dtype("float32"): TensorProto.FLOAT,
    np.dtype("float16"): TensorProto.FLOAT16,
    np.dtype("float64"): TensorProto.DOUBLE,
    np.dtype("int64"): TensorProto.INT64,
    np.dtype("int32"): TensorProto.INT32,
    np.dtype("int8"): TensorProto.INT8,
    np.dtype("uint8"): TensorProto.UINT8,
    np.dtype("bool"): TensorProto.BOOL,
}
UNARY = ["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Softplus", "Erf", "Floor", "Ceil", "Round", "Sqrt",
         "Reciprocal", "Sign", "Identity", "LeakyRelu", "Elu", "HardSigmoid", "Selu", "Softsign", "Sin", "Cos"]

class Value:
    """A tensor of the network: its name, type and extents as they will be."""

    def __init__(self, name, dtype, shape):
        self.name, self.dtype, self.shape = name, np.dtype(dtype), tuple(shape)

    @property
    def is_float(self):
        return self.dtype.kind == "f"


class Network:
    """A network under construction. Inner graphs share the numbering of their outer one."""

    def __init__(self, rng, opset, dtype, outer=None):
        self.rng, self.opset, self.dtype, self.outer = rng, opset, np.dtype(dtype), outer
        self.nodes, self.initializers, self.values = [], [], []
        self.functions = [] if outer is None else outer.functions
        self.counter = [0] if outer is None else outer.counter
        # Constants that extents follow from.
        self.fixed = set() if outer is None else outer.fixed

    def fresh(self, stem="v"):
        self.counter[0] += 1
        return f"{stem}{self.counter[0]}"

    def constant(self, array, stem="w"):
        name = self.fresh(stem)
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def weights(self, shape, scale=None):
        fan = max(1, int(np.prod(shape[1:])))
        data = self.rng.standard_normal(shape) * (scale or 1 / np.sqrt(fan))
        return self.constant(data.astype(self.dtype))

    def node(self, op, inputs, dtype, shape, domain="", **attributes):
        out = self.fresh()
        self.nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        value = Value(out, dtype, shape)
        self.values.append(value)
        return value

    def pick(self, accept=lambda value: True):
        found = [value for value in self.values if accept(value)]
        # The youngest most often, so that networks become deep.
        return found[-1 - min(int(self.rng.exponential(1.2)), len(found) - 1)] if found else None

    def spatial(self):
        return self.pick(lambda v: v.is_float and 3 <= len(v.shape) <= 5 and min(v.shape) > 0)

    def choice(self, items):
        return items[int(self.rng.integers(len(items)))]


def conv(net):
    x = net.spatial()
    if x is None:
        return
    rank, cin = len(x.shape) - 2, x.shape[1]
    group = net.choice([g for g in (1, 1, 1, 2, 3, cin) if cin % g == 0])
    cout = group * int(net.rng.integers(1, 6))
    kernel = [int(net.rng.integers(1, 5)) for _ in range(rank)]
    strides = [int(net.rng.integers(1, 4)) for _ in range(rank)]
    dilations = [int(net.rng.integers(1, 3)) for _ in range(rank)]
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "group": group}
    extents = []
    style = net.choice(["pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if style != "pads" and max(dilations) == 1:
        attributes["auto_pad"] = style
        for extent, k, s in zip(x.shape[2:], kernel, strides):
            extents.append(-(-extent // s) if style != "VALID" else (extent - k) // s + 1)
    else:
        begin = [int(net.rng.integers(0, k)) for k in kernel]
        end = [int(net.rng.integers(0, k)) for k in kernel]
        attributes["pads"] = begin + end
        for extent, k, s, d, b, e in zip(x.shape[2:], kernel, strides, dilations, begin, end):
            extents.append((extent + b + e - ((k - 1) * d + 1)) // s + 1)
    if min(extents) < 1:
        return
    inputs = [x.name, net.weights([cout, cin // group, *kernel])]
    if net.rng.random() < 0.6:
        inputs.append(net.weights([cout], 0.3))
    net.node("Conv", inputs, net.dtype, [x.shape[0], cout, *extents], **attributes)


def conv_transpose(net):
    x = net.spatial()
    if x is None or np.prod(x.shape) > 4000:
        return
    rank, cin = len(x.shape) - 2, x.shape[1]
    group = net.choice([g for g in (1, 1, 1, 2, cin) if cin % g == 0])
    per_group = int(net.rng.integers(1, 5))
    kernel = [int(net.rng.integers(1, 6)) for _ in range(rank)]
    strides = [int(net.rng.integers(1, 4)) for _ in range(rank)]
    dilations = [int(net.rng.integers(1, 3)) for _ in range(rank)]
    begin = [int(net.rng.integers(0, k)) for k in kernel]
    end = [int(net.rng.integers(0, k)) for k in kernel]
    extra = [int(net.rng.integers(0, s)) for s in strides]
    extents = [(n - 1) * s + (k - 1) * d + 1 - b - e + o for n, s, k, d, b, e, o
               in zip(x.shape[2:], strides, kernel, dilations, begin, end, extra)]
    if min(extents) < 1:
        return
    inputs = [x.name, net.weights([cin, per_group, *kernel], 0.5)]
    if net.rng.random() < 0.6:
        inputs.append(net.weights([per_group * group], 0.3))
    net.node("ConvTranspose", inputs, net.dtype, [x.shape[0], per_group * group, *extents], kernel_shape=kernel,
             strides=strides, dilations=dilations, group=group, pads=begin + end, output_padding=extra)


def unary(net):
    x = net.pick(lambda v: v.is_float)
    op = net.choice(UNARY)
    if op in ("Sqrt", "Reciprocal"):
        positive = net.node("Abs", [x.name], x.dtype, x.shape)
        x = net.node("Add", [positive.name, net.constant(np.asarray(0.5, x.dtype))], x.dtype, x.shape)
    if op in ("Sin", "Cos"):
        # Of large numbers the last place is a whole turn.
        bounds = [net.constant(np.asarray(bound, x.dtype)) for bound in (-20, 20)]
        x = net.node("Clip", [x.name, *bounds], x.dtype, x.shape)
    if op == "Exp":
        x = net.node("Tanh", [x.name], x.dtype, x.shape)
    net.node(op, [x.name], x.dtype, x.shape)


def clip(net):
    x = net.pick(lambda v: v.is_float)
    low, high = sorted(net.rng.uniform(-2, 2, 2))
    net.node("Clip", [x.name, net.constant(np.asarray(low, x.dtype)), net.constant(np.asarray(high, x.dtype))],
             x.dtype, x.shape)


def binary(net):
    a = net.pick(lambda v: v.is_float)
    op = net.choice(["Add", "Sub", "Mul", "Max", "Min", "Div"])
    others = [v for v in net.values if v.dtype == a.dtype and v.shape == a.shape]
    if others and net.rng.random() < 0.5:
        b, shape = net.choice(others).name, a.shape
    else:
        small = [e if net.rng.random() < 0.5 else 1 for e in a.shape][int(net.rng.integers(0, len(a.shape) + 1)):]
        data = net.rng.uniform(0.5, 2, small)
        b, shape = net.constant(data.astype(a.dtype)), a.shape
    if op == "Div":
        b = net.constant(net.rng.uniform(0.5, 2, [a.shape[-1]] if a.shape and net.rng.random() < 0.5 else []).astype(a.dtype))
    inputs = [a.name, b] if net.rng.random() < 0.7 or op in ("Sub", "Div") else [b, a.name]
    net.node(op, inputs, a.dtype, shape)


def transpose(net):
    x = net.pick(lambda v: len(v.shape) > 1)
    if x is None:
        return
    perm = [int(p) for p in net.rng.permutation(len(x.shape))]
    net.node("Transpose", [x.name], x.dtype, [x.shape[p] for p in perm], perm=perm)


def reshape(net):
    x = net.pick(lambda v: 0 not in v.shape)
    if x is None:
        return
    total, shape = int(np.prod(x.shape, dtype=np.int64)), []
    rest = total
    for _ in range(int(net.rng.integers(0, 4))):
        divisors = [d for d in range(1, min(rest, 12) + 1) if rest % d == 0]
        shape.append(net.choice(divisors))
        rest //= shape[-1]
    shape.append(rest)
    asked = list(shape)
    if net.rng.random() < 0.5:
        asked[int(net.rng.integers(len(asked)))] = -1
    net.node("Reshape", [x.name, net.constant(np.asarray(asked, np.int64))], x.dtype, shape)


def concat(net):
    x = net.pick(lambda v: len(v.shape) >= 1)
    if x is None:
        return
    axis = int(net.rng.integers(len(x.shape)))
    other = [e if i != axis else int(net.rng.integers(0, 4)) for i, e in enumerate(x.shape)]
    data = (net.rng.standard_normal(other) * 2).astype(x.dtype)
    order = [x.name, net.constant(data)]
    if net.rng.random() < 0.5:
        order.reverse()
    shape = [e + (o if i == axis else 0) for i, (e, o) in enumerate(zip(x.shape, other))]
    net.node("Concat", order, x.dtype, shape, axis=axis if net.rng.random() < 0.5 else axis - len(x.shape))


def slice_(net):
    x = net.pick(lambda v: len(v.shape) >= 1)
    if x is None:
        return
    axis = int(net.rng.integers(len(x.shape)))
    extent, step = x.shape[axis], net.choice([1, 1, 2, 3, -1, -2])
    bounds = [int(net.rng.integers(-extent - 2, extent + 3)) for _ in range(2)]
    indices = range(extent)[slice(*bounds, step)]
    shape = [len(indices) if i == axis else e for i, e in enumerate(x.shape)]
    if step < 0 and min(bounds) < -extent:
        return
    constants = [net.constant(np.asarray([n], np.int64)) for n in (*bounds, axis, step)]
    net.node("Slice", [x.name, *constants], x.dtype, shape)


def pad(net):
    x = net.pick(lambda v: v.is_float and 1 <= len(v.shape) and 0 not in v.shape)
    if x is None:
        return
    mode = net.choice(["constant", "edge", "reflect"])
    most = [3 if mode != "reflect" else min(e - 1, 3) for e in x.shape]
    least = [-1 if mode == "constant" and e > 3 else 0 for e in x.shape]
    pads = [[int(net.rng.integers(low, high + 1)) for low, high in zip(least, most)] for _ in range(2)]
    shape = [e + b + a for e, b, a in zip(x.shape, *pads)]
    if min(shape, default=1) < 1:
        return
    inputs = [x.name, net.constant(np.asarray(pads[0] + pads[1], np.int64))]
    if mode == "constant" and net.rng.random() < 0.5:
        inputs.append(net.constant(np.asarray(1.5, x.dtype)))
    net.node("Pad", inputs, x.dtype, shape, mode=mode)


def resize(net):
    x = net.spatial()
    if x is None or len(x.shape) == 5 or np.prod(x.shape) > 3000:
        return
    rank = len(x.shape) - 2
    mode = net.choice(["nearest", "nearest", "linear", "cubic"]) if rank == 2 else net.choice(["nearest", "linear"])
    transform = net.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    attributes = {"mode": mode, "coordinate_transformation_mode": transform}
    if mode == "nearest":
        attributes["nearest_mode"] = net.choice(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"])
    # Inputs that nobody reads, but must be there in opset 11.
    region, scale = ("", "") if net.opset >= 13 else (net.constant(np.zeros(0, np.float32)) for _ in range(2))
    if net.rng.random() < 0.6:
        scales = [float(net.choice([1, 2, 3, 2])) for _ in range(rank)]
        extents = [int(n * s) for n, s in zip(x.shape[2:], scales)]
        inputs = [x.name, region, net.constant(np.asarray([1, 1, *scales], np.float32))]
        net.fixed.add(inputs[2])
    else:
        extents = [max(1, int(n * net.rng.uniform(0.5, 2.5))) for n in x.shape[2:]]
        inputs = [x.name, region, scale, net.constant(np.asarray([*x.shape[:2], *extents], np.int64))]
    net.node("Resize", inputs, x.dtype, [*x.shape[:2], *extents], **attributes)


def pool(net):
    x = net.spatial()
    if x is None:
        return
    rank = len(x.shape) - 2
    if net.rng.random() < 0.2:
        op = net.choice(["GlobalAveragePool", "GlobalMaxPool"])
        net.node(op, [x.name], x.dtype, [*x.shape[:2], *[1] * rank])
        return
    kernel = [int(net.rng.integers(1, 4)) for _ in range(rank)]
    strides = [int(net.rng.integers(1, 4)) for _ in range(rank)]
    pads = [[int(net.rng.integers(0, (k + 1) // 2)) for k in kernel] for _ in range(2)]
    extents = [(n + b + e - k) // s + 1 for n, k, s, b, e in zip(x.shape[2:], kernel, strides, *pads)]
    if min(extents) < 1 or any(n + b + e < k for n, k, b, e in zip(x.shape[2:], kernel, *pads)):
        return
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads[0] + pads[1]}
    op = net.choice(["MaxPool", "AveragePool"])
    if op == "AveragePool":
        attributes["count_include_pad"] = int(net.rng.integers(2))
    net.node(op, [x.name], x.dtype, [*x.shape[:2], *extents], **attributes)


def reduce_(net):
    x = net.pick(lambda v: v.is_float and len(v.shape) >= 1 and 0 not in v.shape)
    if x is None:
        return
    axes = sorted({int(a) for a in net.rng.integers(0, len(x.shape), 2)})
    keep = int(net.rng.integers(2))
    shape = [1 if i in axes else e for i, e in enumerate(x.shape)]
    if not keep:
        shape = [e for i, e in enumerate(x.shape) if i not in axes]
    op = net.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"])
    if net.opset >= 18 or (op == "ReduceSum" and net.opset >= 13):
        net.node(op, [x.name, net.constant(np.asarray(axes, np.int64))], x.dtype, shape, keepdims=keep)
    else:
        net.node(op, [x.name], x.dtype, shape, axes=axes, keepdims=keep)


def norm(net):
    x = net.spatial()
    if x is None:
        return
    c = x.shape[1]
    scale, bias = net.weights([c], 0.5), net.weights([c], 0.5)
    if net.rng.random() < 0.5:
        mean, variance = net.weights([c], 0.5), net.constant(net.rng.uniform(0.5, 2, c).astype(net.dtype))
        net.node("BatchNormalization", [x.name, scale, bias, mean, variance], x.dtype, x.shape, epsilon=1e-3)
    elif np.prod(x.shape[2:]) > 1:
        net.node("InstanceNormalization", [x.name, scale, bias], x.dtype, x.shape, epsilon=1e-2)


def softmax(net):
    x = net.pick(lambda v: v.is_float and len(v.shape) >= 1 and 0 not in v.shape)
    if x is not None:
        axis = int(net.rng.integers(len(x.shape)))
        net.node(net.choice(["Softmax", "LogSoftmax"]), [x.name], x.dtype, x.shape, axis=axis)


def matmul(net):
    x = net.pick(lambda v: v.is_float and len(v.shape) >= 2)
    if x is None:
        return
    n = int(net.rng.integers(1, 9))
    if len(x.shape) == 2 and net.rng.random() < 0.5:
        inputs = [x.name, net.weights([n, x.shape[1]])]
        if net.rng.random() < 0.5:
            inputs.append(net.weights([n], 0.5))
        net.node("Gemm", inputs, x.dtype, [x.shape[0], n], transB=1, alpha=0.5)
    else:
        net.node("MatMul", [x.name, net.weights([x.shape[-1], n])], x.dtype, [*x.shape[:-1], n])


def move(net):
    x = net.pick(lambda v: len(v.shape) >= 1)
    if x is None:
        return
    op = net.choice(["Unsqueeze", "Flatten", "Tile", "Expand", "Gather", "DepthToSpace", "SpaceToDepth", "Split"])
    rank, axis = len(x.shape), int(net.rng.integers(len(x.shape)))
    if op == "Unsqueeze" and net.opset >= 13 and rank < 5:
        net.node(op, [x.name, net.constant(np.asarray([axis], np.int64))], x.dtype, [*x.shape[:axis], 1, *x.shape[axis:]])
    elif op == "Flatten":
        shape = [int(np.prod(x.shape[:axis], dtype=int)), int(np.prod(x.shape[axis:], dtype=int))]
        net.node(op, [x.name], x.dtype, shape, axis=axis)
    elif op == "Tile" and np.prod(x.shape) < 1000:
        times = [int(net.rng.integers(1, 3)) for _ in x.shape]
        net.node(op, [x.name, net.constant(np.asarray(times, np.int64))], x.dtype, [e * t for e, t in zip(x.shape, times)])
    elif op == "Expand":
        net.node(op, [x.name, net.constant(np.asarray([2] + [1] * rank, np.int64))], x.dtype, [2, *x.shape]) if rank < 5 else None
    elif op == "Gather" and x.shape[axis] > 0:
        indices = net.rng.integers(-x.shape[axis], x.shape[axis], net.choice([(), (3,), (2, 2)]))
        shape = [*x.shape[:axis], *np.shape(indices), *x.shape[axis + 1:]]
        if len(shape) <= 5:
            net.node(op, [x.name, net.constant(np.asarray(indices, np.int64))], x.dtype, shape, axis=axis)
    elif op == "DepthToSpace" and rank == 4 and x.shape[1] % 4 == 0 and x.is_float and 0 not in x.shape:
        n, c, h, w = x.shape
        net.node(op, [x.name], x.dtype, [n, c // 4, 2 * h, 2 * w], blocksize=2, mode=net.choice(["DCR", "CRD"]))
    elif op == "SpaceToDepth" and rank == 4 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0 and x.is_float and 0 not in x.shape:
        n, c, h, w = x.shape
        net.node(op, [x.name], x.dtype, [n, 4 * c, h // 2, w // 2], blocksize=2)
    elif op == "Split" and net.opset >= 13 and x.shape[axis] >= 2:
        first = int(net.rng.integers(1, x.shape[axis]))
        outs = [net.fresh(), net.fresh()]
        sizes = [first, x.shape[axis] - first]
        net.nodes.append(helper.make_node("Split", [x.name, net.constant(np.asarray(sizes, np.int64))], outs, axis=axis))
        for out, size in zip(outs, sizes):
            net.values.append(Value(out, x.dtype, [size if i == axis else e for i, e in enumerate(x.shape)]))


def cast(net):
    x = net.pick()
    to = np.dtype(net.choice(["float32", "int32", "int64", "float64", "bool"]))
    if x.is_float and to.kind in "iu":
        x = net.node("Clip", [x.name, net.constant(np.asarray(-100, x.dtype)), net.constant(np.asarray(100, x.dtype))],
                     x.dtype, x.shape)
        # Whole numbers and a half: no rounding of the arithmetic before moves a value over an edge.
        x = net.node("Round", [x.name], x.dtype, x.shape)
    y = net.node("Cast", [x.name], to, x.shape, to=NAMES[to])
    if y.dtype != net.dtype:
        if y.is_float:
            # Operators are to find one type of float.
            net.values.pop()
        net.node("Cast", [y.name], net.dtype, x.shape, to=NAMES[net.dtype])


def where(net):
    x = net.pick(lambda v: v.is_float)
    condition = net.node("Greater", [x.name, net.constant(np.asarray(0.1, x.dtype))], np.bool_, x.shape)
    net.node("Where", [condition.name, x.name, net.constant(np.asarray(-0.5, x.dtype))], x.dtype, x.shape)


PLAIN = [conv, conv, conv_transpose, conv_transpose, unary, unary, clip, binary, binary, transpose, reshape, concat,
         slice_, pad, resize, pool, reduce_, norm, softmax, matmul, move, cast, where]
