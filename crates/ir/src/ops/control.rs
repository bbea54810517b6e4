//! `If`, `Loop` and `Scan`: operators that hold graphs. Such a node is an [`Opaque`](super::Opaque) whose attributes are passed
//! through; this is what they mean.
//!
//! A graph inside reads values of the graph around it by name. Here these names are inputs of its own, after those that ONNX
//! gives it, in the order of the node's captured inputs.

use super::control_scan::Scan;
use super::{InputInfo, Op};
use crate::attributes::{AttributeValue, Attributes};
use crate::budget::{self, Limit};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::tensor::{MAX_TENSOR_BYTES, Tensor};
use crate::value_type::ValueType;
use crate::{infer, interp, onnx};
use std::{fmt, iter};

/// A node of control flow.
#[derive(Clone)]
pub enum Control {
    /// One of two graphs, as a truth value says.
    If {
        /// Where it is true. Its inputs are what both graphs capture.
        then_branch: Box<Graph>,
        /// Where it is false, with the same inputs.
        else_branch: Box<Graph>,
    },
    /// A graph over and over.
    Loop {
        /// Inputs are the number of the round, whether to go on, what is carried from round to round, and what is captured.
        /// Outputs are whether to go on, what is carried, and what is collected.
        body: Box<Graph>,
        /// Values that are carried.
        carried: usize,
    },
    /// A graph over slices.
    Scan(Box<Scan>),
}

/// Loops one inside the other that are accepted: types are inferred twice for each.
const MOST_LOOPS: usize = 8;

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::If { .. } => "If",
            Self::Loop { .. } => "Loop",
            Self::Scan(_) => "Scan",
        })
    }
}

impl Control {
    /// Operators of ONNX's own domain whose graphs we read.
    pub const KNOWN: &[&str] = &["If", "Loop", "Scan"];

    /// Of an operator of ONNX's own domain; `Ok(None)` where it is none of them.
    ///
    /// # Errors
    /// When a graph is missing or malformed.
    pub(super) fn read(op_type: &str, attributes: &Attributes, captures: usize) -> Result<Option<Self>> {
        let graph = |name: &str, count: Option<usize>| {
            let Some(AttributeValue::Opaque(bytes)) = attributes.get(name) else {
                return Err(Error::attribute(name, "expected a graph".to_owned()));
            };
            let graph = onnx::read_subgraph(bytes, attributes)?;
            let (found, least) = (graph.inputs().len(), captures + count.unwrap_or(2));
            if graph.inputs().len() < least || count.is_some() && found != least {
                let problem =
                    format!("its graph has {found} inputs, captured ones included; expected are {least}");
                return Err(Error::attribute(name, problem));
            }
            Ok(Box::new(graph))
        };
        Ok(match op_type {
            "If" => Some(Self::If {
                then_branch: graph("then_branch", Some(0))?,
                else_branch: graph("else_branch", Some(0))?,
            }),
            "Loop" => {
                let body = graph("body", None)?;
                let carried = body.inputs().len() - captures - 2;
                if body.outputs().len() <= carried {
                    let problem =
                        format!("{} outputs, expected at least {}", body.outputs().len(), carried + 1);
                    return Err(Error::attribute("body", problem));
                }
                if loops(&body) >= MOST_LOOPS {
                    return Err(Error::Unsupported(format!(
                        "more than {MOST_LOOPS} loops one inside the other"
                    )));
                }
                Some(Self::Loop { body, carried })
            }
            "Scan" => {
                let scan = Scan::read(attributes, captures)?;
                if loops(scan.body()) >= MOST_LOOPS {
                    return Err(Error::Unsupported(format!(
                        "more than {MOST_LOOPS} loops one inside the other"
                    )));
                }
                Some(Self::Scan(Box::new(scan)))
            }
            _ => None,
        })
    }

    /// The graphs in it.
    pub fn graphs(&self) -> Vec<&Graph> {
        self.named_graphs().into_iter().map(|(_, graph)| graph).collect()
    }

    /// The graphs in it, by the names of their attributes.
    pub fn named_graphs(&self) -> Vec<(&'static str, &Graph)> {
        match self {
            Self::If { then_branch, else_branch } => {
                vec![("else_branch", else_branch), ("then_branch", then_branch)]
            }
            Self::Loop { body, .. } => vec![("body", body)],
            Self::Scan(scan) => vec![("body", scan.body())],
        }
    }

