//! What sliding a kernel takes, in ONNX's spelling: pads, `auto_pad`, and attributes with a value an axis. Shared by the
//! convolution family; extents are checked by [`crate::geometry`].

use super::inputs::{check_dtype, common_dtype, required};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{InputInfo, Operator};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// How the border is treated: ONNX's `pads` and `auto_pad`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// Pads at the beginning and end of each spatial axis; empty is all zero. May be negative after canonicalisation.
    Explicit {
        /// At the beginning of each axis.
        begin: Vec<i64>,
        /// At the end of each axis.
        end: Vec<i64>,
    },
    /// `SAME_UPPER`: output extent from the stride alone; an odd pad goes to the end.
    SameUpper,
    /// `SAME_LOWER`: as `SAME_UPPER`, but an odd pad goes to the beginning.
    SameLower,
    /// `VALID`: no pads.
    Valid,
}

impl Padding {
    /// No pads.
    pub fn none() -> Self {
        Self::Explicit { begin: vec![], end: vec![] }
    }

    /// Explicit pads in their shortest spelling.
    pub fn explicit(begin: Vec<i64>, end: Vec<i64>) -> Self {
        let (begin, end) = short_pads(begin, end);
        Self::Explicit { begin, end }
    }

    /// Takes `pads` and `auto_pad` out.
    pub(in crate::ops) fn read(attributes: &mut Attributes) -> Result<Self> {
        let (begin, end) = read_pads(attributes)?;
        let auto = attributes.string("auto_pad")?.unwrap_or_default();
        let padding = match auto.as_str() {
            "" | "NOTSET" => return Ok(Self::Explicit { begin, end }),
            "SAME_UPPER" => Self::SameUpper,
            "SAME_LOWER" => Self::SameLower,
            "VALID" => Self::Valid,
            other => {
                let problem = format!("`{other}` is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID");
                return Err(Error::attribute("auto_pad", problem));
            }
        };
        // ONNX forbids both; exporters write pads of zeros beside auto_pad.
        if begin.iter().chain(&end).any(|&pad| pad != 0) {
            let problem = format!("{:?} and auto_pad {auto} exclude each other", [begin, end].concat());
            return Err(Error::attribute("pads", problem));
        }
        Ok(padding)
    }

    /// Sets `pads` or `auto_pad`.
    pub(in crate::ops) fn write(&self, attributes: &mut Attributes) {
        match self {
            Self::Explicit { begin, end } => write_pads(attributes, begin, end),
            Self::SameUpper => attributes.set("auto_pad", "SAME_UPPER"),
            Self::SameLower => attributes.set("auto_pad", "SAME_LOWER"),
            Self::Valid => attributes.set("auto_pad", "VALID"),
        }
    }

    /// Pads of `axes` axes when they stand in the model; `None` for `SAME_*`, whose pads follow from the extents.
    pub(in crate::ops) fn per_axis(&self, axes: usize) -> Result<Option<Vec<[i64; 2]>>> {
        match self {
            Self::Explicit { begin, end } => zip_pads(begin, end, axes).map(Some),
            Self::Valid => Ok(Some(vec![[0, 0]; axes])),
            Self::SameUpper | Self::SameLower => Ok(None),
        }
    }
}

/// Takes `pads` out: those at the beginning of each axis, then those at the end.
pub(in crate::ops) fn read_pads(attributes: &mut Attributes) -> Result<(Vec<i64>, Vec<i64>)> {
    let pads = attributes.ints("pads")?.unwrap_or_default();
    if pads.len() % 2 != 0 {
        return Err(Error::attribute(
            "pads",
            format!("expected begins and ends, found {} numbers", pads.len()),
        ));
    }
    let (begin, end) = pads.split_at(pads.len() / 2);
    Ok((begin.to_vec(), end.to_vec()))
}

/// Sets `pads` unless there are none. Zeros are written as they came, so that reading gives the same again.
pub(in crate::ops) fn write_pads(attributes: &mut Attributes, begin: &[i64], end: &[i64]) {
    if !(begin.is_empty() && end.is_empty()) {
        attributes.set("pads", [begin, end].concat());
    }
}

/// Pads by axis, from those at the beginning and those at the end.
pub(in crate::ops) fn zip_pads(begin: &[i64], end: &[i64], axes: usize) -> Result<Vec<[i64; 2]>> {
    let (begin, end) = (per_axis("pads", begin, axes, 0)?, per_axis("pads", end, axes, 0)?);
    Ok(begin.into_iter().zip(end).map(|(begin, end)| [begin, end]).collect())
}

/// Takes a list of strides, dilations or extents out; empty when absent.
pub(in crate::ops) fn read_sizes(attributes: &mut Attributes, name: &str) -> Result<Vec<usize>> {
    Ok(attributes.sizes(name)?.unwrap_or_default())
}

/// Sets a list of strides, dilations or extents unless it is empty.
pub(in crate::ops) fn write_sizes(attributes: &mut Attributes, name: &str, sizes: &[usize]) {
    if !sizes.is_empty() {
        attributes.set(name, sizes);
    }
}

/// Takes the number of groups out; 1 when absent.
pub(in crate::ops) fn read_group(attributes: &mut Attributes) -> Result<usize> {
    let group = attributes.int("group")?.unwrap_or(1);
    match usize::try_from(group) {
        Ok(group) if group >= 1 => Ok(group),
        _ => Err(Error::attribute("group", format!("expected at least 1, found {group}"))),
    }
}

