//! How a command ends early: by a signal or when its time is over. What runs is asked to end at its next step; where that takes
//! too long, the process ends. In either case files are whole or not there.

use crate::args::LimitOptions;
use crate::{files, output};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tconvc::{Budget, CancelToken, default_limits};

/// How long what runs has for the step that it is at: a tenth of a second after the signal all has ended.
const PATIENCE: Duration = Duration::from_millis(60);

/// What a signal cancels.
static RUNNING: Mutex<Option<CancelToken>> = Mutex::new(None);

/// A budget as the options say; its time begins now.
pub fn begin(options: &LimitOptions) -> Budget {
    let mut limits = default_limits().with_rounds(options.rounds as usize);
    if let Some(mebibytes) = options.memory {
        limits = limits.with_memory((mebibytes as usize) << 20);
    }
    let time = options.time.map(Duration::from_secs_f64);
    if let Some(time) = time {
        limits = limits.with_time(time);
    }
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    let budget = Budget::until(limits, deadline);
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(budget.cancel_token());
    if let Some(time) = time {
        // Where the system gives no thread, steps alone look at the clock.
        let _ = thread::Builder::new().spawn(move || {
            thread::sleep(time + PATIENCE);
            output::error(&format!("the time limit of {} s is over", time.as_secs_f64()));
            end(1);
        });
    }
    budget
}

/// Waits for signals that end a program, in a thread of its own. Without it, where there is no thread, they end the process at
/// once, and may leave a draft beside a file.
#[cfg(unix)]
pub fn on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
    let wait = move || {
        let Some(signal) = signals.forever().next() else { return };
        if let Some(running) = &*RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
            running.cancel();
        }
        thread::sleep(PATIENCE);
        output::error("interrupted");
        // As shells say it of a program that a signal has ended.
        end(128 + signal);
    };
    if thread::Builder::new().spawn(wait).is_err() {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let _ = signal_hook::flag::register_conditional_default(signal, std::sync::Arc::new(true.into()));
        }
    }
}

/// Signals end the process.
#[cfg(not(unix))]
pub fn on_signals() {}

/// Whether a signal has come.
pub fn is_interrupted() -> bool {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.as_ref().is_some_and(CancelToken::is_cancelled)
}

/// Waits for the thread that ends the process.
pub fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

fn end(status: i32) -> ! {
    files::remove_drafts();
    std::process::exit(status)
}
