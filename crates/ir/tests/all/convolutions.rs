//! The convolution family apart from its geometry: element types, epilogues, inference, attributes, errors.

use crate::common::{AxisNumbers, Case, eval, integers};
use tconvc_ir::ops::{
    ColumnGemm, Conv, ConvTranspose, Epilogue, EpilogueStep, InputInfo, Interleave, OverlapAdd, Padding,
    PhaseConv, Unary, ZeroInsert,
};
use tconvc_ir::{
    Attributes, Bindings, DType, Dim, Element, Op, Operator, Result, Tensor, ValueType, bf16, f16,
};

const AXES: [AxisNumbers; 2] = [(3, 4, 2, 1, 1, 0), (2, 3, 3, 2, -1, 1)];

fn case() -> Case {
    Case { batch: 2, groups: 2, inputs: 4, outputs: 6, axes: AXES.to_vec() }
}

/// The definition and each form, evaluated; operands of the epilogue follow the bias.
fn all_ways<T: Element>(
    case: &Case,
    [x, w, b]: [&Tensor; 3],
    epilogue: &Epilogue,
    operands: &[&Tensor],
) -> [Tensor; 4] {
    let geometry = case.geometry();
    let with = |head: &[&Tensor], op: &dyn Operator| {
        let inputs: Vec<_> = head.iter().chain(operands).map(|&input| Some(input)).collect();
        op.eval(&inputs, 1).expect("well-formed").remove(0)
    };
    let (insert, conv) = ZeroInsert::from_geometry(&geometry, epilogue.clone()).expect("short sequence");
    let inserted = eval(&insert, &[x]);
    let phases = eval(&PhaseConv::from_geometry(&geometry), &[x, w, b]);
    let columns = eval(&ColumnGemm::from_geometry(&geometry), &[x, w]);
    [
        with(&[x, w, b], &ConvTranspose::from_geometry(&geometry, epilogue.clone())),
        with(&[&inserted, &case.flipped::<T>(w), b], &conv),
        with(&[&phases], &Interleave::from_geometry(&geometry, epilogue.clone())),
        with(&[&columns, b], &OverlapAdd::from_geometry(&geometry, epilogue.clone())),
    ]
}

fn infer(op: &dyn Operator, types: &[Option<&ValueType>]) -> Result<ValueType> {
    Ok(op.infer(&infos(types), 1)?.remove(0))
}

fn each_type<T: Element>() {
    let case = case();
    let [x, w, b] = [case.data(), case.weights(), case.bias()].map(|tensor| {
        let values = tensor.to_f64s().expect("numbers").into_iter().map(T::from_f64).collect();
        Tensor::from_vec(tensor.shape(), values).expect("same shape")
    });
    // Of what the elements became, exactly: all sums are small integers.
    let exact = |tensor: &Tensor| {
        let values = tensor.to_f64s().expect("numbers").into_iter().map(|value| value as i64).collect();
        Tensor::from_vec(tensor.shape(), values).expect("same shape")
    };
    let sums = case.transposed_matrix_product(&exact(&x), &exact(&w), &exact(&b));
    let sums = sums.elements::<i64>().expect("i64");
    let wraps = T::DTYPE.is_integer().then(|| 1i64 << T::DTYPE.bits().min(62));
    let expected: Vec<f64> = sums
        .iter()
        .map(|&sum| match wraps {
            // Into the type's range, as two's complement does.
            Some(modulus) => {
                let least = T::from_f64(f64::MIN).to_f64() as i64;
                ((sum - least).rem_euclid(modulus) + least) as f64
            }
            None => T::from_f64(sum as f64).to_f64(),
        })
        .collect();
    for (way, found) in all_ways::<T>(&case, [&x, &w, &b], &Epilogue::default(), &[]).iter().enumerate() {
        // Columns and phases are stored in between, rounded once more.
        if way < 2 || T::DTYPE.is_integer() || T::DTYPE.bits() >= 32 {
            assert_eq!(found.to_f64s().expect("numbers"), expected, "way {way}, {}", T::DTYPE);
        }
        assert_eq!(found.dtype(), T::DTYPE);
    }
}

#[test]
fn every_element_type() {
    each_type::<f32>();
    each_type::<f64>();
    each_type::<f16>();
    each_type::<bf16>();
    each_type::<i8>();
    each_type::<u8>();
    each_type::<i16>();
    each_type::<u16>();
    each_type::<i32>();
    each_type::<u32>();
}

