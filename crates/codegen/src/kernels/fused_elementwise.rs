//! Elementwise nodes joined into one loop over the output.

use super::expression::Expression;
use super::family::{Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::InstBuilder;
use std::collections::HashMap;
use tconvc_ir::{Graph, NodeId, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::{Step, has_lanes};
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// Elements of a work item where the output is one long row.
const BLOCK: usize = 8192;

/// How an input follows the output along its innermost axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    /// Element by element.
    Along,
    /// One element for the whole row.
    Splat,
}

/// The output as rows, and each input's way through it.
struct Loops {
    /// Extents outside the row, outermost first.
    outer: Vec<usize>,
    /// Elements of a row.
    row: usize,
    /// For each input, elements between neighbours along each outer axis.
    strides: Vec<Vec<usize>>,
    inner: Vec<Inner>,
}

/// Elementwise nodes over one shape.
pub(crate) struct FusedElementwise;

impl KernelFamily for FusedElementwise {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let [output] = step.outputs.as_slice() else {
            return Err(Reason::variant(format!("{} outputs", step.outputs.len()), "one output"));
        };
        for &node in &step.nodes {
            let node = site.graph.node(node);
            if !has_lanes(&node.op) {
                let found = node.op.name().to_owned();
                return Err(Reason::variant(found, ELEMENTWISE));
            }
            site.all_f32(node.inputs().iter().chain(node.outputs()).flatten().copied())?;
        }
        let shape = site.shape(*output)?;
        let shapes = step.inputs.iter().map(|&input| site.shape(input)).collect::<Result<Vec<_>, _>>()?;
        let loops = Loops::new(&shape, &shapes);
        let (nodes, inputs, output) = (step.nodes.clone(), step.inputs.clone(), *output);
        let count = shape.iter().product();
        Ok(Box::new(Plan { graph: site.graph, nodes, inputs, output, count, loops }))
    }
}

/// The operators that have vector code.
const ELEMENTWISE: &str = "Add, Sub, Mul, Div, PRelu, Sum, Mean, Max, Min, Clip, an activation, a rounding, Exp, Log, \
    Sqrt, Erf, Sin or Cos of f32";

/// Nodes in order, and the loops over what they read and write.
struct Plan<'a> {
    graph: &'a Graph,
    nodes: Vec<NodeId>,
    inputs: Vec<ValueId>,
    output: ValueId,
    /// Elements of the output.
    count: usize,
    loops: Loops,
}

impl Plan<'_> {
    /// Work items.
    fn units(&self) -> usize {
        let blocks = if self.loops.outer.is_empty() { self.loops.row.div_ceil(BLOCK) } else { 1 };
        self.loops.outer.iter().product::<usize>() * blocks
    }
}

impl<'a> KernelPlan<'a> for Plan<'a> {
    /// `f32_chain_mul_add_relu`, the operators in order.
    fn name(&self) -> String {
        let names: Vec<String> =
            self.nodes.iter().take(4).map(|&node| self.graph.node(node).op.name().to_lowercase()).collect();
        format!("f32_chain_{}", names.join("_"))
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let rates = target.rates().elementwise;
        let operands = self.count * (1 + self.inputs.len());
        operands as f64 * rates.operand + self.units() as f64 * rates.operand_item
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        Ok(vec![("row", self.write(site.tile(format!("{name}_row")))?)])
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let (cost_ns, units) = (self.cost_ns(builder.target), self.units());
        let row = codes.need(builder, "row")?;
        let Self { inputs, output, loops, .. } = *self;
        let mut operands =
            inputs.iter().map(|&input| builder.operand(input)).collect::<Result<Vec<_>, _>>()?;
        operands.push(builder.operand(output)?);
        let lanes = builder.target.lanes();
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
            f.for_each(begin, end, |f, unit| {
                let mut args = vec![];
                if loops.outer.is_empty() {
                    let first = f.builder.ins().imul_imm_s(unit, BLOCK as i64);
                    for (i, &pointer) in pointers.iter().enumerate() {
                        let along = i == loops.inner.len() || loops.inner[i] == Inner::Along;
                        args.push(if along { f.element(pointer, first, 4) } else { pointer });
                    }
                    let total = f.constant(loops.row as i64);
                    let left = f.builder.ins().isub(total, first);
                    let most = f.constant(BLOCK as i64);
                    let length = f.builder.ins().umin(left, most);
                    let vectors = f.builder.ins().udiv_imm_u(length, lanes as i64);
                    let whole = f.builder.ins().imul_imm_s(vectors, lanes as i64);
                    let rest = f.builder.ins().isub(length, whole);
                    args.extend([vectors, rest]);
                } else {
                    let places = places(f, unit, &loops);
                    for (&pointer, place) in pointers.iter().zip(places) {
                        args.push(f.element(pointer, place, 4));
                    }
                    args.push(f.constant((loops.row / lanes) as i64));
                    args.push(f.constant((loops.row % lanes) as i64));
                }
                f.call(row, &args);
            });
        })?;
        builder
            .push_work_items(WorkItems { name, function, operands, scratch_bytes: 0, count: units }, cost_ns);
        Ok(())
    }
}

/// Element of each input, then of the output, at which a row starts.
fn places(
    f: &mut FunctionBuilder<'_>,
    unit: cranelift_codegen::ir::Value,
    loops: &Loops,
) -> Vec<cranelift_codegen::ir::Value> {
    let zero = f.constant(0);
    let mut places = vec![zero; loops.strides.len() + 1];
    let output = f.builder.ins().imul_imm_s(unit, loops.row as i64);
    places[loops.strides.len()] = output;
    let mut left = unit;
    for (axis, &extent) in loops.outer.iter().enumerate().rev() {
        let index = if axis == 0 {
            left
        } else {
            let quotient = f.builder.ins().udiv_imm_u(left, extent as i64);
            let whole = f.builder.ins().imul_imm_s(quotient, extent as i64);
            let index = f.builder.ins().isub(left, whole);
            left = quotient;
            index
        };
        for (place, strides) in places.iter_mut().zip(&loops.strides) {
            if strides[axis] != 0 {
                let offset = f.builder.ins().imul_imm_s(index, strides[axis] as i64);
                *place = f.builder.ins().iadd(*place, offset);
            }
        }
    }
    places
}

