//! Large blocks of memory straight from the system: zero without being written, and in huge pages where there are some, so
//! that filling them does not stop at every 4 KiB.

use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};

/// Blocks from this size on are worth a mapping of their own.
pub const LARGE_BYTES: usize = 1 << 20;

/// Size of a huge page, and where one may start.
pub const HUGE_PAGE: usize = 2 << 20;

/// Zeroed bytes that start at a huge page.
pub struct Pages {
    map: MmapMut,
    /// Which bytes of the mapping they are.
    range: Range<usize>,
}

impl Pages {
    /// So many zero bytes; `None` when the system has no memory for them.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        let map =
            MmapMut::map_anon(bytes.checked_next_multiple_of(HUGE_PAGE)?.checked_add(HUGE_PAGE)?).ok()?;
        let address = map.as_ptr().addr();
        let start = address.next_multiple_of(HUGE_PAGE) - address;
        // A last page of which less than half is used stays small ones. All this is only a wish.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(
            memmap2::Advice::HugePage,
            start,
            (bytes + HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE,
        );
        Some(Self { map, range: start..start + bytes })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.range.clone()]
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_aligned_and_of_the_size_asked_for() {
        for bytes in [1, 4096, LARGE_BYTES + 1, 4 << 20, 5 << 20] {
            let mut pages = Pages::zeroed(bytes).unwrap();
            assert_eq!((pages.len(), pages.as_ptr().addr() % HUGE_PAGE), (bytes, 0));
            assert!(pages.iter().all(|&byte| byte == 0));
            pages[bytes - 1] = 7;
            assert_eq!(pages.as_ref()[bytes - 1], 7);
        }
        assert!(Pages::zeroed(usize::MAX / 2).is_none());
    }
}
