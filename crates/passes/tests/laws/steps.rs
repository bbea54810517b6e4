//! What random graphs are made of: the patterns of the passes, near misses of them, and operators in between.

use crate::builder::Builder;
use tconvc_ir::ops::{
    BatchNormalization, Binary, Border, Cast, Clip, Concat, Conv, ConvTranspose, Epilogue, Expand, Flatten,
    MatMul, Opaque, Pad, Padding, Pool, PoolKind, Reduce, ReduceKind, Reshape, Resize, Shape, ShortRounding,
    Slice, Tile, Transpose, Unary, Unsqueeze, Variadic,
};
use tconvc_ir::resize_axis::{Coordinates, Rounding};
use tconvc_ir::{AttributeValue, Attributes, DType, Op, Tensor, ValueId};
use tconvc_passes::patch;
use tconvc_testing::onnx_build;

/// A kind of step.
pub type Step = fn(&mut Builder) -> Option<ValueId>;

/// Every kind.
pub const STEPS: &[Step] = &[
    conv,
    conv,
    conv_transpose,
    conv_transpose,
    batch_norm,
    per_channel,
    per_channel,
    activation,
    activation,
    prelu,
    clip,
    residual,
    concat,
    slice,
    slice,
    pad,
    pad,
    reshapes,
    transposes,
    spelled_activation,
    arithmetic,
    constant_chain,
    shape_chain,
    variadic,
    twice,
    without_effect,
    branches,
    reduce,
    zero_stuffing,
    zero_stuffing,
    resize_conv,
    resize_conv,
    matrix_product,
    pool,
    resize,
    cropped,
    cropped,
    padded,
    normalised,
    halves,
    quantised,
    integer_products,
    einsum,
];

fn padding(b: &mut Builder, kernel: &[usize]) -> Padding {
    match b.random.within(0..=5) {
        0 => Padding::SameUpper,
        1 => Padding::SameLower,
        2 => Padding::Valid,
        3 => Padding::none(),
        _ => {
            let mut side = || kernel.iter().map(|&k| b.random.within(0..=(k as i64 / 2))).collect();
            Padding::Explicit { begin: side(), end: side() }
        }
    }
}

fn sizes(b: &mut Builder, most: i64) -> Vec<usize> {
    match b.random.within(0..=2) {
        0 => vec![],
        1 => vec![1, 1],
        _ => vec![b.random.within(1..=most) as usize, b.random.within(1..=most) as usize],
    }
}

fn group(b: &mut Builder, channels: usize) -> usize {
    let divisors: Vec<usize> = (1..=channels).filter(|n| channels.is_multiple_of(*n)).collect();
    if b.random.once_in(2) { 1 } else { b.random.one_of(&divisors) }
}

/// Numbers whose sum over a window stays about as large as the data.
fn weights(b: &mut Builder, shape: &[usize], fan: usize) -> ValueId {
    let tensor = b.random.tensor(shape);
    let scale = 1.0 / (fan as f32).sqrt();
    let data = tensor.elements::<f32>().unwrap().iter().map(|x| x * scale).collect();
    b.constant(Tensor::from_vec(shape, data).unwrap())
}

fn conv(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let group = group(b, shape[1]);
    let kernel = [b.random.within(1..=3) as usize, b.random.within(1..=3) as usize];
    let per_group = shape[1] / group;
    let outputs = group * b.random.within(1..=2) as usize;
    let w = weights(b, &[outputs, per_group, kernel[0], kernel[1]], per_group * kernel[0] * kernel[1]);
    let bias = b.random.once_in(2).then(|| b.random.tensor(&[outputs]));
    let bias = bias.map(|bias| b.constant(bias));
    let op = Conv {
        kernel_shape: if b.random.once_in(2) { vec![] } else { kernel.to_vec() },
        strides: sizes(b, 2),
        dilations: sizes(b, 2),
        group,
        padding: padding(b, &kernel),
        epilogue: Epilogue::default(),
        exact: false,
    };
    b.node(op, &[Some(x), Some(w), bias])
}

