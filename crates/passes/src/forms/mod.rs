//! The choice of a form for each transposed convolution, and its rewrite into the nodes that spell the form.

mod checkerboard;
mod scatter;
mod sub_pixel;
mod zero_insertion;

use crate::cost::{Cost, FormCost, Machine, form_costs};
use crate::error::Result;
use crate::journal::{Candidate, Decision};
use crate::matching::OrElsewhere;
use crate::options::{Form, Options};
use crate::pass::{About, Miss, Rewrite, Site};
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_ir::ops::{ConvTranspose, Padding};
use tconvc_ir::{Graph, NodeId, Op, ValueType};

/// Rewrites every transposed convolution whose extents are known into the cheapest form, or the one asked for.
///
/// - Pattern: `ConvTranspose`.
/// - Guard: all extents known.
/// - Cost: falls or stays: the definition counts as the dearest form that is considered.
pub struct ChooseForm;

/// What [`ChooseForm`] found at a node.
pub struct Found {
    op: ConvTranspose,
    geometry: DeconvGeometry,
    costs: [FormCost; 3],
    chosen: Form,
    reason: String,
}

impl Rewrite for ChooseForm {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "forms",
            summary: "rewrite each transposed convolution into scatter, zero-insertion or sub-pixel form",
            pattern: "ConvTranspose",
            claim: "the cheapest form by the cost model, or the one asked for",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Found> {
        let Op::ConvTranspose(op) = &graph.node(node).op else { return Err(Miss::Elsewhere) };
        let shape = |index: usize| {
            let ty = graph.ty(graph.node(node).input(index).or_elsewhere()?);
            let mut dims = ty.shape.clone();
            // Every form holds for any number of images.
            if let Some(batch) = dims.as_mut().and_then(|dims| dims.first_mut()).filter(|_| index == 0)
                && batch.known().is_none()
            {
                *batch = 1usize.into();
            }
            let known = ValueType { dtype: ty.dtype, shape: dims }.known_shape();
            known.ok_or_else(|| Miss::Refused(format!("extents are not all known: {ty}")))
        };
        let weights = shape(1)?;
        let known = shape(0);
        let geometry = match &known {
            Ok(data) => op.geometry(data, &weights).map_err(|error| Miss::Refused(error.to_string()))?,
            Err(_) if options.portable => for_any_extent(op, &weights)?,
            Err(_) => return Err(known.err().unwrap_or(Miss::Elsewhere)),
        };
        let costs = form_costs(&geometry, &options.machine);
        // Forms round in their own ways: which one it is must not depend on the number of threads.
        let alone = form_costs(&geometry, &Machine { threads: 1, ..options.machine });
        let (chosen, reason) = match known {
            Ok(_) => choose(&geometry, &alone, options),
            Err(_) => {
                (Form::ZeroInsert, "its extents are open, and the other forms are made for known ones".into())
            }
        };
        Ok(Found { op: op.clone(), geometry, costs, chosen, reason })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let advice = checkerboard::advice(&found.geometry, graph.constant_input(node, 1));
        match found.chosen {
            Form::Scatter => scatter::rewrite(graph, node, &found.geometry, &found.op)?,
            Form::ZeroInsert => zero_insertion::rewrite(graph, node, &found.geometry, &found.op)?,
            Form::SubPixel | Form::Auto => sub_pixel::rewrite(graph, node, &found.geometry, &found.op)?,
        }
        let cost = |form: &FormCost| Cost {
            macs: form.macs,
            bytes: form.bytes,
            predicted_us: Some(form.predicted_us),
        };
        let chosen = found.costs.iter().find(|form| form.form == found.chosen).map(cost);
        let considered = found.costs.iter().map(|form| Candidate {
            what: form.form.name().into(),
            cost: Some(cost(form)),
            refused: None,
        });
        Ok(Decision {
            subject: found.geometry.to_string(),
            chosen: found.chosen.name().into(),
            considered: considered.collect(),
            cost: chosen,
            reason: found.reason,
            advice,
        })
    }
}

/// A geometry that stands for every extent: the zero-insertion form of one is that of all.
fn for_any_extent(op: &ConvTranspose, weights: &[usize]) -> Site<DeconvGeometry> {
    let open = || Miss::Refused("extents are not all known, and its pads follow from them".into());
    let within = weights.len() > 2 && op.output_shape.is_empty();
    let (pads, steps) = match &op.padding {
        Padding::Explicit { begin, end } => (begin.iter().chain(end), op.dilations.iter().max().copied()),
        _ => ([].iter().chain(&[]), op.dilations.iter().max().copied()),
    };
    let reach = weights[2.min(weights.len())..].iter().max().copied().unwrap_or(1);
    let most = pads.map(|pad| pad.unsigned_abs() as usize).max().unwrap_or(0);
    let extent = reach.checked_mul(steps.unwrap_or(1)).and_then(|reach| reach.checked_add(2 * most + 2));
    let (true, Some(extent)) = (within, extent) else { return Err(open()) };
    let data: Vec<usize> = [1, weights[0]].into_iter().chain(weights[2..].iter().map(|_| extent)).collect();
    let geometry = op.geometry(&data, weights).map_err(|error| Miss::Refused(error.to_string()))?;
    // Of a short input more might be cropped than there is.
    if geometry.axes().iter().any(|axis| axis.insertion_pads().0.iter().any(|&pad| pad < 0)) {
        return Err(open());
    }
    Ok(geometry)
}

/// How much faster than a plain convolution scatter must be: predictions leave out that that may be filtered.
const FILTERED: f64 = 1.2;

/// The form to use, and why.
fn choose(geometry: &DeconvGeometry, costs: &[FormCost; 3], options: &Options) -> (Form, String) {
    if options.form != Form::Auto {
        return (options.form, "it was asked for".into());
    }
    if let Some(&measured) = options.measured.get(&geometry.to_string()) {
        return (measured, "it was measured to be the fastest".into());
    }
    if geometry.axes().iter().all(|axis| axis.stride() == 1)
        && geometry.axes().iter().any(|axis| axis.input() > 1)
    {
        let [scatter, insertion, _] = costs;
        if insertion.predicted_us <= FILTERED * scatter.predicted_us {
            return (
                Form::ZeroInsert,
                "with stride 1 there are no zeros to insert: it is a plain convolution".into(),
            );
        }
    }
    let [scatter, insertion, sub_pixel] = costs;
    let mut best = sub_pixel;
    for other in [scatter, insertion] {
        if other.predicted_us < best.predicted_us {
            best = other;
        }
    }
    let next = costs
        .iter()
        .filter(|cost| cost.form != best.form)
        .map(|cost| cost.predicted_us)
        .fold(f64::INFINITY, f64::min);
    let factor = next / best.predicted_us.max(1e-9);
    (best.form, format!("it is predicted {factor:.2} times as fast as the next"))
}
