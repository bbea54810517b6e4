//! Elementwise nodes joined into one loop over the output.
//!
//! - [`expression`] writes the code of a vector of results, [`loops`] the row of these and the loops around it.
//! - [`wide`] computes a Sum, Mean, Max or Min of more inputs than there are registers for, a few inputs at a time.

pub(super) mod expression;
mod loops;
mod wide;

use super::family::{Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use crate::builder::Builder;
use crate::error::CompileError;
use expression::Expression;
use loops::Loops;
use tconvc_ir::{Graph, NodeId, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::{Step, has_lanes};
use tconvc_tile::{TileBuilder, TileError};

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
        if let Some(wide) = wide::Plan::new(site, step)? {
            return Ok(Box::new(wide));
        }
        let shapes = step.inputs.iter().map(|&input| site.shape(input)).collect::<Result<Vec<_>, _>>()?;
        let loops = Loops::new(&shape, &shapes);
        let (nodes, inputs, output) = (step.nodes.clone(), step.inputs.clone(), *output);
        Ok(Box::new(Plan { graph: site.graph, nodes, inputs, output, loops }))
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
    loops: Loops,
}

impl<'a> KernelPlan<'a> for Plan<'a> {
    /// `f32_fused_mul_add_relu`, the operators in order.
    fn name(&self) -> String {
        let names: Vec<String> =
            self.nodes.iter().take(4).map(|&node| self.graph.node(node).op.name().to_lowercase()).collect();
        format!("f32_fused_{}", names.join("_"))
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        self.loops.cost_ns(target)
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let expression = Expression::new(self.graph, &self.nodes);
        let is_read_again = |input: usize| expression.is_read_again(self.inputs[input]);
        let row = self.loops.tile(site.tile(format!("{name}_row")), &is_read_again, &|b, load| {
            let mut load = |b: &mut TileBuilder, value: ValueId| {
                if let Some(input) = self.inputs.iter().position(|&input| input == value) {
                    return load(b, input);
                }
                let none = b.zero();
                b.misuse("an elementwise step reads a value that is not among its inputs".into(), none)
            };
            expression.write(b, &mut load)
        });
        Ok(vec![("row", row?)])
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let row = codes.need(builder, "row")?;
        let operands = self.inputs.iter().chain([&self.output]).map(|&value| builder.operand(value));
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        self.loops.push(builder, name, row, operands)
    }
}
