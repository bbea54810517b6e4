//! The machine instructions of each tile instruction, and the scratch registers they take.

use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::shuffle::{Plan, Source, plan};
use super::{Lowering, codes, elements};
use crate::backend::Needs;
use crate::{Address, Count, Inst, LANE_BYTES, Lanes, Operand, Pattern, Pointer, UnaryOp, Vector};
use tconvc_machine::Isa;

/// Scratch registers of an instruction. [`Lowering::inst`] uses exactly these.
pub(super) fn needs(inst: &Inst, isa: Isa) -> Needs {
    let wide = isa == Isa::X86V4;
    let just = |vectors, generals| Needs { vectors, generals, early: false };
    // Without AVX-512 a splat from memory is an instruction of its own.
    let splat = |b: Operand| usize::from(!wide && matches!(b, Operand::Splat(_)));
    match *inst {
        Inst::Load { lanes, elem, .. } if !elem.is_lane() => elements::load_needs(lanes, isa),
        Inst::Store { lanes, elem, .. } if !elem.is_lane() => elements::store_needs(elem, lanes, isa),
        Inst::Load { lanes, .. } | Inst::Store { lanes, .. } if full(lanes, isa) => just(0, 0),
        Inst::Load { lanes: Lanes::First(n), .. } if wide => just(0, usize::from(!is_short(n))),
        Inst::Load { lanes: Lanes::First(1 | 2 | 4), .. } => just(0, 0),
        Inst::Load { lanes: Lanes::First(_), .. } => just(1, 0),
        // What the lowest four and the lowest eight lanes are not, goes through a scratch vector.
        Inst::Store { lanes: Lanes::First(n), .. } => just(usize::from(n > 4 && n != 8), 0),
        Inst::Load { .. } | Inst::Store { .. } => just(usize::from(!wide), 2),
        Inst::Gather { .. } if wide => Needs { vectors: 1, generals: 1, early: true },
        Inst::Gather { lanes, .. } if lanes > 4 => Needs { vectors: 1, generals: 0, early: true },
        Inst::StoreLane { lane, .. } => just(usize::from(lane >= 4), 0),
        Inst::Binary { b, .. } | Inst::Fma { b, .. } => just(splat(b), 0),
        Inst::Select { .. } => just(usize::from(!wide), 0),
        Inst::Shuffle { dst, a, b, pattern } => plan(pattern, a == b, isa).needs(dst == a || dst == b),
        Inst::AdvanceBy { .. } => just(0, 1),
        _ => just(0, 0),
    }
}

/// Whether so many lanes fill a shorter vector.
fn is_short(lanes: u8) -> bool {
    matches!(lanes, 4 | 8)
}

/// Whether a constant lane choice covers the vector.
pub(super) fn full(lanes: Lanes, isa: Isa) -> bool {
    match lanes {
        Lanes::All => true,
        Lanes::First(n) => usize::from(n) == isa.lanes(),
        Lanes::FirstOf(_) => false,
    }
}

/// The last operand of a machine instruction.
#[derive(Clone, Copy)]
enum Last {
    Register(Register),
    Memory(MemoryOperand),
}

