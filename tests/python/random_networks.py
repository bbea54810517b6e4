"""Random networks for differential.py: graphs inside of operators, functions, and the whole model with its inputs."""
import numpy as np
from onnx import helper, numpy_helper

from random_data import DATA
from random_layers import NAMES, OPSETS, PLAIN, Network, Value
from random_quantised import QUANTISED


def inner(net, inputs, size):
    """A network inside this one, which may read its values by name."""
    graph = Network(net.rng, net.opset, net.dtype, outer=net)
    graph.values = [Value(v.name, v.dtype, v.shape) for v in inputs] + list(net.values)
    for _ in range(size):
        net.choice(PLAIN)(graph)
    return graph


def same_shape(net, graph, like):
    """A value of the inner graph with the extents of another one."""
    found = [v for v in graph.values if v.dtype == like.dtype and v.shape == like.shape]
    return graph.node("Identity", [net.choice(found).name], like.dtype, like.shape)


def close(graph, name, inputs, outputs):
    infos = [[helper.make_tensor_value_info(v.name, NAMES[v.dtype], list(v.shape)) for v in group] for group in (inputs, outputs)]
    return helper.make_graph(graph.nodes, name, *infos, initializer=graph.initializers)


def if_(net):
    x = net.pick(lambda v: v.is_float and 0 not in v.shape)
    if x is None:
        return
    total = net.node("ReduceMax", [x.name], x.dtype, [], keepdims=0)
    condition = net.node("Greater", [total.name, net.constant(np.asarray(net.rng.normal(), x.dtype))], np.bool_, [])
    branches = []
    for name in ("then", "else"):
        graph = inner(net, [], int(net.rng.integers(0, 4)))
        out = same_shape(net, graph, x)
        branches.append(close(graph, net.fresh(name), [], [out]))
    net.node("If", [condition.name], x.dtype, x.shape, then_branch=branches[0], else_branch=branches[1])


def loop(net):
    x = net.pick(lambda v: v.is_float and 0 not in v.shape and np.prod(v.shape) < 2000)
    if x is None:
        return
    counter = Value(net.fresh("i"), np.int64, [])
    going, state = Value(net.fresh("go"), np.bool_, []), Value(net.fresh("s"), x.dtype, x.shape)
    graph = inner(net, [state], int(net.rng.integers(1, 4)))
    still = graph.node("Identity", [going.name], np.bool_, [])
    following = same_shape(net, graph, state)
    body = close(graph, net.fresh("body"), [counter, going, state], [still, following])
    trips = net.constant(np.asarray(int(net.rng.integers(0, 4)), np.int64))
    net.node("Loop", [trips, net.constant(np.asarray(True))], x.dtype, x.shape, body=body)
    net.nodes[-1].input.append(x.name)


def scan(net):
    x = net.pick(lambda v: v.is_float and len(v.shape) >= 2 and 0 not in v.shape)
    if x is None:
        return
    element, state = Value(net.fresh("e"), x.dtype, x.shape[1:]), Value(net.fresh("s"), x.dtype, x.shape[1:])
    graph = inner(net, [state, element], int(net.rng.integers(0, 3)))
    total = graph.node("Add", [state.name, element.name], x.dtype, state.shape)
    out = same_shape(net, graph, element)
    body = close(graph, net.fresh("body"), [state, element], [total, out])
    start = net.constant(np.zeros(state.shape, x.dtype))
    names = [net.fresh(), net.fresh()]
    net.nodes.append(helper.make_node("Scan", [start, x.name], names, body=body, num_scan_inputs=1))
    net.values += [Value(names[0], x.dtype, state.shape), Value(names[1], x.dtype, x.shape)]


def function(net):
    x = net.pick(lambda v: v.is_float)
    name = net.fresh("F")
    nodes = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node(net.choice(["Relu", "Tanh", "Neg"]), ["b"], ["c"]),
             helper.make_node("Add", ["c", "a"], ["d"])]
    net.functions.append(helper.make_function("random.test", name, ["a"], ["d"], nodes,
                                              [helper.make_opsetid("", net.opset)]))
    net.node(name, [x.name], x.dtype, x.shape, domain="random.test")


def if_apart(net):
    """Branches whose results have different extents; what follows has open ones."""
    x = net.pick(lambda v: v.is_float and len(v.shape) >= 2 and 0 not in v.shape and np.prod(v.shape) < 2000)
    if x is None:
        return
    # Which branch is taken must be known for the extents of what follows: it asks for an extent.
    rank = net.node("Size", [x.name], np.int64, [])
    net.values.pop()
    most = net.constant(np.asarray(int(np.prod(x.shape)) + int(net.rng.integers(-1, 2)), np.int64))
    condition = net.node("Less", [rank.name, most], np.bool_, [])
    net.values.pop()
    taken = int(np.prod(x.shape)) < int(numpy_helper.to_array(net.initializers[-1]))
    branches, shapes = [], []
    for name in ("then", "else"):
        graph = inner(net, [], 0)
        times = [int(net.rng.integers(1, 3)) for _ in x.shape]
        shapes.append([e * t for e, t in zip(x.shape, times)])
        out = graph.node("Tile", [x.name, graph.constant(np.asarray(times, np.int64))], x.dtype, shapes[-1])
        info = helper.make_tensor_value_info(out.name, NAMES[x.dtype], [None] * len(x.shape))
        branches.append(helper.make_graph(graph.nodes, net.fresh(name), [], [info], initializer=graph.initializers))
    net.node("If", [condition.name], x.dtype, shapes[0 if taken else 1], then_branch=branches[0], else_branch=branches[1])


