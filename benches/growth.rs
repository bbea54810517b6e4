//! How reading, printing, explaining and exporting grow with a model: nodes in a row, nodes side by side, inputs, constants, and
//! calls of functions, 1,000 to 100,000 of them. Prints the times and the exponent of the last step: 1 is linear.
//!
//! `cargo bench -p tconvc-benches --bench growth -- outputs` times what has `outputs` in its name.

use std::io::Write;
use std::time::Instant;
use tconvc::{Budget, Compiler, Limits, Model};
use tconvc_testing::onnx_build::{Graph, Message, field, floats, int, model, node, value};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Makes a model of so many.
type Maker = fn(usize) -> Message;

/// The kinds of models.
const KINDS: [(&str, Maker); 6] = [
    ("nodes in a row", chain),
    ("outputs", outputs),
    ("inputs", inputs),
    ("inputs passed on", passed),
    ("constants", constants),
    ("calls of a function", calls),
];

fn one(name: &str) -> Message {
    value(name, &["1"])
}

fn names(letter: char, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{letter}{index}")).collect()
}

fn chain(count: usize) -> Message {
    let ops = ["Relu", "Sigmoid", "Softmax"];
    let name = |index: usize| if index == count { "y".into() } else { format!("x{index}") };
    let nodes = (0..count).map(|index| node(ops[index % 3], &[&name(index)], &[&name(index + 1)], &[]));
    Graph { inputs: vec![one("x0")], outputs: vec![one("y")], nodes: nodes.collect(), initializers: vec![] }
        .model(17)
}

fn outputs(count: usize) -> Message {
    let names = names('y', count);
    let nodes = names.iter().map(|name| node("Relu", &["x"], &[name], &[])).collect();
    let outputs = names.iter().map(|name| one(name)).collect();
    Graph { inputs: vec![one("x")], outputs, nodes, initializers: vec![] }.model(17)
}

fn inputs(count: usize) -> Message {
    let names = names('x', count);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = vec![node("Sum", &all, &["y"], &[])];
    let inputs = names.iter().map(|name| one(name)).collect();
    Graph { inputs, outputs: vec![one("y")], nodes, initializers: vec![] }.model(17)
}

fn passed(count: usize) -> Message {
    let (from, to) = (names('x', count), names('y', count));
    let nodes = from.iter().zip(&to).map(|(from, to)| node("Neg", &[from], &[to], &[])).collect();
    let [inputs, outputs] = [from, to].map(|names| names.iter().map(|name| one(name)).collect());
    Graph { inputs, outputs, nodes, initializers: vec![] }.model(17)
}

fn constants(count: usize) -> Message {
    let names = names('c', count);
    let all: Vec<&str> = std::iter::once("x").chain(names.iter().map(String::as_str)).collect();
    let nodes = vec![node("Sum", &all, &["y"], &[])];
    let initializers = names.iter().map(|name| floats(name, &[1], &[1.0])).collect();
    Graph { inputs: vec![one("x")], outputs: vec![one("y")], nodes, initializers }.model(17)
}

fn calls(count: usize) -> Message {
    let name = |index: usize| if index == count { "y".into() } else { format!("x{index}") };
    let call = |index: usize| {
        let call = node("twice", &[&name(index)], &[&name(index + 1)], &[]);
        [call, field(7, "d")].concat()
    };
    let body = [node("Relu", &["a"], &["m"], &[]), node("Neg", &["m"], &["b"], &[])];
    let body: Message = body.iter().flat_map(|node| field(7, node)).collect();
    let imports = field(9, int(2, 17));
    let function = [field(1, "twice"), field(4, "a"), field(5, "b"), body, imports, field(10, "d")].concat();
    let graph = Graph {
        inputs: vec![one("x0")],
        outputs: vec![one("y")],
        nodes: (0..count).map(call).collect(),
        initializers: vec![],
    };
    let own = field(8, [field(1, "d"), int(2, 1)].concat());
    [model(10, 17, &graph.encode(), &[function]), own].concat()
}

fn main() -> Result<()> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut limits = Limits::default().with_memory(8 << 30);
    (limits.nodes, limits.calls) = (1 << 20, 1 << 20);
    let mut out = std::io::stdout();
    writeln!(out, "{:<32}{:>12}{:>12}{:>12}  exponent", "", SIZES[0], SIZES[1], SIZES[2])?;
    for (kind, make) in KINDS.iter().filter(|(kind, _)| kind.contains(&filter)) {
        let mut times: [Vec<f64>; 4] = Default::default();
        for size in SIZES {
            let bytes = make(size);
            let budget = Budget::new(limits.clone());
            let compiler = Compiler::new().budget(&budget);
            let mut start = Instant::now();
            let mut lap = |times: &mut Vec<f64>| {
                times.push(start.elapsed().as_secs_f64() * 1e3);
                start = Instant::now();
            };
            let model = Model::read_bytes_with(&bytes, &budget)?;
            lap(&mut times[0]);
            let text = model.to_text();
            lap(&mut times[1]);
            compiler.explain(&model)?;
            lap(&mut times[2]);
            compiler.export(&model)?;
            lap(&mut times[3]);
            drop(text);
        }
        for (what, times) in ["read", "print", "explain", "export"].into_iter().zip(times) {
            let exponent = (times[2] / times[1]).log10();
            let [a, b, c] = times[..] else { continue };
            writeln!(out, "{kind:<22}{what:<10}{a:>9.1} ms{b:>9.1} ms{c:>9.1} ms  {exponent:.2}")?;
        }
    }
    Ok(())
}
