//! The thread pool on real threads; `thread_pool_model.rs` goes through their orders.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tconvc_runtime::executor::{Executor, Serial};
use tconvc_runtime::thread_pool::ThreadPool;

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
        let pool = ThreadPool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads.max(1));
        for parts in [0, 1, 2, 3, 6, 7, 8, 100] {
            assert_eq!(sums(&pool, parts), (1..=parts).collect::<Vec<_>>(), "{threads} {parts}");
        }
    }
    assert_eq!(sums(&Serial, 5), [1, 2, 3, 4, 5]);
}

#[test]
fn many_short_steps_with_pauses() {
    let pool = ThreadPool::new(3).unwrap();
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
    let pool = ThreadPool::new(3).unwrap();
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
    let pool = ThreadPool::new(3).unwrap();
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

/// Counts the threads that have ended, among those that looked at it.
struct Ends;

static ENDED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Ends {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static ENDS: Ends = const { Ends };
}

#[test]
fn dropping_joins_workers_awake_or_asleep() {
    for (pools, pause) in [(1, 0), (2, 3)] {
        let pool = ThreadPool::new(4).unwrap();
        let caller = thread::current().id();
        pool.run(4, &|_| {
            if thread::current().id() != caller {
                ENDS.with(|_| {});
            }
        });
        thread::sleep(std::time::Duration::from_millis(pause));
        drop(pool);
        assert_eq!(ENDED.load(Ordering::Relaxed), 3 * pools, "a worker is still there");
    }
}
