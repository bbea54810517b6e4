//! The choice of a form for each transposed convolution, and its rewrite into the nodes that spell the form.

mod scatter;
mod sub_pixel;
mod zero_insertion;

use crate::cost::{Cost, FormCost, form_costs};
use crate::error::Result;
use crate::journal::{Candidate, Decision};
use crate::matching::OrElsewhere;
use crate::options::{Form, Options};
use crate::pass::{About, Miss, Rewrite, Site};
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};
use tconvc_ir::ops::ConvTranspose;
use tconvc_ir::{Graph, NodeId, Op, Tensor};

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
            ty.known_shape().ok_or_else(|| Miss::Refused(format!("extents are not all known: {ty}")))
        };
        let geometry =
            op.geometry(&shape(0)?, &shape(1)?).map_err(|error| Miss::Refused(error.to_string()))?;
        let costs = form_costs(&geometry, &options.machine);
        let (chosen, reason) = choose(&geometry, &costs, options.form);
        Ok(Found { op: op.clone(), geometry, costs, chosen, reason })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let even = graph.constant_input(node, 1).is_some_and(|weights| is_even(weights, &found.geometry));
        let advice = checkerboard(&found.geometry).filter(|_| !even);
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

/// The form to use, and why.
fn choose(geometry: &DeconvGeometry, costs: &[FormCost; 3], asked: Form) -> (Form, String) {
    if asked != Form::Auto {
        return (asked, "it was asked for".into());
    }
    if geometry.axes().iter().all(|axis| axis.stride() == 1)
        && geometry.axes().iter().any(|axis| axis.input() > 1)
    {
        let [scatter, insertion, _] = costs;
        if insertion.predicted_us <= scatter.predicted_us {
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

/// Whether weights make a constant input a constant output, whatever the number of taps of each phase: an interpolation, or one
/// that a convolution behind it was joined with.
fn is_even(weights: &Tensor, geometry: &DeconvGeometry) -> bool {
    let Ok(values) = weights.to_f64s() else { return false };
    let axes = geometry.axes();
    let taps: usize = axes.iter().map(DeconvAxis::kernel).product();
    let phases: usize = axes.iter().map(DeconvAxis::stride).product();
    values.chunks_exact(taps.max(1)).all(|kernel| {
        let mut sums = vec![0.0; phases];
        for (tap, value) in kernel.iter().enumerate() {
            // The phase of a tap, row-major over the axes like the tap itself.
            let (mut rest, mut phase, mut place) = (tap, 0, 1);
            for axis in axes.iter().rev() {
                phase += rest % axis.kernel() * axis.dilation() % axis.stride() * place;
                (rest, place) = (rest / axis.kernel(), place * axis.stride());
            }
            sums[phase] += value;
        }
        let largest = kernel.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        sums.iter().all(|sum| (sum - sums[0]).abs() <= 1e-5 * largest)
    })
}

/// A warning when neighbouring outputs are reached by different numbers of taps.
fn checkerboard(geometry: &DeconvGeometry) -> Option<String> {
    let uneven = geometry.axes().iter().find(|axis| {
        !axis.kernel().is_multiple_of(axis.stride()) || axis.dilation() > 1 && axis.stride() > 1
    })?;
    let (kernel, stride) = (uneven.kernel(), uneven.stride());
    let mut counts: Vec<usize> = (0..stride)
        .map(|residue| (0..kernel).filter(|tap| tap * uneven.dilation() % stride == residue).count())
        .collect();
    counts.sort_unstable();
    let (least, most) = (counts.first()?, counts.last()?);
    (least != most).then(|| {
        format!(
            "a kernel of {kernel} at stride {stride} covers outputs by {least} to {most} taps in turn, which shows as a pattern; \
             take a kernel that is a multiple of the stride, or Resize (nearest or linear) and then Conv"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::Channels;

    #[test]
    fn even_weights_make_constants_of_constants() {
        let axis = |kernel, stride| DeconvAxis::new(4, kernel, stride, 1, [0, 0]).unwrap();
        let even = |values: Vec<f32>, axes: Vec<DeconvAxis>| {
            let shape: Vec<usize> = [1, 1].into_iter().chain(axes.iter().map(DeconvAxis::kernel)).collect();
            let geometry = DeconvGeometry::new(Channels::new(1, 1, 1, 1).unwrap(), axes).unwrap();
            is_even(&Tensor::from_vec(shape, values).unwrap(), &geometry)
        };
        // Linear interpolation, and 1 2 3 behind copies.
        assert!(even(vec![0.5, 1.0, 0.5], vec![axis(3, 2)]));
        assert!(even(vec![3.0, 5.0, 6.0, 3.0, 1.0], vec![axis(5, 3)]));
        assert!(!even(vec![1.0, 1.0, 1.0], vec![axis(3, 2)]));
        // Along two axes, and a kernel whose phases differ along one of them.
        let linear = [0.5, 1.0, 0.5];
        let product = linear.iter().flat_map(|a| linear.map(|b| a * b)).collect();
        assert!(even(product, vec![axis(3, 2), axis(3, 2)]));
        assert!(!even(vec![0.5, 0.5, 1.0, 1.0, 0.5, 0.4], vec![axis(3, 2), axis(2, 2)]));
    }
}