fn conv_transpose(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let group = group(b, shape[1]);
    let kernel = [b.random.within(1..=4) as usize, b.random.within(1..=3) as usize];
    let per_group = b.random.within(1..=2) as usize;
    let fan = shape[1] / group * kernel[0];
    let w = weights(b, &[shape[1], per_group, kernel[0], kernel[1]], fan);
    let bias = b.random.once_in(2).then(|| b.random.tensor(&[per_group * group]));
    let bias = bias.map(|bias| b.constant(bias));
    let strides = sizes(b, 3);
    let extra = |b: &mut Builder, axis: usize| {
        b.random.within(0..=strides.get(axis).map_or(0, |&stride| stride as i64 - 1)) as usize
    };
    let output_padding = if b.random.once_in(2) { vec![] } else { vec![extra(b, 0), extra(b, 1)] };
    let wanted = |b: &mut Builder, axis: usize| {
        (shape[axis + 2] * strides.get(axis).copied().unwrap_or(1)) + b.random.within(0..=1) as usize
    };
    let output_shape = if b.random.once_in(4) { vec![wanted(b, 0), wanted(b, 1)] } else { vec![] };
    let op = ConvTranspose {
        kernel_shape: if b.random.once_in(2) { vec![] } else { kernel.to_vec() },
        strides,
        dilations: sizes(b, 2),
        group,
        padding: padding(b, &kernel),
        output_padding,
        output_shape,
        epilogue: Epilogue::default(),
    };
    b.node(op, &[Some(x), Some(w), bias])
}

fn batch_norm(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let vector = [shape[1]];
    let [scale, shift, mean] = [(); 3].map(|()| b.random.tensor(&vector));
    let variance = b.random.positive(&vector);
    let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(|tensor| b.constant(tensor));
    let op = BatchNormalization { epsilon: 1e-3, momentum: 0.9, training_mode: false };
    b.on(op, &[x, scale, shift, mean, variance])
}

/// A shape that holds one number a channel or one for all, or (a near miss) one a column.
fn spread(b: &mut Builder, shape: &[usize]) -> Vec<usize> {
    match b.random.within(0..=5) {
        0 => vec![],
        1 => vec![1],
        2 | 3 => vec![shape[1], 1, 1],
        4 => vec![1, shape[1], 1, 1],
        _ => vec![shape[3]],
    }
}

fn per_channel(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let op = b.random.one_of(&[Binary::Mul, Binary::Add, Binary::Sub, Binary::Div]);
    let spread = spread(b, &shape);
    let tensor = b.random.positive(&spread);
    let c = b.constant(tensor);
    // A constant divided by data may be anything.
    if op != Binary::Div && b.random.once_in(3) { b.on(op, &[c, x]) } else { b.on(op, &[x, c]) }
}

fn activation(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let op = b.random.one_of(&[
        Unary::Relu,
        Unary::LeakyRelu { alpha: 0.1 },
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Clamp { min: 0.0, max: 6.0 },
        Unary::HardSwish,
        Unary::Neg,
        Unary::Gelu,
    ]);
    b.on(op, &[x])
}

fn prelu(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let spread = spread(b, &shape);
    let tensor = b.random.tensor(&spread);
    let slope = b.constant(tensor);
    b.on(Binary::PRelu, &[x, slope])
}

fn clip(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let (low, high) = (b.number(0.0), b.number(0.75));
    match b.random.within(0..=3) {
        0 => b.node(Clip, &[Some(x), Some(low), Some(high)]),
        1 => b.node(Clip, &[Some(x), None, Some(high)]),
        2 => b.node(Clip, &[Some(x), Some(low)]),
        _ => b.node(Clip, &[Some(x)]),
    }
}

fn residual(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let other = b.same_shape(x)?;
    b.on(Binary::Add, &[x, other])
}

