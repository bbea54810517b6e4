//! A small assembler over iced's encoder: instructions in order, loops, and a literal pool behind the code.
//!
//! The code is one straight run with backward jumps and a few forward ones, so that a single pass with patches does;
//! addresses are known while writing, which is what allows the heads of loops to be aligned.

use std::collections::HashMap;

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};

use crate::backend::MachineCode;

/// Alignment of the finished bytes, which that of literals builds on.
const ALIGN: usize = 64;

/// Where literals pretend to be until the code before them has its length. Far from any code, near enough to encode.
const LITERALS: u64 = 1 << 30;

/// A jump whose target comes later.
#[must_use]
pub(super) struct Forward {
    patch: usize,
}

pub(super) struct Asm {
    encoder: Encoder,
    at: usize,
    literals: Vec<Vec<u8>>,
    known: HashMap<Vec<u8>, usize>,
    /// Displacement fields to patch: place, end of the instruction, literal, byte within the literal.
    uses: Vec<(usize, usize, usize, i32)>,
    /// Relative jumps to patch: place of the field and the target.
    jumps: Vec<(usize, usize)>,
    error: Option<IcedError>,
}

impl Asm {
    pub(super) fn new() -> Asm {
        Asm {
            encoder: Encoder::new(64),
            at: 0,
            literals: Vec::new(),
            known: HashMap::new(),
            uses: Vec::new(),
            jumps: Vec::new(),
            error: None,
        }
    }

    /// Appends an instruction. Errors are kept for [`Asm::finish`].
    pub(super) fn put(&mut self, instruction: Result<Instruction, IcedError>) {
        let encoded = instruction.and_then(|i| self.encoder.encode(&i, self.at as u64).map(|len| (i, len)));
        match encoded {
            Ok((i, len)) => {
                if i.is_ip_rel_memory_operand() {
                    let place = self.at + self.encoder.get_constant_offsets().displacement_offset();
                    let (literal, byte) = split_literal(i.ip_rel_memory_address());
                    self.uses.push((place, self.at + len, literal, byte));
                }
                self.at += len;
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    /// The operand for bytes in the pool, `offset` bytes into them. Equal bytes are kept once.
    pub(super) fn literal(&mut self, bytes: Vec<u8>, offset: i32, splat: bool) -> MemoryOperand {
        let next = self.literals.len();
        let id = *self.known.entry(bytes).or_insert_with_key(|bytes| {
            self.literals.push(bytes.clone());
            next
        });
        let address = LITERALS as i64 + ((id as i64) << 8) + i64::from(offset);
        MemoryOperand::with_base_displ_bcst_seg(Register::RIP, address, splat, Register::None)
    }

    /// Pads so that the next instruction starts a fetch window, and returns its place.
    pub(super) fn loop_head(&mut self) -> usize {
        const NOPS: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        let mut missing = self.at.next_multiple_of(32) - self.at;
        while missing > 0 {
            let nop = NOPS[missing.min(NOPS.len()) - 1];
            for &byte in nop {
                self.encoder.write_u8(byte);
            }
            self.at += nop.len();
            missing -= nop.len();
        }
        self.at
    }

    /// A jump to a place behind us, where the zero flag is clear.
    pub(super) fn jump_back_nonzero(&mut self, target: usize) {
        let short = self.at + 2 - target <= 128;
        let code = if short { Code::Jne_rel8_64 } else { Code::Jne_rel32_64 };
        self.put(Instruction::with_branch(code, target as u64));
    }

    /// A jump to a place that [`Asm::land`] will name, where the zero flag is set.
    pub(super) fn jump_ahead_zero(&mut self) -> Forward {
        self.put(Instruction::with_branch(Code::Je_rel32_64, self.at as u64));
        Forward { patch: self.at - 4 }
    }

    /// A jump to a place that [`Asm::land`] will name, where the zero flag is clear.
    pub(super) fn jump_ahead_nonzero(&mut self) -> Forward {
        self.put(Instruction::with_branch(Code::Jne_rel32_64, self.at as u64));
        Forward { patch: self.at - 4 }
    }

    /// A jump to a place that [`Asm::land`] will name.
    pub(super) fn jump_ahead(&mut self) -> Forward {
        self.put(Instruction::with_branch(Code::Jmp_rel32_64, self.at as u64));
        Forward { patch: self.at - 4 }
    }

    /// Makes the jump arrive here.
    pub(super) fn land(&mut self, Forward { patch }: Forward) {
        self.jumps.push((patch, self.at));
    }

    /// Places the literals and patches what refers to them.
    pub(super) fn finish(mut self) -> Result<MachineCode, IcedError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut bytes = self.encoder.take_buffer();
        let code_len = bytes.len();
        for (place, target) in self.jumps {
            patch(&mut bytes, place, target as i64 - (place as i64 + 4));
        }
        // Largest first, so that every literal is aligned to its size.
        let mut order: Vec<usize> = (0..self.literals.len()).collect();
        order.sort_by_key(|&id| std::cmp::Reverse(self.literals[id].len()));
        let mut places = vec![0; self.literals.len()];
        for id in order {
            let literal = &self.literals[id];
            let align = literal.len().next_power_of_two().min(ALIGN);
            bytes.resize(bytes.len().next_multiple_of(align), 0xcc);
            places[id] = bytes.len();
            bytes.extend_from_slice(literal);
        }
        for (place, end, literal, byte) in self.uses {
            let distance = places[literal] as i64 + i64::from(byte) - end as i64;
            patch(&mut bytes, place, distance);
        }
        Ok(MachineCode { bytes, code_len, align: ALIGN, ir: None, asm: None })
    }
}

fn split_literal(address: u64) -> (usize, i32) {
    let offset = address - LITERALS;
    ((offset >> 8) as usize, (offset & 0xff) as i32)
}

fn patch(bytes: &mut [u8], place: usize, distance: i64) {
    bytes[place..place + 4].copy_from_slice(&(distance as i32).to_le_bytes());
}
