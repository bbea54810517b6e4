//! Canonical spellings, so that later passes see one where ONNX has several. Each family of operators has its own file
//! below; this one holds the pass and what a change of spelling is.

mod convolution;
mod elementwise;
mod pool;
mod shapes;

use crate::error::Result;
use crate::journal::Decision;
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site};
use crate::patch;
use tconvc_ir::ops::{Binary, Unary};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Brings operators into their canonical spelling.
///
/// - Pattern: an operator with another spelling that later passes know.
/// - Guard: each family's own; results stay the same bit for bit.
/// - Cost: stays.
pub struct Canonicalise;

/// A change of spelling.
pub enum Change {
    /// The node's operator becomes this one, on the same inputs.
    Respell(Op, String),
    /// The node becomes this operator on these inputs.
    Replace(Op, Vec<Option<ValueId>>, String),
    /// The node becomes `op` of data and a constant, which is `of` the one that was there.
    Constant {
        /// The operator it becomes.
        op: Binary,
        /// First operand.
        data: ValueId,
        /// The constant that was there.
        constant: ValueId,
        /// What is made of the constant.
        of: Unary,
        /// For the journal.
        what: &'static str,
    },
    /// The node becomes `op` of data and a new list of integers.
    WithList {
        /// The operator it becomes.
        op: Op,
        /// First operand.
        data: ValueId,
        /// Second operand.
        list: Tensor,
        /// For the journal.
        what: String,
    },
    /// The node has its first output only.
    FirstOutput,
    /// The node goes: this input is what it gives.
    Bypass(ValueId),
}

impl Rewrite for Canonicalise {
    type Found = Change;

    fn about(&self) -> About {
        About {
            name: "canonicalise",
            summary: "bring operators into one spelling: explicit pads, unary clamps, reshapes",
            pattern: "an operator that has a simpler spelling",
            claim: "stays",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Change> {
        if let Some(change) = unread_outputs(graph, node) {
            return Ok(change);
        }
        match &graph.node(node).op {
            Op::Conv(conv) => convolution::conv(graph, node, conv),
            Op::ConvTranspose(conv) => convolution::conv_transpose(graph, node, conv),
            Op::Pool(op) => pool::pool(graph, node, op),
            Op::Clip(_) => elementwise::clip(graph, node),
            Op::Variadic(op) => elementwise::variadic(graph, node, *op),
            Op::Binary(op) => elementwise::binary(graph, node, *op),
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => {
                shapes::reshape(graph, node)
            }
            _ => Err(Miss::Elsewhere),
        }
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, change: Change) -> Result<Decision> {
        match change {
            Change::Respell(op, what) => {
                *graph.op_mut(node) = op;
                Ok(Decision::only(what))
            }
            Change::Replace(op, inputs, what) => {
                patch::replace(graph, node, op, &inputs)?;
                Ok(Decision::only(what))
            }
            Change::Constant { op, data, constant, of, what } => {
                let name = graph.value(constant).name.clone();
                let Some(tensor) = graph.constant(constant) else {
                    return Err(tconvc_ir::Error::Graph(format!("`{name}` was to be constant")).into());
                };
                let tensor = patch::eval(of, &[tensor])?;
                let constant = graph.add_constant(&name, tensor);
                patch::replace(graph, node, op, &[Some(data), Some(constant)])?;
                Ok(Decision::only(what))
            }
            Change::WithList { op, data, list, what } => {
                let list = graph.add_constant(&format!("{}.shape", graph.node(node).name), list);
                patch::replace(graph, node, op, &[Some(data), Some(list)])?;
                Ok(Decision::only(what))
            }
            Change::FirstOutput => {
                patch::keep_first_output(graph, node)?;
                Ok(Decision::only("drops an output that nothing reads"))
            }
            Change::Bypass(value) => {
                patch::bypass(graph, node, value)?;
                Ok(Decision::only("does nothing: removed"))
            }
        }
    }
}

/// Outputs behind the first that an operator need not make, when nothing reads them: a mask, indices.
fn unread_outputs(graph: &Graph, node: NodeId) -> Option<Change> {
    let it = graph.node(node);
    let optional = matches!(it.op, Op::Dropout(_) | Op::Pool(_)) && it.outputs().len() > 1;
    let unread = |&id: &ValueId| !graph.is_output(id) && graph.users(id).is_empty();
    let drops = optional && it.output(0).is_some() && it.outputs()[1..].iter().flatten().all(unread);
    drops.then_some(Change::FirstOutput)
}
