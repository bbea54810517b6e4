//! Graphs inside of operators (`If`, `Loop`, `Scan`): compiled like any other when they are run, for the types and shapes that arrive.

use crate::cache::Cache;
use crate::compiled::CompiledModel;
use crate::compiler::Compiler;
use crate::error::Result;
use crate::session::Session;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use tconvc_ir::ops::interpret;
use tconvc_ir::{DType, Graph, Node, Op, Tensor, ValueId, ValueType, infer};
use tconvc_machine::Target;
use tconvc_passes::cost::graph_cost;
use tconvc_runtime::executor::Executor;
use tconvc_runtime::subgraphs::{Subgraph, Subgraphs};

/// Programs that are kept of a graph, for different types and shapes of its inputs.
const PROGRAMS: usize = 32;
/// Bytes of their code and weights.
const PROGRAM_BYTES: usize = 256 << 20;
/// Nanoseconds of interpretation beyond which a graph is compiled the first time that it is run, and not the second.
const WORTH_NS: f64 = 2e6;
/// Programs after which shapes that rarely come again are interpreted: a loop may make its state longer in every round.
const FEW: usize = 8;

/// Runs the graphs of one network's operators.
pub(crate) struct Inside {
    compiler: Compiler,
    /// Cuts before the network.
    cuts: usize,
    graphs: Mutex<HashMap<Place, Arc<Mutex<Programs>>>>,
}

/// Names of a node and of the attribute that is a graph of its.
type Place = (String, &'static str);

/// Types and shapes of inputs that are not constant.
type Key = Vec<Option<(DType, Vec<usize>)>>;

/// What is known of a graph.
struct Programs {
    cache: Cache<Key, Known>,
    compiled: usize,
    runs: usize,
}

/// What is known of a graph with inputs of these types and shapes.
enum Known {
    /// It was interpreted once.
    Seen,
    /// It cannot be compiled, or its outputs are not those of the graph.
    Refused,
    /// It is not compiled as a whole, and interpreted steps are denied: the error that says so.
    Denied(String),
    /// The program, and workspaces that nobody uses now.
    Compiled(CompiledModel, Vec<Session>),
}

impl Inside {
    pub(crate) fn new(compiler: &Compiler, cuts: usize) -> Self {
        // The shapes that a caller gave are those of the network around.
        let compiler = Compiler { shapes: BTreeMap::new(), ..compiler.clone() };
        Self { compiler, cuts, graphs: Mutex::default() }
    }

    /// What code is made for.
    pub(crate) fn target(&self) -> &Target {
        &self.compiler.target
    }

    /// Evaluates a node by its definition, but for the graphs inside of it; `constants` are those of its inputs that are constant.
    pub(crate) fn eval(
        &self,
        node: &Node,
        inputs: &[Option<&Tensor>],
        constants: &[Option<&Tensor>],
        executor: &Arc<dyn Executor>,
    ) -> tconvc_ir::Result<Vec<Tensor>> {
        let Op::Opaque(op) = &node.op else { return node.op.eval(inputs, node.outputs().len()) };
        let control = op.control()?;
        let constants = control.constant_inputs(constants, op.captures);
        control.eval_with(inputs, &mut |attribute, graph, inputs| {
            self.run(
                &Subgraph { node: &node.name, attribute, graph, constants: &constants },
                inputs,
                executor,
            )
        })
    }

    /// What is known of a graph.
    fn programs(&self, subgraph: &Subgraph<'_>) -> Arc<Mutex<Programs>> {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let cache = Cache::new(PROGRAMS).with_bytes(PROGRAM_BYTES);
            Arc::new(Mutex::new(Programs { cache, compiled: 0, runs: 0 }))
        };
        graphs.entry((subgraph.node.to_owned(), subgraph.attribute)).or_insert_with(new).clone()
    }

    /// A workspace for inputs of these types and shapes, where there is a program or is to be one.
    ///
    /// # Errors
    /// When interpreted steps are denied, and it has some.
    fn session(
        &self,
        programs: &Mutex<Programs>,
        subgraph: &Subgraph<'_>,
        key: &Key,
    ) -> tconvc_ir::Result<Option<Session>> {
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.runs += 1;
        let (compiled, runs) = (programs.compiled, programs.runs);
        let seen = match programs.cache.get(|known| known == key) {
            Some(Known::Compiled(model, idle)) => {
                return Ok(Some(idle.pop().unwrap_or_else(|| model.session())));
            }
            Some(Known::Refused) => return Ok(None),
            Some(Known::Denied(problem)) => return Err(tconvc_ir::Error::Unsupported(problem.clone())),
            Some(Known::Seen) => true,
            None => false,
        };
        let graph = match bound(subgraph, key) {
            Ok(graph) => graph,
            Err(error) => return self.refuse(&mut programs, key, &error),
        };
        let cost = graph_cost(&graph);
        let is_long = cost.macs as f64 + cost.bytes as f64 > WORTH_NS;
        let waits = !(is_long || seen) || (compiled > FEW && runs < 4 * compiled);
        if waits && !self.compiler.deny_interpreted {
            programs.cache.insert(key.clone(), Known::Seen);
            return Ok(None);
        }
        let outputs = graph.outputs().len();
        let made = CompiledModel::of_graph(self.compiler.clone(), graph, self.cuts);
        let model = match made {
            Ok(model) if model.is_static() && model.outputs().len() == outputs => model,
            Ok(_) => return self.refuse(&mut programs, key, &"extents of values follow from data"),
            Err(error) => return self.refuse(&mut programs, key, &error),
        };
        programs.compiled += 1;
        let report = model.report();
        let (session, bytes) = (model.session(), report.code_bytes + report.weight_bytes);
        programs.cache.insert_sized(key.clone(), Known::Compiled(model, vec![]), bytes);
        Ok(Some(session))
    }

    /// Keeps that there is no program for inputs of these types and shapes: the graph is interpreted, or that is an error.
    ///
    /// # Errors
    /// When interpreted steps are denied.
    fn refuse(
        &self,
        programs: &mut Programs,
        key: &Key,
        problem: &dyn Display,
    ) -> tconvc_ir::Result<Option<Session>> {
        if !self.compiler.deny_interpreted {
            programs.cache.insert(key.clone(), Known::Refused);
            return Ok(None);
        }
        let problem = problem.to_string();
        programs.cache.insert(key.clone(), Known::Denied(problem.clone()));
        Err(tconvc_ir::Error::Unsupported(problem))
    }
}

