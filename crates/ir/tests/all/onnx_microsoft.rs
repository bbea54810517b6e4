//! Operators of ONNX Runtime's own domain become ONNX's: values from the definition, and errors that name what is in the way.
//! `tests/python/microsoft_cases.py` compares them all with the runtime.

use tconvc_ir::{Tensor, infer, interp, onnx};
use tconvc_testing::onnx_build::*;

const CONSTANT_U8: u64 = 2;

/// A model of one node on `x`, with these constants behind it.
fn model(op: &str, x: &[&str], constants: Vec<(&str, Message)>, attributes: &[Message]) -> Message {
    let names: Vec<&str> = std::iter::once("x").chain(constants.iter().map(|(name, _)| *name)).collect();
    let node = [named_node(op, op, &names, &["y"], attributes), field(7, "com.microsoft")].concat();
    Graph {
        inputs: vec![value("x", x)],
        outputs: vec![untyped("y")],
        initializers: constants.into_iter().map(|(_, tensor)| tensor).collect(),
        nodes: vec![node],
    }
    .model(17)
}

fn floats_of(name: &'static str, dims: &[i64], values: &[f32]) -> (&'static str, Message) {
    (name, floats(name, dims, values))
}

fn run(model: &[u8], shape: &[usize], values: &[f32]) -> Vec<f64> {
    let mut graph = onnx::read_bytes(model).unwrap_or_else(|error| panic!("{error}"));
    infer::infer(&mut graph).unwrap_or_else(|error| panic!("{error}"));
    // What is exported is ONNX's own, and reads back.
    onnx::write(&graph).and_then(|bytes| onnx::read_bytes(&bytes)).unwrap_or_else(|error| panic!("{error}"));
    let x = Tensor::from_vec(shape, values.to_vec()).unwrap();
    interp::run(&graph, &[("x", x)]).unwrap_or_else(|error| panic!("{error}"))[0].1.to_f64s().unwrap()
}

fn refused(model: &[u8], with: &str) {
    let error = onnx::read_bytes(model).map(|_| ()).expect_err(with).to_string();
    assert!(error.contains(with), "expected `{with}` in: {error}");
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?} is not {expected:?}");
    }
}

#[test]
fn convolutions_with_what_follows_them() {
    let weights = || vec![floats_of("w", &[1, 1, 1], &[2.0]), floats_of("b", &[1], &[1.0])];
    let relu = [text_attribute("activation", "Relu")];
    let model_of =
        |weights, attributes: &[Message]| model("FusedConv", &["1", "1", "3"], weights, attributes);
    assert_eq!(run(&model_of(weights(), &relu), &[1, 1, 3], &[-3.0, 0.0, 2.0]), [0.0, 1.0, 5.0]);
    let clip = [text_attribute("activation", "Clip"), floats_attribute("activation_params", &[-1.0, 2.0])];
    assert_eq!(run(&model_of(weights(), &clip), &[1, 1, 3], &[-3.0, 0.0, 2.0]), [-1.0, 1.0, 2.0]);
    let mut with_sum = weights();
    with_sum.push(floats_of("z", &[1, 1, 3], &[10.0, -10.0, 0.0]));
    assert_eq!(run(&model_of(with_sum, &relu), &[1, 1, 3], &[-3.0, 0.0, 2.0]), [5.0, 0.0, 5.0]);
    refused(&model_of(weights(), &[text_attribute("activation", "Swirl")]), "`Swirl`; accepted are Relu");
    refused(&model_of(weights(), &[int_attribute("turns", 3)]), "`turns`: is not known here");
}

#[test]
fn products_are_turned_and_scaled() {
    let b = || vec![floats_of("b", &[1, 2], &[3.0, 4.0])];
    let attributes = [int_attribute("transB", 1), float_attribute("alpha", 0.5)];
    assert_eq!(
        run(&model("FusedMatMul", &["2", "2"], b(), &attributes), &[2, 2], &[1.0, 2.0, 0.0, 2.0]),
        [5.5, 4.0]
    );
    let a = [int_attribute("transA", 1)];
    let b = vec![floats_of("b", &[2, 1], &[3.0, 4.0])];
    assert_eq!(run(&model("FusedMatMul", &["2", "2"], b, &a), &[2, 2], &[1.0, 2.0, 0.0, 2.0]), [3.0, 14.0]);
    let unranked = Graph {
        inputs: vec![untyped("x")],
        outputs: vec![untyped("y")],
        initializers: vec![],
        nodes: vec![
            [
                named_node("p", "FusedMatMul", &["x", "x"], &["y"], &[int_attribute("transA", 1)]),
                field(7, "com.microsoft"),
            ]
            .concat(),
        ],
    };
    refused(&unranked.model(17), "node `p` (FusedMatMul)");
}

