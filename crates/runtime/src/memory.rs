//! Zeroed memory aligned to cache lines, for weights, arenas and scratch; large blocks come in huge pages.

use tconvc_ir::{LARGE_BYTES, Pages};

/// Alignment of every buffer, in bytes.
pub const ALIGNMENT: usize = 64;

/// One cache line; the unit in which memory is taken, so that its start is aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// A block of bytes that starts at a multiple of [`ALIGNMENT`]. Its address does not change.
pub struct AlignedBytes {
    block: Block,
    len: usize,
}

enum Block {
    Lines(Vec<Line>),
    Pages(Pages),
}

impl AlignedBytes {
    /// `len` zero bytes; `None` when the system has no memory for them.
    pub fn zeroed(len: usize) -> Option<Self> {
        if len >= LARGE_BYTES {
            return Some(Self { block: Block::Pages(Pages::zeroed(len)?), len });
        }
        let count = len.div_ceil(ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        lines.resize(count, Line([0; ALIGNMENT]));
        Some(Self { block: Block::Lines(lines), len })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte.
    pub fn as_ptr(&self) -> *const u8 {
        match &self.block {
            Block::Lines(lines) => lines.as_ptr().cast(),
            Block::Pages(pages) => pages.as_ptr(),
        }
    }

    /// Address of the first byte, to write through.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &mut self.block {
            Block::Lines(lines) => lines.as_mut_ptr().cast(),
            Block::Pages(pages) => pages.as_mut_ptr(),
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: lines and pages are initialised, contiguous and at least `len` bytes long; u8 has no alignment.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the exclusive borrow covers all of it.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}
