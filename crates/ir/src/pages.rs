//! Large blocks of memory straight from the system: zero without being written, and in huge pages where there are some, so
//! that filling them does not stop at every 4 KiB.

use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Blocks from this size on are worth a mapping of their own.
pub const LARGE_BYTES: usize = 1 << 20;

/// Zeroed bytes that start at a page.
pub struct Pages(MmapMut);

impl Pages {
    /// So many zero bytes; `None` when the system has no memory for them.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        let map = MmapMut::map_anon(bytes).ok()?;
        // Only a wish: small pages do as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self(map))
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0
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
        for bytes in [1, 4096, LARGE_BYTES + 1, 5 << 20] {
            let mut pages = Pages::zeroed(bytes).unwrap();
            assert_eq!((pages.len(), pages.as_ptr().addr() % 4096), (bytes, 0));
            assert!(pages.iter().all(|&byte| byte == 0));
            pages[bytes - 1] = 7;
            assert_eq!(pages.as_ref()[bytes - 1], 7);
        }
        assert!(Pages::zeroed(usize::MAX / 2).is_none());
    }
}
