//! NumPy files to tensors and back.
//!
//! NumPy knows neither bf16 nor the floats and integers of 8 bits and fewer that ONNX has; the package `ml_dtypes` adds them, and
//! what it writes are raw bytes of no stated type. So an array is read as the input it is for says, and results of such types are
//! written as that package writes them.

use crate::error::{Error, Result};
use crate::npy::{self, Kind};
use crate::{files, output};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tconvc::{Budget, DType, PortInfo, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// An array that has not been read yet, so that one that nobody asks for takes nothing.
#[derive(Clone)]
pub struct Array {
    /// Its key, without `.npy`.
    pub name: String,
    /// Which file and array it is, for messages.
    place: String,
    source: Source,
}

/// Where an array stands.
#[derive(Clone)]
enum Source {
    /// In a file of its own.
    Npy(PathBuf),
    /// The entry of that number.
    Npz(Rc<RefCell<ZipArchive<BufReader<File>>>>, usize),
}

/// Opens a plain file: another may have no end, or wait for somebody to write to it. Where one was inherited, that is its
/// giver's business.
fn open(path: &Path, streams: bool) -> Result<File> {
    let about = std::fs::metadata(path).map_err(|error| Error::in_file(path, error))?;
    let inherited = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder));
    let accepted = about.is_file() || (streams && inherited);
    if !accepted {
        return Err(Error::in_file(path, "is no plain file"));
    }
    File::open(path).map_err(|error| Error::in_file(path, error))
}

/// All arrays of an npz file; none of their elements is read yet.
pub fn read_npz(path: &Path) -> Result<Vec<Array>> {
    let archive = ZipArchive::new(BufReader::new(open(path, false)?)).map_err(|error| {
        Error::in_file(
            path,
            format!("no npz file: {error}; one array alone is given as --input NAME=FILE.npy"),
        )
    })?;
    let mut seen = HashSet::new();
    let mut arrays = vec![];
    for index in 0..archive.len() {
        let name = archive.name_for_index(index).unwrap_or_default();
        let key = name.strip_suffix(".npy").unwrap_or(name).to_owned();
        let place = format!("{}: array `{name}`", path.display());
        if !seen.insert(key.clone()) {
            return Err(Error::new(format!("{place} is there twice")));
        }
        arrays.push((key, place));
    }
    // The reader shows the last of several entries of one name alone, and would hide that there are others.
    let listed = entries(path).map_err(|error| Error::in_file(path, error))?;
    if let Some(listed) = listed.filter(|&listed| listed != arrays.len()) {
        let hidden = listed.saturating_sub(arrays.len());
        return Err(Error::in_file(
            path,
            format!("{hidden} of its {listed} arrays have the name of another"),
        ));
    }
    let archive = Rc::new(RefCell::new(archive));
    let source = |index| Source::Npz(Rc::clone(&archive), index);
    let arrays = arrays.into_iter().enumerate();
    Ok(arrays.map(|(index, (name, place))| Array { name, place, source: source(index) }).collect())
}

/// How many entries an archive says that it has; `None` where the number is kept elsewhere (65,535 and more).
fn entries(path: &Path) -> std::io::Result<Option<usize>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(22 + u64::from(u16::MAX));
    file.seek(SeekFrom::Start(start))?;
    let mut tail = vec![];
    file.take(length - start).read_to_end(&mut tail)?;
    let end = tail.windows(22).rposition(|end| end.starts_with(b"PK\x05\x06"));
    let count = end.map(|end| usize::from(u16::from_le_bytes([tail[end + 10], tail[end + 11]])));
    Ok(count.filter(|&count| count != usize::from(u16::MAX)))
}

/// The array of an npy file.
pub fn read_npy(name: &str, path: &Path) -> Array {
    let place = path.display().to_string();
    Array { name: name.to_owned(), place, source: Source::Npy(path.to_owned()) }
}

impl Array {
    /// As a tensor for that port, in its element type where it has one. Of an array that does not fit the port, or the memory
    /// that is left, the header alone is read.
    pub fn tensor(&self, port: Option<&PortInfo>, budget: &Budget) -> Result<Tensor> {
        let _budget = budget.enter();
        match &self.source {
            Source::Npy(path) => self.read(&mut BufReader::new(open(path, true)?), port, budget),
            Source::Npz(archive, index) => {
                let mut archive = archive.borrow_mut();
                let wrong = |error: &dyn std::fmt::Display| Error::new(format!("{}: {error}", self.place));
                let mut entry = archive.by_index(*index).map_err(|error| wrong(&error))?;
                self.read(&mut entry, port, budget)
            }
        }
    }

