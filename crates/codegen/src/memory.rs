//! Zeroed memory aligned to cache lines, for weights, arenas and scratch.

/// Alignment of every buffer, in bytes.
pub const ALIGNMENT: usize = 64;

/// One cache line; the unit in which memory is taken, so that its start is aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// A block of bytes that starts at a multiple of [`ALIGNMENT`]. Its address does not change.
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes; `None` when the system has no memory for them.
    pub fn zeroed(len: usize) -> Option<Self> {
        let count = len.div_ceil(ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        use_large_pages(lines.as_mut_ptr(), len);
        lines.resize(count, Line([0; ALIGNMENT]));
        Some(Self { lines, len })
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
        self.lines.as_ptr().cast()
    }

    /// Address of the first byte, to write through.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the lines are initialised, contiguous and at least `len` bytes long; u8 has no alignment.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the exclusive borrow covers all of it.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

/// From this size on memory is worth large pages: fewer faults when it is filled, fewer misses of the translation buffer
/// when it is streamed.
#[cfg(target_os = "linux")]
const LARGE: usize = 4 << 20;

/// Asks the system for large pages. It may decline; nothing depends on it.
#[cfg(target_os = "linux")]
fn use_large_pages(start: *mut Line, len: usize) {
    const PAGE: usize = 4096;
    let first = start.addr().next_multiple_of(PAGE);
    let end = (start.addr() + len) / PAGE * PAGE;
    if len >= LARGE && end > first {
        // SAFETY: the pages lie inside one allocation that the caller owns; the advice changes no contents.
        unsafe { libc::madvise(start.with_addr(first).cast(), end - first, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn use_large_pages(_: *mut Line, _: usize) {}
