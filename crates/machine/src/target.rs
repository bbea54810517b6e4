//! What code is generated for: instruction set, triple and cache sizes, as one plain value.
//!
//! Nothing else in the compiler asks the machine anything. [`Target::host`] looks once; every schedule and every
//! lowering reads the value it was handed, so that code for a lesser machine can be made, and tested, on a better one. What a
//! target can do is in the rows of other files: [`VectorIsa`], [`CallingConvention`], [`Caches`], [`Rates`].

use crate::convention::{self, CallingConvention};
use crate::isa::{self, Isa, VectorIsa};
use crate::{Caches, Rates, detect};
use std::fmt;
use std::str::FromStr;
use target_lexicon::{
    Aarch64Architecture, Architecture, BinaryFormat, Environment, OperatingSystem, Triple, Vendor,
};

/// The levels of the x86-64 psABI: what a processor can be relied on to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum X86Level {
    /// SSE2.
    V1,
    /// SSE4.2, SSSE3, POPCNT.
    V2,
    /// AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE.
    V3,
    /// AVX-512 F, BW, CD, DQ, VL.
    V4,
}

/// The machine that code is generated for.
///
/// # Floating point
/// Where [`Target::has_fma`] holds, a multiply-add of a tile rounds once; elsewhere (x86-64 before level 3) it
/// is a multiplication and an addition that round twice. Results are bit-identical between all targets with the
/// same lane count and the same answer to `has_fma`, between runs, and between thread counts. Between lane counts
/// they can differ only where a kernel sums across lanes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    triple: Triple,
    isa: Isa,
    x86: Option<X86Level>,
    /// Beside AVX-512.
    dot_products: bool,
    caches: Caches,
}

/// A target name that is not known, or one that cannot be had on this architecture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown target `{name}`: {reason}; accepted are {}, or a target triple of aarch64 or x86_64, that with a level from +v1 to \
     +v4 behind it; each may have caches behind it, `@` and one of {}",
    Target::NAMES.join(", "),
    Caches::NAMED.map(|(name, _)| name).join(", ")
)]
pub struct TargetError {
    /// The name as given.
    pub name: String,
    reason: &'static str,
}

impl Target {
    /// The names that [`Target::parse`] accepts beside whole triples. Those of x86_64 may have a level behind them, such as
    /// `x86_64-pc-windows-msvc+v3`; without one they are of level 1.
    pub const NAMES: [&str; 7] =
        ["host", "portable", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"];

    /// The machine that this program runs on, with the widest tiles that it has.
    pub fn host() -> Target {
        let triple = Triple::host();
        let x86 = detect::x86_level();
        let dot_products = x86 == Some(X86Level::V4) && detect::dot_products();
        Target { isa: widest(x86), triple, x86, dot_products, caches: Caches::of_this_machine() }
    }

    /// Reads a target name, see [`Target::NAMES`].
    ///
    /// `portable` is the host with four-lane tiles. Named levels take the host's operating system and caches where
    /// the architecture is the host's, else Linux and [`Caches::ASSUMED`]. `aarch64@cortex-a76` has the caches of a row, see
    /// [`Caches::NAMED`], wherever it is parsed.
    ///
    /// # Errors
    /// [`TargetError`], which lists what is accepted.
    pub fn parse(name: &str) -> Result<Target, TargetError> {
        if let Some((target, row)) = name.split_once('@') {
            let fail = |reason| TargetError { name: name.to_owned(), reason };
            let caches = Caches::NAMED.into_iter().find(|(known, _)| *known == row);
            let (_, caches) = caches.ok_or_else(|| fail("no such caches are known"))?;
            let target = Target::parse_name(target).map_err(|error| fail(error.reason))?;
            return Ok(target.with_caches(caches));
        }
        Target::parse_name(name)
    }

    fn parse_name(name: &str) -> Result<Target, TargetError> {
        let level = match name {
            "host" => return Ok(Target::host()),
            "portable" => return Ok(Target { isa: Isa::Portable, ..Target::host() }),
            "aarch64" => {
                return Ok(Target::of(triple_for(Architecture::Aarch64(Aarch64Architecture::Aarch64)), None));
            }
            "x86-64" => X86Level::V1,
            "x86-64-v2" => X86Level::V2,
            "x86-64-v3" => X86Level::V3,
            "x86-64-v4" => X86Level::V4,
            other => return Target::parse_triple(other),
        };
        Ok(Target::of(triple_for(Architecture::X86_64), Some(level)))
    }

    /// A triple, or one with a level behind it.
    fn parse_triple(name: &str) -> Result<Target, TargetError> {
        let fail = |reason| TargetError { name: name.to_owned(), reason };
        let (triple, level) = match name.split_once('+') {
            None => (name, None),
            Some((triple, "v1")) => (triple, Some(X86Level::V1)),
            Some((triple, "v2")) => (triple, Some(X86Level::V2)),
            Some((triple, "v3")) => (triple, Some(X86Level::V3)),
            Some((triple, "v4")) => (triple, Some(X86Level::V4)),
            Some(_) => return Err(fail("levels behind a triple are +v1, +v2, +v3 and +v4")),
        };
        let triple = Triple::from_str(triple).map_err(|_| fail("not a target triple either"))?;
        match triple.architecture {
            Architecture::X86_64 => Ok(Target::of(triple, Some(level.unwrap_or(X86Level::V1)))),
            Architecture::Aarch64(_) if level.is_some() => Err(fail("levels are those of x86_64")),
            Architecture::Aarch64(_) => Ok(Target::of(triple, None)),
            _ => Err(fail("no vector code is generated for this architecture")),
        }
    }

    fn of(triple: Triple, x86: Option<X86Level>) -> Target {
        let here = triple.architecture == Triple::host().architecture;
        let caches = if here { Caches::of_this_machine() } else { Caches::ASSUMED };
        Target { isa: widest(x86), triple, x86, dot_products: false, caches }
    }

    /// The same machine with the tiles of `isa`, or `None` where it does not have them.
    #[must_use]
    pub fn with_isa(mut self, isa: Isa) -> Option<Target> {
        (isa <= widest(self.x86)).then(|| {
            self.isa = isa;
            self
        })
    }

    /// The same machine with other caches, for schedules that must not depend on where they are made.
    #[must_use]
    pub fn with_caches(mut self, caches: Caches) -> Target {
        self.caches = caches;
        self
    }

    /// Which lowering tiles take. What a tile may use is in [`Target::vectors`].
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The instruction set of tiles: what they may use, as properties.
    pub fn vectors(&self) -> &'static VectorIsa {
        isa::row(self.isa, self.x86, self.dot_products)
    }

