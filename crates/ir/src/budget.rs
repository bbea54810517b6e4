//! What a file may make this program take: memory, nodes, calls, rounds, names, code and time.
//!
//! A [`Budget`] is an account that a caller owns. [`Budget::enter`] makes it the one of the current thread, until what that
//! gives is dropped; so every allocation below asks it, and no operator has to hand it on. Without one, reading and
//! interpreting take one of their own with [`Limits::default`].

use crate::error::{Error, Result};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a file may ask for, as plain numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of tensors, packed weights, workspaces, outputs and files that are read, all that are alive at one time.
    pub memory_bytes: usize,
    /// Whether [`Limits::memory_bytes`] grows by what the files that are read take on the disk, twice: as they are, and packed.
    pub grows_with_files: bool,
    /// Nodes of a model, those of its functions and of the graphs inside of operators included, each time that they stand
    /// somewhere.
    pub nodes: usize,
    /// Calls of functions that a model defines.
    pub calls: usize,
    /// Bytes of the names in functions, each time that one is called.
    pub name_bytes: usize,
    /// Rounds of `Loop` and `Scan` in one run, nested ones included.
    pub rounds: usize,
    /// Bytes of machine code of one program.
    pub code_bytes: usize,
    /// How long one call (reading, compiling, running) may take; `None` for as long as it does.
    pub time: Option<Duration>,
}

impl Default for Limits {
    /// A gibibyte beside the files, 262,144 nodes and rounds, 65,536 calls, 64 MiB of names, 256 MiB of code, any time.
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            grows_with_files: true,
            nodes: 1 << 18,
            calls: 1 << 16,
            name_bytes: 1 << 26,
            rounds: 1 << 18,
            code_bytes: 1 << 28,
            time: None,
        }
    }
}

impl Limits {
    /// With so many bytes of memory, whatever the files have.
    #[must_use]
    pub fn with_memory(self, bytes: usize) -> Self {
        Self { memory_bytes: bytes, grows_with_files: false, ..self }
    }

    /// With so much time for each call.
    #[must_use]
    pub fn with_time(self, time: Duration) -> Self {
        Self { time: Some(time), ..self }
    }

    /// With so many rounds in each run.
    #[must_use]
    pub fn with_rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }
}

/// One of the [`Limits`], or what else ends a call early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::nodes`].
    Nodes,
    /// [`Limits::calls`].
    Calls,
    /// [`Limits::name_bytes`].
    Names,
    /// [`Limits::rounds`].
    Rounds,
    /// [`Limits::code_bytes`].
    Code,
    /// [`Limits::time`], in milliseconds.
    Time,
    /// A [`CancelToken`].
    Cancelled,
}

