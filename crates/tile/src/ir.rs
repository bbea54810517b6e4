//! The types of the tile IR: registers, addresses, instructions, loops. What they mean, not how they are made or run.

use super::elem::Elem;
use super::shuffle::Pattern;

/// A virtual vector register: [`Tile::lanes`] lanes of 32 bits. It can be written more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(pub(crate) u32);

/// A byte pointer, held in a general register: a parameter of the tile or one derived from a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(pub(crate) u32);

/// An unsigned 64-bit parameter of the tile: trips of a loop, or lanes of a masked access. Never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub(crate) u32);

impl Pointer {
    /// The address `bytes` behind this pointer.
    pub fn at(self, bytes: i32) -> Address {
        Address { pointer: self, bytes }
    }

    /// The address of element number `index` behind this pointer.
    pub fn element(self, elem: Elem, index: i32) -> Address {
        self.at(elem.bytes() * index)
    }

    /// The address of f32 number `index` behind this pointer.
    pub fn float(self, index: i32) -> Address {
        self.element(Elem::F32, index)
    }
}

/// A pointer plus a constant number of bytes. Accesses need no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Base.
    pub pointer: Pointer,
    /// Displacement in bytes.
    pub bytes: i32,
}

impl Address {
    /// The one f32 at this address in every lane, as an operand.
    pub fn splat(self) -> Operand {
        Operand::Splat(self)
    }

    /// The address `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: i32) -> Address {
        Address { bytes: self.bytes.wrapping_add(bytes), ..self }
    }
}

/// The last operand of an instruction: a register, or what most machines can read without a register of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A register.
    Vector(Vector),
    /// A full vector in memory.
    Memory(Address),
    /// One f32 in memory, in every lane. Free with AVX-512; elsewhere it costs an instruction and a register.
    Splat(Address),
    /// These bits in every lane, from a literal pool behind the code.
    Bits(u32),
}

impl From<Vector> for Operand {
    fn from(v: Vector) -> Operand {
        Operand::Vector(v)
    }
}

impl From<Address> for Operand {
    fn from(at: Address) -> Operand {
        Operand::Memory(at)
    }
}

impl From<f32> for Operand {
    fn from(value: f32) -> Operand {
        Operand::Bits(value.to_bits())
    }
}

/// Which lanes a load or store touches. Untouched memory is never accessed, not even where it cannot be; lanes that
/// are not loaded become zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// All of them.
    All,
    /// The first so many, a constant.
    First(u8),
    /// The first so many, known at run time; all where the count exceeds the number of lanes.
    FirstOf(Count),
}

/// Operations on one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// A copy.
    Copy,
    /// Sign flipped, of NaN too.
    Neg,
    /// Sign cleared, of NaN too.
    Abs,
    /// Square root, correctly rounded.
    Sqrt,
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceil,
    /// Towards zero.
    Trunc,
    /// To the nearest integer, ties to even.
    Round,
    /// f32 to i32, towards zero. NaN and what an i32 cannot hold give an unspecified integer.
    ToInt,
    /// i32 to f32, ties to even.
    ToFloat,
}

/// Operations on two vectors, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// f32 sum.
    Add,
    /// f32 difference.
    Sub,
    /// f32 product.
    Mul,
    /// f32 quotient, correctly rounded.
    Div,
    /// `if a > b { a } else { b }`: a NaN in `b` comes out, a NaN in `a` does not. The instruction of x86.
    Max,
    /// `if a < b { a } else { b }`: a NaN in `b` comes out, a NaN in `a` does not. The instruction of x86.
    Min,
    /// Bits in both.
    And,
    /// Bits in either.
    Or,
    /// Bits in one of the two.
    Xor,
    /// i32 sum, wrapping.
    IntAdd,
    /// i32 difference, wrapping.
    IntSub,
    /// i32 product, the low 32 bits.
    IntMul,
    /// The larger i32.
    IntMax,
    /// The smaller i32.
    IntMin,
}

/// Shifts of each 32-bit lane by a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShiftOp {
    /// To the left.
    Left,
    /// To the right, zeros coming in.
    Right,
    /// To the right, the sign coming in.
    RightSigned,
}

