//! From tiles and Cranelift functions to machine code in executable memory.
//!
//! A [`CodeModule`] collects functions; in a [`LoweredModule`] they are bytes with relocations, each made by itself, so that
//! threads can share the work; [`LoweredModule::finish`] places them in memory, once, and hands out a [`JitCode`], which frees
//! the memory when it is dropped. The unsafe part of running code is here.

mod function_builder;
mod jit;
mod listing;
mod lowered;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types::I64};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::ModuleError;

pub use self::function_builder::FunctionBuilder;
pub use self::jit::JitCode;
use self::lowered::Compiled;
pub use self::lowered::LoweredModule;
use crate::jobs::Job;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::backend::{self, LowerError};

use tconvc_machine::{Target, X86Level};
use tconvc_tile::{Tile, TileBuilder};

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

/// A function, and its code once that is made.
struct Declared {
    id: FunctionId,
    name: String,
    kind: Kind,
    signature: Signature,
    body: Body,
    code: Mutex<Option<Result<Compiled, CodeError>>>,
}

enum Body {
    Tile(Box<Tile>),
    Function(Box<Function>),
}

/// Functions that belong together, before they are machine code.
pub struct CodeModule {
    setting: Arc<Setting>,
    functions: Vec<Arc<Declared>>,
    /// How many of them [`CodeModule::jobs`] has given out.
    given_out: usize,
    names: HashMap<String, FunctionId>,
    builder: FunctionBuilderContext,
}

/// What the code of a function depends on beside the function.
#[derive(Clone)]
struct Setting {
    target: Target,
    /// For the code around tiles.
    isa: OwnedTargetIsa,
    /// For tiles, see [`CodeModule::optimise_tiles`].
    tile_isa: OwnedTargetIsa,
    keep_text: bool,
}

