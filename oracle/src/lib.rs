//! Differential tests of tconvc against tract, an independent implementation. They live in `tests/`; this crate is outside the
//! default members, because tract takes long to build.
//!
//! Known faults of tract 0.23.9, which the tests stay clear of by handing it explicit pads:
//! - `SAME_*` with `output_padding` gives a short output;
//! - `SAME_*` with `output_shape` panics;
//! - `output_shape` without `auto_pad` crops at the end alone;
//! - `SAME_*` with kernel 1 and stride 2 is refused.
