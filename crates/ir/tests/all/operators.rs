//! Operators on random inputs, fitting and not: no panic, inference agrees with evaluation however little it is told, extents
//! agree with elements, and attributes read back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tconvc_ir::ops::InputInfo;
use tconvc_ir::{AttributeValue, Attributes, DType, Dim, Op, Tensor, ValueType, dispatch_numeric};

/// Names, each attribute with values to choose from (absent is always a choice), and the most inputs.
type Row = (&'static [&'static str], &'static [(&'static str, &'static [Choice])], usize);

#[derive(Debug, Clone, Copy)]
enum Choice {
    Int(i64),
    Ints(&'static [i64]),
    Float(f32),
    Name(&'static str),
}

use Choice::{Float, Int, Ints, Name};

const AXIS: (&str, &[Choice]) = ("axis", &[Int(0), Int(1), Int(-1), Int(-2), Int(3), Int(i64::MIN)]);
const EPSILON: (&str, &[Choice]) = ("epsilon", &[Float(0.5), Float(0.0), Float(-1.0)]);
const BLOCK: (&str, &[Choice]) = ("block_size", &[Int(1), Int(2), Int(-1)]);
const LAYOUT: (&str, &[Choice]) = ("layout", &[Int(1)]);
const DIRECTION: (&str, &[Choice]) = ("direction", &[Name("reverse"), Name("bidirectional")]);
const KEEP: (&str, &[Choice]) = ("keepdims", &[Int(0)]);
const PADS: (&str, &[Choice]) = ("pads", &[Ints(&[1, 1]), Ints(&[0, 1, 2, 1]), Ints(&[-1, i64::MAX])]);

const OPERATORS: &[Row] = &[
    (
        &["Relu", "Elu", "Gelu", "Sign", "Abs", "Neg", "Exp", "Log", "Round", "Not", "BitwiseNot", "IsNaN"],
        &[],
        2,
    ),
    (&["IsInf"], &[("detect_negative", &[Int(0), Int(2)])], 1),
    (&["Shrink"], &[("lambd", &[Float(0.5)]), ("bias", &[Float(1.0)])], 1),
    (&["Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Equal", "Greater", "LessOrEqual", "And", "Xor"], &[], 3),
    (&["Mod"], &[("fmod", &[Int(1), Int(7)])], 2),
    (&["BitwiseAnd", "BitwiseXor", "BitwiseOr"], &[], 2),
    (&["BitShift"], &[("direction", &[Name("LEFT"), Name("RIGHT")])], 2),
    (&["Sum", "Mean", "Max", "Min"], &[], 4),
    (&["Clip", "Where"], &[], 3),
    (&["Cast"], &[("to", &[Int(1), Int(6), Int(9), Int(10), Int(16), Int(17), Int(99)])], 1),
    (&["CastLike", "Identity", "MatMul", "MatMulInteger"], &[], 2),
    (&["Dropout"], &[("seed", &[Int(-5)])], 3),
    (
        &["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"],
        &[KEEP, ("noop_with_empty_axes", &[Int(1)])],
        2,
    ),
    (&["ArgMax", "ArgMin"], &[AXIS, KEEP, ("select_last_index", &[Int(1)])], 1),
    (&["Softmax", "LogSoftmax", "Hardmax"], &[AXIS, ("flatten", &[Int(1)])], 1),
    (&["CumSum", "CumProd"], &[("exclusive", &[Int(1)]), ("reverse", &[Int(1)])], 2),
    (&["BatchNormalization"], &[EPSILON, ("training_mode", &[Int(1)])], 5),
    (&["LayerNormalization", "RMSNormalization"], &[EPSILON, AXIS, ("stash_type", &[Int(10), Int(7)])], 3),
    (&["InstanceNormalization"], &[EPSILON], 3),
    (&["GroupNormalization"], &[EPSILON, ("num_groups", &[Int(1), Int(2), Int(3), Int(0)])], 3),
    (&["MeanVarianceNormalization"], &[("axes", &[Ints(&[0]), Ints(&[1, -1]), Ints(&[])])], 1),
    (&["LpNormalization"], &[AXIS, ("p", &[Int(1), Int(3)])], 1),
    (&["LRN"], &[("size", &[Int(1), Int(2), Int(i64::MAX)])], 1),
    (
        &["Gemm"],
        &[("transA", &[Int(1)]), ("transB", &[Int(1)]), ("alpha", &[Float(0.5)]), ("beta", &[Float(2.0)])],
        3,
    ),
    (
        &["Einsum"],
        &[(
            "equation",
            &[Name("ij,jk->ik"), Name("...i,...i"), Name("ii->i"), Name("i,j"), Name("ab...->...ba")],
        )],
        3,
    ),
    (
        &["RNN", "GRU", "LSTM"],
        &[DIRECTION, LAYOUT, ("hidden_size", &[Int(1), Int(2)]), ("clip", &[Float(1.0)])],
        8,
    ),
    (
        &["QuantizeLinear", "DequantizeLinear"],
        &[AXIS, BLOCK, ("output_dtype", &[Int(3), Int(22), Int(1)])],
        3,
    ),
    (&["DynamicQuantizeLinear"], &[], 1),
    (&["ConvInteger", "Conv"], &[PADS, ("strides", &[Ints(&[2]), Ints(&[1, 2])]), ("group", &[Int(2)])], 4),
    (&["ConvTranspose"], &[PADS, ("output_shape", &[Ints(&[4]), Ints(&[9, 9])]), ("group", &[Int(2)])], 3),
    (&["QLinearConv"], &[PADS], 9),
    (&["QLinearMatMul"], &[], 8),
    (
        &["RandomUniform", "RandomNormal"],
        &[("shape", &[Ints(&[2, 0]), Ints(&[3]), Ints(&[-1]), Ints(&[1 << 40, 1 << 40])])],
        0,
    ),
    (&["RandomUniformLike", "Bernoulli"], &[("dtype", &[Int(10), Int(9)]), ("seed", &[Float(3.0)])], 1),
    (&["Multinomial"], &[("sample_size", &[Int(3), Int(-1), Int(1 << 50)])], 1),
    (&["Reshape"], &[("allowzero", &[Int(1)])], 2),
    (&["Transpose"], &[("perm", &[Ints(&[1, 0]), Ints(&[0, 2, 1]), Ints(&[0, 0])])], 1),
    (&["Concat"], &[AXIS], 3),
    (&["Slice", "Expand", "Tile", "Squeeze", "Unsqueeze", "Range", "Size", "NonZero"], &[], 5),
    (&["Pad"], &[("mode", &[Name("reflect"), Name("edge"), Name("wrap")])], 4),
    (&["Split"], &[AXIS, ("num_outputs", &[Int(2), Int(i64::MAX)])], 2),
    (&["Gather", "GatherElements", "Compress"], &[AXIS], 2),
    (&["GatherND"], &[("batch_dims", &[Int(1), Int(-1)])], 2),
    (&["ScatterElements"], &[AXIS, ("reduction", &[Name("add"), Name("max")])], 3),
    (&["ScatterND"], &[("reduction", &[Name("mul")])], 3),
    (&["OneHot"], &[AXIS], 3),
    (&["TopK"], &[AXIS, ("largest", &[Int(0)])], 2),
    (&["Shape"], &[("start", &[Int(-1), Int(2)]), ("end", &[Int(1)])], 1),
    (&["Flatten"], &[AXIS], 1),
    (&["DepthToSpace", "SpaceToDepth"], &[("blocksize", &[Int(1), Int(2), Int(i64::MAX)])], 1),
    (
        &["MaxPool", "AveragePool", "LpPool"],
        &[("kernel_shape", &[Ints(&[2]), Ints(&[1, 2])]), PADS, ("ceil_mode", &[Int(1)])],
        1,
    ),
    (&["GlobalAveragePool", "GlobalMaxPool", "EyeLike", "ConstantOfShape", "Unique"], &[], 1),
    (&["Trilu"], &[("upper", &[Int(0)])], 2),
    (&["Resize"], &[("mode", &[Name("linear"), Name("cubic")])], 4),
    (&["DFT"], &[("inverse", &[Int(1)]), ("onesided", &[Int(1)])], 3),
    (&["STFT"], &[("onesided", &[Int(0), Int(1)])], 4),
    (
        &["HannWindow", "HammingWindow", "BlackmanWindow"],
        &[("periodic", &[Int(0)]), ("output_datatype", &[Int(11), Int(8)])],
        1,
    ),
    (&["MelWeightMatrix"], &[("output_datatype", &[Int(10)])], 5),
    (&["Det"], &[], 1),
    (&["BitCast"], &[("to", &[Int(1), Int(6), Int(12), Int(2), Int(8)])], 1),
    (
        &["RoiAlign"],
        &[
            ("output_height", &[Int(2), Int(0)]),
            ("mode", &[Name("max")]),
            ("sampling_ratio", &[Int(1), Int(2)]),
        ],
        3,
    ),
    (&["NonMaxSuppression"], &[("center_point_box", &[Int(1)])], 5),
    (&["DeformConv"], &[PADS, ("offset_group", &[Int(1), Int(2)]), ("group", &[Int(2)])], 5),
    (
        &["Attention"],
        &[
            ("q_num_heads", &[Int(1), Int(2), Int(0)]),
            ("kv_num_heads", &[Int(1), Int(2)]),
            ("is_causal", &[Int(1)]),
            ("softcap", &[Float(2.0)]),
            ("qk_matmul_output_mode", &[Int(3), Int(7)]),
            ("left_window_size", &[Int(0), Int(i64::MAX)]),
        ],
        7,
    ),
    (
        &["LinearAttention"],
        &[
            ("q_num_heads", &[Int(1), Int(2)]),
            ("kv_num_heads", &[Int(1)]),
            ("update_rule", &[Name("linear"), Name("gated"), Name("delta")]),
        ],
        6,
    ),
    (&["RotaryEmbedding"], &[("num_heads", &[Int(1), Int(2)]), ("interleaved", &[Int(1)])], 3),
    (&["CausalConvWithState"], &[("activation", &[Name("silu"), Name("relu")])], 4),
    (&["TensorScatter"], &[AXIS, ("mode", &[Name("circular")])], 3),
];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const DTYPES: [DType; 13] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
    DType::Bool,
];

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn tensor(random: &mut Random, dtype: DType, shape: Vec<usize>) -> Tensor {
    let count: usize = shape.iter().product();
    let specials = [f64::NAN, f64::INFINITY, -1e30, 0.0];
    let values: Vec<f64> = (0..count)
        .map(|_| if random.one_in(12) { random.pick(&specials) } else { random.below(9) as f64 - 3.0 })
        .collect();
    if dtype == DType::Bool {
        return Tensor::from_bools(shape, values.iter().map(|&x| x > 0.0)).unwrap();
    }
    let made: tconvc_ir::Result<Tensor> = dispatch_numeric!(dtype, T => {
        Tensor::from_vec(shape, values.iter().map(|&x| <T as tconvc_ir::Element>::from_f64(x)).collect())
    });
    made.unwrap()
}

/// What the inputs of a case mostly are behind the first one.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// Of the same shape or one that broadcasts.
    Broadcast,
    /// A list with an element for each channel.
    Channels,
    /// A list of integers, as many as there are axes.
    PerAxis,
    /// Integers of the same shape.
    Indices,
    /// A scalar or a short list.
    Short,
    /// Exactly the same.
    Same,
    /// Of the same shape, with half the last extent.
    Halved,
}

