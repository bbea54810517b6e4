//! Tiles through Cranelift: four lanes, on any architecture that it has vectors for.

mod elements;
mod emit;
mod parts;
mod shuffle;

use std::sync::OnceLock;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types::I64};
use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;

use super::{AllocatedTile, LowerError, MachineCode, Needs, RegisterFile, Settings, TileBackend};
use crate::{Elem, Inst, Operand};
use tconvc_machine::{Target, VectorIsa, X86Level};

/// The backend for every processor.
pub struct Portable {
    target: Target,
    settings: Settings,
    /// Made when the first tile is lowered.
    isa: OnceLock<Result<OwnedTargetIsa, String>>,
}

impl Portable {
    /// The backend of a target whose tiles Cranelift makes.
    pub fn new(target: &Target, settings: Settings) -> Portable {
        Portable { target: target.clone(), settings, isa: OnceLock::new() }
    }

    fn cranelift(&self) -> Result<&dyn TargetIsa, String> {
        let opt_level = if self.settings.optimise { "speed" } else { "none" };
        let isa = self.isa.get_or_init(|| target_isa(&self.target, opt_level, "backtracking"));
        isa.as_deref().map_err(Clone::clone)
    }

    fn compile(&self, tile: &AllocatedTile) -> Result<MachineCode, String> {
        let (isa, tile) = (self.cranelift()?, tile.tile());
        let signature = signature(tile.params(), isa);
        let mut function = Function::with_name_signature(UserFuncName::default(), signature);
        emit::write(tile, &self.target, isa, &mut function, &mut FunctionBuilderContext::new());
        let ir = self.settings.keep_text.then(|| function.display().to_string());
        let context = compile(function, isa, self.settings.keep_text && self.target.x86_level().is_none())?;
        let frame = frame_bytes(&context);
        if frame > MOST_FRAME_BYTES {
            return Err(format!("it takes {frame} bytes of stack, {MOST_FRAME_BYTES} at most"));
        }
        let code = context.compiled_code().ok_or("no code came out")?;
        if let Some(reloc) = code.buffer.relocs().first() {
            return Err(format!("refers to {:?}, and tiles stand alone", reloc.target));
        }
        let bytes = code.code_buffer().to_vec();
        let align = code.buffer.alignment.max(isa.function_alignment().minimum) as usize;
        Ok(MachineCode { code_len: bytes.len(), bytes, align, ir, asm: code.vcode.clone() })
    }
}

impl std::fmt::Debug for Portable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Portable").field("target", &self.target).finish_non_exhaustive()
    }
}

impl TileBackend for Portable {
    fn isa(&self) -> &'static VectorIsa {
        self.target.vectors()
    }

    fn registers(&self) -> RegisterFile {
        // Cranelift allocates registers itself; these numbers keep it from spilling.
        let isa = self.isa();
        RegisterFile { vectors: isa.vector_registers, generals: isa.general_registers, args: 0 }
    }

    fn scratch(&self, inst: &Inst) -> Needs {
        let splat = |b: Operand| usize::from(matches!(b, Operand::Splat(_)));
        let vectors = match *inst {
            Inst::Binary { b, .. } | Inst::Fma { b, .. } => splat(b),
            Inst::Select { b, .. } => 1 + splat(b),
            // Masks, constants and the alternatives of numbers.
            Inst::Load { elem: Elem::F16 | Elem::Bf16, .. }
            | Inst::LoadSplat { elem: Elem::F16 | Elem::Bf16, .. } => 4,
            Inst::Store { elem: Elem::F16 | Elem::Bf16, .. } => 5,
            Inst::Store { elem: Elem::I8 | Elem::U8 | Elem::I16, .. } => 1,
            _ => 0,
        };
        Needs { vectors, ..Needs::default() }
    }

    fn lower(&self, tile: &AllocatedTile) -> Result<MachineCode, LowerError> {
        tile.check(self)?;
        let tile_name = || tile.tile().name().to_owned();
        self.compile(tile).map_err(|message| LowerError::Cranelift { tile: tile_name(), message })
    }
}

/// The signature of a function of so many parameters of 64 bits that returns nothing, as every tile has it.
pub fn signature(params: usize, isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.extend((0..params).map(|_| AbiParam::new(I64)));
    signature
}

/// Cranelift's machine code of a function, in the context that made it.
///
/// # Errors
/// What Cranelift says.
pub fn compile(function: Function, isa: &dyn TargetIsa, disassemble: bool) -> Result<Context, String> {
    let mut context = Context::for_function(function);
    context.set_disasm(disassemble);
    context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| cranelift_codegen::print_errors::pretty_error(e.func, e.inner))?;
    Ok(context)
}

/// The most bytes of stack that a function takes: threads may have little, and no page in between is touched.
pub const MOST_FRAME_BYTES: usize = 16 << 10;

/// Bytes of stack that a compiled function takes.
pub fn frame_bytes(context: &Context) -> usize {
    let layout = context.compiled_code().and_then(|code| code.buffer.frame_layout());
    layout.map_or(0, |layout| layout.frame_to_fp_offset as usize)
}

/// Cranelift's view of a target; `opt_level` and `allocator` are settings of its own (`opt_level`,
/// `regalloc_algorithm`).
///
/// # Errors
/// What Cranelift says, where it has no code for the target.
pub fn target_isa(target: &Target, opt_level: &str, allocator: &str) -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", opt_level),
        ("regalloc_algorithm", allocator),
        ("enable_verifier", verify),
        ("is_pic", "false"),
        ("unwind_info", "false"),
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
    ] {
        flags.set(name, value).map_err(|e| e.to_string())?;
    }
    let mut builder = isa::lookup(target.triple().clone()).map_err(|e| e.to_string())?;
    let features: &[&str] = match target.x86_level() {
        None | Some(X86Level::V1) => &[],
        Some(X86Level::V2) => &["x86-64-v2"],
        // The presets leave out the flag for 128-bit VEX encodings.
        Some(X86Level::V3) => &["x86-64-v3", "has_avx"],
        Some(X86Level::V4) => &["x86-64-v4", "has_avx"],
    };
    for feature in features {
        builder.enable(feature).map_err(|e| e.to_string())?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| e.to_string())
}
