//! NumPy's array format: the header, and elements in row-major order as little-endian bytes. No element type of tensors is here
//! that NumPy does not know of.

use std::fmt::Write;
use std::io::{ErrorKind, Read};

/// What NumPy knows of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Of so many bytes.
    Signed(usize),
    Unsigned(usize),
    Float(usize),
    Complex(usize),
    /// Bytes of no stated meaning, as types that others add to NumPy are written.
    Raw(usize),
    /// So many characters of four bytes, filled up with zeros.
    Text(usize),
    /// So many bytes, filled up with zeros.
    Bytes(usize),
}

/// An array as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub kind: Kind,
    pub shape: Vec<usize>,
    /// Elements in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

const MAGIC: &[u8] = b"\x93NUMPY";

impl Kind {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Text(characters) => 4 * characters,
            Self::Signed(size)
            | Self::Unsigned(size)
            | Self::Float(size)
            | Self::Complex(size)
            | Self::Raw(size)
            | Self::Bytes(size) => size,
        }
    }

    /// As NumPy spells it.
    pub fn descr(self) -> String {
        match self {
            Self::Bool => "|b1".into(),
            Self::Signed(1) => "|i1".into(),
            Self::Unsigned(1) => "|u1".into(),
            Self::Signed(size) => format!("<i{size}"),
            Self::Unsigned(size) => format!("<u{size}"),
            Self::Float(size) => format!("<f{size}"),
            Self::Complex(size) => format!("<c{size}"),
            Self::Raw(size) => format!("<V{size}"),
            Self::Text(characters) => format!("<U{characters}"),
            Self::Bytes(size) => format!("|S{size}"),
        }
    }

    /// From NumPy's spelling, and whether the bytes of a number stand in the other order.
    fn read(descr: &str) -> Result<(Self, bool), String> {
        let unknown = || format!("elements `{descr}`; accepted are numbers, bool, strings and raw bytes");
        let (order, rest) = match descr.as_bytes() {
            [b'<' | b'>' | b'|' | b'=', ..] => descr.split_at(1),
            _ => ("|", descr),
        };
        if rest.starts_with('O') {
            return Err(
                "Python objects; strings are accepted as NumPy's own (`astype(str)`), numbers as numbers"
                    .into(),
            );
        }
        let (letter, size) = rest.split_at_checked(1).ok_or_else(unknown)?;
        let size: usize = size.parse().map_err(|_| unknown())?;
        let kind = match (letter, size) {
            ("b", 1) => Self::Bool,
            ("i", 1 | 2 | 4 | 8) => Self::Signed(size),
            ("u", 1 | 2 | 4 | 8) => Self::Unsigned(size),
            ("f", 2 | 4 | 8) => Self::Float(size),
            ("c", 8 | 16) => Self::Complex(size),
            ("V", 1 | 2) => Self::Raw(size),
            ("U", 0..=65_536) => Self::Text(size),
            ("S", 0..=262_144) => Self::Bytes(size),
            _ => return Err(unknown()),
        };
        Ok((kind, order == ">"))
    }
}

/// The part of a header behind `'NAME':`.
fn entry<'a>(header: &'a str, name: &str) -> Result<&'a str, String> {
    let found = [format!("'{name}'"), format!("\"{name}\"")].into_iter().find_map(|key| {
        let at = header.find(&key)?;
        header[at + key.len()..].trim_start().strip_prefix(':')
    });
    found.map(str::trim_start).ok_or_else(|| format!("its header has no `{name}`"))
}

/// What stands before the elements of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub kind: Kind,
    pub shape: Vec<usize>,
    /// Bytes of the elements.
    pub bytes: usize,
    /// Whether the bytes of a number stand in the other order.
    swapped: bool,
    /// Whether the first axis runs fastest.
    fortran: bool,
}

/// Longest header that is read; NumPy itself trusts none of more than 10,000 bytes.
const LONGEST_HEADER: usize = 1 << 16;

