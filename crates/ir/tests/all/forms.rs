//! Proof by exhaustion, in exact integers, that the three forms of a transposed convolution are what they say: on every
//! small geometry each equals the definition and the transposed matrix of a convolution.

use crate::common::{self, AxisNumbers, Case, eval};
use std::ops::RangeInclusive;
use tconvc_ir::Tensor;
use tconvc_ir::ops::{
    ColumnGemm, Conv, ConvTranspose, Epilogue, Interleave, OverlapAdd, Padding, PhaseConv, ZeroInsert,
};

/// Every combination of the numbers of an axis that leaves some output.
fn axes(
    input: RangeInclusive<usize>,
    kernel: RangeInclusive<usize>,
    stride: RangeInclusive<usize>,
    dilation: RangeInclusive<usize>,
    begin: RangeInclusive<i64>,
    end: RangeInclusive<i64>,
) -> Vec<AxisNumbers> {
    let mut axes = vec![];
    for i in input {
        for k in kernel.clone() {
            for s in stride.clone() {
                for d in dilation.clone() {
                    for b in begin.clone() {
                        for e in end.clone() {
                            if common::output(&(i, k, s, d, b, e)) >= 1 {
                                axes.push((i, k, s, d, b, e));
                            }
                        }
                    }
                }
            }
        }
    }
    axes
}

/// Evaluates every form of the case and compares it with the definition and with the matrix.
fn check(case: &Case) {
    let geometry = case.geometry();
    let (x, w, b) = (case.data(), case.weights(), case.bias());
    let expected = case.transposed_matrix_product(&x, &w, &b);
    let same = |what: &str, found: &Tensor| assert!(*found == expected, "{what} differs for {case:?}");

    let definition = ConvTranspose::from_geometry(&geometry, Epilogue::default());
    same("the definition", &eval(&definition, &[&x, &w, &b]));

    let (insert, conv) = ZeroInsert::from_geometry(&geometry, Epilogue::default()).expect("short sequence");
    same("zero-insertion", &eval(&conv, &[&eval(&insert, &[&x]), &case.flipped::<i64>(&w), &b]));

    let phases = PhaseConv::from_geometry(&geometry);
    let interleave = Interleave::from_geometry(&geometry, Epilogue::default());
    assert_eq!(phases.geometry(x.shape(), w.shape()).as_ref(), Ok(&geometry));
    same("sub-pixel", &eval(&interleave, &[&eval(&phases, &[&x, &w, &b])]));

    let columns = ColumnGemm::from_geometry(&geometry);
    let overlap = OverlapAdd::from_geometry(&geometry, Epilogue::default());
    assert_eq!(overlap.geometry(&columns, x.shape(), w.shape()).as_ref(), Ok(&geometry));
    same("scatter", &eval(&overlap, &[&eval(&columns, &[&x, &w]), &b]));
}

#[test]
fn one_axis() {
    let channels = [[1, 1, 1, 1], [2, 1, 2, 3], [1, 2, 4, 2], [1, 3, 3, 3]];
    let axes = axes(1..=4, 1..=4, 1..=4, 1..=3, -2..=3, -3..=3);
    assert!(axes.len() > 7000);
    // Batches, groups and depthwise in turn: that all of them work together is a matter of few geometries.
    for (axis, [batch, groups, inputs, outputs]) in axes.into_iter().zip(channels.into_iter().cycle()) {
        check(&Case { batch, groups, inputs, outputs, axes: vec![axis] });
    }
    for axis in VARIED {
        for [batch, groups, inputs, outputs] in channels {
            check(&Case { batch, groups, inputs, outputs, axes: vec![axis] });
        }
    }
}

#[test]
fn two_axes() {
    let small = axes(1..=2, 1..=2, 1..=2, 1..=1, -1..=1, -1..=1);
    for &a in &small {
        for &b in &small {
            check(&Case { batch: 1, groups: 1, inputs: 2, outputs: 1, axes: vec![a, b] });
        }
    }
    for a in VARIED {
        for b in VARIED {
            check(&Case { batch: 2, groups: 2, inputs: 2, outputs: 4, axes: vec![a, b] });
        }
    }
}

#[test]
fn three_axes() {
    for a in VARIED {
        for b in VARIED {
            for c in VARIED {
                check(&Case { batch: 1, groups: 1, inputs: 1, outputs: 1, axes: vec![a, b, c] });
            }
        }
    }
    let [.., a, b, c] = VARIED;
    check(&Case { batch: 2, groups: 2, inputs: 4, outputs: 2, axes: vec![a, b, c] });
}