    /// The graphs in it with the types of what they read, whatever the round, and of all that follows from these.
    ///
    /// # Errors
    /// When the inputs do not fit.
    pub fn typed_graphs(&self, inputs: &[Option<InputInfo<'_>>]) -> Result<Vec<(&'static str, Graph)>> {
        match self {
            Self::If { then_branch, else_branch } => {
                let captured = inputs.get(1..).unwrap_or_default();
                let types =
                    || captured.iter().map(|info| info.map(|info| info.ty.clone()).unwrap_or_default());
                let both = [("else_branch", else_branch), ("then_branch", then_branch)];
                both.into_iter().map(|(name, graph)| Ok((name, typed(graph, types())?))).collect()
            }
            Self::Loop { body, carried } => Ok(vec![("body", any_round(body, *carried, inputs)?.1)]),
            Self::Scan(scan) => Ok(vec![("body", scan.any_slice(inputs)?)]),
        }
    }

    /// How often its graph runs, where a constant or an extent says so; `None` for an `If`, of whose graphs one runs once.
    pub fn trip_count(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<usize> {
        match self {
            Self::If { .. } => None,
            Self::Loop { .. } => {
                let count = first(&inputs.first().copied().flatten()?.constant?.to_i64s().ok()?).ok()?;
                // Loops that a condition ends are given the largest number there is.
                usize::try_from(count.max(0)).ok().filter(|_| count < i64::from(i32::MAX))
            }
            Self::Scan(scan) => scan.slices(inputs),
        }
    }

    /// The graph of a branch with the types of what it reads, and of all that follows from these; `None` for a `Loop`.
    ///
    /// # Errors
    /// When the inputs do not fit.
    pub fn branch(&self, condition: bool, captured: &[Option<InputInfo<'_>>]) -> Result<Option<Graph>> {
        let Self::If { then_branch, else_branch } = self else { return Ok(None) };
        let types = captured.iter().map(|info| info.map(|info| info.ty.clone()).unwrap_or_default());
        typed(if condition { then_branch } else { else_branch }, types).map(Some)
    }

    pub(super) fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        match self {
            Self::Scan(scan) => scan.infer(inputs, outputs),
            Self::If { .. } => {
                let captured = inputs.get(1..).unwrap_or_default();
                let condition = inputs.first().copied().flatten();
                let types = |condition: bool| -> Result<Vec<ValueType>> {
                    let graph = self.branch(condition, captured)?;
                    Ok(graph
                        .iter()
                        .flat_map(|graph| graph.outputs().iter().map(|&id| graph.ty(id).clone()))
                        .collect())
                };
                if let Some(known) = condition.and_then(|info| info.constant) {
                    return types(truth(known)?);
                }
                // Data for which a branch makes no sense may never come to it.
                match (types(true), types(false)) {
                    (Ok(a), Ok(b)) => a.iter().zip(&b).map(|(a, b)| join(a, b)).collect(),
                    (Err(error), Err(_)) => Err(error),
                    _ => Ok(vec![ValueType::default(); outputs]),
                }
            }
            Self::Loop { body, carried } => {
                let after = |graph: &Graph, index: usize| graph.ty(graph.outputs()[1 + index]).clone();
                let (changing, again) = any_round(body, *carried, inputs)?;
                let mut types: Vec<ValueType> = (0..*carried)
                    .map(|index| {
                        let shape = changing[2 + index].shape.clone();
                        let stays = after(&again, index).shape == shape;
                        ValueType { dtype: after(&again, index).dtype, shape: shape.filter(|_| stays) }
                    })
                    .collect();
                let settled = types.iter().zip(&changing[2..]).all(|(ty, before)| ty.shape == before.shape);
                for &id in &again.outputs()[1 + carried..] {
                    let ty = again.ty(id);
                    let rows = |dims: &Vec<Dim>| [&[Dim::unknown()], dims.as_slice()].concat();
                    let shape = ty.shape.as_ref().filter(|_| settled).map(rows);
                    types.push(ValueType { dtype: ty.dtype, shape });
                }
                types.resize(outputs.max(types.len()), ValueType::default());
                Ok(types)
            }
        }
    }

    pub(super) fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        self.eval_with(inputs, &mut |_, graph, inputs| interpret(graph, inputs))
    }

    /// For each input of its graphs, in order, the tensor that it holds in every round, where it is a constant of the graph around:
    /// one that is captured, or carried by a loop that leaves it as it is. `given` are the node's inputs that are constant, of which
    /// the last `captures` are captured.
    pub fn constant_inputs(&self, given: &[Option<&Tensor>], captures: usize) -> Vec<Option<Tensor>> {
        let captured = given.len().saturating_sub(captures);
        let stays = |index: usize| match self {
            Self::If { .. } | Self::Scan(_) => index >= captured,
            Self::Loop { body, carried } => {
                let is_carried = (2..2 + carried).contains(&index);
                index >= captured || (is_carried && body.outputs().get(index - 1) == body.inputs().get(index))
            }
        };
        // Its condition is no input of the graphs of an If.
        let first = usize::from(matches!(self, Self::If { .. }));
        (first..given.len()).map(|index| given[index].filter(|_| stays(index)).cloned()).collect()
    }

    /// Evaluates the operator; `run` runs its graphs, of which it gets the name of the attribute, the graph, and values for its
    /// inputs, in order.
    ///
    /// # Errors
    /// When the inputs do not fit, and what `run` gives.
    pub fn eval_with(&self, inputs: &[Option<&Tensor>], run: &mut RunGraph<'_>) -> Result<Vec<Tensor>> {
        match self {
            Self::If { then_branch, else_branch } => {
                let condition = inputs.first().copied().flatten();
                let condition = condition.ok_or_else(|| Error::Graph("the condition is missing".into()))?;
                let (name, graph) = if truth(condition)? {
                    ("then_branch", then_branch)
                } else {
                    ("else_branch", else_branch)
                };
                let inputs = inputs.get(1..).unwrap_or_default();
                run(name, graph, inputs.iter().map(|input| input.cloned()).collect())
            }
            Self::Loop { body, carried } => repeat(body, *carried, inputs, run),
            Self::Scan(scan) => scan.eval(inputs, run),
        }
    }
}

/// Loops one inside the other in a graph.
fn loops(graph: &Graph) -> usize {
    let inside = graph.nodes().map(|node| match &node.op {
        Op::Opaque(op) => match op.control() {
            Ok(Control::If { then_branch, else_branch }) => loops(then_branch).max(loops(else_branch)),
            Ok(Control::Loop { body, .. }) => 1 + loops(body),
            Ok(Control::Scan(scan)) => 1 + loops(scan.body()),
            Err(_) => 0,
        },
        _ => 0,
    });
    inside.max().unwrap_or(0)
}

/// Types of what the graph of a loop reads, and the graph with these, for every round: what changes its shape from round to
/// round has none that is known.
fn any_round(
    body: &Graph,
    carried: usize,
    inputs: &[Option<InputInfo<'_>>],
) -> Result<(Vec<ValueType>, Graph)> {
    let given = |index: usize| inputs.get(index).copied().flatten();
    let rest = (2..body.inputs().len()).map(|index| given(index).map(|info| info.ty.clone()));
    let mut types = first_round(body, rest.map(Option::unwrap_or_default));
    let once = typed(body, types.iter().cloned())?;
    for index in 0..carried {
        if once.ty(once.outputs()[1 + index]).shape != types[2 + index].shape {
            types[2 + index].shape = None;
        }
    }
    let again = typed(body, types.iter().cloned())?;
    Ok((types, again))
}

/// Types of what the graph of a loop reads in its first round: before the values that are given stand the number of the round
/// and whether to go on.
fn first_round(body: &Graph, given: impl Iterator<Item = ValueType>) -> Vec<ValueType> {
    let own = |index, dtype| ValueType::new(dtype, own_shape(body, index));
    [own(0, DType::I64), own(1, DType::Bool)].into_iter().chain(given).collect()
}

/// Shape of the number of the round, or of whether to go on: that of a scalar, but some exporters write `[1]`.
fn own_shape(body: &Graph, index: usize) -> Vec<usize> {
    let declared = body.inputs().get(index).and_then(|&id| body.ty(id).shape.as_ref());
    if declared.is_some_and(|shape| shape.len() == 1) { vec![1] } else { vec![] }
}

/// Rounds as long as there are some left and the graph says so.
fn repeat(
    body: &Graph,
    carried: usize,
    inputs: &[Option<&Tensor>],
    run: &mut RunGraph<'_>,
) -> Result<Vec<Tensor>> {
    let given = |index: usize| inputs.get(index).copied().flatten();
    let most = given(0).map(|tensor| first(&tensor.to_i64s()?)).transpose()?;
    let mut go_on = given(1).map(truth).transpose()?.unwrap_or(true);
    let mut state: Vec<Tensor> = (2..2 + carried)
        .map(|index| given(index).cloned().ok_or_else(|| Error::Graph(format!("input {index} is missing"))))
        .collect::<Result<_>>()?;
    let captured: Vec<Option<Tensor>> =
        inputs.get(2 + carried..).unwrap_or_default().iter().map(|input| input.cloned()).collect();
    let mut collected: Vec<Vec<Tensor>> = vec![vec![]; body.outputs().len() - 1 - carried];
    let (mut round, mut bytes) = (0i64, 0usize);
    while go_on && most.is_none_or(|most| round < most) {
        budget::count(Limit::Rounds, 1)?;
        let own = [
            Tensor::scalar(round).reshaped(own_shape(body, 0))?,
            Tensor::from_bools(own_shape(body, 1), vec![go_on])?,
        ]
        .into_iter()
        .chain(state.drain(..))
        .map(Some);
        let own = own.chain(captured.iter().cloned()).collect();
        let mut results = run("body", body, own)?.into_iter();
        go_on = results.next().map(|condition| truth(&condition)).transpose()?.unwrap_or(false);
        state = results.by_ref().take(carried).collect();
        for (rows, row) in collected.iter_mut().zip(results) {
            bytes = bytes.saturating_add(row.bytes().len().max(1));
            if bytes > MAX_TENSOR_BYTES {
                return Err(Error::Size(format!("more than {MAX_TENSOR_BYTES} bytes after {round} rounds")));
            }
            rows.push(row);
        }
        round += 1;
    }
    if round == 0 {
        let types = inputs.iter().skip(2).map(|input| input.map(ValueType::of).unwrap_or_default());
        let once = typed(body, first_round(body, types).into_iter())?;
        let none = |&id: &ValueId| {
            let ty = once.ty(id);
            let dims = ty.shape.iter().flatten().map(|dim| dim.known().unwrap_or(0));
            Tensor::zeros(ty.dtype.unwrap_or(DType::F32), iter::once(0).chain(dims).collect::<Vec<_>>())
        };
        let none = once.outputs()[1 + carried..].iter().map(none);
        return state.into_iter().map(Ok).chain(none).collect();
    }
    let collected = collected.iter().map(|rows| stack(rows));
    state.into_iter().map(Ok).chain(collected).collect()
}

/// Rows of the same type and shape as one tensor.
pub(super) fn stack(rows: &[Tensor]) -> Result<Tensor> {
    let [first, ..] = rows else { return Err(Error::Graph("a round gives too few values".into())) };
    if let Some(other) = rows.iter().find(|row| row.dtype() != first.dtype() || row.shape() != first.shape())
    {
        return Err(Error::Graph(format!(
            "rounds give {}{:?} and {}{:?}, expected is one type and shape",
            first.dtype(),
            first.shape(),
            other.dtype(),
            other.shape()
        )));
    }
    let total = rows.iter().fold(0usize, |total, row| total.saturating_add(row.bytes().len()));
    budget::ask(total)?;
    let mut bytes = Vec::with_capacity(total);
    for row in rows {
        bytes.extend_from_slice(row.bytes());
    }
    Tensor::from_bytes(first.dtype(), [&[rows.len()], first.shape()].concat(), bytes)
}

/// What runs the graphs of an operator: the name of the attribute, the graph, and values for its inputs, in order.
pub type RunGraph<'a> = dyn FnMut(&'static str, &Graph, Vec<Option<Tensor>>) -> Result<Vec<Tensor>> + 'a;

/// Runs a graph by the definition of its operators, on values for its inputs, in order.
///
/// # Errors
/// When an input is missing, or a node cannot be evaluated.
pub fn interpret(graph: &Graph, inputs: Vec<Option<Tensor>>) -> Result<Vec<Tensor>> {
    let named = graph.inputs().iter().zip(inputs).map(|(&id, tensor)| {
        let name = graph.value(id).name.as_str();
        Ok((name, tensor.ok_or_else(|| Error::Graph(format!("`{name}` is missing")))?))
    });
    let outputs = interp::run(graph, &named.collect::<Result<Vec<_>>>()?)?;
    Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
}

/// A graph with these types for its inputs, and what follows from them.
pub(super) fn typed(graph: &Graph, types: impl Iterator<Item = ValueType>) -> Result<Graph> {
    let mut graph = graph.clone();
    for (id, ty) in graph.inputs().to_vec().into_iter().zip(types) {
        graph.set_ty(id, ty);
    }
    infer::infer(&mut graph)?;
    Ok(graph)
}

/// What holds of both.
fn join(a: &ValueType, b: &ValueType) -> Result<ValueType> {
    if let (Some(one), Some(other)) = (a.dtype, b.dtype)
        && one != other
    {
        return Err(Error::Type(format!("its branches give {one} and {other}")));
    }
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => Some(
            a.iter().zip(b).map(|(a, b)| if a == b { a.clone() } else { Dim::unknown() }).collect::<Vec<_>>(),
        ),
        _ => None,
    };
    Ok(ValueType { dtype: a.dtype.or(b.dtype), shape })
}

fn truth(tensor: &Tensor) -> Result<bool> {
    Ok(first(&tensor.to_f64s()?)? != 0.0)
}

fn first<T: Copy>(values: &[T]) -> Result<T> {
    match *values {
        [value] => Ok(value),
        _ => Err(Error::Graph(format!("{} elements, expected is 1", values.len()))),
    }
}