/// Reads what stands before the elements.
///
/// # Errors
/// Says what is wrong with it.
pub fn header(file: &mut impl Read) -> Result<Header, String> {
    let begin = bytes::<8>(file)?;
    if !begin.starts_with(MAGIC) {
        return Err("it does not begin as NumPy's files do".into());
    }
    let length = match begin[6] {
        1 => usize::from(u16::from_le_bytes(bytes(file)?)),
        _ => u32::from_le_bytes(bytes(file)?) as usize,
    };
    if length > LONGEST_HEADER {
        return Err(format!("its header has {length} bytes; accepted are {LONGEST_HEADER}"));
    }
    let mut header = vec![0; length];
    fill(file, &mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| "its header is no text")?;
    let descr = entry(header, "descr")?;
    let quote = descr.chars().next().filter(|quote| ['\'', '"'].contains(quote));
    let descr = quote
        .and_then(|quote| descr[1..].split_once(quote))
        .ok_or_else(|| "records of several fields; accepted are arrays of one element type".to_owned())?;
    let (kind, swapped) = Kind::read(descr.0)?;
    let fortran = entry(header, "fortran_order")?.starts_with("True");
    let shape = entry(header, "shape")?.strip_prefix('(').and_then(|shape| shape.split_once(')'));
    let (shape, _) = shape.ok_or("its shape is no list")?;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|extent| !extent.is_empty())
        .map(|extent| extent.parse().map_err(|_| format!("`{extent}` is no extent")))
        .collect::<Result<_, String>>()?;
    let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
    match count.and_then(|count| count.checked_mul(kind.size())) {
        Some(bytes) => Ok(Header { kind, shape, bytes, swapped, fortran }),
        None => Err(format!("shape {shape:?} of `{}` has more bytes than can be counted", descr.0)),
    }
}

impl Header {
    /// Reads the elements, which end the file; as many as the header says, one after the other, so that a header that lies takes
    /// no memory.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn elements(self, file: &mut impl Read) -> Result<Array, String> {
        let Self { kind, shape, bytes: size, swapped, fortran } = self;
        let mut data = vec![];
        // Where all of it is there, it is allocated once.
        data.try_reserve_exact(size.min(MOST_AT_ONCE)).map_err(|error| error.to_string())?;
        let read = file.take(size as u64).read_to_end(&mut data).map_err(|error| error.to_string())?;
        let more = file.read(&mut [0]).map_err(|error| error.to_string())?;
        if read != size || more > 0 {
            let found = if more > 0 { format!("more than {size}") } else { read.to_string() };
            return Err(format!(
                "{found} bytes for shape {shape:?} of `{}`, which takes {size}",
                kind.descr()
            ));
        }
        let mut bytes = if fortran && shape.len() > 1 { row_major(&data, &shape, kind.size()) } else { data };
        if swapped {
            let word = match kind {
                Kind::Complex(size) => size / 2,
                Kind::Text(_) => 4,
                Kind::Bool | Kind::Raw(_) | Kind::Bytes(_) => 1,
                other => other.size(),
            };
            bytes.chunks_exact_mut(word).for_each(<[u8]>::reverse);
        }
        Ok(Array { kind, shape, bytes })
    }
}

/// Bytes that are reserved before any of them is read.
const MOST_AT_ONCE: usize = 1 << 26;

fn bytes<const SIZE: usize>(file: &mut impl Read) -> Result<[u8; SIZE], String> {
    let mut bytes = [0; SIZE];
    fill(file, &mut bytes)?;
    Ok(bytes)
}

fn fill(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), String> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => "it ends within its header".into(),
        _ => error.to_string(),
    })
}

/// Elements whose first axis runs fastest, in the order in which the last one does.
fn row_major(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product::<usize>() {
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, extent)| at * extent + i);
        bytes.extend_from_slice(&data[at * size..][..size]);
        for (i, &extent) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < extent {
                break;
            }
            *i = 0;
        }
    }
    bytes
}

