//! Pooling over windows: the rows of a window are joined into one, with a border on both sides, which stays in the
//! first-level cache; the columns of that row are joined along the output. Indices of maxima are not here.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use super::walk::{choose, each_vector, entry, first_lanes, indices};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use std::collections::HashMap;
use tconvc_ir::geometry::PoolAxis;
use tconvc_ir::ops::PoolKind;
use tconvc_ir::{Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{BinaryOp, Lanes, Tile, TileBuilder, TileError, Vector};

/// Strides along x up to which rows are taken apart by shuffles.
const SHUFFLED: usize = 4;
/// Taps of whole windows that are written out.
const UNROLLED: usize = 16;

/// How elements are joined.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Join {
    /// The largest, passing over NaN.
    Max,
    /// The sum, to be divided by the number of taps.
    Sum,
}

impl Join {
    fn start(self) -> f32 {
        match self {
            Self::Max => f32::NEG_INFINITY,
            Self::Sum => 0.0,
        }
    }

    fn join(self, b: &mut TileBuilder, all: Vector, next: Vector) {
        match self {
            // The element first: when it is NaN, what was there stays.
            Self::Max => b.binary_into(all, BinaryOp::Max, next, all),
            Self::Sum => b.add_to(all, next),
        }
    }
}

/// Pooling over windows.
pub(crate) struct Pooling;

impl KernelFamily for Pooling {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        let Op::Pool(pool) = &node.op else {
            return Err(Reason::variant(node.op.name(), "MaxPool or AveragePool"));
        };
        let (join, include_pad, label) = match pool.kind {
            PoolKind::Max { .. } => (Join::Max, false, "maxpool"),
            PoolKind::Average { include_pad } => (Join::Sum, include_pad, "avgpool"),
            PoolKind::Lp { .. } => return Err(Reason::variant("LpPool", "MaxPool or AveragePool")),
        };
        if node.outputs().iter().skip(1).any(Option::is_some) {
            return Err(Reason::variant("MaxPool with the indices of maxima", "MaxPool with one output"));
        }
        site.all_f32([x])?;
        let shape = site.shape(x)?;
        let mut axes = pool.geometry(&shape)?;
        if axes.len() > 3 {
            return Err(Reason::variant(
                format!("pooling along {} axes", axes.len()),
                "pooling along up to three axes",
            ));
        }
        let spell = |f: fn(&PoolAxis) -> usize| {
            axes.iter().map(|axis| f(axis).to_string()).collect::<Vec<_>>().join("x")
        };
        let name = format!("f32_{label}_k{}_s{}", spell(PoolAxis::kernel), spell(PoolAxis::stride));
        while axes.len() < 3 {
            axes.insert(0, PoolAxis::new(1, 1, 1, 1, [0, 0], false)?);
        }
        let row = Row { axis: axes[2], join, lanes: site.target.lanes() };
        Reason::within("elements of a row with its border", row.words(), 1 << 24)?;
        let divisors = Divisors::new(&axes, include_pad, join);
        let rows = Rows::new([axes[0], axes[1]], axes[2].input(), join);
        let planes = shape[0] * shape[1];
        Ok(Box::new(Plan { x, y, planes, axes: [axes[0], axes[1], axes[2]], row, rows, divisors, name }))
    }
}

/// Planes to pool.
struct Plan {
    x: ValueId,
    y: ValueId,
    planes: usize,
    axes: [PoolAxis; 3],
    row: Row,
    rows: Rows,
    divisors: Divisors,
    name: String,
}

impl Plan {
    /// Taps of a whole window but along x.
    fn whole(&self) -> usize {
        self.axes[0].kernel() * self.axes[1].kernel()
    }

    fn items(&self) -> usize {
        self.planes * self.axes[0].output() * self.axes[1].output()
    }
}

