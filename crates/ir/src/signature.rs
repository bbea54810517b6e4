//! What a caller gives against what a graph's inputs ask for: names, element types, extents, and the symbols' values that
//! follow from them.

use crate::dim::{Bindings, Dim};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use std::collections::{HashMap, HashSet};

/// Checks that every input of the graph is given once with a fitting type and shape; gives the symbols' values.
///
/// # Errors
/// Names the input, what was expected and what was given; for a name that is wrong or missing, lists the inputs.
pub fn bind_inputs(graph: &Graph, given: &[(&str, DType, &[usize])]) -> Result<Bindings> {
    let shapes: Vec<(&str, &[usize])> = given.iter().map(|&(name, _, shape)| (name, shape)).collect();
    let ids = find(graph, &shapes)?;
    for (&id, &(name, dtype, _)) in ids.iter().zip(given) {
        let expected = graph.ty(id);
        if expected.dtype.is_some_and(|expected| expected != dtype) {
            return Err(Error::Arguments(format!("input `{name}` is to be {expected}, {dtype} was given")));
        }
    }
    if ids.len() < graph.inputs().len() {
        let given: HashSet<ValueId> = ids.into_iter().collect();
        let missing = graph.inputs().iter().filter(|id| !given.contains(id));
        let names: Vec<String> = missing.map(|&id| format!("`{}`", graph.value(id).name)).collect();
        return Err(Error::Arguments(format!("not given: {}; {}", names.join(", "), listing(graph))));
    }
    bind(graph, &ids, &shapes)
}

/// Checks the shapes given for some of the inputs; gives the values of the symbols in them.
///
/// # Errors
/// As [`bind_inputs`], but for inputs that are not given.
pub fn bind_shapes(graph: &Graph, given: &[(&str, &[usize])]) -> Result<Bindings> {
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

fn bind(graph: &Graph, ids: &[ValueId], given: &[(&str, &[usize])]) -> Result<Bindings> {
    let mut bindings = Bindings::new();
    // Which input bound a symbol first, for the error when another one disagrees.
    let mut origin: HashMap<String, &str> = HashMap::new();
    let mut open: Vec<(&Dim, usize, &str, usize)> = vec![];
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
                        return Err(Error::Arguments(format!(
                            "`{symbol}` is {other} in input `{first}` and {extent} in input `{name}`, axis {axis}"
                        )));
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
        let bound = dim.bind(&bindings)?;
        if bound.known_i64().is_some_and(|expected| usize::try_from(expected) != Ok(extent)) {
            return Err(Error::Arguments(format!(
                "axis {axis} of input `{name}` is to be {}, {extent} was given",
                if bound == *dim { bound.to_string() } else { format!("{dim} = {bound}") }
            )));
        }
    }
    Ok(bindings)
}
