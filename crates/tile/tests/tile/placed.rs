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

#[cfg(all(target_arch = "x86_64", unix))]
impl Placed {
    /// Calls code for Windows as code for Windows does.
    ///
    /// # Safety
    /// As [`Placed::call`].
    pub unsafe fn call_win64(&self, args: &[usize]) {
        // SAFETY: as in `call`.
        unsafe {
            let tile = std::mem::transmute::<usize, Win64Fn>(self.address);
            let [a, b, c, d, e, f, g, h, i, j] = ten(args);
            tile(a, b, c, d, e, f, g, h, i, j);
        }
    }

    /// The same with known values in the registers that the convention wants kept, and what is in them afterwards: 16 bytes
    /// of each of xmm6 to xmm15, then rbx, rbp, rsi, rdi, r15.
    ///
    /// # Safety
    /// As [`Placed::call`].
    pub unsafe fn call_win64_guarded(&self, args: &[usize], kept: &mut [u64; 25]) {
        // SAFETY: the assembly keeps to System V, and reads and writes what its parameters have room for.
        unsafe { tconvc_call_win64_guarded(self.address, ten(args).as_ptr(), kept.as_mut_ptr()) };
    }
}

#[cfg(all(target_arch = "x86_64", unix))]
type Win64Fn = unsafe extern "win64" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize);

#[cfg(all(target_arch = "x86_64", unix))]
unsafe extern "C" {
    fn tconvc_call_win64_guarded(address: usize, args: *const usize, kept: *mut u64);
}

// Six pushes and the return address leave the stack 8 bytes off a multiple of 16; 32 bytes are the callee's, 48 the last six
// parameters.
#[cfg(all(target_arch = "x86_64", unix))]
std::arch::global_asm!(
    ".globl tconvc_call_win64_guarded",
    "tconvc_call_win64_guarded:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov r12, rdi",
    "mov r13, rsi",
    "mov r14, rdx",
    "sub rsp, 88",
    "mov rax, [r13 + 32]",
    "mov [rsp + 32], rax",
    "mov rax, [r13 + 40]",
    "mov [rsp + 40], rax",
    "mov rax, [r13 + 48]",
    "mov [rsp + 48], rax",
    "mov rax, [r13 + 56]",
    "mov [rsp + 56], rax",
    "mov rax, [r13 + 64]",
    "mov [rsp + 64], rax",
    "mov rax, [r13 + 72]",
    "mov [rsp + 72], rax",
    "mov rcx, [r13]",
    "mov rdx, [r13 + 8]",
    "mov r8, [r13 + 16]",
    "mov r9, [r13 + 24]",
    "movups xmm6, [r14]",
    "movups xmm7, [r14 + 16]",
    "movups xmm8, [r14 + 32]",
    "movups xmm9, [r14 + 48]",
    "movups xmm10, [r14 + 64]",
    "movups xmm11, [r14 + 80]",
    "movups xmm12, [r14 + 96]",
    "movups xmm13, [r14 + 112]",
    "movups xmm14, [r14 + 128]",
    "movups xmm15, [r14 + 144]",
    "mov rbx, [r14 + 160]",
    "mov rbp, [r14 + 168]",
    "mov rsi, [r14 + 176]",
    "mov rdi, [r14 + 184]",
    "mov r15, [r14 + 192]",
    "call r12",
    "movups [r14], xmm6",
    "movups [r14 + 16], xmm7",
    "movups [r14 + 32], xmm8",
    "movups [r14 + 48], xmm9",
    "movups [r14 + 64], xmm10",
    "movups [r14 + 80], xmm11",
    "movups [r14 + 96], xmm12",
    "movups [r14 + 112], xmm13",
    "movups [r14 + 128], xmm14",
    "movups [r14 + 144], xmm15",
    "mov [r14 + 160], rbx",
    "mov [r14 + 168], rbp",
    "mov [r14 + 176], rsi",
    "mov [r14 + 184], rdi",
    "mov [r14 + 192], r15",
    "add rsp, 88",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

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
