//! GridSample over two axes: places are found for an output, then its channels pass over them.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use super::walk::indices;
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F64, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tconvc_ir::ops::{GridSample, SampleBorder, SampleMode};
use tconvc_ir::{Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;

/// Outputs of a work item.
const BLOCK: usize = 256;
/// Nanoseconds that an output takes, and each of its channels, about.
const NS_OF_PLACE: f64 = 8.0;
const NS_OF_ELEMENT: f64 = 2.0;
/// Adding it and taking it away again rounds numbers of few digits, half to even.
const ROUNDS: f64 = 6_755_399_441_055_744.0;
/// Positions beyond this are outside of whatever there is.
const FAR: f64 = 1e9;

/// GridSample.
pub(crate) struct Sampling;

impl KernelFamily for Sampling {
    fn name(&self) -> &'static str {
        "sampling"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let Op::GridSample(op) = node.op else {
            return Err(Reason::variant(node.op.name(), "GridSample"));
        };
        let (x, grid, y) = (family::input(node, 0)?, family::input(node, 1)?, family::output(node, 0)?);
        site.all_f32([x, grid])?;
        if op.mode == SampleMode::Cubic {
            return Err(Reason::variant("mode cubic", "linear or nearest"));
        }
        if op.border == SampleBorder::Reflection {
            return Err(Reason::variant("padding_mode reflection", "zeros or border"));
        }
        let (data, out) = (site.shape(x)?, site.shape(y)?);
        let (&[images, channels, height, width], &[_, _, rows, columns]) = (data.as_slice(), out.as_slice())
        else {
            return Err(Reason::variant(format!("{} axes", data.len()), "two axes of images"));
        };
        Reason::within("elements of a plane", height.saturating_mul(width), 1 << 30)?;
        if height * width == 0 {
            return Err(Reason::variant("data without elements", "data with some"));
        }
        let plane = [height, width];
        Ok(Box::new(Places { op, x, grid, y, images, channels, plane, outputs: rows * columns }))
    }
}

/// Outputs to sample.
struct Places {
    op: GridSample,
    x: ValueId,
    grid: ValueId,
    y: ValueId,
    images: usize,
    channels: usize,
    plane: [usize; 2],
    /// Of an image.
    outputs: usize,
}

/// What an output reads along an axis: an index that is there, a mask that is zero where nothing is to be read, and a weight.
struct Neighbour {
    index: Value,
    mask: Value,
    weight: Value,
}

impl<'a> KernelPlan<'a> for Places {
    fn name(&self) -> String {
        let mode = if self.op.mode == SampleMode::Nearest { "nearest" } else { "linear" };
        format!("f32_sample_{mode}")
    }

    fn cost_ns(&self, _: &Target) -> f64 {
        let places = (self.images * self.outputs) as f64;
        places * (NS_OF_PLACE + self.channels as f64 * NS_OF_ELEMENT)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        _: &Codes,
    ) -> Result<(), CompileError> {
        let operands = vec![builder.operand(self.x)?, builder.operand(self.grid)?, builder.operand(self.y)?];
        let blocks = self.outputs.div_ceil(BLOCK);
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let pointers = [0, 1, 2].map(|i| f.pointer(table, i));
            f.for_each(begin, end, |f, item| {
                let place = indices(f, item, &[self.images, blocks]);
                let first = f.builder.ins().imul_imm_s(place[1], BLOCK as i64);
                let last = f.add_constant(first, BLOCK as i64);
                let all = f.constant(self.outputs as i64);
                let last = f.builder.ins().umin(last, all);
                f.for_each(first, last, |f, output| self.output(f, pointers, place[0], output));
            });
        })?;
        let cost = self.cost_ns(builder.target);
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: self.images * blocks };
        builder.push_work_items(items, cost);
        Ok(())
    }
}

impl Places {
    /// All channels of an output.
    fn output(&self, f: &mut FunctionBuilder<'_>, [x, grid, y]: [Value; 3], image: Value, output: Value) {
        let [height, width] = self.plane;
        let number = f.builder.ins().imul_imm_s(image, self.outputs as i64);
        let number = f.builder.ins().iadd(number, output);
        let place = f.element(grid, number, 8);
        // The last axis comes first.
        let [across, down] = [(0, width), (4, height)].map(|(at, extent)| {
            let place = f.builder.ins().load(F32, MemFlagsData::trusted(), place, at);
            let position = self.position(f, place, extent);
            self.neighbours(f, position, extent)
        });
        let mut terms = vec![];
        for row in &down {
            let base = f.builder.ins().imul_imm_s(row.index, width as i64);
            for column in &across {
                let index = f.builder.ins().iadd(base, column.index);
                let offset = f.builder.ins().imul_imm_s(index, 4);
                let mask = f.builder.ins().band(row.mask, column.mask);
                let weight = f.builder.ins().fmul(row.weight, column.weight);
                terms.push((offset, mask, weight));
            }
        }
        let (plane, outputs) = ((4 * height * width) as i64, 4 * self.outputs as i64);
        let from = f.builder.ins().imul_imm_s(image, self.channels as i64);
        let read = f.element(x, from, plane);
        let write = f.element(y, from, outputs);
        let write = f.element(write, output, 4);
        f.for_count(self.channels as u64, |f, channel| {
            let read = f.element(read, channel, plane);
            let write = f.element(write, channel, outputs);
            let mut sum = None;
            for &(offset, mask, weight) in &terms {
                let at = f.builder.ins().iadd(read, offset);
                let bits = f.builder.ins().load(I32, MemFlagsData::trusted(), at, 0);
                let bits = f.builder.ins().band(bits, mask);
                let value = f.builder.ins().bitcast(F32, MemFlagsData::new(), bits);
                let value = f.builder.ins().fpromote(F64, value);
                let term = f.builder.ins().fmul(weight, value);
                sum = Some(match sum {
                    None => term,
                    Some(sum) => f.builder.ins().fadd(sum, term),
                });
            }
            if let Some(sum) = sum {
                let sum = f.builder.ins().fdemote(F32, sum);
                f.builder.ins().store(MemFlagsData::trusted(), sum, write, 0);
            }
        });
    }

