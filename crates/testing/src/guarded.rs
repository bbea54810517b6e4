//! Memory between two pages that must not be touched: code that reads or writes beyond its end, or before its start, ends the
//! process at that instruction. See [`in_child`](crate::in_child) for which case it was.

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Which edge of a block lies at a page that must not be touched; only one can, unless the block is whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The first byte is the first of a page.
    Start,
    /// Nothing is behind the last byte but what is missing to a multiple of four.
    End,
}

impl Edge {
    /// Both, the end first.
    pub const ALL: [Self; 2] = [Self::End, Self::Start];
}

/// What is in a block at first, and around it up to the pages: no number in any type of float.
const FILL: u8 = 0xff;

/// A block of bytes at a multiple of four; all that generated code may assume of a buffer.
pub struct Guarded {
    map: NonNull<u8>,
    map_bytes: usize,
    /// Bytes from the start of the mapping to the block.
    offset: usize,
    bytes: usize,
    page: usize,
}

impl Guarded {
    /// A block of so many bytes, all of them `0xff`.
    pub fn new(bytes: usize, edge: Edge) -> Self {
        // SAFETY: only asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let inside = bytes.next_multiple_of(page).max(page);
        let map_bytes = inside + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping of its own, wherever the system likes.
        let map = unsafe { libc::mmap(ptr::null_mut(), map_bytes, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(map, libc::MAP_FAILED, "no memory for {bytes} bytes between pages");
        let Some(map) = NonNull::new(map.cast::<u8>()) else { unreachable!("the system maps nothing at 0") };
        // SAFETY: the pages between the first and the last lie within the mapping, and nobody else knows of it.
        let opened = unsafe {
            let first = map.as_ptr().add(page);
            let opened = libc::mprotect(first.cast(), inside, libc::PROT_READ | libc::PROT_WRITE);
            if opened == 0 {
                ptr::write_bytes(first, FILL, inside);
            }
            opened
        };
        assert_eq!(opened, 0, "pages cannot be opened");
        let before = if edge == Edge::End { (inside - bytes) / 4 * 4 } else { 0 };
        Self { map, map_bytes, offset: page + before, bytes, page }
    }

    /// Whether all is as it was between the block and the pages that must not be touched.
    pub fn is_intact(&self) -> bool {
        // SAFETY: all but the first and the last page can be read and was written by `new`; the block is not looked at, and
        // who has a reference into it has none to what is around it.
        let around = |from: usize, to: usize| unsafe {
            std::slice::from_raw_parts(self.map.as_ptr().add(from), to - from)
        };
        let before = around(self.page, self.offset);
        let behind = around(self.offset + self.bytes, self.map_bytes - self.page);
        // By whole pages: compared byte by byte, tests without optimisation would spend their time here.
        let fill = vec![FILL; self.page];
        [before, behind]
            .iter()
            .all(|around| around.chunks(self.page).all(|chunk| *chunk == fill[..chunk.len()]))
    }
}

impl Deref for Guarded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `new` has opened and filled these pages, which live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset), self.bytes) }
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the exclusive borrow covers all of it.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.offset), self.bytes) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let intact = self.is_intact();
        // SAFETY: the mapping that `new` made, of that size; no reference into it is left.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
        assert!(
            intact || std::thread::panicking(),
            "something was written beside a block of {} bytes",
            self.bytes
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;
    use std::os::fd::AsRawFd;

    /// Whether a byte can be read; the system looks, so that nothing happens where it cannot.
    fn readable(address: *const u8) -> bool {
        let (_reader, writer) = pipe().unwrap();
        // SAFETY: the system refuses addresses that cannot be read; the pipe has room for a byte.
        unsafe { libc::write(writer.as_raw_fd(), address.cast(), 1) == 1 }
    }

    #[test]
    fn nothing_can_be_touched_beyond_an_edge() {
        for bytes in [0, 1, 3, 4, 64, 4092, 4096, 4100, 1 << 20] {
            for edge in Edge::ALL {
                let mut block = Guarded::new(bytes, edge);
                assert_eq!((block.len(), block.as_ptr().align_offset(4)), (bytes, 0));
                assert!(block.iter().all(|&byte| byte == FILL));
                block.fill(7);
                assert!(block.is_intact());
                let (first, rest) = (block.as_ptr(), bytes.next_multiple_of(4));
                let beyond = match edge {
                    Edge::Start => first.wrapping_sub(1),
                    Edge::End => first.wrapping_add(rest),
                };
                assert!(!readable(beyond), "{bytes} {edge:?}");
                assert!(bytes == 0 || readable(first) && readable(first.wrapping_add(bytes - 1)));
            }
        }
    }

    #[test]
    fn writes_into_the_rest_of_a_page_are_noticed() {
        for edge in Edge::ALL {
            let mut block = Guarded::new(5, edge);
            let beside = block.as_mut_ptr().wrapping_add(5);
            // SAFETY: both edges leave three bytes of the opened page behind five.
            unsafe { beside.write(0) };
            assert!(!block.is_intact());
            // SAFETY: as above.
            unsafe { beside.write(FILL) };
        }
    }
}
