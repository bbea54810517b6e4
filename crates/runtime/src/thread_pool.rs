//! The persistent pool that runs steps unless the host brings threads of its own.
//!
//! It is made for many short steps in a row: handing out a step is one atomic exchange per worker, waiting for work is
//! spinning at first, and neither allocates nor locks. Part `p` always covers the same work, so results do not depend
//! on who runs it.
//!
//! `tests/thread_pool_model.rs` runs this file under a model checker, through every order of its atomic operations.

use crate::executor::Executor;
use crate::sync::{
    Arc, AtomicBool, AtomicU32, AtomicUsize, Builder, JoinHandle, Mutex, Ordering, Thread, UnsafeCell,
    current, park, spin_loop, spins,
};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

/// A fixed number of threads that live as long as the pool: the workers, and whoever calls [`ThreadPool::run`].
///
/// With `t` threads taking part, thread `i` runs the parts `i`, `i + t`, `i + 2t` and so on, the caller being thread 0.
/// Only one call at a time is spread: a call from within a task, or while another caller is at it, runs its parts
/// on its own thread, one after another.
///
/// A panic in a task is passed on to the caller when all parts are through; the pool stays usable.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller's included; 0 counts as 1.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let count = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            busy: AtomicBool::new(false),
            pending: Padded(AtomicUsize::new(0)),
            call: UnsafeCell::new(None),
            slots: (0..count).map(|_| Padded(AtomicU32::new(IDLE))).collect(),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            spins: spins(threads),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(count) };
        for index in 0..count {
            let shared = Arc::clone(&pool.shared);
            let worker = Builder::new().name(format!("tconvc-{}", index + 1));
            pool.workers.push(worker.spawn(move || shared.work(index))?);
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
        // Acquire: the last caller is through with what the workers share.
        if helpers == 0 || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..parts).for_each(task);
            return;
        }
        let stride = helpers + 1;
        #[expect(clippy::transmute_ptr_to_ptr, reason = "a cast cannot change the lifetime")]
        // SAFETY: only the lifetime changes, and the pointer is not followed after this function has returned.
        let task_now = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        let call = Some(Call { task: task_now, parts, stride, caller: current() });
        // SAFETY: `busy` makes this thread the only one to hand out work, and no worker looks at the call before its
        // slot says so, or after it has counted itself out of `pending`, which was 0.
        self.shared.call.with_mut(|place| unsafe { *place = call });
        self.shared.pending.0.store(helpers, Ordering::Relaxed);
        for (slot, worker) in self.shared.slots.iter().zip(&self.workers).take(helpers) {
            // Release: whoever sees this sees the call, and the number of those who are pending.
            if slot.0.swap(WORK, Ordering::Release) == PARKED {
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

// SAFETY: each helper runs the parts of its own number, the caller those of number 0, every part once; `run` waits for all
// helpers before it returns or unwinds, and takes over what they wrote. Where no call can be spread, the loop on the
// calling thread does the same.
unsafe impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        ThreadPool::threads(self)
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        ThreadPool::run(self, parts, task);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        for (slot, worker) in self.shared.slots.iter().zip(&self.workers) {
            // There is nothing to see but the word itself.
            if slot.0.swap(STOP, Ordering::Relaxed) == PARKED {
                worker.thread().unpark();
            }
        }
        for worker in self.workers.drain(..) {
            // Workers catch the panics of tasks and have none of their own.
            let _ = worker.join();
        }
    }
}

/// Nothing to do.
const IDLE: u32 = 0;
/// The call is there.
const WORK: u32 = 1;
/// The worker sleeps, or is about to: it has to be woken.
const PARKED: u32 = 2;
/// The pool goes away.
const STOP: u32 = 3;

/// In [`Shared::pending`]: the caller sleeps and has to be woken by the last helper.
const CALLER_SLEEPS: usize = 1 << (usize::BITS - 1);

/// On a cache line, and the neighbour that is fetched with it, of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// A task without its lifetime.
type Task = *const (dyn Fn(usize) + Sync);

/// What the workers are told.
struct Call {
    task: Task,
    parts: usize,
    stride: usize,
    caller: Thread,
}

struct Shared {
    /// A call is being spread.
    busy: AtomicBool,
    /// Helpers that have not finished, and [`CALLER_SLEEPS`]; 0 when the caller may go on.
    pending: Padded<AtomicUsize>,
    call: UnsafeCell<Option<Call>>,
    /// One of the states above per worker.
    slots: Vec<Padded<AtomicU32>>,
    /// There is something in `panic`.
    panicked: AtomicBool,
    /// The first panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spins: u32,
}

// SAFETY: all fields but `call` are sharable; `call` is written by the holder of `busy` alone, while no helper is
// pending, and read by pending helpers alone, see `ThreadPool::run`. Its task is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the task that a call points to is not followed when the call is dropped.
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
            // Nobody hands out more before this worker has counted itself out.
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
                _ => spin_loop(),
            }
        }
        // This tells nothing but itself; what is there is looked at below.
        let sleeps = slot.compare_exchange(IDLE, PARKED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        while sleeps && slot.load(Ordering::Relaxed) == PARKED {
            park();
        }
        slot.load(Ordering::Acquire) == WORK
    }

    /// The parts of thread `index` in the call.
    fn help(&self, index: usize) {
        let (task, parts, stride) = self.with_call(|call| (call.task, call.parts, call.stride));
        // SAFETY: the caller keeps the task alive until all helpers are counted out.
        let task = unsafe { &*task };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (index..parts).step_by(stride).for_each(task)))
        {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            self.panicked.store(true, Ordering::Relaxed);
        }
        // Release: the caller sees what the task has written. Acquire: the last helper passes on what the others wrote.
        if self.pending.0.fetch_sub(1, Ordering::AcqRel) == CALLER_SLEEPS | 1 {
            // A caller that sleeps goes on only when `pending` is 0: the call is still this one.
            let caller = self.with_call(|call| call.caller.clone());
            self.pending.0.store(0, Ordering::Release);
            caller.unpark();
        }
    }

    /// What this worker was told.
    fn with_call<R>(&self, read: impl FnOnce(&Call) -> R) -> R {
        // SAFETY: this thread was told that there is work, and the caller waits for it: the call does not change.
        self.call.with(|place| match unsafe { &*place } {
            Some(call) => read(call),
            None => unreachable!("a call is there before a worker is told"),
        })
    }

    fn wait_for_helpers(&self) {
        let pending = &self.pending.0;
        for _ in 0..self.spins {
            if pending.load(Ordering::Acquire) == 0 {
                return;
            }
            spin_loop();
        }
        if pending.fetch_or(CALLER_SLEEPS, Ordering::Acquire) == 0 {
            return;
        }
        while pending.load(Ordering::Acquire) != 0 {
            park();
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
