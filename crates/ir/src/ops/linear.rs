//! Matrix products: MatMul and Gemm.

use super::support::broadcast::{broadcast_dims, broadcast_shapes, broadcast_walk, broadcasts_to};
use super::support::inputs::{at_most, check_dtype, check_size, common_dtype, optional, required};
use super::support::values::{from_f64s, from_wrapping, to_wrapping};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `MatMul`: `A [.., M, K], B [.., K, N] -> Y [.., M, N]`; the axes in front broadcast, and a vector is a row or column
/// whose axis is dropped from the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMul;

/// ONNX `Gemm`: `A [M, K], B [K, N], C? -> alpha * A * B + beta * C`, `C` broadcast to `[M, N]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of `C`.
    pub beta: f32,
    /// `A` is `[K, M]`.
    pub trans_a: bool,
    /// `B` is `[N, K]`.
    pub trans_b: bool,
}

/// Extents of a matrix product once broadcasting is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Product {
    /// Axes in front of the matrices.
    pub(super) batch: Vec<usize>,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// Shape of the result: without the axis of a vector.
    pub(super) shape: Vec<usize>,
}

impl Product {
    /// Of two operands as `MatMul` takes them.
    pub(super) fn new(a: &[usize], b: &[usize]) -> Result<Self> {
        let empty = |index, name| Error::input(index, name, "expected at least one axis, found a scalar");
        let (a_batch, [m, k]) = match a {
            [] => return Err(empty(0, "A")),
            [k] => (&[][..], [1, *k]),
            [batch @ .., m, k] => (batch, [*m, *k]),
        };
        let (b_batch, [rows, n]) = match b {
            [] => return Err(empty(1, "B")),
            [k] => (&[][..], [*k, 1]),
            [batch @ .., k, n] => (batch, [*k, *n]),
        };
        if k != rows {
            return Err(Error::input(
                1,
                "B",
                format!("expected {k} rows, as A {a:?} has columns, found {b:?}"),
            ));
        }
        let batch = broadcast_shapes(&[a_batch, b_batch])?;
        let mut shape = batch.clone();
        shape.extend((a.len() > 1).then_some(m));
        shape.extend((b.len() > 1).then_some(n));
        Ok(Self { batch, m, k, n, shape })
    }

    /// The product of the elements of both operands.
    fn compute<W: Field>(&self, a: &[W], a_shape: &[usize], b: &[W], b_shape: &[usize]) -> Vec<W> {
        let front = |shape: &[usize]| shape[..shape.len().saturating_sub(2)].to_vec();
        let (a_size, b_size) = (self.m * self.k, self.k * self.n);
        let starts =
            broadcast_walk(&front(a_shape), &self.batch).zip(broadcast_walk(&front(b_shape), &self.batch));
        let mut result = Vec::with_capacity(self.shape.iter().product());
        for (i, j) in starts {
            let a = Matrix { data: &a[i * a_size..][..a_size], steps: [self.k, 1] };
            let b = Matrix { data: &b[j * b_size..][..b_size], steps: [self.n, 1] };
            multiply(a, b, [self.m, self.k, self.n], &mut result);
        }
        result
    }
}

/// What products are taken in: f64, or integers that wrap.
trait Field: Copy {
    const ZERO: Self;
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Field for f64 {
    const ZERO: Self = 0.0;
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}

impl Field for i64 {
    const ZERO: Self = 0;
    fn add_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Elements with the distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
struct Matrix<'a, W> {
    data: &'a [W],
    steps: [usize; 2],
}

/// Appends the product of `a` (m rows, k columns) and `b` (n columns), row by row.
fn multiply<W: Field>(a: Matrix<'_, W>, b: Matrix<'_, W>, [m, k, n]: [usize; 3], to: &mut Vec<W>) {
    if n == 0 {
        return;
    }
    for i in 0..m {
        let start = to.len();
        to.resize(start + n, W::ZERO);
        for depth in 0..k {
            let x = a.data[i * a.steps[0] + depth * a.steps[1]];
            let row = b.data[depth * b.steps[0]..].iter().step_by(b.steps[1]);
            for (sum, &y) in to[start..].iter_mut().zip(row) {
                *sum = sum.add_product(x, y);
            }
        }
    }
}

/// Shape of a matrix product of symbolic operands.
pub(super) fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let (a_batch, rows, k) = match a {
        [] => return Err(Error::input(0, "A", "expected at least one axis, found a scalar")),
        [k] => (&[][..], None, k),
        [batch @ .., m, k] => (batch, Some(m), k),
    };
    let (b_batch, depth, columns) = match b {
        [] => return Err(Error::input(1, "B", "expected at least one axis, found a scalar")),
        [k] => (&[][..], k, None),
        [batch @ .., k, n] => (batch, k, Some(n)),
    };
    if k.equals(depth) == Some(false) {
        return Err(Error::input(1, "B", format!("expected {k} rows, as A {a:?} has columns, found {b:?}")));
    }
    let mut shape = broadcast_dims(&[a_batch, b_batch])?;
    shape.extend(rows.cloned());
    shape.extend(columns.cloned());
    Ok(shape)
}

