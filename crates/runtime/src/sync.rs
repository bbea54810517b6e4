//! What the thread pool is made of: the standard library's, under the names that a model checker has for them, so that
//! `tests/thread_pool_model.rs` can put that one's in their place.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::thread::{Builder, JoinHandle, Thread, current, park};

/// How often a thread of so many looks for news before it sleeps: some 50 us, longer than the time between the steps of
/// a program. Spinning only helps where nobody else waits for the processor.
pub(crate) fn spins(threads: usize) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads <= processors { 2000 } else { 0 }
}

/// Memory that threads share by an agreement that the compiler does not see.
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Calls `read` with the address of the value.
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with the address of the value.
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
