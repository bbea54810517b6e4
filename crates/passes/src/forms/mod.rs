//! The choice of a form for each transposed convolution, and its rewrite into the nodes that spell the form.

mod checkerboard;
mod scatter;
mod sub_pixel;
mod zero_insertion;

use crate::cost::{Cost, FormCost, form_costs};
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
        let [costs, alone] = form_costs(&geometry, &options.machine, &*options.algorithms);
        let (chosen, reason) = match known {
            Ok(_) => choose(&geometry, [&costs, &alone], options),
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
            cost: form.refused.is_none().then(|| cost(form)),
            refused: form.refused.clone(),
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

/// The form to use, and why, from the costs on the threads asked for and on one.
///
/// Forms round in their own ways, and results must not depend on the number of threads: so one thread decides. What is said
/// about it is said of the costs on the threads asked for, which are the ones that are shown.
fn choose(
    geometry: &DeconvGeometry,
    [costs, alone]: [&[FormCost; 3]; 2],
    options: &Options,
) -> (Form, String) {
    if options.form != Form::Auto {
        return (options.form, "it was asked for".into());
    }
    if let Some(&measured) = options.measured.get(&geometry.to_string()) {
        return (measured, "it was measured to be the fastest".into());
    }
    let [scatter, insertion, _] = alone;
    if geometry.axes().iter().all(|axis| axis.stride() == 1)
        && geometry.axes().iter().any(|axis| axis.input() > 1)
        && insertion.refused.is_none()
        && insertion.predicted_us <= scatter.predicted_us
    {
        return (
            Form::ZeroInsert,
            "with stride 1 there are no zeros to insert: it is a plain convolution".into(),
        );
    }
    let chosen = best(alone).form;
    let fastest = best(costs).form;
    let reason = match factor_of(costs, chosen) {
        f64::INFINITY => "there is no kernel for the others".into(),
        factor if fastest == chosen || factor >= 1.0 => {
            format!("it is predicted {factor:.2} times as fast as the next")
        }
        factor => format!(
            "one thread decides, lest results depend on their number, and on one it is predicted {:.2} times as fast as \
             the next; on {} threads {fastest} would be {:.2} times as fast",
            factor_of(alone, chosen),
            options.machine.threads,
            1.0 / factor
        ),
    };
    (chosen, reason)
}

/// How many times as long as one form the best of the others takes.
fn factor_of(costs: &[FormCost; 3], form: Form) -> f64 {
    let us = |is_it: bool| {
        let those = costs.iter().filter(|cost| (cost.form == form) == is_it);
        those.map(|cost| cost.predicted_us).fold(f64::INFINITY, f64::min)
    };
    us(false) / us(true).max(1e-9)
}

/// The cheapest; of those that are even, sub-pixel and then scatter.
fn best(costs: &[FormCost; 3]) -> &FormCost {
    let [scatter, insertion, sub_pixel] = costs;
    [scatter, insertion]
        .into_iter()
        .fold(sub_pixel, |best, other| if other.predicted_us < best.predicted_us { other } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{AlgorithmCost, AlgorithmCosts, Machine};
    use std::sync::Arc;
    use tconvc_ir::geometry::{Channels, DeconvAxis};

    /// Scatter is busy for 50 us in one piece, sub-pixel for 60 in any number; there is no kernel for the other form.
    #[derive(Debug)]
    struct Made;

    impl AlgorithmCosts for Made {
        fn cost(&self, _: &DeconvGeometry, form: Form, _: usize) -> Result<AlgorithmCost, String> {
            let (busy_ns, parts) = match form {
                Form::Scatter => (50e3, 1),
                Form::ZeroInsert => return Err("too wide".into()),
                _ => (60e3, usize::MAX),
            };
            Ok(AlgorithmCost { name: "made".into(), busy_ns, moved_bytes: 0, parts })
        }
    }

    fn chosen(stride: usize, threads: usize) -> (Form, String) {
        let axis = DeconvAxis::new(8, 4, stride, 1, [0, 0]).unwrap();
        let geometry = DeconvGeometry::new(Channels::new(1, 3, 5, 1).unwrap(), vec![axis]).unwrap();
        let machine = Machine { threads, ..Machine::default() };
        let options = Options { machine, algorithms: Arc::new(Made), ..Options::default() };
        let [costs, alone] = form_costs(&geometry, &options.machine, &*options.algorithms);
        choose(&geometry, [&costs, &alone], &options)
    }

    #[test]
    fn one_thread_decides_and_costs_of_all_are_told() {
        let said = (Form::Scatter, "it is predicted 1.20 times as fast as the next".to_owned());
        assert_eq!(chosen(2, 1), said);
        let (form, reason) = chosen(2, 4);
        assert_eq!(form, Form::Scatter);
        assert!(reason.contains("on one it is predicted 1.20 times as fast"), "{reason}");
        assert!(reason.ends_with("on 4 threads sub-pixel would be 3.29 times as fast"), "{reason}");
    }

    #[test]
    fn a_form_without_a_kernel_is_not_taken() {
        // Not even with stride 1, where it would be a plain convolution.
        assert_eq!(chosen(1, 1).0, Form::Scatter);
    }
}