#[test]
fn floats_are_summed_in_f64() {
    let x = Tensor::from_vec([1, 3, 1], vec![1e8f32, 1.0, -1e8]).expect("three");
    for (op, shape) in [("Conv", [1, 3, 1]), ("ConvTranspose", [3, 1, 1])] {
        let w = Tensor::from_vec(shape, vec![1f32; 3]).expect("three");
        let op = Op::read(op, Attributes::new()).expect("no attributes needed").expect("known");
        let y = op.eval(&[Some(&x), Some(&w)], 1).expect("well-formed");
        assert_eq!(y[0].elements::<f32>().expect("f32").as_ref(), [1.0]);
    }
}

#[test]
fn epilogues_are_what_they_spell() {
    let case = case();
    let [x, w, b] = [&case.data(), &case.weights(), &case.bias()];
    let plain = case.transposed_matrix_product(x, w, b);
    let residual = integers(plain.shape().to_vec(), 4);
    let slopes = integers(vec![case.outputs, 1, 1], 5);
    let one_slope = integers(vec![], 6);
    let epilogue = Epilogue {
        steps: vec![
            EpilogueStep::PRelu,
            EpilogueStep::Add,
            EpilogueStep::Unary(Unary::Relu),
            EpilogueStep::Unary(Unary::Neg),
            EpilogueStep::PRelu,
        ],
    };
    let by_hand = |(i, &sum): (usize, &i64)| {
        let channel = i / (plain.len() / case.batch / case.outputs) % case.outputs;
        let at = |tensor: &Tensor, i: usize| tensor.elements::<i64>().expect("i64")[i];
        let sum = if sum < 0 { sum * at(&slopes, channel) } else { sum };
        let sum = -(sum + at(&residual, i)).max(0);
        if sum < 0 { sum * at(&one_slope, 0) } else { sum }
    };
    let sums = plain.elements::<i64>().expect("i64");
    let expected = Tensor::from_vec(plain.shape(), sums.iter().enumerate().map(by_hand).collect());
    let expected = expected.expect("same shape");
    let wide_slopes = slopes.reshaped([1, case.outputs, 1, 1]).expect("same elements");
    for slopes in [&slopes, &wide_slopes] {
        for found in all_ways::<i64>(&case, [x, w, b], &epilogue, &[slopes, &residual, &one_slope]) {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn epilogues_of_floats_round_once() {
    // 1/3 of the sum, then three of it: rounding in between would show.
    let x = Tensor::from_vec([1, 1, 1], vec![1f32]).expect("one");
    let slope = Tensor::scalar(1f32 / 3.0);
    let residual = Tensor::from_vec([1, 1, 1], vec![-16_777_217f32]).expect("one");
    let epilogue = Epilogue { steps: vec![EpilogueStep::Add, EpilogueStep::PRelu] };
    let conv = Conv { epilogue, ..conv(Padding::none()) };
    let y = conv.eval(&[Some(&x), Some(&x), None, Some(&residual), Some(&slope)], 1).expect("well-formed");
    let exact = (1.0 + f64::from(-16_777_217f32)) * f64::from(1f32 / 3.0);
    assert_eq!(y[0].elements::<f32>().expect("f32").as_ref(), [exact as f32]);
}

fn conv(padding: Padding) -> Conv {
    Conv {
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        group: 1,
        padding,
        epilogue: Epilogue::default(),
        exact: false,
    }
}

fn conv_transpose(padding: Padding) -> ConvTranspose {
    ConvTranspose {
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        group: 1,
        padding,
        output_padding: vec![],
        output_shape: vec![],
        epilogue: Epilogue::default(),
    }
}

#[test]
fn attributes_read_back() {
    let geometry = case().geometry();
    let epilogue =
        Epilogue { steps: vec![EpilogueStep::Unary(Unary::LeakyRelu { alpha: 0.1 }), EpilogueStep::Add] };
    let (insert, conv_of_insert) = ZeroInsert::from_geometry(&geometry, epilogue.clone()).expect("short");
    let ops: Vec<Op> = vec![
        conv(Padding::SameLower).into(),
        Conv { kernel_shape: vec![3, 3], strides: vec![1, 1], group: 3, ..conv(Padding::Valid) }.into(),
        conv_transpose(Padding::Explicit { begin: vec![0, 0], end: vec![0, 0] }).into(),
        ConvTranspose {
            output_padding: vec![0, 1],
            output_shape: vec![7, 8],
            ..conv_transpose(Padding::SameUpper)
        }
        .into(),
        ConvTranspose::from_geometry(&geometry, epilogue.clone()).into(),
        insert.into(),
        conv_of_insert.into(),
        PhaseConv::from_geometry(&geometry).into(),
        Interleave::from_geometry(&geometry, epilogue.clone()).into(),
        ColumnGemm::from_geometry(&geometry).into(),
        OverlapAdd::from_geometry(&geometry, epilogue).into(),
    ];
    for op in ops {
        let read = Op::read(op.name(), op.attributes()).expect("own attributes");
        assert_eq!(read.as_ref(), Some(&op));
        let unknown = op.attributes().with("colour", 3);
        let message = Op::read(op.name(), unknown).expect_err("unknown attribute").to_string();
        assert!(message.contains("`colour`"), "{message}");
    }
}

#[test]
fn symbols_go_through() {
    let numbers = Bindings::from([("N".into(), 2), ("H".into(), 3), ("W".into(), 2)]);
    let case = case();
    let [x, w, b] = [case.data(), case.weights(), case.bias()].map(|tensor| ValueType::of(&tensor));
    let symbolic = ValueType {
        dtype: Some(DType::I64),
        shape: Some(vec![Dim::symbol("N"), 4.into(), Dim::symbol("H"), Dim::symbol("W")]),
    };
    let geometry = case.geometry();
    let (insert, _) = ZeroInsert::from_geometry(&geometry, Epilogue::default()).expect("short");
    let strided = |padding| ConvTranspose {
        strides: vec![2, 3],
        dilations: vec![1, 2],
        group: 2,
        output_padding: vec![1, 0],
        ..conv_transpose(padding)
    };
    let ops: Vec<(Op, bool)> = vec![
        (ConvTranspose::from_geometry(&geometry, Epilogue::default()).into(), true),
        (strided(Padding::SameUpper).into(), true),
        (strided(Padding::Valid).into(), true),
        (ConvTranspose { output_shape: vec![5, 7], ..strided(Padding::none()) }.into(), true),
        (PhaseConv::from_geometry(&geometry).into(), true),
        (ColumnGemm::from_geometry(&geometry).into(), true),
        (insert.into(), false),
    ];
    for (op, weighted) in ops {
        let inputs = |x| if weighted { vec![Some(x), Some(&w)] } else { vec![Some(x)] };
        let known = op.infer(&infos(&inputs(&x)), 1).expect("well-formed").remove(0);
        let found = op.infer(&infos(&inputs(&symbolic)), 1).expect("well-formed").remove(0);
        let bound: Vec<Dim> =
            found.shape.expect("ranked").iter().map(|dim| dim.bind(&numbers).expect("small")).collect();
        assert_eq!(Some(bound), known.shape, "{op:?}");
        assert_eq!(found.dtype, Some(DType::I64));
    }
    let overlap = OverlapAdd::from_geometry(&geometry, Epilogue::default());
    let columns =
        ValueType { dtype: Some(DType::I64), shape: Some(vec![Dim::symbol("N"), 72.into(), 6.into()]) };
    let ty = infer(&overlap, &[Some(&columns), Some(&b)]).expect("well-formed");
    assert_eq!(ty.shape.expect("ranked")[..2], [Dim::symbol("N"), 6.into()]);

    for padding in [Padding::SameUpper, Padding::Valid, Padding::explicit(vec![1, -1], vec![2, 3])] {
        let conv = Conv { strides: vec![2, 3], group: 2, ..conv(padding) };
        let w = ValueType::new(DType::I64, [6usize, 2, 2, 1]);
        let known = infer(&conv, &[Some(&x), Some(&w)]).expect("well-formed");
        let found = infer(&conv, &[Some(&symbolic), Some(&w)]).expect("well-formed");
        let bound: Vec<Dim> =
            found.shape.expect("ranked").iter().map(|dim| dim.bind(&numbers).expect("small")).collect();
        assert_eq!(Some(bound), known.shape, "{conv:?}");
    }
}

fn infos<'a>(types: &[Option<&'a ValueType>]) -> Vec<Option<InputInfo<'a>>> {
    types.iter().map(|ty| ty.map(|ty| InputInfo { ty, constant: None, extents: None })).collect()
}

