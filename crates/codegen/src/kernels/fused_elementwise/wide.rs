//! Sum, Mean, Max and Min of more inputs than a kernel has registers for: the first few of them into memory, then what is there
//! together with the next ones, again and again, in the order of the inputs, as the definition does.

use super::expression;
use super::loops::Loops;
use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::family::{self, Codes, KernelPlan, Site, Tiles};
use crate::kernels::refusal::Reason;
use tconvc_ir::ops::Variadic;
use tconvc_ir::{Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{TileBuilder, TileError};

/// Inputs of a kernel, repeated ones included: the code of each is written out.
const MOST_WRITTEN: usize = 64;

/// An operator on many inputs, in parts.
pub(super) struct Plan {
    op: Variadic,
    /// Inputs of the node.
    count: usize,
    output: ValueId,
    /// Bytes of the output.
    bytes: usize,
    parts: Vec<Part>,
}

/// What one kernel combines.
struct Part {
    /// Values that it reads, each once; what the kernels before have made comes first, but for the first of them.
    values: Vec<ValueId>,
    /// Places in `values` of the node's inputs, in order.
    order: Vec<usize>,
    /// With what was made before as the first input, where there is such.
    loops: Loops,
    is_first: bool,
    is_last: bool,
}

impl Plan {
    /// A plan for a step of one node with more inputs than the target has registers for; nothing for others.
    pub fn new(site: Site<'_>, step: &Step) -> Result<Option<Self>, Reason> {
        let Ok(node) = site.single(step) else { return Ok(None) };
        let Op::Variadic(op) = node.op else { return Ok(None) };
        let inputs: Vec<ValueId> = node.inputs().iter().copied().flatten().collect();
        let most = site.target.vectors().fused_inputs();
        if step.inputs.len() <= most && inputs.len() <= MOST_WRITTEN {
            return Ok(None);
        }
        let output = family::output(node, 0)?;
        let shape = site.shape(output)?;
        let (mut parts, mut rest) = (vec![], inputs.as_slice());
        while !rest.is_empty() {
            let is_first = parts.is_empty();
            let (mut values, mut order): (Vec<ValueId>, Vec<usize>) = (vec![], vec![]);
            for &value in rest.iter().take(MOST_WRITTEN) {
                let known = values.iter().position(|&known| known == value);
                // What was made before takes a register, too.
                if known.is_none() && values.len() + usize::from(!is_first) == most {
                    break;
                }
                order.push(known.unwrap_or(values.len()));
                if known.is_none() {
                    values.push(value);
                }
            }
            rest = &rest[order.len()..];
            let mut shapes = if is_first { vec![] } else { vec![shape.clone()] };
            for &value in &values {
                shapes.push(site.shape(value)?);
            }
            let (loops, is_last) = (Loops::new(&shape, &shapes), rest.is_empty());
            parts.push(Part { values, order, loops, is_first, is_last });
        }
        let bytes = 4 * shape.iter().product::<usize>();
        Ok(Some(Self { op, count: inputs.len(), output, bytes, parts }))
    }
}

impl<'a> KernelPlan<'a> for Plan {
    /// `f32_fused_sum_of_40`
    fn name(&self) -> String {
        format!("f32_fused_{}_of_{}", Op::Variadic(self.op).name().to_lowercase(), self.count)
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        self.parts.iter().map(|part| part.loops.cost_ns(target)).sum()
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let tile = |(number, part): (usize, &Part)| {
            let before = usize::from(!part.is_first);
            let is_read_again =
                |input: usize| part.order.iter().filter(|&&place| place + before == input).count() > 1;
            let row =
                part.loops.tile(site.tile(format!("{name}_row{number}")), &is_read_again, &|b, load| {
                    let mut places = (0..before).chain(part.order.iter().map(|place| place + before));
                    let mut all = load(b, places.next()?);
                    for place in places {
                        let next = load(b, place);
                        all = expression::combine(b, self.op, all, next);
                    }
                    Some(self.finished(b, all, part.is_last))
                });
            Ok(("row", row?))
        };
        self.parts.iter().enumerate().map(tile).collect()
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let (output, between) = (builder.operand(self.output)?, builder.shared(self.bytes));
        for (part, &(_, row)) in self.parts.iter().zip(&codes.0) {
            let mut operands = if part.is_first { vec![] } else { vec![between] };
            for &value in &part.values {
                operands.push(builder.operand(value)?);
            }
            // Only the last writes to the output, which may lie in the place of an input.
            operands.push(if part.is_last { output } else { between });
            part.loops.push(builder, name.clone(), row, operands)?;
        }
        Ok(())
    }
}

impl Plan {
    fn finished(&self, b: &mut TileBuilder, all: tconvc_tile::Vector, is_last: bool) -> tconvc_tile::Vector {
        if is_last && self.op == Variadic::Mean { b.div(all, self.count as f32) } else { all }
    }
}