impl<'a> KernelPlan<'a> for Plan {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let x = self.axes[2];
        let work = x.input() * self.whole() + x.output() * x.kernel();
        let rates = target.rates().elementwise;
        (self.items() * work) as f64 * rates.reduced + self.items() as f64 * rates.reduced_item
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let begin = self.row.begin();
        let tile = |what: &str| site.tile(format!("{name}_{what}"));
        let mut tiles = vec![("rows", self.rows.some(tile("rows"), begin)?)];
        if self.whole() <= UNROLLED {
            tiles.push(("window", self.rows.all(tile("window"), begin)?));
        }
        tiles.push(("columns", self.row.across(tile("columns"), &self.divisors)?));
        tiles.push(("border", self.row.border(tile("border"))?));
        Ok(tiles)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let (cost_ns, whole) = (self.cost_ns(builder.target), self.whole());
        let Self { x, y, planes, axes: [z, y_axis, x_axis], row, divisors, .. } = *self;
        let [general, across, border] =
            [codes.need(builder, "rows")?, codes.need(builder, "columns")?, codes.need(builder, "border")?];
        let full = codes.get("window");
        // For each output row and plane: bytes to its first tap, and number of taps.
        let table = |axis: &PoolAxis, stride: usize| -> Vec<i64> {
            let entry = |o: usize| {
                let taps = axis.taps(o);
                let first = axis.source(o, taps.start).filter(|_| !taps.is_empty()).unwrap_or(0);
                [(4 * first * stride) as i64, taps.len() as i64]
            };
            (0..axis.output()).flat_map(entry).collect()
        };
        let plane_row = x_axis.input();
        let depth_table = table(&z, y_axis.input() * plane_row);
        let height_table = table(&y_axis, plane_row);
        let mut operands = vec![builder.operand(x)?, builder.operand(y)?];
        operands.push(builder.pack_bytes(bytemuck::cast_slice(&depth_table)));
        operands.push(builder.pack_bytes(bytemuck::cast_slice(&height_table)));
        operands.push(builder.pack(&divisors.along_x));
        operands.push(builder.pack(&divisors.rows));
        let extents = [planes, z.output(), y_axis.output()];
        let items: usize = extents.iter().product();
        let plane_bytes = 4 * (z.input() * y_axis.input() * plane_row) as i64;
        let row_bytes = 4 * x_axis.output() as i64;
        let function = builder.add_step(&name, |f| {
            let &[table, begin, end, scratch] = f.params.as_slice() else { return };
            let pointers: Vec<_> = (0..6).map(|i| f.pointer(table, i)).collect();
            f.call(border, &[scratch]);
            f.for_each(begin, end, |f, item| {
                let place = indices(f, item, &extents);
                let taps = |f: &mut crate::module::FunctionBuilder<'_>, table, index| {
                    let first = f.builder.ins().imul_imm_s(index, 2);
                    let offset = entry(f, table, first);
                    let next = f.add_constant(first, 1);
                    (offset, entry(f, table, next))
                };
                let (deep, depth) = taps(f, pointers[2], place[1]);
                let (low, height) = taps(f, pointers[3], place[2]);
                let source = f.element(pointers[0], place[0], plane_bytes);
                let source = f.builder.ins().iadd(source, deep);
                let source = f.builder.ins().iadd(source, low);
                match full {
                    None => f.call(general, &[source, scratch, depth, height]),
                    Some(full) => {
                        // Neither exceeds its kernel: the product is that of the kernels only when both are whole.
                        let taps = f.builder.ins().imul(depth, height);
                        let all = f.builder.ins().icmp_imm_u(IntCC::Equal, taps, whole as i64);
                        choose(
                            f,
                            all,
                            |f| f.call(full, &[source, scratch]),
                            |f| f.call(general, &[source, scratch, depth, height]),
                        );
                    }
                }
                let target = f.element(pointers[1], item, row_bytes);
                let number = f.builder.ins().imul_imm_s(place[1], extents[2] as i64);
                let number = f.builder.ins().iadd(number, place[2]);
                let divisor = f.element(pointers[5], number, 4);
                f.call(across, &[scratch, target, pointers[4], divisor]);
            });
        })?;
        let scratch_bytes = 4 * row.words();
        builder.push_work_items(WorkItems { name, function, operands, scratch_bytes, count: items }, cost_ns);
        Ok(())
    }
}

