//! Where an input tile lies in scratch memory.

/// Strides of the input tile in scratch memory, in bytes.
///
/// A row holds the positions of the input tile; those `in_stride` apart lie next to each other, in as many planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InputTileLayout {
    pub plane_bytes: i32,
    pub row_bytes: i32,
    pub channel_bytes: i32,
    pub in_stride: usize,
}

impl InputTileLayout {
    /// Bytes from the start of a row to position `j` of the input tile.
    pub fn position(&self, j: usize) -> i32 {
        (j % self.in_stride) as i32 * self.plane_bytes + 4 * (j / self.in_stride) as i32
    }
}
