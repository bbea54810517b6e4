//! Code as text: Cranelift's IR and tile listings, and disassembly.

use std::fmt::Write as _;
use std::ops::Range;

use super::lowered::Compiled;
use super::{JitCode, LoweredModule};
use cranelift_module::ModuleRelocTarget;
use tconvc_tile::backend::x86;

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
    let callee = |range: Range<usize>| {
        let reloc = function.relocs.iter().find(|r| range.contains(&(r.offset as usize)))?;
        let ModuleRelocTarget::User { index, .. } = reloc.name else { return None };
        functions.get(index as usize).map(|f| f.name.as_str())
    };
    *text += &x86::disassemble(&function.bytes[..function.code_len], callee);
}
