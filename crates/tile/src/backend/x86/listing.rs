//! Machine code of x86-64 as assembly, Intel's way.

use std::fmt::Write as _;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};

/// A line for each instruction of `code`: place, instruction, and what `note` says of the bytes that it is in.
pub fn disassemble<'a>(code: &[u8], note: impl Fn(Range<usize>) -> Option<&'a str>) -> String {
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_space_after_operand_separator(true);
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let (mut instruction, mut text) = (Instruction::default(), String::new());
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        let _ = write!(text, "{:6x}:  {line}", instruction.ip());
        if let Some(note) = note(instruction.ip() as usize..instruction.next_ip() as usize) {
            let _ = write!(text, "  ; {note}");
        }
        text.push('\n');
    }
    text
}
