//! The machine as the cost model sees it: rates, all plain numbers, and how many threads share the work.

use tconvc_machine::Rates;

/// What predictions are made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Of one core, and of the memory behind it.
    pub rates: Rates,
    /// Threads that share the work, at least one.
    pub threads: usize,
}

impl Machine {
    /// So many threads of such cores.
    pub fn new(rates: Rates, threads: usize) -> Self {
        Self { rates, threads: threads.max(1) }
    }
}

impl Default for Machine {
    /// One core of [`Rates::default`].
    fn default() -> Self {
        Self::new(Rates::default(), 1)
    }
}
