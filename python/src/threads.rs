//! Threads that come back after a fork: the child of a fork has none of its parent's but the one that forked.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tconvc::{Executor, Serial, ThreadPool};

/// Forks between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// For the child of a fork to call, before anything else.
pub fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A pool of so many threads, that starts anew in the child of a fork.
pub struct Threads {
    count: usize,
    pool: RwLock<Pool>,
}

/// The threads of one process. After a fork they are gone, and to drop the pool would wait for them: it is left where it is.
struct Pool {
    forks: u64,
    executor: ManuallyDrop<Arc<dyn Executor>>,
}

impl Pool {
    fn start(count: usize) -> Self {
        // Where the system gives no threads, one computes the same.
        let executor: Arc<dyn Executor> =
            ThreadPool::new(count).map_or_else(|_| Arc::new(Serial) as _, |pool| Arc::new(pool) as _);
        Self { forks: FORKS.load(Ordering::Relaxed), executor: ManuallyDrop::new(executor) }
    }

    fn is_here(&self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: the value is going, nothing uses the executor after this, and it is dropped nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.executor) };
        }
    }
}

impl Threads {
    pub fn new(count: usize) -> Self {
        Self { count, pool: RwLock::new(Pool::start(count)) }
    }

    fn executor(&self) -> Arc<dyn Executor> {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        if pool.is_here() {
            return Arc::clone(&pool.executor);
        }
        drop(pool);
        let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
        if !pool.is_here() {
            *pool = Pool::start(self.count);
        }
        Arc::clone(&pool.executor)
    }
}

// SAFETY: every call goes to a thread pool or to `Serial`, which keep the contract.
unsafe impl Executor for Threads {
    fn threads(&self) -> usize {
        self.count
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        self.executor().run(parts, task);
    }
}
