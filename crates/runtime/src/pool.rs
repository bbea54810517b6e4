//! Threads: the trait through which steps are spread over them, and the persistent pool that is used by default.
//!
//! The pool is made for many short steps in a row: handing out a step is one atomic exchange per worker, waiting for
//! work is spinning at first, and neither allocates nor locks. Splits are static: part `p` always covers the same
//! work, so results do not depend on who runs it.

use crate::start::Start;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

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

/// A fixed number of threads that live as long as the pool: the workers, and whoever calls [`Pool::run`].
///
/// With `t` threads taking part, thread `i` runs the parts `i`, `i + t`, `i + 2t` and so on, the caller being thread 0.
/// Only one call at a time is spread: a call from within a task, or while another caller is at it, runs its parts
/// on its own thread, one after another.
///
/// A panic in a task is passed on to the caller when all parts are through; the pool stays usable.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 counts as 1.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let count = threads.max(1) - 1;
        // Spinning only helps where nobody else waits for the core.
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spins = if threads <= cores { SPINS } else { 0 };
        let shared = Arc::new(Shared {
            busy: AtomicBool::new(false),
            pending: Padded(AtomicUsize::new(0)),
            released: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            slots: (0..count).map(|_| Padded(AtomicU32::new(IDLE))).collect(),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            spins,
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(count) };
        let start = Start::here();
        for index in 0..count {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("tconvc-{}", index + 1));
            pool.workers.push(worker.spawn(move || {
                start.move_on();
                shared.work(index);
            })?);
            start.give_way();
        }
        Ok(pool)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once with each of `0 .. parts` and returns when all calls have returned.
    ///
    /// # Panics
    /// Where a task does.
    pub fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        let helpers = self.workers.len().min(parts.saturating_sub(1));
        if helpers == 0 || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..parts).for_each(task);
            return;
        }
        let stride = helpers + 1;
        #[expect(clippy::transmute_ptr_to_ptr, reason = "a cast cannot change the lifetime")]
        // SAFETY: only the lifetime changes, and the pointer is not followed after this function has returned.
        let erased = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        let job = Some(Job { task: erased, parts, stride, caller: thread::current() });
        // SAFETY: `busy` makes this thread the only one to hand out work, and no worker looks at the job before its
        // slot says so, or after it has counted itself out of `pending`, which was 0.
        unsafe { *self.shared.job.get() = job };
        self.shared.pending.0.store(helpers, Ordering::Relaxed);
        for (slot, worker) in self.shared.slots.iter().zip(&self.workers).take(helpers) {
            if slot.0.swap(WORK, Ordering::AcqRel) == PARKED {
                worker.thread().unpark();
            }
        }
        // Neither a return nor a panic may leave this function before the helpers are through with the task.
        let own = catch_unwind(AssertUnwindSafe(|| (0..parts).step_by(stride).for_each(task)));
        self.shared.wait_for_helpers();
        let theirs = self.shared.take_panic();
        self.shared.busy.store(false, Ordering::Release);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        if let Some(payload) = theirs {
            resume_unwind(payload);
        }
    }
}

impl Executor for Pool {
    fn threads(&self) -> usize {
        Pool::threads(self)
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        Pool::run(self, parts, task);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (slot, worker) in self.shared.slots.iter().zip(&self.workers) {
            slot.0.store(STOP, Ordering::Release);
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // Workers catch the panics of tasks and have none of their own.
            let _ = worker.join();
        }
    }
}

/// Nothing to do.
const IDLE: u32 = 0;
/// The job is there.
const WORK: u32 = 1;
/// The worker sleeps, or is about to: it has to be woken.
const PARKED: u32 = 2;
/// The pool goes away.
const STOP: u32 = 3;

/// Looks at the slot before sleeping: some 50 us, longer than the time between the steps of a program.
const SPINS: u32 = 2000;

/// In [`Shared::pending`]: the caller sleeps and has to be woken by the last helper.
const CALLER_SLEEPS: usize = 1 << (usize::BITS - 1);

/// On a cache line, and the neighbour that is fetched with it, of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// A task without its lifetime.
type Task = *const (dyn Fn(usize) + Sync);

struct Job {
    task: Task,
    parts: usize,
    stride: usize,
    caller: Thread,
}

struct Shared {
    /// A call is being spread.
    busy: AtomicBool,
    /// Helpers that have not finished, and [`CALLER_SLEEPS`].
    pending: Padded<AtomicUsize>,
    /// The last helper has taken what it needs to wake the caller.
    released: AtomicBool,
    job: UnsafeCell<Option<Job>>,
    /// One of the states above per worker.
    slots: Vec<Padded<AtomicU32>>,
    /// There is something in `panic`.
    panicked: AtomicBool,
    /// The first panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spins: u32,
}

