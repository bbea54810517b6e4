//! The tile IR: small structured programs on vector registers, which every kernel of the compiler is written in once.
//!
//! A tile is straight code and counted loops over virtual vector registers and pointers. A kernel is a Rust function
//! that writes a tile for a [`Target`](tconvc_machine::Target): loops that the kernel unrolls are Rust loops, what it
//! repeats at run time is [`TileBuilder::repeat`]. The [lowerings](crate::backend) turn a tile into a function with
//! the C calling convention; [`Interpreter`] says slowly and exactly what it must compute.
//!
//! - Registers are mapped one to one: a tile that needs more than the target has is an error, nothing is spilled.
//! - Vectors are lanes of 32 bits: which instruction reads them decides whether they are floats or integers. Elements in
//!   memory may be narrower, see [`Elem`].
//! - `max` and `min` are those of x86: a NaN comes out of the *second* operand only. Write the bound first and the
//!   value second, and Relu and Clip hand NaN on as ONNX has it.
//! - A multiply-add rounds once where the target has such an instruction, else twice; nothing else differs.

pub mod backend;
mod builder;
mod elem;
mod error;
mod interp;
mod ir;
mod math;
mod shuffle;
mod text;
mod trigonometry;
mod verify;

pub use builder::TileBuilder;
pub use elem::{Elem, LANE_BYTES};
pub use error::{TileError, TileErrorKind};
pub use interp::{Interpreter, Memory, Rounding};
pub use ir::{
    Address, BinaryOp, Cmp, Count, FmaOp, Inst, Lanes, Loop, Operand, Pointer, ShiftOp, Stmt, Tile, Trips,
    UnaryOp, Vector,
};
pub use shuffle::Pattern;
pub use text::{TextError, parse};
