//! Dense tensors, row-major, with shared immutable storage.

use crate::budget::{self, Charge};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::pages::{LARGE_BYTES, Pages};
use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Largest tensor this crate makes or accepts, in bytes: a bound for hostile shapes, far above real networks.
pub const MAX_TENSOR_BYTES: usize = 1 << 30;

/// Bytes owned by something else: a buffer, or a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A dense row-major tensor. Cloning shares the bytes.
///
/// Equality compares type, shape and bytes, so that NaN equals itself and -0.0 differs from 0.0.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: SharedBytes,
    offset: usize,
    bytes: usize,
    /// Where the storage is not aligned for the elements: a copy that is, made when somebody asks for elements.
    aligned: Option<Arc<OnceLock<Elements<u64>>>>,
}

/// Elements to be written, zero at first; many of them in memory of their own.
pub(crate) struct LargeVec<T> {
    memory: Memory,
    charge: Charge,
    elements: PhantomData<T>,
}

enum Memory {
    Words(Vec<u64>),
    Pages(Pages),
}

impl<T: Element> LargeVec<T> {
    /// So many zeros.
    ///
    /// # Errors
    /// When the budget does not allow them, or the system has no memory for them.
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| no_memory(usize::MAX))?;
        let charge = budget::take(bytes)?;
        let memory = if bytes >= LARGE_BYTES {
            Memory::Pages(Pages::zeroed(bytes).ok_or_else(|| no_memory(bytes))?)
        } else {
            Memory::Words(vec![0; bytes.div_ceil(8)])
        };
        Ok(Self { memory, charge, elements: PhantomData })
    }

    /// The elements, perhaps with a few more at the end.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.memory {
            Memory::Words(words) => bytemuck::cast_slice_mut(words),
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }

    /// As a tensor.
    pub(crate) fn into_tensor(self, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        self.into_tensor_of(T::DTYPE, shape)
    }

    /// As a tensor of a type whose elements are stored in the same way.
    pub(crate) fn into_tensor_of(self, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let storage: SharedBytes = match self.memory {
            Memory::Words(words) => Arc::new(Elements::new(words, self.charge)),
            Memory::Pages(pages) => Arc::new(ChargedPages { pages, _charge: self.charge }),
        };
        Tensor::from_shared(dtype, shape.into(), storage, 0)
    }
}

/// Pages, and what they take of a budget.
struct ChargedPages {
    pages: Pages,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedPages {
    fn as_ref(&self) -> &[u8] {
        &self.pages
    }
}

/// Vec of elements seen as bytes, aligned for the elements, and what it takes of a budget.
struct Elements<T> {
    data: Vec<T>,
    _charge: Charge,
}

impl<T> Elements<T> {
    fn new(data: Vec<T>, charge: Charge) -> Self {
        Self { data, _charge: charge }
    }
}

/// The error where the system does not give so many bytes.
fn no_memory(bytes: usize) -> Error {
    Error::Size(format!("the system has no memory for {bytes} bytes"))
}

impl<T: bytemuck::Pod> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data)
    }
}

/// Number of elements of a shape.
///
/// # Errors
/// When the product of the extents is over [`MAX_TENSOR_BYTES`] (with one byte an element). Extents of zero do not count
/// for that, so that the product of any axes of a shape that passes can be taken without care.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    let product = |product: usize, &extent: &usize| product.checked_mul(extent.max(1));
    match shape.iter().try_fold(1, product).filter(|&count| count <= MAX_TENSOR_BYTES) {
        Some(count) => Ok(if shape.contains(&0) { 0 } else { count }),
        None => Err(Error::Size(format!(
            "a tensor of shape {shape:?} is too large (at most {MAX_TENSOR_BYTES} bytes)"
        ))),
    }
}

fn byte_count(dtype: DType, shape: &[usize]) -> Result<usize> {
    dtype.bytes_for(element_count(shape)?).filter(|&bytes| bytes <= MAX_TENSOR_BYTES).ok_or_else(|| {
        Error::Size(format!(
            "a {dtype} tensor of shape {shape:?} is too large (at most {MAX_TENSOR_BYTES} bytes)"
        ))
    })
}

impl Tensor {
    /// From elements in row-major order.
    ///
    /// # Errors
    /// When the number of elements is not the product of `shape`, or too large.
    pub fn from_vec<T: Element>(shape: impl Into<Vec<usize>>, data: Vec<T>) -> Result<Self> {
        Self::from_elements(T::DTYPE, shape.into(), data)
    }

    /// From booleans in row-major order.
    ///
    /// # Errors
    /// As [`Tensor::from_vec`].
    pub fn from_bools(shape: impl Into<Vec<usize>>, data: impl IntoIterator<Item = bool>) -> Result<Self> {
        Self::from_elements(DType::Bool, shape.into(), data.into_iter().map(u8::from).collect())
    }

