//! Matrix products and what runs along rows of them: softmax and normalisations.

use crate::support::{Case, Input, op, seeded};
use tconvc_ir::{Attributes, Op, Tensor};

fn case(op: Op, inputs: Vec<Input>, tolerance: f64) -> Case {
    Case { op, inputs, outputs: 1, tolerance, native: true }
}

const PRODUCTS: [(&[usize], &[usize]); 19] = [
    // Few rows and many columns: sums, right side and splat have to fit into the registers.
    (&[2, 64], &[64, 192]),
    (&[1, 3, 1, 192], &[192, 64]),
    (&[4, 9], &[9, 100]),
    (&[5, 9], &[9, 100]),
    (&[6, 9], &[9, 100]),
    (&[7, 9], &[9, 21]),
    (&[12, 64], &[64, 48]),
    (&[61, 33], &[33, 5]),
    (&[1, 100], &[100, 130]),
    (&[2, 10], &[10, 1]),
    (&[3, 4, 5, 6], &[3, 4, 6, 17]),
    (&[2, 3, 5, 7], &[7, 19]),
    (&[2, 1, 5, 7], &[3, 7, 9]),
    (&[4, 8], &[2, 8, 16]),
    (&[5], &[5, 8]),
    (&[3, 5], &[5]),
    (&[5], &[5]),
    (&[2, 0], &[0, 3]),
    (&[100, 3], &[3, 40]),
];

#[test]
fn products() {
    for (a, b) in PRODUCTS {
        let matmul = op("MatMul", Attributes::new());
        let (left, right) = (seeded(a, 1), seeded(b, 2));
        let constant = vec![Input::Given(left.clone()), Input::Constant(right.clone())];
        case(matmul.clone(), constant, 1e-5).check();
        case(matmul, vec![Input::Given(left), Input::Given(right)], 1e-5).check();
    }
}

#[test]
fn general_products() {
    let (m, k, n) = (11, 13, 19);
    for (trans_a, trans_b) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let a = seeded(&(if trans_a == 1 { [k, m] } else { [m, k] }), 1);
        let b = seeded(&(if trans_b == 1 { [n, k] } else { [k, n] }), 2);
        for c in [None, Some(&[][..]), Some(&[n][..]), Some(&[m, 1]), Some(&[m, n]), Some(&[1, 1])] {
            for (alpha, beta) in [(1.0f32, 1.0f32), (0.5, -2.0)] {
                let attributes = Attributes::new()
                    .with("transA", trans_a)
                    .with("transB", trans_b)
                    .with("alpha", alpha)
                    .with("beta", beta);
                let gemm = op("Gemm", attributes);
                let mut inputs = vec![Input::Given(a.clone()), Input::Constant(b.clone())];
                inputs.extend(c.map(|shape| Input::Given(seeded(shape, 3))));
                case(gemm.clone(), inputs, 1e-5).check();
                if c.is_none() {
                    let inputs = vec![Input::Given(a.clone()), Input::Given(b.clone())];
                    Case { native: trans_b == 0, ..case(gemm, inputs, 1e-5) }.check();
                }
            }
        }
    }
}

const ROWS: [(&[usize], i64); 8] = [
    (&[3, 10], -1),
    (&[2, 3, 4], 1),
    (&[2, 64], 1),
    (&[5, 1], 1),
    (&[2, 7, 33], 1),
    (&[2, 7, 3, 11], 0),
    (&[40, 133], -1),
    (&[1, 8, 1], 1),
];

#[test]
fn softmaxes() {
    for (shape, axis) in ROWS {
        for name in ["Softmax", "LogSoftmax"] {
            let softmax = op(name, Attributes::new().with("axis", axis));
            case(softmax, vec![Input::Given(seeded(shape, 4))], 1e-6).check();
        }
    }
    let large = Tensor::from_vec([2, 9], (0..18).map(|i| i as f32 * 100.0 - 900.0).collect()).unwrap();
    case(op("Softmax", Attributes::new()), vec![Input::Given(large)], 1e-6).check();
    let mut broken = vec![1f32; 18];
    broken[3] = f32::NAN;
    broken[12] = f32::NEG_INFINITY;
    let broken = Tensor::from_vec([2, 9], broken).unwrap();
    case(op("Softmax", Attributes::new()), vec![Input::Given(broken)], 1e-6).check();
    let hard = case(op("Hardmax", Attributes::new()), vec![Input::Given(seeded(&[2, 5], 1))], 1e-6);
    Case { native: false, ..hard }.check();
}

#[test]
fn normalisations_by_channel() {
    for shape in [&[2usize, 4, 5, 7][..], &[1, 6, 40], &[3, 2, 1, 1], &[1, 8, 3, 3, 3]] {
        let channels = shape[1];
        let inputs = || {
            vec![
                Input::Given(seeded(shape, 5)),
                Input::Constant(seeded(&[channels], 6)),
                Input::Given(seeded(&[channels], 7)),
            ]
        };
        let instance = op("InstanceNormalization", Attributes::new().with("epsilon", 1e-2f32));
        case(instance, inputs(), 1e-5).check();
        for groups in [1i64, 2] {
            let attributes = Attributes::new().with("num_groups", groups).with("epsilon", 1e-2f32);
            case(op("GroupNormalization", attributes), inputs(), 1e-5).check();
        }
    }
}

#[test]
fn normalisations_by_element() {
    for (shape, axis, inner) in
        [(&[3usize, 5, 21][..], -1i64, &[21usize][..]), (&[4, 3, 6], 1, &[3, 6]), (&[2, 100], 1, &[100])]
    {
        for bias in [false, true] {
            let attributes = Attributes::new().with("axis", axis).with("epsilon", 1e-2f32);
            let mut inputs = vec![Input::Given(seeded(shape, 5)), Input::Constant(seeded(inner, 6))];
            if bias {
                inputs.push(Input::Constant(seeded(inner, 7)));
            }
            case(op("LayerNormalization", attributes.clone()), inputs, 1e-5).check();
            let inputs = vec![Input::Given(seeded(shape, 5)), Input::Given(seeded(inner, 6))];
            case(op("RMSNormalization", attributes), inputs, 1e-5).check();
        }
    }
}
