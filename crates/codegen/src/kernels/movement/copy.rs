//! A copy along any axes as one kernel: axes merged, the innermost one as straight code, the others as units of work.

use super::super::walk::{below, choose, entry, indices};
use super::{rows, squares};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::program::{Kernel, Operand};
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;

/// Copies words from one buffer to another.
pub(super) struct Copy {
    /// What kernels are named after.
    pub label: String,
    /// Axes of the target, outermost first.
    pub axes: Vec<Axis>,
    /// The word where there is no source.
    pub fill: u32,
    pub from: Operand,
    pub to: Operand,
}

/// One axis of a copy. Places add up over the axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub extent: usize,
    /// Words between neighbours of the target.
    pub target: usize,
    pub source: Source,
}

/// Places along an axis in the source, in words.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// `start + i * step`.
    Even { start: i64, step: i64 },
    /// A place for each; none is the fill word.
    Listed(Vec<Option<i64>>),
}

/// The innermost loops.
pub(super) struct Code {
    /// Chunks of the axis that is cut, how many of them are whole, and words from one to the next in source and target.
    pub chunks: usize,
    pub whole: usize,
    pub source_step: i64,
    pub target_step: i64,
    /// Code of a whole chunk and of the last, smaller one: `source, target, more..`.
    pub full: Option<FunctionId>,
    pub tail: Option<FunctionId>,
    /// Fills a row that has no source: `target`.
    pub missing: Option<FunctionId>,
    /// More operands, handed to the code as they are.
    pub more: Vec<Operand>,
    /// For the kernel's name.
    pub kind: String,
}

/// Words beyond which displacements may not fit.
const FARTHEST: usize = 1 << 27;

impl Axis {
    /// Words from the first to the farthest place in the source.
    fn reach(&self) -> usize {
        match &self.source {
            Source::Even { step, .. } => step.unsigned_abs() as usize * self.extent.saturating_sub(1),
            Source::Listed(places) => places.iter().flatten().max().map_or(0, |&place| place as usize),
        }
    }
}

/// Stands for no source in tables of byte offsets; sums with it stay below zero.
const NOWHERE: i64 = -(1 << 56);

