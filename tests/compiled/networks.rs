//! Random networks, such as decoders are made of, compiled and against the reference interpreter.

use crate::support::{FORMS, cases, check_reasons, compiler, targets};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;
use tconvc::{Compiler, Form, Model, Tensor, TensorView};
use tconvc_ir::{Graph, interp};
use tconvc_testing::{check_close, graphs, inputs, symbolic_graphs};

/// Share of an output's largest magnitude by which floats may differ: sums are ordered otherwise than in the definition.
const TOLERANCE: f64 = 1e-4;

fn runner(default: usize) -> TestRunner {
    exactly(cases(default * 10) / 10)
}

pub fn exactly(cases: usize) -> TestRunner {
    TestRunner::new_with_rng(
        Config { cases: cases as u32, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    )
}

fn views(tensors: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect()
}

/// Without the nodes that no output needs: what is never computed cannot fail.
pub fn live(mut graph: Graph) -> Graph {
    let unread = |graph: &Graph, value| graph.users(value).is_empty() && !graph.is_output(value);
    loop {
        let dead =
            |node: &tconvc_ir::Node| node.outputs().iter().flatten().all(|&value| unread(&graph, value));
        let value = graph.nodes().find(|node| dead(node)).and_then(|node| *node.outputs().first()?);
        let Some(node) = value.and_then(|value| graph.producer(value)) else { break };
        graph.remove_node(node);
    }
    graph.remove_unused_values();
    graph
}

fn check(graph: &Graph, compiler: &Compiler, seed: u64) -> Result<(), String> {
    let inputs = inputs(graph, seed).map_err(|error| error.to_string())?;
    let named: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let compiled = compiler.compile(&Model::from_graph(graph.clone())).map_err(|error| error.to_string())?;
    let outputs = compiled.run(views(&inputs));
    check_reasons(&compiled.report())?;
    // With open shapes, numbers may turn out not to fit: then both must say so.
    let (expected, outputs) = match (interp::run(graph, &named), outputs) {
        (Ok(expected), Ok(outputs)) => (expected, outputs),
        (Err(_), Err(_)) => return Ok(()),
        (Err(error), Ok(_)) => return Err(format!("ran, but the interpreter says: {error}")),
        (Ok(_), Err(error)) => return Err(error.to_string()),
    };
    let got: Vec<(String, Tensor)> =
        outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    check_close(&got, &expected, TOLERANCE)
}

#[test]
fn random_networks_agree_with_the_interpreter() {
    let targets = targets();
    let turns = Cell::new(0);
    let result = runner(120).run(&graphs(), |graph| {
        let turn = turns.replace(turns.get() + 1);
        let form = [FORMS.as_slice(), &[Form::Auto]].concat()[turn % 4];
        let target = &targets[turn % targets.len()];
        let compiler = Compiler::new().form(form).target(target.clone()).threads(1 + turn % 2);
        check(&live(graph), &compiler, 3)
            .map_err(|problem| TestCaseError::fail(format!("{form}, {target}: {problem}")))
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Extents that stay open until the call.
#[test]
fn random_networks_with_open_shapes() {
    let result = runner(40)
        .run(&symbolic_graphs(), |graph| check(&live(graph), &compiler(), 4).map_err(TestCaseError::fail));
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Whole decoders under every pass, then with each pass left out in turn: each must be right alone, and none may hide what
/// another gets wrong. `TCONVC_DECODERS=2000` sets the number of networks.
#[test]
fn decoders_with_each_pass_left_out() {
    let count = std::env::var("TCONVC_DECODERS").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    let passes: Vec<&str> = tconvc_passes::pipeline::passes().iter().map(|pass| pass.about().name).collect();
    let turns = Cell::new(0);
    let all = proptest::strategy::Union::new([graphs().boxed(), symbolic_graphs().boxed()]);
    let result = exactly(count).run(&all, |graph| {
        let turn = turns.replace(turns.get() + 1);
        let (graph, compiler) = (live(graph), compiler().threads(1 + turn % 2));
        check(&graph, &compiler, 5)
            .map_err(|problem| TestCaseError::fail(format!("all passes: {problem}")))?;
        for pass in &passes {
            check(&graph, &compiler.clone().without_pass(pass), 5)
                .map_err(|problem| TestCaseError::fail(format!("without {pass}: {problem}")))?;
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
