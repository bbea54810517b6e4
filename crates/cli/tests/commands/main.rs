//! The command as people see it: help, what it prints, error messages and exit statuses. Snapshots lie beside.
#![expect(clippy::unwrap_used, reason = "tests")]

mod damage;
mod errors;
mod explain;
mod exports;
mod graphs;
mod help;
mod runs;
mod support;
