//! Cast between numbers of one to eight bytes: element by element, and 8-bit integers from and to f32 sixteen at a time.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I8X16, I16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use tconvc_ir::{DType, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;

/// Elements of a work item.
const BLOCK: usize = 4096;
/// Elements that are converted together.
const TOGETHER: usize = 16;

/// An element type as machine code sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Float(Type),
    Int { ty: Type, signed: bool },
    Bool,
}

impl Number {
    fn of(dtype: DType) -> Option<Self> {
        let int = |ty, signed| Some(Self::Int { ty, signed });
        match dtype {
            DType::F32 => Some(Self::Float(F32)),
            DType::F64 => Some(Self::Float(F64)),
            DType::Bool => Some(Self::Bool),
            DType::I8 => int(I8, true),
            DType::U8 => int(I8, false),
            DType::I16 => int(I16, true),
            DType::U16 => int(I16, false),
            DType::I32 => int(I32, true),
            DType::U32 => int(I32, false),
            DType::I64 => int(I64, true),
            DType::U64 => int(I64, false),
            _ => None,
        }
    }

    fn ty(self) -> Type {
        match self {
            Self::Float(ty) | Self::Int { ty, .. } => ty,
            Self::Bool => I8,
        }
    }
}

/// Cast.
pub(crate) struct Conversion;

impl KernelFamily for Conversion {
    fn name(&self) -> &'static str {
        "conversion"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        let number = |value| {
            let found = site.graph.ty(value).dtype;
            let accepted = "f32, f64, bool or an integer of 8 to 64 bits";
            found.and_then(|dtype| Some((dtype, Number::of(dtype)?))).ok_or(Reason::Type { found, accepted })
        };
        let ((source, from), (target, to)) = (number(x)?, number(y)?);
        // It takes a detour that may round twice.
        if from == (Number::Int { ty: I64, signed: false }) && matches!(to, Number::Float(_)) {
            return Err(Reason::variant(format!("u64 to {target}"), "u64 to other integers"));
        }
        let count = site.shape(x)?.iter().product::<usize>();
        let name = format!("cast_{source}_to_{target}");
        Ok(Box::new(Elements { x, y, from, to, count, name }))
    }
}

/// Elements to convert.
struct Elements {
    x: ValueId,
    y: ValueId,
    from: Number,
    to: Number,
    count: usize,
    name: String,
}

impl<'a> KernelPlan<'a> for Elements {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let rates = target.rates().elementwise;
        let is_wide = together(self.from, self.to).is_some();
        self.count as f64 * if is_wide { rates.converted } else { rates.converted_alone }
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        _: &Codes,
    ) -> Result<(), CompileError> {
        let Self { x, y, from, to, count, .. } = *self;
        let operands = vec![builder.operand(x)?, builder.operand(y)?];
        let items = count.div_ceil(BLOCK);
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let (read, write) = (f.pointer(table, 0), f.pointer(table, 1));
            let (first, last) = f.elements_of((begin, end), BLOCK, count);
            let place = |f: &mut FunctionBuilder<'_>, i: Value| {
                (
                    f.element(read, i, i64::from(from.ty().bytes())),
                    f.element(write, i, i64::from(to.ty().bytes())),
                )
            };
            let mut next = first;
            if let Some(together) = together(from, to) {
                let here = f.builder.ins().isub(last, first);
                let groups = f.builder.ins().udiv_imm_u(here, TOGETHER as i64);
                let zero = f.constant(0);
                f.for_each(zero, groups, |f, group| {
                    let i = f.builder.ins().imul_imm_s(group, TOGETHER as i64);
                    let i = f.builder.ins().iadd(first, i);
                    let (read, write) = place(f, i);
                    together(f, read, write);
                });
                let done = f.builder.ins().imul_imm_s(groups, TOGETHER as i64);
                next = f.builder.ins().iadd(first, done);
            }
            f.for_each(next, last, |f, i| {
                let (read, write) = place(f, i);
                let value = f.builder.ins().load(from.ty(), MemFlagsData::trusted(), read, 0);
                let value = convert(f, value, from, to);
                f.builder.ins().store(MemFlagsData::trusted(), value, write, 0);
            });
        })?;
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: items };
        builder.push_work_items(items, self.cost_ns(builder.target));
        Ok(())
    }
}

/// One element, as the definition has it: integers wrap, floats saturate and NaN becomes 0, anything but 0 is true.
fn convert(f: &mut FunctionBuilder<'_>, value: Value, from: Number, to: Number) -> Value {
    match (from, to) {
        (from, to) if from.ty() == to.ty() && to != Number::Bool => value,
        (Number::Float(ty), Number::Bool) => {
            let zero = if ty == F32 { f.builder.ins().f32const(0.0) } else { f.builder.ins().f64const(0.0) };
            f.builder.ins().fcmp(FloatCC::NotEqual, value, zero)
        }
        (_, Number::Bool) => f.builder.ins().icmp_imm_s(IntCC::NotEqual, value, 0),
        (Number::Float(F32), Number::Float(_)) => f.builder.ins().fpromote(F64, value),
        (Number::Float(_), Number::Float(_)) => f.builder.ins().fdemote(F32, value),
        (Number::Float(_), Number::Int { ty, signed }) => to_int(f, value, ty, signed),
        (from, Number::Float(ty)) => {
            let wide = widened(f, value, from, I64);
            f.builder.ins().fcvt_from_sint(ty, wide)
        }
        (from, Number::Int { ty, .. }) if ty.bits() > from.ty().bits() => widened(f, value, from, ty),
        (_, Number::Int { ty, .. }) => f.builder.ins().ireduce(ty, value),
    }
}

