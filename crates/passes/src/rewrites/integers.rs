//! Products of 8-bit integers as those of f32, which holds their sums without loss.

use super::dequantise::{EXACT, add_zero, cast, in_f32, input, is_zero, range_of, spread};
use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, scalar, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::greatest_sum;
use tconvc_ir::ops::{Binary, Conv, MatMul, Slice, Unary};
use tconvc_ir::{DType, Graph, NodeId, Op, Tensor, ValueId};

/// Computes `MatMulInteger`, `ConvInteger`, `QLinearMatMul` and `QLinearConv` in f32.
///
/// - Pattern: these operators. Zero points are taken away first.
/// - Guard: no sum of magnitudes reaches 2^24, up to which f32 holds integers, whatever their order; where it does, the operands are cut
///   along what is summed, and each part is split into multiples of 4,096 and what is left before parts are added up, so that what is cast to f32
///   in the end is rounded once. Zero points are constant, or one for all. Graphs for other runtimes keep them.
/// - Exact.
/// - Cost: bytes rise on paper, where an operator is spelled in several; kernels join them again.
pub struct Integers;

/// What is multiplied by what.
#[derive(Clone)]
enum Kind {
    Matrices,
    Conv(Box<Conv>),
}

/// A product of integers, by positions of the node's inputs.
struct Operands {
    kind: Kind,
    x: usize,
    w: usize,
    /// Zero points.
    zeros: [usize; 2],
    /// Whether the result is quantised, with scales behind the operands and at 6.
    scaled: bool,
}

/// How a product is computed.
pub struct Found {
    operands: Operands,
    /// Elements of the axis that is summed over in one part, and parts.
    parts: Vec<[usize; 2]>,
}

/// Sums of 32 bits do not wrap below this, nor does what is next below them and split off.
const WRAPS: f64 = 2_147_483_648.0 - EXACT;

/// Parts are split into multiples of this and what is left, before they are added up.
const GRAIN: f32 = 4096.0;

impl Rewrite for Integers {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "integers",
            summary: "compute products of 8-bit integers in f32, where that is exact",
            pattern: "MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv",
            claim: "bytes rise on paper, time falls",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Found> {
        if options.portable {
            return Err(Miss::Elsewhere);
        }
        let operands = operands(&graph.node(node).op).or_elsewhere()?;
        let parts = parts(graph, node, &operands)?;
        if operands.scaled {
            let zero = graph.node(node).input(7).or_elsewhere()?;
            require(scalar(graph, zero).is_some(), || "the zero point of its result is not constant")?;
            for position in [operands.x + 1, operands.w + 1, 6] {
                let scale = graph.node(node).input(position).or_elsewhere()?;
                require(graph.ty(scale).dtype == Some(DType::F32), || "a scale is not of f32")?;
                let known = graph.ty(scale).known_shape();
                require(known.is_some_and(|shape| shape.len() < 2), || "a scale has more than one axis")?;
            }
        }
        Ok(Found { operands, parts })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let count = found.parts.len();
        let sums = Sums::new(graph, node, &found)?;
        if found.operands.scaled {
            sums.requantise(graph, node, &found.operands)?;
        } else {
            sums.put(graph, node)?;
        }
        let parts = if count > 1 { format!(", in {count} parts") } else { String::new() };
        Ok(Decision::only(format!("its sums are exact in f32{parts}")))
    }
}

fn operands(op: &Op) -> Option<Operands> {
    let of = |kind, scaled: bool| Operands {
        kind,
        x: 0,
        w: if scaled { 3 } else { 1 },
        zeros: if scaled { [2, 5] } else { [2, 3] },
        scaled,
    };
    Some(match op {
        Op::MatMulInteger(_) => of(Kind::Matrices, false),
        Op::QLinearMatMul(_) => of(Kind::Matrices, true),
        Op::ConvInteger(op) => of(Kind::Conv(Box::new(op.conv.clone())), false),
        Op::QLinearConv(op) => of(Kind::Conv(Box::new(op.conv.clone())), true),
        _ => return None,
    })
}

