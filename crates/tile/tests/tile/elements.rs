//! Loads that widen and stores that narrow: every pattern of 16 bits, on every target, against the interpreter to the
//! bit, and the interpreter against other implementations.

use crate::support::{Case, Random, agree, interpret, specials};
use half::{bf16, f16};
use tconvc_machine::Target;
use tconvc_tile::{Elem, Lanes, TileBuilder};

const NARROW: [Elem; 5] = [Elem::F16, Elem::Bf16, Elem::I8, Elem::U8, Elem::I16];

/// `out[i] = widened x[i]` over whole vectors.
fn widen(b: &mut TileBuilder, elem: Elem) {
    let [x, out] = b.pointers(["x", "out"]);
    let n = b.count("n");
    let (lanes, step) = (b.lanes() as i32, b.vector_bytes());
    b.repeat(n, &[(x, lanes * elem.bytes()), (out, step)], |b| {
        let v = b.load_elements(elem, x.at(0), Lanes::All);
        b.store(v, out.at(0));
    });
}

/// `out[i] = narrowed x[i]` over whole vectors.
fn narrow(b: &mut TileBuilder, elem: Elem) {
    let [x, out] = b.pointers(["x", "out"]);
    let n = b.count("n");
    let (lanes, step) = (b.lanes() as i32, b.vector_bytes());
    b.repeat(n, &[(x, step), (out, lanes * elem.bytes())], |b| {
        let v = b.load(x.at(0));
        b.store_elements(elem, v, out.at(0), Lanes::All);
    });
}

/// Every pattern of an element, in order.
fn patterns(elem: Elem) -> Vec<u8> {
    match elem.bytes() {
        1 => (0..=u8::MAX).collect(),
        _ => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
    }
}

/// The bits that the interpreter leaves in the second of two buffers.
fn interpreted(body: impl Fn(&mut TileBuilder), case: &Case) -> Vec<u32> {
    let target = Target::parse("x86-64-v4").unwrap();
    let mut b = TileBuilder::new("tile", &target);
    body(&mut b);
    interpret(&b.finish().unwrap(), &target, case).remove(1).into_iter().map(f32::to_bits).collect()
}

fn widening_case(elem: Elem, lanes: usize) -> Case {
    let x = patterns(elem);
    let n = x.len() / elem.bytes() as usize;
    Case::bytes(&[x, vec![9; 4 * n]], &[(n / lanes) as u64])
}

#[test]
fn every_pattern_is_widened() {
    for elem in NARROW {
        agree(|b| widen(b, elem), |lanes| widening_case(elem, lanes));
        let found = interpreted(|b| widen(b, elem), &widening_case(elem, 16));
        for (pattern, &bits) in found.iter().enumerate() {
            let float = |exact: f32, quiet: u32| {
                // Other implementations differ in what they do to a NaN; ours keeps its payload.
                if exact.is_nan() { quiet } else { exact.to_bits() }
            };
            let wanted = match elem {
                Elem::F16 => {
                    let bits = pattern as u32;
                    let nan = bits >> 15 << 31 | 0x7fc0_0000 | (bits & 0x3ff) << 13;
                    float(f16::from_bits(pattern as u16).to_f32(), nan)
                }
                Elem::Bf16 => float(bf16::from_bits(pattern as u16).to_f32(), (pattern as u32) << 16),
                Elem::I8 => i32::from(pattern as u8 as i8) as u32,
                Elem::I16 => i32::from(pattern as u16 as i16) as u32,
                _ => pattern as u32,
            };
            assert_eq!(bits, wanted, "{} {pattern:#x}", elem.name());
        }
    }
}

/// Every value of a format of 16 bits, the numbers half way to the next, and the neighbours of all these.
fn around(to_f32: impl Fn(u16) -> f32) -> Vec<u32> {
    let mut all = Vec::new();
    for pattern in 0..=u16::MAX {
        let (here, next) = (to_f32(pattern), to_f32(pattern.wrapping_add(1)));
        let middle = if next.is_infinite() && here.is_finite() {
            // Half way to where the next number would be.
            here + (here - to_f32(pattern - 1)) / 2.0
        } else {
            f32::midpoint(here, next)
        };
        for x in [here, middle] {
            all.extend([x.to_bits().wrapping_sub(1), x.to_bits(), x.to_bits().wrapping_add(1)]);
        }
    }
    all
}

