//! The matrices of Winograd's minimal matrices, by interpolation at chosen points.

/// `F(m, r)`: `m` outputs of a correlation with `r` taps from `n = m + r - 1` products.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrices {
    pub m: usize,
    pub r: usize,
    /// `A^T`, `[m][n]`: products to outputs.
    pub output: Vec<Vec<f64>>,
    /// `G`, `[n][r]`: taps to factors.
    pub weights: Vec<Vec<f64>>,
    /// `B^T`, `[n][n]`: inputs to factors.
    pub input: Vec<Vec<f64>>,
}

/// The most products along an axis, and along one where the other has none.
pub(crate) const MOST: usize = 6;
pub(crate) const MOST_ALONE: usize = 7;

/// So many points in the order in which they are taken; infinity is the last, besides. Pairs of opposite sign share their sums.
/// Up to three, small whole numbers make the cheapest matrices; beyond, these fractions have a third of the rounding
/// error of 1 and 2, and their powers are exact in binary.
fn points(count: usize) -> &'static [f64] {
    match count {
        0..=3 => &[0.0, 1.0, -1.0][..count],
        4..=5 => &[0.0, 0.75, -0.75, 1.5, -1.5][..count],
        _ => &[0.25, -0.25, 0.875, -0.875, 1.75, -1.75][..count.min(6)],
    }
}

impl Matrices {
    /// The matrices; `m + r - 1` must be at most [`MOST_ALONE`], unless one of the two is 1. Without taps there are no products,
    /// and the outputs are zero.
    pub fn new(m: usize, r: usize) -> Self {
        if r == 0 {
            return Self { m, r, output: vec![vec![]; m], weights: vec![], input: vec![] };
        }
        let n = m + r - 1;
        let identity = |i: usize, j: usize| f64::from(u8::from(i == j));
        let matrix = |rows: usize, columns: usize, f: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..rows).map(|i| (0..columns).map(|j| f(i, j)).collect()).collect()
        };
        if m == 1 || r == 1 {
            let output = matrix(m, n, &|i, j| if m == 1 { 1.0 } else { identity(i, j) });
            let weights = matrix(n, r, &|i, j| if r == 1 { 1.0 } else { identity(i, j) });
            return Self { m, r, output, weights, input: matrix(n, n, &identity) };
        }
        let points = points(n - 1);
        let others = |i: usize| points.iter().enumerate().filter(move |&(j, _)| j != i).map(|(_, &a)| a);
        let output = matrix(m, n, &|k, i| match points.get(i) {
            Some(a) => a.powi(k as i32),
            None => identity(k, m - 1),
        });
        let weights = matrix(n, r, &|i, k| match points.get(i) {
            Some(a) => a.powi(k as i32) / others(i).map(|b| a - b).product::<f64>(),
            None => identity(k, r - 1),
        });
        let input: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                // Coefficients of the product of (x - b) over the other points.
                let mut polynomial = vec![0.0; n];
                polynomial[0] = 1.0;
                for b in others(i) {
                    for k in (0..n).rev() {
                        polynomial[k] = if k == 0 { 0.0 } else { polynomial[k - 1] } - b * polynomial[k];
                    }
                }
                polynomial
            })
            .collect();
        Self { m, r, output, weights, input }
    }

    /// Products for `m` outputs under `r` taps.
    pub fn products(m: usize, r: usize) -> usize {
        if r == 0 { 0 } else { m + r - 1 }
    }

    /// Products.
    pub fn n(&self) -> usize {
        Self::products(self.m, self.r)
    }

    /// True when inputs are the factors.
    pub fn keeps_input(&self) -> bool {
        self.m == 1 || self.r <= 1
    }

    /// True when products are the outputs.
    pub fn keeps_output(&self) -> bool {
        self.r <= 1
    }
}

/// The taps of a phase along one axis as kernel indices, in the order of the inputs they read; a piece of them after the other, and
/// none where the last one has fewer.
pub(crate) type Kernels = Vec<Option<usize>>;

#[cfg(test)]
mod tests {
    use super::*;

    /// All matrices give the correlation, exactly where all numbers are small integers times a common denominator.
    #[test]
    fn winograd_is_correlation() {
        for m in 1..=MOST_ALONE {
            for r in 1..=MOST_ALONE + 1 - m {
                let f = Matrices::new(m, r);
                let inputs: Vec<f64> = (0..f.n()).map(|i| ((i * 7 + 3) % 11) as f64 - 5.0).collect();
                let taps: Vec<f64> = (0..r).map(|i| ((i * 5 + 2) % 7) as f64 - 3.0).collect();
                let apply = |matrix: &[Vec<f64>], x: &[f64]| -> Vec<f64> {
                    matrix.iter().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
                };
                let (v, u) = (apply(&f.input, &inputs), apply(&f.weights, &taps));
                let products: Vec<f64> = v.iter().zip(&u).map(|(a, b)| a * b).collect();
                let found = apply(&f.output, &products);
                let expected: Vec<f64> =
                    (0..m).map(|k| (0..r).map(|j| taps[j] * inputs[k + j]).sum()).collect();
                assert_eq!(found.len(), m);
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-10, "F({m}, {r}): {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn matrices_as_known() {
        let f = Matrices::new(2, 3);
        assert_eq!(f.output, [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, 1.0]]);
        assert_eq!(f.input[0], [-1.0, 0.0, 1.0, 0.0]);
        let f = Matrices::new(4, 3);
        assert_eq!(f.input[0], [1.265_625, 0.0, -2.8125, 0.0, 1.0, 0.0]);
        assert_eq!(f.output[2], [0.0, 0.5625, 0.5625, 2.25, 2.25, 0.0]);
    }
}
