//! Convolution and transposed convolution as ONNX spells them. Their geometry is in [`crate::geometry`].

use super::epilogue::Epilogue;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::geometry::{Channels, ConvAxis, ConvGeometry, DeconvAxis, DeconvGeometry};
use crate::graph::ValueType;
use crate::tensor::Tensor;

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

/// ONNX `Conv`: `X [N, Cin, ..], W [Cout, Cin/group, ..], B [Cout]?, epilogue operands.. -> Y [N, Cout, ..]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Kernel extents; empty is those of the weights.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub group: usize,
    /// Pads.
    pub padding: Padding,
    /// Applied to each sum before it is stored.
    pub epilogue: Epilogue,
}

/// ONNX `ConvTranspose`: `X [N, Cin, ..], W [Cin, Cout/group, ..], B [Cout]?, epilogue operands.. -> Y [N, Cout, ..]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvTranspose {
    /// Kernel extents; empty is those of the weights.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub group: usize,
    /// Pads, cropped from the full output.
    pub padding: Padding,
    /// Added to the end of each axis; empty is all 0. Canonicalisation turns it into negative pads.
    pub output_padding: Vec<usize>,
    /// Wanted output extents; empty is to follow from the pads. Canonicalisation turns it into pads.
    pub output_shape: Vec<usize>,
    /// Applied to each sum before it is stored.
    pub epilogue: Epilogue,
}

impl Padding {
    /// No pads.
    pub fn none() -> Self {
        Self::Explicit { begin: vec![], end: vec![] }
    }

    fn read(attributes: &mut Attributes) -> Result<Self> {
        let pads = attributes.ints("pads")?;
        let auto = attributes.string("auto_pad")?;
        match auto.as_deref() {
            None | Some("" | "NOTSET") => {
                let pads = pads.unwrap_or_default();
                if pads.len() % 2 != 0 {
                    return Err(Error::attribute(
                        "pads",
                        format!("expected begins and ends, found {} numbers", pads.len()),
                    ));
                }
                let (begin, end) = pads.split_at(pads.len() / 2);
                Ok(Self::Explicit { begin: begin.to_vec(), end: end.to_vec() })
            }
            // ONNX forbids both; exporters write pads of zeros beside auto_pad, and auto_pad decides.
            Some("SAME_UPPER") => Ok(Self::SameUpper),
            Some("SAME_LOWER") => Ok(Self::SameLower),
            Some("VALID") => Ok(Self::Valid),
            Some(other) => Err(Error::attribute(
                "auto_pad",
                format!("`{other}` is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID"),
            )),
        }
    }

    fn write(&self, attributes: &mut Attributes) {
        match self {
            Self::Explicit { begin, end } => {
                // As they came, zeros too, so that reading gives the same again.
                if !(begin.is_empty() && end.is_empty()) {
                    attributes.set("pads", [begin.as_slice(), end].concat());
                }
            }
            Self::SameUpper => attributes.set("auto_pad", "SAME_UPPER"),
            Self::SameLower => attributes.set("auto_pad", "SAME_LOWER"),
            Self::Valid => attributes.set("auto_pad", "VALID"),
        }
    }

    /// Pads of `axes` axes when they stand in the model.
    fn explicit(&self, axes: usize) -> Result<Option<Vec<[i64; 2]>>> {
        match self {
            Self::Explicit { begin, end } => {
                let (begin, end) = (per_axis("pads", begin, axes, 0)?, per_axis("pads", end, axes, 0)?);
                Ok(Some(begin.into_iter().zip(end).map(|(begin, end)| [begin, end]).collect()))
            }
            Self::Valid => Ok(Some(vec![[0, 0]; axes])),
            Self::SameUpper | Self::SameLower => Ok(None),
        }
    }

    /// Splits a total pad: the odd one goes to the end, or to the beginning for `SAME_LOWER`.
    fn split(&self, total: i64) -> [i64; 2] {
        let less = total.div_euclid(2);
        if *self == Self::SameLower { [total - less, less] } else { [less, total - less] }
    }
}

/// An attribute with a value an axis; empty stands for `default` on each.
fn per_axis<T: Copy>(name: &str, values: &[T], axes: usize, default: T) -> Result<Vec<T>> {
    match values.len() {
        0 => Ok(vec![default; axes]),
        n if n == axes => Ok(values.to_vec()),
        n => Err(Error::attribute(
            name,
            format!("expected a value for each of {axes} spatial axes, found {n}"),
        )),
    }
}

/// Attributes that both operators have.
struct Common {
    kernel_shape: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    group: usize,
    padding: Padding,
    epilogue: Epilogue,
}

impl Common {
    fn read(attributes: &mut Attributes) -> Result<Self> {
        let group = attributes.int("group")?.unwrap_or(1);
        let group = usize::try_from(group).ok().filter(|&group| group >= 1);
        Ok(Self {
            kernel_shape: attributes.sizes("kernel_shape")?.unwrap_or_default(),
            strides: attributes.sizes("strides")?.unwrap_or_default(),
            dilations: attributes.sizes("dilations")?.unwrap_or_default(),
            group: group.ok_or_else(|| Error::attribute("group", "expected at least 1"))?,
            padding: Padding::read(attributes)?,
            epilogue: Epilogue::from_strings(&attributes.strings("epilogue")?.unwrap_or_default())?,
        })
    }

