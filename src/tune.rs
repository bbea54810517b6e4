//! Measures forms and schedules of the layers of a network, each layer on its own.
//!
//! The choice by estimate is where it starts; from there it goes to the fastest schedule that differs in one decision, as long
//! as there is one. Two candidates are timed in turns, so that what else happens on the machine meets both.

use crate::compiler::{Compiler, bind};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tuning::Tuning;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tconvc_codegen::compile::Choice;
use tconvc_codegen::pool::{Executor, Pool, Serial};
use tconvc_codegen::session::Session;
use tconvc_ir::{DType, Graph, NodeId, Op, Tensor, TensorView, TensorViewMut};
use tconvc_passes::cost::{Machine, form_costs};
use tconvc_passes::plan::plan;
use tconvc_passes::{Form, optimise};

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

/// The share of a candidate's time that another must stay below to be better: less could be chance.
const BETTER: f64 = 0.98;
/// Candidates of a layer that are tried, for each form.
const MOST_TRIALS: usize = 80;
/// Forms that are predicted to take this many times as long as the best are not tried.
const HOPELESS: f64 = 10.0;
/// The least time of a block of runs, and blocks of a comparison.
const BLOCK: Duration = Duration::from_millis(2);
const BLOCKS: usize = 8;

impl Compiler {
    /// Measures forms and schedules of the convolutions of a model whose extents are known and that `tuning` does not know yet,
    /// on this machine, and adds the fastest. Takes seconds for a network of some layers; `observe` is called before each.
    ///
    /// A network compiled with [`Compiler::tuning`] may sum in another order than one compiled without, as far as
    /// [`Compiler::fast_math`] allows.
    ///
    /// # Errors
    /// As [`Compiler::compile`]; also when the target is not this machine.
    pub fn tune(
        &self,
        model: &Model,
        tuning: &mut Tuning,
        mut observe: impl FnMut(&TuneProgress),
    ) -> Result<()> {
        let layers = self.layers(model)?;
        let executor: Arc<dyn Executor> = match Pool::new(self.threads) {
            Ok(pool) if self.threads > 1 => Arc::new(pool),
            _ => Arc::new(Serial),
        };
        let mut progress = TuneProgress { done: 0, layers: layers.len(), layer: String::new() };
        for layer in &layers {
            progress.layer.clone_from(&layer.name);
            observe(&progress);
            Tuner { compiler: self, layer, executor: &executor, tuning }.tune()?;
            progress.done += 1;
        }
        Ok(())
    }

    /// The convolutions with known extents and constant weights, each as a network of its own; of equal ones, the first.
    fn layers(&self, model: &Model) -> Result<Vec<Layer>> {
        let mut graph = model.graph().clone();
        bind(&mut graph, &self.shapes)?;
        for port in Model::from_graph(graph.clone()).inputs() {
            if port.shape.as_ref().is_none_or(|dims| dims.iter().any(|dim| dim.parse::<usize>().is_err())) {
                return Err(Error::Arguments(format!(
                    "to measure, the extents of input {port} must be given (--shape, Compiler::input_shape)"
                )));
            }
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
                let mut costs =
                    form_costs(&geometry, &Machine::with_lanes(compiler.target.lanes(), compiler.threads));
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

    /// Whether the other one is faster, after so many blocks of runs of each in turns; fewer where it is far behind.
    fn loses_to(&mut self, other: &mut Self, blocks: usize) -> Result<bool> {
        let (mut own, mut others) = (Duration::MAX, Duration::MAX);
        self.run()?;
        other.run()?;
        for block in 0..blocks {
            own = own.min(self.time()?);
            others = others.min(other.time()?);
            let hopeless = if block < 2 { 1.3 } else { 1.1 };
            if others > own.mul_f64(hopeless) {
                return Ok(false);
            }
        }
        Ok(others < own.mul_f64(BETTER))
    }
}

struct Tuner<'a> {
    compiler: &'a Compiler,
    layer: &'a Layer,
    executor: &'a Arc<dyn Executor>,
    tuning: &'a mut Tuning,
}

impl Tuner<'_> {
    /// Measures the layer unless it is known.
    fn tune(&mut self) -> Result<()> {
        let setting = self.compiler.setting();
        let Some((geometry, forms)) = &self.layer.forms else {
            let start = self.candidate(self.compiler.form, None)?;
            self.climb(start, Form::Auto)?;
            return Ok(());
        };
        if self.compiler.form == Form::Auto && self.tuning.has_form(&setting, geometry) {
            return Ok(());
        }
        let mut best: Option<(Form, Candidate)> = None;
        for &form in forms {
            let mut start = self.candidate(form, None)?;
            if let Some((_, best)) = &mut best {
                // Schedules do not make up for so much.
                start.run()?;
                if start.time()? > 3 * best.time()? {
                    continue;
                }
            }
            let mut found = self.climb(start, form)?;
            let wins = match &mut best {
                None => true,
                Some((_, best)) => best.loses_to(&mut found, 2 * BLOCKS)?,
            };
            if wins {
                best = Some((form, found));
            }
        }
        if let Some((form, _)) = best
            && self.compiler.form == Form::Auto
        {
            self.tuning.set_form(&setting, geometry, form);
        }
        Ok(())
    }

    /// From schedule to schedule, as long as a neighbour is faster.
    fn climb(&mut self, mut best: Candidate, form: Form) -> Result<Candidate> {
        let setting = self.compiler.setting();
        let Some(mut choice) = best.choice.clone() else { return Ok(best) };
        if self.tuning.has_schedule(&setting, &choice.problem) {
            return Ok(best);
        }
        let estimate = choice.chosen.clone();
        let mut tried = HashSet::from([estimate.clone()]);
        loop {
            let fresh: Vec<String> =
                choice.others.iter().filter(|&name| tried.insert(name.clone())).cloned().collect();
            let mut moved = false;
            for name in fresh.into_iter().take(MOST_TRIALS.saturating_sub(tried.len())) {
                // A schedule that asks for more registers than there are is none.
                let Ok(mut other) = self.candidate(form, Some((&choice.problem, &name))) else { continue };
                if other.choice.as_ref().is_some_and(|made| made.chosen == name)
                    && best.loses_to(&mut other, BLOCKS)?
                {
                    (best, moved) = (other, true);
                }
            }
            match &best.choice {
                Some(next) if moved => choice = next.clone(),
                _ => break,
            }
        }
        // The best of many looks better than it is: it must win again.
        if choice.chosen != estimate {
            let mut start = self.candidate(form, Some((&choice.problem, &estimate)))?;
            if !start.loses_to(&mut best, 2 * BLOCKS)? {
                (best, choice.chosen) = (start, estimate);
            }
        }
        self.tuning.set_schedule(&setting, &choice.problem, &choice.chosen);
        Ok(best)
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
        let options = tconvc_codegen::compile::Options { list_choices: true, ..compiler.code_options() };
        let compiled = tconvc_codegen::compile::compile(&graph, &plan(&graph)?, &options)?;
        let choice = match compiled.choices() {
            [choice] => Some(choice.clone()),
            _ => None,
        };
        let program = compiled.finish()?;
        let inputs = program.inputs().iter().zip(1..);
        let inputs = inputs.map(|(port, seed)| Tensor::seeded(port.dtype, port.shape.clone(), seed));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let outputs = program.outputs().iter().map(|port| vec![0; port.bytes().div_ceil(8)]).collect();
        let session = Session::new(&program, self.executor.clone()).map_err(Error::from)?;
        Ok(Candidate { session, choice, inputs, outputs })
    }
}
