//! The thread pool under a model checker: each model runs in every order of its atomic operations, with every value that
//! a weak order lets a load see. What is wrong with memory or gets stuck in any of them fails.
//!
//! `cargo test --release -p tconvc-runtime --features model-check --test thread_pool_model`

// The pool's own source, on the model checker's threads, atomics and cells.
#[path = "../src/executor.rs"]
#[allow(dead_code, reason = "models need no serial executor")]
mod executor;
#[path = "../src/thread_pool.rs"]
mod thread_pool;

/// In the place of `src/sync.rs`.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use loom::thread::park;
    use std::marker::PhantomData;

    /// One look, and then sleep: both are gone through.
    pub(crate) fn spins(_threads: usize) -> u32 {
        1
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Thread(loom::thread::Thread);

    impl Thread {
        /// The model checker passes on to a thread that is woken all that was done before, at once; first, others see
        /// what the pool's atomics tell them.
        pub(crate) fn unpark(&self) {
            loom::thread::yield_now();
            self.0.unpark();
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(loom::thread::current())
    }

    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn name(self, _name: String) -> Self {
            self
        }

        #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as the standard library's")]
        pub(crate) fn spawn(self, run: impl FnOnce() + 'static) -> std::io::Result<JoinHandle<()>> {
            let is_done = Arc::new(AtomicBool::new(false));
            let done = Arc::clone(&is_done);
            let handle = loom::thread::spawn(move || {
                run();
                done.store(true, Ordering::Release);
            });
            Ok(JoinHandle { thread: Thread(handle.thread().clone()), is_done, result: PhantomData })
        }
    }

    #[derive(Debug)]
    pub(crate) struct JoinHandle<T> {
        thread: Thread,
        is_done: Arc<AtomicBool>,
        result: PhantomData<T>,
    }

    impl JoinHandle<()> {
        pub(crate) fn thread(&self) -> &Thread {
            &self.thread
        }

        /// The model checker's own way to wait forbids that somebody wakes who waits, which is harmless elsewhere.
        #[expect(clippy::unnecessary_wraps, reason = "as the standard library's")]
        pub(crate) fn join(self) -> std::thread::Result<()> {
            while !self.is_done.load(Ordering::Acquire) {
                loom::thread::yield_now();
            }
            Ok(())
        }
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use thread_pool::ThreadPool;

/// Runs a model in all orders with so many switches at most that no thread asked for.
fn model(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 10_000;
    builder.check(run);
}

/// Memory that parts write without a lock, as those of a step do. Two that are at one cell at once fail the model, and so
/// does a look at it that nothing orders after the write.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: the model checker watches who is at a cell.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, index: usize) {
        // SAFETY: the model checker watches that nobody else is at it.
        self.0[index].with_mut(|cell| unsafe { *cell += index + 1 });
    }

    fn values(&self) -> Vec<usize> {
        // SAFETY: as above.
        self.0.iter().map(|cell| cell.with(|cell| unsafe { *cell })).collect()
    }
}

/// Every part is run once, by whoever it may be, and its caller sees what it wrote.
fn parts_are_run(pool: &ThreadPool, parts: usize) {
    let cells = Cells::new(parts);
    pool.run(parts, &|part| cells.add(part));
    assert_eq!(cells.values(), (1..=parts).collect::<Vec<_>>());
}

#[test]
fn steps_one_after_the_other() {
    model(3, || {
        let pool = ThreadPool::new(2).unwrap();
        // The second step reads what the first one wrote on the other thread.
        let cells = Cells::new(3);
        pool.run(3, &|part| cells.add(part));
        pool.run(3, &|part| cells.add(2 - part));
        assert_eq!(cells.values(), [2, 4, 6]);
    });
}

#[test]
fn three_threads() {
    model(2, || {
        let pool = ThreadPool::new(3).unwrap();
        parts_are_run(&pool, 3);
    });
}

#[test]
fn steps_for_fewer_threads_than_there_are() {
    model(2, || {
        let pool = ThreadPool::new(3).unwrap();
        parts_are_run(&pool, 2);
        parts_are_run(&pool, 1);
        parts_are_run(&pool, 0);
    });
}

#[test]
fn a_pool_goes_whatever_its_workers_are_at() {
    model(3, || drop(ThreadPool::new(2).unwrap()));
    model(2, || drop(ThreadPool::new(3).unwrap()));
}

#[test]
fn panics_reach_the_caller_and_the_pool_goes_on() {
    model(2, || {
        let pool = ThreadPool::new(2).unwrap();
        for bad in [0, 1] {
            let cells = Cells::new(2);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(2, &|part| {
                    cells.add(part);
                    if part == bad {
                        std::panic::resume_unwind(Box::new(bad));
                    }
                });
            }));
            assert_eq!(result.unwrap_err().downcast::<usize>().ok().as_deref(), Some(&bad));
            assert_eq!(cells.values(), [1, 2]);
        }
        parts_are_run(&pool, 2);
    });
}

#[test]
fn calls_from_within() {
    model(2, || {
        let pool = ThreadPool::new(2).unwrap();
        let calls = AtomicUsize::new(0);
        pool.run(2, &|_| {
            parts_are_run(&pool, 2);
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn callers_at_the_same_time() {
    model(2, || {
        let pool = Arc::new(ThreadPool::new(2).unwrap());
        let other = {
            let pool = Arc::clone(&pool);
            sync::Builder::new().spawn(move || parts_are_run(&pool, 2)).unwrap()
        };
        parts_are_run(&pool, 2);
        other.join().unwrap();
    });
}
