//! `Scan`: a graph over the slices of tensors, with a state that goes from slice to slice.

use super::InputInfo;
use super::control::{RunGraph, stack, typed};
use super::movement::pick;
use super::support::inputs::resolve_axis;
use crate::attributes::{AttributeValue, Attributes};
use crate::budget::{self, Limit};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::onnx;
use crate::tensor::{MAX_TENSOR_BYTES, Tensor, element_count};
use crate::value_type::ValueType;

/// ONNX `Scan` of opset 9: `states.., scanned.. -> states.., collected..`.
///
/// The inputs of its graph are the states, a slice of each scanned tensor, and what is captured; its outputs are the states, and
/// a slice of each collected tensor.
#[derive(Clone)]
pub struct Scan {
    body: Graph,
    states: usize,
    /// Axis, and whether it is gone through from the end, of each scanned and each collected tensor.
    scanned: Vec<(i64, bool)>,
    collected: Vec<(i64, bool)>,
}

/// Values of a list that is absent or has one for each of `count`.
fn each(attributes: &Attributes, name: &str, count: usize) -> Result<Vec<i64>> {
    match attributes.get(name) {
        None => Ok(vec![0; count]),
        Some(AttributeValue::Ints(values)) if values.len() == count => Ok(values.clone()),
        Some(AttributeValue::Ints(values)) => {
            let problem = format!("expected a number for each of {count} tensors, found {}", values.len());
            Err(Error::attribute(name, problem))
        }
        Some(other) => {
            Err(Error::attribute(name, format!("expected a list of integers, found {}", other.kind())))
        }
    }
}

/// Axes and directions together.
fn ways(attributes: &Attributes, axes: &str, directions: &str, count: usize) -> Result<Vec<(i64, bool)>> {
    let backwards = each(attributes, directions, count)?;
    if let Some(wrong) = backwards.iter().find(|&&direction| !(0..=1).contains(&direction)) {
        return Err(Error::attribute(directions, format!("expected 0 or 1, found {wrong}")));
    }
    Ok(each(attributes, axes, count)?.into_iter().zip(backwards.iter().map(|&way| way == 1)).collect())
}

impl Scan {
    /// # Errors
    /// When the graph is missing or malformed, or lists do not fit it.
    pub(super) fn read(attributes: &Attributes, captures: usize) -> Result<Self> {
        let Some(AttributeValue::Opaque(bytes)) = attributes.get("body") else {
            return Err(Error::attribute("body", "expected a graph"));
        };
        let Some(&AttributeValue::Int(count)) = attributes.get("num_scan_inputs") else {
            return Err(Error::attribute("num_scan_inputs", "is required, an integer"));
        };
        let body = onnx::read_subgraph(bytes, attributes)?;
        let own = body.inputs().len().saturating_sub(captures);
        let scans = usize::try_from(count).ok().filter(|&scans| scans >= 1 && scans <= own);
        let scans = scans.ok_or_else(|| {
            Error::attribute(
                "num_scan_inputs",
                format!("expected 1 to {own} as the graph has inputs, found {count}"),
            )
        })?;
        let states = own - scans;
        let Some(results) = body.outputs().len().checked_sub(states) else {
            let problem =
                format!("its graph has {} outputs, fewer than {states} states", body.outputs().len());
            return Err(Error::attribute("body", problem));
        };
        Ok(Self {
            states,
            scanned: ways(attributes, "scan_input_axes", "scan_input_directions", scans)?,
            collected: ways(attributes, "scan_output_axes", "scan_output_directions", results)?,
            body,
        })
    }

    /// The graph that is gone through.
    pub fn body(&self) -> &Graph {
        &self.body
    }

