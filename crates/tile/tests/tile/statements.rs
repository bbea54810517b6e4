//! Every statement of the tile IR: machine code against the interpreter, on every target that runs here.

use crate::support::{Case, Random, agree, specials};
use tconvc_tile::{
    BinaryOp, Cmp, FmaOp, Inst, Lanes, Operand, Pattern, ShiftOp, TileBuilder, Trips, UnaryOp, Vector,
};

/// Runs `body` on all pairs of special numbers: it gets vectors of both and the operand forms of the second.
fn on_specials(body: impl Fn(&mut TileBuilder, Vector, Operand) -> Vector) {
    let operand_forms = 4;
    for form in 0..operand_forms {
        agree(
            |b| {
                let [x, y, out] = b.pointers(["x", "y", "out"]);
                let n = b.count("n");
                let step = b.vector_bytes();
                b.repeat(n, &[(x, step), (y, step), (out, step)], |b| {
                    let a = b.load(x.at(0));
                    let second = match form {
                        0 => b.load(y.at(0)).into(),
                        1 => y.at(0).into(),
                        2 => y.at(0).splat(),
                        _ => (-1.5).into(),
                    };
                    let result = body(b, a, second);
                    b.store(result, out.at(0));
                });
            },
            |lanes| {
                let numbers = specials();
                let n = numbers.len();
                let x: Vec<f32> = (0..n * n).map(|i| numbers[i % n]).collect();
                // One number more, so that no address is that of a vector.
                let y: Vec<f32> = (0..=n * n).map(|i| numbers[(i + i / n) % n]).collect();
                let mut case = Case::new(vec![x, y, vec![9.0; n * n]], &[(n * n / lanes) as u64]);
                case.offsets[1] = 4;
                case
            },
        );
    }
}

#[test]
fn float_operations() {
    use BinaryOp::{Add, Div, Max, Min, Mul, Sub};
    for op in [Add, Sub, Mul, Div, Max, Min] {
        on_specials(|b, x, y| b.binary(op, x, y));
    }
}

#[test]
fn bit_operations() {
    use BinaryOp::{And, IntAdd, IntMax, IntMin, IntMul, IntSub, Or, Xor};
    for op in [And, Or, Xor, IntAdd, IntSub, IntMul, IntMax, IntMin] {
        on_specials(|b, x, y| b.binary(op, x, y));
    }
}

#[test]
fn operations_on_one_vector() {
    use UnaryOp::{Abs, Ceil, Copy, Floor, Neg, Round, Sqrt, ToFloat, Trunc};
    for op in [Copy, Neg, Abs, Sqrt, Floor, Ceil, Trunc, Round, ToFloat] {
        on_specials(|b, x, _| b.unary(op, x));
    }
    // What no i32 can hold gives an unspecified integer.
    on_specials(|b, x, _| {
        let limit = b.splat(1e9);
        let low = b.splat(-1e9);
        let x = b.max(low, x);
        let zero = b.zero();
        let x = b.select(Cmp::Lt, x, limit, x, zero);
        b.unary(UnaryOp::ToInt, x)
    });
}

#[test]
fn shifts() {
    for op in [ShiftOp::Left, ShiftOp::Right, ShiftOp::RightSigned] {
        for by in [0, 1, 23, 31] {
            on_specials(|b, a, _| {
                let dst = b.zero();
                b.push(Inst::Shift { op, dst, a, by });
                dst
            });
        }
    }
}

#[test]
fn multiply_adds() {
    for op in [FmaOp::Add, FmaOp::Sub, FmaOp::Horner] {
        on_specials(|b, a, y| {
            let dst = b.splat(3.25);
            b.push(Inst::Fma { op, dst, a, b: y });
            dst
        });
    }
}

#[test]
fn selects() {
    for cmp in [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge] {
        on_specials(|b, x, y| {
            let (yes, no) = (b.splat(1.0), b.splat(2.0));
            b.select(cmp, x, y, yes, no)
        });
        // The destination may be any of the sources.
        on_specials(|b, a, y| {
            let no = b.splat(2.0);
            b.push(Inst::Select { cmp, dst: a, a, b: y, yes: a, no });
            a
        });
    }
}