    /// Where functions find their arguments, and what they keep.
    pub fn convention(&self) -> &'static CallingConvention {
        convention::of(&self.triple, self.x86.is_some())
    }

    /// What things take, as plain numbers.
    pub fn rates(&self) -> Rates {
        Rates::of(self.vectors(), &self.caches)
    }

    /// Architecture and operating system.
    pub fn triple(&self) -> &Triple {
        &self.triple
    }

    /// The x86-64 level; `None` on other architectures.
    pub fn x86_level(&self) -> Option<X86Level> {
        self.x86
    }

    /// Cache sizes.
    pub fn caches(&self) -> Caches {
        self.caches
    }

    /// Number of f32 lanes of a tile's vector: 4, 8 or 16.
    pub fn lanes(&self) -> usize {
        self.vectors().lanes()
    }

    /// Bytes of a tile's vector: 16, 32 or 64.
    pub fn vector_bytes(&self) -> usize {
        self.vectors().vector_bytes
    }

    /// Number of vector registers that a tile can use: 32 with AVX-512 and on aarch64, else 16.
    pub fn vector_registers(&self) -> usize {
        self.vectors().vector_registers
    }

    /// Number of general registers for the pointers, counts and loop counters of a tile.
    pub fn general_registers(&self) -> usize {
        self.vectors().general_registers
    }

    /// Whether a multiply-add rounds once, see [the note on floating point](Target#floating-point).
    pub fn has_fma(&self) -> bool {
        self.vectors().fma
    }

    /// Whether code for this target runs on the machine that this program runs on.
    pub fn runs_here(&self) -> bool {
        let host = Triple::host();
        self.triple.architecture == host.architecture
            && is_windows(&self.triple) == is_windows(&host)
            && self.x86 <= detect::x86_level()
            && (!self.dot_products || detect::dot_products())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.x86 {
            Some(X86Level::V1) => f.write_str("x86-64")?,
            Some(X86Level::V2) => f.write_str("x86-64-v2")?,
            Some(X86Level::V3) => f.write_str("x86-64-v3")?,
            Some(X86Level::V4) => f.write_str("x86-64-v4")?,
            None => write!(f, "{}", self.triple.architecture)?,
        }
        if is_windows(&self.triple) {
            f.write_str(" on Windows")?;
        }
        write!(f, " ({} tiles)", self.isa.name())
    }
}

