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

use cranelift_codegen::ir::{Function, Signature, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::ModuleError;

pub use self::function_builder::FunctionBuilder;
pub use self::jit::JitCode;
use self::lowered::Compiled;
pub use self::lowered::LoweredModule;
use crate::tasks::Task;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::backend::{self, AllocatedTile, LowerError, TileBackend, cranelift};

use tconvc_machine::Target;
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
    /// A function around tiles is larger than any is made.
    #[error("function `{name}`: {found} {what}, {most} at most")]
    Size {
        /// Name of the function.
        name: String,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// The most that is made.
        most: usize,
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

/// Instructions of Cranelift's in a function around tiles: no network's layer comes near it.
const MOST_INSTRUCTIONS: usize = 1 << 17;

/// Instructions up to which no function takes more stack than it may; the code of larger ones is made at once, so that another
/// algorithm can take the place of one that does.
const MOST_UNSEEN: usize = 1 << 13;

/// Refuses a function of which there is more than `most`.
fn within(name: &str, what: &'static str, found: usize, most: usize) -> Result<(), CodeError> {
    if found <= most { Ok(()) } else { Err(CodeError::Size { name: name.to_owned(), what, found, most }) }
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
    Tile(Box<AllocatedTile>),
    Function(Box<Function>),
}

/// Functions that belong together, before they are machine code.
pub struct CodeModule {
    setting: Arc<Setting>,
    functions: Vec<Arc<Declared>>,
    /// How many of them [`CodeModule::tasks`] has handed out.
    handed_out: usize,
    names: HashMap<String, FunctionId>,
    builder: FunctionBuilderContext,
}

/// What the code of a function depends on beside the function.
#[derive(Clone)]
struct Setting {
    target: Target,
    /// For the code around tiles.
    isa: OwnedTargetIsa,
    tiles: Arc<dyn TileBackend>,
    tile_settings: backend::Settings,
}

impl Setting {
    fn keeps_text(&self) -> bool {
        self.tile_settings.keep_text
    }

    /// Changes how tiles are lowered.
    fn change_tiles(&mut self, change: impl FnOnce(&mut backend::Settings)) {
        change(&mut self.tile_settings);
        self.tiles = Arc::from(backend::of(&self.target, self.tile_settings));
    }
}

impl CodeModule {
    /// An empty module for a target.
    ///
    /// # Errors
    /// [`CodeError::Target`] where Cranelift has no back end for it.
    pub fn new(target: &Target) -> Result<CodeModule, CodeError> {
        // Loops around tiles run seldom: they cost more to optimise than they gain, a third of the compile time.
        let isa = cranelift::target_isa(target, "none", "single_pass")
            .map_err(|message| CodeError::Target { target: target.to_string(), message })?;
        let tile_settings = backend::Settings::default();
        let tiles = Arc::from(backend::of(target, tile_settings));
        let setting = Setting { target: target.clone(), isa, tiles, tile_settings };
        Ok(CodeModule {
            setting: Arc::new(setting),
            functions: Vec::new(),
            handed_out: 0,
            names: HashMap::new(),
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Keeps the IR of every function, for [`LoweredModule::clif`] and, off x86, [`LoweredModule::asm`]. Costs time.
    #[must_use]
    pub fn keep_text(mut self) -> CodeModule {
        Arc::make_mut(&mut self.setting).change_tiles(|settings| settings.keep_text = true);
        self
    }

    /// Runs Cranelift's optimiser on four-lane tiles, too, see [`backend::Settings::optimise`]. For measurements.
    #[must_use]
    pub fn optimise_tiles(mut self) -> CodeModule {
        Arc::make_mut(&mut self.setting).change_tiles(|settings| settings.optimise = true);
        self
    }

    /// Adds a tile. The same tile twice is the same function.
    ///
    /// # Errors
    /// [`CodeError::Lower`] where it is not for the target or needs more registers than that has,
    /// [`CodeError::Duplicate`] where its name is taken.
    pub fn tile(&mut self, tile: Tile) -> Result<FunctionId, CodeError> {
        if let Some(&id) = self.names.get(tile.name())
            && matches!(&self.functions[id.index()].body, Body::Tile(known) if *known.tile() == tile)
        {
            return Ok(id);
        }
        let tile = self.setting.tiles.allocate(tile).map_err(LowerError::Tile)?;
        let (name, params) = (tile.tile().name().to_owned(), tile.tile().params());
        let signature = cranelift::signature(params, &*self.setting.isa);
        self.add(name, Kind::Tile { params }, signature, Body::Tile(Box::new(tile)))
    }

    /// Adds a step function, see [`StepFn`](tconvc_runtime::code::StepFn): `build` writes its body, up to the return, which follows by itself.
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
        let signature = cranelift::signature(params, &*self.setting.isa);
        let mut function = Function::with_name_signature(UserFuncName::default(), signature.clone());
        let mut f = FunctionBuilder::new(&mut function, &mut self.builder, &self.functions);
        build(&mut f);
        f.finish(self.setting.isa.frontend_config())
            .map_err(|message| CodeError::Function { name: name.to_owned(), message })?;
        let instructions = function.dfg.num_insts();
        within(name, "instructions around tiles", instructions, MOST_INSTRUCTIONS)?;
        let id = self.add(name.to_owned(), kind, signature, Body::Function(Box::new(function)))?;
        if instructions > MOST_UNSEEN {
            let declared = &self.functions[id.index()];
            match declared.lower(&self.setting) {
                Ok(code) => {
                    *declared.code.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(code));
                }
                Err(error) => {
                    self.functions.pop();
                    self.names.remove(name);
                    return Err(error);
                }
            }
        }
        Ok(id)
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

    /// Tasks that make the code of the functions that there are since the last call, so that [`CodeModule::lower`] finds it.
    pub(crate) fn tasks(&mut self) -> impl Iterator<Item = Task<'static>> + use<'_> {
        let fresh = &self.functions[self.handed_out..];
        self.handed_out = self.functions.len();
        fresh.iter().map(|function| {
            let (function, setting) = (Arc::clone(function), Arc::clone(&self.setting));
            let work = Box::new(move || {
                if function.code.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    return;
                }
                let code = function.lower(&setting);
                *function.code.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            });
            Task { nanoseconds: LOWERING_NS, work }
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

/// Placing functions fails for want of memory alone; what else is in here would be a bug of this module.
impl From<ModuleError> for CodeError {
    fn from(error: ModuleError) -> CodeError {
        CodeError::Memory { message: error.to_string() }
    }
}
