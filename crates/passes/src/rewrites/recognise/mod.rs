//! Activations that a model spells in several operators, recognised as the one they are.

mod formula;

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, same_shape, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use formula::{Cone, Formula, apply, product, sum, variables};
use std::collections::BTreeSet;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use tconvc_ir::ops::{Binary, Unary};
use tconvc_ir::{DType, Graph, NodeId, Op, ValueId};

/// Recognises HardSigmoid, HardSwish, SiLU (Swish), Mish, Gelu, Gelu by tanh, and Softsign.
///
/// - Pattern: a `Mul` or `Div` whose formula, read through elementwise operators with numbers as constants, is one of the
///   list, whatever the order of factors and terms.
/// - Guard: nothing else reads what is between; the result has the shape and type of the variable.
/// - Cost: falls by the operators that go.
pub struct Recognise;

/// The activation, its operand, and the nodes that go.
pub struct Found {
    unary: Unary,
    x: ValueId,
    nodes: BTreeSet<NodeId>,
}

impl Rewrite for Recognise {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "recognise",
            summary: "recognise activations that are spelled in several operators",
            pattern: "HardSigmoid, HardSwish, Swish, Mish, Gelu, GeluTanh, Softsign written out",
            claim: "falls by the operators that go",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        if !matches!(graph.node(node).op, Op::Binary(Binary::Mul | Binary::Div)) {
            return Err(Miss::Elsewhere);
        }
        let output = sole_output(graph, node).or_elsewhere()?;
        if !graph.ty(output).dtype.is_some_and(DType::is_float) {
            return Err(Miss::Elsewhere);
        }
        let known = known();
        for x in variables(graph, output) {
            let mut cone = Cone::default();
            let Some(formula) = Formula::read(graph, output, x, &mut cone) else { continue };
            let Some(unary) = known.iter().find_map(|known| known.recognise(&formula)) else { continue };
            private(graph, node, &cone.nodes).map_err(|name| {
                Miss::Refused(format!(
                    "is {}, but what {name} gives is needed elsewhere as well",
                    unary.spell()
                ))
            })?;
            let (a, b) = (graph.ty(output), graph.ty(x));
            let same = a.dtype == b.dtype && same_shape(graph, output, x);
            require(same, || format!("is {}, but gives {a} from {b}", unary.spell()))?;
            return Ok(Found { unary, x, nodes: cone.nodes });
        }
        Err(Miss::Elsewhere)
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { unary, x, nodes } = found;
        // The root is replaced, so that the others are read by nothing, one after the other.
        patch::replace(graph, node, unary, &[Some(x)])?;
        patch::remove_unread(graph, nodes.into_iter().filter(|&other| other != node));
        Ok(Decision::only(format!("is {}", unary.spell())))
    }
}

/// Only `root` gives what is read outside of `nodes`; otherwise the name of another that does.
fn private(graph: &Graph, root: NodeId, nodes: &BTreeSet<NodeId>) -> Result<(), String> {
    for &node in nodes.iter().filter(|&&node| node != root) {
        for &output in graph.node(node).outputs().iter().flatten() {
            if graph.is_output(output) || graph.users(output).iter().any(|(user, _)| !nodes.contains(user)) {
                return Err(graph.node(node).name.clone());
            }
        }
    }
    Ok(())
}

/// An activation and how it is written out.
struct Known {
    unary: Unary,
    formula: Formula,
}

impl Known {
    /// The activation, with its parameter from the formula when it takes one from there.
    fn recognise(&self, formula: &Formula) -> Option<Unary> {
        let mut any = None;
        if !self.formula.matches(formula, &mut any) {
            return None;
        }
        match (self.unary, any) {
            (Unary::Swish { .. }, Some(alpha)) => Some(Unary::Swish { alpha: alpha as f32 }),
            (unary, _) => Some(unary),
        }
    }
}

fn known() -> Vec<Known> {
    let x = || Formula::X;
    let n = Formula::Number;
    let relu6 = |of| apply(Unary::Clamp { min: 0.0, max: 6.0 }, of);
    let sixth = Unary::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
    let root = (2.0 / PI).sqrt();
    let cube = || product([n(0.044_715), x(), x(), x()]);
    let square = || product([n(0.044_715), x(), x()]);
    let half = |of| product([n(0.5), x(), sum([n(1.0), of])]);
    let list = [
        (sixth, product([n(1.0 / 6.0), relu6(sum([x(), n(3.0)]))])),
        (Unary::HardSwish, product([x(), apply(sixth, x())])),
        (Unary::HardSwish, product([n(1.0 / 6.0), x(), relu6(sum([x(), n(3.0)]))])),
        (Unary::Swish { alpha: 1.0 }, product([x(), apply(Unary::Sigmoid, x())])),
        (
            Unary::Swish { alpha: 1.0 },
            product([x(), apply(Unary::Sigmoid, Formula::Product(None, vec![x()]))]),
        ),
        (Unary::Mish, product([x(), apply(Unary::Tanh, apply(Unary::Softplus, x()))])),
        (Unary::Gelu, half(apply(Unary::Erf, product([n(FRAC_1_SQRT_2), x()])))),
        (Unary::GeluTanh, half(apply(Unary::Tanh, product([n(root), sum([x(), cube()])])))),
        (Unary::GeluTanh, half(apply(Unary::Tanh, product([n(root), x(), sum([n(1.0), square()])])))),
        (Unary::Softsign, product([x(), apply(Unary::Reciprocal, sum([n(1.0), apply(Unary::Abs, x())]))])),
    ];
    list.into_iter().map(|(unary, formula)| Known { unary, formula }).collect()
}
