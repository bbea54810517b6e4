//! Sampling at places that are data: GridSample, and AffineGrid, which makes such places.

use super::support::inputs::{at_most, check_dtype, check_size, common_dtype, extents, required};
use super::support::lists::list_i64;
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// How neighbours are weighed: ONNX's `mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SampleMode {
    /// Linear between two, along each axis.
    #[default]
    Linear,
    /// The nearest; the even one at half.
    Nearest,
    /// Cubic over four, along each axis.
    Cubic,
}

/// What stands outside the input: ONNX's `padding_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SampleBorder {
    /// Zeros.
    #[default]
    Zeros,
    /// The element at the border.
    Border,
    /// The input mirrored at its border.
    Reflection,
}

/// ONNX `GridSample`: `X [N, C, in..], grid [N, out.., rank] -> Y [N, C, out..]`; places are from -1 to 1, last axis first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GridSample {
    /// How neighbours are weighed.
    pub mode: SampleMode,
    /// What stands outside.
    pub border: SampleBorder,
    /// -1 and 1 are the centres of the elements at the border, else its edges.
    pub align_corners: bool,
}

/// ONNX `AffineGrid`: `theta [N, rank, rank + 1], size [N, C, out..] -> grid [N, out.., rank]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AffineGrid {
    /// -1 and 1 are the centres of the elements at the border, else its edges.
    pub align_corners: bool,
}

const MODES: [(&str, SampleMode); 3] =
    [("linear", SampleMode::Linear), ("nearest", SampleMode::Nearest), ("cubic", SampleMode::Cubic)];
const BORDERS: [(&str, SampleBorder); 3] = [
    ("zeros", SampleBorder::Zeros),
    ("border", SampleBorder::Border),
    ("reflection", SampleBorder::Reflection),
];

fn read_name<T: Copy>(attributes: &mut Attributes, name: &str, names: &[(&str, T); 3]) -> Result<T> {
    let text = attributes.string(name)?;
    let Some(text) = text else { return Ok(names[0].1) };
    names.iter().find(|(spelling, _)| *spelling == text).map(|(_, value)| *value).ok_or_else(|| {
        let [a, b, c] = names.each_ref().map(|(spelling, _)| *spelling);
        Error::attribute(name, format!("`{text}` is not one of {a}, {b}, {c}"))
    })
}