    fn write(
        kernel_shape: &[usize],
        strides: &[usize],
        dilations: &[usize],
        group: usize,
        padding: &Padding,
        epilogue: &Epilogue,
    ) -> Attributes {
        let mut attributes = Attributes::new();
        if !kernel_shape.is_empty() {
            attributes.set("kernel_shape", kernel_shape);
        }
        if !strides.is_empty() {
            attributes.set("strides", strides);
        }
        if !dilations.is_empty() {
            attributes.set("dilations", dilations);
        }
        if group != 1 {
            attributes.set("group", group as i64);
        }
        padding.write(&mut attributes);
        if !epilogue.is_empty() {
            attributes.set("epilogue", epilogue.to_attribute());
        }
        attributes
    }
}

const ACCEPTED: &str = "auto_pad, dilations, group, kernel_shape, pads, strides";

/// Extents of the kernel: those of the weights, which `kernel_shape` must agree with.
fn kernel<'a>(kernel_shape: &[usize], x: &[usize], w: &'a [usize]) -> Result<&'a [usize]> {
    if x.len() < 3 || x.len() > 5 {
        return Err(Error::input(
            0,
            "X",
            format!("expected [N, C, ..] with 1 to 3 spatial axes, found shape {x:?}"),
        ));
    }
    if w.len() != x.len() {
        return Err(Error::input(
            1,
            "W",
            format!("expected {} axes as the data has, found shape {w:?}", x.len()),
        ));
    }
    if !kernel_shape.is_empty() && *kernel_shape != w[2..] {
        return Err(Error::attribute(
            "kernel_shape",
            format!("{kernel_shape:?} is not that of the weights, {w:?}"),
        ));
    }
    Ok(&w[2..])
}

impl Conv {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let Common { kernel_shape, strides, dilations, group, padding, epilogue } =
            Common::read(&mut attributes)?;
        attributes.finish(ACCEPTED)?;
        Ok(Self { kernel_shape, strides, dilations, group, padding, epilogue })
    }

    /// Geometry for data and weights of these shapes.
    ///
    /// # Errors
    /// When the shapes and attributes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<ConvGeometry> {
        let kernel = kernel(&self.kernel_shape, x, w)?;
        let axes = kernel.len();
        let (strides, dilations) =
            (per_axis("strides", &self.strides, axes, 1)?, per_axis("dilations", &self.dilations, axes, 1)?);
        let explicit = self.padding.explicit(axes)?;
        let axis = |i: usize| {
            let pads = match &explicit {
                Some(pads) => pads[i],
                None => {
                    // Output extent is input / stride rounded up; the pads are what that takes, never negative.
                    let reach =
                        (kernel[i].max(1) as i64 - 1).saturating_mul(dilations[i] as i64).saturating_add(1);
                    let steps = (x[i + 2] as i64).max(1).div_euclid(strides[i] as i64)
                        + i64::from(!x[i + 2].is_multiple_of(strides[i]))
                        - 1;
                    let total = steps
                        .saturating_mul(strides[i] as i64)
                        .saturating_add(reach)
                        .saturating_sub(x[i + 2] as i64);
                    self.padding.split(total.max(0))
                }
            };
            ConvAxis::new(x[i + 2], kernel[i], strides[i], dilations[i], pads)
        };
        let channels = Channels::new(x[0], x[1], w[0], self.group)?;
        if channels.input_per_group() != w[1] {
            return Err(Error::input(
                1,
                "W",
                format!(
                    "expected [Cout, {}, ..] for {} input channels in {} groups, found {w:?}",
                    x[1] / self.group,
                    x[1],
                    self.group
                ),
            ));
        }
        ConvGeometry::new(channels, (0..axes).map(axis).collect::<Result<_>>()?)
    }
}

