//! NumPy's arrays as tensors, in both directions. Arrays of plain numbers, contiguous and in this machine's byte order, are
//! read and written where they lie; `tconvc/_arrays.py` makes such arrays of all others.
//!
//! Other Python threads may run while a network does. That they leave its arrays alone meanwhile is asked of the caller.

use crate::error::{raise, refuse};
use numpy::npyffi::flags::{NPY_ARRAY_CARRAY, NPY_ARRAY_WRITEABLE};
use numpy::npyffi::{NPY_TYPES, PY_ARRAY_API, npy_intp};
use numpy::{
    PyArray1, PyArrayDescr, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::PyTypeInfo;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use std::ffi::{c_int, c_void};
use std::ops::Range;
use tconvc::{DType, Tensor, TensorView, TensorViewMut};

/// Bytes that the address of every new array is a multiple of: a cache line.
const LINE: usize = 64;
/// The same of every array that a network reads or writes.
const WORD: usize = 4;

/// A function of `tconvc/_arrays.py`.
fn helper<'py>(py: Python<'py>, cell: &PyOnceLock<Py<PyAny>>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let found = || Ok::<_, PyErr>(py.import("tconvc._arrays")?.getattr(name)?.unbind());
    Ok(cell.get_or_try_init(py, found)?.bind(py).clone())
}

/// The element type of NumPy's type, where elements are bytes as a tensor has them.
fn dtype_of(descr: &Bound<'_, PyArrayDescr>) -> PyResult<Option<DType>> {
    if descr.num() < NPY_TYPES::NPY_USERDEF as c_int {
        if descr.is_native_byteorder() == Some(false) {
            return Ok(None);
        }
        return Ok(Some(match (descr.kind(), descr.itemsize()) {
            (b'f', 2) => DType::F16,
            (b'f', 4) => DType::F32,
            (b'f', 8) => DType::F64,
            (b'i', 1) => DType::I8,
            (b'i', 2) => DType::I16,
            (b'i', 4) => DType::I32,
            (b'i', 8) => DType::I64,
            (b'u', 1) => DType::U8,
            (b'u', 2) => DType::U16,
            (b'u', 4) => DType::U32,
            (b'u', 8) => DType::U64,
            (b'b', 1) => DType::Bool,
            (b'c', 8) => DType::C64,
            (b'c', 16) => DType::C128,
            _ => return Ok(None),
        }));
    }
    // Types that packages add, such as bfloat16 of ml_dtypes.
    let name = descr.typeobj().name()?;
    Ok(match name.to_str()? {
        "bfloat16" => Some(DType::BF16),
        "float8_e4m3fn" => Some(DType::F8E4M3FN),
        "float8_e4m3fnuz" => Some(DType::F8E4M3FNUZ),
        "float8_e5m2" => Some(DType::F8E5M2),
        "float8_e5m2fnuz" => Some(DType::F8E5M2FNUZ),
        "float8_e8m0fnu" => Some(DType::F8E8M0),
        _ => None,
    })
}

/// Whether NumPy can hold elements of this type as a tensor does.
pub fn is_plain(dtype: DType) -> bool {
    dtype.bits() >= 8
}

/// NumPy's type for elements.
fn descr_of(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    static TYPES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(match dtype {
        DType::F32 => numpy::dtype::<f32>(py),
        DType::F64 => numpy::dtype::<f64>(py),
        DType::I8 => numpy::dtype::<i8>(py),
        DType::I16 => numpy::dtype::<i16>(py),
        DType::I32 => numpy::dtype::<i32>(py),
        DType::I64 => numpy::dtype::<i64>(py),
        DType::U8 => numpy::dtype::<u8>(py),
        DType::U16 => numpy::dtype::<u16>(py),
        DType::U32 => numpy::dtype::<u32>(py),
        DType::U64 => numpy::dtype::<u64>(py),
        DType::Bool => numpy::dtype::<bool>(py),
        other => helper(py, &TYPES, "dtype_of")?.call1((other.name(),))?.cast_into::<PyArrayDescr>()?,
    })
}

/// The array that a value is, where its memory is a tensor's.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyUntypedArray>, DType)>> {
    let Ok(array) = value.cast::<PyUntypedArray>() else { return Ok(None) };
    if !array.is_c_contiguous() || !address(array).is_multiple_of(WORD) {
        return Ok(None);
    }
    Ok(dtype_of(&array.dtype())?.map(|dtype| (array.clone(), dtype)))
}