/// Axes that differ in what makes a geometry special.
const VARIED: [AxisNumbers; 8] = [
    // one input, one tap, nothing else
    (1, 1, 1, 1, 0, 0),
    // stride larger than the kernel: phases without taps
    (2, 1, 3, 1, 0, -2),
    // the common one, cropped at both sides
    (3, 4, 2, 1, 1, 1),
    // dilation that shares a factor with the stride: half of the phases have no taps
    (2, 2, 2, 2, 0, 1),
    // dilation without a common factor, uneven pads
    (2, 3, 2, 3, 2, 0),
    // an output that begins before every tap
    (2, 2, 1, 1, -2, 1),
    // an extent that the stride does not divide, past every tap
    (2, 3, 3, 1, 1, -3),
    // all inputs but the last cropped
    (3, 2, 2, 1, 4, 0),
];

/// The convolution's matrix, made of the convolution of every unit vector, is what the transposed convolution transposes.
#[test]
fn the_matrix_is_that_of_conv() {
    for axis in axes(1..=3, 1..=3, 1..=3, 1..=2, -2..=2, -2..=2) {
        let case = Case { batch: 1, groups: 2, inputs: 2, outputs: 4, axes: vec![axis] };
        let (_, _, stride, dilation, begin, end) = axis;
        let conv = Conv {
            kernel_shape: vec![],
            strides: vec![stride],
            dilations: vec![dilation],
            group: case.groups,
            padding: Padding::explicit(vec![begin], vec![end]),
            epilogue: Epilogue::default(),
            exact: false,
        };
        let extent = common::output(&axis) as usize;
        let columns = case.outputs * extent;
        let unit = (0..columns * columns).map(|i| i64::from(i / columns == i % columns)).collect();
        let units = Tensor::from_vec([columns, case.outputs, extent], unit).expect("square");
        let images = eval(&conv, &[&units, &case.weights()]);
        let images = images.elements::<i64>().expect("i64");
        let matrix = case.convolution_matrix(&case.weights());
        for (column, image) in images.chunks_exact(matrix.len()).enumerate() {
            let expected: Vec<i64> = matrix.iter().map(|row| row[column]).collect();
            assert_eq!(image, expected, "column {column} of {case:?}");
        }
    }
}

/// The picture that explains transposed convolution: 3x3 over 4x4 is a 4x16 matrix; its transpose takes 2x2 back to 4x4,
/// and one value reaches nine.
#[test]
fn the_classical_picture() {
    let axis = (2, 3, 1, 1, 0, 0);
    let case = Case { batch: 1, groups: 1, inputs: 1, outputs: 1, axes: vec![axis, axis] };
    let w = Tensor::from_vec([1, 1, 3, 3], (1..=9i64).collect::<Vec<_>>()).expect("nine");
    let matrix = case.convolution_matrix(&w);
    assert_eq!((matrix.len(), matrix[0].len()), (4, 16));
    assert_eq!(matrix[0], [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]);
    assert_eq!(matrix[3], [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]);

    let op = ConvTranspose::from_geometry(&case.geometry(), Epilogue::default());
    let one = Tensor::from_vec([1, 1, 2, 2], vec![0i64, 0, 0, 1]).expect("four");
    let reached = eval(&op, &[&one, &w]);
    assert_eq!(reached.shape(), [1, 1, 4, 4]);
    assert_eq!(reached.elements::<i64>().expect("i64").as_ref(), matrix[3]);
    check(&case);
}

/// The worked example of docs/geometry.md.
#[test]
fn the_documented_example() {
    let tensor = |shape: &[usize], values: &[i64]| Tensor::from_vec(shape, values.to_vec()).expect("full");
    let case = Case { batch: 1, groups: 1, inputs: 1, outputs: 1, axes: vec![(3, 3, 2, 1, 1, 1)] };
    let (x, w) = (tensor(&[1, 1, 3], &[1, 10, 100]), tensor(&[1, 1, 3], &[1, 2, 3]));
    let geometry = case.geometry();
    let expected = tensor(&[1, 1, 5], &[2, 13, 20, 130, 200]);
    assert_eq!(eval(&ConvTranspose::from_geometry(&geometry, Epilogue::default()), &[&x, &w]), expected);

    let phases = eval(&PhaseConv::from_geometry(&geometry), &[&x, &w]);
    assert_eq!(phases, tensor(&[1, 2, 3], &[2, 20, 200, 13, 130, 300]));
    assert_eq!(eval(&Interleave::from_geometry(&geometry, Epilogue::default()), &[&phases]), expected);

    let (insert, conv) = ZeroInsert::from_geometry(&geometry, Epilogue::default()).expect("short sequence");
    assert_eq!(eval(&insert, &[&x]), tensor(&[1, 1, 5], &[1, 0, 10, 0, 100]));
    assert_eq!(conv.padding, Padding::Explicit { begin: vec![1], end: vec![1] });

    let columns = eval(&ColumnGemm::from_geometry(&geometry), &[&x, &w]);
    assert_eq!(columns, tensor(&[1, 3, 3], &[1, 10, 100, 2, 20, 200, 3, 30, 300]));

    let macs = [geometry.phase_macs(), geometry.scatter_macs(), geometry.zero_insertion_macs()];
    assert_eq!(macs, [7, 9, 15]);
}