/// The greatest magnitude of an operand less its zero point.
fn greatest(graph: &Graph, value: ValueId, zero: Option<ValueId>) -> Site<f64> {
    let dtype = graph.ty(value).dtype.or_elsewhere()?;
    let [low, high] = range_of(dtype).or_elsewhere()?;
    let plain = zero.is_none_or(|zero| is_zero(graph, zero));
    Ok(if plain { high.max(-low) } else { high - low })
}

/// How what is summed over is cut, so that the sums of each part are exact.
fn parts(graph: &Graph, node: NodeId, operands: &Operands) -> Site<Vec<[usize; 2]>> {
    let it = graph.node(node);
    let (x, w) = (it.input(operands.x).or_elsewhere()?, it.input(operands.w).or_elsewhere()?);
    let zeros = operands.zeros.map(|position| it.input(position));
    let shape = graph.ty(w).known_shape();
    let shape = shape.ok_or_else(|| Miss::Refused(format!("its weights are {}", graph.ty(w))))?;
    let rank = graph.ty(x).rank().ok_or_else(|| Miss::Refused("the rank of its data is not known".into()))?;
    let of_one = |value: ValueId| {
        graph.ty(value).known_shape().is_some_and(|shape| shape.iter().product::<usize>() == 1)
    };
    for zero in zeros.into_iter().flatten() {
        let known = graph.constant(zero).is_some_and(|tensor| tensor.rank() < 2);
        require(known || of_one(zero), || "a zero point is neither one number nor constant")?;
    }
    // Elements of the axis that is cut, and products for each of them.
    let (extent, taps) = match &operands.kind {
        Kind::Matrices if shape.len() < 2 || rank < 2 => {
            return Err(Miss::Refused("it is a product with a vector".into()));
        }
        Kind::Matrices => (shape[shape.len() - 2], 1),
        Kind::Conv(_) if shape.len() < 2 => return Err(Miss::Elsewhere),
        Kind::Conv(_) => (shape[1], shape[2..].iter().product::<usize>()),
    };
    let (of_x, of_w) = (greatest(graph, x, zeros[0])?, greatest(graph, w, zeros[1])?);
    let mut most = of_x * of_w * (extent * taps) as f64;
    if most >= EXACT
        && let Some(weights) = graph.constant(w)
    {
        let zero = zeros[1].and_then(|zero| graph.constant(zero));
        let columns = matches!(operands.kind, Kind::Matrices);
        most = of_x * greatest_sum(weights, zero, columns).or_elsewhere()? as f64;
    }
    let bias = match it.input(8).filter(|_| operands.scaled) {
        None => 0.0,
        Some(bias) => {
            let tensor = graph.constant(bias);
            let tensor = tensor.ok_or_else(|| Miss::Refused("its bias is not constant".into()))?;
            let values = tensor.to_f64s().or_elsewhere()?;
            values.into_iter().fold(0.0, |most: f64, value| most.max(value.abs()))
        }
    };
    if most + bias < EXACT {
        return Ok(vec![[0, extent]]);
    }
    require(most + bias < WRAPS, || "its sums may not fit 32 bits")?;
    let group = if let Kind::Conv(conv) = &operands.kind { conv.group } else { 1 };
    require(group == 1, || "its sums may not fit f32, and it has groups")?;
    let step = (EXACT / (of_x * of_w * taps as f64)).ceil() as usize - 1;
    require(step > 0 && bias < EXACT, || "the sums of one channel may not fit f32")?;
    Ok((0..extent).step_by(step).map(|first| [first, (first + step).min(extent)]).collect())
}

/// Sums of integers, in f32.
struct Sums {
    /// The sums themselves, or those of multiples of [`GRAIN`].
    high: ValueId,
    /// What is left of each, when they are split.
    low: Option<ValueId>,
}

