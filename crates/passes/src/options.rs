//! What the caller can ask of the pipeline.

use crate::cost::{AlgorithmCosts, AtPeak, Machine};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pass::Pass;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The form in which transposed convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The cheapest by the cost model, for each on its own.
    #[default]
    Auto,
    /// Each input value adds a kernel-shaped patch to the output.
    Scatter,
    /// Zeros between the inputs, then a plain convolution.
    ZeroInsert,
    /// A small dense convolution for each residue of the output, interleaved.
    SubPixel,
}

impl Form {
    /// Every form, [`Form::Auto`] first.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Scatter, Self::ZeroInsert, Self::SubPixel];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scatter => "scatter",
            Self::ZeroInsert => "zero-insert",
            Self::SubPixel => "sub-pixel",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|form| form.name() == text).ok_or_else(|| Error::Option {
            option: "form",
            problem: format!("`{text}` is not one of {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

/// Whose meaning an operator has where engines disagree; `docs/differences.md` of the repository lists where they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compat {
    /// What ONNX's text and its reference evaluator say.
    #[default]
    Onnx,
    /// What onnxruntime, OpenVINO and PyTorch do.
    OnnxRuntime,
}

/// Where to stop, to find the pass (and the rewrite) that breaks something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopAfter {
    /// The pipeline is cut behind the first place of this pass.
    pub pass: String,
    /// Rewrites that this pass may make; all when `None`.
    pub rewrites: Option<usize>,
}

impl FromStr for StopAfter {
    type Err = Error;

    /// `PASS`, or `PASS:N` for N rewrites of it.
    fn from_str(text: &str) -> Result<Self> {
        let Some((pass, count)) = text.split_once(':') else {
            return Ok(Self { pass: text.into(), rewrites: None });
        };
        let rewrites = count.parse().map_err(|_| Error::Option {
            option: "stop-after",
            problem: format!("`{count}` is no number of rewrites; accepted are PASS and PASS:N"),
        })?;
        Ok(Self { pass: pass.into(), rewrites: Some(rewrites) })
    }
}

/// Options of [`crate::optimise`].
#[derive(Clone)]
pub struct Options {
    /// Form of the transposed convolutions.
    pub form: Form,
    /// Whose meaning operators have where engines disagree.
    pub compat: Compat,
    /// The machine that the program will run on, for the cost model.
    pub machine: Machine,
    /// What the kernels of each form cost: code generation knows.
    pub algorithms: Arc<dyn AlgorithmCosts>,
    /// How many operands the code of a step may have.
    pub limits: Limits,
    /// Forms measured to be the fastest, by the text of the geometry; estimates choose the others.
    pub measured: BTreeMap<String, Form>,
    /// Names of passes to leave out.
    pub disabled: Vec<String>,
    /// Where to stop.
    pub stop_after: Option<StopAfter>,
    /// Whether the graph is for other runtimes: weights stay quantised, and graphs inside of operators are rewritten as well.
    pub portable: bool,
    /// Whether what would be done to graphs inside of operators is noted; nothing is done to them unless it is [`portable`].
    ///
    /// [`portable`]: Options::portable
    pub inside: bool,
    /// The caller's own passes; run to a fixpoint before the forms are chosen.
    pub custom: Vec<Arc<dyn Pass + Send + Sync>>,
    /// Whether each pass's result is checked (verifier, graph outputs); on in debug builds.
    pub check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            form: Form::Auto,
            compat: Compat::default(),
            machine: Machine::default(),
            algorithms: Arc::new(AtPeak(Machine::default().rates)),
            limits: Limits::default(),
            measured: BTreeMap::new(),
            disabled: vec![],
            stop_after: None,
            portable: false,
            inside: false,
            custom: vec![],
            check: cfg!(debug_assertions),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let custom: Vec<&str> = self.custom.iter().map(|pass| pass.about().name).collect();
        f.debug_struct("Options")
            .field("form", &self.form)
            .field("compat", &self.compat)
            .field("machine", &self.machine)
            .field("algorithms", &self.algorithms)
            .field("limits", &self.limits)
            .field("measured", &self.measured)
            .field("disabled", &self.disabled)
            .field("stop_after", &self.stop_after)
            .field("portable", &self.portable)
            .field("inside", &self.inside)
            .field("custom", &custom)
            .field("check", &self.check)
            .finish()
    }
}
