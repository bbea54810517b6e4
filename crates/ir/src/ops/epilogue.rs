//! What a convolution does with each sum before it stores it: bias, activations, residual additions. Filled by a pass,
//! never by an import; the text form and the ONNX export spell it out.

use super::InputInfo;
use super::support::inputs::{at_most, required};
use super::support::sums::Sums;
use super::support::window::may_equal;
use super::unary::Unary;
use crate::attributes::{AttributeValue, Attributes};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::borrow::Cow;

/// Steps applied in order to `sum + bias`. Steps with an operand take it from the node's inputs behind the bias, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Epilogue {
    /// The steps.
    pub steps: Vec<EpilogueStep>,
}

/// One step of an [`Epilogue`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EpilogueStep {
    /// An activation.
    Unary(Unary),
    /// `x < 0 ? slope * x : x`; the operand is the slope, one number a channel (`[Cout, 1, ..]`, with or without a leading
    /// 1) or one for all.
    PRelu,
    /// Adds the operand, of the output's shape.
    Add,
}

impl EpilogueStep {
    /// True when the step takes an operand from the node's inputs.
    pub fn has_operand(self) -> bool {
        matches!(self, Self::PRelu | Self::Add)
    }
}

impl Epilogue {
    /// True when sums are stored as they are.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        self.steps.iter().filter(|step| step.has_operand()).count()
    }

    /// As an attribute: a list such as `["LeakyRelu(0.1)", "Add"]`.
    pub fn to_attribute(&self) -> AttributeValue {
        let spell = |step: &EpilogueStep| match step {
            EpilogueStep::Unary(unary) => unary.spell(),
            EpilogueStep::PRelu => "PRelu".into(),
            EpilogueStep::Add => "Add".into(),
        };
        AttributeValue::Strings(self.steps.iter().map(spell).collect())
    }

    /// From the form of [`Epilogue::to_attribute`].
    ///
    /// # Errors
    /// When a step is not known.
    pub fn from_strings(steps: &[String]) -> Result<Self> {
        let parse = |text: &String| match text.as_str() {
            "PRelu" => Ok(EpilogueStep::PRelu),
            "Add" => Ok(EpilogueStep::Add),
            _ => Unary::parse(text).map(EpilogueStep::Unary).ok_or_else(|| {
                Error::attribute(
                    "epilogue",
                    format!("`{text}` is no step; accepted: PRelu, Add and the unary operators"),
                )
            }),
        };
        Ok(Self { steps: steps.iter().map(parse).collect::<Result<_>>()? })
    }

    pub(super) fn read(attributes: &mut Attributes) -> Result<Self> {
        Self::from_strings(&attributes.strings("epilogue")?.unwrap_or_default())
    }

    pub(super) fn write(&self, attributes: &mut Attributes) {
        if !self.is_empty() {
            attributes.set("epilogue", self.to_attribute());
        }
    }

    /// The type of what a convolution with a bias and this behind it gives: `ty`, with the extents that follow where those of data
    /// and weights are known.
    pub(super) fn infer_behind(
        &self,
        inputs: &[Option<InputInfo<'_>>],
        mut ty: ValueType,
        shape: impl FnOnce(&[usize], &[usize]) -> Result<Vec<usize>>,
    ) -> Result<Vec<ValueType>> {
        let known =
            |index: usize| inputs.get(index).copied().flatten().and_then(|input| input.ty.known_shape());
        if let (Some(x), Some(w)) = (known(0), known(1)) {
            ty.shape = Some(shape(&x, &w)?.into_iter().map(Dim::from).collect());
        }
        self.check(inputs, Some(2), 3, ty.dtype, ty.shape.as_deref())?;
        Ok(vec![ty])
    }

    /// Checks the bias, at input `bias` when the operator has one, and the operands from input `first` on, against an
    /// output of `dtype` and `shape`, as far as known.
    pub(super) fn check(
        &self,
        inputs: &[Option<InputInfo<'_>>],
        bias: Option<usize>,
        first: usize,
        dtype: Option<DType>,
        shape: Option<&[Dim]>,
    ) -> Result<()> {
        at_most(inputs, first + self.operands())?;
        let present = |index: usize| inputs.get(index).copied().flatten();
        let same_type = |index, name, input: InputInfo<'_>| match (input.ty.dtype, dtype) {
            (Some(found), Some(expected)) if found != expected => {
                Err(Error::input(index, name, format!("expected {expected} elements, found {found}")))
            }
            _ => Ok(()),
        };
        if let Some((index, input)) = bias.and_then(|index| Some((index, present(index)?))) {
            same_type(index, "B", input)?;
            if let (Some(found), Some(shape)) = (&input.ty.shape, shape)
                && !matches!(found.as_slice(), [extent] if may_equal(extent, &shape[1]))
            {
                return Err(Error::input(
                    index,
                    "B",
                    format!("expected shape [{}], found {found:?}", shape[1]),
                ));
            }
        }
        let mut operands = first..;
        for step in &self.steps {
            if let EpilogueStep::Unary(unary) = step {
                if let Some(dtype) = dtype.filter(|&dtype| unary.output_dtype(dtype) != Ok(dtype)) {
                    return Err(Error::attribute(
                        "epilogue",
                        format!("{} does not give {dtype}", unary.name()),
                    ));
                }
                continue;
            }
            let index = operands.next().unwrap_or_default();
            let input = present(index)
                .ok_or_else(|| Error::input(index, "epilogue operand", "is required by the epilogue"))?;
            same_type(index, "epilogue operand", input)?;
            let (Some(found), Some(shape)) = (&input.ty.shape, shape) else { continue };
            let (fits, expected) = match step {
                EpilogueStep::PRelu => {
                    (is_slope(found, shape), format!("one number, or one a channel of {shape:?}"))
                }
                _ => (
                    found.len() == shape.len() && found.iter().zip(shape).all(|(a, b)| may_equal(a, b)),
                    format!("shape {shape:?}"),
                ),
            };
            if !fits {
                return Err(Error::input(
                    index,
                    "epilogue operand",
                    format!("expected {expected}, found {found:?}"),
                ));
            }
        }
        Ok(())
    }
}