fn address(array: &Bound<'_, PyUntypedArray>) -> usize {
    // SAFETY: the pointer is to a live array, whose first field this is.
    unsafe { (*array.as_array_ptr()).fields.data as usize }
}

fn bytes_of(array: &Bound<'_, PyUntypedArray>) -> usize {
    array.len() * array.dtype().itemsize()
}

/// An array that is read.
pub struct Input<'py> {
    name: Bound<'py, PyString>,
    memory: Memory<'py>,
}

enum Memory<'py> {
    /// Where the caller has it.
    Array(Bound<'py, PyUntypedArray>, DType),
    /// Texts, and elements of less than a byte.
    Own(Tensor),
}

impl<'py> Input<'py> {
    /// The input of that name.
    pub fn new(name: Bound<'py, PyString>, value: &Bound<'py, PyAny>) -> PyResult<Self> {
        static READABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if let Some((array, dtype)) = plain(value)? {
            return Ok(Self { name, memory: Memory::Array(array, dtype) });
        }
        let made = helper(value.py(), &READABLE, "readable")?.call1((&name, value))?;
        if let Some((array, dtype)) = plain(&made)? {
            return Ok(Self { name, memory: Memory::Array(array, dtype) });
        }
        let (dtype, shape, parts): (String, Vec<usize>, Vec<Bound<'py, PyBytes>>) = made.extract()?;
        let tensor = match DType::from_name(&dtype) {
            Some(DType::String) => Tensor::from_strings(shape, parts.iter().map(PyBytesMethods::as_bytes)),
            Some(dtype) => {
                let bytes = parts.iter().flat_map(PyBytesMethods::as_bytes).copied().collect::<Vec<_>>();
                Tensor::from_shared(dtype, shape, std::sync::Arc::new(bytes), 0)
            }
            None => return Err(refuse(format!("input `{name}`: `{dtype}` is no element type"))),
        };
        let tensor = tensor.map_err(|error| raise(&error.into()))?;
        Ok(Self { name, memory: Memory::Own(tensor) })
    }

    /// Name and tensor.
    pub fn view(&self) -> PyResult<(&str, TensorView<'_>)> {
        let view = match &self.memory {
            Memory::Own(tensor) => tensor.view(),
            Memory::Array(array, dtype) => {
                // SAFETY: the array lives as long as this, is contiguous, and has as many bytes; that nobody writes to it while
                // the view is used is asked of the caller of Python's function.
                let bytes =
                    unsafe { std::slice::from_raw_parts(address(array) as *const u8, bytes_of(array)) };
                TensorView::from_bytes(*dtype, array.shape(), bytes).map_err(|error| raise(&error.into()))?
            }
        };
        Ok((self.name.to_str()?, view))
    }

    fn range(&self) -> Range<usize> {
        match &self.memory {
            Memory::Own(_) => 0..0,
            Memory::Array(array, _) => address(array)..address(array) + bytes_of(array),
        }
    }
}

/// The address from which a run reads an input: that of the caller's array, or of a copy.
#[pyfunction]
pub fn address_read<'py>(name: Bound<'py, PyString>, value: &Bound<'py, PyAny>) -> PyResult<usize> {
    let input = Input::new(name, value)?;
    Ok(input.view()?.1.bytes().as_ptr() as usize)
}

/// An array that is written.
pub struct Output<'py> {
    array: Bound<'py, PyUntypedArray>,
    dtype: DType,
    /// What the caller gave, or the array.
    object: Bound<'py, PyAny>,
}

impl<'py> Output<'py> {
    /// A new array, its elements not set; of a type that [`is_plain`].
    pub fn new(py: Python<'py>, dtype: DType, shape: &[usize]) -> PyResult<Self> {
        let array = empty(py, dtype, shape)?;
        let object = array.as_any().clone();
        Ok(Self { array, dtype, object })
    }

