//! A slow interpreter of tiles, lane by lane with bounds checked: the meaning that every lowering must agree with.

use super::elem::{Elem, LANE_BYTES};
use super::ir::{
    Address, BinaryOp, Cmp, FmaOp, Inst, Lanes, Loop, Operand, Pointer, ShiftOp, Stmt, Tile, Trips, UnaryOp,
    Vector,
};

/// How often a multiply-add rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Once, as on targets with a fused multiply-add.
    Fused,
    /// Twice, as on targets without.
    Separate,
}

/// What the pointers of a tile point into: some buffers of bytes. A pointer is a buffer and an offset in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    buffers: Vec<Vec<u8>>,
}

impl Memory {
    /// No buffers.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Adds a buffer and returns its number.
    pub fn add(&mut self, floats: &[f32]) -> usize {
        self.add_bytes(floats.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// Adds a buffer of any elements, little-endian, and returns its number.
    pub fn add_bytes(&mut self, bytes: Vec<u8>) -> usize {
        self.buffers.push(bytes);
        self.buffers.len() - 1
    }

    /// The bytes of a buffer; none where there is no such buffer.
    pub fn bytes(&self, buffer: usize) -> &[u8] {
        self.buffers.get(buffer).map_or(&[][..], Vec::as_slice)
    }

    /// The content of a buffer; none where there is no such buffer.
    pub fn floats(&self, buffer: usize) -> Vec<f32> {
        self.bytes(buffer).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn element(&mut self, (buffer, offset): (usize, i64), elem: Elem) -> Option<&mut [u8]> {
        let start = usize::try_from(offset).ok()?;
        self.buffers.get_mut(buffer)?.get_mut(start..)?.get_mut(..elem.bytes() as usize)
    }
}

/// An access outside the buffers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{inst}` touches byte {offset} of buffer {buffer}, which is outside")]
pub struct OutOfBounds {
    inst: String,
    buffer: usize,
    offset: i64,
}

/// Runs one tile.
#[derive(Debug)]
pub struct Interpreter<'a> {
    tile: &'a Tile,
    rounding: Rounding,
    memory: &'a mut Memory,
    vectors: Vec<[u32; 16]>,
    pointers: Vec<(usize, i64)>,
    counts: &'a [u64],
}

impl<'a> Interpreter<'a> {
    /// Runs `tile` on `memory`; `pointers` are pairs of buffer and byte offset, in the order of the parameters.
    ///
    /// # Errors
    /// The first access that leaves its buffer.
    ///
    /// # Panics
    /// Where `counts` are fewer than the tile's.
    pub fn run(
        tile: &'a Tile,
        rounding: Rounding,
        memory: &'a mut Memory,
        pointers: &[(usize, i64)],
        counts: &'a [u64],
    ) -> Result<(), OutOfBounds> {
        let mut all = pointers.to_vec();
        all.resize(tile.pointers.len(), (usize::MAX, 0));
        let vectors = vec![[0; 16]; tile.vectors as usize];
        Interpreter { tile, rounding, memory, vectors, pointers: all, counts }.block(&tile.body)
    }

    fn block(&mut self, block: &[Stmt]) -> Result<(), OutOfBounds> {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => self.inst(inst)?,
                Stmt::Loop(l) => self.run_loop(l)?,
            }
        }
        Ok(())
    }

    fn run_loop(&mut self, l: &Loop) -> Result<(), OutOfBounds> {
        let trips = match l.trips {
            Trips::Const(n) => u64::from(n),
            Trips::Param(n) => self.counts[n.0 as usize],
            Trips::Any(v) => {
                let lanes = &self.vectors[v.0 as usize][..self.tile.lanes];
                u64::from(lanes.iter().any(|bits| bits >> 31 == 1))
            }
        };
        for _ in 0..trips {
            self.block(&l.body)?;
            for &(p, bytes) in &l.advances {
                self.pointers[p.0 as usize].1 += i64::from(bytes);
            }
        }
        Ok(())
    }

