//! Measures forms and schedules of the layers of a network, each layer on its own.
//!
//! The choice by estimate is where it starts; from there it goes to a faster schedule that differs in one decision, as long as
//! there is one. Two candidates are timed in turns, so that what else happens on the machine meets both.
//!
//! - [`search`] goes from candidate to candidate.
//! - [`tuning`] is what was found, as data that a file keeps.

mod search;
mod tuning;

pub use tuning::Tuning;

use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::model::Model;
use search::{BLOCKS, Space, climb, is_faster};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tconvc_codegen::compile;
use tconvc_codegen::options::Choice;
use tconvc_ir::{DType, Graph, NodeId, Op, Tensor, TensorView, TensorViewMut};
use tconvc_passes::cost::form_costs;
use tconvc_passes::plan::plan;
use tconvc_passes::{Form, optimise};
use tconvc_runtime::executor::Executor;
use tconvc_runtime::session::Session;

/// How far [`Compiler::tune`] has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuneProgress {
    /// Layers looked at before this one.
    pub done: usize,
    /// All layers.
    pub layers: usize,
    /// The layer that is measured now.
    pub layer: String,
}

/// Forms that are predicted to take this many times as long as the best are not tried.
const HOPELESS: f64 = 10.0;
/// A form that takes this many times as long as the best is left at its estimated schedule.
const FAR_BEHIND: u32 = 3;
/// The least time of a block of runs.
const BLOCK: Duration = Duration::from_millis(2);

impl Compiler {
    /// Measures forms and schedules of the convolutions of a model whose extents are known and that `tuning` does not know yet,
    /// on this machine, and adds the fastest. A layer takes a part of a second, or up to a minute where a run of it takes long;
    /// `observe` is called before each. [`Compiler::stop_after`] is left out of account.
    ///
    /// A network compiled with [`Compiler::tuning`] may add up its sums in another order than one compiled without.
    ///
    /// # Errors
    /// As [`Compiler::compile`]; also when extents of an input are open, or the target is not this machine.
    pub fn tune(&self, model: &Model, tuning: &mut Tuning, observe: impl FnMut(&TuneProgress)) -> Result<()> {
        self.tune_while(model, tuning, observe, || true)
    }

    /// As [`Compiler::tune`], for as long as `go_on` says so, which is asked every few milliseconds. The layers that were done by then
    /// stay in `tuning`.
    ///
    /// # Errors
    /// As there, and [`Error::Stopped`].
    pub fn tune_while(
        &self,
        model: &Model,
        tuning: &mut Tuning,
        mut observe: impl FnMut(&TuneProgress),
        go_on: impl Fn() -> bool,
    ) -> Result<()> {
        let _budget = self.budget.enter();
        let compiler = Self { stop_after: None, ..self.clone() };
        let layers = compiler.layers(model)?;
        let executor = compiler.threads.executor();
        let mut progress = TuneProgress { done: 0, layers: layers.len(), layer: String::new() };
        for layer in &layers {
            progress.layer.clone_from(&layer.name);
            observe(&progress);
            tconvc_ir::budget::check()?;
            Tuner { compiler: &compiler, layer, executor: &executor, tuning, go_on: &go_on }.tune()?;
            progress.done += 1;
        }
        Ok(())
    }

    /// The convolutions with known extents and constant weights, each as a network of its own; of equal ones, the first.
    fn layers(&self, model: &Model) -> Result<Vec<Layer>> {
        let (mut graph, _) = self.bound(model)?;
        let is_open = |&id: &_| graph.ty(id).known_shape().is_none();
        if let Some(open) = graph.inputs().iter().position(is_open) {
            let port = &Model::from_graph(graph).inputs()[open];
            return Err(Error::Arguments(format!(
                "to measure, the extents of input {port} must be given (--shape, Compiler::input_shape)"
            )));
        }
        self.clone().without_pass("forms").optimise(&mut graph)?;
        let mut seen = HashSet::new();
        let mut layers = vec![];
        for id in graph.order()? {
            if let Some(layer) = Layer::of(&graph, id, self)?
                && seen.insert(layer.key.clone())
            {
                layers.push(layer);
            }
        }
        Ok(layers)
    }
}

