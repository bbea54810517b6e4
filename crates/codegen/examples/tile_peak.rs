//! Measures convolution micro-kernels written in the tile IR against the peak of the machine, for each way of code
//! that runs here.
//!
//! `cargo run -p tconvc-codegen --example tile_peak [--release]`: the build profile does not matter, for all that is
//! measured is generated. The tables in `crates/tile/SHAPES.md` came from here.

use std::time::Instant;

use tconvc_codegen::module::{CodeModule, JitCode};
use tconvc_machine::{Isa, Target};
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Address, Pointer, Tile, TileBuilder, TileError, Vector, backend};

type Error = Box<dyn std::error::Error>;

/// Input channels of a kernel: what is read fits the first-level cache.
const CHANNELS: i32 = 64;
/// Taps along a row.
const TAPS: i32 = 3;

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> Result<(), Error> {
    let host = Target::host();
    for isa in Isa::ALL {
        let Some(target) = host.clone().with_isa(isa) else { continue };
        for optimise in [false, true] {
            if optimise && isa != Isa::Portable {
                continue;
            }
            let peak = peak_of(&target)?;
            let level = if optimise { ", optimised" } else { "" };
            println!("\n{target}{level}: peak {peak:.1} GFLOP/s; share of it in %");
            println!("{:>7} {:>9} {:>11} {:>12}", "M x N", "width", "unaligned", "channels");
            for (m, n) in shapes(&target) {
                print!("{:>7}", format!("{m} x {n}"));
                for build in [along_width, along_width_unaligned, along_channels] {
                    let tile = build(&target, m, n)?;
                    let backend = backend::of(&target, backend::Settings::default());
                    if !backend.registers().holds(backend.pressure(&tile)?) {
                        print!(" {:>10}", "-");
                        continue;
                    }
                    let flops = Kernel::compile(&tile, &target, optimise)?.flops_per_ns();
                    print!(" {:>10.0}", 100.0 * flops / peak);
                }
                println!();
            }
        }
    }
    Ok(())
}

/// Shapes worth a look: enough accumulators to hide the latency, not more than there are registers for.
fn shapes(target: &Target) -> Vec<(usize, usize)> {
    let few = [
        (8, 1),
        (1, 8),
        (4, 2),
        (2, 4),
        (3, 3),
        (5, 2),
        (2, 5),
        (6, 2),
        (2, 6),
        (4, 3),
        (3, 4),
        (12, 1),
        (14, 1),
        (1, 14),
    ];
    let many = [
        (8, 1),
        (12, 1),
        (24, 1),
        (28, 1),
        (4, 2),
        (6, 2),
        (8, 2),
        (12, 2),
        (14, 2),
        (4, 3),
        (8, 3),
        (9, 3),
        (3, 4),
        (6, 4),
        (5, 5),
        (4, 6),
        (3, 8),
        (2, 12),
        (2, 6),
        (2, 8),
        (1, 8),
        (1, 16),
        (1, 24),
    ];
    if target.vector_registers() == 16 { few.to_vec() } else { many.to_vec() }
}

/// The peak of vectors of the target's width. Cranelift cannot reach it on x86, so that of twice the width is halved.
fn peak_of(target: &Target) -> Result<f64, Error> {
    if let (Isa::Portable, Some(wider)) = (target.isa(), target.clone().with_isa(Isa::X86V3)) {
        return Ok(peak_of(&wider)? / 2.0);
    }
    let mut best = 0_f64;
    for accumulators in [8, 10, 12] {
        best = best.max(Kernel::compile(&peak(target, accumulators)?, target, false)?.flops_per_ns());
    }
    Ok(best)
}

/// Independent multiply-adds on registers.
fn peak(target: &Target, accumulators: usize) -> Result<Tile, TileError> {
    let mut b = TileBuilder::new("peak", target);
    let [_, _, out] = b.pointers(["x", "w", "out"]);
    let (x, y) = (b.splat(0.999), b.splat(0.5));
    let acc: Vec<Vector> = (0..accumulators).map(|_| b.zero()).collect();
    b.repeat((CHANNELS * TAPS) as u32, &[], |b| acc.iter().for_each(|&acc| b.fma(acc, x, y)));
    store_all(&mut b, &acc, out);
    b.finish()
}

/// Lanes are columns: `m` output channels, `n` vectors of columns; weights are splat, inputs loaded.
fn along_width(target: &Target, m: usize, n: usize) -> Result<Tile, TileError> {
    width(target, m, n, 0)
}

/// The same with taps one column apart, so that two loads of three are not aligned.
fn along_width_unaligned(target: &Target, m: usize, n: usize) -> Result<Tile, TileError> {
    width(target, m, n, 4)
}

