//! From operators to copies: which map an operator has, and where in the output it lands.

use super::axes::{Axis, Move, Source, Words, strides, with_words};
use super::scatter;
use crate::kernels::family::{self, Site};
use crate::kernels::refusal::Reason;
use crate::kernels::resize;
use tconvc_ir::ops::{AxisMap, Expand, IndexMap, Pad, ResizeMode, Slice, Tile};
use tconvc_ir::resize_axis::ResizeAxis;
use tconvc_ir::{Node, Op, Tensor, ValueId};

/// The copies that make the outputs of a node.
pub(super) fn moves(site: Site<'_>, node: &Node) -> Result<Vec<Move>, Reason> {
    let x = family::input(node, 0)?;
    let Some(y) = node.outputs().iter().flatten().next().copied() else {
        return Err(Reason::Graph("no output is wanted".into()));
    };
    let found = site.graph.ty(x).dtype;
    let accepted = "what has a whole number of bytes";
    let words = found.and_then(Words::of).ok_or(Reason::Type { found, accepted })?;
    let (from, to) = (site.shape(x)?, site.shape(y)?);
    let list = |index: usize, what| {
        let tensor = node.input(index).map(|value| site.constant(value, what)).transpose()?;
        Ok::<_, Reason>(tensor.map(Tensor::to_i64s).transpose()?)
    };
    let needed = |index: usize, what| list(index, what)?.ok_or(Reason::RunTime { what });
    let mut fill = 0;
    let axes = match &node.op {
        Op::Concat(op) => return concat(site, node, op.axis, words),
        Op::Split(op) => return split(site, node, (x, op.axis), words),
        Op::ScatterNd(op) => return scatter::moves(site, node, *op, words),
        Op::Transpose(op) => axes(&op.map(&from)?, words),
        Op::Expand(_) => axes(&Expand::map(&from, &to)?, words),
        Op::Tile(_) => axes(&Tile::map(&from, &to)?, words),
        Op::DepthToSpace(op) => axes(&op.map(&from)?, words),
        Op::SpaceToDepth(op) => axes(&op.map(&from)?, words),
        Op::Slice(_) => {
            let (starts, ends) = (needed(1, "starts")?, needed(2, "ends")?);
            let (along, steps) = (list(3, "axes")?, list(4, "steps")?);
            let slices = Slice::axes(&from, &starts, &ends, along.as_deref(), steps.as_deref())?;
            axes(&Slice::map(&from, &slices)?, words)
        }
        Op::Pad(op) => {
            let (pads, along) = (needed(1, "pads")?, list(3, "axes")?);
            if let Some(value) = node.input(2) {
                let value = site.constant(value, "fill values")?;
                let wide = || {
                    Reason::variant("a fill value of 8 bytes that is not 0", "0, or a value of up to 4 bytes")
                };
                fill = fill_bits(value, words).ok_or_else(wide)?;
            }
            axes(&op.map(&from, &Pad::pads(from.len(), &pads, along.as_deref())?)?, words)
        }
        Op::Resize(op) if op.mode == ResizeMode::Nearest => {
            if words != (Words { unit: 4, count: 1 }) {
                return Err(Reason::Type { found, accepted: "a type of four bytes" });
            }
            let resized = resize::geometry(site, node, &from)?;
            fill = op.extrapolation_value.to_bits();
            nearest(&from, &resized)?
        }
        Op::Gather(op) => gathered(&from, op.axis, &needed(1, "indices")?, words)?,
        op => return Err(Reason::NoKernel { op: op.name().to_owned() }),
    };
    Ok(vec![Move { unit: words.unit, axes: row_major(axes), fill, from: (x, 0), to: (y, 0) }])
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

/// Targets of an output that is filled by these axes alone.
fn row_major(mut axes: Vec<Axis>) -> Vec<Axis> {
    let mut stride = 1;
    for axis in axes.iter_mut().rev() {
        axis.target = stride;
        stride *= axis.extent;
    }
    axes
}

fn resolve(axis: i64, rank: usize) -> usize {
    // Inference has checked it.
    (if axis < 0 { axis + rank as i64 } else { axis }).clamp(0, rank.max(1) as i64 - 1) as usize
}

/// An axis as it is, at these strides.
fn whole(extent: usize, source: usize, target: usize) -> Axis {
    Axis { extent, target, source: Source::Even { start: 0, step: source as i64 } }
}

fn concat(site: Site<'_>, node: &Node, axis: i64, words: Words) -> Result<Vec<Move>, Reason> {
    let y = family::output(node, 0)?;
    let shape = site.shape(y)?;
    let targets = strides(&shape, words.count);
    let axis = resolve(axis, shape.len());
    let (mut moves, mut done) = (vec![], 0);
    for &input in node.inputs().iter().flatten() {
        let part = site.shape(input)?;
        let sources = strides(&part, words.count);
        let axes = (0..part.len()).map(|i| whole(part[i], sources[i], targets[i])).collect();
        let to = (y, words.unit * done * targets[axis]);
        done += part[axis];
        let axes = with_words(axes, words);
        moves.push(Move { unit: words.unit, axes, fill: 0, from: (input, 0), to });
    }
    Ok(moves)
}

fn split(site: Site<'_>, node: &Node, (x, axis): (ValueId, i64), words: Words) -> Result<Vec<Move>, Reason> {
    let shape = site.shape(x)?;
    let sources = strides(&shape, words.count);
    let axis = resolve(axis, shape.len());
    let (mut moves, mut done) = (vec![], 0);
    for &output in node.outputs() {
        // The size of a part without a name is not known here.
        let Some(output) = output else {
            return Err(Reason::variant(
                "Split with a part that nobody wants",
                "Split whose parts all have names",
            ));
        };
        let part = site.shape(output)?;
        let targets = strides(&part, words.count);
        let axes = (0..part.len()).map(|i| whole(part[i], sources[i], targets[i])).collect();
        let from = (x, words.unit * done * sources[axis]);
        done += part[axis];
        let axes = with_words(axes, words);
        moves.push(Move { unit: words.unit, axes, fill: 0, from, to: (output, 0) });
    }
    Ok(moves)
}

/// Each axis by its table.
fn nearest(shape: &[usize], resized: &[ResizeAxis]) -> Result<Vec<Axis>, Reason> {
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

/// One axis of the data is replaced by those of the indices. One that is out of range is an error when it runs.
fn gathered(shape: &[usize], axis: i64, chosen: &[i64], words: Words) -> Result<Vec<Axis>, Reason> {
    let (axis, strides) = (resolve(axis, shape.len()), strides(shape, words.count));
    let mut axes: Vec<Axis> = shape.iter().zip(&strides).map(|(&extent, &at)| whole(extent, at, 0)).collect();
    let extent = shape.get(axis).copied().unwrap_or(1) as i64;
    let place = |&index: &i64| {
        let index = if index < 0 { index + extent } else { index };
        (0..extent).contains(&index).then_some(Some(index * strides[axis] as i64))
    };
    let outside = || Reason::variant("an index that is out of range", "an index within the axis");
    let places: Option<Vec<Option<i64>>> = chosen.iter().map(place).collect();
    let places = places.ok_or_else(outside)?;
    axes[axis] = Axis { extent: places.len(), target: 0, source: Source::Listed(places) };
    Ok(with_words(axes, words))
}
