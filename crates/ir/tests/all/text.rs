//! The law of the text form, `parse(print(g), Weights::of(g)) == g`, on random graphs and on the real models when they are
//! at hand.

use proptest::prelude::*;
use std::path::PathBuf;
use tconvc_ir::text::{Weights, parse, print};
use tconvc_ir::{Bindings, Dim, Graph, infer, onnx, verify::verify};
use tconvc_testing::{graphs, symbolic_graphs};

#[track_caller]
fn assert_round_trip(graph: &Graph) {
    let text = print(graph);
    let parsed = parse(&text, &Weights::of(graph)).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert!(parsed == *graph, "{text}\nparses to\n{parsed:?}");
    assert_eq!(print(&parsed), text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_print_and_parse(graph in graphs()) {
        assert_round_trip(&graph);
    }

    #[test]
    fn symbolic_graphs_print_and_parse(graph in symbolic_graphs()) {
        assert_round_trip(&graph);
    }

    /// Inference with symbols, then values for them, gives what inference gives with the values at once.
    #[test]
    fn symbols_may_be_bound_early_or_late(graph in symbolic_graphs(), extents in prop::collection::vec(1usize..7, 5)) {
        let bindings: Bindings = graph.symbols().into_iter().zip(extents).collect();
        let mut late = graph.clone();
        let mut early = graph.clone();
        for (id, _) in graph.values() {
            if graph.producer(id).is_some() {
                early.set_ty(id, tconvc_ir::ValueType::default());
            }
        }
        match (infer::bind(&mut late, &bindings), infer::bind(&mut early, &bindings)) {
            (Ok(()), Ok(())) => {
                prop_assert!(late == early, "{:?}\n{:?}", late, early);
                verify(&late).unwrap();
            }
            (Err(_), Err(_)) => {}
            (late, early) => prop_assert!(false, "late: {late:?}, early: {early:?}\n{graph:?}"),
        }
    }

    #[test]
    fn extents_print_and_parse(dim in dims()) {
        prop_assert_eq!(dim.to_string().parse::<Dim>().unwrap(), dim);
    }

    /// The normal form computes what the operations say.
    #[test]
    fn extents_bind_as_they_were_built(recipe in prop::collection::vec((0u8..5, -6i64..7), 0..8), h in 0i64..20, w in 0i64..20) {
        let bindings = Bindings::from([("H".to_owned(), h as usize), ("W".to_owned(), w as usize)]);
        let (mut dim, mut value) = (Dim::symbol("H"), h);
        for (step, number) in recipe {
            (dim, value) = match step {
                0 => (dim.add(&Dim::constant(number)).unwrap(), value + number),
                1 => (dim.mul(&Dim::constant(number)).unwrap(), value * number),
                2 => (dim.add(&Dim::symbol("W")).unwrap(), value + w),
                3 => (dim.sub(&Dim::symbol("H").mul(&Dim::constant(number)).unwrap()).unwrap(), value - h * number),
                _ => (dim.floor_div(number.abs() + 1).unwrap(), value.div_euclid(number.abs() + 1)),
            };
        }
        let bound = dim.bind(&bindings).unwrap();
        prop_assert!(bound.is_unknown() || bound.known_i64() == Some(value), "{} at {}, {} is {}", dim, h, w, value);
    }
}

fn dims() -> impl Strategy<Value = Dim> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Dim::constant),
        (-3i64..4).prop_map(Dim::constant),
        "[A-Z]|[a-z_.0-9]{1,6}|\\PC{0,4}".prop_map(|name| Dim::symbol(&name)),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| a.add(&b).unwrap_or(a)),
            pair.clone().prop_map(|(a, b)| a.sub(&b).unwrap_or(a)),
            pair.prop_map(|(a, b)| a.mul(&b).unwrap_or(a)),
            (inner, 1i64..9).prop_map(|(a, divisor)| a.floor_div(divisor).unwrap_or(a)),
        ]
    })
}

/// The folder of real networks: `TCONVC_MODELS`, or where the project keeps it beside the repository.
fn models() -> Vec<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models/real"));
    let folder = std::env::var_os("TCONVC_MODELS").map_or_else(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut models: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect();
    models.sort();
    models
}

#[test]
fn real_models_print_and_parse() {
    for path in models() {
        let mut graph = onnx::read_path(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_round_trip(&graph);
        infer::infer(&mut graph).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        verify(&graph).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_round_trip(&graph);
    }
}

#[test]
fn the_documented_example_is_printed_as_it_stands() {
    let page = include_str!("../../../../docs/text-form.md");
    let example = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut graph: Graph = example.parse().unwrap();
    infer::infer(&mut graph).unwrap();
    verify(&graph).unwrap();
    assert_eq!(print(&graph), example);
}
