//! Calling conventions: where a function finds its arguments, and what it must leave as it was. Registers are given by their
//! numbers in the encoding of the architecture.

use target_lexicon::{OperatingSystem, Triple};

/// A row of the table: one convention.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CallingConvention {
    /// As its specification is called.
    pub name: &'static str,
    /// General registers with the first arguments of 64 bits, in order; the others are on the stack.
    pub arguments: &'static [u8],
    /// Bytes between the return address and the first argument on the stack, which the caller leaves free.
    pub shadow_bytes: usize,
    /// General registers that must be as they were when the function returns, without the stack pointer.
    pub saved_generals: &'static [u8],
    /// Vector registers of which the low bytes must be as they were, and how many bytes these are.
    pub saved_vectors: &'static [u8],
    /// Bytes of each that count.
    pub saved_vector_bytes: usize,
    /// What the stack pointer is a multiple of where a function is called.
    pub stack_alignment: usize,
}

/// rdi, rsi, rdx, rcx, r8, r9; rbx, rbp, r12 to r15 are kept, no vector register is.
static SYSTEM_V: CallingConvention = CallingConvention {
    name: "System V",
    arguments: &[7, 6, 2, 1, 8, 9],
    shadow_bytes: 0,
    saved_generals: &[3, 5, 12, 13, 14, 15],
    saved_vectors: &[],
    saved_vector_bytes: 0,
    stack_alignment: 16,
};

/// rcx, rdx, r8, r9; rbx, rbp, rsi, rdi, r12 to r15 and xmm6 to xmm15 are kept. Upper halves of wider vectors are not.
static WIN64: CallingConvention = CallingConvention {
    name: "Win64",
    arguments: &[1, 2, 8, 9],
    shadow_bytes: 32,
    saved_generals: &[3, 5, 6, 7, 12, 13, 14, 15],
    saved_vectors: &[6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    saved_vector_bytes: 16,
    stack_alignment: 16,
};

/// x0 to x7; x19 to x29 and the low halves of v8 to v15 are kept.
static AAPCS64: CallingConvention = CallingConvention {
    name: "AAPCS64",
    arguments: &[0, 1, 2, 3, 4, 5, 6, 7],
    shadow_bytes: 0,
    saved_generals: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    saved_vectors: &[8, 9, 10, 11, 12, 13, 14, 15],
    saved_vector_bytes: 8,
    stack_alignment: 16,
};

/// The convention of a platform; `is_x86` is of its architecture.
pub(crate) fn of(triple: &Triple, is_x86: bool) -> &'static CallingConvention {
    match (is_x86, triple.operating_system) {
        (false, _) => &AAPCS64,
        (true, OperatingSystem::Windows) => &WIN64,
        (true, _) => &SYSTEM_V,
    }
}

#[cfg(test)]
mod tests {
    use crate::Target;

    #[test]
    fn platforms_have_their_conventions() {
        let name = |target: &str| Target::parse(target).unwrap().convention().name;
        assert_eq!(name("x86_64-unknown-linux-gnu"), "System V");
        assert_eq!(name("x86_64-apple-darwin"), "System V");
        assert_eq!(name("x86_64-pc-windows-msvc"), "Win64");
        assert_eq!(name("x86_64-pc-windows-gnu"), "Win64");
        assert_eq!(name("aarch64-unknown-linux-gnu"), "AAPCS64");
        assert_eq!(name("aarch64-pc-windows-msvc"), "AAPCS64");
    }

    #[test]
    fn arguments_are_not_among_what_is_kept() {
        for target in ["x86_64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "aarch64"] {
            let convention = Target::parse(target).unwrap().convention();
            assert!(convention.arguments.iter().all(|n| !convention.saved_generals.contains(n)), "{target}");
            assert_eq!(convention.saved_vectors.is_empty(), convention.saved_vector_bytes == 0, "{target}");
        }
    }
}
