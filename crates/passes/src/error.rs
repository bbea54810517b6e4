//! The one error type of this crate.

/// What can go wrong while a graph is optimised.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph itself is at fault.
    #[error(transparent)]
    Ir(#[from] tconvc_ir::Error),
    /// An option names a pass that does not exist.
    #[error("there is no pass `{name}`; the passes are {known}")]
    UnknownPass {
        /// The name given.
        name: String,
        /// Names of the passes, separated by commas.
        known: String,
    },
    /// An option has a value that it does not take.
    #[error("{option}: {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong, and what would be accepted.
        problem: String,
    },
    /// A pass kept rewriting past any sensible number of rewrites: a fault of the pass.
    #[error("pass `{pass}` did not come to an end within {rewrites} rewrites")]
    Endless {
        /// The pass, or the stage of the pipeline.
        pass: String,
        /// Rewrites made before it was stopped.
        rewrites: usize,
    },
    /// A pass left a graph that breaks a rule: a fault of the pass. Checked in debug and test builds.
    #[error("pass `{pass}` broke the graph: {problem}")]
    Broken {
        /// The pass.
        pass: String,
        /// The rule that is broken.
        problem: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
