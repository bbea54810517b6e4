//! What operators share: broadcasting, their inputs and element types, lists of integers, arithmetic, sliding kernels.
//! No operator is here.

pub(in crate::ops) mod broadcast;
pub(in crate::ops) mod inputs;
pub(in crate::ops) mod lists;
pub(in crate::ops) mod number;
pub(in crate::ops) mod runs;
pub(in crate::ops) mod scalar_input;
pub(in crate::ops) mod steps;
pub(in crate::ops) mod sums;
pub(in crate::ops) mod taps;
pub(in crate::ops) mod values;
pub(in crate::ops) mod window;
