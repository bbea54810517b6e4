//! A network as an ONNX file for other runtimes: rewritten, and with everything that the model had.

use crate::compiler::Compiler;
use crate::error::Result;
use crate::model::Model;
use tconvc_ir::{Graph, Op};
use tconvc_passes::{Entry, Form, Journal, Options, optimise};

/// An ONNX file in memory, and what was done and noticed on the way.
pub struct Export {
    bytes: Vec<u8>,
    journal: Journal,
    warnings: Vec<String>,
}

impl Compiler {
    /// Rewrites a model, and writes it as an ONNX file that any runtime can run. Transposed convolutions get their form, those
    /// inside of If and Loop as well. Inputs that may be left out stay inputs with their defaults, and quantised weights stay
    /// quantised. What was written is checked before it is given.
    ///
    /// # Errors
    /// As [`Compiler::compile`], and when the network holds something that ONNX cannot say.
    pub fn export(&self, model: &Model) -> Result<Export> {
        let _budget = self.budget.enter();
        let mut graph = model.graph().clone();
        let mut warnings = self.bind(&mut graph, &self.shapes)?;
        let options = Options { portable: true, ..self.pass_options()? };
        let journal = optimise(&mut graph, &options)?;
        if self.stop_after.is_none() {
            warnings.extend(left(&graph, &journal));
            warnings.extend(open(self.form, &journal));
        }
        Ok(Export { bytes: tconvc_ir::onnx::write(&graph)?, journal, warnings })
    }
}

impl Export {
    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the passes decided and refused.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What looks wrong in the model and does not stop it, and transposed convolutions that are left.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Names a transposed convolution whose form is not the one that was asked for, or not weighed.
fn open(form: Form, journal: &Journal) -> Option<String> {
    let is_open =
        |entry: &&Entry| entry.pass == "forms" && entry.decision.reason.starts_with("its extents are open");
    let mut entries = journal.applied().filter(is_open).filter(|_| form != Form::ZeroInsert);
    let first = entries.next()?;
    let rest = match entries.count() {
        0 => String::new(),
        more => format!("; so are {more} more"),
    };
    Some(format!(
        "node `{}` is written as a convolution over inserted zeros: {}; shapes for the inputs (--shape) may make them known{rest}",
        first.node, first.decision.reason
    ))
}

/// Names a transposed convolution that has no other form, and says why.
fn left(graph: &Graph, journal: &Journal) -> Option<String> {
    let mut nodes = vec![];
    collect(graph, &mut nodes);
    let first = nodes.first()?;
    let refused =
        journal.refused().find(|entry| entry.pass == "forms" && entry.node.ends_with(first.as_str()));
    let reason = refused.map_or(String::new(), |entry| format!(": {}", entry.decision.reason));
    let rest = match nodes.len() - 1 {
        0 => String::new(),
        more => format!("; {more} more stay as well"),
    };
    Some(format!("node `{first}` stays a ConvTranspose{reason}{rest}"))
}

fn collect(graph: &Graph, nodes: &mut Vec<String>) {
    for node in graph.nodes() {
        match &node.op {
            Op::ConvTranspose(_) => nodes.push(node.name.clone()),
            Op::Opaque(op) => {
                for graph in op.control().map(|control| control.graphs()).unwrap_or_default() {
                    collect(graph, nodes);
                }
            }
            _ => {}
        }
    }
}
