//! NumPy files to tensors and back.
//!
//! NumPy knows neither bf16 nor the floats and integers of 8 bits and fewer that ONNX has; the package `ml_dtypes` adds them, and
//! what it writes are raw bytes of no stated type. So an array is read as the input it is for says, and results of such types are
//! written as that package writes them.

use crate::error::{Error, Result};
use crate::npy::{self, Kind};
use crate::{files, output};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use tconvc::{DType, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Most bytes that are read of an array: what a tensor may have, and its header.
const MOST_BYTES: u64 = (1 << 30) + (1 << 20);

/// An array that has been read but not understood yet, so that one that nobody asks for does no harm.
#[derive(Clone)]
pub struct Array {
    /// Its key, without `.npy`.
    pub name: String,
    /// Which file and array it is, for messages.
    place: String,
    file: Vec<u8>,
}

/// All arrays of an npz file.
pub fn read_npz(path: &Path) -> Result<Vec<Array>> {
    let file = File::open(path).map_err(|error| Error::in_file(path, error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        Error::in_file(
            path,
            format!("no npz file: {error}; one array alone is given as --input NAME=FILE.npy"),
        )
    })?;
    let mut arrays = vec![];
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| Error::in_file(path, error))?;
        let name = entry.name().to_owned();
        let wrong = |problem: String| Error::in_file(path, format!("array `{name}`: {problem}"));
        let mut bytes = vec![];
        entry.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(wrong(format!("it is larger than {MOST_BYTES} bytes")));
        }
        let key = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let place = format!("{}: array `{name}`", path.display());
        arrays.push(Array { name: key, place, file: bytes });
    }
    Ok(arrays)
}

/// The array of an npy file.
pub fn read_npy(name: &str, path: &Path) -> Result<Array> {
    let mut bytes = vec![];
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| Error::in_file(path, error))?;
    Ok(Array { name: name.to_owned(), place: format!("{}: no npy file", path.display()), file: bytes })
}

impl Array {
    /// As a tensor for a port of that element type, where it has one.
    pub fn tensor(&self, wanted: Option<DType>) -> Result<Tensor> {
        let wrong = |problem: String| Error::new(format!("{}: {problem}", self.place));
        let array = npy::read(&self.file).map_err(wrong)?;
        let dtype = match (array.kind, wanted) {
            (Kind::Text(_) | Kind::Bytes(_), _) => return strings(&array).map_err(wrong),
            (Kind::Raw(size), None) => {
                return Err(wrong(format!("raw elements of {size} bytes, of what type nothing says")));
            }
            (Kind::Raw(_), Some(wanted)) => wanted,
            (kind, wanted) => {
                let found = number(kind).ok_or_else(|| wrong(format!("elements `{}`", kind.descr())))?;
                match wanted {
                    Some(wanted) if wanted != found && is_code(found, wanted) => {
                        if !wanted.name().starts_with(['i', 'u']) {
                            let note = format!("{}: {found} is taken for the bits of {wanted}", self.place);
                            output::warnings(&[note]);
                        }
                        wanted
                    }
                    _ => found,
                }
            }
        };
        let count: usize = array.shape.iter().product();
        let size = dtype.bits().div_ceil(8);
        if array.kind.size() != size {
            let problem =
                format!("elements of {} bytes where {dtype} has {}", array.kind.size(), dtype.bits());
            return Err(wrong(problem));
        }
        let bytes =
            if dtype.bits() < 8 { pack(dtype, &array.bytes, count).map_err(wrong)? } else { array.bytes };
        Tensor::from_shared(dtype, array.shape, Arc::new(bytes), 0).map_err(|error| wrong(error.to_string()))
    }
}

