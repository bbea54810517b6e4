//! Cuts a graph where extents follow from data: nothing behind a `NonZero` can be planned before it has run.

use crate::error::Result;
use std::collections::{HashMap, HashSet};
use tconvc_ir::{DType, Definition, Graph, NodeId, Op, Tensor, ValueId};

/// A graph in three parts that run one after the other and hand over values by name.
#[derive(Clone)]
pub struct Cut {
    /// What has known extents. Its inputs are the graph's.
    pub before: Graph,
    /// The nodes whose results have extents that only running them tells.
    pub middle: Graph,
    /// What reads these results: its inputs have open extents.
    pub after: Graph,
    /// Inputs of `after` whose values its extents follow from: it is compiled for these.
    pub values: Vec<String>,
}

/// True for values that take no memory that is known before they are there: strings. No program holds them.
fn is_text(graph: &Graph, id: ValueId) -> bool {
    graph.ty(id).dtype == Some(DType::String)
}

/// The tensors of a graph's outputs that no program makes, because they are constants of text.
pub fn constant_texts(graph: &Graph) -> Vec<(String, Tensor)> {
    let texts = graph.outputs().iter().filter(|&&id| is_text(graph, id));
    texts.filter_map(|&id| Some((graph.value(id).name.clone(), graph.constant(id)?.clone()))).collect()
}

/// Cuts a graph whose inputs have known extents; nothing where all other values have them, too, and none is text. Text that comes
/// in or is constant is handed over by who runs the parts.
///
/// # Errors
/// When the graph has a cycle.
pub fn cut(graph: &Graph) -> Result<Option<Cut>> {
    let is_known = |&id: &ValueId| {
        graph.ty(id).known_shape().is_some() && graph.ty(id).dtype.is_some() && !is_text(graph, id)
    };
    let order = graph.order()?;
    let mut values = vec![];
    let mut parts: HashMap<NodeId, Part> = HashMap::new();
    let part_of = |parts: &HashMap<NodeId, Part>, id: ValueId| match graph.producer(id) {
        Some(node) => parts.get(&node).copied().unwrap_or(Part::Before),
        None => Part::Before,
    };
    for &id in &order {
        let node = graph.node(id);
        let inputs = node.inputs().iter().flatten();
        let latest = inputs.clone().map(|&input| part_of(&parts, input)).max().unwrap_or(Part::Before);
        let reads_text = inputs.into_iter().any(|&input| is_text(graph, input));
        let part = match latest {
            Part::Before if !reads_text && node.outputs().iter().flatten().all(is_known) => Part::Before,
            Part::Before => match sizes(graph, id) {
                Some(sizes) => {
                    values.extend(sizes);
                    Part::After
                }
                None => Part::Middle,
            },
            _ => Part::After,
        };
        parts.insert(id, part);
    }
    let mut ports = graph.inputs().iter().chain(graph.outputs());
    if parts.values().all(|&part| part == Part::Before) && !ports.any(|&id| is_text(graph, id)) {
        return Ok(None);
    }
    let of = |part: Part| order.iter().copied().filter(|id| parts[id] == part).collect::<Vec<NodeId>>();
    // Values that a later part reads, and the graph's outputs, each in the part that makes it.
    let mut handed = HashSet::new();
    for &id in &order {
        let crosses =
            |&&input: &&ValueId| part_of(&parts, input) < parts[&id] && graph.constant(input).is_none();
        handed.extend(graph.node(id).inputs().iter().flatten().filter(crosses).copied());
    }
    handed.extend(graph.outputs().iter().copied());
    let made_in = |part: Part| -> Vec<ValueId> {
        let values = graph.values().map(|(id, _)| id);
        let made = values.filter(|&id| handed.contains(&id) && part_of(&parts, id) == part);
        made.filter(|&id| graph.producer(id).is_some() || !is_text(graph, id)).collect()
    };
    let inputs: Vec<ValueId> = graph.inputs().iter().copied().filter(|&id| !is_text(graph, id)).collect();
    let before = extract(graph, &of(Part::Before), &inputs, &made_in(Part::Before))?;
    let middle = of(Part::Middle);
    let middle = extract(graph, &middle, &read_from_outside(graph, &middle), &made_in(Part::Middle))?;
    let after = of(Part::After);
    let after = extract(graph, &after, &read_from_outside(graph, &after), &made_in(Part::After))?;
    values.sort_unstable();
    values.dedup();
    let values = values.into_iter().map(|id| graph.value(id).name.clone()).collect();
    Ok(Some(Cut { before, middle, after, values }))
}

/// Most numbers that code is made for.
const MOST_SIZES: usize = 16;

