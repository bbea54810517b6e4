//! `fork`: a child has the memory of its parent and one thread, the one that forked. What other threads were about when it was
//! made stays half done there for ever, so that a fork waits for the calls that run.

use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Forks between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Calls that run now.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Whether a thread is about to fork, or forking.
static FORKING: AtomicBool = AtomicBool::new(false);
/// How often who waits looks again.
const PAUSE: Duration = Duration::from_micros(50);

/// Forks between the first process and this one.
pub fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// A call that runs, for as long as this lives.
struct Running;

impl Running {
    fn begin() -> Self {
        loop {
            RUNNING.fetch_add(1, Ordering::SeqCst);
            if !FORKING.load(Ordering::SeqCst) {
                return Self;
            }
            drop(Self);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Calls the library while other Python threads run, and no thread forks.
pub fn detach<T: Send>(py: Python<'_>, call: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        // Begun without the interpreter: whoever forks may need it to come to an end.
        let _running = Running::begin();
        call()
    })
}

/// Calls back into Python out of [`detach`]; what is called may fork.
pub fn attach<T>(call: impl FnOnce(Python<'_>) -> T) -> T {
    drop(Running);
    let result = Python::attach(call);
    std::mem::forget(Running::begin());
    result
}

/// For whoever is about to fork: waits until nothing runs, and lets nothing begin.
#[pyfunction]
pub fn before_fork(py: Python<'_>) {
    py.detach(|| {
        // One thread at a time.
        while FORKING.swap(true, Ordering::SeqCst) {
            std::thread::sleep(PAUSE);
        }
        while RUNNING.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(PAUSE);
        }
    });
}

/// For the parent, after the fork.
#[pyfunction]
pub fn after_fork_in_parent() {
    FORKING.store(false, Ordering::SeqCst);
}

/// For the child, before anything else.
#[pyfunction]
pub fn after_fork_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    FORKING.store(false, Ordering::SeqCst);
}