impl MatMul {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for MatMul {
    fn name(&self) -> &str {
        "MatMul"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (a, b) = (required(inputs, 0, "A")?.ty, required(inputs, 1, "B")?.ty);
        check_dtype(0, "A", a.dtype, DType::is_numeric, "numbers")?;
        let dtype = common_dtype(&[(0, "A", a.dtype), (1, "B", b.dtype)])?;
        let shape = match (&a.shape, &b.shape) {
            (Some(a), Some(b)) => Some(product_dims(a, b)?),
            _ => None,
        };
        Ok(vec![ValueType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        common_dtype(&[(0, "A", Some(a.dtype())), (1, "B", Some(b.dtype()))])?;
        let product = Product::new(a.shape(), b.shape())?;
        check_size(a.dtype(), &product.shape)?;
        if a.dtype().is_integer() {
            let result = product.compute(&to_wrapping(a)?, a.shape(), &to_wrapping(b)?, b.shape());
            return Ok(vec![from_wrapping(a.dtype(), &product.shape, &result)?]);
        }
        let result = product.compute(&a.to_f64s()?, a.shape(), &b.to_f64s()?, b.shape());
        Ok(vec![from_f64s(a.dtype(), &product.shape, &result)?])
    }
}

impl Gemm {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            alpha: attributes.float("alpha")?.unwrap_or(1.0),
            beta: attributes.float("beta")?.unwrap_or(1.0),
            trans_a: attributes.flag("transA", false)?,
            trans_b: attributes.flag("transB", false)?,
        };
        attributes.finish("alpha, beta, transA, transB")?;
        Ok(op)
    }

    /// `[M, K]` and `[K, N]` of operands whose transposition is resolved.
    fn matrices<T: Clone + std::fmt::Debug>(self, a: &[T], b: &[T]) -> Result<[[T; 2]; 2]> {
        let matrix = |index: usize, name: &'static str, shape: &[T], transposed: bool| match shape {
            [rows, columns] if transposed => Ok([columns.clone(), rows.clone()]),
            [rows, columns] => Ok([rows.clone(), columns.clone()]),
            _ => Err(Error::input(index, name, format!("expected a matrix, found {shape:?}"))),
        };
        Ok([matrix(0, "A", a, self.trans_a)?, matrix(1, "B", b, self.trans_b)?])
    }
}

