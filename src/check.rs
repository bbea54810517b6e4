//! Comparing results: with the reference interpreter's, or with stored ones.

use crate::compiler::Compiler;
use crate::error::Result;
use crate::model::Model;
use crate::{Outputs, Tensor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use tconvc_ir::ops::{Control, Opaque};
use tconvc_ir::{DType, Graph, Node, Op, TensorView, ValueId, infer, interp};
use tconvc_passes::{Compat, Journal, compat};

/// How far a float may be from the expected one. Integers and booleans must be equal, save [`Tolerance::rounded`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Share of the expected value.
    pub relative: f64,
    /// A number of its own.
    pub absolute: f64,
    /// Share of the largest expected magnitude of the whole output.
    pub of_maximum: f64,
    /// Whether integers are floats that were cut or rounded: two floats within the tolerance may fall on either side of a
    /// step, so that their integers differ by the tolerance rounded up to whole steps. [`Agreement::stepped`] counts these.
    pub rounded: bool,
    /// The least ratio of signal to noise, in decibels, of values that were rounded to a short type between layers: there one
    /// last bit becomes a whole quantum and spreads, so that single elements say little. It is asked for only where an element
    /// is not within the rest of the tolerance.
    pub least_decibels: Option<f64>,
}

/// How far a result is from the expected one, within the tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Agreement {
    /// The largest absolute difference.
    pub largest: f64,
    /// Integers that differ, see [`Tolerance::rounded`].
    pub stepped: usize,
    /// The ratio of signal to noise, where it decided: see [`Tolerance::least_decibels`].
    pub decibels: Option<f64>,
}

impl Agreement {
    /// Of two results.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let decibels = self.decibels.into_iter().chain(other.decibels).reduce(f64::min);
        Self { largest: self.largest.max(other.largest), stepped: self.stepped + other.stepped, decibels }
    }
}

/// As `1.19e-7`, with the integers that differ where there are any, and the ratio of signal to noise where it decided.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2e}", self.largest)?;
        if self.stepped > 0 {
            write!(f, " ({} rounded to another integer)", self.stepped)?;
        }
        if let Some(decibels) = self.decibels {
            write!(f, " ({decibels:.0} dB)")?;
        }
        Ok(())
    }
}

impl Tolerance {
    /// For whole networks: 1e-3 of the value and 2e-4 of the output's maximum.
    pub const NETWORK: Self =
        Self { relative: 1e-3, absolute: 0.0, of_maximum: 2e-4, rounded: false, least_decibels: None };
    /// ONNX's own for its backend tests.
    pub const BACKEND: Self =
        Self { relative: 1e-3, absolute: 1e-7, of_maximum: 0.0, rounded: false, least_decibels: None };
    /// What [`Tolerance::least_decibels`] is for networks that round to a short type between layers: noise of a thirtieth.
    pub const SHORT_DECIBELS: f64 = 30.0;
}

/// Compares a result with what is expected.
///
/// # Errors
/// Says how they differ: in type, in shape, or at which element by how much.
pub fn compare(got: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<Agreement, String> {
    if got.dtype() != expected.dtype() || got.shape() != expected.shape() {
        return Err(format!(
            "{}{:?} is expected, {}{:?} came out",
            expected.dtype(),
            expected.shape(),
            got.dtype(),
            got.shape()
        ));
    }
    if !expected.dtype().is_float() && expected.dtype() != DType::Bool && !expected.dtype().is_integer() {
        return if got == expected { Ok(Agreement::default()) } else { Err("the bytes differ".into()) };
    }
    let exact = !expected.dtype().is_float();
    let numbers = |tensor| Tensor::f64s(tensor).map_err(|error| error.to_string());
    let (a, b) = (numbers(got)?, numbers(expected)?);
    let maximum =
        numbers(expected)?.filter(|value| value.is_finite()).fold(0f64, |top, value| top.max(value.abs()));
    let mut agreement = Agreement::default();
    for (i, (a, b)) in a.zip(b).enumerate() {
        let float = tolerance.relative * b.abs() + tolerance.absolute + tolerance.of_maximum * maximum;
        let allowed = match (exact, tolerance.rounded && expected.dtype().is_integer()) {
            (false, _) => float,
            (true, true) => float.ceil(),
            (true, false) => 0.0,
        };
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed;
        if !same {
            let element = format!("element {i} is {a}, expected is {b} (allowed difference {allowed:.3e})");
            let Some(least) = tolerance.least_decibels else { return Err(element) };
            let pairs: Vec<(f64, f64)> = numbers(got)?.zip(numbers(expected)?).collect();
            return by_noise(&pairs, element, least);
        }
        if a.is_finite() && b.is_finite() {
            agreement.largest = agreement.largest.max((a - b).abs());
        }
        agreement.stepped += usize::from(exact && a != b);
    }
    Ok(agreement)
}

/// By the ratio of signal to noise, which is to be that many decibels; `element` says what is wrong else.
fn by_noise(pairs: &[(f64, f64)], element: String, least: f64) -> Result<Agreement, String> {
    let finite = |x: f64, y: f64| x.is_finite() && y.is_finite();
    let alike = |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan());
    if pairs.iter().any(|&(got, expected)| !finite(got, expected) && !alike(got, expected)) {
        return Err(element);
    }
    let pairs = || pairs.iter().filter(|&&(got, expected)| finite(got, expected));
    let signal: f64 = pairs().map(|(_, expected)| expected * expected).sum();
    let noise: f64 = pairs().map(|(got, expected)| (got - expected) * (got - expected)).sum();
    let decibels = 10.0 * (signal / noise).log10();
    if decibels >= least {
        let largest = pairs().map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
        return Ok(Agreement { largest, stepped: 0, decibels: Some(decibels) });
    }
    Err(format!("{element}; signal to noise is {decibels:.1} dB, expected are at least {least} dB"))
}

