//! Networks of f16 and bf16 are computed in f32, so that every kernel and every other pass serves them.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::keeps_name;
use crate::pass::{About, Context, Pass};
use crate::patch;
use std::collections::{HashMap, HashSet};
use tconvc_ir::ops::{Cast, ConstantOfShape, InputInfo, ScatterReduction, ShortRounding};
use tconvc_ir::{DType, Graph, NodeId, Op, ValueId, ValueType};

/// Turns the values of half type between operators into values of f32.
///
/// - Pattern: operators that compute with f16 or bf16, and those that move what these read or make. What is only moved stays short.
/// - Guard: the operator gives f32 for f32. Others (unknown ones, those with graphs inside, those that look at bits) read and make
///   what they did, between casts. Graphs for other runtimes stay as they are.
/// - What a file rounds on purpose, f32 cast to a half type and back at once, is rounded. Other values are not rounded to the short
///   type on the way, and do not overflow at its greatest number: they are those of the f32 network of the same, rounded, weights. Outputs
///   of the graph are rounded when they leave it.
/// - Cost: bytes rise, because values are stored in f32; they fall by far in time, because there is no code for short ones.
pub struct Widen;

const NAME: &str = "widen";

/// What an operator does with elements of half type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Asks for just this type.
    Keeps,
    /// Moves them, whatever they are.
    Moves,
    /// Computes with them.
    Computes,
    /// Makes them, or makes others of them.
    Casts,
}

impl Pass for Widen {
    fn about(&self) -> About {
        About {
            name: NAME,
            summary: "compute what is f16 or bf16 in f32",
            pattern: "operators on f16 or bf16",
            claim: "bytes rise, time falls: kernels compute in f32",
        }
    }

    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
        if context.options.portable || context.exhausted() {
            return Ok(false);
        }
        let order = graph.order()?;
        let roles: HashMap<NodeId, Role> =
            order.iter().filter_map(|&id| Some((id, role(graph, id)?))).collect();
        let wide = wide_values(graph, &order, &roles);
        let Some(&first) = order.iter().find(|&&id| ports(graph, id).any(|value| wide.contains(&value)))
        else {
            return Ok(false);
        };
        let (name, op) = (graph.node(first).name.clone(), graph.node(first).op.name().to_owned());
        let count = wide.len();
        let kept = wide.iter().copied().filter(|&value| is_kept(graph, &roles, value)).collect();
        let mut widening = Widening { graph, roles, wide, kept, widened: HashMap::new() };
        for id in order {
            widening.node(id)?;
        }
        widening.finish()?;
        let values = if count == 1 { "value" } else { "values" };
        let decision =
            Decision::only(format!("{count} {values} of f16 or bf16 from here on are computed in f32"));
        context.applied(NAME, &name, &op, decision);
        Ok(true)
    }
}

fn is_half(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.ty(id).dtype, Some(DType::F16 | DType::BF16))
}

/// Inputs and outputs of a node that are of half type and no constants.
fn ports(graph: &Graph, id: NodeId) -> impl Iterator<Item = ValueId> + '_ {
    let node = graph.node(id);
    let all = node.inputs().iter().chain(node.outputs()).flatten().copied();
    all.filter(|&value| is_half(graph, value) && graph.constant(value).is_none())
}

/// `None` for a node that has nothing to do with elements of half type.
fn role(graph: &Graph, id: NodeId) -> Option<Role> {
    let node = graph.node(id);
    if !node.inputs().iter().chain(node.outputs()).flatten().any(|&value| is_half(graph, value)) {
        return None;
    }
    Some(match &node.op {
        Op::Cast(_) => Role::Casts,
        op if !takes_f32(graph, id, op) => Role::Keeps,
        op if moves(op) => Role::Moves,
        _ => Role::Computes,
    })
}