#[test]
fn maxima_hand_on_nan_as_documented() {
    on_specials(|b, x, y| {
        let y = match y {
            Operand::Vector(y) => y,
            other => {
                let zero = b.zero();
                b.binary(BinaryOp::Or, zero, other)
            }
        };
        let (high, low) = (b.max_nan(x, y), b.min_nan(x, y));
        b.add(high, low)
    });
}

#[test]
fn parts_of_vectors() {
    for n in 1..=16_u8 {
        for run_time in [false, true] {
            agree(
                |b| {
                    let [x, out] = b.pointers(["x", "out"]);
                    let count = b.count("n");
                    let n = n.min(b.lanes() as u8);
                    let lanes = if run_time { Lanes::FirstOf(count) } else { Lanes::First(n) };
                    let v = b.load_lanes(x.at(0), lanes);
                    let w = b.add(v, 0.5);
                    b.store(w, out.at(0));
                    let shifted = out.at(b.vector_bytes());
                    b.store_lanes(w, shifted, lanes);
                },
                |lanes| {
                    let n = usize::from(n).min(lanes);
                    Case::new(vec![Random(1).floats(n), vec![9.0; lanes + n]], &[n as u64])
                },
            );
        }
    }
}

#[test]
fn run_time_counts_of_lanes_are_clamped() {
    for n in [0, 1, 17, 256, 257, u64::from(u32::MAX) + 1, u64::MAX] {
        agree(
            |b| {
                let [x, out] = b.pointers(["x", "out"]);
                let count = b.count("n");
                let v = b.load_lanes(x.at(0), Lanes::FirstOf(count));
                b.store_lanes(v, out.at(0), Lanes::FirstOf(count));
            },
            |lanes| {
                let touched = n.min(lanes as u64) as usize;
                Case::new(vec![Random(2).floats(touched), vec![9.0; touched]], &[n])
            },
        );
    }
}

#[test]
fn strided_loads_and_single_lanes() {
    for stride in [4, 12, 20, -8] {
        for n in 1..=16_usize {
            agree(
                |b| {
                    let [x, out] = b.pointers(["x", "out"]);
                    let n = n.min(b.lanes());
                    let start = if stride < 0 { -stride * (n as i32 - 1) } else { 0 };
                    let v = b.gather(x.at(start), stride, n);
                    b.store(v, out.at(0));
                    for lane in 0..b.lanes() {
                        let to = out.float((b.lanes() + b.lanes() - 1 - lane) as i32);
                        b.store_lane(v, lane, to);
                    }
                },
                |lanes| {
                    let n = n.min(lanes);
                    let reach = stride.unsigned_abs() as usize / 4 * (n - 1) + 1;
                    Case::new(vec![Random(3).floats(reach), vec![9.0; 2 * lanes]], &[])
                },
            );
        }
    }
}

#[test]
fn loops_and_pointers() {
    for n in [0, 1, 2, 7] {
        agree(
            |b| {
                let [x, out] = b.pointers(["x", "out"]);
                let n = b.count("n");
                let m = b.count("m");
                let total = b.zero();
                let step = b.vector_bytes();
                b.repeat(n, &[], |b| {
                    let row = b.derive(x, step);
                    let sum = b.zero();
                    b.repeat(m, &[(row, step)], |b| b.add_to(sum, row.at(-step)));
                    b.repeat(3, &[], |b| b.fma(total, sum, 0.5));
                    b.repeat(1, &[(out, step)], |b| b.store(sum, out.at(0)));
                    b.advance(x, step);
                    b.prefetch(x.at(1 << 20));
                });
                b.advance_by(x, n, -step);
                b.add_to(total, x.at(0));
                b.store(total, out.at(0));
            },
            |lanes| {
                let x = Random(4).floats(lanes * (n as usize + 5));
                Case::new(vec![x, vec![9.0; lanes * (n as usize + 1)]], &[n, 4])
            },
        );
    }
}

