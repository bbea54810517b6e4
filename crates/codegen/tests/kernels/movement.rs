//! Copies of all shapes: every word must be the right one.

use crate::support::{Case, Input, op, seeded};
use tconvc_ir::{Attributes, DType, Tensor};

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64s(values)
}

#[test]
fn transposes() {
    let shapes: [(&[usize], &[i64]); 12] = [
        (&[2, 3, 5, 7], &[0, 2, 3, 1]),
        (&[2, 5, 7, 3], &[0, 3, 1, 2]),
        (&[1, 19, 4, 9], &[0, 2, 3, 1]),
        (&[1, 6, 11, 21], &[0, 3, 1, 2]),
        (&[17, 33], &[1, 0]),
        (&[8, 16], &[1, 0]),
        (&[2, 9], &[1, 0]),
        (&[4, 3, 2, 5, 6], &[4, 2, 0, 3, 1]),
        (&[3, 4, 10], &[1, 0, 2]),
        (&[3, 1, 10], &[2, 1, 0]),
        (&[40, 4], &[1, 0]),
        (&[5], &[0]),
    ];
    for (seed, (shape, perm)) in shapes.into_iter().enumerate() {
        let transpose = op("Transpose", Attributes::new().with("perm", perm));
        Case::new(transpose.clone(), seeded(shape, seed as u64), vec![]).check();
        let wide = Tensor::seeded(DType::I64, shape, 3).unwrap();
        Case::new(transpose, wide, vec![]).check();
    }
}

#[test]
fn slices() {
    type Numbers<'a> = (&'a [usize], &'a [i64], &'a [i64], &'a [i64], &'a [i64]);
    let cases: [Numbers<'_>; 8] = [
        (&[2, 3, 9, 21], &[1, 2], &[8, 20], &[2, 3], &[1, 1]),
        (&[2, 3, 9, 21], &[0, 1], &[9, 21], &[2, 3], &[2, 2]),
        (&[4, 33], &[-1], &[-100], &[1], &[-1]),
        (&[4, 33], &[-1, -1], &[-100, -100], &[0, 1], &[-2, -3]),
        (&[5, 40], &[0], &[3], &[0], &[1]),
        (&[3, 2, 2], &[1], &[2], &[2], &[1]),
        (&[70000], &[3], &[69990], &[0], &[1]),
        (&[4, 4], &[2], &[2], &[0], &[1]),
    ];
    for (shape, starts, ends, axes, steps) in cases {
        let constants = [starts, ends, axes, steps].map(ints).to_vec();
        Case::new(op("Slice", Attributes::new()), seeded(shape, 1), constants).check();
    }
}

#[test]
fn concatenations() {
    let cases: [(i64, &[&[usize]]); 6] = [
        (1, &[&[2, 3, 4, 5], &[2, 1, 4, 5], &[2, 6, 4, 5]]),
        (-1, &[&[3, 4, 1], &[3, 4, 7], &[3, 4, 1]]),
        (0, &[&[2, 9], &[1, 9], &[0, 9]]),
        (2, &[&[2, 3, 8, 8], &[2, 3, 1, 8]]),
        (0, &[&[5]]),
        (1, &[&[1, 40000], &[1, 33000]]),
    ];
    for (axis, shapes) in cases {
        let inputs =
            shapes.iter().enumerate().map(|(i, shape)| Input::Given(seeded(shape, i as u64))).collect();
        let op = op("Concat", Attributes::new().with("axis", axis));
        Case { op, inputs, outputs: 1, tolerance: 0.0, native: true }.check();
    }
}

#[test]
fn splits() {
    for (axis, sizes, shape) in
        [(1, &[1i64, 4, 2][..], &[2usize, 7, 3, 5][..]), (-1, &[3, 6], &[4, 9]), (0, &[2, 0, 1], &[3, 11])]
    {
        let op = op("Split", Attributes::new().with("axis", axis));
        let inputs = vec![Input::Given(seeded(shape, 5)), Input::Constant(ints(sizes))];
        Case { op, inputs, outputs: sizes.len(), tolerance: 0.0, native: true }.check();
    }
}

#[test]
fn pads() {
    for mode in ["constant", "edge", "reflect", "wrap"] {
        for (shape, pads) in [
            (&[2usize, 3, 6, 9][..], &[0i64, 0, 2, 3, 0, 0, 1, 4][..]),
            (&[1, 2, 5, 33], &[0, 1, 0, 2, 0, 0, 3, 0]),
            (&[3, 20], &[-1, -2, 4, 7]),
            (&[7], &[3, 5]),
            (&[2, 2, 2], &[1, 1, 1, 1, 1, 1]),
        ] {
            let pad = op("Pad", Attributes::new().with("mode", mode));
            let x = seeded(shape, 7);
            Case::new(pad.clone(), x.clone(), vec![ints(pads)]).check();
            if mode == "constant" {
                let fill = Tensor::scalar(2.5f32);
                Case::new(pad, x, vec![ints(pads), fill]).check();
            }
        }
    }
}

#[test]
fn repetitions_and_blocks() {
    for (shape, to) in [
        (&[3usize, 1, 5][..], &[2i64, 3, 4, 5][..]),
        (&[3, 4, 1], &[3, 4, 21]),
        (&[1, 1], &[6, 7]),
        (&[1, 9], &[5, 9]),
    ] {
        Case::new(op("Expand", Attributes::new()), seeded(shape, 1), vec![ints(to)]).check();
    }
    for (shape, repeats) in [(&[2usize, 5][..], &[3i64, 2][..]), (&[1, 3, 4], &[2, 1, 5]), (&[30], &[4])] {
        Case::new(op("Tile", Attributes::new()), seeded(shape, 1), vec![ints(repeats)]).check();
    }
    for (block, h, w) in [(2, 5, 17), (3, 4, 9), (4, 2, 3), (5, 3, 8), (2, 16, 32)] {
        for mode in ["DCR", "CRD"] {
            let attributes = Attributes::new().with("blocksize", block).with("mode", mode);
            let x = seeded(&[2, 3 * (block * block) as usize, h, w], 2);
            Case::new(op("DepthToSpace", attributes), x, vec![]).check();
        }
        let x = seeded(&[2, 3, h * block as usize, w * block as usize], 2);
        Case::new(op("SpaceToDepth", Attributes::new().with("blocksize", block)), x, vec![]).check();
    }
}

#[test]
fn gathers() {
    for (axis, indices, shape) in [
        (0, &[2i64, 0, -1, 1][..], &[4usize, 9][..]),
        (1, &[5, 5, 0], &[3, 6, 4]),
        (-1, &[3, 2, 1, 0, 7], &[2, 8]),
    ] {
        let gather = op("Gather", Attributes::new().with("axis", axis));
        Case::new(gather, seeded(shape, 4), vec![ints(indices)]).check();
    }
}
