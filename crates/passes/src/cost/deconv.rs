//! Predicted time of the three forms of a transposed convolution.
//!
//! Time is the larger of arithmetic (multiply-adds over the peak times the share of it that the kernel reaches) with what goes on
//! beside it, and traffic (bytes over bandwidth). Constants are calibrated in `docs/cost-model.md`.

use super::machine::Machine;
use super::scatter::{ScatterTiling, all_taps};
use crate::options::Form;
use serde::Serialize;
use std::fmt;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry, Phase};

/// Cost of one form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FormCost {
    /// The form.
    pub form: Form,
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes of data, weights and result, and of what the form keeps in between.
    pub bytes: u64,
    /// Share of the peak that it is expected to reach: its inner loop, or with calls and additions where it is scatter.
    pub utilisation: f64,
    /// Predicted microseconds.
    pub predicted_us: f64,
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
    let (input, output) = (4 * count(geometry.input_shape()), 4 * count(geometry.output_shape()));
    let pairs = (channels.input() * channels.output_per_group()) as u64;
    let per_axis =
        |of: &dyn Fn(&DeconvAxis) -> usize| geometry.axes().iter().map(of).product::<usize>() as u64;
    let points = per_axis(&DeconvAxis::input);
    let batch = channels.batch() as u64;

    // Lanes run along the width or along the channels, whichever fills them better.
    let filled = |n: u64| n as f64 / n.next_multiple_of(machine.lanes as u64).max(1) as f64;
    let channel_lanes = filled(channels.output_per_group() as u64);
    let width = geometry.axes().last().map_or(1, |axis| axis.output() as u64);
    let steps = geometry.axes().last().map_or(1, |axis| axis.output().div_ceil(axis.stride()) as u64);

    let scatter = {
        let taps = all_taps(geometry) as u64;
        // Every patch is added to an output that is near: read, add, write.
        let added = product([8, batch, points, channels.output() as u64, taps]);
        let macs = product([batch, points, pairs, taps]);
        let lanes = machine.lanes.max(1);
        let (_, cycles) = ScatterTiling::choose(geometry, lanes);
        Work {
            form: Form::Scatter,
            macs,
            bytes: product([4, pairs, taps]).saturating_add(input + output),
            // The patch of a lone pixel is the output.
            moved: if points == 1 { 0 } else { added },
            beside_ns: 0.0,
            // A unit of work is of some output channels of a group, and of a band that is not mostly overlap.
            threads: (batch as usize * channels.groups())
                .saturating_mul(channels.output_per_group().min(4))
                .saturating_mul(bands(geometry)),
            utilisation: macs as f64 / (2.0 * lanes as f64 * cycles.max(1.0)),
        }
    };
    let outer: u64 = geometry.axes().iter().rev().skip(1).map(|axis| axis.input() as u64).product();
    // Planes of a volume are packed for each of the planes that read them.
    let planes = match geometry.axes() {
        [z, _, _] => {
            let taps = z.phases().into_iter().flat_map(|phase| phase.taps);
            let shifts: Vec<i64> = taps.map(|tap| tap.shift).collect();
            let (low, high) = (shifts.iter().min(), shifts.iter().max());
            low.zip(high).map_or(1, |(low, high)| high.abs_diff(*low) + 1)
        }
        _ => 1,
    };
    // Rows at the edges of windows are packed twice.
    let packed = (input + input / 2).saturating_mul(planes);
    let is_near = 4 * points / outer.max(1) >= LONG_ROW_BYTES || input <= NEAR_BYTES;
    let packing_ns = packed as f64 / (PACKED_BYTES_PER_NS * if is_near { 2.0 } else { 1.0 });
    let zero_insertion = Work {
        form: Form::ZeroInsert,
        macs: geometry.zero_insertion_macs(),
        bytes: product([4, pairs, per_axis(&DeconvAxis::kernel)]).saturating_add(input + output),
        moved: packed,
        beside_ns: packing_ns,
        threads: usize::MAX,
        utilisation: REACHED * filled(width).max(channel_lanes),
    };
    let sub_pixel = {
        let taps = per_axis(&|axis| axis.phases().iter().map(|phase| phase.taps.len()).sum());
        // Where no tap leaves the input and few results use each value, it is read where it lies.
        let inside = geometry.axes().iter().all(|axis| {
            axis.phases().iter().all(|phase| {
                let last = phase.count as i64 - 1;
                phase.taps.iter().all(|tap| tap.shift >= 0 && tap.shift + last < axis.input() as i64)
            })
        });
        // More phases than one tile takes pass over the rows in turn.
        let most = if machine.lanes < 16 { 8 } else { 12 };
        let along_width =
            if geometry.axes().last().is_some_and(|axis| axis.stride() > most) { 0.7 } else { REACHED };
        // Or along neighbouring phases that read the same positions.
        let phase_lanes = geometry.axes().last().map_or(0.0, |axis| {
            let phases = axis.phases();
            let lanes: u64 = Phase::aligned(&phases)
                .into_iter()
                .map(|run| run.len().next_multiple_of(machine.lanes.max(1)) as u64)
                .sum();
            phases.len() as f64 / lanes.max(1) as f64
        });
        // Rows that nothing else shares are taken as one.
        let steps = if inside { points } else { steps };
        let reuse = taps.saturating_mul(channels.output_per_group() as u64);
        let direct = inside && reuse < WORTH_PACKING as u64;
        Work {
            form: Form::SubPixel,
            macs: geometry.phase_macs(),
            bytes: product([4, pairs, taps]).saturating_add(input + output),
            moved: if direct { 0 } else { packed },
            beside_ns: if direct { 0.0 } else { packing_ns },
            threads: usize::MAX,
            utilisation: (REACHED * channel_lanes.max(phase_lanes)).max(along_width * filled(steps)),
        }
    };
    [scatter, zero_insertion, sub_pixel].map(|work| work.cost(machine))
}

