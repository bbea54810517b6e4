//! Comparing results: with the reference interpreter's, or with stored ones.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::{Outputs, Tensor};
use std::fmt;
use tconvc_ir::{DType, Graph, TensorView, ValueId, infer, interp};

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
}

/// How far a result is from the expected one, within the tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Agreement {
    /// The largest absolute difference.
    pub largest: f64,
    /// Integers that differ, see [`Tolerance::rounded`].
    pub stepped: usize,
}

impl Agreement {
    /// Of two results.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { largest: self.largest.max(other.largest), stepped: self.stepped + other.stepped }
    }
}

/// As `1.19e-7`, with the integers that differ where there are any.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2e}", self.largest)?;
        if self.stepped > 0 {
            write!(f, " ({} rounded to another integer)", self.stepped)?;
        }
        Ok(())
    }
}

impl Tolerance {
    /// For whole networks: 1e-3 of the value and 2e-4 of the output's maximum.
    pub const NETWORK: Self = Self { relative: 1e-3, absolute: 0.0, of_maximum: 2e-4, rounded: false };
    /// ONNX's own for its backend tests.
    pub const BACKEND: Self = Self { relative: 1e-3, absolute: 1e-7, of_maximum: 0.0, rounded: false };
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
            return Err(format!("element {i} is {a}, expected is {b} (allowed difference {allowed:.3e})"));
        }
        if a.is_finite() && b.is_finite() {
            agreement.largest = agreement.largest.max((a - b).abs());
        }
        agreement.stepped += usize::from(exact && a != b);
    }
    Ok(agreement)
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
    /// as the pixels of an image. Other integers stay exact.
    #[must_use]
    pub fn tolerance(&self, output: &str, tolerance: Tolerance) -> Tolerance {
        let mut graph = self.graph().clone();
        // Files need not say the types of inner values; where inference fails, those that are known have to do.
        let _ = infer::infer(&mut graph);
        let value = graph.outputs().iter().copied().find(|&id| graph.value(id).name == output);
        Tolerance { rounded: value.is_some_and(|value| is_rounded(&graph, value)), ..tolerance }
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
        let inputs: Vec<(&str, Tensor)> = inputs
            .into_iter()
            .map(|(name, view)| Ok((name, view.to_tensor()?)))
            .collect::<Result<_, Error>>()?;
        Ok(Outputs::new(interp::run(self.graph(), &inputs)?))
    }
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
            Ok(Agreement { largest: 1.0, stepped: 1 })
        );
        assert_eq!(compare(&pixels(255), &pixels(255), tolerance), Ok(Agreement::default()));
        assert!(compare(&pixels(253), &pixels(255), tolerance).is_err());
        assert!(compare(&pixels(254), &pixels(255), Tolerance::NETWORK).is_err());
    }
}
