//! DeformConv: a convolution that reads each tap at a place of its own, between elements.

use super::support::inputs::{at_most, check_size, common_dtype, optional, required};
use super::support::lists::output_shape;
use super::support::values::from_f64s;
use super::support::window::{
    kernel, may_equal, per_axis, read_group, read_pads, read_sizes, short_pads, short_steps, slid,
    write_group, write_pads, write_sizes, zip_pads,
};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `DeformConv`: `X [N, C, in..], W [Cout, C/group, k..], offset [N, offset_group * taps * axes, out..], B [Cout]?,
/// mask [N, offset_group * taps, out..]? -> Y [N, Cout, out..]`, in one to three axes.
///
/// Places between elements are interpolated linearly, with zeros around the data.
#[derive(Debug, Clone, PartialEq)]
pub struct DeformConv {
    /// Steps of the kernel; empty is 1.
    pub strides: Vec<usize>,
    /// Steps between taps; empty is 1.
    pub dilations: Vec<usize>,
    /// Pads at the beginning of each axis; empty is 0.
    pub pads_begin: Vec<i64>,
    /// Pads at the end of each axis; empty is 0.
    pub pads_end: Vec<i64>,
    /// Extents of the kernel; empty is the weights'.
    pub kernel_shape: Vec<usize>,
    /// Groups of channels.
    pub group: usize,
    /// Groups of input channels that are read at the same places.
    pub offset_group: usize,
}

impl DeformConv {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let (begin, end) = read_pads(&mut attributes)?;
        let (pads_begin, pads_end) = short_pads(begin, end);
        let offset_group = attributes.int("offset_group")?.unwrap_or(1);
        let op = Self {
            strides: short_steps(read_sizes(&mut attributes, "strides")?),
            dilations: short_steps(read_sizes(&mut attributes, "dilations")?),
            pads_begin,
            pads_end,
            kernel_shape: read_sizes(&mut attributes, "kernel_shape")?,
            group: read_group(&mut attributes)?,
            offset_group: usize::try_from(offset_group).ok().filter(|&groups| groups > 0).ok_or_else(
                || Error::attribute("offset_group", format!("expected at least 1, found {offset_group}")),
            )?,
        };
        attributes.finish("dilations, group, kernel_shape, offset_group, pads, strides")?;
        Ok(op)
    }

    /// Extent of the output along each axis.
    fn output(&self, x: &[Dim], k: &[Dim]) -> Result<Vec<Dim>> {
        let axes = x.len();
        let strides = per_axis("strides", &self.strides, axes, 1)?;
        let dilations = per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = zip_pads(&self.pads_begin, &self.pads_end, axes)?;
        let mut output = vec![];
        for axis in 0..axes {
            let pad = pads[axis][0].checked_add(pads[axis][1]).ok_or_else(|| {
                Error::attribute("pads", "their sum is more than can be counted".to_owned())
            })?;
            let reach = k[axis].sub(&1.into())?.mul(&dilations[axis].into())?.add(&1.into())?;
            let room = x[axis].add(&Dim::constant(pad))?.sub(&reach)?;
            if room.known_i64().is_some_and(|room| room < 0) {
                let problem = format!("a kernel that reaches {reach} in {} elements, {pad} pads", x[axis]);
                return Err(Error::Geometry(format!("axis {axis}: {problem}")));
            }
            output.push(if room.is_unknown() {
                Dim::unknown()
            } else {
                room.floor_div(strides[axis] as i64)?.add(&1.into())?
            });
        }
        Ok(output)
    }
}

/// An error when an input's shape is known and not the one expected.
fn check_shape(index: usize, name: &'static str, found: &ValueType, expected: &[Dim]) -> Result<()> {
    let Some(shape) = &found.shape else { return Ok(()) };
    if shape.len() == expected.len() && shape.iter().zip(expected).all(|(a, b)| may_equal(a, b)) {
        return Ok(());
    }
    Err(Error::input(index, name, format!("expected {expected:?}, found {found}")))
}

