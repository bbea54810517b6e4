//! Threads that come back after a fork: the child of a fork has none of its parent's but the one that forked.

use crate::fork::forks;
use std::mem::ManuallyDrop;
use std::sync::{Arc, PoisonError, RwLock};
use tconvc::{Executor, Serial, ThreadPool};

/// A pool of so many threads, that starts when it is first needed, and anew in the child of a fork.
pub struct Threads {
    count: usize,
    pool: RwLock<Option<Pool>>,
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
        Self { forks: forks(), executor: ManuallyDrop::new(executor) }
    }

    fn is_here(&self) -> bool {
        self.forks == forks()
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
    /// So many, as an executor; one is the caller's own.
    pub fn of(count: usize) -> Arc<dyn Executor> {
        match count {
            0 | 1 => Arc::new(Serial),
            count => Arc::new(Self { count, pool: RwLock::new(None) }),
        }
    }

    fn executor(&self) -> Arc<dyn Executor> {
        let here = |pool: &Option<Pool>| {
            pool.as_ref().filter(|pool| pool.is_here()).map(|pool| Arc::clone(&pool.executor))
        };
        let known = here(&self.pool.read().unwrap_or_else(PoisonError::into_inner));
        known.unwrap_or_else(|| {
            let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have been here first.
            here(&pool).unwrap_or_else(|| Arc::clone(&pool.insert(Pool::start(self.count)).executor))
        })
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