#[test]
fn what_is_unknown_stays_unknown() {
    let (x, w) = (ValueType::unranked(DType::F32), ValueType::new(DType::F32, [4usize, 3, 2]));
    let ty = infer(&conv_transpose(Padding::none()), &[Some(&x), Some(&w)]).expect("nothing is wrong");
    assert_eq!(ty.to_string(), "f32[?, 3, ?]");
    let ty = infer(&conv(Padding::none()), &[Some(&x), Some(&x)]).expect("nothing is wrong");
    assert_eq!(ty, x);
    let kernel = Conv { kernel_shape: vec![2, 2], ..conv(Padding::none()) };
    let image = ValueType::new(DType::F32, [1usize, 4, 6, 6]);
    let ty = infer(&kernel, &[Some(&image), Some(&x)]).expect("nothing is wrong");
    assert_eq!(ty.to_string(), "f32[1, ?, 5, 5]");
}

#[test]
fn misfits_are_named() {
    let shapes = |shapes: &[&[usize]]| -> Vec<ValueType> {
        shapes.iter().map(|shape| ValueType::new(DType::F32, shape.iter().copied())).collect()
    };
    let error = |op: &dyn Operator, types: &[&[usize]]| {
        let types = shapes(types);
        infer(op, &types.iter().map(Some).collect::<Vec<_>>()).expect_err("a misfit").to_string()
    };
    let prelu = Epilogue { steps: vec![EpilogueStep::PRelu] };
    let (c, t) = (conv(Padding::none()), conv_transpose(Padding::none()));
    let cases: Vec<(String, &str)> = vec![
        (error(&c, &[&[1, 3, 8]]), "input 1 (W): is required"),
        (error(&c, &[&[1, 3], &[1, 3]]), "input 0 (X): expected [N, C, ..]"),
        (error(&c, &[&[1, 3, 8], &[1, 3, 1, 1]]), "input 1 (W): expected 3 axes"),
        (error(&c, &[&[1, 3, 8], &[1, 2, 1]]), "input 1 (W): expected"),
        (error(&c, &[&[1, 3, 8], &[1, 3, 9]]), "reaches over 9"),
        (error(&c, &[&[1, 3, 8], &[2, 3, 1], &[3]]), "input 2 (B): expected shape [2]"),
        (error(&c, &[&[1, 3, 8], &[2, 3, 1], &[2], &[2]]), "at most 3"),
        (error(&Conv { group: 2, ..c.clone() }, &[&[1, 3, 8], &[2, 1, 1]]), "input 1 (W)"),
        (error(&Conv { strides: vec![2, 2], ..c.clone() }, &[&[1, 3, 8], &[2, 3, 1]]), "`strides`"),
        (error(&Conv { kernel_shape: vec![2], ..c.clone() }, &[&[1, 3, 8], &[2, 3, 1]]), "`kernel_shape`"),
        (error(&t, &[&[1, 3, 8], &[4, 2, 1]]), "input 1 (W): expected [3, Cout/group, ..]"),
        (error(&ConvTranspose { group: 2, ..t.clone() }, &[&[1, 3, 8], &[3, 2, 1]]), "`group`"),
        (
            error(&ConvTranspose { output_shape: vec![2, 9], ..t.clone() }, &[&[1, 1, 8], &[1, 1, 1]]),
            "`output_shape`",
        ),
        (
            error(&ConvTranspose { output_shape: vec![1, 2, 8], ..t.clone() }, &[&[1, 1, 8], &[1, 1, 1]]),
            "`output_shape`",
        ),
        (
            error(&Conv { epilogue: prelu.clone(), ..c.clone() }, &[&[1, 3, 8], &[2, 3, 1], &[2]]),
            "input 3 (epilogue operand): is required",
        ),
        (
            error(&Conv { epilogue: prelu, ..c }, &[&[1, 3, 8], &[2, 3, 1], &[2], &[2]]),
            "input 3 (epilogue operand): expected one number, or one a channel",
        ),
        (
            error(
                &Interleave { strides: vec![2], output: vec![5], epilogue: Epilogue::default() },
                &[&[1, 3, 3]],
            ),
            "multiple of 2 channels",
        ),
        (
            error(
                &Interleave { strides: vec![2], output: vec![5], epilogue: Epilogue::default() },
                &[&[1, 4, 2]],
            ),
            "input 0 (P): expected shape",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
    let (x, w) = (ValueType::new(DType::F32, [1usize, 1, 1]), ValueType::new(DType::F64, [1usize, 1, 1]));
    assert!(infer(&t, &[Some(&x), Some(&w)]).is_err());
}