/// A convolution.
struct Layer {
    name: String,
    /// The same for layers that take the same code.
    key: String,
    graph: Graph,
    /// Of a transposed one: its geometry, and the forms worth a try, the one predicted to be the fastest first.
    forms: Option<(String, Vec<Form>)>,
}

impl Layer {
    fn of(graph: &Graph, id: NodeId, compiler: &Compiler) -> Result<Option<Self>> {
        let node = graph.node(id);
        if !matches!(node.op, Op::ConvTranspose(_) | Op::Conv(_)) {
            return Ok(None);
        }
        let floats = |constant: Option<&Tensor>| constant.is_some_and(|tensor| tensor.dtype() == DType::F32);
        let known = node.inputs().iter().flatten().all(|&input| graph.ty(input).known_shape().is_some());
        if !known || !floats(graph.constant_input(id, 1)) {
            return Ok(None);
        }
        let mut layer = Graph::new(&node.name);
        let mut inputs = vec![];
        for (index, input) in node.inputs().iter().enumerate() {
            let value = input.map(|input| match graph.constant(input) {
                Some(tensor) => Ok(layer.add_constant(&format!("constant{index}"), tensor.clone())),
                None => layer.add_input(&format!("input{index}"), graph.ty(input).clone()),
            });
            inputs.push(value.transpose()?);
        }
        let types = node.outputs().iter().flatten().map(|&output| graph.ty(output).clone()).collect();
        let (_, outputs) = layer.add_node(&node.name, node.op.clone(), &inputs, types)?;
        for output in outputs {
            layer.add_output(output);
        }
        let shapes: Vec<_> =
            node.inputs().iter().flatten().filter_map(|&input| graph.ty(input).known_shape()).collect();
        let forms = match (&node.op, shapes.as_slice()) {
            (Op::ConvTranspose(op), [x, w, ..]) => {
                let geometry = op.geometry(x, w)?;
                let options = compiler.pass_options()?;
                let [mut costs, _] = form_costs(&geometry, &options.machine, &*options.algorithms);
                costs.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
                let least = costs[0].predicted_us;
                let forms = match compiler.form {
                    Form::Auto => costs
                        .iter()
                        .filter(|cost| cost.predicted_us < HOPELESS * least)
                        .map(|cost| cost.form)
                        .collect(),
                    form => vec![form],
                };
                Some((geometry.to_string(), forms))
            }
            _ => None,
        };
        let key = format!("{:?} {shapes:?}", node.op);
        Ok(Some(Self { name: node.name.clone(), key, graph: layer, forms }))
    }
}

/// A layer compiled in one way.
struct Candidate {
    session: Session,
    choice: Option<Choice>,
    inputs: Vec<Tensor>,
    outputs: Vec<Vec<u64>>,
}

impl Candidate {
    /// The least time of a run, of a block of them: others are longer by what else happens on the machine.
    fn time(&mut self) -> Result<Duration> {
        let (begin, mut least) = (Instant::now(), Duration::MAX);
        let mut runs = 0;
        // Several in any case: the first finds the caches as the other candidate has left them.
        while runs < 3 || begin.elapsed() < BLOCK {
            runs += 1;
            let start = Instant::now();
            self.run()?;
            least = least.min(start.elapsed());
        }
        Ok(least)
    }

    fn run(&mut self) -> Result<()> {
        let program = self.session.program().clone();
        let inputs: Vec<TensorView<'_>> = self.inputs.iter().map(Tensor::view).collect();
        let ports = program.outputs().iter().zip(&mut self.outputs);
        let outputs = ports.map(|(port, memory)| {
            let bytes = &mut bytemuck::cast_slice_mut(memory)[..port.bytes()];
            TensorViewMut::from_bytes(port.dtype, &port.shape, bytes)
        });
        let mut outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        Ok(self.session.run(&inputs, &mut outputs)?)
    }
}

struct Tuner<'a> {
    compiler: &'a Compiler,
    layer: &'a Layer,
    executor: &'a Arc<dyn Executor>,
    tuning: &'a mut Tuning,
    go_on: &'a dyn Fn() -> bool,
}

