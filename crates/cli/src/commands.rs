//! One file a command.

pub mod bench;
pub mod compile;
pub mod completions;
pub mod explain;
pub mod inspect;
pub mod run;
pub mod verify;

use crate::args::{CompileOptions, Switch};
use crate::error::{Error, Result};
use crate::output;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tconvc::{Budget, Compiler, Model, Tensor, Tuning};

/// A compiler with the options of the command line.
fn compiler(options: &CompileOptions, budget: &Budget) -> Result<Compiler> {
    let compiler = Compiler::new()
        .budget(budget)
        .form(options.form)
        .compat(options.compat)
        .target(options.target.clone())
        .threads(usize::from(options.threads))
        .workspace_limit((options.workspace_limit as usize) << 20)
        .fast_math(options.fast_math == Switch::On);
    shaped(compiler, &options.shapes)
}

/// The compiler with shapes of inputs, each of which is given once.
fn shaped(compiler: Compiler, shapes: &[(String, Vec<usize>)]) -> Result<Compiler> {
    let mut given: HashMap<&str, &[usize]> = HashMap::new();
    for (name, shape) in shapes {
        if let Some(before) = given.insert(name, shape) {
            return Err(Error::usage(format!(
                "--shape {name} is given twice, as {before:?} and {shape:?}; expected is one for each input"
            )));
        }
    }
    Ok(shapes.iter().fold(compiler, |compiler, (name, shape)| compiler.input_shape(name, shape.clone())))
}

/// The compiler with what was measured for this model and these inputs, now or before, where that is asked for.
fn tuned(
    compiler: Compiler,
    options: &CompileOptions,
    model: &Model,
    inputs: &[(String, Tensor)],
) -> Result<Compiler> {
    if !options.tune {
        return Ok(compiler);
    }
    let file = match &options.tune_cache {
        Some(file) => file.clone(),
        None => cache_folder()?.join("tuning.json"),
    };
    let mut tuning = Tuning::read(&file)?;
    let known = tuning.clone();
    let bar = output::bar(0);
    let of_inputs = inputs
        .iter()
        .fold(compiler.clone(), |compiler, (name, tensor)| compiler.input_shape(name, tensor.shape()));
    let measured = of_inputs.tune(model, &mut tuning, |progress| {
        bar.set_length(progress.layers as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(format!("measuring {}", progress.layer));
    });
    bar.finish_and_clear();
    // What was measured before an error is not lost.
    if tuning != known {
        tuning.write(&file)?;
    }
    measured?;
    Ok(compiler.tuning(&tuning))
}

/// Where this program keeps what it can make again.
fn cache_folder() -> Result<PathBuf> {
    let folder = |name, below: &str| {
        let base = std::env::var_os(name).map(PathBuf::from).filter(|base| base.is_absolute())?;
        Some(base.join(below))
    };
    folder("XDG_CACHE_HOME", "tconvc").or_else(|| folder("HOME", ".cache/tconvc")).ok_or_else(|| {
        Error::usage("there is neither XDG_CACHE_HOME nor HOME to keep measurements in; name a file with --tune-cache FILE")
    })
}

/// The model of a file; errors name it.
fn load(path: &Path, budget: &Budget) -> Result<Model> {
    Model::read_with(path, budget).map_err(Error::new)
}