/// The kernel of a copy: no kernel where nothing is to be done, `None` where the target has no code for it.
pub(super) fn kernel(builder: &mut Builder<'_>, mut copy: Copy) -> Result<Option<Vec<Kernel>>, CompileError> {
    if copy.axes.iter().any(|axis| axis.extent == 0) {
        return Ok(Some(vec![]));
    }
    let words: usize = copy.axes.iter().map(|axis| axis.extent).product();
    if words > FARTHEST || copy.axes.iter().map(Axis::reach).sum::<usize>() > FARTHEST {
        return Ok(None);
    }
    let start = merge(&mut copy.axes);
    let (Ok(start), [outer @ .., row]) = (usize::try_from(start), copy.axes.as_slice()) else {
        return Ok(None);
    };
    let mut outer = outer.to_vec();
    let from = Operand { offset: copy.from.offset + 4 * start, ..copy.from };
    let even = |axis: &Axis| matches!(axis.source, Source::Even { .. });
    let in_place = |axis: &Axis| axis.source == Source::Even { start: 0, step: axis.target as i64 };
    if from == copy.to && copy.axes.iter().all(in_place) {
        return Ok(Some(vec![]));
    }
    let name = builder.unique(&format!("word_{}", copy.label));
    let code = match squares::code(builder, &name, &mut outer, row)? {
        Some(code) => code,
        None => match rows::code(builder, &name, row, outer.iter().all(even), copy.fill)? {
            Some(code) => code,
            None => return Ok(None),
        },
    };
    let mut operands = vec![from, copy.to];
    let more = operands.len()..operands.len() + code.more.len();
    operands.extend(&code.more);
    let mut extents: Vec<usize> = outer.iter().map(|axis| axis.extent).collect();
    extents.push(code.chunks);
    let mut tables = vec![];
    for axis in &outer {
        tables.push(match &axis.source {
            Source::Even { .. } => None,
            Source::Listed(places) => {
                let bytes: Vec<i64> = places.iter().map(|place| place.map_or(NOWHERE, |at| 4 * at)).collect();
                operands.push(builder.pack_bytes(bytemuck::cast_slice(&bytes)));
                Some(operands.len() - 1)
            }
        });
    }
    let units: usize = extents.iter().product();
    let name = format!("{name}_{}", code.kind);
    let function = builder.add_step(&name, |glue| {
        let (table, begin, end) = (glue.params[0], glue.params[1], glue.params[2]);
        let pointers: Vec<_> = (0..operands.len()).map(|i| glue.pointer(table, i)).collect();
        glue.for_each(begin, end, |glue, unit| {
            let along = indices(glue, unit, &extents);
            let (mut source, mut target) = (glue.constant(0), pointers[1]);
            for ((axis, &index), &listed) in outer.iter().zip(&along).zip(&tables) {
                target = glue.element(target, index, 4 * axis.target as i64);
                source = match (&axis.source, listed) {
                    (Source::Even { step: 0, .. }, _) => source,
                    (Source::Even { step, .. }, _) => glue.element(source, index, 4 * step),
                    (Source::Listed(_), listed) => {
                        let place = entry(glue, pointers[listed.unwrap_or(0)], index);
                        glue.builder.ins().iadd(source, place)
                    }
                };
            }
            let chunk = along[outer.len()];
            let copy = |glue: &mut crate::exec::Glue<'_>| {
                let source = glue.builder.ins().iadd(pointers[0], source);
                let mut args = vec![
                    glue.element(source, chunk, 4 * code.source_step),
                    glue.element(target, chunk, 4 * code.target_step),
                ];
                args.extend(&pointers[more.clone()]);
                match (code.full, code.tail) {
                    (Some(full), Some(tail)) => {
                        let whole = below(glue, chunk, code.whole);
                        choose(glue, whole, |glue| glue.call(full, &args), |glue| glue.call(tail, &args));
                    }
                    (Some(only), None) | (None, Some(only)) => glue.call(only, &args),
                    (None, None) => {}
                }
            };
            match code.missing {
                Some(missing) => {
                    let nowhere = glue.builder.ins().icmp_imm_s(IntCC::SignedLessThan, source, 0);
                    choose(glue, nowhere, |glue| glue.call(missing, &[target]), copy);
                }
                None => copy(glue),
            }
        });
    })?;
    // About 10 GB/s, and a few instructions a unit.
    let nanoseconds = words as f64 * 0.4 + units as f64 * 4.0;
    let splits = builder.even_splits(units as u64, nanoseconds);
    Ok(Some(vec![Kernel { name, function, operands, splits, scratch_bytes: 0 }]))
}

/// Drops axes of one element and joins those that go on evenly into each other. Returns where the first element is.
fn merge(axes: &mut Vec<Axis>) -> i64 {
    let (mut merged, mut first): (Vec<Axis>, i64) = (vec![], 0);
    for mut axis in axes.drain(..) {
        if let Source::Even { start, step } = &mut axis.source {
            first += std::mem::take(start);
            if axis.extent == 1 {
                continue;
            }
            if let Some(Axis { extent, target, source: Source::Even { step: outer, .. } }) = merged.last_mut()
                && *outer == *step * axis.extent as i64
                && *target == axis.target * axis.extent
            {
                (*extent, *target, *outer) = (*extent * axis.extent, axis.target, *step);
                continue;
            }
        }
        merged.push(axis);
    }
    if merged.is_empty() {
        merged.push(Axis { extent: 1, target: 1, source: Source::Even { start: 0, step: 1 } });
    }
    *axes = merged;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(extent: usize, target: usize, start: i64, step: i64) -> Axis {
        Axis { extent, target, source: Source::Even { start, step } }
    }

    #[test]
    fn axes_merge_where_both_sides_go_on() {
        let mut axes = vec![even(2, 60, 7, 60), even(1, 60, 3, 9), even(3, 20, 0, 20), even(20, 1, 0, 1)];
        assert_eq!(merge(&mut axes), 10);
        assert_eq!(axes, [even(120, 1, 0, 1)]);
        let mut axes = vec![even(4, 3, 0, 1), even(3, 1, 0, 4)];
        assert_eq!(merge(&mut axes), 0);
        assert_eq!(axes.len(), 2);
        let mut axes = vec![even(1, 1, 5, 1)];
        assert_eq!((merge(&mut axes), axes), (5, vec![even(1, 1, 0, 1)]));
    }
}
