//! What a caller gives against what a graph's inputs ask for: names, element types, extents, and the symbols' values that
//! follow from them.

use crate::dim::{Bindings, Dim};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use std::collections::{HashMap, HashSet};

/// What the shapes that are given say of a graph's symbols.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bound {
    /// Extents by symbol; of one that inputs do not agree on, what the first of them says.
    pub bindings: Bindings,
    /// The same without the symbols that inputs do not agree on.
    pub agreed: Bindings,
    /// Names such a symbol, with two of its extents.
    pub conflict: Option<String>,
}

/// Checks that every input of the graph is given once with a fitting type and shape, but for those with a default, which may
/// be left out; gives the symbols' values. Exporters give one name to extents that differ: where inputs do not agree on a symbol,
/// each keeps its own extent.
///
/// # Errors
/// Names the input, what was expected and what was given; for a name that is wrong or missing, lists the inputs.
pub fn bind_inputs(graph: &Graph, given: &[(&str, DType, &[usize])]) -> Result<Bound> {
    let shapes: Vec<(&str, &[usize])> = given.iter().map(|&(name, _, shape)| (name, shape)).collect();
    let ids = find(graph, &shapes)?;
    for (&id, &(name, dtype, _)) in ids.iter().zip(given) {
        let expected = graph.ty(id);
        if expected.dtype.is_some_and(|expected| expected != dtype) {
            return Err(Error::Arguments(format!("input `{name}` is to be {expected}, {dtype} was given")));
        }
    }
    let seen: HashSet<ValueId> = ids.iter().copied().collect();
    let missing = graph.required_inputs().filter(|id| !seen.contains(id));
    let names: Vec<String> = missing.map(|id| format!("`{}`", graph.value(id).name)).collect();
    if !names.is_empty() {
        return Err(Error::Arguments(format!("not given: {}; {}", names.join(", "), listing(graph))));
    }
    bind(graph, &ids, &shapes)
}

/// Checks the shapes given for some of the inputs; gives the values of the symbols in them.
///
/// # Errors
/// As [`bind_inputs`], but for inputs that are not given.
pub fn bind_shapes(graph: &Graph, given: &[(&str, &[usize])]) -> Result<Bound> {
    bind(graph, &find(graph, given)?, given)
}

fn find(graph: &Graph, given: &[(&str, &[usize])]) -> Result<Vec<ValueId>> {
    let inputs: HashMap<&str, ValueId> =
        graph.inputs().iter().map(|&id| (graph.value(id).name.as_str(), id)).collect();
    let mut ids = Vec::with_capacity(given.len());
    let mut seen = HashSet::new();
    for (name, _) in given {
        match inputs.get(name) {
            None => {
                return Err(Error::Arguments(format!("there is no input `{name}`; {}", listing(graph))));
            }
            Some(id) if !seen.insert(*id) => {
                return Err(Error::Arguments(format!("input `{name}` was given twice")));
            }
            Some(&id) => ids.push(id),
        }
    }
    Ok(ids)
}

/// `the inputs are: x f32[1, 3, H, W], mask bool[H, W]`
fn listing(graph: &Graph) -> String {
    let inputs: Vec<String> =
        graph.inputs().iter().map(|&id| format!("`{}` {}", graph.value(id).name, graph.ty(id))).collect();
    if inputs.is_empty() {
        "the graph has no inputs".into()
    } else {
        format!("the inputs are: {}", inputs.join(", "))
    }
}

fn bind(graph: &Graph, ids: &[ValueId], given: &[(&str, &[usize])]) -> Result<Bound> {
    let mut bindings = Bindings::new();
    // Which input bound a symbol first, for the warning when another one disagrees.
    let mut origin: HashMap<String, &str> = HashMap::new();
    let mut open: Vec<(&Dim, usize, &str, usize)> = vec![];
    let mut disagreed: HashSet<&str> = HashSet::new();
    let mut conflict = None;
    for (&id, &(name, shape)) in ids.iter().zip(given) {
        let ty = graph.ty(id);
        let Some(expected) = &ty.shape else { continue };
        if expected.len() != shape.len() {
            return Err(Error::Arguments(format!("input `{name}` is to be {ty}, shape {shape:?} was given")));
        }
        for (axis, (dim, &extent)) in expected.iter().zip(shape).enumerate() {
            match dim.as_symbol() {
                Some(Dim::UNKNOWN) => {}
                Some(symbol) => match bindings.get(symbol) {
                    Some(&other) if other != extent => {
                        let first = origin.get(symbol).copied().unwrap_or_default();
                        disagreed.insert(symbol);
                        conflict.get_or_insert_with(|| {
                            format!(
                                "`{symbol}` is {other} in input `{first}` and {extent} in input `{name}`, axis {axis}; \
                                 each is taken as it is given"
                            )
                        });
                    }
                    Some(_) => {}
                    None => {
                        bindings.insert(symbol.to_owned(), extent);
                        origin.insert(symbol.to_owned(), name);
                    }
                },
                None => open.push((dim, extent, name, axis)),
            }
        }
    }
    for (dim, extent, name, axis) in open {
        if dim.symbols().iter().any(|symbol| disagreed.contains(symbol.as_str())) {
            continue;
        }
        let bound = dim.bind(&bindings)?;
        if bound.known_i64().is_some_and(|expected| usize::try_from(expected) != Ok(extent)) {
            return Err(Error::Arguments(format!(
                "axis {axis} of input `{name}` is to be {}, {extent} was given",
                if bound == *dim { bound.to_string() } else { format!("{dim} = {bound}") }
            )));
        }
    }
    let agreed = bindings
        .iter()
        .filter(|(symbol, _)| !disagreed.contains(symbol.as_str()))
        .map(|(s, &n)| (s.clone(), n));
    let agreed = agreed.collect();
    Ok(Bound { bindings, agreed, conflict })
}

/// Gives each input symbols of its own where it shares one with an input before it. Gives one of the shared; `None` where there
/// is none, and the graph is as it was.
pub(crate) fn take_symbols_apart(graph: &mut Graph) -> Option<String> {
    let mut owners: HashMap<String, ValueId> = HashMap::new();
    let mut shared = None;
    for id in graph.inputs().to_vec() {
        let mut ty = graph.ty(id).clone();
        let name = graph.value(id).name.clone();
        for (axis, dim) in ty.shape.iter_mut().flatten().enumerate() {
            let Some(symbol) = dim.as_symbol().filter(|symbol| *symbol != Dim::UNKNOWN).map(str::to_owned)
            else {
                continue;
            };
            if *owners.entry(symbol.clone()).or_insert(id) != id {
                *dim = Dim::symbol(&format!("{name}.{axis}"));
                shared.get_or_insert(symbol);
            }
        }
        graph.set_ty(id, ty);
    }
    shared
}
