//! Tests of the tile IR: interpreter, machine code that runs here, and emulated machine code must agree.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

#[cfg(test)]
mod elements;
#[cfg(test)]
mod emulator;
mod encoding;
#[cfg(test)]
mod filetests;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod math;
#[cfg(test)]
mod placed;
mod random;
#[cfg(test)]
mod rules;
mod statements;
#[cfg(test)]
mod support;
#[cfg(test)]
mod text;
#[cfg(test)]
mod win64;
