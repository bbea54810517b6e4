//! Kernels of single operators against their definition: every kind of code that runs here, on one thread and two, with
//! pages around all buffers that must not be touched.
#![allow(clippy::unwrap_used, reason = "tests")]

mod conv;
mod matrix;
mod movement;
mod narrow;
mod pool;
mod recurrent;
mod resize;
mod support;
