//! What a program is compiled for, and with which schedules: plain values.

use std::collections::BTreeMap;
use std::sync::Arc;
use tconvc_ir::budget::Budget;
use tconvc_machine::Target;

/// What a program is compiled for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processor.
    pub target: Target,
    /// Threads that share each step; at least 1.
    pub threads: usize,
    /// The least work that is worth a thread, in nanoseconds; by default what the target's rates say. Tests take none, so that
    /// small problems are shared, too.
    pub grain_ns: Option<f64>,
    /// Whether Cranelift's IR is kept for listings.
    pub keep_text: bool,
    /// Whether sums may be rounded otherwise than by the definition, where that makes them cheaper.
    pub fast_math: FastMath,
    /// Schedules of convolutions that are not to be chosen by estimate.
    pub schedules: Schedules,
    /// The most bytes that the program may need beside the constants of its graph: for activations, for scratch memory of all
    /// threads, and for what packing adds to the constants.
    pub workspace_limit: usize,
    /// What the program may take of memory and code, and when making it is to end.
    pub budget: Option<Budget>,
    /// Whether [`Artifact::choices`](crate::artifact::Artifact::choices) are collected.
    pub list_choices: bool,
}

impl Options {
    /// One thread, no listing, any amount of memory, Winograd where it pays, every schedule chosen by estimate.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            threads: 1,
            grain_ns: None,
            keep_text: false,
            fast_math: FastMath::WherePays,
            schedules: Schedules::default(),
            workspace_limit: usize::MAX,
            budget: None,
            list_choices: false,
        }
    }
}

/// Names of schedules by what they compute, as [`Choice`] spells both. A name that does not fit is passed over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedules(Arc<BTreeMap<String, String>>);

impl Schedules {
    /// The name for a problem; its key is only made where there are any.
    pub(crate) fn get(&self, problem: impl FnOnce() -> String) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&problem()).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Schedules {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(names: T) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }
}

/// The schedule of a convolution, and others that differ from it in one decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What is computed: channels, extents, strides, taps.
    pub problem: String,
    /// Name of the schedule.
    pub chosen: String,
    /// Names of the others, each once.
    pub others: Vec<String>,
}

/// Whether convolutions are computed by Winograd F(m, r).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastMath {
    /// No.
    Off,
    /// Where it is estimated to be faster.
    WherePays,
    /// Wherever there is one, so that tests reach what would not pay.
    Always,
}
