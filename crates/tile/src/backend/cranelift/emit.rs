//! Tiles as Cranelift's IR.
//!
//! Nothing here becomes a call: multiply-adds are fused only where the target has them, rounding is spelled out for
//! machines before SSE4.1, and shuffles for machines before SSSE3.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F32X4, I32, I32X4, I64};
use cranelift_codegen::ir::{ConstantData, Endianness, Function, InstBuilder, MemFlagsData, Type, Value};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use crate::{
    Address, BinaryOp, Cmp, Count, FmaOp, Inst, Lanes, Loop, Operand, Pointer, ShiftOp, Stmt, Tile, Trips,
    UnaryOp, Vector,
};
use tconvc_machine::{Target, X86Level};

/// Fills `function`, which has the signature of `tile`, with its code.
pub(super) fn write(
    tile: &Tile,
    target: &Target,
    isa: &dyn TargetIsa,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
) {
    let mut builder = FunctionBuilder::new(function, context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);

    let mut params = builder.block_params(entry).to_vec().into_iter();
    let declare = |builder: &mut FunctionBuilder, ty: Type, value: Option<Value>| {
        let variable = builder.declare_var(ty);
        if let Some(value) = value {
            builder.def_var(variable, value);
        }
        variable
    };
    let pointers = (0..tile.pointers.len())
        .map(|p| {
            let value = if p < tile.pointer_params() { params.next() } else { None };
            declare(&mut builder, I64, value)
        })
        .collect();
    let counts = params.collect();
    let vectors = (0..tile.vectors).map(|_| declare(&mut builder, F32X4, None)).collect();
    let mut lowering = Lowering { builder, target, pointers, counts, vectors };
    lowering.block(tile.body());
    lowering.builder.ins().return_(&[]);
    lowering.builder.finalize(isa.frontend_config());
}

/// Memory of tiles is there and need not be aligned.
const MEMORY: MemFlagsData = MemFlagsData::new().with_notrap();

/// Vectors are reinterpreted as they lie in memory of a little-endian machine.
const BITS: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

pub(super) struct Lowering<'a> {
    pub(super) builder: FunctionBuilder<'a>,
    pub(super) target: &'a Target,
    pointers: Vec<Variable>,
    counts: Vec<Value>,
    vectors: Vec<Variable>,
}

