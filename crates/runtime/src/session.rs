//! Running a program: the workspace, the table of operand pointers, and the calls into the code.
//!
//! All of the unsafe code of running is here; see [`Session::run`] for what makes it sound.

use crate::code::StepFn;
use crate::error::RunError;
use crate::executor::Executor;
use crate::memory::AlignedBytes;
use crate::program::{Interpreted, Operand, Port, Program, Space, Stage, StageInput, Work};
use crate::subgraphs::{Subgraph, Subgraphs};
use std::sync::Arc;
use tconvc_ir::budget::{self, Charge};
use tconvc_ir::{Op, Tensor, TensorView, TensorViewMut};

mod apart;
mod parts;

/// Memory and threads for running one program, one call at a time.
pub struct Session {
    program: Program,
    executor: Arc<dyn Executor>,
    arena: AlignedBytes,
    /// One segment a thread.
    scratch: AlignedBytes,
    /// Where the operands of all kernels are, one after the other. Those of inputs and outputs are set by each run.
    table: Vec<Address>,
    /// Entries of the table that point into the caller's buffers.
    patches: Vec<(usize, Operand)>,
    calls: Vec<Call>,
    /// What runs graphs inside of operators; they are interpreted without.
    subgraphs: Option<Arc<dyn Subgraphs>>,
    /// What arena and scratch memory take of a budget.
    _charge: Charge,
}

/// A kernel, ready to be called.
struct Call {
    function: StepFn,
    /// First entry of its operands in the table.
    operands: usize,
}

/// Where an operand is. An address by itself lets nobody read or write; [`Task::run`] says who may, and why.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Address(*mut u8);

// SAFETY: other threads can do no more with an address than this one: compare it, or pass it on.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    /// The address so many bytes on.
    fn at(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }
}

impl Session {
    /// Makes the workspace.
    ///
    /// # Errors
    /// When there is no memory for it, or the budget of the thread does not allow it.
    pub fn new(program: &Program, executor: Arc<dyn Executor>) -> Result<Self, RunError> {
        let memory = |bytes: usize| AlignedBytes::zeroed(bytes).ok_or(RunError::Memory { bytes });
        let scratch_bytes = program.layout.scratch_bytes.saturating_mul(program.layout.threads);
        let charge = budget::take(program.layout.arena_bytes.saturating_add(scratch_bytes))?;
        let mut arena = memory(program.layout.arena_bytes)?;
        let scratch = memory(scratch_bytes)?;
        let (mut table, mut patches, mut calls) = (vec![], vec![], vec![]);
        for step in program.steps() {
            let Work::Kernel(kernel) = &step.work else { continue };
            let Some(function) = program.code().step(kernel.function) else {
                unreachable!("the builder makes kernels of step functions only")
            };
            calls.push(Call { function, operands: table.len() });
            for &operand in &kernel.operands {
                if matches!(operand.space, Space::Input(_) | Space::Output(_)) {
                    patches.push((table.len(), operand));
                }
                let start = match operand.space {
                    Space::Weights(i) => program.weights[i].as_ptr().cast_mut(),
                    Space::Arena => arena.as_mut_ptr(),
                    Space::Input(_) | Space::Output(_) => std::ptr::null_mut(),
                };
                table.push(Address(start).at(operand.offset));
            }
        }
        let program = program.clone();
        Ok(Self {
            program,
            executor,
            arena,
            scratch,
            table,
            patches,
            calls,
            subgraphs: None,
            _charge: charge,
        })
    }

    /// Runs graphs inside of operators by these means.
    #[must_use]
    pub fn with_subgraphs(self, subgraphs: Arc<dyn Subgraphs>) -> Self {
        Self { subgraphs: Some(subgraphs), ..self }
    }