#[test]
fn activations_and_sums_are_normalised() {
    let bias = || vec![floats_of("b", &[2], &[1.0, -1.0])];
    let erf = |x: f64| x * 0.5 * (1.0 + libm_erf(x / 2f64.sqrt()));
    close(&run(&model("BiasGelu", &["1", "2"], bias(), &[]), &[1, 2], &[0.0, 0.0]), &[erf(1.0), erf(-1.0)]);
    let swish = 2.0 / (1.0 + (-1.702f64 * 2.0).exp());
    close(&run(&model("QuickGelu", &["1"], vec![], &[]), &[1], &[2.0]), &[swish]);
    // The sum is [2, -2]: it has no mean, and a variance of 4.
    let skip = vec![floats_of("s", &[1, 2], &[1.0, -1.0]), floats_of("g", &[2], &[3.0, 5.0])];
    close(
        &run(&model("SkipLayerNormalization", &["1", "2"], skip, &[]), &[1, 2], &[1.0, -1.0]),
        &[3.0, -5.0],
    );
    let skip = vec![floats_of("s", &[1, 2], &[2.0, 2.0]), floats_of("g", &[2], &[3.0, 5.0])];
    let root = (5f64 / 2.0 + 1e-5).sqrt();
    close(
        &run(&model("SkipSimplifiedLayerNormalization", &["1", "2"], skip, &[]), &[1, 2], &[-1.0, 0.0]),
        &[3.0 / root, 10.0 / root],
    );
}

/// By its series: enough for tests.
fn libm_erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..40 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// Two rows of K = 4 in blocks of two: codes 8 + k with scales that double.
#[test]
fn weights_of_few_bits_are_matrices() {
    let bytes = |name: &str, dims: &[i64], bytes: &[u8]| {
        [tensor_head(name, CONSTANT_U8, dims), field(9, bytes)].concat()
    };
    let sizes = [int_attribute("K", 4), int_attribute("N", 2), int_attribute("block_size", 2)];
    let parts = |codes: &[u8]| {
        vec![("w", bytes("w", &[2, 2, 1], codes)), floats_of("s", &[4], &[1.0, 2.0, 10.0, 20.0])]
    };
    let product = model("MatMulNBits", &["1", "4"], parts(&[0xa9, 0x79, 0x88, 0x0f]), &sizes);
    // Rows [1, 2 | 2 * 1, 2 * -1] and [0, 0 | 20 * 7, 20 * -8].
    assert_eq!(
        run(&product, &[1, 4], &[1.0, 10.0, 100.0, 1000.0]),
        [-1779.0, 140.0 * 100.0 - 160.0 * 1000.0]
    );
    let mut zeros = parts(&[0xa9, 0x79, 0x88, 0x0f]);
    zeros.push(("z", bytes("z", &[2], &[0x98, 0x08])));
    let product = model("MatMulNBits", &["1", "4"], zeros, &sizes);
    // Zero points 8, 9 and 8, 0.
    assert_eq!(run(&product, &[1, 4], &[1.0, 10.0, 100.0, 1000.0]), [21.0 - 4000.0, 300.0 * 100.0]);
    refused(&model("MatMulNBits", &["1", "4"], parts(&[1, 2, 3]), &sizes), "");
    refused(&model("MatMulNBits", &["1", "4"], vec![], &sizes), "input 1 (B): is required");
    let sizes = [int_attribute("K", 4), int_attribute("N", 2)];
    refused(&model("MatMulNBits", &["1", "4"], parts(&[0; 4]), &sizes), "`block_size`: is required");
}

#[test]
fn attention_that_cannot_be_expressed_is_named() {
    let weights = || vec![floats_of("w", &[2, 6], &[0.5; 12])];
    refused(&model("Attention", &["1", "3", "2"], weights(), &[]), "`num_heads`: is required");
    let rotary = [int_attribute("num_heads", 1), int_attribute("do_rotary", 1)];
    refused(
        &model("Attention", &["1", "3", "2"], weights(), &rotary),
        "`do_rotary`: 1 is not supported, accepted is 0",
    );
    refused(
        &model("MultiHeadAttention", &["1", "3", "2"], vec![], &[int_attribute("num_heads", 1)]),
        "input 1 (key) is absent",
    );
    // All values alike: whatever the weights of the softmax are, they are the result.
    let y = run(
        &model("Attention", &["1", "3", "2"], weights(), &[int_attribute("num_heads", 1)]),
        &[1, 3, 2],
        &[1.0; 6],
    );
    close(&y, &[1.0; 6]);
}