impl Sums {
    fn new(graph: &mut Graph, node: NodeId, found: &Found) -> Result<Self> {
        let Found { operands, parts } = found;
        let name = graph.node(node).name.clone();
        let (behind_x, behind_w) = match &operands.kind {
            Kind::Matrices => (1, 0),
            Kind::Conv(_) => {
                let rank = graph.ty(input(graph, node, operands.w)?).rank().unwrap_or(1);
                (0, rank.saturating_sub(1))
            }
        };
        let x = centred(graph, node, operands.x, operands.zeros[0], behind_x)?;
        let w = centred(graph, node, operands.w, operands.zeros[1], behind_w)?;
        let axes = match &operands.kind {
            Kind::Matrices => [-1, -2],
            Kind::Conv(_) => [1, 1],
        };
        let mut all: Vec<ValueId> = vec![];
        let bias = match graph.node(node).input(8).filter(|_| operands.scaled) {
            None => None,
            Some(bias) => Some(in_f32(graph, &format!("{name}.bias"), bias)?),
        };
        for &[first, last] in parts {
            let mut of_part = [x, w];
            if parts.len() > 1 {
                for (value, axis) in of_part.iter_mut().zip(axes) {
                    *value = slice(graph, &name, *value, axis, [first, last])?;
                }
            }
            let op: Op = match &operands.kind {
                Kind::Matrices => MatMul.into(),
                Kind::Conv(conv) => Conv { exact: true, ..(**conv).clone() }.into(),
            };
            let mut inputs = of_part.map(Some).to_vec();
            inputs.extend(bias.filter(|_| parts.len() == 1).map(Some));
            all.push(patch::add(graph, &format!("{name}.sums"), op, &inputs)?);
        }
        if let &[sums] = all.as_slice() {
            return Ok(Self { high: sums, low: None });
        }
        if let Some(bias) = bias {
            all.push(spread(graph, &format!("{name}.bias"), bias, behind_w.saturating_sub(1))?);
        }
        let (mut high, mut low) = (vec![], vec![]);
        let number = |graph: &mut Graph, value: f32| graph.add_constant("grain", Tensor::scalar(value));
        for sums in all {
            let grain = number(graph, GRAIN);
            let of_one = number(graph, 1.0 / GRAIN);
            let scaled = patch::add_on(graph, &format!("{name}.scaled"), Binary::Mul, &[sums, of_one])?;
            let whole = patch::add_on(graph, &format!("{name}.whole"), Unary::Floor, &[scaled])?;
            let whole = patch::add_on(graph, &format!("{name}.whole"), Binary::Mul, &[whole, grain])?;
            low.push(patch::add_on(graph, &format!("{name}.rest"), Binary::Sub, &[sums, whole])?);
            high.push(whole);
        }
        Ok(Self { high: added(graph, &name, &high)?, low: Some(added(graph, &name, &low)?) })
    }

    /// The sums, rounded once.
    fn rounded(&self, graph: &mut Graph, name: &str) -> Result<ValueId> {
        match self.low {
            None => Ok(self.high),
            Some(low) => patch::add_on(graph, &format!("{name}.rounded"), Binary::Add, &[self.high, low]),
        }
    }

    /// In the place of a node that gives them as integers: readers that want f32 get it.
    fn put(&self, graph: &mut Graph, node: NodeId) -> Result<()> {
        let name = graph.node(node).name.clone();
        let Some(output) = sole_output(graph, node) else { return Ok(()) };
        let of_f32 = |graph: &Graph, user: NodeId| matches!(&graph.node(user).op, Op::Cast(cast) if cast.to == DType::F32);
        let users: Vec<_> =
            graph.users(output).into_iter().filter(|&(user, _)| of_f32(graph, user)).collect();
        if !users.is_empty() {
            let rounded = self.rounded(graph, &name)?;
            // Casts to f32 of f32, which do nothing.
            for (user, position) in users {
                graph.set_input(user, position, Some(rounded));
            }
        }
        let mut whole = vec![self.high];
        if let Some(low) = self.low {
            whole = [self.high, low]
                .into_iter()
                .map(|part| patch::add_on(graph, &format!("{name}.i32"), cast(DType::I32), &[part]))
                .collect::<Result<_>>()?;
        }
        match *whole.as_slice() {
            [high, low] => patch::replace(graph, node, Binary::Add, &[Some(high), Some(low)])?,
            _ => patch::replace(graph, node, cast(DType::I32), &[Some(self.high)])?,
        };
        Ok(())
    }

