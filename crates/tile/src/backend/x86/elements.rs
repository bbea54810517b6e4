//! Elements narrower than a lane: loads that widen, stores that narrow.
//!
//! AVX-512 masks the conversion itself. AVX2 has no masks for bytes and words: a constant number of elements is put
//! together from pieces of 8, 4, 2 and 1 bytes, and for a number known at run time there is code for each.

use iced_x86::{Code, IcedError, Instruction, Register};

use super::emit::{full, low, masked, shortened};
use super::{Lowering, codes};
use crate::backend::Needs;
use crate::{Address, BinaryOp, Count, Elem, Lanes, ShiftOp};
use tconvc_machine::Isa;

/// Scratch registers of a load, splats included, of elements narrower than a lane.
pub(super) fn load_needs(lanes: Lanes, isa: Isa) -> Needs {
    Needs { generals: choice_generals(lanes, isa), ..Needs::default() }
}

/// Scratch registers of a store of elements narrower than a lane.
pub(super) fn store_needs(elem: Elem, lanes: Lanes, isa: Isa) -> Needs {
    let wide = isa == Isa::X86V4;
    let vectors = match elem {
        Elem::F16 if wide || full(lanes, isa) => 0,
        Elem::I8 | Elem::I16 if wide => 0,
        Elem::Bf16 if wide => 2,
        Elem::Bf16 => 3,
        _ => 1,
    };
    Needs { vectors, generals: choice_generals(lanes, isa), early: false }
}

fn choice_generals(lanes: Lanes, isa: Isa) -> usize {
    let wide = isa == Isa::X86V4;
    match lanes {
        _ if full(lanes, isa) => 0,
        Lanes::FirstOf(_) => 1 + usize::from(wide),
        Lanes::First(_) | Lanes::All => usize::from(wide),
    }
}

/// To the nearest, ties to even, whatever the rounding of the thread is.
const NEAREST: i32 = 0;

/// Quietly true of NaN.
const UNORDERED: i32 = 3;

