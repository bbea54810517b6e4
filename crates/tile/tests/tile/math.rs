//! Accuracy of the transcendental functions: a scan of f32 in machine code, against f64.

use crate::support::{Case, agree, execute, specials, targets};
use tconvc_machine::Target;
use tconvc_testing::Edge;
use tconvc_tile::{TileBuilder, Vector};

type Function = fn(&mut TileBuilder, Vector) -> Vector;

fn map(b: &mut TileBuilder, function: Function) {
    let [x, out] = b.pointers(["x", "out"]);
    let n = b.count("n");
    let step = b.vector_bytes();
    b.repeat(n, &[(x, step), (out, step)], |b| {
        let v = b.load(x.at(0));
        let y = function(b, v);
        b.store(y, out.at(0));
    });
}

/// The largest errors over `arguments`: absolute, and in units of the last place of the exact value.
fn errors(function: Function, exact: impl Fn(f64) -> f64, arguments: &[f32]) -> (f64, f64) {
    let (mut absolute, mut ulps) = (0_f64, 0_f64);
    for target in targets().into_iter().filter(Target::runs_here) {
        let mut b = TileBuilder::new("function", &target);
        map(&mut b, function);
        let tile = b.finish().unwrap();
        let n = arguments.len() as u64 / target.lanes() as u64;
        let case = Case::new(vec![arguments.to_vec(), vec![0.0; arguments.len()]], &[n]);
        let results = execute(&tile, &target, &case, Edge::End);
        for (&x, &y) in arguments.iter().zip(&results[1]) {
            let want = exact(f64::from(x));
            let rounded = want as f32;
            if rounded.is_infinite() || rounded.is_nan() {
                assert!(y == rounded || y.is_nan() && rounded.is_nan(), "{target}: {x:e} gives {y:e}");
                continue;
            }
            let error = (f64::from(y) - want).abs();
            let exponent = f64::from(rounded.abs().max(f32::MIN_POSITIVE)).log2().floor();
            absolute = absolute.max(error);
            ulps = ulps.max(error / (exponent - 23.0).exp2());
        }
    }
    (absolute, ulps)
}

/// Every `step`th f32 between two numbers of one sign, a multiple of 16 of them.
fn scan(from: f32, to: f32, step: u32) -> Vec<f32> {
    let mut all: Vec<f32> =
        (from.to_bits()..=to.to_bits()).step_by(step as usize).map(f32::from_bits).collect();
    all.resize(all.len().next_multiple_of(16), from);
    all
}

/// Numbers of both signs up to `limit`.
fn both(limit: f32, step: u32) -> Vec<f32> {
    let mut all = scan(0.0, limit, step);
    all.extend(scan(-0.0, -limit, step));
    all
}

fn erf(x: f64) -> f64 {
    // A series of positive terms.
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    if x.abs() > 6.5 { x.signum() } else { sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI }
}

#[track_caller]
fn within((absolute, ulps): (f64, f64), absolute_limit: f64, ulps_limit: f64) {
    assert!(absolute <= absolute_limit, "absolute error {absolute:e}, {ulps} ulp");
    assert!(ulps <= ulps_limit, "{ulps} ulp, absolute error {absolute:e}");
}

#[test]
fn exp() {
    within(errors(TileBuilder::exp, f64::exp, &both(110.0, 2003)), f64::INFINITY, 1.2);
    within(errors(TileBuilder::exp, f64::exp, &scan(85.0, 100.0, 31)), f64::INFINITY, 1.2);
    within(errors(TileBuilder::exp, f64::exp, &scan(-85.0, -110.0, 31)), f64::INFINITY, 1.2);
}

#[test]
fn log() {
    within(errors(TileBuilder::log, f64::ln, &scan(0.0, f32::MAX, 4001)), f64::INFINITY, 0.9);
    within(errors(TileBuilder::log, f64::ln, &scan(0.5, 2.0, 61)), f64::INFINITY, 0.9);
    within(errors(TileBuilder::log, f64::ln, &scan(0.0, 1e-38, 9001)), f64::INFINITY, 0.9);
}

#[test]
fn sigmoid() {
    let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
    within(errors(TileBuilder::sigmoid, exact, &both(87.0, 2003)), 1e-7, 2.1);
    within(errors(TileBuilder::sigmoid, exact, &both(f32::MAX, 9001)), 1e-7, f64::INFINITY);
}

#[test]
fn tanh() {
    within(errors(TileBuilder::tanh, f64::tanh, &both(f32::MAX, 4001)), 1e-7, 1.8);
    within(errors(TileBuilder::tanh, f64::tanh, &both(10.0, 301)), 1e-7, 1.8);
}