fn concat(b: &mut Builder) -> Option<ValueId> {
    let (x, _) = b.image();
    let other = b.same_shape(x);
    match other {
        Some(other) if b.random.once_in(2) => b.on(Concat { axis: 1 }, &[x, other]),
        _ => {
            let axis = b.random.within(-4..=3);
            b.on(Concat { axis }, &[x])
        }
    }
}

fn slice(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let axis = b.random.one_of(&[2, 3, 3, 2, 1, 0]);
    let (start, end) = (b.random.within(0..=1), shape[axis] as i64 - b.random.within(0..=2));
    let step = if b.random.once_in(5) { 2 } else { 1 };
    let end = if b.random.once_in(3) { i64::MAX } else { end };
    let axis = if b.random.once_in(2) { axis as i64 } else { axis as i64 - 4 };
    let inputs = [[start], [end], [axis], [step]].map(|list| b.list(&list));
    b.on(Slice, &[x, inputs[0], inputs[1], inputs[2], inputs[3]])
}

fn pad(b: &mut Builder) -> Option<ValueId> {
    let (x, _) = b.image();
    let border = b.random.one_of(&[Border::Constant, Border::Constant, Border::Constant, Border::Edge]);
    let low = if border == Border::Constant { b.random.one_of(&[0, 0, -1]) } else { 0 };
    let mut pads = [0; 8];
    for axis in [2, 3, 6, 7] {
        pads[axis] = b.random.within(low..=low + 2);
    }
    if b.random.once_in(6) {
        pads[1] = 1;
    }
    let list = b.list(&pads);
    let value = b.random.once_in(4).then(|| b.number(0.5));
    b.node(Pad { border }, &[Some(x), Some(list), value])
}

fn reshapes(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let shape = b.shape(x);
    let count = shape.iter().product::<usize>() as i64;
    match b.random.within(0..=5) {
        0 => {
            let axis = b.random.within(0..=1);
            b.on(Flatten { axis }, &[x])
        }
        1 => {
            let axes = b.list(&[0]);
            b.on(Unsqueeze, &[x, axes])
        }
        2 => {
            let list = b.list(&[count]);
            let flat = b.on(Reshape::default(), &[x, list])?;
            let back: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
            let list = b.list(&back);
            b.on(Reshape::default(), &[flat, list])
        }
        3 => {
            let list = b.list(&[0, -1]);
            b.on(Reshape::default(), &[x, list])
        }
        4 => {
            let list = b.list(&[1, -1, 1, 1]);
            b.on(Reshape::default(), &[x, list])
        }
        _ => {
            let list = b.list(&[-1]);
            b.on(Reshape::default(), &[x, list])
        }
    }
}

fn transposes(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let mut perm: Vec<usize> = (0..b.shape(x).len()).collect();
    for i in (1..perm.len()).rev() {
        perm.swap(i, b.random.next() as usize % (i + 1));
    }
    if b.random.once_in(4) {
        perm.clear();
    }
    let y = b.on(Transpose { perm: perm.clone() }, &[x])?;
    if b.random.once_in(2) {
        return Some(y);
    }
    let mut back = vec![0; perm.len()];
    for (i, &axis) in perm.iter().enumerate() {
        back[axis] = i;
    }
    b.on(Transpose { perm: back }, &[y])
}

