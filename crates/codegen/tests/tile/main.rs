//! Tests of the tile IR: interpreter, machine code that runs here, and emulated machine code must agree.

#![allow(clippy::unwrap_used, reason = "tests")]

mod emulator;
mod encoding;
mod lanes;
mod math;
mod random;
mod rules;
mod statements;
mod support;
