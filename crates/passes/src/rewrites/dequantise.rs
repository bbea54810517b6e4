//! Quantisation, and what takes it back, as operators on f32.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, scalar, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{
    Binary, Cast, DequantizeLinear, QuantizeLinear, Reduce, ReduceKind, ShortRounding, Unary, Variadic,
};
use tconvc_ir::{DType, Graph, NodeId, Op, Tensor, ValueId};

/// Spells `QuantizeLinear`, `DequantizeLinear` and `DynamicQuantizeLinear` in operators on f32 and casts, which have kernels and are
/// joined with what stands around them; the two of a pair become one `FakeQuantize`.
///
/// - Pattern: these operators, from and to f32; a cast to integers and back of integers that fit; a zero point added and taken away.
/// - Guard: integers of 8 or 16 bits; a scale a tensor or along an axis; a zero point that is known and the same for all when it is
///   quantised. Graphs for other runtimes keep them.
/// - Exact: the quotient is rounded once, half to even; what is quantised lies in f32 without loss. (NaN, for which ONNX says nothing,
///   is no part of the range that `DynamicQuantizeLinear` covers by definition, and makes it NaN here.)
/// - Cost: bytes rise on paper, where an operator is spelled in several; kernels join them again.
pub struct Dequantise;

/// What is done at a node.
pub enum Found {
    /// `DequantizeLinear` of what `QuantizeLinear` gives on this value.
    Pair {
        x: ValueId,
        scale: f32,
        range: [f64; 2],
    },
    /// `QuantizeLinear` to integers of this zero point and range.
    Quantise {
        op: QuantizeLinear,
        dtype: DType,
        zero: f64,
        range: [f64; 2],
    },
    Dequantise(DequantizeLinear),
    Dynamic,
    /// The node gives this value.
    Nothing(ValueId),
}

/// Integers up to here lie in f32 without loss.
pub(super) const EXACT: f64 = 16_777_216.0;

/// Nodes that are looked through when it is asked whether a value holds integers.
const DEPTH: usize = 8;

impl Rewrite for Dequantise {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "dequantise",
            summary: "spell quantisation in operators on f32, and that which is taken back as FakeQuantize",
            pattern: "QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear; casts of integers that fit",
            claim: "bytes rise on paper, time falls",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Found> {
        if options.portable {
            return Err(Miss::Elsewhere);
        }
        match &graph.node(node).op {
            Op::DequantizeLinear(op) => dequantised(graph, node, *op),
            Op::QuantizeLinear(op) => quantised(graph, node, *op),
            Op::DynamicQuantizeLinear(_) => Ok(Found::Dynamic),
            Op::Cast(cast) if cast.to == DType::F32 => back_and_forth(graph, node),
            Op::Binary(Binary::Sub) => added_before(graph, node),
            _ => Err(Miss::Elsewhere),
        }
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        match found {
            Found::Pair { x, scale, range: [low, high] } => {
                let op = Unary::FakeQuantize { scale, low: low as f32, high: high as f32 };
                patch::replace(graph, node, op, &[Some(x)])?;
                Ok(Decision::only("is quantised and taken back at once: one step on f32"))
            }
            Found::Quantise { op, dtype, zero, range } => {
                quantise(graph, node, op, dtype, (zero, range))?;
                Ok(Decision::only("is spelled on f32, and cast at last"))
            }
            Found::Dequantise(op) => {
                dequantise(graph, node, op)?;
                Ok(Decision::only("is cast to f32, and scaled there"))
            }
            Found::Dynamic => {
                dynamic(graph, node)?;
                Ok(Decision::only("is spelled on f32, and cast at last"))
            }
            Found::Nothing(value) => {
                patch::bypass(graph, node, value)?;
                Ok(Decision::only("gives the integers that it is made of: removed"))
            }
        }
    }
}

pub(super) fn cast(to: DType) -> Cast {
    Cast { to, rounding: ShortRounding::default() }
}

/// Least and greatest of the integers that f32 stands for here.
pub(super) fn range_of(dtype: DType) -> Option<[f64; 2]> {
    Some(match dtype {
        DType::U8 => [0.0, 255.0],
        DType::I8 => [-128.0, 127.0],
        DType::U16 => [0.0, 65_535.0],
        DType::I16 => [-32_768.0, 32_767.0],
        _ => return None,
    })
}