/// What sums are divided by: the product of a number for each column and one for each row.
struct Divisors {
    along_x: Vec<f32>,
    rows: Vec<f32>,
    /// The same for all outputs, or none at all.
    uniform: Option<f32>,
}

impl Divisors {
    fn new(axes: &[PoolAxis], include_pad: bool, join: Join) -> Self {
        let count = |axis: &PoolAxis, o| {
            (if include_pad { axis.padded_taps(o) } else { axis.taps(o).len() }).max(1) as f32
        };
        let all = |axis: &PoolAxis| -> Vec<f32> { (0..axis.output()).map(|o| count(axis, o)).collect() };
        let (depth, height, mut along_x) = (all(&axes[0]), all(&axes[1]), all(&axes[2]));
        let rows: Vec<f32> = depth.iter().flat_map(|d| height.iter().map(move |h| d * h)).collect();
        let same = |values: &[f32]| values.iter().all(|value| *value == values[0]).then(|| values[0]);
        let uniform = match join {
            Join::Max => Some(1.0),
            Join::Sum => same(&rows).zip(same(&along_x)).map(|(row, x)| row * x),
        };
        // Whole vectors are read.
        along_x.resize(along_x.len().next_multiple_of(16), 1.0);
        Self { along_x, rows, uniform }
    }
}

/// Joins the rows of a window.
struct Rows {
    /// Taps along z and y, bytes between them.
    taps: [(usize, i32); 2],
    width: usize,
    join: Join,
}

impl Rows {
    fn new([z, y]: [PoolAxis; 2], width: usize, join: Join) -> Self {
        let bytes = |elements: usize| i32::try_from(4 * elements).unwrap_or(i32::MAX);
        let deep = bytes(z.dilation() * y.input() * width);
        Self { taps: [(z.kernel(), deep), (y.kernel(), bytes(y.dilation() * width))], width, join }
    }

    /// All taps: `source, scratch`; the row begins `begin` words into the scratch memory.
    fn all(&self, mut b: TileBuilder, begin: usize) -> Result<Tile, TileError> {
        let [source, scratch] = b.pointers(["source", "scratch"]);
        let [(depth, deep), (height, high)] = self.taps;
        each_vector(&mut b, self.width, &[source, scratch], |b, at, lanes| {
            let all = b.splat(self.join.start());
            for (z, y) in (0..depth as i32).flat_map(|z| (0..height as i32).map(move |y| (z, y))) {
                let offset = z.saturating_mul(deep).saturating_add(y.saturating_mul(high)).saturating_add(at);
                let next = b.load_lanes(source.at(offset), lanes);
                self.join.join(b, all, next);
            }
            b.store_lanes(all, scratch.at(at + 4 * begin as i32), lanes);
        });
        b.finish()
    }

    /// As many taps as there are: `source, scratch, depth, height`.
    fn some(&self, mut b: TileBuilder, begin: usize) -> Result<Tile, TileError> {
        let [source, scratch] = b.pointers(["source", "scratch"]);
        let (depth, height) = (b.count("depth"), b.count("height"));
        let [(_, deep), (_, high)] = self.taps;
        each_vector(&mut b, self.width, &[source, scratch], |b, at, lanes| {
            let all = b.splat(self.join.start());
            b.repeat(depth, &[(source, deep)], |b| {
                b.repeat(height, &[(source, high)], |b| {
                    let next = b.load_lanes(source.at(at), lanes);
                    self.join.join(b, all, next);
                });
                b.advance_by(source, height, -high);
            });
            b.advance_by(source, depth, -deep);
            b.store_lanes(all, scratch.at(at + 4 * begin as i32), lanes);
        });
        b.finish()
    }
}