    /// In the place of a node that gives them times the scales of its operands over that of its result, quantised.
    fn requantise(&self, graph: &mut Graph, node: NodeId, operands: &Operands) -> Result<()> {
        let name = graph.node(node).name.clone();
        let scales = [operands.x + 1, operands.w + 1, 6];
        let behind = match &operands.kind {
            Kind::Matrices => [1, 0, 1],
            Kind::Conv(_) => {
                let rank = graph.ty(input(graph, node, operands.w)?).rank().unwrap_or(2);
                [0, rank.saturating_sub(2), 0]
            }
        };
        let mut factor = None;
        for (i, (position, behind)) in scales.into_iter().zip(behind).enumerate() {
            let scale = input(graph, node, position)?;
            let scale = spread(graph, &format!("{name}.scale"), scale, behind)?;
            let op = if i == 2 { Binary::Div } else { Binary::Mul };
            factor = Some(match factor {
                None => scale,
                Some(factor) => both(graph, &name, op, factor, scale)?,
            });
        }
        let sums = self.rounded(graph, &name)?;
        let factor = factor.unwrap_or(sums);
        let scaled = patch::add_on(graph, &format!("{name}.scaled"), Binary::Mul, &[sums, factor])?;
        let zero = input(graph, node, 7)?;
        let (value, dtype) = (scalar(graph, zero).unwrap_or(0.0), graph.ty(zero).dtype.unwrap_or(DType::U8));
        let range = range_of(dtype).unwrap_or([0.0, 255.0]);
        let last = add_zero(graph, &name, scaled, value, range)?;
        patch::replace(graph, node, cast(dtype), &[Some(last)])?;
        Ok(())
    }
}

/// An operator on two values, at once when both are constant.
fn both(graph: &mut Graph, name: &str, op: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
    match (graph.constant(a), graph.constant(b)) {
        (Some(a), Some(b)) => {
            let tensor = patch::eval(op, &[a, b])?;
            Ok(graph.add_constant(&format!("{name}.scale"), tensor))
        }
        _ => patch::add_on(graph, &format!("{name}.scale"), op, &[a, b]),
    }
}

/// The sum of values.
fn added(graph: &mut Graph, name: &str, values: &[ValueId]) -> Result<ValueId> {
    let Some((&first, rest)) = values.split_first() else {
        return Err(tconvc_ir::Error::Graph(format!("node `{name}` has nothing to add up")).into());
    };
    rest.iter()
        .try_fold(first, |sum, &next| patch::add_on(graph, &format!("{name}.sum"), Binary::Add, &[sum, next]))
}

/// An operand less its zero point, in f32.
fn centred(graph: &mut Graph, node: NodeId, position: usize, zero: usize, behind: usize) -> Result<ValueId> {
    let name = graph.node(node).name.clone();
    let zero = graph.node(node).input(zero).filter(|&zero| !is_zero(graph, zero));
    let value = input(graph, node, position)?;
    let real = in_f32(graph, &format!("{name}.f32"), value)?;
    let Some(zero) = zero else { return Ok(real) };
    let zero = in_f32(graph, &format!("{name}.zero"), zero)?;
    let zero = spread(graph, &format!("{name}.zero"), zero, behind)?;
    match (graph.constant(real), graph.constant(zero)) {
        (Some(tensor), Some(zero)) => {
            let tensor = patch::eval(Binary::Sub, &[tensor, zero])?;
            Ok(graph.add_constant(&format!("{name}.centred"), tensor))
        }
        _ => patch::add_on(graph, &format!("{name}.centred"), Binary::Sub, &[real, zero]),
    }
}

/// Elements of an axis.
fn slice(
    graph: &mut Graph,
    name: &str,
    value: ValueId,
    axis: i64,
    [first, last]: [usize; 2],
) -> Result<ValueId> {
    let lists = [first as i64, last as i64, axis];
    if let Some(tensor) = graph.constant(value) {
        let lists = lists.map(|number| Tensor::from_i64s(&[number]));
        let tensor = patch::eval(Slice, &[tensor, &lists[0], &lists[1], &lists[2]])?;
        return Ok(graph.add_constant(&format!("{name}.part"), tensor));
    }
    let lists = lists.map(|number| patch::integers(graph, &format!("{name}.part"), &[number]));
    patch::add_on(graph, &format!("{name}.part"), Slice, &[value, lists[0], lists[1], lists[2]])
}
