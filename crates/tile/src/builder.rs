//! How tiles are written: one method an instruction, closures for loops, and the small idioms built of them.
//!
//! Mistakes do not interrupt the writing: the first one is kept and comes out of [`TileBuilder::finish`].

use super::elem::{Elem, LANE_BYTES};
use super::error::{TileError, TileErrorKind};
use super::ir::{
    Address, BinaryOp, Cmp, Count, FmaOp, Inst, Lanes, Loop, Operand, Pointer, ShiftOp, Stmt, Tile, Trips,
    UnaryOp, Vector,
};
use super::text::is_name;
use super::verify;
use tconvc_machine::Target;

/// Builds one [`Tile`] for one target.
///
/// ```
/// use tconvc_machine::Target;
/// use tconvc_tile::TileBuilder;
///
/// // y[i] = max(0, x[i] + bias), over `n` vectors.
/// let target = Target::host();
/// let mut b = TileBuilder::new("bias_relu", &target);
/// let [x, y, bias] = b.pointers(["x", "y", "bias"]);
/// let n = b.count("n");
/// let bias = b.load_splat(bias.at(0));
/// let zero = b.zero();
/// let step = target.vector_bytes() as i32;
/// b.repeat(n, &[(x, step), (y, step)], |b| {
///     let sum = b.add(bias, x.at(0));
///     let relu = b.max(zero, sum); // a NaN in the second operand comes out
///     b.store(relu, y.at(0));
/// });
/// let tile = b.finish()?;
/// # Ok::<(), tconvc_tile::TileError>(())
/// ```
#[derive(Debug)]
pub struct TileBuilder {
    tile: Tile,
    target: Target,
    /// Bodies of the loops that are open, outermost first, behind the statements of the tile itself.
    open: Vec<Vec<Stmt>>,
    misuse: Option<TileErrorKind>,
}

impl TileBuilder {
    /// An empty tile, which will be the function `name`.
    pub fn new(name: impl Into<String>, target: &Target) -> TileBuilder {
        let tile = Tile {
            name: name.into(),
            lanes: target.lanes(),
            pointers: Vec::new(),
            pointer_params: 0,
            counts: Vec::new(),
            vectors: 0,
            body: Vec::new(),
        };
        TileBuilder { tile, target: target.clone(), open: vec![Vec::new()], misuse: None }
    }

    /// The finished tile, verified. Whether it fits the target's registers is for
    /// [`TileBackend::allocate`](crate::backend::TileBackend::allocate) to say.
    ///
    /// # Errors
    /// What the builder was misused in, or what the verifier finds: see [`TileErrorKind`].
    pub fn finish(mut self) -> Result<Tile, TileError> {
        if let Some(kind) = self.misuse {
            return Err(TileError { tile: self.tile.name, kind });
        }
        self.tile.body = self.open.pop().unwrap_or_default();
        verify::verify(&self.tile)?;
        Ok(self.tile)
    }

    /// Number of f32 lanes of a vector.
    pub fn lanes(&self) -> usize {
        self.tile.lanes
    }

    /// Bytes of a vector.
    pub fn vector_bytes(&self) -> i32 {
        LANE_BYTES * self.tile.lanes as i32
    }

    /// What the tile is built for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The next pointer parameter. Parameters come before pointers made by [`TileBuilder::derive`].
    pub fn pointer(&mut self, name: &str) -> Pointer {
        if self.tile.pointers.len() > self.tile.pointer_params {
            let text = format!("pointer parameter `{name}` is declared behind a derived pointer");
            self.misuse.get_or_insert(TileErrorKind::Misuse(text));
        }
        self.tile.pointer_params += 1;
        self.new_pointer(name)
    }

    /// The next pointer parameters.
    pub fn pointers<const N: usize>(&mut self, names: [&str; N]) -> [Pointer; N] {
        names.map(|name| self.pointer(name))
    }

    /// The next count parameter. All counts follow all pointers in the function's signature.
    pub fn count(&mut self, name: &str) -> Count {
        let name = self.unique(name, self.tile.counts.len());
        self.tile.counts.push(name);
        Count(self.tile.counts.len() as u32 - 1)
    }

    /// A name that the text form can tell from others, `number` being that of the pointer or count.
    fn unique(&self, name: &str, number: usize) -> String {
        let is_free = |name: &String| {
            is_name(name) && !self.tile.pointers.contains(name) && !self.tile.counts.contains(name)
        };
        let keep = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        let mut name: String = name.chars().map(keep).collect();
        let mut prefix = String::new();
        while !is_free(&name) {
            prefix.push('_');
            name = format!("{prefix}{number}{name}");
        }
        name
    }

