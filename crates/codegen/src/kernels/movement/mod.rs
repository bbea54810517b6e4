//! Operators that only move data: each output element is an element of an input, or a fill value. Which one is told by
//! the operators' own maps; here they become copies of words. A word has four bytes where elements have as many or more
//! (8-byte elements are two of them), else as many as an element.

mod axes;
mod copy;
mod narrow;
mod ops;
mod rows;
mod scatter;
mod squares;

use super::family::{Codes, KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use crate::builder::Builder;
use crate::error::CompileError;
use axes::{Axis, Move};
use tconvc_ir::Op;
use tconvc_machine::Target;
use tconvc_passes::plan::Step;

/// True for operators whose output elements are elements of their first input or of all of them.
pub(crate) fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Concat(_)
            | Op::Split(_)
            | Op::ScatterNd(_)
            | Op::Transpose(_)
            | Op::Expand(_)
            | Op::Tile(_)
            | Op::DepthToSpace(_)
            | Op::SpaceToDepth(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Resize(_)
            | Op::Gather(_)
    )
}

/// Words beyond which displacements may not fit.
const FARTHEST: usize = 1 << 27;

/// Copies of words.
pub(crate) struct Movement;

impl KernelFamily for Movement {
    fn name(&self) -> &'static str {
        "movement"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let moves = ops::moves(site, node)?;
        for copy in &moves {
            let words = copy.axes.iter().fold(1usize, |all, axis| all.saturating_mul(axis.extent));
            let reach = copy.axes.iter().map(Axis::reach).fold(0, usize::saturating_add);
            Reason::within("words, or words from the first to the last,", words.max(reach), FARTHEST)?;
        }
        Ok(Box::new(Plan { label: node.op.name().to_lowercase(), moves }))
    }
}

/// The copies of a node.
struct Plan {
    label: String,
    moves: Vec<Move>,
}

impl<'a> KernelPlan<'a> for Plan {
    fn name(&self) -> String {
        String::new()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let words = |copy: &Move| copy.axes.iter().map(|axis| axis.extent as f64).product::<f64>();
        self.moves.iter().map(words).sum::<f64>() * target.rates().elementwise.copied
    }

    fn steps(self: Box<Self>, builder: &mut Builder<'a>, _: String, _: &Codes) -> Result<(), CompileError> {
        let Self { label, moves } = *self;
        for Move { unit, axes, fill, from, to } in moves {
            let (mut source, mut target) = (builder.operand(from.0)?, builder.operand(to.0)?);
            source.offset += from.1;
            target.offset += to.1;
            copy::build(
                builder,
                copy::Copy { label: label.clone(), unit, axes, fill, from: source, to: target },
            )?;
        }
        Ok(())
    }
}
