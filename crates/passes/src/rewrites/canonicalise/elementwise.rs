//! Elementwise operators: bounds that are constants, variadic operators of one or two inputs, arithmetic with constants
//! that has a spelling of the same result.

use super::Change;
use crate::matching::{OrElsewhere, constant_operand, same_shape, scalar, sole_output, two_inputs};
use crate::pass::{Miss, Site, require};
use crate::patch;
use tconvc_ir::ops::{Binary, Unary, Variadic};
use tconvc_ir::{DType, Graph, NodeId, ValueId};

/// A constant bound as `f32`, when it is one in `dtype` as well: `None` for a bound that `f32` cannot hold.
fn bound(graph: &Graph, value: Option<ValueId>, missing: f32) -> Site<f32> {
    let Some(value) = value else { return Ok(missing) };
    let exact = scalar(graph, value)
        .ok_or_else(|| Miss::Refused(format!("the bound `{}` is not constant", graph.value(value).name)))?;
    let narrow = exact as f32;
    require(f64::from(narrow) == exact, || format!("the bound {exact} is no f32"))?;
    Ok(narrow)
}

/// Clip with constant bounds is a Clamp.
pub(super) fn clip(graph: &Graph, node: NodeId) -> Site<Change> {
    let it = graph.node(node);
    let data = it.input(0).or_elsewhere()?;
    let min = bound(graph, it.input(1), f32::NEG_INFINITY)?;
    let max = bound(graph, it.input(2), f32::INFINITY)?;
    clamp(graph, node, data, min, max)
}

fn clamp(graph: &Graph, node: NodeId, data: ValueId, min: f32, max: f32) -> Site<Change> {
    require(graph.ty(data).dtype.is_some_and(DType::is_float), || "the elements are not floats")?;
    if (min, max) == (f32::NEG_INFINITY, f32::INFINITY) && patch::can_bypass(graph, node, data) {
        return Ok(Change::Bypass(data));
    }
    let unary = if (min, max) == (0.0, f32::INFINITY) { Unary::Relu } else { Unary::Clamp { min, max } };
    Ok(Change::Replace(unary.into(), vec![Some(data)], format!("is {}", unary.spell())))
}

/// Sum, Mean, Max and Min of one input are that input; Sum of two is Add; Max and Min with a constant number are a Clamp.
pub(super) fn variadic(graph: &Graph, node: NodeId, op: Variadic) -> Site<Change> {
    let inputs = graph.node(node).inputs();
    if let [Some(only)] = *inputs {
        return if patch::can_bypass(graph, node, only) {
            Ok(Change::Bypass(only))
        } else {
            Err(Miss::Elsewhere)
        };
    }
    two_inputs(graph, node).or_elsewhere()?;
    match op {
        Variadic::Sum => Ok(Change::Respell(Binary::Add.into(), "is Add".into())),
        Variadic::Mean => Err(Miss::Elsewhere),
        Variadic::Max | Variadic::Min => {
            let (data, constant, _) = constant_operand(graph, node).or_elsewhere()?;
            // A constant of more axes than the data would give it more.
            let ranks = graph.ty(data).rank().zip(graph.ty(constant).rank());
            let (true, Some(_)) =
                (ranks.is_some_and(|(data, constant)| constant <= data), scalar(graph, constant))
            else {
                return Err(Miss::Elsewhere);
            };
            if !graph.ty(data).dtype.is_some_and(DType::is_float) {
                return Err(Miss::Elsewhere);
            }
            let value = bound(graph, Some(constant), 0.0)?;
            require(!value.is_nan(), || "the bound is NaN")?;
            if op == Variadic::Max {
                clamp(graph, node, data, value, f32::INFINITY)
            } else {
                clamp(graph, node, data, f32::NEG_INFINITY, value)
            }
        }
    }
}

/// `x + 0`, `x * 1` and the like are `x`; `x - c` is `x + -c`; `x / 2^n` is `x * 2^-n`; `x ^ 2` is `x * x`. Each gives the
/// same bits; other divisions keep their rounding and stay.
pub(super) fn binary(graph: &Graph, node: NodeId, op: Binary) -> Site<Change> {
    let (data, constant, position) = constant_operand(graph, node).or_elsewhere()?;
    let dtype = graph.ty(data).dtype.or_elsewhere()?;
    let output = sole_output(graph, node).or_elsewhere()?;
    if !dtype.is_float() {
        return Err(Miss::Elsewhere);
    }
    let second = position == 1;
    let all = |value: f64| {
        graph.constant(constant).and_then(|tensor| tensor.to_f64s().ok()).is_some_and(|values| {
            !values.is_empty()
                && values.iter().all(|&x| x == value && x.is_sign_positive() == value.is_sign_positive())
        })
    };
    let neutral = match op {
        // -0 is the neutral term: -0 + 0 is 0.
        Binary::Add => all(-0.0),
        Binary::Sub => second && all(0.0),
        Binary::Mul => all(1.0),
        Binary::Div | Binary::Pow => second && all(1.0),
        _ => false,
    };
    if neutral && same_shape(graph, output, data) && patch::can_bypass(graph, node, data) {
        return Ok(Change::Bypass(data));
    }
    let commuted = match op {
        Binary::Add | Binary::Mul if !second => Some(vec![Some(data), Some(constant)]),
        _ => None,
    };
    if let Some(inputs) = commuted {
        return Ok(Change::Replace(op.into(), inputs, "has its constant second".into()));
    }
    match op {
        Binary::Pow if second && all(2.0) && same_shape(graph, output, data) => Ok(Change::Replace(
            Binary::Mul.into(),
            vec![Some(data), Some(data)],
            "is a product with itself".into(),
        )),
        Binary::Sub if second => Ok(Change::Constant {
            op: Binary::Add,
            data,
            constant,
            of: Unary::Neg,
            what: "is Add of what is negative",
        }),
        Binary::Div if second && powers_of_two(graph, constant) => Ok(Change::Constant {
            op: Binary::Mul,
            data,
            constant,
            of: Unary::Reciprocal,
            what: "is Mul by an exact reciprocal",
        }),
        _ => Err(Miss::Elsewhere),
    }
}

/// Powers of two whose reciprocal is one as well, far from the ends of what an f16 holds.
fn powers_of_two(graph: &Graph, constant: ValueId) -> bool {
    let values = graph.constant(constant).and_then(|tensor| tensor.to_f64s().ok()).unwrap_or_default();
    let exact = |x: f64| x.abs().log2().fract() == 0.0 && (-12.0..=12.0).contains(&x.abs().log2());
    !values.is_empty() && values.into_iter().all(exact)
}
