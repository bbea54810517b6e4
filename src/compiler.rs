//! Options of a compilation, and its steps: bind shapes, rewrite, plan, make code.

use crate::compiled::{CompiledModel, Specialised};
use crate::error::{Error, Result};
use crate::explain::Explanation;
use crate::given::Given;
use crate::inside::Inside;
use crate::interpreted::InterpretedStep;
use crate::limits::default_budget;
use crate::model::Model;
use crate::report::Report;
use crate::stages::{MOST_CUTS, Rest};
use crate::threads::Threads;
use crate::tune::Tuning;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tconvc_codegen::artifact::Artifact;
use tconvc_codegen::compile::{self, Estimate};
use tconvc_codegen::costs::KernelCosts;
use tconvc_codegen::options::{self, FastMath};
use tconvc_ir::budget::{Budget, CancelToken, Limits};
use tconvc_ir::{Graph, Op, infer};
use tconvc_machine::Target;
use tconvc_passes::cost::Machine;
use tconvc_passes::cut::{constant_texts, cut};
use tconvc_passes::plan::{Plan, plan};
use tconvc_passes::{Compat, Form, Journal, Limits as OperandLimits, Options, compat, optimise};
use tconvc_runtime::executor::Executor;

/// Compiles models. Every option has a default: this machine, one thread, the form chosen for each layer.
#[derive(Debug, Clone)]
pub struct Compiler {
    pub(crate) target: Target,
    pub(crate) threads: Threads,
    pub(crate) form: Form,
    pub(crate) compat: Compat,
    pub(crate) shapes: BTreeMap<String, Vec<usize>>,
    pub(crate) disabled: Vec<String>,
    pub(crate) stop_after: Option<String>,
    pub(crate) keep_text: bool,
    pub(crate) fast_math: bool,
    pub(crate) deny_interpreted: bool,
    pub(crate) workspace_limit: usize,
    pub(crate) tuning: Arc<Tuning>,
    pub(crate) budget: Budget,
}

/// What a network may take besides the caller's arrays and its own weights unless [`Compiler::workspace_limit`] says
/// otherwise: a gibibyte, which is also the most that one tensor may take. A file of a few bytes can ask for any amount.
const WORKSPACE_LIMIT: usize = 1 << 30;

/// A rewritten network, before code is made: what `compile --emit ir` shows. For an ONNX file see [`Compiler::export`].
pub struct Rewritten {
    graph: Graph,
    journal: Journal,
    warnings: Vec<String>,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new()
    }
}