impl Subgraphs for Inside {
    fn run(
        &self,
        subgraph: &Subgraph<'_>,
        inputs: Vec<Option<Tensor>>,
        executor: &Arc<dyn Executor>,
    ) -> tconvc_ir::Result<Vec<Tensor>> {
        let passed = passed_on(subgraph.graph);
        let all_passed = passed.iter().map(|from| inputs.get((*from)?)?.clone());
        if let Some(outputs) = all_passed.collect::<Option<Vec<Tensor>>>() {
            return Ok(outputs);
        }
        let is_constant = |index: usize| subgraph.constants.get(index).is_some_and(Option::is_some);
        let described = inputs.iter().enumerate().map(|(index, input)| {
            let tensor = input.as_ref().filter(|_| !is_constant(index))?;
            Some((tensor.dtype(), tensor.shape().to_vec()))
        });
        let key: Key = described.collect();
        let programs = self.programs(subgraph);
        let Some(session) = self.session(&programs, subgraph, &key)? else {
            return interpret(subgraph.graph, inputs);
        };
        let mut session = session.on(executor);
        let views: Option<Vec<_>> = inputs.iter().map(|input| Some(input.as_ref()?.view())).collect();
        let outputs = match views.map(|views| session.run(&views)) {
            Some(Ok(outputs)) => {
                let mut made = outputs.iter().map(|(_, tensor)| tensor.clone());
                let all = passed.into_iter().map(|from| match from {
                    Some(input) => inputs[input].clone(),
                    None => made.next(),
                });
                match all.collect::<Option<Vec<Tensor>>>() {
                    Some(all) => all,
                    None => return interpret(subgraph.graph, inputs),
                }
            }
            // What the definition says is wrong names the node.
            _ => return interpret(subgraph.graph, inputs),
        };
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known::Compiled(_, idle)) = programs.cache.get(|known| *known == key) {
            idle.push(session);
        }
        Ok(outputs)
    }
}

/// The input that each output of a graph is, where it is one: nothing need be done for it.
fn passed_on(graph: &Graph) -> Vec<Option<usize>> {
    let place = |id: &ValueId| graph.inputs().iter().position(|input| input == id);
    graph.outputs().iter().map(place).collect()
}

/// The graph with inputs of these types and shapes, and with what is constant around it.
fn bound(subgraph: &Subgraph<'_>, key: &Key) -> Result<Graph> {
    let mut graph = subgraph.graph.clone();
    let inputs = graph.inputs().to_vec();
    let passed = passed_on(&graph);
    graph.retain_outputs(|place| passed[place].is_none());
    for (index, (&id, described)) in inputs.iter().zip(key).enumerate() {
        if let Some((dtype, shape)) = described {
            graph.set_ty(id, ValueType::new(*dtype, shape.clone()));
        } else if let Some(tensor) = subgraph.constants.get(index).and_then(Option::as_ref) {
            graph.replace_input(id, tensor.clone());
        }
    }
    infer::infer(&mut graph)?;
    Ok(graph)
}