impl Operator for Gemm {
    fn name(&self) -> &str {
        "Gemm"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if value != 1.0 {
                attributes.set(name, value);
            }
        }
        for (name, value) in [("transA", self.trans_a), ("transB", self.trans_b)] {
            if value {
                attributes.set(name, true);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (a, b) = (required(inputs, 0, "A")?.ty, required(inputs, 1, "B")?.ty);
        let c = optional(inputs, 2).map(|c| c.ty);
        check_dtype(0, "A", a.dtype, DType::is_numeric, "numbers")?;
        let dtype = common_dtype(&[(0, "A", a.dtype), (1, "B", b.dtype), (2, "C", c.and_then(|c| c.dtype))])?;
        let (Some(a), Some(b)) = (&a.shape, &b.shape) else {
            return Ok(vec![ValueType { dtype, shape: None }]);
        };
        let [[m, k], [depth, n]] = self.matrices(a, b)?;
        if k.equals(&depth) == Some(false) {
            return Err(Error::input(1, "B", format!("expected a depth of {k}, as A has, found {depth}")));
        }
        let shape = vec![m, n];
        if let Some(c) = c.and_then(|c| c.shape.as_deref()) {
            let fits = c.len() <= 2 && broadcast_dims(&[c, &shape]).is_ok_and(|both| both.len() == 2);
            let stretches = c.iter().rev().zip(shape.iter().rev());
            if !fits
                || stretches.clone().any(|(c, y)| y.known() == Some(1) && c.known().is_some_and(|c| c != 1))
            {
                return Err(Error::input(2, "C", format!("{c:?} does not broadcast to {shape:?}")));
            }
        }
        Ok(vec![ValueType { dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let c = optional(inputs, 2);
        common_dtype(&[
            (0, "A", Some(a.dtype())),
            (1, "B", Some(b.dtype())),
            (2, "C", c.map(Tensor::dtype)),
        ])?;
        let [[m, k], [depth, n]] = self.matrices(a.shape(), b.shape())?;
        if k != depth {
            return Err(Error::input(1, "B", format!("expected a depth of {k}, as A has, found {depth}")));
        }
        let shape = [m, n];
        check_size(a.dtype(), &shape)?;
        if let Some(c) = c
            && !broadcasts_to(c.shape(), &shape)
        {
            return Err(Error::input(2, "C", format!("{:?} does not broadcast to {shape:?}", c.shape())));
        }
        let a_steps = if self.trans_a { [1, m] } else { [k, 1] };
        let b_steps = if self.trans_b { [1, k] } else { [n, 1] };
        let unit = self.alpha == 1.0 && self.beta == 1.0;
        if a.dtype().is_integer() && unit {
            let mut result = vec![];
            let (x, y) = (to_wrapping(a)?, to_wrapping(b)?);
            let (x, y) = (Matrix { data: &x, steps: a_steps }, Matrix { data: &y, steps: b_steps });
            multiply(x, y, [m, k, n], &mut result);
            if let Some(c) = c {
                let addends = to_wrapping(c)?;
                for (sum, at) in result.iter_mut().zip(broadcast_walk(c.shape(), &shape)) {
                    *sum = sum.wrapping_add(addends[at]);
                }
            }
            return Ok(vec![from_wrapping(a.dtype(), &shape, &result)?]);
        }
        let mut result = vec![];
        let (x, y) = (a.to_f64s()?, b.to_f64s()?);
        let (x, y) = (Matrix { data: &x, steps: a_steps }, Matrix { data: &y, steps: b_steps });
        multiply(x, y, [m, k, n], &mut result);
        for sum in &mut result {
            *sum *= f64::from(self.alpha);
        }
        if let Some(c) = c {
            let addends = c.to_f64s()?;
            for (sum, at) in result.iter_mut().zip(broadcast_walk(c.shape(), &shape)) {
                *sum += f64::from(self.beta) * addends[at];
            }
        }
        Ok(vec![from_f64s(a.dtype(), &shape, &result)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..count).map(|i| (i * 7 % 5) as f32 - 2.0).collect()).unwrap()
    }

    fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        MatMul.eval(&[Some(a), Some(b)], 1).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn batches_broadcast() {
        let (a, b) = (tensor(&[2, 1, 3, 4]), tensor(&[5, 4, 2]));
        let y = matmul(&a, &b).unwrap();
        assert_eq!(y.shape(), [2, 5, 3, 2]);
        let (x, w, y) = (a.to_f64s().unwrap(), b.to_f64s().unwrap(), y.to_f64s().unwrap());
        for (at, value) in y.iter().enumerate() {
            let (p, q, i, j) = (at / 30, at / 6 % 5, at / 2 % 3, at % 2);
            let expected: f64 = (0..4).map(|k| x[p * 12 + i * 4 + k] * w[q * 8 + k * 2 + j]).sum();
            assert_eq!(*value, expected);
        }
    }

    #[test]
    fn vectors_lose_their_axis() {
        for (a, b, y) in [
            (vec![4], vec![4], vec![]),
            (vec![4], vec![4, 3], vec![3]),
            (vec![2, 3, 4], vec![4], vec![2, 3]),
            (vec![4], vec![5, 4, 2], vec![5, 2]),
            (vec![2, 0], vec![0, 3], vec![2, 3]),
        ] {
            assert_eq!(matmul(&tensor(&a), &tensor(&b)).unwrap().shape(), y);
            let dims = |shape: &[usize]| shape.iter().copied().map(Dim::from).collect::<Vec<_>>();
            assert_eq!(product_dims(&dims(&a), &dims(&b)), Ok(dims(&y)));
        }
        assert!(matmul(&tensor(&[2, 3]), &tensor(&[2, 3])).is_err());
        assert!(matmul(&tensor(&[]), &tensor(&[2])).is_err());
    }

    #[test]
    fn gemm_transposes_scales_and_adds() {
        let (plain_a, plain_b) = (tensor(&[3, 4]), tensor(&[4, 2]));
        let product = matmul(&plain_a, &plain_b).unwrap().to_f64s().unwrap();
        let transpose = |x: &Tensor| {
            let (rows, columns) = (x.shape()[0], x.shape()[1]);
            let data = x.elements::<f32>().unwrap();
            let turned = (0..rows * columns).map(|at| data[at % rows * columns + at / rows]).collect();
            Tensor::from_vec([columns, rows], turned).unwrap()
        };
        let c = Tensor::from_vec([2], vec![10f32, 20.0]).unwrap();
        for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let op = Gemm { alpha: 0.5, beta: 2.0, trans_a, trans_b };
            assert_eq!(Gemm::read(op.attributes()), Ok(op));
            let a = if trans_a { transpose(&plain_a) } else { plain_a.clone() };
            let b = if trans_b { transpose(&plain_b) } else { plain_b.clone() };
            let y = op.eval(&[Some(&a), Some(&b), Some(&c)], 1).unwrap()[0].to_f64s().unwrap();
            for (at, value) in y.iter().enumerate() {
                assert_eq!(*value, 0.5 * product[at] + [20.0, 40.0][at % 2]);
            }
            let infos: Vec<ValueType> = [&a, &b, &c].map(ValueType::of).to_vec();
            let infos: Vec<_> =
                infos.iter().map(|ty| Some(InputInfo { ty, constant: None, extents: None })).collect();
            assert_eq!(op.infer(&infos, 1).unwrap()[0], ValueType::new(DType::F32, [3usize, 2]));
        }
        let wide = tensor(&[2, 3, 2]);
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
        assert!(op.eval(&[Some(&plain_a), Some(&plain_b), Some(&wide)], 1).is_err());
    }
}
