//! Sums of products by named axes as products of matrices, elementwise products and sums over axes.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use std::collections::BTreeMap;
use tconvc_ir::ops::{Binary, Identity, MatMul, Reduce, ReduceKind, Reshape, Slice, Transpose};
use tconvc_ir::{DType, Graph, NodeId, Op, ValueId};

/// Spells `Einsum` in operators that have kernels.
///
/// - Pattern: an Einsum of f32.
/// - Guard: its extents are known, and what is summed over does not broadcast. Graphs for other runtimes keep it.
/// - Inputs are taken together one after the other: what only one of them has and nothing behind it asks for is summed first, an axis
///   that stands twice becomes its diagonal, and what two of them share and nothing else asks for is the inner axis of a product of
///   matrices.
/// - Cost: the products are those of the definition, or fewer; bytes rise by what is moved before them.
pub struct Einsum;

/// The numbers of the axes of each input, and of the output; the greatest extent of each.
pub struct Found {
    inputs: Vec<Vec<u32>>,
    output: Vec<u32>,
}

impl Rewrite for Einsum {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "einsum",
            summary: "spell sums of products by named axes in products of matrices",
            pattern: "Einsum",
            claim: "bytes rise by what is moved; time falls",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Found> {
        let it = graph.node(node);
        let Op::Einsum(op) = &it.op else { return Err(Miss::Elsewhere) };
        if options.portable {
            return Err(Miss::Elsewhere);
        }
        let output = sole_output(graph, node).or_elsewhere()?;
        require(graph.ty(output).dtype == Some(DType::F32), || "it is not of f32")?;
        let shapes: Option<Vec<Vec<usize>>> =
            it.inputs().iter().map(|input| graph.ty((*input)?).known_shape()).collect();
        let shapes = shapes.ok_or_else(|| Miss::Refused("its extents are not known".into()))?;
        let ranks: Vec<usize> = shapes.iter().map(Vec::len).collect();
        let (inputs, output) = op.axes(&ranks).map_err(|error| Miss::Refused(error.to_string()))?;
        let mut extents: BTreeMap<u32, usize> = BTreeMap::new();
        for (axes, shape) in inputs.iter().zip(&shapes) {
            for (position, (axis, &extent)) in axes.iter().zip(shape).enumerate() {
                let before = extents.insert(*axis, extent).unwrap_or(extent);
                let same = before == extent;
                // A diagonal of what is stretched is no diagonal of it, and a sum over it no sum.
                let summed = !output.contains(axis) || axes[..position].contains(axis);
                require(same || !summed, || {
                    format!("an axis that is summed over has extents {before} and {extent}")
                })?;
            }
        }
        require(shapes.iter().flatten().all(|&extent| extent > 0), || "it is of nothing")?;
        Ok(Found { inputs, output })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { inputs, output } = found;
        let name = graph.node(node).name.clone();
        let values: Vec<ValueId> = graph.node(node).inputs().iter().flatten().copied().collect();
        let mut left: Vec<Operand> =
            values.into_iter().zip(inputs).map(|(value, axes)| Operand { value, axes }).collect();
        left.reverse();
        let Some(mut so_far) = left.pop() else { return Ok(Decision::only("has no inputs")) };
        let mut products = 0;
        so_far.diagonals(graph, &name)?;
        while let Some(mut next) = left.pop() {
            next.diagonals(graph, &name)?;
            let wanted =
                |axis: &u32| output.contains(axis) || left.iter().any(|operand| operand.axes.contains(axis));
            let others = next.axes.clone();
            so_far.sum(graph, &name, |axis| wanted(axis) || others.contains(axis))?;
            let others = so_far.axes.clone();
            next.sum(graph, &name, |axis| wanted(axis) || others.contains(axis))?;
            so_far = so_far.times(graph, &name, next, wanted)?;
            products += 1;
        }
        so_far.sum(graph, &name, |axis| output.contains(axis))?;
        so_far.arrange(graph, &name, &output)?;
        patch::replace(graph, node, Identity, &[Some(so_far.value)])?;
        Ok(Decision::only(match products {
            0 => "is sums and movements".to_owned(),
            1 => "is a product of two".to_owned(),
            n => format!("is {n} products"),
        }))
    }
}

/// A value whose axes have numbers.
struct Operand {
    value: ValueId,
    axes: Vec<u32>,
}

impl Operand {
    fn shape(&self, graph: &Graph) -> Vec<usize> {
        graph.ty(self.value).known_shape().unwrap_or_default()
    }

    /// Puts axes into this order, which has all of them.
    fn arrange(&mut self, graph: &mut Graph, name: &str, order: &[u32]) -> Result<()> {
        let place = |axis: &u32| self.axes.iter().position(|own| own == axis).unwrap_or(0);
        let perm: Vec<usize> = order.iter().map(place).collect();
        if perm.iter().enumerate().any(|(i, &axis)| i != axis) {
            self.value =
                patch::add_on(graph, &format!("{name}.arranged"), Transpose { perm }, &[self.value])?;
            self.axes = order.to_vec();
        }
        Ok(())
    }

