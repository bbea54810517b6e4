//! Why a tile is refused.

/// A tile that breaks a rule of the IR, or does not fit the target's registers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tile `{tile}`: {kind}")]
pub struct TileError {
    /// Name of the tile.
    pub tile: String,
    /// What is wrong.
    pub kind: TileErrorKind,
}

/// What can be wrong with a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileErrorKind {
    /// A register is read before it is written, or outside the loop that defines it.
    #[error("`{name}` is read in `{inst}` but not defined there")]
    Undefined {
        /// The register.
        name: String,
        /// The instruction, as in the listing.
        inst: String,
    },
    /// A constant operand is out of its range.
    #[error("`{inst}`: {what} is {value}; accepted is {accepted}")]
    Range {
        /// The instruction, as in the listing.
        inst: String,
        /// Which operand.
        what: &'static str,
        /// Its value.
        value: i64,
        /// What is accepted.
        accepted: String,
    },
    /// The tile was made for vectors of another width.
    #[error("it has {lanes} lanes, {isa} has {expected}")]
    Lanes {
        /// Its lanes.
        lanes: usize,
        /// The instruction set.
        isa: &'static str,
        /// Lanes of that set.
        expected: usize,
    },
    /// More values live at one place than there are registers.
    #[error("{needed} {class} registers are needed at `{inst}`, the target has {available}")]
    Registers {
        /// `vector` or `general`.
        class: &'static str,
        /// Live there, scratch registers of the lowering included.
        needed: usize,
        /// Registers of the target.
        available: usize,
        /// Where the pressure is too high.
        inst: String,
    },
    /// The builder was used against its rules.
    #[error("{0}")]
    Misuse(String),
}
