//! Code as text: Cranelift's IR and tile listings, and disassembly.

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};

use super::lowered::Compiled;
use super::{JitCode, LoweredModule};
use cranelift_module::ModuleRelocTarget;

impl LoweredModule {
    /// Cranelift's IR of each function; an assembled tile shows as its listing. Needs [`super::CodeModule::keep_text`].
    pub fn clif(&self) -> String {
        clif(&self.functions)
    }

    /// Each function as assembly. Off x86 this needs [`super::CodeModule::keep_text`].
    pub fn asm(&self) -> String {
        asm(&self.functions)
    }
}

impl JitCode {
    /// As [`LoweredModule::clif`].
    pub fn clif(&self) -> String {
        clif(&self.functions)
    }

    /// As [`LoweredModule::asm`].
    pub fn asm(&self) -> String {
        asm(&self.functions)
    }
}

fn clif(functions: &[Compiled]) -> String {
    let mut text = String::new();
    for f in functions {
        let _ = writeln!(text, "; {}\n{}", f.name, f.ir);
    }
    text
}

fn asm(functions: &[Compiled]) -> String {
    let mut text = String::new();
    for f in functions {
        let _ = writeln!(text, "{}: ; {} bytes", f.name, f.bytes.len());
        match &f.vcode {
            Some(vcode) => text += vcode,
            None => disassemble(functions, f, &mut text),
        }
        text.push('\n');
    }
    text
}

fn disassemble(functions: &[Compiled], function: &Compiled, text: &mut String) {
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_space_after_operand_separator(true);
    let code = &function.bytes[..function.code_len];
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        let _ = write!(text, "{:6x}:  {line}", instruction.ip());
        let range = instruction.ip()..instruction.next_ip();
        for reloc in function.relocs.iter().filter(|r| range.contains(&u64::from(r.offset))) {
            if let ModuleRelocTarget::User { index, .. } = reloc.name {
                let name = functions.get(index as usize).map_or("?", |f| f.name.as_str());
                let _ = write!(text, "  ; {name}");
            }
        }
        text.push('\n');
    }
}
