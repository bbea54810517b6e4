//! MatMul and Gemm of f32: lanes along the columns of the right side, rows of the left side as splats, the whole depth in
//! one go. A constant right side is packed into panels of whole vectors.

pub(super) mod post_ops;

use self::post_ops::{Along, ProductPostOps};
use super::walk::{below, choose, entry, indices};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use crate::packing::Pack;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use tconvc_ir::ops::Gemm;
use tconvc_ir::{DType, Node, Op, Tensor};
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::{Kernel, Operand};
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// The most tiles of rows that share a panel of the right side while it is in the first-level cache.
const ROW_TILES: usize = 8;
/// Steps of the depth that are written out.
const UNROLLED: usize = 4;

/// A product of matrices, for each of a batch.
struct Product {
    m: usize,
    k: usize,
    n: usize,
    /// Elements between rows and between columns of the left side, and between rows of the right side.
    a_row: usize,
    a_column: usize,
    b_row: usize,
    /// Where the left and the right side start, for each of the batch.
    starts: Vec<[usize; 2]>,
    alpha: f32,
    beta: f32,
    /// Elements between rows and between columns of what is added; 0 where it is broadcast.
    addend: Option<[usize; 2]>,
}

/// Makes the kernel; `false` for other types, a right side that is neither constant nor row-major, and a post_ops that takes more
/// registers than there are.
pub(crate) fn build(
    builder: &mut Builder<'_>,
    node: &Node,
    post_ops: Option<&ProductPostOps<'_>>,
) -> Result<bool, CompileError> {
    let (Some(a), Some(b), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Ok(false);
    };
    let floats =
        node.inputs().iter().flatten().all(|&value| builder.graph.ty(value).dtype == Some(DType::F32));
    let (a_shape, b_shape) = (builder.shape(a)?, builder.shape(b)?);
    let c = node.input(2);
    let c_shape = c.map(|c| builder.shape(c)).transpose()?;
    let product = match &node.op {
        Op::MatMul(_) => Product::of_matmul(&a_shape, &b_shape),
        Op::Gemm(op) => Product::of_gemm(op, &a_shape, &b_shape, c_shape.as_deref()),
        _ => None,
    };
    let (true, Some(mut product)) = (floats, product) else { return Ok(false) };
    let trans_b = matches!(&node.op, Op::Gemm(op) if op.trans_b);
    let right = builder.constant(b).filter(|_| product.starts.iter().all(|start| start[1] == 0));
    if trans_b && right.is_none() {
        return Ok(false);
    }
    if product.m * product.n * product.starts.len() == 0 {
        return Ok(true);
    }
    if [product.m, product.k, product.n].iter().any(|&extent| extent > 1 << 22) {
        return Ok(false);
    }
    let name = builder.unique(&format!("f32_matmul_{}x{}x{}", product.m, product.k, product.n));
    let shape = Shape::choose(builder, &product);
    let packed = right.is_some();
    if packed {
        product.b_row = shape.columns;
    }
    let Some(codes) = codes(builder, &name, &product, (shape, packed), post_ops)? else { return Ok(false) };
    let right = match right {
        Some(tensor) => pack(builder, tensor, &product, shape, trans_b),
        None => builder.operand(b)?,
    };
    let mut operands = vec![builder.operand(a)?, right, builder.operand(y)?];
    let starts: Vec<i64> = product.starts.iter().flatten().map(|&start| 4 * start as i64).collect();
    operands.push(builder.pack_bytes(bytemuck::cast_slice(&starts)));
    if let Some(c) = c.filter(|_| product.addend.is_some()) {
        operands.push(builder.operand(c)?);
    }
    let before = operands.len();
    let tail_inputs = post_ops.map_or(&[][..], |post_ops| &post_ops.inputs);
    for &(value, _) in tail_inputs {
        operands.push(builder.operand(value)?);
    }
    let Product { m, k, n, a_row, .. } = product;
    let [c_row, c_column] = product.addend.unwrap_or_default();
    let row_tiles = m.div_ceil(shape.rows);
    let row_tiles = row_tiles.div_ceil(row_tiles.div_ceil(ROW_TILES));
    let chunk = shape.rows * row_tiles;
    let (panels, chunks) = (n.div_ceil(shape.columns), m.div_ceil(chunk));
    let extents = [product.starts.len(), chunks, panels];
    // Bytes from one panel of the right side to the next.
    let panel_bytes = 4 * if packed { k * shape.columns } else { shape.columns } as i64;
    let function = builder.add_step(&name, |f| {
        let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
        let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
        f.for_each(begin, end, |f, unit| {
            let place = indices(f, unit, &extents);
            let (batch, chunk_index, panel) = (place[0], place[1], place[2]);
            let at = f.builder.ins().imul_imm_s(batch, 2);
            let a_start = entry(f, pointers[3], at);
            let next = f.add_constant(at, 1);
            let b_start = entry(f, pointers[3], next);
            let first = f.builder.ins().imul_imm_s(chunk_index, chunk as i64);
            let a = f.builder.ins().iadd(pointers[0], a_start);
            let a = f.element(a, first, 4 * a_row as i64);
            let b = f.builder.ins().iadd(pointers[1], b_start);
            let b = f.element(b, panel, panel_bytes);
            let at_columns =
                |f: &mut FunctionBuilder<'_>, pointer| f.element(pointer, panel, 4 * shape.columns as i64);
            let at_place = |f: &mut FunctionBuilder<'_>, pointer| {
                let pointer = f.element(pointer, batch, 4 * (m * n) as i64);
                let pointer = f.element(pointer, first, 4 * n as i64);
                at_columns(f, pointer)
            };
            let y = at_place(f, pointers[2]);
            let of_tail = pointers[before..].iter().zip(tail_inputs);
            let of_tail: Vec<_> = of_tail
                .map(|(&pointer, &(_, along))| match along {
                    Along::Both => (at_place(f, pointer), 4 * n as i64),
                    Along::Columns => (at_columns(f, pointer), 0),
                    Along::Nothing => (pointer, 0),
                })
                .collect();
            let c = pointers[..before].get(4).map(|&c| {
                let c = f.element(c, first, 4 * c_row as i64);
                f.element(c, panel, 4 * (c_column * shape.columns) as i64)
            });
            let whole = below(f, chunk_index, m / chunk);
            let (all, last) = (f.constant(row_tiles as i64), f.constant((m % chunk / shape.rows) as i64));
            let tiles = f.builder.ins().select(whole, all, last);
            let args = |f: &mut FunctionBuilder<'_>, tile| {
                let rows = f.builder.ins().imul_imm_s(tile, shape.rows as i64);
                let mut args =
                    vec![f.element(a, rows, 4 * a_row as i64), b, f.element(y, rows, 4 * n as i64)];
                args.extend(c.map(|c| f.element(c, rows, 4 * c_row as i64)));
                args.extend(of_tail.iter().map(|&(pointer, row)| f.element(pointer, rows, row)));
                args
            };
            let run = |f: &mut FunctionBuilder<'_>, [full, edge]: [Option<FunctionId>; 2], args: &[_]| match (
                full, edge,
            ) {
                (Some(full), Some(edge)) => {
                    let inside = below(f, panel, n / shape.columns);
                    choose(f, inside, |f| f.call(full, args), |f| f.call(edge, args));
                }
                (Some(only), None) | (None, Some(only)) => f.call(only, args),
                (None, None) => {}
            };
            let zero = f.constant(0);
            f.for_each(zero, tiles, |f, tile| {
                let args = args(f, tile);
                run(f, codes.full, &args);
            });
            if codes.rest.iter().any(Option::is_some) {
                let at_end = f.builder.ins().icmp_imm_u(IntCC::Equal, chunk_index, (m / chunk) as i64);
                choose(
                    f,
                    at_end,
                    |f| {
                        let args = args(f, tiles);
                        run(f, codes.rest, &args);
                    },
                    |_| {},
                );
            }
        });
    })?;
    let of_chunk = |first: usize| {
        (0..n)
            .step_by(shape.columns)
            .map(move |column| (chunk.min(m - first) * shape.columns.min(n - column)) as u64)
    };
    let weights: Vec<u64> = (0..m).step_by(chunk).flat_map(of_chunk).collect();
    let nanoseconds =
        (product.starts.len() * m * k * n) as f64 / builder.target.rates().elementwise.matrix_macs;
    let partition = builder.weighted_partition(&weights.repeat(product.starts.len()), nanoseconds);
    builder.push_kernel(Kernel { name, function, operands, partition, scratch_bytes: 0, time_steps: 1 });
    Ok(true)
}

