//! Softmax and LogSoftmax: along rows that lie in order, or down columns.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use super::walk::{below, choose, each_vector, first_lanes, indices};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use tconvc_ir::ops::SoftmaxKind;
use tconvc_ir::{Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// Softmax and LogSoftmax.
pub(crate) struct Softmaxes;

impl KernelFamily for Softmaxes {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        let Op::Softmax(softmax) = node.op else {
            return Err(Reason::variant(node.op.name(), "Softmax or LogSoftmax"));
        };
        let logarithm = match softmax.kind {
            SoftmaxKind::Softmax => false,
            SoftmaxKind::LogSoftmax => true,
            SoftmaxKind::Hardmax => return Err(Reason::variant("Hardmax", "Softmax or LogSoftmax")),
        };
        site.all_f32([x])?;
        let [outer, along, inner] = softmax.split(&site.shape(x)?)?;
        Reason::within("elements along a row or between its elements", along.max(inner), MOST_ELEMENTS)?;
        let lanes = site.target.lanes();
        let name = format!("f32_{}_{along}x{inner}", node.op.name().to_lowercase());
        Ok(Box::new(Rows { x, y, outer, along, inner, logarithm, lanes, name }))
    }
}

/// Displacements have 32 bits.
const MOST_ELEMENTS: usize = 1 << 24;

/// Rows to normalise: `outer` times `inner` of `along` elements, `inner` apart.
struct Rows {
    x: ValueId,
    y: ValueId,
    outer: usize,
    along: usize,
    inner: usize,
    logarithm: bool,
    lanes: usize,
    name: String,
}

impl<'a> KernelPlan<'a> for Rows {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        (self.outer * self.along * self.inner) as f64 * target.rates().elementwise.exponential
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        let Self { along, inner, lanes, logarithm, .. } = *self;
        if inner == 1 {
            return Ok(vec![("full", row(site.tile(format!("{name}_tile")), along, logarithm)?)]);
        }
        let mut tiles = vec![];
        if inner >= lanes {
            tiles.push(("full", column(site.tile(format!("{name}_tile")), along, inner, lanes, logarithm)?));
        }
        if !inner.is_multiple_of(lanes) {
            let tile = site.tile(format!("{name}_rest"));
            tiles.push(("rest", column(tile, along, inner, inner % lanes, logarithm)?));
        }
        Ok(tiles)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let Self { x, y, outer, along, inner, lanes, .. } = *self;
        let (blocks, whole) = if inner == 1 { (1, 1) } else { (inner.div_ceil(lanes), inner / lanes) };
        let (full, rest) = (codes.get("full"), codes.get("rest"));
        let operands = vec![builder.operand(x)?, builder.operand(y)?];
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let pointers = [f.pointer(table, 0), f.pointer(table, 1)];
            f.for_each(begin, end, |f, item| {
                let place = indices(f, item, &[outer, blocks]);
                let args = pointers.map(|pointer| {
                    let at = f.element(pointer, place[0], 4 * (along * inner) as i64);
                    f.element(at, place[1], 4 * lanes as i64)
                });
                match (full, rest) {
                    (Some(full), Some(rest)) => {
                        let inside = below(f, place[1], whole);
                        choose(f, inside, |f| f.call(full, &args), |f| f.call(rest, &args));
                    }
                    (Some(only), None) | (None, Some(only)) => f.call(only, &args),
                    (None, None) => {}
                }
            });
        })?;
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: outer * blocks };
        builder.push_work_items(items, self.cost_ns(builder.target));
        Ok(())
    }
}

