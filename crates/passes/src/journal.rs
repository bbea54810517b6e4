//! What the passes decided and refused, as plain data: reports, JSON and tests print the same values.

use crate::cost::Cost;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Outcome of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The rewrite was made.
    Applied,
    /// The pattern is there, and the guard said no.
    Refused,
}

/// One alternative that was weighed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// What it is, for example the name of a form.
    pub what: String,
    /// Its modelled cost, when it has one.
    pub cost: Option<Cost>,
    /// Why it is not possible here; `None` when it is.
    pub refused: Option<String>,
}

/// What a rewrite says about itself: what was chosen, from what, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// What it is about, where the node's name does not say enough: a geometry, for example.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What was done, in few words.
    pub chosen: String,
    /// The alternatives that were weighed; empty when there was only one.
    pub considered: Vec<Candidate>,
    /// Modelled cost of what was chosen, when it was weighed.
    pub cost: Option<Cost>,
    /// Why.
    pub reason: String,
    /// What the maker of the model may want to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Decision {
    /// The only one there was.
    pub fn only(chosen: impl Into<String>) -> Self {
        Self { chosen: chosen.into(), ..Self::default() }
    }

    /// Adds a reason; builder style.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

/// A decision or refusal at a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Name of the pass.
    pub pass: String,
    /// Name of the node where the pattern was found, as it was called before the rewrite.
    pub node: String,
    /// Operator of that node, as ONNX spells it.
    pub op: String,
    /// Made or refused.
    pub verdict: Verdict,
    /// What was decided; of a refusal, only the reason is set.
    #[serde(flatten)]
    pub decision: Decision,
}

/// Decisions in the order in which they were made, and the refusals that still stood when each pass last ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Journal {
    entries: Vec<Entry>,
    /// What is refused, by pass: node, operator and reason, so that one that is known is found at once.
    #[serde(skip)]
    refusals: HashMap<String, HashSet<[String; 3]>>,
}

impl Journal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything noted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The rewrites made.
    pub fn applied(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.verdict == Verdict::Applied)
    }

    /// The rewrites refused.
    pub fn refused(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.verdict == Verdict::Refused)
    }

    /// Notes a rewrite that was made.
    pub fn apply(&mut self, pass: &str, node: &str, op: &str, decision: Decision) {
        self.push(pass, node, op, Verdict::Applied, decision);
    }

    /// Notes a refusal. The same one twice is noted once.
    pub fn refuse(&mut self, pass: &str, node: &str, op: &str, reason: impl Into<String>) {
        self.push(pass, node, op, Verdict::Refused, Decision::default().because(reason));
    }

    /// Notes what another journal holds.
    pub fn note(&mut self, entry: Entry) {
        self.push(&entry.pass, &entry.node, &entry.op, entry.verdict, entry.decision);
    }

    fn push(&mut self, pass: &str, node: &str, op: &str, verdict: Verdict, decision: Decision) {
        let entry = Entry { pass: pass.into(), node: node.into(), op: op.into(), verdict, decision };
        let is_new = verdict == Verdict::Applied || {
            let refused = [entry.node.clone(), entry.op.clone(), entry.decision.reason.clone()];
            self.refusals.entry(entry.pass.clone()).or_default().insert(refused)
        };
        if is_new {
            self.entries.push(entry);
        }
    }

    /// Forgets what a pass refused: it is about to look again.
    pub fn forget_refusals(&mut self, pass: &str) {
        if self.refusals.remove(pass).is_none() {
            return;
        }
        self.entries.retain(|entry| entry.verdict == Verdict::Applied || entry.pass != pass);
    }
}

impl fmt::Display for Entry {
    /// `epilogue: conv1 (Conv): takes Relu in`, or `crop: up (ConvTranspose): refused: the slice has a step of 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}): ", self.pass, self.node, self.op)?;
        let Decision { subject, chosen, considered, cost, reason, advice: _ } = &self.decision;
        if self.verdict == Verdict::Refused {
            return write!(f, "refused: {reason}");
        }
        if !subject.is_empty() {
            write!(f, "{subject}: ")?;
        }
        f.write_str(chosen)?;
        if let Some(cost) = cost {
            write!(f, " [{cost}]")?;
        }
        if !reason.is_empty() {
            write!(f, ", because {reason}")?;
        }
        for candidate in considered.iter().filter(|candidate| candidate.what != *chosen) {
            write!(f, "; {candidate}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(cost) = &self.cost {
            write!(f, " [{cost}]")?;
        }
        if let Some(reason) = &self.refused {
            write!(f, " not possible: {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Journal {
    /// One entry a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}