impl Loops {
    fn new(output: &[usize], inputs: &[Vec<usize>]) -> Self {
        // Strides of each input along the output's axes; 0 where it is broadcast.
        let strides: Vec<Vec<usize>> = inputs
            .iter()
            .map(|shape| {
                let mut strides = vec![0; output.len()];
                let mut step = 1;
                for (axis, &extent) in shape.iter().enumerate().rev() {
                    if extent != 1 {
                        strides[output.len() - shape.len() + axis] = step;
                    }
                    step *= extent;
                }
                strides
            })
            .collect();
        // Axes merge where every input goes on evenly from one into the next.
        let mut axes: Vec<(usize, Vec<usize>)> = vec![];
        for (axis, &extent) in output.iter().enumerate() {
            if extent == 1 {
                continue;
            }
            let here: Vec<usize> = strides.iter().map(|strides| strides[axis]).collect();
            match axes.last_mut() {
                Some((before, outer))
                    if outer.iter().zip(&here).all(|(&outer, &inner)| outer == inner * extent) =>
                {
                    *before *= extent;
                    *outer = here;
                }
                _ => axes.push((extent, here)),
            }
        }
        let (row, inner) = axes.pop().unwrap_or_else(|| (1, vec![0; inputs.len()]));
        Self {
            outer: axes.iter().map(|(extent, _)| *extent).collect(),
            row,
            strides: (0..inputs.len())
                .map(|i| axes.iter().map(|(_, strides)| strides[i]).collect())
                .collect(),
            inner: inner
                .into_iter()
                .map(|stride| if stride == 0 { Inner::Splat } else { Inner::Along })
                .collect(),
        }
    }
}

impl Plan<'_> {
    /// A row: parameters are the inputs, the output, whole vectors, and elements of the last one.
    fn write(&self, mut b: TileBuilder) -> Result<Tile, TileError> {
        let inputs: Vec<Pointer> = (0..self.inputs.len()).map(|i| b.pointer(&format!("x{i}"))).collect();
        let y = b.pointer("y");
        let (vectors, rest) = (b.count("vectors"), b.count("rest"));
        let bytes = b.vector_bytes();
        let expression = Expression::new(self.graph, &self.nodes);
        let of_inputs = || self.inputs.iter().zip(&inputs).zip(&self.loops.inner);
        // Beyond so many registers, inputs are loaded again wherever they are used.
        let most_kept = b.target().vector_registers() / 4;
        let mut splats: HashMap<ValueId, Vector> = HashMap::new();
        for ((&value, &pointer), &inner) in of_inputs() {
            if inner == Inner::Splat && splats.len() < most_kept {
                splats.insert(value, b.load_splat(pointer.at(0)));
            }
        }
        let keeps = inputs.len() <= most_kept;
        let places: HashMap<ValueId, (Pointer, Inner)> =
            of_inputs().map(|((&value, &pointer), &inner)| (value, (pointer, inner))).collect();
        let moving = of_inputs().filter(|(_, inner)| **inner == Inner::Along);
        let moving = moving.map(|((_, &pointer), _)| pointer).chain([y]);
        let advances: Vec<_> = moving.map(|pointer| (pointer, bytes)).collect();
        let body = |b: &mut TileBuilder, lanes: Lanes| {
            let mut kept = splats.clone();
            let mut load = |b: &mut TileBuilder, value: ValueId| {
                if let Some(&known) = kept.get(&value) {
                    return known;
                }
                let loaded = match places.get(&value) {
                    Some(&(pointer, Inner::Along)) => b.load_lanes(pointer.at(0), lanes),
                    Some(&(pointer, Inner::Splat)) => b.load_splat(pointer.at(0)),
                    None => {
                        let none = b.zero();
                        b.misuse(
                            "an elementwise step reads a value that is not among its inputs".into(),
                            none,
                        )
                    }
                };
                if keeps && expression.is_read_again(value) {
                    kept.insert(value, loaded);
                }
                loaded
            };
            if let Some(result) = expression.write(b, &mut load) {
                b.store_lanes(result, y.at(0), lanes);
            }
        };
        b.repeat(vectors, &advances, |b| body(b, Lanes::All));
        body(&mut b, Lanes::FirstOf(rest));
        b.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_merge_where_inputs_go_on_evenly() {
        let whole = Loops::new(&[2, 3, 4, 5], &[vec![2, 3, 4, 5], vec![]]);
        assert_eq!((whole.outer.len(), whole.row, whole.inner), (0, 120, vec![Inner::Along, Inner::Splat]));
        let channels = Loops::new(&[2, 3, 4, 5], &[vec![2, 3, 4, 5], vec![3, 1, 1]]);
        assert_eq!(
            (channels.outer, channels.row, channels.inner),
            (vec![2, 3], 20, vec![Inner::Along, Inner::Splat])
        );
        assert_eq!(channels.strides, [[60, 20], [0, 1]]);
        let last = Loops::new(&[2, 3, 4], &[vec![2, 3, 4], vec![4]]);
        assert_eq!((last.outer, last.row, last.inner), (vec![6], 4, vec![Inner::Along, Inner::Along]));
        assert_eq!(Loops::new(&[1, 1], &[vec![1]]).row, 1);
    }
}
