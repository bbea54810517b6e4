//! What a program asks of its machine code, whoever made it and wherever it lies.

/// One step of a program.
///
/// `operands` is a table of pointers to tensors, `begin .. end` the work items to do, `scratch` memory of the
/// calling thread alone. How long tensors and scratch are is between the maker of the code and its caller.
pub type StepFn = unsafe extern "C" fn(operands: *const *mut u8, begin: u64, end: u64, scratch: *mut u8);

/// The number of a function among those of its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionId(u32);

impl FunctionId {
    /// The function at this place.
    pub fn new(index: usize) -> Self {
        // A module holds thousands of functions, not billions.
        Self(index as u32)
    }

    /// Its place.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Machine code that can be called.
///
/// # Safety
/// A pointer that [`Executable::step`] gives is to code with the signature and calling convention of [`StepFn`], and is
/// good for as long as the value lives, on every thread.
pub unsafe trait Executable: Send + Sync {
    /// The step function of that number; `None` where there is none.
    fn step(&self, id: FunctionId) -> Option<StepFn>;

    /// Bytes of code and literals.
    fn code_bytes(&self) -> usize;

    /// All of it as assembly.
    fn asm(&self) -> String;
}
