//! `tconvc compile`.

use super::{compiler, load, tuned};
use crate::args::{Compile, Deny, Emit};
use crate::error::{Error, Result};
use crate::{files, inputs, output, stop};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tconvc::{Budget, Compiler, Model, Tensor, Tolerance, compare};

/// Compiles a model and shows or writes what was asked for.
pub fn run(options: &Compile) -> Result<ExitCode> {
    let budget = stop::begin(&options.options.limits);
    let model = load(&options.model, &budget)?;
    let in_model = |error| Error::in_file(&options.model, error);
    let deny = options.deny.contains(&Deny::Interpreted);
    let mut compiler = compiler(&options.options, &budget)?.deny_interpreted(deny);
    if let Some(pass) = &options.stop_after {
        compiler = compiler.stop_after(pass);
    }
    let given = inputs::given(&model.inputs(), options.inputs.as_slice(), &[], &budget)?;
    let compiler = tuned(compiler, &options.options, &model, &given)?;
    if deny && matches!(options.emit, Emit::Ir | Emit::Dot | Emit::Onnx) {
        // No code is made that could be refused.
        let explanation = compiler.explain(&model).map_err(in_model)?;
        match explanation.interpreted {
            Some(steps) if steps.is_empty() => {}
            Some(steps) => return Err(in_model(tconvc::Error::Interpreted(steps))),
            None => {
                let problem = "which steps are interpreted depends on input shapes that are open; name them with --shape";
                return Err(Error::in_file(&options.model, problem));
            }
        }
    }
    match options.emit {
        Emit::Jit => return jit(options, &compiler, &model, given, &budget),
        Emit::Ir => {
            let rewritten = compiler.rewrite(&model).map_err(in_model)?;
            output::warnings(rewritten.warnings());
            write(options.output.as_deref(), rewritten.to_text().as_bytes())?;
        }
        Emit::Dot => {
            let text = compiler.rewrite(&model).map_err(in_model)?.to_dot();
            write(options.output.as_deref(), text.as_bytes())?;
        }
        Emit::Onnx => {
            let Some(path) = options.output.as_deref() else {
                return Err(Error::usage("--emit onnx writes a binary file; name it with -o FILE"));
            };
            let export = compiler.export(&model).map_err(in_model)?;
            output::warnings(export.warnings());
            write(Some(path), export.bytes())?;
        }
        Emit::Clif | Emit::Asm => {
            let text = compiler.listing(&model, options.emit == Emit::Clif).map_err(in_model)?;
            let explanation = compiler.explain(&model).map_err(in_model)?;
            output::warnings(&explanation.interpreted_warning().into_iter().collect::<Vec<_>>());
            write(options.output.as_deref(), text.as_bytes())?;
        }
    }
    if options.verify {
        return check(options, &compiler, &model, given, &budget);
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: Option<&Path>, bytes: &[u8]) -> Result<()> {
    match path {
        None => output::print(&String::from_utf8_lossy(bytes))?,
        Some(path) => files::write(path, bytes)?,
    }
    Ok(())
}

/// Compiles, runs, and reports the time of each step.
fn jit(
    options: &Compile,
    compiler: &Compiler,
    model: &Model,
    given: Vec<(String, Tensor)>,
    budget: &Budget,
) -> Result<ExitCode> {
    let in_model = |error| Error::in_file(&options.model, error);
    let compiled = compiler.compile(model).map_err(in_model)?;
    let tensors = inputs::or_seeded(given.clone(), compiled.inputs(), budget)?;
    let views = compiled.order(inputs::views(&tensors)).map_err(in_model)?;
    let mut session = compiled.session();
    session.run(&views).map_err(in_model)?;
    let start = Instant::now();
    let mut steps = vec![];
    let mut observe = |step: usize, time: Duration| {
        steps.resize(steps.len().max(step + 1), 0.0);
        steps[step] = time.as_secs_f64() * 1e6;
    };
    session.run_timed(&views, &mut observe).map_err(in_model)?;
    let run_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut report = compiled.report();
    output::warnings(&report.warnings);
    report.set_times(&steps);
    write(options.output.as_deref(), format!("{report}run        {run_ms:.3} ms\n").as_bytes())?;
    if options.verify { check(options, compiler, model, given, budget) } else { Ok(ExitCode::SUCCESS) }
}

/// Compares with the reference interpreter.
fn check(
    options: &Compile,
    compiler: &Compiler,
    model: &Model,
    given: Vec<(String, Tensor)>,
    budget: &Budget,
) -> Result<ExitCode> {
    let in_model = |error| Error::in_file(&options.model, error);
    let compiled = compiler.compile(model).map_err(in_model)?;
    let tensors = inputs::or_seeded(given, compiled.inputs(), budget)?;
    let got = compiled.run(inputs::views(&tensors)).map_err(in_model)?;
    let expected = compiler.interpret(model, inputs::views(&tensors)).map_err(in_model)?;
    for ((name, got), (_, expected)) in got.iter().zip(expected.iter()) {
        match compare(got, expected, model.tolerance(name, Tolerance::NETWORK)) {
            Ok(agreement) => output::line(&format!("verified: {name} differs by at most {agreement}"))?,
            Err(problem) => {
                return Err(Error::in_file(&options.model, format!("output `{name}`: {problem}")));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