/// Inputs that often go together.
fn inputs(random: &mut Random, most: usize) -> Vec<Option<Tensor>> {
    let styles = [
        Style::Broadcast,
        Style::Channels,
        Style::PerAxis,
        Style::Indices,
        Style::Short,
        Style::Same,
        Style::Halved,
    ];
    let style = random.pick(&styles);
    let dtype = if random.one_in(2) { DType::F32 } else { random.pick(&DTYPES) };
    let rank = random.below(5);
    let base: Vec<usize> =
        (0..rank).map(|_| if random.one_in(12) { 0 } else { 1 + random.below(3) }).collect();
    let count = if random.one_in(8) { random.below(most + 2) } else { most.saturating_sub(random.below(3)) };
    let input = |index: usize, random: &mut Random| {
        if index == 0 {
            return Some(tensor(random, dtype, base.clone()));
        }
        if random.one_in(8) {
            return None;
        }
        let style = if random.one_in(5) { random.pick(&styles) } else { style };
        let integer = if random.one_in(4) { DType::I32 } else { DType::I64 };
        let (dtype, shape) = match style {
            Style::Broadcast => {
                let kept = random.below(rank + 1);
                (
                    dtype,
                    base[kept..].iter().map(|&extent| if random.one_in(3) { 1 } else { extent }).collect(),
                )
            }
            Style::Channels => (dtype, base.get(1).copied().into_iter().collect()),
            Style::PerAxis => (integer, vec![rank]),
            Style::Indices if index == 1 => (integer, base.clone()),
            Style::Indices => (dtype, base.clone()),
            Style::Short if random.one_in(2) => (integer, vec![]),
            Style::Short => (integer, vec![random.below(4)]),
            Style::Same => (dtype, base.clone()),
            Style::Halved => {
                let mut shape = base.clone();
                shape.iter_mut().next_back().into_iter().for_each(|extent| *extent /= 2);
                (dtype, shape)
            }
        };
        let dtype = if random.one_in(8) { random.pick(&DTYPES) } else { dtype };
        Some(tensor(random, dtype, shape))
    };
    (0..count).map(|index| input(index, random)).collect()
}

