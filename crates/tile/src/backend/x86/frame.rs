//! Registers in the order they are allocated, and what a function does first and last: the calling convention, which is
//! a row of the description of machines.
//!
//! No unwind information is made: nothing in a tile can fail, and nobody walks the stack through one.

use std::collections::BTreeSet;

use iced_x86::{Code, Instruction, MemoryOperand, Register};
use tconvc_machine::{CallingConvention, VectorIsa};

use super::Lowering;
use crate::Tile;

/// Number of the stack pointer in the encoding.
const STACK_POINTER: u8 = 4;

/// Bytes of a general register.
const WORD: usize = 8;

/// Machine registers by the numbers that tiles have: first what a function may change, then what it has to save.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Of general registers; those with arguments come first.
    pub generals: Vec<Register>,
    /// Numbers of vector registers.
    pub vectors: Vec<u8>,
    first_saved_general: u8,
    first_saved_vector: u8,
}

impl Order {
    pub fn new(convention: &CallingConvention, isa: &VectorIsa) -> Order {
        let (arguments, saved) = (convention.arguments, convention.saved_generals);
        let free = (0..16)
            .filter(|n| *n != STACK_POINTER && !arguments.contains(n) && !saved.contains(n))
            .collect::<Vec<u8>>();
        let numbers = arguments.iter().chain(&free).chain(saved);
        let generals = numbers.map(|&n| Register::RAX + u32::from(n)).collect();
        let free_vectors = (0..isa.vector_registers as u8).filter(|n| !convention.saved_vectors.contains(n));
        let mut vectors: Vec<u8> = free_vectors.collect();
        let first_saved_vector = vectors.len() as u8;
        vectors.extend(convention.saved_vectors);
        let first_saved_general = (arguments.len() + free.len()) as u8;
        Order { generals, vectors, first_saved_general, first_saved_vector }
    }
}

/// What a function saves: general registers by pushing them, then the low halves of vector registers below those.
pub(super) struct Frame {
    generals: Vec<Register>,
    vectors: Vec<Register>,
    /// Of each vector register.
    vector_bytes: usize,
}

impl Frame {
    fn bytes(&self) -> usize {
        WORD * self.generals.len() + self.vector_bytes * self.vectors.len()
    }
}

impl Lowering<'_> {
    pub(super) fn general(&self, number: u8) -> Register {
        self.order.generals[usize::from(number)]
    }

    fn frame(&self) -> Frame {
        let a = self.assignment;
        let named = a.pointers.iter().chain(&a.counts).filter_map(|&number| number);
        let generals: BTreeSet<u8> = named
            .chain(a.scratch.values().flat_map(|s| &s.generals).copied())
            .filter(|&n| n >= self.order.first_saved_general)
            .collect();
        let scratch = a.scratch.values().flat_map(|s| &s.vectors);
        let vectors: BTreeSet<u8> = a
            .vectors
            .iter()
            .chain(scratch)
            .copied()
            .filter(|&n| n >= self.order.first_saved_vector)
            .collect();
        Frame {
            generals: generals.into_iter().map(|n| self.general(n)).collect(),
            vectors: vectors
                .into_iter()
                .map(|n| Register::XMM0 + u32::from(self.order.vectors[usize::from(n)]))
                .collect(),
            vector_bytes: self.convention.saved_vector_bytes,
        }
    }

    /// Saves what has to be saved, and loads the parameters that arrive on the stack.
    pub(super) fn enter(&mut self, tile: &Tile) -> Frame {
        let frame = self.frame();
        for &r in &frame.generals {
            self.asm.put(Instruction::with1(Code::Push_r64, r));
        }
        self.move_stack(&frame, Code::Sub_rm64_imm32);
        for (i, &r) in frame.vectors.iter().enumerate() {
            let slot = stack(i * frame.vector_bytes);
            self.asm.put(Instruction::with2(Code::VEX_Vmovups_xmmm128_xmm, slot, r));
        }
        self.stack_params(tile, frame.bytes());
        frame
    }

    /// Makes everything as it was, and returns.
    pub(super) fn leave(&mut self, frame: &Frame) {
        for (i, &r) in frame.vectors.iter().enumerate() {
            let slot = stack(i * frame.vector_bytes);
            self.asm.put(Instruction::with2(Code::VEX_Vmovups_xmm_xmmm128, r, slot));
        }
        self.move_stack(frame, Code::Add_rm64_imm32);
        for &r in frame.generals.iter().rev() {
            self.asm.put(Instruction::with1(Code::Pop_r64, r));
        }
        // Cranelift's code can be legacy SSE. The low halves, which were saved, stay.
        self.asm.put(Ok(Instruction::with(Code::VEX_Vzeroupper)));
        self.asm.put(Ok(Instruction::with(Code::Retnq)));
    }

    fn move_stack(&mut self, frame: &Frame, code: Code) {
        let bytes = frame.vector_bytes * frame.vectors.len();
        if bytes > 0 {
            self.asm.put(Instruction::with2(code, Register::RSP, bytes as i32));
        }
    }

    /// The parameters on the stack are behind what was saved, the return address and what the caller leaves free.
    fn stack_params(&mut self, tile: &Tile, saved_bytes: usize) {
        let pointers = self.assignment.pointers.iter().take(tile.pointer_params());
        let params: Vec<Option<u8>> = pointers.chain(&self.assignment.counts).copied().collect();
        let first = saved_bytes + WORD + self.convention.shadow_bytes;
        for (i, number) in params.into_iter().skip(self.convention.arguments.len()).enumerate() {
            if let Some(number) = number {
                let slot = stack(first + WORD * i);
                self.asm.put(Instruction::with2(Code::Mov_r64_rm64, self.general(number), slot));
            }
        }
    }
}

fn stack(bytes: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RSP, bytes as i64)
}
