//! From operators to copies: which map an operator has, and where in the output it lands.

use super::copy::{Axis, Copy, Source};
use super::{Words, scatter};
use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::ops::{AxisMap, Expand, IndexMap, Pad, ResizeMode, Slice, Tile};
use tconvc_ir::resize_axis::ResizeAxis;
use tconvc_ir::{Graph, Node, Op, Tensor, ValueId};

/// The copies that make the outputs of a node; `None` when it is no movement of whole words by constant maps.
pub(super) fn copies(builder: &mut Builder<'_>, node: &Node) -> Result<Option<Vec<Copy>>, CompileError> {
    let (Some(x), Some(y)) = (node.input(0), node.outputs().iter().flatten().next().copied()) else {
        return Ok(None);
    };
    let Some(words) = Words::of(builder, x) else { return Ok(None) };
    let (graph, label) = (builder.graph, node.op.name().to_lowercase());
    let (from, to) = (builder.shape(x)?, builder.shape(y)?);
    let list = |index: usize| node.input(index).map(|value| integers(graph, value));
    let mut fill = 0;
    let axes = match &node.op {
        Op::Concat(op) => return concat(builder, node, op.axis, words, &label).map(Some),
        Op::Split(op) => return split(builder, node, (x, op.axis), words, &label),
        Op::ScatterNd(op) => return scatter::copies(builder, node, *op, words, &label),
        Op::Transpose(op) => axes(&op.map(&from)?, words),
        Op::Expand(_) => axes(&Expand::map(&from, &to)?, words),
        Op::Tile(_) => axes(&Tile::map(&from, &to)?, words),
        Op::DepthToSpace(op) => axes(&op.map(&from)?, words),
        Op::SpaceToDepth(op) => axes(&op.map(&from)?, words),
        Op::Slice(_) => {
            let (Some(Some(starts)), Some(Some(ends))) = (list(1), list(2)) else { return Ok(None) };
            let (along, steps) = (list(3), list(4));
            if along == Some(None) || steps == Some(None) {
                return Ok(None);
            }
            let (along, steps) = (along.flatten(), steps.flatten());
            let slices = Slice::axes(&from, &starts, &ends, along.as_deref(), steps.as_deref())?;
            axes(&Slice::map(&from, &slices)?, words)
        }
        Op::Pad(op) => {
            let (Some(Some(pads)), along) = (list(1), list(3)) else { return Ok(None) };
            if let Some(value) = node.input(2) {
                let bits = graph.constant(value).and_then(|value| fill_bits(value, words));
                let Some(bits) = bits else { return Ok(None) };
                fill = bits;
            }
            if along == Some(None) {
                return Ok(None);
            }
            axes(&op.map(&from, &Pad::pads(from.len(), &pads, along.flatten().as_deref())?)?, words)
        }
        Op::Resize(op) if op.mode == ResizeMode::Nearest && words == (Words { unit: 4, count: 1 }) => {
            let Some(resized) = super::super::resize::geometry(graph, node, &from)? else { return Ok(None) };
            fill = op.extrapolation_value.to_bits();
            nearest(&from, &resized)?
        }
        Op::Gather(op) => {
            let Some(Some(chosen)) = list(1) else { return Ok(None) };
            let Some(axes) = gathered(&from, op.axis, &chosen, words) else { return Ok(None) };
            axes
        }
        _ => return Ok(None),
    };
    let (from, to) = (builder.operand(x)?, builder.operand(y)?);
    Ok(Some(vec![Copy { label, unit: words.unit, axes: row_major(axes), fill, from, to }]))
}

fn integers(graph: &Graph, value: ValueId) -> Option<Vec<i64>> {
    graph.constant(value)?.to_i64s().ok()
}

/// The word to fill with, repeated to four bytes; only zero where an element is several words.
fn fill_bits(value: &Tensor, words: Words) -> Option<u32> {
    match *value.bytes() {
        [a] if words.unit == 1 => Some(u32::from_le_bytes([a; 4])),
        [a, b] if words.unit == 2 => Some(u32::from_le_bytes([a, b, a, b])),
        [a, b, c, d] if words == (Words { unit: 4, count: 1 }) => Some(u32::from_le_bytes([a, b, c, d])),
        ref bytes => bytes.iter().all(|&byte| byte == 0).then_some(0),
    }
}

/// The axes of a map over elements of so many words. Targets follow when all axes are there.
fn axes(map: &IndexMap, words: Words) -> Vec<Axis> {
    let axis = |axis: &tconvc_ir::ops::MappedAxis| {
        let stride = (axis.stride * words.count) as i64;
        let source = match axis.map {
            AxisMap::Step { start, step } => Source::Even { start: start * stride, step: step * stride },
            AxisMap::Padded { begin: 0, first, extent, .. } if extent == axis.output => {
                Source::Even { start: first as i64 * stride, step: stride }
            }
            map @ AxisMap::Padded { .. } => Source::Listed(
                (0..axis.output).map(|i| map.source(i).map(|source| source as i64 * stride)).collect(),
            ),
        };
        Axis { extent: axis.output, target: 0, source }
    };
    with_words(map.axes.iter().map(axis).collect(), words)
}

