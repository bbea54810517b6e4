//! Random data operators (shapes, movement, pooling, sampling) on random tensors, hostile numbers among them: nothing
//! panics, attributes read back, and what inference says, with constants or without, with symbols or without, holds for
//! what evaluation makes.

use tconvc_ir::ops::InputInfo;
use tconvc_ir::{AttributeValue, Attributes, Bindings, DType, Dim, Op, Tensor, ValueType};

/// A small generator of random numbers, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11
    }

    /// From `low` to `high`, both included.
    fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    fn chance(&mut self, percent: i64) -> bool {
        self.range(1, 100) <= percent
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as i64 - 1) as usize].clone()
    }

    /// A number as attributes and index lists have them, now and then one that fits nowhere.
    fn int(&mut self, low: i64, high: i64) -> i64 {
        if self.chance(2) {
            return self.choose(&[i64::MIN, i64::MAX, 1 << 40, -(1 << 40), 1 << 31, -1, 0]);
        }
        self.range(low, high)
    }

    fn ints(&mut self, count: i64, low: i64, high: i64) -> Vec<i64> {
        let count = if self.chance(3) { self.range(0, 6) } else { count };
        (0..count).map(|_| self.int(low, high)).collect()
    }

    fn shape(&mut self, rank: i64) -> Vec<usize> {
        let rank = if self.chance(4) { self.range(0, 6) } else { rank };
        (0..rank).map(|_| if self.chance(4) { 0 } else { self.range(1, 5) as usize }).collect()
    }

    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let bytes = dtype.bytes_for(shape.iter().product()).unwrap();
        match dtype {
            DType::F32 => {
                let value = |_| self.range(-20, 20) as f32 / 8.0;
                Tensor::from_vec(shape, (0..bytes / 4).map(value).collect()).unwrap()
            }
            DType::I64 => Tensor::from_vec(shape, (0..bytes / 8).map(|_| self.int(-4, 4)).collect()).unwrap(),
            _ => {
                let bytes: Vec<u8> = (0..bytes).map(|_| self.range(0, 1) as u8).collect();
                Tensor::from_shared(dtype, shape.to_vec(), std::sync::Arc::new(bytes), 0).unwrap()
            }
        }
    }

    fn list(&mut self, count: i64, low: i64, high: i64) -> Tensor {
        Tensor::from_i64s(&self.ints(count, low, high))
    }
}

type Inputs = Vec<Option<Tensor>>;