impl GridSample {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            mode: read_name(&mut attributes, "mode", &MODES)?,
            border: read_name(&mut attributes, "padding_mode", &BORDERS)?,
            align_corners: attributes.flag("align_corners", false)?,
        };
        attributes.finish("align_corners, mode, padding_mode")?;
        Ok(op)
    }

    /// Position on an axis of `extent` elements of a place from -1 to 1. Rounded as in f32 when the places are, so that
    /// positions half way between two elements are those of other runtimes.
    fn position(self, place: f64, extent: usize, single: bool) -> f64 {
        let round = |x: f64| if single { f64::from(x as f32) } else { x };
        let extent = extent as f64;
        if self.align_corners {
            round(round(round(place + 1.0) / 2.0) * (extent - 1.0))
        } else {
            round(round(round(place + 1.0) * extent) - 1.0) / 2.0
        }
    }

    /// The first and last position that are not outside an axis of `extent` elements.
    fn ends(self, extent: usize) -> [f64; 2] {
        let last = extent as f64 - 1.0;
        if self.align_corners { [0.0, last] } else { [-0.5, last + 0.5] }
    }

    /// The position or index brought inside, or left where it is when zeros are outside.
    fn inside(self, position: f64, extent: usize) -> f64 {
        let [first, last] = self.ends(extent);
        match self.border {
            _ if (first..=last).contains(&position) => position,
            SampleBorder::Zeros => position,
            SampleBorder::Border => position.clamp(0.0, extent as f64 - 1.0),
            SampleBorder::Reflection => {
                let (near, far, sign) =
                    if position < first { (first, last, 1.0) } else { (last, first, -1.0) };
                let (distance, range) = ((position - near).abs(), last - first);
                let times = (distance / range).floor();
                let rest = distance - times * range;
                if times % 2.0 == 0.0 { near + sign * rest } else { far - sign * rest }
            }
        }
    }

    /// The element at an index, `None` for a zero.
    fn element(self, index: f64, extent: usize) -> Option<usize> {
        let last = extent as f64 - 1.0;
        if self.border == SampleBorder::Zeros {
            return (0.0..=last).contains(&index).then_some(index as usize);
        }
        // Mirrored far away, a position that is no number is as good as any.
        Some(self.inside(index, extent).clamp(0.0, last) as usize)
    }

    /// Elements of one axis that a position reads, with their weights; zeros are left out.
    fn neighbours(self, position: f64, extent: usize, into: &mut Vec<(usize, f64)>) {
        into.clear();
        let rounded = if self.mode == SampleMode::Nearest { position.round_ties_even() } else { position };
        // PyTorch and ONNX Runtime take the four neighbours of a position as it is, and bring each of them inside; ONNX's own
        // reference brings the position inside first, which differs from theirs next to a repeated border.
        let position = if self.mode == SampleMode::Cubic { rounded } else { self.inside(rounded, extent) };
        let left = position.floor();
        let ratio = position - left;
        let weights: &[f64] = match self.mode {
            SampleMode::Nearest => {
                return into.extend(self.element(position.trunc(), extent).map(|e| (e, 1.0)));
            }
            SampleMode::Linear => &[1.0 - ratio, ratio],
            SampleMode::Cubic => &cubic(ratio),
        };
        let first = if self.mode == SampleMode::Cubic { left - 1.0 } else { left };
        into.extend(weights.iter().enumerate().filter_map(|(i, &weight)| {
            self.element(first + i as f64, extent).map(|element| (element, weight))
        }));
    }
}

/// Weights of four neighbours for a position `x` behind the second (Keys, with coefficient -0.75).
fn cubic(x: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(x + 1.0), near(x), near(1.0 - x), far(2.0 - x)]
}

/// Outputs whose neighbours are found before the channels pass over them, at most.
const BLOCK: usize = 512;

/// Elements that these read, at most, where one output alone does not read more.
const ELEMENTS: usize = 1 << 16;

/// Most axes that are sampled: an output reads four elements along each.
const AXES: usize = 8;

/// The elements of a plane that a block of outputs reads, with their weights.
#[derive(Default)]
struct Neighbours {
    elements: Vec<(usize, f64)>,
    /// Where the elements of each output end.
    ends: Vec<usize>,
}

impl Neighbours {
    /// Adds an output that reads these elements along each axis.
    fn push(&mut self, extents: &[usize], axes: &[Vec<(usize, f64)>]) {
        let start = self.elements.len();
        self.elements.push((0, 1.0));
        for (axis, extent) in axes.iter().zip(extents) {
            let before = self.elements.split_off(start);
            for (base, outer) in before {
                self.elements.extend(axis.iter().map(|&(at, inner)| (base * extent + at, outer * inner)));
            }
        }
        self.ends.push(self.elements.len());
    }

    /// The weighted sum of each output's elements.
    fn sums<T: Number>(&self, plane: &[T], results: &mut [T]) {
        let mut start = 0;
        for (&end, result) in self.ends.iter().zip(results) {
            let terms = self.elements[start..end].iter();
            *result = T::from_f64(terms.map(|&(at, weight)| weight * plane[at].to_f64()).sum());
            start = end;
        }
    }
}

