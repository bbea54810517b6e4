//! Machine code of a tile in executable memory, and calls of it.

use cranelift_codegen::ir::Signature;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use tconvc_machine::Target;
use tconvc_tile::backend::MachineCode;
use tconvc_tile::backend::cranelift::target_isa;

/// Machine code in executable memory.
pub struct Placed {
    /// Only kept for its memory.
    module: Option<JITModule>,
    address: usize,
}

impl Placed {
    pub fn new(code: &MachineCode) -> Placed {
        let isa = target_isa(&Target::host(), "none", "single_pass").unwrap();
        let convention = isa.default_call_conv();
        let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
        let id = module.declare_function("tile", Linkage::Export, &Signature::new(convention)).unwrap();
        module.define_function_bytes(id, code.align as u64, &code.bytes, &[]).unwrap();
        module.finalize_definitions().unwrap();
        let address = module.get_finalized_function(id).expose_provenance();
        Placed { module: Some(module), address }
    }

    /// Calls the tile: pointers first, then counts.
    ///
    /// # Safety
    /// The pointers must be good for all that the tile reads and writes, the parameters as many as it has.
    pub unsafe fn call(&self, args: &[usize]) {
        // SAFETY: a tile has parameters of 64 bits alone, and no result; all conventions let the caller give more
        // of them than are read.
        unsafe {
            let tile = std::mem::transmute::<usize, TileFn>(self.address);
            let [a, b, c, d, e, f, g, h, i, j] = ten(args);
            tile(a, b, c, d, e, f, g, h, i, j);
        }
    }
}

type TileFn = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize);

fn ten(args: &[usize]) -> [usize; 10] {
    assert!(args.len() <= 10, "more parameters than this can pass");
    std::array::from_fn(|i| args.get(i).copied().unwrap_or(0xdead_beef))
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the code runs in calls of this value alone.
            unsafe { module.free_memory() };
        }
    }
}
