//! A tile with registers of one backend.

use std::fmt::{self, Display, Formatter};

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

/// The tile's text, and the registers as comments behind it.
impl Display for AllocatedTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let AllocatedTile { tile, registers, file } = self;
        write!(f, "{tile}")?;
        let mut vectors: Vec<u8> = registers.vectors.clone();
        let given = |names: &[String], numbers: &[Option<u8>]| -> Vec<String> {
            let used = names.iter().zip(numbers).filter_map(|(name, number)| Some((name, (*number)?)));
            used.map(|(name, number)| format!("{name} in {number}")).collect()
        };
        let mut generals = given(&tile.pointers, &registers.pointers);
        generals.extend(given(&tile.counts, &registers.counts));
        let mut lines: Vec<String> =
            vectors.iter().enumerate().map(|(v, number)| format!("v{v} in {number}")).collect();
        let mut all: Vec<u8> =
            registers.pointers.iter().chain(&registers.counts).flatten().copied().collect();
        for (position, scratch) in &registers.scratch {
            let list = |numbers: &[u8]| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            if !scratch.vectors.is_empty() {
                lines.push(format!("{} beside statement {position}", list(&scratch.vectors)));
            }
            if !scratch.generals.is_empty() {
                generals.push(format!("{} beside statement {position}", list(&scratch.generals)));
            }
            vectors.extend(&scratch.vectors);
            all.extend(&scratch.generals);
        }
        let summary = |class: &str, mut numbers: Vec<u8>, of: usize| {
            numbers.sort_unstable();
            numbers.dedup();
            format!("; {class} registers, {} of {of}: ", numbers.len())
        };
        writeln!(f, "{}{}", summary("vector", vectors, file.vectors), lines.join("; "))?;
        writeln!(f, "{}{}", summary("general", all, file.generals), generals.join("; "))
    }
}