impl Lowering<'_> {
    pub(super) fn wide(&self) -> bool {
        self.isa == Isa::X86V4
    }

    fn vector_number(&self, number: u8) -> Register {
        let first = if self.wide() { Register::ZMM0 } else { Register::YMM0 };
        first + u32::from(self.order.vectors[usize::from(number)])
    }

    pub(super) fn vector(&self, v: Vector) -> Register {
        self.vector_number(self.assignment.vectors[v.0 as usize])
    }

    /// Scratch vector `i` of the instruction at hand.
    pub(super) fn scratch(&self, i: usize) -> Register {
        self.vector_number(self.assignment.scratch[&self.position].vectors[i])
    }

    /// Scratch general register `i` of the instruction at hand.
    pub(super) fn scratch_general(&self, i: usize) -> Register {
        self.general(self.assignment.scratch[&self.position].generals[i])
    }

    /// Pointers and counts that are read have a register; the verifier saw to it.
    pub(super) fn pointer(&self, p: Pointer) -> Register {
        self.assignment.pointers[p.0 as usize].map_or(Register::None, |number| self.general(number))
    }

    pub(super) fn count(&self, n: Count) -> Register {
        self.assignment.counts[n.0 as usize].map_or(Register::None, |number| self.general(number))
    }

    pub(super) fn memory(&self, at: Address) -> MemoryOperand {
        MemoryOperand::with_base_displ(self.pointer(at.pointer), i64::from(at.bytes))
    }

    /// `bits` in every lane, as a memory operand.
    pub(super) fn bits(&mut self, bits: u32) -> MemoryOperand {
        let bytes = bits.to_le_bytes();
        if self.wide() {
            self.asm.literal(bytes.to_vec(), 0, true)
        } else {
            self.asm.literal(bytes.repeat(8), 0, false)
        }
    }

    /// The operand as a register or memory operand; a splat goes through scratch 0 where it has to.
    fn last(&mut self, b: Operand) -> Last {
        match b {
            Operand::Vector(v) => Last::Register(self.vector(v)),
            Operand::Memory(at) => Last::Memory(self.memory(at)),
            Operand::Bits(bits) => Last::Memory(self.bits(bits)),
            Operand::Splat(at) if self.wide() => Last::Memory(MemoryOperand::with_base_displ_bcst_seg(
                self.pointer(at.pointer),
                i64::from(at.bytes),
                true,
                Register::None,
            )),
            Operand::Splat(at) => {
                let (scratch, memory) = (self.scratch(0), self.memory(at));
                self.asm.put(Instruction::with2(codes::load_splat(self.isa), scratch, memory));
                Last::Register(scratch)
            }
        }
    }

    fn put3(&mut self, code: Code, dst: Register, a: Register, b: Last) {
        self.asm.put(match b {
            Last::Register(b) => Instruction::with3(code, dst, a, b),
            Last::Memory(b) => Instruction::with3(code, dst, a, b),
        });
    }

    /// Emits one tile instruction.
    pub(super) fn inst(&mut self, inst: &Inst) {
        let isa = self.isa;
        match *inst {
            Inst::Const { dst, bits: 0 } => {
                let dst = self.vector(dst);
                self.asm.put(Instruction::with3(codes::zero(isa), dst, dst, dst));
            }
            Inst::Const { dst, bits } => {
                let literal = self.asm.literal(bits.to_le_bytes().to_vec(), 0, false);
                self.asm.put(Instruction::with2(codes::load_splat(isa), self.vector(dst), literal));
            }
            Inst::Load { dst, at, lanes, elem } if elem.is_lane() => self.load(self.vector(dst), at, lanes),
            Inst::Load { dst, at, lanes, elem } => self.load_narrow(elem, self.vector(dst), at, lanes),
            Inst::Store { src, at, lanes, elem } if elem.is_lane() => self.store(self.vector(src), at, lanes),
            Inst::Store { src, at, lanes, elem } => self.store_narrow(elem, self.vector(src), at, lanes),
            Inst::LoadSplat { dst, at, elem } if !elem.is_lane() => {
                self.load_splat_narrow(elem, self.vector(dst), at);
            }
            Inst::LoadSplat { dst, at, .. } => {
                let (dst, memory) = (self.vector(dst), self.memory(at));
                self.asm.put(Instruction::with2(codes::load_splat(isa), dst, memory));
            }
            Inst::Gather { dst, at, stride, lanes } => {
                let dst = self.vector(dst);
                if self.wide() {
                    self.gather_wide(dst, at, stride, lanes);
                } else {
                    self.gather_by_loads(dst, at, stride, lanes);
                }
            }
            Inst::StoreLane { src, lane, at } => self.store_lane(self.vector(src), lane, at),
            Inst::Unary { op, dst, a } => self.unary(op, self.vector(dst), self.vector(a)),
            Inst::Binary { op, dst, a, b } => {
                let b = self.last(b);
                self.put3(codes::binary(op, isa), self.vector(dst), self.vector(a), b);
            }
            Inst::Shift { op, dst, a, by } => {
                let (dst, a) = (self.vector(dst), self.vector(a));
                self.asm.put(Instruction::with3(codes::shift(op, isa), dst, a, i32::from(by)));
            }
            Inst::Fma { op, dst, a, b } => {
                let b = self.last(b);
                self.put3(codes::fma(op, isa), self.vector(dst), self.vector(a), b);
            }
            Inst::Select { cmp, dst, a, b, yes, no } => {
                let b = self.last(b);
                let [dst, a, yes, no] = [dst, a, yes, no].map(|v| self.vector(v));
                self.select(codes::predicate(cmp), dst, a, b, yes, no);
            }
            Inst::Shuffle { dst, a, b, pattern } => {
                let [to, from_a, from_b] = [dst, a, b].map(|v| self.vector(v));
                self.shuffle(to, from_a, from_b, pattern);
            }
            Inst::Derive { dst, base, bytes } => {
                let (dst, base) = (self.assignment.pointers[dst.0 as usize], self.pointer(base));
                if let Some(dst) = dst {
                    let address = MemoryOperand::with_base_displ(base, i64::from(bytes));
                    self.asm.put(Instruction::with2(Code::Lea_r64_m, self.general(dst), address));
                }
            }
            Inst::Advance { pointer, bytes } => self.add(self.pointer(pointer), bytes),
            Inst::AdvanceBy { pointer, count, bytes } => {
                let (product, count) = (self.scratch_general(0), self.count(count));
                self.asm.put(Instruction::with3(Code::Imul_r64_rm64_imm32, product, count, bytes));
                self.asm.put(Instruction::with2(Code::Add_r64_rm64, self.pointer(pointer), product));
            }
            Inst::Prefetch { at } => self.asm.put(Instruction::with1(Code::Prefetcht0_m8, self.memory(at))),
        }
    }

    fn unary(&mut self, op: UnaryOp, dst: Register, a: Register) {
        let isa = self.isa;
        let rounding = |immediate: i32| Instruction::with3(codes::round(isa), dst, a, immediate);
        let instruction = match op {
            UnaryOp::Copy if dst == a => return,
            UnaryOp::Copy => Instruction::with2(codes::copy(isa), dst, a),
            UnaryOp::Neg => {
                let sign = self.bits(1 << 31);
                Instruction::with3(codes::binary(crate::BinaryOp::Xor, isa), dst, a, sign)
            }
            UnaryOp::Abs => {
                let rest = self.bits(!(1 << 31));
                Instruction::with3(codes::binary(crate::BinaryOp::And, isa), dst, a, rest)
            }
            UnaryOp::Sqrt => Instruction::with2(codes::sqrt(isa), dst, a),
            UnaryOp::Round => rounding(8),
            UnaryOp::Floor => rounding(9),
            UnaryOp::Ceil => rounding(10),
            UnaryOp::Trunc => rounding(11),
            UnaryOp::ToInt => Instruction::with2(codes::to_int(isa), dst, a),
            UnaryOp::ToFloat => Instruction::with2(codes::to_float(isa), dst, a),
        };
        self.asm.put(instruction);
    }

    fn select(&mut self, predicate: i32, dst: Register, a: Register, b: Last, yes: Register, no: Register) {
        let compare = |code, mask: Register| match b {
            Last::Register(b) => Instruction::with4(code, mask, a, b, predicate),
            Last::Memory(b) => Instruction::with4(code, mask, a, b, predicate),
        };
        if self.wide() {
            self.asm.put(compare(Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae, Register::K1));
            let blend = Instruction::with3(Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32, dst, no, yes);
            self.asm.put(masked(blend, false));
        } else {
            let mask = self.scratch(0);
            self.asm.put(compare(Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8, mask));
            self.asm.put(Instruction::with4(Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm, dst, no, yes, mask));
        }
    }

    // Memory.

    fn load(&mut self, dst: Register, at: Address, lanes: Lanes) {
        let (isa, memory) = (self.isa, self.memory(at));
        let plain = Instruction::with2(codes::load(isa), dst, memory);
        match lanes {
            _ if full(lanes, isa) => self.asm.put(plain),
            // Shorter vectors seldom lie in two lines, and set the lanes behind them to zero.
            Lanes::First(n) if self.wide() => {
                let short = Instruction::with2(codes::load_short(n), shortened(dst, n), memory);
                if is_short(n) {
                    self.asm.put(short);
                } else {
                    self.mask_k1(lanes);
                    self.asm.put(masked(short, true));
                }
            }
            _ if self.wide() => {
                self.mask_k1(lanes);
                self.asm.put(masked(plain, true));
            }
            // What these do not load they set to zero.
            Lanes::First(1) => self.asm.put(Instruction::with2(Code::VEX_Vmovss_xmm_m32, low(dst), memory)),
            Lanes::First(2) => self.asm.put(Instruction::with2(Code::VEX_Vmovsd_xmm_m64, low(dst), memory)),
            Lanes::First(4) => {
                self.asm.put(Instruction::with2(Code::VEX_Vmovups_xmm_xmmm128, low(dst), memory));
            }
            _ => {
                let mask = self.mask_vector(lanes);
                self.asm.put(Instruction::with3(Code::VEX_Vmaskmovps_ymm_ymm_m256, dst, mask, memory));
            }
        }
    }

    fn store(&mut self, src: Register, at: Address, lanes: Lanes) {
        let (isa, memory) = (self.isa, self.memory(at));
        let plain = Instruction::with2(codes::store(isa), memory, src);
        match lanes {
            _ if full(lanes, isa) => self.asm.put(plain),
            // A masked store is slow on some machines, most of all between two lines, and a constant length needs none.
            Lanes::First(n) => self.store_start(src, at, n),
            _ if self.wide() => {
                self.mask_k1(lanes);
                self.asm.put(masked(plain, false));
            }
            _ => {
                let mask = self.mask_vector(lanes);
                self.asm.put(Instruction::with3(Code::VEX_Vmaskmovps_m256_ymm_ymm, memory, mask, src));
            }
        }
    }

    /// Stores the first lanes of a vector, all but its last: eight, four, two and one of them, as far as there are.
    fn store_start(&mut self, src: Register, at: Address, lanes: u8) {
        let (isa, mut rest, mut from, mut at) = (self.isa, lanes, src, at);
        if rest >= 8 {
            let eight = shortened(from, 8);
            self.asm.put(Instruction::with2(codes::STORE_EIGHT, self.memory(at), eight));
            (rest, at) = (rest - 8, at.plus(8 * LANE_BYTES));
            if rest > 0 {
                let upper = shortened(self.scratch(0), 8);
                self.asm.put(Instruction::with3(codes::EXTRACT_EIGHT, upper, from, 1));
                from = self.scratch(0);
            }
        }
        if rest >= 4 {
            self.asm.put(Instruction::with2(codes::store_four(isa), self.memory(at), low(from)));
            (rest, at) = (rest - 4, at.plus(4 * LANE_BYTES));
            if rest > 0 {
                let upper = low(self.scratch(0));
                self.asm.put(Instruction::with3(codes::extract_four(isa), upper, from, 1));
                from = self.scratch(0);
            }
        }
        let from = low(from);
        match rest {
            1 => self.asm.put(Instruction::with2(codes::store_float(isa), self.memory(at), from)),
            2 | 3 => {
                self.asm.put(Instruction::with2(codes::store_two(isa), self.memory(at), from));
                if rest == 3 {
                    let third = self.memory(at.plus(2 * LANE_BYTES));
                    self.asm.put(Instruction::with3(codes::extract_float(isa), third, from, 2));
                }
            }
            _ => {}
        }
    }

    fn store_lane(&mut self, src: Register, lane: u8, at: Address) {
        let (isa, memory) = (self.isa, self.memory(at));
        let mut four = low(src);
        if lane >= 4 {
            four = low(self.scratch(0));
            self.asm.put(Instruction::with3(codes::extract_four(isa), four, src, i32::from(lane / 4)));
        }
        match lane % 4 {
            0 => self.asm.put(Instruction::with2(codes::store_float(isa), memory, four)),
            lane => {
                let lane = i32::from(lane);
                self.asm.put(Instruction::with3(codes::extract_float(isa), memory, four, lane));
            }
        }
    }

    fn gather_by_loads(&mut self, dst: Register, at: Address, stride: i32, lanes: u8) {
        self.gather_four(low(dst), at, stride, lanes.min(4));
        if lanes > 4 {
            let high = low(self.scratch(0));
            self.gather_four(high, at.plus(4 * stride), stride, lanes - 4);
            let code = Code::VEX_Vinsertf128_ymm_ymm_xmmm128_imm8;
            self.asm.put(Instruction::with4(code, dst, dst, high, 1));
        }
    }

    /// The first `n` of four lanes, one by one; the rest of the register becomes zero.
    fn gather_four(&mut self, dst: Register, at: Address, stride: i32, n: u8) {
        self.asm.put(Instruction::with2(Code::VEX_Vmovss_xmm_m32, dst, self.memory(at)));
        for i in 1..n {
            let memory = self.memory(at.plus(stride * i32::from(i)));
            let code = Code::VEX_Vinsertps_xmm_xmm_xmmm32_imm8;
            self.asm.put(Instruction::with4(code, dst, dst, memory, i32::from(i) << 4));
        }
    }

    fn gather_wide(&mut self, dst: Register, at: Address, stride: i32, lanes: u8) {
        let index = self.scratch(0);
        let offsets = (0..16).flat_map(|i| (stride.wrapping_mul(i)).to_le_bytes()).collect();
        let offsets = self.asm.literal(offsets, 0, false);
        self.asm.put(Instruction::with2(codes::load(self.isa), index, offsets));
        self.mask_k1(Lanes::First(lanes));
        self.asm.put(Instruction::with3(codes::zero(self.isa), dst, dst, dst));
        let base = self.pointer(at.pointer);
        let memory = MemoryOperand::new(base, index, 1, i64::from(at.bytes), 1, false, Register::None);
        let gather = Instruction::with2(Code::EVEX_Vgatherdps_zmm_k1_vm32z, dst, memory);
        self.asm.put(masked(gather, false));
    }

    /// AVX-512: puts the lanes into `k1`.
    pub(super) fn mask_k1(&mut self, lanes: Lanes) {
        let general = self.scratch_general(0).full_register32();
        let mask = match lanes {
            Lanes::FirstOf(n) => {
                self.clamp(n);
                let mask = self.scratch_general(1).full_register32();
                self.asm.put(Instruction::with2(Code::Mov_r32_imm32, mask, -1));
                self.asm.put(Instruction::with3(Code::VEX_Bzhi_r32_rm32_r32, mask, mask, general));
                mask
            }
            Lanes::First(n) => {
                self.asm.put(Instruction::with2(Code::Mov_r32_imm32, general, (1u32 << n) - 1));
                general
            }
            Lanes::All => {
                self.asm.put(Instruction::with2(Code::Mov_r32_imm32, general, -1));
                general
            }
        };
        self.asm.put(Instruction::with2(Code::VEX_Kmovw_kr_r32, Register::K1, mask));
    }

    /// AVX2: puts the lanes into scratch vector 0, all ones where they count.
    fn mask_vector(&mut self, lanes: Lanes) -> Register {
        // Eight times ones, eight times zeros: the mask of n lanes starts n words before the middle.
        let table: Vec<u8> = [[0xff; 32], [0; 32]].concat();
        let mask = self.scratch(0);
        let memory = match lanes {
            Lanes::FirstOf(n) => {
                self.clamp(n);
                let (n, middle) = (self.scratch_general(0), self.scratch_general(1));
                let table = self.asm.literal(table, 32, false);
                self.asm.put(Instruction::with2(Code::Lea_r64_m, middle, table));
                self.asm.put(Instruction::with2(Code::Shl_rm64_imm8, n, 2));
                self.asm.put(Instruction::with2(Code::Sub_r64_rm64, middle, n));
                MemoryOperand::with_base(middle)
            }
            Lanes::First(n) => self.asm.literal(table, 32 - LANE_BYTES * i32::from(n), false),
            Lanes::All => self.asm.literal(table, 0, false),
        };
        self.asm.put(Instruction::with2(codes::load(self.isa), mask, memory));
        mask
    }

    /// Scratch general 0 = the smaller of `n` and the lane count.
    pub(super) fn clamp(&mut self, n: Count) {
        let (clamped, n) = (self.scratch_general(0), self.count(n));
        let lanes = self.isa.lanes() as i32;
        self.asm.put(Instruction::with2(Code::Mov_r32_imm32, clamped.full_register32(), lanes));
        self.asm.put(Instruction::with2(Code::Cmp_r64_rm64, n, clamped));
        self.asm.put(Instruction::with2(Code::Cmovb_r64_rm64, clamped, n));
    }

    // Lanes.

    fn shuffle(&mut self, dst: Register, a: Register, b: Register, pattern: Pattern) {
        let isa = self.isa;
        let lanes = isa.lanes();
        let of = |source| if source == Source::A { a } else { b };
        let both = |first| if first == Source::A { (a, b) } else { (b, a) };
        match plan(pattern, a == b, isa) {
            Plan::Copy(source) => self.unary(UnaryOp::Copy, dst, of(source)),
            Plan::ZipLow(first) => {
                let (x, y) = both(first);
                self.asm.put(Instruction::with3(codes::zip_low(isa), dst, x, y));
            }
            Plan::ZipHigh(first) => {
                let (x, y) = both(first);
                self.asm.put(Instruction::with3(codes::zip_high(isa), dst, x, y));
            }
            Plan::PickPairs(x, y, imm) => {
                self.asm.put(Instruction::with4(codes::pick_pairs(isa), dst, of(x), of(y), imm));
            }
            Plan::WithinFours(x, imm) => {
                self.asm.put(Instruction::with3(codes::within_fours(isa), dst, of(x), imm));
            }
            Plan::PickFours(x, y, imm) => {
                self.asm.put(Instruction::with4(codes::pick_fours(isa), dst, of(x), of(y), imm));
            }
            Plan::Blend(imm) => {
                self.asm.put(Instruction::with4(Code::VEX_Vblendps_ymm_ymm_ymmm256_imm8, dst, a, b, imm));
            }
            Plan::Permute(source) => self.permute(dst, self.scratch(0), of(source), pattern),
            // One form overwrites the index, the other one of the sources.
            Plan::PermuteBoth if dst == a || dst == b => {
                let (pattern, other) = if dst == a { (pattern, b) } else { (pattern.swapped(lanes), a) };
                let (index, numbers) = (self.scratch(0), self.index(pattern, 2 * lanes));
                self.asm.put(Instruction::with2(codes::load(isa), index, numbers));
                let code = Code::EVEX_Vpermt2ps_zmm_k1z_zmm_zmmm512b32;
                self.asm.put(Instruction::with3(code, dst, index, other));
            }
            Plan::PermuteBoth => {
                let numbers = self.index(pattern, 2 * lanes);
                self.asm.put(Instruction::with2(codes::load(isa), dst, numbers));
                let code = Code::EVEX_Vpermi2ps_zmm_k1z_zmm_zmmm512b32;
                self.asm.put(Instruction::with3(code, dst, a, b));
            }
            Plan::PermuteAndBlend(imm) => {
                let (x, y) = (self.scratch(0), self.scratch(1));
                self.permute(x, x, a, pattern);
                self.permute(y, y, b, pattern);
                self.asm.put(Instruction::with4(Code::VEX_Vblendps_ymm_ymm_ymmm256_imm8, dst, x, y, imm));
            }
        }
    }

    /// `dst` = lanes of `source`, counted within it; `index` holds their numbers.
    fn permute(&mut self, dst: Register, index: Register, source: Register, pattern: Pattern) {
        let numbers = self.index(pattern, self.isa.lanes());
        self.asm.put(Instruction::with2(codes::load(self.isa), index, numbers));
        self.asm.put(Instruction::with3(codes::permute(self.isa), dst, index, source));
    }

    /// The pattern's lane numbers modulo `modulus`, in the pool.
    fn index(&mut self, pattern: Pattern, modulus: usize) -> MemoryOperand {
        let numbers = (0..self.isa.lanes()).map(|i| (pattern.get(i) % modulus) as u32);
        self.asm.literal(numbers.flat_map(u32::to_le_bytes).collect(), 0, false)
    }
}

/// The same instruction under `k1`.
pub(super) fn masked(
    instruction: Result<Instruction, IcedError>,
    zero_others: bool,
) -> Result<Instruction, IcedError> {
    instruction.map(|mut i| {
        i.set_op_mask(Register::K1);
        i.set_zeroing_masking(zero_others);
        i
    })
}

/// The lowest lanes of a vector register, four or eight where so many suffice.
pub(super) fn shortened(register: Register, lanes: u8) -> Register {
    let first = match lanes {
        0..=4 => Register::XMM0,
        5..=8 => Register::YMM0,
        _ => Register::ZMM0,
    };
    first + register.number() as u32
}

/// The lowest four lanes of a vector register.
pub(super) fn low(register: Register) -> Register {
    Register::XMM0 + register.number() as u32
}
