//! Axes of copies, and the code of their innermost one: plain values.

use cranelift_codegen::ir::Type;
use cranelift_codegen::ir::types::{I8, I16, I32};
use tconvc_ir::{DType, ValueId};
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::Operand;

/// A copy of words from one value to another, before these have a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Move {
    /// Bytes of a word: 1, 2 or 4.
    pub unit: usize,
    /// Axes of the target, outermost first.
    pub axes: Vec<Axis>,
    /// The word where there is no source; shorter words are repeated until there are four bytes.
    pub fill: u32,
    /// Source and target, each with the bytes from its start on.
    pub from: (ValueId, usize),
    pub to: (ValueId, usize),
}

/// An element as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    /// Bytes of a word: 1, 2 or 4.
    pub unit: usize,
    /// Words of an element.
    pub count: usize,
}

impl Words {
    /// `None` for types whose elements are no whole number of bytes.
    pub fn of(dtype: DType) -> Option<Self> {
        match dtype.bits() {
            _ if dtype == DType::String => None,
            8 => Some(Self { unit: 1, count: 1 }),
            16 => Some(Self { unit: 2, count: 1 }),
            bits if bits > 0 && bits.is_multiple_of(32) => Some(Self { unit: 4, count: bits / 32 }),
            _ => None,
        }
    }
}

/// One axis of a copy. Places add up over the axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub extent: usize,
    /// Words between neighbours of the target.
    pub target: usize,
    pub source: Source,
}

/// Places along an axis in the source, in words.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// `start + i * step`.
    Even { start: i64, step: i64 },
    /// A place for each; none is the fill word.
    Listed(Vec<Option<i64>>),
}

/// The innermost loops.
pub(super) struct Code {
    /// Chunks of the axis that is cut, how many of them are whole, and words from one to the next in source and target.
    pub chunks: usize,
    pub whole: usize,
    pub source_step: i64,
    pub target_step: i64,
    /// Code of a whole chunk and of the last, smaller one: `source, target, more..`.
    pub full: Option<FunctionId>,
    pub rest: Option<FunctionId>,
    /// Fills a row that has no source: `target`.
    pub missing: Option<FunctionId>,
    /// More operands, handed to the code as they are.
    pub more: Vec<Operand>,
    /// For the kernel's name.
    pub kind: String,
}

impl Default for Code {
    /// One chunk, whose code is not made yet.
    fn default() -> Self {
        Self {
            chunks: 1,
            whole: 1,
            source_step: 0,
            target_step: 0,
            full: None,
            rest: None,
            missing: None,
            more: vec![],
            kind: String::new(),
        }
    }
}

impl Code {
    /// Cuts a row of `extent` words, which lie so far apart in source and target, into chunks. Returns the words behind the
    /// last whole one.
    pub(super) fn cut(&mut self, extent: usize, chunk: usize, [source, target]: [i64; 2]) -> usize {
        (self.whole, self.chunks) = (extent / chunk, extent.div_ceil(chunk));
        (self.source_step, self.target_step) = (chunk as i64 * source, chunk as i64 * target);
        extent % chunk
    }
}

/// Words of a chunk of a long row.
pub(super) const CHUNK: usize = 16384;
/// A piece of a row: words `first .. first + count` of the target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub first: usize,
    pub count: usize,
    /// Place of the first, and from one to the next; none is the fill word.
    pub source: Option<(i64, i64)>,
}

impl Axis {
    /// Words from the first to the farthest place in the source.
    pub fn reach(&self) -> usize {
        match &self.source {
            Source::Even { step, .. } => step.unsigned_abs() as usize * self.extent.saturating_sub(1),
            Source::Listed(places) => places.iter().flatten().max().map_or(0, |&place| place as usize),
        }
    }
}

/// Bytes of so many words.
pub(super) fn bytes_of(unit: usize, words: i64) -> i64 {
    unit as i64 * words
}

/// The integer that is a word of so many bytes.
pub(super) fn word_type(unit: usize) -> Type {
    match unit {
        1 => I8,
        2 => I16,
        _ => I32,
    }
}

/// Adds the axis of an element's words where it has several.
pub(super) fn with_words(mut axes: Vec<Axis>, words: Words) -> Vec<Axis> {
    if words.count > 1 {
        axes.push(Axis { extent: words.count, target: 1, source: Source::Even { start: 0, step: 1 } });
    }
    axes
}

pub(super) fn strides(shape: &[usize], words: usize) -> Vec<usize> {
    let mut strides = vec![words; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// More pieces than this are copied a word at a time.
const PIECES: usize = 24;
/// Pieces with the same step; `None` where there are too many.
pub(super) fn cut(places: &[Option<i64>]) -> Option<Vec<Piece>> {
    let (mut pieces, mut at) = (vec![], 0);
    while at < places.len() {
        let rest = &places[at..];
        let step = rest.first().copied().flatten().zip(rest.get(1).copied().flatten()).map(|(a, b)| b - a);
        let (count, source) = match (rest[0], step) {
            (None, _) => (rest.iter().take_while(|place| place.is_none()).count(), None),
            (Some(start), None) => (1, Some((start, 1))),
            (Some(start), Some(step)) => {
                let follows = |(i, place): &(usize, &Option<i64>)| **place == Some(start + *i as i64 * step);
                (rest.iter().enumerate().take_while(follows).count(), Some((start, step)))
            }
        };
        pieces.push(Piece { first: at, count, source });
        at += count;
        if pieces.len() > PIECES {
            return None;
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_where_the_step_changes() {
        let places = [Some(2), Some(1), Some(0), Some(1), Some(2), None, None, Some(5)];
        let piece = |first, count, source| Piece { first, count, source };
        let expected = [
            piece(0, 3, Some((2, -1))),
            piece(3, 2, Some((1, 1))),
            piece(5, 2, None),
            piece(7, 1, Some((5, 1))),
        ];
        assert_eq!(cut(&places).unwrap(), expected);
        assert_eq!(cut(&(0..200).map(|i| Some(i * i)).collect::<Vec<_>>()), None);
    }
}
