//! A product of matrices with elementwise nodes behind it, done where a tile has just stored its sums.

use crate::kernels::family::{self, Site};
use crate::kernels::fused_elementwise::expression::Expression;
use crate::kernels::refusal::Reason;
use std::collections::HashMap;
use tconvc_ir::{Graph, Node, NodeId, ValueId};
use tconvc_tile::{Lanes, Pointer, TileBuilder, Vector};

/// Elementwise nodes behind a product.
pub(crate) struct ProductPostOps<'a> {
    graph: &'a Graph,
    nodes: Vec<NodeId>,
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
    /// Elementwise nodes behind a product.
    ///
    /// # Errors
    /// Where an input is broadcast in another way.
    pub fn new(site: Site<'a>, nodes: Vec<NodeId>, product: &Node) -> Result<Self, Reason> {
        let graph = site.graph;
        let (right, product) = (family::input(product, 1)?, family::output(product, 0)?);
        // A vector on the right has a lone column, and leaves no axis for it.
        let has_columns = site.shape(right)?.len() > 1;
        let shape = site.shape(product)?;
        let mut inputs: Vec<(ValueId, Along)> = vec![];
        let made: Vec<_> =
            nodes.iter().filter_map(|&node| graph.node(node).output(0)).chain([product]).collect();
        for &value in nodes.iter().flat_map(|&node| graph.node(node).inputs()).flatten() {
            if made.contains(&value) || inputs.iter().any(|(known, _)| *known == value) {
                continue;
            }
            let of_input = site.shape(value)?;
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
                let found = format!("an operand of shape {of_input:?} behind a product of shape {shape:?}");
                return Err(Reason::variant(
                    found,
                    "one that has an element for each, for each column or for all",
                ));
            };
            inputs.push((value, along));
        }
        Ok(Self { graph, nodes, inputs })
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
        let expression = Expression::new(self.graph, &self.nodes);
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