    fn from_elements<T: bytemuck::Pod + Send + Sync>(
        dtype: DType,
        shape: Vec<usize>,
        data: Vec<T>,
    ) -> Result<Self> {
        let bytes = byte_count(dtype, &shape)?;
        if bytes != size_of_val(data.as_slice()) {
            return Err(Error::Size(format!(
                "{} elements do not fill a {dtype} tensor of shape {shape:?}",
                data.len()
            )));
        }
        let storage = Arc::new(Elements::new(data, budget::take(bytes)?));
        Ok(Self { dtype, shape, storage, offset: 0, bytes, aligned: None })
    }

    /// From raw little-endian bytes, which become the tensor's own and count for the budget of the thread.
    ///
    /// # Errors
    /// As [`Tensor::from_shared`], and when the budget does not allow them.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Result<Self> {
        let charge = budget::take(bytes.len())?;
        Self::from_shared(dtype, shape.into(), Arc::new(Elements::new(bytes, charge)), 0)
    }

    /// From raw little-endian bytes, shared and not copied; `offset` is where the tensor starts in `storage`.
    ///
    /// # Errors
    /// When the bytes do not suffice for `shape`, or the tensor is too large.
    pub fn from_shared(dtype: DType, shape: Vec<usize>, storage: SharedBytes, offset: usize) -> Result<Self> {
        let have = storage.as_ref().as_ref().len();
        let bytes =
            if dtype == DType::String { have.saturating_sub(offset) } else { byte_count(dtype, &shape)? };
        if offset.checked_add(bytes).is_none_or(|end| end > have) {
            return Err(Error::Size(format!(
                "a {dtype} tensor of shape {shape:?} takes {bytes} bytes, {} are there",
                have.saturating_sub(offset)
            )));
        }
        if dtype == DType::Bool
            && storage.as_ref().as_ref()[offset..offset + bytes].iter().any(|&byte| byte > 1)
        {
            let bools: Vec<u8> = storage.as_ref().as_ref()[offset..offset + bytes]
                .iter()
                .map(|&byte| u8::from(byte != 0))
                .collect();
            return Self::from_elements(DType::Bool, shape, bools);
        }
        let start = storage.as_ref().as_ref().as_ptr().addr() + offset;
        let aligned = start.is_multiple_of((dtype.bits() / 8).max(1));
        let aligned = if aligned || !dtype.is_numeric() { None } else { Some(Arc::default()) };
        Ok(Self { dtype, shape, storage, offset, bytes, aligned })
    }

    /// All elements zero (false).
    ///
    /// # Errors
    /// When the tensor is too large.
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        let bytes = byte_count(dtype, &shape)?;
        LargeVec::<u8>::zeroed(bytes)?.into_tensor_of(dtype, shape)
    }

    /// Elements that look random and are the same on every run and machine: floats in (-1, 1), integers 0 to 7, booleans.
    ///
    /// # Errors
    /// When the tensor is too large, or its element type is no number.
    pub fn seeded(dtype: DType, shape: impl Into<Vec<usize>>, seed: u64) -> Result<Self> {
        let shape = shape.into();
        let count = element_count(&shape)?;
        budget::ask(byte_count(dtype, &shape)?)?;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
        // SplitMix64.
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        if dtype == DType::Bool {
            return Self::from_bools(shape, (0..count).map(|_| next() >> 63 == 1).collect::<Vec<_>>());
        }
        crate::dispatch_numeric!(dtype, T => {
            let value = |bits: u64| if dtype.is_float() { (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0 } else { (bits >> 61) as f64 };
            Self::from_vec(shape, (0..count).map(|_| T::from_f64(value(next()))).collect())
        })
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self {
            dtype: T::DTYPE,
            shape: vec![],
            storage: Arc::new(Elements::new(vec![value], Charge::default())),
            offset: 0,
            bytes: size_of::<T>(),
            aligned: None,
        }
    }

    /// A 1-D tensor of `i64`, the type of ONNX's shapes and axes.
    pub fn from_i64s(values: &[i64]) -> Self {
        Self {
            dtype: DType::I64,
            shape: vec![values.len()],
            bytes: size_of_val(values),
            storage: Arc::new(Elements::new(values.to_vec(), Charge::default())),
            offset: 0,
            aligned: None,
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.as_ref().as_ref()[self.offset..self.offset + self.bytes]
    }

    /// The elements; where the storage is not aligned for them, a copy that is made once.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn elements<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.dtype != T::DTYPE {
            return Err(Error::Type(format!("expected a {} tensor, found {}", T::DTYPE, self.dtype)));
        }
        if let Ok(slice) = bytemuck::try_cast_slice(self.bytes()) {
            return Ok(Cow::Borrowed(slice));
        }
        let copy = || bytemuck::allocation::pod_collect_to_vec(self.bytes());
        let Some(aligned) = &self.aligned else { return Ok(Cow::Owned(copy())) };
        let words = || {
            let mut words = vec![0u64; self.bytes.div_ceil(8)];
            bytemuck::cast_slice_mut(&mut words)[..self.bytes].copy_from_slice(self.bytes());
            Elements::new(words, Charge::default())
        };
        let bytes = &aligned.get_or_init(words).as_ref()[..self.bytes];
        Ok(bytemuck::try_cast_slice(bytes).map_or_else(|_| Cow::Owned(copy()), Cow::Borrowed))
    }

    /// The elements in order, aligned or not, for those who stop early: nothing is copied.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn each<T: Element>(&self) -> Result<impl Iterator<Item = T> + '_> {
        if self.dtype != T::DTYPE {
            return Err(Error::Type(format!("expected a {} tensor, found {}", T::DTYPE, self.dtype)));
        }
        Ok(self.bytes().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned))
    }

    /// The elements of a boolean tensor.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn bools(&self) -> Result<impl Iterator<Item = bool> + '_> {
        if self.dtype != DType::Bool {
            return Err(Error::Type(format!("expected a bool tensor, found {}", self.dtype)));
        }
        Ok(self.bytes().iter().map(|&byte| byte != 0))
    }

    /// The elements of any number or boolean tensor as `f64`.
    ///
    /// # Errors
    /// For element types that are not numbers.
    pub fn to_f64s(&self) -> Result<Vec<f64>> {
        if self.dtype == DType::Bool {
            return Ok(self.bytes().iter().map(|&byte| f64::from(u8::from(byte != 0))).collect());
        }
        crate::dispatch_numeric!(self.dtype, T => Ok(self.elements::<T>()?.iter().map(|&value| value.to_f64()).collect()))
    }

    /// As [`Tensor::to_f64s`], one after the other: nothing is copied.
    ///
    /// # Errors
    /// As there.
    pub fn f64s(&self) -> Result<Box<dyn Iterator<Item = f64> + '_>> {
        if self.dtype == DType::Bool {
            return Ok(Box::new(self.bytes().iter().map(|&byte| f64::from(u8::from(byte != 0)))));
        }
        crate::dispatch_numeric!(self.dtype, T => Ok(Box::new(self.each::<T>()?.map(Element::to_f64))))
    }

    /// The elements of an integer tensor (i64 or i32, as ONNX uses for shapes and indices) as `i64`.
    ///
    /// # Errors
    /// For other element types.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        match self.dtype {
            DType::I64 => Ok(self.elements::<i64>()?.into_owned()),
            DType::I32 => Ok(self.elements::<i32>()?.iter().map(|&value| i64::from(value)).collect()),
            other => Err(Error::Type(format!("expected an i64 or i32 tensor, found {other}"))),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        if element_count(&shape)? != self.len() {
            return Err(Error::Size(format!(
                "shape {:?} does not hold the elements of {shape:?}",
                self.shape
            )));
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// A 64-bit hash of type, shape and bytes, the same on every machine and run (FNV-1a).
    pub fn content_hash(&self) -> u64 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(self.dtype.name().as_bytes());
        for &extent in &self.shape {
            hasher.write(&(extent as u64).to_le_bytes());
        }
        hasher.write(self.bytes());
        hasher.finish()
    }
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?}, #{:016x})", self.dtype, self.shape, self.content_hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Tensor::from_vec([2, 3], vec![0f32; 5]).is_err());
        assert!(Tensor::zeros(DType::F32, [usize::MAX, 2]).is_err());
        assert!(Tensor::zeros(DType::F64, [MAX_TENSOR_BYTES / 4]).is_err());
        assert!(element_count(&[usize::MAX, usize::MAX, 0]).is_err());
        assert_eq!(element_count(&[1 << 20, 0, 1 << 10]), Ok(0));
        assert!(Tensor::from_shared(DType::F32, vec![2], Arc::new(vec![0u8; 8]), 1).is_err());
    }

    #[test]
    fn unaligned_storage_reads_the_same() {
        let mut bytes = vec![9u8];
        bytes.extend(1.5f32.to_le_bytes());
        let tensor = Tensor::from_shared(DType::F32, vec![1], Arc::new(bytes), 1).unwrap();
        assert_eq!(tensor.elements::<f32>().unwrap().as_ref(), &[1.5]);
        assert!(tensor.each::<f32>().unwrap().eq([1.5]) && tensor.each::<i32>().is_err());
        assert_eq!(tensor, Tensor::from_vec([1], vec![1.5f32]).unwrap());
    }

    #[test]
    fn hash_sees_shape_type_and_bytes() {
        let hashes = [
            Tensor::from_vec([2, 1], vec![0f32; 2]),
            Tensor::from_vec([1, 2], vec![0f32; 2]),
            Tensor::from_vec([1, 2], vec![0i32; 2]),
            Tensor::from_vec([1, 2], vec![0f32, 1.0]),
        ]
        .map(|tensor| tensor.unwrap().content_hash());
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b));
        }
    }
}
