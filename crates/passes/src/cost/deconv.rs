//! Predicted time of the three forms of a transposed convolution.
//!
//! Time is the larger of what a core is busy with, by the [algorithm](AlgorithmCosts) that code generation would take, and of
//! traffic (bytes over bandwidth); see `docs/cost-model.md`.

use super::algorithms::AlgorithmCosts;
use super::machine::Machine;
use crate::options::Form;
use serde::Serialize;
use std::fmt;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};

/// Cost of one form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FormCost {
    /// The form.
    pub form: Form,
    /// Multiply-adds, by the definition of the form.
    pub macs: u64,
    /// Bytes of data, weights and result, and of what the form keeps in between.
    pub bytes: u64,
    /// Predicted microseconds; infinitely many where it is refused.
    pub predicted_us: f64,
    /// As the schedule of its algorithm is called.
    pub algorithm: String,
    /// Why no kernel computes it in this form.
    pub refused: Option<String>,
}

impl fmt::Display for FormCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MACs, {} bytes, {:.1} us", self.macs, self.bytes, self.predicted_us)
    }
}

/// Costs of scatter, zero-insertion and sub-pixel, in this order: on the threads of the machine, and on one.
pub fn form_costs(
    geometry: &DeconvGeometry,
    machine: &Machine,
    algorithms: &dyn AlgorithmCosts,
) -> [[FormCost; 3]; 2] {
    let costs = [Form::Scatter, Form::ZeroInsert, Form::SubPixel]
        .map(|form| form_cost(geometry, form, machine, algorithms));
    let alone = costs.clone().map(|(cost, alone_us)| FormCost { predicted_us: alone_us, ..cost });
    [costs.map(|(cost, _)| cost), alone]
}

/// The cost of a form, and its microseconds on one thread.
fn form_cost(
    geometry: &DeconvGeometry,
    form: Form,
    machine: &Machine,
    algorithms: &dyn AlgorithmCosts,
) -> (FormCost, f64) {
    let bytes = operand_bytes(geometry, form);
    let mut cost = FormCost {
        form,
        macs: macs(geometry, form),
        bytes,
        predicted_us: f64::INFINITY,
        algorithm: String::new(),
        refused: None,
    };
    let algorithm = match algorithms.cost(geometry, form, machine.threads) {
        Ok(algorithm) => algorithm,
        Err(refused) => {
            cost.refused = Some(refused);
            return (cost, f64::INFINITY);
        }
    };
    let predicted_us = |threads: usize| {
        let threads = threads.min(algorithm.parts).max(1) as f64;
        // Two threads have twice the bandwidth of one; more share it.
        let traffic = bytes as f64 / machine.rates.bytes_per_ns() / threads.min(2.0);
        ((algorithm.busy_ns / threads).max(traffic) + machine.rates.threads.dispatch_ns) / 1e3
    };
    let alone_us = predicted_us(1);
    cost.predicted_us = predicted_us(machine.threads);
    cost.bytes = bytes.saturating_add(algorithm.moved_bytes);
    cost.algorithm = algorithm.name;
    (cost, alone_us)
}

/// Multiply-adds of a form.
pub(super) fn macs(geometry: &DeconvGeometry, form: Form) -> u64 {
    let channels = geometry.channels();
    let pairs = (channels.batch() * channels.input() * channels.output_per_group()) as u64;
    match form {
        // Every input under every tap that is not cropped.
        Form::Scatter => product([pairs, per_axis(geometry, DeconvAxis::input), all_taps(geometry)]),
        Form::ZeroInsert => geometry.zero_insertion_macs(),
        Form::SubPixel | Form::Auto => geometry.phase_macs(),
    }
}

/// Bytes of data, result, and of the weights that the form uses.
fn operand_bytes(geometry: &DeconvGeometry, form: Form) -> u64 {
    let channels = geometry.channels();
    let floats = |shape: Vec<usize>| shape.into_iter().map(|extent| extent as u64).product::<u64>();
    let pairs = (channels.input() * channels.output_per_group()) as u64;
    let taps = match form {
        Form::Scatter => all_taps(geometry),
        Form::ZeroInsert => per_axis(geometry, DeconvAxis::kernel),
        Form::SubPixel | Form::Auto => {
            per_axis(geometry, |axis| axis.phases().iter().map(|phase| phase.taps.len()).sum())
        }
    };
    let data = floats(geometry.input_shape()) + floats(geometry.output_shape());
    product([4, pairs, taps]).saturating_add(4 * data)
}

fn per_axis(geometry: &DeconvGeometry, of: impl Fn(&DeconvAxis) -> usize) -> u64 {
    geometry.axes().iter().fold(1, |product: u64, axis| product.saturating_mul(of(axis) as u64))
}

/// Taps that are not cropped for every input.
fn all_taps(geometry: &DeconvGeometry) -> u64 {
    per_axis(geometry, |axis| (0..axis.kernel()).filter(|&k| !axis.inputs_under(k).is_empty()).count())
}

fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::AlgorithmCost;
    use tconvc_ir::geometry::Channels;

    /// A core that is busy for so many microseconds with scatter and sub-pixel, of which scatter has two parts; there is no
    /// kernel for the other form.
    #[derive(Debug)]
    struct Made(f64, f64);

    impl AlgorithmCosts for Made {
        fn cost(&self, _: &DeconvGeometry, form: Form, _: usize) -> Result<AlgorithmCost, String> {
            let (busy_us, parts) = match form {
                Form::Scatter => (self.0, 2),
                Form::ZeroInsert => return Err("too wide".into()),
                _ => (self.1, usize::MAX),
            };
            Ok(AlgorithmCost { name: "made".into(), busy_ns: 1e3 * busy_us, moved_bytes: 7, parts })
        }
    }

    fn geometry() -> DeconvGeometry {
        let axis = DeconvAxis::new(8, 4, 2, 1, [1, 1]).unwrap();
        DeconvGeometry::new(Channels::new(1, 3, 5, 1).unwrap(), vec![axis, axis]).unwrap()
    }

    #[test]
    fn threads_share_as_many_parts_as_there_are() {
        let machine = Machine { threads: 4, ..Machine::default() };
        let [costs, alone] = form_costs(&geometry(), &machine, &Made(80.0, 60.0));
        let us = |costs: &[FormCost; 3]| costs.each_ref().map(|cost| cost.predicted_us);
        assert_eq!(us(&costs), [40.3, f64::INFINITY, 15.3]);
        assert_eq!(us(&alone), [80.3, f64::INFINITY, 60.3]);
        assert_eq!(costs[1].refused.as_deref(), Some("too wide"));
    }

    #[test]
    fn bytes_are_those_of_the_operands_and_of_what_is_kept() {
        let [costs, _] = form_costs(&geometry(), &Machine::default(), &Made(1.0, 1.0));
        let operands = 4 * (3 * 8 * 8 + 5 * 16 * 16 + 3 * 5 * 4 * 4);
        assert_eq!(costs.each_ref().map(|cost| cost.bytes), [operands + 7, operands, operands + 7]);
        // Nothing is faster than its operands arrive.
        let [costs, _] = form_costs(&geometry(), &Machine::default(), &Made(0.0, 0.0));
        let least = operands as f64 / Machine::default().rates.bytes_per_ns();
        assert!(costs[0].predicted_us >= least / 1e3, "{}", costs[0]);
    }
}
