//! Normalisation of rows by their own mean and variance: instance, group, layer and root-mean-square normalisation.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use super::walk::{each_vector, indices};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use tconvc_ir::{Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{Lanes, Pointer, Tile, TileBuilder, TileError, UnaryOp, Vector};

/// Rows to normalise, and how scale and bias lie along them.
struct Rows {
    count: usize,
    length: usize,
    epsilon: f32,
    /// Without a mean: root-mean-square.
    centred: bool,
    /// Rows after which scale and bias start again, and elements that share one of each; else one for each element.
    channels: Option<(usize, usize)>,
    bias: bool,
}

/// Normalisation of rows.
pub(crate) struct Normalisation;

impl KernelFamily for Normalisation {
    fn name(&self) -> &'static str {
        "normalisation"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, scale, y) = (family::input(node, 0)?, family::input(node, 1)?, family::output(node, 0)?);
        let (shape, scale_shape) = (site.shape(x)?, site.shape(scale)?);
        let bias_shape = node.input(2).map(|value| site.shape(value)).transpose()?;
        site.all_f32(node.inputs().iter().flatten().copied())?;
        if node.outputs().iter().skip(1).any(Option::is_some) {
            return Err(Reason::variant(
                "normalisation that gives its statistics",
                "normalisation with one output",
            ));
        }
        let rows = rows(&node.op, &shape, bias_shape.is_some()).ok_or_else(|| {
            Reason::variant(format!("a value of shape {shape:?}"), "one with batch and channels")
        })?;
        let expected = match rows.channels {
            Some(_) => shape[1],
            None => rows.length,
        };
        let fits = |parameter: &[usize]| parameter.iter().product::<usize>() == expected;
        if !fits(&scale_shape) || !bias_shape.as_deref().is_none_or(fits) {
            let found = format!("a scale or bias of shape {:?}", bias_shape.unwrap_or(scale_shape));
            return Err(Reason::variant(found, "one element for each channel, or for each element of a row"));
        }
        if rows.length == 0 {
            return Err(Reason::variant("an empty row", "a row with elements"));
        }
        Reason::within("elements of a row", rows.length, 1 << 24)?;
        let bias = node.input(2).filter(|_| rows.bias);
        let name = format!("f32_{}_{}", node.op.name().to_lowercase(), rows.length);
        Ok(Box::new(Plan { rows, x, y, scale, bias, name }))
    }
}

/// Rows and where they are.
struct Plan {
    rows: Rows,
    x: ValueId,
    y: ValueId,
    scale: ValueId,
    bias: Option<ValueId>,
    name: String,
}

impl<'a> KernelPlan<'a> for Plan {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        (self.rows.count * self.rows.length) as f64 * target.rates().elementwise.normalised
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        Ok(vec![("row", self.rows.write(site.tile(format!("{name}_row")))?)])
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let cost_ns = self.cost_ns(builder.target);
        let Self { rows, x, y, scale, bias, .. } = *self;
        let tile = codes.need(builder, "row")?;
        let mut operands = vec![builder.operand(x)?, builder.operand(y)?, builder.operand(scale)?];
        if let Some(bias) = bias {
            operands.push(builder.operand(bias)?);
        }
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
            f.for_each(begin, end, |f, item| {
                let row = 4 * rows.length as i64;
                let mut args = vec![f.element(pointers[0], item, row), f.element(pointers[1], item, row)];
                for &parameter in &pointers[2..] {
                    args.push(match rows.channels {
                        Some((period, inner)) => {
                            let group = indices(f, item, &[rows.count / period, period])[1];
                            f.element(parameter, group, 4 * (rows.length / inner) as i64)
                        }
                        None => parameter,
                    });
                }
                f.call(tile, &args);
            });
        })?;
        builder.push_work_items(
            WorkItems { name, function, operands, scratch_bytes: 0, count: rows.count },
            cost_ns,
        );
        Ok(())
    }
}