impl Lowering<'_> {
    pub(super) fn load_narrow(&mut self, elem: Elem, dst: Register, at: Address, lanes: Lanes) {
        let isa = self.isa;
        if full(lanes, isa) || self.wide() {
            let memory = self.memory(at);
            let widening = Instruction::with2(codes::widen(elem, isa), dst, memory);
            if full(lanes, isa) {
                self.asm.put(widening);
            } else {
                self.mask_k1(lanes);
                self.asm.put(masked(widening, true));
            }
        } else {
            self.for_lanes(lanes, |lowering, n| {
                lowering.load_pieces(low(dst), at, i32::from(n) * elem.bytes());
                lowering.asm.put(Instruction::with2(codes::widen(elem, isa), dst, low(dst)));
            });
        }
        self.shift_bf16(elem, dst);
    }

    pub(super) fn load_splat_narrow(&mut self, elem: Elem, dst: Register, at: Address) {
        let (isa, memory) = (self.isa, self.memory(at));
        // As many copies as the conversion reads.
        let copies = if elem.bytes() == 2 && self.wide() { shortened(dst, 8) } else { low(dst) };
        self.asm.put(Instruction::with2(codes::splat_narrow(elem, isa), copies, memory));
        self.asm.put(Instruction::with2(codes::widen(elem, isa), dst, copies));
        self.shift_bf16(elem, dst);
    }

    /// Words to the upper halves of lanes, where the element is those.
    fn shift_bf16(&mut self, elem: Elem, dst: Register) {
        if elem == Elem::Bf16 {
            self.asm.put(Instruction::with3(codes::shift(ShiftOp::Left, self.isa), dst, dst, 16));
        }
    }

    pub(super) fn store_narrow(&mut self, elem: Elem, src: Register, at: Address, lanes: Lanes) {
        if self.wide() {
            self.store_narrow_wide(elem, src, at, lanes);
            return;
        }
        let is_full = full(lanes, self.isa);
        let narrowed = match elem {
            Elem::F16 if is_full => {
                let memory = self.memory(at);
                self.asm.put(Instruction::with3(codes::narrow(elem, self.isa), memory, src, NEAREST));
                return;
            }
            Elem::F16 => {
                let scratch = low(self.scratch(0));
                self.asm.put(Instruction::with3(codes::narrow(elem, self.isa), scratch, src, NEAREST));
                scratch
            }
            Elem::Bf16 => {
                let rounded = self.round_bf16(src);
                self.pack(Code::VEX_Vpackusdw_xmm_xmm_xmmm128, rounded)
            }
            _ => self.pack(Code::VEX_Vpackssdw_xmm_xmm_xmmm128, src),
        };
        let bytes = match elem {
            Elem::I8 => Some(Code::VEX_Vpacksswb_xmm_xmm_xmmm128),
            Elem::U8 => Some(Code::VEX_Vpackuswb_xmm_xmm_xmmm128),
            _ => None,
        };
        if let Some(code) = bytes {
            self.asm.put(Instruction::with3(code, narrowed, narrowed, narrowed));
        }
        self.for_lanes(lanes, |lowering, n| {
            lowering.store_pieces(narrowed, at, i32::from(n) * elem.bytes());
        });
    }

    /// Eight lanes as words in scratch 0.
    fn pack(&mut self, code: Code, from: Register) -> Register {
        // The scratch register may be the source: the upper half goes to another then.
        let upper = low(if from == self.scratch(0) { self.scratch(1) } else { self.scratch(0) });
        let packed = low(self.scratch(0));
        self.asm.put(Instruction::with3(Code::VEX_Vextracti128_xmmm128_ymm_imm8, upper, from, 1));
        self.asm.put(Instruction::with3(code, packed, low(from), upper));
        packed
    }

    fn store_narrow_wide(&mut self, elem: Elem, src: Register, at: Address, lanes: Lanes) {
        let from = match elem {
            Elem::Bf16 => self.round_bf16(src),
            Elem::U8 => {
                let (positive, zero) = (self.scratch(0), self.bits(0));
                let max = codes::binary(BinaryOp::IntMax, self.isa);
                self.asm.put(Instruction::with3(max, positive, src, zero));
                positive
            }
            _ => src,
        };
        let (code, memory) = (codes::narrow(elem, self.isa), self.memory(at));
        let narrowing: Result<Instruction, IcedError> = if elem == Elem::F16 {
            Instruction::with3(code, memory, from, NEAREST)
        } else {
            Instruction::with2(code, memory, from)
        };
        if full(lanes, self.isa) {
            self.asm.put(narrowing);
        } else {
            self.mask_k1(lanes);
            self.asm.put(masked(narrowing, false));
        }
    }

    /// The upper halves of lanes as bf16, rounded, in the lower halves of scratch 0; the upper ones are zero.
    fn round_bf16(&mut self, src: Register) -> Register {
        let isa = self.isa;
        let (rounded, quiet) = (self.scratch(0), self.scratch(1));
        let [odd, half, nan] = [1, 0x7fff, 0x40].map(|bits| self.bits(bits));
        let shifted = |to, from| Instruction::with3(codes::shift(ShiftOp::Right, isa), to, from, 16);
        let binary = |op| codes::binary(op, isa);
        self.asm.put(shifted(rounded, src));
        self.asm.put(Instruction::with3(binary(BinaryOp::And), rounded, rounded, odd));
        self.asm.put(Instruction::with3(binary(BinaryOp::IntAdd), rounded, rounded, src));
        self.asm.put(Instruction::with3(binary(BinaryOp::IntAdd), rounded, rounded, half));
        self.asm.put(shifted(rounded, rounded));
        // Rounding would make an infinity of some NaN.
        self.asm.put(shifted(quiet, src));
        self.asm.put(Instruction::with3(binary(BinaryOp::Or), quiet, quiet, nan));
        if self.wide() {
            let code = Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
            self.asm.put(Instruction::with4(code, Register::K1, src, src, UNORDERED));
            let blend =
                Instruction::with3(Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32, rounded, rounded, quiet);
            self.asm.put(masked(blend, false));
        } else {
            let is_nan = self.scratch(2);
            let code = Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8;
            self.asm.put(Instruction::with4(code, is_nan, src, src, UNORDERED));
            let blend = Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm;
            self.asm.put(Instruction::with4(blend, rounded, rounded, quiet, is_nan));
        }
        rounded
    }

    // AVX2: parts of vectors.

    /// Code for so many lanes, or, where their number is known at run time, for each number there may be.
    fn for_lanes(&mut self, lanes: Lanes, mut code: impl FnMut(&mut Self, u8)) {
        let all = self.isa.lanes() as u8;
        match lanes {
            Lanes::All => code(self, all),
            Lanes::First(n) => code(self, n),
            Lanes::FirstOf(n) => self.for_each_count(n, all, code),
        }
    }

    fn for_each_count(&mut self, n: Count, all: u8, mut code: impl FnMut(&mut Self, u8)) {
        self.clamp(n);
        let clamped = self.scratch_general(0);
        let mut done = Vec::new();
        // All of them first, the commonest.
        for lanes in (1..=all).rev() {
            self.asm.put(Instruction::with2(Code::Cmp_rm64_imm8, clamped, i32::from(lanes)));
            let next = self.asm.jump_ahead_nonzero();
            code(self, lanes);
            done.push(self.asm.jump_ahead());
            self.asm.land(next);
        }
        code(self, 0);
        for jump in done {
            self.asm.land(jump);
        }
    }

    /// The first so many bytes of 16 from memory, the rest zero.
    fn load_pieces(&mut self, dst: Register, at: Address, bytes: i32) {
        let memory = |lowering: &Self, done: i32| lowering.memory(at.plus(done));
        let mut done = match bytes {
            16.. => 16,
            8.. => 8,
            4.. => 4,
            _ => 0,
        };
        let first = memory(self, 0);
        self.asm.put(match done {
            16 => Instruction::with2(Code::VEX_Vmovups_xmm_xmmm128, dst, first),
            8 => Instruction::with2(Code::VEX_Vmovq_xmm_xmmm64, dst, first),
            4 => Instruction::with2(Code::VEX_Vmovd_xmm_rm32, dst, first),
            _ => Instruction::with3(Code::VEX_Vpxor_xmm_xmm_xmmm128, dst, dst, dst),
        });
        let inserts = [
            (4, Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8),
            (2, Code::VEX_Vpinsrw_xmm_xmm_r32m16_imm8),
            (1, Code::VEX_Vpinsrb_xmm_xmm_r32m8_imm8),
        ];
        for (piece, code) in inserts {
            if bytes - done >= piece {
                let piece_memory = memory(self, done);
                self.asm.put(Instruction::with4(code, dst, dst, piece_memory, done / piece));
                done += piece;
            }
        }
    }

    /// The first so many bytes of 16 to memory.
    fn store_pieces(&mut self, src: Register, at: Address, bytes: i32) {
        let mut done = match bytes {
            16.. => 16,
            8.. => 8,
            _ => 0,
        };
        let first = self.memory(at);
        match done {
            16 => self.asm.put(Instruction::with2(Code::VEX_Vmovups_xmmm128_xmm, first, src)),
            8 => self.asm.put(Instruction::with2(Code::VEX_Vmovq_xmmm64_xmm, first, src)),
            _ => {}
        }
        let extracts = [
            (4, Code::VEX_Vpextrd_rm32_xmm_imm8),
            (2, Code::VEX_Vpextrw_r32m16_xmm_imm8),
            (1, Code::VEX_Vpextrb_r32m8_xmm_imm8),
        ];
        for (piece, code) in extracts {
            if bytes - done >= piece {
                let memory = self.memory(at.plus(done));
                self.asm.put(Instruction::with3(code, memory, src, done / piece));
                done += piece;
            }
        }
    }
}
