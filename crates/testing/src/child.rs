//! A test that may end its process: it runs in one of its own, which tells each case before it begins, so that the last one is
//! known whatever happens.

use std::fmt;
use std::io::Write;
use std::process::{Command, Output};

/// Names the test that a process runs the cases of.
const CHILD: &str = "TCONVC_CHILD";

/// What a child says when it is through.
const DONE: &str = "all cases are done";

/// Lines of a child that failed that are worth reading.
const LINES: usize = 100;

/// Where a child tells its cases.
pub struct Cases(());

impl Cases {
    /// Tells what comes next.
    pub fn begin(&mut self, case: &dyn fmt::Display) {
        tell(case);
    }
}

/// Runs the cases of the test of that name, as `--exact` takes it, in a process of its own.
///
/// # Panics
/// When that process fails, with the last that it said.
pub fn in_child(test: &str, cases: impl FnOnce(&mut Cases)) {
    if let Some(Output { status, stderr, .. }) = run(test, cases) {
        let said = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            status.success() && lines.contains(&DONE),
            "{test}: {status}; at last it said\n{}",
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        );
    }
}

/// What the child said and how it ended; `None` in the child itself, when it is through.
fn run(test: &str, cases: impl FnOnce(&mut Cases)) -> Option<Output> {
    if std::env::var_os(CHILD).is_some_and(|name| name == *test) {
        cases(&mut Cases(()));
        tell(&DONE);
        return None;
    }
    let child = std::env::current_exe().and_then(|program| {
        let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
        Command::new(program).args(arguments).env(CHILD, test).output()
    });
    Some(child.unwrap_or_else(|error| panic!("{test}: no process of its own: {error}")))
}

/// A line at once, and past what captures the output of tests.
fn tell(line: &dyn fmt::Display) {
    // A parent that does not listen has its reasons.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_case_of_a_process_that_ended_is_known() {
        let name = "child::tests::the_last_case_of_a_process_that_ended_is_known";
        let output = run(name, |cases| {
            cases.begin(&"the first");
            cases.begin(&"the second");
            std::process::abort();
        });
        let Output { status, stderr, .. } = output.unwrap();
        assert!(!status.success());
        assert_eq!(String::from_utf8_lossy(&stderr).lines().last(), Some("the second"));
    }

    #[test]
    fn a_process_that_is_through_is_no_failure() {
        in_child("child::tests::a_process_that_is_through_is_no_failure", |cases| {
            cases.begin(&"the only one");
        });
    }

    #[test]
    #[should_panic(expected = "at last it said")]
    fn a_name_that_is_no_test_is_noticed() {
        in_child("child::tests::no_such_test", |cases| cases.begin(&"never"));
    }
}