    /// Types of what the graph reads for the first slice, and the number of slices.
    fn first_slice(&self, inputs: &[Option<InputInfo<'_>>]) -> Result<(Vec<ValueType>, Dim)> {
        let given = |index: usize| {
            let info = inputs.get(index).copied().flatten();
            info.map(|info| info.ty.clone()).unwrap_or_default()
        };
        let mut length = Dim::unknown();
        let mut types: Vec<ValueType> = (0..self.states).map(given).collect();
        for (index, &(axis, _)) in (self.states..).zip(&self.scanned) {
            let mut ty = given(index);
            if let Some(shape) = &mut ty.shape {
                let extent = shape.remove(resolve_axis("scan_input_axes", axis, shape.len())?);
                if length.equals(&extent) == Some(false) {
                    let problem = format!("{extent} slices, another input has {length}");
                    return Err(Error::Input { index, name: "", problem });
                }
                if length.known().is_none() && !extent.is_unknown() {
                    length = extent;
                }
            }
            types.push(ty);
        }
        types.extend((self.states + self.scanned.len()..self.body.inputs().len()).map(given));
        Ok((types, length))
    }

    /// Slices that there are, where that is known.
    pub(super) fn slices(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<usize> {
        self.first_slice(inputs).ok()?.1.known()
    }

    /// The graph with types that hold for every slice: a state that changes its shape has none that is known.
    pub(super) fn any_slice(&self, inputs: &[Option<InputInfo<'_>>]) -> Result<Graph> {
        let (mut types, _) = self.first_slice(inputs)?;
        let once = typed(&self.body, types.iter().cloned())?;
        for (index, ty) in types.iter_mut().enumerate().take(self.states) {
            if once.ty(once.outputs()[index]).shape != ty.shape {
                ty.shape = None;
            }
        }
        typed(&self.body, types.into_iter())
    }

    pub(super) fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        let (types, length) = self.first_slice(inputs)?;
        let once = typed(&self.body, types.iter().cloned())?;
        let result = |index: usize| once.ty(once.outputs()[index]).clone();
        // A state may be more general than what comes in.
        let state = |index: usize| {
            let (before, after) = (&types[index], result(index));
            let same = before.shape == after.shape;
            ValueType { dtype: after.dtype.or(before.dtype), shape: after.shape.filter(|_| same) }
        };
        let mut found: Vec<ValueType> = (0..self.states).map(state).collect();
        let settled = (0..self.states).all(|index| found[index].shape == types[index].shape);
        for (index, &(axis, _)) in (self.states..).zip(&self.collected) {
            let ty = result(index);
            let shape = match ty.shape.filter(|_| settled) {
                None => None,
                Some(mut shape) => {
                    shape.insert(resolve_axis("scan_output_axes", axis, shape.len() + 1)?, length.clone());
                    Some(shape)
                }
            };
            found.push(ValueType { dtype: ty.dtype, shape });
        }
        found.resize(outputs.max(found.len()), ValueType::default());
        Ok(found)
    }

    pub(super) fn eval(&self, inputs: &[Option<&Tensor>], run: &mut RunGraph<'_>) -> Result<Vec<Tensor>> {
        let given = |index: usize| {
            let input = inputs.get(index).copied().flatten();
            input.cloned().ok_or_else(|| Error::Graph(format!("input {index} is missing")))
        };
        let mut state: Vec<Tensor> = (0..self.states).map(given).collect::<Result<_>>()?;
        let scanned: Vec<(Tensor, usize, bool)> = (self.states..)
            .zip(&self.scanned)
            .map(|(index, &(axis, backwards))| {
                let tensor = given(index)?;
                let axis = resolve_axis("scan_input_axes", axis, tensor.rank())?;
                Ok((tensor, axis, backwards))
            })
            .collect::<Result<_>>()?;
        let length = scanned.first().map_or(0, |(tensor, axis, _)| tensor.shape()[*axis]);
        let rest = inputs.get(self.states + self.scanned.len()..).unwrap_or_default();
        let captured: Vec<Option<Tensor>> = rest.iter().map(|input| input.cloned()).collect();
        let mut collected: Vec<Vec<Tensor>> = vec![vec![]; self.collected.len()];
        let mut bytes = 0usize;
        for round in 0..length {
            budget::count(Limit::Rounds, 1)?;
            let slices = scanned.iter().map(|(tensor, axis, backwards)| {
                slice(tensor, *axis, if *backwards { length - 1 - round } else { round })
            });
            let own = std::mem::take(&mut state).into_iter().map(Ok).chain(slices);
            let mut own = own.map(|tensor| tensor.map(Some)).collect::<Result<Vec<_>>>()?;
            own.extend(captured.iter().cloned());
            let mut results = run("body", &self.body, own)?.into_iter();
            state = results.by_ref().take(self.states).collect();
            for (rows, row) in collected.iter_mut().zip(results) {
                bytes = bytes.saturating_add(row.bytes().len().max(1));
                if bytes > MAX_TENSOR_BYTES {
                    let problem = format!("more than {MAX_TENSOR_BYTES} bytes after {round} slices");
                    return Err(Error::Size(problem));
                }
                rows.push(row);
            }
        }
        if length == 0 {
            return self.nothing(inputs, state);
        }
        let joined = collected.into_iter().zip(&self.collected).map(|(mut rows, &(axis, backwards))| {
            if backwards {
                rows.reverse();
            }
            moved(&stack(&rows)?, axis)
        });
        state.into_iter().map(Ok).chain(joined).collect()
    }

    /// The results where there is no slice: the states as they came, and nothing collected.
    fn nothing(&self, inputs: &[Option<&Tensor>], state: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let types: Vec<_> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
        let info = |ty: &Option<ValueType>| {
            ty.as_ref().map(|ty| ValueType { dtype: ty.dtype, shape: ty.shape.clone() })
        };
        let types: Vec<_> = types.iter().map(info).collect();
        let infos: Vec<_> = types
            .iter()
            .map(|ty| Some(InputInfo { ty: ty.as_ref()?, constant: None, extents: None }))
            .collect();
        let found = self.infer(&infos, 0)?;
        let none = found[self.states..].iter().zip(&self.collected).map(|(ty, &(axis, _))| {
            let mut shape: Vec<usize> =
                ty.shape.iter().flatten().map(|dim| dim.known().unwrap_or(0)).collect();
            if shape.is_empty() {
                shape = vec![0];
            }
            let axis = resolve_axis("scan_output_axes", axis, shape.len())?;
            shape[axis] = 0;
            Tensor::zeros(ty.dtype.unwrap_or(DType::F32), shape)
        });
        state.into_iter().map(Ok).chain(none).collect()
    }
}

/// Slice `index` along an axis, without that axis.
fn slice(tensor: &Tensor, axis: usize, index: usize) -> Result<Tensor> {
    let shape = tensor.shape();
    if index >= shape[axis] {
        return Err(Error::Graph(format!("slice {index} of {shape:?} along axis {axis}")));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let rest = [&shape[..axis], &shape[axis + 1..]].concat();
    pick(tensor, &rest, None, |emit| {
        for part in 0..outer {
            let start = (part * shape[axis] + index) * inner;
            (start..start + inner).for_each(|at| emit(Some(at)));
        }
    })
}

/// The first axis moved to another place.
fn moved(tensor: &Tensor, axis: i64) -> Result<Tensor> {
    let shape = tensor.shape();
    let axis = resolve_axis("scan_output_axes", axis, shape.len())?;
    if axis == 0 {
        return Ok(tensor.clone());
    }
    let mut result = shape[1..].to_vec();
    result.insert(axis, shape[0]);
    let outer: usize = shape[1..=axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let row = element_count(&[outer, inner])?;
    pick(tensor, &result, None, |emit| {
        for (part, number) in (0..outer).flat_map(|part| (0..shape[0]).map(move |number| (part, number))) {
            let start = number * row + part * inner;
            (start..start + inner).for_each(|at| emit(Some(at)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..count as i64).collect()).unwrap()
    }

    #[test]
    fn slices_stacked_again_are_the_tensor() {
        let x = numbers(&[2, 3, 4]);
        for axis in 0..3 {
            let slices: Vec<Tensor> = (0..x.shape()[axis]).map(|i| slice(&x, axis, i).unwrap()).collect();
            assert_eq!(moved(&stack(&slices).unwrap(), axis as i64).unwrap(), x);
            assert_eq!(moved(&stack(&slices).unwrap(), axis as i64 - 3).unwrap(), x);
        }
        assert_eq!(slice(&x, 1, 2).unwrap().elements::<i64>().unwrap()[..], [8, 9, 10, 11, 20, 21, 22, 23]);
        assert!(moved(&x, 3).is_err() && slice(&x, 0, 2).is_err());
    }
}
