//! A constant right side in panels of a tile's columns.

use crate::packing::Pack;

/// A matrix in panels of columns.
pub(crate) struct Panels<'a> {
    /// Floats by their bytes: in a model file they need not be aligned.
    pub data: &'a [[u8; 4]],
    pub k: usize,
    pub n: usize,
    pub columns: usize,
    /// Whether `data` holds column after column.
    pub transposed: bool,
}

/// Elements of a column that are read before the next.
const RUN: usize = 64;

impl Pack for Panels<'_> {
    fn segments(&self) -> Vec<(usize, usize)> {
        (0..self.n.div_ceil(self.columns)).map(|panel| (self.k * self.columns, panel)).collect()
    }

    fn write(&self, task: usize, segments: &mut [&mut [f32]]) {
        let [segment] = segments else { return };
        let first = task * self.columns;
        let exist = self.columns.min(self.n - first);
        if !self.transposed {
            let rows = segment.chunks_exact_mut(self.columns).zip(self.data.chunks_exact(self.n));
            for (panel, row) in rows {
                for (value, weight) in panel.iter_mut().zip(&row[first..first + exist]) {
                    *value = f32::from_ne_bytes(*weight);
                }
            }
            return;
        }
        for (run, panel) in segment.chunks_mut(RUN * self.columns).enumerate() {
            for column in 0..exist {
                let data = &self.data[(first + column) * self.k + run * RUN..];
                for (row, weight) in panel.chunks_exact_mut(self.columns).zip(data) {
                    row[column] = f32::from_ne_bytes(*weight);
                }
            }
        }
    }
}
