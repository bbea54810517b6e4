//! Predicted time of the three forms of a transposed convolution.
//!
//! Time is the larger of arithmetic (multiply-adds over the peak times the share of it that the kernel reaches) and traffic
//! (bytes over bandwidth). Constants are calibrated in `docs/cost-model.md`.

use super::machine::Machine;
use crate::options::Form;
use serde::Serialize;
use std::fmt;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};

/// Cost of one form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FormCost {
    /// The form.
    #[serde(serialize_with = "form_name")]
    pub form: Form,
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes of data, weights and result, and of what the form keeps in between.
    pub bytes: u64,
    /// Share of the peak that its inner loop is expected to reach.
    pub utilisation: f64,
    /// Predicted microseconds.
    pub predicted_us: f64,
}

fn form_name<S: serde::Serializer>(form: &Form, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(form.name())
}

impl fmt::Display for FormCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MACs, {} bytes, {:.1} us", self.macs, self.bytes, self.predicted_us)
    }
}

/// Costs of scatter, zero-insertion and sub-pixel, in this order.
pub fn form_costs(geometry: &DeconvGeometry, machine: &Machine) -> [FormCost; 3] {
    let channels = geometry.channels();
    let count = |shape: Vec<usize>| shape.into_iter().map(|extent| extent as u64).product::<u64>();
    let (input, output) = (count(geometry.input_shape()), count(geometry.output_shape()));
    let weights = count(geometry.weight_shape());
    let data = 4 * (input + output);
    let per_axis = |extent: fn(&DeconvAxis) -> usize| geometry.axes().iter().map(extent).product::<usize>();
    let innermost = geometry.axes().last().copied();

    // Lanes run along the width or along the channels, whichever fills them better.
    let filled = |n: usize| n as f64 / n.next_multiple_of(machine.lanes) as f64;
    let channel_lanes = filled(channels.output_per_group());
    let width_of = |stride: bool| {
        innermost.map_or(1, |axis| if stride { axis.output().div_ceil(axis.stride()) } else { axis.output() })
    };

    let scatter = {
        let macs = geometry.scatter_macs();
        let points = per_axis(DeconvAxis::input);
        let taps = per_axis(DeconvAxis::kernel) as u64;
        // One input position is a matrix-vector product, and taps that are cropped away are not computed.
        let vector = points == 1;
        let macs = if vector { geometry.phase_macs() } else { macs };
        // Every column is added to an output that is in the cache: read, add, write.
        let added = if vector {
            0
        } else {
            8 * count(geometry.input_shape()) / channels.input() as u64 * channels.output() as u64 * taps
        };
        let used = if vector { 4 * macs / channels.batch().max(1) as u64 } else { 4 * weights };
        let utilisation =
            0.85 * filled(points).max(filled(channels.output_per_group() * taps as usize).min(1.0));
        time(Form::Scatter, macs, data + used + added, utilisation, machine)
    };
    let zero_insertion = {
        let utilisation = 0.9 * filled(width_of(false)).max(channel_lanes);
        time(Form::ZeroInsert, geometry.zero_insertion_macs(), data + 4 * weights, utilisation, machine)
    };
    let sub_pixel = {
        let utilisation = 0.9 * filled(width_of(true)).max(channel_lanes);
        time(Form::SubPixel, geometry.phase_macs(), data + 4 * weights, utilisation, machine)
    };
    [scatter, zero_insertion, sub_pixel]
}

fn time(form: Form, macs: u64, bytes: u64, utilisation: f64, machine: &Machine) -> FormCost {
    let threads = machine.threads as f64;
    let arithmetic = macs as f64 / (machine.macs_per_ns * utilisation.max(0.01)) / threads;
    let traffic = bytes as f64 / machine.bytes_per_ns / threads.min(2.0);
    FormCost {
        form,
        macs,
        bytes,
        utilisation,
        predicted_us: (arithmetic.max(traffic) + machine.dispatch_ns) / 1e3,
    }
}
