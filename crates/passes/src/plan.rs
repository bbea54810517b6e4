//! The plan of a finished graph: which nodes run together as one step, in which order, and where every value lives.
//!
//! Values share one arena. A value's bytes are reused once its last reader has run; reshape-like nodes are views of their
//! input; the inputs of a Concat of contiguous blocks are made in place inside its output; an elementwise step may write
//! over an input that nothing reads afterwards. Everything is decided here, before any code is made.

use crate::limits::Limits;
use std::collections::HashMap;
use tconvc_ir::{Graph, NodeId, Result, ValueId};

mod in_order;
mod place;
mod steps;

pub use steps::{has_lanes, is_product};

/// Alignment of every buffer in the arena, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// How a graph is run: steps in order, and the place of every value that exists in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Steps in the order in which they run.
    pub steps: Vec<Step>,
    /// Where each value lives; values inside a fused step have no place.
    pub places: HashMap<ValueId, Place>,
    /// Graph outputs that are copied after the last step, because an input, a constant or another output holds the value:
    /// the value and the index of the output.
    pub copies: Vec<(ValueId, usize)>,
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
    /// The most bytes that are alive at one step: no arena can be smaller.
    pub lower_bound_bytes: usize,
}

/// Nodes that run as one kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What kind of kernel.
    pub kind: StepKind,
    /// The nodes, in graph order.
    pub nodes: Vec<NodeId>,
    /// Values read from memory, each once, in the order in which the nodes name them.
    pub inputs: Vec<ValueId>,
    /// Values written to memory.
    pub outputs: Vec<ValueId>,
}

/// What a step's kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// One `Conv`.
    Conv,
    /// `ZeroInsert` and the `Conv` that reads it.
    ZeroInsertion,
    /// `PhaseConv` and the `Interleave` that reads it.
    SubPixel,
    /// `ColumnGemm` and the `OverlapAdd` that reads it.
    Scatter,
    /// Elementwise f32 nodes over one output shape, joined where a value has a single reader, up to so many inputs as
    /// [`Limits`] allow.
    FusedElementwise,
    /// One `MatMul` or `Gemm`, and elementwise f32 nodes over its output shape.
    Product,
    /// One node of any other kind.
    Single,
}

/// Where a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the caller's buffer for graph input number `.0`, `offset` bytes in.
    Input {
        /// Index of the graph input.
        index: usize,
        /// Bytes from its start.
        offset: usize,
    },
    /// In the caller's buffer for graph output number `.0`, `offset` bytes in.
    Output {
        /// Index of the graph output.
        index: usize,
        /// Bytes from its start.
        offset: usize,
    },
    /// In a constant of the graph, `offset` bytes in.
    Constant {
        /// The constant.
        value: ValueId,
        /// Bytes from its start.
        offset: usize,
    },
    /// In the arena.
    Arena {
        /// Bytes from its start.
        offset: usize,
    },
}

/// Plans a graph whose extents are all known, with steps within these limits.
///
/// # Errors
/// When an extent is not known, a size overflows, or the graph has a cycle.
pub fn plan(graph: &Graph, limits: &Limits) -> Result<Plan> {
    let grouped = steps::group(graph, limits)?;
    place::assign(graph, grouped)
}
