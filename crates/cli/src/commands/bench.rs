//! `tconvc bench`.

use super::{compiler, load, tuned};
use crate::args::Bench;
use crate::error::{Error, Result};
use crate::trace::Trace;
use crate::{inputs, output, stop};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tconvc::{TensorView, TensorViewMut};

/// Runs before anything is timed.
const WARM_UP: usize = 3;

/// Times whole runs in the model's own layout.
pub fn run(options: &Bench) -> Result<ExitCode> {
    let resident = resident_bytes();
    let start = Instant::now();
    let budget = stop::begin(&options.options.limits);
    let model = load(&options.model, &budget)?;
    let read_ms = start.elapsed().as_secs_f64() * 1e3;
    let in_model = |error| Error::in_file(&options.model, error);
    let given = inputs::given(&model.inputs(), &options.inputs, &[], &budget)?;
    let compiler = tuned(compiler(&options.options, &budget)?, &options.options, &model, &given)?;
    let compiled = compiler.compile(&model).map_err(in_model)?;
    let tensors = inputs::or_seeded(given, compiled.inputs(), &budget)?;
    let views = compiled.order(inputs::views(&tensors)).map_err(in_model)?;
    let mut session = compiled.session();
    // The first run also gives the outputs' shapes.
    let mut outputs: Vec<_> =
        session.run(&views).map_err(in_model)?.iter().map(|(_, tensor)| tensor.clone()).collect();
    let mut memory: Vec<Vec<u64>> =
        outputs.iter().map(|tensor| vec![0; tensor.bytes().len().div_ceil(8)]).collect();
    let shapes: Vec<_> = outputs
        .drain(..)
        .map(|tensor| (tensor.dtype(), tensor.shape().to_vec(), tensor.bytes().len()))
        .collect();
    let mut targets = vec![];
    for (words, (dtype, shape, bytes)) in memory.iter_mut().zip(&shapes) {
        let bytes = &mut bytemuck::cast_slice_mut(words)[..*bytes];
        targets.push(TensorViewMut::from_bytes(*dtype, shape, bytes).map_err(Error::new)?);
    }
    let mut trace = options.trace.as_ref().map(|_| Trace::new());
    let mut times = vec![];
    let mut steps: Vec<Vec<f64>> = vec![];
    let mut once = |timed: bool,
                    times: &mut Vec<f64>,
                    steps: &mut Vec<Vec<f64>>,
                    targets: &mut [TensorViewMut<'_>],
                    views: &[TensorView<'_>]|
     -> Result<()> {
        let mut trace = if timed { trace.as_mut() } else { None };
        let recorded = trace.as_mut().is_some_and(|trace| trace.begin());
        let mut trace = trace.filter(|_| recorded);
        let start = Instant::now();
        if options.profile || trace.is_some() {
            session
                .run_observed(views, targets, |step, time| {
                    if steps.len() <= step {
                        steps.resize_with(step + 1, Vec::new);
                    }
                    if timed {
                        steps[step].push(time.as_secs_f64() * 1e6);
                    }
                    if let Some(trace) = &mut trace {
                        trace.step(step, time);
                    }
                })
                .map_err(in_model)?;
            if let Some(trace) = trace {
                trace.end();
            }
        } else {
            session.run_into(views, targets).map_err(in_model)?;
        }
        if timed {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    };
    for _ in 0..WARM_UP {
        once(false, &mut times, &mut steps, &mut targets, &views)?;
    }
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    while times.len() < 3 || Instant::now() < end {
        once(true, &mut times, &mut steps, &mut targets, &views)?;
    }
    times.sort_by(f64::total_cmp);
    let mut report = compiled.report();
    output::warnings(&report.warnings);
    if let (Some(trace), Some(path)) = (&trace, &options.trace) {
        trace.write(path, &options.model.display().to_string(), &report.steps)?;
    }
    let (least, median) = (times[0], times[times.len() / 2]);
    if options.json {
        let line = json!({
            "model": options.model.display().to_string(),
            "threads": report.threads,
            "runs": times.len(),
            "min_ms": least,
            "median_ms": median,
            "read_ms": read_ms,
            "compile_ms": report.compile_ms,
            "code_bytes": report.code_bytes,
            "weight_bytes": report.weight_bytes,
            "workspace_bytes": report.workspace_bytes,
            "interpreted": report.interpreted,
            "resident_growth_bytes": resident.zip(resident_bytes()).map(|(before, now)| now.saturating_sub(before)),
        });
        output::line(&line.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.profile {
        let medians: Vec<f64> = steps
            .iter_mut()
            .map(|times| {
                times.sort_by(f64::total_cmp);
                times.get(times.len() / 2).copied().unwrap_or(0.0)
            })
            .collect();
        report.set_times(&medians);
        output::print(&report.profile())?;
    }
    output::line(&format!(
        "{} runs, {} thread(s): median {median:.3} ms, least {least:.3} ms",
        times.len(),
        report.threads
    ))?;
    output::line(&format!(
        "compiled in {:.1} ms: {} bytes of code, {} of weights, {} of workspace",
        report.compile_ms, report.code_bytes, report.weight_bytes, report.workspace_bytes
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Resident memory of this process; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