    /// The program that runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs the program once on tensors in the order and layout of [`Program::inputs`] and [`Program::outputs`].
    /// Outputs need not be initialised; they are used as memory while the program runs.
    ///
    /// Allocates nothing, unless a step is [`Work::Interpreted`].
    ///
    /// # Errors
    /// When a buffer is missing, of the wrong size, or not aligned to four bytes.
    pub fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        self.run_timed(inputs, outputs, |_, _| {})
    }

    /// As [`Session::run`]; calls `observe` after each step with its number and the time it took.
    ///
    /// # Errors
    /// As there.
    pub fn run_timed(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        mut observe: impl FnMut(usize, std::time::Duration),
    ) -> Result<(), RunError> {
        check("input", &self.program.layout.inputs, inputs.len(), |i| inputs[i].bytes())?;
        check("output", &self.program.layout.outputs, outputs.len(), |i| outputs[i].bytes())?;
        for &(entry, operand) in &self.patches {
            self.table[entry] = match operand.space {
                Space::Input(i) => Address(inputs[i].bytes().as_ptr().cast_mut()).at(operand.offset),
                Space::Output(i) => Address(outputs[i].bytes_mut().as_mut_ptr()).at(operand.offset),
                Space::Weights(_) | Space::Arena => continue,
            };
        }
        let mut next = 0;
        let layout = Arc::clone(&self.program.layout);
        for (number, step) in layout.steps.iter().enumerate() {
            budget::check()?;
            let start = std::time::Instant::now();
            match &step.work {
                Work::Kernel(kernel) => {
                    // `new` made a call for each kernel, in this order.
                    let call = &self.calls[next];
                    next += 1;
                    let task = Task {
                        function: call.function,
                        operands: &self.table[call.operands..][..kernel.operands.len()],
                        scratch: Address(self.scratch.as_mut_ptr()),
                        stride: self.program.layout.scratch_bytes,
                        partition: &kernel.partition,
                    };
                    for time_step in 0..kernel.time_steps {
                        match kernel.partition.len() {
                            0 | 1 => {}
                            2 => task.run(0, time_step),
                            parts => self.executor.run(parts - 1, &|part| task.run(part, time_step)),
                        }
                    }
                }
                work => self.run_data(&step.node, work, inputs, outputs)?,
            }
            observe(number, start.elapsed());
        }
        Ok(())
    }

    /// A step that is no kernel.
    fn run_data(
        &mut self,
        node: &str,
        work: &Work,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        match work {
            Work::Kernel(_) => unreachable!("kernels are called, not run here"),
            Work::Interpreted(interpreted) => self.run_interpreted(node, interpreted, inputs, outputs)?,
            Work::Copy { from, to, bytes } => {
                let source = self.read(*from, *bytes, inputs, outputs).as_ptr();
                let target = self.write(*to, *bytes, outputs).as_mut_ptr();
                // SAFETY: both are in bounds of their buffers; `copy` allows them to overlap.
                unsafe { std::ptr::copy(source, target, *bytes) };
            }
        }
        Ok(())
    }

    fn run_interpreted(
        &mut self,
        node: &str,
        interpreted: &Interpreted,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        let mut made: Vec<Vec<Tensor>> = vec![];
        for stage in &interpreted.stages {
            let at = |error: tconvc_ir::Error| error.at(node, stage.op.name());
            let mut tensors = vec![];
            for input in &stage.inputs {
                tensors.push(match input {
                    None => None,
                    Some(StageInput::Constant(tensor)) => Some(tensor.clone()),
                    Some(StageInput::Made { stage, output }) => made[*stage].get(*output).cloned(),
                    Some(StageInput::Buffer(operand, port)) => {
                        budget::ask(port.bytes()).map_err(at)?;
                        let bytes = self.read(*operand, port.bytes(), inputs, outputs).to_vec();
                        Some(Tensor::from_bytes(port.dtype, port.shape.clone(), bytes).map_err(at)?)
                    }
                });
            }
            let arguments: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
            made.push(self.evaluate(node, stage, &arguments).map_err(at)?);
        }
        let results = made.pop().unwrap_or_default();
        for (output, result) in interpreted.outputs.iter().zip(results) {
            let Some((operand, port)) = output else { continue };
            if result.shape() != port.shape || result.dtype() != port.dtype {
                let (planned, name) = (&port.shape, &port.name);
                let found = format!("{}{:?}", result.dtype(), result.shape());
                return Err(tconvc_ir::Error::Size(format!(
                    "`{name}` was planned as {}{planned:?} and is {found}",
                    port.dtype
                ))
                .into());
            }
            self.write(*operand, port.bytes(), outputs).copy_from_slice(result.bytes());
        }
        Ok(())
    }

    /// An operator by its definition, but for the graphs inside of it.
    fn evaluate(
        &self,
        node: &str,
        stage: &Stage,
        arguments: &[Option<&Tensor>],
    ) -> tconvc_ir::Result<Vec<Tensor>> {
        let (Some(subgraphs), Op::Opaque(op)) = (&self.subgraphs, &stage.op) else {
            return stage.op.eval(arguments, stage.outputs);
        };
        let given = stage.inputs.iter().map(|input| match input {
            Some(StageInput::Constant(tensor)) => Some(tensor),
            _ => None,
        });
        let control = op.control()?;
        let constants = control.constant_inputs(&given.collect::<Vec<_>>(), op.captures);
        control.eval_with(arguments, &mut |attribute, graph, inputs| {
            let subgraph = Subgraph { node, attribute, graph, constants: &constants };
            subgraphs.run(&subgraph, inputs, &self.executor)
        })
    }

    fn read<'a>(
        &'a self,
        operand: Operand,
        bytes: usize,
        inputs: &[TensorView<'a>],
        outputs: &'a [TensorViewMut<'_>],
    ) -> &'a [u8] {
        let memory = match operand.space {
            Space::Weights(i) => self.program.weights[i].as_slice(),
            Space::Arena => self.arena.as_slice(),
            Space::Input(i) => inputs[i].bytes(),
            Space::Output(i) => outputs[i].bytes(),
        };
        &memory[operand.offset..operand.offset + bytes]
    }

    fn write<'a>(
        &'a mut self,
        operand: Operand,
        bytes: usize,
        outputs: &'a mut [TensorViewMut<'_>],
    ) -> &'a mut [u8] {
        let memory: &mut [u8] = match operand.space {
            Space::Arena => self.arena.as_mut_slice(),
            Space::Output(i) => outputs[i].bytes_mut(),
            Space::Weights(_) | Space::Input(_) => unreachable!("the plan gives results no read-only place"),
        };
        &mut memory[operand.offset..operand.offset + bytes]
    }
}

