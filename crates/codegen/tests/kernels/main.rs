//! Kernels of single operators against their definition: every kind of code that runs here, on one thread and two, with
//! pages around all buffers that must not be touched.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

mod conv;
mod matrix;
mod movement;
#[cfg(test)]
mod narrow;
mod pool;
mod recurrent;
mod resize;
#[cfg(test)]
mod support;
