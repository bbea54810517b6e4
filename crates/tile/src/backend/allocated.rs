//! A tile with the registers of one backend given out.

use super::{Assignment, LowerError, RegisterFile, TileBackend};
use crate::Tile;

/// A tile, and a register for everything in it. Made by [`TileBackend::allocate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedTile {
    pub(super) tile: Tile,
    pub(super) registers: Assignment,
    pub(super) file: RegisterFile,
}

impl AllocatedTile {
    /// The tile.
    pub fn tile(&self) -> &Tile {
        &self.tile
    }

    /// Where everything in it lives.
    pub fn registers(&self) -> &Assignment {
        &self.registers
    }

    /// Refuses another backend's registers.
    pub(super) fn check(&self, backend: &dyn TileBackend) -> Result<(), LowerError> {
        let isa = backend.isa();
        if self.file == backend.registers() && self.tile.lanes() == isa.lanes() {
            return Ok(());
        }
        Err(LowerError::Foreign { tile: self.tile.name().to_owned(), isa: isa.name })
    }
}