    /// Position of a place from -1 to 1, rounded as in f32.
    fn position(&self, f: &mut FunctionBuilder<'_>, place: Value, extent: usize) -> Value {
        let one = f.builder.ins().f32const(1.0);
        let moved = f.builder.ins().fadd(place, one);
        if self.op.align_corners {
            let half = f.builder.ins().f32const(0.5);
            let last = f.builder.ins().f32const((extent - 1) as f32);
            let share = f.builder.ins().fmul(moved, half);
            let position = f.builder.ins().fmul(share, last);
            return f.builder.ins().fpromote(F64, position);
        }
        let extent = f.builder.ins().f32const(extent as f32);
        let twice = f.builder.ins().fmul(moved, extent);
        let twice = f.builder.ins().fsub(twice, one);
        let twice = f.builder.ins().fpromote(F64, twice);
        let half = f.builder.ins().f64const(0.5);
        f.builder.ins().fmul(twice, half)
    }

    /// What a position reads along an axis.
    fn neighbours(&self, f: &mut FunctionBuilder<'_>, position: Value, extent: usize) -> Vec<Neighbour> {
        let last = (extent - 1) as f64;
        let (low, high) = if self.op.border == SampleBorder::Border { (0.0, last) } else { (-FAR, FAR) };
        let nearest = self.op.mode == SampleMode::Nearest;
        let mut position =
            clamp(f, position, if nearest { -FAR } else { low }, if nearest { FAR } else { high });
        if nearest {
            let rounds = f.builder.ins().f64const(ROUNDS);
            let sum = f.builder.ins().fadd(position, rounds);
            position = f.builder.ins().fsub(sum, rounds);
            position = clamp(f, position, low, high);
            let one = f.builder.ins().f64const(1.0);
            return vec![self.neighbour(f, position, one, extent)];
        }
        let whole = f.builder.ins().fcvt_to_sint_sat(I64, position);
        let whole = f.builder.ins().fcvt_from_sint(F64, whole);
        let one = f.builder.ins().f64const(1.0);
        let below = f.builder.ins().fsub(whole, one);
        let is_above = f.builder.ins().fcmp(FloatCC::GreaterThan, whole, position);
        let left = f.builder.ins().select(is_above, below, whole);
        let ratio = f.builder.ins().fsub(position, left);
        let rest = f.builder.ins().fsub(one, ratio);
        // No number has no neighbours.
        let is_number = f.builder.ins().fcmp(FloatCC::Equal, position, position);
        let left = f.builder.ins().select(is_number, left, position);
        let right = f.builder.ins().fadd(left, one);
        vec![self.neighbour(f, left, rest, extent), self.neighbour(f, right, ratio, extent)]
    }

    /// The element at a whole number.
    fn neighbour(&self, f: &mut FunctionBuilder<'_>, at: Value, weight: Value, extent: usize) -> Neighbour {
        let index = index(f, at, extent);
        let all = f.builder.ins().iconst(I32, -1);
        if self.op.border != SampleBorder::Zeros {
            return Neighbour { index, mask: all, weight };
        }
        let (low, high) = (f.builder.ins().f64const(0.0), f.builder.ins().f64const((extent - 1) as f64));
        let low = f.builder.ins().fcmp(FloatCC::GreaterThanOrEqual, at, low);
        let high = f.builder.ins().fcmp(FloatCC::LessThanOrEqual, at, high);
        let inside = f.builder.ins().band(low, high);
        let none = f.builder.ins().iconst(I32, 0);
        // What is not read has no part in the sum, whatever its weight.
        let zero = f.builder.ins().f64const(0.0);
        let weight = f.builder.ins().select(inside, weight, zero);
        let mask = f.builder.ins().select(inside, all, none);
        Neighbour { index, mask, weight }
    }
}

/// An index that is there.
fn index(f: &mut FunctionBuilder<'_>, at: Value, extent: usize) -> Value {
    let index = f.builder.ins().fcvt_to_sint_sat(I64, at);
    let (first, last) = (f.constant(0), f.constant(extent as i64 - 1));
    let index = f.builder.ins().smax(index, first);
    f.builder.ins().smin(index, last)
}

/// A number in a range; no number stays none.
fn clamp(f: &mut FunctionBuilder<'_>, x: Value, low: f64, high: f64) -> Value {
    let (low, high) = (f.builder.ins().f64const(low), f.builder.ins().f64const(high));
    let is_low = f.builder.ins().fcmp(FloatCC::LessThan, x, low);
    let x = f.builder.ins().select(is_low, low, x);
    let is_high = f.builder.ins().fcmp(FloatCC::GreaterThan, x, high);
    f.builder.ins().select(is_high, high, x)
}
