//! A compiled network as a plain value: kernels in order, where their operands are, packed weights, sizes of all memory.

use crate::code::{Executable, FunctionId};
use crate::memory::AlignedBytes;
use std::fmt;
use std::sync::Arc;
use tconvc_ir::{DType, Op, Tensor};

/// A compiled network. Cheap to clone; code and weights are shared.
#[derive(Clone)]
pub struct Program {
    pub(crate) code: Arc<dyn Executable>,
    pub(crate) weights: Arc<[AlignedBytes]>,
    pub(crate) layout: Arc<Layout>,
}

/// All of a program but its code and its weights: what runs in which order, where the operands are, sizes of memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// Inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// Bytes of packed weights and constants.
    pub weight_bytes: usize,
    /// Bytes of activations.
    pub arena_bytes: usize,
    /// Bytes of scratch memory of each thread.
    pub scratch_bytes: usize,
    /// Threads that steps were partitioned for.
    pub threads: usize,
}

/// An input or output of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
}

impl Port {
    /// Size of its buffer in bytes.
    pub fn bytes(&self) -> usize {
        // The plan has checked that this fits.
        self.dtype.bytes_for(self.shape.iter().product()).unwrap_or(usize::MAX)
    }
}

/// One step: all threads finish it before the next begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Name of the node whose result it makes.
    pub node: String,
    /// Of a convolution: how it is cut up, as text; else empty.
    pub schedule: String,
    /// What runs.
    pub work: Work,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Machine code made for this step.
    Kernel(Kernel),
    /// Operators that no kernels are made for, interpreted.
    Interpreted(Interpreted),
    /// Bytes copied from one place to another.
    Copy {
        /// From here.
        from: Operand,
        /// To there.
        to: Operand,
        /// So many.
        bytes: usize,
    },
}

/// Machine code over a range of work items.
///
/// Its C signature is `void step(uint8_t *const *operands, uint64_t begin, uint64_t end, uint8_t *scratch)`: operands in
/// the order of [`Kernel::operands`], work items `begin..end`, and scratch memory of the thread's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// What it is, as reports and profiles show it: `f32_subpixel_p2x2_c8r1_avx512`.
    pub name: String,
    /// The step function in the program's code.
    pub function: FunctionId,
    /// Buffers it reads and writes.
    pub operands: Vec<Operand>,
    /// Boundaries of each thread's part of the work items, ascending: thread `i` runs `partition[i]..partition[i + 1]`.
    pub partition: Vec<u64>,
    /// Scratch memory a thread needs, in bytes.
    pub scratch_bytes: usize,
    /// How often it runs; all threads finish a time step before the next begins. Time step `t` has the work items from `t` times
    /// their number on.
    pub time_steps: u64,
}

/// Operators run by the reference kernels of the IR crate, in order, the later on results of the
/// earlier. Unlike kernels these allocate.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpreted {
    /// The operators, in order.
    pub stages: Vec<Stage>,
    /// Outputs of the last by position; `None` where nobody wants it.
    pub outputs: Vec<Option<(Operand, Port)>>,
}

/// One operator of an [`Interpreted`] step.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The operator.
    pub op: Op,
    /// Inputs by position; `None` where absent.
    pub inputs: Vec<Option<StageInput>>,
    /// Number of outputs.
    pub outputs: usize,
}

/// Input of a stage of an [`Interpreted`] step.
#[derive(Debug, Clone, PartialEq)]
pub enum StageInput {
    /// A constant of the network.
    Constant(Tensor),
    /// An output of an earlier stage.
    Made {
        /// The stage.
        stage: usize,
        /// Number of its output.
        output: usize,
    },
    /// A buffer.
    Buffer(Operand, Port),
}

/// A pointer into a buffer of the running program. Code that is given it touches the bytes of the buffer and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Which memory.
    pub space: Space,
    /// Bytes from its start.
    pub offset: usize,
    /// Where the buffer starts, in bytes from the start of the memory, and where it ends.
    pub buffer: [usize; 2],
}

impl Operand {
    /// The start of a buffer of so many bytes.
    pub fn new(space: Space, offset: usize, bytes: usize) -> Self {
        Self { space, offset, buffer: [offset, offset + bytes] }
    }

    /// True when both point to the same byte.
    pub fn is_at(&self, other: &Self) -> bool {
        (self.space, self.offset) == (other.space, other.offset)
    }
}

/// The memories of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// A block of packed weights and constants; read only.
    Weights(usize),
    /// Activations.
    Arena,
    /// The caller's buffer for an input; read only.
    Input(usize),
    /// The caller's buffer for an output.
    Output(usize),
}

impl Program {
    /// Puts a program together.
    ///
    /// # Safety
    /// The functions that `layout` names read and write no more than the buffers of their operands and `scratch_bytes` of
    /// scratch; every buffer lies within its memory: within `weights`, `arena_bytes`, or the port that it names; and what
    /// the partitions of one step write is disjoint.
    pub unsafe fn new(code: Arc<dyn Executable>, weights: Vec<AlignedBytes>, layout: Layout) -> Self {
        Self { code, weights: weights.into(), layout: Arc::new(layout) }
    }

    /// Inputs, in the model's order.
    pub fn inputs(&self) -> &[Port] {
        &self.layout.inputs
    }

    /// Outputs, in the model's order.
    pub fn outputs(&self) -> &[Port] {
        &self.layout.outputs
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.layout.steps
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.code.code_bytes()
    }

    /// Bytes of packed weights and constants.
    pub fn weight_bytes(&self) -> usize {
        self.layout.weight_bytes
    }

    /// Bytes a session takes: the arena, and the scratch memory of all threads.
    pub fn workspace_bytes(&self) -> usize {
        self.layout.arena_bytes + self.layout.scratch_bytes * self.layout.threads
    }

    /// Threads it was split for.
    pub fn threads(&self) -> usize {
        self.layout.threads
    }

    /// The code, for listings.
    pub fn code(&self) -> &dyn Executable {
        &*self.code
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("inputs", &self.layout.inputs)
            .field("outputs", &self.layout.outputs)
            .field("steps", &self.layout.steps)
            .field("code_bytes", &self.code.code_bytes())
            .field("weight_bytes", &self.weight_bytes())
            .field("workspace_bytes", &self.workspace_bytes())
            .finish_non_exhaustive()
    }
}
