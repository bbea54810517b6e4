//! Work that can be done in any order, on all processors.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A piece of work, and about how long it takes.
pub(crate) struct Job<'j> {
    pub nanoseconds: usize,
    pub work: Box<dyn FnOnce() + Send + 'j>,
}

/// Work below this is not worth a thread: ten times its start.
const WORTH_A_THREAD_NS: usize = 500_000;

/// Threads that the system gives this process.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does all jobs, on so many threads at most. Their number is only asked for where a second one is worth its start, and there.
pub(crate) fn run(jobs: Vec<Job<'_>>, threads: impl FnOnce() -> usize + Send) {
    let total: usize = jobs.iter().map(|job| job.nanoseconds).sum();
    let worth = (total / WORTH_A_THREAD_NS).min(jobs.len());
    let queue = Mutex::new(VecDeque::from(jobs));
    // From both ends: jobs of one kind begin with waiting for each other, where what all of them need is made.
    let next = |at_end: bool| {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        if at_end { queue.pop_back() } else { queue.pop_front() }
    };
    let work = &|at_end| {
        while let Some(job) = next(at_end) {
            (job.work)();
        }
    };
    thread::scope(|scope| {
        // Without another thread this one does it all.
        let second = move || {
            let threads = worth.min(threads());
            for _ in 2..threads {
                let _ = thread::Builder::new().spawn_scoped(scope, || work(true));
            }
            if threads > 1 {
                work(true);
            }
        };
        if worth > 1 {
            let _ = thread::Builder::new().spawn_scoped(scope, second);
        }
        work(false);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_on_any_number_of_threads() {
        for threads in [0, 1, 2, 5] {
            for count in [0, 1, 2, 100] {
                let mut done = vec![0; count];
                let jobs =
                    done.iter_mut().map(|done| Job { nanoseconds: 100_000, work: Box::new(|| *done += 1) });
                run(jobs.collect(), || threads);
                assert_eq!(done, vec![1; count], "{threads} threads");
            }
        }
    }
}
