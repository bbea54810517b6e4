//! A copy along any axes as one kernel: axes merged, the innermost one as straight code, the others as work items.

use super::super::walk::{below, choose, entry, indices};
use super::axes::{Axis, Source, bytes_of};
use super::{narrow, rows, squares};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use tconvc_runtime::program::Operand;

/// Copies words from one buffer to another.
pub(super) struct Copy {
    /// What kernels are named after.
    pub label: String,
    /// Bytes of a word: 1, 2 or 4.
    pub unit: usize,
    /// Axes of the target, outermost first.
    pub axes: Vec<Axis>,
    /// The word where there is no source; shorter words are repeated until there are four bytes.
    pub fill: u32,
    pub from: Operand,
    pub to: Operand,
}

/// Stands for no source in tables of byte offsets; sums with it stay below zero.
const NOWHERE: i64 = -(1 << 56);

/// Makes the kernel of a copy; none where nothing is to be done.
pub(super) fn build(builder: &mut Builder<'_>, mut copy: Copy) -> Result<(), CompileError> {
    if copy.axes.iter().any(|axis| axis.extent == 0) {
        return Ok(());
    }
    let words: usize = copy.axes.iter().map(|axis| axis.extent).product();
    let mut start = merge(&mut copy.axes);
    widen(&mut copy, &mut start);
    let unit = copy.unit;
    let (Ok(start), [outer @ .., row]) = (usize::try_from(start), copy.axes.as_slice()) else {
        return Err(builder.unsupported("it reads before the begin of its input".into()));
    };
    let mut outer = outer.to_vec();
    let from = Operand { offset: copy.from.offset + unit * start, ..copy.from };
    let even = |axis: &Axis| matches!(axis.source, Source::Even { .. });
    let in_place = |axis: &Axis| axis.source == Source::Even { start: 0, step: axis.target as i64 };
    if from.is_at(&copy.to) && copy.axes.iter().all(in_place) {
        return Ok(());
    }
    let width = match unit {
        1 => "byte",
        2 => "short",
        _ => "word",
    };
    let name = builder.unique(&format!("{width}_{}", copy.label));
    let code = if unit < 4 {
        narrow::code(builder, &name, &mut outer, row, (unit, copy.fill))?
    } else {
        match squares::code(builder, &name, &mut outer, row)? {
            Some(code) => code,
            None => rows::code(builder, &name, row, outer.iter().all(even), copy.fill)?,
        }
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
                let bytes: Vec<i64> =
                    places.iter().map(|place| place.map_or(NOWHERE, |at| bytes_of(unit, at))).collect();
                operands.push(builder.pack_bytes(bytemuck::cast_slice(&bytes)));
                Some(operands.len() - 1)
            }
        });
    }
    let units: usize = extents.iter().product();
    let name = format!("{name}_{}", code.kind);
    let function = builder.add_step(&name, |f| {
        let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
        let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
        f.for_each(begin, end, |f, number| {
            let along = indices(f, number, &extents);
            let (mut source, mut target) = (f.constant(0), pointers[1]);
            for ((axis, &index), &listed) in outer.iter().zip(&along).zip(&tables) {
                target = f.element(target, index, bytes_of(unit, axis.target as i64));
                source = match (&axis.source, listed) {
                    (Source::Even { step: 0, .. }, _) => source,
                    (Source::Even { step, .. }, _) => f.element(source, index, bytes_of(unit, *step)),
                    (Source::Listed(_), listed) => {
                        let place = entry(f, pointers[listed.unwrap_or(0)], index);
                        f.builder.ins().iadd(source, place)
                    }
                };
            }
            let chunk = along[outer.len()];
            let copy = |f: &mut crate::module::FunctionBuilder<'_>| {
                let source = f.builder.ins().iadd(pointers[0], source);
                let mut args = vec![
                    f.element(source, chunk, bytes_of(unit, code.source_step)),
                    f.element(target, chunk, bytes_of(unit, code.target_step)),
                ];
                args.extend(&pointers[more.clone()]);
                match (code.full, code.rest) {
                    (Some(full), Some(rest)) => {
                        let whole = below(f, chunk, code.whole);
                        choose(f, whole, |f| f.call(full, &args), |f| f.call(rest, &args));
                    }
                    (Some(only), None) | (None, Some(only)) => f.call(only, &args),
                    (None, None) => {}
                }
            };
            match code.missing {
                Some(missing) => {
                    let nowhere = f.builder.ins().icmp_imm_s(IntCC::SignedLessThan, source, 0);
                    choose(f, nowhere, |f| f.call(missing, &[target]), copy);
                }
                None => copy(f),
            }
        });
    })?;
    let rates = builder.target.rates().elementwise;
    let nanoseconds = words as f64 * rates.copied + units as f64 * rates.copied_item;
    builder
        .push_work_items(WorkItems { name, function, operands, scratch_bytes: 0, count: units }, nanoseconds);
    Ok(())
}

/// Makes the words longer where all rows are runs of whole longer ones.
fn widen(copy: &mut Copy, start: &mut i64) {
    let Some((row, outer)) = copy.axes.split_last_mut() else { return };
    let run = row.target == 1 && row.source == Source::Even { start: 0, step: 1 };
    let fits = |factor: usize| {
        let words = factor as i64;
        let even = |axis: &Axis| {
            axis.target.is_multiple_of(factor)
                && match &axis.source {
                    Source::Even { step, .. } => step % words == 0,
                    Source::Listed(places) => places.iter().flatten().all(|place| place % words == 0),
                }
        };
        let bytes = copy.unit * factor;
        row.extent.is_multiple_of(factor)
            && *start % words == 0
            && copy.from.offset.is_multiple_of(bytes)
            && copy.to.offset.is_multiple_of(bytes)
            && outer.iter().all(even)
    };
    let Some(factor) = [4, 2].into_iter().find(|&factor| run && copy.unit * factor <= 4 && fits(factor))
    else {
        return;
    };
    *start /= factor as i64;
    copy.unit *= factor;
    row.extent /= factor;
    for axis in outer {
        axis.target /= factor;
        match &mut axis.source {
            Source::Even { step, .. } => *step /= factor as i64,
            Source::Listed(places) => places.iter_mut().flatten().for_each(|place| *place /= factor as i64),
        }
    }
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

    #[test]
    fn runs_of_short_words_become_longer_ones() {
        use tconvc_runtime::program::Space;
        let place = |offset| Operand { offset, ..Operand::new(Space::Arena, 0, 128) };
        let copy = |unit, axes, to| Copy {
            label: String::new(),
            unit,
            axes,
            fill: 0,
            from: place(0),
            to: place(to),
        };
        let listed = |places| Axis { extent: 2, target: 8, source: Source::Listed(places) };
        let mut whole = copy(1, vec![listed(vec![Some(4), None]), even(8, 1, 0, 1)], 64);
        let mut start = 12;
        widen(&mut whole, &mut start);
        let row = even(2, 1, 0, 1);
        let wide = Axis { extent: 2, target: 2, source: Source::Listed(vec![Some(1), None]) };
        assert_eq!((whole.unit, start, whole.axes), (4, 3, vec![wide, row]));
        for (unit, extent, start, to, expected) in
            [(1, 8, 2, 64, 2), (1, 6, 0, 64, 2), (1, 8, 0, 3, 1), (2, 8, 0, 2, 2), (2, 8, 2, 4, 4)]
        {
            let mut narrow = copy(unit, vec![even(extent, 1, 0, 1)], to);
            let mut start = start;
            widen(&mut narrow, &mut start);
            assert_eq!(narrow.unit, expected, "{unit} {extent} {start} {to}");
        }
    }
}
