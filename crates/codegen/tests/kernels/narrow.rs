//! Movements of elements of one and two bytes, and casts, against the definition.

use crate::support::{Case, Input, op, seeded};
use std::sync::Arc;
use tconvc_ir::{Attributes, DType, Tensor};

/// Every integer of the element type in turn, or a pattern of it.
fn counted(dtype: DType, shape: &[usize]) -> Tensor {
    let bytes = dtype.bits() / 8 * shape.iter().product::<usize>();
    let data = (0..bytes).map(|i| (i * 37 + i / 251) as u8).collect::<Vec<u8>>();
    Tensor::from_shared(dtype, shape.to_vec(), Arc::new(data), 0).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64s(values)
}

const NARROW: [DType; 5] = [DType::U8, DType::I8, DType::I16, DType::U16, DType::F16];

#[test]
fn transposes() {
    for dtype in NARROW {
        for (shape, perm) in [
            (&[4usize, 28, 28][..], &[1i64, 2, 0][..]),
            (&[5, 7, 3], &[2, 0, 1]),
            (&[2, 3, 5, 8], &[0, 2, 3, 1]),
            (&[1, 3, 9, 11], &[3, 1, 2, 0]),
            (&[3, 40000], &[1, 0]),
            (&[6, 8], &[0, 1]),
        ] {
            let transpose = op("Transpose", Attributes::new().with("perm", perm.to_vec()));
            Case::new(transpose, counted(dtype, shape), vec![]).check();
        }
    }
}

#[test]
fn pads_and_slices() {
    for dtype in NARROW {
        for (shape, pads) in [
            (&[3usize, 28, 28][..], &[0i64, 0, 0, 1, 0, 0][..]),
            (&[2, 3, 6, 9], &[0, 0, 2, 3, 0, 0, 1, 4]),
            (&[3, 21], &[-1, -2, 4, 7]),
            (&[7], &[3, 5]),
        ] {
            for mode in ["constant", "edge", "reflect"] {
                let pad = op("Pad", Attributes::new().with("mode", mode));
                Case::new(pad.clone(), counted(dtype, shape), vec![ints(pads)]).check();
                if mode == "constant" {
                    let fill = Tensor::from_shared(
                        dtype,
                        vec![],
                        Arc::new(vec![0x5au8, 0x3c][..dtype.bits() / 8].to_vec()),
                        0,
                    );
                    Case::new(pad, counted(dtype, shape), vec![ints(pads), fill.unwrap()]).check();
                }
            }
        }
        for (starts, ends, steps) in
            [([1i64, 2], [5i64, 40], [1i64, 1]), ([0, 3], [6, 41], [2, 3]), ([5, 40], [0, 1], [-1, -2])]
        {
            let constants = vec![ints(&starts), ints(&ends), ints(&[0, 1]), ints(&steps)];
            Case::new(op("Slice", Attributes::new()), counted(dtype, &[6, 43]), constants).check();
        }
    }
}

#[test]
fn repetitions_gathers_and_blocks() {
    for dtype in NARROW {
        for (shape, repeats) in
            [(&[1usize, 28, 28][..], &[3i64, 1, 1][..]), (&[2, 5], &[3, 2]), (&[30], &[4])]
        {
            Case::new(op("Tile", Attributes::new()), counted(dtype, shape), vec![ints(repeats)]).check();
        }
        Case::new(op("Expand", Attributes::new()), counted(dtype, &[3, 1, 5]), vec![ints(&[2, 3, 4, 5])])
            .check();
        let gather = op("Gather", Attributes::new().with("axis", 1));
        Case::new(gather, counted(dtype, &[3, 6, 7]), vec![ints(&[5, 0, -2, 5])]).check();
        let blocks = op("DepthToSpace", Attributes::new().with("blocksize", 2));
        Case::new(blocks, counted(dtype, &[1, 8, 5, 9]), vec![]).check();
        Case::new(
            op("SpaceToDepth", Attributes::new().with("blocksize", 3)),
            counted(dtype, &[2, 1, 6, 9]),
            vec![],
        )
        .check();
    }
}

#[test]
fn joins_and_parts() {
    for dtype in NARROW {
        for (axis, shapes) in [
            (1, &[&[2usize, 3, 5][..], &[2, 1, 5], &[2, 4, 5]][..]),
            (0, &[&[3], &[70001], &[5]]),
            (-1, &[&[4, 1], &[4, 2]]),
        ] {
            let inputs = shapes.iter().map(|shape| Input::Given(counted(dtype, shape))).collect();
            let op = op("Concat", Attributes::new().with("axis", axis));
            Case { op, inputs, outputs: 1, tolerance: 0.0, native: true }.check();
        }
        let inputs = vec![Input::Given(counted(dtype, &[2, 7, 3])), Input::Constant(ints(&[1, 4, 2]))];
        let op = op("Split", Attributes::new().with("axis", 1));
        Case { op, inputs, outputs: 3, tolerance: 0.0, native: true }.check();
    }
}