fn narrowing_case(elem: Elem, lanes: usize) -> Case {
    let mut random = Random(7);
    let mut x = match elem {
        Elem::F16 => around(|bits| f16::from_bits(bits).to_f32()),
        Elem::Bf16 => around(|bits| bf16::from_bits(bits).to_f32()),
        _ => (-40_000_i32..70_000).map(|n| n as u32).collect(),
    };
    x.extend(specials().iter().map(|x| x.to_bits()));
    x.extend([i32::MIN, i32::MAX, i32::MIN + 1].map(|n| n as u32));
    x.extend([0x7f80_0001, 0xff80_0001, 0x7fbf_ffff, 0x7fff_ffff, 0xffff_ffff, 0x7fa0_1234]);
    x.extend((0..20_000).map(|_| (random.next() << 16 ^ random.next()) as u32));
    x.resize(x.len().next_multiple_of(16), 0x3f80_0000);
    let n = x.len();
    let x = x.into_iter().flat_map(u32::to_le_bytes).collect();
    Case::bytes(&[x, vec![9; n * elem.bytes() as usize]], &[(n / lanes) as u64])
}

#[test]
fn lanes_are_narrowed() {
    for elem in NARROW {
        agree(|b| narrow(b, elem), |lanes| narrowing_case(elem, lanes));
        let case = narrowing_case(elem, 16);
        let found = interpreted(|b| narrow(b, elem), &case);
        let bytes: Vec<u8> = found.into_iter().flat_map(u32::to_le_bytes).collect();
        for (element, x) in bytes.chunks(elem.bytes() as usize).zip(&case.buffers[0]) {
            let int = x.to_bits() as i32;
            let nan = |sign: u32, rest: u32| (sign | rest) as u16;
            let wanted = match elem {
                Elem::F16 if x.is_nan() => {
                    nan(x.to_bits() >> 31 << 15, 0x7e00 | x.to_bits() >> 13 & 0x3ff).to_le_bytes().to_vec()
                }
                Elem::Bf16 if x.is_nan() => nan(0, x.to_bits() >> 16 | 0x40).to_le_bytes().to_vec(),
                Elem::F16 => f16::from_f32(*x).to_le_bytes().to_vec(),
                Elem::Bf16 => bf16::from_f32(*x).to_le_bytes().to_vec(),
                Elem::I8 => vec![int.clamp(-128, 127) as u8],
                Elem::U8 => vec![int.clamp(0, 255) as u8],
                _ => (int.clamp(-32_768, 32_767) as i16).to_le_bytes().to_vec(),
            };
            assert_eq!(element, wanted, "{} of {x:?} ({int:#x})", elem.name());
        }
    }
}

#[test]
fn one_element_in_every_lane() {
    for elem in NARROW {
        for pattern in [[0x01, 0x3c], [0xff, 0xfb], [0x80, 0x7f], [0x01, 0x80]] {
            agree(
                |b| {
                    let [x, out] = b.pointers(["x", "out"]);
                    // High numbers of registers need other encodings.
                    let all: Vec<_> = (0..12).map(|_| b.load_splat_of(elem, x.at(0))).collect();
                    let sum = all.into_iter().reduce(|a, v| b.binary(tconvc_tile::BinaryOp::Or, a, v));
                    b.store(sum.unwrap(), out.at(0));
                },
                |lanes| {
                    // The element ends where the buffer does.
                    let mut x = [0xaa; 4];
                    let bytes = elem.bytes() as usize;
                    x[4 - bytes..].copy_from_slice(&pattern[..bytes]);
                    let mut case = Case::bytes(&[x.to_vec(), vec![9; 4 * lanes]], &[]);
                    case.offsets[0] = 4 - bytes as i64;
                    case
                },
            );
        }
    }
}

/// `n` elements through a vector and back, each at one edge of its buffer: nothing beside them is touched.
fn parts(elem: Elem, n: u64, run_time: bool, at_end: bool) {
    let touched = |lanes: usize| (n as usize).min(lanes);
    agree(
        |b| {
            let [x, out, all] = b.pointers(["x", "out", "all"]);
            let count = b.count("n");
            let first = Lanes::First(touched(b.lanes()) as u8);
            let lanes = if run_time { Lanes::FirstOf(count) } else { first };
            let v = b.load_elements(elem, x.at(0), lanes);
            b.store(v, all.at(0));
            let w = b.load(all.at(0));
            b.store_elements(elem, w, out.at(0), lanes);
        },
        |lanes| {
            let bytes = touched(lanes) * elem.bytes() as usize;
            let padded = bytes.next_multiple_of(4);
            let x = (0..padded).map(|i| (37 * i + 11) as u8).collect();
            let mut case = Case::bytes(&[x, vec![9; padded], vec![9; 4 * lanes]], &[n]);
            if at_end {
                case.offsets[..2].fill((padded - bytes) as i64);
            }
            case
        },
    );
}

#[test]
fn parts_of_vectors_touch_nothing_else() {
    for elem in Elem::ALL {
        for n in 0..=17 {
            for at_end in [false, true] {
                if (1..=16).contains(&n) {
                    parts(elem, n, false, at_end);
                }
                parts(elem, n, true, at_end);
            }
        }
        parts(elem, u64::MAX, true, true);
    }
}