/// What stands before the elements of an array.
pub fn preface(kind: Kind, shape: &[usize]) -> Vec<u8> {
    let mut list = String::new();
    for extent in shape {
        let _ = write!(list, "{extent}, ");
    }
    let shape = if shape.len() == 1 { list.trim_end() } else { list.trim_end_matches(", ") };
    let descr = kind.descr();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Data begin at a multiple of 64; the header ends with a new line.
    let wide = header.len() + 11 > usize::from(u16::MAX);
    let before = MAGIC.len() + 2 + if wide { 4 } else { 2 };
    let padding = (before + header.len() + 1).next_multiple_of(64) - before - header.len() - 1;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let mut file = MAGIC.to_vec();
    if wide {
        file.extend([2, 0]);
        file.extend((header.len() as u32).to_le_bytes());
    } else {
        file.extend([1, 0]);
        file.extend((header.len() as u16).to_le_bytes());
    }
    file.extend(header.as_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut file: &[u8]) -> Result<Array, String> {
        header(&mut file)?.elements(&mut file)
    }

    fn write(array: &Array) -> Vec<u8> {
        [preface(array.kind, &array.shape), array.bytes.clone()].concat()
    }

    /// A header may say anything; no memory is taken for what is not there.
    #[test]
    fn headers_that_lie_are_refused() {
        for shape in [vec![1 << 40], vec![1 << 61], vec![1 << 31, 1 << 20]] {
            let mut file = preface(Kind::Float(4), &shape);
            file.extend([0; 24]);
            assert!(read(&file).unwrap_err().starts_with("24 bytes for shape"));
        }
        let mut long = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat();
        long.extend([b' '; 100]);
        assert!(read(&long).unwrap_err().contains("its header has 4294967295 bytes"));
        let more = [preface(Kind::Float(4), &[2]), vec![0; 9]].concat();
        assert_eq!(read(&more).unwrap_err(), "more than 8 bytes for shape [2] of `<f4`, which takes 8");
    }

    #[test]
    fn every_kind_reads_back() {
        let kinds = [
            Kind::Bool,
            Kind::Signed(1),
            Kind::Unsigned(4),
            Kind::Float(2),
            Kind::Complex(16),
            Kind::Raw(2),
            Kind::Text(3),
            Kind::Bytes(5),
        ];
        for kind in kinds {
            for shape in [vec![], vec![2], vec![2, 0], vec![1, 2, 3]] {
                let count = shape.iter().product::<usize>() * kind.size();
                let array = Array { kind, shape, bytes: (0..count).map(|i| i as u8).collect() };
                let file = write(&array);
                assert_eq!((file.len() - count) % 64, 0);
                assert_eq!(read(&file), Ok(array));
            }
        }
    }

    /// As NumPy writes them: big-endian, in Fortran's order, and with a header of version 2.
    #[test]
    fn other_orders_become_ours() {
        let header = b"{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut file = [MAGIC, &[2, 0], &(header.len() as u32).to_le_bytes(), header].concat();
        file.extend([0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6]);
        let array = read(&file).unwrap();
        assert_eq!((array.kind, array.shape), (Kind::Signed(2), vec![2, 3]));
        assert_eq!(array.bytes, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = write(&Array { kind: Kind::Float(4), shape: vec![2], bytes: vec![0; 8] });
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err());
        }
        let text = |header: &str| {
            let file = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
            read(&file).unwrap_err()
        };
        assert!(text("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}").contains("Python objects"));
        assert!(text("{'descr': [('a', '<f4')], 'shape': ()}").contains("several fields"));
        assert!(text("{'descr': '<f3', 'fortran_order': False, 'shape': ()}").contains("`<f3`"));
        assert!(
            text("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 99999999999999999999)}")
                .contains("extent")
        );
        let most = usize::MAX;
        let huge = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({most}, {most})}}");
        assert!(text(&huge).contains("counted"));
    }
}
