//! Interleaving, its reverse, transposes and reductions: what they mean, on 4, 8 and 16 lanes, and what they cost.

use crate::support::{Case, Random, agree, agree_on, interpret};
use tconvc_machine::Target;
use tconvc_tile::{TileBuilder, TileErrorKind, Vector};

/// One target for each lane count; not all of them can run.
fn widths() -> Vec<Target> {
    ["x86-64", "x86-64-v3", "x86-64-v4"].map(|name| Target::parse(name).unwrap()).to_vec()
}

/// Loads `count` vectors, maps them, stores what comes out.
fn map_vectors(b: &mut TileBuilder, count: usize, map: impl Fn(&mut TileBuilder, &[Vector]) -> Vec<Vector>) {
    let [x, out] = b.pointers(["x", "out"]);
    let step = b.vector_bytes();
    let inputs: Vec<Vector> = (0..count as i32).map(|i| b.load(x.at(step * i))).collect();
    let outputs = map(b, &inputs);
    for (i, &v) in outputs.iter().enumerate() {
        b.store(v, out.at(step * i as i32));
    }
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32).collect()
}

/// The interpreter's output for `count` vectors of ascending numbers, and the number of shuffles.
fn on_numbers(
    target: &Target,
    count: usize,
    map: impl Fn(&mut TileBuilder, &[Vector]) -> Vec<Vector>,
) -> (Vec<f32>, usize) {
    let mut b = TileBuilder::new("tile", target);
    map_vectors(&mut b, count, map);
    let tile = b.finish().unwrap();
    let x = numbers(count * target.lanes());
    let out = interpret(&tile, target, &Case::new(vec![x.clone(), x], &[])).remove(1);
    (out, tile.to_string().matches("shuffle").count())
}

#[test]
fn interleave_puts_phases_in_order_and_deinterleave_takes_them_apart() {
    for target in widths() {
        let lanes = target.lanes();
        for s in 1..=8 {
            let (out, _) = on_numbers(&target, s, TileBuilder::interleave);
            let want: Vec<f32> = (0..s * lanes).map(|i| (i % s * lanes + i / s) as f32).collect();
            assert_eq!(out, want, "interleave {s} on {target}");
            let (out, _) = on_numbers(&target, s, TileBuilder::deinterleave);
            let want: Vec<f32> = (0..s * lanes).map(|i| (i % lanes * s + i / lanes) as f32).collect();
            assert_eq!(out, want, "deinterleave {s} on {target}");
        }
    }
}

#[test]
fn interleave_costs_what_it_says() {
    let shuffles = |target: &Target, s| on_numbers(target, s, TileBuilder::interleave).1;
    let [four, eight, sixteen] = widths().try_into().unwrap();
    assert_eq!([2, 4, 8].map(|s| shuffles(&four, s)), [2, 8, 24]);
    assert_eq!([2, 4, 8].map(|s| shuffles(&eight, s)), [4, 16, 48]);
    assert_eq!([2, 4, 8].map(|s| shuffles(&sixteen, s)), [2, 8, 24]);
    assert_eq!([3, 5, 7].map(|s| shuffles(&eight, s)), [9, 25, 49]);
}

#[test]
fn transposes() {
    for target in widths() {
        let n = target.lanes();
        let (out, shuffles) = on_numbers(&target, n, TileBuilder::transpose);
        let want: Vec<f32> = (0..n * n).map(|i| (i % n * n + i / n) as f32).collect();
        assert_eq!(out, want, "{target}");
        assert_eq!(shuffles, n * n.ilog2() as usize, "{target}");
    }
}

#[test]
fn a_transpose_wants_a_square() {
    let mut b = TileBuilder::new("tile", &Target::parse("x86-64-v3").unwrap());
    map_vectors(&mut b, 4, TileBuilder::transpose);
    let error = b.finish().unwrap_err();
    assert!(matches!(&error.kind, TileErrorKind::Misuse(text) if text.contains("square of 8")), "{error}");
}

#[test]
fn machine_code_agrees() {
    for s in 1..=8 {
        let case =
            |lanes: usize| Case::new(vec![Random(s as u64).floats(s * lanes), vec![9.0; s * lanes]], &[]);
        agree(|b| map_vectors(b, s, TileBuilder::interleave), case);
        agree(|b| map_vectors(b, s, TileBuilder::deinterleave), case);
    }
    for target in crate::support::targets() {
        let n = target.lanes();
        let case = |lanes: usize| Case::new(vec![numbers(n * lanes), vec![9.0; n * lanes]], &[]);
        agree_on(&target, |b| map_vectors(b, n, TileBuilder::transpose), case).unwrap();
    }
}

#[test]
fn reductions_fill_every_lane_and_keep_nan() {
    for (what, sign) in [("sum", 0.0), ("max", 1.0), ("min", -1.0)] {
        let reduce = |b: &mut TileBuilder, v: &[Vector]| {
            vec![match what {
                "sum" => b.reduce_sum(v[0]),
                "max" => b.reduce_max(v[0]),
                _ => b.reduce_min(v[0]),
            }]
        };
        for nan_at in 0..17 {
            let case = |lanes: usize| {
                let mut x = Random(nan_at as u64).floats(lanes);
                if nan_at < lanes {
                    x[nan_at] = f32::NAN;
                }
                Case::new(vec![x, vec![9.0; lanes]], &[])
            };
            agree(|b| map_vectors(b, 1, reduce), case);
            for target in widths() {
                let mut b = TileBuilder::new("tile", &target);
                map_vectors(&mut b, 1, reduce);
                let case = case(target.lanes());
                let out = interpret(&b.finish().unwrap(), &target, &case).remove(1);
                let exact = if what == "sum" {
                    // Numbers with few bits: every order of adding gives the same.
                    case.buffers[0].iter().sum::<f32>()
                } else {
                    sign * case.buffers[0].iter().map(|x| sign * x).fold(f32::NEG_INFINITY, |a, x| {
                        if a.is_nan() || x.is_nan() { f32::NAN } else { a.max(x) }
                    })
                };
                assert!(
                    out.iter().all(|&y| crate::support::same(y, exact)),
                    "{what} on {target}: {out:?}, {exact}"
                );
            }
        }
    }
}
