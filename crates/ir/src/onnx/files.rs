//! Model files and the files beside them: mapped into memory, and nothing outside the model's folder.

use super::proto::StringStringEntryProto;
use super::raw::from_raw;
use crate::budget::{self, Charge};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::pages::{LARGE_BYTES, Pages};
use crate::tensor::{MAX_TENSOR_BYTES, Tensor, element_count};
use prost::bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Model files up to this size are read, so that nobody who writes over them meanwhile can harm us; larger ones are mapped.
const READ_MODEL_BYTES: u64 = 1 << 30;

/// The same for files of external data.
const READ_EXTERNAL_BYTES: u64 = 1 << 16;

/// Where external data are looked for.
pub(super) struct Files {
    /// The model's folder, with links resolved; `None` where the model did not come from a file.
    folder: Option<PathBuf>,
    /// Files already open, so that tensors of one file share one mapping.
    open: RefCell<HashMap<PathBuf, Bytes>>,
}

impl Files {
    /// No files: external data are refused.
    pub(super) fn none() -> Self {
        Self { folder: None, open: RefCell::default() }
    }

    /// Files in the folder of that model.
    pub(super) fn beside(model: &Path) -> Result<Self> {
        let folder = match model.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().map_err(|error| io(folder, &error))?;
        Ok(Self { folder: Some(folder), open: RefCell::default() })
    }

    /// A tensor whose data stand in another file.
    pub(super) fn read(
        &self,
        dtype: DType,
        shape: Vec<usize>,
        entries: &[StringStringEntryProto],
    ) -> Result<Tensor> {
        let place = Place::read(entries)?;
        let Some(folder) = &self.folder else {
            return Err(Error::Unsupported(format!(
                "external data (`{}`) in a model that was not read from a file",
                place.location
            )));
        };
        if dtype == DType::String {
            return Err(Error::Malformed("strings cannot be external data".into()));
        }
        let needed = dtype.bytes_for(element_count(&shape)?).filter(|&bytes| bytes <= MAX_TENSOR_BYTES);
        let Some(needed) = needed else {
            return Err(Error::Size(format!("a {dtype} tensor of shape {shape:?} is too large")));
        };
        if let Some(length) = place.length
            && length != needed as u64
        {
            return Err(Error::Size(format!(
                "external data of {length} bytes for a {dtype} tensor of shape {shape:?}, which takes {needed}"
            )));
        }
        let file = self.open(folder, &place.location)?;
        let size = file.len();
        let offset = usize::try_from(place.offset).ok();
        let end = offset.and_then(|offset| offset.checked_add(needed)).filter(|&end| end <= size);
        let (Some(offset), Some(end)) = (offset, end) else {
            return Err(Error::Size(format!(
                "external data reach from byte {} over {needed} bytes, but `{}` has {size}",
                place.offset, place.location
            )));
        };
        from_raw(dtype, shape, file.slice(offset..end))
    }

    fn open(&self, folder: &Path, location: &str) -> Result<Bytes> {
        let outside = || {
            Error::Malformed(format!(
                "external data at `{location}`; accepted are files inside the model's folder, by relative path"
            ))
        };
        let relative = Path::new(location);
        let plain =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !plain {
            return Err(outside());
        }
        let path = folder.join(relative);
        let path = path.canonicalize().map_err(|error| io(&path, &error))?;
        if !path.starts_with(folder) {
            return Err(outside());
        }
        if let Some(bytes) = self.open.borrow().get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = load(&path, READ_EXTERNAL_BYTES)?;
        self.open.borrow_mut().insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// Location, offset and length of external data.
struct Place {
    location: String,
    offset: u64,
    length: Option<u64>,
}

impl Place {
    fn read(entries: &[StringStringEntryProto]) -> Result<Self> {
        let number = |key: &str, value: &str| {
            value.parse::<u64>().map_err(|_| {
                Error::Malformed(format!(
                    "{key} of external data is `{value}`, accepted is a number of bytes"
                ))
            })
        };
        let mut place = Self { location: String::new(), offset: 0, length: None };
        for StringStringEntryProto { key, value } in entries {
            match key.as_str() {
                "location" => place.location.clone_from(value),
                "offset" => place.offset = number(key, value)?,
                "length" => place.length = Some(number(key, value)?),
                // A checksum, or what a tool noted for itself.
                _ => {}
            }
        }
        Ok(place)
    }
}

/// The bytes of a model file.
pub(super) fn load_model(path: &Path) -> Result<Bytes> {
    load(path, READ_MODEL_BYTES)
}

/// A whole file, read up to that size and mapped beyond.
fn load(path: &Path, read_bytes: u64) -> Result<Bytes> {
    // Asked before opening: to open a pipe waits for its writer.
    let about = path.metadata().map_err(|error| io(path, &error))?;
    if !about.is_file() {
        let problem = "is not a plain file".to_owned();
        return Err(Error::Io { path: path.display().to_string(), problem });
    }
    let file = File::open(path).map_err(|error| io(path, &error))?;
    budget::grow(taken(&about));
    if about.len() <= read_bytes {
        let size = about.len() as usize;
        let charge = budget::take(size)?;
        return read(file, size, charge).map_err(|error| io(path, &error));
    }
    // SAFETY: the mapping is read-only and private to us. Were another process to shorten the file meanwhile, reading
    // would stop this process; as with every program that maps its inputs, files in use must not be truncated.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| io(path, &error))?;
    Ok(Bytes::from_owner(map))
}

/// Bytes of a file on the disk, which are fewer than it is long where most of it was never written.
fn taken(about: &std::fs::Metadata) -> usize {
    #[cfg(unix)]
    let blocks = std::os::unix::fs::MetadataExt::blocks(about).saturating_mul(512);
    #[cfg(not(unix))]
    let blocks = u64::MAX;
    // Small files may stand where no blocks are counted.
    usize::try_from(about.len().min(blocks.max(1 << 16))).unwrap_or(usize::MAX)
}

/// Bytes of a file, and what they take of a budget.
struct Loaded<B> {
    bytes: B,
    _charge: Charge,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Loaded<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// The first bytes of a file, fewer where it has become shorter.
fn read(file: File, size: usize, charge: Charge) -> std::io::Result<Bytes> {
    let mut file = file.take(size as u64);
    let pages = if size >= LARGE_BYTES { Pages::zeroed(size) } else { None };
    let Some(mut pages) = pages else {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        file.read_to_end(&mut bytes)?;
        return Ok(Bytes::from_owner(Loaded { bytes, _charge: charge }));
    };
    let mut filled = 0;
    loop {
        match file.read(&mut pages[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bytes::from_owner(Loaded { bytes: pages, _charge: charge }).slice(..filled))
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), problem: error.to_string() }
}