fn attributes(random: &mut Random, row: &Row) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, choices) in row.1 {
        if random.one_in(3) {
            continue;
        }
        let value = match random.pick(choices) {
            Int(value) => AttributeValue::Int(value),
            Ints(values) => AttributeValue::Ints(values.to_vec()),
            Float(value) => AttributeValue::Float(value),
            Name(value) => AttributeValue::String(value.into()),
        };
        attributes.set(name, value);
    }
    attributes
}

fn fits(ty: &ValueType, tensor: &Tensor) -> bool {
    ty.dtype.is_none_or(|dtype| dtype == tensor.dtype())
        && ty.shape.as_ref().is_none_or(|shape| {
            shape.len() == tensor.rank()
                && shape.iter().zip(tensor.shape()).all(|(dim, &extent)| {
                    dim.known_i64().is_none_or(|known| usize::try_from(known) == Ok(extent))
                })
        })
}

/// How much inference is told of an input.
#[derive(Debug, Clone, Copy)]
enum Told {
    Everything,
    Type,
    Rank,
    ElementType,
    Nothing,
}

fn told(tensor: &Tensor, told: Told) -> ValueType {
    let dtype = Some(tensor.dtype());
    match told {
        Told::Everything | Told::Type => ValueType::of(tensor),
        Told::Rank => ValueType { dtype, shape: Some(vec![Dim::unknown(); tensor.rank()]) },
        Told::ElementType => ValueType { dtype, shape: None },
        Told::Nothing => ValueType::default(),
    }
}