impl Tuner<'_> {
    /// Measures the layer unless it is known.
    fn tune(&mut self) -> Result<()> {
        let setting = self.compiler.setting();
        let Some((geometry, forms)) = &self.layer.forms else {
            return self.schedule(Form::Auto, None).map(|_| ());
        };
        let choose = self.compiler.form == Form::Auto;
        if choose && self.tuning.has_form(&setting, geometry) {
            return Ok(());
        }
        let mut best: Option<(Form, Candidate)> = None;
        for &form in forms {
            let Some(mut found) = self.schedule(form, best.as_mut().map(|(_, best)| best))? else { continue };
            let wins = match &mut best {
                None => true,
                Some((_, best)) => {
                    is_faster(&mut Schedules::of(self, form, ""), &mut found, best, 2 * BLOCKS)?
                }
            };
            if wins {
                best = Some((form, found));
            }
        }
        if let Some((form, _)) = best
            && choose
        {
            self.tuning.set_form(&setting, geometry, form);
        }
        Ok(())
    }

    /// The layer in a form with the schedule that is known or, from now on, measured to be the fastest; none where it is far
    /// behind another.
    fn schedule(&mut self, form: Form, other: Option<&mut Candidate>) -> Result<Option<Candidate>> {
        let setting = self.compiler.setting();
        let mut start = self.candidate(form, None)?;
        if let Some(other) = other
            && start.time()? > FAR_BEHIND * other.time()?
        {
            return Ok(None);
        }
        let Some(Choice { problem, .. }) = start.choice.clone() else { return Ok(Some(start)) };
        if self.tuning.has_schedule(&setting, &problem) {
            return Ok(Some(start));
        }
        let best = climb(&mut Schedules::of(self, form, &problem), start)?;
        if let Some(choice) = &best.choice {
            self.tuning.set_schedule(&setting, &problem, &choice.chosen);
        }
        Ok(Some(best))
    }

    /// The layer in this form, with a schedule for a problem or the one that is known or estimated to be the best.
    fn candidate(&self, form: Form, schedule: Option<(&str, &str)>) -> Result<Candidate> {
        let mut tuning = self.tuning.clone();
        if let Some((problem, schedule)) = schedule {
            tuning.set_schedule(&self.compiler.setting(), problem, schedule);
        }
        let compiler = self.compiler.clone().form(form).tuning(&tuning);
        let mut graph = self.layer.graph.clone();
        optimise(&mut graph, &compiler.pass_options()?)?;
        let options = tconvc_codegen::options::Options { list_choices: true, ..compiler.code_options() };
        let compiled =
            compile::compile(&graph, &plan(&graph, &compiler.operand_limits())?, &options, &**self.executor)?;
        let choice = match compiled.choices.as_slice() {
            [choice] => Some(choice.clone()),
            _ => None,
        };
        let program = compiled.load()?;
        let inputs = program.inputs().iter().zip(1..);
        let inputs = inputs.map(|(port, seed)| Tensor::seeded(port.dtype, port.shape.clone(), seed));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let outputs = program.outputs().iter().map(|port| vec![0; port.bytes().div_ceil(8)]).collect();
        let session = Session::new(&program, self.executor.clone())?;
        Ok(Candidate { session, choice, inputs, outputs })
    }
}

/// The schedules of a layer in a form.
struct Schedules<'a> {
    tuner: &'a Tuner<'a>,
    form: Form,
    problem: &'a str,
}

impl<'a> Schedules<'a> {
    fn of(tuner: &'a Tuner<'a>, form: Form, problem: &'a str) -> Self {
        Self { tuner, form, problem }
    }
}

impl Space for Schedules<'_> {
    type Candidate = Candidate;
    type Error = Error;

    fn names(&self, candidate: &Candidate) -> (String, Vec<String>) {
        candidate.choice.clone().map_or_else(Default::default, |choice| (choice.chosen, choice.others))
    }

    /// A schedule that asks for more registers than there are is none.
    fn make(&mut self, name: &str) -> Option<Candidate> {
        let candidate = self.tuner.candidate(self.form, Some((self.problem, name))).ok()?;
        candidate.choice.as_ref().is_some_and(|made| made.chosen == name).then_some(candidate)
    }

    fn race(&mut self, a: &mut Candidate, b: &mut Candidate) -> Result<[Duration; 2]> {
        if !(self.tuner.go_on)() {
            return Err(Error::Stopped);
        }
        Ok([a.time()?, b.time()?])
    }
}
