//! Tiles to x86-64 machine code: AVX2 with FMA (VEX, 8 lanes) and AVX-512 (EVEX, 16 lanes) from one source.
//!
//! The calling convention is that of the target, System V or Win64; registers that it wants kept are allocated last, and
//! saved where they are used. AVX-512 masks live in `k1` for the length of one instruction.

mod asm;
mod codes;
mod elements;
mod emit;
mod frame;
mod listing;
mod shuffle;

use iced_x86::{Code, Instruction, Register};

use self::asm::Asm;
use self::emit::needs;
use self::frame::Order;
pub use self::listing::disassemble;
use super::{AllocatedTile, Assignment, LowerError, MachineCode, Needs, RegisterFile, TileBackend};
use crate::{Inst, Loop, Stmt, Tile, Trips, Vector};
use tconvc_machine::{CallingConvention, Isa, Target, VectorIsa};

/// The assembler's backend.
#[derive(Clone, Debug)]
pub struct X86 {
    isa: Isa,
    vectors: &'static VectorIsa,
    convention: &'static CallingConvention,
    order: Order,
}

impl X86 {
    /// The backend of a target whose tiles the assembler makes: AVX2 or AVX-512.
    pub fn new(target: &Target) -> X86 {
        let (vectors, convention) = (target.vectors(), target.convention());
        X86 { isa: target.isa(), vectors, convention, order: Order::new(convention, vectors) }
    }
}

impl TileBackend for X86 {
    fn isa(&self) -> &'static VectorIsa {
        self.vectors
    }

    fn registers(&self) -> RegisterFile {
        RegisterFile {
            vectors: self.order.vectors.len(),
            generals: self.order.generals.len(),
            args: self.convention.arguments.len(),
        }
    }

    fn scratch(&self, inst: &Inst) -> Needs {
        needs(inst, self.isa)
    }

    fn lower(&self, tile: &AllocatedTile) -> Result<MachineCode, LowerError> {
        tile.check(self)?;
        let assignment = tile.registers();
        let (isa, order, convention) = (self.isa, &self.order, self.convention);
        let mut lowering = Lowering { asm: Asm::new(), isa, convention, order, assignment, position: 0 };
        lowering.function(tile.tile());
        let encoding = |message| LowerError::Encoding { tile: tile.tile().name().to_owned(), message };
        lowering.asm.finish().map_err(|e| encoding(e.to_string()))
    }
}

struct Lowering<'a> {
    asm: Asm,
    isa: Isa,
    convention: &'static CallingConvention,
    order: &'a Order,
    assignment: &'a Assignment,
    /// Counts instructions, heads and ends of loops, as [`Assignment`] does.
    position: u32,
}

impl Lowering<'_> {
    fn function(&mut self, tile: &Tile) {
        let frame = self.enter(tile);
        self.block(tile.body());
        self.leave(&frame);
    }

    fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => {
                    self.inst(inst);
                    self.position += 1;
                }
                Stmt::Loop(l) => self.run_loop(l),
            }
        }
    }

    fn run_loop(&mut self, l: &Loop) {
        let counter = self.general(self.assignment.scratch[&self.position].generals[0]);
        self.position += 1;
        if l.trips == Trips::Const(1) {
            self.block(&l.body);
            self.advances(l);
            return;
        }
        let skip = match l.trips {
            Trips::Const(n) => {
                self.asm.put(Instruction::with2(Code::Mov_r32_imm32, counter.full_register32(), n));
                None
            }
            Trips::Param(n) => {
                let trips = self.count(n);
                self.asm.put(Instruction::with2(Code::Mov_r64_rm64, counter, trips));
                self.asm.put(Instruction::with2(Code::Test_rm64_r64, counter, counter));
                Some(self.asm.jump_ahead_zero())
            }
            Trips::Any(v) => {
                let signs = counter.full_register32();
                self.signs(signs, v);
                self.asm.put(Instruction::with2(Code::Test_rm32_r32, signs, signs));
                Some(self.asm.jump_ahead_zero())
            }
        };
        if let Trips::Any(_) = l.trips {
            self.block(&l.body);
            self.advances(l);
            if let Some(skip) = skip {
                self.asm.land(skip);
            }
            return;
        }
        let head = self.asm.loop_head();
        self.block(&l.body);
        self.advances(l);
        self.asm.put(Instruction::with1(Code::Dec_rm64, counter));
        self.asm.jump_back_nonzero(head);
        if let Some(skip) = skip {
            self.asm.land(skip);
        }
    }

    /// The sign bits of a vector's lanes in a general register of 32 bits.
    fn signs(&mut self, into: Register, v: Vector) {
        let v = self.vector(v);
        if self.wide() {
            self.asm.put(Instruction::with2(Code::EVEX_Vpmovd2m_kr_zmm, Register::K1, v));
            self.asm.put(Instruction::with2(Code::VEX_Kmovw_r32_kr, into, Register::K1));
        } else {
            self.asm.put(Instruction::with2(Code::VEX_Vmovmskps_r32_ymm, into, v));
        }
    }

    fn advances(&mut self, l: &Loop) {
        self.position += 1;
        for &(p, bytes) in &l.advances {
            let p = self.pointer(p);
            self.add(p, bytes);
        }
    }

    fn add(&mut self, register: Register, bytes: i32) {
        let code = if i8::try_from(bytes).is_ok() { Code::Add_rm64_imm8 } else { Code::Add_rm64_imm32 };
        self.asm.put(Instruction::with2(code, register, bytes));
    }
}