/// True for operators whose outputs hold elements of their inputs, and those that do not look at elements at all.
fn moves(op: &Op) -> bool {
    match op {
        Op::ScatterElements(op) => op.reduction == ScatterReduction::None,
        Op::ScatterNd(op) => op.reduction == ScatterReduction::None,
        Op::Identity(_)
        | Op::Shape(_)
        | Op::Size(_)
        | Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Slice(_)
        | Op::Split(_)
        | Op::Concat(_)
        | Op::Pad(_)
        | Op::DepthToSpace(_)
        | Op::SpaceToDepth(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::Where(_)
        | Op::Trilu(_)
        | Op::ReverseSequence(_)
        | Op::Compress(_)
        | Op::CenterCropPad(_)
        | Op::ConstantOfShape(_) => true,
        _ => false,
    }
}

/// The operator, for f32 where it names a half type.
fn of_f32(op: &Op) -> Result<Op> {
    let half = |dtype: Option<DType>| matches!(dtype, Some(DType::F16 | DType::BF16));
    Ok(match op {
        Op::ConstantOfShape(op) if half(Some(op.value.dtype())) => {
            ConstantOfShape { value: patch::eval(cast(DType::F32), &[&op.value])? }.into()
        }
        Op::DequantizeLinear(op) if half(op.output_dtype) => {
            let mut op = *op;
            op.output_dtype = Some(DType::F32);
            op.into()
        }
        Op::QuantizeLinear(op) if half(op.precision) => {
            let mut op = *op;
            op.precision = None;
            op.into()
        }
        Op::EyeLike(op) if half(op.dtype) => {
            let mut op = *op;
            op.dtype = Some(DType::F32);
            op.into()
        }
        op => op.clone(),
    })
}

/// True when an operator on f32 in the place of half types gives f32 in the place of half types, and nothing else changes.
fn takes_f32(graph: &Graph, id: NodeId, op: &Op) -> bool {
    if matches!(op, Op::Opaque(_) | Op::BitCast(_)) {
        return false;
    }
    let node = graph.node(id);
    let wide = |value: ValueId| -> ValueType {
        let ty = graph.ty(value).clone();
        if is_half(graph, value) { ValueType { dtype: Some(DType::F32), ..ty } } else { ty }
    };
    let types: Vec<Option<ValueType>> = node.inputs().iter().map(|input| input.map(wide)).collect();
    let constant = |value: ValueId| graph.constant(value).filter(|_| !is_half(graph, value));
    let infos: Vec<Option<InputInfo<'_>>> = types
        .iter()
        .zip(node.inputs())
        .map(|(ty, input)| {
            Some(InputInfo { ty: ty.as_ref()?, constant: input.and_then(constant), extents: None })
        })
        .collect();
    let Ok(inferred) = of_f32(op).and_then(|op| Ok(op.infer(&infos, node.outputs().len())?)) else {
        return false;
    };
    node.outputs().iter().enumerate().all(|(index, output)| {
        output.is_none_or(|value| inferred.get(index).is_some_and(|ty| ty.dtype == wide(value).dtype))
    })
}

/// The values that become f32: those that are computed with, and those that are the same elements, moved.
fn wide_values(graph: &Graph, order: &[NodeId], roles: &HashMap<NodeId, Role>) -> HashSet<ValueId> {
    let of = |role: Role| order.iter().copied().filter(move |id| roles.get(id) == Some(&role));
    let mut wide: HashSet<ValueId> = of(Role::Computes).flat_map(|id| ports(graph, id)).collect();
    let moving: Vec<NodeId> = of(Role::Moves).collect();
    loop {
        let before = wide.len();
        // Along the order and against it, so that a chain of nodes needs two sweeps.
        for &id in moving.iter().chain(moving.iter().rev()) {
            if ports(graph, id).any(|value| wide.contains(&value)) {
                wide.extend(ports(graph, id));
            }
        }
        if wide.len() == before {
            return wide;
        }
    }
}

/// True when a value is needed in its own type whatever is done with it elsewhere.
fn is_kept(graph: &Graph, roles: &HashMap<NodeId, Role>, value: ValueId) -> bool {
    let keeps = |&(user, _): &(NodeId, usize)| roles.get(&user) == Some(&Role::Keeps);
    keeps_name(graph, value) || graph.users(value).iter().any(keeps)
}

fn cast(to: DType) -> Cast {
    Cast { to, rounding: ShortRounding::default() }
}

struct Widening<'g> {
    graph: &'g mut Graph,
    roles: HashMap<NodeId, Role>,
    wide: HashSet<ValueId>,
    /// Those of them that are needed in their own type as well.
    kept: HashSet<ValueId>,
    /// Values of half type, and the same in f32.
    widened: HashMap<ValueId, ValueId>,
}

