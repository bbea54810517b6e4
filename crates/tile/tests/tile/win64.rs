//! Wide tiles in the calling convention of Windows: emulated on every machine, and called as Windows would where the
//! processor has their instructions.

use crate::random;
use crate::support::{Case, Random, agree_on, interpret, lower};
use tconvc_machine::Target;
use tconvc_tile::{Lanes, TileBuilder, TileErrorKind, Vector};

const WIDE: [&str; 2] = ["x86_64-pc-windows-msvc+v3", "x86_64-pc-windows-gnu+v4"];

fn targets() -> [Target; 2] {
    WIDE.map(|name| Target::parse(name).unwrap())
}

/// Ten parameters, and as many registers as there are.
fn greedy(b: &mut TileBuilder) {
    let inputs = b.pointers(["a", "b", "c", "d", "e", "f"]);
    let out = b.pointer("out");
    let counts = [b.count("n"), b.count("m"), b.count("k")];
    let step = b.vector_bytes();
    let acc: Vec<Vector> = (0..b.target().vector_registers() - 2).map(|i| b.splat(i as f32)).collect();
    for (i, n) in counts.into_iter().enumerate() {
        b.repeat(n, &[], |b| {
            for (k, x) in inputs.into_iter().enumerate() {
                let v = b.load_lanes(x.at(step * i as i32), Lanes::FirstOf(n));
                acc.iter().skip(k).step_by(6).for_each(|&acc| b.fma(acc, v, 0.25));
            }
        });
    }
    // General registers for all that is left.
    let more: Vec<_> = (0..4).map(|i| b.derive(out, i * step)).collect();
    for (i, acc) in acc.into_iter().enumerate() {
        let at = more[i % 4].at(4 * step * (i / 4) as i32);
        b.store(acc, at);
    }
}

fn greedy_case(target: &Target) -> Case {
    let mut random = Random(11);
    let lanes = target.lanes();
    let mut buffers: Vec<Vec<f32>> = (0..6).map(|_| random.floats(3 * lanes)).collect();
    buffers.push(vec![9.0; 32 * lanes]);
    Case::new(buffers, &[2, 3, 1])
}

#[test]
fn tiles_agree_in_the_emulator() {
    for target in targets() {
        assert_eq!(target.convention().name, "Win64");
        agree_on(&target, greedy, |_| greedy_case(&target)).unwrap();
        for seed in 0..60 {
            let case = |lanes: usize| {
                Case::new(vec![Random(seed).floats(8 * lanes), vec![9.0; 16 * lanes]], &[seed % 7])
            };
            if let Err(error) = agree_on(&target, |b| random::write(b, seed), case) {
                assert!(matches!(error.kind, TileErrorKind::Registers { .. }), "{error}");
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", unix))]
#[test]
fn tiles_can_be_called_and_keep_what_is_the_callers() {
    for (target, level) in targets().iter().zip(["x86-64-v3", "x86-64-v4"]) {
        let mut b = TileBuilder::new("greedy", target);
        greedy(&mut b);
        let (tile, case) = (b.finish().unwrap(), greedy_case(target));
        let code = lower(&tile, target);
        if !Target::parse(level).unwrap().runs_here() {
            continue;
        }
        let placed = crate::placed::Placed::new(&code);
        let wanted = interpret(&tile, target, &case);
        for guarded in [false, true] {
            let mut buffers = case.buffers.clone();
            let pointers = buffers.iter_mut().map(|b| b.as_mut_ptr().expose_provenance());
            let args: Vec<usize> = pointers.chain(case.counts.iter().map(|&n| n as usize)).collect();
            assert_eq!(args.len(), 10);
            let before: [u64; 25] = std::array::from_fn(|i| 0x0123_4567_89ab_cd00 + i as u64);
            let mut kept = before;
            // SAFETY: the interpreter ran the tile on buffers of these sizes without leaving them.
            unsafe {
                if guarded {
                    placed.call_win64_guarded(&args, &mut kept);
                } else {
                    placed.call_win64(&args);
                }
            }
            assert_eq!(kept, before, "{target}");
            for (wanted, found) in wanted.iter().zip(&buffers) {
                let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
                assert_eq!(bits(wanted), bits(found), "{target}");
            }
        }
    }
}
