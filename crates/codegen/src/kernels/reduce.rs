//! Reductions over neighbouring axes, and over all of space: along rows that lie in order, or down columns.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use super::walk::{each_vector, first_lanes, indices};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use tconvc_ir::ops::{GlobalPool, ReduceKind};
use tconvc_ir::{Node, Op, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{Lanes, Tile, TileBuilder, TileError, UnaryOp, Vector};

/// Accumulators that take turns.
const TURNS: usize = 4;

/// What the elements are joined to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Join {
    /// The sum of what is made of them.
    Sum(Part),
    /// The largest; NaN where one is NaN, or where all are passed over.
    Max { passes_nan: bool },
    /// The smallest; NaN where one is NaN.
    Min,
}

/// What is made of an element before it is summed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Itself,
    Magnitude,
    Square,
}

/// What is made of the joined elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    Itself,
    Divided(f32),
    Root,
}

struct Reduction {
    join: Join,
    last: Last,
    outer: usize,
    reduced: usize,
    inner: usize,
}

/// Reductions, and pooling over all of space.
pub(crate) struct Reductions;

impl KernelFamily for Reductions {
    fn name(&self) -> &'static str {
        "reduction"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        site.all_f32([x])?;
        let reduction = reduction(site, node, &site.shape(x)?)?;
        if reduction.reduced == 0 {
            return Err(Reason::variant("a reduction of no elements", "one of at least one element"));
        }
        Reason::within("elements that become one", reduction.reduced, 1 << 24)?;
        let (label, lanes) = (node.op.name().to_lowercase(), site.target.lanes());
        let name = format!("f32_{label}_{}x{}", reduction.reduced, reduction.inner);
        Ok(Box::new(Plan { x, y, reduction, lanes, name }))
    }
}

/// A reduction and where it is.
struct Plan {
    x: ValueId,
    y: ValueId,
    reduction: Reduction,
    lanes: usize,
    name: String,
}

impl Plan {
    /// Columns of an item, where they go down columns.
    fn block(&self) -> usize {
        TURNS * self.lanes
    }

    fn blocks(&self) -> usize {
        if self.reduction.inner == 1 { 1 } else { self.reduction.inner.div_ceil(self.block()) }
    }
}

impl<'a> KernelPlan<'a> for Plan {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let Reduction { outer, reduced, inner, .. } = self.reduction;
        let rates = target.rates().elementwise;
        (outer * reduced * inner) as f64 * rates.reduced + (outer * self.blocks()) as f64 * rates.reduced_item
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let (inner, block) = (self.reduction.inner, self.block());
        if inner == 1 {
            return Ok(vec![("full", self.reduction.along(site.tile(format!("{name}_row")))?)]);
        }
        let mut tiles = vec![];
        if inner >= block {
            tiles.push(("full", self.reduction.down(site.tile(format!("{name}_columns")), block)?));
        }
        if !inner.is_multiple_of(block) {
            tiles.push(("rest", self.reduction.down(site.tile(format!("{name}_rest")), inner % block)?));
        }
        Ok(tiles)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let (cost_ns, block, blocks) = (self.cost_ns(builder.target), self.block(), self.blocks());
        let Self { x, y, reduction: Reduction { outer, reduced, inner, .. }, .. } = *self;
        let (full, rest) = (codes.get("full"), codes.get("rest"));
        let whole = if inner == 1 { 1 } else { inner / block };
        let operands = vec![builder.operand(x)?, builder.operand(y)?];
        let extents = [outer, blocks];
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let (x, y) = (f.pointer(table, 0), f.pointer(table, 1));
            f.for_each(begin, end, |f, item| {
                let place = indices(f, item, &extents);
                let source = f.element(x, place[0], 4 * (reduced * inner) as i64);
                let source = f.element(source, place[1], 4 * block as i64);
                let target = f.element(y, place[0], 4 * inner as i64);
                let target = f.element(target, place[1], 4 * block as i64);
                match (full, rest) {
                    (Some(full), Some(rest)) => {
                        let inside = super::walk::below(f, place[1], whole);
                        super::walk::choose(
                            f,
                            inside,
                            |f| f.call(full, &[source, target]),
                            |f| f.call(rest, &[source, target]),
                        );
                    }
                    (Some(only), None) | (None, Some(only)) => f.call(only, &[source, target]),
                    (None, None) => {}
                }
            });
        })?;
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: outer * blocks };
        builder.push_work_items(items, cost_ns);
        Ok(())
    }
}