/// Results that use an input value, from which on rows are packed rather than read where they lie.
pub const WORTH_PACKING: usize = 64;

/// Inputs of a band of scatter for each that it shares with its neighbour.
pub const WORTH_A_BAND: usize = 8;

/// Bands that the output of scatter can be cut into for threads, along the outermost axis that is one.
fn bands(geometry: &DeconvGeometry) -> usize {
    geometry.axes().iter().find(|axis| axis.input() > 1).map_or(1, |axis| {
        let halo = (axis.kernel() - 1) * axis.dilation() / axis.stride();
        (axis.input() / (WORTH_A_BAND * halo).max(1)).max(1)
    })
}

/// Bytes of a row from which on it is copied at twice the rate, and of an input up to which all are.
const LONG_ROW_BYTES: u64 = 2048;
const NEAR_BYTES: u64 = 256 << 10;

fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

/// Bytes per nanosecond that are copied beside the inner loop: rows of many planes, a page each.
const PACKED_BYTES_PER_NS: f64 = 28.0;

/// Share of the peak that the tiles of a convolution reach where vectors are full; filtering makes up for what they lose.
const REACHED: f64 = 0.97;

/// What a form has to do.
struct Work {
    form: Form,
    macs: u64,
    /// Bytes of data, weights and result.
    bytes: u64,
    /// Bytes that are added up or packed in between.
    moved: u64,
    /// Nanoseconds that go on beside the inner loop.
    beside_ns: f64,
    /// Threads that can share it.
    threads: usize,
    utilisation: f64,
}

impl Work {
    fn cost(self, machine: &Machine) -> FormCost {
        let Self { form, macs, bytes, moved, beside_ns, utilisation, .. } = self;
        let threads = machine.threads.min(self.threads) as f64;
        let arithmetic = macs as f64 / (machine.macs_per_ns * utilisation.max(1e-6)) / threads;
        let traffic = bytes as f64 / machine.bytes_per_ns / threads.min(2.0);
        let predicted_us = ((arithmetic + beside_ns / threads).max(traffic) + machine.dispatch_ns) / 1e3;
        let bytes = bytes.saturating_add(moved);
        FormCost { form, macs, bytes, utilisation, predicted_us }
    }
}
