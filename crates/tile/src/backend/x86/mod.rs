//! Tiles to x86-64 machine code: AVX2 with FMA (VEX, 8 lanes) and AVX-512 (EVEX, 16 lanes) from one source.
//!
//! System V calling convention only. Vector registers are all the caller's; general registers of the callee are saved
//! where they are used. `vzeroupper` precedes the return, because Cranelift's code can be legacy SSE. AVX-512 masks
//! live in `k1` for the length of one instruction.

mod asm;
mod codes;
mod elements;
mod emit;
mod shuffle;

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use self::asm::Asm;
use self::emit::needs;
use super::{AllocatedTile, Assignment, LowerError, MachineCode, Needs, RegisterFile, TileBackend};
use crate::{Inst, Loop, Stmt, Tile, Trips};
use tconvc_machine::Isa;

/// General registers by number: the parameters' first, then those of the caller, then those of the callee.
const GENERAL: [Register; 15] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::RAX,
    Register::R10,
    Register::R11,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// The first of [`GENERAL`] that has to be saved.
const FIRST_SAVED: u8 = 9;

/// Parameters that arrive in registers.
const REGISTER_PARAMS: usize = 6;

/// The assembler's backend.
#[derive(Clone, Copy, Debug)]
pub struct X86 {
    isa: Isa,
}

impl X86 {
    /// The backend for AVX2 or AVX-512.
    pub fn new(isa: Isa) -> X86 {
        X86 { isa }
    }
}

impl TileBackend for X86 {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn registers(&self) -> RegisterFile {
        let vectors = if self.isa == Isa::X86V4 { 32 } else { 16 };
        RegisterFile { vectors, generals: GENERAL.len(), args: REGISTER_PARAMS }
    }

    fn scratch(&self, inst: &Inst) -> Needs {
        needs(inst, self.isa)
    }

    fn lower(&self, tile: &AllocatedTile) -> Result<MachineCode, LowerError> {
        tile.check(self)?;
        let assignment = tile.registers();
        let mut lowering = Lowering { asm: Asm::new(), isa: self.isa, assignment, position: 0 };
        lowering.function(tile.tile());
        let encoding = |message| LowerError::Encoding { tile: tile.tile().name().to_owned(), message };
        lowering.asm.finish().map_err(|e| encoding(e.to_string()))
    }
}

struct Lowering<'a> {
    asm: Asm,
    isa: Isa,
    assignment: &'a Assignment,
    /// Counts instructions, heads and ends of loops, as [`Assignment`] does.
    position: u32,
}

impl Lowering<'_> {
    fn function(&mut self, tile: &Tile) {
        let saved = self.saved_registers();
        for &r in &saved {
            self.asm.put(Instruction::with1(Code::Push_r64, r));
        }
        self.stack_params(tile, saved.len());
        self.block(tile.body());
        for &r in saved.iter().rev() {
            self.asm.put(Instruction::with1(Code::Pop_r64, r));
        }
        self.asm.put(Ok(Instruction::with(Code::VEX_Vzeroupper)));
        self.asm.put(Ok(Instruction::with(Code::Retnq)));
    }

    fn saved_registers(&self) -> Vec<Register> {
        let a = &self.assignment;
        let named = a.pointers.iter().chain(&a.counts).filter_map(|&number| number);
        let scratch = a.scratch.values().flat_map(|s| &s.generals).copied();
        let mut numbers: Vec<u8> = named.chain(scratch).filter(|&n| n >= FIRST_SAVED).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(general).collect()
    }

    /// Loads the parameters that arrive on the stack, behind the return address and what was saved.
    fn stack_params(&mut self, tile: &Tile, saved: usize) {
        let pointers = self.assignment.pointers.iter().take(tile.pointer_params());
        let params: Vec<Option<u8>> = pointers.chain(&self.assignment.counts).copied().collect();
        for (i, number) in params.into_iter().enumerate().skip(REGISTER_PARAMS) {
            if let Some(number) = number {
                let displacement = 8 * (1 + saved + i - REGISTER_PARAMS) as i64;
                let slot = MemoryOperand::with_base_displ(Register::RSP, displacement);
                self.asm.put(Instruction::with2(Code::Mov_r64_rm64, general(number), slot));
            }
        }
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
        let counter = general(self.assignment.scratch[&self.position].generals[0]);
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
        };
        let head = self.asm.loop_head();
        self.block(&l.body);
        self.advances(l);
        self.asm.put(Instruction::with1(Code::Dec_rm64, counter));
        self.asm.jump_back_nonzero(head);
        if let Some(skip) = skip {
            self.asm.land(skip);
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

fn general(number: u8) -> Register {
    GENERAL[usize::from(number)]
}
