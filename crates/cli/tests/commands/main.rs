//! The command as people see it: help, what it prints, error messages and exit statuses. Snapshots lie beside.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

mod damage;
#[cfg(test)]
mod errors;
mod explain;
#[cfg(test)]
mod exports;
mod graphs;
mod help;
mod interpreted;
mod limits;
mod runs;
#[cfg(test)]
mod support;
