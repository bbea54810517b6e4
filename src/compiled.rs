//! A compiled network, shared between threads: programs for the shapes seen so far, and the calls that need no session.

use crate::cache::Cache;
use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::given::{self, Defaults, Given};
use crate::inside::Inside;
use crate::model::{Model, PortInfo};
use crate::report::Report;
use crate::session::Session;
use crate::stages::Rest;
use std::collections::{BTreeMap, HashMap};
use std::ops::Index;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tconvc_ir::budget::{Budget, Charge};
use tconvc_ir::{Graph, Tensor, TensorView, ValueType};
use tconvc_runtime::executor::Executor;
use tconvc_runtime::program::Program;

/// Programs that are kept for different input shapes.
const PROGRAMS: usize = 64;
/// Bytes of code and packed weights of all of them together beyond which the least recently used ones go.
const PROGRAM_BYTES: usize = 512 << 20;
/// The same for the rest of a network behind extents that follow from data.
const REST_BYTES: usize = 64 << 20;

/// A compiled network. Cloning is cheap and shares code and threads. Where no shape is open, it keeps packed weights alone, not
/// the network that it was made of.
#[derive(Clone)]
pub struct CompiledModel {
    inner: Arc<Inner>,
}

struct Inner {
    compiler: Compiler,
    /// The network with the given shapes bound, and with the defaults of inputs that may be left out; extents may still be open.
    /// None where it is not compiled again: its weights are not needed any more.
    graph: Option<Graph>,
    /// Types of the inputs that have to be given.
    types: Vec<ValueType>,
    /// The same with every input, where some may be left out.
    open: Option<Graph>,
    defaults: Defaults,
    ports: (Vec<PortInfo>, Vec<PortInfo>),
    warnings: Vec<String>,
    programs: Mutex<Programs>,
    first: Option<Arc<Specialised>>,
    compiled: AtomicUsize,
    /// Cuts before this network, when it is the rest of another one.
    cuts: usize,
}

/// The programs so far.
struct Programs {
    cache: Cache<(Vec<Vec<usize>>, Given), Arc<Specialised>>,
    /// Sets of inputs whose values programs are made for.
    by_value: Vec<Vec<bool>>,
}

