//! Work that threads of an executor do while more of it is found.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tconvc_runtime::executor::Executor;

/// A piece of work, which can be done in any order with others, and about how long it takes.
pub(crate) struct Task<'t> {
    pub nanoseconds: usize,
    pub work: Box<dyn FnOnce() + Send + 't>,
}

/// Work below this is not worth a thread, which may have to wake for it and may find little left.
const WORTH_A_THREAD_NS: usize = 500_000;

/// Work below this is not worth waking one that waits.
const WORTH_A_WAKE_NS: usize = 200_000;

/// Tasks that wait, for the threads of [`with_helpers`].
#[derive(Default)]
pub(crate) struct Queue<'t> {
    state: Mutex<State<'t>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'t> {
    tasks: VecDeque<Task<'t>>,
    /// What they take together.
    nanoseconds: usize,
    /// Helpers without work.
    waiting: usize,
    is_closed: bool,
}

impl<'t> Queue<'t> {
    /// Appends a task.
    pub(crate) fn push(&self, task: Task<'t>) {
        let mut state = self.state();
        state.nanoseconds += task.nanoseconds;
        state.tasks.push_back(task);
        let wakes = state.waiting > 0 && state.nanoseconds >= WORTH_A_WAKE_NS;
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
    }

    /// Helps with what is left, the last first: the first ones are what the helpers are at.
    pub(crate) fn finish(&self) {
        self.changed.notify_all();
        while let Some(task) = { self.state().take(VecDeque::pop_back) } {
            (task.work)();
        }
    }

    /// Does tasks until the queue is closed.
    fn help(&self) {
        while let Some(task) = self.next() {
            (task.work)();
        }
    }

    /// The next task; waits for one unless the queue is closed.
    fn next(&self) -> Option<Task<'t>> {
        let mut state = self.state();
        loop {
            match state.take(VecDeque::pop_front) {
                None if !state.is_closed => {
                    state.waiting += 1;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
                task => return task,
            }
        }
    }

    /// Nobody waits any more, and what is left is not done.
    fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let unwanted = std::mem::take(&mut state.tasks);
        state.nanoseconds = 0;
        drop(state);
        self.changed.notify_all();
        drop(unwanted);
    }

    fn state(&self) -> MutexGuard<'_, State<'t>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'t> State<'t> {
    fn take(&mut self, end: impl FnOnce(&mut VecDeque<Task<'t>>) -> Option<Task<'t>>) -> Option<Task<'t>> {
        let task = end(&mut self.tasks)?;
        self.nanoseconds -= task.nanoseconds;
        Some(task)
    }
}

/// What the parts of a call share.
struct Shared<W, T> {
    /// Until a part has taken it.
    work: Option<W>,
    result: Option<T>,
    /// The first.
    panic: Option<Box<dyn Any + Send>>,
}

