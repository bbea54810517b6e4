//! The table of docs/numerics.md: what the interpreter and compiled code make of NaN, infinities, zeros and the largest numbers.
//! `TCONVC_BLESS=1` writes it as the interpreter has it.

use crate::support::targets;
use std::fmt::Write;
use std::path::PathBuf;
use tconvc::{Compiler, Model, Tensor};

const VALUES: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 3e38, -3e38];

/// Rows: what the table calls it, and the nodes from `%x` to `%y`.
const ROWS: [(&str, &str); 29] = [
    ("Relu", "%y = Relu(%x)"),
    ("LeakyRelu", "%y = LeakyRelu(%x)"),
    ("ThresholdedRelu", "%y = ThresholdedRelu(%x)"),
    ("Elu", "%y = Elu(%x)"),
    ("Selu", "%y = Selu(%x)"),
    ("Celu", "%y = Celu(%x)"),
    ("Sigmoid", "%y = Sigmoid(%x)"),
    ("x * Sigmoid(x)", "%s = Sigmoid(%x)\n%y = Mul(%x, %s)"),
    ("HardSigmoid", "%y = HardSigmoid(%x)"),
    ("HardSwish", "%y = HardSwish(%x)"),
    ("Tanh", "%y = Tanh(%x)"),
    ("Erf", "%y = Erf(%x)"),
    ("Exp", "%y = Exp(%x)"),
    ("Log", "%y = Log(%x)"),
    ("Sqrt", "%y = Sqrt(%x)"),
    ("Reciprocal", "%y = Reciprocal(%x)"),
    ("Softplus", "%y = Softplus(%x)"),
    ("Softsign", "%y = Softsign(%x)"),
    ("Neg", "%y = Neg(%x)"),
    ("Abs", "%y = Abs(%x)"),
    ("Sign", "%y = Sign(%x)"),
    ("Floor", "%y = Floor(%x)"),
    ("Ceil", "%y = Ceil(%x)"),
    ("Round", "%y = Round(%x)"),
    ("x + x", "%y = Add(%x, %x)"),
    ("x - x", "%y = Sub(%x, %x)"),
    ("x * x", "%y = Mul(%x, %x)"),
    ("x / x", "%y = Div(%x, %x)"),
    ("MaxPool over x alone", "%y = MaxPool(%x) {kernel_shape=[1]}"),
];

fn table() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/numerics.md")
}

fn model(nodes: &str) -> Model {
    let text = format!("input %x : f32[1, 1, {}]\n{nodes}\noutput %y\n", VALUES.len());
    let mut graph: tconvc_ir::Graph = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_graph(graph)
}

fn spell(value: f32) -> String {
    match value {
        _ if value.is_nan() => "NaN".into(),
        _ if value.is_finite() && value != 0.0 && !(1e-6..1e6).contains(&value.abs()) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// Of an operator that compares with zero, either zero is right.
fn agrees(row: &str, got: f32, expected: &str) -> bool {
    let expected: f32 = expected.parse().unwrap();
    if expected == 0.0 && got == 0.0 {
        return matches!(row, "Relu" | "HardSigmoid" | "HardSwish")
            || got.is_sign_negative() == expected.is_sign_negative();
    }
    let near = (got - expected).abs() <= 1e-6 * expected.abs().max(0.1);
    (got.is_nan() && expected.is_nan()) || got == expected || near
}

#[test]
fn the_table_of_docs_numerics_holds() {
    let x = Tensor::from_vec([1, 1, VALUES.len()], VALUES.to_vec()).unwrap();
    let file = std::fs::read_to_string(table()).unwrap();
    if std::env::var_os("TCONVC_BLESS").is_some() {
        let head = file.find("|---|").unwrap();
        let end = head + file[head..].find('\n').unwrap() + 1;
        let mut text = file[..end].to_owned();
        for (row, nodes) in ROWS {
            let outputs = model(nodes).interpret([("x", x.view())]).unwrap();
            let cells: Vec<String> =
                outputs[0].elements::<f32>().unwrap().iter().map(|&y| spell(y)).collect();
            let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
        }
        std::fs::write(table(), text).unwrap();
        return;
    }
    let mut wrong = vec![];
    for (row, nodes) in ROWS {
        let line = file.lines().find_map(|line| line.strip_prefix(&format!("| {row} | ")));
        let line = line.unwrap_or_else(|| panic!("no row `{row}`"));
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let model = model(nodes);
        let mut check = |who: String, got: &Tensor| {
            for ((value, &got), cell) in VALUES.iter().zip(&*got.elements::<f32>().unwrap()).zip(&cells) {
                if !agrees(row, got, cell) {
                    wrong.push(format!("{row} of {value}: {} by {who}, the table has {cell}", spell(got)));
                }
            }
        };
        check("the interpreter".into(), &model.interpret([("x", x.view())]).unwrap()[0]);
        for target in targets() {
            let name = target.to_string();
            let compiled = Compiler::new().target(target).compile(&model).unwrap();
            check(name, &compiled.run([("x", x.view())]).unwrap()[0]);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As docs/numerics.md states it: sums in between stay finite up to this magnitude, whatever the algorithm.
#[test]
fn winograd_keeps_finite_what_is_stated() {
    let text = "input %x : f32[1, 64, 24, 24]\nconst @w : f32[64, 64, 3, 3] = seeded(3)\n\
                %y = Conv(%x, @w) {pads=[1, 1, 1, 1]}\noutput %y\n";
    let mut graph: tconvc_ir::Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    let model = Model::from_graph(graph);
    for target in targets() {
        let compiled = Compiler::new().target(target).compile(&model).unwrap();
        for value in [1e30f32, -1e30] {
            let mut data = vec![value; 64 * 24 * 24];
            data.iter_mut().step_by(7).for_each(|x| *x = -*x);
            let x = Tensor::from_vec([1, 64, 24, 24], data).unwrap();
            let outputs = compiled.run([("x", x.view())]).unwrap();
            assert!(outputs[0].elements::<f32>().unwrap().iter().all(|y| y.is_finite()));
        }
    }
}