impl Product {
    fn of_matmul(a: &[usize], b: &[usize]) -> Option<Self> {
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

    fn of_gemm(op: &Gemm, a: &[usize], b: &[usize], c: Option<&[usize]>) -> Option<Self> {
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
struct Shape {
    rows: usize,
    columns: usize,
}

impl Shape {
    /// The largest that leaves registers for a splat and the vectors of the right side.
    fn choose(builder: &Builder<'_>, product: &Product) -> Self {
        let lanes = builder.target.lanes();
        let accumulators = builder.target.vectors().product_sums;
        let most = product.n.div_ceil(lanes);
        let vectors = if product.m >= accumulators / 2 { 2 } else { accumulators / product.m.max(1) };
        let rows = |vectors: usize| (accumulators / vectors).clamp(1, 12).min(product.m);
        // Besides the sums there are the vectors of the right side and a splat.
        let fits = |&vectors: &usize| rows(vectors) * vectors + vectors < builder.target.vector_registers();
        let vectors = (1..=vectors.clamp(1, 6).min(most)).rev().find(fits).unwrap_or(1);
        let rows = rows(vectors);
        Self { rows, columns: vectors * lanes }
    }
}

/// Code for whole tiles and for the last rows, each for whole panels and for the last one.
struct Codes {
    full: [Option<FunctionId>; 2],
    rest: [Option<FunctionId>; 2],
}

fn codes(
    builder: &mut Builder<'_>,
    name: &str,
    product: &Product,
    (shape, packed): (Shape, bool),
    post_ops: Option<&ProductPostOps<'_>>,
) -> Result<Option<Codes>, CompileError> {
    let (left_rows, left_columns) = (product.m % shape.rows, product.n % shape.columns);
    let mut made = [[None; 2]; 2];
    for (r, rows) in [if product.m >= shape.rows { shape.rows } else { 0 }, left_rows].into_iter().enumerate()
    {
        let panels = [if product.n >= shape.columns { shape.columns } else { 0 }, left_columns];
        for (c, columns) in panels.into_iter().enumerate() {
            if rows == 0 || columns == 0 {
                continue;
            }
            let tile = builder.tile(&format!("{name}_{rows}x{columns}"));
            let Ok(tile) = product.write(tile, [rows, columns], packed, post_ops) else { return Ok(None) };
            made[r][c] = Some(builder.add_tile(Ok(tile))?);
        }
    }
    Ok(Some(Codes { full: made[0], rest: made[1] }))
}

impl Product {
    /// A tile of so many rows and columns: `a, b, y, c`, and what the post_ops reads.
    fn write(
        &self,
        mut t: TileBuilder,
        [rows, columns]: [usize; 2],
        packed: bool,
        post_ops: Option<&ProductPostOps<'_>>,
    ) -> Result<Tile, TileError> {
        let [a, b, y] = t.pointers(["a", "b", "y"]);
        let c = self.addend.map(|strides| (t.pointer("c"), strides));
        let of_tail: Vec<Pointer> =
            post_ops.map_or(&[][..], |post_ops| &post_ops.inputs).iter().map(|_| t.pointer("x")).collect();
        let lanes = t.lanes();
        let vectors = columns.div_ceil(lanes);
        let which: Vec<Lanes> =
            (0..vectors).map(|i| super::walk::first_lanes(&t, columns - i * lanes)).collect();
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
            post_ops.write(&mut t, &of_tail, y, rows, bytes(self.n), &which);
        }
        t.finish()
    }
}

/// The right side in panels of a tile's columns, padded with zeros.
fn pack<'a>(
    builder: &mut Builder<'a>,
    tensor: &'a Tensor,
    product: &Product,
    shape: Shape,
    transposed: bool,
) -> Operand {
    let data = bytemuck::cast_slice(tensor.bytes());
    builder.pack_later(Panels { data, k: product.k, n: product.n, columns: shape.columns, transposed })
}

/// A matrix in panels of columns.
struct Panels<'a> {
    /// Floats by their bytes: in a model file they need not be aligned.
    data: &'a [[u8; 4]],
    k: usize,
    n: usize,
    columns: usize,
    /// Whether `data` holds column after column.
    transposed: bool,
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