fn dtype(graph: &Graph, node: NodeId, input: usize) -> Option<DType> {
    graph.ty(graph.node(node).input(input)?).dtype
}

/// Guards that both directions share: f32 outside, integers of one or two bytes inside, and a scale whose axis can be told.
fn fits(graph: &Graph, node: NodeId, inside: DType, block: usize) -> Site<[f64; 2]> {
    let it = graph.node(node);
    let scale = it.input(1).or_elsewhere()?;
    require(graph.ty(scale).dtype == Some(DType::F32), || "its scale is not of f32")?;
    require(block == 0, || "it has scales for blocks of elements")?;
    let range = range_of(inside)
        .ok_or_else(|| Miss::Refused(format!("it is of {inside}; spelled out are 8 and 16 bits")))?;
    let x = it.input(0).or_elsewhere()?;
    let count = graph.ty(scale).known_shape().map(|shape| shape.iter().product::<usize>());
    let shapes = || (graph.ty(x).rank(), graph.ty(scale).rank());
    require(count == Some(1) || matches!(shapes(), (Some(_), Some(1))), || {
        format!("which elements its scale, {}, belongs to is not known", graph.ty(scale))
    })?;
    require(
        graph.constant(scale).is_some() || graph.ty(x).rank().is_some_and(|rank| rank > 0),
        || "its scale is not constant, and the rank of what it scales not known or 0",
    )?;
    Ok(range)
}

fn dequantised(graph: &Graph, node: NodeId, op: DequantizeLinear) -> Site<Found> {
    let x = graph.node(node).input(0).or_elsewhere()?;
    let inside = graph.ty(x).dtype.or_elsewhere()?;
    let output = sole_output(graph, node).or_elsewhere()?;
    if graph.constant(x).is_some() {
        return Err(Miss::Elsewhere);
    }
    require(graph.ty(output).dtype == Some(DType::F32), || "it gives no f32")?;
    let range = fits(graph, node, inside, op.block_size)?;
    match pair(graph, node, inside) {
        Some((x, scale, zero)) => {
            let range = range.map(|bound| bound - zero);
            Ok(Found::Pair { x, scale, range })
        }
        None => Ok(Found::Dequantise(op)),
    }
}

/// What a node takes back to: the input of the `QuantizeLinear` before it, when both have one and the same scale and zero point.
fn pair(graph: &Graph, node: NodeId, inside: DType) -> Option<(ValueId, f32, f64)> {
    let maker = producer(graph, node, 0)?;
    let Op::QuantizeLinear(quantise) = &graph.node(maker).op else { return None };
    let (x, x_scale) = (graph.node(maker).input(0)?, graph.node(maker).input(1)?);
    let of_f32 = [x, x_scale].iter().all(|&value| graph.ty(value).dtype == Some(DType::F32));
    let zero = |node: NodeId| match graph.node(node).input(2) {
        None => Some(0.0),
        Some(zero) => scalar(graph, zero),
    };
    let scale = |node: NodeId| scalar(graph, graph.node(node).input(1)?);
    let same = scale(maker)? == scale(node)? && zero(maker)? == zero(node)?;
    (of_f32 && same && quantise.block_size == 0 && range_of(inside).is_some()).then_some((
        x,
        scale(node)? as f32,
        zero(node)?,
    ))
}

fn quantised(graph: &Graph, node: NodeId, op: QuantizeLinear) -> Site<Found> {
    let output = sole_output(graph, node).or_elsewhere()?;
    // Those that are taken back are taken first.
    let is_pair = |&(user, position): &(NodeId, usize)| {
        position == 0
            && matches!(graph.node(user).op, Op::DequantizeLinear(_))
            && graph.ty(output).dtype.is_some_and(|inside| pair(graph, user, inside).is_some())
    };
    let users = graph.users(output);
    if (users.is_empty() && !graph.is_output(output)) || users.iter().any(is_pair) {
        return Err(Miss::Elsewhere);
    }
    let inside = graph.ty(output).dtype.or_elsewhere()?;
    require(dtype(graph, node, 0) == Some(DType::F32), || "what it quantises is not of f32")?;
    let range = fits(graph, node, inside, op.block_size)?;
    let zero = match graph.node(node).input(2) {
        None => 0.0,
        Some(zero) => {
            let tensor = graph.constant(zero);
            let tensor = tensor.ok_or_else(|| Miss::Refused("its zero point is not constant".into()))?;
            let values = tensor.to_f64s().or_elsewhere()?;
            let first = values.first().copied().or_elsewhere()?;
            require(values.iter().all(|&value| value == first), || "its zero points differ")?;
            first
        }
    };
    Ok(Found::Quantise { op, dtype: inside, zero, range })
}

