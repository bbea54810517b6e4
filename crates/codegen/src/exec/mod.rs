//! From tiles and Cranelift functions to machine code in executable memory.
//!
//! A [`CodeModule`] collects functions as bytes with relocations; [`CodeModule::finish`] places them in memory, once,
//! and hands out a [`Code`], which frees the memory when it is dropped. The unsafe part of running code is here.

mod code;
mod glue;
mod listing;

use std::collections::HashMap;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types::I64};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, isa};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{FuncId, ModuleError, ModuleReloc, ModuleRelocTarget};

pub use self::code::{Code, StepFn};
pub use self::glue::Glue;
use crate::lower::{self, LowerError};
use crate::target::{Isa, Target, X86Level};
use crate::tile::Tile;

/// Why functions could not be made or placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// A tile has no machine code.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Cranelift has no back end for the target.
    #[error("no code can be generated for {target}: {message}")]
    Target {
        /// The target.
        target: String,
        /// What Cranelift says.
        message: String,
    },
    /// Cranelift refused a function.
    #[error("function `{name}`: {message}")]
    Function {
        /// Name of the function.
        name: String,
        /// What Cranelift says.
        message: String,
    },
    /// Two functions of one name that differ.
    #[error("two different functions are called `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The code is for another machine than this.
    #[error("code for {target} does not run on this machine")]
    Foreign {
        /// The target.
        target: String,
    },
    /// Memory for code could not be had.
    #[error("no executable memory: {message}")]
    Memory {
        /// What the system says.
        message: String,
    },
}

/// A function of one [`CodeModule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionId(u32);

/// What a function is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// So many parameters of 64 bits.
    Tile { params: usize },
    /// A [`StepFn`].
    Step,
    /// Only called from other functions of the module.
    Inner,
}

/// A finished function that has no place yet.
struct Compiled {
    name: String,
    kind: Kind,
    signature: Signature,
    bytes: Vec<u8>,
    align: u64,
    /// Bytes of code at the front; literals follow.
    code_len: usize,
    relocs: Vec<ModuleReloc>,
    /// Cranelift's IR, or the listing of an assembled tile; empty where texts are not kept.
    ir: String,
    /// Cranelift's own disassembly, for machines that ours does not know.
    vcode: Option<String>,
}

/// Functions that belong together, on their way to memory.
pub struct CodeModule {
    target: Target,
    /// For the code around tiles.
    isa: OwnedTargetIsa,
    /// For tiles, see [`CodeModule::optimise_tiles`].
    tile_isa: OwnedTargetIsa,
    functions: Vec<Compiled>,
    tiles: HashMap<String, (Tile, FunctionId)>,
    keep_text: bool,
    context: Context,
    builder: FunctionBuilderContext,
}

