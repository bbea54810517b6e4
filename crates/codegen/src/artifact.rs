//! What a compilation gives: functions, packed weights, steps and sizes, before they have a place to run in.

use crate::declined::Declined;
use crate::kernels::refusal::Estimate;
use crate::module::LoweredModule;
use crate::options::Choice;
use tconvc_runtime::memory::AlignedBytes;
use tconvc_runtime::program::Layout;

/// A compiled network as plain values. What becomes of them is up to a sink: [executable memory](Artifact::load).
pub struct Artifact {
    /// Machine code, and the target that it is for.
    pub functions: LoweredModule,
    /// Blocks of packed weights and constants.
    pub weights: Vec<AlignedBytes>,
    /// Steps in order, inputs and outputs, sizes of all memory.
    pub layout: Layout,
    /// The schedules of the convolutions that have several, where
    /// [`Options::list_choices`](crate::options::Options::list_choices) asks for them.
    pub choices: Vec<Choice>,
    /// Algorithms that the target has no room for, and what took their place.
    pub declined: Vec<Declined>,
    /// How long the parts of the plan take, and which are interpreted; in the order of their steps in the layout. Steps behind
    /// the last are copies to outputs.
    pub estimates: Vec<Estimate>,
}
