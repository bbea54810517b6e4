//! Pooling and reductions.

use crate::support::{Case, op, seeded};
use tconvc_ir::{Attributes, Tensor};

/// Extents, kernel, strides, dilations, pads, ceil_mode.
type Geometry<'a> = (&'a [usize], &'a [i64], &'a [i64], &'a [i64], &'a [i64], i64);

const GEOMETRIES: [Geometry<'_>; 14] = [
    (&[2, 3, 8, 34], &[2, 2], &[2, 2], &[1, 1], &[0, 0, 0, 0], 0),
    (&[1, 2, 9, 35], &[2, 2], &[2, 2], &[1, 1], &[0, 0, 0, 0], 1),
    (&[1, 2, 12, 40], &[3, 3], &[2, 2], &[1, 1], &[1, 1, 1, 1], 0),
    (&[1, 3, 7, 19], &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1], 0),
    (&[2, 1, 11, 23], &[3, 2], &[1, 2], &[2, 3], &[2, 1, 0, 3], 0),
    (&[1, 1, 10, 31], &[5, 5], &[3, 3], &[1, 1], &[2, 2, 2, 2], 1),
    (&[1, 2, 6, 64], &[1, 4], &[1, 4], &[1, 1], &[0, 0, 0, 0], 0),
    (&[1, 2, 6, 61], &[3, 7], &[2, 5], &[1, 1], &[0, 3, 1, 2], 0),
    (&[3, 2, 29], &[4], &[2], &[1], &[1, 2], 1),
    (&[1, 2, 300], &[40], &[3], &[2], &[20, 10], 0),
    (&[1, 2, 5, 6, 17], &[2, 2, 2], &[2, 2, 2], &[1, 1, 1], &[0, 0, 0, 0, 0, 0], 0),
    (&[2, 1, 4, 7, 9], &[3, 2, 3], &[1, 2, 1], &[1, 2, 1], &[1, 1, 2, 0, 1, 0], 1),
    (&[1, 1, 1, 1], &[1, 1], &[1, 1], &[1, 1], &[0, 0, 0, 0], 0),
    (&[1, 1, 2, 3], &[2, 3], &[1, 1], &[1, 1], &[1, 2, 1, 2], 0),
];

fn attributes((_, kernel, strides, dilations, pads, ceil): Geometry<'_>) -> Attributes {
    Attributes::new()
        .with("kernel_shape", kernel)
        .with("strides", strides)
        .with("dilations", dilations)
        .with("pads", pads)
        .with("ceil_mode", ceil)
}

#[test]
fn windows() {
    for geometry in GEOMETRIES {
        let x = seeded(geometry.0, 11);
        Case::new(op("MaxPool", attributes(geometry)), x.clone(), vec![]).check();
        for include in [0, 1] {
            let attributes = attributes(geometry).with("count_include_pad", include);
            Case::new(op("AveragePool", attributes), x.clone(), vec![]).within(1e-6).check();
        }
    }
}

#[test]
fn same_pads() {
    for auto in ["SAME_UPPER", "SAME_LOWER"] {
        let attributes = Attributes::new()
            .with("kernel_shape", &[3i64, 3][..])
            .with("strides", &[2i64, 2][..])
            .with("auto_pad", auto);
        Case::new(op("MaxPool", attributes), seeded(&[1, 2, 7, 18], 1), vec![]).check();
    }
}

/// Elements that are no numbers are passed over, and so is a window of nothing else.
#[test]
fn maxima_pass_over_nan() {
    let mut data: Vec<f32> = (0..64).map(|i| (i * 29 % 31) as f32 - 40.0).collect();
    for i in [0, 1, 8, 9, 20, 33, 63] {
        data[i] = f32::NAN;
    }
    data[40] = f32::INFINITY;
    data[41] = f32::NEG_INFINITY;
    let x = Tensor::from_vec([1, 1, 8, 8], data).unwrap();
    for (kernel, stride) in [(2i64, 2i64), (3, 1)] {
        let attributes = Attributes::new()
            .with("kernel_shape", &[kernel, kernel][..])
            .with("strides", &[stride, stride][..]);
        Case::new(op("MaxPool", attributes), x.clone(), vec![]).check();
    }
    Case::new(op("GlobalMaxPool", Attributes::new()), x.clone(), vec![]).check();
    Case::new(op("ReduceMax", Attributes::new()), x.clone(), vec![]).within(1e-9).check();
    Case::new(op("ReduceMin", Attributes::new()), x, vec![]).within(1e-9).check();
}

#[test]
fn indices_are_interpreted() {
    let attributes = Attributes::new().with("kernel_shape", &[2i64, 2][..]);
    let case = Case::new(op("MaxPool", attributes), seeded(&[1, 1, 4, 4], 1), vec![]);
    Case { outputs: 2, native: false, ..case }.check();
}

#[test]
fn all_of_space() {
    for shape in [&[2usize, 3, 5, 7][..], &[1, 2, 64, 64], &[1, 1, 3], &[2, 2, 1, 1], &[1, 5, 2, 3, 9]] {
        let x = seeded(shape, 9);
        Case::new(op("GlobalMaxPool", Attributes::new()), x.clone(), vec![]).check();
        for name in ["GlobalAveragePool", "GlobalLpPool"] {
            Case::new(op(name, Attributes::new()), x.clone(), vec![]).within(1e-5).check();
        }
    }
}

#[test]
fn reductions() {
    let names = ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare"];
    for (shape, axes) in [
        (&[2usize, 3, 5, 7][..], &[2i64, 3][..]),
        (&[2, 3, 5, 37], &[1]),
        (&[4, 100], &[-1]),
        (&[19, 4], &[0]),
        (&[3, 70], &[0]),
        (&[2, 1, 6], &[1]),
        (&[2, 3], &[0, 1]),
        (&[33], &[0]),
    ] {
        for name in names {
            for keep in [0, 1] {
                let reduce = op(&format!("Reduce{name}"), Attributes::new().with("keepdims", keep));
                let axes = Tensor::from_i64s(axes);
                Case::new(reduce, seeded(shape, 6), vec![axes]).within(2e-6).check();
            }
        }
    }
    let apart = Tensor::from_i64s(&[0, 2]);
    let sum = op("ReduceSum", Attributes::new());
    Case { native: false, ..Case::new(sum, seeded(&[2, 3, 4], 1), vec![apart]) }.check();
}
