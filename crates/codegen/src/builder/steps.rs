//! The steps of a program while it is made.

use tconvc_runtime::code::FunctionId;
use tconvc_runtime::memory::ALIGNMENT;
use tconvc_runtime::program::{Kernel, Operand, Step, Work};

/// A kernel whose work items all take as long.
pub(crate) struct WorkItems {
    pub name: String,
    pub function: FunctionId,
    pub operands: Vec<Operand>,
    /// Scratch memory of a thread, in bytes.
    pub scratch_bytes: usize,
    pub count: usize,
}

impl WorkItems {
    /// The kernel, its items partitioned among threads at these boundaries.
    pub fn partitioned(self, partition: Vec<u64>) -> Kernel {
        let Self { name, function, operands, scratch_bytes, .. } = self;
        Kernel { name, function, operands, partition, scratch_bytes, time_steps: 1 }
    }
}

/// Steps in running order, and the scratch memory that they need.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    all: Vec<Step>,
    /// Of a thread.
    pub scratch_bytes: usize,
    /// Of the kernels that come next, see [`Step::schedule`].
    pub schedule: String,
}

impl Steps {
    /// Appends what runs for a node.
    pub fn push(&mut self, node: &str, work: Work) {
        if let Work::Kernel(kernel) = &work {
            self.scratch_bytes = self.scratch_bytes.max(kernel.scratch_bytes.next_multiple_of(ALIGNMENT));
        }
        self.all.push(Step { node: node.to_owned(), schedule: self.schedule.clone(), work });
    }

    /// So many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes the last ones back.
    pub fn truncate(&mut self, len: usize) {
        self.all.truncate(len);
    }

    /// The steps.
    pub fn finish(self) -> Vec<Step> {
        self.all
    }
}