fn spelled_activation(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();

    match b.random.within(0..=5) {
        0 => {
            let y = b.on(Unary::Sigmoid, &[x])?;
            b.on(Binary::Mul, &[y, x])
        }
        1 => {
            let three = b.number(3.0);
            let six = b.number(6.0);
            let y = b.on(Binary::Add, &[x, three])?;
            let y = b.on(Unary::Clamp { min: 0.0, max: 6.0 }, &[y])?;
            let y = b.on(Binary::Mul, &[x, y])?;
            b.on(Binary::Div, &[y, six])
        }
        2 => {
            let y = b.on(Unary::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, &[x])?;
            b.on(Binary::Mul, &[x, y])
        }
        3 => {
            let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|value| b.number(value));
            let y = b.on(Binary::Div, &[x, root])?;
            let y = b.on(Unary::Erf, &[y])?;
            let y = b.on(Binary::Add, &[y, one])?;
            let y = b.on(Binary::Mul, &[x, y])?;
            b.on(Binary::Mul, &[y, half])
        }
        4 => {
            let y = b.on(Unary::Softplus, &[x])?;
            let y = b.on(Unary::Tanh, &[y])?;
            b.on(Binary::Mul, &[x, y])
        }
        _ => {
            let half = b.number(0.5);
            let y = b.on(Binary::Mul, &[x, half])?;
            let y = b.on(Unary::Sigmoid, &[y])?;
            b.on(Binary::Mul, &[x, y])
        }
    }
}

fn arithmetic(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let number = b.random.one_of(&[0.0, 1.0, 2.0, 4.0, 3.0]);
    let c = b.number(number);
    match b.random.within(0..=5) {
        0 => b.on(Binary::Pow, &[x, c]),
        1 if number != 0.0 => b.on(Binary::Div, &[x, c]),
        2 => b.on(Binary::Sub, &[x, c]),
        3 => b.on(Binary::Sub, &[c, x]),
        4 => b.on(Binary::Mul, &[c, x]),
        _ => b.on(Binary::Add, &[x, c]),
    }
}

fn constant_chain(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let tensor = b.random.tensor(&[shape[1], 1, 1]);
    let c = b.constant(tensor);
    let d = b.on(Unary::Tanh, &[c])?;
    let e = b.on(Binary::Add, &[c, d])?;
    if b.random.once_in(4) {
        let list = b.list(&shape.iter().map(|&extent| extent as i64).collect::<Vec<_>>());
        let full = b.on(Expand, &[e, list])?;
        return b.on(Binary::Mul, &[x, full]);
    }
    b.on(Binary::Mul, &[x, e])
}

fn shape_chain(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let extents = b.on(Shape { start: 0, end: Some(1) }, &[x])?;
    let rest = b.list(&[-1]);
    let list = b.on(Concat { axis: 0 }, &[extents, rest])?;
    b.on(Reshape::default(), &[x, list])
}

/// A Relu or a negation, as a constant or the data say.
fn branches(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let graph = |op: &str| onnx_build::Graph {
        outputs: vec![onnx_build::untyped("inner")],
        nodes: vec![onnx_build::node(op, &["outer"], &["inner"], &[])],
        ..onnx_build::Graph::default()
    };
    let attribute =
        |name: &str, op: &str| AttributeValue::Opaque(onnx_build::graph_attribute(name, &graph(op).encode()));
    let attributes = Attributes::new()
        .with("then_branch", attribute("then_branch", "Relu"))
        .with("else_branch", attribute("else_branch", "Neg"));
    let condition = if b.random.once_in(4) {
        let axes: Vec<i64> = (0..b.shape(x).len() as i64).collect();
        let axes = b.list(&axes);
        let largest =
            b.on(Reduce { kind: ReduceKind::Max, keepdims: false, noop_with_empty_axes: false }, &[x, axes])?;
        let bound = b.number(0.5);
        b.on(Binary::Greater, &[largest, bound])?
    } else {
        let holds = b.random.once_in(2);
        b.constant(Tensor::from_bools([], [holds]).ok()?)
    };
    b.on(Opaque::new("", "If", attributes, 1), &[condition, x])
}

fn variadic(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let op = b.random.one_of(Variadic::ALL);
    let half = b.number(0.5);
    match b.random.within(0..=3) {
        0 => b.on(op, &[x]),
        1 => b.on(op, &[half, x]),
        2 => b.on(op, &[x, x]),
        _ => {
            let other = b.same_shape(x)?;
            b.on(op, &[x, other, half])
        }
    }
}

