//! Random tiles: machine code of every target that runs here against the interpreter.

use crate::support::{Case, Random, agree_on, targets};
use proptest::prelude::*;
use tconvc_tile::{
    Address, BinaryOp, Cmp, Count, Elem, FmaOp, Inst, Lanes, Operand, Pattern, Pointer, ShiftOp, TileBuilder,
    TileErrorKind, Trips, UnaryOp, Vector,
};

/// Vectors of the buffer that is read, and of the one that is written.
const READABLE: i32 = 8;
const WRITABLE: i32 = 12;

/// Writes a random program from a stream of numbers. Loops move the pointers of its own making only within bounds.
struct Writer<'a> {
    b: &'a mut TileBuilder,
    random: Random,
    x: Pointer,
    out: Pointer,
    count: Count,
    /// Floats, and integers kept apart: the bits of a NaN are nobody's promise.
    floats: Vec<Vector>,
    ints: Vec<Vector>,
}

impl Writer<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.random.next() as usize % n
    }

    fn float(&mut self) -> Vector {
        let i = self.below(self.floats.len());
        self.floats[i]
    }

    fn int(&mut self) -> Vector {
        let i = self.below(self.ints.len());
        self.ints[i]
    }

    fn readable(&mut self) -> Address {
        let last = self.b.vector_bytes() * (READABLE - 1);
        let float = self.below(last as usize / 4 + 1) as i32;
        self.x.float(float)
    }

    fn writable(&mut self) -> Address {
        let last = self.b.vector_bytes() * (WRITABLE - 1);
        let float = self.below(last as usize / 4 + 1) as i32;
        self.out.float(float)
    }

    fn operand(&mut self) -> Operand {
        match self.below(4) {
            0 => self.readable().into(),
            1 => self.readable().splat(),
            2 => self.random.float().into(),
            _ => self.float().into(),
        }
    }

    fn lanes(&mut self) -> Lanes {
        match self.below(3) {
            0 => Lanes::All,
            1 => Lanes::First(1 + self.below(self.b.lanes()) as u8),
            _ => Lanes::FirstOf(self.count),
        }
    }

    fn block(&mut self, length: usize, depth: usize) {
        let visible = (self.floats.len(), self.ints.len());
        for _ in 0..length {
            self.step(depth);
            // Keep the pressure down.
            if self.floats.len() > visible.0 + 4 {
                self.floats.remove(visible.0);
            }
            if self.ints.len() > visible.1 + 2 {
                self.ints.remove(visible.1);
            }
        }
        // What a loop defines is not visible behind it.
        if depth > 0 {
            self.floats.truncate(visible.0);
            self.ints.truncate(visible.1);
        }
    }

    /// A load, splat or store of elements narrower than a lane.
    fn narrow_access(&mut self) {
        let (elem, at, lanes) = (Elem::ALL[self.below(7)], self.readable(), self.lanes());
        let is_float = matches!(elem, Elem::F32 | Elem::F16 | Elem::Bf16);
        match self.below(3) {
            // What comes from memory are floats: their halves are any words, but may be a NaN as f16.
            0 if elem != Elem::I32 && elem != Elem::F16 => {
                let v = self.b.load_elements(elem, at, lanes);
                if is_float { self.floats.push(v) } else { self.ints.push(v) }
            }
            1 if elem != Elem::I32 && elem != Elem::F16 => {
                let v = self.b.load_splat_of(elem, at);
                if is_float { self.floats.push(v) } else { self.ints.push(v) }
            }
            _ => {
                // The bits of a NaN are nobody's promise: floats are stored only as what they were loaded as.
                let (v, at) = (self.int(), self.writable());
                let elem = if is_float { Elem::I16 } else { elem };
                self.b.store_elements(elem, v, at, lanes);
            }
        }
    }

    fn step(&mut self, depth: usize) {
        use BinaryOp::{Add, Div, Max, Min, Mul, Sub};
        match self.below(18) {
            16 | 17 => self.narrow_access(),
            0 => {
                let (at, lanes) = (self.readable(), self.lanes());
                let v = self.b.load_lanes(at, lanes);
                self.floats.push(v);
            }
            1 | 2 => {
                let (v, at, lanes) = (self.float(), self.writable(), self.lanes());
                self.b.store_lanes(v, at, lanes);
            }
            3 => {
                let op = [Add, Sub, Mul, Div, Max, Min][self.below(6)];
                let (a, b) = (self.float(), self.operand());
                let v = self.b.binary(op, a, b);
                self.floats.push(v);
            }
            4 => {
                let op = [Add, Sub, Mul, Max, Min][self.below(5)];
                let (dst, a, b) = (self.float(), self.float(), self.operand());
                self.b.binary_into(dst, op, a, b);
            }
            5 | 6 => {
                let op = [FmaOp::Add, FmaOp::Sub, FmaOp::Horner][self.below(3)];
                let (dst, a, b) = (self.float(), self.float(), self.operand());
                self.b.push(Inst::Fma { op, dst, a, b });
            }
            7 => {
                use UnaryOp::{Abs, Ceil, Copy, Floor, Neg, Round, Sqrt, Trunc};
                let op = [Abs, Ceil, Copy, Floor, Neg, Round, Sqrt, Trunc][self.below(8)];
                let a = self.float();
                let v = self.b.unary(op, a);
                self.floats.push(v);
            }
            8 => {
                let cmp = [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge][self.below(6)];
                let (a, b, yes, no) = (self.float(), self.operand(), self.float(), self.float());
                let v = self.b.select(cmp, a, b, yes, no);
                self.floats.push(v);
            }
            9 => {
                let lanes = self.b.lanes();
                let picks: Vec<usize> = (0..lanes).map(|_| self.below(2 * lanes)).collect();
                let (dst, a, b) = (self.float(), self.float(), self.float());
                self.b.push(Inst::Shuffle { dst, a, b, pattern: Pattern::new(lanes, |i| picks[i]) });
            }
            10 => {
                let (n, at) = (1 + self.below(self.b.lanes()), self.readable());
                // No stride that leaves the buffer: the address is at least a vector before its end.
                let v = self.b.gather(at, 4, n);
                self.floats.push(v);
                let at = self.x.at(0);
                let v = self.b.gather(at, 12, n);
                self.floats.push(v);
            }
            11 => {
                let op = [ShiftOp::Left, ShiftOp::Right, ShiftOp::RightSigned][self.below(3)];
                let (dst, a, by) = (self.int(), self.int(), self.below(32) as u8);
                self.b.push(Inst::Shift { op, dst, a, by });
            }
            12 => {
                use BinaryOp::{And, IntAdd, IntMax, IntMin, IntMul, IntSub, Or, Xor};
                let op = [And, IntAdd, IntMax, IntMin, IntMul, IntSub, Or, Xor][self.below(8)];
                let a = self.int();
                let b =
                    if self.below(2) == 0 { self.int().into() } else { Operand::Bits(self.below(99) as u32) };
                let v = self.b.binary(op, a, b);
                self.ints.push(v);
            }
            13 => {
                let a = self.int();
                let v = self.b.unary(UnaryOp::ToFloat, a);
                self.floats.push(v);
            }
            14 if depth < 2 => {
                let trips = 1 + self.below(3) as u32;
                let length = 1 + self.below(6);
                let any = self.int();
                let run_time = self.below(2) == 0;
                let (before, step) = (self.x, self.b.vector_bytes());
                // A pointer that starts low enough to move with the loop: reads stay in bounds behind it.
                let (b, count) = (&mut *self.b, self.count);
                let moving = b.derive(before, 0);
                let mut random = Random(self.random.next());
                std::mem::swap(&mut self.random, &mut random);
                let (x, out, floats, ints) = (self.x, self.out, self.floats.clone(), self.ints.clone());
                let body = |b: &mut TileBuilder| {
                    let v = b.load(moving.at(0));
                    let mut writer = Writer { b, random, x, out, count, floats, ints };
                    writer.floats.push(v);
                    writer.block(length, depth + 1);
                };
                if run_time {
                    b.repeat(count, &[], body);
                } else if trips == 3 {
                    b.repeat(Trips::Any(any), &[(moving, step)], body);
                } else {
                    b.repeat(trips, &[(moving, step)], body);
                }
            }
            _ => {
                let (v, lane, at) = (self.float(), self.below(self.b.lanes()), self.writable());
                self.b.store_lane(v, lane, at);
            }
        }
    }
}

