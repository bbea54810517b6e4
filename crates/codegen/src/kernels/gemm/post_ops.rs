//! A product of matrices with elementwise nodes behind it, done where a tile has just stored its sums.

use super::super::expression::Expression;
use super::super::fused_elementwise;
use super::super::interpreted;
use crate::builder::Builder;
use crate::error::CompileError;
use std::collections::HashMap;
use tconvc_ir::{Graph, Node, NodeId, ValueId};
use tconvc_passes::plan::{Step, StepKind, is_product};
use tconvc_tile::{Lanes, Pointer, TileBuilder, Vector};

/// Makes the kernels of a product and the elementwise nodes with it: one where tiles can do what these ask for.
pub(crate) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    let graph = builder.graph;
    let (products, nodes): (Vec<NodeId>, Vec<NodeId>) =
        step.nodes.iter().partition(|node| is_product(&graph.node(**node).op));
    let (&[product], &[output]) = (products.as_slice(), step.outputs.as_slice()) else {
        return interpreted::build(builder, step);
    };
    let product = graph.node(product);
    let Some(made) = product.output(0) else { return interpreted::build(builder, step) };
    builder.place_in(made, output);
    if let Some(post_ops) = ProductPostOps::new(builder, graph, &nodes, product)?
        && super::build(builder, product, Some(&post_ops))?
    {
        return Ok(());
    }
    if !super::build(builder, product, None)? {
        return interpreted::build(builder, step);
    }
    let read = |value: &ValueId| nodes.iter().any(|&node| graph.node(node).inputs().contains(&Some(*value)));
    let inputs = [made].into_iter().chain(step.inputs.iter().copied()).filter(read).collect();
    fused_elementwise::build(
        builder,
        &Step { kind: StepKind::FusedElementwise, nodes, inputs, outputs: step.outputs.clone() },
    )
}

/// Elementwise nodes behind a product.
pub(crate) struct ProductPostOps<'a> {
    graph: &'a Graph,
    nodes: &'a [NodeId],
    /// What else they read.
    pub inputs: Vec<(ValueId, Along)>,
}

/// What an input has an element for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// Each element of the product.
    Both,
    Columns,
    Nothing,
}

impl<'a> ProductPostOps<'a> {
    /// Nothing where an input is broadcast in another way.
    fn new(
        builder: &Builder<'_>,
        graph: &'a Graph,
        nodes: &'a [NodeId],
        product: &Node,
    ) -> Result<Option<Self>, CompileError> {
        let (Some(right), Some(product)) = (product.input(1), product.output(0)) else { return Ok(None) };
        // A vector on the right has a lone column, and leaves no axis for it.
        let has_columns = builder.shape(right)?.len() > 1;
        let shape = builder.shape(product)?;
        let mut inputs: Vec<(ValueId, Along)> = vec![];
        let made: Vec<_> =
            nodes.iter().filter_map(|&node| graph.node(node).output(0)).chain([product]).collect();
        for &value in nodes.iter().flat_map(|&node| graph.node(node).inputs()).flatten() {
            if made.contains(&value) || inputs.iter().any(|(known, _)| *known == value) {
                continue;
            }
            let of_input = builder.shape(value)?;
            let along = if of_input == shape {
                Along::Both
            } else if of_input.iter().all(|&extent| extent == 1) {
                Along::Nothing
            } else if has_columns
                && of_input.iter().rev().skip(1).all(|&extent| extent == 1)
                && of_input.last() == shape.last()
            {
                Along::Columns
            } else {
                return Ok(None);
            };
            inputs.push((value, along));
        }
        Ok(Some(Self { graph, nodes, inputs }))
    }

    /// Code that replaces what rows of a tile, so many bytes apart, hold at `y`; `which` lanes of each vector.
    pub fn write(
        &self,
        t: &mut TileBuilder,
        pointers: &[Pointer],
        y: Pointer,
        rows: usize,
        row: i32,
        which: &[Lanes],
    ) {
        let expression = Expression::new(self.graph, self.nodes);
        let places: HashMap<ValueId, (Pointer, Along)> = self
            .inputs
            .iter()
            .zip(pointers)
            .map(|(&(value, along), &pointer)| (value, (pointer, along)))
            .collect();
        // Beyond so many registers, inputs are loaded again wherever they are used.
        let most_kept = t.target().vector_registers() / 4;
        let inputs = || self.inputs.iter().zip(pointers);
        let mut splats: HashMap<ValueId, Vector> = HashMap::new();
        for (&(value, _), pointer) in
            inputs().filter(|((_, along), _)| *along == Along::Nothing).take(most_kept)
        {
            splats.insert(value, t.load_splat(pointer.at(0)));
        }
        let full = inputs().filter(|((_, along), _)| *along == Along::Both);
        let moving: Vec<_> = full.map(|(_, &pointer)| (pointer, row)).chain([(y, row)]).collect();
        t.repeat(rows as u32, &moving, |t| {
            for (v, &lanes) in which.iter().enumerate() {
                let offset = v as i32 * t.vector_bytes();
                let product = t.load_lanes(y.at(offset), lanes);
                let mut load =
                    |t: &mut TileBuilder, value: ValueId| match (splats.get(&value), places.get(&value)) {
                        (Some(&known), _) => known,
                        (None, Some(&(pointer, Along::Nothing))) => t.load_splat(pointer.at(0)),
                        (None, Some(&(pointer, _))) => t.load_lanes(pointer.at(offset), lanes),
                        // What is left is the product itself.
                        (None, None) => product,
                    };
                if let Some(result) = expression.write(t, &mut load) {
                    t.store_lanes(result, y.at(offset), lanes);
                }
            }
        });
    }
}