def gathering_loop(net):
    """A loop that ends when a sum has grown, and keeps each of its steps."""
    x = net.pick(lambda v: v.is_float and 0 not in v.shape and len(v.shape) < 5 and np.prod(v.shape) < 1000)
    if x is None:
        return
    trips = int(net.rng.integers(0, 4))
    counter, going = Value(net.fresh("i"), np.int64, []), Value(net.fresh("go"), np.bool_, [])
    state = Value(net.fresh("s"), x.dtype, x.shape)
    graph = inner(net, [state], 1)
    last = graph.constant(np.asarray(int(net.rng.integers(0, 4)), np.int64))
    # True of the counter until it is at `last`, so the trips are known.
    still = graph.node("Less", [counter.name, last], np.bool_, [])
    graph.values.pop()
    ran = min(trips, int(numpy_helper.to_array(graph.initializers[-1])) + 1)
    following = same_shape(net, graph, state)
    kept = graph.node("Neg", [state.name], x.dtype, x.shape)
    body = close(graph, net.fresh("body"), [counter, going, state], [still, following, kept])
    names = [net.fresh(), net.fresh()]
    trip = net.constant(np.asarray(trips, np.int64))
    net.nodes.append(helper.make_node("Loop", [trip, net.constant(np.asarray(True)), x.name], names, body=body))
    net.values += [Value(names[0], x.dtype, x.shape), Value(names[1], x.dtype, [ran, *x.shape])]


def function_with_branches(net):
    """A function of the file that holds an If, and calls another one."""
    x = net.pick(lambda v: v.is_float and 0 not in v.shape)
    if x is None:
        return
    simple, name = net.fresh("F"), net.fresh("F")
    imports = [helper.make_opsetid("", net.opset), helper.make_opsetid("random.test", 1)]
    net.functions.append(helper.make_function("random.test", simple, ["a"], ["b"], [helper.make_node("Tanh", ["a"], ["b"])],
                                              imports[:1]))
    call = helper.make_node(simple, ["a"], ["t"], domain="random.test")
    then = helper.make_graph([call], "then", [], [helper.make_tensor_value_info("t", NAMES[x.dtype], None)])
    other = helper.make_graph([helper.make_node("Neg", ["a"], ["n"])], "else", [],
                              [helper.make_tensor_value_info("n", NAMES[x.dtype], None)])
    nodes = [helper.make_node("Size", ["a"], ["size"]),
             helper.make_node("Constant", [], ["most"], value=numpy_helper.from_array(np.asarray(40, np.int64))),
             helper.make_node("Less", ["size", "most"], ["small"]),
             helper.make_node("If", ["small"], ["y"], then_branch=then, else_branch=other)]
    net.functions.append(helper.make_function("random.test", name, ["a"], ["y"], nodes, imports))
    net.node(name, [x.name], x.dtype, x.shape, domain="random.test")


CONTROL = [if_, if_apart, loop, gathering_loop, scan, function, function_with_branches]


def network(rng, only=None):
    """A model, and its inputs; `only` of this type, where one is given."""
    opset = OPSETS[int(rng.integers(len(OPSETS)))]
    dtype = ["float32"] * 7 + ["float16"] * 2 + ["float64"]
    drawn = dtype[int(rng.integers(len(dtype)))]
    net = Network(rng, opset, only or drawn)
    feeds, inputs, defaults = {}, [], []
    for index in range(int(rng.integers(1, 3))):
        rank = int(rng.choice([0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 6]))
        shape = [int(rng.integers(1, 3)), int(rng.integers(1, 7)), *rng.integers(3, 11, 3), int(rng.integers(1, 3))][:rank]
        if rank and rng.random() < 0.04:
            shape[int(rng.integers(rank))] = 0
        shape = [int(e) for e in shape]
        data = rng.standard_normal(shape).astype(net.dtype)
        declared = [f"d{index}_{i}" if rng.random() < 0.2 else e for i, e in enumerate(shape)]
        name = f"x{index}"
        inputs.append(helper.make_tensor_value_info(name, NAMES[net.dtype], declared))
        net.values.append(Value(name, net.dtype, shape))
        feeds[name] = data
    for _ in range(int(rng.integers(1, 12))):
        kind = rng.random()
        net.choice(CONTROL if kind < 0.14 else QUANTISED if kind < 0.22 else DATA if kind < 0.34 else PLAIN)(net)
    # Weights that are inputs, too: defaults that a caller may override.
    for tensor in net.initializers:
        if rng.random() < 0.05:
            inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
            array = numpy_helper.to_array(tensor)
            if rng.random() < 0.5 and tensor.name not in net.fixed and array.dtype.kind == "f" and array.ndim > 0:
                feeds[tensor.name] = (array * 0.5 + array.dtype.type(0.25)).astype(array.dtype)
    made = [v for v in net.values if v.name not in feeds]
    if not made:
        return None
    outputs = {made[-1].name: made[-1]}
    for value in made:
        if rng.random() < 0.15:
            outputs[value.name] = value
    typed = [helper.make_tensor_value_info(v.name, NAMES[v.dtype], [None] * len(v.shape)) for v in outputs.values()]
    graph = helper.make_graph(net.nodes, "random", inputs, typed, initializer=net.initializers)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("random.test", 1)] if net.functions else [])
    model = helper.make_model(graph, opset_imports=imports, functions=net.functions, ir_version=8)
    return model, feeds