/// A random tile; with much pressure it may not fit.
pub fn write(b: &mut TileBuilder, seed: u64) {
    let [x, out] = b.pointers(["x", "out"]);
    let count = b.count("n");
    let floats = vec![b.load(x.at(0)), b.splat(1.5)];
    let ints = vec![b.splat_bits(0x0123_4567), b.splat_bits(0xffff_fff0)];
    let mut writer = Writer { b, random: Random(seed), x, out, count, floats, ints };
    let length = 4 + writer.below(30);
    writer.block(length, 0);
    let (floats, ints) = (writer.floats, writer.ints);
    for v in floats {
        b.store(v, out.at(0));
        b.advance(out, b.vector_bytes() / 2);
    }
    for v in ints {
        let f = b.unary(UnaryOp::ToFloat, v);
        b.store(f, out.at(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_agree(seed: u64, count in 0_u64..12) {
        for target in targets() {
            let case = |lanes: usize| {
                let readable = Random(seed ^ 1).floats(READABLE as usize * lanes);
                let writable = vec![9.0; (WRITABLE + 4) as usize * lanes];
                // Strided loads reach three vectors.
                Case::new(vec![readable, writable], &[count])
            };
            if let Err(error) = agree_on(&target, |b| write(b, seed), case) {
                let fits = matches!(error.kind, TileErrorKind::Registers { .. });
                prop_assert!(fits, "{error}");
            }
        }
    }
}