/// One operator of each kind, with data of rank `r`.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn case(name: &str, random: &mut Random) -> (Attributes, Inputs) {
    let r = random.range(1, 4);
    let shape = random.shape(r);
    let dtype = random.choose(&[
        DType::F32,
        DType::F32,
        DType::I64,
        DType::U8,
        DType::F16,
        DType::U4,
        DType::Bool,
        DType::C128,
    ]);
    let x = random.tensor(dtype, &shape);
    let real = random.tensor(DType::F32, &shape);
    let mut attributes = Attributes::new();
    let mut set = |name: &str, value: AttributeValue| attributes.set(name, value);
    let optional = |random: &mut Random, tensor: Tensor| if random.chance(60) { Some(tensor) } else { None };
    let inputs = match name {
        "Shape" => {
            set("start", random.int(-3, 3).into());
            set("end", random.int(-3, 4).into());
            vec![Some(x)]
        }
        "Size" | "NonZero" | "GlobalMaxPool" | "GlobalAveragePool" => vec![Some(x)],
        "Reshape" => {
            set("allowzero", random.range(0, 1).into());
            let count = x.len() as i64;
            let random_shape = random.ints(3, -1, 4);
            let wanted = random.choose(&[
                vec![-1],
                vec![0, -1],
                vec![count],
                vec![1, count, 1],
                vec![-1, 2],
                vec![0, 0, 0, -1],
                random_shape,
            ]);
            vec![Some(x), Some(Tensor::from_i64s(&wanted))]
        }
        "Flatten" => {
            set("axis", random.int(-r, r).into());
            vec![Some(x)]
        }
        "Squeeze" => {
            let axes = random.list(1, -r, r - 1);
            vec![Some(x), optional(random, axes)]
        }
        "Unsqueeze" => vec![Some(x), Some(random.list(2, -r - 2, r + 1))],
        "Transpose" => {
            let mut perm: Vec<i64> = (0..r).collect();
            perm.rotate_left(random.range(0, r - 1) as usize);
            set("perm", perm.into());
            vec![Some(x)]
        }
        "Expand" => {
            let mut wanted: Vec<i64> =
                shape.iter().map(|&extent| if random.chance(50) { 1 } else { extent as i64 }).collect();
            wanted.insert(0, random.int(0, 3));
            vec![Some(x), Some(Tensor::from_i64s(&wanted))]
        }
        "Tile" => vec![Some(x), Some(random.list(r, 0, 3))],
        "Slice" => {
            let count = random.range(1, r);
            let axes: Vec<i64> = (0..count).collect();
            let lists = [random.list(count, -5, 5), random.list(count, -6, 6)];
            let steps = random.list(count, -2, 3);
            let axes = random.chance(70).then(|| Tensor::from_i64s(&axes));
            let steps = if axes.is_some() { optional(random, steps) } else { None };
            let [starts, ends] = lists;
            vec![Some(x), Some(starts), Some(ends), axes, steps]
        }
        "Split" => {
            set("axis", random.int(-r, r - 1).into());
            if random.chance(50) {
                set("num_outputs", 2.into());
                vec![Some(x)]
            } else {
                let first = random.range(0, 3);
                vec![Some(x), Some(Tensor::from_i64s(&[first, random.range(0, 3)]))]
            }
        }
        "Concat" => {
            set("axis", random.int(-r, r - 1).into());
            let other = random.shape(r);
            let other = if random.chance(50) { x.clone() } else { random.tensor(dtype, &other) };
            vec![Some(x), Some(other)]
        }
        "Pad" => {
            let mode = random.choose(&["constant", "edge", "reflect", "wrap"]);
            set("mode", mode.into());
            if random.chance(50) {
                vec![Some(x), Some(random.list(2 * r, -1, 3))]
            } else {
                vec![Some(x), Some(random.list(2, -1, 3)), None, Some(random.list(1, -r, r - 1))]
            }
        }
        "DepthToSpace" | "SpaceToDepth" => {
            let block = random.int(1, 2);
            set("blocksize", block.into());
            let extents = [1, 4 * random.range(1, 2), 2 * random.range(1, 2), 2 * random.range(1, 3)];
            vec![Some(random.tensor(dtype, &extents.map(|extent| extent as usize)))]
        }
        "Trilu" => {
            set("upper", random.range(0, 1).into());
            let k = Tensor::scalar(random.int(-3, 3));
            vec![Some(x), optional(random, k)]
        }
        "ReverseSequence" => {
            vec![Some(x), Some(random.list(shape.get(1).copied().unwrap_or(1) as i64, 0, 3))]
        }
        "Gather" => {
            set("axis", random.int(-r, r - 1).into());
            let rank = random.range(0, 2);
            let indices = random.shape(rank);
            let mut indices = random.tensor(DType::I64, &indices);
            if random.chance(70) {
                indices = Tensor::zeros(DType::I64, indices.shape()).unwrap();
            }
            vec![Some(x), Some(indices)]
        }
        "GatherElements" | "ScatterElements" => {
            set("axis", random.int(-r, r - 1).into());
            let indices = Tensor::zeros(DType::I64, shape.clone()).unwrap();
            let updates = random.tensor(dtype, &shape);
            if name == "GatherElements" {
                vec![Some(x), Some(indices)]
            } else {
                vec![Some(x), Some(indices), Some(updates)]
            }
        }
        "GatherND" => {
            set("batch_dims", random.int(0, 1).into());
            let depth = random.range(1, 2) as usize;
            let rows = shape.first().copied().unwrap_or(1);
            let indices = random.tensor(DType::I64, &[rows, 2, depth]);
            let zeros = Tensor::zeros(DType::I64, indices.shape()).unwrap();
            vec![Some(x), Some(if random.chance(70) { zeros } else { indices })]
        }
        "ScatterND" => {
            let reduction = random.choose(&["none", "add", "mul", "max", "min"]);
            set("reduction", reduction.into());
            let indices = Tensor::zeros(DType::I64, [2, 1]).unwrap();
            let updates = [&[2], shape.get(1..).unwrap_or_default()].concat();
            let updates = random.tensor(dtype, &updates);
            vec![Some(x), Some(indices), Some(updates)]
        }
        "ConstantOfShape" => {
            if random.chance(50) {
                set("value", random.tensor(dtype, &[1]).into());
            }
            vec![Some(random.list(r, 0, 4))]
        }
        "Range" => (0..3).map(|_| Some(Tensor::scalar(random.int(-5, 9)))).collect(),
        "OneHot" => {
            set("axis", random.int(-2, 1).into());
            let values = random.tensor(dtype, &[2]);
            vec![Some(random.list(3, -5, 5)), Some(Tensor::scalar(random.int(1, 4))), Some(values)]
        }
        "EyeLike" => {
            set("k", random.int(-2, 2).into());
            vec![Some(x)]
        }
        "TopK" => {
            set("axis", random.int(-r, r - 1).into());
            vec![Some(x), Some(random.list(1, 0, 3))]
        }
        "Compress" => {
            if random.chance(60) {
                set("axis", random.int(-r, r - 1).into());
            }
            let count = random.range(0, 4) as usize;
            vec![Some(x), Some(random.tensor(DType::Bool, &[count]))]
        }
        "Unique" => {
            if random.chance(60) {
                set("axis", random.int(-r, r - 1).into());
            }
            set("sorted", random.range(0, 1).into());
            vec![Some(x)]
        }
        "MaxPool" | "AveragePool" | "LpPool" => {
            let axes = random.range(1, 3);
            set("kernel_shape", random.ints(axes, 1, 3).into());
            if random.chance(60) {
                set("strides", random.ints(axes, 1, 3).into());
            }
            if random.chance(40) {
                set("dilations", random.ints(axes, 1, 2).into());
            }
            match random.range(0, 2) {
                0 => set("pads", random.ints(2 * axes, 0, 2).into()),
                1 => set("auto_pad", random.choose(&["SAME_UPPER", "SAME_LOWER", "VALID"]).into()),
                _ => {}
            }
            set("ceil_mode", random.range(0, 1).into());
            let shape = random.shape(axes + 2);
            let dtype = random.choose(&[DType::F32, DType::F16, DType::U8]);
            vec![Some(random.tensor(dtype, &shape))]
        }
        "MaxUnpool" => {
            set("kernel_shape", random.ints(1, 1, 3).into());
            set("strides", random.ints(1, 1, 3).into());
            let shape = random.shape(3);
            let x = random.tensor(dtype, &shape);
            let indices = random.tensor(DType::I64, &shape);
            let zeros = Tensor::zeros(DType::I64, shape).unwrap();
            vec![Some(x), Some(if random.chance(70) { zeros } else { indices })]
        }
        "Resize" => {
            set("mode", random.choose(&["nearest", "linear", "cubic"]).into());
            let coordinates = [
                "half_pixel",
                "half_pixel_symmetric",
                "align_corners",
                "asymmetric",
                "pytorch_half_pixel",
                "tf_half_pixel_for_nn",
            ];
            set("coordinate_transformation_mode", random.choose(&coordinates).into());
            set(
                "nearest_mode",
                random.choose(&["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]).into(),
            );
            set("antialias", random.range(0, 1).into());
            set("exclude_outside", random.range(0, 1).into());
            set("keep_aspect_ratio_policy", random.choose(&["stretch", "not_larger", "not_smaller"]).into());
            let x = if random.chance(80) { real } else { x };
            if random.chance(50) {
                let hostile = random.chance(10);
                let from: &[f32] =
                    if hostile { &[1.0, -1.0, f32::NAN, 1e30] } else { &[1.0, 2.0, 0.5, 1.5, 0.7, 3.0] };
                let scales = (0..shape.len()).map(|_| random.choose(from)).collect();
                vec![Some(x), None, Some(Tensor::from_vec([shape.len()], scales).unwrap())]
            } else {
                vec![Some(x), None, None, Some(random.list(shape.len() as i64, 0, 6))]
            }
        }
        "GridSample" => {
            set("mode", random.choose(&["linear", "nearest", "cubic"]).into());
            set("padding_mode", random.choose(&["zeros", "border", "reflection"]).into());
            set("align_corners", random.range(0, 1).into());
            let axes = random.range(1, 3);
            let mut shape = random.shape(axes + 2);
            let x = random.tensor(DType::F32, &shape);
            if let Some(last) = shape.last_mut() {
                *last = axes as usize;
            }
            if shape.len() > 1 {
                shape[1] = 3;
            }
            vec![Some(x), Some(random.tensor(DType::F32, &shape))]
        }
        "AffineGrid" => {
            let axes = random.range(2, 3);
            let theta = random.tensor(DType::F32, &[1, axes as usize, axes as usize + 1]);
            let mut size = random.ints(axes + 2, 1, 3);
            if let Some(batch) = size.first_mut() {
                *batch = 1;
            }
            vec![Some(theta), Some(Tensor::from_i64s(&size))]
        }
        "Col2Im" => {
            let axes = random.range(1, 3);
            let (image, block) = (random.ints(axes, 2, 4), random.ints(axes, 1, 2));
            let sizes = |list: &[i64]| list.iter().map(|&size| size.clamp(0, 9) as usize).collect::<Vec<_>>();
            let columns = sizes(&image)
                .iter()
                .zip(&sizes(&block))
                .map(|(&image, &block)| (image + 1).saturating_sub(block))
                .product();
            let rows = 2 * sizes(&block).iter().product::<usize>();
            let x = random.tensor(DType::F32, &[1, rows, columns]);
            vec![Some(x), Some(Tensor::from_i64s(&image)), Some(Tensor::from_i64s(&block))]
        }
        _ => vec![Some(x), Some(random.list(r, 0, 6))],
    };
    (attributes, inputs)
}

const NAMES: &[&str] = &[
    "Shape",
    "Size",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Expand",
    "Tile",
    "Slice",
    "Split",
    "Concat",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
    "Trilu",
    "ReverseSequence",
    "Gather",
    "GatherElements",
    "GatherND",
    "ScatterElements",
    "ScatterND",
    "ConstantOfShape",
    "Range",
    "OneHot",
    "EyeLike",
    "NonZero",
    "TopK",
    "Compress",
    "Unique",
    "MaxPool",
    "AveragePool",
    "LpPool",
    "GlobalMaxPool",
    "GlobalAveragePool",
    "MaxUnpool",
    "Resize",
    "GridSample",
    "AffineGrid",
    "Col2Im",
    "CenterCropPad",
];

fn outputs(name: &str) -> usize {
    match name {
        "Split" | "TopK" | "MaxPool" => 2,
        "Unique" => 4,
        _ => 1,
    }
}

/// What is known of an input: the number of the variant says how much.
fn infer(
    op: &Op,
    inputs: &Inputs,
    symbols: bool,
    constants: bool,
    count: usize,
) -> Result<Vec<ValueType>, String> {
    let ty = |(i, input): (usize, &Option<Tensor>)| {
        let tensor = input.as_ref()?;
        let dim = |(axis, &extent): (usize, &usize)| {
            if symbols && i == 0 { Dim::symbol(&format!("d{axis}")) } else { extent.into() }
        };
        Some(ValueType::new(tensor.dtype(), tensor.shape().iter().enumerate().map(dim)))
    };
    let types: Vec<Option<ValueType>> = inputs.iter().enumerate().map(ty).collect();
    let info = |(i, (input, ty)): (usize, (&'_ Option<Tensor>, &'_ Option<ValueType>))| {
        let known = constants && !(symbols && i == 0);
        Some((input.clone().filter(|_| known), ty.clone()?))
    };
    let known: Vec<_> = inputs.iter().zip(&types).enumerate().map(info).collect();
    let infos: Vec<_> = known
        .iter()
        .map(|known| {
            known.as_ref().map(|(tensor, ty)| InputInfo { ty, constant: tensor.as_ref(), extents: None })
        })
        .collect();
    op.infer(&infos, count).map_err(|error| error.to_string())
}

/// True when a type that was inferred holds for a tensor, once the symbols are what they are.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn holds(ty: &ValueType, tensor: &Tensor, bindings: &Bindings) -> bool {
    let dim = |(dim, &extent): (&Dim, &usize)| {
        let bound = dim.bind(bindings).unwrap();
        // A slice behind the end of a symbolic axis is negative; see the operator.
        bound.known_i64().is_none_or(|known| known < 0 || known == extent as i64)
    };
    ty.dtype.is_none_or(|dtype| dtype == tensor.dtype())
        && ty
            .shape
            .as_ref()
            .is_none_or(|shape| shape.len() == tensor.rank() && shape.iter().zip(tensor.shape()).all(dim))
}