impl CodeModule {
    /// An empty module for a target.
    ///
    /// # Errors
    /// [`CodeError::Target`] where Cranelift has no back end for it.
    pub fn new(target: &Target) -> Result<CodeModule, CodeError> {
        let setting = Setting {
            target: target.clone(),
            // Loops around tiles run seldom: they cost more to optimise than they gain, a third of the compile time.
            isa: cranelift_isa(target, "none", "single_pass")?,
            tile_isa: cranelift_isa(target, "none", "backtracking")?,
            keep_text: false,
        };
        Ok(CodeModule {
            setting: Arc::new(setting),
            functions: Vec::new(),
            given_out: 0,
            names: HashMap::new(),
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Keeps the IR of every function, for [`LoweredModule::clif`] and, off x86, [`LoweredModule::asm`]. Costs time.
    #[must_use]
    pub fn keep_text(mut self) -> CodeModule {
        Arc::make_mut(&mut self.setting).keep_text = true;
        self
    }

    /// Runs Cranelift's optimiser on four-lane tiles, too, which by default it is kept from: it tends to hoist and
    /// regroup until accumulators spill. For measurements.
    ///
    /// # Errors
    /// As [`CodeModule::new`].
    pub fn optimise_tiles(mut self) -> Result<CodeModule, CodeError> {
        let setting = Arc::make_mut(&mut self.setting);
        setting.tile_isa = cranelift_isa(&setting.target, "speed", "backtracking")?;
        Ok(self)
    }

    /// Adds a tile. The same tile twice is the same function.
    ///
    /// # Errors
    /// [`CodeError::Lower`] where it is not for the target, [`CodeError::Duplicate`] where its name is taken.
    pub fn tile(&mut self, tile: Tile) -> Result<FunctionId, CodeError> {
        if let Some(&id) = self.names.get(tile.name())
            && matches!(&self.functions[id.index()].body, Body::Tile(known) if **known == tile)
        {
            return Ok(id);
        }
        backend::check(&tile, &self.setting.target)?;
        let kind = Kind::Tile { params: tile.pointer_params() + tile.count_params() };
        let signature = backend::cranelift::signature(&tile, &*self.setting.tile_isa);
        self.add(tile.name().to_owned(), kind, signature, Body::Tile(Box::new(tile)))
    }

    /// Adds a step function, see [`StepFn`]: `build` writes its body, up to the return, which follows by itself.
    ///
    /// # Errors
    /// [`CodeError::Function`] where it makes a call that cannot be, [`CodeError::Duplicate`] where its name is taken.
    pub fn step(
        &mut self,
        name: &str,
        build: impl FnOnce(&mut FunctionBuilder<'_>),
    ) -> Result<FunctionId, CodeError> {
        self.add_function(name, Kind::Step, 4, build)
    }

    /// Adds a function of `params` parameters of 64 bits without a result, to be called by other functions.
    ///
    /// # Errors
    /// As [`CodeModule::step`].
    pub fn function(
        &mut self,
        name: &str,
        params: usize,
        build: impl FnOnce(&mut FunctionBuilder<'_>),
    ) -> Result<FunctionId, CodeError> {
        self.add_function(name, Kind::Inner, params, build)
    }

    fn add_function(
        &mut self,
        name: &str,
        kind: Kind,
        params: usize,
        build: impl FnOnce(&mut FunctionBuilder<'_>),
    ) -> Result<FunctionId, CodeError> {
        let mut signature = Signature::new(self.setting.isa.default_call_conv());
        signature.params = vec![AbiParam::new(I64); params];
        let mut function = Function::with_name_signature(UserFuncName::default(), signature.clone());
        let mut f = FunctionBuilder::new(&mut function, &mut self.builder, &self.functions);
        build(&mut f);
        f.finish(self.setting.isa.frontend_config())
            .map_err(|message| CodeError::Function { name: name.to_owned(), message })?;
        self.add(name.to_owned(), kind, signature, Body::Function(Box::new(function)))
    }

    fn add(
        &mut self,
        name: String,
        kind: Kind,
        signature: Signature,
        body: Body,
    ) -> Result<FunctionId, CodeError> {
        let id = FunctionId::new(self.functions.len());
        if self.names.contains_key(&name) {
            return Err(CodeError::Duplicate { name });
        }
        self.names.insert(name.clone(), id);
        self.functions.push(Arc::new(Declared { id, name, kind, signature, body, code: Mutex::default() }));
        Ok(id)
    }

    /// Jobs that make the code of the functions that there are since the last call, so that [`CodeModule::lower`] finds it.
    pub(crate) fn jobs(&mut self) -> impl Iterator<Item = Job<'static>> + use<'_> {
        let fresh = &self.functions[self.given_out..];
        self.given_out = self.functions.len();
        fresh.iter().map(|function| {
            let (function, setting) = (Arc::clone(function), Arc::clone(&self.setting));
            let work = Box::new(move || {
                let code = function.lower(&setting);
                *function.code.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            });
            Job { nanoseconds: LOWERING_NS, work }
        })
    }

    /// All functions as machine code.
    ///
    /// # Errors
    /// [`CodeError::Lower`] and [`CodeError::Function`] where a function has none.
    pub fn lower(self) -> Result<LoweredModule, CodeError> {
        let code_of = |function: &Arc<Declared>| {
            let code = function.code.lock().unwrap_or_else(PoisonError::into_inner).take();
            code.unwrap_or_else(|| function.lower(&self.setting))
        };
        let functions = self.functions.iter().map(code_of).collect::<Result<Vec<_>, _>>()?;
        let Setting { target, isa, .. } = Arc::unwrap_or_clone(self.setting);
        Ok(LoweredModule { target, isa, functions })
    }
}

/// Makes the code of a tile and of a step that nobody calls, once in a process: the first ones take ten times as long as others
/// do, because the assembler makes its tables and Cranelift comes into memory.
pub(crate) fn make_ready(target: &Target) {
    static IS_READY: AtomicBool = AtomicBool::new(false);
    if IS_READY.swap(true, Ordering::Relaxed) {
        return;
    }
    if let (Ok(mut module), Ok(tile)) = (CodeModule::new(target), TileBuilder::new("tile", target).finish()) {
        // What is refused here is refused again where it matters.
        let _ = module.tile(tile).and_then(|_| module.step("step", |_| {})).and_then(|_| module.lower());
    }
}

/// What making the code of a function takes, in nanoseconds.
pub(crate) const LOWERING_NS: usize = 80_000;

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