/// A program for one set of input shapes.
pub(crate) struct Specialised {
    /// The inputs that it takes, or holds.
    pub(crate) given: Given,
    pub(crate) program: Program,
    /// What its code and weights take.
    pub(crate) _charge: Charge,
    pub(crate) report: Report,
    /// What runs graphs inside of its operators.
    pub(crate) inside: Arc<Inside>,
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
        .with_warning()
    }

    fn with_warnings(mut self, warnings: &[String]) -> Self {
        self.report.warnings.extend(warnings.iter().cloned());
        self
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
        let (graph, warnings) = compiler.bound(model)?;
        let mut open = None;
        if !model.graph().all_inputs_required() {
            let mut graph = compiler.with_shapes_required(model);
            compiler.bind(&mut graph, &compiler.shapes)?;
            open = Some(graph);
        }
        Self::of_graphs(compiler.clone(), graph, open, warnings, 0)
    }

    /// Of a graph whose types are inferred, and of which `cuts` parts lie before.
    pub(crate) fn of_graph(compiler: Compiler, graph: Graph, cuts: usize) -> Result<Self> {
        Self::of_graphs(compiler, graph, None, vec![], cuts)
    }

    fn of_graphs(
        compiler: Compiler,
        graph: Graph,
        open: Option<Graph>,
        warnings: Vec<String>,
        cuts: usize,
    ) -> Result<Self> {
        let bytes = if cuts == 0 { PROGRAM_BYTES } else { REST_BYTES };
        Self::with_cache(compiler, (graph, open), warnings, cuts, bytes)
    }

    fn with_cache(
        compiler: Compiler,
        (graph, open): (Graph, Option<Graph>),
        warnings: Vec<String>,
        cuts: usize,
        cache_bytes: usize,
    ) -> Result<Self> {
        let whole = open.as_ref().unwrap_or(&graph);
        let types: Vec<ValueType> = graph.inputs().iter().map(|&id| graph.ty(id).clone()).collect();
        let mut inner = Inner {
            compiler,
            defaults: Defaults::of(whole)?,
            ports: (Model::from_graph(whole.clone()).inputs(), Model::from_graph(graph.clone()).outputs()),
            warnings,
            programs: Mutex::new(Programs {
                cache: Cache::new(PROGRAMS).with_bytes(cache_bytes),
                by_value: vec![],
            }),
            first: None,
            compiled: AtomicUsize::new(0),
            graph: None,
            types,
            open,
            cuts,
        };
        if inner.types.iter().all(|ty| ty.known_shape().is_some()) {
            // With inputs that may be left out, and of which there is no other graph, this one is needed once more.
            inner.graph = (inner.open.is_none() && !graph.all_inputs_required()).then(|| graph.clone());
            let first = inner.compiler.specialise(graph, Given::default(), cuts)?;
            inner.first = Some(Arc::new(first.with_warnings(&inner.warnings)));
            inner.compiled = AtomicUsize::new(1);
        } else {
            inner.graph = Some(graph);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Inputs, in order, those included that may be left out; extents given to the compiler are numbers.
    pub fn inputs(&self) -> &[PortInfo] {
        &self.inner.ports.0
    }

    /// Outputs, in order.
    pub fn outputs(&self) -> &[PortInfo] {
        &self.inner.ports.1
    }

    /// True when the shapes of all inputs that have to be given are known, so that nothing is left to compile but what stands
    /// behind extents that follow from data, and programs for inputs that may be left out and are not.
    pub fn is_static(&self) -> bool {
        self.inner.first.is_some()
    }

    /// Runs the network on inputs by name, in any order; allocates workspace and outputs. To run often, see
    /// [`CompiledModel::session`].
    ///
    /// # Errors
    /// When an input that has to be given is missing, or one is unknown, given twice, or of another type or shape than the model
    /// takes.
    pub fn run<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>) -> Result<Outputs> {
        let ordered = self.order(inputs)?;
        self.session().run(&ordered)
    }

    /// Inputs by name, put into the model's order: those that have to be given, or all of them where another one is given, too.
    ///
    /// # Errors
    /// When one that has to be given is missing, or one is unknown or given twice.
    pub fn order<'a: 'v, 's: 'v, 'v>(
        &'s self,
        inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    ) -> Result<Vec<TensorView<'v>>> {
        let ports = self.inputs();
        let mut slots: Vec<Option<TensorView<'v>>> = vec![None; ports.len()];
        let by_name: HashMap<&str, usize> = ports.iter().map(|port| port.name.as_str()).zip(0..).collect();
        for (name, view) in inputs {
            let Some(&index) = by_name.get(name) else {
                let known = given::listing(ports);
                return Err(Error::Arguments(format!(
                    "the model has no input `{name}`; its inputs are {known}"
                )));
            };
            if slots[index].replace(view).is_some() {
                return Err(Error::Arguments(format!("input `{name}` is given twice")));
            }
        }
        if let Some((port, _)) =
            ports.iter().zip(&slots).find(|(port, slot)| !port.optional && slot.is_none())
        {
            return Err(Error::Arguments(format!("input {port} is missing")));
        }
        Ok(self.inner.defaults.complete(slots).into_iter().flatten().collect())
    }

    /// Workspace of its own, for many runs. Its threads are those of the compiler; see also [`Session::with_executor`].
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// What was compiled: layers, forms, reasons, sizes. Of the shapes known when it was compiled, else those of the last
    /// call; empty before the first.
    pub fn report(&self) -> Report {
        let last = || {
            let mut programs = self.inner.programs.lock().unwrap_or_else(PoisonError::into_inner);
            programs.cache.get(|_| true).map(|specialised| specialised.report())
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
        programs.cache.len() + usize::from(self.is_static())
    }

    /// What its runs stay within.
    pub(crate) fn budget(&self) -> &Budget {
        &self.inner.compiler.budget
    }

    /// The threads that its runs share.
    pub(crate) fn executor(&self) -> Arc<dyn Executor> {
        self.inner.compiler.threads.executor()
    }

    /// True when a program fits a call with these inputs, whose shapes are those that it was made for.
    pub(crate) fn fits(&self, given: &Given, inputs: &[TensorView<'_>]) -> bool {
        self.inner.defaults.fits(given, inputs)
    }

    /// The program for inputs of these types and shapes; compiled when they are new.
    pub(crate) fn specialise(&self, inputs: &[TensorView<'_>]) -> Result<Arc<Specialised>> {
        let inner = &self.inner;
        let all = inner.defaults.all_given(inputs.len())?;
        let graph = if all { inner.open.as_ref().or(inner.graph.as_ref()) } else { inner.graph.as_ref() };
        let ports = inner.ports.0.iter().filter(|port| all || !port.optional);
        let types: Vec<&ValueType> = match graph {
            Some(graph) => graph.inputs().iter().map(|&id| graph.ty(id)).collect(),
            None => inner.types.iter().collect(),
        };
        for ((port, ty), view) in ports.zip(types).zip(inputs) {
            if let Some(error) = given::misfit(port, ty, view) {
                return Err(error);
            }
        }
        let graph = match (&inner.first, graph) {
            (Some(first), _) if !all => return Ok(first.clone()),
            (_, Some(graph)) => graph,
            (_, None) => unreachable!("a graph is there while it may be compiled again"),
        };
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|view| view.shape().to_vec()).collect();
        let mut programs = inner.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(known, given): &(Vec<Vec<usize>>, Given)| *known == shapes && self.fits(given, inputs);
        if let Some(known) = programs.cache.get(same) {
            return Ok(known.clone());
        }
        // Compiling under the lock: a second thread with the same new shape waits and finds it.
        let given = if all { inner.defaults.given(inputs) } else { Given::default() };
        let specialised = self.compile(graph, given, inputs, &mut programs.by_value)?;
        inner.compiled.fetch_add(1, Ordering::Relaxed);
        let (key, bytes) = ((shapes, specialised.given.clone()), specialised.bytes());
        Ok(programs.cache.insert_sized(key, Arc::new(specialised), bytes).clone())
    }

    fn compile(
        &self,
        graph: &Graph,
        mut given: Given,
        inputs: &[TensorView<'_>],
        by_value: &mut Vec<Vec<bool>>,
    ) -> Result<Specialised> {
        let inner = &self.inner;
        let mut graph = graph.clone();
        let ids = graph.inputs().to_vec();
        inner.defaults.fix(&mut graph, &given);
        let small = inner.defaults.small_values(&given, inputs)?;
        let names = ids.iter().map(|&id| graph.value(id).name.clone());
        let named: BTreeMap<String, Vec<usize>> =
            names.zip(inputs).map(|(name, view)| (name, view.shape().to_vec())).collect();
        if !small.is_empty() && !by_value.contains(&given.inputs) {
            let mut general = graph.clone();
            if inner.compiler.bind(&mut general, &named).is_err()
                || inner.compiler.asks_for_values(&mut general)?
            {
                by_value.push(given.inputs.clone());
            }
        }
        if by_value.contains(&given.inputs) {
            for (index, tensor) in &small {
                graph.replace_input(ids[*index], tensor.clone());
            }
            given.values = small;
        }
        let mut warnings = inner.compiler.bind(&mut graph, &named)?;
        warnings.extend(
            inner.warnings.iter().filter(|known| !warnings.contains(known)).cloned().collect::<Vec<_>>(),
        );
        Ok(inner.compiler.specialise(graph, given, inner.cuts)?.with_warnings(&warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::DType;

    /// Programs that are kept of two, and the bytes of code and packed weights of each.
    fn kept(cache_bytes: usize) -> (usize, [usize; 2]) {
        let text = "input %x : f32[1, 8, H, 5]\nconst @w : f32[8, 8, 3, 3] = seeded(3)\n\
                    %y = Conv(%x, @w)\noutput %y\n";
        let mut graph: Graph = text.parse().unwrap();
        tconvc_ir::infer::infer(&mut graph).unwrap();
        let model =
            CompiledModel::with_cache(Compiler::new(), (graph, None), vec![], 0, cache_bytes).unwrap();
        let bytes = [4, 9].map(|height| {
            let x = Tensor::seeded(DType::F32, [1, 8, height, 5], 1).unwrap();
            model.run([("x", x.view())]).unwrap();
            let report = model.report();
            report.code_bytes + report.weight_bytes
        });
        assert_eq!(model.compilations(), 2);
        (model.programs(), bytes)
    }

    #[test]
    fn programs_count_with_their_code_and_their_weights() {
        let (all, bytes) = kept(usize::MAX);
        assert_eq!(all, 2);
        let both = bytes.iter().sum();
        assert_eq!(kept(both), (2, bytes));
        assert_eq!(kept(both - 1), (1, bytes));
    }
}
