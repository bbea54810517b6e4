//! Register assignment: live ranges of virtual registers, mapped one to one to numbered registers. No spilling.
//!
//! A value keeps its register from its first definition to its last use. What is defined outside a loop and used in
//! it lives to the loop's end. Ranges of that shape form an interval graph, which a scan in order of their starts
//! colours with as few registers as can be.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::error::{TileError, TileErrorKind};
use crate::ir::{Inst, Stmt, Tile, Trips};

/// What the lowering of an instruction wants beside its operands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Scratch vector registers.
    pub vectors: usize,
    /// Scratch general registers.
    pub generals: usize,
    /// The destination is written before all sources and scratch registers have been read, so it cannot share a
    /// register with one that ends here.
    pub early: bool,
}

/// Scratch registers of one instruction, as many as it [`Needs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Numbers of vector registers.
    pub vectors: Vec<u8>,
    /// Numbers of general registers.
    pub generals: Vec<u8>,
}

/// Register numbers of everything in a tile.
///
/// Positions count instructions, heads of loops and ends of loops in the order of the listing. General register
/// number `i < args` is where parameter `i` arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Of each vector.
    pub vectors: Vec<u8>,
    /// `None` where the pointer is never used.
    pub pointers: Vec<Option<u8>>,
    /// `None` where the count is never used.
    pub counts: Vec<Option<u8>>,
    /// By position, where there is any; the counter of a loop is the scratch general register of its head.
    pub scratch: BTreeMap<u32, Scratch>,
}

/// Registers to be had, and how many parameters arrive in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterFile {
    /// Vector registers.
    pub vectors: usize,
    /// General registers for pointers, counts and counters of loops.
    pub generals: usize,
    /// So many parameters arrive in general registers, number `i` in register `i`; the others come on the stack.
    pub args: usize,
}

impl RegisterFile {
    /// Whether a tile of this pressure fits.
    pub fn holds(self, pressure: Pressure) -> bool {
        pressure.vectors <= self.vectors && pressure.generals <= self.generals
    }
}

/// How many registers a tile needs: the most that live at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Vector registers.
    pub vectors: usize,
    /// General registers.
    pub generals: usize,
}

/// Live ranges of vector registers, and of general ones.
fn ranges(tile: &Tile, needs: impl Fn(&Inst) -> Needs) -> (Vec<Range>, Vec<Range>) {
    let mut walk = Liveness::new(tile, &needs);
    walk.block(&tile.body);
    walk.ranges.into_iter().flatten().filter(|r| r.end > r.start).partition(|r| r.value.is_vector())
}

/// The most registers that live at one place.
pub(super) fn pressure(tile: &Tile, needs: impl Fn(&Inst) -> Needs) -> Pressure {
    let most = |ranges: Vec<Range>| {
        let mut ticks: Vec<(u32, bool)> =
            ranges.iter().flat_map(|r| [(r.start, true), (r.end, false)]).collect();
        // What ends at a tick leaves its register to what starts there.
        ticks.sort_unstable();
        let (mut live, mut most) = (0, 0);
        for (_, starts) in ticks {
            live = if starts { live + 1 } else { live - 1 };
            most = most.max(live);
        }
        most
    };
    let (vectors, generals) = ranges(tile, needs);
    Pressure { vectors: most(vectors), generals: most(generals) }
}

/// Maps the tile's registers to numbers.
pub(super) fn assign(
    tile: &Tile,
    file: RegisterFile,
    needs: impl Fn(&Inst) -> Needs,
) -> Result<Assignment, TileError> {
    let (vectors, generals) = ranges(tile, needs);
    let mut result = Assignment {
        vectors: vec![0; tile.vectors as usize],
        pointers: vec![None; tile.pointers.len()],
        counts: vec![None; tile.counts.len()],
        scratch: BTreeMap::new(),
    };
    let vectors = color(tile, vectors, file.vectors, 0)?;
    let generals = color(tile, generals, file.generals, file.args)?;
    let numbered = vectors.into_iter().chain(generals);
    for (value, number) in numbered {
        match value {
            Value::Vector(v) => result.vectors[v as usize] = number,
            Value::Pointer(p) => result.pointers[p as usize] = Some(number),
            Value::Count(n) => result.counts[n as usize] = Some(number),
            Value::ScratchVector(at) => result.scratch.entry(at).or_default().vectors.push(number),
            Value::ScratchGeneral(at) => result.scratch.entry(at).or_default().generals.push(number),
        }
    }
    Ok(result)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Vector(u32),
    Pointer(u32),
    Count(u32),
    ScratchVector(u32),
    ScratchGeneral(u32),
}

