//! Old spellings: what operators of older opsets have to be changed into to mean the same in opset 21. Every change since
//! opset 7 is here, and of those before it the ones that converters of the time produced.
//!
//! A rule holds for nodes of an opset before the one it names; several may apply to one node, one after the other. An
//! operator without a rule has been spelled the same way all along, or has only gained types and optional parts.

use super::lift::{Lift, read_op};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// The spelling of these operators changed with opset `before`.
struct Rule {
    operators: &'static [&'static str],
    before: i64,
    change: Change,
}

/// What makes an old spelling a newer one.
enum Change {
    /// Lists of integers that were attributes became inputs at these positions.
    ToInputs(&'static [(&'static str, usize)]),
    /// Attributes that nothing depends on any more.
    Remove(&'static [&'static str]),
    /// An absent attribute meant this.
    DefaultInt(&'static str, i64),
    /// An absent attribute meant this.
    DefaultText(&'static str, &'static str),
    /// Only the name changed.
    Rename(&'static str),
    /// No longer to be expressed; accepted is a newer opset.
    Refuse,
    /// Something else.
    By(fn(&mut Lift<'_>) -> Result<()>),
}

const fn rule(operators: &'static [&'static str], before: i64, change: Change) -> Rule {
    Rule { operators, before, change }
}

/// Elementwise operators of two inputs.
const BINARY: &[&str] = &["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"];

/// Reductions that got their axes as an input together.
const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

const RULES: &[Rule] = &[
    rule(BINARY, 7, Change::By(broadcast)),
    // Told inference from training, which is told by the outputs.
    rule(&["BatchNormalization"], 7, Change::By(is_test)),
    rule(&["Dropout"], 7, Change::Remove(&["is_test"])),
    rule(&["BatchNormalization"], 14, Change::By(batch_normalization)),
    rule(&["Clip"], 11, Change::By(clip)),
    rule(&["Concat"], 4, Change::DefaultInt("axis", 1)),
    rule(&["DFT"], 20, Change::By(dft)),
    rule(&["Dropout"], 10, Change::By(dropout_mask)),
    rule(&["Dropout"], 12, Change::By(dropout)),
    // `C` is broadcast without being told.
    rule(&["Gemm"], 7, Change::Remove(&["broadcast"])),
    rule(&["GridSample"], 20, Change::By(grid_sample)),
    rule(&["GroupNormalization"], 21, Change::By(group_normalization)),
    rule(&["Pad"], 11, Change::By(pad)),
    rule(&["PRelu"], 7, Change::By(prelu)),
    rule(&["ReduceSum", "Squeeze", "Unsqueeze"], 13, Change::ToInputs(&[("axes", 1)])),
    rule(REDUCTIONS, 18, Change::ToInputs(&[("axes", 1)])),
    rule(&["Resize"], 11, Change::By(resize)),
    rule(&["RoiAlign"], 16, Change::DefaultText("coordinate_transformation_mode", "output_half_pixel")),
    rule(&["Scan"], 9, Change::Refuse),
    rule(&["Scatter"], 11, Change::Rename("ScatterElements")),
    rule(&["Slice"], 10, Change::ToInputs(&[("starts", 1), ("ends", 2), ("axes", 3)])),
    rule(&["Softmax", "LogSoftmax", "Hardmax"], 13, Change::By(softmax)),
    rule(&["Split"], 13, Change::ToInputs(&[("split", 1)])),
    rule(&["Split"], 18, Change::By(split)),
    rule(&["Tile"], 6, Change::Refuse),
    rule(&["TopK"], 10, Change::By(top_k)),
    rule(&["Upsample"], 10, Change::By(upsample)),
];

/// Rules that ask for ranks hold before this opset.
pub(super) const RANKS_BEFORE: i64 = 13;

/// Lifts a node of that opset to the canonical one.
pub(super) fn upgrade(lift: &mut Lift<'_>, opset: i64) -> Result<()> {
    if opset < 6 {
        // A hint on memory that every operator could have.
        lift.node.attributes.take("consumed_inputs");
    }
    for rule in RULES {
        if opset < rule.before && rule.operators.contains(&lift.node.op_type.as_str()) {
            rule.apply(lift)?;
        }
    }
    Ok(())
}

/// True when the operator means something else, or nothing, in the canonical opset.
pub(in super::super) fn changed_since(op_type: &str, opset: i64) -> bool {
    RULES.iter().any(|rule| opset < rule.before && rule.operators.contains(&op_type))
}

impl Rule {
    fn apply(&self, lift: &mut Lift<'_>) -> Result<()> {
        match self.change {
            Change::ToInputs(attributes) => {
                for &(name, index) in attributes {
                    if let Some(values) = lift.node.attributes.ints(name)? {
                        let value = lift.constant(name, Tensor::from_i64s(&values));
                        lift.set_input(index, Some(value));
                    }
                }
            }
            Change::Remove(names) => {
                for name in names {
                    lift.node.attributes.take(name);
                }
            }
            Change::DefaultInt(name, value) => {
                if !lift.node.attributes.contains(name) {
                    lift.node.attributes.set(name, value);
                }
            }
            Change::DefaultText(name, value) => {
                if !lift.node.attributes.contains(name) {
                    lift.node.attributes.set(name, value);
                }
            }
            Change::Rename(name) => name.clone_into(&mut lift.node.op_type),
            Change::Refuse => {
                return Err(Error::Unsupported(format!(
                    "the operator as it was before opset {0}; accepted is opset {0} and later",
                    self.before
                )));
            }
            Change::By(change) => change(lift)?,
        }
        Ok(())
    }
}

/// `B` was aligned with the end of `A`, or with the axes from `axis` on.
fn broadcast(lift: &mut Lift<'_>) -> Result<()> {
    lift.node.attributes.take("broadcast");
    if let Some(axis) = lift.node.attributes.int("axis")? {
        let unknown = || Error::attribute("axis", "the rank of an input has to be known to follow it");
        let a = lift.rank(0).ok_or_else(unknown)?;
        let b = lift.rank(1).ok_or_else(unknown)?;
        let axis = if axis < 0 { axis + a } else { axis };
        let behind = a.checked_sub(axis).and_then(|rest| rest.checked_sub(b)).filter(|&behind| behind >= 0);
        let behind = behind.ok_or_else(|| {
            Error::attribute("axis", format!("{axis} does not fit inputs of rank {a} and {b}"))
        })?;
        lift.unsqueeze_end(1, b, behind)?;
    }
    Ok(())
}

/// Slopes were a list, one a channel.
fn prelu(lift: &mut Lift<'_>) -> Result<()> {
    if lift.constant_input(1).is_some_and(|slope| slope.len() == 1) {
        return Ok(());
    }
    let rank =
        lift.rank(0).ok_or_else(|| Error::input(0, "X", "its rank has to be known to place the slopes"))?;
    lift.unsqueeze_end(1, 1, rank - 2)
}

/// With `is_test`, further outputs say nothing.
fn is_test(lift: &mut Lift<'_>) -> Result<()> {
    if lift.node.attributes.flag("is_test", false)? {
        while lift.node.outputs.len() > 1 && !lift.output_used(lift.node.outputs.len() - 1) {
            lift.node.outputs.pop();
        }
    }
    Ok(())
}

/// More outputs than one said that it is training, read or not: two running statistics, and the batch's own, which now are those
/// that have run for no time at all. `spatial` (opset 7) chose statistics an element.
fn batch_normalization(lift: &mut Lift<'_>) -> Result<()> {
    if !lift.node.attributes.flag("spatial", true)? {
        return Err(Error::attribute("spatial", "0 (statistics an element) is not supported, accepted is 1"));
    }
    while lift.node.outputs.last().is_some_and(Option::is_none) {
        lift.node.outputs.pop();
    }
    if lift.node.outputs.len() < 2 {
        return Ok(());
    }
    lift.node.attributes.set("training_mode", true);
    let saved: Vec<bool> = (3..5).map(|index| lift.output_used(index)).collect();
    let own = lift.node.outputs.split_off(lift.node.outputs.len().min(3));
    if saved.contains(&true) {
        let mut attributes = lift.node.attributes.clone();
        attributes.set("momentum", 0.0f32);
        let name = format!("{}.saved", lift.node.name);
        let unread = lift.graph.fresh_name(&format!("{name}.y"));
        let y = lift.graph.add_undefined(&unread, ValueType::default())?;
        let mut outputs = vec![Some(y)];
        outputs.extend(own.into_iter().take(2));
        let op = read_op("BatchNormalization", attributes)?;
        lift.graph.add_node_defining(&name, op, &lift.node.inputs.clone(), &outputs)?;
    }
    Ok(())
}

/// Bounds were attributes, with the largest finite numbers as default.
fn clip(lift: &mut Lift<'_>) -> Result<()> {
    let min = lift.node.attributes.float("min")?.unwrap_or(f32::MIN);
    let max = lift.node.attributes.float("max")?.unwrap_or(f32::MAX);
    "Clamp".clone_into(&mut lift.node.op_type);
    lift.node.attributes.set("min", min);
    lift.node.attributes.set("max", max);
    Ok(())
}

/// The axis was an attribute, 1 by default.
fn dft(lift: &mut Lift<'_>) -> Result<()> {
    let axis = lift.node.attributes.int("axis")?.unwrap_or(1);
    let axis = lift.constant("axis", Tensor::scalar(axis));
    lift.set_input(2, Some(axis));
    Ok(())
}

/// The mask was not boolean.
fn dropout_mask(lift: &mut Lift<'_>) -> Result<()> {
    if lift.output_used(1) {
        return Err(Error::Unsupported(
            "the mask of Dropout as it was before opset 10; accepted is the first output".into(),
        ));
    }
    lift.node.outputs.truncate(1);
    Ok(())
}

/// The ratio was an attribute.
fn dropout(lift: &mut Lift<'_>) -> Result<()> {
    if let Some(ratio) = lift.node.attributes.float("ratio")? {
        let ratio = lift.constant("ratio", Tensor::scalar(ratio));
        lift.set_input(1, Some(ratio));
    }
    Ok(())
}

/// Two modes had other names.
fn grid_sample(lift: &mut Lift<'_>) -> Result<()> {
    if let Some(mode) = lift.node.attributes.string("mode")? {
        let mode = match mode.as_str() {
            "bilinear" => "linear",
            "bicubic" => "cubic",
            other => other,
        };
        lift.node.attributes.set("mode", mode);
    }
    Ok(())
}

/// Scale and bias had a number a group: an instance normalization with the groups as channels.
fn group_normalization(lift: &mut Lift<'_>) -> Result<()> {
    let groups = lift.node.attributes.int("num_groups")?;
    let groups = groups.ok_or_else(|| Error::attribute("num_groups", "is missing, expected a number"))?;
    let (x, scale, bias) = (lift.input(0), lift.input(1), lift.input(2));
    let shape = lift.emit("Shape", Attributes::new(), &[x])?;
    let grouped = lift.constant("grouped", Tensor::from_i64s(&[0, groups, -1]));
    let grouped = lift.emit("Reshape", Attributes::new(), &[x, Some(grouped)])?;
    let mut attributes = Attributes::new();
    if let Some(epsilon) = lift.node.attributes.float("epsilon")? {
        attributes.set("epsilon", epsilon);
    }
    let normal = lift.emit("InstanceNormalization", attributes, &[Some(grouped), scale, bias])?;
    "Reshape".clone_into(&mut lift.node.op_type);
    lift.node.inputs = vec![Some(normal), Some(shape)];
    Ok(())
}

/// Pads and the value to pad with were attributes.
fn pad(lift: &mut Lift<'_>) -> Result<()> {
    if let Some(pads) = lift.node.attributes.ints("pads")? {
        let pads = lift.constant("pads", Tensor::from_i64s(&pads));
        lift.set_input(1, Some(pads));
    }
    if let Some(value) = lift.node.attributes.float("value")?
        && value != 0.0
    {
        let value = lift.constant("value", Tensor::scalar(value));
        lift.set_input(2, Some(value));
    }
    Ok(())
}

/// Inputs were data and scales; positions were those of `asymmetric`, rounded down.
fn resize(lift: &mut Lift<'_>) -> Result<()> {
    let scales = lift.input(1);
    lift.node.inputs = vec![lift.input(0), None, scales];
    for (name, value) in [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")] {
        if lift.node.attributes.contains(name) {
            return Err(Error::attribute(name, "belongs to opset 11 and later"));
        }
        lift.node.attributes.set(name, value);
    }
    Ok(())
}

/// As `Resize` of opset 10; before opset 9 the scales were an attribute.
fn upsample(lift: &mut Lift<'_>) -> Result<()> {
    if let Some(scales) = lift.node.attributes.floats("scales")? {
        let scales = lift.constant("scales", Tensor::from_vec([scales.len()], scales)?);
        lift.set_input(1, Some(scales));
    }
    "Resize".clone_into(&mut lift.node.op_type);
    resize(lift)
}

/// Ran over all axes from `axis` (1 by default) to the last, as over one.
fn softmax(lift: &mut Lift<'_>) -> Result<()> {
    let axis = lift.node.attributes.int("axis")?.unwrap_or(1);
    if axis != -1 && lift.rank(0).is_none_or(|rank| axis != rank - 1) {
        lift.node.attributes.set("axis", axis);
        lift.node.attributes.set("flatten", true);
    }
    Ok(())
}

/// Without sizes, the number of outputs said how many parts there are.
fn split(lift: &mut Lift<'_>) -> Result<()> {
    if lift.input(1).is_none() {
        let outputs = i64::try_from(lift.node.outputs.len())
            .map_err(|_| Error::Size("more outputs than can be counted".into()))?;
        lift.node.attributes.set("num_outputs", outputs);
    }
    Ok(())
}

/// The number of elements was an attribute.
fn top_k(lift: &mut Lift<'_>) -> Result<()> {
    if let Some(k) = lift.node.attributes.int("k")? {
        let k = lift.constant("k", Tensor::from_i64s(&[k]));
        lift.set_input(1, Some(k));
    }
    Ok(())
}
