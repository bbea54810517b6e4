//! Convolutions of both kinds with what they have more than ONNX's: epilogues and signed pads.

use super::chain::Chain;
use super::elementwise;
use super::take_ints;
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{Epilogue, EpilogueStep};

/// `Conv`; where a pad is negative, that is a crop of the input.
pub(super) fn conv(mut chain: Chain<'_, '_>, mut attributes: Attributes, epilogue: &Epilogue) -> Result<()> {
    attributes.take("epilogue");
    attributes.take("exact");
    let (w, b) = (chain.input(1), chain.input(2));
    main(&mut chain, attributes, &present(&[w, b]));
    finish(chain, epilogue, 3)
}

/// Adds the `Conv`, and a crop of its input in front where pads are negative.
pub(super) fn main(chain: &mut Chain<'_, '_>, mut attributes: Attributes, further: &[String]) {
    let pads = take_ints(&mut attributes, "pads");
    if !pads.is_empty() {
        let (begin, end) = pads.split_at(pads.len() / 2);
        let crops = |pads: &[i64]| pads.iter().map(|&pad| pad.min(0)).collect::<Vec<_>>();
        chain.pad(&crops(begin), &crops(end));
        attributes.set("pads", pads.iter().map(|&pad| pad.max(0)).collect::<Vec<_>>());
    }
    chain.main("Conv", attributes, further);
}

/// `ConvTranspose`. What the output reaches past every tap is output padding where runtimes take it, else zeros that are
/// appended before the bias is added.
pub(super) fn conv_transpose(
    mut chain: Chain<'_, '_>,
    mut attributes: Attributes,
    epilogue: &Epilogue,
) -> Result<()> {
    attributes.take("epilogue");
    let (w, b) = (chain.input(1), chain.input(2));
    let pads = take_ints(&mut attributes, "pads");
    if pads.iter().all(|&pad| pad >= 0) {
        if !pads.is_empty() {
            attributes.set("pads", pads);
        }
        chain.main("ConvTranspose", attributes, &present(&[w, b]));
        return finish(chain, epilogue, 3);
    }
    let axes = pads.len() / 2;
    let per_axis =
        |values: Vec<i64>, default| if values.len() == axes { values } else { vec![default; axes] };
    let strides = per_axis(take_ints(&mut attributes, "strides"), 1);
    let mut extra = per_axis(take_ints(&mut attributes, "output_padding"), 0);
    let (mut begin, mut end) = (pads[..axes].to_vec(), pads[axes..].to_vec());
    let (mut before, mut behind) = (vec![0; axes], vec![0; axes]);
    for i in 0..axes {
        let reach = extra[i] - end[i];
        if begin[i] >= 0 && reach < strides[i] {
            (end[i], extra[i]) = ((-reach).max(0), reach.max(0));
        } else {
            // Of this axis all pads come later: with the crops alone nothing might be left.
            (before[i], behind[i]) = (-begin[i], reach);
            (begin[i], end[i], extra[i]) = (0, 0, 0);
        }
    }
    attributes.set("strides", strides);
    attributes.set("pads", [begin, end].concat());
    if extra.iter().any(|&extra| extra > 0) {
        attributes.set("output_padding", extra);
    }
    if before.iter().chain(&behind).all(|&pad| pad == 0) {
        chain.main("ConvTranspose", attributes, &present(&[w, b]));
    } else {
        chain.main("ConvTranspose", attributes, &[w]);
        chain.pad(&before, &behind);
        chain.bias(2, axes)?;
    }
    finish(chain, epilogue, 3)
}

/// Inputs without the absent ones at the end.
fn present(inputs: &[String]) -> Vec<String> {
    inputs.iter().filter(|name| !name.is_empty()).cloned().collect()
}

/// Adds the steps of an epilogue, whose operands start at that input, and ends the chain.
pub(super) fn finish(mut chain: Chain<'_, '_>, epilogue: &Epilogue, first: usize) -> Result<()> {
    let dtype = chain.ty(0).dtype.unwrap_or(DType::F32);
    let mut operand = first;
    for step in &epilogue.steps {
        match step {
            EpilogueStep::Unary(unary) => elementwise::apply(&mut chain, *unary, dtype, false)?,
            EpilogueStep::PRelu | EpilogueStep::Add => {
                let value = chain.input(operand);
                if value.is_empty() {
                    return Err(Error::input(operand, "epilogue operand", "is required by the epilogue"));
                }
                operand += 1;
                chain.then(
                    if *step == EpilogueStep::Add { "Add" } else { "PRelu" },
                    Attributes::new(),
                    &[value],
                );
            }
        }
    }
    chain.end();
    Ok(())
}

impl Chain<'_, '_> {
    /// Pads spatial axes with zeros; negative pads crop. Crops come last: they may take more than there was.
    pub fn pad(&mut self, begin: &[i64], end: &[i64]) {
        if begin.iter().chain(end).any(|&pad| pad > 0) {
            let side = |pads: &[i64]| [0, 0].into_iter().chain(pads.iter().map(|&pad| pad.max(0))).collect();
            let pads: Vec<Vec<i64>> = vec![side(begin), side(end)];
            let pads = self.ints("pads", &pads.concat());
            self.then("Pad", Attributes::new(), &[pads]);
        }
        let axes: Vec<usize> = (0..begin.len()).filter(|&i| begin[i] < 0 || end[i] < 0).collect();
        if !axes.is_empty() {
            let starts: Vec<i64> = axes.iter().map(|&i| (-begin[i]).max(0)).collect();
            let ends: Vec<i64> = axes.iter().map(|&i| if end[i] < 0 { end[i] } else { i64::MAX }).collect();
            let axes: Vec<i64> = axes.iter().map(|&i| i as i64 + 2).collect();
            let inputs = [self.ints("starts", &starts), self.ints("ends", &ends), self.ints("axes", &axes)];
            self.then("Slice", Attributes::new(), &inputs);
        }
    }

    /// Adds the bias, one number a channel, that stands at an input; nothing when it is absent.
    pub fn bias(&mut self, index: usize, axes: usize) -> Result<()> {
        let bias = match self.constant_input(index) {
            Some(bias) => {
                let mut shape = vec![bias.len()];
                shape.resize(axes + 1, 1);
                self.constant("bias", &bias.reshaped(shape)?)
            }
            None if self.node.input(index).is_none() => return Ok(()),
            None => {
                let behind: Vec<i64> = (1..=axes as i64).collect();
                let inputs = [self.input(index), self.ints("axes", &behind)];
                self.aside("Unsqueeze", Attributes::new(), &inputs)
            }
        };
        self.then("Add", Attributes::new(), &[bias]);
        Ok(())
    }
}