/// Whether a value depends on others that a network rounds to a short type between its layers: f16, bf16, quantised integers.
fn is_of_short(graph: &Graph, value: ValueId) -> bool {
    let mut seen = HashSet::from([value]);
    let mut left = vec![value];
    while let Some(id) = left.pop() {
        let Some(node) = graph.producer(id).map(|node| graph.node(node)) else { continue };
        if rounds_to_short(graph, node) {
            return true;
        }
        left.extend(node.inputs().iter().flatten().filter(|&&input| seen.insert(input)));
    }
    false
}

fn rounds_to_short(graph: &Graph, node: &Node) -> bool {
    let half = |&id: &ValueId| matches!(graph.ty(id).dtype, Some(DType::F16 | DType::BF16));
    let inside = |op: &Opaque| {
        let graphs = op.control().map(Control::graphs).unwrap_or_default();
        graphs.into_iter().any(|graph| {
            let mut graph = graph.clone();
            let _ = infer::infer(&mut graph);
            graph.nodes().any(|node| rounds_to_short(&graph, node))
        })
    };
    match &node.op {
        Op::Opaque(op) => inside(op),
        Op::QuantizeLinear(_) | Op::DynamicQuantizeLinear(_) | Op::QLinearConv(_) | Op::QLinearMatMul(_) => {
            true
        }
        _ => node.outputs().iter().flatten().any(half),
    }
}

/// Whether an integer value is a float that a cast cut off, or that was quantised, and was only moved since.
fn is_rounded(graph: &Graph, value: ValueId) -> bool {
    let mut value = Some(value);
    while let Some(id) = value {
        let Some(node) = graph.producer(id).map(|node| graph.node(node)) else { return false };
        let from_float =
            || node.input(0).is_some_and(|input| graph.ty(input).dtype.is_some_and(DType::is_float));
        value = match node.op.name() {
            "QuantizeLinear" => return true,
            "Cast" if from_float() => return true,
            "Cast" | "Identity" | "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Slice"
            | "Gather" | "Tile" | "Expand" | "Pad" | "Concat" | "Split" | "DepthToSpace" | "SpaceToDepth" => {
                node.input(0)
            }
            _ => return false,
        };
    }
    false
}

impl Model {
    /// The tolerance for an output: with [`Tolerance::rounded`] where it is of integers that are cut or rounded floats, such
    /// as the pixels of an image, while other integers stay exact; with [`Tolerance::least_decibels`] where it depends on values
    /// that the network rounds to f16, bf16 or quantised integers between its layers.
    #[must_use]
    pub fn tolerance(&self, output: &str, tolerance: Tolerance) -> Tolerance {
        let mut graph = self.graph().clone();
        // Files need not say the types of inner values; where inference fails, those that are known have to do.
        let _ = infer::infer(&mut graph);
        let value = graph.outputs().iter().copied().find(|&id| graph.value(id).name == output);
        let rounded = value.is_some_and(|value| is_rounded(&graph, value));
        let is_float = |value| graph.ty(value).dtype.is_some_and(DType::is_float);
        let short = value.is_some_and(|value| (rounded || is_float(value)) && is_of_short(&graph, value));
        let least_decibels = short.then_some(Tolerance::SHORT_DECIBELS);
        Tolerance { rounded, least_decibels, ..tolerance }
    }

