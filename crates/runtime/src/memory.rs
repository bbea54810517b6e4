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

/// Gives whole huge pages among bytes that are zero and of private memory back to the system; they stay zero.
pub fn give_back(zeros: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        use tconvc_ir::HUGE_PAGE;
        let start = zeros.as_ptr().addr();
        let unused = zeros.get_mut(start.next_multiple_of(HUGE_PAGE) - start..).unwrap_or_default();
        let len = unused.len() / HUGE_PAGE * HUGE_PAGE;
        if len > 0 {
            // SAFETY: the bytes are borrowed exclusively, and whole pages of them become what they are, zero. Without success
            // they are left alone.
            let _ = unsafe {
                rustix::mm::madvise(unused.as_mut_ptr().cast(), len, rustix::mm::Advice::LinuxDontNeed)
            };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = zeros;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn whole_huge_pages_go_back_and_nothing_else_changes() {
        let huge = tconvc_ir::HUGE_PAGE;
        let mut block = AlignedBytes::zeroed(4 * huge).unwrap();
        let bytes = block.as_mut_slice();
        // Not zero, so that it shows.
        bytes.fill(7);
        give_back(&mut bytes[1..huge]);
        give_back(&mut []);
        assert!(bytes.iter().all(|&byte| byte == 7));
        give_back(&mut bytes[huge - 64..4 * huge - 64]);
        assert!(bytes[..huge].iter().all(|&byte| byte == 7));
        assert!(bytes[huge..3 * huge].iter().all(|&byte| byte == 0));
        assert!(bytes[3 * huge..].iter().all(|&byte| byte == 7));
    }
}