/// The same thing twice, for common subexpressions.
fn twice(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let [one, two] = [0.25, 0.25].map(|value| b.number(value));
    let y = b.on(Binary::Mul, &[x, one])?;
    let z = b.on(Binary::Mul, &[x, two])?;
    let (y, z) = (b.on(Unary::Tanh, &[y])?, b.on(Unary::Tanh, &[z])?);
    if b.random.once_in(2) { b.on(Binary::Add, &[y, z]) } else { Some(z) }
}

fn without_effect(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let shape: Vec<i64> = b.shape(x).iter().map(|&extent| extent as i64).collect();
    let ones = b.list(&vec![1; shape.len()]);
    match b.random.within(0..=2) {
        0 => {
            let list = b.list(&shape);
            b.on(Expand, &[x, list])
        }
        1 => b.on(Tile, &[x, ones]),
        _ => {
            let (start, end) = (b.list(&[0]), b.list(&[i64::MAX]));
            b.on(Slice, &[x, start, end])
        }
    }
}

/// One step behind the other, each on a late value.
fn chain(b: &mut Builder, steps: &[Step]) -> Option<ValueId> {
    let (last, before) = steps.split_last()?;
    for step in before {
        let value = step(b);
        b.keep(value);
    }
    last(b)
}

fn cropped(b: &mut Builder) -> Option<ValueId> {
    let crop = b.random.one_of(&[slice as Step, pad]);
    chain(b, &[conv_transpose, crop])
}

fn padded(b: &mut Builder) -> Option<ValueId> {
    let conv = b.random.one_of(&[conv as Step, conv_transpose]);
    chain(b, &[pad, conv])
}

fn normalised(b: &mut Builder) -> Option<ValueId> {
    let conv = b.random.one_of(&[conv as Step, conv_transpose]);
    chain(b, &[conv, batch_norm, activation])
}

fn zero_stuffing(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let extents: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    let list = b.list(&[extents[0], extents[1], extents[2], 1, extents[3], 1]);
    let parted = b.on(Reshape::default(), &[x, list])?;
    let (tall, wide) = (b.random.within(0..=2), b.random.within(0..=1));
    let list = b.list(&[0, 0, 0, 0, 0, 0, 0, 0, 0, tall, 0, wide]);
    let padded = b.on(Pad { border: Border::Constant }, &[parted, list])?;
    let list = b.list(&[extents[0], extents[1], extents[2] * (tall + 1), extents[3] * (wide + 1)]);
    let joined = b.on(Reshape::default(), &[padded, list])?;
    b.keep(Some(joined));
    let (outputs, kernel) = (2, [b.random.within(1..=3) as usize, b.random.within(1..=3) as usize]);
    let w = weights(b, &[outputs, shape[1], kernel[0], kernel[1]], shape[1] * kernel[0]);
    let op = Conv {
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        group: 1,
        padding: padding(b, &kernel),
        epilogue: Epilogue::default(),
        exact: false,
    };
    b.on(op, &[joined, w])
}

fn resize_conv(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let scales: [i64; 2] = [b.random.within(1..=3), b.random.within(1..=3)];
    let sizes =
        b.list(&[shape[0] as i64, shape[1] as i64, shape[2] as i64 * scales[0], shape[3] as i64 * scales[1]]);
    let (coordinates, rounding) = match b.random.within(0..=3) {
        0 => (Coordinates::Asymmetric, Rounding::Floor),
        1 => (Coordinates::HalfPixel, Rounding::PreferFloor),
        2 => (Coordinates::PytorchHalfPixel, Rounding::PreferCeil),
        // Not the copies of their neighbours on the left.
        _ => (Coordinates::Asymmetric, Rounding::Ceil),
    };
    let resize = Resize { coordinates, rounding, ..Resize::default() };
    let large = b.node(resize, &[Some(x), None, None, Some(sizes)])?;
    let kernel = [b.random.within(1..=4) as usize, b.random.within(1..=4) as usize];
    let group = if shape[1].is_multiple_of(2) { 2 } else { 1 };
    let w = weights(b, &[4, shape[1] / group, kernel[0], kernel[1]], shape[1] * kernel[0]);
    let op = Conv {
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        group,
        padding: padding(b, &kernel),
        epilogue: Epilogue::default(),
        exact: false,
    };
    b.on(op, &[large, w])
}

