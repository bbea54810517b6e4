//! What the builder and the verifier refuse, in which words, and what a listing looks like.

use crate::support::allocate;
use tconvc_machine::Target;
use tconvc_tile::backend::{self, LowerError, Settings};
use tconvc_tile::{
    Inst, Lanes, Pattern, Pointer, ShiftOp, Tile, TileBuilder, TileError, TileErrorKind, Trips, Vector,
};

fn build(name: &str, body: impl FnOnce(&mut TileBuilder)) -> Result<Tile, TileError> {
    let target = Target::parse(name).unwrap();
    let mut b = TileBuilder::new("tile", &target);
    body(&mut b);
    Ok(allocate(b.finish()?, &target)?.tile().clone())
}

#[track_caller]
fn refused(body: impl FnOnce(&mut TileBuilder), words: &str) {
    let text = build("x86-64-v3", body).unwrap_err().to_string();
    assert!(text.contains(words), "{text}");
    assert!(text.starts_with("tile `tile`: "), "{text}");
}

#[test]
fn listings_read_like_assembly() {
    let tile = build("x86-64-v3", |b| {
        let [x, w, out] = b.pointers(["x", "w", "out"]);
        let n = b.count("n");
        let acc = b.zero();
        b.repeat(n, &[(x, 32), (w, 4)], |b| {
            let v = b.load(x.at(4));
            b.fma(acc, v, w.at(0).splat());
        });
        let low = b.splat(1.5);
        let r = b.max(low, acc);
        let s = b.swap_lanes(r, 4);
        b.store_lanes(s, out.at(-8), Lanes::First(3));
        b.store_lanes(r, out.at(0), Lanes::FirstOf(n));
    });
    let expected = "\
tile tile f32x8 (x, w, out; n) {
    v0 = 0.0
    loop n step x +32, w +4 {
        v1 = load [x +4]
        v0 += v1 * splat [w]
    }
    v2 = 1.5
    v3 = max v2, v0
    v4 = shuffle v3, v3 (a4 a5 a6 a7 a0 a1 a2 a3)
    store [out -8], v4 first 3
    store [out], v3 first n
}
";
    assert_eq!(tile.unwrap().to_string(), expected);
}

#[test]
fn what_is_read_must_be_defined() {
    let undefined = |b: &mut TileBuilder| {
        let mut inside = None;
        b.repeat(2, &[], |b| inside = Some(b.zero()));
        let out = b.pointer("out");
        b.store(inside.unwrap(), out.at(0));
    };
    refused(undefined, "`v0` is read in `store [out], v0` but not defined there");
    let condition = |b: &mut TileBuilder| {
        let mut inside = None;
        b.repeat(2, &[], |b| inside = Some(b.zero()));
        b.repeat(Trips::Any(inside.unwrap()), &[], |_| {});
    };
    refused(condition, "`v0` is read in `loop any v0` but not defined there");
    let loop_pointer = |b: &mut TileBuilder| {
        let out = b.pointer("out");
        let mut inside = None;
        b.repeat(2, &[], |b| inside = Some(b.derive(out, 32)));
        let zero = b.zero();
        b.store(zero, inside.unwrap().at(0));
    };
    refused(loop_pointer, "`out.1` is read in");
}

#[test]
fn constants_have_ranges() {
    let with_pointer = |body: fn(&mut TileBuilder, Pointer, Vector)| {
        move |b: &mut TileBuilder| {
            let p = b.pointer("p");
            let v = b.zero();
            body(b, p, v);
        }
    };
    refused(with_pointer(|b, _, _| b.repeat(0, &[], |_| {})), "number of trips is 0");
    refused(with_pointer(|b, p, v| b.store_lanes(v, p.at(0), Lanes::First(9))), "accepted is 1 to 8");
    refused(with_pointer(|b, p, v| b.store_lanes(v, p.at(0), Lanes::First(0))), "number of lanes is 0");
    refused(with_pointer(|b, p, v| b.store_lane(v, 8, p.at(0))), "lane is 8; accepted is 0 to 7");
    refused(with_pointer(|b, p, v| b.store(v, p.at(i32::MAX))), "displacement is 2147483647");
    let far = |b: &mut TileBuilder, p: Pointer, _: Vector| {
        b.gather(p.at(0), i32::MAX / 2, 2);
    };
    refused(with_pointer(far), "displacement");
    let shift = |b: &mut TileBuilder, _: Pointer, v: Vector| {
        b.push(Inst::Shift { op: ShiftOp::Left, dst: v, a: v, by: 32 });
    };
    refused(with_pointer(shift), "shift is 32; accepted is 0 to 31");
    let pattern = |b: &mut TileBuilder, _: Pointer, v: Vector| {
        b.shuffle(v, v, Pattern::new(8, |i| 2 * i + 2));
    };
    refused(with_pointer(pattern), "picked lane is 16; accepted is 0 to 15");
    let swap = |b: &mut TileBuilder, _: Pointer, v: Vector| {
        b.swap_lanes(v, 3);
    };
    refused(with_pointer(swap), "distance of 3");
}

