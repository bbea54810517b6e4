//! A compiled network, shared between threads: programs for the shapes seen so far, and the calls that need no session.

use crate::cache::Cache;
use crate::compiler::{Compiler, bind};
use crate::error::{Error, Result};
use crate::model::{Model, PortInfo};
use crate::report::Report;
use crate::session::Session;
use crate::stages::Rest;
use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tconvc_ir::{Graph, Tensor, TensorView, infer};
use tconvc_runtime::program::Program;

/// Programs that are kept for different input shapes.
const PROGRAMS: usize = 64;
/// Bytes of code and packed weights of all of them together beyond which the least recently used ones go.
const PROGRAM_BYTES: usize = 512 << 20;
/// The same for the rest of a network behind extents that follow from data.
const REST_BYTES: usize = 64 << 20;

/// A compiled network. Cloning is cheap and shares the code.
#[derive(Clone)]
pub struct CompiledModel {
    inner: Arc<Inner>,
}

struct Inner {
    compiler: Compiler,
    /// The network with the given shapes bound; extents may still be open.
    graph: Graph,
    ports: (Vec<PortInfo>, Vec<PortInfo>),
    programs: Mutex<Cache<Vec<Vec<usize>>, Arc<Specialised>>>,
    first: Option<Arc<Specialised>>,
    compiled: AtomicUsize,
    /// Cuts before this network, when it is the rest of another one.
    cuts: usize,
}

/// A program for one set of input shapes.
pub(crate) struct Specialised {
    pub(crate) program: Program,
    pub(crate) report: Report,
    /// What runs after the program, where extents follow from data.
    pub(crate) rest: Option<Rest>,
}

impl Specialised {
    /// Of the program and of what was compiled last behind it.
    fn report(&self) -> Report {
        match &self.rest {
            None => self.report.clone(),
            Some(rest) => self.report.clone().followed_by(rest.report()),
        }
    }

    /// What a cache should count: the rest may keep as much as it is allowed to.
    fn bytes(&self) -> usize {
        self.program.code_bytes()
            + self.program.weight_bytes()
            + if self.rest.is_some() { REST_BYTES } else { 0 }
    }
}

/// Outputs of a run, in the model's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    named: Vec<(String, Tensor)>,
}

impl Outputs {
    pub(crate) fn new(named: Vec<(String, Tensor)>) -> Self {
        Self { named }
    }

    /// The output of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// Names and tensors, in the model's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.named.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// True for a model without outputs.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl Index<usize> for Outputs {
    type Output = Tensor;

    fn index(&self, index: usize) -> &Tensor {
        &self.named[index].1
    }
}

impl CompiledModel {
    pub(crate) fn new(compiler: &Compiler, model: &Model) -> Result<Self> {
        let mut graph = model.graph().clone();
        bind(&mut graph, &compiler.shapes)?;
        infer::infer(&mut graph)?;
        Self::of_graph(compiler.clone(), graph, 0)
    }

