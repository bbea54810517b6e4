//! The rest of a network behind extents that follow from data (`NonZero`): interpreted operators, whose results
//! have the extents that only running them tells, and then a network that is compiled for these.

use crate::cache::Cache;
use crate::compiled::{CompiledModel, Outputs};
use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::inside::Inside;
use crate::model::PortInfo;
use crate::report::Report;
use crate::session::Session;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tconvc_codegen::compile::{Estimate, check_operators};
use tconvc_ir::{Graph, Node, NodeId, Tensor, ValueId, infer, interp};
use tconvc_passes::cut::Cut;
use tconvc_runtime::executor::Executor;

/// Most cuts one behind the other: each is a level of calls.
pub(crate) const MOST_CUTS: usize = 64;

/// What runs after a program.
#[derive(Clone)]
pub(crate) struct Rest {
    middle: Arc<Graph>,
    /// Compiled for the shapes that come; `None` where nothing reads what the middle makes.
    after: Option<After>,
    /// Outputs that are constants of text.
    texts: Vec<(String, Tensor)>,
    /// What runs graphs inside of the operators between.
    inside: Arc<Inside>,
}

impl Rest {
    /// Of the two graphs, with `cuts` before the second; `inside` runs what is in operators of the first.
    ///
    /// # Errors
    /// When an operator is unknown, or there are too many cuts.
    pub fn new(
        compiler: &Compiler,
        parts: Cut,
        texts: Vec<(String, Tensor)>,
        cuts: usize,
        inside: &Arc<Inside>,
    ) -> Result<Self> {
        let Cut { middle, after, values, .. } = parts;
        check_operators(&middle)?;
        check_operators(&after)?;
        if cuts > MOST_CUTS {
            let node = middle.nodes().next().map(|node| node.name.clone()).unwrap_or_default();
            return Err(Error::Cuts { node, most: MOST_CUTS });
        }
        // The shapes that a caller gave are bound already.
        let compiler = Compiler { shapes: BTreeMap::new(), ..compiler.clone() };
        let has_nodes = after.node_count() > 0;
        let after = match (has_nodes, values.is_empty()) {
            (false, _) => None,
            (true, true) => Some(After::Shapes(CompiledModel::of_graph(compiler, after, cuts)?)),
            (true, false) => Some(After::values(compiler, after, &values, cuts)?),
        };
        Ok(Self { middle: Arc::new(middle), after, texts, inside: Arc::clone(inside) })
    }

    /// What is known of the nodes that run between the programs.
    pub fn estimates(&self) -> Vec<Estimate> {
        Estimate::of_data(&self.middle, self.inside.target())
    }

    /// The nodes in the middle, and what was compiled last.
    pub fn report(&self) -> Report {
        let middle = Report::of_middle(self.estimates());
        middle.followed_by(self.after.as_ref().map(After::report).unwrap_or_default())
    }

    /// For runs on these threads.
    pub fn session(&self, executor: &Arc<dyn Executor>) -> RestSession {
        RestSession { rest: self.clone(), executor: executor.clone(), after: Cache::new(WORKSPACES) }
    }
}

/// Sets of values that programs and workspaces are kept for.
const VALUES: usize = 16;
const WORKSPACES: usize = 4;

/// The last part of a network.
#[derive(Clone)]
enum After {
    /// Its extents follow from the shapes of its inputs.
    Shapes(CompiledModel),
    /// They follow from some inputs' values, too.
    Values(Arc<Valued>),
}

/// A network that is compiled for the values of some of its inputs.
struct Valued {
    compiler: Compiler,
    graph: Graph,
    /// These inputs.
    values: Vec<ValueId>,
    cuts: usize,
    models: Mutex<Cache<Vec<Tensor>, CompiledModel>>,
}

impl After {
    fn values(compiler: Compiler, graph: Graph, names: &[String], cuts: usize) -> Result<Self> {
        let find = |name: &String| {
            let missing = || Error::Arguments(format!("nothing makes `{name}`"));
            graph.find_value(name).ok_or_else(missing)
        };
        let values = names.iter().map(find).collect::<Result<_>>()?;
        let models = Mutex::new(Cache::new(VALUES));
        Ok(Self::Values(Arc::new(Valued { compiler, graph, values, cuts, models })))
    }

