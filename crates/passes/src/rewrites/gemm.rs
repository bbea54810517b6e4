//! A matrix product and the addition behind it are a Gemm.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, same_shape, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Binary, Gemm as GemmOp};
use tconvc_ir::{DType, Graph, NodeId, Op, ValueId};

/// Joins MatMul and Add.
///
/// - Pattern: an Add that reads what a MatMul of two matrices gives.
/// - Guard: nothing else reads it; what is added is a float tensor that broadcasts to its shape.
/// - Cost: falls by the product written and read.
pub struct Gemm;

/// The product, and what is added.
pub struct Found {
    product: NodeId,
    term: ValueId,
}

impl Rewrite for Gemm {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "gemm",
            summary: "join a matrix product and an addition",
            pattern: "Add(MatMul(a, b), c)",
            claim: "falls by the product written and read",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        if graph.node(node).op != Op::Binary(Binary::Add) {
            return Err(Miss::Elsewhere);
        }
        let is_product = |index| {
            let maker = producer(graph, node, index)?;
            matches!(graph.node(maker).op, Op::MatMul(_)).then_some((index, maker))
        };
        let (index, product) = is_product(0).or_else(|| is_product(1)).or_elsewhere()?;
        let (value, output) =
            (sole_output(graph, product).or_elsewhere()?, sole_output(graph, node).or_elsewhere()?);
        let term = graph.node(node).input(1 - index).or_elsewhere()?;
        let matrices =
            (0..2).all(|i| graph.node(product).input(i).is_some_and(|id| graph.ty(id).rank() == Some(2)));
        require(matrices, || "its operands are not matrices of two axes")?;
        require(graph.ty(value).dtype.is_some_and(DType::is_float), || "the elements are not floats")?;
        let name = &graph.node(product).name;
        require(graph.has_single_use(value), || format!("what {name} gives is needed elsewhere as well"))?;
        require(same_shape(graph, value, output), || {
            format!("what is added, {}, is not known to broadcast to {}", graph.ty(term), graph.ty(value))
        })?;
        Ok(Found { product, term })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, Found { product, term }: Found) -> Result<Decision> {
        let name = graph.node(product).name.clone();
        *graph.op_mut(product) = GemmOp { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }.into();
        graph.set_input(product, 2, Some(term));
        patch::absorb(graph, product, node)?;
        Ok(Decision::only(format!("is the C of {name}")))
    }
}