fn matrix_product(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let list = b.list(&[-1, shape[3] as i64]);
    let a = b.on(Reshape::default(), &[x, list])?;
    let w = weights(b, &[shape[3], 5], shape[3]);
    let y = b.on(MatMul, &[a, w])?;
    let spread = b.random.one_of(&[&[5][..], &[1], &[1, 5]]);
    let c = b.random.tensor(spread);
    let c = b.constant(c);
    if b.random.once_in(2) { b.on(Binary::Add, &[y, c]) } else { b.on(Binary::Add, &[c, y]) }
}

fn pool(b: &mut Builder) -> Option<ValueId> {
    let (x, _) = b.image();
    let kernel = [b.random.within(1..=3) as usize, b.random.within(1..=3) as usize];
    let kind =
        b.random.one_of(&[PoolKind::Max { column_major: false }, PoolKind::Average { include_pad: false }]);
    let padding = padding(b, &kernel);
    let ceil_mode = b.random.once_in(2);
    let op = Pool {
        kind,
        kernel_shape: kernel.to_vec(),
        strides: sizes(b, 2),
        dilations: vec![],
        padding,
        ceil_mode,
    };
    b.on(op, &[x])
}

fn resize(b: &mut Builder) -> Option<ValueId> {
    let (x, _) = b.image();
    let wide = b.random.one_of(&[1.0, 2.0]);
    let scales = b.constant(Tensor::from_vec([4], vec![1.0, 1.0, 1.0f32, wide]).unwrap());
    b.node(Resize::default(), &[Some(x), None, Some(scales)])
}

fn reduce(b: &mut Builder) -> Option<ValueId> {
    let (x, _) = b.image();
    let axes = b.list(&[2, 3]);
    b.on(Reduce { kind: ReduceKind::Mean, keepdims: true, noop_with_empty_axes: false }, &[x, axes])
}

/// Operators on a short type, between casts; sometimes rounded once more, or only moved.
fn halves(b: &mut Builder) -> Option<ValueId> {
    let x = b.any();
    let cast = |to| Cast { to, rounding: ShortRounding::default() };
    let short = b.on(cast(DType::F16), &[x])?;
    let y = match b.random.within(0..=3) {
        0 => b.on(Unary::Relu, &[short])?,
        1 => b.on(Binary::Add, &[short, short])?,
        2 => {
            let two = b.number(2.0);
            let two = b.on(cast(DType::F16), &[two])?;
            b.on(Binary::Mul, &[short, two])?
        }
        _ => short,
    };
    let y = if b.random.once_in(2) { b.on(Flatten { axis: 1 }, &[y])? } else { y };
    b.on(cast(DType::F32), &[y])
}

/// Quantised, and taken back: by the same scale or another, for all or along an axis, or from the range of the data. Of the input:
/// what passes have computed otherwise might be rounded to another integer.
fn quantised(b: &mut Builder) -> Option<ValueId> {
    let x = b.input();
    let shape = b.shape(x);
    let per_axis = b.random.once_in(3);
    let count = if per_axis { vec![shape[1]] } else { vec![] };
    let scale = b.random.positive(&count);
    let scale = b.constant(scale);
    let dtype = b.random.one_of(&[DType::U8, DType::I8, DType::I16]);
    let zero = b.random.within(0..=9) as f64;
    let zeros = number(dtype, &count, zero)?;
    let zeros = b.constant(zeros);
    if b.random.once_in(4) {
        let dynamic = op("DynamicQuantizeLinear");
        let types = patch::infer(&b.graph, &dynamic, &[Some(x)], 3).ok()?;
        let (_, made) = b.graph.add_node("dynamic", dynamic, &[Some(x)], types).ok()?;
        return b.on(op("DequantizeLinear"), &made);
    }
    let q = b.on(op("QuantizeLinear"), &[x, scale, zeros])?;
    let scale = if b.random.once_in(2) { b.number(0.25) } else { scale };
    let same = b.graph.ty(scale).rank() == Some(count.len());
    let zeros = if same {
        zeros
    } else {
        let zero = number(dtype, &[], zero)?;
        b.constant(zero)
    };
    b.on(op("DequantizeLinear"), &[q, scale, zeros])
}