impl ConvTranspose {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let Common { kernel_shape, strides, dilations, group, padding, epilogue } =
            Common::read(&mut attributes)?;
        let non_negative = |name: &str, values: Option<Vec<i64>>| -> Result<Vec<usize>> {
            let convert = |value| {
                usize::try_from(value)
                    .map_err(|_| Error::attribute(name, format!("expected 0 or more, found {value}")))
            };
            values.unwrap_or_default().into_iter().map(convert).collect()
        };
        let output_padding = non_negative("output_padding", attributes.ints("output_padding")?)?;
        let output_shape = attributes.sizes("output_shape")?.unwrap_or_default();
        attributes.finish(
            "auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides",
        )?;
        Ok(Self { kernel_shape, strides, dilations, group, padding, output_padding, output_shape, epilogue })
    }

    /// Geometry for data and weights of these shapes: auto_pad, output_shape and output_padding become signed pads.
    ///
    /// Where ONNX's texts disagree, this is the reading of opset 11 and later, which ONNX Runtime follows: with
    /// `output_shape`, the odd pad goes to the end for `SAME_UPPER` and to the beginning otherwise.
    ///
    /// # Errors
    /// When the shapes and attributes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<DeconvGeometry> {
        let kernel = kernel(&self.kernel_shape, x, w)?;
        let axes = kernel.len();
        let (strides, dilations) =
            (per_axis("strides", &self.strides, axes, 1)?, per_axis("dilations", &self.dilations, axes, 1)?);
        let extra = per_axis("output_padding", &self.output_padding, axes, 0)?;
        let wanted = match self.output_shape.len() {
            n if n == axes + 2 => &self.output_shape[2..],
            _ => &self.output_shape[..],
        };
        let wanted = (!wanted.is_empty()).then(|| per_axis("output_shape", wanted, axes, 0)).transpose()?;
        let explicit = self.padding.explicit(axes)?;
        let axis = |i: usize| {
            let free = DeconvAxis::new(x[i + 2], kernel[i], strides[i], dilations[i], [0, 0])?;
            let (full, extra) = (free.full_output() as i64, extra[i] as i64);
            let target = match (&wanted, &explicit) {
                (Some(wanted), _) => Some(wanted[i] as i64),
                (None, None) => Some((x[i + 2] as i64).saturating_mul(strides[i] as i64)),
                (None, Some(_)) => None,
            };
            let [begin, end] = match (target, &explicit) {
                (Some(target), None) => self.padding.split(full.saturating_add(extra).saturating_sub(target)),
                (Some(target), Some(_)) => {
                    let total = full.saturating_add(extra).saturating_sub(target);
                    let less = total.div_euclid(2);
                    [total - less, less]
                }
                (None, Some(pads)) => pads[i],
                (None, None) => [0, 0],
            };
            DeconvAxis::new(x[i + 2], kernel[i], strides[i], dilations[i], [begin, end.saturating_sub(extra)])
        };
        let channels = Channels::new(x[0], x[1], w[1].saturating_mul(self.group), self.group)?;
        if channels.input() != w[0] {
            return Err(Error::input(1, "W", format!("expected [{}, Cout/group, ..], found {w:?}", x[1])));
        }
        DeconvGeometry::new(channels, (0..axes).map(axis).collect::<Result<_>>()?)
    }
}

/// Data, weights and the type of the result, when both shapes are known but for the batch and spatial extents.
fn typed<'a>(inputs: &[Option<InputInfo<'a>>]) -> Result<(InputInfo<'a>, InputInfo<'a>)> {
    let required = |index: usize, name| {
        inputs.get(index).copied().flatten().ok_or_else(|| Error::input(index, name, "is required"))
    };
    Ok((required(0, "X")?, required(1, "W")?))
}

fn known(ty: &ValueType) -> Option<Vec<usize>> {
    ty.known_shape()
}

/// Inputs of an evaluation and the bias, with the element types checked.
fn operands<'a>(inputs: &[Option<&'a Tensor>]) -> Result<(&'a Tensor, &'a Tensor, Option<&'a Tensor>)> {
    let required = |index: usize, name| {
        inputs.get(index).copied().flatten().ok_or_else(|| Error::input(index, name, "is required"))
    };
    Ok((required(0, "X")?, required(1, "W")?, inputs.get(2).copied().flatten()))
}

impl Operator for Conv {
    fn name(&self) -> &str {
        "Conv"
    }

    fn attributes(&self) -> Attributes {
        Common::write(
            &self.kernel_shape,
            &self.strides,
            &self.dilations,
            self.group,
            &self.padding,
            &self.epilogue,
        )
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let (x, w) = typed(inputs)?;
        let dtype = x.ty.dtype;
        if let (Some(x), Some(w)) = (known(x.ty), known(w.ty)) {
            let shape = self.geometry(&x, &w)?.output_shape();
            return Ok(vec![ValueType { dtype, shape: Some(shape.into_iter().map(Dim::from).collect()) }]);
        }
        Ok(vec![ValueType { dtype, shape: None }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w, _b) = operands(inputs)?;
        self.geometry(x.shape(), w.shape())?;
        Err(Error::Unsupported("evaluation of Conv".into()))
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &str {
        "ConvTranspose"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Common::write(
            &self.kernel_shape,
            &self.strides,
            &self.dilations,
            self.group,
            &self.padding,
            &self.epilogue,
        );
        if !self.output_padding.is_empty() {
            attributes.set("output_padding", self.output_padding.as_slice());
        }
        if !self.output_shape.is_empty() {
            attributes.set("output_shape", self.output_shape.as_slice());
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let (x, w) = typed(inputs)?;
        let dtype = x.ty.dtype;
        if let (Some(x), Some(w)) = (known(x.ty), known(w.ty)) {
            let shape = self.geometry(&x, &w)?.output_shape();
            return Ok(vec![ValueType { dtype, shape: Some(shape.into_iter().map(Dim::from).collect()) }]);
        }
        Ok(vec![ValueType { dtype, shape: None }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w, _b) = operands(inputs)?;
        self.geometry(x.shape(), w.shape())?;
        Err(Error::Unsupported("evaluation of ConvTranspose".into()))
    }
}
