//! What a product of matrices computes: extents, strides and where each of a batch starts. Plain values.

use tconvc_ir::ops::Gemm;
use tconvc_machine::Target;

/// A product of matrices, for each of a batch.
pub(crate) struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Elements between rows and between columns of the left side, and between rows of the right side.
    pub a_row: usize,
    pub a_column: usize,
    pub b_row: usize,
    /// Where the left and the right side start, for each of the batch.
    pub starts: Vec<[usize; 2]>,
    pub alpha: f32,
    pub beta: f32,
    /// Elements between rows and between columns of what is added; 0 where it is broadcast.
    pub addend: Option<[usize; 2]>,
}

impl Product {
    pub fn of_matmul(a: &[usize], b: &[usize]) -> Option<Self> {
        let (a_front, m, k) = match *a {
            [k] => (&[][..], 1, k),
            [ref front @ .., m, k] => (front, m, k),
            [] => return None,
        };
        let (b_front, n) = match *b {
            [_] => (&[][..], 1),
            [ref front @ .., _, n] => (front, n),
            [] => return None,
        };
        let rank = a_front.len().max(b_front.len());
        let extent = |front: &[usize], axis: usize| {
            (axis + front.len()).checked_sub(rank).map_or(1, |axis| front[axis])
        };
        let mut starts = vec![[0, 0]];
        // Matrices of each side that one index of the axis stands for.
        let mut inner = [1, 1];
        for axis in (0..rank).rev() {
            let (left, right) = (extent(a_front, axis), extent(b_front, axis));
            let count = if left == 1 { right } else { left };
            let step = [if left == 1 { 0 } else { inner[0] }, if right == 1 { 0 } else { inner[1] }];
            starts = (0..count)
                .flat_map(|i| {
                    starts.iter().map(move |start| [start[0] + i * step[0], start[1] + i * step[1]])
                })
                .collect();
            inner = [inner[0] * left, inner[1] * right];
        }
        let mut m = m;
        if b_front.iter().product::<usize>() == 1 && rank == a_front.len() {
            // All rows meet the same right side.
            m *= starts.len();
            starts = vec![[0, 0]];
        }
        for start in &mut starts {
            *start = [start[0] * m * k, start[1] * k * n];
        }
        Some(Self { m, k, n, a_row: k, a_column: 1, b_row: n, starts, alpha: 1.0, beta: 1.0, addend: None })
    }

    pub fn of_gemm(op: &Gemm, a: &[usize], b: &[usize], c: Option<&[usize]>) -> Option<Self> {
        let (&[a_rows, a_columns], &[b_rows, b_columns]) = (a, b) else { return None };
        let (m, k, [a_row, a_column]) = if op.trans_a {
            (a_columns, a_rows, [1, a_columns])
        } else {
            (a_rows, a_columns, [a_columns, 1])
        };
        let n = if op.trans_b { b_rows } else { b_columns };
        let addend = match c {
            None => None,
            Some([]) => Some([0, 0]),
            Some(&[columns]) => Some([0, usize::from(columns != 1)]),
            Some(&[rows, columns]) => Some([if rows == 1 { 0 } else { columns }, usize::from(columns != 1)]),
            Some(_) => return None,
        };
        let (alpha, beta) = (op.alpha, op.beta);
        Some(Self { m, k, n, a_row, a_column, b_row: n, starts: vec![[0, 0]], alpha, beta, addend })
    }
}

/// Rows and columns of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub rows: usize,
    pub columns: usize,
}

impl Shape {
    /// The largest that leaves registers for a splat and the vectors of the right side.
    pub fn choose(target: &Target, product: &Product) -> Self {
        let lanes = target.lanes();
        let accumulators = target.vectors().product_sums;
        let most = product.n.div_ceil(lanes);
        let vectors = if product.m >= accumulators / 2 { 2 } else { accumulators / product.m.max(1) };
        let rows = |vectors: usize| (accumulators / vectors).clamp(1, 12).min(product.m);
        // Besides the sums there are the vectors of the right side and a splat.
        let fits = |&vectors: &usize| rows(vectors) * vectors + vectors < target.vector_registers();
        let vectors = (1..=vectors.clamp(1, 6).min(most)).rev().find(fits).unwrap_or(1);
        let rows = rows(vectors);
        Self { rows, columns: vectors * lanes }
    }
}