fn reduction(site: Site<'_>, node: &Node, shape: &[usize]) -> Result<Reduction, Reason> {
    let (kind, axes) = match &node.op {
        Op::GlobalPool(pool) => {
            let kind = match pool {
                GlobalPool::Average => ReduceKind::Mean,
                GlobalPool::Max => ReduceKind::Max,
                GlobalPool::Lp { p: 1 } => ReduceKind::L1,
                GlobalPool::Lp { p: 2 } => ReduceKind::L2,
                GlobalPool::Lp { p } => return Err(Reason::variant(format!("p = {p}"), "p of 1 or 2")),
            };
            (kind, (0..shape.len()).map(|axis| axis >= 2).collect())
        }
        Op::Reduce(reduce) => {
            let axes = node.input(1).map(|axes| site.constant(axes, "axes")).transpose()?;
            let axes = axes.map(Tensor::to_i64s).transpose()?;
            (reduce.kind, reduce.reduced(axes.as_deref(), shape.len())?)
        }
        op => return Err(Reason::variant(op.name(), "a reduction or global pooling")),
    };
    if !axes.contains(&true) {
        return Err(Reason::variant("a reduction along no axis", "one along at least one axis"));
    }
    // Axes of one element are part of anything.
    let real: Vec<(usize, bool)> =
        shape.iter().copied().zip(axes.iter().copied()).filter(|(extent, _)| *extent != 1).collect();
    let first = real.iter().position(|(_, reduced)| *reduced).unwrap_or(real.len());
    let count = real[first..].iter().take_while(|(_, reduced)| *reduced).count();
    if real[first + count..].iter().any(|(_, reduced)| *reduced) {
        return Err(Reason::variant(
            "a reduction along axes that are no neighbours",
            "one along neighbouring axes",
        ));
    }
    let size = |part: &[(usize, bool)]| part.iter().map(|(extent, _)| extent).product::<usize>();
    let (outer, reduced, inner) =
        (size(&real[..first]), size(&real[first..first + count]), size(&real[first + count..]));
    let passes_nan = matches!(node.op, Op::GlobalPool(_));
    let (join, last) = match kind {
        ReduceKind::Sum => (Join::Sum(Part::Itself), Last::Itself),
        ReduceKind::Mean => (Join::Sum(Part::Itself), Last::Divided(reduced as f32)),
        ReduceKind::L1 => (Join::Sum(Part::Magnitude), Last::Itself),
        ReduceKind::SumSquare => (Join::Sum(Part::Square), Last::Itself),
        ReduceKind::L2 => (Join::Sum(Part::Square), Last::Root),
        ReduceKind::Max => (Join::Max { passes_nan }, Last::Itself),
        ReduceKind::Min => (Join::Min, Last::Itself),
        ReduceKind::Prod | ReduceKind::LogSum | ReduceKind::LogSumExp => {
            return Err(Reason::variant(
                node.op.name(),
                "ReduceSum, -Mean, -L1, -L2, -SumSquare, -Max or -Min",
            ));
        }
    };
    Ok(Reduction { join, last, outer, reduced, inner })
}

impl Join {
    fn start(self) -> f32 {
        match self {
            Self::Sum(_) => 0.0,
            Self::Max { .. } => f32::NEG_INFINITY,
            Self::Min => f32::INFINITY,
        }
    }

    /// `all` joined with a new element.
    fn add(self, b: &mut TileBuilder, all: Vector, next: Vector) {
        match self {
            Self::Sum(Part::Itself) => b.add_to(all, next),
            Self::Sum(Part::Magnitude) => {
                let size = b.unary(UnaryOp::Abs, next);
                b.add_to(all, size);
            }
            Self::Sum(Part::Square) => b.fma(all, next, next),
            Self::Max { .. } | Self::Min => {
                let joined = self.merge(b, all, next);
                b.assign(all, joined);
            }
        }
    }