#[test]
fn more_parameters_than_argument_registers() {
    agree(
        |b| {
            let inputs = b.pointers(["a", "b", "c", "d", "e"]);
            let out = b.pointer("out");
            let counts = [b.count("n"), b.count("m"), b.count("k")];
            let sum = b.zero();
            let step = b.vector_bytes();
            for (i, n) in counts.into_iter().enumerate() {
                b.repeat(n, &[], |b| {
                    for (k, x) in inputs.into_iter().enumerate() {
                        b.fma(sum, sum, 0.25);
                        b.add_to(sum, x.at(step * i as i32));
                        if k == 4 {
                            b.store_lanes(sum, out.at(0), Lanes::FirstOf(n));
                        }
                    }
                });
            }
            b.store(sum, out.at(step));
        },
        |lanes| {
            let mut random = Random(5);
            let mut buffers: Vec<Vec<f32>> = (0..5).map(|_| random.floats(3 * lanes)).collect();
            buffers.push(vec![9.0; 2 * lanes]);
            Case::new(buffers, &[1, 2, 3])
        },
    );
}

#[test]
fn shuffles_with_any_pattern() {
    for seed in 0..200 {
        agree(
            |b| {
                let [x, out] = b.pointers(["x", "out"]);
                let lanes = b.lanes();
                let mut random = Random(seed);
                let one = seed % 3 == 0;
                let picks: Vec<usize> = (0..lanes)
                    .map(|_| random.next() as usize % if one { lanes } else { 2 * lanes })
                    .collect();
                let pattern = Pattern::new(lanes, |i| picks[i]);
                let v = b.load(x.at(0));
                let w = b.load(x.at(b.vector_bytes()));
                let r = b.shuffle(v, w, pattern);
                let s = b.shuffle(v, v, pattern);
                let t = b.shuffle(w, v, pattern);
                let step = b.vector_bytes();
                for (i, v) in [v, w, r, s, t].into_iter().enumerate() {
                    b.store(v, out.at(step * i as i32));
                }
            },
            |lanes| Case::new(vec![(0..2 * lanes).map(|i| i as f32).collect(), vec![9.0; 5 * lanes]], &[]),
        );
    }
}

#[test]
fn the_destination_of_a_shuffle_may_be_a_source() {
    agree(
        |b| {
            let [x, out] = b.pointers(["x", "out"]);
            let lanes = b.lanes();
            let v = b.load(x.at(0));
            let w = b.load(x.at(b.vector_bytes()));
            let pattern = Pattern::new(lanes, |i| (5 * i + 3) % (2 * lanes));
            b.push(Inst::Shuffle { dst: v, a: v, b: w, pattern });
            b.push(Inst::Shuffle { dst: w, a: v, b: w, pattern });
            b.store(v, out.at(0));
            b.store(w, out.at(b.vector_bytes()));
        },
        |lanes| Case::new(vec![(0..2 * lanes).map(|i| i as f32).collect(), vec![9.0; 2 * lanes]], &[]),
    );
}

#[test]
fn blocks_run_where_any_lane_has_its_sign_set() {
    for lane in [None, Some(0), Some(3)] {
        agree(
            |b| {
                let [x, out] = b.pointers(["x", "out"]);
                let v = b.load(x.at(0));
                let result = b.splat(1.0);
                b.repeat(Trips::Any(v), &[(x, 4)], |b| {
                    let next = b.load(x.at(0));
                    b.push(Inst::Binary { op: BinaryOp::Add, dst: result, a: next, b: result.into() });
                });
                // The pointer has moved where the block has run.
                let behind = b.load(x.at(0));
                b.store(result, out.at(0));
                b.store(behind, out.at(b.vector_bytes()));
            },
            |lanes| {
                let mut numbers: Vec<f32> = (0..=lanes).map(|i| i as f32).collect();
                if let Some(lane) = lane {
                    numbers[lane] = -0.0;
                }
                Case::new(vec![numbers, vec![9.0; 2 * lanes]], &[])
            },
        );
    }
}