impl Widening<'_> {
    fn node(&mut self, id: NodeId) -> Result<()> {
        let is_wide = ports(self.graph, id).any(|value| self.wide.contains(&value));
        match self.roles.get(&id) {
            Some(Role::Computes) => self.rewrite(id),
            Some(Role::Moves) if is_wide => self.rewrite(id),
            Some(Role::Casts) if is_wide => self.cast(id),
            _ => Ok(()),
        }
    }

    /// Makes a node read and make f32.
    fn rewrite(&mut self, id: NodeId) -> Result<()> {
        let op = of_f32(&self.graph.node(id).op)?;
        self.rewrite_as(id, op)
    }

    fn rewrite_as(&mut self, id: NodeId, op: Op) -> Result<()> {
        let inputs = self.graph.node(id).inputs().to_vec();
        let inputs = inputs
            .into_iter()
            .map(|input| input.map(|value| self.in_f32(value)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let Some(old) = self.graph.remove_node(id) else { return Ok(()) };
        let mut outputs = vec![];
        let mut kept = vec![];
        for output in old.outputs() {
            let Some(value) = output.filter(|&value| is_half(self.graph, value)) else {
                outputs.push(*output);
                continue;
            };
            let name = self.graph.fresh_name(&format!("{}_f32", self.graph.value(value).name));
            let ty = ValueType { dtype: Some(DType::F32), ..self.graph.ty(value).clone() };
            let wide = self.graph.add_undefined(&name, ty)?;
            self.widened.insert(value, wide);
            outputs.push(Some(wide));
            if self.kept.contains(&value) {
                kept.push((wide, value));
            }
        }
        self.graph.add_node_defining(&old.name, op, &inputs, &outputs)?;
        for (wide, value) in kept {
            let to = self.graph.ty(value).dtype.unwrap_or(DType::F16);
            let name = self.graph.value(value).name.clone();
            self.graph.add_node_defining(&name, cast(to), &[Some(wide)], &[Some(value)])?;
        }
        Ok(())
    }

    fn cast(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(()) };
        let rounds = self.wide.contains(&output) && self.rounds_on_purpose(input, output);
        if self.wide.contains(&output) && !rounds {
            return self.rewrite_as(id, cast(DType::F32).into());
        }
        if self.wide.contains(&input) {
            let wide = self.in_f32(input)?;
            self.graph.set_input(id, 0, Some(wide));
        }
        Ok(())
    }

    /// True when floats are cast to a half type, and back at once: a file says so where it wants just these values.
    fn rounds_on_purpose(&self, input: ValueId, output: ValueId) -> bool {
        let back = |&(user, _): &(NodeId, usize)| match &self.graph.node(user).op {
            Op::Cast(cast) => cast.to.is_float(),
            _ => false,
        };
        self.graph.ty(input).dtype.is_none_or(DType::is_float) && self.graph.users(output).iter().any(back)
    }

    /// A value, in f32 if it is of half type.
    fn in_f32(&mut self, value: ValueId) -> Result<ValueId> {
        if !is_half(self.graph, value) {
            return Ok(value);
        }
        if let Some(&known) = self.widened.get(&value) {
            return Ok(known);
        }
        let name = self.graph.fresh_name(&format!("{}_f32", self.graph.value(value).name));
        let wide = match self.graph.constant(value) {
            Some(tensor) => {
                let tensor = patch::eval(cast(DType::F32), &[tensor])?;
                self.graph.add_constant(&name, tensor)
            }
            None => patch::add_on(self.graph, &name, cast(DType::F32), &[value])?,
        };
        self.widened.insert(value, wide);
        Ok(wide)
    }

    /// Gives the names of what is not read any more to what has taken its place.
    fn finish(self) -> Result<()> {
        let mut names: Vec<(ValueId, ValueId, String)> = self
            .widened
            .iter()
            .map(|(&value, &wide)| (value, wide, self.graph.value(value).name.clone()))
            .collect();
        names.sort_unstable();
        for (value, wide, name) in names {
            if self.graph.remove_value(value).is_ok() {
                self.graph.rename_value(wide, &name)?;
            }
        }
        Ok(())
    }
}