/// A cast to f32 of a cast from f32, of integers that both types hold.
fn back_and_forth(graph: &Graph, node: NodeId) -> Site<Found> {
    let maker = producer(graph, node, 0).or_elsewhere()?;
    let Op::Cast(inner) = &graph.node(maker).op else { return Err(Miss::Elsewhere) };
    let v = graph.node(maker).input(0).or_elsewhere()?;
    let [low, high] = range_of(inner.to).or_elsewhere()?;
    let [least, most] = integers(graph, v, DEPTH).or_elsewhere()?;
    let fit = graph.ty(v).dtype == Some(DType::F32) && low <= least && most <= high;
    if fit && patch::can_bypass(graph, node, v) { Ok(Found::Nothing(v)) } else { Err(Miss::Elsewhere) }
}

/// `(v + c) - c` of integers.
fn added_before(graph: &Graph, node: NodeId) -> Site<Found> {
    let it = graph.node(node);
    let maker = producer(graph, node, 0).or_elsewhere()?;
    let taken = it.input(1).and_then(|taken| scalar(graph, taken)).or_elsewhere()?;
    if graph.node(maker).op != Op::Binary(Binary::Add) {
        return Err(Miss::Elsewhere);
    }
    let [a, b] = crate::matching::two_inputs(graph, maker).or_elsewhere()?;
    let (v, added) = match (scalar(graph, a), scalar(graph, b)) {
        (None, Some(added)) => (a, added),
        (Some(added), None) => (b, added),
        _ => return Err(Miss::Elsewhere),
    };
    let output = sole_output(graph, node).or_elsewhere()?;
    let [least, most] = integers(graph, v, DEPTH).or_elsewhere()?;
    let exact = added == taken && least.abs().max(most.abs()) + added.abs() <= EXACT;
    let same = crate::matching::same_shape(graph, v, output) && graph.ty(v).dtype == Some(DType::F32);
    if exact && same && patch::can_bypass(graph, node, v) {
        Ok(Found::Nothing(v))
    } else {
        Err(Miss::Elsewhere)
    }
}

/// The range of a value that holds nothing but integers, neither NaN nor a zero with a sign.
fn integers(graph: &Graph, value: ValueId, depth: usize) -> Option<[f64; 2]> {
    if let Some(number) = scalar(graph, value) {
        return (number.fract() == 0.0).then_some([number; 2]);
    }
    let node = graph.node(graph.producer(value)?);
    let depth = depth.checked_sub(1)?;
    let input = |index: usize| integers(graph, node.input(index)?, depth);
    let whole = |bound: f32| bound.fract() == 0.0 || bound.is_infinite();
    let found = match &node.op {
        Op::Unary(Unary::FakeQuantize { scale, low, high })
            if *scale == 1.0 && whole(*low) && whole(*high) =>
        {
            [f64::from(*low), f64::from(*high)]
        }
        Op::Unary(Unary::Clamp { min, max }) if whole(*min) && whole(*max) => {
            input(0)?.map(|bound| bound.max(f64::from(*min)).min(f64::from(*max)))
        }
        Op::Unary(Unary::Relu) => input(0)?.map(|bound| bound.max(0.0)),
        Op::Binary(Binary::Add) => {
            let ([a, b], [c, d]) = (input(0)?, input(1)?);
            [a + c, b + d]
        }
        Op::Cast(cast) if cast.to == DType::F32 => range_of(graph.ty(node.input(0)?).dtype?)?,
        Op::Reshape(_) | Op::Flatten(_) | Op::Transpose(_) | Op::Unsqueeze(_) | Op::Squeeze(_) => input(0)?,
        _ => return None,
    };
    found.iter().all(|bound| !bound.is_nan()).then_some(found)
}

