//! Machine code decodes to what the target has and nothing else.

use std::collections::BTreeSet;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Mnemonic};

use crate::emulator;
use crate::support::lower;
use tconvc_machine::Target;
use tconvc_tile::backend::{self, Settings};
use tconvc_tile::{BinaryOp, Cmp, Elem, Inst, Lanes, Pattern, TileBuilder, UnaryOp};

/// A tile with every kind of instruction.
fn everything(b: &mut TileBuilder) {
    use UnaryOp::{Abs, Ceil, Copy, Floor, Neg, Round, Sqrt, ToFloat, ToInt, Trunc};
    let [x, out] = b.pointers(["x", "out"]);
    let n = b.count("n");
    let lanes = b.lanes();
    b.repeat(n, &[(x, 4)], |b| {
        let mut v = b.load_lanes(x.at(0), Lanes::FirstOf(n));
        let w = b.load_lanes(x.at(1000), Lanes::First(lanes as u8 - 1));
        let g = b.gather(x.at(0), 12, lanes);
        for op in [Copy, Neg, Abs, Sqrt, Floor, Ceil, Trunc, Round, ToInt, ToFloat] {
            v = b.unary(op, v);
        }
        for op in [BinaryOp::Add, BinaryOp::Max, BinaryOp::And, BinaryOp::Xor, BinaryOp::IntSub] {
            v = b.binary(op, v, x.at(64).splat());
        }
        v = b.select(Cmp::Le, v, 3.0, v, g);
        b.fma(v, w, 2.5);
        b.fma_sub(v, w, x.at(64));
        b.horner(v, w, x.at(4).splat());
        v = b.shl(v, 3);
        for seed in 0..40 {
            let pattern = Pattern::new(lanes, |i| (i * (2 * seed + 1) + seed / 3) % (2 * lanes));
            b.push(Inst::Shuffle { dst: v, a: v, b: w, pattern });
        }
        let pair = b.interleave(&[v, w]);
        let v = b.reduce_max(pair[1]);
        let v = b.exp(v);
        b.store_lanes(v, out.at(0), Lanes::FirstOf(n));
        b.store_lanes(v, out.at(0), Lanes::First(3));
        b.store_lanes(v, out.at(0), Lanes::First(lanes as u8 - 1));
        b.store_lane(v, lanes - 1, out.at(0));
        for elem in Elem::ALL {
            for lanes in [Lanes::All, Lanes::First(3), Lanes::First(lanes as u8 - 1), Lanes::FirstOf(n)] {
                let v = b.load_elements(elem, x.at(3), lanes);
                b.store_elements(elem, v, out.at(1), lanes);
            }
            let v = b.load_splat_of(elem, x.at(1));
            b.store(v, out.at(64));
        }
        b.advance_by(x, n, 4);
        b.prefetch(x.at(0));
    });
}

#[test]
fn only_instructions_of_the_level_are_used() {
    use CpuidFeature::{AVX, AVX2, AVX512BW, AVX512DQ, AVX512F, AVX512VL, BMI2, CMOV, F16C, FMA, SSE};
    let old =
        [CpuidFeature::INTEL8086, CpuidFeature::INTEL386, CpuidFeature::X64, CpuidFeature::MULTIBYTENOP];
    let v3 = [AVX, AVX2, FMA, BMI2, CMOV, SSE, F16C];
    let v4 = [AVX512F, AVX512VL, AVX512DQ, AVX512BW];
    for name in ["x86-64-v3", "x86-64-v4"] {
        let target = Target::parse(name).unwrap();
        let mut b = TileBuilder::new("everything", &target);
        everything(&mut b);
        let code = lower(&b.finish().unwrap(), &target);
        let mut allowed: Vec<CpuidFeature> = old.into_iter().chain(v3).collect();
        if name == "x86-64-v4" {
            allowed.extend(v4);
        }
        let (mut used, mut mnemonics) = (BTreeSet::new(), Vec::new());
        for i in &mut Decoder::new(64, &code.bytes, DecoderOptions::NONE) {
            assert!(!i.is_invalid());
            assert!(emulator::knows(i.mnemonic()), "{:?} is not emulated", i.mnemonic());
            mnemonics.push(i.mnemonic());
            if i.mnemonic() == Mnemonic::Ret {
                break;
            }
            used.extend(i.cpuid_features().iter().map(|f| format!("{f:?}")));
            let foreign: Vec<_> = i.cpuid_features().iter().filter(|f| !allowed.contains(f)).collect();
            assert!(foreign.is_empty(), "{:?} needs {foreign:?}, which {name} has not", i.mnemonic());
        }
        assert_eq!(mnemonics[mnemonics.len() - 2..], [Mnemonic::Vzeroupper, Mnemonic::Ret]);
        assert_eq!(used.contains("AVX512F"), name == "x86-64-v4");
    }
}

#[test]
fn splats_and_constants_are_embedded_with_avx_512() {
    let target = Target::parse("x86-64-v4").unwrap();
    let mut b = TileBuilder::new("tile", &target);
    let [x, w] = b.pointers(["x", "w"]);
    let acc = b.load(x.at(0));
    b.fma(acc, acc, w.at(8).splat());
    b.horner(acc, acc, 1.5);
    b.store(acc, x.at(0));
    let code = lower(&b.finish().unwrap(), &target);
    let all: Vec<_> =
        Decoder::new(64, &code.bytes[..code.code_len], DecoderOptions::NONE).into_iter().collect();
    let find = |mnemonic| all.iter().find(|i| i.mnemonic() == mnemonic).unwrap();
    assert!(find(Mnemonic::Vfmadd231ps).is_broadcast() && find(Mnemonic::Vfmadd213ps).is_broadcast());
    assert!(!all.iter().any(|i| i.mnemonic() == Mnemonic::Vbroadcastss));
}

#[test]
fn four_lanes_compile_for_other_machines() {
    for name in ["aarch64", "aarch64-apple-darwin", "x86_64-pc-windows-msvc", "x86-64"] {
        let target = Target::parse(name).unwrap();
        let mut b = TileBuilder::new("everything", &target);
        everything(&mut b);
        let tile = b.finish().unwrap();
        let backend = backend::of(&target, Settings { keep_text: true, ..Settings::default() });
        let code = backend.lower(&backend.allocate(tile).unwrap()).unwrap();
        assert!(code.ir.unwrap().contains("function u0:0(i64, i64, i64)"), "{name}");
        // Cranelift's own disassembly is kept for machines that ours does not know.
        assert_eq!(code.asm.is_some_and(|asm| asm.contains("fmla v")), name.starts_with("aarch64"), "{name}");
    }
}
