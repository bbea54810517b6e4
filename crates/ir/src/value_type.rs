//! Element type and shape of a value, as far as known.

use crate::dim::Dim;
use crate::dtype::DType;
use crate::tensor::Tensor;
use std::fmt;

/// Element type and shape of a value, as far as known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueType {
    /// Element type; `None` where an operator that we do not know made it.
    pub dtype: Option<DType>,
    /// Extents; `None` where not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl ValueType {
    /// Known type and extents.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        Self { dtype: Some(dtype), shape: Some(shape.into_iter().map(Into::into).collect()) }
    }

    /// Known type, unknown rank.
    pub fn unranked(dtype: DType) -> Self {
        Self { dtype: Some(dtype), shape: None }
    }

    /// The type of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.dtype(), tensor.shape().iter().copied())
    }

    /// The extents when all are known.
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// Bytes of a tensor of this type, when type and extents are known; of more than can be counted, the most that can.
    pub fn known_bytes(&self) -> Option<usize> {
        let count = self.known_shape()?.into_iter().fold(1usize, usize::saturating_mul);
        self.dtype.map(|dtype| dtype.bytes_for(count).unwrap_or(usize::MAX))
    }

    /// True when a tensor may be a value of this type: what is known of it agrees.
    pub fn holds(&self, tensor: &Tensor) -> bool {
        let fits = |(dim, extent): (&Dim, &usize)| dim.known().is_none_or(|known| known == *extent);
        self.dtype.is_none_or(|dtype| dtype == tensor.dtype())
            && self.shape.as_ref().is_none_or(|shape| {
                shape.len() == tensor.rank() && shape.iter().zip(tensor.shape()).all(fits)
            })
    }

    /// True when both know a rank or an extent, and it differs.
    pub fn contradicts(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (&self.shape, &other.shape) else { return false };
        let differ =
            |(a, b): (&Dim, &Dim)| matches!((a.known_i64(), b.known_i64()), (Some(a), Some(b)) if a != b);
        a.len() != b.len() || a.iter().zip(b).any(differ)
    }

    /// Number of axes, when known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

impl fmt::Display for ValueType {
    /// `f32[1, 64, H, 2*W]`; `?` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(dtype) => write!(f, "{dtype}")?,
            None => f.write_str("?")?,
        }
        match &self.shape {
            None => f.write_str("[..]"),
            Some(shape) => {
                f.write_str("[")?;
                for (i, dim) in shape.iter().enumerate() {
                    write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}
