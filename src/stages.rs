//! The rest of a network behind extents that follow from data (`NonZero`): interpreted operators, whose results
//! have the extents that only running them tells, and then a network that is compiled for these.

use crate::compiled::{CompiledModel, Outputs};
use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::model::PortInfo;
use crate::report::Report;
use crate::session::Session;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tconvc_codegen::compile::{Estimate, check_operators};
use tconvc_ir::{Graph, NodeId, Tensor, interp};
use tconvc_runtime::executor::Executor;

/// Most cuts one behind the other: each is a level of calls.
pub(crate) const MOST_CUTS: usize = 64;

/// What runs after a program.
#[derive(Clone)]
pub(crate) struct Rest {
    middle: Arc<Graph>,
    /// Compiled for the shapes that come; `None` where nothing reads what the middle makes.
    after: Option<CompiledModel>,
    /// Outputs that are constants of text.
    texts: Vec<(String, Tensor)>,
}

impl Rest {
    /// Of the two graphs, with `cuts` before the second.
    ///
    /// # Errors
    /// When an operator is unknown, or there are too many cuts.
    pub fn new(
        compiler: &Compiler,
        middle: Graph,
        after: Graph,
        texts: Vec<(String, Tensor)>,
        cuts: usize,
    ) -> Result<Self> {
        check_operators(&middle)?;
        check_operators(&after)?;
        if cuts > MOST_CUTS {
            let node = middle.nodes().next().map(|node| node.name.clone()).unwrap_or_default();
            return Err(Error::Cuts { node, most: MOST_CUTS });
        }
        // The shapes that a caller gave are bound already.
        let compiler = Compiler { shapes: BTreeMap::new(), ..compiler.clone() };
        let has_nodes = after.node_count() > 0;
        let after = has_nodes.then(|| CompiledModel::of_graph(compiler, after, cuts)).transpose()?;
        Ok(Self { middle: Arc::new(middle), after, texts })
    }

    /// What is known of the nodes that run between the programs.
    pub fn estimates(&self) -> Vec<Estimate> {
        Estimate::of_data(&self.middle)
    }

    /// The nodes in the middle, and what was compiled last.
    pub fn report(&self) -> Report {
        let middle = Report::of_middle(self.estimates());
        middle.followed_by(self.after.as_ref().map(CompiledModel::report).unwrap_or_default())
    }

    /// For runs on these threads.
    pub fn session(&self, executor: &Arc<dyn Executor>) -> RestSession {
        let after = self.after.as_ref();
        RestSession {
            rest: self.clone(),
            after: after.map(|after| Box::new(after.session().with_executor(executor.clone()))),
        }
    }
}

/// What runs after a program, with its workspace.
pub(crate) struct RestSession {
    rest: Rest,
    after: Option<Box<Session>>,
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
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let number: HashMap<NodeId, usize> =
            graph.order()?.into_iter().enumerate().map(|(number, node)| (node, steps + number)).collect();
        let (mut start, mut last) = (Instant::now(), None);
        let results = interp::run_with(graph, &inputs, &mut |value, _| {
            let maker = graph.producer(value);
            // The other outputs of a node come with its first.
            if let Some(&number) = maker.filter(|_| maker != last).and_then(|node| number.get(&node)) {
                observe(number, start.elapsed());
            }
            (start, last) = (Instant::now(), maker);
        })?;
        known.extend(results);
        if let (Some(model), Some(session)) = (&self.rest.after, &mut self.after) {
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