/// What went beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which limit.
    pub limit: Limit,
    /// What was asked for.
    pub wanted: usize,
    /// What was left.
    pub left: usize,
    /// The limit itself.
    pub most: usize,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, left, most, .. } = self;
        match self.limit {
            Limit::Memory => {
                write!(
                    f,
                    "{wanted} bytes are wanted, {left} are left of the {most} that the memory limit allows"
                )
            }
            Limit::Nodes => write!(f, "more than {most} nodes, functions inlined"),
            Limit::Calls => write!(f, "more than {most} calls of functions"),
            Limit::Names => write!(f, "more than {most} bytes of names, functions inlined"),
            Limit::Rounds => write!(f, "more than {most} rounds of Loop and Scan in one run"),
            Limit::Code => write!(f, "{wanted} bytes of machine code; the limit is {most}"),
            Limit::Time => {
                write!(f, "the time limit of {} s is over", Duration::from_millis(*most as u64).as_secs_f64())
            }
            Limit::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// Ends what runs under a budget: reading, passes, and compiled programs look at it between steps, loops between rounds.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Ends what runs now, and what begins later.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets calls that begin from now on run again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// True from [`CancelToken::cancel`] on.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An account of what may be taken; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Account>);

struct Account {
    limits: Limits,
    /// Memory that may be taken, with what files have added to it.
    most: AtomicUsize,
    taken: AtomicUsize,
    cancel: CancelToken,
    deadline: Option<Instant>,
}

/// Bytes taken from a budget, given back when it is dropped.
#[derive(Default)]
pub struct Charge(Option<(Budget, usize)>);

/// What the current thread works for.
struct Scope {
    budget: Budget,
    deadline: Option<Instant>,
    nodes: usize,
    calls: usize,
    name_bytes: usize,
    rounds: usize,
}

thread_local! {
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// What follows the end of [`Entered`].
enum Before {
    /// The thread works on for what it worked for.
    Same,
    /// It works for this again.
    Scope(Option<Scope>),
}

/// While this lives, the thread works for a budget.
#[must_use = "the budget is left when this is dropped"]
pub struct Entered {
    /// What the thread worked for before.
    before: Before,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Before::Scope(before) = std::mem::replace(&mut self.before, Before::Same) {
            CURRENT.with_borrow_mut(|current| *current = before);
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, most) = (self.taken_bytes(), self.0.most.load(Ordering::Relaxed));
        write!(f, "Budget({taken} of {most} bytes)")
    }
}

impl Budget {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self::until(limits, None)
    }

    /// With these limits, and an end for all calls together.
    pub fn until(limits: Limits, deadline: Option<Instant>) -> Self {
        Self(Arc::new(Account {
            most: AtomicUsize::new(limits.memory_bytes),
            taken: AtomicUsize::new(0),
            cancel: CancelToken::default(),
            deadline,
            limits,
        }))
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Ends what runs under it.
    pub fn cancel_token(&self) -> CancelToken {
        self.0.cancel.clone()
    }

    /// Bytes that are taken.
    pub fn taken_bytes(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Bytes that are left.
    pub fn left_bytes(&self) -> usize {
        self.0.most.load(Ordering::Relaxed).saturating_sub(self.taken_bytes())
    }

    /// Makes it the budget of this thread. Where it is that already, the call goes on: its time and its counts do, too.
    pub fn enter(&self) -> Entered {
        CURRENT.with_borrow_mut(|current| {
            let before = match current {
                Some(scope) if Arc::ptr_eq(&scope.budget.0, &self.0) => Before::Same,
                _ => {
                    let until = self.0.limits.time.and_then(|time| Instant::now().checked_add(time));
                    let deadline = [self.0.deadline, until].into_iter().flatten().min();
                    let (nodes, calls, name_bytes, rounds) = (0, 0, 0, 0);
                    let budget = self.clone();
                    Before::Scope(current.replace(Scope {
                        budget,
                        deadline,
                        nodes,
                        calls,
                        name_bytes,
                        rounds,
                    }))
                }
            };
            Entered { before, thread: PhantomData }
        })
    }

    /// Takes bytes before they are allocated.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&self, bytes: usize) -> Result<Charge> {
        if bytes == 0 {
            return Ok(Charge::default());
        }
        let most = self.0.most.load(Ordering::Relaxed);
        let more = |taken: usize| taken.checked_add(bytes).filter(|&taken| taken <= most);
        match self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Charge(Some((self.clone(), bytes)))),
            Err(taken) => Err(self.memory(bytes, most.saturating_sub(taken))),
        }
    }

    fn memory(&self, wanted: usize, left: usize) -> Error {
        let most = self.0.most.load(Ordering::Relaxed);
        Error::Limit(Exceeded { limit: Limit::Memory, wanted, left, most })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = self.0.take() {
            budget.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} bytes)", self.0.as_ref().map_or(0, |(_, bytes)| *bytes))
    }
}

/// The budget of this thread.
pub fn current() -> Option<Budget> {
    CURRENT.with_borrow(|current| current.as_ref().map(|scope| scope.budget.clone()))
}

/// Stays in the budget of this thread, or enters one with [`Limits::default`] where there is none.
pub fn current_or_default() -> Entered {
    current().unwrap_or_default().enter()
}

/// Takes bytes from the budget of this thread; any number where there is none.
///
/// # Errors
/// When fewer are left.
pub fn take(bytes: usize) -> Result<Charge> {
    current().map_or_else(|| Ok(Charge::default()), |budget| budget.take(bytes))
}