/// Sets the number of groups unless it is 1.
pub(in crate::ops) fn write_group(attributes: &mut Attributes, group: usize) {
    if group != 1 {
        attributes.set("group", group as i64);
    }
}

/// The attributes that convolutions of both kinds have.
pub(in crate::ops) fn write_slid(
    kernel_shape: &[usize],
    strides: &[usize],
    dilations: &[usize],
    group: usize,
    padding: &Padding,
) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, sizes) in [("kernel_shape", kernel_shape), ("strides", strides), ("dilations", dilations)] {
        write_sizes(&mut attributes, name, sizes);
    }
    write_group(&mut attributes, group);
    padding.write(&mut attributes);
    attributes
}

/// Strides or dilations in their shortest spelling: all 1 is empty.
pub(in crate::ops) fn short_steps(steps: Vec<usize>) -> Vec<usize> {
    if steps.iter().all(|&step| step == 1) { vec![] } else { steps }
}

/// Pads in their shortest spelling: all 0 is empty.
pub(in crate::ops) fn short_pads(begin: Vec<i64>, end: Vec<i64>) -> (Vec<i64>, Vec<i64>) {
    if begin.iter().chain(&end).all(|&pad| pad == 0) { (vec![], vec![]) } else { (begin, end) }
}

/// An attribute with a value an axis; empty stands for `default` on each.
pub(in crate::ops) fn per_axis<T: Copy>(name: &str, values: &[T], axes: usize, default: T) -> Result<Vec<T>> {
    match values.len() {
        0 => Ok(vec![default; axes]),
        n if n == axes => Ok(values.to_vec()),
        n => Err(Error::attribute(
            name,
            format!("expected a value for each of {axes} spatial axes, found {n}"),
        )),
    }
}

/// Number of spatial axes of data with that many axes.
pub(in crate::ops) fn spatial_axes(rank: usize) -> Result<usize> {
    match rank {
        3..=5 => Ok(rank - 2),
        _ => {
            let problem = format!("expected [N, C, ..] with 1 to 3 spatial axes, found {rank} axes");
            Err(Error::input(0, "X", problem))
        }
    }
}

/// Number of spatial axes of data and weights, which must be the same.
pub(in crate::ops) fn common_axes(x: usize, w: usize) -> Result<usize> {
    let axes = spatial_axes(x)?;
    if w == x {
        return Ok(axes);
    }
    Err(Error::input(1, "W", format!("expected {x} axes as the data has, found {w}")))
}

/// False when the two extents differ whatever their symbols are.
pub(in crate::ops) fn may_equal(a: &Dim, b: &Dim) -> bool {
    a.equals(b) != Some(false)
}

/// Extents of data and weights of a convolution, as far as known; the kernel's are those of `kernel_shape` where given.
pub(in crate::ops) type SlidShapes = (Vec<Dim>, Vec<Dim>);

/// Element type and shapes of data and weights, inputs 0 and 1, checked against each other. No shapes where not even the
/// number of axes is known.
pub(in crate::ops) fn slid(
    inputs: &[Option<InputInfo<'_>>],
    kernel_shape: &[usize],
) -> Result<(Option<DType>, Option<SlidShapes>)> {
    let (x, w) = (required(inputs, 0, "X")?.ty, required(inputs, 1, "W")?.ty);
    let dtype = common_dtype(&[(0, "X", x.dtype), (1, "W", w.dtype)])?;
    check_dtype(0, "X", dtype, DType::is_numeric, "numbers")?;
    let from_kernel = (!kernel_shape.is_empty()).then_some(kernel_shape.len() + 2);
    let Some(rank) = x.rank().or(w.rank()).or(from_kernel) else { return Ok((dtype, None)) };
    let unknown = || vec![Dim::unknown(); rank];
    let (x, mut w) = (x.shape.clone().unwrap_or_else(unknown), w.shape.clone().unwrap_or_else(unknown));
    common_axes(x.len(), w.len())?;
    if !kernel_shape.is_empty() {
        let kernel: Vec<Dim> = kernel_shape.iter().map(|&extent| extent.into()).collect();
        if kernel.len() + 2 != w.len() || !kernel.iter().zip(&w[2..]).all(|(a, b)| may_equal(a, b)) {
            return Err(Error::attribute(
                "kernel_shape",
                format!("{kernel:?} is not that of the weights, {w:?}"),
            ));
        }
        w.splice(2.., kernel);
    }
    Ok((dtype, Some((x, w))))
}

/// Extents of the kernel: those of the weights, which `kernel_shape` must agree with.
pub(in crate::ops) fn kernel<'a>(kernel_shape: &[usize], x: &[usize], w: &'a [usize]) -> Result<&'a [usize]> {
    common_axes(x.len(), w.len())?;
    if !kernel_shape.is_empty() && *kernel_shape != w[2..] {
        return Err(Error::attribute(
            "kernel_shape",
            format!("{kernel_shape:?} is not that of the weights, {w:?}"),
        ));
    }
    Ok(&w[2..])
}

/// The shape of the only output of an evaluation, by the operator's own inference, which checks the inputs.
pub(in crate::ops) fn output_shape(op: &impl Operator, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>> {
    let types: Vec<_> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
    let infos = inputs
        .iter()
        .zip(&types)
        .map(|(input, ty)| Some(InputInfo { ty: ty.as_ref()?, constant: *input, extents: None }));
    let shape = op.infer(&infos.collect::<Vec<_>>(), 1)?.pop().and_then(|ty| ty.known_shape());
    let shape = shape.ok_or_else(|| Error::Graph(format!("{} does not infer its output", op.name())))?;
    element_count(&shape)?;
    Ok(shape)
}
