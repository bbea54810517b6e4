//! What files may make this program take, unless a caller says otherwise.

use std::sync::OnceLock;
use tconvc_ir::budget::{Budget, Limits};

/// The least memory that is allowed by default, where half of the machine's is more.
const LEAST_MEMORY: u64 = 1 << 30;

/// The limits that a caller has who names none: an eighth of the memory that this process may have (that of the machine, of
/// its control group, or of its own limit, the least of them), but a gibibyte, and no more than half of it; twice what the
/// files have beside; and [`Limits::default`] in all else.
pub fn default_limits() -> Limits {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    let mut limits = Limits::default();
    if let Some(memory) = *MEMORY.get_or_init(tconvc_machine::memory_bytes) {
        let bytes = (memory / 8).max(LEAST_MEMORY).min(memory / 2);
        limits.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    limits
}

/// A budget with these.
pub(crate) fn default_budget() -> Budget {
    Budget::new(default_limits())
}