/// The widest tiles of a machine.
fn widest(x86: Option<X86Level>) -> Isa {
    match x86 {
        Some(X86Level::V4) => Isa::X86V4,
        Some(X86Level::V3) => Isa::X86V3,
        _ => Isa::Portable,
    }
}

fn is_windows(triple: &Triple) -> bool {
    matches!(triple.operating_system, OperatingSystem::Windows)
}

/// The host's triple where it has this architecture, else Linux on it.
fn triple_for(architecture: Architecture) -> Triple {
    let host = Triple::host();
    if host.architecture == architecture {
        return host;
    }
    Triple {
        architecture,
        vendor: Vendor::Unknown,
        operating_system: OperatingSystem::Linux,
        environment: Environment::Gnu,
        binary_format: BinaryFormat::Elf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lowering;

    #[test]
    fn every_listed_name_parses() {
        for name in Target::NAMES {
            Target::parse(name).unwrap();
        }
    }

    #[test]
    fn levels_have_their_widths() {
        let facts = |name: &str| {
            let t = Target::parse(name).unwrap();
            (t.lanes(), t.vector_registers(), t.has_fma())
        };
        assert_eq!(facts("x86-64"), (4, 16, false));
        assert_eq!(facts("x86-64-v2"), (4, 16, false));
        assert_eq!(facts("aarch64"), (4, 32, true));
        assert_eq!(facts("x86-64-v3"), (8, 16, true));
        assert_eq!(facts("x86-64-v4"), (16, 32, true));
        assert_eq!(facts("x86_64-pc-windows-msvc"), (4, 16, false));
        assert_eq!(facts("x86_64-pc-windows-msvc+v3"), (8, 16, true));
        assert_eq!(facts("x86_64-pc-windows-gnu+v4"), (16, 32, true));
        assert_eq!(facts("aarch64-apple-darwin"), (4, 32, true));
    }

    #[test]
    fn every_target_has_the_row_of_its_tiles() {
        for name in Target::NAMES.into_iter().chain([
            "x86_64-pc-windows-msvc",
            "x86_64-pc-windows-msvc+v4",
            "aarch64-apple-darwin",
        ]) {
            let target = Target::parse(name).unwrap();
            for isa in Isa::ALL {
                let Some(target) = target.clone().with_isa(isa) else { continue };
                let row = target.vectors();
                assert_eq!((row.name, row.lanes()), (isa.name(), isa.lanes()), "{name}");
                assert_eq!(row.fma, target.x86_level().is_none_or(|level| level >= X86Level::V3), "{name}");
                assert_eq!(row.lowering == Lowering::Assembler, isa != Isa::Portable, "{name}");
                assert!(row.general_registers > target.convention().arguments.len(), "{name}");
            }
        }
    }

    #[test]
    fn caches_can_be_named_with_a_target() {
        for (name, caches) in Caches::NAMED {
            for target in ["host", "x86-64-v3", "aarch64", "aarch64-unknown-linux-gnu"] {
                assert_eq!(Target::parse(&format!("{target}@{name}")).unwrap().caches(), caches);
            }
        }
        for name in ["x86-64-v3@", "x86-64-v3@zen", "x86-64-v3@zen3@zen3", "@zen3"] {
            let text = Target::parse(name).unwrap_err().to_string();
            assert!(text.contains(&format!("`{name}`")) && text.contains("neoverse-n1"), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_told_what_is_accepted() {
        let text = Target::parse("avx9").unwrap_err().to_string();
        assert!(text.contains("`avx9`") && text.contains("x86-64-v3") && text.contains("aarch64"), "{text}");
        for (name, words) in
            [("x86_64-pc-windows-msvc+v5", "are +v1, +v2"), ("aarch64-apple-darwin+v3", "of x86_64")]
        {
            let text = Target::parse(name).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        let text = Target::parse("wasm32-unknown-unknown").unwrap_err().to_string();
        assert!(text.contains("no vector code"), "{text}");
    }

    #[test]
    fn lesser_tiles_can_be_forced_and_wider_ones_cannot() {
        let v3 = Target::parse("x86-64-v3").unwrap();
        assert_eq!(v3.clone().with_isa(Isa::Portable).unwrap().lanes(), 4);
        assert!(v3.with_isa(Isa::X86V4).is_none());
    }

    #[test]
    fn the_host_runs_its_own_code() {
        assert!(Target::host().runs_here());
        assert!(Target::parse("portable").unwrap().runs_here());
        let other = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86-64" };
        assert!(!Target::parse(other).unwrap().runs_here());
    }
}