/// The element type that holds what NumPy calls so.
fn number(kind: Kind) -> Option<DType> {
    Some(match kind {
        Kind::Bool => DType::Bool,
        Kind::Signed(1) => DType::I8,
        Kind::Signed(2) => DType::I16,
        Kind::Signed(4) => DType::I32,
        Kind::Signed(8) => DType::I64,
        Kind::Unsigned(1) => DType::U8,
        Kind::Unsigned(2) => DType::U16,
        Kind::Unsigned(4) => DType::U32,
        Kind::Unsigned(8) => DType::U64,
        Kind::Float(2) => DType::F16,
        Kind::Float(4) => DType::F32,
        Kind::Float(8) => DType::F64,
        Kind::Complex(8) => DType::C64,
        Kind::Complex(16) => DType::C128,
        _ => return None,
    })
}

/// Whether integers of the first type can stand for elements of the second: their bits, or small integers.
fn is_code(found: DType, wanted: DType) -> bool {
    match wanted {
        DType::BF16 => found == DType::U16,
        DType::I4 | DType::I2 => found == DType::I8,
        _ if wanted.is_numeric() || matches!(wanted, DType::Bool | DType::String) => false,
        _ => found == DType::U8 && wanted.bits() <= 8,
    }
}

/// Elements of less than a byte, which take one each in NumPy.
fn pack(dtype: DType, bytes: &[u8], count: usize) -> std::result::Result<Vec<u8>, String> {
    let bits = dtype.bits();
    let mask = 0xffu8 >> (8 - bits);
    let mut packed = vec![0u8; (count * bits).div_ceil(8)];
    for (i, &byte) in bytes.iter().enumerate() {
        let code = byte & mask;
        let signed = matches!(dtype, DType::I4 | DType::I2);
        let negative = signed && byte >> bits == 0xff >> bits && code >> (bits - 1) == 1;
        if byte != code && !negative {
            return Err(format!("element {byte:#04x} does not fit {dtype}"));
        }
        let (at, shift) = (i * bits / 8, i * bits % 8);
        let pair = u16::from(code) << shift;
        packed[at] |= pair as u8;
        if let Some(next) = packed.get_mut(at + 1) {
            *next |= (pair >> 8) as u8;
        }
    }
    Ok(packed)
}

/// Undoes [`pack`]; integers with a sign keep it.
fn unpack(dtype: DType, bytes: &[u8], count: usize) -> Vec<u8> {
    let bits = dtype.bits();
    let element = |i: usize| {
        let (at, shift) = (i * bits / 8, i * bits % 8);
        let pair = u16::from(bytes[at]) | bytes.get(at + 1).map_or(0, |&next| u16::from(next) << 8);
        let code = (pair >> shift) as u8 & (0xff >> (8 - bits));
        let signed = matches!(dtype, DType::I4 | DType::I2) && code >> (bits - 1) == 1;
        if signed { code | (0xff << bits) } else { code }
    };
    (0..count).map(element).collect()
}

/// Strings without the zeros that fill them up.
fn strings(array: &npy::Array) -> std::result::Result<Tensor, String> {
    let mut texts: Vec<Vec<u8>> = vec![];
    for element in 0..array.shape.iter().product::<usize>() {
        let bytes = &array.bytes[element * array.kind.size()..][..array.kind.size()];
        texts.push(if matches!(array.kind, Kind::Bytes(_)) {
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes[..end].to_vec()
        } else {
            let codes = bytes.as_chunks::<4>().0.iter().map(|code| u32::from_le_bytes(*code));
            let codes: Vec<u32> = codes.collect();
            let end = codes.iter().rposition(|&code| code != 0).map_or(0, |last| last + 1);
            let text = codes[..end].iter().map(|&code| char::from_u32(code)).collect::<Option<String>>();
            text.ok_or("a string holds what is no character")?.into_bytes()
        });
    }
    Tensor::from_strings(array.shape.as_slice(), texts.iter().map(Vec::as_slice))
        .map_err(|error| error.to_string())
}

