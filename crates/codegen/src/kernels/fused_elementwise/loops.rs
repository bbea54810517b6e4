//! The loops around a row of an elementwise kernel: the output as rows, and each input's way through it.

use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_machine::Target;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::Operand;
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// Elements of a work item where the output is one long row.
const BLOCK: usize = 8192;

/// How an input follows the output along its innermost axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    /// Element by element.
    Along,
    /// One element for the whole row.
    Splat,
}

/// The output as rows, and each input's way through it.
pub(super) struct Loops {
    /// Extents outside the row, outermost first.
    outer: Vec<usize>,
    /// Elements of a row.
    row: usize,
    /// For each input, elements between neighbours along each outer axis.
    strides: Vec<Vec<usize>>,
    inner: Vec<Inner>,
}

/// Gives an input by its number, as code.
pub(super) type Load<'a> = &'a mut dyn FnMut(&mut TileBuilder, usize) -> Vector;

impl Loops {
    pub fn new(output: &[usize], inputs: &[Vec<usize>]) -> Self {
        // Strides of each input along the output's axes; 0 where it is broadcast.
        let strides: Vec<Vec<usize>> = inputs
            .iter()
            .map(|shape| {
                let mut strides = vec![0; output.len()];
                let mut step = 1;
                for (axis, &extent) in shape.iter().enumerate().rev() {
                    if extent != 1 {
                        strides[output.len() - shape.len() + axis] = step;
                    }
                    step *= extent;
                }
                strides
            })
            .collect();
        // Axes merge where every input goes on evenly from one into the next.
        let mut axes: Vec<(usize, Vec<usize>)> = vec![];
        for (axis, &extent) in output.iter().enumerate() {
            if extent == 1 {
                continue;
            }
            let here: Vec<usize> = strides.iter().map(|strides| strides[axis]).collect();
            match axes.last_mut() {
                Some((before, outer))
                    if outer.iter().zip(&here).all(|(&outer, &inner)| outer == inner * extent) =>
                {
                    *before *= extent;
                    *outer = here;
                }
                _ => axes.push((extent, here)),
            }
        }
        let (row, inner) = axes.pop().unwrap_or_else(|| (1, vec![0; inputs.len()]));
        Self {
            outer: axes.iter().map(|(extent, _)| *extent).collect(),
            row,
            strides: (0..inputs.len())
                .map(|i| axes.iter().map(|(_, strides)| strides[i]).collect())
                .collect(),
            inner: inner
                .into_iter()
                .map(|stride| if stride == 0 { Inner::Splat } else { Inner::Along })
                .collect(),
        }
    }

    /// Work items: rows, or blocks of the only one.
    fn work_items(&self) -> usize {
        let blocks = if self.outer.is_empty() { self.row.div_ceil(BLOCK) } else { 1 };
        self.outer.iter().product::<usize>() * blocks
    }

    /// Nanoseconds that it takes one thread, about.
    pub fn cost_ns(&self, target: &Target) -> f64 {
        let rates = target.rates().elementwise;
        let elements = self.outer.iter().product::<usize>() * self.row;
        let operands = elements * (1 + self.inner.len());
        operands as f64 * rates.operand + self.work_items() as f64 * rates.operand_item
    }