/// The multiply-adds. With [`Target::has_fma`](tconvc_machine::Target::has_fma) they round once, else twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FmaOp {
    /// `dst = dst + a * b`.
    Add,
    /// `dst = dst - a * b`.
    Sub,
    /// `dst = dst * a + b`, a step of Horner's rule.
    Horner,
}

/// Comparisons of f32 lanes. All but [`Cmp::Ne`] are false of a NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal, or one of them NaN.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the operands that each variant's line names")]
pub enum Inst {
    /// `dst` = the same 32 bits in every lane.
    Const { dst: Vector, bits: u32 },
    /// `dst` = consecutive elements from memory, widened to lanes.
    Load { dst: Vector, at: Address, lanes: Lanes, elem: Elem },
    /// Consecutive lanes of `src`, narrowed to elements, to memory.
    Store { src: Vector, at: Address, lanes: Lanes, elem: Elem },
    /// `dst` = one element from memory, widened, in every lane.
    LoadSplat { dst: Vector, at: Address, elem: Elem },
    /// `dst` = `lanes` values of 32 bits that stand `stride` bytes apart in memory, the rest zero. Slow: a load for each.
    Gather { dst: Vector, at: Address, stride: i32, lanes: u8 },
    /// One lane of `src` to memory.
    StoreLane { src: Vector, lane: u8, at: Address },
    /// `dst = op a`.
    Unary { op: UnaryOp, dst: Vector, a: Vector },
    /// `dst = a op b`.
    Binary { op: BinaryOp, dst: Vector, a: Vector, b: Operand },
    /// `dst = a op by`.
    Shift { op: ShiftOp, dst: Vector, a: Vector, by: u8 },
    /// Multiply-add into `dst`, see [`FmaOp`].
    Fma { op: FmaOp, dst: Vector, a: Vector, b: Operand },
    /// `dst = if a cmp b { yes } else { no }`.
    Select { cmp: Cmp, dst: Vector, a: Vector, b: Operand, yes: Vector, no: Vector },
    /// `dst` = lanes picked out of `a` and `b`.
    Shuffle { dst: Vector, a: Vector, b: Vector, pattern: Pattern },
    /// `dst` = `base` moved by a constant.
    Derive { dst: Pointer, base: Pointer, bytes: i32 },
    /// Moves a pointer by a constant.
    Advance { pointer: Pointer, bytes: i32 },
    /// Moves a pointer by `bytes` times a count.
    AdvanceBy { pointer: Pointer, count: Count, bytes: i32 },
    /// Asks for a cache line to be fetched. No effect on values; any address will do.
    Prefetch { at: Address },
}

/// How often a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trips {
    /// A constant, at least 1.
    Const(u32),
    /// A parameter; none at all where it is 0.
    Param(Count),
    /// Once where any lane has its sign bit set, else not at all: code for rare cases. Read before the first trip.
    Any(Vector),
}

impl From<u32> for Trips {
    fn from(n: u32) -> Trips {
        Trips::Const(n)
    }
}

impl From<Count> for Trips {
    fn from(n: Count) -> Trips {
        Trips::Param(n)
    }
}

/// A counted loop, or a block that runs or does not. What is defined in its body is not visible behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// How often.
    pub trips: Trips,
    /// What is repeated.
    pub body: Vec<Stmt>,
    /// Pointers that move at the end of each trip, in bytes; they stay moved behind the loop.
    pub advances: Vec<(Pointer, i32)>,
}

/// A step of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stmt {
    /// One instruction.
    Inst(Inst),
    /// A loop.
    Loop(Box<Loop>),
}

/// A straight program with counted loops over vector registers and pointers.
///
/// In C it is `void name(uint8_t *p0, .., uint64_t c0, ..)`: all pointers, then all counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub(crate) name: String,
    pub(crate) lanes: usize,
    /// Names of all pointers, the parameters first.
    pub(crate) pointers: Vec<String>,
    pub(crate) pointer_params: usize,
    pub(crate) counts: Vec<String>,
    pub(crate) vectors: u32,
    pub(crate) body: Vec<Stmt>,
}