/// How a result of this type stands in a NumPy file, where that is not plain; for the user.
pub fn note(dtype: DType) -> Option<String> {
    let python = match dtype {
        DType::BF16 => "bfloat16",
        DType::F8E4M3FN => "float8_e4m3fn",
        DType::F8E4M3FNUZ => "float8_e4m3fnuz",
        DType::F8E5M2 => "float8_e5m2",
        DType::F8E5M2FNUZ => "float8_e5m2fnuz",
        DType::F8E8M0 => "float8_e8m0fnu",
        DType::F4E2M1 => "float4_e2m1fn",
        DType::F6E2M3 => "float6_e2m3fn",
        DType::F6E3M2 => "float6_e3m2fn",
        DType::I4 | DType::I2 => return Some(format!("{dtype} is written as i8")),
        DType::U4 | DType::U2 => return Some(format!("{dtype} is written as u8")),
        _ => return None,
    };
    let bytes = dtype.bits().div_ceil(8);
    Some(format!("{dtype} is written as NumPy's raw `V{bytes}`; view it as ml_dtypes.{python}"))
}

/// A tensor as NumPy has it.
fn to_array(tensor: &Tensor) -> std::result::Result<npy::Array, String> {
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let whole = |kind| Ok(npy::Array { kind, shape: shape.clone(), bytes: tensor.bytes().to_vec() });
    match dtype {
        DType::String => {
            let strings = tensor.strings().map_err(|error| error.to_string())?;
            let texts: Option<Vec<Vec<char>>> = strings
                .iter()
                .map(|bytes| std::str::from_utf8(bytes).ok().map(|text| text.chars().collect()))
                .collect();
            let Some(texts) = texts else {
                // Not all of it is text: bytes.
                let size = strings.iter().map(|bytes| bytes.len()).max().unwrap_or(0).max(1);
                let mut bytes = vec![0; size * strings.len()];
                for (element, string) in bytes.chunks_exact_mut(size).zip(&strings) {
                    element[..string.len()].copy_from_slice(string);
                }
                return Ok(npy::Array { kind: Kind::Bytes(size), shape, bytes });
            };
            let length = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let mut bytes = Vec::with_capacity(4 * length * texts.len());
            for text in &texts {
                let filled = text.iter().map(|&c| u32::from(c)).chain(std::iter::repeat(0)).take(length);
                bytes.extend(filled.flat_map(u32::to_le_bytes));
            }
            Ok(npy::Array { kind: Kind::Text(length), shape, bytes })
        }
        DType::Bool => whole(Kind::Bool),
        DType::C64 => whole(Kind::Complex(8)),
        DType::C128 => whole(Kind::Complex(16)),
        DType::BF16 => whole(Kind::Raw(2)),
        dtype if dtype.is_float() => whole(Kind::Float(dtype.bits() / 8)),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => whole(Kind::Unsigned(dtype.bits() / 8)),
        dtype if dtype.is_integer() => whole(Kind::Signed(dtype.bits() / 8)),
        dtype if (1..=8).contains(&dtype.bits()) => {
            let kind = match dtype {
                DType::I4 | DType::I2 => Kind::Signed(1),
                DType::U4 | DType::U2 => Kind::Unsigned(1),
                _ => Kind::Raw(1),
            };
            Ok(npy::Array { kind, shape, bytes: unpack(dtype, tensor.bytes(), tensor.len()) })
        }
        other => Err(format!("{other} elements cannot be stored in a NumPy file")),
    }
}

