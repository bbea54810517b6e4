//! Many runs of one compiled network: the workspace is kept from run to run.

use crate::cache::Cache;
use crate::compiled::{CompiledModel, Outputs};
use crate::error::{Error, Result};
use crate::given::Given;
use crate::stages::RestSession;
use std::sync::Arc;
use std::time::Duration;
use tconvc_ir::budget::{self, Charge};
use tconvc_ir::{DType, Tensor, TensorView, TensorViewMut};
use tconvc_runtime::error::RunError;
use tconvc_runtime::executor::Executor;
use tconvc_runtime::memory::AlignedBytes;
use tconvc_runtime::program::Port;
use tconvc_runtime::session;

/// Shapes for which a session keeps a workspace.
const WORKSPACES: usize = 4;

/// Owns the workspace; runs one call at a time, on the threads of its model unless it is given others.
pub struct Session {
    model: CompiledModel,
    executor: Arc<dyn Executor>,
    workspaces: Cache<Inputs, Workspace>,
}

/// Element type and extents of each output, in the model's order.
pub type OutputPorts = Vec<(DType, Vec<usize>)>;

/// Types and shapes of inputs, and which of them are given.
type Inputs = (Vec<(DType, Vec<usize>)>, Given);

/// For inputs of one set of shapes.
struct Workspace {
    program: session::Session,
    /// Where extents follow from data.
    rest: Option<RestSession>,
}

impl Session {
    pub(crate) fn new(model: CompiledModel) -> Self {
        let executor = model.executor();
        Self { model, executor, workspaces: Cache::new(WORKSPACES) }
    }

