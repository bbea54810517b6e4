//! The laws of the passes (see this crate's README), for every registered pass and the whole pipeline, on random graphs.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

#[cfg(test)]
mod builder;
#[cfg(test)]
mod steps;

use builder::{Builder, Random};
use proptest::prelude::*;
use std::collections::BTreeMap;
use steps::STEPS;
use tconvc_ir::{Bindings, DType, Graph, Tensor, infer, interp, text, verify};
use tconvc_passes::cost::{Cost, graph_cost};
use tconvc_passes::{Options, Pass, Signature, Verdict, optimise, pipeline};

/// Passes that keep every bit of the result.
const EXACT: &[&str] =
    &["canonicalise", "fold", "noop", "reshape", "transpose", "cse", "dce", "crop", "dequantise", "integers"];

/// Kinds and seeds of the steps of a random graph.
#[derive(Debug, Clone)]
struct Recipe {
    seed: u64,
    steps: Vec<(usize, u64)>,
}

impl Recipe {
    fn any() -> impl Strategy<Value = Self> {
        let steps = prop::collection::vec((0..STEPS.len(), any::<u64>()), 1..14);
        (any::<u64>(), steps).prop_map(|(seed, steps)| Self { seed, steps })
    }

    fn graph(&self) -> Graph {
        let mut builder = Builder::new(self.seed);
        for &(kind, seed) in &self.steps {
            builder.random = Random(seed);
            let value = STEPS[kind](&mut builder);
            builder.keep(value);
        }
        builder.finish(self.seed)
    }
}

/// What a graph gives for seeded inputs.
struct Run {
    outputs: Vec<(String, Tensor)>,
    /// Greatest magnitude of all values on the way.
    greatest: f64,
}

fn greatest(tensor: &Tensor) -> f64 {
    let values = tensor.to_f64s().unwrap_or_default();
    values.into_iter().filter(|x| x.is_finite()).fold(0.0, |most, x| x.abs().max(most))
}

fn run(graph: &Graph) -> Result<Run, String> {
    let inputs = tconvc_testing::inputs(graph, 7).map_err(|error| error.to_string())?;
    let inputs: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let mut most: f64 = 0.0;
    let outputs = interp::run_with(graph, &inputs, &mut |_, tensor| most = most.max(greatest(tensor)));
    Ok(Run { outputs: outputs.map_err(|error| error.to_string())?, greatest: most })
}

/// Whether some values are of f16, which is computed in f32 and not rounded on the way.
fn has_halves(graph: &Graph) -> bool {
    graph.values().any(|(_, value)| value.ty.dtype == Some(DType::F16))
}

/// Whether some values are of types that are computed in f32, where values are larger.
fn has_short(graph: &Graph) -> bool {
    let short = [DType::F16, DType::U8, DType::I8, DType::I16];
    graph.values().any(|(_, value)| value.ty.dtype.is_some_and(|dtype| short.contains(&dtype)))
}

/// Same values: but for the sign of zero when `exact`, else to 1e-4 of the greatest of the output, and what f32, or f16 where
/// `halves` are there, rounds off the greatest value on the way.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn agree(before: &Run, after: &Run, exact: bool, halves: bool) -> Result<(), String> {
    for ((name, a), (_, b)) in before.outputs.iter().zip(&after.outputs) {
        if a.shape() != b.shape() || a.dtype() != b.dtype() {
            return Err(format!("`{name}` was {a:?} and is {b:?}"));
        }
        let on_the_way = if halves { 2e-3 } else { 1e-6 };
        let tolerance = if exact { 0.0 } else { 1e-4 * greatest(a) + on_the_way * before.greatest };
        for (i, (x, y)) in a.to_f64s().unwrap().iter().zip(b.to_f64s().unwrap()).enumerate() {
            let same = *x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance;
            if !same {
                return Err(format!("`{name}`[{i}] was {x} and is {y}"));
            }
        }
    }
    Ok(())
}

/// Costs before and after a change, with numbers for symbols. Where the graph is not defined for them nothing is compared:
/// the one on which a normalisation of one channel has become a product is defined for more.
fn costs(before: &Graph, after: &Graph) -> Result<Vec<[Cost; 2]>, String> {
    let symbols = before.symbols();
    let different: Bindings = symbols.iter().cloned().zip(9..).collect();
    let ones: Bindings = symbols.into_iter().map(|symbol| (symbol, 1)).collect();
    let bound = |graph: &Graph, bindings| {
        let mut graph = graph.clone();
        infer::bind(&mut graph, bindings).map(|()| graph)
    };
    let mut compared = vec![];
    for bindings in [&different, &ones] {
        let Ok(before) = bound(before, bindings) else { continue };
        let after = bound(after, bindings)
            .map_err(|error| format!("{bindings:?} does not fit it any more: {error}"))?;
        compared.push([graph_cost(&before), graph_cost(&after)]);
    }
    Ok(compared)
}

