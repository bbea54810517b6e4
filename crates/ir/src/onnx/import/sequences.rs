//! Sequences and optionals: lists of tensors, and what may be there or not. They are followed while a file is read, and the nodes
//! that take them apart become nodes on tensors, so that no graph holds a value of another kind.
//!
//! That asks for positions and numbers of parts that stand in the file. Where a list is filled in a loop, or a position follows
//! from data, reading ends with an error that says so.

use super::lift::{Draft, Lift, note_types, read_op};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph, ValueId};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::collections::{HashMap, HashSet};

const OPERATORS: &[&str] = &[
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
];

/// Most tensors in a list.
const MOST: usize = 4096;

/// A value that is not a plain tensor.
#[derive(Debug, Clone)]
enum Kind {
    List(Vec<ValueId>),
    /// Parts of a tensor along an axis, each of so many elements; how many there are need not be known.
    Parts {
        x: ValueId,
        axis: i64,
        size: i64,
        keep: bool,
    },
    /// An optional that holds a tensor.
    Tensor(ValueId),
    /// An optional that holds nothing.
    Nothing,
}

/// The sequences and optionals of a graph, by name.
#[derive(Default)]
pub(super) struct Sequences {
    known: HashMap<String, Kind>,
    steps: usize,
}

/// True for operators that take or make sequences or optionals.
pub(super) fn handles(op_type: &str) -> bool {
    OPERATORS.contains(&op_type)
}

/// A node on sequences, and what it is read with.
struct Reading<'a, 'b> {
    sequences: &'a mut Sequences,
    lift: &'a mut Lift<'b>,
    /// Names of the inputs; empty for one that is absent.
    inputs: &'a [String],
    outputs: &'a [String],
}

impl Sequences {
    /// True when the value of that name is a sequence or optional.
    pub fn holds(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Follows a node. `body` is the graph of a `SequenceMap`, and what it captures.
    ///
    /// # Errors
    /// When a position or a number of parts is not known.
    pub fn follow(
        &mut self,
        graph: &mut Graph,
        (draft, used): (Draft, &HashSet<String>),
        (inputs, outputs): (&[String], &[String]),
        body: Option<(Graph, Vec<ValueId>)>,
    ) -> Result<()> {
        let mut lift = Lift { graph, node: draft, used };
        let op_type = lift.node.op_type.clone();
        let mut reading = Reading { sequences: self, lift: &mut lift, inputs, outputs };
        match op_type.as_str() {
            "SequenceConstruct" => {
                let items = (0..inputs.len()).map(|index| reading.tensor(index)).collect::<Result<_>>()?;
                reading.make(0, Kind::List(items))
            }
            "SequenceEmpty" => {
                // Named in the file, though nothing depends on it.
                reading.lift.node.attributes.dtype("dtype")?;
                reading.make(0, Kind::List(vec![]))
            }
            "Identity" => {
                let kind = reading.kind(0)?;
                reading.make(0, kind)
            }
            "SplitToSequence" => reading.split(),
            "SequenceAt" => reading.at(),
            "SequenceInsert" => reading.insert(),
            "SequenceErase" => reading.erase(),
            "SequenceLength" => reading.length(),
            "ConcatFromSequence" => reading.concat(),
            "SequenceMap" => reading.map(body),
            "Optional" => {
                let kind = match inputs.first().filter(|name| !name.is_empty()) {
                    None => Kind::Nothing,
                    Some(name) => match reading.sequences.known.get(name) {
                        Some(kind) => kind.clone(),
                        None => Kind::Tensor(reading.tensor(0)?),
                    },
                };
                reading.make(0, kind)
            }
            "OptionalHasElement" => {
                let name = inputs.first().filter(|name| !name.is_empty());
                let kind = name.and_then(|name| reading.sequences.known.get(name));
                let there = name.is_some() && !matches!(kind, Some(Kind::Nothing));
                reading.constant(0, Tensor::from_bools([], [there])?)
            }
            _ => reading.element(),
        }
    }
}

/// A position in a list of so many, counted from the end where it is negative.
fn position(at: i64, count: usize, index: usize) -> Result<usize> {
    let from = if at < 0 { at.checked_add(count as i64) } else { Some(at) };
    from.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < count).ok_or_else(|| {
        Error::input(index, "position", format!("{at} is no position in a sequence of {count} tensors"))
    })
}

