//! MatMul and Gemm of f32: lanes along the columns of the right side, rows of the left side as splats, the whole depth in
//! one go. A constant right side is packed into panels of whole vectors; elementwise nodes behind run where a tile has just
//! stored its sums.

mod panels;
mod post_ops;
mod product;
mod tile;

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use super::walk::{below, choose, entry, indices};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use panels::Panels;
use post_ops::{Along, ProductPostOps};
use product::{Product, Shape};
use tconvc_ir::{NodeId, Op, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::{Step, is_product};
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::Kernel;
use tconvc_tile::TileError;

/// The most tiles of rows that share a panel of the right side while it is in the first-level cache.
const ROW_TILES: usize = 8;
/// Displacements have 32 bits.
const MOST_ELEMENTS: usize = 1 << 22;

/// MatMul and Gemm, and elementwise nodes behind them.
pub(crate) struct MatrixProduct;

impl KernelFamily for MatrixProduct {
    fn name(&self) -> &'static str {
        "matrix product"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let of_product = |node: &NodeId| is_product(&site.graph.node(*node).op);
        let (products, others): (Vec<NodeId>, Vec<NodeId>) = step.nodes.iter().copied().partition(of_product);
        let (&[node], &[y]) = (products.as_slice(), step.outputs.as_slice()) else {
            return Err(Reason::variant(
                format!("a step of {} products", products.len()),
                "a step of one product",
            ));
        };
        let node = site.graph.node(node);
        let [a, b] = [family::input(node, 0)?, family::input(node, 1)?];
        let c = node.input(2);
        site.all_f32(node.inputs().iter().flatten().copied())?;
        let (a_shape, b_shape) = (site.shape(a)?, site.shape(b)?);
        let c_shape = c.map(|c| site.shape(c)).transpose()?;
        let product = match &node.op {
            Op::MatMul(_) => Product::of_matmul(&a_shape, &b_shape),
            Op::Gemm(op) => Product::of_gemm(op, &a_shape, &b_shape, c_shape.as_deref()),
            _ => None,
        };
        let shapes = || format!("{} of shapes {a_shape:?}, {b_shape:?} and {c_shape:?}", node.op.name());
        let mut product = product.ok_or_else(|| Reason::variant(shapes(), "a product of matrices"))?;
        let transposed = matches!(&node.op, Op::Gemm(op) if op.trans_b);
        let right = site.graph.constant(b).filter(|_| product.starts.iter().all(|start| start[1] == 0));
        if transposed && right.is_none() {
            return Err(Reason::RunTime { what: "right sides of transB = 1" });
        }
        let most = [product.m, product.k, product.n].into_iter().max().unwrap_or(0);
        Reason::within("rows, columns or steps of the depth", most, MOST_ELEMENTS)?;
        let shape = Shape::choose(site.target, &product);
        if right.is_some() {
            product.b_row = shape.columns;
        }
        let post_ops = if others.is_empty() { None } else { Some(ProductPostOps::new(site, others, node)?) };
        Ok(Box::new(Plan { product, shape, values: [a, b, y], c, right, transposed, post_ops }))
    }
}

/// A product, its operands and its tiles.
struct Plan<'a> {
    product: Product,
    shape: Shape,
    /// Left side, right side, result.
    values: [ValueId; 3],
    c: Option<ValueId>,
    /// The right side, where it is packed into panels.
    right: Option<&'a Tensor>,
    /// Whether it holds column after column.
    transposed: bool,
    post_ops: Option<ProductPostOps<'a>>,
}

/// What the tiles of whole rows and of the last ones are for, each with whole panels and the last one.
const TILES: [[&str; 2]; 2] = [["full", "full at the right"], ["rest", "rest at the right"]];

impl<'a> KernelPlan<'a> for Plan<'a> {
    fn name(&self) -> String {
        format!("f32_matmul_{}x{}x{}", self.product.m, self.product.k, self.product.n)
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let Product { m, k, n, .. } = self.product;
        (self.product.starts.len() * m * k * n) as f64 / target.rates().elementwise.matrix_macs
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let (product, shape) = (&self.product, self.shape);
        let (left_rows, left_columns) = (product.m % shape.rows, product.n % shape.columns);
        let all_rows = [if product.m >= shape.rows { shape.rows } else { 0 }, left_rows];
        let all_columns = [if product.n >= shape.columns { shape.columns } else { 0 }, left_columns];
        let mut tiles = vec![];
        for (purposes, rows) in TILES.into_iter().zip(all_rows) {
            for (purpose, columns) in purposes.into_iter().zip(all_columns) {
                if rows > 0 && columns > 0 {
                    let tile = site.tile(format!("{name}_{rows}x{columns}"));
                    let packed = self.right.is_some();
                    tiles.push((
                        purpose,
                        product.write(tile, [rows, columns], packed, self.post_ops.as_ref())?,
                    ));
                }
            }
        }
        Ok(tiles)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let nanoseconds = self.cost_ns(builder.target);
        let Self { product, shape, values: [a, b, y], c, right, transposed, post_ops } = *self;
        let [full, rest] = TILES.map(|purposes| purposes.map(|purpose| codes.get(purpose)));
        let packed = right.is_some();
        let right = match right {
            Some(tensor) => {
                let data = bytemuck::cast_slice(tensor.bytes());
                let (k, n, columns) = (product.k, product.n, shape.columns);
                builder.pack_later(Panels { data, k, n, columns, transposed })
            }
            None => builder.operand(b)?,
        };
        let mut operands = vec![builder.operand(a)?, right, builder.operand(y)?];
        let starts: Vec<i64> = product.starts.iter().flatten().map(|&start| 4 * start as i64).collect();
        operands.push(builder.pack_bytes(bytemuck::cast_slice(&starts)));
        if let Some(c) = c.filter(|_| product.addend.is_some()) {
            operands.push(builder.operand(c)?);
        }
        let before = operands.len();
        let post_op_inputs = post_ops.as_ref().map_or(&[][..], |post_ops| &post_ops.inputs);
        for &(value, _) in post_op_inputs {
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
            f.for_each(begin, end, |f, item| {
                let place = indices(f, item, &extents);
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
                let at_columns = |f: &mut FunctionBuilder<'_>, pointer| {
                    f.element(pointer, panel, 4 * shape.columns as i64)
                };
                let at_place = |f: &mut FunctionBuilder<'_>, pointer| {
                    let pointer = f.element(pointer, batch, 4 * (m * n) as i64);
                    let pointer = f.element(pointer, first, 4 * n as i64);
                    at_columns(f, pointer)
                };
                let y = at_place(f, pointers[2]);
                let of_post_ops = pointers[before..].iter().zip(post_op_inputs);
                let of_post_ops: Vec<_> = of_post_ops
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
                    args.extend(of_post_ops.iter().map(|&(pointer, row)| f.element(pointer, rows, row)));
                    args
                };
                let run =
                    |f: &mut FunctionBuilder<'_>, [full, edge]: [Option<FunctionId>; 2], args: &[_]| match (
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
                    run(f, full, &args);
                });
                if rest.iter().any(Option::is_some) {
                    let at_end = f.builder.ins().icmp_imm_u(IntCC::Equal, chunk_index, (m / chunk) as i64);
                    choose(
                        f,
                        at_end,
                        |f| {
                            let args = args(f, tiles);
                            run(f, rest, &args);
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
        let partition = builder.weighted_partition(&weights.repeat(product.starts.len()), nanoseconds);
        builder.push_kernel(Kernel { name, function, operands, partition, scratch_bytes: 0, time_steps: 1 });
        Ok(())
    }
}