    fn report(&self) -> Report {
        match self {
            Self::Shapes(model) => model.report(),
            Self::Values(valued) => {
                let mut models = valued.models.lock().unwrap_or_else(PoisonError::into_inner);
                models.get(|_| true).map(|model| model.report()).unwrap_or_default()
            }
        }
    }

    /// The values that it has to be compiled for.
    fn asked(&self, known: &HashMap<String, Tensor>) -> Result<Vec<Tensor>> {
        let Self::Values(valued) = self else { return Ok(vec![]) };
        let names = valued.values.iter().map(|&id| &valued.graph.value(id).name);
        names.map(|name| Ok(lookup(known, name)?.clone())).collect()
    }

    /// The network for these values.
    fn model(&self, values: &[Tensor]) -> Result<CompiledModel> {
        let valued = match self {
            Self::Shapes(model) => return Ok(model.clone()),
            Self::Values(valued) => valued,
        };
        let mut models = valued.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = models.get(|known| known == values) {
            return Ok(model.clone());
        }
        let mut graph = valued.graph.clone();
        for (&id, tensor) in valued.values.iter().zip(values) {
            graph.replace_input(id, tensor.clone());
        }
        infer::infer(&mut graph)?;
        let model = CompiledModel::of_graph(valued.compiler.clone(), graph, valued.cuts)?;
        Ok(models.insert(values.to_vec(), model).clone())
    }
}

/// What runs after a program, with its workspace.
pub(crate) struct RestSession {
    rest: Rest,
    executor: Arc<dyn Executor>,
    /// Models and workspaces, for values that the last part is compiled for.
    after: Cache<Vec<Tensor>, (CompiledModel, Session)>,
}

impl RestSession {
    /// Runs on what the program before made in its `steps` steps, and on inputs of text; gives the network's outputs.
    pub fn run(
        &mut self,
        made: Vec<(String, Tensor)>,
        outputs: &[PortInfo],
        steps: usize,
        observe: &mut dyn FnMut(usize, Duration),
    ) -> Result<Outputs> {
        let texts = self.rest.texts.iter().cloned();
        let mut known: HashMap<String, Tensor> = made.into_iter().chain(texts).collect();
        let graph = &self.rest.middle;
        let inputs = graph.inputs().iter().map(|&id| {
            let name = graph.value(id).name.as_str();
            Ok((name, lookup(&known, name)?.clone()))
        });
        let mut eval = |node: &Node, inputs: &[Option<&Tensor>]| {
            let constants = node.inputs().iter().map(|id| graph.constant((*id)?));
            self.rest.inside.eval(node, inputs, &constants.collect::<Vec<_>>(), &self.executor)
        };
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let number: HashMap<NodeId, usize> =
            graph.order()?.into_iter().enumerate().map(|(number, node)| (node, steps + number)).collect();
        let (mut start, mut last) = (Instant::now(), None);
        let mut told = |value: ValueId, _: &Tensor| {
            let maker = graph.producer(value);
            // The other outputs of a node come with its first.
            if let Some(&number) = maker.filter(|_| maker != last).and_then(|node| number.get(&node)) {
                observe(number, start.elapsed());
            }
            (start, last) = (Instant::now(), maker);
        };
        let results = interp::run_by(graph, &inputs, &mut told, &mut eval)?;
        known.extend(results);
        if let Some(after) = &self.rest.after {
            let values = after.asked(&known)?;
            if self.after.get(|kept| *kept == values).is_none() {
                let model = after.model(&values)?;
                let session = model.session().with_executor(self.executor.clone());
                self.after.insert(values.clone(), (model, session));
            }
            let Some((model, session)) = self.after.get(|kept| *kept == values) else {
                return Err(Error::Arguments("the workspace is gone".into()));
            };
            let views = model.inputs().iter().map(|port| Ok(lookup(&known, &port.name)?.view()));
            let views = views.collect::<Result<Vec<_>>>()?;
            let first = steps + number.len();
            let results = session.run_timed(&views, |step, time| observe(first + step, time))?;
            known.extend(results.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())));
        }
        let named = outputs.iter().map(|port| Ok((port.name.clone(), lookup(&known, &port.name)?.clone())));
        Ok(Outputs::new(named.collect::<Result<_>>()?))
    }
}

fn lookup<'a>(known: &'a HashMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    known.get(name).ok_or_else(|| Error::Arguments(format!("nothing makes `{name}`")))
}