    /// Of a graph whose types are inferred, and of which `cuts` parts lie before.
    pub(crate) fn of_graph(compiler: Compiler, graph: Graph, cuts: usize) -> Result<Self> {
        let bound = Model::from_graph(graph.clone());
        let bytes = if cuts == 0 { PROGRAM_BYTES } else { REST_BYTES };
        let mut inner = Inner {
            compiler,
            ports: (bound.inputs(), bound.outputs()),
            programs: Mutex::new(Cache::new(PROGRAMS).with_bytes(bytes)),
            first: None,
            compiled: AtomicUsize::new(0),
            graph,
            cuts,
        };
        let shapes: Option<Vec<_>> =
            inner.graph.inputs().iter().map(|&id| inner.graph.ty(id).known_shape()).collect();
        if shapes.is_some() {
            inner.first = Some(Arc::new(inner.compiler.specialise(inner.graph.clone(), cuts)?));
            inner.compiled = AtomicUsize::new(1);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Inputs, in order; extents given to the compiler are numbers.
    pub fn inputs(&self) -> &[PortInfo] {
        &self.inner.ports.0
    }

    /// Outputs, in order.
    pub fn outputs(&self) -> &[PortInfo] {
        &self.inner.ports.1
    }

    /// True when all input shapes are known, so that nothing is left to compile but what stands behind extents that follow
    /// from data.
    pub fn is_static(&self) -> bool {
        self.inner.first.is_some()
    }

    /// Runs the network on inputs by name, in any order; allocates workspace and outputs. To run often, see
    /// [`CompiledModel::session`].
    ///
    /// # Errors
    /// When an input is missing, unknown, given twice, or of another type or shape than the model takes.
    pub fn run<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>) -> Result<Outputs> {
        let ordered = self.order(inputs)?;
        self.session().run(&ordered)
    }

    /// Inputs by name, put into the model's order.
    ///
    /// # Errors
    /// When one is missing, unknown or given twice.
    pub fn order<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    ) -> Result<Vec<TensorView<'a>>> {
        let ports = self.inputs();
        let mut slots = vec![None; ports.len()];
        for (name, view) in inputs {
            let names = || ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
            let Some(index) = ports.iter().position(|port| port.name == name) else {
                return Err(Error::Arguments(format!(
                    "the model has no input `{name}`; its inputs are {}",
                    names()
                )));
            };
            if slots[index].replace(view).is_some() {
                return Err(Error::Arguments(format!("input `{name}` is given twice")));
            }
        }
        slots
            .into_iter()
            .zip(ports)
            .map(|(slot, port)| slot.ok_or_else(|| Error::Arguments(format!("input {port} is missing"))))
            .collect()
    }

    /// Workspace and threads of its own, for many runs.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// What was compiled: layers, forms, reasons, sizes. Of the shapes known when it was compiled, else those of the last
    /// call; empty before the first.
    pub fn report(&self) -> Report {
        let last = || {
            let mut programs = self.inner.programs.lock().unwrap_or_else(PoisonError::into_inner);
            programs.get(|_| true).map(|specialised| specialised.report())
        };
        match &self.inner.first {
            Some(first) => first.report(),
            None => last().unwrap_or_default(),
        }
    }

    /// The code as an assembly listing; `None` before the first call when shapes are open.
    pub fn asm(&self) -> Option<String> {
        self.inner.first.as_ref().map(|first| first.program.code().asm())
    }

    /// Programs compiled so far: one when all shapes are known, else one for each set of input shapes that was new or had been
    /// forgotten. What is compiled behind extents that follow from data is not counted.
    pub fn compilations(&self) -> usize {
        self.inner.compiled.load(Ordering::Relaxed)
    }

    /// Programs that are kept: at most 64, and the least recently used ones go when code and packed weights of all together
    /// exceed 512 MiB.
    pub fn programs(&self) -> usize {
        let programs = self.inner.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.len() + usize::from(self.is_static())
    }

    pub(crate) fn threads(&self) -> usize {
        self.inner.compiler.threads
    }

    /// The program for inputs of these types and shapes; compiled when they are new.
    pub(crate) fn specialise(&self, inputs: &[TensorView<'_>]) -> Result<Arc<Specialised>> {
        self.check(inputs)?;
        if let Some(first) = &self.inner.first {
            return Ok(first.clone());
        }
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|view| view.shape().to_vec()).collect();
        let mut programs = self.inner.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.get(|key| *key == shapes) {
            return Ok(known.clone());
        }
        // Compiling under the lock: a second thread with the same new shape waits and finds it.
        let named: BTreeMap<String, Vec<usize>> =
            self.inputs().iter().map(|port| port.name.clone()).zip(shapes.iter().cloned()).collect();
        let mut graph = self.inner.graph.clone();
        bind(&mut graph, &named)?;
        let specialised = self.inner.compiler.specialise(graph, self.inner.cuts)?;
        self.inner.compiled.fetch_add(1, Ordering::Relaxed);
        let bytes = specialised.bytes();
        Ok(programs.insert_sized(shapes, Arc::new(specialised), bytes).clone())
    }

    fn check(&self, inputs: &[TensorView<'_>]) -> Result<()> {
        if inputs.len() != self.inputs().len() {
            return Err(Error::Arguments(format!(
                "the model has {} inputs, {} are given",
                self.inputs().len(),
                inputs.len()
            )));
        }
        for (port, view) in self.inputs().iter().zip(inputs) {
            let fits = port.shape.as_ref().is_none_or(|dims| {
                dims.len() == view.shape().len()
                    && dims.iter().zip(view.shape()).all(|(dim, extent)| {
                        dim.parse().is_ok_and(|known: usize| known == *extent)
                            || dim.parse::<usize>().is_err()
                    })
            });
            if !fits || port.dtype.is_some_and(|dtype| dtype != view.dtype()) {
                return Err(Error::Arguments(format!(
                    "input {port} is expected, {}{:?} is given",
                    view.dtype(),
                    view.shape()
                )));
            }
        }
        Ok(())
    }
}
