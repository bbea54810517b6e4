"""Random layers for differential.py that move data by data, or whose extents follow from it: indices, orders, sequences of
steps, shapes that are computed."""
import numpy as np
from onnx import helper

from random_layers import Value


def some(net, least=1):
    return net.pick(lambda v: v.is_float and len(v.shape) >= least and 0 not in v.shape and np.prod(v.shape) < 4000)


def indexed(net):
    x = some(net)
    if x is None:
        return
    rank, axis = len(x.shape), int(net.rng.integers(len(x.shape)))
    op = net.choice(["GatherElements", "ScatterElements", "GatherND", "ScatterND", "OneHot", "Compress"])
    if op in ("GatherElements", "ScatterElements"):
        shape = [int(net.rng.integers(1, e + 1)) for e in x.shape]
        if op == "GatherElements":
            shape[axis] = int(net.rng.integers(1, 5))
        # Each place once, so that the order of writes says nothing.
        index = np.argsort(net.rng.random([*shape[:axis], x.shape[axis], *shape[axis + 1:]]), axis=axis)
        index = np.resize(index, shape) if op == "GatherElements" else np.take(index, range(shape[axis]), axis)
        names = [x.name, net.constant(index.astype(np.int64) - net.choice([0, x.shape[axis]]))]
        if op == "ScatterElements":
            names.append(net.constant(net.rng.standard_normal(shape).astype(x.dtype)))
            shape = x.shape
        net.node(op, names, x.dtype, shape, axis=axis)
    elif op in ("GatherND", "ScatterND") and rank >= 2:
        depth = int(net.rng.integers(1, rank + 1))
        count = int(np.prod(x.shape[:depth]))
        flat = net.rng.permutation(count)[: int(net.rng.integers(1, min(count, 4) + 1))]
        index = np.stack(np.unravel_index(flat, x.shape[:depth]), axis=-1).astype(np.int64)
        shape = [len(flat), *x.shape[depth:]]
        names = [x.name, net.constant(index)]
        if op == "ScatterND":
            names.append(net.constant(net.rng.standard_normal(shape).astype(x.dtype)))
            shape = x.shape
        net.node(op, names, x.dtype, shape)
    elif op == "OneHot" and rank <= 3 and net.dtype == np.float32:
        places = net.node("ArgMax", [x.name], np.int64, [*x.shape[:-1], 1], axis=-1)
        net.node(op, [places.name, net.constant(np.asarray(x.shape[-1], np.int64)),
                      net.constant(np.asarray([-1, 2], x.dtype))], x.dtype, [*x.shape[:-1], 1, x.shape[-1]])
    elif op == "Compress":
        keep = net.rng.random(x.shape[axis]) < 0.6
        shape = [int(keep.sum()) if i == axis else e for i, e in enumerate(x.shape)]
        net.node(op, [x.name, net.constant(keep)], x.dtype, shape, axis=axis)


def ordered(net):
    x = some(net)
    if x is None:
        return
    axis = int(net.rng.integers(len(x.shape)))
    op = net.choice(["TopK", "ArgMax", "ArgMin", "CumSum", "ReverseSequence"])
    if op == "TopK":
        k = int(net.rng.integers(1, x.shape[axis] + 1))
        shape = [k if i == axis else e for i, e in enumerate(x.shape)]
        outs = [net.fresh(), net.fresh("places")]
        net.nodes.append(helper.make_node(op, [x.name, net.constant(np.asarray([k], np.int64))], outs, axis=axis,
                                          largest=int(net.rng.integers(2))))
        net.values.append(Value(outs[0], x.dtype, shape))
    elif op == "CumSum" and net.dtype != np.float16:
        net.node(op, [x.name, net.constant(np.asarray(axis, np.int64))], x.dtype, x.shape,
                 exclusive=int(net.rng.integers(2)), reverse=int(net.rng.integers(2)))
    elif op == "ReverseSequence" and len(x.shape) >= 2:
        lengths = net.rng.integers(1, x.shape[0] + 1, x.shape[1])
        net.node(op, [x.name, net.constant(lengths.astype(np.int64))], x.dtype, x.shape, time_axis=0, batch_axis=1)
    elif op.startswith("Arg"):
        shape = [1 if i == axis else e for i, e in enumerate(x.shape)]
        y = net.node(op, [x.name], np.int64, shape, axis=axis)
        net.node("Cast", [y.name], net.dtype, shape, to=helper.np_dtype_to_tensor_dtype(net.dtype))


