//! What is asked of code generation: the cost of the kernels that it would make. The choice of a form knows no tiles and no
//! registers; it asks.

use super::deconv::macs;
use crate::options::Form;
use std::fmt;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_machine::Rates;

/// The algorithm that would compute a transposed convolution in some form.
#[derive(Debug, Clone, PartialEq)]
pub struct AlgorithmCost {
    /// As its schedule is called: all that was decided about it.
    pub name: String,
    /// Nanoseconds of one core, copies included, if data comes as fast as it is used.
    pub busy_ns: f64,
    /// Bytes that are kept in between: copied into input tiles, transformed, or added up.
    pub moved_bytes: u64,
    /// Threads that can share it at most.
    pub parts: usize,
}

/// Who knows what kernels cost.
pub trait AlgorithmCosts: fmt::Debug + Send + Sync {
    /// The cheapest algorithm in a form for so many threads. Its time is that of one core, and does not depend on their number.
    ///
    /// # Errors
    /// Why there is no kernel for it: its nodes would be interpreted.
    fn cost(&self, geometry: &DeconvGeometry, form: Form, threads: usize) -> Result<AlgorithmCost, String>;
}

/// Every multiply-add at the peak, whatever the form: the least that any kernel takes. For who makes no code.
#[derive(Debug, Clone, Copy)]
pub struct AtPeak(pub Rates);

impl AlgorithmCosts for AtPeak {
    fn cost(&self, geometry: &DeconvGeometry, form: Form, _: usize) -> Result<AlgorithmCost, String> {
        let busy_ns = macs(geometry, form) as f64 / self.0.peak_macs_per_ns();
        Ok(AlgorithmCost { name: "at peak".into(), busy_ns, moved_bytes: 0, parts: usize::MAX })
    }
}