    /// Runs the model by the definitions of its operators: exact and slow, for checking.
    ///
    /// # Errors
    /// When inputs are missing or do not fit, or an operator is not known.
    pub fn interpret<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    ) -> Result<Outputs> {
        let _budget = self.budget().enter();
        Ok(Outputs::new(interp::run(self.graph(), &owned(inputs)?)?))
    }
}

impl Compiler {
    /// As [`Model::interpret`], with the meaning that [`Compiler::compat`] asks for.
    ///
    /// # Errors
    /// As [`Model::interpret`].
    pub fn interpret<'a>(
        &self,
        model: &Model,
        inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    ) -> Result<Outputs> {
        let _budget = model.budget().enter();
        let inputs = owned(inputs)?;
        if self.compat == Compat::Onnx {
            return Ok(Outputs::new(interp::run(model.graph(), &inputs)?));
        }
        let mut graph = model.graph().clone();
        let shapes: BTreeMap<String, Vec<usize>> =
            inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shape().to_vec())).collect();
        self.bind(&mut graph, &shapes)?;
        compat::apply(&mut graph, self.compat, &mut Journal::new())?;
        Ok(Outputs::new(interp::run(&graph, &inputs)?))
    }
}

fn owned<'a>(inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>) -> Result<Vec<(&'a str, Tensor)>> {
    inputs.into_iter().map(|(name, view)| Ok((name, view.to_tensor()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> Model {
        let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}"));
        Model::from_graph(graph)
    }

    /// A truncating cast shows a last place of a float as a whole step: 255 * 0.99999994 is 254.99998.
    #[test]
    fn only_integers_made_of_floats_may_be_a_step_apart() {
        let image = model(
            "graph \"g\"\nopset 21\n\ninput %x : f32[2, 3]\n\n%c : u8[2, 3] = Cast(%x) {to=u8}\n\
             %y : u8[3, 2] = Transpose(%c) {perm=[1, 0]}\n%n : i64[2] = Shape(%x)\noutput %y\noutput %n\n",
        );
        let tolerance = image.tolerance("y", Tolerance::NETWORK);
        assert!(tolerance.rounded);
        assert!(!image.tolerance("n", Tolerance::NETWORK).rounded);
        let pixels =
            |last| Tensor::from_vec([3], vec![0u8, 254, last]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            compare(&pixels(254), &pixels(255), tolerance),
            Ok(Agreement { largest: 1.0, stepped: 1, decibels: None })
        );
        assert_eq!(compare(&pixels(255), &pixels(255), tolerance), Ok(Agreement::default()));
        assert!(compare(&pixels(253), &pixels(255), tolerance).is_err());
        assert!(compare(&pixels(254), &pixels(255), Tolerance::NETWORK).is_err());
    }

    /// One last bit of f16 becomes a whole quantum, which says nothing of the whole; noise does.
    #[test]
    fn short_types_between_layers_are_judged_by_noise() {
        let text = "graph \"g\"\nopset 21\n\ninput %x : f32[4]\n\n%h = Cast(%x) {to=f16}\n%e = Exp(%h)\n\
                    %y = Cast(%e) {to=f32}\n%n : i64[1] = Shape(%e)\n%z = Neg(%x)\noutput %y\noutput %n\noutput %z\n";
        let model = model(text);
        let of = |name: &str| model.tolerance(name, Tolerance::NETWORK).least_decibels;
        assert_eq!([of("y"), of("n"), of("z")], [Some(30.0), None, None]);
        let values = |last| Tensor::from_vec([3], vec![1f32, 2.0, last]).unwrap_or_else(|e| panic!("{e}"));
        let tolerance = model.tolerance("y", Tolerance::NETWORK);
        let near = compare(&values(3.01), &values(3.0), tolerance).unwrap_or_else(|e| panic!("{e}"));
        assert!(near.decibels.is_some_and(|decibels| (51.0..52.0).contains(&decibels)), "{near}");
        assert_eq!(near.to_string(), "1.00e-2 (51 dB)");
        let error = compare(&values(4.0), &values(3.0), tolerance).err().unwrap_or_default();
        assert!(error.ends_with("signal to noise is 11.5 dB, expected are at least 30 dB"), "{error}");
        let error = compare(&values(f32::INFINITY), &values(3.0), tolerance).err().unwrap_or_default();
        assert!(error.starts_with("element 2 is inf"), "{error}");
    }
}
