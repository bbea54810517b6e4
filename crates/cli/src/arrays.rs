//! NumPy files to tensors and back.

use crate::error::{Error, Result};
use crate::files;
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzReader, NpzWriter, ReadNpyExt, ReadableElement, WritableElement};
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use tconvc::{DType, Element, Tensor};

/// All arrays of an npz file, with their names.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let file = File::open(path).map_err(|error| Error::in_file(path, error))?;
    let mut npz = NpzReader::new(BufReader::new(file))
        .map_err(|error| Error::in_file(path, format!("no npz file: {error}")))?;
    let names = npz.names().map_err(|error| Error::in_file(path, error))?;
    let mut arrays = vec![];
    for name in names {
        let tensor = from_npz(&mut npz, &name)
            .map_err(|problem| Error::in_file(path, format!("array `{name}`: {problem}")))?;
        arrays.push((name.strip_suffix(".npy").unwrap_or(&name).to_owned(), tensor));
    }
    Ok(arrays)
}

/// The array of an npy file.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let mut bytes = vec![];
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| Error::in_file(path, error))?;
    any_type(|kind| from_bytes(kind, &bytes))
        .map_err(|problem| Error::in_file(path, format!("no npy file: {problem}")))
}

/// Writes arrays as an npz file.
pub fn write_npz<'a>(path: &Path, arrays: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    files::replace(path, |out| {
        let mut npz = NpzWriter::new(out);
        for (name, tensor) in arrays {
            add(&mut npz, name, tensor)
                .map_err(|problem| Error::in_file(path, format!("array `{name}`: {problem}")))?;
        }
        npz.finish().map_err(|error| Error::in_file(path, error))?;
        Ok(())
    })
}

/// Element types that NumPy files can hold.
const KINDS: [DType; 11] = [
    DType::F32,
    DType::F64,
    DType::I64,
    DType::I32,
    DType::U8,
    DType::I8,
    DType::Bool,
    DType::I16,
    DType::U16,
    DType::U32,
    DType::U64,
];

/// Tries each type: the library reads a file as one type or says that it is another.
fn any_type(
    mut read: impl FnMut(DType) -> std::result::Result<Tensor, String>,
) -> std::result::Result<Tensor, String> {
    let mut problem = String::new();
    for kind in KINDS {
        match read(kind) {
            Ok(tensor) => return Ok(tensor),
            Err(error) => problem = error,
        }
    }
    Err(format!("{problem}; accepted are arrays of {}", KINDS.map(DType::name).join(", ")))
}

macro_rules! by_type {
    ($kind:expr, $t:ident => $body:expr) => {
        match $kind {
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::F64 => {
                type $t = f64;
                $body
            }
            DType::I64 => {
                type $t = i64;
                $body
            }
            DType::I32 => {
                type $t = i32;
                $body
            }
            DType::U8 => {
                type $t = u8;
                $body
            }
            DType::I8 => {
                type $t = i8;
                $body
            }
            DType::I16 => {
                type $t = i16;
                $body
            }
            DType::U16 => {
                type $t = u16;
                $body
            }
            DType::U32 => {
                type $t = u32;
                $body
            }
            DType::U64 => {
                type $t = u64;
                $body
            }
            other => Err(format!("{other} elements cannot be stored in a NumPy file")),
        }
    };
}

fn from_npz(npz: &mut NpzReader<BufReader<File>>, name: &str) -> std::result::Result<Tensor, String> {
    fn read<T: ReadableElement>(
        npz: &mut NpzReader<BufReader<File>>,
        name: &str,
    ) -> std::result::Result<ArrayD<T>, String> {
        npz.by_name(name).map_err(|error| error.to_string())
    }
    any_type(|kind| {
        if kind == DType::Bool {
            return bools(&read::<bool>(npz, name)?);
        }
        by_type!(kind, T => numbers::<T>(&read::<T>(npz, name)?))
    })
}

fn from_bytes(kind: DType, bytes: &[u8]) -> std::result::Result<Tensor, String> {
    fn read<T: ReadableElement>(bytes: &[u8]) -> std::result::Result<ArrayD<T>, String> {
        ArrayD::<T>::read_npy(Cursor::new(bytes)).map_err(|error| error.to_string())
    }
    if kind == DType::Bool {
        return bools(&read::<bool>(bytes)?);
    }
    by_type!(kind, T => numbers::<T>(&read::<T>(bytes)?))
}

/// Iteration is in row-major order, whatever the order in the file.
fn numbers<T: Element>(array: &ArrayD<T>) -> std::result::Result<Tensor, String> {
    Tensor::from_vec(array.shape(), array.iter().copied().collect()).map_err(|error| error.to_string())
}

fn bools(array: &ArrayD<bool>) -> std::result::Result<Tensor, String> {
    Tensor::from_bools(array.shape(), array.iter().copied()).map_err(|error| error.to_string())
}

fn add(
    npz: &mut NpzWriter<&mut std::io::BufWriter<File>>,
    name: &str,
    tensor: &Tensor,
) -> std::result::Result<(), String> {
    fn write<T: WritableElement>(
        npz: &mut NpzWriter<&mut std::io::BufWriter<File>>,
        name: &str,
        shape: &[usize],
        data: Vec<T>,
    ) -> std::result::Result<(), String> {
        let array = ArrayD::from_shape_vec(IxDyn(shape), data).map_err(|error| error.to_string())?;
        npz.add_array(name, &array).map_err(|error| error.to_string())
    }
    if tensor.dtype() == DType::Bool {
        let data = tensor.bools().map_err(|error| error.to_string())?.collect();
        return write::<bool>(npz, name, tensor.shape(), data);
    }
    by_type!(tensor.dtype(), T => {
        let data = tensor.elements::<T>().map_err(|error| error.to_string())?.into_owned();
        write(npz, name, tensor.shape(), data)
    })
}