/// Asks whether so many bytes are left, for what takes them a little later.
///
/// # Errors
/// When they are not.
pub fn ask(bytes: usize) -> Result<()> {
    take(bytes).map(drop)
}

/// Adds what a file takes on the disk to the memory that may be taken, where the limits say so.
pub(crate) fn grow(file_bytes: usize) {
    if let Some(budget) = current().filter(|budget| budget.0.limits.grows_with_files) {
        let more = |most: usize| Some(most.saturating_add(file_bytes.saturating_mul(2)));
        let _ = budget.0.most.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

/// Counts something of this call.
///
/// # Errors
/// When there are more than the limit allows; for rounds also when the call is to end, see [`check`].
pub(crate) fn count(limit: Limit, number: usize) -> Result<()> {
    CURRENT.with_borrow_mut(|current| {
        let Some(scope) = current else { return Ok(()) };
        let limits = &scope.budget.0.limits;
        let (count, most) = match limit {
            Limit::Nodes => (&mut scope.nodes, limits.nodes),
            Limit::Calls => (&mut scope.calls, limits.calls),
            Limit::Names => (&mut scope.name_bytes, limits.name_bytes),
            Limit::Rounds => (&mut scope.rounds, limits.rounds),
            _ => return Ok(()),
        };
        let left = most.saturating_sub(*count);
        if number > left {
            return Err(Error::Limit(Exceeded { limit, wanted: number, left, most }));
        }
        *count += number;
        Ok(())
    })
}

/// To be asked between steps.
///
/// # Errors
/// When the call was cancelled, or its time is over.
pub fn check() -> Result<()> {
    CURRENT.with_borrow(|current| {
        let Some(scope) = current else { return Ok(()) };
        let exceeded = |limit, most| Err(Error::Limit(Exceeded { limit, wanted: 0, left: 0, most }));
        if scope.budget.0.cancel.is_cancelled() {
            return exceeded(Limit::Cancelled, 0);
        }
        match scope.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                let most = scope.budget.0.limits.time.unwrap_or_default().as_millis();
                exceeded(Limit::Time, most as usize)
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(result: Result<()>) -> Limit {
        match result.unwrap_err() {
            Error::Limit(exceeded) => exceeded.limit,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(Limits::default().with_memory(100));
        let first = budget.take(60).unwrap();
        let error = budget.take(41).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "41 bytes are wanted, 40 are left of the 100 that the memory limit allows"
        );
        drop(first);
        assert_eq!((budget.taken_bytes(), budget.left_bytes()), (0, 100));
        assert!(budget.take(100).is_ok() && budget.take(usize::MAX).is_err());
    }

    #[test]
    fn a_thread_works_for_the_innermost() {
        let (outer, inner) = (Budget::default(), Budget::new(Limits::default().with_memory(1)));
        assert!(ask(usize::MAX).is_ok(), "nobody counts");
        let entered = outer.enter();
        {
            let _inner = inner.enter();
            assert_eq!(limit(ask(2)), Limit::Memory);
        }
        assert!(ask(2).is_ok());
        drop(entered);
        assert!(current().is_none());
    }

    #[test]
    fn counts_belong_to_a_call() {
        let budget = Budget::new(Limits::default().with_rounds(2));
        for _ in 0..3 {
            let _call = budget.enter();
            assert!(count(Limit::Rounds, 1).is_ok());
            let _deeper = budget.enter();
            assert!(count(Limit::Rounds, 1).is_ok());
            assert_eq!(limit(count(Limit::Rounds, 1)), Limit::Rounds);
        }
    }

    #[test]
    fn calls_end_when_they_are_cancelled_or_late() {
        let budget = Budget::default();
        let _call = budget.enter();
        assert!(check().is_ok());
        budget.cancel_token().cancel();
        assert_eq!(limit(check()), Limit::Cancelled);
        budget.cancel_token().clear();
        assert!(check().is_ok());
        let _late = Budget::new(Limits::default().with_time(Duration::ZERO)).enter();
        assert_eq!(check().unwrap_err().to_string(), "the time limit of 0 s is over");
    }
}