fn width(target: &Target, m: usize, n: usize, tap_bytes: i32) -> Result<Tile, TileError> {
    let mut b = TileBuilder::new("width", target);
    let [x, w, out] = b.pointers(["x", "w", "out"]);
    let acc: Vec<Vector> = (0..m * n).map(|_| b.zero()).collect();
    let row = b.vector_bytes() * (n as i32 + 1);
    b.repeat(CHANNELS as u32, &[(x, row), (w, 4 * TAPS * m as i32)], |b| {
        for tap in 0..TAPS {
            outer_product(b, &acc, w.at(4 * tap * m as i32), m, x.at(tap * tap_bytes), n);
        }
    });
    store_all(&mut b, &acc, out);
    b.finish()
}

/// Lanes are output channels: `m` pixels, `n` vectors of channels; inputs are splat, weights loaded.
fn along_channels(target: &Target, m: usize, n: usize) -> Result<Tile, TileError> {
    let mut b = TileBuilder::new("channels", target);
    let [x, w, out] = b.pointers(["x", "w", "out"]);
    let acc: Vec<Vector> = (0..m * n).map(|_| b.zero()).collect();
    let weights = b.vector_bytes() * n as i32;
    b.repeat(CHANNELS as u32, &[(x, 4 * (m as i32 + TAPS)), (w, TAPS * weights)], |b| {
        for tap in 0..TAPS {
            outer_product(b, &acc, x.float(tap), m, w.at(tap * weights), n);
        }
    });
    store_all(&mut b, &acc, out);
    b.finish()
}

/// `acc[i][j] += splats[i] * vectors[j]`, for `m` splats and `n` vectors that follow each other in memory. The fewer
/// are kept in registers, the others loaded in turn.
fn outer_product(b: &mut TileBuilder, acc: &[Vector], splats: Address, m: usize, vectors: Address, n: usize) {
    let step = b.vector_bytes();
    let splat = |i: usize| splats.plus(4 * i as i32);
    let vector = |j: usize| vectors.plus(step * j as i32);
    if n <= m {
        let kept: Vec<Vector> = (0..n).map(|j| b.load(vector(j))).collect();
        for i in 0..m {
            // An operand of the instruction where it is used but once.
            if n == 1 {
                (0..n).for_each(|j| b.fma(acc[i * n + j], kept[j], splat(i).splat()));
            } else {
                let one = b.load_splat(splat(i));
                (0..n).for_each(|j| b.fma(acc[i * n + j], kept[j], one));
            }
        }
    } else {
        let kept: Vec<Vector> = (0..m).map(|i| b.load_splat(splat(i))).collect();
        for j in 0..n {
            let one = b.load(vector(j));
            (0..m).for_each(|i| b.fma(acc[i * n + j], kept[i], one));
        }
    }
}

fn store_all(b: &mut TileBuilder, acc: &[Vector], out: Pointer) {
    for (i, &acc) in acc.iter().enumerate() {
        let at = out.at(b.vector_bytes() * i as i32);
        b.store(acc, at);
    }
}

struct Kernel {
    code: JitCode,
    id: FunctionId,
    flops: f64,
    buffers: Vec<Vec<f32>>,
}

impl Kernel {
    fn compile(tile: &Tile, target: &Target, optimise: bool) -> Result<Kernel, Error> {
        let mut module = CodeModule::new(target)?;
        if optimise {
            module = module.optimise_tiles();
        }
        let id = module.tile(tile.clone())?;
        let code = module.lower()?.finish()?;
        let accumulators = tile.to_string().lines().filter(|l| l.contains("store")).count();
        let flops = 2.0 * accumulators as f64 * f64::from(CHANNELS * TAPS) * target.lanes() as f64;
        // Ones keep the numbers away from denormals.
        let buffers = vec![vec![1.0; 1 << 16]; 3];
        Ok(Kernel { code, id, flops, buffers })
    }

    /// The best of many short measurements, since others use the machine, too.
    fn flops_per_ns(&mut self) -> f64 {
        // Aligned to a vector of any width.
        let pointers: Vec<*mut u8> = self
            .buffers
            .iter_mut()
            .map(|b| {
                let skip = b.as_ptr().align_offset(64);
                b[skip..].as_mut_ptr().cast()
            })
            .collect();
        let repeats = (5e6 / self.flops) as u32 + 1;
        let mut best = f64::INFINITY;
        for _ in 0..60 {
            let start = Instant::now();
            for _ in 0..repeats {
                // SAFETY: no kernel here touches more than the first 64 Ki floats of its three buffers.
                unsafe { self.code.call_tile(self.id, &pointers, &[]) };
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(repeats));
        }
        self.flops / best
    }
}
