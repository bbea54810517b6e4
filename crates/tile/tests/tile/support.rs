//! Runs a tile in the interpreter and as machine code of every target that runs here, and compares all memory.

use crate::emulator;
use crate::placed::Placed;
use tconvc_machine::{Isa, Target};
use tconvc_testing::{Edge, Guarded};
use tconvc_tile::backend::{self, AllocatedTile, MachineCode, Settings};
use tconvc_tile::{Interpreter, Memory, Rounding, Tile, TileBuilder, TileError};

/// The tile with registers of the target.
pub fn allocate(tile: Tile, target: &Target) -> Result<AllocatedTile, TileError> {
    backend::of(target, Settings::default()).allocate(tile)
}

/// The machine code of a tile that fits.
pub fn lower(tile: &Tile, target: &Target) -> MachineCode {
    let backend = backend::of(target, Settings::default());
    backend.lower(&backend.allocate(tile.clone()).unwrap()).unwrap()
}

/// Every kind of code that this machine can run, by itself or emulated.
pub fn targets() -> Vec<Target> {
    let mut all = vec![Target::parse("portable").unwrap(), Target::host()];
    for name in ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"] {
        let target = Target::parse(name).unwrap();
        all.extend(target.clone().with_isa(Isa::Portable));
        all.push(target);
    }
    all.retain(|target| target.runs_here() || target.isa() != Isa::Portable);
    let mut unique: Vec<Target> = Vec::new();
    for target in all {
        if !unique.iter().any(|u| u.to_string() == target.to_string()) {
            unique.push(target);
        }
    }
    unique
}

/// A tile run: one buffer and a byte offset into it for each pointer parameter.
#[derive(Clone, Debug)]
pub struct Case {
    pub buffers: Vec<Vec<f32>>,
    pub offsets: Vec<i64>,
    pub counts: Vec<u64>,
    /// Buffers hold other things than f32: a NaN must be the same NaN.
    pub exact: bool,
}

impl Case {
    pub fn new(buffers: Vec<Vec<f32>>, counts: &[u64]) -> Case {
        let offsets = vec![0; buffers.len()];
        Case { buffers, offsets, counts: counts.to_vec(), exact: false }
    }

    /// Buffers of bytes, each a multiple of four.
    pub fn bytes(buffers: &[Vec<u8>], counts: &[u64]) -> Case {
        let floats = |bytes: &Vec<u8>| {
            assert_eq!(bytes.len() % 4, 0);
            bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        Case { exact: true, ..Case::new(buffers.iter().map(floats).collect(), counts) }
    }
}

/// The buffers after the interpreter ran the tile.
pub fn interpret(tile: &Tile, target: &Target, case: &Case) -> Vec<Vec<f32>> {
    let rounding = if target.has_fma() { Rounding::Fused } else { Rounding::Separate };
    let mut memory = Memory::new();
    let pointers: Vec<(usize, i64)> =
        case.buffers.iter().zip(&case.offsets).map(|(b, &offset)| (memory.add(b), offset)).collect();
    Interpreter::run(tile, rounding, &mut memory, &pointers, &case.counts).unwrap();
    (0..case.buffers.len()).map(|b| memory.floats(b)).collect()
}

/// The buffers after machine code ran, between guard pages, or in the emulator where it cannot run.
pub fn execute(tile: &Tile, target: &Target, case: &Case, edge: Edge) -> Vec<Vec<f32>> {
    if !target.runs_here() {
        return emulate(tile, target, case);
    }
    let code = Placed::new(&lower(tile, target));
    let mut blocks: Vec<Guarded> = vec![];
    for floats in &case.buffers {
        let mut block = Guarded::new(4 * floats.len(), edge);
        for (bytes, float) in block.as_chunks_mut().0.iter_mut().zip(floats) {
            *bytes = float.to_ne_bytes();
        }
        blocks.push(block);
    }
    let pointers = blocks
        .iter_mut()
        .zip(&case.offsets)
        .map(|(block, &offset)| block.as_mut_ptr().wrapping_offset(offset as isize).expose_provenance());
    let args: Vec<usize> = pointers.chain(case.counts.iter().map(|&n| n as usize)).collect();
    // SAFETY: the interpreter ran the same tile on buffers of the same sizes without leaving them.
    unsafe { code.call(&args) };
    let floats =
        |block: &Guarded| block.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
    blocks.iter().map(floats).collect()
}

/// The buffers after the emulator ran the machine code.
pub fn emulate(tile: &Tile, target: &Target, case: &Case) -> Vec<Vec<f32>> {
    let code = lower(tile, target);
    emulator::run(&code, target.convention(), &case.buffers, &case.offsets, &case.counts)
}

/// Equal bits, or both NaN.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Builds the tile for each target and asserts that machine code and interpreter leave the same memory behind.
pub fn agree(build: impl Fn(&mut TileBuilder), case: impl Fn(usize) -> Case) {
    for target in targets() {
        agree_on(&target, &build, &case).unwrap();
    }
}

/// As [`agree`], on one target; the error is that the tile is not valid there.
pub fn agree_on(
    target: &Target,
    build: impl Fn(&mut TileBuilder),
    case: impl Fn(usize) -> Case,
) -> Result<(), TileError> {
    let mut builder = TileBuilder::new("tile", target);
    build(&mut builder);
    let tile = allocate(builder.finish()?, target)?.tile().clone();
    let case = case(target.lanes());
    let expected = interpret(&tile, target, &case);
    let edges: &[Edge] = if target.runs_here() { &Edge::ALL } else { &[] };
    let mut results: Vec<_> = edges.iter().map(|&edge| execute(&tile, target, &case, edge)).collect();
    if target.isa() != Isa::Portable {
        results.push(emulate(&tile, target, &case));
    }
    for got in results {
        for (buffer, (e, g)) in expected.iter().zip(&got).enumerate() {
            for (i, (&e, &g)) in e.iter().zip(g).enumerate() {
                assert!(
                    e.to_bits() == g.to_bits() || !case.exact && same(e, g),
                    "{target}: float {i} of buffer {buffer} is {g:?} ({:#x}), expected {e:?} ({:#x})\n{tile}",
                    g.to_bits(),
                    e.to_bits(),
                );
            }
        }
    }
    Ok(())
}

/// A small reproducible generator.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Between -8 and 8.
    pub fn float(&mut self) -> f32 {
        (self.next() % 65536) as f32 / 4096.0 - 8.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Numbers that are easily got wrong, padded to a multiple of 16.
pub fn specials() -> Vec<f32> {
    let mut all = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -1.5,
        -2.5,
        0.499_999_97,
        1e-45,
        -1e-45,
        1.1e-38,
        3.4e38,
        -3.4e38,
        8_388_607.5,
        8_388_608.0,
        8_388_609.0,
        -8_388_607.5,
        16_777_216.0,
        2e9,
        -2e9,
        0.3,
        -0.7,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::EPSILON,
    ];
    all.resize(all.len().next_multiple_of(16), 7.25);
    all
}