impl Operator for DeformConv {
    fn name(&self) -> &str {
        "DeformConv"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        write_sizes(&mut attributes, "strides", &self.strides);
        write_sizes(&mut attributes, "dilations", &self.dilations);
        write_sizes(&mut attributes, "kernel_shape", &self.kernel_shape);
        write_pads(&mut attributes, &self.pads_begin, &self.pads_end);
        write_group(&mut attributes, self.group);
        if self.offset_group != 1 {
            attributes.set("offset_group", self.offset_group as i64);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 5)?;
        let offset = required(inputs, 2, "offset")?.ty;
        let (dtype, shapes) = slid(inputs, &self.kernel_shape)?;
        let of = |index: usize| optional(inputs, index).and_then(|input| input.ty.dtype);
        let dtype =
            common_dtype(&[(0, "X", dtype), (2, "offset", of(2)), (3, "B", of(3)), (4, "mask", of(4))])?;
        let Some((x, w)) = shapes else { return Ok(vec![ValueType { dtype, shape: None }]) };
        if let (Some(cin), Some(part), Some(cout)) = (x[1].known(), w[1].known(), w[0].known()) {
            if part.checked_mul(self.group) != Some(cin) || !cout.is_multiple_of(self.group) {
                let problem = format!("{} groups do not fit {cin} channels and weights {w:?}", self.group);
                return Err(Error::attribute("group", problem));
            }
            if !cin.is_multiple_of(self.offset_group) {
                let problem = format!("expected a divisor of {cin} channels, found {}", self.offset_group);
                return Err(Error::attribute("offset_group", problem));
            }
        }
        let output = self.output(&x[2..], &w[2..])?;
        let taps = w[2..].iter().try_fold(Dim::from(self.offset_group), |taps, extent| taps.mul(extent))?;
        let shape = |channels: Dim| [&[x[0].clone(), channels], output.as_slice()].concat();
        check_shape(2, "offset", offset, &shape(taps.mul(&output.len().into())?))?;
        if let Some(bias) = optional(inputs, 3) {
            check_shape(3, "B", bias.ty, &w[..1])?;
        }
        if let Some(mask) = optional(inputs, 4) {
            check_shape(4, "mask", mask.ty, &shape(taps))?;
        }
        Ok(vec![ValueType { dtype, shape: Some(shape(w[0].clone())) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let shape = output_shape(self, inputs)?;
        check_size(crate::DType::F64, &shape)?;
        let k = kernel(&self.kernel_shape, x.shape(), w.shape())?;
        let (extents, output) = (&x.shape()[2..], &shape[2..]);
        let axes = extents.len();
        let strides = per_axis("strides", &self.strides, axes, 1)?;
        let dilations = per_axis("dilations", &self.dilations, axes, 1)?;
        let begins = per_axis("pads", &self.pads_begin, axes, 0)?;
        let [plane, taps, outputs] = [extents, k, output].map(|extents| extents.iter().product::<usize>());
        let (cin, cout, part) = (x.shape()[1], shape[1], w.shape()[1]);
        let (data, weights) = (x.to_f64s()?, w.to_f64s()?);
        let offsets = required(inputs, 2, "offset")?.to_f64s()?;
        let bias = optional(inputs, 3).map(Tensor::to_f64s).transpose()?;
        let mask = optional(inputs, 4).map(Tensor::to_f64s).transpose()?;
        let mut results = vec![0.0; shape.iter().product()];
        if let Some(bias) = bias {
            for (result, bias) in results.chunks_mut(outputs.max(1)).zip(bias.iter().cycle()) {
                result.fill(*bias);
            }
        }
        let members = cin / self.offset_group;
        let (groups_out, groups_in) = (cout / self.group, part);
        // What each channel of a group of offsets reads, for one tap and output.
        let mut near: Vec<(usize, f64)> = vec![];
        for (image, group) in (0..x.shape()[0]).flat_map(|n| (0..self.offset_group).map(move |g| (n, g))) {
            for (tap, at) in (0..taps).flat_map(|tap| (0..outputs).map(move |at| (tap, at))) {
                let number = (image * self.offset_group + group) * taps + tap;
                let weight = mask.as_ref().map_or(1.0, |mask| mask[number * outputs + at]);
                near.clear();
                near.push((0, weight));
                let (mut inner_tap, mut inner_at) = (taps, outputs);
                for axis in 0..axes {
                    inner_tap /= k[axis];
                    inner_at /= output[axis];
                    let (tap, at_axis) = (tap / inner_tap % k[axis], at / inner_at % output[axis]);
                    let place = (at_axis * strides[axis] + tap * dilations[axis]) as f64
                        - begins[axis] as f64
                        + offsets[(number * axes + axis) * outputs + at];
                    let (low, rest) = (place.floor(), place - place.floor());
                    let before = std::mem::take(&mut near);
                    for (position, weight) in [(low, 1.0 - rest), (low + 1.0, rest)] {
                        if position >= 0.0 && position < extents[axis] as f64 {
                            let position = position as usize;
                            let along = |&(base, outer): &(usize, f64)| {
                                (base * extents[axis] + position, outer * weight)
                            };
                            near.extend(before.iter().map(along));
                        }
                    }
                }
                for channel in group * members..(group + 1) * members {
                    let plane = &data[(image * cin + channel) * plane..][..plane];
                    let value: f64 = near.iter().map(|&(at, weight)| weight * plane[at]).sum();
                    let block = channel / groups_in;
                    for out in block * groups_out..(block + 1) * groups_out {
                        let weight = weights[(out * part + channel % groups_in) * taps + tap];
                        results[(image * cout + out) * outputs + at] += weight * value;
                    }
                }
            }
        }
        Ok(vec![from_f64s(x.dtype(), &shape, &results)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::{Conv, Op};

    fn read(attributes: Attributes) -> DeformConv {
        let op = DeformConv::read(attributes).unwrap();
        assert_eq!(DeformConv::read(op.attributes()), Ok(op.clone()));
        op
    }

    fn run(op: &DeformConv, inputs: &[Option<&Tensor>]) -> Result<Tensor> {
        Ok(Op::from(op.clone()).eval(inputs, 1)?.remove(0))
    }

    /// Without offsets it is a convolution, whatever the strides, groups and number of axes.
    #[test]
    fn zero_offsets_are_a_convolution() {
        for (axes, group, stride) in (1..=3).flat_map(|axes| [(axes, 1usize, 1i64), (axes, 2, 2)]) {
            let shape = |head: [usize; 2], extent: usize| {
                head.into_iter().chain(vec![extent; axes]).collect::<Vec<_>>()
            };
            let x = Tensor::seeded(DType::F64, shape([2, 4], 4), 1).unwrap();
            let w = Tensor::seeded(DType::F64, shape([2, 4 / group], 2), 2).unwrap();
            let b = Tensor::seeded(DType::F64, [2], 3).unwrap();
            let attributes = Attributes::new()
                .with("pads", vec![1i64; 2 * axes])
                .with("strides", vec![stride; axes])
                .with("dilations", vec![2i64; axes])
                .with("group", group as i64);
            let conv = Conv::read(attributes.clone()).unwrap();
            let expected = conv.eval(&[Some(&x), Some(&w), Some(&b)], 1).unwrap().remove(0);
            let op = read(attributes.with("offset_group", 2));
            let taps = 2 * (1 << axes);
            let out = expected.shape()[2];
            let zeros = Tensor::zeros(DType::F64, shape([2, taps * axes], out)).unwrap();
            let y = run(&op, &[Some(&x), Some(&w), Some(&zeros), Some(&b)]).unwrap();
            assert_eq!(y.shape(), expected.shape());
            for (a, b) in y.to_f64s().unwrap().iter().zip(expected.to_f64s().unwrap()) {
                assert!((a - b).abs() < 1e-12, "{axes} axes");
            }
        }
    }

    #[test]
    fn offsets_move_taps_between_elements_and_masks_weigh_them() {
        let x = Tensor::from_vec([1, 1, 1, 4], vec![1f32, 2.0, 4.0, 8.0]).unwrap();
        let w = Tensor::from_vec([1, 1, 1, 1], vec![1f32]).unwrap();
        // Down by nothing; right by a half, by -1, by 5, by 0.25.
        let offset = Tensor::from_vec([1, 2, 1, 4], vec![0f32, 0.0, 0.0, 0.0, 0.5, -1.0, 5.0, 0.25]).unwrap();
        let op = read(Attributes::new());
        let y = run(&op, &[Some(&x), Some(&w), Some(&offset)]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [1.5, 1.0, 0.0, 6.0]);
        let mask = Tensor::from_vec([1, 1, 1, 4], vec![2f32, 0.5, 1.0, 0.0]).unwrap();
        let y = run(&op, &[Some(&x), Some(&w), Some(&offset), None, Some(&mask)]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [3.0, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).unwrap();
        let (x, w) = (zeros(&[1, 2, 3, 3]), zeros(&[2, 2, 2, 2]));
        let error = |op: &DeformConv, offset: &[usize]| {
            run(op, &[Some(&x), Some(&w), Some(&zeros(offset))]).unwrap_err().to_string()
        };
        let op = read(Attributes::new());
        assert_eq!(
            error(&op, &[1, 4, 2, 2]),
            "input 2 (offset): expected [1, 8, 2, 2], found f32[1, 4, 2, 2]"
        );
        let wide = read(Attributes::new().with("dilations", vec![3i64, 3]));
        assert!(error(&wide, &[1, 8, 1, 1]).contains("reaches 4 in 3 elements"));
        let odd = read(Attributes::new().with("offset_group", 3));
        assert!(error(&odd, &[1, 24, 2, 2]).contains("a divisor of 2 channels"));
        assert!(DeformConv::read(Attributes::new().with("offset_group", 0)).is_err());
        let none = zeros(&[0, 2, 3, 3]);
        let y = run(&op, &[Some(&none), Some(&w), Some(&zeros(&[0, 8, 2, 2]))]).unwrap();
        assert_eq!(y.shape(), [0, 2, 2, 2]);
    }
}