/// A scale or zero point that broadcasts to what it belongs to; `behind` axes stand behind its own.
pub(super) fn spread(graph: &mut Graph, name: &str, value: ValueId, behind: usize) -> Result<ValueId> {
    let shape = graph.ty(value).known_shape();
    let alone = shape.as_ref().is_some_and(|shape| shape.iter().product::<usize>() == 1);
    if let Some(tensor) = graph.constant(value) {
        let shape = if alone {
            vec![]
        } else {
            tensor.shape().iter().copied().chain(std::iter::repeat_n(1, behind)).collect()
        };
        let tensor = tensor.reshaped(shape)?;
        return Ok(graph.add_constant(name, tensor));
    }
    if alone || behind == 0 {
        return Ok(value);
    }
    let rank = graph.ty(value).rank().unwrap_or(1);
    let axes: Vec<i64> = (rank..rank + behind).map(|axis| axis as i64).collect();
    let axes = patch::integers(graph, &format!("{name}.axes"), &axes);
    patch::add_on(graph, &format!("{name}.spread"), tconvc_ir::ops::Unsqueeze, &[value, axes])
}

/// A value as f32.
pub(super) fn in_f32(graph: &mut Graph, name: &str, value: ValueId) -> Result<ValueId> {
    match graph.constant(value) {
        Some(tensor) => {
            let tensor = patch::eval(cast(DType::F32), &[tensor])?;
            Ok(graph.add_constant(name, tensor))
        }
        None => patch::add_on(graph, name, cast(DType::F32), &[value]),
    }
}

/// Axes behind the one along which scales run.
fn behind(graph: &Graph, x: ValueId, axis: i64) -> usize {
    let rank = graph.ty(x).rank().unwrap_or(0);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    rank.saturating_sub(1).saturating_sub(usize::try_from(axis).unwrap_or(0))
}

/// An input that the guards have seen.
pub(super) fn input(graph: &Graph, node: NodeId, position: usize) -> Result<ValueId> {
    let it = graph.node(node);
    let missing = || tconvc_ir::Error::Graph(format!("node `{}` has no input {position}", it.name));
    Ok(it.input(position).ok_or_else(missing)?)
}

fn quantise(
    graph: &mut Graph,
    node: NodeId,
    op: QuantizeLinear,
    to: DType,
    (zero, range): (f64, [f64; 2]),
) -> Result<()> {
    let name = graph.node(node).name.clone();
    let (x, scale) = (input(graph, node, 0)?, input(graph, node, 1)?);
    let behind = behind(graph, x, op.axis);
    let scale = spread(graph, &format!("{name}.scale"), scale, behind)?;
    let quotient = patch::add_on(graph, &format!("{name}.quotient"), Binary::Div, &[x, scale])?;
    let last = add_zero(graph, &name, quotient, zero, range)?;
    patch::replace(graph, node, cast(to), &[Some(last)])?;
    Ok(())
}

/// A quotient as integers of a type, still in f32.
pub(super) fn add_zero(
    graph: &mut Graph,
    name: &str,
    quotient: ValueId,
    zero: f64,
    range: [f64; 2],
) -> Result<ValueId> {
    let [low, high] = range.map(|bound| (bound - zero) as f32);
    let steps = Unary::FakeQuantize { scale: 1.0, low, high };
    let steps = patch::add_on(graph, &format!("{name}.steps"), steps, &[quotient])?;
    if zero == 0.0 {
        return Ok(steps);
    }
    let zero = graph.add_constant(&format!("{name}.zero"), Tensor::scalar(zero as f32));
    patch::add_on(graph, &format!("{name}.shifted"), Binary::Add, &[steps, zero])
}