/// The rows that an operator normalises.
fn rows(op: &Op, shape: &[usize], bias: bool) -> Option<Rows> {
    let by_channel = |groups: usize, epsilon: f32| {
        let (batch, channels) = (*shape.first()?, *shape.get(1)?);
        let inner: usize = shape[2..].iter().product();
        let length = channels.checked_div(groups)? * inner;
        let channels = Some((groups, inner.max(1)));
        Some(Rows { count: batch * groups, length, epsilon, centred: true, channels, bias: true })
    };
    let by_element = |axis: i64, epsilon: f32, centred: bool| {
        let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let (outer, inner) = shape.split_at_checked(usize::try_from(axis).ok()?)?;
        let (count, length) = (outer.iter().product(), inner.iter().product());
        Some(Rows { count, length, epsilon, centred, channels: None, bias: bias && centred })
    };
    match op {
        Op::InstanceNormalization(op) => by_channel(*shape.get(1)?, op.epsilon),
        Op::GroupNormalization(op) => by_channel(op.num_groups, op.epsilon),
        Op::LayerNormalization(op) => by_element(op.axis, op.epsilon, true),
        Op::RmsNormalization(op) => by_element(op.axis, op.epsilon, false),
        _ => None,
    }
}

impl Rows {
    /// One row: `x, y, scale, bias`.
    fn write(&self, mut b: TileBuilder) -> Result<Tile, TileError> {
        let [x, y, scale] = b.pointers(["x", "y", "scale"]);
        let bias = self.bias.then(|| b.pointer("bias"));
        let count = self.length as f32;
        let mean = self.centred.then(|| {
            let sum = sum(&mut b, x, self.length, |_, element, _| element);
            b.div(sum, count)
        });
        let squares = sum(&mut b, x, self.length, |b, element, lanes| {
            let Some(mean) = mean else { return b.mul(element, element) };
            // The mean in the lanes that are there, zero in the others; the row of the output is free until it is written.
            let mean = if lanes == Lanes::All {
                mean
            } else {
                b.store_lanes(mean, y.at(0), lanes);
                b.load_lanes(y.at(0), lanes)
            };
            let distance = b.sub(element, mean);
            b.mul(distance, distance)
        });
        let variance = b.div(squares, count);
        let spread = b.add(variance, self.epsilon);
        let spread = b.unary(UnaryOp::Sqrt, spread);
        let one = b.splat(1.0);
        let factor = b.div(one, spread);
        let normal = |b: &mut TileBuilder, at: i32, lanes: Lanes| {
            let mut element = b.load_lanes(x.at(at), lanes);
            if let Some(mean) = mean {
                element = b.sub(element, mean);
            }
            b.mul(element, factor)
        };
        match self.channels {
            None => {
                let moving: Vec<Pointer> = [x, y, scale].into_iter().chain(bias).collect();
                each_vector(&mut b, self.length, &moving, |b, at, lanes| {
                    let normal = normal(b, at, lanes);
                    let weight = b.load_lanes(scale.at(at), lanes);
                    let mut result = b.mul(normal, weight);
                    if let Some(bias) = bias {
                        let bias = b.load_lanes(bias.at(at), lanes);
                        result = b.add(result, bias);
                    }
                    b.store_lanes(result, y.at(at), lanes);
                });
            }
            Some((_, inner)) => {
                let step = 4 * inner as i32;
                let moving: Vec<(Pointer, i32)> = [(x, step), (y, step), (scale, 4)]
                    .into_iter()
                    .chain(bias.map(|bias| (bias, 4)))
                    .collect();
                b.repeat((self.length / inner) as u32, &moving, |b| {
                    let weight = b.load_splat(scale.at(0));
                    let bias = bias.map(|bias| b.load_splat(bias.at(0)));
                    each_vector(b, inner, &[x, y], |b, at, lanes| {
                        let normal = normal(b, at, lanes);
                        let mut result = b.mul(normal, weight);
                        if let Some(bias) = bias {
                            result = b.add(result, bias);
                        }
                        b.store_lanes(result, y.at(at), lanes);
                    });
                });
            }
        }
        b.finish()
    }
}

/// Vectors that are summed in turns.
const TURNS: usize = 4;

/// The sum over a row of what `part` makes of its elements, in every lane. Elements past the end are zero, and `part`
/// must leave them so.
fn sum(
    b: &mut TileBuilder,
    x: Pointer,
    length: usize,
    part: impl Fn(&mut TileBuilder, Vector, Lanes) -> Vector,
) -> Vector {
    let sums: Vec<Vector> = (0..TURNS).map(|_| b.zero()).collect();
    let mut turn = 0;
    each_vector(b, length, &[x], |b, at, lanes| {
        let element = b.load_lanes(x.at(at), lanes);
        let part = part(b, element, lanes);
        b.add_to(sums[turn % TURNS], part);
        turn += 1;
    });
    let low = b.add(sums[0], sums[1]);
    let high = b.add(sums[2], sums[3]);
    let all = b.add(low, high);
    b.reduce_sum(all)
}