fn infos<'a>(
    types: &'a [Option<ValueType>],
    constants: &'a [Option<Tensor>],
    extents: &'a [Option<Vec<Dim>>],
) -> Vec<Option<InputInfo<'a>>> {
    let info = |i: usize| {
        let extents = extents.get(i).and_then(Option::as_deref);
        Some(InputInfo {
            ty: types[i].as_ref()?,
            constant: constants.get(i).and_then(Option::as_ref),
            extents,
        })
    };
    (0..types.len()).map(info).collect()
}

fn check_inference(
    op: &Op,
    inputs: &[Option<Tensor>],
    results: &[Tensor],
    outputs: usize,
) -> Result<(), String> {
    for how in [Told::Everything, Told::Type, Told::Rank, Told::ElementType, Told::Nothing] {
        let types: Vec<Option<ValueType>> =
            inputs.iter().map(|input| input.as_ref().map(|input| told(input, how))).collect();
        let constants = if matches!(how, Told::Everything) { inputs } else { &[] };
        let inferred = op
            .infer(&infos(&types, constants, &[]), outputs)
            .map_err(|error| format!("evaluates, but is refused when told {how:?}: {error}"))?;
        if inferred.len() < outputs.min(results.len()) {
            return Err(format!("{} types for {outputs} outputs", inferred.len()));
        }
        if let Some((ty, result)) = inferred.iter().zip(results).find(|(ty, result)| !fits(ty, result)) {
            return Err(format!("told {how:?} it is {ty}, evaluated {result:?}"));
        }
    }
    Ok(())
}