#[test]
fn scatters_at_constant_places() {
    let places = |shape: &[usize], values: Vec<i64>| Tensor::from_vec(shape, values).unwrap();
    // A box, rows from the end, single elements out of order, and the same place twice.
    let block: Vec<i64> =
        (0..3).flat_map(|c| (1..3).flat_map(move |h| (2..6).flat_map(move |w| [c, h, w]))).collect();
    let cases = [
        (&[3usize, 5, 9][..], places(&[3, 2, 4, 3], block), &[3usize, 2, 4][..], true),
        (&[4, 5, 3], places(&[2, 1], vec![-1, 1]), &[2, 5, 3], true),
        (&[4, 6], places(&[3, 2], vec![3, 5, 0, 0, 2, 1]), &[3], true),
        (&[4, 6], places(&[2, 2], vec![1, 1, 1, 1]), &[2], false),
    ];
    for (shape, indices, updates, native) in cases {
        for dtype in [DType::U8, DType::I16, DType::F32, DType::I64] {
            let inputs = vec![
                Input::Given(counted(dtype, shape)),
                Input::Constant(indices.clone()),
                Input::Given(counted(dtype, updates)),
            ];
            Case { op: op("ScatterND", Attributes::new()), inputs, outputs: 1, tolerance: 0.0, native }
                .check();
        }
    }
}

/// Numbers around every limit, fractions, infinities, NaN.
fn floats() -> Vec<f32> {
    let mut all = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.5, -0.9, 1e-40, 3e38];
    for limit in
        [127.0, 128.0, 255.0, 256.0, 32767.0, 65535.0, 2_147_483_600.0, 4_294_967_000.0, 9.3e18, 1.9e19]
    {
        all.extend([limit, -limit, limit + 0.75, limit - 0.25, -limit - 0.5, -limit - 1.0]);
    }
    all
}

#[test]
fn casts() {
    let types = [
        DType::F32,
        DType::F64,
        DType::Bool,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
    ];
    let to_f64 = op("Cast", Attributes::new().with("to", DType::F64));
    for from in types {
        let x = match from {
            DType::F32 => Tensor::from_vec([floats().len()], floats()).unwrap(),
            DType::F64 => {
                let x = Tensor::from_vec([floats().len()], floats()).unwrap();
                to_f64.eval(&[Some(&x)], 1).unwrap().remove(0)
            }
            DType::Bool => Tensor::from_bools([37], (0..37).map(|i| i % 3 == 0)).unwrap(),
            integer => counted(integer, &[611]),
        };
        for to in types.into_iter().filter(|&to| to != from) {
            let native = from != DType::U64 || !to.is_float();
            let cast = op("Cast", Attributes::new().with("to", to));
            Case { native, ..Case::new(cast, x.clone(), vec![]) }.check();
        }
    }
}

#[test]
fn long_casts_are_shared_between_threads() {
    let x = seeded(&[3, 9001], 3);
    let scale = op("Mul", Attributes::new());
    let x = scale.eval(&[Some(&x), Some(&Tensor::scalar(300.0f32))], 1).unwrap().remove(0);
    for to in [DType::U8, DType::I8, DType::I32, DType::Bool] {
        Case::new(op("Cast", Attributes::new().with("to", to)), x.clone(), vec![]).check();
    }
    for from in [DType::U8, DType::I8] {
        Case::new(op("Cast", Attributes::new().with("to", DType::F32)), counted(from, &[7, 9001]), vec![])
            .check();
    }
}

/// Every number of 16 bits in floats, and no NaN that signals; in f32 also the middles between them and both neighbours of these, where rounding turns.
fn halves(dtype: DType) -> Tensor {
    let quiet = match dtype {
        DType::F16 => |bits: u16| if bits & 0x7fff > 0x7c00 { bits | 0x200 } else { bits },
        _ => |bits: u16| if bits & 0x7fff > 0x7f80 { bits | 0x40 } else { bits },
    };
    let bytes = (0..=u16::MAX).map(quiet).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    Tensor::from_shared(dtype, vec![65_536], Arc::new(bytes), 0).unwrap()
}

fn middles(dtype: DType) -> Tensor {
    let wide = op("Cast", Attributes::new().with("to", DType::F32));
    let all = wide.eval(&[Some(&halves(dtype))], 1).unwrap().remove(0);
    let all = all.elements::<f32>().unwrap().into_owned();
    let mut near: Vec<f32> = vec![];
    for pair in all.windows(2) {
        let middle = f32::midpoint(pair[0], pair[1]);
        near.extend([pair[0], middle, middle.next_up(), middle.next_down()]);
    }
    near.extend([
        65_519.996,
        65_520.0,
        -65_520.0,
        1e-8,
        2.9e-8,
        -2.98e-8,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
    ]);
    near.extend(floats());
    Tensor::from_vec([near.len()], near).unwrap()
}

#[test]
fn short_floats_cast_both_ways() {
    for dtype in [DType::F16, DType::BF16] {
        for to in [DType::F32, DType::F16, DType::BF16].into_iter().filter(|&to| to != dtype) {
            Case::new(op("Cast", Attributes::new().with("to", to)), halves(dtype), vec![]).check();
        }
        let cast = op("Cast", Attributes::new().with("to", dtype));
        Case::new(cast.clone(), middles(dtype), vec![]).check();
        for count in 1..40 {
            Case::new(cast.clone(), seeded(&[count], count as u64), vec![]).check();
        }
    }
}
