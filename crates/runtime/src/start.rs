//! New threads begin at once, beside the one that starts them.
//!
//! A scheduler may put a new thread on the processor of its starter and leave it waiting there for the rest of a time slice,
//! milliseconds, while others idle: Linux does, on some virtual machines, most of the time. Here the starter gives way for a
//! moment, and the new thread moves on.

/// Where a thread is about to start another; nothing where the system has no answer, or no other processor.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    #[cfg(target_os = "linux")]
    processor: Option<usize>,
}

#[cfg(target_os = "linux")]
impl Start {
    /// On this processor.
    pub fn here() -> Self {
        let allowed = rustix::thread::sched_getaffinity(None).ok();
        let others = allowed.is_some_and(|allowed| allowed.count() > 1);
        Self { processor: others.then(rustix::thread::sched_getcpu) }
    }

    /// Lets the thread run that was started; for its starter.
    pub fn give_way(self) {
        if self.processor.is_some() {
            std::thread::yield_now();
        }
    }

    /// Moves this thread, which was started, away from its starter if it is there. Afterwards it may run where it could.
    pub fn move_on(self) {
        use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
        if self.processor.is_some_and(|taken| taken == sched_getcpu())
            && let Ok(allowed) = sched_getaffinity(None)
        {
            self.keep_away();
            let _ = sched_setaffinity(None, &allowed);
        }
    }

    /// Bars this thread, which was started, from the processor where its starter was: one that is woken is put beside who
    /// wakes it, too. For threads that live no longer than they are needed.
    pub fn keep_away(self) {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        // A set has room for so many; what it cannot name it cannot leave out.
        let Some(taken) = self.processor.filter(|&taken| taken < CpuSet::MAX_CPU) else { return };
        if let Ok(mut others) = sched_getaffinity(None) {
            others.unset(taken);
            // What fails changes nothing, and then the thread waits its turn.
            let _ = sched_setaffinity(None, &others);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Start {
    pub fn here() -> Self {
        Self {}
    }

    pub fn give_way(self) {}

    pub fn move_on(self) {}

    pub fn keep_away(self) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

    // Each test has a thread of its own, so that others may still run where they could.

    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn a_thread_leaves_the_processor_of_its_starter_and_may_run_where_it_could() {
        let thread = std::thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            if allowed.count() < 2 {
                eprintln!("skipped: there is one processor");
                return;
            }
            let mut moves = 0;
            for _ in 0..20 {
                let processor = sched_getcpu();
                Start { processor: Some(processor) }.move_on();
                moves += u32::from(sched_getcpu() != processor);
                assert_eq!(sched_getaffinity(None).unwrap(), allowed);
            }
            // Others may push it back at once, but not each time.
            assert!(moves > 10, "left the processor {moves} times of 20");
        });
        thread.join().unwrap();
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn a_thread_that_keeps_away_is_barred_from_that_processor_alone() {
        let thread = std::thread::spawn(|| {
            let start = Start::here();
            let Some(processor) = start.processor else {
                eprintln!("skipped: there is one processor");
                return;
            };
            let mut others = sched_getaffinity(None).unwrap();
            others.unset(processor);
            start.keep_away();
            assert_eq!(sched_getaffinity(None).unwrap(), others);
            assert_ne!(sched_getcpu(), processor);
        });
        thread.join().unwrap();
    }

    #[test]
    fn on_one_processor_nothing_moves() {
        let thread = std::thread::spawn(|| {
            let mut alone = rustix::thread::CpuSet::new();
            alone.set(sched_getcpu());
            sched_setaffinity(None, &alone).unwrap();
            assert!(Start::here().processor.is_none());
            let start = Start { processor: Some(sched_getcpu()) };
            start.move_on();
            start.keep_away();
            assert_eq!(sched_getaffinity(None).unwrap(), alone);
        });
        thread.join().unwrap();
    }
}
