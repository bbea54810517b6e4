//! The tile of a product: sums of rows times vectors of columns over the whole depth, and what is done to them.

use super::post_ops::ProductPostOps;
use super::product::Product;
use crate::kernels::walk::first_lanes;
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// Steps of the depth that are written out.
const UNROLLED: usize = 4;

impl Product {
    /// A tile of so many rows and columns: `a, b, y, c`, and what the post-ops read.
    pub fn write(
        &self,
        mut t: TileBuilder,
        [rows, columns]: [usize; 2],
        packed: bool,
        post_ops: Option<&ProductPostOps<'_>>,
    ) -> Result<Tile, TileError> {
        let [a, b, y] = t.pointers(["a", "b", "y"]);
        let c = self.addend.map(|strides| (t.pointer("c"), strides));
        let of_post_ops: Vec<Pointer> =
            post_ops.map_or(&[][..], |post_ops| &post_ops.inputs).iter().map(|_| t.pointer("x")).collect();
        let lanes = t.lanes();
        let vectors = columns.div_ceil(lanes);
        let which: Vec<Lanes> = (0..vectors).map(|i| first_lanes(&t, columns - i * lanes)).collect();
        let bytes = |elements: usize| i32::try_from(4 * elements).unwrap_or(i32::MAX);
        let sums: Vec<Vec<Vector>> = (0..rows).map(|_| (0..vectors).map(|_| t.zero()).collect()).collect();
        let step = |t: &mut TileBuilder, depth: usize| {
            let right: Vec<Vector> = (0..vectors)
                .map(|v| {
                    let at = b.at(bytes(depth * self.b_row + v * lanes));
                    // Panels are padded to whole vectors.
                    t.load_lanes(at, if packed { Lanes::All } else { which[v] })
                })
                .collect();
            for (row, sums) in sums.iter().enumerate() {
                let at = a.at(bytes(row * self.a_row + depth * self.a_column));
                if let ([sum], [right]) = (sums.as_slice(), right.as_slice()) {
                    t.fma(*sum, *right, at.splat());
                    continue;
                }
                let left = t.load_splat(at);
                for (&sum, &right) in sums.iter().zip(&right) {
                    t.fma(sum, left, right);
                }
            }
        };
        let (trips, rest) = (self.k / UNROLLED, self.k % UNROLLED);
        if trips > 0 {
            let moving = [(a, bytes(UNROLLED * self.a_column)), (b, bytes(UNROLLED * self.b_row))];
            t.repeat(trips as u32, &moving, |t| (0..UNROLLED).for_each(|depth| step(t, depth)));
        }
        for depth in 0..rest {
            step(&mut t, depth);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let mut result = if self.alpha == 1.0 { sum } else { t.mul(sum, self.alpha) };
                if let Some((c, [c_row, c_column])) = c {
                    let at = c.at(bytes(row * c_row + v * lanes * c_column));
                    let addend = if c_column == 0 { t.load_splat(at) } else { t.load_lanes(at, which[v]) };
                    let addend = if self.beta == 1.0 { addend } else { t.mul(addend, self.beta) };
                    result = t.add(result, addend);
                }
                t.store_lanes(result, y.at(bytes(row * self.n + v * lanes)), which[v]);
            }
        }
        if let Some(post_ops) = post_ops {
            post_ops.write(&mut t, &of_post_ops, y, rows, bytes(self.n), &which);
        }
        t.finish()
    }
}