// SAFETY: all fields but `job` are sharable; `job` is written by the holder of `busy` alone, while no helper is
// pending, and read by pending helpers alone, see `Pool::run`. Its task is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the task that a job points to is not followed when the job is dropped.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("busy", &self.busy).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Shared {
    /// The life of worker `index`.
    fn work(&self, index: usize) {
        let slot = &self.slots[index].0;
        while self.wait_for_work(slot) {
            slot.store(IDLE, Ordering::Relaxed);
            self.help(index + 1);
        }
    }

    /// True where there is work, false where the pool goes away.
    fn wait_for_work(&self, slot: &AtomicU32) -> bool {
        for _ in 0..self.spins {
            match slot.load(Ordering::Acquire) {
                WORK => return true,
                STOP => return false,
                _ => std::hint::spin_loop(),
            }
        }
        let sleeps = slot.compare_exchange(IDLE, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        while sleeps && slot.load(Ordering::Acquire) == PARKED {
            thread::park();
        }
        slot.load(Ordering::Acquire) == WORK
    }

    /// The share of thread `index` in the job.
    fn help(&self, index: usize) {
        // SAFETY: this thread was told that there is work and has not counted itself out: the job does not change,
        // and the caller, who keeps the task alive, waits.
        let job = unsafe { &*self.job.get() }.as_ref().map(|job| (unsafe { &*job.task }, job));
        if let Some((task, job)) = job {
            let share = (index..job.parts).step_by(job.stride);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| share.for_each(task))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
                self.panicked.store(true, Ordering::Relaxed);
            }
        }
        if self.pending.0.fetch_sub(1, Ordering::AcqRel) == CALLER_SLEEPS | 1 {
            // SAFETY: a caller that sleeps goes on only when `released` is set: the job is still this one.
            let caller = unsafe { &*self.job.get() }.as_ref().map(|job| job.caller.clone());
            self.released.store(true, Ordering::Release);
            if let Some(caller) = caller {
                caller.unpark();
            }
        }
    }

    fn wait_for_helpers(&self) {
        let pending = &self.pending.0;
        for _ in 0..self.spins {
            if pending.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        self.released.store(false, Ordering::Relaxed);
        if pending.fetch_or(CALLER_SLEEPS, Ordering::AcqRel) == 0 {
            return;
        }
        while !self.released.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Helpers count themselves out with their panic already in place.
    fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        if !self.panicked.load(Ordering::Relaxed) {
            return None;
        }
        self.panicked.store(false, Ordering::Relaxed);
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(pool: &dyn Executor, parts: usize) -> Vec<usize> {
        let seen: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        pool.run(parts, &|part| {
            seen[part].fetch_add(part + 1, Ordering::Relaxed);
        });
        seen.iter().map(|s| s.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn every_part_runs_once() {
        for threads in [0, 1, 2, 3, 7] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads.max(1));
            for parts in [0, 1, 2, 3, 6, 7, 8, 100] {
                assert_eq!(sums(&pool, parts), (1..=parts).collect::<Vec<_>>(), "{threads} {parts}");
            }
        }
        assert_eq!(sums(&Serial, 5), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn many_short_steps_with_pauses() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicUsize::new(0);
        for round in 0..5_000_usize {
            let parts = 1 + round % 5;
            pool.run(parts, &|part| {
                total.fetch_add(part, Ordering::Relaxed);
            });
            let before: usize = (0..=round).map(|r| 1 + r % 5).map(|parts| parts * (parts - 1) / 2).sum();
            if round % 100 == 0 {
                assert_eq!(total.load(Ordering::Relaxed), before);
            }
            if round % 500 == 0 {
                // Long enough for the workers to fall asleep.
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn calls_from_many_threads_and_from_within_are_served() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(4, &|_| {
                            pool.run(3, &|inner| {
                                total.fetch_add(inner, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 500 * 4 * 3);
    }

    #[test]
    fn panics_reach_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for bad in 0..6_usize {
            let done = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(6, &|part| {
                    assert_ne!(part, bad, "part {part} fails");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }));
            let text = result.unwrap_err().downcast::<String>().unwrap();
            assert!(text.contains(&format!("part {bad} fails")), "{text}");
            assert_eq!(sums(&pool, 6), [1, 2, 3, 4, 5, 6]);
        }
        // All at once.
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(3, &|part| panic!("part {part}"))));
        assert!(result.is_err());
        assert_eq!(sums(&pool, 6), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn dropping_joins_workers_awake_or_asleep() {
        for pause in [0, 3] {
            let pool = Pool::new(4).unwrap();
            pool.run(4, &|_| {});
            thread::sleep(std::time::Duration::from_millis(pause));
            let shared = Arc::downgrade(&pool.shared);
            drop(pool);
            assert!(shared.upgrade().is_none(), "a worker is still there");
        }
    }
}
