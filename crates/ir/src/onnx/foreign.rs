//! Files that people give as a model and that are something else: named, so that the message says what went wrong.

use crate::error::{Error, Result};

/// Refuses what is known not to be a model by its first bytes.
pub(super) fn refuse(bytes: &[u8]) -> Result<()> {
    let text = bytes.trim_ascii_start();
    let begins =
        |head: &str| text.len() >= head.len() && text[..head.len()].eq_ignore_ascii_case(head.as_bytes());
    let what = if bytes.is_empty() {
        "the file is empty"
    } else if begins("version https://git-lfs") {
        "a pointer of Git LFS, which stands for the file: `git lfs pull` fetches the model itself"
    } else if begins("<!doctype html") || begins("<html") || begins("<head") {
        "an HTML page: what was downloaded is a web page about the file, not the file"
    } else if begins("<?xml") {
        "an XML document"
    } else if begins("{") {
        "a JSON document"
    } else if bytes.starts_with(b"\x93NUMPY") {
        "a NumPy array (npy)"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "a ZIP archive, as npz files, PyTorch checkpoints and packed models are"
    } else if bytes.starts_with(b"\x1f\x8b") {
        "a file packed by gzip; unpack it first"
    } else if bytes.get(4..8) == Some(b"TFL3") {
        "a TensorFlow Lite model"
    } else if bytes.starts_with(b"\x89HDF") {
        "an HDF5 file, as Keras models are"
    } else {
        return Ok(());
    };
    Err(Error::Malformed(format!("{what}; expected is an ONNX model")))
}

#[cfg(test)]
mod tests {
    use crate::onnx::read_bytes;

    #[test]
    fn what_is_no_model_is_named() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS"),
            (b"\n <!DOCTYPE html><html></html>", "HTML"),
            (b"<html lang=en>", "HTML"),
            (b"{\"error\": \"not found\"}", "JSON"),
            (b"\x93NUMPY\x01\0", "NumPy"),
            (b"PK\x03\x04\x14\0", "ZIP"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ];
        for (bytes, what) in cases {
            let error = read_bytes(bytes).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("expected is an ONNX model"), "{error}");
        }
    }
}
