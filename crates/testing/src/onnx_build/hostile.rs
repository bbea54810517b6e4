//! Models that are well-formed and ask for more than they are worth: attributes at the edges of their types, operators that
//! make more than they take, loops in loops, functions that call functions, long names, many inputs and outputs.

use super::damage::Random;
use super::{
    Graph, Message, field, float_attribute, floats, graph_attribute, int, int_attribute, ints,
    ints_attribute, model, named_node, node, tensor_head, text_attribute, untyped, value,
};

/// Numbers at which something changes.
const EDGES: [i64; 22] = [
    0,
    1,
    2,
    3,
    5,
    7,
    16,
    17,
    64,
    255,
    1000,
    65_535,
    65_536,
    1_000_000,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    i64::MAX,
    -1,
    -2,
    i64::MIN,
];

/// Makes a model of a kind.
type Maker = fn(&mut Random) -> Message;

/// The kinds of models, each with its maker.
const KINDS: [(&str, Maker); 14] = [
    ("convolution", convolution),
    ("pool", pool),
    ("bomb", bomb),
    ("doubling", doubling),
    ("loop", loops),
    ("growing state", growing),
    ("scan", scan),
    ("branches", branches),
    ("functions", functions),
    ("ports", ports),
    ("sparse", sparse),
    ("chain", chain),
    ("resize", resize),
    ("outputs", outputs),
];

/// Number and kind of a case, for messages.
pub fn kind(case: u64) -> &'static str {
    KINDS[(case % KINDS.len() as u64) as usize].0
}