/// Adds the axis of an element's words where it has several.
pub(super) fn with_words(mut axes: Vec<Axis>, words: Words) -> Vec<Axis> {
    if words.count > 1 {
        axes.push(Axis { extent: words.count, target: 1, source: Source::Even { start: 0, step: 1 } });
    }
    axes
}

/// Targets of an output that is filled by these axes alone.
fn row_major(mut axes: Vec<Axis>) -> Vec<Axis> {
    let mut stride = 1;
    for axis in axes.iter_mut().rev() {
        axis.target = stride;
        stride *= axis.extent;
    }
    axes
}

pub(super) fn strides(shape: &[usize], words: usize) -> Vec<usize> {
    let mut strides = vec![words; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

fn resolve(axis: i64, rank: usize) -> usize {
    // Inference has checked it.
    (if axis < 0 { axis + rank as i64 } else { axis }).clamp(0, rank.max(1) as i64 - 1) as usize
}

/// An axis as it is, at these strides.
fn whole(extent: usize, source: usize, target: usize) -> Axis {
    Axis { extent, target, source: Source::Even { start: 0, step: source as i64 } }
}

fn concat(
    builder: &mut Builder<'_>,
    node: &Node,
    axis: i64,
    words: Words,
    label: &str,
) -> Result<Vec<Copy>, CompileError> {
    let Some(y) = node.output(0) else { return Ok(vec![]) };
    let (shape, to) = (builder.shape(y)?, builder.operand(y)?);
    let targets = strides(&shape, words.count);
    let axis = resolve(axis, shape.len());
    let (mut copies, mut done) = (vec![], 0);
    for &input in node.inputs().iter().flatten() {
        let part = builder.shape(input)?;
        let sources = strides(&part, words.count);
        let axes = (0..part.len()).map(|i| whole(part[i], sources[i], targets[i])).collect();
        let mut to = to;
        to.offset += words.unit * done * targets[axis];
        done += part[axis];
        let from = builder.operand(input)?;
        let axes = with_words(axes, words);
        copies.push(Copy { label: label.to_owned(), unit: words.unit, axes, fill: 0, from, to });
    }
    Ok(copies)
}

fn split(
    builder: &mut Builder<'_>,
    node: &Node,
    (x, axis): (ValueId, i64),
    words: Words,
    label: &str,
) -> Result<Option<Vec<Copy>>, CompileError> {
    let (shape, from) = (builder.shape(x)?, builder.operand(x)?);
    let sources = strides(&shape, words.count);
    let axis = resolve(axis, shape.len());
    let (mut copies, mut done) = (vec![], 0);
    for &output in node.outputs() {
        // The size of a part without a name is not known here.
        let Some(output) = output else { return Ok(None) };
        let part = builder.shape(output)?;
        let targets = strides(&part, words.count);
        let axes = (0..part.len()).map(|i| whole(part[i], sources[i], targets[i])).collect();
        let mut from = from;
        from.offset += words.unit * done * sources[axis];
        done += part[axis];
        let to = builder.operand(output)?;
        let axes = with_words(axes, words);
        copies.push(Copy { label: label.to_owned(), unit: words.unit, axes, fill: 0, from, to });
    }
    Ok(Some(copies))
}

/// Each axis by its table.
fn nearest(shape: &[usize], resized: &[ResizeAxis]) -> Result<Vec<Axis>, CompileError> {
    let strides = strides(shape, 1);
    let mut axes = vec![];
    for (axis, &stride) in resized.iter().zip(&strides) {
        let table = axis.table()?;
        let sources: Vec<Option<i64>> =
            (0..table.output()).map(|o| table.copied(o).map(|source| (source * stride) as i64)).collect();
        let even = sources.iter().enumerate().all(|(i, source)| *source == Some((i * stride) as i64));
        let source =
            if even { Source::Even { start: 0, step: stride as i64 } } else { Source::Listed(sources) };
        axes.push(Axis { extent: axis.output, target: 0, source });
    }
    Ok(axes)
}

/// One axis of the data is replaced by those of the indices; `None` where one of them is out of range, which is an error
/// when it runs.
fn gathered(shape: &[usize], axis: i64, chosen: &[i64], words: Words) -> Option<Vec<Axis>> {
    let (axis, strides) = (resolve(axis, shape.len()), strides(shape, words.count));
    let mut axes: Vec<Axis> = shape.iter().zip(&strides).map(|(&extent, &at)| whole(extent, at, 0)).collect();
    let extent = *shape.get(axis)? as i64;
    let place = |&index: &i64| {
        let index = if index < 0 { index + extent } else { index };
        (0..extent).contains(&index).then_some(Some(index * strides[axis] as i64))
    };
    let places: Vec<Option<i64>> = chosen.iter().map(place).collect::<Option<_>>()?;
    axes[axis] = Axis { extent: places.len(), target: 0, source: Source::Listed(places) };
    Some(with_words(axes, words))
}
