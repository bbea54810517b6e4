//! Gives every value its place: views and in-place steps first, then offsets in the arena by liveness, largest first.

use super::steps::Grouped;
use super::{ALIGNMENT, Place, Plan, StepKind, in_order};
use std::collections::{BTreeMap, HashMap};
use tconvc_ir::{Definition, Error, Graph, Result, ValueId};

/// A buffer of its own: one value, and the values that are views of it.
pub(super) struct Buffer {
    pub bytes: usize,
    /// Steps from the one that writes it to the last that reads it, both counted.
    pub live: (usize, usize),
    pub offset: usize,
}

pub(super) fn assign(graph: &Graph, grouped: Grouped) -> Result<Plan> {
    let Grouped { steps, mut views } = grouped;
    let mut last_use: HashMap<ValueId, usize> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        for &value in step.inputs.iter().chain(&step.outputs) {
            let (root, _) = resolve(&views, value);
            let last = last_use.entry(root).or_insert(at);
            *last = at.max(*last);
        }
    }

    // Graph outputs: the buffer that holds one becomes the caller's, once; other outputs of the same buffer are copies.
    let mut outputs: HashMap<ValueId, usize> = HashMap::new();
    let mut copies = vec![];
    for (index, &value) in graph.outputs().iter().enumerate() {
        let (root, offset) = resolve(&views, value);
        let made_here = matches!(graph.value(root).definition(), Definition::Node(..));
        if made_here
            && offset == 0
            && bytes_of(graph, root)? == bytes_of(graph, value)?
            && !outputs.contains_key(&root)
        {
            outputs.insert(root, index);
        } else {
            copies.push((value, index));
        }
    }
    for &(value, _) in &copies {
        last_use.insert(resolve(&views, value).0, steps.len());
    }

    write_in_place(graph, &steps, &mut views, &mut last_use, &outputs)?;

    let mut buffers: HashMap<ValueId, Buffer> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        for &value in &step.outputs {
            let (root, _) = resolve(&views, value);
            if outputs.contains_key(&root) {
                continue;
            }
            let bytes = bytes_of(graph, root)?.next_multiple_of(ALIGNMENT);
            let last = last_use.get(&root).copied().unwrap_or(at);
            let buffer = buffers.entry(root).or_insert(Buffer { bytes, live: (at, last), offset: 0 });
            buffer.live = (buffer.live.0.min(at), buffer.live.1.max(last));
        }
    }
    let arena_bytes = pack(&mut buffers)?;
    let lower_bound_bytes = most_at_once(buffers.values().map(|buffer| (buffer.live, buffer.bytes)));

    let mut places = HashMap::new();
    let inputs: HashMap<ValueId, usize> = graph.inputs().iter().copied().zip(0..).collect();
    let in_memory = steps.iter().flat_map(|step| step.inputs.iter().chain(&step.outputs));
    for &value in in_memory.chain(graph.outputs()) {
        let (root, offset) = resolve(&views, value);
        let place = match graph.value(root).definition() {
            Definition::Constant(_) => Place::Constant { value: root, offset },
            Definition::Input => {
                let index = inputs.get(&root).copied();
                Place::Input { index: index.ok_or_else(|| missing(graph, root))?, offset }
            }
            _ => match (outputs.get(&root), buffers.get(&root)) {
                (Some(&index), _) => Place::Output { index, offset },
                (None, Some(buffer)) => Place::Arena { offset: buffer.offset + offset },
                (None, None) => return Err(missing(graph, root)),
            },
        };
        places.insert(value, place);
    }
    Ok(Plan { steps, places, copies, arena_bytes, lower_bound_bytes })
}

/// Bytes of all that live at one step, at the step where they are most. Each lives from a step to another, that included.
fn most_at_once(lives: impl Iterator<Item = ((usize, usize), usize)>) -> usize {
    let mut changes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for ((first, last), bytes) in lives {
        let begins = &mut changes.entry(first).or_default().0;
        *begins = begins.saturating_add(bytes);
        let ends = &mut changes.entry(last + 1).or_default().1;
        *ends = ends.saturating_add(bytes);
    }
    let (mut live, mut most) = (0usize, 0);
    for (begins, ends) in changes.into_values() {
        live = live.saturating_sub(ends).saturating_add(begins);
        most = most.max(live);
    }
    most
}