/// A step as the threads see it.
struct Task<'a> {
    function: StepFn,
    operands: &'a [Address],
    scratch: Address,
    stride: usize,
    partition: &'a [u64],
}

impl Task<'_> {
    fn run(&self, part: usize, time_step: u64) {
        let before = time_step * self.partition.last().copied().unwrap_or(0);
        let (begin, end) = (before + self.partition[part], before + self.partition[part + 1]);
        let scratch = self.scratch.at(part * self.stride);
        // SAFETY: the code was made for exactly these operands, whose buffers the session has checked to be as large as the
        // program's ports say, and which it keeps to itself meanwhile: `Session::run` borrows it and the caller's buffers.
        // What the parts of a kernel write is disjoint, by contract of `Program::new`, each has scratch memory of its own,
        // and the executor runs each once and waits for it, by contract of `Executor`.
        unsafe { (self.function)(self.operands.as_ptr().cast(), begin, end, scratch.0) };
    }
}

fn check<'a>(
    what: &'static str,
    ports: &[Port],
    count: usize,
    buffer: impl Fn(usize) -> &'a [u8],
) -> Result<(), RunError> {
    if count != ports.len() {
        return Err(RunError::Count { what, expected: ports.len(), found: count });
    }
    for (i, port) in ports.iter().enumerate() {
        let (address, found) = (buffer(i).as_ptr(), buffer(i).len());
        let name = || port.name.clone();
        if found != port.bytes() {
            return Err(RunError::Size { what, name: name(), expected: port.bytes(), found });
        }
        if address.align_offset(4) != 0 {
            return Err(RunError::Alignment { what, name: name() });
        }
    }
    Ok(())
}
