//! MaxUnpool: the elements of a largest-of-window pooling back at the places they came from.

use super::movement::Raw;
use super::support::inputs::{at_most, check_dtype, check_size, extents, optional, required};
use super::support::lists::{list_i64, output_shape};
use super::support::window::{per_axis, read_pads, read_sizes, write_pads, write_sizes, zip_pads};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::geometry::DeconvAxis;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `MaxUnpool`: `X, I, output_shape? -> output`, zero but for the elements of `X`.
///
/// The indices count in an output whose extents follow from kernel, strides and pads; a larger `output_shape` has it in its
/// first corner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxUnpool {
    /// Extents of a window.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Pads at the beginning of each axis; empty is all 0.
    pub begin: Vec<i64>,
    /// Pads at the end of each axis; empty is all 0.
    pub end: Vec<i64>,
}

impl MaxUnpool {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let (begin, end) = read_pads(&mut attributes)?;
        let op = Self {
            kernel_shape: attributes
                .sizes("kernel_shape")?
                .ok_or_else(|| Error::attribute("kernel_shape", "is required"))?,
            strides: read_sizes(&mut attributes, "strides")?,
            begin,
            end,
        };
        attributes.finish("kernel_shape, pads, strides")?;
        Ok(op)
    }

    /// Extents that follow from an input of that shape.
    ///
    /// # Errors
    /// When the input has other axes than the windows, or an extent overflows.
    pub fn pooled_from(&self, input: &[usize]) -> Result<Vec<usize>> {
        let axes = self.kernel_shape.len();
        if input.len() != axes + 2 {
            let problem = format!("expected [N, C, ..] with {axes} spatial axes, found shape {input:?}");
            return Err(Error::input(0, "X", problem));
        }
        let strides = per_axis("strides", &self.strides, axes, 1)?;
        let pads = zip_pads(&self.begin, &self.end, axes)?;
        let extent = |i: usize| {
            Ok(DeconvAxis::new(input[i + 2], self.kernel_shape[i], strides[i], 1, pads[i])?.output())
        };
        let spatial: Vec<usize> = (0..axes).map(extent).collect::<Result<_>>()?;
        Ok([&input[..2], &spatial].concat())
    }
}

impl Operator for MaxUnpool {
    fn name(&self) -> &str {
        "MaxUnpool"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("kernel_shape", self.kernel_shape.as_slice());
        write_sizes(&mut attributes, "strides", &self.strides);
        write_pads(&mut attributes, &self.begin, &self.end);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (x, indices) = (required(inputs, 0, "X")?.ty, required(inputs, 1, "I")?.ty);
        check_dtype(1, "I", indices.dtype, |dtype| dtype == DType::I64, "i64")?;
        let inferred = x.known_shape().map(|shape| self.pooled_from(&shape)).transpose()?;
        let inferred = inferred.map(|shape| shape.into_iter().map(Dim::from).collect());
        let shape = match optional(inputs, 2) {
            Some(wanted) => extents(&wanted),
            None => inferred.or(x.rank().map(|rank| vec![Dim::unknown(); rank])),
        };
        Ok(vec![ValueType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, indices) = (required(inputs, 0, "X")?, required(inputs, 1, "I")?);
        if let Some(wanted) = optional(inputs, 2) {
            list_i64(wanted, 2, "output_shape")?;
        }
        let (shape, inner) = (output_shape(self, inputs)?, self.pooled_from(x.shape())?);
        if shape.len() != inner.len() || shape.iter().zip(&inner).any(|(outer, inner)| outer < inner) {
            let problem = format!("expected at least {inner:?}, found {shape:?}");
            return Err(Error::input(2, "output_shape", problem));
        }
        if indices.shape() != x.shape() {
            let problem =
                format!("expected shape {:?} as the data has, found {:?}", x.shape(), indices.shape());
            return Err(Error::input(1, "I", problem));
        }
        check_size(x.dtype(), &shape)?;
        let (elements, count) = (Raw::of(x)?, inner.iter().product::<usize>());
        let mut output = Raw::zeros(x.dtype(), shape.iter().product())?;
        for (i, index) in indices.to_i64s()?.into_iter().enumerate() {
            let index = usize::try_from(index).ok().filter(|&index| index < count).ok_or_else(|| {
                Error::input(
                    1,
                    "I",
                    format!("{index} is out of range for {count} elements of shape {inner:?}"),
                )
            })?;
            // The same coordinates in the larger shape.
            let (mut rest, mut place, mut step) = (index, 0, 1);
            for (inner, outer) in inner.iter().zip(&shape).rev() {
                place += rest % inner * step;
                rest /= inner;
                step *= outer;
            }
            output.set(place, elements.get(i));
        }
        Ok(vec![output.into_tensor(shape)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_go_back_to_their_places() {
        let x = Tensor::from_vec([1, 1, 2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let run = |indices: [i64; 4], shape: Option<&Tensor>| {
            let indices = Tensor::from_vec([1, 1, 2, 2], indices.to_vec()).unwrap();
            let op = MaxUnpool { kernel_shape: vec![2, 2], strides: vec![2, 2], begin: vec![], end: vec![] };
            assert_eq!(MaxUnpool::read(op.attributes()), Ok(op.clone()));
            op.eval(&[Some(&x), Some(&indices), shape], 1)?[0].to_f64s()
        };
        let mut expected = vec![0.0; 16];
        for (place, value) in [(5, 1.0), (7, 2.0), (13, 3.0), (15, 4.0)] {
            expected[place] = value;
        }
        assert_eq!(run([5, 7, 13, 15], None), Ok(expected));
        let mut expected = vec![0.0; 25];
        for (place, value) in [(6, 1.0), (8, 2.0), (16, 3.0), (18, 4.0)] {
            expected[place] = value;
        }
        assert_eq!(run([5, 7, 13, 15], Some(&Tensor::from_i64s(&[1, 1, 5, 5]))), Ok(expected));
        assert!(run([5, 7, 13, 16], None).is_err());
        assert!(run([5, 7, 13, -1], None).is_err());
        assert!(run([5, 7, 13, 15], Some(&Tensor::from_i64s(&[1, 1, 3, 5]))).is_err());
    }
}
