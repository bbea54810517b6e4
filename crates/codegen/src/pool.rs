//! Threads: the trait through which steps are spread over them.

/// Whatever can run the parts of a step at the same time. The host can bring its own.
pub trait Executor: Sync {
    /// Number of parts that can run at the same time, at least 1.
    fn threads(&self) -> usize;

    /// Calls `task` once with each of `0 .. parts`, on any threads, and returns when all calls have returned.
    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync));
}

/// Runs everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(task);
    }
}