/// Writes arrays as an npz file; gives what is wrong with those that no such file can hold, which are left out.
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    let mut left_out = vec![];
    files::replace(path, |out| {
        let wrong = |error: &dyn std::fmt::Display| Error::in_file(path, error);
        let mut archive = ZipWriter::new(Cursor::new(vec![]));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(true)
            .last_modified_time(zip::DateTime::default());
        let mut written = HashSet::new();
        for (name, tensor) in arrays {
            // An output may be listed twice; an archive has each name once.
            if !written.insert(name) {
                continue;
            }
            match to_array(tensor) {
                Ok(array) => {
                    let file = npy::write(&array);
                    archive.start_file(format!("{name}.npy"), options).map_err(|error| wrong(&error))?;
                    archive.write_all(&file).map_err(|error| wrong(&error))?;
                }
                Err(problem) => left_out.push(format!("array `{name}`: {problem}")),
            }
        }
        let archive = archive.finish().map_err(|error| wrong(&error))?;
        out.write_all(archive.get_ref()).map_err(|error| wrong(&error))
    })?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(tensor: &Tensor) -> Tensor {
        let file = npy::write(&to_array(tensor).unwrap());
        let array = Array { name: "x".into(), place: "x".into(), file };
        array.tensor(Some(tensor.dtype())).unwrap()
    }

    #[test]
    fn every_element_type_reads_back() {
        for &dtype in DType::ALL.iter().filter(|&&dtype| dtype.bits() > 0) {
            for shape in [vec![], vec![5], vec![2, 3], vec![0, 2]] {
                let count = shape.iter().product::<usize>();
                let bytes = dtype.bytes_for(count).unwrap();
                let mut bytes: Vec<u8> = (0..bytes).map(|i| (i * 37 % 251) as u8).collect();
                let rest = count * dtype.bits() % 8;
                if let (Some(last), 1..) = (bytes.last_mut(), rest) {
                    *last &= 0xff >> (8 - rest);
                }
                let tensor = Tensor::from_shared(dtype, shape, Arc::new(bytes), 0).unwrap();
                assert_eq!(back(&tensor), tensor, "{dtype}");
            }
        }
    }

    #[test]
    fn strings_read_back() {
        let texts = ["", "a", "höher", "日本"];
        let tensor = Tensor::from_strings([2, 2], texts.iter().map(|text| text.as_bytes())).unwrap();
        assert_eq!(back(&tensor), tensor);
        let bytes = Tensor::from_strings([2], [b"\xff\xfe".as_slice(), b"x".as_slice()]).unwrap();
        assert_eq!(back(&bytes), bytes);
    }

    #[test]
    fn integers_stand_for_types_that_numpy_lacks() {
        let array = |kind, bytes: &[u8]| {
            let file = npy::write(&npy::Array {
                kind,
                shape: vec![bytes.len() / kind.size()],
                bytes: bytes.to_vec(),
            });
            Array { name: "x".into(), place: "x".into(), file }
        };
        let nibbles = array(Kind::Signed(1), &[7, 0xf8, 0xff]).tensor(Some(DType::I4)).unwrap();
        assert_eq!((nibbles.dtype(), nibbles.bytes()), (DType::I4, [0x87, 0x0f].as_slice()));
        let wide = array(Kind::Unsigned(1), &[16]).tensor(Some(DType::U4)).map(|_| ()).unwrap_err();
        assert!(wide.to_string().contains("element 0x10 does not fit u4"));
        let bits = array(Kind::Unsigned(2), &[0x80, 0x3f]).tensor(Some(DType::BF16)).unwrap();
        assert_eq!(bits.to_f64s().unwrap(), [1.0]);
        let raw = array(Kind::Raw(1), &[0x38]).tensor(Some(DType::F8E4M3FN)).unwrap();
        assert_eq!(raw.bytes(), [0x38]);
        assert!(
            array(Kind::Raw(2), &[0, 0])
                .tensor(None)
                .map(|_| ())
                .unwrap_err()
                .to_string()
                .contains("nothing says")
        );
        assert!(
            array(Kind::Raw(1), &[0])
                .tensor(Some(DType::F32))
                .map(|_| ())
                .unwrap_err()
                .to_string()
                .contains("f32 has 32")
        );
        // Another type than is asked for is for the library to refuse.
        assert_eq!(array(Kind::Signed(1), &[1]).tensor(Some(DType::F32)).unwrap().dtype(), DType::I8);
    }
}