/// The inputs of a Resize that its extents follow from, when it knows all else: few numbers, and much work that they ask for.
fn sizes(graph: &Graph, id: NodeId) -> Option<Vec<ValueId>> {
    let node = graph.node(id);
    if !matches!(node.op, Op::Resize(_)) {
        return None;
    }
    graph.ty(node.input(0)?).known_shape()?;
    let sizes: Vec<ValueId> = (1..4).filter_map(|index| node.input(index)).collect();
    let is_few = |&id: &ValueId| {
        let count = graph.ty(id).known_shape().map(|shape| shape.iter().product::<usize>());
        count.is_some_and(|count| count <= MOST_SIZES) && graph.ty(id).dtype.is_some_and(DType::is_numeric)
    };
    let open: Vec<ValueId> = sizes.into_iter().filter(|&id| graph.constant(id).is_none()).collect();
    (!open.is_empty() && open.iter().all(is_few)).then_some(open)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Before,
    Middle,
    After,
}

/// Values that these nodes read and none of them makes, but for constants; in the order in which they are read.
fn read_from_outside(graph: &Graph, nodes: &[NodeId]) -> Vec<ValueId> {
    let mut seen: HashSet<ValueId> =
        nodes.iter().flat_map(|&id| graph.node(id).outputs()).flatten().copied().collect();
    let inputs = nodes.iter().flat_map(|&id| graph.node(id).inputs()).flatten().copied();
    inputs.filter(|&id| graph.constant(id).is_none() && seen.insert(id)).collect()
}

/// A graph of these nodes, which are in order. Names and types stay.
fn extract(graph: &Graph, nodes: &[NodeId], inputs: &[ValueId], outputs: &[ValueId]) -> Result<Graph> {
    let mut part = Graph::new(&graph.name);
    part.opsets.clone_from(&graph.opsets);
    part.metadata.clone_from(&graph.metadata);
    let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
    for &id in inputs {
        moved.insert(id, part.add_input(&graph.value(id).name, graph.ty(id).clone())?);
    }
    let mut place = |part: &mut Graph, id: ValueId| -> Result<ValueId> {
        if let Some(&known) = moved.get(&id) {
            return Ok(known);
        }
        let value = graph.value(id);
        let new = match value.definition() {
            Definition::Constant(tensor) => part.add_constant(&value.name, tensor.clone()),
            _ => part.add_undefined(&value.name, value.ty.clone())?,
        };
        moved.insert(id, new);
        Ok(new)
    };
    for &id in nodes {
        let node = graph.node(id);
        let mut all = |part: &mut Graph, values: &[Option<ValueId>]| {
            values.iter().map(|value| value.map(|id| place(part, id)).transpose()).collect::<Result<Vec<_>>>()
        };
        let (inputs, outputs) = (all(&mut part, node.inputs())?, all(&mut part, node.outputs())?);
        part.add_node_defining(&node.name, node.op.clone(), &inputs, &outputs)?;
    }
    for &id in outputs {
        let id = place(&mut part, id)?;
        part.add_output(id);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::infer;

    fn graph(text: &str) -> Graph {
        let mut graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}"));
        infer::infer(&mut graph).unwrap();
        graph
    }

    #[test]
    fn known_extents_need_no_cut() {
        let plain =
            graph("graph \"g\"\nopset 21\n\ninput %x : f32[2, 3]\n\n%y : f32[2, 3] = Relu(%x)\noutput %y\n");
        assert!(cut(&plain).unwrap().is_none());
    }

    /// A value of the first part that the last one reads goes past the middle.
    #[test]
    fn parts_name_what_they_hand_over() {
        let whole = graph(
            "graph \"g\"\nopset 21\n\ninput %x : f32[2, 3]\n\n%y = Relu(%x)\n%places = NonZero(%y)\n\
             %first = Transpose(%places) {perm=[1, 0]}\n%found = GatherND(%y, %first)\noutput %found\noutput %y\n",
        );
        let Cut { before, middle, after, values } = cut(&whole).unwrap().unwrap();
        assert!(values.is_empty());
        let names = |graph: &Graph, values: &[ValueId]| -> Vec<String> {
            values.iter().map(|&id| graph.value(id).name.clone()).collect()
        };
        assert_eq!(names(&before, before.inputs()), ["x"]);
        assert_eq!(names(&before, before.outputs()), ["y"]);
        assert_eq!(names(&middle, middle.inputs()), ["y"]);
        assert_eq!(names(&middle, middle.outputs()), ["places"]);
        assert_eq!(names(&after, after.inputs()), ["places", "y"]);
        assert_eq!(names(&after, after.outputs()), ["found"]);
        assert_eq!([before.node_count(), middle.node_count(), after.node_count()], [1, 1, 2]);
    }

    /// Sizes are handed over by value, also where a node makes them.
    #[test]
    fn sizes_of_a_resize_are_known_before_it_is_compiled() {
        let whole = graph(
            "graph \"g\"\nopset 21\n\ninput %x : f32[1, 2, 3, 4]\ninput %s : i64[2]\nconst @f : i64[2] = [1, 2]\n\n\
             %t = Concat(@f, %s) {axis=0}\n%r = Resize(%x, _, _, %t) {mode=\"linear\"}\n%y = Relu(%r)\noutput %y\n",
        );
        let Cut { before, middle, after, values } = cut(&whole).unwrap().unwrap();
        assert_eq!(values, ["t"]);
        assert_eq!([before.node_count(), middle.node_count(), after.node_count()], [1, 0, 2]);
    }
}
