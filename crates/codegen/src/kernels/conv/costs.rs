//! What the kernels of transposed convolutions cost: the answer to [`AlgorithmCosts`], from the schedules that would be taken.
//! Direct convolution, Winograd and scatter are each estimated in one place, which the choice of a form reads as well.

use crate::kernels::conv::algorithms::Setting;
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::scatter::{MOST_TAPS, Shape};
use crate::options::{FastMath, Options};
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};
use tconvc_ir::ops::{Epilogue, ZeroInsert};
use tconvc_machine::Target;
use tconvc_passes::Form;
use tconvc_passes::cost::{AlgorithmCost, AlgorithmCosts};

/// Costs of kernels for a target.
#[derive(Debug, Clone)]
pub struct KernelCosts {
    target: Target,
    fast_math: FastMath,
}

/// What was decided about a transposed convolution in one form.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Name of the schedule.
    pub schedule: String,
    /// What the lanes of a vector run along.
    pub vectors_along: &'static str,
}

impl KernelCosts {
    /// Of programs with these options; schedules that were measured count as little as threads.
    pub fn new(options: &Options) -> Self {
        Self { target: options.target.clone(), fast_math: options.fast_math }
    }

    /// The schedule of a form on so many threads.
    ///
    /// # Errors
    /// As [`AlgorithmCosts::cost`].
    pub fn decide(&self, geometry: &DeconvGeometry, form: Form, threads: usize) -> Result<Decided, String> {
        if form == Form::Scatter {
            let (shape, _) = self.scatter(geometry, threads)?;
            return Ok(Decided { schedule: shape.to_string(), vectors_along: "columns" });
        }
        let (_, algorithm) = self.setting(threads).choose_with_cycles(&problem_of(geometry, form)?);
        Ok(Decided { schedule: algorithm.to_string(), vectors_along: algorithm.vectors_along() })
    }

    fn setting(&self, threads: usize) -> Setting<'_> {
        Setting { target: &self.target, threads, fast_math: self.fast_math }
    }

    /// Sizes and cycles.
    fn scatter(&self, geometry: &DeconvGeometry, threads: usize) -> Result<(Shape, f64), String> {
        let taps = geometry.axes().iter().fold(1usize, |taps, axis| taps.saturating_mul(axis.kernel()));
        if taps > MOST_TAPS {
            return Err(format!(
                "its kernel has {taps} taps, and scatter, which writes each out, takes up to {MOST_TAPS}"
            ));
        }
        Ok(Shape::with_cycles(geometry, &self.target, threads))
    }
}

/// The convolution that a form other than scatter is.
fn problem_of(geometry: &DeconvGeometry, form: Form) -> Result<Problem, String> {
    let problem = match form {
        Form::ZeroInsert => {
            let (insert, conv) = ZeroInsert::from_geometry(geometry, Epilogue::default())
                .map_err(|error| error.to_string())?;
            let x = geometry.input_shape();
            let inserts = insert.axes(&x).map_err(|error| error.to_string())?;
            let channels = geometry.channels();
            let mut inserted = x[..2].to_vec();
            inserted.extend(inserts.iter().map(DeconvAxis::output));
            let mut weights = vec![channels.output(), channels.input_per_group()];
            weights.extend(geometry.axes().iter().map(DeconvAxis::kernel));
            let conv = conv.geometry(&inserted, &weights).map_err(|error| error.to_string())?;
            Problem::of_insertion(&conv, &inserts)
        }
        _ => Problem::of_phases(geometry),
    };
    problem.check_compilable().map_err(|reason| reason.to_string())?;
    Ok(problem)
}

impl AlgorithmCosts for KernelCosts {
    fn cost(&self, geometry: &DeconvGeometry, form: Form, threads: usize) -> Result<AlgorithmCost, String> {
        let rates = self.target.rates();
        if form == Form::Scatter {
            let (shape, cycles) = self.scatter(geometry, threads)?;
            return Ok(AlgorithmCost {
                name: shape.to_string(),
                busy_ns: cycles / rates.cycles_per_ns,
                moved_bytes: shape.added_bytes(),
                parts: shape.work_items(),
            });
        }
        let problem = problem_of(geometry, form)?;
        let (cycles, algorithm) = self.setting(threads).choose_with_cycles(&problem);
        Ok(AlgorithmCost {
            name: algorithm.to_string(),
            busy_ns: rates.calls.convolution * cycles / rates.cycles_per_ns,
            moved_bytes: algorithm.moved_bytes(&problem),
            parts: usize::MAX,
        })
    }
}