/// The largest of a row, in every lane; NaN where one is NaN.
fn largest(b: &mut TileBuilder, x: Pointer, count: usize) -> Vector {
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let (full, rest) = (count / lanes, count % lanes);
    let join = |b: &mut TileBuilder, all: Vector, next: Vector| {
        let larger = b.max_nan(all, next);
        b.assign(all, larger);
    };
    let all = b.splat(f32::NEG_INFINITY);
    if full > 0 {
        b.repeat(full as u32, &[(x, bytes)], |b| {
            let next = b.load(x.at(0));
            join(b, all, next);
        });
        if rest > 0 {
            // Elements that were there before change nothing.
            let next = b.load(x.at(4 * rest as i32 - bytes));
            join(b, all, next);
        }
        b.advance(x, -(full as i32) * bytes);
    } else {
        for i in 0..rest {
            let next = b.load_splat(x.float(i as i32));
            join(b, all, next);
        }
    }
    b.reduce_max(all)
}

/// One row: `x, y`.
fn row(mut b: TileBuilder, count: usize, logarithm: bool) -> Result<Tile, TileError> {
    let [x, y] = b.pointers(["x", "y"]);
    let largest = largest(&mut b, x, count);
    let sum = b.zero();
    each_vector_rolled(&mut b, count, &[x, y], |b, lanes| {
        let element = b.load_lanes(x.at(0), lanes);
        let below = b.sub(element, largest);
        let power = b.exp(below);
        b.store_lanes(power, y.at(0), lanes);
        // Read again, lanes past the end are zero.
        let power = if lanes == Lanes::All { power } else { b.load_lanes(y.at(0), lanes) };
        b.add_to(sum, power);
    });
    let sum = b.reduce_sum(sum);
    if logarithm {
        let logarithm = b.log(sum);
        each_vector(&mut b, count, &[x, y], |b, at, lanes| {
            let element = b.load_lanes(x.at(at), lanes);
            let below = b.sub(element, largest);
            let result = b.sub(below, logarithm);
            b.store_lanes(result, y.at(at), lanes);
        });
    } else {
        each_vector(&mut b, count, &[y], |b, at, lanes| {
            let power = b.load_lanes(y.at(at), lanes);
            let result = b.div(power, sum);
            b.store_lanes(result, y.at(at), lanes);
        });
    }
    b.finish()
}

/// As [`each_vector`], for bodies that are long: a loop of one vector a trip, and one for the rest.
fn each_vector_rolled(
    b: &mut TileBuilder,
    count: usize,
    pointers: &[Pointer],
    body: impl Fn(&mut TileBuilder, Lanes),
) {
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let (full, rest) = (count / lanes, count % lanes);
    if full > 0 {
        let advances: Vec<_> = pointers.iter().map(|&pointer| (pointer, bytes)).collect();
        b.repeat(full as u32, &advances, |b| body(b, Lanes::All));
    }
    if rest > 0 {
        body(b, Lanes::First(rest as u8));
    }
    for &pointer in pointers {
        b.advance(pointer, -(full as i32) * bytes);
    }
}

/// Up to a vector of columns: `x, y`.
fn column(
    mut b: TileBuilder,
    count: usize,
    stride: usize,
    columns: usize,
    logarithm: bool,
) -> Result<Tile, TileError> {
    let [x, y] = b.pointers(["x", "y"]);
    let which = first_lanes(&b, columns);
    let step = 4 * stride as i32;
    let back = step.saturating_mul(-(count as i32));
    let largest = b.splat(f32::NEG_INFINITY);
    b.repeat(count as u32, &[(x, step)], |b| {
        let next = b.load_lanes(x.at(0), which);
        let larger = b.max_nan(largest, next);
        b.assign(largest, larger);
    });
    b.advance(x, back);
    let sum = b.zero();
    b.repeat(count as u32, &[(x, step), (y, step)], |b| {
        let element = b.load_lanes(x.at(0), which);
        let below = b.sub(element, largest);
        let power = b.exp(below);
        b.add_to(sum, power);
        b.store_lanes(if logarithm { below } else { power }, y.at(0), which);
    });
    b.advance(y, back);
    let last = if logarithm { b.log(sum) } else { sum };
    b.repeat(count as u32, &[(y, step)], |b| {
        let value = b.load_lanes(y.at(0), which);
        let result = if logarithm { b.sub(value, last) } else { b.div(value, last) };
        b.store_lanes(result, y.at(0), which);
    });
    b.finish()
}