    fn new_pointer(&mut self, name: &str) -> Pointer {
        let name = self.unique(name, self.tile.pointers.len());
        self.tile.pointers.push(name);
        Pointer(self.tile.pointers.len() as u32 - 1)
    }

    fn new_vector(&mut self) -> Vector {
        self.tile.vectors += 1;
        Vector(self.tile.vectors - 1)
    }

    /// Appends an instruction as it is.
    pub fn push(&mut self, inst: Inst) {
        if let Some(block) = self.open.last_mut() {
            block.push(Stmt::Inst(inst));
        }
    }

    /// Appends the instruction that `make` builds around a new vector.
    pub(crate) fn define(&mut self, make: impl FnOnce(Vector) -> Inst) -> Vector {
        let dst = self.new_vector();
        self.push(make(dst));
        dst
    }

    /// Keeps the first mistake for [`TileBuilder::finish`]; `instead` lets the writing go on.
    pub fn misuse(&mut self, text: String, instead: Vector) -> Vector {
        self.misuse.get_or_insert(TileErrorKind::Misuse(text));
        instead
    }

    // Loops and pointers.

    /// Repeats what `body` writes; `advances` are added to their pointers, in bytes, at the end of each trip.
    ///
    /// Vectors defined outside can be written in the body and keep what the last trip left in them.
    pub fn repeat(
        &mut self,
        trips: impl Into<Trips>,
        advances: &[(Pointer, i32)],
        body: impl FnOnce(&mut TileBuilder),
    ) {
        self.open.push(Vec::new());
        body(self);
        let body = self.open.pop().unwrap_or_default();
        let advances = advances.iter().copied().filter(|&(_, bytes)| bytes != 0).collect();
        if let Some(block) = self.open.last_mut() {
            block.push(Stmt::Loop(Box::new(Loop { trips: trips.into(), body, advances })));
        }
    }

    /// A new pointer `bytes` behind `base` as it is now.
    pub fn derive(&mut self, base: Pointer, bytes: i32) -> Pointer {
        let name = format!("{}.{}", self.tile.pointer_name(base), self.tile.pointers.len());
        let dst = self.new_pointer(&name);
        self.push(Inst::Derive { dst, base, bytes });
        dst
    }

    /// Moves a pointer.
    pub fn advance(&mut self, pointer: Pointer, bytes: i32) {
        self.push(Inst::Advance { pointer, bytes });
    }

    /// Moves a pointer by `count * bytes`.
    pub fn advance_by(&mut self, pointer: Pointer, count: Count, bytes: i32) {
        self.push(Inst::AdvanceBy { pointer, count, bytes });
    }

    /// Asks for the cache line at `at`.
    pub fn prefetch(&mut self, at: Address) {
        self.push(Inst::Prefetch { at });
    }

    // Memory.

    /// A full vector from memory.
    pub fn load(&mut self, at: Address) -> Vector {
        self.load_lanes(at, Lanes::All)
    }

    /// The lanes named from memory, zero in the others.
    pub fn load_lanes(&mut self, at: Address, lanes: Lanes) -> Vector {
        self.load_elements(Elem::F32, at, lanes)
    }

    /// The elements named from memory, widened to lanes; zero in the others.
    pub fn load_elements(&mut self, elem: Elem, at: Address, lanes: Lanes) -> Vector {
        self.define(|dst| Inst::Load { dst, at, lanes, elem })
    }

    /// One element from memory, widened, in every lane.
    pub fn load_splat_of(&mut self, elem: Elem, at: Address) -> Vector {
        self.define(|dst| Inst::LoadSplat { dst, at, elem })
    }

    /// One f32 from memory, in every lane.
    pub fn load_splat(&mut self, at: Address) -> Vector {
        self.load_splat_of(Elem::F32, at)
    }

    /// The first `lanes` lanes, each `stride` bytes behind the one before; zero in the others.
    pub fn gather(&mut self, at: Address, stride: i32, lanes: usize) -> Vector {
        self.define(|dst| Inst::Gather { dst, at, stride, lanes: lanes.min(255) as u8 })
    }

    /// A full vector to memory.
    pub fn store(&mut self, src: Vector, at: Address) {
        self.store_lanes(src, at, Lanes::All);
    }

    /// The lanes named to memory.
    pub fn store_lanes(&mut self, src: Vector, at: Address, lanes: Lanes) {
        self.store_elements(Elem::F32, src, at, lanes);
    }

    /// The lanes named to memory, narrowed to elements.
    pub fn store_elements(&mut self, elem: Elem, src: Vector, at: Address, lanes: Lanes) {
        self.push(Inst::Store { src, at, lanes, elem });
    }

    /// One lane to memory.
    pub fn store_lane(&mut self, src: Vector, lane: usize, at: Address) {
        self.push(Inst::StoreLane { src, lane: lane.min(255) as u8, at });
    }

    // Constants.