/// `live` accumulators in a loop, each of a vector in a register and a splat from memory.
fn accumulate(b: &mut TileBuilder, live: usize) {
    let [x, w, out] = b.pointers(["x", "w", "out"]);
    let acc: Vec<Vector> = (0..live).map(|_| b.zero()).collect();
    b.repeat(3, &[(x, 4)], |b| {
        let v = b.load(x.at(0));
        for &acc in &acc {
            b.fma(acc, v, w.at(0).splat());
        }
    });
    for acc in acc {
        b.store(acc, out.at(0));
    }
}

fn pressure(target: &str, live: usize) -> Result<Tile, TileError> {
    build(target, |b| accumulate(b, live))
}

#[test]
fn registers_are_counted_with_what_the_lowering_needs() {
    // 16 registers: the loaded vector, and one for the splat, which AVX-512 does without.
    assert!(pressure("x86-64-v3", 14).is_ok());
    assert!(pressure("x86-64-v4", 31).is_ok());
    for (target, live, available) in [("x86-64-v3", 15, 16), ("x86-64-v4", 32, 32), ("x86-64", 15, 16)] {
        let error = pressure(target, live).unwrap_err();
        let TileErrorKind::Registers { class: "vector", needed, available: have, inst } = &error.kind else {
            panic!("{error}");
        };
        assert_eq!((*needed, *have), (available + 1, available), "{error}");
        assert!(inst.contains('x') || inst.contains("splat [w]"), "{error}");
    }
    let pointers = build("x86-64-v3", |b| {
        let p = b.pointer("p");
        let zero = b.zero();
        let all: Vec<Pointer> = (0..15).map(|i| b.derive(p, i)).collect();
        for p in all {
            b.store(zero, p.at(0));
        }
        b.store(zero, p.at(0));
    });
    let error = pointers.unwrap_err();
    assert!(error.to_string().contains("16 general registers are needed"), "{error}");
}

#[test]
fn the_pressure_says_whether_a_tile_fits() {
    for name in ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"] {
        let target = Target::parse(name).unwrap();
        let backend = backend::of(&target, Settings::default());
        let file = backend.registers();
        for live in 1..40 {
            let mut b = TileBuilder::new("tile", &target);
            accumulate(&mut b, live);
            let tile = b.finish().unwrap();
            let pressure = backend.pressure(&tile).unwrap();
            assert_eq!(file.holds(pressure), backend.allocate(tile).is_ok(), "{name} {live} {pressure:?}");
            let splat = usize::from(name != "x86-64-v4");
            assert_eq!((pressure.vectors, pressure.generals), (live + 1 + splat, 4), "{name}");
        }
    }
}

#[test]
fn registers_are_shared_where_lives_do_not_meet() {
    // A chain of a hundred values needs two registers at a time, in and out of loops.
    let tile = build("x86-64-v3", |b| {
        let out = b.pointer("out");
        let mut v = b.splat(1.0);
        for _ in 0..50 {
            v = b.add(v, 1.0);
        }
        b.repeat(2, &[], |b| {
            let mut w = v;
            for _ in 0..50 {
                w = b.mul(w, v);
            }
            b.store(w, out.at(0));
        });
    });
    assert!(tile.is_ok());
}

#[test]
fn parameters_come_before_derived_pointers() {
    let late = |b: &mut TileBuilder| {
        let p = b.pointer("p");
        b.derive(p, 4);
        b.pointer("q");
    };
    refused(late, "`q` is declared behind a derived pointer");
}

#[test]
fn backends_want_their_own_width_and_registers() {
    let target = Target::parse("x86-64-v3").unwrap();
    let tile = build("x86-64-v3", |b| {
        b.pointer("p");
    });
    let tile = tile.unwrap();
    let allocated = allocate(tile.clone(), &target).unwrap();
    assert_eq!(*allocated.tile(), tile);
    for other in ["x86-64", "x86-64-v4", "aarch64"] {
        let backend = backend::of(&Target::parse(other).unwrap(), Settings::default());
        let error = backend.allocate(tile.clone()).unwrap_err();
        assert!(matches!(error.kind, TileErrorKind::Lanes { lanes: 8, .. }), "{error}");
        assert!(error.to_string().contains("has 8 lanes"), "{error}");
        assert_eq!(backend.pressure(&tile).unwrap_err(), error);
        let error = backend.lower(&allocated).unwrap_err();
        assert!(matches!(error, LowerError::Foreign { .. }), "{error}");
    }
}
