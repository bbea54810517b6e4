//! From tiles and Cranelift functions to machine code in executable memory.
//!
//! A [`CodeModule`] collects functions; in a [`LoweredModule`] they are bytes with relocations, each made by itself, so that
//! threads can share the work; [`LoweredModule::finish`] places them in memory, once, and hands out a [`Code`], which frees
//! the memory when it is dropped. The unsafe part of running code is here.

mod code;
mod glue;
mod listing;
mod lowered;

use std::collections::HashMap;

use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types::I64};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::ModuleError;

pub use self::code::{Code, StepFn};
pub use self::glue::Glue;
pub use self::lowered::LoweredModule;
use crate::jobs::{self, Job};
use crate::lower::{self, LowerError};
use crate::target::{Target, X86Level};
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

/// A function whose code is still to be made.
struct Declared {
    name: String,
    kind: Kind,
    signature: Signature,
    body: Body,
}

enum Body {
    Tile(Box<Tile>),
    Glue(Box<Function>),
}

/// Functions that belong together, before they are machine code.
pub struct CodeModule {
    target: Target,
    /// For the code around tiles.
    isa: OwnedTargetIsa,
    /// For tiles, see [`CodeModule::optimise_tiles`].
    tile_isa: OwnedTargetIsa,
    functions: Vec<Declared>,
    names: HashMap<String, FunctionId>,
    keep_text: bool,
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
            names: HashMap::new(),
            keep_text: false,
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Keeps the IR of every function, for [`LoweredModule::clif`] and, off x86, [`LoweredModule::asm`]. Costs time.
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

    /// Adds a tile. The same tile twice is the same function.
    ///
    /// # Errors
    /// [`CodeError::Lower`] where it is not for the target, [`CodeError::Duplicate`] where its name is taken.
    pub fn tile(&mut self, tile: Tile) -> Result<FunctionId, CodeError> {
        if let Some(&id) = self.names.get(tile.name())
            && matches!(&self.functions[id.0 as usize].body, Body::Tile(known) if **known == tile)
        {
            return Ok(id);
        }
        lower::check(&tile, &self.target)?;
        let kind = Kind::Tile { params: tile.pointer_params() + tile.count_params() };
        let signature = lower::cranelift::signature(&tile, &*self.tile_isa);
        self.add(Declared { name: tile.name().to_owned(), kind, signature, body: Body::Tile(Box::new(tile)) })
    }

    /// Adds a step function, see [`StepFn`]: `build` writes its body, up to the return, which follows by itself.
    ///
    /// # Errors
    /// [`CodeError::Function`] where it makes a call that cannot be, [`CodeError::Duplicate`] where its name is taken.
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
        let mut function = Function::with_name_signature(UserFuncName::default(), signature.clone());
        let mut glue = Glue::new(&mut function, &mut self.builder, &self.functions);
        build(&mut glue);
        glue.finish(self.isa.frontend_config())
            .map_err(|message| CodeError::Function { name: name.to_owned(), message })?;
        self.add(Declared { name: name.to_owned(), kind, signature, body: Body::Glue(Box::new(function)) })
    }

    fn add(&mut self, declared: Declared) -> Result<FunctionId, CodeError> {
        let id = FunctionId(self.functions.len() as u32);
        if self.names.contains_key(&declared.name) {
            return Err(CodeError::Duplicate { name: declared.name });
        }
        self.names.insert(declared.name.clone(), id);
        self.functions.push(declared);
        Ok(id)
    }

    /// Makes the machine code of all functions, on one thread.
    ///
    /// # Errors
    /// [`CodeError::Lower`] and [`CodeError::Function`] where a function has none.
    pub fn lower(self) -> Result<LoweredModule, CodeError> {
        self.lower_beside(vec![], || 1)
    }

    /// As [`CodeModule::lower`], with other jobs, on so many threads.
    pub(crate) fn lower_beside(
        self,
        others: Vec<Job<'_>>,
        threads: impl FnOnce() -> usize + Send,
    ) -> Result<LoweredModule, CodeError> {
        let module = &self;
        let mut code: Vec<_> = self.functions.iter().map(|_| None).collect();
        let lowerings = self.functions.iter().zip(0..).zip(&mut code).map(|((function, id), code)| Job {
            nanoseconds: LOWERING_NS,
            work: Box::new(move || *code = Some(function.lower(module, FunctionId(id)))),
        });
        jobs::run(lowerings.chain(others).collect(), threads);
        let functions = code.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
        Ok(LoweredModule { target: self.target, isa: self.isa, functions })
    }
}

/// What making the code of a function takes, in nanoseconds.
const LOWERING_NS: usize = 80_000;

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