/// The joined row in scratch memory.
struct Row {
    axis: PoolAxis,
    join: Join,
    lanes: usize,
}

impl Row {
    /// Words before the row's first element.
    fn begin(&self) -> usize {
        self.axis.pad()
    }

    /// Words of the row with its borders, rounded up to what whole vectors read.
    fn words(&self) -> usize {
        let outputs = self.axis.output().next_multiple_of(self.lanes) + self.lanes;
        let read = outputs * self.axis.stride() + self.axis.kernel() * self.axis.dilation();
        read.max(self.axis.pad() + self.axis.input()).next_multiple_of(16) + 64
    }

    /// Writes the borders: `scratch`.
    fn border(&self, mut b: TileBuilder) -> Result<Tile, TileError> {
        let scratch = b.pointer("scratch");
        let start = b.splat(self.join.start());
        let end = self.begin() + self.axis.input();
        for (from, to) in [(0, self.begin()), (end, self.words())] {
            each_vector(&mut b, to - from, &[scratch], |b, at, lanes| {
                b.store_lanes(start, scratch.at(4 * from as i32 + at), lanes);
            });
        }
        b.finish()
    }

    /// Joins columns: `scratch, target, divisors, divisor`.
    fn across(&self, mut b: TileBuilder, divisors: &Divisors) -> Result<Tile, TileError> {
        let [scratch, target, along, rows] = b.pointers(["scratch", "target", "divisors", "divisor"]);
        let (lanes, stride, bytes) = (self.lanes, self.axis.stride(), b.vector_bytes());
        let row = divisors.uniform.is_none().then(|| b.load_splat(rows.at(0)));
        let block = |b: &mut TileBuilder, which: Lanes| {
            let all = b.splat(self.join.start());
            // Vectors taken apart, by the first of their positions.
            let mut apart: HashMap<usize, Vec<Vector>> = HashMap::new();
            if self.axis.kernel() > UNROLLED {
                let step = 4 * self.axis.dilation() as i32;
                b.repeat(self.axis.kernel() as u32, &[(scratch, step)], |b| {
                    let next = if stride == 1 {
                        b.load(scratch.at(0))
                    } else {
                        b.gather(scratch.at(0), 4 * stride as i32, lanes)
                    };
                    self.join.join(b, all, next);
                });
                b.advance(scratch, -step * self.axis.kernel() as i32);
            } else {
                for position in (0..self.axis.kernel()).map(|k| k * self.axis.dilation()) {
                    let next = if stride == 1 {
                        b.load(scratch.float(position as i32))
                    } else if stride <= SHUFFLED {
                        let first = position - position % stride;
                        let parts = apart.entry(first).or_insert_with(|| {
                            let vectors: Vec<Vector> = (0..stride)
                                .map(|i| b.load(scratch.float((first + i * lanes) as i32)))
                                .collect();
                            b.deinterleave(&vectors)
                        });
                        parts[position % stride]
                    } else {
                        b.gather(scratch.float(position as i32), 4 * stride as i32, lanes)
                    };
                    self.join.join(b, all, next);
                }
            }
            let result = match (divisors.uniform, row) {
                (Some(1.0), _) => all,
                (Some(count), _) => b.div(all, count),
                (None, Some(row)) => {
                    let count = b.mul(row, along.at(0));
                    b.div(all, count)
                }
                (None, None) => all,
            };
            b.store_lanes(result, target.at(0), which);
        };
        let (full, rest) = (self.axis.output() / lanes, self.axis.output() % lanes);
        if full > 0 {
            let moving = [(scratch, bytes * stride as i32), (target, bytes), (along, bytes)];
            b.repeat(full as u32, &moving, |b| block(b, Lanes::All));
        }
        if rest > 0 {
            let which = first_lanes(&b, rest);
            block(&mut b, which);
        }
        b.finish()
    }
}