    fn read(&self, file: &mut impl Read, port: Option<&PortInfo>, budget: &Budget) -> Result<Tensor> {
        let wrong = |problem: String| Error::new(format!("{}: {problem}", self.place));
        let no_file = |problem: String| match self.source {
            Source::Npy(_) => wrong(format!("no npy file: {problem}")),
            Source::Npz(..) => wrong(problem),
        };
        let wanted = port.and_then(|port| port.dtype);
        let header = npy::header(file).map_err(no_file)?;
        if let Some(port) = port.filter(|port| !fits(port, &header.shape)) {
            let found = number(header.kind).map_or_else(|| header.kind.descr(), |dtype| dtype.to_string());
            return Err(wrong(format!("{port} is expected, {found}{:?} is given", header.shape)));
        }
        // As it stands there, until it is a tensor, which then counts itself.
        let charge = budget.take(header.bytes).map_err(|error| wrong(error.to_string()))?;
        let array = header.elements(file).map_err(no_file)?;
        drop(charge);
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
        Tensor::from_bytes(dtype, array.shape, bytes).map_err(|error| wrong(error.to_string()))
    }
}

/// Whether an array of this shape can be given for a port, as far as that has numbers.
fn fits(port: &PortInfo, shape: &[usize]) -> bool {
    port.shape.as_ref().is_none_or(|dims| {
        let fits = |(dim, extent): (&String, &usize)| dim.parse::<usize>().map_or(true, |dim| dim == *extent);
        dims.len() == shape.len() && dims.iter().zip(shape).all(fits)
    })
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
fn to_array(tensor: &Tensor) -> std::result::Result<(Kind, Cow<'_, [u8]>), String> {
    let dtype = tensor.dtype();
    let whole = |kind| Ok((kind, Cow::Borrowed(tensor.bytes())));
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
                return Ok((Kind::Bytes(size), Cow::Owned(bytes)));
            };
            let length = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let mut bytes = Vec::with_capacity(4 * length * texts.len());
            for text in &texts {
                let filled = text.iter().map(|&c| u32::from(c)).chain(std::iter::repeat(0)).take(length);
                bytes.extend(filled.flat_map(u32::to_le_bytes));
            }
            Ok((Kind::Text(length), Cow::Owned(bytes)))
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
            Ok((kind, Cow::Owned(unpack(dtype, tensor.bytes(), tensor.len()))))
        }
        other => Err(format!("{other} elements cannot be stored in a NumPy file")),
    }
}

/// The member of an archive for an array of that name: the name, with what could lead out of a folder, or could not be a file,
/// spelled as `%2E` and so on. `%` is always spelled so, so that no two names become one.
pub fn member(name: &str) -> String {
    let mut member = String::new();
    let spell = |member: &mut String, text: &str| {
        for byte in text.bytes() {
            let _ = write!(member, "%{byte:02X}");
        }
    };
    for (index, part) in name.split('/').enumerate() {
        if index > 0 {
            // None before a part that is empty: that would be a root, or the same as one slash.
            if part.is_empty() || (index == 1 && name.starts_with('/')) {
                spell(&mut member, "/");
            } else {
                member.push('/');
            }
        }
        if matches!(part, "." | "..") {
            spell(&mut member, part);
            continue;
        }
        for character in part.chars() {
            if matches!(character, '%' | '\\' | ':') || character.is_control() {
                spell(&mut member, character.encode_utf8(&mut [0; 4]));
            } else {
                member.push(character);
            }
        }
    }
    member
}

/// Writes arrays as an npz file; gives what is wrong with those that no such file can hold, which are left out.
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    files::replace(path, |out| {
        // What cannot go back, such as a pipe, gets sizes behind the arrays.
        if out.stream_position().is_ok() {
            write_archive(path, ZipWriter::new(out), arrays)
        } else {
            write_archive(path, ZipWriter::new_stream(out), arrays)
        }
    })
}

