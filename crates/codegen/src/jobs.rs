//! Work that other threads do while more of it is found.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use tconvc_runtime::start::Start;

/// A piece of work, which can be done in any order with others, and about how long it takes.
pub(crate) struct Job<'j> {
    pub nanoseconds: usize,
    pub work: Box<dyn FnOnce() + Send + 'j>,
}

/// Work below this is not worth a thread: ten times its start.
const WORTH_A_THREAD_NS: usize = 500_000;

/// Work below this is not worth waking one that waits.
const WORTH_A_WAKE_NS: usize = 200_000;

/// Threads that the system gives this process.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Jobs that wait, for the threads of [`with_helpers`].
#[derive(Default)]
pub(crate) struct Queue<'j> {
    state: Mutex<State<'j>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'j> {
    jobs: VecDeque<Job<'j>>,
    /// What they take together.
    nanoseconds: usize,
    helpers: usize,
    /// Helpers without work.
    waiting: usize,
    is_closed: bool,
}

impl<'j> Queue<'j> {
    /// Appends a job.
    pub(crate) fn push(&self, job: Job<'j>) {
        let mut state = self.state();
        state.nanoseconds += job.nanoseconds;
        state.jobs.push_back(job);
        let wakes = state.waiting > 0 && state.nanoseconds >= WORTH_A_WAKE_NS;
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
    }

    /// Helps with what is left, the last first: the first ones are what the helpers are at.
    pub(crate) fn finish(&self) {
        self.changed.notify_all();
        while let Some(job) = { self.state().take(VecDeque::pop_back) } {
            (job.work)();
        }
    }

    /// The next job; waits for one unless the queue is closed.
    fn next(&self) -> Option<Job<'j>> {
        let mut state = self.state();
        loop {
            match state.take(VecDeque::pop_front) {
                None if !state.is_closed => {
                    state.waiting += 1;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
                job => return job,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'j>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'j> State<'j> {
    fn take(&mut self, end: impl FnOnce(&mut VecDeque<Job<'j>>) -> Option<Job<'j>>) -> Option<Job<'j>> {
        let job = end(&mut self.jobs)?;
        self.nanoseconds -= job.nanoseconds;
        Some(job)
    }
}

/// Closes a queue when it goes: nobody waits for jobs that do not come, whatever happened.
struct Closing<'a, 'j>(&'a Queue<'j>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        let unwanted = std::mem::take(&mut state.jobs);
        drop(state);
        self.0.changed.notify_all();
        drop(unwanted);
    }
}

/// Gives `work` a queue that other threads work on meanwhile, so many threads at most with this one; their number is only
/// asked for where `nanoseconds` of jobs are worth a second one, and there. The first of them begins with `prepare`. Jobs
/// that are left without [`Queue::finish`] are not done.
pub(crate) fn with_helpers<'j, T>(
    nanoseconds: usize,
    threads: impl FnOnce() -> usize + Send,
    prepare: impl FnOnce() + Send,
    work: impl FnOnce(&Arc<Queue<'j>>) -> T,
) -> T {
    let queue = Arc::new(Queue::default());
    thread::scope(|scope| {
        let _closing = Closing(&queue);
        if nanoseconds >= WORTH_A_THREAD_NS {
            let queue = Arc::clone(&queue);
            let start = Start::here();
            // Without another thread this one does it all.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                start.move_on();
                let most = threads().saturating_sub(1);
                // Not before: one that is barred counts a processor less.
                start.keep_away();
                if most > 0 {
                    queue.state().helpers = 1;
                    prepare();
                    help(scope, &queue, most);
                }
            });
            start.give_way();
        }
        work(&queue)
    })
}

/// Does jobs; where more are waiting than its like are worth, another one comes.
fn help<'scope, 'j: 'scope>(scope: &'scope Scope<'scope, '_>, queue: &Arc<Queue<'j>>, most: usize) {
    while let Some(job) = queue.next() {
        let wants_more = {
            let mut state = queue.state();
            let wants = state.helpers < most && state.nanoseconds / WORTH_A_THREAD_NS > state.helpers;
            state.helpers += usize::from(wants);
            wants
        };
        if wants_more {
            let queue = Arc::clone(queue);
            let start = Start::here();
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                start.keep_away();
                help(scope, &queue, most);
            });
            start.give_way();
        }
        (job.work)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_on_any_number_of_threads() {
        for threads in [0, 1, 2, 5] {
            for count in [0, 1, 2, 100] {
                let mut done = vec![0; count];
                with_helpers(
                    count * 100_000,
                    || threads,
                    || {},
                    |queue| {
                        for done in &mut done {
                            queue.push(Job { nanoseconds: 100_000, work: Box::new(|| *done += 1) });
                        }
                        queue.finish();
                    },
                );
                assert_eq!(done, vec![1; count], "{threads} threads");
            }
        }
    }

    #[test]
    fn helpers_do_not_wait_for_a_queue_that_is_left() {
        let refused = with_helpers(
            usize::MAX,
            || 3,
            || {},
            |queue| {
                queue.push(Job { nanoseconds: 1, work: Box::new(|| {}) });
                Err::<(), _>("refused")
            },
        );
        assert_eq!(refused, Err("refused"));
    }

    #[test]
    fn helpers_work_before_all_jobs_are_there() {
        let (sender, receiver) = std::sync::mpsc::channel();
        with_helpers(
            usize::MAX,
            || 2,
            || {},
            |queue| {
                queue.push(Job {
                    nanoseconds: WORTH_A_WAKE_NS,
                    work: Box::new(move || sender.send(()).unwrap()),
                });
                receiver.recv().unwrap();
            },
        );
    }
}