impl Tile {
    /// Symbol of the function that this tile becomes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of f32 lanes of its vectors.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Number of pointer parameters.
    pub fn pointer_params(&self) -> usize {
        self.pointer_params
    }

    /// Number of count parameters.
    pub fn count_params(&self) -> usize {
        self.counts.len()
    }

    /// Number of parameters of the function: pointers and counts.
    pub fn params(&self) -> usize {
        self.pointer_params + self.counts.len()
    }

    /// Its statements.
    pub fn body(&self) -> &[Stmt] {
        &self.body
    }
}

impl Inst {
    /// The vector that is written, if one is.
    pub fn defines(&self) -> Option<Vector> {
        match *self {
            Inst::Const { dst, .. }
            | Inst::Load { dst, .. }
            | Inst::LoadSplat { dst, .. }
            | Inst::Gather { dst, .. }
            | Inst::Unary { dst, .. }
            | Inst::Binary { dst, .. }
            | Inst::Shift { dst, .. }
            | Inst::Fma { dst, .. }
            | Inst::Select { dst, .. }
            | Inst::Shuffle { dst, .. } => Some(dst),
            Inst::Store { .. }
            | Inst::StoreLane { .. }
            | Inst::Derive { .. }
            | Inst::Advance { .. }
            | Inst::AdvanceBy { .. }
            | Inst::Prefetch { .. } => None,
        }
    }

    /// Calls `f` with every vector that is read.
    pub fn for_each_use(&self, mut f: impl FnMut(Vector)) {
        let operand = |b: Operand, f: &mut dyn FnMut(Vector)| {
            if let Operand::Vector(v) = b {
                f(v);
            }
        };
        match *self {
            Inst::Store { src, .. } | Inst::StoreLane { src, .. } => f(src),
            Inst::Unary { a, .. } | Inst::Shift { a, .. } => f(a),
            Inst::Binary { a, b, .. } => {
                f(a);
                operand(b, &mut f);
            }
            Inst::Fma { dst, a, b, .. } => {
                f(dst);
                f(a);
                operand(b, &mut f);
            }
            Inst::Select { a, b, yes, no, .. } => {
                f(a);
                operand(b, &mut f);
                f(yes);
                f(no);
            }
            Inst::Shuffle { a, b, .. } => {
                f(a);
                f(b);
            }
            Inst::Const { .. }
            | Inst::Load { .. }
            | Inst::LoadSplat { .. }
            | Inst::Gather { .. }
            | Inst::Derive { .. }
            | Inst::Advance { .. }
            | Inst::AdvanceBy { .. }
            | Inst::Prefetch { .. } => {}
        }
    }

    /// The pointer that is read, if one is.
    pub fn pointer(&self) -> Option<Pointer> {
        match *self {
            Inst::Load { at, .. }
            | Inst::Store { at, .. }
            | Inst::LoadSplat { at, .. }
            | Inst::Gather { at, .. }
            | Inst::StoreLane { at, .. }
            | Inst::Prefetch { at } => Some(at.pointer),
            Inst::Binary { b, .. } | Inst::Fma { b, .. } | Inst::Select { b, .. } => match b {
                Operand::Memory(at) | Operand::Splat(at) => Some(at.pointer),
                Operand::Vector(_) | Operand::Bits(_) => None,
            },
            Inst::Derive { base, .. } => Some(base),
            Inst::Advance { pointer, .. } | Inst::AdvanceBy { pointer, .. } => Some(pointer),
            Inst::Const { .. } | Inst::Unary { .. } | Inst::Shift { .. } | Inst::Shuffle { .. } => None,
        }
    }

    /// The count that is read, if one is.
    pub fn count(&self) -> Option<Count> {
        match *self {
            Inst::Load { lanes: Lanes::FirstOf(n), .. }
            | Inst::Store { lanes: Lanes::FirstOf(n), .. }
            | Inst::AdvanceBy { count: n, .. } => Some(n),
            _ => None,
        }
    }
}