#[test]
fn error_function() {
    within(errors(TileBuilder::erf, erf, &both(8.0, 301)), 1e-7, 1.8);
    within(errors(TileBuilder::erf, erf, &both(f32::MAX, 9001)), 1e-7, f64::INFINITY);
}

#[test]
fn sine_and_cosine() {
    for (function, exact) in
        [(TileBuilder::sin as Function, f64::sin as fn(f64) -> f64), (TileBuilder::cos, f64::cos)]
    {
        within(errors(function, exact, &both(6.5e6, 2003)), 1.2e-7, f64::INFINITY);
        within(errors(function, exact, &both(800.0, 701)), 1.2e-7, f64::INFINITY);
        // Every number of some ranges where the multiple of 256 goes up.
        for middle in [128.5, 384.5, 32_640.5, 4_194_176.5_f32] {
            let middle = middle * std::f32::consts::FRAC_PI_2;
            within(
                errors(function, exact, &scan(middle * 0.9999, middle * 1.0001, 1)),
                1.2e-7,
                f64::INFINITY,
            );
        }
        // Up to the largest number; of what is none it is none.
        within(errors(function, exact, &both(f32::MAX, 4001)), 1.2e-7, f64::INFINITY);
        for exponent in 21..128 {
            let from = (exponent as f32).exp2();
            within(errors(function, exact, &scan(from, from * 1.001, 1)), 1.2e-7, f64::INFINITY);
            within(errors(function, exact, &scan(-from * 1.999, -from * 1.9999, 3)), 1.2e-7, f64::INFINITY);
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            errors(function, exact, &[x; 16]);
        }
    }
    within(errors(TileBuilder::sin, f64::sin, &both(0.78, 2003)), 1e-7, 1.0);
}

#[test]
fn exp_minus_one() {
    within(errors(TileBuilder::exp_minus_one, f64::exp_m1, &scan(-0.0, -110.0, 2003)), 1.5e-7, 4.0);
}

/// One below 1 is what a truncating cast of a multiple shows: near 1 nothing may be off by a whole place.
#[test]
fn near_one_functions_are_rounded_once() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    within(errors(TileBuilder::sigmoid, sigmoid, &scan(8.0, 20.0, 3)), 3.3e-8, 0.55);
    within(errors(TileBuilder::tanh, f64::tanh, &scan(4.0, 11.0, 3)), 3.3e-8, 0.55);
    within(errors(TileBuilder::erf, erf, &scan(2.8, 5.0, 3)), 3.3e-8, 0.55);
}

#[test]
fn limits_and_nan() {
    let functions: [(Function, [f32; 2]); 4] = [
        (TileBuilder::exp, [0.0, f32::INFINITY]),
        (TileBuilder::sigmoid, [0.0, 1.0]),
        (TileBuilder::tanh, [-1.0, 1.0]),
        (TileBuilder::erf, [-1.0, 1.0]),
    ];
    for (function, ends) in functions {
        for target in targets() {
            let mut b = TileBuilder::new("function", &target);
            map(&mut b, function);
            let tile = b.finish().unwrap();
            let mut x = vec![f32::NAN; 16];
            x[0] = f32::NEG_INFINITY;
            x[1] = f32::INFINITY;
            let case = Case::new(vec![x, vec![0.0; 16]], &[16 / target.lanes() as u64]);
            let y = &execute(&tile, &target, &case, Edge::End)[1];
            assert_eq!(y[1], ends[1], "{target}");
            assert!((y[0] - ends[0]).abs() <= 1e-6 * ends[0].abs(), "{target}: {} for {}", y[0], ends[0]);
            assert!(y[2..].iter().all(|y| y.is_nan()), "{target}: {y:?}");
        }
    }
}

#[test]
fn machine_code_and_interpreter_agree_to_the_bit() {
    let functions: [Function; 8] = [
        TileBuilder::sin,
        TileBuilder::cos,
        TileBuilder::exp,
        TileBuilder::log,
        TileBuilder::sigmoid,
        TileBuilder::tanh,
        TileBuilder::erf,
        TileBuilder::exp_minus_one,
    ];
    for function in functions {
        agree(
            |b| map(b, function),
            |lanes| {
                let mut x = specials();
                x.extend(both(100.0, 4_000_037));
                x.extend(scan(0.0, f32::MAX, 8_000_009));
                let n = x.len() / lanes;
                Case::new(vec![x.clone(), x], &[n as u64])
            },
        );
    }
}