def recurrent(net):
    x = net.pick(lambda v: v.dtype == np.float32 and len(v.shape) == 3 and 0 not in v.shape and np.prod(v.shape) < 600)
    if x is None:
        return
    op, gates = net.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    directions, hidden = net.choice([1, 2]), int(net.rng.integers(1, 6))
    t, n, c = x.shape
    inputs = [x.name, net.weights([directions, gates * hidden, c]), net.weights([directions, gates * hidden, hidden])]
    if net.rng.random() < 0.6:
        inputs.append(net.weights([directions, 2 * gates * hidden], 0.3))
    if net.rng.random() < 0.3 and len(inputs) == 4:
        inputs.append(net.constant(net.rng.integers(1, t + 1, n).astype(np.int32)))
    attributes = {"linear_before_reset": int(net.rng.integers(2))} if op == "GRU" else {}
    direction = "bidirectional" if directions == 2 else net.choice(["forward", "reverse"])
    outs = [net.fresh(), net.fresh()]
    net.nodes.append(helper.make_node(op, inputs, outs, hidden_size=hidden, direction=direction, **attributes))
    net.values += [Value(outs[0], x.dtype, [t, directions, n, hidden]), Value(outs[1], x.dtype, [directions, n, hidden])]


def sums(net):
    x = some(net, 2)
    if x is None:
        return
    op = net.choice(["Einsum", "LayerNormalization", "LpNormalization", "Trilu", "PRelu", "HardSwish", "Mean"])
    if op == "Einsum" and net.dtype == np.float32 and net.opset >= 12 and len(x.shape) <= 5:
        letters = "abcde"[: len(x.shape)]
        net.node(op, [x.name, net.weights([x.shape[-1], 3])], x.dtype, [*x.shape[:-1], 3],
                 equation=f"{letters},{letters[-1]}z->{letters[:-1]}z")
    elif op == "LayerNormalization" and net.opset >= 17 and x.shape[-1] > 1 and net.dtype == np.float32:
        names = [x.name, net.weights([x.shape[-1]], 0.5), net.weights([x.shape[-1]], 0.5)]
        net.node(op, names, x.dtype, x.shape, axis=-1, epsilon=1e-2)
    elif op == "Trilu" and net.opset >= 14:
        net.node(op, [x.name, net.constant(np.asarray(int(net.rng.integers(-2, 3)), np.int64))], x.dtype, x.shape,
                 upper=int(net.rng.integers(2)))
    elif op == "PRelu" and len(x.shape) >= 2:
        net.node(op, [x.name, net.constant(net.rng.uniform(-1, 1, [x.shape[1]] + [1] * (len(x.shape) - 2)).astype(x.dtype))],
                 x.dtype, x.shape)
    elif op == "HardSwish" and net.opset >= 14:
        net.node(op, [x.name], x.dtype, x.shape)
    elif op == "Mean":
        net.node(op, [x.name, net.constant(np.ones(x.shape[-1:], x.dtype)), x.name], x.dtype, x.shape)


def computed_shape(net):
    """Extents that are looked up, computed with and put together again, as exporters write `view(size(0), -1)`."""
    x = some(net, 2)
    if x is None or net.opset < 13:
        return
    one = net.constant(np.asarray([0], np.int64))
    shape = net.node("Shape", [x.name], np.int64, [len(x.shape)])
    first = net.node("Gather", [shape.name, net.constant(np.asarray(0, np.int64))], np.int64, [], axis=0)
    first = net.node("Unsqueeze", [first.name, one], np.int64, [1])
    op = net.choice(["Reshape", "Expand", "Slice", "ConstantOfShape"])
    if op == "Reshape":
        wanted = net.node("Concat", [first.name, net.constant(np.asarray([-1], np.int64))], np.int64, [2], axis=0)
        net.node(op, [x.name, wanted.name], x.dtype, [x.shape[0], int(np.prod(x.shape[1:]))])
    elif op == "Expand" and len(x.shape) < 5:
        wanted = net.node("Concat", [first.name, shape.name], np.int64, [len(x.shape) + 1], axis=0)
        net.node(op, [x.name, wanted.name], x.dtype, [x.shape[0], *x.shape])
    elif op == "Slice":
        half = net.node("Div", [first.name, net.constant(np.asarray([2], np.int64))], np.int64, [1])
        shape = [x.shape[0] - x.shape[0] // 2, *x.shape[1:]]
        net.node(op, [x.name, half.name, first.name, one], x.dtype, shape)
    elif op == "ConstantOfShape" and net.dtype == np.float32:
        zeros = net.node(op, [shape.name], x.dtype, x.shape)
        net.node("Add", [zeros.name, x.name], x.dtype, x.shape)
    # Numbers of extents are no data of layers.
    net.values = [v for v in net.values if v.dtype != np.int64]


def found(net):
    """Places where something holds: as many as there are."""
    x = some(net, 2)
    if x is None or net.dtype != np.float32:
        return
    high = net.node("Greater", [x.name, net.constant(np.asarray(float(net.rng.normal()), x.dtype))], np.bool_, x.shape)
    net.values.pop()
    places = net.fresh()
    net.nodes.append(helper.make_node("NonZero", [high.name], [places]))
    turned = net.fresh()
    net.nodes.append(helper.make_node("Transpose", [places], [turned], perm=[1, 0]))
    values = net.fresh()
    net.nodes.append(helper.make_node("GatherND", [x.name, turned], [values]))
    net.node("ReduceSumSquare", [values], x.dtype, [1], keepdims=1)


DATA = [indexed, indexed, ordered, recurrent, sums, sums, computed_shape, computed_shape, found]
