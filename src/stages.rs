//! The rest of a network behind extents that follow from data (`NonZero`): operators run by their definition, whose results
//! have the extents that only running them tells, and then a network that is compiled for these.

use crate::compiled::{CompiledModel, Outputs};
use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::model::PortInfo;
use crate::report::{Report, StepReport};
use crate::session::Session;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tconvc_codegen::compile::{Refusal, check_operators};
use tconvc_codegen::error::CompileError;
use tconvc_ir::{Graph, Tensor, interp};
use tconvc_runtime::executor::Executor;

/// Most cuts one behind the other: each is a level of calls.
const MOST_CUTS: usize = 64;

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
        if compiler.deny_interpreted {
            return Err(CompileError::Interpreted(Refusal::of_data(&middle)).into());
        }
        // The shapes that a caller gave are bound already.
        let compiler = Compiler { shapes: BTreeMap::new(), ..compiler.clone() };
        let has_nodes = after.node_count() > 0;
        let after = has_nodes.then(|| CompiledModel::of_graph(compiler, after, cuts)).transpose()?;
        Ok(Self { middle: Arc::new(middle), after, texts })
    }

    /// A step for the middle, and what was compiled last.
    pub fn report(&self) -> Report {
        let first = self.middle.nodes().next();
        let names: Vec<&str> = self.middle.nodes().map(|node| node.op.name()).collect();
        let step = StepReport {
            node: first.map(|node| node.name.clone()).unwrap_or_default(),
            kernel: format!("interpreted {}", names.join("+")),
            schedule: String::new(),
            threads: 1,
            roofline_us: 0.0,
            estimated_us: 0.0,
            measured_us: None,
            refusal: Some(Refusal::of_data(&self.middle)),
        };
        let report = Report { steps: vec![step], ..Report::default() };
        report.followed_by(self.after.as_ref().map(CompiledModel::report).unwrap_or_default())
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
        let start = Instant::now();
        let graph = &self.rest.middle;
        let inputs = graph.inputs().iter().map(|&id| {
            let name = graph.value(id).name.as_str();
            Ok((name, lookup(&known, name)?.clone()))
        });
        let results = interp::run(graph, &inputs.collect::<Result<Vec<_>>>()?)?;
        known.extend(results);
        observe(steps, start.elapsed());
        if let (Some(model), Some(session)) = (&self.rest.after, &mut self.after) {
            let views = model.inputs().iter().map(|port| Ok(lookup(&known, &port.name)?.view()));
            let views = views.collect::<Result<Vec<_>>>()?;
            let results = session.run_timed(&views, |step, time| observe(steps + 1 + step, time))?;
            known.extend(results.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())));
        }
        let named = outputs.iter().map(|port| Ok((port.name.clone(), lookup(&known, &port.name)?.clone())));
        Ok(Outputs::new(named.collect::<Result<_>>()?))
    }
}

fn lookup<'a>(known: &'a HashMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    known.get(name).ok_or_else(|| Error::Arguments(format!("nothing makes `{name}`")))
}