/// Gives `work` a queue that other threads of the executor work on meanwhile, as many as `nanoseconds` of tasks are worth.
/// Each of them begins with `prepare`. Tasks that are left without [`Queue::finish`] are not done.
///
/// Whichever part the executor runs first does `work`, the others help until that has ended: no part waits for one that has
/// not begun, so that any order and any number of threads will do. A panic of any of them ends all, and is passed on.
pub(crate) fn with_helpers<'t, T: Send>(
    executor: &dyn Executor,
    nanoseconds: usize,
    prepare: impl Fn() + Sync,
    work: impl FnOnce(&Arc<Queue<'t>>) -> T + Send,
) -> T {
    let queue = Arc::new(Queue::default());
    let parts = executor.threads().min(1 + nanoseconds / WORTH_A_THREAD_NS);
    if parts <= 1 {
        return work(&queue);
    }
    let shared = Mutex::new(Shared { work: Some(work), result: None, panic: None });
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    executor.run(parts, &|_| {
        let work = lock().work.take();
        let is_maker = work.is_some();
        let outcome = catch_unwind(AssertUnwindSafe(|| match work {
            Some(work) => Some(work(&queue)),
            None => {
                prepare();
                queue.help();
                None
            }
        }));
        if is_maker || outcome.is_err() {
            queue.close();
        }
        match outcome {
            Ok(None) => {}
            Ok(made) => lock().result = made,
            Err(payload) => _ = lock().panic.get_or_insert(payload),
        }
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (shared.panic, shared.result) {
        (Some(payload), _) => resume_unwind(payload),
        (None, Some(result)) => result,
        (None, None) => unreachable!("an executor runs every part"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tconvc_runtime::executor::Serial;
    use tconvc_runtime::thread_pool::ThreadPool;

    /// Runs parts on one thread in an order of its own, and says that it has more.
    struct OneByOne {
        backwards: bool,
    }

    // SAFETY: the calls are made one after the other, on this thread, each once.
    unsafe impl Executor for OneByOne {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
            if self.backwards {
                (0..parts).rev().for_each(task);
            } else {
                (0..parts).for_each(task);
            }
        }
    }

    fn executors() -> Vec<Box<dyn Executor>> {
        vec![
            Box::new(Serial),
            Box::new(ThreadPool::new(2).unwrap()),
            Box::new(ThreadPool::new(5).unwrap()),
            Box::new(OneByOne { backwards: false }),
            Box::new(OneByOne { backwards: true }),
        ]
    }

    #[test]
    fn every_task_is_done_once_on_any_executor() {
        for (number, executor) in executors().iter().enumerate() {
            for count in [0, 1, 2, 100] {
                let mut done = vec![0; count];
                with_helpers(
                    &**executor,
                    count * 100_000,
                    || {},
                    |queue| {
                        for done in &mut done {
                            queue.push(Task { nanoseconds: 100_000, work: Box::new(|| *done += 1) });
                        }
                        queue.finish();
                    },
                );
                assert_eq!(done, vec![1; count], "executor {number}");
            }
        }
    }

    #[test]
    fn helpers_do_not_wait_for_a_queue_that_is_left() {
        for executor in executors() {
            let refused = with_helpers(
                &*executor,
                usize::MAX - 1,
                || {},
                |queue| {
                    queue.push(Task { nanoseconds: 1, work: Box::new(|| {}) });
                    Err::<(), _>("refused")
                },
            );
            assert_eq!(refused, Err("refused"));
        }
    }

    #[test]
    fn helpers_work_before_all_tasks_are_there() {
        let (sender, receiver) = std::sync::mpsc::channel();
        with_helpers(
            &ThreadPool::new(2).unwrap(),
            WORTH_A_THREAD_NS,
            || {},
            move |queue| {
                let work = Box::new(move || sender.send(()).unwrap());
                queue.push(Task { nanoseconds: WORTH_A_WAKE_NS, work });
                receiver.recv().unwrap();
            },
        );
    }

    #[test]
    fn little_work_wakes_nobody() {
        /// Must not be asked to.
        struct Never;

        // SAFETY: it runs nothing at all.
        unsafe impl Executor for Never {
            fn threads(&self) -> usize {
                8
            }

            fn run(&self, _: usize, _: &(dyn Fn(usize) + Sync)) {
                panic!("asked to run");
            }
        }

        assert_eq!(with_helpers(&Never, WORTH_A_THREAD_NS - 1, || panic!("prepared"), |_| 7), 7);
    }

    #[test]
    fn a_panic_ends_all_and_is_passed_on() {
        for executor in executors() {
            let of_the_maker = catch_unwind(AssertUnwindSafe(|| {
                with_helpers(&*executor, usize::MAX - 1, || {}, |_| panic!("maker"))
            }));
            assert_eq!(of_the_maker.unwrap_err().downcast_ref(), Some(&"maker"));
            let done = AtomicUsize::new(0);
            let of_a_task = catch_unwind(AssertUnwindSafe(|| {
                with_helpers(
                    &*executor,
                    usize::MAX - 1,
                    || {},
                    |queue| {
                        queue.push(Task { nanoseconds: WORTH_A_WAKE_NS, work: Box::new(|| panic!("task")) });
                        queue.push(Task {
                            nanoseconds: 1,
                            work: Box::new(|| _ = done.fetch_add(1, Ordering::Relaxed)),
                        });
                        queue.finish();
                    },
                );
            }));
            assert_eq!(of_a_task.unwrap_err().downcast_ref(), Some(&"task"));
        }
    }
}