/// The model of that number: always the same.
pub fn hostile(case: u64) -> Message {
    let mut random = Random(case.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    KINDS[(case % KINDS.len() as u64) as usize].1(&mut random)
}

fn edge(random: &mut Random) -> i64 {
    *random.pick(&EDGES)
}

/// Mostly small, so that something else is reached.
fn mild(random: &mut Random) -> i64 {
    if random.below(3) == 0 { edge(random) } else { 1 + random.below(9) as i64 }
}

fn mild_list(random: &mut Random, count: usize) -> Vec<i64> {
    (0..count).map(|_| mild(random)).collect()
}

fn text_dims(dims: &[i64]) -> Vec<String> {
    dims.iter().map(ToString::to_string).collect()
}

fn input(name: &str, dims: &[i64]) -> Message {
    let dims = text_dims(dims);
    value(name, &dims.iter().map(String::as_str).collect::<Vec<_>>())
}

fn one(dims: &[i64], nodes: Vec<Message>, initializers: Vec<Message>) -> Message {
    let (inputs, outputs) = (vec![input("x", dims)], vec![untyped("y")]);
    Graph { inputs, outputs, initializers, nodes }.model(21)
}

fn convolution(random: &mut Random) -> Message {
    let axes = 1 + random.below(3);
    let (cin, cout) = (1 + random.below(4) as i64, 1 + random.below(4) as i64);
    let kernel: Vec<i64> =
        (0..axes).map(|_| 1 + random.below(if axes == 1 { 400 } else { 5 }) as i64).collect();
    let op = *random.pick(&["Conv", "ConvTranspose"]);
    let channels = if op == "Conv" { [cout, cin] } else { [cin, cout] };
    let weights = [&channels[..], &kernel].concat();
    let count = weights.iter().product::<i64>() as usize;
    let mut attributes = vec![ints_attribute("dilations", &mild_list(random, axes))];
    if random.below(2) == 0 {
        attributes.push(ints_attribute("strides", &mild_list(random, axes)));
    }
    match random.below(3) {
        0 => attributes.push(ints_attribute("pads", &mild_list(random, 2 * axes))),
        1 => {
            // As wide as the kernel.
            let pad = mild(random).unsigned_abs().min(1 << 20) as i64;
            attributes.truncate(0);
            attributes.push(ints_attribute("dilations", &vec![pad.max(1); axes]));
            attributes.push(ints_attribute("pads", &vec![pad; 2 * axes]));
        }
        _ => {}
    }
    if op == "ConvTranspose" && random.below(3) == 0 {
        attributes.push(ints_attribute("output_padding", &mild_list(random, axes)));
    }
    let extents: Vec<i64> = (0..axes).map(|_| 1 + random.below(40) as i64).collect();
    let dims = [&[1, cin][..], &extents].concat();
    one(
        &dims,
        vec![node(op, &["x", "w"], &["y"], &attributes)],
        vec![floats("w", &weights, &vec![0.5; count])],
    )
}

fn pool(random: &mut Random) -> Message {
    let axes = 1 + random.below(3);
    let op = *random.pick(&["MaxPool", "AveragePool", "LpPool"]);
    let mut attributes = vec![ints_attribute("kernel_shape", &mild_list(random, axes))];
    for name in ["strides", "dilations"] {
        if random.below(2) == 0 {
            attributes.push(ints_attribute(name, &mild_list(random, axes)));
        }
    }
    if random.below(2) == 0 {
        attributes.push(ints_attribute("pads", &mild_list(random, 2 * axes)));
    }
    attributes.push(int_attribute("ceil_mode", random.below(2) as i64));
    let dims: Vec<i64> = [1, 2].into_iter().chain((0..axes).map(|_| 1 + random.below(60) as i64)).collect();
    one(&dims, vec![node(op, &["x"], &["y"], &attributes)], vec![])
}

/// Operators that make more than they take.
fn bomb(random: &mut Random) -> Message {
    let list = |random: &mut Random, count| ints("n", &[count as i64], &mild_list(random, count));
    let scalar = |random: &mut Random| ints("n", &[], &[edge(random)]);
    let dims = [1, 2, 3, 4];
    let plain = |op: &str| node(op, &["x", "n"], &["y"], &[]);
    match random.below(12) {
        0 => one(&dims, vec![plain("Expand")], vec![list(random, 4)]),
        1 => one(&dims, vec![plain("Tile")], vec![list(random, 4)]),
        2 => one(&dims, vec![plain("Pad")], vec![list(random, 8)]),
        3 => {
            let (fill, add) =
                (node("ConstantOfShape", &["n"], &["c"], &[]), node("Add", &["x", "c"], &["y"], &[]));
            one(&dims, vec![fill, add], vec![list(random, 4)])
        }
        4 => {
            let steps = vec![
                node("Range", &["zero", "n", "step"], &["r"], &[]),
                node("Cast", &["r"], &["f"], &[int_attribute("to", 1)]),
                node("ReduceSum", &["f"], &["s"], &[]),
                node("Add", &["x", "s"], &["y"], &[]),
            ];
            let step = [1, 1, edge(random)][random.below(3)];
            one(&dims, steps, vec![ints("zero", &[], &[0]), scalar(random), ints("step", &[], &[step])])
        }
        5 => {
            let steps = vec![
                node("Cast", &["x"], &["i"], &[int_attribute("to", 7)]),
                node("OneHot", &["i", "n", "values"], &["y"], &[]),
            ];
            one(&dims, steps, vec![scalar(random), floats("values", &[2], &[0.0, 1.0])])
        }
        6 => {
            let count = [1000, 30_000, 1 << 20][random.below(3)];
            let outer = node("MatMul", &["x", "r"], &["y"], &[]);
            let row = node("Transpose", &["x"], &["r"], &[ints_attribute("perm", &[1, 0])]);
            one(&[count, 1], vec![row, outer], vec![])
        }
        7 => {
            let count = [300, 3000, 60_000][random.below(3)];
            let pairs = node("Sub", &["x", "c"], &["d"], &[]);
            let column = node("Unsqueeze", &["x", "n"], &["c"], &[]);
            let sum = node("ReduceMax", &["d"], &["y"], &[int_attribute("keepdims", 0)]);
            one(&[count], vec![column, pairs, sum], vec![ints("n", &[1], &[1])])
        }
        8 => {
            let attributes = [int_attribute("periodic", 1)];
            let window = node("HannWindow", &["n"], &["w"], &attributes);
            let sum = node("ReduceMax", &["w"], &["s"], &[]);
            one(&dims, vec![window, sum, node("Add", &["x", "s"], &["y"], &[])], vec![scalar(random)])
        }
        9 => {
            let gather = node("Gather", &["x", "i"], &["y"], &[int_attribute("axis", 3)]);
            let indices = node("Expand", &["zero", "n"], &["i"], &[]);
            one(&dims, vec![indices, gather], vec![ints("zero", &[1], &[0]), list(random, 3)])
        }
        10 => one(&dims, vec![plain("CenterCropPad")], vec![list(random, 4)]),
        _ => {
            let nodes = vec![
                node("Expand", &["x", "n"], &["e"], &[]),
                node("ReduceMean", &["e"], &["m"], &[int_attribute("keepdims", 0)]),
                node("Mul", &["x", "m"], &["y"], &[]),
            ];
            one(&dims, nodes, vec![list(random, 4)])
        }
    }
}

/// Every node makes twice of what it gets.
fn doubling(random: &mut Random) -> Message {
    let count = 1 + random.below(40);
    let name = |index: usize| if index == 0 { "x".into() } else { format!("v{index}") };
    let mut nodes: Vec<Message> = (0..count)
        .map(|index| {
            let (from, to) = (name(index), name(index + 1));
            match random.below(3) {
                0 => node("Concat", &[&from, &from], &[&to], &[int_attribute("axis", 1)]),
                1 => node("Tile", &[&from, "n"], &[&to], &[]),
                _ => node("Resize", &[&from, "", "s"], &[&to], &[]),
            }
        })
        .collect();
    nodes.push(if random.below(2) == 0 {
        node("ReduceSum", &[&name(count)], &["y"], &[])
    } else {
        node("Relu", &[&name(count)], &["y"], &[])
    });
    one(&[1, 2, 3, 4], nodes, vec![ints("n", &[4], &[1, 1, 1, 2]), floats("s", &[4], &[1.0, 1.0, 2.0, 1.0])])
}

/// A graph of a loop: the number of the round, whether to go on, and `a`.
fn body(nodes: Vec<Message>, initializers: Vec<Message>, outputs: &[&str]) -> Message {
    let scalar = |name: &str, dtype: i64| {
        let ty = [int(1, dtype), field(2, [])].concat();
        [field(1, name), field(2, field(1, ty))].concat()
    };
    let inputs = vec![scalar("i", 7), scalar("c", 9), untyped_float("a")];
    let outputs = outputs.iter().map(|name| untyped(name)).collect();
    Graph { inputs, outputs, initializers, nodes }.encode()
}

/// The declaration of floats of any shape.
fn untyped_float(name: &str) -> Message {
    [field(1, name), field(2, field(1, int(1, 1)))].concat()
}

fn repeated(
    trip: Option<i64>,
    body: &Message,
    nodes: &mut Vec<Message>,
    initializers: &mut Vec<Message>,
    level: usize,
) {
    let (count, condition) = (format!("trip{level}"), format!("go{level}"));
    if let Some(trip) = trip {
        initializers.push(ints(&count, &[], &[trip]));
    }
    initializers.push([tensor_head(&condition, 9, &[]), field(9, [1u8])].concat());
    let first = if trip.is_some() { count.as_str() } else { "" };
    let from = if level == 0 { "x" } else { "a" };
    let to = if level == 0 { "y" } else { "b" };
    nodes.push(node("Loop", &[first, &condition, from], &[to], &[graph_attribute("body", body)]));
}

/// Loops in loops, some of them without an end.
fn loops(random: &mut Random) -> Message {
    let depth = 1 + random.below(9);
    let mut inner = vec![node("Relu", &["a"], &["b"], &[])];
    let mut initializers = vec![];
    for level in (0..depth).rev() {
        let mut nodes = std::mem::take(&mut inner);
        nodes.insert(0, node("Identity", &["c"], &["d"], &[]));
        let body = body(nodes, std::mem::take(&mut initializers), &["d", "b"]);
        let trip = match random.below(4) {
            0 => None,
            1 => Some(edge(random)),
            _ => Some(1 + random.below(300) as i64),
        };
        repeated(trip, &body, &mut inner, &mut initializers, level);
    }
    one(&[2, 3], inner, initializers)
}

/// A loop whose state, or what it collects, grows.
fn growing(random: &mut Random) -> Message {
    let grow = match random.below(3) {
        0 => node("Concat", &["a", "a"], &["b"], &[int_attribute("axis", 0)]),
        1 => node("Tile", &["a", "n"], &["b"], &[]),
        _ => node("Identity", &["a"], &["b"], &[]),
    };
    let nodes = vec![node("Identity", &["c"], &["d"], &[]), grow, node("Expand", &["a", "to"], &["s"], &[])];
    let to = [4, 1 << 10, 1 << 20, 1 << 26][random.below(4)];
    let initializers = vec![ints("n", &[2], &[1, 2]), ints("to", &[3], &[to, 1, 1])];
    let collects = random.below(2) == 0;
    let body = body(nodes, initializers, if collects { &["d", "b", "s"] } else { &["d", "b"] });
    let outputs: &[&str] = if collects { &["y", "z"] } else { &["y"] };
    let step = node("Loop", &["trip", "go", "x"], outputs, &[graph_attribute("body", &body)]);
    let go = [tensor_head("go", 9, &[]), field(9, [1u8])].concat();
    let trip = if random.below(2) == 0 { edge(random) } else { random.below(60) as i64 };
    one(&[2, 3], vec![step], vec![ints("trip", &[], &[trip]), go])
}

fn scan(random: &mut Random) -> Message {
    let rows = [1, 100, 10_000, 300_000][random.below(4)];
    let inner = Graph {
        inputs: vec![untyped_float("a"), untyped_float("row")],
        outputs: vec![untyped("b"), untyped("s")],
        initializers: vec![ints("to", &[2], &[[1, 100, 10_000][random.below(3)], 3])],
        nodes: vec![node("Add", &["a", "row"], &["b"], &[]), node("Expand", &["row", "to"], &["s"], &[])],
    };
    let attributes = [graph_attribute("body", &inner.encode()), int_attribute("num_scan_inputs", 1)];
    let scan = node("Scan", &["zero", "x"], &["last", "y"], &attributes);
    one(&[rows, 3], vec![scan], vec![floats("zero", &[3], &[0.0; 3])])
}

/// An If in an If, whose condition may be known or not.
fn branches(random: &mut Random) -> Message {
    let depth = 1 + random.below(40);
    let fan = 1 + random.below(2);
    let mut nodes = vec![node("Relu", &["x"], &["r"], &[])];
    let mut made = "r".to_owned();
    for level in 0..depth.min(if fan == 2 { 12 } else { 40 }) {
        let inner = Graph { outputs: vec![untyped(&made)], nodes, ..Graph::default() }.encode();
        let other = Graph {
            outputs: vec![untyped("o")],
            nodes: vec![node("Neg", &["x"], &["o"], &[])],
            ..Graph::default()
        };
        let other = if fan == 2 { inner.clone() } else { other.encode() };
        let branches = [graph_attribute("then_branch", &inner), graph_attribute("else_branch", &other)];
        made = format!("m{level}");
        nodes = vec![node("If", &["q"], &[&made], &branches)];
    }
    let question = vec![
        node("ReduceSum", &["x"], &["sum"], &[int_attribute("keepdims", 0)]),
        node("Greater", &["sum", "limit"], &["q"], &[]),
    ];
    nodes.splice(0..0, question);
    nodes.push(node("Identity", &[&made], &["y"], &[]));
    one(&[2, 3], nodes, vec![floats("limit", &[], &[0.5])])
}

/// Functions that call the next some times, with and without nodes, and with long names.
fn functions(random: &mut Random) -> Message {
    let depth = 1 + random.below(18);
    let calls = 1 + random.below(10);
    let letters = [1, 10, 1000, 10_000][random.below(4)];
    let label = "n".repeat(letters);
    let empty = random.below(2) == 0;
    let name = |level: usize| format!("f{level}");
    let functions: Vec<Message> = (0..depth)
        .map(|level| {
            let mut nodes = vec![];
            let mut from = "a".to_owned();
            for call in 0..calls {
                let to = if call + 1 == calls { "b".to_owned() } else { format!("{label}{call}") };
                let inner = if level + 1 == depth {
                    if empty && call + 1 < calls {
                        continue;
                    }
                    node("Relu", &[&from], &[&to], &[])
                } else {
                    let mut call = named_node(&label, &name(level + 1), &[&from], &[&to], &[]);
                    call.extend(field(7, "d"));
                    call
                };
                nodes.push(inner);
                from = to;
            }
            let nodes: Message = nodes.iter().flat_map(|node| field(7, node)).collect();
            let import = field(9, int(2, 21));
            let own = field(9, [field(1, "d"), int(2, 1)].concat());
            [field(1, name(level)), field(4, "a"), field(5, "b"), nodes, import, own, field(10, "d")].concat()
        })
        .collect();
    let mut call = node(&name(0), &["x"], &["y"], &[]);
    call.extend(field(7, "d"));
    let graph = Graph {
        inputs: vec![input("x", &[2, 3])],
        outputs: vec![untyped("y")],
        nodes: vec![call],
        ..Graph::default()
    };
    let import = field(8, [field(1, "d"), int(2, 1)].concat());
    [model(10, 21, &graph.encode(), &functions), import].concat()
}

/// Many inputs and outputs.
fn ports(random: &mut Random) -> Message {
    let count = [10, 300, 2000][random.below(3)];
    let letters = [1, 100][random.below(2)];
    let label = "p".repeat(letters);
    let inputs = (0..count).map(|index| input(&format!("{label}{index}"), &[1])).collect();
    let names: Vec<String> = (0..count).map(|index| format!("{label}{index}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut nodes = vec![node("Sum", &all, &["y"], &[])];
    let mut outputs = vec![untyped("y")];
    if random.below(2) == 0 {
        for name in &names {
            let to = format!("{name}o");
            nodes.push(node("Relu", &[name], &[&to], &[]));
            outputs.push(untyped(&to));
        }
    }
    Graph { inputs, outputs, nodes, ..Graph::default() }.model(21)
}

fn sparse(random: &mut Random) -> Message {
    let count = 1 + random.below(20);
    let size = [1 << 10, 1 << 20, 1 << 28, 1 << 40][random.below(4)];
    let graph = one_graph(&[1]);
    let sparse: Message = (0..count)
        .flat_map(|index| {
            let values = floats(&format!("s{index}"), &[1], &[1.0]);
            let indices = ints("", &[1], &[random.below(1 << 10) as i64]);
            field(15, [field(1, values), field(2, indices), int(3, size)].concat())
        })
        .collect();
    let sums: Message = (0..count)
        .flat_map(|index| {
            let from = if index == 0 { "x".to_owned() } else { format!("t{index}") };
            let to = if index + 1 == count { "y".to_owned() } else { format!("t{}", index + 1) };
            field(1, node("Add", &[&from, &format!("s{index}")], &[&to], &[]))
        })
        .collect();
    model(8, 21, &[graph.encode(), sparse, sums].concat(), &[])
}

fn one_graph(dims: &[i64]) -> Graph {
    Graph { inputs: vec![input("x", dims)], outputs: vec![untyped("y")], ..Graph::default() }
}

/// One operator over and over, or a few in turns.
fn chain(random: &mut Random) -> Message {
    let count = [3, 50, 400][random.below(3)];
    let dims = [1, 2, 3 + random.below(40) as i64, 4];
    let ops = [
        "Sigmoid",
        "Softmax",
        "Erf",
        "Transpose",
        "Identity",
        "CumSum",
        "Gelu",
        "LpNormalization",
        "Neg",
        "Mish",
    ];
    let own: Vec<&str> = (0..=random.below(3)).map(|_| *random.pick(&ops)).collect();
    let name = |index: usize| match index {
        0 => "x".to_owned(),
        _ if index == count => "y".to_owned(),
        _ => format!("v{index}"),
    };
    let nodes = (0..count).map(|index| {
        let (op, from, to) = (own[index % own.len()], name(index), name(index + 1));
        let inputs: &[&str] = if op == "CumSum" { &[&from, "axis"] } else { &[&from] };
        let attributes = match op {
            "LpNormalization" => vec![int_attribute("p", 2)],
            _ => vec![],
        };
        node(op, inputs, &[&to], &attributes)
    });
    one(&dims, nodes.collect(), vec![ints("axis", &[], &[2])])
}

fn resize(random: &mut Random) -> Message {
    let mode = *random.pick(&["nearest", "linear", "cubic"]);
    let coordinates = *random.pick(&["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]);
    let attributes = [
        text_attribute("mode", mode),
        text_attribute("coordinate_transformation_mode", coordinates),
        int_attribute("antialias", i64::from(mode != "nearest") * random.below(2) as i64),
        float_attribute("cubic_coeff_a", [-0.75, 1e30][random.below(2)]),
    ];
    let long = [7, 1000, 1 << 20][random.below(3)];
    let dims = [1, 1, 2, long];
    if random.below(2) == 0 {
        let scale = *random.pick(&[1e-9, 1e-4, 0.1, 0.5, 1.5, 3.0, 1000.0, 1e9, f32::MAX]);
        let scales = floats("n", &[4], &[1.0, 1.0, 1.0, scale]);
        return one(&dims, vec![node("Resize", &["x", "", "n"], &["y"], &attributes)], vec![scales]);
    }
    let sizes = ints("n", &[4], &[1, 1, 2, edge(random)]);
    one(&dims, vec![node("Resize", &["x", "", "", "n"], &["y"], &attributes)], vec![sizes])
}

/// Many outputs that are all large.
fn outputs(random: &mut Random) -> Message {
    let count = 1 + random.below(40);
    let size = [1 << 10, 1 << 20, 1 << 24, 1 << 28][random.below(4)];
    let names: Vec<String> = (0..count).map(|index| format!("y{index}")).collect();
    let nodes = names.iter().map(|name| node("Expand", &["x", "n"], &[name], &[])).collect();
    let outputs = names.iter().map(|name| untyped(name)).collect();
    Graph { inputs: vec![input("x", &[1])], outputs, nodes, initializers: vec![ints("n", &[1], &[size])] }
        .model(21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_always_the_same() {
        for case in 0..200 {
            assert_eq!(hostile(case), hostile(case), "{}", kind(case));
        }
    }
}
