//! The threads of a compiler and of what it compiles: those of the host, or a pool that starts when it is first needed.

use std::fmt;
use std::sync::{Arc, OnceLock};
use tconvc_runtime::executor::{Executor, Serial};
use tconvc_runtime::thread_pool::ThreadPool;

/// How many threads share a step, and who they are. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Threads {
    count: Option<usize>,
    given: Option<Arc<dyn Executor>>,
    own: Arc<OnceLock<Arc<dyn Executor>>>,
}

impl Threads {
    /// So many; 0 counts as 1.
    pub fn with_count(self, count: usize) -> Self {
        Self { count: Some(count.max(1)), own: Arc::default(), ..self }
    }

    /// These, in the place of an own pool.
    pub fn with_executor(self, executor: Arc<dyn Executor>) -> Self {
        Self { given: Some(executor), ..self }
    }

    /// Threads that share a step: as many as were asked for, else as the host's executor has, else one.
    pub fn count(&self) -> usize {
        let given = || self.given.as_ref().map(|executor| executor.threads());
        self.count.or_else(given).unwrap_or(1).max(1)
    }

    /// Threads that share a step in truth, which are fewer where the system did not give those of an own pool.
    pub fn actual(&self) -> usize {
        match (&self.given, self.own.get()) {
            (None, Some(own)) => own.threads().min(self.count()),
            _ => self.count(),
        }
    }

    /// A warning where these are fewer.
    pub fn warning(&self) -> Option<String> {
        let (count, actual) = (self.count(), self.actual());
        (actual < count).then(|| format!("the system gave {actual} of {count} threads"))
    }

    /// The threads; an own pool starts with the first call.
    pub fn executor(&self) -> Arc<dyn Executor> {
        if let Some(given) = &self.given {
            return Arc::clone(given);
        }
        let start = || -> Arc<dyn Executor> {
            match self.count() {
                1 => Arc::new(Serial),
                // Where the system gives no threads, one computes the same.
                count => {
                    ThreadPool::new(count).map_or_else(|_| Arc::new(Serial) as _, |pool| Arc::new(pool) as _)
                }
            }
        };
        Arc::clone(self.own.get_or_init(start))
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("count", &self.count())
            .field("of_the_host", &self.given.is_some())
            .finish_non_exhaustive()
    }
}