impl Operator for GridSample {
    fn name(&self) -> &str {
        "GridSample"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some((name, _)) = MODES[1..].iter().find(|(_, mode)| *mode == self.mode) {
            attributes.set("mode", *name);
        }
        if let Some((name, _)) = BORDERS[1..].iter().find(|(_, border)| *border == self.border) {
            attributes.set("padding_mode", *name);
        }
        if self.align_corners {
            attributes.set("align_corners", 1);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (x, grid) = (required(inputs, 0, "X")?.ty, required(inputs, 1, "grid")?.ty);
        check_dtype(0, "X", x.dtype, DType::is_numeric, "numbers")?;
        check_dtype(1, "grid", grid.dtype, DType::is_float, "floats")?;
        if x.rank().is_some_and(|rank| !(3..=AXES + 2).contains(&rank)) {
            let problem = format!("expected [N, C, ..] with 1 to {AXES} axes to sample, found {x}");
            return Err(Error::input(0, "X", problem));
        }
        let shape = match (&x.shape, &grid.shape) {
            (Some(x), Some(grid)) => {
                let places = grid.last().and_then(Dim::known_i64);
                if grid.len() != x.len() || places.is_some_and(|places| places != x.len() as i64 - 2) {
                    let problem =
                        format!("expected [N, out.., {}] for data {x:?}, found {grid:?}", x.len() - 2);
                    return Err(Error::input(1, "grid", problem));
                }
                Some(x[..2].iter().chain(&grid[1..grid.len() - 1]).cloned().collect())
            }
            _ => None,
        };
        Ok(vec![ValueType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, grid) = (required(inputs, 0, "X")?, required(inputs, 1, "grid")?);
        let shape = super::support::lists::output_shape(self, inputs)?;
        if grid.shape()[0] != x.shape()[0] {
            let problem =
                format!("expected {} grids as the data has images, found {}", x.shape()[0], grid.shape()[0]);
            return Err(Error::input(1, "grid", problem));
        }
        let (extents, axes) = (&x.shape()[2..], x.rank() - 2);
        if shape.contains(&0) {
            return Ok(vec![Tensor::zeros(x.dtype(), shape)?]);
        }
        if extents.contains(&0) {
            return Err(Error::input(
                0,
                "X",
                format!("has no elements to sample, its shape is {:?}", x.shape()),
            ));
        }
        check_size(x.dtype(), &shape)?;
        let places = grid.to_f64s()?;
        let single = grid.dtype() != DType::F64;
        let (plane, outputs) = (extents.iter().product::<usize>(), shape[2..].iter().product::<usize>());
        dispatch_numeric!(x.dtype(), T => {
            let data = x.elements::<T>()?;
            let mut results = vec![T::from_f64(0.0); shape.iter().product()];
            let (mut block, mut near) = (Neighbours::default(), vec![vec![]; axes]);
            let together = (ELEMENTS >> (2 * axes)).clamp(1, BLOCK);
            let images = places.chunks(outputs * axes).zip(results.chunks_mut(shape[1] * outputs));
            for ((places, results), data) in images.zip(data.chunks(shape[1] * plane)) {
                for (number, places) in places.chunks(together * axes).enumerate() {
                    block.elements.clear();
                    block.ends.clear();
                    for place in places.chunks(axes) {
                        for ((&place, &extent), near) in place.iter().rev().zip(extents).zip(&mut near) {
                            self.neighbours(self.position(place, extent, single), extent, near);
                        }
                        block.push(extents, &near);
                    }
                    let at = number * together..number * together + block.ends.len();
                    for (plane, results) in data.chunks(plane).zip(results.chunks_mut(outputs)) {
                        block.sums(plane, &mut results[at.clone()]);
                    }
                }
            }
            Ok(vec![Tensor::from_vec(shape, results)?])
        })
    }
}

impl AffineGrid {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let align_corners = attributes.flag("align_corners", false)?;
        attributes.finish("align_corners")?;
        Ok(Self { align_corners })
    }
}

impl Operator for AffineGrid {
    fn name(&self) -> &str {
        "AffineGrid"
    }