    fn element(
        &mut self,
        inst: &Inst,
        at: Address,
        bytes: i64,
        elem: Elem,
    ) -> Result<&mut [u8], OutOfBounds> {
        let (buffer, base) = self.pointers[at.pointer.0 as usize];
        let offset = base + i64::from(at.bytes) + bytes;
        let tile = self.tile;
        self.memory.element((buffer, offset), elem).ok_or_else(|| OutOfBounds {
            inst: tile.show(inst),
            buffer,
            offset,
        })
    }

    /// A lane from the element `bytes` behind an address.
    fn read(&mut self, inst: &Inst, at: Address, bytes: i64, elem: Elem) -> Result<u32, OutOfBounds> {
        let element = self.element(inst, at, bytes, elem)?;
        Ok(elem.widen(element.iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte))))
    }

    fn write(
        &mut self,
        inst: &Inst,
        at: Address,
        bytes: i64,
        elem: Elem,
        lane: u32,
    ) -> Result<(), OutOfBounds> {
        let element = self.element(inst, at, bytes, elem)?;
        element.copy_from_slice(&elem.narrow(lane).to_le_bytes()[..element.len()]);
        Ok(())
    }

    fn operand(&mut self, inst: &Inst, b: Operand) -> Result<[u32; 16], OutOfBounds> {
        Ok(match b {
            Operand::Vector(v) => self.get(v),
            Operand::Bits(bits) => [bits; 16],
            Operand::Splat(at) => [self.read(inst, at, 0, Elem::F32)?; 16],
            Operand::Memory(at) => {
                let mut all = [0; 16];
                for (i, lane) in all.iter_mut().enumerate().take(self.tile.lanes) {
                    *lane = self.read(inst, at, i64::from(LANE_BYTES) * i as i64, Elem::F32)?;
                }
                all
            }
        })
    }

    fn touched(&self, lanes: Lanes) -> usize {
        match lanes {
            Lanes::All => self.tile.lanes,
            Lanes::First(n) => usize::from(n),
            Lanes::FirstOf(n) => self.counts[n.0 as usize].min(self.tile.lanes as u64) as usize,
        }
    }

    fn get(&self, v: Vector) -> [u32; 16] {
        self.vectors[v.0 as usize]
    }

    fn set(&mut self, v: Vector, lane: impl Fn(usize) -> u32) {
        let lanes = self.tile.lanes;
        self.vectors[v.0 as usize] = std::array::from_fn(|i| if i < lanes { lane(i) } else { 0 });
    }

    fn moved(&self, p: Pointer, bytes: i64) -> (usize, i64) {
        let (buffer, offset) = self.pointers[p.0 as usize];
        (buffer, offset + bytes)
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), OutOfBounds> {
        match *inst {
            Inst::Const { dst, bits } => self.set(dst, |_| bits),
            Inst::Load { dst, at, lanes, elem } => {
                let mut all = [0; 16];
                for (i, lane) in all.iter_mut().enumerate().take(self.touched(lanes)) {
                    *lane = self.read(inst, at, i64::from(elem.bytes()) * i as i64, elem)?;
                }
                self.set(dst, |i| all[i]);
            }
            Inst::Store { src, at, lanes, elem } => {
                for i in 0..self.touched(lanes) {
                    self.write(inst, at, i64::from(elem.bytes()) * i as i64, elem, self.get(src)[i])?;
                }
            }
            Inst::LoadSplat { dst, at, elem } => {
                let value = self.read(inst, at, 0, elem)?;
                self.set(dst, |_| value);
            }
            Inst::Gather { dst, at, stride, lanes } => {
                let mut all = [0; 16];
                for (i, lane) in all.iter_mut().enumerate().take(usize::from(lanes)) {
                    *lane = self.read(inst, at, i64::from(stride) * i as i64, Elem::F32)?;
                }
                self.set(dst, |i| all[i]);
            }
            Inst::StoreLane { src, lane, at } => {
                self.write(inst, at, 0, Elem::F32, self.get(src)[usize::from(lane)])?;
            }
            Inst::Unary { op, dst, a } => {
                let a = self.get(a);
                self.set(dst, |i| unary(op, a[i]));
            }
            Inst::Binary { op, dst, a, b } => {
                let (a, b) = (self.get(a), self.operand(inst, b)?);
                self.set(dst, |i| binary(op, a[i], b[i]));
            }
            Inst::Shift { op, dst, a, by } => {
                let a = self.get(a);
                self.set(dst, |i| match op {
                    ShiftOp::Left => a[i] << by,
                    ShiftOp::Right => a[i] >> by,
                    ShiftOp::RightSigned => (a[i] as i32 >> by) as u32,
                });
            }
            Inst::Fma { op, dst, a, b } => {
                let (d, a, b) = (self.get(dst), self.get(a), self.operand(inst, b)?);
                let rounding = self.rounding;
                self.set(dst, |i| {
                    let [d, a, b] = [d[i], a[i], b[i]].map(f32::from_bits);
                    match op {
                        FmaOp::Add => multiply_add(rounding, a, b, d),
                        FmaOp::Sub => multiply_add(rounding, -a, b, d),
                        FmaOp::Horner => multiply_add(rounding, d, a, b),
                    }
                    .to_bits()
                });
            }
            Inst::Select { cmp, dst, a, b, yes, no } => {
                let (a, b) = (self.get(a), self.operand(inst, b)?);
                let (yes, no) = (self.get(yes), self.get(no));
                self.set(dst, |i| if compare(cmp, a[i], b[i]) { yes[i] } else { no[i] });
            }
            Inst::Shuffle { dst, a, b, pattern } => {
                let (a, b, lanes) = (self.get(a), self.get(b), self.tile.lanes);
                self.set(dst, |i| {
                    let from = pattern.get(i);
                    if from < lanes { a[from] } else { b[from - lanes] }
                });
            }
            Inst::Derive { dst, base, bytes } => {
                self.pointers[dst.0 as usize] = self.moved(base, i64::from(bytes));
            }
            Inst::Advance { pointer, bytes } => {
                self.pointers[pointer.0 as usize] = self.moved(pointer, i64::from(bytes));
            }
            Inst::AdvanceBy { pointer, count, bytes } => {
                let bytes = i64::from(bytes) * self.counts[count.0 as usize] as i64;
                self.pointers[pointer.0 as usize] = self.moved(pointer, bytes);
            }
            Inst::Prefetch { .. } => {}
        }
        Ok(())
    }
}

