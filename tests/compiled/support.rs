//! What the tests here share: targets and forms to compile for, random numbers, how many cases to run.

use tconvc::{Compiler, Form, InterpretedStep, Report, Target};
use tconvc_machine::Caches;
use tconvc_testing::target;
pub use tconvc_testing::{every_target, is_run};

/// The forms that can be forced.
pub const FORMS: [Form; 3] = [Form::SubPixel, Form::ZeroInsert, Form::Scatter];

/// The targets that tests run, see [`tconvc_testing::targets`]; with the same caches on every machine, because schedules
/// follow from these.
pub fn targets() -> Vec<Target> {
    tconvc_testing::targets().into_iter().map(|target| target.with_caches(Caches::ASSUMED)).collect()
}

/// A compiler for the last of them.
pub fn compiler() -> Compiler {
    Compiler::new().target(target().with_caches(Caches::ASSUMED))
}

/// Number of random cases: `TCONVC_GEOMETRIES`, else `default`.
pub fn cases(default: usize) -> usize {
    std::env::var("TCONVC_GEOMETRIES").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// Numbers that look random and are the same on every run.
pub struct Random(u64);

impl Random {
    /// A sequence for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        least + self.below((most - least + 1) as usize) as i64
    }

    /// Small whole numbers as floats: sums of their products are exact.
    pub fn integers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.between(-3, 3) as f32).collect()
    }
}

/// Every interpreted step of a report, and no other, is listed with a reason that says what would be compiled.
pub fn check_reasons(report: &Report) -> Result<(), String> {
    let steps = report.steps.iter().filter(|step| step.kernel.starts_with("interpreted"));
    let listed: Vec<_> = report.interpreted.iter().filter(|step| step.within.is_none()).collect();
    let steps: Vec<_> = steps.collect();
    if steps.len() != listed.len() {
        return Err(format!("{} steps are interpreted, {listed:?} are listed", steps.len()));
    }
    let is_told = |step: &InterpretedStep| {
        !step.node.is_empty()
            && !step.op.is_empty()
            && step.reason.contains("; ")
            && step.reason.ends_with("compiled")
            && (0.0..=100.0 + 1e-6).contains(&step.share_percent)
    };
    match report.interpreted.iter().find(|step| !is_told(step)) {
        None => Ok(()),
        Some(step) => Err(format!("no proper reason: {step:?}")),
    }
}