    fn reshape(&mut self, graph: &mut Graph, name: &str, shape: &[usize]) -> Result<()> {
        if self.shape(graph) != shape {
            let list: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
            let list = patch::integers(graph, &format!("{name}.shape"), &list);
            let reshape = Reshape { allow_zero: false };
            self.value = patch::add_on(graph, &format!("{name}.reshaped"), reshape, &[self.value, list])?;
        }
        Ok(())
    }

    /// Sums over the axes that nobody wants.
    fn sum(&mut self, graph: &mut Graph, name: &str, wanted: impl Fn(&u32) -> bool) -> Result<()> {
        let (kept, summed): (Vec<u32>, Vec<u32>) = self.axes.iter().partition(|axis| wanted(axis));
        if summed.is_empty() {
            return Ok(());
        }
        let place = |axis: &u32| self.axes.iter().position(|own| own == axis).unwrap_or(0) as i64;
        let axes: Vec<i64> = summed.iter().map(place).collect();
        let axes = patch::integers(graph, &format!("{name}.axes"), &axes);
        let sum = Reduce { kind: ReduceKind::Sum, keepdims: false, noop_with_empty_axes: false };
        self.value = patch::add_on(graph, &format!("{name}.summed"), sum, &[self.value, axes])?;
        self.axes = kept;
        Ok(())
    }

    /// Makes axes that stand twice one: elements `n + 1` apart of the two as one axis.
    fn diagonals(&mut self, graph: &mut Graph, name: &str) -> Result<()> {
        while let Some(second) = (1..self.axes.len()).find(|&at| self.axes[..at].contains(&self.axes[at])) {
            let axis = self.axes[second];
            // Both are told apart while they are moved behind the others.
            let (once, twice) = (u32::MAX - 1, u32::MAX);
            let first = self.axes.iter().position(|own| *own == axis).unwrap_or(0);
            (self.axes[first], self.axes[second]) = (once, twice);
            let others: Vec<u32> =
                self.axes.iter().copied().filter(|&own| own != once && own != twice).collect();
            self.arrange(graph, name, &[others.as_slice(), &[once, twice]].concat())?;
            let shape = self.shape(graph);
            let (front, extent) = (&shape[..others.len()], shape[others.len()]);
            self.reshape(graph, name, &[front, &[extent * extent]].concat())?;
            let lists = [0, (extent * extent) as i64, others.len() as i64, extent as i64 + 1];
            let [start, end, along, step] =
                lists.map(|number| patch::integers(graph, &format!("{name}.diagonal"), &[number]));
            let inputs = [self.value, start, end, along, step];
            self.value = patch::add_on(graph, &format!("{name}.diagonal"), Slice, &inputs)?;
            self.axes = [others.as_slice(), &[axis]].concat();
        }
        Ok(())
    }

    /// The product with another, summed over what both have and nobody wants.
    fn times(
        mut self,
        graph: &mut Graph,
        name: &str,
        mut other: Self,
        wanted: impl Fn(&u32) -> bool,
    ) -> Result<Self> {
        let both: Vec<u32> = self.axes.iter().copied().filter(|axis| other.axes.contains(axis)).collect();
        let (batch, inner): (Vec<u32>, Vec<u32>) = both.iter().partition(|axis| wanted(axis));
        let own =
            |axes: &[u32]| axes.iter().copied().filter(|axis| !both.contains(axis)).collect::<Vec<u32>>();
        let (rows, columns) = (own(&self.axes), own(&other.axes));
        let axes = [batch.as_slice(), &rows, &columns].concat();
        self.arrange(graph, name, &[batch.as_slice(), &rows, &inner].concat())?;
        let extents = |shape: &[usize], from: usize, count: usize| shape[from..from + count].to_vec();
        let (of_batch, of_rows) = {
            let shape = self.shape(graph);
            (extents(&shape, 0, batch.len()), extents(&shape, batch.len(), rows.len()))
        };
        if inner.is_empty() {
            other.arrange(graph, name, &[batch.as_slice(), &columns].concat())?;
            let shape = other.shape(graph);
            let (front, back) = shape.split_at(batch.len());
            let ones = |count: usize| vec![1; count];
            self.reshape(graph, name, &[of_batch.as_slice(), &of_rows, &ones(columns.len())].concat())?;
            other.reshape(graph, name, &[front, &ones(rows.len()), back].concat())?;
            let value =
                patch::add_on(graph, &format!("{name}.product"), Binary::Mul, &[self.value, other.value])?;
            return Ok(Self { value, axes });
        }
        other.arrange(graph, name, &[batch.as_slice(), &inner, &columns].concat())?;
        let shape = other.shape(graph);
        let (of_others, of_columns) =
            (extents(&shape, 0, batch.len()), extents(&shape, batch.len() + inner.len(), columns.len()));
        let depth: usize = extents(&shape, batch.len(), inner.len()).iter().product();
        let (height, width) = (of_rows.iter().product(), of_columns.iter().product());
        self.reshape(graph, name, &[of_batch.as_slice(), &[height, depth]].concat())?;
        other.reshape(graph, name, &[of_others.as_slice(), &[depth, width]].concat())?;
        let value = patch::add_on(graph, &format!("{name}.product"), MatMul, &[self.value, other.value])?;
        let mut product = Self { value, axes: vec![] };
        let shape = product.shape(graph);
        product.reshape(graph, name, &[&shape[..batch.len()], &of_rows, &of_columns].concat())?;
        product.axes = axes;
        Ok(product)
    }
}