fn write_archive<'a, W: Write + Seek>(
    path: &Path,
    mut archive: ZipWriter<W>,
    arrays: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    let wrong = |error: &dyn std::fmt::Display| Error::in_file(path, error);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(true)
        .last_modified_time(zip::DateTime::default());
    let (mut left_out, mut written) = (vec![], HashSet::new());
    for (name, tensor) in arrays {
        // An output may be listed twice; an archive has each name once.
        if !written.insert(name) {
            continue;
        }
        match to_array(tensor) {
            Ok((kind, bytes)) => {
                let member = format!("{}.npy", member(name));
                archive.start_file(member, options).map_err(|error| wrong(&error))?;
                let preface = npy::preface(kind, tensor.shape());
                archive.write_all(&preface).map_err(|error| wrong(&error))?;
                archive.write_all(&bytes).map_err(|error| wrong(&error))?;
            }
            Err(problem) => left_out.push(format!("array `{name}`: {problem}")),
        }
    }
    archive.finish().map_err(|error| wrong(&error))?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, shape: &[usize], bytes: &[u8], dtype: Option<DType>) -> Result<Tensor> {
        let file = [&npy::preface(kind, shape), bytes].concat();
        let port = PortInfo { name: "x".into(), dtype, shape: None, optional: false };
        let array = Array { name: "x".into(), place: "x".into(), source: Source::Npy("x".into()) };
        array.read(&mut file.as_slice(), Some(&port), &Budget::default())
    }

    #[test]
    fn members_are_safe_and_tell_their_names_apart() {
        let names = [
            "a",
            "a/b",
            "../../evil",
            "/root",
            "a//b",
            "..",
            ".",
            "c:\\d",
            "50%",
            "50%25",
            "",
            "a/./b",
            "\n",
            "é",
        ];
        let members: Vec<String> = names.iter().map(|name| member(name)).collect();
        assert_eq!(
            members,
            [
                "a",
                "a/b",
                "%2E%2E/%2E%2E/evil",
                "%2Froot",
                "a%2F/b",
                "%2E%2E",
                "%2E",
                "c%3A%5Cd",
                "50%25",
                "50%2525",
                "",
                "a/%2E/b",
                "%0A",
                "é"
            ]
        );
        assert_eq!(members.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn arrays_that_do_not_fit_are_not_read() {
        let port = |shape: &[&str]| PortInfo {
            name: "x".into(),
            dtype: Some(DType::F32),
            shape: Some(shape.iter().map(|&dim| dim.to_owned()).collect()),
            optional: false,
        };
        let array = Array { name: "x".into(), place: "x.npy".into(), source: Source::Npy("x".into()) };
        let file = npy::preface(Kind::Float(4), &[1, 1 << 40]);
        let read = |port: &PortInfo, budget: &Budget| {
            array.read(&mut file.as_slice(), Some(port), budget).unwrap_err().to_string()
        };
        let budget = Budget::default();
        assert_eq!(
            read(&port(&["N", "3"]), &budget),
            "x.npy: `x` f32[N, 3] is expected, f32[1, 1099511627776] is given"
        );
        assert!(read(&port(&["N"]), &budget).contains("is expected"));
        assert!(read(&port(&["N", "M"]), &budget).contains("4398046511104 bytes are wanted"));
    }

    fn back(tensor: &Tensor) -> Tensor {
        let (kind, bytes) = to_array(tensor).unwrap();
        read(kind, tensor.shape(), &bytes, Some(tensor.dtype())).unwrap()
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
                let tensor = Tensor::from_bytes(dtype, shape, bytes).unwrap();
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
        let array = |kind: Kind, bytes: &[u8], dtype| read(kind, &[bytes.len() / kind.size()], bytes, dtype);
        let nibbles = array(Kind::Signed(1), &[7, 0xf8, 0xff], Some(DType::I4)).unwrap();
        assert_eq!((nibbles.dtype(), nibbles.bytes()), (DType::I4, [0x87, 0x0f].as_slice()));
        let wide = array(Kind::Unsigned(1), &[16], Some(DType::U4)).map(|_| ()).unwrap_err();
        assert!(wide.to_string().contains("element 0x10 does not fit u4"));
        let bits = array(Kind::Unsigned(2), &[0x80, 0x3f], Some(DType::BF16)).unwrap();
        assert_eq!(bits.to_f64s().unwrap(), [1.0]);
        let raw = array(Kind::Raw(1), &[0x38], Some(DType::F8E4M3FN)).unwrap();
        assert_eq!(raw.bytes(), [0x38]);
        assert!(
            array(Kind::Raw(2), &[0, 0], None).map(|_| ()).unwrap_err().to_string().contains("nothing says")
        );
        assert!(
            array(Kind::Raw(1), &[0], Some(DType::F32))
                .map(|_| ())
                .unwrap_err()
                .to_string()
                .contains("f32 has 32")
        );
        // Another type than is asked for is for the library to refuse.
        assert_eq!(array(Kind::Signed(1), &[1], Some(DType::F32)).unwrap().dtype(), DType::I8);
    }
}
