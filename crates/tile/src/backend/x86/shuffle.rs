//! Which instructions make a lane pattern. The choice is a value, so that register assignment and encoding agree.

use crate::Pattern;
use crate::backend::Needs;
use tconvc_machine::Isa;

/// One of the two sources of a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    A,
    B,
}

/// How a pattern is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The source as it is.
    Copy(Source),
    /// `vunpcklps` of both sources, the first one given.
    ZipLow(Source),
    /// `vunpckhps` of both sources, the first one given.
    ZipHigh(Source),
    /// `vshufps`: two lanes of the first source given, then two of the second.
    PickPairs(Source, Source, i32),
    /// `vpermilps`: the same picks in each group of four lanes of one source.
    WithinFours(Source, i32),
    /// `vperm2f128` or `vshuff32x4`: whole groups of four lanes.
    PickFours(Source, Source, i32),
    /// `vblendps`, 8 lanes only.
    Blend(i32),
    /// `vpermps` with an index from memory.
    Permute(Source),
    /// 16 lanes: `vpermi2ps` or `vpermt2ps` with an index from memory.
    PermuteBoth,
    /// 8 lanes: two `vpermps` and the blend given.
    PermuteAndBlend(i32),
}

impl Plan {
    /// `overwrites` says that the destination is one of the sources.
    pub(super) fn needs(self, overwrites: bool) -> Needs {
        let vectors = match self {
            Plan::Permute(_) => 1,
            Plan::PermuteBoth => usize::from(overwrites),
            Plan::PermuteAndBlend(_) => 2,
            _ => 0,
        };
        Needs { vectors, generals: 0, early: self == Plan::PermuteBoth && !overwrites }
    }
}

/// The cheapest way to make `pattern`; `same` says that both sources are one register.
pub(super) fn plan(pattern: Pattern, same: bool, isa: Isa) -> Plan {
    let lanes = isa.lanes();
    let pattern = if same { Pattern::new(lanes, |i| pattern.get(i) % lanes) } else { pattern };
    if pattern.all(lanes, |_, from| from < lanes) {
        return plan_one(pattern, Source::A, isa);
    }
    if pattern.all(lanes, |_, from| from >= lanes) {
        return plan_one(pattern.swapped(lanes), Source::B, isa);
    }
    plan_two(pattern, isa)
}

/// Plans for lanes of a single source.
fn plan_one(pattern: Pattern, source: Source, isa: Isa) -> Plan {
    let lanes = isa.lanes();
    if pattern.all(lanes, |i, from| from == i) {
        return Plan::Copy(source);
    }
    let in_fours = |i: usize, from: usize| from / 4 == i / 4 && from % 4 == pattern.get(i % 4) % 4;
    if pattern.all(lanes, in_fours) {
        return Plan::WithinFours(source, immediate([0, 1, 2, 3].map(|i| pattern.get(i))));
    }
    if let Some(imm) = fours(pattern, isa, source, source) {
        return Plan::PickFours(source, source, imm);
    }
    Plan::Permute(source)
}

/// Plans for lanes of both sources.
fn plan_two(pattern: Pattern, isa: Isa) -> Plan {
    let lanes = isa.lanes();
    let eight = isa == Isa::X86V3;
    let blend = (0..lanes).fold(0, |mask, i| mask | i32::from(pattern.get(i) >= lanes) << i);
    if eight && pattern.all(lanes, |i, from| from % lanes == i) {
        return Plan::Blend(blend);
    }
    for (first, p) in [(Source::A, pattern), (Source::B, pattern.swapped(lanes))] {
        let second = other(first);
        let zip = |high: usize| p.all(lanes, |i, from| from == i / 4 * 4 + high + i % 4 / 2 + i % 2 * lanes);
        if zip(0) {
            return Plan::ZipLow(first);
        }
        if zip(2) {
            return Plan::ZipHigh(first);
        }
        let pair = |i: usize, from: usize| {
            let within = from % lanes;
            from / lanes == i % 4 / 2 && within / 4 == i / 4 && within % 4 == p.get(i % 4) % 4
        };
        if p.all(lanes, pair) {
            return Plan::PickPairs(first, second, immediate([0, 1, 2, 3].map(|i| p.get(i))));
        }
        if let Some(imm) = fours(p, isa, Source::A, Source::B) {
            return Plan::PickFours(first, second, imm);
        }
    }
    if eight { Plan::PermuteAndBlend(blend) } else { Plan::PermuteBoth }
}

/// The immediate where `pattern` moves whole groups of four lanes as one instruction can, from sources (`x`, `y`).
fn fours(pattern: Pattern, isa: Isa, x: Source, y: Source) -> Option<i32> {
    let lanes = isa.lanes();
    let group = |g: usize| pattern.get(4 * g) / 4;
    if !pattern.all(lanes, |i, from| from == 4 * group(i / 4) + i % 4) {
        return None;
    }
    if isa == Isa::X86V3 {
        // Either half takes any half of either source.
        return Some((group(0) | group(1) << 4) as i32);
    }
    // The lower groups come from the first source, the upper ones from the second.
    let allowed = |g: usize| x == y || (group(g) >= 4) == (g >= 2);
    (0..4).all(allowed).then(|| immediate([0, 1, 2, 3].map(group)))
}

/// Four picks of two bits.
fn immediate(picks: [usize; 4]) -> i32 {
    picks.iter().enumerate().fold(0, |imm, (i, pick)| imm | ((pick % 4) as i32) << (2 * i))
}

fn other(source: Source) -> Source {
    match source {
        Source::A => Source::B,
        Source::B => Source::A,
    }
}