fn missing(graph: &Graph, value: ValueId) -> Error {
    Error::Graph(format!("nothing makes the value `{}`", graph.value(value).name))
}

/// The value whose buffer holds `value`, and the bytes from its start.
fn resolve(views: &HashMap<ValueId, (ValueId, usize)>, mut value: ValueId) -> (ValueId, usize) {
    let mut offset = 0;
    while let Some(&(parent, bytes)) = views.get(&value) {
        value = parent;
        offset += bytes;
    }
    (value, offset)
}

fn bytes_of(graph: &Graph, value: ValueId) -> Result<usize> {
    let ty = graph.ty(value);
    let name = &graph.value(value).name;
    let unknown = || {
        let maker = graph.producer(value).map(|node| graph.node(node));
        let by =
            maker.map_or(String::new(), |node| format!(", which {} `{}` makes,", node.op.name(), node.name));
        Error::Size(format!("the shape of `{name}`{by} is not known before it runs: {ty}"))
    };
    let shape = ty.known_shape().ok_or_else(unknown)?;
    let dtype = ty.dtype.ok_or_else(|| Error::Type(format!("the element type of `{name}` is not known")))?;
    dtype
        .bytes_for(tconvc_ir::element_count(&shape)?)
        .ok_or_else(|| Error::Size(format!("`{name}` of type {ty} is too large")))
}

/// Elementwise steps write over an input of the same extents that dies there.
fn write_in_place(
    graph: &Graph,
    steps: &[super::Step],
    views: &mut HashMap<ValueId, (ValueId, usize)>,
    last_use: &mut HashMap<ValueId, usize>,
    outputs: &HashMap<ValueId, usize>,
) -> Result<()> {
    for (at, step) in steps.iter().enumerate() {
        let (StepKind::FusedElementwise, [output]) = (step.kind, step.outputs.as_slice()) else { continue };
        if resolve(views, *output).0 != *output || outputs.contains_key(output) {
            continue;
        }
        let bytes = bytes_of(graph, *output)?;
        for &input in &step.inputs {
            let (root, offset) = resolve(views, input);
            let free = matches!(graph.value(root).definition(), Definition::Node(..))
                && !outputs.contains_key(&root)
                && offset == 0
                && last_use.get(&root) == Some(&at)
                && bytes_of(graph, root)? == bytes
                && graph.ty(input).known_shape() == graph.ty(*output).known_shape()
                // Another input that lies in the same buffer would be overwritten before it is read.
                && step.inputs.iter().all(|&other| other == input || resolve(views, other).0 != root);
            if free {
                views.insert(*output, (root, 0));
                let last = last_use.remove(output).unwrap_or(at);
                last_use.insert(root, last.max(at));
                break;
            }
        }
    }
    Ok(())
}

/// Buffers from which on they are placed in the order of steps: to look for the best gap among all takes time by their square.
const MANY: usize = 4096;

/// Offsets for all buffers: largest first, each into the smallest gap between those alive at the same time. Returns the
/// size of the arena.
fn pack(buffers: &mut HashMap<ValueId, Buffer>) -> Result<usize> {
    if buffers.len() >= MANY {
        return in_order::pack(buffers.iter_mut());
    }
    let mut ids: Vec<ValueId> = buffers.keys().copied().collect();
    ids.sort_by_key(|id| (std::cmp::Reverse(buffers[id].bytes), *id));
    let mut placed: Vec<(usize, usize, (usize, usize))> = vec![];
    let mut end = 0usize;
    for id in ids {
        let Some(buffer) = buffers.get_mut(&id) else { continue };
        let (first, last) = buffer.live;
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(_, _, (from, to))| *from <= last && first <= *to)
            .map(|&(offset, bytes, _)| (offset, bytes))
            .collect();
        taken.sort_unstable();
        let (mut at, mut best) = (0usize, None::<(usize, usize)>);
        for (offset, bytes) in taken {
            let gap = offset.saturating_sub(at);
            if gap >= buffer.bytes && best.is_none_or(|(size, _)| gap < size) {
                best = Some((gap, at));
            }
            at = at.max(offset + bytes);
        }
        buffer.offset = best.map_or(at, |(_, offset)| offset);
        let top = buffer.offset.checked_add(buffer.bytes);
        end = end.max(top.ok_or_else(|| Error::Size("the arena is too large".into()))?);
        placed.push((buffer.offset, buffer.bytes, buffer.live));
    }
    Ok(end)
}