/// True for `[]`, all-one shapes, `[C, 1, ..]` and `[1, C, 1, ..]`.
fn is_slope(found: &[Dim], shape: &[Dim]) -> bool {
    let one = Dim::constant(1);
    let Some(channel) = shape.len().checked_sub(1).and_then(|rank| found.len().checked_sub(rank)) else {
        return found.iter().all(|extent| may_equal(extent, &one));
    };
    channel <= 1
        && found.iter().enumerate().all(|(axis, extent)| {
            may_equal(extent, &one) || (axis == channel && may_equal(extent, &shape[1]))
        })
}

/// An epilogue with its bias and operands at hand: turns sums into elements of the output.
pub(super) struct PostOps<'a, T: Sums> {
    bias: Option<Cow<'a, [T]>>,
    steps: Vec<(EpilogueStep, Cow<'a, [T]>)>,
    /// Elements of a channel of the output, channels of the output.
    plane: usize,
    channels: usize,
    /// Channels of the output that share a bias.
    shared: usize,
}

impl<'a, T: Sums> PostOps<'a, T> {
    /// For an output of that shape; bias and operands stand in `inputs` as [`Epilogue::check`] says, and passed it.
    pub(super) fn new(
        epilogue: &Epilogue,
        inputs: &[Option<&'a Tensor>],
        bias: Option<usize>,
        first: usize,
        shape: &[usize],
    ) -> Result<Self> {
        let bias = bias.and_then(|index| inputs.get(index).copied().flatten());
        let mut operands = first..;
        let mut operand = |step: EpilogueStep| -> Result<Cow<'a, [T]>> {
            if !step.has_operand() {
                return Ok(Cow::Borrowed(&[]));
            }
            required(inputs, operands.next().unwrap_or_default(), "epilogue operand")?.elements::<T>()
        };
        let bias = bias.map(Tensor::elements::<T>).transpose()?;
        let shared = bias.as_ref().map_or(1, |bias| shape[1] / bias.len());
        let steps = epilogue.steps.iter().map(|&step| Ok((step, operand(step)?))).collect::<Result<_>>()?;
        Ok(Self { bias, steps, plane: shape[2..].iter().product(), channels: shape[1], shared })
    }

    /// Finishes sums that lie in one channel and stores them in `output` from element `start` on.
    pub(super) fn store(&self, start: usize, sums: &mut [T::Sum], output: &mut [T]) -> Result<()> {
        let channel = start / self.plane % self.channels;
        if let Some(bias) = &self.bias {
            let bias = bias[channel / self.shared].widen();
            for sum in sums.iter_mut() {
                *sum = T::add(*sum, bias);
            }
        }
        for (step, operand) in &self.steps {
            match step {
                EpilogueStep::Unary(unary) => T::apply(*unary, sums)?,
                EpilogueStep::PRelu => {
                    let slope = operand[if operand.len() == 1 { 0 } else { channel }].widen();
                    for sum in sums.iter_mut().filter(|sum| T::is_negative(**sum)) {
                        *sum = T::mul(slope, *sum);
                    }
                }
                EpilogueStep::Add => {
                    for (sum, &value) in sums.iter_mut().zip(&operand[start..]) {
                        *sum = T::add(*sum, value.widen());
                    }
                }
            }
        }
        for (element, &sum) in output[start..].iter_mut().zip(sums.iter()) {
            *element = T::store(sum);
        }
        Ok(())
    }
}
