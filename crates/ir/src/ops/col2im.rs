//! Col2Im: blocks of an image that may overlap, added up.

use super::support::inputs::{at_most, check_dtype, check_size, extents, required};
use super::support::lists::{known_i64s, list_i64, product};
use super::support::number::Number;
use super::support::window::{per_axis, read_pads, read_sizes, write_pads, write_sizes, zip_pads};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::geometry::ConvAxis;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Col2Im`: `input [N, C * block.., L], image_shape, block_shape -> [N, C, image..]`.
///
/// Column `l` holds the block that a convolution with these strides, dilations and pads would read for its output `l`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Col2Im {
    /// Strides of the blocks; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations of a block; empty is all 1.
    pub dilations: Vec<usize>,
    /// Pads of the image at the beginning of each axis; empty is all 0.
    pub begin: Vec<i64>,
    /// Pads of the image at the end of each axis; empty is all 0.
    pub end: Vec<i64>,
}

impl Col2Im {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let (begin, end) = read_pads(&mut attributes)?;
        let strides = read_sizes(&mut attributes, "strides")?;
        let op = Self { strides, dilations: read_sizes(&mut attributes, "dilations")?, begin, end };
        attributes.finish("dilations, pads, strides")?;
        Ok(op)
    }

    /// The axes of the convolution that reads the blocks from the image.
    ///
    /// # Errors
    /// When the numbers do not fit together.
    pub fn geometry(&self, image: &[i64], block: &[i64]) -> Result<Vec<ConvAxis>> {
        let axes = image.len();
        let strides = per_axis("strides", &self.strides, axes, 1)?;
        let dilations = per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = zip_pads(&self.begin, &self.end, axes)?;
        if block.len() != axes {
            let problem = format!("expected {axes} numbers as image_shape has, found {}", block.len());
            return Err(Error::input(2, "block_shape", problem));
        }
        let extent = |index, name, value: i64| {
            let problem =
                || Error::input(index, name, format!("{value} is no extent; accepted are 1 and up"));
            usize::try_from(value).map_err(|_| problem())
        };
        let axis = |i: usize| {
            ConvAxis::new(
                extent(1, "image_shape", image[i])?,
                extent(2, "block_shape", block[i])?,
                strides[i],
                dilations[i],
                pads[i],
            )
        };
        (0..axes).map(axis).collect()
    }
}

impl Operator for Col2Im {
    fn name(&self) -> &str {
        "Col2Im"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        write_sizes(&mut attributes, "strides", &self.strides);
        write_sizes(&mut attributes, "dilations", &self.dilations);
        write_pads(&mut attributes, &self.begin, &self.end);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (x, image) = (required(inputs, 0, "input")?.ty, required(inputs, 1, "image_shape")?);
        let block = required(inputs, 2, "block_shape")?;
        check_dtype(0, "input", x.dtype, DType::is_numeric, "numbers")?;
        let rows = match &x.shape {
            Some(shape) if shape.len() != 3 => {
                return Err(Error::input(0, "input", format!("expected [N, C * block, L], found {shape:?}")));
            }
            Some(shape) => [shape[0].clone(), shape[1].clone()],
            None => [Dim::unknown(), Dim::unknown()],
        };
        let Some(image) = extents(&image) else { return Ok(vec![ValueType { dtype: x.dtype, shape: None }]) };
        let channels = match known_i64s(&block)? {
            Some(block) => {
                let size = product(&block.iter().copied().map(Dim::constant).collect::<Vec<_>>())?;
                match (rows[1].known_i64(), size.known_i64()) {
                    (_, None | Some(..=0)) => {
                        return Err(Error::input(2, "block_shape", format!("{block:?} is no block")));
                    }
                    (Some(rows), Some(size)) if rows % size != 0 => {
                        let problem = format!("expected a multiple of {size} rows, found {rows}");
                        return Err(Error::input(0, "input", problem));
                    }
                    (_, Some(size)) => rows[1].floor_div(size)?,
                }
            }
            None => Dim::unknown(),
        };
        let shape = [rows[0].clone(), channels].into_iter().chain(image).collect();
        Ok(vec![ValueType { dtype: x.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        let list = |index, name| list_i64(required(inputs, index, name)?, index, name);
        let axes = self.geometry(&list(1, "image_shape")?, &list(2, "block_shape")?)?;
        let block: usize = axes.iter().map(ConvAxis::kernel).product();
        let columns: usize = axes.iter().map(ConvAxis::output).product();
        let &[batch, rows, found] = x.shape() else {
            return Err(Error::input(
                0,
                "input",
                format!("expected [N, C * block, L], found {:?}", x.shape()),
            ));
        };
        if found != columns || rows % block != 0 {
            let problem = format!("expected [N, C * {block}, {columns}], found {:?}", x.shape());
            return Err(Error::input(0, "input", problem));
        }
        let image: Vec<usize> = axes.iter().map(ConvAxis::input).collect();
        let shape = [&[batch, rows / block], image.as_slice()].concat();
        check_size(x.dtype(), &shape)?;
        let area: usize = image.iter().product();
        dispatch_numeric!(x.dtype(), T => {
            let data = x.elements::<T>()?;
            let element = |i: usize| {
                let (plane, place) = (i / area * block * columns, coordinates(i % area, &axes, ConvAxis::input));
                let addends = (0..block).filter_map(|tap| {
                    Some(data[plane + tap * columns + column(&axes, &place, tap)?])
                });
                T::sum(addends)
            };
            let count = shape.iter().product();
            Ok(vec![Tensor::from_vec(shape, (0..count).map(element).collect())?])
        })
    }
}

/// Coordinates of a row-major index, by what extent each axis has.
fn coordinates(mut index: usize, axes: &[ConvAxis], extent: fn(&ConvAxis) -> usize) -> Vec<usize> {
    let mut coordinates = vec![0; axes.len()];
    for (coordinate, axis) in coordinates.iter_mut().zip(axes).rev() {
        *coordinate = index % extent(axis);
        index /= extent(axis);
    }
    coordinates
}

/// The column whose block has a place of the image under that tap.
fn column(axes: &[ConvAxis], place: &[usize], tap: usize) -> Option<usize> {
    let taps = coordinates(tap, axes, ConvAxis::kernel);
    axes.iter().zip(place.iter().zip(taps)).try_fold(0, |column, (axis, (&i, k))| {
        let distance = usize::try_from(i as i64 + axis.pad() - (k * axis.dilation()) as i64).ok()?;
        let o = distance / axis.stride();
        let is_there = distance.is_multiple_of(axis.stride()) && o < axis.output();
        is_there.then_some(column * axis.output() + o)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &Col2Im, x: &Tensor, image: &[i64], block: &[i64]) -> Result<Vec<f64>> {
        let (image, block) = (Tensor::from_i64s(image), Tensor::from_i64s(block));
        op.eval(&[Some(x), Some(&image), Some(&block)], 1)?[0].to_f64s()
    }

    #[test]
    fn overlaps_are_added() {
        let x = Tensor::from_vec([1, 2, 3], vec![1f32, 2.0, 3.0, 10.0, 20.0, 30.0]).unwrap();
        assert_eq!(run(&Col2Im::default(), &x, &[4], &[2]), Ok(vec![1.0, 12.0, 23.0, 30.0]));
        let padded = Col2Im { begin: vec![1], end: vec![0], ..Col2Im::default() };
        assert_eq!(run(&padded, &x, &[3], &[2]), Ok(vec![12.0, 23.0, 30.0]));
        let dilated = Col2Im { dilations: vec![2], ..Col2Im::default() };
        assert_eq!(Col2Im::read(dilated.attributes()), Ok(dilated.clone()));
        assert_eq!(run(&dilated, &x, &[5], &[2]), Ok(vec![1.0, 2.0, 13.0, 20.0, 30.0]));
        assert!(run(&dilated, &x, &[4], &[2]).is_err());
        assert!(run(&dilated, &x, &[-1], &[2]).is_err());
        assert!(run(&dilated, &x, &[5, 5], &[2]).is_err());
    }
}
