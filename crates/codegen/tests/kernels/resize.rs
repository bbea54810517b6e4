//! Resize in all modes: nearest elements exactly, weights to a few roundings.

use crate::support::{Case, Input, op, seeded};
use tconvc_ir::{Attributes, Tensor};

const COORDINATES: [&str; 5] =
    ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"];
const ROUNDINGS: [&str; 4] = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];

/// Extents before and after.
const SIZES: [(&[usize], &[i64]); 11] = [
    // Scales beyond those of phases, up and down, and rows of too many vectors to be written out.
    (&[1, 2, 3, 37], &[1, 2, 5, 300]),
    (&[1, 1, 4, 230], &[1, 1, 3, 61]),
    (&[1, 1, 1, 700], &[1, 1, 2, 9001]),
    (&[1, 2, 6, 21], &[1, 2, 12, 42]),
    (&[2, 1, 9, 17], &[2, 1, 27, 68]),
    (&[1, 2, 12, 20], &[1, 2, 6, 10]),
    (&[1, 1, 7, 10], &[1, 1, 11, 33]),
    (&[1, 1, 1, 1], &[1, 1, 4, 5]),
    (&[1, 2, 3, 40], &[1, 2, 3, 80]),
    (&[1, 3, 5], &[1, 3, 10]),
    (&[1, 1, 3, 4, 9], &[1, 1, 6, 7, 18]),
];

fn resize(attributes: Attributes, shape: &[usize], sizes: &[i64]) -> Case {
    let inputs = vec![
        Input::Given(seeded(shape, 8)),
        Input::Absent,
        Input::Absent,
        Input::Constant(Tensor::from_i64s(sizes)),
    ];
    Case { op: op("Resize", attributes), inputs, outputs: 1, tolerance: 0.0, native: true }
}

fn mode(mode: &str, coordinates: &str) -> Attributes {
    Attributes::new().with("mode", mode).with("coordinate_transformation_mode", coordinates)
}

#[test]
fn nearest() {
    for (shape, sizes) in SIZES {
        for coordinates in COORDINATES {
            for rounding in ROUNDINGS {
                let attributes = mode("nearest", coordinates).with("nearest_mode", rounding);
                resize(attributes, shape, sizes).check();
            }
        }
    }
}

#[test]
fn linear() {
    for (shape, sizes) in SIZES {
        for coordinates in COORDINATES {
            resize(mode("linear", coordinates), shape, sizes).within(1e-6).check();
        }
    }
}

#[test]
fn cubic() {
    for (shape, sizes) in &SIZES[..9] {
        for coordinates in COORDINATES {
            for exclude in [0, 1] {
                let attributes = mode("cubic", coordinates).with("exclude_outside", exclude);
                resize(attributes, shape, sizes).within(2e-6).check();
            }
        }
    }
}

#[test]
fn antialiased() {
    for name in ["linear", "cubic"] {
        let attributes = mode(name, "half_pixel").with("antialias", 1);
        resize(attributes, &[1, 2, 20, 33], &[1, 2, 7, 11]).within(2e-6).check();
    }
}

#[test]
fn infinities_stay() {
    let mut data: Vec<f32> = (0..40).map(|i| i as f32).collect();
    data[3] = f32::INFINITY;
    data[20] = f32::NEG_INFINITY;
    let x = Tensor::from_vec([1, 1, 4, 10], data).unwrap();
    for (sizes, coordinates) in [([1, 1, 8, 20], "half_pixel"), ([1, 1, 7, 13], "align_corners")] {
        let case = resize(mode("linear", coordinates), &[1, 1, 1, 1], &sizes);
        let mut inputs = case.inputs;
        inputs[0] = Input::Given(x.clone());
        Case { inputs, ..case }.within(1e-5).check();
    }
}

#[test]
fn regions_are_interpreted() {
    let op = op("Resize", mode("linear", "tf_crop_and_resize"));
    let roi = Tensor::from_vec([8], vec![0f32, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7]).unwrap();
    let inputs = vec![
        Input::Given(seeded(&[1, 1, 4, 4], 1)),
        Input::Constant(roi),
        Input::Absent,
        Input::Constant(Tensor::from_i64s(&[1, 1, 3, 3])),
    ];
    Case { op, inputs, outputs: 1, tolerance: 1e-6, native: false }.check();
}

/// Places inside, at borders and halves, far outside, and no numbers.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn places(shape: &[usize], seed: u64) -> Tensor {
    let mut data = seeded(shape, seed).elements::<f32>().unwrap().into_owned();
    let special = [
        -1.0,
        1.0,
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.2,
        -1.2,
        1.0001,
        -1.0001,
        1e30,
        -1e30,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.25,
        0.75,
        -0.25,
        1.5,
        -1.5,
        0.333_333_34,
    ];
    for (i, value) in data.iter_mut().enumerate() {
        *value *= 1.4;
        if i % 3 == 0 {
            *value = special[i / 3 % special.len()];
        }
    }
    Tensor::from_vec(shape.to_vec(), data).unwrap()
}

#[test]
fn sampling_at_places_that_are_data() {
    for (data, grid) in [
        ([1, 3, 5, 7], [1, 9, 11, 2]),
        ([2, 1, 1, 1], [2, 4, 5, 2]),
        ([2, 4, 8, 3], [2, 20, 30, 2]),
        ([1, 2, 6, 1], [1, 3, 3, 2]),
    ] {
        for mode in ["linear", "nearest"] {
            for border in ["zeros", "border"] {
                for corners in [0i64, 1] {
                    let attributes = Attributes::new()
                        .with("mode", mode)
                        .with("padding_mode", border)
                        .with("align_corners", corners);
                    let inputs = vec![Input::Given(seeded(&data, 1)), Input::Given(places(&grid, 2))];
                    let op = op("GridSample", attributes);
                    Case { op, inputs, outputs: 1, tolerance: 1e-6, native: true }.check();
                }
            }
        }
    }
    let inputs = vec![Input::Given(seeded(&[1, 1, 4, 4], 1)), Input::Given(places(&[1, 3, 3, 2], 2))];
    let cubic = op("GridSample", Attributes::new().with("mode", "cubic"));
    Case { op: cubic, inputs, outputs: 1, tolerance: 0.0, native: false }.check();
}