    /// A row: parameters are the inputs, the output, whole vectors, and elements of the last one. `value` writes the code of a
    /// vector of results; inputs that it reads again are kept in registers where `is_read_again` says so.
    ///
    /// # Errors
    /// Where the code breaks a rule of tiles.
    pub fn tile(
        &self,
        mut b: TileBuilder,
        is_read_again: &dyn Fn(usize) -> bool,
        value: &dyn Fn(&mut TileBuilder, Load<'_>) -> Option<Vector>,
    ) -> Result<Tile, TileError> {
        let inputs: Vec<Pointer> = (0..self.inner.len()).map(|i| b.pointer(&format!("x{i}"))).collect();
        let y = b.pointer("y");
        let (vectors, rest) = (b.count("vectors"), b.count("rest"));
        let bytes = b.vector_bytes();
        // Beyond so many registers, inputs are loaded again wherever they are used.
        let most_kept = b.target().vector_registers() / 4;
        let splats = (0..inputs.len()).filter(|&i| self.inner[i] == Inner::Splat).take(most_kept);
        let mut known: Vec<Option<Vector>> = vec![None; inputs.len()];
        for i in splats {
            known[i] = Some(b.load_splat(inputs[i].at(0)));
        }
        let keeps = inputs.len() <= most_kept;
        let moving = inputs.iter().zip(&self.inner).filter(|(_, inner)| **inner == Inner::Along);
        let moving = moving.map(|(&pointer, _)| pointer).chain([y]);
        let advances: Vec<_> = moving.map(|pointer| (pointer, bytes)).collect();
        let body = |b: &mut TileBuilder, lanes: Lanes| {
            let mut kept = known.clone();
            let mut load = |b: &mut TileBuilder, i: usize| {
                if let Some(known) = kept[i] {
                    return known;
                }
                let loaded = match self.inner[i] {
                    Inner::Along => b.load_lanes(inputs[i].at(0), lanes),
                    Inner::Splat => b.load_splat(inputs[i].at(0)),
                };
                if keeps && is_read_again(i) {
                    kept[i] = Some(loaded);
                }
                loaded
            };
            if let Some(result) = value(b, &mut load) {
                b.store_lanes(result, y.at(0), lanes);
            }
        };
        b.repeat(vectors, &advances, |b| body(b, Lanes::All));
        body(&mut b, Lanes::FirstOf(rest));
        b.finish()
    }

    /// Adds the function around the rows, and the program's step. Operands are the inputs, then the output.
    ///
    /// # Errors
    /// Where the function does not fit the target.
    pub fn push(
        &self,
        builder: &mut Builder<'_>,
        name: String,
        row: FunctionId,
        operands: Vec<Operand>,
    ) -> Result<(), CompileError> {
        let lanes = builder.target.lanes();
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
            f.for_each(begin, end, |f, item| {
                let mut args = vec![];
                if self.outer.is_empty() {
                    let first = f.builder.ins().imul_imm_s(item, BLOCK as i64);
                    for (i, &pointer) in pointers.iter().enumerate() {
                        let along = i == self.inner.len() || self.inner[i] == Inner::Along;
                        args.push(if along { f.element(pointer, first, 4) } else { pointer });
                    }
                    let total = f.constant(self.row as i64);
                    let left = f.builder.ins().isub(total, first);
                    let most = f.constant(BLOCK as i64);
                    let length = f.builder.ins().umin(left, most);
                    let vectors = f.builder.ins().udiv_imm_u(length, lanes as i64);
                    let whole = f.builder.ins().imul_imm_s(vectors, lanes as i64);
                    let rest = f.builder.ins().isub(length, whole);
                    args.extend([vectors, rest]);
                } else {
                    for (&pointer, place) in pointers.iter().zip(self.places(f, item)) {
                        args.push(f.element(pointer, place, 4));
                    }
                    args.push(f.constant((self.row / lanes) as i64));
                    args.push(f.constant((self.row % lanes) as i64));
                }
                f.call(row, &args);
            });
        })?;
        let (count, nanoseconds) = (self.work_items(), self.cost_ns(builder.target));
        builder.push_work_items(WorkItems { name, function, operands, scratch_bytes: 0, count }, nanoseconds);
        Ok(())
    }

    /// Element of each input, then of the output, at which a row starts.
    fn places(&self, f: &mut FunctionBuilder<'_>, item: Value) -> Vec<Value> {
        let zero = f.constant(0);
        let mut places = vec![zero; self.strides.len() + 1];
        let output = f.builder.ins().imul_imm_s(item, self.row as i64);
        places[self.strides.len()] = output;
        let mut left = item;
        for (axis, &extent) in self.outer.iter().enumerate().rev() {
            let index = if axis == 0 {
                left
            } else {
                let quotient = f.builder.ins().udiv_imm_u(left, extent as i64);
                let whole = f.builder.ins().imul_imm_s(quotient, extent as i64);
                let index = f.builder.ins().isub(left, whole);
                left = quotient;
                index
            };
            for (place, strides) in places.iter_mut().zip(&self.strides) {
                if strides[axis] != 0 {
                    let offset = f.builder.ins().imul_imm_s(index, strides[axis] as i64);
                    *place = f.builder.ins().iadd(*place, offset);
                }
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_merge_where_inputs_go_on_evenly() {
        let whole = Loops::new(&[2, 3, 4, 5], &[vec![2, 3, 4, 5], vec![]]);
        assert_eq!((whole.outer.len(), whole.row, whole.inner), (0, 120, vec![Inner::Along, Inner::Splat]));
        let channels = Loops::new(&[2, 3, 4, 5], &[vec![2, 3, 4, 5], vec![3, 1, 1]]);
        assert_eq!(
            (channels.outer, channels.row, channels.inner),
            (vec![2, 3], 20, vec![Inner::Along, Inner::Splat])
        );
        assert_eq!(channels.strides, [[60, 20], [0, 1]]);
        let last = Loops::new(&[2, 3, 4], &[vec![2, 3, 4], vec![4]]);
        assert_eq!((last.outer, last.row, last.inner), (vec![6], 4, vec![Inner::Along, Inner::Along]));
        assert_eq!(Loops::new(&[1, 1], &[vec![1]]).row, 1);
    }
}
