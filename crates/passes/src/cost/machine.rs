//! The machine as the cost model sees it: a few rates, all plain numbers.

use serde::Serialize;

/// Rates of one core and of the memory behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machine {
    /// f32 lanes of a vector.
    pub lanes: usize,
    /// Multiply-adds per nanosecond of one core, over all lanes.
    pub macs_per_ns: f64,
    /// Bytes per nanosecond that one core moves between the outer caches and itself.
    pub bytes_per_ns: f64,
    /// Threads that share the work.
    pub threads: usize,
    /// Nanoseconds from handing a step to the threads to its end, without work.
    pub dispatch_ns: f64,
}

impl Machine {
    /// A core of about 4 GHz with two multiply-add units of so many lanes.
    pub fn with_lanes(lanes: usize, threads: usize) -> Self {
        Self {
            lanes,
            macs_per_ns: 8.0 * lanes as f64,
            bytes_per_ns: 50.0,
            threads: threads.max(1),
            dispatch_ns: 300.0,
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::with_lanes(8, 1)
    }
}