    /// Runs on these threads instead of those that the model's sessions share.
    #[must_use]
    pub fn with_executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = executor;
        self.workspaces = Cache::new(WORKSPACES);
        self
    }

    /// The same, with its workspaces where it runs on these threads already.
    pub(crate) fn on(self, executor: &Arc<dyn Executor>) -> Self {
        if Arc::ptr_eq(&self.executor, executor) { self } else { self.with_executor(executor.clone()) }
    }

    fn workspace(&mut self, inputs: &[TensorView<'_>]) -> Result<&mut Workspace> {
        let model = self.model.clone();
        let same = |(key, given): &(Vec<(DType, Vec<usize>)>, Given)| {
            key.len() == inputs.len()
                && key
                    .iter()
                    .zip(inputs)
                    .all(|((dtype, shape), view)| *dtype == view.dtype() && shape == view.shape())
                && model.fits(given, inputs)
        };
        // Looked up twice, because the borrow checker does not see that the first result is returned at once.
        if self.workspaces.get(same).is_none() {
            let specialised = self.model.specialise(inputs)?;
            let program = session::Session::new(&specialised.program, self.executor.clone())?
                .with_subgraphs(specialised.inside.clone());
            let rest = specialised.rest.as_ref().map(|rest| rest.session(&self.executor));
            let shapes = inputs.iter().map(|view| (view.dtype(), view.shape().to_vec())).collect();
            let key = (shapes, specialised.given.clone());
            return Ok(self.workspaces.insert(key, Workspace { program, rest }));
        }
        self.workspaces.get(same).ok_or_else(|| Error::Arguments("the workspace is gone".into()))
    }

    /// Element types and extents of the outputs, in the model's order, for inputs such as these, which are compiled for where they
    /// are new. `None` where only a run can tell, because extents follow from data.
    ///
    /// # Errors
    /// When an input is missing or of another type or shape than the model takes.
    pub fn output_ports(&mut self, inputs: &[TensorView<'_>]) -> Result<Option<OutputPorts>> {
        let Workspace { program, rest } = self.workspace(inputs)?;
        let ports =
            || program.program().outputs().iter().map(|port| (port.dtype, port.shape.clone())).collect();
        Ok(rest.is_none().then(ports))
    }

    /// Runs the network on inputs in the model's order, all of them or only those that have to be given; allocates the outputs.
    ///
    /// # Errors
    /// When an input is missing or of another type or shape than the model takes.
    pub fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<Outputs> {
        self.run_timed(inputs, |_, _| {})
    }

    /// As [`Session::run`]; calls `observe` after each step, as [`Session::run_observed`] does.
    ///
    /// # Errors
    /// As there.
    pub fn run_timed(
        &mut self,
        inputs: &[TensorView<'_>],
        mut observe: impl FnMut(usize, Duration),
    ) -> Result<Outputs> {
        self.outputs(inputs, &mut observe)
    }

    fn outputs(
        &mut self,
        inputs: &[TensorView<'_>],
        observe: &mut dyn FnMut(usize, Duration),
    ) -> Result<Outputs> {
        let _budget = self.model.budget().enter();
        // External data may lie at any address; machine code wants whole words.
        let aligned = |view: &TensorView<'_>| view.bytes().as_ptr().align_offset(4) == 0;
        let copies: Vec<Option<Vec<u64>>> = inputs
            .iter()
            .map(|view| (!aligned(view)).then(|| words(view.bytes())).transpose())
            .collect::<Result<_>>()?;
        let inputs = inputs.iter().zip(&copies).map(|(view, copy)| match copy {
            None => Ok(*view),
            Some(copy) => TensorView::from_bytes(
                view.dtype(),
                view.shape(),
                &bytemuck::cast_slice(copy)[..view.bytes().len()],
            ),
        });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let ports = self.model.outputs().to_vec();
        // Text is no program's: it goes to what runs behind it.
        let is_text = |view: &TensorView<'_>| view.dtype() == DType::String;
        let given = self.model.inputs();
        let all = given.len() == inputs.len();
        let names = given.iter().filter(|port| all || !port.optional).map(|port| port.name.clone());
        let texts = names.zip(&inputs).filter(|(_, view)| is_text(view));
        let texts = texts.map(|(name, view)| Ok((name, view.to_tensor()?))).collect::<Result<Vec<_>>>()?;
        let Workspace { program, rest } = self.workspace(&inputs)?;
        let inputs: Vec<TensorView<'_>> = inputs.into_iter().filter(|view| !is_text(view)).collect();
        let mut made = allocate_and_run(program, &inputs, observe)?;
        made.extend(texts);
        match rest {
            None => Ok(Outputs::new(made)),
            Some(rest) => rest.run(made, &ports, program.program().steps().len(), observe),
        }
    }

    /// Runs the network on inputs (all of them, or only those that have to be given) and into outputs, both in the model's order. From the second call with the same shapes
    /// on, this allocates nothing and takes no lock.
    ///
    /// # Errors
    /// When an input or output is missing or of another type or shape than the model takes or makes.
    pub fn run_into(&mut self, inputs: &[TensorView<'_>], outputs: &mut [TensorViewMut<'_>]) -> Result<()> {
        self.run_observed(inputs, outputs, |_, _| {})
    }

    /// As [`Session::run_into`]; calls `observe` after each step of the program with its number, as in
    /// [`Report::steps`](crate::Report), and the time that it took.
    ///
    /// # Errors
    /// As there.
    pub fn run_observed(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        mut observe: impl FnMut(usize, Duration),
    ) -> Result<()> {
        let _budget = self.model.budget().enter();
        let Workspace { program, rest } = self.workspace(inputs)?;
        if rest.is_some() {
            let made = self.outputs(inputs, &mut observe)?;
            return copy(&made, outputs);
        }
        let ports = program.program().outputs();
        check_count(ports.len(), outputs.len())?;
        for (port, view) in ports.iter().zip(outputs.iter()) {
            check_output(&port.name, port.dtype, &port.shape, view)?;
        }
        Ok(program.run_timed(inputs, outputs, observe)?)
    }
}

fn check_count(expected: usize, given: usize) -> Result<()> {
    if expected == given {
        return Ok(());
    }
    Err(Error::Arguments(format!("the model has {expected} outputs, {given} are given")))
}

fn check_output(name: &str, dtype: DType, shape: &[usize], given: &TensorViewMut<'_>) -> Result<()> {
    if shape == given.shape() && dtype == given.dtype() {
        return Ok(());
    }
    Err(Error::Arguments(format!(
        "output `{name}` is {dtype}{shape:?}, memory for {}{:?} is given",
        given.dtype(),
        given.shape()
    )))
}

/// Copies outputs into memory of the caller's.
fn copy(made: &Outputs, outputs: &mut [TensorViewMut<'_>]) -> Result<()> {
    check_count(made.len(), outputs.len())?;
    for ((name, tensor), output) in made.iter().zip(outputs) {
        check_output(name, tensor.dtype(), tensor.shape(), output)?;
        if tensor.dtype() == DType::String {
            return Err(Error::Arguments(format!(
                "output `{name}` is text, for which no memory can be given: `run` allocates it"
            )));
        }
        output.bytes_mut().copy_from_slice(tensor.bytes());
    }
    Ok(())
}

/// Runs a program into new memory.
fn allocate_and_run(
    program: &mut session::Session,
    inputs: &[TensorView<'_>],
    observe: &mut dyn FnMut(usize, Duration),
) -> Result<Vec<(String, Tensor)>> {
    let ports: Vec<Port> = program.program().outputs().to_vec();
    // All of them before any.
    let mut total = 0usize;
    for port in &ports {
        total = total.saturating_add(port.bytes());
        budget::ask(total).map_err(|source| Error::Output { name: port.name.clone(), source })?;
    }
    let buffer = |port: &Port| -> Result<Buffer> {
        let charge = budget::take(port.bytes())?;
        let bytes = port.bytes();
        let memory = AlignedBytes::zeroed(bytes).ok_or(RunError::Memory { bytes })?;
        Ok(Buffer { memory, _charge: charge })
    };
    let mut buffers: Vec<Buffer> = ports.iter().map(buffer).collect::<Result<_>>()?;
    let outputs = ports.iter().zip(&mut buffers).map(|(port, buffer)| {
        TensorViewMut::from_bytes(port.dtype, &port.shape, buffer.memory.as_mut_slice())
    });
    program.run_timed(inputs, &mut outputs.collect::<Result<Vec<_>, _>>()?, observe)?;
    let tensors = ports.into_iter().zip(buffers).map(|(port, buffer)| {
        Ok((port.name, Tensor::from_shared(port.dtype, port.shape, Arc::new(buffer), 0)?))
    });
    tensors.collect()
}

/// Memory of an output, and what it takes of a budget.
struct Buffer {
    memory: AlignedBytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_slice()
    }
}

fn words(bytes: &[u8]) -> Result<Vec<u64>> {
    budget::ask(bytes.len())?;
    let mut words = vec![0; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Ok(words)
}