/// Checks every law for one way of changing a graph.
fn check(
    graph: &Graph,
    exact: bool,
    cost: bool,
    change: impl Fn(&mut Graph) -> tconvc_passes::Result<String>,
) -> Result<(), String> {
    let signature = Signature::of(graph);
    let mut changed = graph.clone();
    let journal = change(&mut changed).map_err(|error| error.to_string())?;
    let context = |law: &str, problem: String| {
        format!(
            "{law}: {problem}\n--- before\n{}--- after\n{}--- journal\n{journal}",
            text::print(graph),
            text::print(&changed)
        )
    };
    verify::verify(&changed).map_err(|error| context("well formed", error.to_string()))?;
    signature.check(&changed).map_err(|problem| context("outputs keep name, type, shape", problem))?;
    // An error is a graph that is not defined for the extents at hand: a window that does not fit, nothing to repeat.
    if let Ok(before) = run(graph) {
        run(&changed)
            .and_then(|after| agree(&before, &after, exact, has_halves(graph)))
            .map_err(|problem| context("same values", problem))?;
    }
    let compared = costs(graph, &changed).map_err(|problem| context("defined as before", problem))?;
    for [before, after] in compared {
        if cost && (after.macs > before.macs || after.bytes > before.bytes) {
            return Err(context("cost does not rise", format!("from {before} to {after}")));
        }
    }
    let mut again = changed.clone();
    change(&mut again).map_err(|error| context("idempotent", error.to_string()))?;
    if again != changed {
        return Err(context("idempotent", format!("once more gives\n{}", text::print(&again))));
    }
    let weights = text::Weights::of(&changed);
    match text::parse(&text::print(&changed), &weights) {
        Ok(parsed) if parsed == changed => Ok(()),
        Ok(parsed) => Err(context("prints and parses", text::print(&parsed))),
        Err(error) => Err(context("prints and parses", error.to_string())),
    }
}

/// Laws that are never put to the test say nothing.
#[test]
fn random_graphs_exercise_every_pass() {
    let mut random = Random(1);
    let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for _ in 0..300 {
        let steps = (0..14).map(|_| (random.next() as usize % STEPS.len(), random.next())).collect();
        let mut graph = Recipe { seed: random.next(), steps }.graph();
        let journal = optimise(&mut graph, &Options::default()).unwrap();
        for entry in journal.entries() {
            counts.entry(entry.pass.clone()).or_default()[usize::from(entry.verdict == Verdict::Refused)] +=
                1;
        }
    }
    for pass in pipeline::passes() {
        let [applied, refused] = counts.get(pass.about().name).copied().unwrap_or_default();
        assert!(applied >= 10, "{} was applied {applied} times: {counts:?}", pass.about().name);
        let guarded = ["affine", "crop", "epilogue", "noop", "pad"].contains(&pass.about().name);
        assert!(refused >= 5 || !guarded, "{} was refused {refused} times: {counts:?}", pass.about().name);
    }
}

fn laws_of(pass: &'static (dyn Pass + Sync), graph: &Graph) -> Result<(), String> {
    let name = pass.about().name;
    // The choice of a form goes by predicted time, which is not a property of a graph; so does the choice of f32, in
    // which integers are spelled.
    check(
        graph,
        EXACT.contains(&name),
        !["forms", "widen", "dequantise", "integers", "einsum"].contains(&name),
        |graph| Ok(pipeline::run_passes(graph, &[pass as &dyn Pass], &Options::default())?.to_string()),
    )
    .map_err(|problem| format!("pass {name}: {problem}"))
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn all_laws(graph: &Graph) -> Result<(), TestCaseError> {
    // Each on the graph as it is, and on what those before it leave.
    let mut behind = graph.clone();
    for pass in pipeline::passes() {
        laws_of(pass, graph).map_err(TestCaseError::fail)?;
        laws_of(pass, &behind).map_err(TestCaseError::fail)?;
        pipeline::run_passes(&mut behind, &[pass as &dyn Pass], &Options::default()).unwrap();
    }
    for (form, disabled) in [
        ("auto", vec!["forms".into()]),
        ("auto", vec![]),
        ("scatter", vec![]),
        ("zero-insert", vec![]),
        ("sub-pixel", vec![]),
    ] {
        let options = Options { form: form.parse().unwrap(), disabled, ..Options::default() };
        let cost = !options.disabled.is_empty() && !has_short(graph);
        let optimised = |graph: &mut Graph| Ok(optimise(graph, &options)?.to_string());
        check(graph, false, cost, optimised)
            .map_err(|problem| TestCaseError::fail(format!("form {form}: {problem}")))?;
    }
    Ok(())
}

/// The same graphs on every run, so that a change is judged by what it changes. `PROPTEST_CASES` asks for more than 40, and
/// those are new on every run unless `PROPTEST_RNG_SEED` is set, too.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    ProptestConfig { cases: 40, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..config }
}

/// A normalisation of one channel on an axis of any extent, which is one channel where the graph is defined at all.
#[test]
fn one_channel_on_an_open_axis() {
    let mut graph: Graph = "input %x : f32[N, W, 4]
const @c : f32[1] = [2.0]
%y = BatchNormalization(%x, @c, @c, @c, @c)
output %y"
        .parse()
        .unwrap();
    infer::infer(&mut graph).unwrap();
    all_laws(&graph).unwrap();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn laws_hold_on_the_patterns(recipe in Recipe::any()) {
        all_laws(&recipe.graph())?;
    }

    #[test]
    fn laws_hold_on_networks(graph in tconvc_testing::graphs()) {
        all_laws(&graph)?;
    }

    #[test]
    fn laws_hold_on_symbolic_networks(graph in tconvc_testing::symbolic_graphs()) {
        all_laws(&graph)?;
    }
}
