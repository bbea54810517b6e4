//! A sink of artifacts: code in executable memory, and the calls into it.

use std::sync::{Arc, Mutex, PoisonError};

use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};

use super::lowered::{Compiled, LoweredModule};
use super::{CodeError, Kind};
use crate::artifact::Artifact;
use crate::error::CompileError;
use tconvc_runtime::code::{Executable, FunctionId, StepFn};
use tconvc_runtime::program::Program;

/// Machine code in executable memory. Dropping it frees the memory.
pub struct JitCode {
    /// Only kept for its memory; the lock is never contended, it makes the module's cells sharable.
    module: Mutex<Option<JITModule>>,
    pub(super) functions: Vec<Compiled>,
    addresses: Vec<usize>,
}

impl Artifact {
    /// Places the code in executable memory.
    ///
    /// # Errors
    /// When the target is not this machine, or there is no memory.
    pub fn load(self) -> Result<Program, CompileError> {
        let code = Arc::new(self.functions.finish()?);
        // SAFETY: kernels are made for just these operands; guard pages in tests watch that each keeps to its buffers, the
        // builder that buffers keep to their memory.
        Ok(unsafe { Program::new(code, self.weights, self.layout) })
    }
}

impl LoweredModule {
    /// Places everything in executable memory.
    ///
    /// # Errors
    /// [`CodeError::Foreign`] where the target is not this machine, [`CodeError::Memory`] where there is none.
    pub fn finish(self) -> Result<JitCode, CodeError> {
        if !self.target.runs_here() {
            return Err(CodeError::Foreign { target: self.target.to_string() });
        }
        check_executable()?;
        JitCode::place(self.functions, self.isa)
    }
}

/// Tries to make a page executable. A system may refuse that to a process (`MemoryDenyWriteExecute`, SELinux), which would be the
/// end of it in the middle of placing code.
fn check_executable() -> Result<(), CodeError> {
    let page = memmap2::MmapMut::map_anon(1).and_then(memmap2::MmapMut::make_exec);
    page.map(drop).map_err(|error| CodeError::Memory {
        message: format!(
            "{error}; the system refuses it to this process (systemd: MemoryDenyWriteExecute=no allows it); \
             `compile --emit onnx` needs none"
        ),
    })
}

impl JitCode {
    fn place(functions: Vec<Compiled>, isa: OwnedTargetIsa) -> Result<JitCode, CodeError> {
        // One segment of just the right size, so that calls within it are short jumps.
        let size: usize = functions.iter().map(|f| f.bytes.len() + f.align as usize + 64).sum();
        let slack = functions.iter().map(|f| 24 * f.relocs.len()).sum::<usize>();
        let memory = ArenaMemoryProvider::new_with_size(size + slack + (64 << 10))
            .map_err(|e| CodeError::Memory { message: e.to_string() })?;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        builder.memory_provider(Box::new(memory));
        let mut module = JITModule::new(builder);
        let mut ids = Vec::with_capacity(functions.len());
        for f in &functions {
            ids.push(module.declare_function(&f.name, Linkage::Export, &f.signature)?);
        }
        for (&id, f) in ids.iter().zip(&functions) {
            module.define_function_bytes(id, f.align, &f.bytes, &f.relocs)?;
        }
        module.finalize_definitions()?;
        let addresses = ids.iter().map(|&id| module.get_finalized_function(id) as usize).collect();
        Ok(JitCode { module: Mutex::new(Some(module)), functions, addresses })
    }

    /// The step function of that number, or `None` where the number is of something else.
    ///
    /// The pointer is good for as long as this value lives.
    pub fn step(&self, id: FunctionId) -> Option<StepFn> {
        let index = id.index();
        if self.functions.get(index)?.kind != Kind::Step {
            return None;
        }
        // SAFETY: the function at this address was compiled with exactly the signature of a step function, in the
        // platform's C calling convention, and the memory it is in lives as long as `self`.
        Some(unsafe { std::mem::transmute::<usize, StepFn>(self.addresses[index]) })
    }

    /// Calls a tile directly, for tests and measurements: pointers first, then counts.
    ///
    /// # Safety
    /// The pointers must be good for all that the tile reads and writes.
    ///
    /// # Panics
    /// Where the function is no tile, or takes another number of parameters, or more than 10.
    pub unsafe fn call_tile(&self, id: FunctionId, pointers: &[*mut u8], counts: &[u64]) {
        let index = id.index();
        let args: Vec<usize> = pointers
            .iter()
            .map(|p| p.expose_provenance())
            .chain(counts.iter().map(|&n| n as usize))
            .collect();
        assert_eq!(self.functions[index].kind, Kind::Tile { params: args.len() }, "parameters of the tile");
        let address = self.addresses[index];
        macro_rules! call {
            ($($n:literal => ($($arg:ident: $ty:ty),*);)*) => {
                match args[..] {
                    $([$($arg),*] => {
                        // SAFETY: the tile was compiled with this number of 64-bit parameters and no result; its
                        // memory lives as long as `self`; the caller vouches for the pointers.
                        unsafe {
                            let f = std::mem::transmute::<usize, unsafe extern "C" fn($($ty),*)>(address);
                            f($($arg),*);
                        }
                    })*
                    _ => panic!("{} parameters are more than this can pass", args.len()),
                }
            };
        }
        call! {
            0 => ();
            1 => (a: usize);
            2 => (a: usize, b: usize);
            3 => (a: usize, b: usize, c: usize);
            4 => (a: usize, b: usize, c: usize, d: usize);
            5 => (a: usize, b: usize, c: usize, d: usize, e: usize);
            6 => (a: usize, b: usize, c: usize, d: usize, e: usize, f: usize);
            7 => (a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize);
            8 => (a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize, h: usize);
            9 => (a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize, h: usize, i: usize);
            10 => (a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize, h: usize, i: usize, j: usize);
        }
    }

    /// Bytes of code and literals.
    pub fn code_bytes(&self) -> usize {
        self.functions.iter().map(|f| f.bytes.len()).sum()
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        let module = self.module.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(module) = module {
            // SAFETY: nothing runs this code any more: what was handed out is good only while `self` lives, by
            // contract of `step` and `call_tile`.
            unsafe { module.free_memory() };
        }
    }
}

impl std::fmt::Debug for JitCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.functions.iter().map(|f| f.name.as_str()).collect();
        f.debug_struct("JitCode").field("functions", &names).finish_non_exhaustive()
    }
}

// SAFETY: `JitCode::step` gives pointers to functions that were compiled as step functions, in memory that lives as long
// as the value; code is not written after it was placed.
unsafe impl Executable for JitCode {
    fn step(&self, id: FunctionId) -> Option<StepFn> {
        JitCode::step(self, id)
    }

    fn code_bytes(&self) -> usize {
        JitCode::code_bytes(self)
    }

    fn asm(&self) -> String {
        JitCode::asm(self)
    }
}