    /// Zero in every lane.
    pub fn zero(&mut self) -> Vector {
        self.define(|dst| Inst::Const { dst, bits: 0 })
    }

    /// `value` in every lane, kept in a register. As a last operand, `value.into()` needs none.
    pub fn splat(&mut self, value: f32) -> Vector {
        self.define(|dst| Inst::Const { dst, bits: value.to_bits() })
    }

    /// The same 32 bits in every lane.
    pub fn splat_bits(&mut self, bits: u32) -> Vector {
        self.define(|dst| Inst::Const { dst, bits })
    }

    // Arithmetic into a new vector.

    /// `op a`.
    pub fn unary(&mut self, op: UnaryOp, a: Vector) -> Vector {
        self.define(|dst| Inst::Unary { op, dst, a })
    }

    /// `a op b`.
    pub fn binary(&mut self, op: BinaryOp, a: Vector, b: impl Into<Operand>) -> Vector {
        let b = b.into();
        self.define(|dst| Inst::Binary { op, dst, a, b })
    }

    /// `a + b`.
    pub fn add(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Add, a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Sub, a, b)
    }

    /// `a * b`.
    pub fn mul(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Mul, a, b)
    }

    /// `a / b`.
    pub fn div(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Div, a, b)
    }

    /// The larger, by [`BinaryOp::Max`]: a NaN in `b` comes out. Give the bound first and the value second.
    pub fn max(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Max, a, b)
    }

    /// The smaller, by [`BinaryOp::Min`]: a NaN in `b` comes out. Give the bound first and the value second.
    pub fn min(&mut self, a: Vector, b: impl Into<Operand>) -> Vector {
        self.binary(BinaryOp::Min, a, b)
    }

    /// The larger; NaN where either is NaN. Two instructions more than [`TileBuilder::max`].
    pub fn max_nan(&mut self, a: Vector, b: Vector) -> Vector {
        let larger = self.max(a, b);
        self.select(Cmp::Ne, a, a, a, larger)
    }

    /// The smaller; NaN where either is NaN. Two instructions more than [`TileBuilder::min`].
    pub fn min_nan(&mut self, a: Vector, b: Vector) -> Vector {
        let smaller = self.min(a, b);
        self.select(Cmp::Ne, a, a, a, smaller)
    }

    /// `a << by`, on 32-bit integers.
    pub fn shl(&mut self, a: Vector, by: u8) -> Vector {
        self.define(|dst| Inst::Shift { op: ShiftOp::Left, dst, a, by })
    }

    /// `a >> by`, zeros coming in.
    pub fn shr(&mut self, a: Vector, by: u8) -> Vector {
        self.define(|dst| Inst::Shift { op: ShiftOp::Right, dst, a, by })
    }

    /// `a >> by`, the sign coming in.
    pub fn sar(&mut self, a: Vector, by: u8) -> Vector {
        self.define(|dst| Inst::Shift { op: ShiftOp::RightSigned, dst, a, by })
    }

    /// `if a cmp b { yes } else { no }`, lane by lane.
    pub fn select(&mut self, cmp: Cmp, a: Vector, b: impl Into<Operand>, yes: Vector, no: Vector) -> Vector {
        let b = b.into();
        self.define(|dst| Inst::Select { cmp, dst, a, b, yes, no })
    }

    // Arithmetic into a vector that exists.

    /// `acc += a * b`.
    pub fn fma(&mut self, acc: Vector, a: Vector, b: impl Into<Operand>) {
        self.push(Inst::Fma { op: FmaOp::Add, dst: acc, a, b: b.into() });
    }

    /// `acc -= a * b`.
    pub fn fma_sub(&mut self, acc: Vector, a: Vector, b: impl Into<Operand>) {
        self.push(Inst::Fma { op: FmaOp::Sub, dst: acc, a, b: b.into() });
    }

    /// `p = p * x + c`, a step of Horner's rule.
    pub fn horner(&mut self, p: Vector, x: Vector, c: impl Into<Operand>) {
        self.push(Inst::Fma { op: FmaOp::Horner, dst: p, a: x, b: c.into() });
    }

    /// `dst = src`.
    pub fn assign(&mut self, dst: Vector, src: Vector) {
        self.push(Inst::Unary { op: UnaryOp::Copy, dst, a: src });
    }

    /// `dst = a op b`; `dst` may be one of the operands.
    pub fn binary_into(&mut self, dst: Vector, op: BinaryOp, a: Vector, b: impl Into<Operand>) {
        self.push(Inst::Binary { op, dst, a, b: b.into() });
    }

    /// `acc += b`.
    pub fn add_to(&mut self, acc: Vector, b: impl Into<Operand>) {
        self.binary_into(acc, BinaryOp::Add, acc, b);
    }
}