/// An integer in a type that is not shorter.
fn widened(f: &mut FunctionBuilder<'_>, value: Value, from: Number, ty: Type) -> Value {
    match from {
        _ if from.ty() == ty => value,
        Number::Int { signed: true, .. } => f.builder.ins().sextend(ty, value),
        _ => f.builder.ins().uextend(ty, value),
    }
}

/// A float as an integer, saturated. Short ones through 32 bits.
fn to_int(f: &mut FunctionBuilder<'_>, value: Value, ty: Type, signed: bool) -> Value {
    if ty.bits() >= 32 {
        let ins = f.builder.ins();
        return if signed { ins.fcvt_to_sint_sat(ty, value) } else { ins.fcvt_to_uint_sat(ty, value) };
    }
    let (least, most) = if signed {
        (-(1_i64 << (ty.bits() - 1)), (1_i64 << (ty.bits() - 1)) - 1)
    } else {
        (0, (1_i64 << ty.bits()) - 1)
    };
    // 64 bits, because comparisons of them exist everywhere.
    let wide = f.builder.ins().fcvt_to_sint_sat(I64, value);
    let (least, most) = (f.constant(least), f.constant(most));
    let wide = f.builder.ins().smax(wide, least);
    let wide = f.builder.ins().smin(wide, most);
    f.builder.ins().ireduce(ty, wide)
}

/// Code for [`TOGETHER`] elements: `source, target`.
type Together = fn(&mut FunctionBuilder<'_>, Value, Value);

fn together(from: Number, to: Number) -> Option<Together> {
    match (from, to) {
        (Number::Float(F32), Number::Int { ty: I8, signed: false }) => Some(floats_to_u8),
        (Number::Float(F32), Number::Int { ty: I8, signed: true }) => Some(floats_to_i8),
        (Number::Int { ty: I8, signed: false }, Number::Float(F32)) => Some(u8s_to_floats),
        (Number::Int { ty: I8, signed: true }, Number::Float(F32)) => Some(i8s_to_floats),
        _ => None,
    }
}

fn floats_to_u8(f: &mut FunctionBuilder<'_>, read: Value, write: Value) {
    let [low, high] = shorts(f, read);
    let bytes = f.builder.ins().unarrow(low, high);
    f.builder.ins().store(unaligned(), bytes, write, 0);
}

fn floats_to_i8(f: &mut FunctionBuilder<'_>, read: Value, write: Value) {
    let [low, high] = shorts(f, read);
    let bytes = f.builder.ins().snarrow(low, high);
    f.builder.ins().store(unaligned(), bytes, write, 0);
}

/// Sixteen floats as integers of 16 bits, saturated on the way.
fn shorts(f: &mut FunctionBuilder<'_>, read: Value) -> [Value; 2] {
    [0, 32].map(|at| {
        let [low, high] = [at, at + 16].map(|at| {
            let floats = f.builder.ins().load(F32X4, unaligned(), read, at);
            f.builder.ins().fcvt_to_sint_sat(I32X4, floats)
        });
        f.builder.ins().snarrow(low, high)
    })
}

fn u8s_to_floats(f: &mut FunctionBuilder<'_>, read: Value, write: Value) {
    let bytes = f.builder.ins().load(I8X16, unaligned(), read, 0);
    let halves = [f.builder.ins().uwiden_low(bytes), f.builder.ins().uwiden_high(bytes)];
    store_floats(f, halves, write);
}

fn i8s_to_floats(f: &mut FunctionBuilder<'_>, read: Value, write: Value) {
    let bytes = f.builder.ins().load(I8X16, unaligned(), read, 0);
    let halves = [f.builder.ins().swiden_low(bytes), f.builder.ins().swiden_high(bytes)];
    store_floats(f, halves, write);
}

/// Sixteen integers of 16 bits as floats.
fn store_floats(f: &mut FunctionBuilder<'_>, halves: [Value; 2], write: Value) {
    for (at, half) in [0, 32].into_iter().zip(halves) {
        let parts = [f.builder.ins().swiden_low(half), f.builder.ins().swiden_high(half)];
        for (at, part) in [at, at + 16].into_iter().zip(parts) {
            let floats = f.builder.ins().fcvt_from_sint(F32X4, part);
            f.builder.ins().store(unaligned(), floats, write, at);
        }
    }
}

/// Loads and stores within the operands, anywhere.
fn unaligned() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