fn check_extents(op: &Op, inputs: &[Option<Tensor>], result: &Tensor) -> Result<(), String> {
    let types: Vec<Option<ValueType>> =
        inputs.iter().map(|input| input.as_ref().map(ValueType::of)).collect();
    let extents = |input: &Option<Tensor>| -> Option<Vec<Dim>> {
        let input = input.as_ref().filter(|input| input.rank() <= 1)?;
        Some(input.to_i64s().ok()?.into_iter().map(Dim::constant).collect())
    };
    let extents: Vec<Option<Vec<Dim>>> = inputs.iter().map(extents).collect();
    let Some(dims) = op.infer_extents(&infos(&types, inputs, &extents)) else { return Ok(()) };
    let Ok(elements) = result.to_i64s() else { return Ok(()) };
    let agrees = dims.len() == elements.len()
        && dims.iter().zip(&elements).all(|(dim, element)| dim.known_i64() == Some(*element));
    if agrees { Ok(()) } else { Err(format!("extents {dims:?}, elements {elements:?}")) }
}

/// Evaluates once and checks what else is claimed of it; false when the inputs did not fit.
fn check(op: &Op, inputs: &[Option<Tensor>], outputs: usize) -> Result<bool, String> {
    if Op::read(op.name(), op.attributes()).as_ref() != Ok(&Some(op.clone())) {
        return Err("attributes do not read back".into());
    }
    let references: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let Ok(results) = op.eval(&references, outputs) else { return Ok(false) };
    check_inference(op, inputs, &results, outputs)?;
    results.first().map_or(Ok(()), |result| check_extents(op, inputs, result))?;
    Ok(true)
}

/// Operators whose many inputs fit together too seldom to demand it here.
const RARE: &[&str] = &[
    "RNN",
    "GRU",
    "LSTM",
    "QLinearConv",
    "QLinearMatMul",
    "DequantizeLinear",
    "ConvInteger",
    "Conv",
    "ConvTranspose",
    "Resize",
    "MelWeightMatrix",
    "RoiAlign",
    "NonMaxSuppression",
    "DeformConv",
    "RotaryEmbedding",
];

#[test]
fn inference_agrees_with_evaluation() {
    let mut problems = vec![];
    for (row, name) in OPERATORS.iter().flat_map(|row| row.0.iter().map(move |name| (row, name))) {
        // A sequence of its own, so that an operator more in the list changes nothing for the others.
        let mut random = Random(
            name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |seed, byte| seed.rotate_left(5) ^ u64::from(byte)),
        );
        let mut fitted = 0;
        for attempt in 0..20_000 {
            if attempt >= 1000 && (fitted > 0 || RARE.contains(name)) {
                break;
            }
            let Ok(op) = Op::read(name, attributes(&mut random, row)) else { continue };
            let op = op.unwrap_or_else(|| panic!("{name} is not known"));
            let (inputs, outputs) = (inputs(&mut random, row.2), 1 + usize::from(random.one_in(6)));
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&op, &inputs, outputs)));
            match outcome.unwrap_or_else(|_| Err("panics".into())) {
                Ok(fits) => fitted += u32::from(fits),
                Err(problem) => {
                    problems.push(format!("{op:?} on {inputs:?}: {problem}"));
                    break;
                }
            }
        }
        if fitted == 0 && !RARE.contains(name) {
            problems.push(format!("{name} never fitted"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