fn multiply_add(rounding: Rounding, a: f32, b: f32, c: f32) -> f32 {
    match rounding {
        Rounding::Fused => a.mul_add(b, c),
        Rounding::Separate => a * b + c,
    }
}

fn unary(op: UnaryOp, bits: u32) -> u32 {
    let x = f32::from_bits(bits);
    match op {
        UnaryOp::Copy => bits,
        UnaryOp::Neg => bits ^ 1 << 31,
        UnaryOp::Abs => bits & !(1 << 31),
        UnaryOp::Sqrt => x.sqrt().to_bits(),
        UnaryOp::Floor => x.floor().to_bits(),
        UnaryOp::Ceil => x.ceil().to_bits(),
        UnaryOp::Trunc => x.trunc().to_bits(),
        UnaryOp::Round => x.round_ties_even().to_bits(),
        UnaryOp::ToInt => x as i32 as u32,
        UnaryOp::ToFloat => (bits as i32 as f32).to_bits(),
    }
}

fn binary(op: BinaryOp, a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    match op {
        BinaryOp::Add => (x + y).to_bits(),
        BinaryOp::Sub => (x - y).to_bits(),
        BinaryOp::Mul => (x * y).to_bits(),
        BinaryOp::Div => (x / y).to_bits(),
        BinaryOp::Max => {
            if x > y {
                a
            } else {
                b
            }
        }
        BinaryOp::Min => {
            if x < y {
                a
            } else {
                b
            }
        }
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::IntAdd => a.wrapping_add(b),
        BinaryOp::IntSub => a.wrapping_sub(b),
        BinaryOp::IntMul => a.wrapping_mul(b),
        BinaryOp::IntMax => (a as i32).max(b as i32) as u32,
        BinaryOp::IntMin => (a as i32).min(b as i32) as u32,
    }
}

fn compare(cmp: Cmp, a: u32, b: u32) -> bool {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    match cmp {
        Cmp::Eq => x == y,
        Cmp::Ne => x != y,
        Cmp::Lt => x < y,
        Cmp::Le => x <= y,
        Cmp::Gt => x > y,
        Cmp::Ge => x >= y,
    }
}