    /// An array of the caller's.
    pub fn given(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Self> {
        static WRITABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let as_array = match value.cast::<PyUntypedArray>() {
            Ok(_) => value.clone(),
            Err(_) => {
                helper(value.py(), &WRITABLE, "as_array")?.call1((format!("output `{name}`"), value))?
            }
        };
        let Some((array, dtype)) = plain(&as_array)? else {
            return Err(refuse(format!(
                "output `{name}`: an array is expected that is contiguous, of numbers in this machine's byte order, and at an \
                 address that is a multiple of {WORD}; {} is given",
                value.get_type().name()?
            )));
        };
        // SAFETY: the pointer is to a live array.
        let flags = unsafe { (*array.as_array_ptr()).fields.flags };
        if flags & NPY_ARRAY_WRITEABLE == 0 {
            return Err(refuse(format!("output `{name}`: the array is read-only")));
        }
        Ok(Self { array, dtype, object: value.clone() })
    }

    /// The memory.
    pub fn view(&mut self) -> PyResult<TensorViewMut<'_>> {
        let bytes = bytes_of(&self.array);
        // SAFETY: the array lives as long as this, is contiguous, writable, and has as many bytes; `disjoint` sees to it that no
        // other view is of the same memory, and that nobody else uses it meanwhile is asked of the caller of Python's function.
        let bytes = unsafe { std::slice::from_raw_parts_mut(address(&self.array) as *mut u8, bytes) };
        TensorViewMut::from_bytes(self.dtype, self.array.shape(), bytes).map_err(|error| raise(&error.into()))
    }

    /// Copies a tensor into it.
    pub fn fill(&mut self, name: &str, tensor: &Tensor) -> PyResult<()> {
        if (self.dtype, self.array.shape()) != (tensor.dtype(), tensor.shape()) {
            return Err(refuse(format!(
                "output `{name}` is {}{:?}, memory for {}{:?} is given",
                tensor.dtype(),
                tensor.shape(),
                self.dtype,
                self.array.shape()
            )));
        }
        self.view()?.bytes_mut().copy_from_slice(tensor.bytes());
        Ok(())
    }

    /// What the caller gets.
    pub fn into_object(self) -> Bound<'py, PyAny> {
        self.object
    }

    fn range(&self) -> Range<usize> {
        address(&self.array)..address(&self.array) + bytes_of(&self.array)
    }
}

/// Refuses memory that is written and is another array's, too.
pub fn disjoint(inputs: &[Input<'_>], outputs: &[Output<'_>]) -> PyResult<()> {
    let meet = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
    for (index, output) in outputs.iter().enumerate() {
        let range = output.range();
        if inputs.iter().any(|input| meet(&range, &input.range())) {
            return Err(refuse("memory for an output is that of an input, too"));
        }
        if outputs[..index].iter().any(|other| meet(&range, &other.range())) {
            return Err(refuse("memory for an output is that of another one, too"));
        }
    }
    Ok(())
}

/// A new array that begins with a cache line.
fn empty<'py>(py: Python<'py>, dtype: DType, shape: &[usize]) -> PyResult<Bound<'py, PyUntypedArray>> {
    let descr = descr_of(py, dtype)?;
    let bytes = shape.iter().try_fold(descr.itemsize(), |bytes, &extent| bytes.checked_mul(extent));
    let bytes = bytes.filter(|&bytes| isize::try_from(bytes + LINE).is_ok());
    let bytes = bytes.ok_or_else(|| PyMemoryError::new_err(format!("an array of {dtype}{shape:?}")))?;
    // SAFETY: bytes need not be set to be bytes: NumPy's allocator gives memory that is.
    let memory = unsafe { PyArray1::<u8>::new(py, [bytes + LINE], false) };
    let start = memory.data().wrapping_add(memory.data().align_offset(LINE));
    let mut extents: Vec<npy_intp> = shape.iter().map(|&extent| extent as npy_intp).collect();
    // SAFETY: `start` has `bytes` bytes behind it, which `memory` owns and the new array keeps alive; the descriptor's reference
    // is given away, and so is that to `memory`.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            PyUntypedArray::type_object_raw(py),
            descr.into_dtype_ptr(),
            extents.len() as c_int,
            extents.as_mut_ptr(),
            std::ptr::null_mut(),
            start.cast::<c_void>(),
            NPY_ARRAY_CARRAY,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), memory.into_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array.cast_into_unchecked())
    }
}

/// A tensor as an array of its own.
pub fn array_of<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    static TEXTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static UNPACKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if tensor.dtype() == DType::String {
        let strings = tensor.strings().map_err(|error| raise(&error.into()))?;
        let strings: Vec<_> = strings.into_iter().map(|string| PyBytes::new(py, string)).collect();
        return helper(py, &TEXTS, "texts")?.call1((tensor.shape().to_vec(), strings));
    }
    if !is_plain(tensor.dtype()) {
        let given = (tensor.dtype().name(), tensor.shape().to_vec(), PyBytes::new(py, tensor.bytes()));
        return helper(py, &UNPACKED, "unpacked")?.call1(given);
    }
    let mut array = Output::new(py, tensor.dtype(), tensor.shape())?;
    array.view()?.bytes_mut().copy_from_slice(tensor.bytes());
    Ok(array.into_object())
}