fn dequantise(graph: &mut Graph, node: NodeId, op: DequantizeLinear) -> Result<()> {
    let name = graph.node(node).name.clone();
    let (x, scale) = (input(graph, node, 0)?, input(graph, node, 1)?);
    let behind = behind(graph, x, op.axis);
    let scale = spread(graph, &format!("{name}.scale"), scale, behind)?;
    let mut real = patch::add_on(graph, &format!("{name}.f32"), cast(DType::F32), &[x])?;
    if let Some(zero) = graph.node(node).input(2).filter(|&zero| !is_zero(graph, zero)) {
        let zero = in_f32(graph, &format!("{name}.zero"), zero)?;
        let zero = spread(graph, &format!("{name}.zero"), zero, behind)?;
        real = patch::add_on(graph, &format!("{name}.shifted"), Binary::Sub, &[real, zero])?;
    }
    patch::replace(graph, node, Binary::Mul, &[Some(real), Some(scale)])?;
    Ok(())
}

/// True for constant zero points that do nothing.
pub(super) fn is_zero(graph: &Graph, zero: ValueId) -> bool {
    let values = graph.constant(zero).and_then(|tensor| tensor.to_f64s().ok());
    values.is_some_and(|values| values.iter().all(|&value| value == 0.0))
}

/// The scale covers the range of the data and 0; a range of nothing has the scale 1.
fn dynamic(graph: &mut Graph, node: NodeId) -> Result<()> {
    let Some(old) = graph.remove_node(node) else { return Ok(()) };
    let name = old.name.clone();
    let part = |what: &str| format!("{name}.{what}");
    let Some(x) = old.input(0) else { return Ok(()) };
    let zero = graph.add_constant(&part("zero"), Tensor::scalar(0f32));
    let one = graph.add_constant(&part("one"), Tensor::scalar(1f32));
    let most = graph.add_constant(&part("most"), Tensor::scalar(255f32));
    let whole = |kind| Reduce { kind, keepdims: false, noop_with_empty_axes: false };
    let least = patch::add_on(graph, &part("least"), whole(ReduceKind::Min), &[x])?;
    let low = patch::add_on(graph, &part("low"), Variadic::Min, &[least, zero])?;
    let greatest = patch::add_on(graph, &part("greatest"), whole(ReduceKind::Max), &[x])?;
    let high = patch::add_on(graph, &part("high"), Variadic::Max, &[greatest, zero])?;
    let range = patch::add_on(graph, &part("range"), Binary::Sub, &[high, low])?;
    let step = patch::add_on(graph, &part("step"), Binary::Div, &[range, most])?;
    let some = patch::add_on(graph, &part("some"), Unary::Sign, &[range])?;
    let none = patch::add_on(graph, &part("none"), Binary::Sub, &[one, some])?;
    let output = |index: usize| old.output(index);
    let scale = match output(1) {
        None => patch::add_on(graph, &part("scale"), Binary::Add, &[step, none])?,
        Some(scale) => {
            graph.add_node_defining(
                &part("scale"),
                Binary::Add,
                &[Some(step), Some(none)],
                &[Some(scale)],
            )?;
            scale
        }
    };
    let below = patch::add_on(graph, &part("below"), Unary::Neg, &[low])?;
    let below = patch::add_on(graph, &part("below"), Binary::Div, &[below, scale])?;
    let bytes = Unary::FakeQuantize { scale: 1.0, low: 0.0, high: 255.0 };
    let zero_point = patch::add_on(graph, &part("zero_point"), bytes, &[below])?;
    if let Some(output) = output(2) {
        graph.add_node_defining(
            &part("zero_point"),
            cast(DType::U8),
            &[Some(zero_point)],
            &[Some(output)],
        )?;
    }
    if let Some(output) = output(0) {
        let quotient = patch::add_on(graph, &part("quotient"), Binary::Div, &[x, scale])?;
        let steps = Unary::FakeQuantize { scale: 1.0, low: f32::NEG_INFINITY, high: f32::INFINITY };
        let steps = patch::add_on(graph, &part("steps"), steps, &[quotient])?;
        let shifted = patch::add_on(graph, &part("shifted"), Binary::Add, &[steps, zero_point])?;
        let clamp = Unary::Clamp { min: 0.0, max: 255.0 };
        let last = patch::add_on(graph, &part("bytes"), clamp, &[shifted])?;
        graph.add_node_defining(&name, cast(DType::U8), &[Some(last)], &[Some(output)])?;
    }
    Ok(())
}