    /// Two joined ones.
    fn merge(self, b: &mut TileBuilder, all: Vector, next: Vector) -> Vector {
        match self {
            Self::Sum(_) => b.add(all, next),
            Self::Max { passes_nan: true } => b.max(next, all),
            Self::Max { passes_nan: false } => b.max_nan(all, next),
            Self::Min => b.min_nan(all, next),
        }
    }
}

impl Reduction {
    fn finish(&self, b: &mut TileBuilder, all: Vector) -> Vector {
        match self.last {
            Last::Itself => all,
            Last::Divided(count) => b.div(all, count),
            Last::Root => b.unary(UnaryOp::Sqrt, all),
        }
    }

    /// A row to one element: `source, target`.
    fn along(&self, mut b: TileBuilder) -> Result<Tile, TileError> {
        let [source, target] = b.pointers(["source", "target"]);
        let (lanes, bytes) = (b.lanes(), b.vector_bytes());
        let (full, rest) = (self.reduced / lanes, self.reduced % lanes);
        let turns = TURNS.min(full.max(1));
        let all: Vec<Vector> = (0..turns).map(|_| b.splat(self.join.start())).collect();
        let trips = full / turns;
        if trips > 0 {
            b.repeat(trips as u32, &[(source, turns as i32 * bytes)], |b| {
                for (i, &all) in all.iter().enumerate() {
                    let next = b.load(source.at(i as i32 * bytes));
                    self.join.add(b, all, next);
                }
            });
        }
        for (i, &all) in all.iter().enumerate().take(full % turns) {
            let next = b.load(source.at(i as i32 * bytes));
            self.join.add(&mut b, all, next);
        }
        let at = source.at((full % turns) as i32 * bytes);
        match self.join {
            _ if rest == 0 => {}
            Join::Sum(_) => {
                let next = b.load_lanes(at, Lanes::First(rest as u8));
                self.join.add(&mut b, all[0], next);
            }
            // Elements that were there before change nothing.
            _ if full > 0 => {
                let next = b.load(at.plus(4 * rest as i32 - bytes));
                self.join.add(&mut b, all[0], next);
            }
            _ => {
                for i in 0..rest {
                    let next = b.load_splat(at.plus(4 * i as i32));
                    self.join.add(&mut b, all[0], next);
                }
            }
        }
        let mut one = all[0];
        for &other in &all[1..] {
            one = self.join.merge(&mut b, one, other);
        }
        let mut distance = lanes / 2;
        while distance > 0 {
            let other = b.swap_lanes(one, distance);
            one = self.join.merge(&mut b, one, other);
            distance /= 2;
        }
        let result = self.finish(&mut b, one);
        b.store_lane(result, 0, target.at(0));
        b.finish()
    }

    /// So many columns: `source, target`.
    fn down(&self, mut b: TileBuilder, columns: usize) -> Result<Tile, TileError> {
        let [source, target] = b.pointers(["source", "target"]);
        let lanes = b.lanes();
        let vectors = columns.div_ceil(lanes);
        let which: Vec<Lanes> = (0..vectors).map(|i| first_lanes(&b, columns - i * lanes)).collect();
        let all: Vec<Vector> = (0..vectors).map(|_| b.splat(self.join.start())).collect();
        let step = i32::try_from(4 * self.inner).unwrap_or(i32::MAX);
        b.repeat(self.reduced as u32, &[(source, step)], |b| {
            for (i, &all) in all.iter().enumerate() {
                let next = b.load_lanes(source.float((i * lanes) as i32), which[i]);
                self.join.add(b, all, next);
            }
        });
        let mut done = 0;
        each_vector(&mut b, columns, &[], |b, at, lanes| {
            let result = self.finish(b, all[done]);
            b.store_lanes(result, target.at(at), lanes);
            done += 1;
        });
        b.finish()
    }
}