impl Value {
    fn is_vector(self) -> bool {
        matches!(self, Value::Vector(_) | Value::ScratchVector(_))
    }
}

/// A half-open range of ticks. Position `p` reads at tick `4p`, writes at tick `4p + 2`.
#[derive(Clone, Copy, Debug)]
struct Range {
    value: Value,
    start: u32,
    end: u32,
    /// Loops open at the definition, see [`Liveness::open`].
    depth: u32,
    /// Number of the parameter, for those.
    param: Option<u32>,
}

const READ: u32 = 0;
const READ_END: u32 = 1;
const WRITE: u32 = 2;
const WRITE_END: u32 = 3;

struct Liveness<'a, F> {
    needs: &'a F,
    /// Vectors, then pointers, then counts; scratch is appended.
    ranges: Vec<Option<Range>>,
    pointers_at: usize,
    counts_at: usize,
    positions: u32,
    /// Values used inside each open loop that were defined outside it: they live on to its end.
    open: Vec<Vec<usize>>,
}

impl<'a, F: Fn(&Inst) -> Needs> Liveness<'a, F> {
    fn new(tile: &Tile, needs: &'a F) -> Self {
        let pointers_at = tile.vectors as usize;
        let counts_at = pointers_at + tile.pointers.len();
        let ranges = vec![None; counts_at + tile.counts.len()];
        let mut liveness = Liveness { needs, ranges, pointers_at, counts_at, positions: 0, open: Vec::new() };
        // Parameters live from the start, but only those that are used get an end.
        let param = |value, number| {
            Some(Range { value, start: READ, end: READ, depth: 0, param: Some(number as u32) })
        };
        for p in 0..tile.pointer_params {
            liveness.ranges[pointers_at + p] = param(Value::Pointer(p as u32), p);
        }
        for n in 0..tile.counts.len() {
            liveness.ranges[counts_at + n] = param(Value::Count(n as u32), tile.pointer_params + n);
        }
        liveness
    }

    fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => self.inst(inst),
                Stmt::Loop(l) => {
                    let head = self.next_position();
                    match l.trips {
                        Trips::Const(_) => {}
                        Trips::Param(n) => self.use_at(self.counts_at + n.0 as usize, head),
                        Trips::Any(v) => self.use_at(v.0 as usize, head),
                    }
                    self.open.push(Vec::new());
                    self.block(&l.body);
                    let end = self.next_position();
                    for &(p, _) in &l.advances {
                        self.use_at(self.pointers_at + p.0 as usize, end);
                    }
                    for id in self.open.pop().unwrap_or_default() {
                        self.extend(id, 4 * end + WRITE_END);
                    }
                    self.scratch(Value::ScratchGeneral(head), 4 * head + WRITE, 4 * end + WRITE_END);
                }
            }
        }
    }

    fn inst(&mut self, inst: &Inst) {
        let position = self.next_position();
        inst.for_each_use(|v| self.use_at(v.0 as usize, position));
        if let Some(p) = inst.pointer() {
            self.use_at(self.pointers_at + p.0 as usize, position);
        }
        if let Some(n) = inst.count() {
            self.use_at(self.counts_at + n.0 as usize, position);
        }
        let needs = (self.needs)(inst);
        if let Some(v) = inst.defines() {
            self.define_at(v.0 as usize, Value::Vector(v.0), position, needs.early);
        }
        if let Inst::Derive { dst, .. } = *inst {
            self.define_at(self.pointers_at + dst.0 as usize, Value::Pointer(dst.0), position, false);
        }
        let end = 4 * position + if needs.early { WRITE_END } else { READ_END };
        for _ in 0..needs.vectors {
            self.scratch(Value::ScratchVector(position), 4 * position, end);
        }
        for _ in 0..needs.generals {
            self.scratch(Value::ScratchGeneral(position), 4 * position, 4 * position + WRITE_END);
        }
    }

    fn next_position(&mut self) -> u32 {
        self.positions += 1;
        self.positions - 1
    }

    fn scratch(&mut self, value: Value, start: u32, end: u32) {
        self.ranges.push(Some(Range { value, start, end, depth: 0, param: None }));
    }

    fn use_at(&mut self, id: usize, position: u32) {
        self.extend(id, 4 * position + READ_END);
        if let Some(range) = self.ranges[id] {
            for outside in self.open.iter_mut().skip(range.depth as usize) {
                outside.push(id);
            }
        }
    }

    fn define_at(&mut self, id: usize, value: Value, position: u32, early: bool) {
        if self.ranges[id].is_some() {
            // Written again: the register stays its own all the while.
            self.use_at(id, position);
            self.extend(id, 4 * position + WRITE_END);
            return;
        }
        let start = 4 * position + if early { READ } else { WRITE };
        let depth = self.open.len() as u32;
        self.ranges[id] = Some(Range { value, start, end: 4 * position + WRITE_END, depth, param: None });
    }

    fn extend(&mut self, id: usize, tick: u32) {
        if let Some(range) = &mut self.ranges[id] {
            range.end = range.end.max(tick);
        }
    }
}

/// Numbers for ranges of one class, `available` being the number of registers.
fn color(
    tile: &Tile,
    mut ranges: Vec<Range>,
    available: usize,
    args: usize,
) -> Result<Vec<(Value, u8)>, TileError> {
    // Parameters first, in order, so that each finds the register it arrives in free.
    ranges.sort_by_key(|r| (r.start, r.param.is_none(), r.param));
    // A bit for each free register, and the ends of those in use, the first on top.
    let mut free = u64::MAX.checked_shr(u64::BITS - available as u32).unwrap_or(0);
    let mut active: BinaryHeap<Reverse<(u32, u8)>> = BinaryHeap::new();
    let mut numbered = Vec::with_capacity(ranges.len());
    for range in ranges {
        while let Some(&Reverse((end, number))) = active.peek()
            && end <= range.start
        {
            free |= 1 << number;
            active.pop();
        }
        let param = range.param.map(|param| param as usize).filter(|&param| param < args);
        let number = param.unwrap_or(free.trailing_zeros() as usize);
        if number >= available {
            let kind = TileErrorKind::Registers {
                class: if range.value.is_vector() { "vector" } else { "general" },
                needed: active.len() + 1,
                available,
                inst: show_position(tile, range.start / 4),
            };
            return Err(TileError { tile: tile.name.clone(), kind });
        }
        free &= !(1 << number);
        active.push(Reverse((range.end, number as u8)));
        numbered.push((range.value, number as u8));
    }
    Ok(numbered)
}

/// The line of the listing at a position, for messages.
fn show_position(tile: &Tile, wanted: u32) -> String {
    fn find(tile: &Tile, block: &[Stmt], position: &mut u32, wanted: u32) -> Option<String> {
        for stmt in block {
            let here = *position;
            *position += 1;
            match stmt {
                Stmt::Inst(inst) if here == wanted => return Some(tile.show(inst)),
                Stmt::Loop(l) if here == wanted => return Some(tile.show_loop(l)),
                Stmt::Inst(_) => {}
                Stmt::Loop(l) => {
                    if let Some(text) = find(tile, &l.body, position, wanted) {
                        return Some(text);
                    }
                    *position += 1;
                }
            }
        }
        None
    }
    find(tile, &tile.body, &mut 0, wanted).unwrap_or_default()
}