impl Compiler {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            target: Target::host(),
            threads: Threads::default(),
            form: Form::Auto,
            compat: Compat::default(),
            shapes: BTreeMap::new(),
            disabled: vec![],
            stop_after: None,
            keep_text: false,
            fast_math: true,
            deny_interpreted: false,
            workspace_limit: WORKSPACE_LIMIT,
            tuning: Arc::default(),
            budget: default_budget(),
        }
    }

    /// The processor to make code for. Code for another than this machine's can be listed, not run.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Threads that share the work of compiling, and each layer of a run; results do not depend on their number. By default as
    /// many as a given [`Compiler::executor`] has, else one. 0 counts as 1.
    ///
    /// A pool of so many is started when it is first needed, and shared by the compiler, its clones, and all that they
    /// compile. It spreads one call at a time; calls that come meanwhile run on their caller's thread alone. For sessions
    /// that run side by side on several threads each, see [`Session::with_executor`](crate::Session::with_executor).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = self.threads.with_count(threads);
        self
    }

    /// Compiles and runs on these threads instead of a pool of its own. With [`Compiler::threads`], layers are shared among
    /// another number than it has.
    #[must_use]
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.threads = self.threads.with_executor(executor);
        self
    }

    /// Form of all transposed convolutions.
    #[must_use]
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Whose meaning operators have where engines disagree; by default what ONNX's text says. Where a model depends on it, the
    /// report warns.
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.compat = compat;
        self
    }

    /// Extents of an input that the model leaves open.
    #[must_use]
    pub fn input_shape(mut self, name: &str, shape: impl Into<Vec<usize>>) -> Self {
        self.shapes.insert(name.to_owned(), shape.into());
        self
    }

    /// Leaves a pass out, by its name.
    #[must_use]
    pub fn without_pass(mut self, name: &str) -> Self {
        self.disabled.push(name.to_owned());
        self
    }

    /// Stops rewriting after a pass (`PASS`, or `PASS:N` for its first N rewrites), to find which one changes something.
    #[must_use]
    pub fn stop_after(mut self, pass: &str) -> Self {
        self.stop_after = Some(pass.to_owned());
        self
    }

    /// Whether convolutions may be computed with fewer products, and sums rounded otherwise than by the definition: Winograd's
    /// F(m, r), on by default. Results differ in the last bits, see `docs/winograd.md`. Constants are folded into weights
    /// in either case.
    #[must_use]
    pub fn fast_math(mut self, fast: bool) -> Self {
        self.fast_math = fast;
        self
    }

    /// Makes it an error when a step is interpreted, for want of kernels that take it: the error names node, operator and
    /// reason. By default such steps are interpreted, which is slow, and stand in [`Report::interpreted`].
    #[must_use]
    pub fn deny_interpreted(mut self, deny: bool) -> Self {
        self.deny_interpreted = deny;
        self
    }

    /// Keeps the code generator's own text. [`Compiler::listing`] does so by itself.
    #[must_use]
    pub fn keep_text(mut self, keep: bool) -> Self {
        self.keep_text = keep;
        self
    }

    /// The most bytes that a compiled network may take besides inputs, outputs and the constants of its model: for values
    /// between layers, for scratch memory of all threads, and for what packing adds to the weights. By default a gibibyte;
    /// a network that needs more is refused with an error.
    #[must_use]
    pub fn workspace_limit(mut self, bytes: usize) -> Self {
        self.workspace_limit = bytes;
        self
    }

    /// What models may make the compiler, and all that it compiles, take: memory, nodes, rounds of loops, code, and the time of
    /// each call. By default [`default_limits`](crate::default_limits). One account is kept for the compiler, its clones, and
    /// what they compile; what goes beyond is an error that names the node, what it wanted, and what was left.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        self.budget(&Budget::new(limits))
    }

    /// As [`Compiler::limits`], of an account that is kept for others, too: see [`Model::read_with`](crate::Model::read_with).
    #[must_use]
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Ends what the compiler, its clones, and what they compile do now or begin later: they give an error within the step, pass
    /// or round that they are at.
    pub fn cancel_token(&self) -> CancelToken {
        self.budget.cancel_token()
    }

    /// Takes the forms and schedules that were measured to be the fastest on this processor with this number of threads, in the
    /// place of estimates.
    #[must_use]
    pub fn tuning(mut self, tuning: &Tuning) -> Self {
        self.tuning = Arc::new(tuning.clone());
        self
    }

    /// Compiles a model. Extents that stay open are taken from the inputs of each call.
    ///
    /// # Errors
    /// When the shapes given do not fit the model, or something in it cannot be compiled.
    pub fn compile(&self, model: &Model) -> Result<CompiledModel> {
        let _budget = self.budget.enter();
        CompiledModel::new(self, model)
    }

    /// Rewrites a model as [`Compiler::compile`] does, and stops there.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn rewrite(&self, model: &Model) -> Result<Rewritten> {
        let _budget = self.budget.enter();
        let (mut graph, warnings) = self.bound(model)?;
        let journal = self.optimise(&mut graph)?;
        Ok(Rewritten { graph, journal, warnings })
    }

    /// The network as it is compiled when a caller gives what has to be given: with the shapes of the options, and with the
    /// defaults of the other inputs. With warnings.
    pub(crate) fn bound(&self, model: &Model) -> Result<(Graph, Vec<String>)> {
        let mut graph = self.with_shapes_required(model);
        graph.fix_defaults(|_| false);
        let warnings = self.bind(&mut graph, &self.shapes)?;
        Ok((graph, warnings))
    }

    /// Says for each transposed convolution of a model which form is chosen, and why, and which steps are interpreted.
    ///
    /// # Errors
    /// As [`Compiler::compile`]; extents that stay open leave their layers undecided.
    pub fn explain(&self, model: &Model) -> Result<Explanation> {
        let _budget = self.budget.enter();
        let (mut graph, warnings) = self.bound(model)?;
        let journal = optimise(&mut graph, &Options { inside: true, ..self.pass_options()? })?;
        let is_bound = graph.inputs().iter().all(|&id| graph.ty(id).known_shape().is_some());
        let survey = is_bound.then(|| self.survey(&graph, 0)).transpose()?;
        Ok(Explanation::new(self, &journal, warnings, survey))
    }

    /// What is known of the steps of a rewritten graph whose shapes are bound, with `cuts` before it, without code.
    fn survey(&self, graph: &Graph, cuts: usize) -> Result<Survey> {
        let parts = cut(graph)?;
        let before = parts.as_ref().map_or(graph, |parts| &parts.before);
        let estimates = compile::survey(before, &plan(before, &self.operand_limits())?, &self.target);
        let mut survey = Survey { estimates, undecided: 0 };
        let Some(parts) = parts else { return Ok(survey) };
        survey.estimates.extend(Estimate::of_data(&parts.middle, &self.target));
        let mut after = parts.after;
        let is_bound = after.inputs().iter().all(|&id| after.ty(id).known_shape().is_some());
        // Values that extents follow from are not known here.
        if is_bound && parts.values.is_empty() && after.node_count() > 0 && cuts < MOST_CUTS {
            self.optimise(&mut after)?;
            let next = self.survey(&after, cuts + 1)?;
            survey.estimates.extend(next.estimates);
            survey.undecided += next.undecided;
        } else {
            survey.undecided += after.node_count();
        }
        Ok(survey)
    }

    /// Refuses interpreted steps where they are denied: those of a program, of the nodes behind it, and others.
    fn check_denied(
        &self,
        program: &[Estimate],
        behind: &[Estimate],
        others: Vec<InterpretedStep>,
    ) -> Result<()> {
        if !self.deny_interpreted {
            return Ok(());
        }
        let mut steps = self.interpreted(&[program, behind].concat());
        steps.extend(others);
        if steps.is_empty() { Ok(()) } else { Err(Error::Interpreted(steps)) }
    }

    /// The interpreted ones of these, with their shares of the time.
    pub(crate) fn interpreted(&self, estimates: &[Estimate]) -> Vec<InterpretedStep> {
        InterpretedStep::of_estimates(estimates, &self.target, self.threads.count())
    }

    /// The network, of which every input has to be given that the options have a shape for.
    pub(crate) fn with_shapes_required(&self, model: &Model) -> Graph {
        let mut graph = model.graph().clone();
        for id in graph.inputs().to_vec() {
            if self.shapes.contains_key(&graph.value(id).name) {
                graph.require_input(id);
            }
        }
        graph
    }

    /// True when extents or branches of a graph, whose shapes are bound, follow from the data of its inputs.
    pub(crate) fn asks_for_values(&self, graph: &mut Graph) -> Result<bool> {
        self.optimise(graph)?;
        let control = graph.nodes().any(|node| matches!(&node.op, Op::Opaque(op) if op.control().is_ok()));
        Ok(control || cut(graph)?.is_some())
    }

    /// What measurements depend on beside the geometry.
    pub(crate) fn setting(&self) -> String {
        let caches = self.target.caches();
        let kib = [caches.l1d.bytes, caches.l2.bytes, caches.l3.bytes].map(|bytes| (bytes >> 10).to_string());
        let fast_math = if self.fast_math { "" } else { ", fast math off" };
        format!(
            "{}, caches of {} KiB, {} thread(s){fast_math}",
            self.target,
            kib.join(", "),
            self.threads.count()
        )
    }

    /// Gives the named inputs their shapes, and the symbols in these their values; gives warnings.
    pub(crate) fn bind(
        &self,
        graph: &mut Graph,
        shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Vec<String>> {
        let shapes: Vec<(&str, &[usize])> =
            shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let mut warnings = infer::set_input_shapes(graph, &shapes)?;
        if self.compat == Compat::Onnx {
            warnings.extend(compat::warnings(graph));
        }
        Ok(warnings)
    }

    pub(crate) fn optimise(&self, graph: &mut Graph) -> Result<Journal> {
        infer::infer(graph)?;
        Ok(optimise(graph, &self.pass_options()?)?)
    }

    pub(crate) fn pass_options(&self) -> Result<Options> {
        Ok(Options {
            form: self.form,
            compat: self.compat,
            machine: Machine::new(self.target.rates(), self.threads.count()),
            algorithms: Arc::new(KernelCosts::new(&self.code_options())),
            limits: self.operand_limits(),
            disabled: self.disabled.clone(),
            stop_after: self.stop_after.as_deref().map(str::parse).transpose()?,
            measured: self.tuning.forms(&self.setting()),
            ..Options::default()
        })
    }

    /// How many operands code for the target may have.
    pub(crate) fn operand_limits(&self) -> OperandLimits {
        OperandLimits::of(self.target.vectors())
    }

    fn generate(&self, graph: &Graph, plan: &Plan) -> Result<Artifact> {
        Ok(compile::compile(graph, plan, &self.code_options(), &*self.threads.executor())?)
    }

    pub(crate) fn code_options(&self) -> options::Options {
        options::Options {
            threads: self.threads.count(),
            workspace_limit: self.workspace_limit,
            budget: Some(self.budget.clone()),
            keep_text: self.keep_text,
            fast_math: if self.fast_math { FastMath::WherePays } else { FastMath::Off },
            schedules: self.tuning.schedules(&self.setting()),
            ..options::Options::new(self.target.clone())
        }
    }

    /// Machine code for these input shapes as an assembly listing; the target may be another than this machine. Where extents
    /// follow from data, the code that runs before they are known.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn listing(&self, model: &Model, clif: bool) -> Result<String> {
        let _budget = self.budget.enter();
        let mut compiler = self.clone();
        compiler.keep_text = true;
        let mut graph = compiler.rewrite(model)?.graph;
        let is_bound = graph.inputs().iter().all(|&id| graph.ty(id).known_shape().is_some());
        let mut behind = vec![];
        if is_bound && let Some(parts) = cut(&graph)? {
            graph = parts.before;
            behind = Estimate::of_data(&parts.middle, &self.target);
        }
        let code = compiler.generate(&graph, &plan(&graph, &compiler.operand_limits())?)?;
        compiler.check_denied(&code.estimates, &behind, vec![])?;
        Ok(if clif { code.functions.clif() } else { code.functions.asm() })
    }

    /// A program for a graph whose shapes are bound, with its report, and with what is left to compile where extents follow from
    /// data. `cuts` of this kind lie before it.
    pub(crate) fn specialise(&self, mut graph: Graph, given: Given, cuts: usize) -> Result<Specialised> {
        let start = Instant::now();
        let journal = self.optimise(&mut graph)?;
        let inside = Arc::new(Inside::new(self, cuts));
        let (mut rest, mut behind, mut denied) = (None, vec![], vec![]);
        if let Some(mut parts) = cut(&graph)? {
            let texts = constant_texts(&graph);
            graph = std::mem::take(&mut parts.before);
            behind = Estimate::of_data(&parts.middle, &self.target);
            match Rest::new(self, parts, texts, cuts + 1, &inside) {
                Ok(made) => rest = Some(made),
                Err(Error::Interpreted(steps)) => denied = steps,
                Err(error) => return Err(error),
            }
        }
        let plan = plan(&graph, &self.operand_limits())?;
        if plan.arena_bytes > self.workspace_limit {
            return Err(Error::Workspace { bytes: plan.arena_bytes, limit: self.workspace_limit });
        }
        let mut artifact = self.generate(&graph, &plan)?;
        let estimates = std::mem::take(&mut artifact.estimates);
        let declined = artifact.declined.iter().map(ToString::to_string).collect();
        self.check_denied(&estimates, &behind, denied)?;
        let program = artifact.load()?;
        let charge = self.budget.take(program.code_bytes().saturating_add(program.weight_bytes()))?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        let report = Report::new(self, &journal, (&graph, &plan), (&program, &estimates), compile_ms);
        let warnings = self.threads.warning().into_iter().collect();
        let report = Report { declined, warnings, ..report };
        Ok(Specialised { given, program, report, inside, rest, _charge: charge })
    }
}

/// What is known of the steps of a network before code is made.
#[derive(Debug)]
pub(crate) struct Survey {
    pub estimates: Vec<Estimate>,
    /// Nodes behind extents that follow from data, of whose steps nothing is known yet.
    pub undecided: usize,
}

impl Rewritten {
    /// The graph as text.
    pub fn to_text(&self) -> String {
        tconvc_ir::text::print(&self.graph)
    }

    /// The graph as input of Graphviz.
    pub fn to_dot(&self) -> String {
        crate::dot::print(&self.graph)
    }

    /// What looks wrong in the model and does not stop it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the passes decided and refused.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The graph, for tools that look inside; its crate promises no stability.
    #[doc(hidden)]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}
