//! Instruction sets, as tiles see them: a table with one row each. Whoever makes code asks a row for a property, never which one
//! it is; a new instruction set is a new row.

use crate::X86Level;

/// Which lowering a tile takes, and with that the width of its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Four lanes, through Cranelift, on every architecture that it knows.
    Portable,
    /// Eight lanes: AVX2 with FMA, through the assembler.
    X86V3,
    /// Sixteen lanes: AVX-512 F, VL, DQ and BW, through the assembler.
    X86V4,
}

impl Isa {
    /// Every one, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::X86V3, Self::X86V4];

    /// Short name, as it stands in the names of kernels: `f32x4`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        self.widest_row().name
    }

    /// Number of f32 lanes in a vector register.
    pub fn lanes(self) -> usize {
        self.widest_row().lanes()
    }

    /// A row of this lowering: name and width are the same in all of them.
    fn widest_row(self) -> &'static VectorIsa {
        match self {
            Self::Portable => &NEON,
            Self::X86V3 => &AVX2,
            Self::X86V4 => &AVX512,
        }
    }
}

/// What makes the machine code of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lowering {
    /// Cranelift, whose register allocator knows vectors of 128 bits.
    Cranelift,
    /// The project's own assembler.
    Assembler,
}

/// A row of the table: one instruction set.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VectorIsa {
    /// As it stands in the names of kernels; several rows may share one.
    pub name: &'static str,
    /// What makes the code of a tile.
    pub lowering: Lowering,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
    /// Vector registers that a tile can use.
    pub vector_registers: usize,
    /// General registers for the pointers, counts and loop counters of a tile.
    pub general_registers: usize,
    /// Registers that sums of a convolution may take, where this is fewer than there are: Cranelift spills beyond a few.
    pub most_sums: Option<usize>,
    /// Registers that sums of a product of matrices take.
    pub product_sums: usize,
    /// Whether a multiply-add rounds once; else it is a multiplication and an addition.
    pub fma: bool,
    /// What an operand in memory may be besides a whole vector.
    pub memory: MemoryOperands,
    /// The most phases that are interleaved in registers: each takes a shuffle for each other one.
    pub most_interleaved: usize,
    /// Whether sums of four products of bytes are added to 32 bits in one instruction (VNNI).
    pub dot_products: bool,
}

/// Operands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryOperands {
    /// Whether a load or store of the first few lanes leaves memory behind them alone, in one instruction.
    pub masked: bool,
    /// Whether an instruction takes one element from memory for all lanes, without a register.
    pub broadcast: bool,
}

impl VectorIsa {
    /// Lanes of f32.
    pub const fn lanes(&self) -> usize {
        self.lanes_of(4)
    }

    /// Lanes of elements of so many bytes.
    pub const fn lanes_of(&self, element_bytes: usize) -> usize {
        self.vector_bytes / element_bytes
    }

    /// Vector registers for the sums of a convolution, beside so many that are in use and one for what is loaded.
    pub fn accumulators(&self, beside: usize) -> usize {
        self.most_sums.unwrap_or_else(|| self.vector_registers.saturating_sub(beside + 1))
    }

    /// Whether there are registers for more than sums: for weights of several taps beside them, or to transpose a square of as
    /// many vectors as there are lanes.
    pub fn has_spare_registers(&self) -> bool {
        self.accumulators(0) >= self.lanes() + 15
    }
}

/// x86-64 before AVX: what every processor of that architecture has.
static SSE2: VectorIsa = VectorIsa {
    name: "f32x4",
    lowering: Lowering::Cranelift,
    vector_bytes: 16,
    vector_registers: 16,
    general_registers: 15,
    most_sums: Some(8),
    product_sums: 8,
    fma: false,
    memory: MemoryOperands { masked: false, broadcast: false },
    most_interleaved: 8,
    dot_products: false,
};

/// Four lanes of a processor that has wider ones.
static FMA: VectorIsa = VectorIsa { fma: true, ..SSE2 };

static AVX2: VectorIsa = VectorIsa {
    name: "avx2",
    lowering: Lowering::Assembler,
    vector_bytes: 32,
    most_sums: None,
    product_sums: 12,
    fma: true,
    memory: MemoryOperands { masked: true, broadcast: false },
    ..SSE2
};

static AVX512: VectorIsa = VectorIsa {
    name: "avx512",
    vector_bytes: 64,
    vector_registers: 32,
    product_sums: 24,
    memory: MemoryOperands { masked: true, broadcast: true },
    most_interleaved: 12,
    ..AVX2
};

static AVX512_VNNI: VectorIsa = VectorIsa { dot_products: true, ..AVX512 };

/// Of aarch64, which has it always. General registers: without those that the platform and Cranelift keep.
static NEON: VectorIsa =
    VectorIsa { vector_registers: 32, general_registers: 24, product_sums: 24, fma: true, ..SSE2 };

/// The row for a lowering on x86-64 of some level, or on aarch64.
pub(crate) fn row(isa: Isa, level: Option<X86Level>, dot_products: bool) -> &'static VectorIsa {
    match (isa, level) {
        (Isa::Portable, None) => &NEON,
        (Isa::Portable, Some(level)) if level >= X86Level::V3 => &FMA,
        (Isa::Portable, Some(_)) => &SSE2,
        (Isa::X86V3, _) => &AVX2,
        (Isa::X86V4, _) if dot_products => &AVX512_VNNI,
        (Isa::X86V4, _) => &AVX512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_lowering_share_name_and_width() {
        for row in [&SSE2, &FMA, &NEON] {
            assert_eq!((row.name, row.lanes()), (Isa::Portable.name(), Isa::Portable.lanes()));
        }
        assert_eq!((AVX512_VNNI.name, AVX512_VNNI.lanes()), (Isa::X86V4.name(), 16));
        assert_eq!(Isa::ALL.map(Isa::lanes), [4, 8, 16]);
    }

    #[test]
    fn lanes_follow_from_the_bytes_of_an_element() {
        assert_eq!([1, 2, 4, 8].map(|bytes| AVX512.lanes_of(bytes)), [64, 32, 16, 8]);
        assert_eq!([1, 2, 4, 8].map(|bytes| AVX2.lanes_of(bytes)), [32, 16, 8, 4]);
        assert_eq!([1, 2, 4, 8].map(|bytes| NEON.lanes_of(bytes)), [16, 8, 4, 2]);
    }

    #[test]
    fn only_wide_register_files_have_some_to_spare() {
        let spare = [&SSE2, &FMA, &NEON, &AVX2, &AVX512, &AVX512_VNNI].map(VectorIsa::has_spare_registers);
        assert_eq!(spare, [false, false, false, false, true, true]);
    }

    #[test]
    fn sums_take_what_is_left() {
        assert_eq!([0, 1, 4].map(|beside| AVX2.accumulators(beside)), [15, 14, 11]);
        assert_eq!([0, 1, 4].map(|beside| AVX512.accumulators(beside)), [31, 30, 27]);
        // Cranelift's are few on every machine.
        assert_eq!([0, 1, 40].map(|beside| SSE2.accumulators(beside)), [8, 8, 8]);
        assert_eq!(NEON.accumulators(3), 8);
        // More than there are leaves none.
        assert_eq!(AVX2.accumulators(40), 0);
    }
}
