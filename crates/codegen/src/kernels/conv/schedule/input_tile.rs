//! Where an input tile lies in scratch memory.

/// Strides of the window in scratch memory, in bytes.
///
/// A row holds the positions of the window; those `in_stride` apart lie next to each other, in as many planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub plane_bytes: i32,
    pub row_bytes: i32,
    pub channel_bytes: i32,
    pub in_stride: usize,
}

impl Window {
    /// Bytes from the start of a row to position `j` of the window.
    pub fn position(&self, j: usize) -> i32 {
        (j % self.in_stride) as i32 * self.plane_bytes + 4 * (j / self.in_stride) as i32
    }
}
