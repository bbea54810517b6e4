//! Which inputs a call gives, where a model has inputs that may be left out, and what a program was made for.
//!
//! A call gives the inputs that it has to give, in order, or all inputs. Among all, one that is the default's own memory counts
//! as left out. What is given is an input of the program like any other, unless extents or branches follow from it: then the
//! program is made for its value.

use crate::error::{Error, Result};
use crate::model::PortInfo;
use std::borrow::Cow;
use std::sync::Arc;
use tconvc_ir::{Graph, Tensor, TensorView, ValueType};

/// Elements of an input up to which a program is made for its value.
const SMALL: usize = 64;

/// Defaults of a model's inputs, by position.
pub(crate) struct Defaults {
    by_input: Vec<Option<Tensor>>,
    required: usize,
}

/// What a program was made for, beside shapes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Given {
    /// By input, whether it is given; empty where only those are that have to be.
    pub inputs: Vec<bool>,
    /// Inputs whose values the program holds.
    pub values: Vec<(usize, Tensor)>,
}

impl Defaults {
    pub fn of(graph: &Graph) -> Result<Self> {
        let by_input: Vec<Option<Tensor>> = graph
            .inputs()
            .iter()
            .map(|&id| graph.default_of(id).map(aligned).transpose())
            .collect::<Result<_>>()?;
        let required = by_input.iter().filter(|default| default.is_none()).count();
        Ok(Self { by_input, required })
    }

    /// Whether a call with so many inputs gives all of them, where that is not the same.
    ///
    /// # Errors
    /// When it is neither their number nor that of those that have to be given.
    pub fn all_given(&self, count: usize) -> Result<bool> {
        let all = self.by_input.len();
        if count == self.required {
            return Ok(false);
        }
        if count == all {
            return Ok(true);
        }
        let expected = if all == self.required {
            format!("{all} inputs")
        } else {
            format!("{} inputs, and {} that may be left out", self.required, all - self.required)
        };
        Err(Error::Arguments(format!("the model has {expected}; {count} are given")))
    }

    /// Inputs in the model's order: those that have to be given, or all of them as soon as another one is.
    pub fn complete<'a>(&'a self, slots: Vec<Option<TensorView<'a>>>) -> Vec<Option<TensorView<'a>>> {
        let optional_given =
            slots.iter().zip(&self.by_input).any(|(slot, default)| slot.is_some() && default.is_some());
        let with_default = slots.into_iter().zip(&self.by_input);
        if optional_given {
            let filled = |(slot, default): (Option<TensorView<'a>>, &'a Option<Tensor>)| {
                slot.or_else(|| default.as_ref().map(Tensor::view))
            };
            return with_default.map(filled).collect();
        }
        with_default.filter(|(_, default)| default.is_none()).map(|(slot, _)| slot).collect()
    }

    /// Which of all inputs are given.
    pub fn given(&self, inputs: &[TensorView<'_>]) -> Given {
        let flags = self.by_input.iter().zip(inputs).map(|(default, view)| is_given(default.as_ref(), view));
        Given { inputs: flags.collect(), values: vec![] }
    }

    /// True when a program that was made for `given` fits a call. Allocates nothing.
    pub fn fits(&self, given: &Given, inputs: &[TensorView<'_>]) -> bool {
        if inputs.len() == self.required {
            return given.inputs.is_empty();
        }
        let same = |((default, view), flag): ((&Option<Tensor>, &TensorView<'_>), &bool)| {
            is_given(default.as_ref(), view) == *flag
        };
        given.inputs.len() == inputs.len()
            && self.by_input.iter().zip(inputs).zip(&given.inputs).all(same)
            && given.values.iter().all(|(index, tensor)| {
                let view = &inputs[*index];
                view.dtype() == tensor.dtype()
                    && view.shape() == tensor.shape()
                    && view.bytes() == tensor.bytes()
            })
    }

    /// The defaults that a program for `given` holds, in their place in the graph.
    pub fn fix(&self, graph: &mut Graph, given: &Given) {
        for (index, id) in graph.inputs().to_vec().into_iter().enumerate() {
            if given.inputs.get(index) == Some(&false)
                && let Some(default) = self.by_input.get(index).and_then(Option::as_ref)
            {
                graph.replace_input(id, default.clone());
            }
        }
    }

    /// Those of the inputs that are given beyond what has to be, and are small enough for a program to hold their value.
    pub fn small_values(&self, given: &Given, inputs: &[TensorView<'_>]) -> Result<Vec<(usize, Tensor)>> {
        let mut values = vec![];
        for (index, view) in inputs.iter().enumerate() {
            let optional = self.by_input.get(index).is_some_and(Option::is_some);
            let count: usize = view.shape().iter().product();
            if optional && given.inputs.get(index) == Some(&true) && count <= SMALL {
                let bytes = Arc::new(view.bytes().to_vec());
                values.push((index, Tensor::from_shared(view.dtype(), view.shape().to_vec(), bytes, 0)?));
            }
        }
        Ok(values)
    }
}

fn is_given(default: Option<&Tensor>, view: &TensorView<'_>) -> bool {
    !default.is_some_and(|tensor| {
        std::ptr::eq(tensor.bytes().as_ptr(), view.bytes().as_ptr())
            && tensor.bytes().len() == view.bytes().len()
            && tensor.shape() == view.shape()
    })
}

/// The tensor at an address that machine code takes: a session would copy it otherwise, and not know it again.
fn aligned(tensor: &Tensor) -> Result<Tensor> {
    if tensor.bytes().as_ptr().align_offset(8) == 0 && !tensor.bytes().is_empty() {
        return Ok(tensor.clone());
    }
    let mut words = vec![0u64; tensor.bytes().len().div_ceil(8).max(1)];
    bytemuck::cast_slice_mut(&mut words)[..tensor.bytes().len()].copy_from_slice(tensor.bytes());
    Ok(Tensor::from_shared(tensor.dtype(), tensor.shape().to_vec(), Arc::new(Words(words)), 0)?)
}

/// Whole words as bytes.
struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// `` `x` f32[1, 3, 4], `y` f32[2] and 12 more that may be left out ``
pub(crate) fn listing(ports: &[PortInfo]) -> String {
    let named: Vec<String> = ports.iter().filter(|port| !port.optional).map(ToString::to_string).collect();
    let optional = ports.len() - named.len();
    let rest: Cow<'_, str> = match optional {
        0 => "".into(),
        1..=4 => {
            let names = ports.iter().filter(|port| port.optional).map(ToString::to_string);
            format!("; {} may be left out", names.collect::<Vec<_>>().join(", ")).into()
        }
        more => format!("; {more} more may be left out").into(),
    };
    format!("{}{rest}", named.join(", "))
}

/// What an input of that type is, and what was given instead; `None` where it fits.
pub(crate) fn misfit(port: &PortInfo, ty: &ValueType, view: &TensorView<'_>) -> Option<Error> {
    let fits = ty.dtype.is_none_or(|dtype| dtype == view.dtype())
        && ty.shape.as_ref().is_none_or(|shape| {
            shape.len() == view.shape().len()
                && shape
                    .iter()
                    .zip(view.shape())
                    .all(|(dim, extent)| dim.known().is_none_or(|known| known == *extent))
        });
    (!fits).then(|| {
        Error::Arguments(format!("input {port} is expected, {}{:?} is given", view.dtype(), view.shape()))
    })
}
