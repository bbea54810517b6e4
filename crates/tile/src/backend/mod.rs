//! Lowerings of tiles: what each promises is a [`TileBackend`]; nobody else asks which instruction set it is.
//!
//! [`of`] gives the one for a target: machine code of our own for x86-64 with 8 or 16 lanes ([`x86`]), Cranelift's in
//! four lanes for every processor ([`cranelift`]).

mod allocated;
pub mod cranelift;
mod registers;
pub mod x86;

use std::fmt::Debug;

use tconvc_machine::{Lowering, Target, VectorIsa};

pub use self::allocated::AllocatedTile;
pub use self::registers::{Assignment, Needs, Pressure, RegisterFile, Scratch};
use crate::error::{TileError, TileErrorKind};
use crate::{Inst, Tile};

/// A lowering: which registers there are, which an instruction takes beside its operands, and the code of a tile.
pub trait TileBackend: Debug + Send + Sync {
    /// The instruction set.
    fn isa(&self) -> &'static VectorIsa;

    /// The registers that a tile can use.
    fn registers(&self) -> RegisterFile;

    /// The scratch registers that the code of an instruction takes.
    fn scratch(&self, inst: &Inst) -> Needs;

    /// The function, in the C calling convention of the target.
    ///
    /// # Errors
    /// [`LowerError::Foreign`] where the registers are those of another backend, [`LowerError::Encoding`] and
    /// [`LowerError::Cranelift`] where an assembler or Cranelift refuses: a bug of the lowering.
    fn lower(&self, tile: &AllocatedTile) -> Result<MachineCode, LowerError>;

    /// Allocates registers, one to one: nothing is spilled.
    ///
    /// # Errors
    /// [`TileErrorKind::Lanes`] where the tile is made for other vectors, [`TileErrorKind::Registers`] where there are
    /// too few registers.
    fn allocate(&self, tile: Tile) -> Result<AllocatedTile, TileError> {
        self.check_lanes(&tile)?;
        let file = self.registers();
        let registers = registers::assign(&tile, file, |inst| self.scratch(inst))?;
        Ok(AllocatedTile { tile, registers, file })
    }

    /// The most registers that live at one place of a tile, scratch registers included. Costs as much as
    /// [`TileBackend::allocate`], which succeeds exactly where [`RegisterFile::holds`] this.
    ///
    /// # Errors
    /// [`TileErrorKind::Lanes`] where the tile is made for other vectors.
    fn pressure(&self, tile: &Tile) -> Result<Pressure, TileError> {
        self.check_lanes(tile)?;
        Ok(registers::pressure(tile, |inst| self.scratch(inst)))
    }

    /// Refuses tiles of another width than this backend's vectors.
    ///
    /// # Errors
    /// [`TileErrorKind::Lanes`].
    fn check_lanes(&self, tile: &Tile) -> Result<(), TileError> {
        let isa = self.isa();
        if tile.lanes() == isa.lanes() {
            return Ok(());
        }
        let kind = TileErrorKind::Lanes { lanes: tile.lanes(), isa: isa.name, expected: isa.lanes() };
        Err(TileError { tile: tile.name().to_owned(), kind })
    }
}

/// How tiles are lowered, beside what the target says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Keeps Cranelift's IR and, off x86, its disassembly in [`MachineCode`]. Costs time.
    pub keep_text: bool,
    /// Runs Cranelift's optimiser, which by default four-lane tiles are kept from: it tends to hoist and regroup until
    /// accumulators spill.
    pub optimise: bool,
}

/// The backend of a target. Cheap: what Cranelift needs is made when the first tile is lowered.
pub fn of(target: &Target, settings: Settings) -> Box<dyn TileBackend> {
    match target.vectors().lowering {
        Lowering::Assembler => Box::new(x86::X86::new(target)),
        Lowering::Cranelift => Box::new(cranelift::Portable::new(target, settings)),
    }
}

/// Finished machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCode {
    /// Code, padding, literals. Calls nothing, refers to nothing outside.
    pub bytes: Vec<u8>,
    /// Bytes of code at the front.
    pub code_len: usize,
    /// Alignment in bytes of the place it is put to.
    pub align: usize,
    /// Cranelift's IR, where it was asked for and there is any.
    pub ir: Option<String>,
    /// Cranelift's disassembly, where it was asked for and the machine is not x86.
    pub asm: Option<String>,
}

/// Why a tile has no machine code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// Registers were allocated by a backend with others.
    #[error("tile `{tile}` has registers of another backend than {isa}: allocate it again")]
    Foreign {
        /// Name of the tile.
        tile: String,
        /// The instruction set that it was to be lowered to.
        isa: &'static str,
    },
    /// The assembler refused an instruction: a bug of the lowering.
    #[error("tile `{tile}`: {message}")]
    Encoding {
        /// Name of the tile.
        tile: String,
        /// What the assembler says.
        message: String,
    },
    /// Cranelift refused the function, or has no code for the target.
    #[error("tile `{tile}`: {message}")]
    Cranelift {
        /// Name of the tile.
        tile: String,
        /// What Cranelift says.
        message: String,
    },
    /// The tile is not valid for the target it is lowered for.
    #[error(transparent)]
    Tile(#[from] TileError),
}