impl CodeModule {
    /// An empty module for a target.
    ///
    /// # Errors
    /// [`CodeError::Target`] where Cranelift has no back end for it.
    pub fn new(target: &Target) -> Result<CodeModule, CodeError> {
        Ok(CodeModule {
            target: target.clone(),
            // Loops around tiles run seldom: they cost more to optimise than they gain, a third of the compile time.
            isa: cranelift_isa(target, "none", "single_pass")?,
            tile_isa: cranelift_isa(target, "none", "backtracking")?,
            functions: Vec::new(),
            tiles: HashMap::new(),
            keep_text: false,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Keeps the IR of every function, for [`CodeModule::clif`] and, off x86, [`CodeModule::asm`]. Costs time.
    #[must_use]
    pub fn keep_text(mut self) -> CodeModule {
        self.keep_text = true;
        self
    }

    /// Runs Cranelift's optimiser on four-lane tiles, too, which by default it is kept from: it tends to hoist and
    /// regroup until accumulators spill. For measurements.
    ///
    /// # Errors
    /// As [`CodeModule::new`].
    pub fn optimise_tiles(mut self) -> Result<CodeModule, CodeError> {
        self.tile_isa = cranelift_isa(&self.target, "speed", "backtracking")?;
        Ok(self)
    }

    /// The target that all functions are for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Bytes of code and literals so far.
    pub fn code_bytes(&self) -> usize {
        self.functions.iter().map(|f| f.bytes.len()).sum()
    }

    /// The bytes of a function: code, then literals. Calls in it are not resolved.
    ///
    /// # Panics
    /// Where the number is of another module.
    pub fn machine_code(&self, id: FunctionId) -> &[u8] {
        &self.functions[id.0 as usize].bytes
    }

    /// Adds a tile. The same tile twice is the same function.
    ///
    /// # Errors
    /// [`CodeError::Lower`] where it has no code for the target, [`CodeError::Duplicate`] where its name is taken.
    pub fn tile(&mut self, tile: &Tile) -> Result<FunctionId, CodeError> {
        if let Some((known, id)) = self.tiles.get(tile.name()) {
            if known == tile {
                return Ok(*id);
            }
            return Err(CodeError::Duplicate { name: tile.name().to_owned() });
        }
        let kind = Kind::Tile { params: tile.pointer_params() + tile.count_params() };
        let signature = lower::cranelift::signature(tile, &*self.tile_isa);
        let id = match self.target.isa() {
            Isa::X86V3 | Isa::X86V4 => {
                let code = lower::x86::lower(tile, &self.target)?;
                self.add(Compiled {
                    name: tile.name().to_owned(),
                    kind,
                    signature,
                    bytes: code.bytes,
                    align: lower::x86::ALIGN as u64,
                    code_len: code.code_len,
                    relocs: Vec::new(),
                    ir: if self.keep_text { tile.to_string() } else { String::new() },
                    vcode: None,
                })?
            }
            Isa::Portable => {
                let mut function = Function::with_name_signature(UserFuncName::default(), signature);
                let (isa, context) = (&*self.tile_isa, &mut self.builder);
                lower::cranelift::lower(tile, &self.target, isa, &mut function, context)?;
                self.compile(tile.name(), kind, function)?
            }
        };
        self.tiles.insert(tile.name().to_owned(), (tile.clone(), id));
        Ok(id)
    }

    /// Adds a step function, see [`StepFn`]: `build` writes its body, up to the return, which follows by itself.
    ///
    /// # Errors
    /// [`CodeError::Function`] where Cranelift refuses it, [`CodeError::Duplicate`] where its name is taken.
    pub fn step(&mut self, name: &str, build: impl FnOnce(&mut Glue<'_>)) -> Result<FunctionId, CodeError> {
        self.glue(name, Kind::Step, 4, build)
    }

    /// Adds a function of `params` parameters of 64 bits without a result, to be called by other functions.
    ///
    /// # Errors
    /// As [`CodeModule::step`].
    pub fn function(
        &mut self,
        name: &str,
        params: usize,
        build: impl FnOnce(&mut Glue<'_>),
    ) -> Result<FunctionId, CodeError> {
        self.glue(name, Kind::Inner, params, build)
    }

    fn glue(
        &mut self,
        name: &str,
        kind: Kind,
        params: usize,
        build: impl FnOnce(&mut Glue<'_>),
    ) -> Result<FunctionId, CodeError> {
        let mut signature = Signature::new(self.isa.default_call_conv());
        signature.params = vec![AbiParam::new(I64); params];
        let mut function = Function::with_name_signature(UserFuncName::default(), signature);
        let mut glue = Glue::new(&mut function, &mut self.builder, &self.functions);
        build(&mut glue);
        glue.finish(self.isa.frontend_config())
            .map_err(|message| CodeError::Function { name: name.to_owned(), message })?;
        self.compile(name, kind, function)
    }

    fn compile(&mut self, name: &str, kind: Kind, function: Function) -> Result<FunctionId, CodeError> {
        let refused = |message: String| CodeError::Function { name: name.to_owned(), message };
        let isa = if matches!(kind, Kind::Tile { .. }) { &self.tile_isa } else { &self.isa };
        let id = FuncId::from_u32(self.functions.len() as u32);
        self.context.clear();
        self.context.func = function;
        self.context.set_disasm(self.keep_text && self.target.x86_level().is_none());
        let ir = if self.keep_text { self.context.func.display().to_string() } else { String::new() };
        self.context
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|e| refused(cranelift_codegen::print_errors::pretty_error(e.func, e.inner)))?;
        let compiled = self.context.take_compiled_code().ok_or_else(|| refused("no code came out".into()))?;
        let align = u64::from(compiled.buffer.alignment.max(isa.function_alignment().minimum));
        let (bytes, vcode) = (compiled.code_buffer().to_vec(), compiled.vcode.clone());
        let relocs: Vec<ModuleReloc> = compiled
            .buffer
            .relocs()
            .iter()
            .map(|r| ModuleReloc::from_mach_reloc(r, &self.context.func, id))
            .collect();
        if let Some(call) = relocs.iter().find_map(|r| match r.name {
            ModuleRelocTarget::LibCall(call) => Some(call),
            _ => None,
        }) {
            return Err(refused(format!("needs the library function {call}, and no library is linked")));
        }
        let signature = self.context.func.signature.clone();
        let (name, code_len) = (name.to_owned(), bytes.len());
        self.add(Compiled { name, kind, signature, bytes, align, code_len, relocs, ir, vcode })
    }

    fn add(&mut self, compiled: Compiled) -> Result<FunctionId, CodeError> {
        if self.functions.iter().any(|f| f.name == compiled.name) {
            return Err(CodeError::Duplicate { name: compiled.name });
        }
        self.functions.push(compiled);
        Ok(FunctionId(self.functions.len() as u32 - 1))
    }

    /// Places everything in executable memory.
    ///
    /// # Errors
    /// [`CodeError::Foreign`] where the target is not this machine, [`CodeError::Memory`] where there is none.
    pub fn finish(self) -> Result<Code, CodeError> {
        if !self.target.runs_here() {
            return Err(CodeError::Foreign { target: self.target.to_string() });
        }
        Code::place(self.functions, self.isa)
    }
}

/// Cranelift's view of a target.
fn cranelift_isa(target: &Target, opt_level: &str, allocator: &str) -> Result<OwnedTargetIsa, CodeError> {
    let refused = |message: String| CodeError::Target { target: target.to_string(), message };
    let mut flags = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", opt_level),
        ("regalloc_algorithm", allocator),
        ("enable_verifier", verify),
        ("is_pic", "false"),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
    ] {
        flags.set(name, value).map_err(|e| refused(e.to_string()))?;
    }
    let mut builder = isa::lookup(target.triple().clone()).map_err(|e| refused(e.to_string()))?;
    let features: &[&str] = match target.x86_level() {
        None | Some(X86Level::V1) => &[],
        Some(X86Level::V2) => &["x86-64-v2"],
        // The presets leave out the flag for 128-bit VEX encodings.
        Some(X86Level::V3) => &["x86-64-v3", "has_avx"],
        Some(X86Level::V4) => &["x86-64-v4", "has_avx"],
    };
    for feature in features {
        builder.enable(feature).map_err(|e| refused(e.to_string()))?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| refused(e.to_string()))
}

/// Placing functions fails for want of memory alone; what else is in here would be a bug of this module.
impl From<ModuleError> for CodeError {
    fn from(error: ModuleError) -> CodeError {
        CodeError::Memory { message: error.to_string() }
    }
}
