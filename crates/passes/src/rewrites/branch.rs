//! An `If` whose condition is known becomes the nodes of its branch.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, scalar};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site};
use std::collections::HashMap;
use tconvc_ir::ops::{Control, Identity, InputInfo};
use tconvc_ir::{Definition, Graph, NodeId, Op, ValueId};

/// Puts the nodes of a branch in the place of an If.
///
/// - Pattern: an If with a constant condition, as questions about ranks and extents become.
/// - Guard: the graph in it is well-formed.
/// - Cost: stays; the other branch is gone.
pub struct Branch;

/// The nodes to be, with types.
pub struct Found {
    branch: Graph,
    condition: bool,
}

impl Rewrite for Branch {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "branch",
            summary: "put the nodes of a branch in the place of an If whose condition is known",
            pattern: "If(constant)",
            claim: "stays",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let it = graph.node(node);
        let Op::Opaque(op) = &it.op else { return Err(Miss::Elsewhere) };
        let (Ok(control @ Control::If { .. }), Some(&Some(condition))) = (op.control(), it.inputs().first())
        else {
            return Err(Miss::Elsewhere);
        };
        let condition = scalar(graph, condition)
            .map(|value| value != 0.0)
            .ok_or_else(|| Miss::Refused("its condition is known at run time only".into()))?;
        let captured: Vec<Option<InputInfo<'_>>> = it.inputs()[1..]
            .iter()
            .map(|input| {
                input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
            })
            .collect();
        let branch =
            control.branch(condition, &captured).map_err(|error| Miss::Refused(error.to_string()))?;
        Ok(Found { branch: branch.or_elsewhere()?, condition })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, Found { branch, condition }: Found) -> Result<Decision> {
        let Some(old) = graph.remove_node(node) else {
            return Err(tconvc_ir::Error::Graph("a node to replace is not there".into()).into());
        };
        let inside = branch.inputs().iter().copied();
        let mut moved: HashMap<ValueId, ValueId> =
            inside.zip(&old.inputs()[1..]).filter_map(|(inner, outer)| Some((inner, (*outer)?))).collect();
        for (id, value) in branch.values() {
            let name = graph.fresh_name(&value.name);
            match value.definition() {
                Definition::Constant(tensor) => {
                    moved.insert(id, graph.add_constant(&name, tensor.clone()));
                }
                Definition::Node(..) => {
                    moved.insert(id, graph.add_undefined(&name, value.ty.clone())?);
                }
                _ => {}
            }
        }
        let outside = |ids: &[Option<ValueId>]| -> Vec<Option<ValueId>> {
            ids.iter().map(|id| id.and_then(|id| moved.get(&id).copied())).collect()
        };
        for id in branch.order()? {
            let inner = branch.node(id);
            let (inputs, outputs) = (outside(inner.inputs()), outside(inner.outputs()));
            graph.add_node_defining(&inner.name, inner.op.clone(), &inputs, &outputs)?;
        }
        let results = branch.outputs().iter().map(|id| moved.get(id).copied());
        for (output, result) in old.outputs().iter().zip(results) {
            if let Some(output) = output {
                graph.add_node_defining(&old.name, Identity, &[result], &[Some(*output)])?;
            }
        }
        let branch = if condition { "then" } else { "else" };
        Ok(Decision::only(format!("its condition is known: the {branch} branch stands in its place")))
    }
}