#[test]
fn inference_agrees_with_evaluation() {
    let mut random = Random(7);
    let mut evaluated = std::collections::BTreeMap::new();
    for round in 0..400 {
        for &name in NAMES {
            let (attributes, inputs) = case(name, &mut random);
            let Ok(Some(op)) = Op::read(name, attributes) else { continue };
            assert_eq!(Op::read(name, op.attributes()), Ok(Some(op.clone())));
            let count = outputs(name);
            let tensors: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
            let results = op.eval(&tensors, count);
            let shape = inputs[0].as_ref().map(|tensor| tensor.shape().to_vec()).unwrap_or_default();
            let bindings: Bindings =
                shape.iter().enumerate().map(|(i, &extent)| (format!("d{i}"), extent)).collect();
            for (symbols, constants) in [(false, true), (false, false), (true, true)] {
                let inferred = infer(&op, &inputs, symbols, constants, count);
                let Ok(results) = &results else { continue };
                let context = || {
                    format!("{name} {round}: {op:?} on {inputs:?}, symbols {symbols}, constants {constants}")
                };
                let types = inferred.unwrap_or_else(|error| panic!("{}: {error}", context()));
                for (ty, tensor) in types.iter().zip(results) {
                    assert!(holds(ty, tensor, &bindings), "{}: {ty} for {:?}", context(), tensor.shape());
                }
            }
            *evaluated.entry(name).or_insert(0) += i32::from(results.is_ok());
        }
    }
    // The random cases are to be of some use: each operator is evaluated often.
    for &name in NAMES {
        assert!(evaluated.get(name).is_some_and(|&count| count >= 40), "{name}: {:?}", evaluated.get(name));
    }
}
