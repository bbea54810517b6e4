//! Functions as machine code that has no place yet.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{Function, Signature};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{FuncId, ModuleReloc, ModuleRelocTarget};

use super::{Body, CodeError, Declared, Kind, Setting, within};
use tconvc_machine::Target;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::backend::cranelift;

/// A function as bytes.
pub(super) struct Compiled {
    pub name: String,
    pub kind: Kind,
    pub signature: Signature,
    pub bytes: Vec<u8>,
    pub align: u64,
    /// Bytes of code at the front; literals follow.
    pub code_len: usize,
    pub relocs: Vec<ModuleReloc>,
    /// Cranelift's IR, or the listing of an assembled tile; empty where texts are not kept.
    pub ir: String,
    /// Cranelift's own disassembly, for machines that ours does not know.
    pub vcode: Option<String>,
}

/// Functions that belong together, as machine code.
pub struct LoweredModule {
    pub(super) target: Target,
    pub(super) isa: OwnedTargetIsa,
    pub(super) functions: Vec<Compiled>,
}

impl LoweredModule {
    /// Bytes of code and literals.
    pub fn code_bytes(&self) -> usize {
        self.functions.iter().map(|f| f.bytes.len()).sum()
    }

    /// The bytes of a function: code, then literals. Calls in it are not resolved.
    ///
    /// # Panics
    /// Where the number is of another module.
    pub fn machine_code(&self, id: FunctionId) -> &[u8] {
        &self.functions[id.index()].bytes
    }
}

impl Declared {
    /// The code of the function.
    pub(super) fn lower(&self, setting: &Setting) -> Result<Compiled, CodeError> {
        let tile = match &self.body {
            Body::Function(function) => return self.compile(setting, function),
            Body::Tile(tile) => tile,
        };
        let code = setting.tiles.lower(tile)?;
        let listing = || if setting.keeps_text() { tile.tile().to_string() } else { String::new() };
        Ok(Compiled {
            name: self.name.clone(),
            kind: self.kind,
            signature: self.signature.clone(),
            bytes: code.bytes,
            align: code.align as u64,
            code_len: code.code_len,
            relocs: Vec::new(),
            ir: code.ir.unwrap_or_else(listing),
            vcode: code.asm,
        })
    }

    /// By the fast register allocator, which keeps a place on the stack for each value that outlives a block; where that makes a large
    /// frame, by the thorough one, in which values share places.
    fn compile_within_frame(
        &self,
        setting: &Setting,
        function: &Function,
        disassemble: bool,
    ) -> Result<Context, CodeError> {
        let refused = |message: String| CodeError::Function { name: self.name.clone(), message };
        let context = cranelift::compile(function.clone(), &*setting.isa, disassemble).map_err(refused)?;
        if cranelift::frame_bytes(&context) <= cranelift::MOST_FRAME_BYTES {
            return Ok(context);
        }
        let isa = cranelift::target_isa(&setting.target, "none", "backtracking").map_err(refused)?;
        let context = cranelift::compile(function.clone(), &*isa, disassemble).map_err(refused)?;
        let frame = cranelift::frame_bytes(&context);
        within(&self.name, "bytes of stack", frame, cranelift::MOST_FRAME_BYTES)?;
        Ok(context)
    }

    fn compile(&self, setting: &Setting, function: &Function) -> Result<Compiled, CodeError> {
        let refused = |message: String| CodeError::Function { name: self.name.clone(), message };
        let (isa, keeps_text) = (&*setting.isa, setting.keeps_text());
        let ir = if keeps_text { function.display().to_string() } else { String::new() };
        let disassemble = keeps_text && setting.target.x86_level().is_none();
        let context = self.compile_within_frame(setting, function, disassemble)?;
        let compiled = context.compiled_code().ok_or_else(|| refused("no code came out".into()))?;
        let align = u64::from(compiled.buffer.alignment.max(isa.function_alignment().minimum));
        let (bytes, vcode) = (compiled.code_buffer().to_vec(), compiled.vcode.clone());
        let relocs = compiled.buffer.relocs().iter();
        let relocs: Vec<ModuleReloc> = relocs
            .map(|r| ModuleReloc::from_mach_reloc(r, &context.func, FuncId::from_u32(self.id.index() as u32)))
            .collect();
        if let Some(call) = relocs.iter().find_map(|r| match r.name {
            ModuleRelocTarget::LibCall(call) => Some(call),
            _ => None,
        }) {
            return Err(refused(format!("needs the library function {call}, and no library is linked")));
        }
        Ok(Compiled {
            name: self.name.clone(),
            kind: self.kind,
            signature: self.signature.clone(),
            code_len: bytes.len(),
            bytes,
            align,
            relocs,
            ir,
            vcode,
        })
    }
}