fn op(name: &str) -> Op {
    Op::read(name, Attributes::new()).unwrap().unwrap()
}

/// A tensor of one number.
fn number(dtype: DType, shape: &[usize], value: f64) -> Option<Tensor> {
    let count = shape.iter().product();
    let real = Tensor::from_vec(shape, vec![value as f32; count]).ok()?;
    patch::eval(Cast { to: dtype, rounding: ShortRounding::default() }, &[&real]).ok()
}

/// Products of integers that the data are cast to.
fn integer_products(b: &mut Builder) -> Option<ValueId> {
    let x = b.input();
    let shape = b.shape(x);
    let cast = |to| Cast { to, rounding: ShortRounding::default() };
    let dtype = b.random.one_of(&[DType::U8, DType::I8]);
    let x = b.on(cast(dtype), &[x])?;
    let zero = number(dtype, &[], b.random.within(0..=3) as f64)?;
    let zero = b.constant(zero);
    let conv = b.random.once_in(2);
    let of_w = if conv { vec![3, shape[1], 2, 2] } else { vec![shape[3], 5] };
    let w = b.random.tensor(&of_w);
    let sixteen = Tensor::scalar(16f32);
    let w = patch::eval(Binary::Mul, &[&w, &sixteen]).ok()?;
    let w = patch::eval(cast(DType::I8), &[&w]).ok()?;
    let w = b.constant(w);
    let none = number(DType::I8, &[], 1.0)?;
    let none = b.constant(none);
    let scale = b.number(0.125);
    let y = if b.random.once_in(2) {
        let name = if conv { "ConvInteger" } else { "MatMulInteger" };
        b.on(op(name), &[x, w, zero, none])?
    } else {
        let name = if conv { "QLinearConv" } else { "QLinearMatMul" };
        b.on(op(name), &[x, scale, zero, w, scale, none, scale, zero])?
    };
    b.on(cast(DType::F32), &[y])
}

/// Sums of products by named axes, of a value and a constant or itself.
fn einsum(b: &mut Builder) -> Option<ValueId> {
    let (x, shape) = b.image();
    let [n, c, h, w] = shape.as_slice() else { return None };
    let (n, c, h, w) = (*n, *c, *h, *w);
    let one = |b: &mut Builder, shape: &[usize]| {
        let tensor = b.random.tensor(shape);
        b.constant(tensor)
    };
    let (equation, inputs) = match b.random.within(0..=7) {
        0 => ("nchw, ck -> nkhw", vec![x, one(b, &[c, 3])]),
        1 => ("nchw, nchv -> nwv", vec![x, x]),
        2 => ("n...w -> ...n", vec![x]),
        3 => ("...hw, wh -> ...", vec![x, one(b, &[w, h])]),
        4 => ("nchw, c, hk -> kn", vec![x, one(b, &[c]), one(b, &[h, 2])]),
        5 => ("nchw, kk -> khn", vec![x, one(b, &[2, 2])]),
        6 => ("abcd, bd", vec![x, one(b, &[c, w])]),
        _ => ("...w, ...w -> ...w", vec![x, one(b, &[n, 1, h, w])]),
    };
    b.on(Op::read("Einsum", Attributes::new().with("equation", equation)).ok()??, &inputs)
}
