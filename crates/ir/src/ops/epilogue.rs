//! What a convolution does with each sum before it stores it: activations, residual additions. Filled by a pass, never
//! by an import; the text form and the ONNX export spell it out.

use super::unary::Unary;
use crate::attributes::AttributeValue;
use crate::error::{Error, Result};

/// Steps applied in order to `sum + bias`. Steps with an operand take it from the node's inputs behind the bias, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Epilogue {
    /// The steps.
    pub steps: Vec<EpilogueStep>,
}

/// One step of an [`Epilogue`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EpilogueStep {
    /// An activation.
    Unary(Unary),
    /// `x < 0 ? slope * x : x`; the operand is the slope, constant, one number a channel (`[Cout, 1, ..]`) or one for all.
    PRelu,
    /// Adds the operand, of the output's shape.
    Add,
}

impl EpilogueStep {
    /// True when the step takes an operand from the node's inputs.
    pub fn has_operand(self) -> bool {
        matches!(self, Self::PRelu | Self::Add)
    }
}

impl Epilogue {
    /// True when sums are stored as they are.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        self.steps.iter().filter(|step| step.has_operand()).count()
    }

    /// As an attribute: a list such as `["LeakyRelu(0.1)", "Add"]`.
    pub fn to_attribute(&self) -> AttributeValue {
        let spell = |step: &EpilogueStep| match step {
            EpilogueStep::Unary(unary) => unary.spell(),
            EpilogueStep::PRelu => "PRelu".into(),
            EpilogueStep::Add => "Add".into(),
        };
        AttributeValue::Strings(self.steps.iter().map(spell).collect())
    }

    /// From the form of [`Epilogue::to_attribute`].
    ///
    /// # Errors
    /// When a step is not known.
    pub fn from_strings(steps: &[String]) -> Result<Self> {
        let parse = |text: &String| match text.as_str() {
            "PRelu" => Ok(EpilogueStep::PRelu),
            "Add" => Ok(EpilogueStep::Add),
            _ => Unary::parse(text).map(EpilogueStep::Unary).ok_or_else(|| {
                Error::attribute(
                    "epilogue",
                    format!("`{text}` is no step; accepted: PRelu, Add and the unary operators"),
                )
            }),
        };
        Ok(Self { steps: steps.iter().map(parse).collect::<Result<_>>()? })
    }
}
