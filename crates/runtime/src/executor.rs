//! The trait through which work is spread over threads, and the executor that has none but its caller's.

/// Whatever can run the parts of a step at the same time. The host can bring its own.
///
/// # Safety
/// Parts write to disjoint memory without asking who else is at it, so that memory is only safe where
/// [`Executor::run`] keeps to this:
/// - it calls `task` exactly once with each of `0 .. parts`, and with nothing else;
/// - all of these calls have ended before it returns or unwinds, and `task` is not called afterwards;
/// - what a part has written is visible to whoever called `run` when it returns.
///
/// In which order parts run, on which threads, and whether at the same time or one after the other, is up to the
/// executor. A part never waits for one that has not begun.
pub unsafe trait Executor: Send + Sync {
    /// Number of parts that can run at the same time, at least 1.
    fn threads(&self) -> usize;

    /// Calls `task` once with each of `0 .. parts`, on any threads, and returns when all calls have returned.
    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync));
}

/// Runs everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: the calls are made one after the other, on this thread, each once.
unsafe impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(task);
    }
}