    fn attributes(&self) -> Attributes {
        if self.align_corners { Attributes::new().with("align_corners", 1) } else { Attributes::new() }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (theta, size) = (required(inputs, 0, "theta")?.ty, required(inputs, 1, "size")?);
        check_dtype(0, "theta", theta.dtype, DType::is_float, "floats")?;
        common_dtype(&[(1, "size", size.ty.dtype), (1, "size", Some(DType::I64))])?;
        let shape = match extents(&size) {
            Some(size) if !(4..=5).contains(&size.len()) => {
                let problem = format!("expected [N, C, H, W] or [N, C, D, H, W], found {size:?}");
                return Err(Error::input(1, "size", problem));
            }
            Some(size) => {
                let axes = size.len() - 2;
                if let Some(shape) = &theta.shape
                    && !matches!(shape.as_slice(), [_, rows, columns]
                        if rows.equals(&axes.into()) != Some(false) && columns.equals(&(axes + 1).into()) != Some(false))
                {
                    let problem = format!("expected [N, {axes}, {}], found {shape:?}", axes + 1);
                    return Err(Error::input(0, "theta", problem));
                }
                let space = size[2..].iter().cloned();
                Some([size[0].clone()].into_iter().chain(space).chain([axes.into()]).collect())
            }
            None => None,
        };
        Ok(vec![ValueType { dtype: theta.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (theta, size) = (required(inputs, 0, "theta")?, required(inputs, 1, "size")?);
        list_i64(size, 1, "size")?;
        let shape = super::support::lists::output_shape(self, inputs)?;
        check_size(DType::F64, &shape)?;
        let extents = &shape[1..shape.len() - 1];
        let (axes, outputs) = (extents.len(), extents.iter().product::<usize>());
        if theta.shape()[0] != shape[0] {
            let problem = format!("expected {} matrices as size says, found {}", shape[0], theta.shape()[0]);
            return Err(Error::input(0, "theta", problem));
        }
        let matrices = theta.to_f64s()?;
        let place = |i: usize, extent: usize| match (self.align_corners, extent as f64) {
            (true, extent) if extent > 1.0 => 2.0 * i as f64 / (extent - 1.0) - 1.0,
            (true, _) => -1.0,
            (false, extent) => (2.0 * i as f64 + 1.0) / extent - 1.0,
        };
        let mut grid = Vec::with_capacity(shape.iter().product());
        for matrix in matrices.chunks(axes * (axes + 1)) {
            for output in 0..outputs {
                // The places of the output, last axis first, and 1.
                let mut rest = output;
                let mut places: Vec<f64> = vec![];
                for &extent in extents.iter().rev() {
                    places.push(place(rest % extent, extent));
                    rest /= extent;
                }
                places.push(1.0);
                grid.extend(
                    matrix.chunks(axes + 1).map(|row| {
                        row.iter().zip(&places).map(|(factor, place)| factor * place).sum::<f64>()
                    }),
                );
            }
        }
        dispatch_numeric!(theta.dtype(), T => {
            Ok(vec![Tensor::from_vec(shape, grid.into_iter().map(T::from_f64).collect())?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: GridSample, x: &[f32], places: &[f32]) -> Vec<f64> {
        let x = Tensor::from_vec([1, 1, x.len()], x.to_vec()).unwrap();
        let grid = Tensor::from_vec([1, places.len(), 1], places.to_vec()).unwrap();
        op.eval(&[Some(&x), Some(&grid)], 1).unwrap()[0].to_f64s().unwrap()
    }

    #[test]
    fn borders_are_what_they_say() {
        let x = [1.0, 2.0, 3.0, 4.0];
        // Positions -1.5, -0.5, 0, 3.5 and 4.5.
        let places = [-1.5, -1.0, -0.75, 1.0, 1.5];
        let sample = |mode, border| run(GridSample { mode, border, align_corners: false }, &x, &places);
        assert_eq!(sample(SampleMode::Linear, SampleBorder::Zeros), [0.0, 0.5, 1.0, 2.0, 0.0]);
        assert_eq!(sample(SampleMode::Linear, SampleBorder::Border), [1.0, 1.0, 1.0, 4.0, 4.0]);
        assert_eq!(sample(SampleMode::Linear, SampleBorder::Reflection), [1.5, 1.0, 1.0, 4.0, 3.5]);
        assert_eq!(sample(SampleMode::Nearest, SampleBorder::Zeros), [0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn places_that_are_no_numbers_do_no_harm() {
        for mode in [SampleMode::Linear, SampleMode::Nearest, SampleMode::Cubic] {
            for border in [SampleBorder::Zeros, SampleBorder::Border, SampleBorder::Reflection] {
                for align_corners in [false, true] {
                    let op = GridSample { mode, border, align_corners };
                    assert_eq!(GridSample::read(op.attributes()), Ok(op));
                    let places = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e30];
                    assert_eq!(run(op, &[1.0], &places).len(), 5);
                    assert_eq!(run(op, &[1.0, 2.0, 3.0], &places).len(), 5);
                }
            }
        }
    }

    /// More outputs than are done at once, of several channels and images, are each what it is alone.
    #[test]
    fn outputs_do_not_know_of_each_other() {
        let outputs = BLOCK + 3;
        let x = Tensor::seeded(DType::F32, [2, 3, 4, 5], 1).unwrap();
        let grid = Tensor::seeded(DType::F32, [2, outputs, 1, 2], 2).unwrap();
        for mode in [SampleMode::Linear, SampleMode::Nearest, SampleMode::Cubic] {
            let op = GridSample { mode, border: SampleBorder::Zeros, align_corners: false };
            let all = op.eval(&[Some(&x), Some(&grid)], 1).unwrap()[0].to_f64s().unwrap();
            let (data, places) = (x.elements::<f32>().unwrap(), grid.elements::<f32>().unwrap());
            for (number, place) in places.chunks(2).enumerate() {
                let (image, output) = (number / outputs, number % outputs);
                for channel in 0..3 {
                    let plane = data[(image * 3 + channel) * 20..][..20].to_vec();
                    let plane = Tensor::from_vec([1, 1, 4, 5], plane).unwrap();
                    let place = Tensor::from_vec([1, 1, 1, 2], place.to_vec()).unwrap();
                    let alone = op.eval(&[Some(&plane), Some(&place)], 1).unwrap()[0].to_f64s().unwrap();
                    assert_eq!(all[(image * 3 + channel) * outputs + output], alone[0], "{mode:?}");
                }
            }
        }
    }

    /// Work and memory grow fourfold with each axis.
    #[test]
    fn axes_are_bounded() {
        let op = GridSample { mode: SampleMode::Cubic, border: SampleBorder::Border, align_corners: true };
        for axes in [AXES, AXES + 1] {
            let x = Tensor::from_vec([1, 1].into_iter().chain(vec![1; axes]).collect::<Vec<_>>(), vec![7f32])
                .unwrap();
            let shape = [1].into_iter().chain(vec![1; axes]).chain([axes]).collect::<Vec<_>>();
            let grid = Tensor::from_vec(shape, vec![0f32; axes]).unwrap();
            let result = op.eval(&[Some(&x), Some(&grid)], 1);
            if axes == AXES {
                assert!((result.unwrap()[0].to_f64s().unwrap()[0] - 7.0).abs() < 1e-6);
            } else {
                assert!(result.unwrap_err().to_string().contains("1 to 8 axes"));
            }
        }
    }

    /// Sampling at the grid of the identity gives the input back.
    #[test]
    fn the_identity_grid_is_the_identity() {
        let x = Tensor::from_vec([2, 1, 2, 3], (0..12).map(|i| i as f32).collect()).unwrap();
        let theta = [1f32, 0.0, 0.0, 0.0, 1.0, 0.0].repeat(2);
        let theta = Tensor::from_vec([2, 2, 3], theta).unwrap();
        for align_corners in [false, true] {
            let size = Tensor::from_i64s(&[2, 1, 2, 3]);
            let grid = AffineGrid { align_corners }.eval(&[Some(&theta), Some(&size)], 1).unwrap();
            assert_eq!(grid[0].shape(), [2, 2, 3, 2]);
            let op = GridSample { align_corners, mode: SampleMode::Nearest, border: SampleBorder::Zeros };
            assert_eq!(op.eval(&[Some(&x), Some(&grid[0])], 1).unwrap()[0], x);
        }
    }
}
