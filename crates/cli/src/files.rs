//! Files that are written whole or not at all: under another name in the same folder, which becomes theirs at the end.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file in the making. Dropped before it is put in its place, it leaves nothing, and what was there stays.
struct Draft(PathBuf);

/// Drafts of this process, for when it ends before they are dropped.
static DRAFTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn drafts() -> MutexGuard<'static, Vec<PathBuf>> {
    DRAFTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is not whole, before the process ends in the middle of writing. No other is begun after that: whoever would
/// begin one waits for the end.
pub fn remove_drafts() {
    let drafts = drafts();
    for draft in drafts.iter() {
        let _ = fs::remove_file(draft);
    }
    std::mem::forget(drafts);
}

impl Drop for Draft {
    fn drop(&mut self) {
        let mut drafts = drafts();
        let _ = fs::remove_file(&self.0);
        drafts.retain(|draft| *draft != self.0);
    }
}

/// Writes a file by `write`, and puts it in its place when all of it is there.
pub fn replace<T>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    // What is no file of its own (`/dev/stdout`, a pipe) is written to.
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        let file = File::create(path).map_err(|error| Error::in_file(path, error))?;
        let mut out = BufWriter::new(file);
        let result = write(&mut out)?;
        out.flush().map_err(|error| Error::in_file(path, error))?;
        return Ok(result);
    }
    // A link stays one: what it points at is replaced.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (file, draft) = create(&place).map_err(|error| Error::in_file(path, error))?;
    let mut out = BufWriter::new(file);
    let result = write(&mut out)?;
    let finish = || -> std::io::Result<()> {
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        if let Ok(about) = fs::metadata(&place) {
            file.set_permissions(about.permissions())?;
        }
        file.sync_all()?;
        // Not while drafts are removed.
        let _drafts = drafts();
        fs::rename(&draft.0, &place)
    };
    finish().map_err(|error| Error::in_file(path, error))?;
    Ok(result)
}

/// Writes these bytes as a file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(bytes).map_err(|error| Error::in_file(path, error)))
}

/// A new file beside that one.
fn create(place: &Path) -> std::io::Result<(File, Draft)> {
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut drafts = drafts();
    for attempt in 0..1000 {
        let draft = place.with_file_name(format!(".{name}.{}-{attempt}.part", std::process::id()));
        match File::options().write(true).create_new(true).open(&draft) {
            Ok(file) => {
                drafts.push(draft.clone());
                return Ok((file, Draft(draft)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tconvc-files-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_fails_half_way_leaves_what_was_there() {
        let folder = folder("half");
        let path = folder.join("out");
        write(&path, b"before").unwrap();
        let failed = replace(&path, |out| -> Result<()> {
            out.write_all(b"half of it").unwrap();
            Err(Error::new("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        write(&path, b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_failure_leaves_no_new_file() {
        let folder = folder("new");
        let path = folder.join("out");
        assert!(replace(&path, |_| -> Result<()> { Err(Error::new("no")) }).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(write(&folder.join("missing").join("out"), b"x").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("links");
        let (path, link) = (folder.join("out"), folder.join("link"));
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, b"after").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_dir_all(&folder).unwrap();
    }
}