impl Reading<'_, '_> {
    fn name(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// A plain tensor at an input.
    fn tensor(&self, index: usize) -> Result<ValueId> {
        let name = self.name(index).ok_or_else(|| Error::input(index, "", "is required"))?;
        match self.sequences.known.get(name) {
            None => self.lift.input(index).ok_or_else(|| Error::input(index, "", "is required")),
            Some(Kind::Tensor(value)) => Ok(*value),
            Some(_) => {
                Err(Error::input(index, "", format!("`{name}` is a sequence or optional, expected a tensor")))
            }
        }
    }

    fn kind(&self, index: usize) -> Result<Kind> {
        let name = self.name(index).ok_or_else(|| Error::input(index, "", "is required"))?;
        self.sequences.known.get(name).cloned().ok_or_else(|| {
            Error::Unsupported(format!(
                "input {index}: `{name}` is no sequence that is known where the file is read"
            ))
        })
    }

    /// The number at an input, which has to stand in the file.
    fn number(&self, index: usize) -> Result<i64> {
        let value = self.tensor(index)?;
        let tensor = self.lift.graph.constant(value).ok_or_else(|| {
            Error::Unsupported(format!(
                "input {index}: a position that is known at run time only; accepted are constants"
            ))
        })?;
        match tensor.to_i64s()?.as_slice() {
            &[value] => Ok(value),
            values => {
                Err(Error::input(index, "position", format!("expected one number, found {}", values.len())))
            }
        }
    }

    /// Notes what an output is.
    fn make(&mut self, index: usize, kind: Kind) -> Result<()> {
        if let Some(name) = self.outputs.get(index).filter(|name| !name.is_empty()) {
            if let Kind::List(items) = &kind
                && items.len() > MOST
            {
                return Err(Error::Size(format!(
                    "a sequence of {} tensors, accepted are {MOST}",
                    items.len()
                )));
            }
            self.sequences.known.insert(name.clone(), kind);
            if let Some(value) = self.lift.graph.find_value(name)
                && *self.lift.graph.value(value).definition() == Definition::Nothing
            {
                self.lift.graph.remove_value(value)?;
            }
        }
        Ok(())
    }

    /// Makes an output a constant.
    fn constant(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        match self.lift.node.outputs.get(index).copied().flatten() {
            Some(output) => self.lift.graph.define_constant(output, tensor),
            None => Ok(()),
        }
    }

    /// Makes the first output by a node.
    fn finish(&mut self, op_type: &str, attributes: Attributes, inputs: &[Option<ValueId>]) -> Result<()> {
        let op = read_op(op_type, attributes)?;
        let outputs = self.lift.node.outputs.clone();
        let id = self.lift.graph.add_node_defining(&self.lift.node.name, op, inputs, &outputs)?;
        note_types(self.lift.graph, id);
        Ok(())
    }

    fn emit(
        &mut self,
        op_type: &str,
        attributes: Attributes,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        self.sequences.steps += 1;
        let name = format!("{}.{op_type}_{}", self.lift.node.name, self.sequences.steps);
        let op = read_op(op_type, attributes)?;
        let types = vec![ValueType::default(); outputs];
        let (id, values) = self.lift.graph.add_node(&name, op, inputs, types)?;
        note_types(self.lift.graph, id);
        Ok(values)
    }

    fn ints(&mut self, what: &str, values: &[i64]) -> ValueId {
        self.lift.constant(what, Tensor::from_i64s(values))
    }

    fn int(&mut self, name: &str, default: i64) -> Result<i64> {
        Ok(self.lift.node.attributes.int(name)?.unwrap_or(default))
    }

    fn split(&mut self) -> Result<()> {
        let (x, axis) = (self.tensor(0)?, self.int("axis", 0)?);
        let keep = self.lift.node.attributes.flag("keepdims", true)?;
        if self.name(1).is_none() {
            return self.make(0, Kind::Parts { x, axis, size: 1, keep });
        }
        let lengths = self.lift.constant_input(1).cloned().ok_or_else(|| {
            Error::Unsupported(
                "input 1 (split) that is known at run time only; accepted are constants".into(),
            )
        })?;
        if lengths.rank() == 0 {
            let size = lengths.to_i64s()?[0];
            if size < 1 {
                return Err(Error::input(1, "split", format!("expected at least 1, found {size}")));
            }
            return self.make(0, Kind::Parts { x, axis, size, keep: true });
        }
        let count = lengths.len();
        if !(1..=MOST).contains(&count) {
            return Err(Error::input(1, "split", format!("expected 1 to {MOST} lengths, found {count}")));
        }
        let lengths = self.ints("lengths", &lengths.to_i64s()?);
        let attributes = Attributes::new().with("axis", axis);
        let parts = self.emit("Split", attributes, &[Some(x), Some(lengths)], count)?;
        self.make(0, Kind::List(parts))
    }

    /// The tensors of a sequence, where their number is known.
    fn items(&mut self, index: usize) -> Result<Vec<ValueId>> {
        match self.kind(index)? {
            Kind::List(items) => Ok(items),
            Kind::Parts { x, axis, size, keep } => self.parts(x, axis, size, keep),
            Kind::Tensor(_) | Kind::Nothing => {
                Err(Error::input(index, "", "is an optional, expected a sequence"))
            }
        }
    }

    fn parts(&mut self, x: ValueId, axis: i64, size: i64, keep: bool) -> Result<Vec<ValueId>> {
        let shape = self.lift.graph.ty(x).shape.clone();
        let extent = shape.and_then(|shape| {
            let axis = if axis < 0 { axis.checked_add(shape.len() as i64)? } else { axis };
            shape.get(usize::try_from(axis).ok()?)?.known_i64()
        });
        let extent = extent.ok_or_else(|| {
            let name = &self.lift.graph.value(x).name;
            Error::Unsupported(format!(
                "a sequence of the parts of `{name}` along axis {axis}, whose extent the file leaves open"
            ))
        })?;
        let count = extent / size + i64::from(extent % size != 0);
        if count > MOST as i64 {
            return Err(Error::Size(format!("a sequence of {count} tensors, accepted are {MOST}")));
        }
        if count == 0 {
            return Ok(vec![]);
        }
        let lengths: Vec<i64> = (0..count).map(|i| size.min(extent - i * size)).collect();
        let lengths = self.ints("lengths", &lengths);
        let attributes = Attributes::new().with("axis", axis);
        let mut parts = self.emit("Split", attributes, &[Some(x), Some(lengths)], count as usize)?;
        if !keep {
            let axis = self.ints("axis", &[axis]);
            for part in &mut parts {
                *part = self.emit("Squeeze", Attributes::new(), &[Some(*part), Some(axis)], 1)?[0];
            }
        }
        Ok(parts)
    }

    fn at(&mut self) -> Result<()> {
        let at = self.number(1)?;
        if let Kind::Parts { x, axis, size, keep } = self.kind(0)?
            && (at >= 0 || size == 1)
        {
            // A slice, however many there are.
            let (start, end) = (at.saturating_mul(size), at.saturating_add(1).saturating_mul(size));
            let end = if at == -1 { i64::MAX } else { end };
            let [start, end, axes] = [("start", start), ("end", end), ("axis", axis)]
                .map(|(what, value)| Some(self.ints(what, &[value])));
            let inputs = [Some(x), start, end, axes];
            if keep {
                return self.finish("Slice", Attributes::new(), &inputs);
            }
            let part = self.emit("Slice", Attributes::new(), &inputs, 1)?[0];
            return self.finish("Squeeze", Attributes::new(), &[Some(part), axes]);
        }
        let items = self.items(0)?;
        let item = items[position(at, items.len(), 1)?];
        self.finish("Identity", Attributes::new(), &[Some(item)])
    }

    fn insert(&mut self) -> Result<()> {
        let (mut items, tensor) = (self.items(0)?, self.tensor(1)?);
        let at = match self.name(2) {
            None => items.len(),
            // Behind the last one is a position, too.
            Some(_) => match self.number(2)? {
                at if at == items.len() as i64 => items.len(),
                at => position(at, items.len(), 2)?,
            },
        };
        items.insert(at, tensor);
        self.make(0, Kind::List(items))
    }

    fn erase(&mut self) -> Result<()> {
        let mut items = self.items(0)?;
        let at = if self.name(1).is_some() { self.number(1)? } else { -1 };
        items.remove(position(at, items.len(), 1)?);
        self.make(0, Kind::List(items))
    }

    fn length(&mut self) -> Result<()> {
        if let Kind::Parts { x, axis, size, .. } = self.kind(0)? {
            // However many there are: the extent over the size, rounded up.
            let shape = self.emit("Shape", Attributes::new(), &[Some(x)], 1)?[0];
            let axis = self.lift.constant("axis", Tensor::scalar(axis));
            let extent = self.emit("Gather", Attributes::new(), &[Some(shape), Some(axis)], 1)?[0];
            let [less, size] =
                [size - 1, size].map(|value| Some(self.lift.constant("size", Tensor::scalar(value))));
            let sum = self.emit("Add", Attributes::new(), &[Some(extent), less], 1)?[0];
            return self.finish("Div", Attributes::new(), &[Some(sum), size]);
        }
        let count = self.items(0)?.len();
        self.constant(0, Tensor::scalar(count as i64))
    }

    fn concat(&mut self) -> Result<()> {
        let axis = self.lift.node.attributes.int("axis")?;
        let axis = axis.ok_or_else(|| Error::attribute("axis", "is required"))?;
        let stack = self.lift.node.attributes.flag("new_axis", false)?;
        if let Kind::Parts { x, axis: along, size: _, keep } = self.kind(0)?
            && along == axis
            && keep != stack
        {
            // Taken apart and put together again.
            return self.finish("Identity", Attributes::new(), &[Some(x)]);
        }
        let mut items = self.items(0)?;
        if items.is_empty() {
            return Err(Error::input(0, "input_sequence", "is empty, expected at least one tensor"));
        }
        if stack {
            let axes = self.ints("axis", &[axis]);
            for item in &mut items {
                *item = self.emit("Unsqueeze", Attributes::new(), &[Some(*item), Some(axes)], 1)?[0];
            }
        }
        let items: Vec<_> = items.into_iter().map(Some).collect();
        self.finish("Concat", Attributes::new().with("axis", axis), &items)
    }

    /// The nodes of the graph once for each tensor.
    fn map(&mut self, body: Option<(Graph, Vec<ValueId>)>) -> Result<()> {
        let Some((body, captured)) = body else { return Err(Error::attribute("body", "expected a graph")) };
        let first = self.items(0)?;
        let mut columns = vec![first];
        for index in 1..self.inputs.len() {
            let name = self.name(index).ok_or_else(|| Error::input(index, "", "is required"))?;
            let column = if self.sequences.holds(name) {
                self.items(index)?
            } else {
                vec![self.tensor(index)?; columns[0].len()]
            };
            if column.len() < columns[0].len() {
                let problem =
                    format!("{} tensors, the first sequence has {}", column.len(), columns[0].len());
                return Err(Error::input(index, "", problem));
            }
            columns.push(column);
        }
        if body.inputs().len() != columns.len() + captured.len() {
            let problem =
                format!("its graph has {} inputs, expected are {}", body.inputs().len(), columns.len());
            return Err(Error::attribute("body", problem));
        }
        let mut results: Vec<Vec<ValueId>> = vec![vec![]; body.outputs().len()];
        for round in 0..columns[0].len() {
            let inputs = columns.iter().map(|column| column[round]).chain(captured.iter().copied());
            let made = splice(self.lift.graph, &body, inputs, &format!("{}/{round}", self.lift.node.name))?;
            for (list, value) in results.iter_mut().zip(made) {
                list.push(value);
            }
        }
        for (index, list) in results.into_iter().enumerate() {
            self.make(index, Kind::List(list))?;
        }
        Ok(())
    }

    /// What an optional holds; a tensor or sequence that is none holds itself.
    fn element(&mut self) -> Result<()> {
        let name = self.name(0).ok_or_else(|| Error::input(0, "input", "is required"))?;
        match self.sequences.known.get(name).cloned() {
            None | Some(Kind::Tensor(_)) => {
                let value = self.tensor(0)?;
                self.finish("Identity", Attributes::new(), &[Some(value)])
            }
            Some(Kind::Nothing) => Err(Error::input(0, "input", "is an optional that holds nothing")),
            Some(kind) => self.make(0, kind),
        }
    }
}

/// Copies the nodes of a graph into another one, with these values for its inputs; gives its outputs.
fn splice(
    graph: &mut Graph,
    body: &Graph,
    inputs: impl Iterator<Item = ValueId>,
    prefix: &str,
) -> Result<Vec<ValueId>> {
    let mut moved: HashMap<ValueId, ValueId> = body.inputs().iter().copied().zip(inputs).collect();
    for (id, value) in body.values() {
        let name = graph.fresh_name(&format!("{prefix}/{}", value.name));
        match value.definition() {
            Definition::Constant(tensor) => {
                moved.insert(id, graph.add_constant(&name, tensor.clone()));
            }
            Definition::Node(..) => {
                moved.insert(id, graph.add_undefined(&name, ValueType::default())?);
            }
            _ => {}
        }
    }
    let outside = |ids: &[Option<ValueId>]| -> Vec<Option<ValueId>> {
        ids.iter().map(|id| id.and_then(|id| moved.get(&id).copied())).collect()
    };
    for id in body.order()? {
        let node = body.node(id);
        let (inputs, outputs) = (outside(node.inputs()), outside(node.outputs()));
        let name = format!("{prefix}/{}", node.name);
        let id = graph.add_node_defining(&name, node.op.clone(), &inputs, &outputs)?;
        note_types(graph, id);
    }
    let results = body.outputs().iter().map(|id| moved.get(id).copied());
    results
        .map(|id| id.ok_or_else(|| Error::Graph("an output of a graph is made by nothing".into())))
        .collect()
}
