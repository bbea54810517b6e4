//! Reductions over axes: ReduceSum and its siblings. ArgMax and ArgMin are in `arg_reduce`.

use super::support::broadcast::{Walk, strides};
use super::support::inputs::{at_most, check_dtype, extents, optional, required, resolve_axes, unwrapped};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// ONNX `ReduceSum`, `ReduceMean` and so on: `data, axes? -> reduced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduce {
    /// What each group of elements becomes.
    pub kind: ReduceKind,
    /// Reduced axes stay, with extent 1.
    pub keepdims: bool,
    /// Without axes, or with an empty list of them, the data passes unchanged; otherwise all axes are reduced then.
    pub noop_with_empty_axes: bool,
}

/// What a [`Reduce`] makes of a group of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// Sum; 0 of nothing.
    Sum,
    /// Mean; NaN of nothing.
    Mean,
    /// Greatest; the least number (negative infinity for floats) of nothing.
    Max,
    /// Least; the greatest number of nothing.
    Min,
    /// Product; 1 of nothing.
    Prod,
    /// Sum of magnitudes.
    L1,
    /// Root of the sum of squares.
    L2,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of exponentials.
    LogSumExp,
    /// Sum of squares.
    SumSquare,
}

impl ReduceKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Sum,
        Self::Mean,
        Self::Max,
        Self::Min,
        Self::Prod,
        Self::L1,
        Self::L2,
        Self::LogSum,
        Self::LogSumExp,
        Self::SumSquare,
    ];

    /// ONNX's name of the operator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "ReduceSum",
            Self::Mean => "ReduceMean",
            Self::Max => "ReduceMax",
            Self::Min => "ReduceMin",
            Self::Prod => "ReduceProd",
            Self::L1 => "ReduceL1",
            Self::L2 => "ReduceL2",
            Self::LogSum => "ReduceLogSum",
            Self::LogSumExp => "ReduceLogSumExp",
            Self::SumSquare => "ReduceSumSquare",
        }
    }

    fn accepts(self, dtype: DType) -> bool {
        dtype.is_numeric() || (dtype == DType::Bool && matches!(self, Self::Max | Self::Min))
    }

    /// The reduction of one group.
    fn apply<T: Number>(self, group: impl Iterator<Item = T> + Clone) -> T {
        let real = group.clone().map(T::to_f64);
        match self {
            Self::Sum => T::sum(group),
            Self::SumSquare => T::dot(group.clone().zip(group)),
            Self::L1 => T::sum(group.map(magnitude)),
            Self::Max => group.fold(T::LOWEST, T::max_nan),
            Self::Min => group.fold(T::HIGHEST, T::min_nan),
            Self::Prod if T::DTYPE.is_float() => T::from_f64(real.product()),
            Self::Prod => group.fold(T::from_f64(1.0), T::mul),
            Self::Mean => T::from_f64(real.clone().sum::<f64>() / real.count() as f64),
            Self::L2 => T::from_f64(real.map(|x| x * x).sum::<f64>().sqrt()),
            Self::LogSum => T::from_f64(real.sum::<f64>().ln()),
            Self::LogSumExp => {
                let max = real.clone().fold(f64::NEG_INFINITY, f64::max);
                let shift = if max.is_finite() { max } else { 0.0 };
                T::from_f64(real.map(|x| (x - shift).exp()).sum::<f64>().ln() + shift)
            }
        }
    }
}

fn magnitude<T: Number>(x: T) -> T {
    let zero = T::from_f64(0.0);
    if x < zero { zero.sub(x) } else { x }
}

impl Reduce {
    /// Reads the operator of that name; `Ok(None)` when the name is no reduction's.
    ///
    /// # Errors
    /// When an attribute is unknown or out of range.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let Some(&kind) = ReduceKind::ALL.iter().find(|kind| kind.name() == name) else { return Ok(None) };
        let op = Self {
            kind,
            keepdims: attributes.flag("keepdims", true)?,
            noop_with_empty_axes: attributes.flag("noop_with_empty_axes", false)?,
        };
        attributes.finish("keepdims, noop_with_empty_axes; the axes are an input")?;
        Ok(Some(op))
    }

    /// For each axis, whether it is reduced; `axes` are those of the input, which may be absent.
    ///
    /// # Errors
    /// When an axis is not one of `rank`, or named twice.
    pub fn reduced(self, axes: Option<&[i64]>, rank: usize) -> Result<Vec<bool>> {
        match axes {
            None | Some([]) => Ok(vec![!self.noop_with_empty_axes; rank]),
            Some(axes) => {
                let axes = resolve_axes("axes", axes, rank)?;
                Ok((0..rank).map(|axis| axes.contains(&axis)).collect())
            }
        }
    }
}

