//! Lowerings of tiles: to Cranelift's IR, four lanes on any architecture, and to x86-64 machine code, 8 or 16 lanes.

pub mod cranelift;
pub(crate) mod registers;
pub mod x86;

use crate::{Inst, Operand, Tile};
use registers::{Needs, Registers};
use target_lexicon::OperatingSystem;
use tconvc_machine::{Isa, Target};

/// Parameters that arrive in registers; the System V and AAPCS64 conventions have at least these.
pub(crate) const REGISTER_PARAMS: usize = 6;

/// Why a tile has no machine code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// The tile was built for vectors of another width.
    #[error("tile `{tile}` has {lanes} lanes, {isa} has {expected}")]
    Lanes {
        /// Name of the tile.
        tile: String,
        /// Its lanes.
        lanes: usize,
        /// The instruction set.
        isa: &'static str,
        /// Lanes of that set.
        expected: usize,
    },
    /// The assembler knows the System V calling convention alone.
    #[error(
        "wide tiles follow the System V calling convention; {triple} has another one: use f32x4 tiles there"
    )]
    CallingConvention {
        /// The target's triple.
        triple: String,
    },
    /// The assembler refused an instruction: a bug of the lowering.
    #[error("tile `{tile}`: {message}")]
    Encoding {
        /// Name of the tile.
        tile: String,
        /// What the assembler says.
        message: String,
    },
    /// The tile is not valid for the target it is lowered for.
    #[error(transparent)]
    Tile(#[from] crate::TileError),
}

/// Refuses tiles that have no code for the target, whatever is in them.
pub fn check(tile: &Tile, target: &Target) -> Result<(), LowerError> {
    let isa = target.isa();
    if isa != Isa::Portable && target.triple().operating_system == OperatingSystem::Windows {
        return Err(LowerError::CallingConvention { triple: target.triple().to_string() });
    }
    if tile.lanes() != isa.lanes() {
        let (tile, lanes) = (tile.name().to_owned(), tile.lanes());
        return Err(LowerError::Lanes { tile, lanes, isa: isa.name(), expected: isa.lanes() });
    }
    Ok(())
}

/// Registers for what is in a tile.
pub(crate) fn registers_of(tile: &Tile, target: &Target) -> Registers {
    let params = tile.pointer_params() + tile.count_params();
    Registers {
        vectors: target.vector_registers(),
        generals: target.general_registers(),
        args: if target.isa() == Isa::Portable { params } else { params.min(REGISTER_PARAMS) },
    }
}

/// Scratch registers that the lowering for `isa` takes for an instruction.
pub(crate) fn needs(inst: &Inst, isa: Isa) -> Needs {
    match isa {
        Isa::X86V3 | Isa::X86V4 => x86::needs(inst, isa),
        // Cranelift finds its own; this is what keeps it from spilling.
        Isa::Portable => {
            let splat = |b: Operand| usize::from(matches!(b, Operand::Splat(_)));
            let vectors = match *inst {
                Inst::Binary { b, .. } | Inst::Fma { b, .. } => splat(b),
                Inst::Select { b, .. } => 1 + splat(b),
                _ => 0,
            };
            Needs { vectors, ..Needs::default() }
        }
    }
}