impl Lowering<'_> {
    fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => self.inst(inst),
                Stmt::Loop(l) => self.run_loop(l),
            }
        }
    }

    fn run_loop(&mut self, l: &Loop) {
        if let Trips::Any(v) = l.trips {
            return self.run_block(v, l);
        }
        let body = self.builder.create_block();
        let exit = self.builder.create_block();
        let counter = self.builder.declare_var(I64);
        match l.trips {
            Trips::Const(n) => {
                let n = self.builder.ins().iconst(I64, i64::from(n));
                self.builder.def_var(counter, n);
                self.builder.ins().jump(body, &[]);
            }
            Trips::Param(n) => {
                let n = self.count(n);
                self.builder.def_var(counter, n);
                self.builder.ins().brif(n, body, &[], exit, &[]);
            }
            Trips::Any(_) => {}
        }
        self.builder.switch_to_block(body);
        self.block(&l.body);
        for &(p, bytes) in &l.advances {
            self.advance(p, i64::from(bytes));
        }
        let left = self.builder.use_var(counter);
        let left = self.builder.ins().iadd_imm_s(left, -1);
        self.builder.def_var(counter, left);
        self.builder.ins().brif(left, body, &[], exit, &[]);
        self.builder.seal_block(body);
        self.builder.switch_to_block(exit);
        self.builder.seal_block(exit);
    }

    /// A block that runs where any lane of `v` has its sign bit set.
    fn run_block(&mut self, v: Vector, l: &Loop) {
        let (body, exit) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(body);
        let v = self.get(v);
        let v = self.cast(I32X4, v);
        let signs = self.builder.ins().vhigh_bits(I32, v);
        self.builder.ins().brif(signs, body, &[], exit, &[]);
        self.builder.switch_to_block(body);
        self.builder.seal_block(body);
        self.block(&l.body);
        for &(p, bytes) in &l.advances {
            self.advance(p, i64::from(bytes));
        }
        self.builder.ins().jump(exit, &[]);
        self.builder.switch_to_block(exit);
        self.builder.seal_block(exit);
    }

    fn get(&mut self, v: Vector) -> Value {
        self.builder.use_var(self.vectors[v.0 as usize])
    }

    fn set(&mut self, v: Vector, value: Value) {
        self.builder.def_var(self.vectors[v.0 as usize], value);
    }

    pub(super) fn count(&self, n: Count) -> Value {
        self.counts[n.0 as usize]
    }

    fn pointer(&mut self, p: Pointer) -> Value {
        self.builder.use_var(self.pointers[p.0 as usize])
    }

    fn advance(&mut self, p: Pointer, bytes: i64) {
        let value = self.pointer(p);
        let moved = self.builder.ins().iadd_imm_s(value, bytes);
        self.builder.def_var(self.pointers[p.0 as usize], moved);
    }

    pub(super) fn load(&mut self, ty: Type, at: Address) -> Value {
        let base = self.pointer(at.pointer);
        self.builder.ins().load(ty, MEMORY, base, at.bytes)
    }

    pub(super) fn store(&mut self, value: Value, at: Address) {
        let base = self.pointer(at.pointer);
        self.builder.ins().store(MEMORY, value, base, at.bytes);
    }

    pub(super) fn bits(&mut self, bits: u32) -> Value {
        let data = ConstantData::from(bits.to_le_bytes().repeat(4));
        let constant = self.builder.func.dfg.constants.insert(data);
        self.builder.ins().vconst(F32X4, constant)
    }

    pub(super) fn cast(&mut self, ty: Type, value: Value) -> Value {
        self.builder.ins().bitcast(ty, BITS, value)
    }

    fn operand(&mut self, b: Operand) -> Value {
        match b {
            Operand::Vector(v) => self.get(v),
            Operand::Memory(at) => self.load(F32X4, at),
            Operand::Splat(at) => self.load_splat(at),
            Operand::Bits(bits) => self.bits(bits),
        }
    }

    fn load_splat(&mut self, at: Address) -> Value {
        let one = self.load(F32, at);
        self.builder.ins().splat(F32X4, one)
    }

    fn inst(&mut self, inst: &Inst) {
        match *inst {
            Inst::Const { dst, bits } => {
                let value = self.bits(bits);
                self.set(dst, value);
            }
            Inst::Load { dst, at, lanes, elem } => {
                let value = match lanes {
                    Lanes::All => self.load_first(elem, at, 4),
                    Lanes::First(n) => self.load_first(elem, at, n),
                    Lanes::FirstOf(n) => self.load_first_of(elem, at, n),
                };
                self.set(dst, value);
            }
            Inst::Store { src, at, lanes, elem } => {
                let value = self.get(src);
                match lanes {
                    Lanes::All => self.store_first(elem, value, at, 4),
                    Lanes::First(n) => self.store_first(elem, value, at, n),
                    Lanes::FirstOf(n) => self.store_first_of(elem, value, at, n),
                }
            }
            Inst::LoadSplat { dst, at, elem } => {
                let value =
                    if elem.is_lane() { self.load_splat(at) } else { self.load_splat_narrow(elem, at) };
                self.set(dst, value);
            }
            Inst::Gather { dst, at, stride, lanes } => {
                let one = self.load(F32, at);
                let mut all = self.builder.ins().scalar_to_vector(F32X4, one);
                for i in 1..lanes {
                    let one = self.load(F32, at.plus(stride * i32::from(i)));
                    all = self.builder.ins().insertlane(all, one, i);
                }
                self.set(dst, all);
            }
            Inst::StoreLane { src, lane, at } => {
                let value = self.get(src);
                self.store_lane(value, lane, at);
            }
            Inst::Unary { op, dst, a } => {
                let a = self.get(a);
                let value = self.unary(op, a);
                self.set(dst, value);
            }
            Inst::Binary { op, dst, a, b } => {
                let (a, b) = (self.get(a), self.operand(b));
                let value = self.binary(op, a, b);
                self.set(dst, value);
            }
            Inst::Shift { op, dst, a, by } => {
                let a = self.get(a);
                let a = self.cast(I32X4, a);
                let by = i64::from(by);
                let value = match op {
                    ShiftOp::Left => self.builder.ins().ishl_imm_u(a, by),
                    ShiftOp::Right => self.builder.ins().ushr_imm_u(a, by),
                    ShiftOp::RightSigned => self.builder.ins().sshr_imm_u(a, by),
                };
                let value = self.cast(F32X4, value);
                self.set(dst, value);
            }
            Inst::Fma { op, dst, a, b } => {
                let (d, a, b) = (self.get(dst), self.get(a), self.operand(b));
                let value = self.fma(op, d, a, b);
                self.set(dst, value);
            }
            Inst::Select { cmp, dst, a, b, yes, no } => {
                let (a, b) = (self.get(a), self.operand(b));
                let (yes, no) = (self.get(yes), self.get(no));
                let value = self.select(float_cc(cmp), a, b, yes, no);
                self.set(dst, value);
            }
            Inst::Shuffle { dst, a, b, pattern } => {
                let (a, b) = (self.get(a), self.get(b));
                let value = self.shuffle(a, b, pattern);
                self.set(dst, value);
            }
            Inst::Derive { dst, base, bytes } => {
                let base = self.pointer(base);
                let moved = self.builder.ins().iadd_imm_s(base, i64::from(bytes));
                self.builder.def_var(self.pointers[dst.0 as usize], moved);
            }
            Inst::Advance { pointer, bytes } => self.advance(pointer, i64::from(bytes)),
            Inst::AdvanceBy { pointer, count, bytes } => {
                let (base, n) = (self.pointer(pointer), self.count(count));
                let bytes = self.builder.ins().imul_imm_s(n, i64::from(bytes));
                let moved = self.builder.ins().iadd(base, bytes);
                self.builder.def_var(self.pointers[pointer.0 as usize], moved);
            }
            // Cranelift has no such instruction, and without it nothing but time changes.
            Inst::Prefetch { .. } => {}
        }
    }

    // Arithmetic.

    fn fma(&mut self, op: FmaOp, d: Value, a: Value, b: Value) -> Value {
        let (x, y, sum) = match op {
            FmaOp::Add | FmaOp::Sub => (a, b, d),
            FmaOp::Horner => (d, a, b),
        };
        let ins = self.builder.ins();
        match (op, self.target.has_fma()) {
            (FmaOp::Sub, true) => {
                let x = ins.fneg(x);
                self.builder.ins().fma(x, y, sum)
            }
            (FmaOp::Sub, false) => {
                let product = ins.fmul(x, y);
                self.builder.ins().fsub(sum, product)
            }
            (_, true) => ins.fma(x, y, sum),
            (_, false) => {
                let product = ins.fmul(x, y);
                self.builder.ins().fadd(product, sum)
            }
        }
    }

    fn unary(&mut self, op: UnaryOp, a: Value) -> Value {
        let spelled = self.target.x86_level() == Some(X86Level::V1);
        match op {
            UnaryOp::Copy => a,
            UnaryOp::Neg => self.builder.ins().fneg(a),
            UnaryOp::Abs => self.builder.ins().fabs(a),
            UnaryOp::Sqrt => self.builder.ins().sqrt(a),
            UnaryOp::Floor if spelled => self.floor_spelled(a),
            UnaryOp::Ceil if spelled => {
                let negated = self.builder.ins().fneg(a);
                let floor = self.floor_spelled(negated);
                self.builder.ins().fneg(floor)
            }
            UnaryOp::Trunc if spelled => {
                let magnitude = self.builder.ins().fabs(a);
                let floor = self.floor_spelled(magnitude);
                self.with_sign_of(floor, a)
            }
            UnaryOp::Round if spelled => self.round_spelled(a),
            UnaryOp::Floor => self.builder.ins().floor(a),
            UnaryOp::Ceil => self.builder.ins().ceil(a),
            UnaryOp::Trunc => self.builder.ins().trunc(a),
            UnaryOp::Round => self.builder.ins().nearest(a),
            UnaryOp::ToInt => {
                let int = if self.target.x86_level().is_some() {
                    self.builder.ins().x86_cvtt2dq(I32X4, a)
                } else {
                    self.builder.ins().fcvt_to_sint_sat(I32X4, a)
                };
                self.cast(F32X4, int)
            }
            UnaryOp::ToFloat => {
                let int = self.cast(I32X4, a);
                self.builder.ins().fcvt_from_sint(F32X4, int)
            }
        }
    }

    /// To the nearest integer: adding 2^23 leaves no room for a fraction. Larger numbers, and NaN, are as they should.
    fn round_spelled(&mut self, a: Value) -> Value {
        let big = self.bits(8_388_608_f32.to_bits());
        let magnitude = self.builder.ins().fabs(a);
        let sum = self.builder.ins().fadd(magnitude, big);
        let rounded = self.builder.ins().fsub(sum, big);
        let rounded = self.with_sign_of(rounded, a);
        self.select(FloatCC::LessThan, magnitude, big, rounded, a)
    }

    fn floor_spelled(&mut self, a: Value) -> Value {
        let rounded = self.round_spelled(a);
        let (one, zero) = (self.bits(1_f32.to_bits()), self.bits(0));
        let excess = self.select(FloatCC::GreaterThan, rounded, a, one, zero);
        // -0.0 - 0.0 is -0.0 and 1.0 - 1.0 is 0.0: the sign is right as it comes.
        self.builder.ins().fsub(rounded, excess)
    }

    /// `magnitude`, which is not negative, with the sign of `a`.
    fn with_sign_of(&mut self, magnitude: Value, a: Value) -> Value {
        let sign = self.bits(1 << 31);
        let sign = self.builder.ins().band(a, sign);
        self.builder.ins().bor(magnitude, sign)
    }

    fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Value {
        match op {
            BinaryOp::Add => self.builder.ins().fadd(a, b),
            BinaryOp::Sub => self.builder.ins().fsub(a, b),
            BinaryOp::Mul => self.builder.ins().fmul(a, b),
            BinaryOp::Div => self.builder.ins().fdiv(a, b),
            // On x86 these two are recognised as `maxps a, b` and `minps a, b`.
            BinaryOp::Max => self.select_of(FloatCC::LessThan, (b, a), a, b),
            BinaryOp::Min => self.select_of(FloatCC::LessThan, (a, b), a, b),
            BinaryOp::And => self.builder.ins().band(a, b),
            BinaryOp::Or => self.builder.ins().bor(a, b),
            BinaryOp::Xor => self.builder.ins().bxor(a, b),
            BinaryOp::IntAdd | BinaryOp::IntSub | BinaryOp::IntMul | BinaryOp::IntMax | BinaryOp::IntMin => {
                let (a, b) = (self.cast(I32X4, a), self.cast(I32X4, b));
                let ins = self.builder.ins();
                let value = match op {
                    BinaryOp::IntAdd => ins.iadd(a, b),
                    BinaryOp::IntSub => ins.isub(a, b),
                    BinaryOp::IntMul => ins.imul(a, b),
                    BinaryOp::IntMax => ins.smax(a, b),
                    _ => ins.smin(a, b),
                };
                self.cast(F32X4, value)
            }
        }
    }

    fn select(&mut self, cc: FloatCC, a: Value, b: Value, yes: Value, no: Value) -> Value {
        let compared = (self.detached(a), self.detached(b));
        self.select_of(cc, compared, yes, no)
    }

    fn select_of(&mut self, cc: FloatCC, (a, b): (Value, Value), yes: Value, no: Value) -> Value {
        let mask = self.builder.ins().fcmp(cc, a, b);
        let mask = self.cast(F32X4, mask);
        self.builder.ins().bitselect(mask, yes, no)
    }

    /// A value to compare. Before AVX, Cranelift 0.135 makes a load that is not aligned an operand of `cmpps`, which
    /// faults; a cast on the way keeps them apart.
    fn detached(&mut self, value: Value) -> Value {
        if self.target.x86_level().is_none_or(|level| level >= X86Level::V3) {
            return value;
        }
        let bits = self.cast(I32X4, value);
        self.cast(F32X4, bits)
    }
}

fn float_cc(cmp: Cmp) -> FloatCC {
    match cmp {
        Cmp::Eq => FloatCC::Equal,
        Cmp::Ne => FloatCC::NotEqual,
        Cmp::Lt => FloatCC::LessThan,
        Cmp::Le => FloatCC::LessThanOrEqual,
        Cmp::Gt => FloatCC::GreaterThan,
        Cmp::Ge => FloatCC::GreaterThanOrEqual,
    }
}