/// Shape without the reduced axes, or with 1 in their place.
pub(super) fn reduced_shape<T: Clone>(shape: &[T], reduced: &[bool], keepdims: bool, one: &T) -> Vec<T> {
    let axes = shape.iter().zip(reduced);
    axes.filter(|(_, reduced)| keepdims || !**reduced)
        .map(|(extent, reduced)| if *reduced { one.clone() } else { extent.clone() })
        .collect()
}

/// Where the groups of a reduction start, and where their elements are from there.
pub(super) fn groups(shape: &[usize], reduced: &[bool]) -> (Walk, Vec<usize>) {
    let strides = strides(shape);
    let part = |wanted: bool, of: &[usize]| -> Vec<usize> {
        of.iter().zip(reduced).filter(|(_, reduced)| **reduced == wanted).map(|(&value, _)| value).collect()
    };
    let starts = Walk::new(&part(false, shape), &part(false, &strides));
    (starts, Walk::new(&part(true, shape), &part(true, &strides)).collect())
}

impl Operator for Reduce {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if !self.keepdims {
            attributes.set("keepdims", false);
        }
        if self.noop_with_empty_axes {
            attributes.set("noop_with_empty_axes", true);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let data = required(inputs, 0, "data")?;
        let dtype = data.ty.dtype;
        check_dtype(0, "data", dtype, |dtype| self.kind.accepts(dtype), "numbers")?;
        let axes = optional(inputs, 1);
        if let Some(axes) = &axes {
            check_dtype(1, "axes", axes.ty.dtype, |dtype| dtype == DType::I64, "i64")?;
        }
        let Some(shape) = &data.ty.shape else { return Ok(vec![ValueType { dtype, shape: None }]) };
        let known: Option<Vec<i64>> = match &axes {
            None => Some(vec![]),
            Some(axes) => extents(axes).and_then(|axes| axes.iter().map(Dim::known_i64).collect()),
        };
        let shape = match known {
            Some(axes) => {
                let reduced = self.reduced(Some(&axes), shape.len())?;
                Some(reduced_shape(shape, &reduced, self.keepdims, &Dim::constant(1)))
            }
            // Any axis may be the one.
            None => self.keepdims.then(|| vec![Dim::unknown(); shape.len()]),
        };
        Ok(vec![ValueType { dtype, shape }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let data = inputs.first()?.as_ref()?;
        let dims = extents(data).filter(|_| data.ty.rank() == Some(1))?;
        let axes = match optional(inputs, 1) {
            None => vec![],
            Some(axes) => extents(&axes)?.iter().map(Dim::known_i64).collect::<Option<_>>()?,
        };
        if self.reduced(Some(&axes), 1).ok()? == [false] {
            return Some(dims);
        }
        let fold = |start: i64, f: fn(&Dim, &Dim) -> Result<Dim>| {
            dims.iter().try_fold(Dim::constant(start), |a, b| f(&a, b)).ok()
        };
        let result = match self.kind {
            ReduceKind::Prod => fold(1, Dim::mul)?,
            ReduceKind::Sum => fold(0, Dim::add)?,
            _ => return None,
        };
        unwrapped(vec![result], data.ty.dtype)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let data = required(inputs, 0, "data")?;
        check_dtype(0, "data", Some(data.dtype()), |dtype| self.kind.accepts(dtype), "numbers")?;
        let axes = optional(inputs, 1).map(Tensor::to_i64s).transpose()?;
        let reduced = self.reduced(axes.as_deref(), data.rank())?;
        if self.noop_with_empty_axes && axes.is_none_or(|axes| axes.is_empty()) {
            return Ok(vec![data.clone()]);
        }
        let shape = reduced_shape(data.shape(), &reduced, self.keepdims, &1);
        element_count(&shape)?;
        let (starts, offsets) = groups(data.shape(), &reduced);
        if data.dtype() == DType::Bool {
            let bytes = data.bytes();
            let truth = starts.map(|start| match self.kind {
                ReduceKind::Max => offsets.iter().any(|at| bytes[start + at] != 0),
                _ => offsets.iter().all(|at| bytes[start + at] != 0),
            });
            return Ok(vec![Tensor::from_bools(shape, truth)?]);
        }
        dispatch_numeric!(data.dtype(), T => {
            let elements = data.elements::<T>()?;
            let group = |start: usize| self.kind.apply(offsets.iter().map(|at| elements[start + at]));
            Ok(vec![Tensor::from_vec(shape.clone(), starts.map(group).collect())?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: ReduceKind) -> Reduce {
        Reduce { kind, keepdims: false, noop_with_empty_axes: false }
    }

    fn eval(op: Reduce, x: &Tensor, axes: Option<&[i64]>) -> Tensor {
        let axes = axes.map(Tensor::from_i64s);
        op.eval(&[Some(x), axes.as_ref()], 1).unwrap().remove(0)
    }

    #[test]
    fn every_kind_on_one_row() {
        let x = Tensor::from_vec([3], vec![1f64, -2.0, 4.0]).unwrap();
        for (kind, expected) in [
            (ReduceKind::Sum, 3.0),
            (ReduceKind::Mean, 1.0),
            (ReduceKind::Max, 4.0),
            (ReduceKind::Min, -2.0),
            (ReduceKind::Prod, -8.0),
            (ReduceKind::L1, 7.0),
            (ReduceKind::L2, 21f64.sqrt()),
            (ReduceKind::LogSum, 3f64.ln()),
            (ReduceKind::LogSumExp, (1f64.exp() + (-2f64).exp() + 4f64.exp()).ln()),
            (ReduceKind::SumSquare, 21.0),
        ] {
            let result = eval(op(kind), &x, None).to_f64s().unwrap();
            assert!((result[0] - expected).abs() < 1e-12, "{kind:?}");
            let read = Reduce::read(kind.name(), op(kind).attributes());
            assert_eq!(read, Ok(Some(op(kind))));
        }
    }

    #[test]
    fn axes_pick_the_groups() {
        let x = Tensor::from_vec([2, 3, 2], (0..12).collect::<Vec<i32>>()).unwrap();
        let sum = eval(op(ReduceKind::Sum), &x, Some(&[0, -1]));
        assert_eq!(sum, Tensor::from_vec([3], vec![1 + 6 + 7, 2 + 3 + 8 + 9, 4 + 5 + 10 + 11]).unwrap());
        let kept = Reduce { keepdims: true, ..op(ReduceKind::Max) };
        assert_eq!(eval(kept, &x, Some(&[1])), Tensor::from_vec([2, 1, 2], vec![4, 5, 10, 11]).unwrap());
        let noop = Reduce { noop_with_empty_axes: true, ..op(ReduceKind::Sum) };
        assert_eq!(eval(noop, &x, Some(&[])), x);
        let axes = Tensor::from_i64s(&[1, -2]);
        assert!(op(ReduceKind::Sum).eval(&[Some(&x), Some(&axes)], 1).is_err());
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let x = Tensor::zeros(DType::F32, [2, 0]).unwrap();
        for (kind, expected) in [
            (ReduceKind::Sum, 0.0),
            (ReduceKind::Prod, 1.0),
            (ReduceKind::Max, f64::NEG_INFINITY),
            (ReduceKind::Min, f64::INFINITY),
            (ReduceKind::LogSumExp, f64::NEG_INFINITY),
        ] {
            assert_eq!(eval(op(kind), &x, Some(&[1])).to_f64s().unwrap(), [expected; 2], "{kind:?}");
        }
        assert!(eval(op(ReduceKind::Mean), &x, Some(&[1])).to_f64s().unwrap()[0].is_nan());
        assert_eq!(eval(op(ReduceKind::Sum), &x, Some(&[0])).shape(), [0]);
    }

    #[test]
    fn truth_values_and_wide_integers() {
        let x = Tensor::from_bools([2, 2], [true, false, true, true]).unwrap();
        assert_eq!(
            eval(op(ReduceKind::Min), &x, Some(&[1])),
            Tensor::from_bools([2], [false, true]).unwrap()
        );
        let x = Tensor::from_i64s(&[i64::MAX, i64::MAX - 1]);
        assert_eq!(eval(op(ReduceKind::Min), &x, None), Tensor::scalar(i64::MAX - 1));
        assert_eq!(eval(op(ReduceKind::Sum), &x, None), Tensor::scalar(-3i64));
    }

    #[test]
    fn product_of_a_shape_stays_symbolic() {
        let ty = ValueType::new(DType::I64, [3usize]);
        let dims = [Dim::symbol("H"), Dim::symbol("W"), Dim::constant(2)];
        let input = Some(InputInfo { ty: &ty, constant: None, extents: Some(&dims) });
        let product = op(ReduceKind::Prod).infer_extents(&[input]).unwrap();
        assert_eq!(product[0].to_string(), "2*H*W");
        let inferred = op(ReduceKind::Prod).infer(&[input], 1).unwrap();
        assert_eq!(inferred[0], ValueType::new(DType::I64, [0usize; 0]));
    }
}
