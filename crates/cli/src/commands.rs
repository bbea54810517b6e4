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
use std::path::Path;
use tconvc::{Compiler, Model};

/// A compiler with the options of the command line.
fn compiler(options: &CompileOptions) -> Compiler {
    let compiler = Compiler::new()
        .form(options.form)
        .target(options.target.clone())
        .threads(usize::from(options.threads))
        .workspace_limit((options.workspace_limit as usize) << 20)
        .fast_math(options.fast_math == Switch::On);
    options.shapes.iter().fold(compiler, |compiler, (name, shape)| compiler.input_shape(name, shape.clone()))
}

/// The model of a file; errors name it.
fn load(path: &Path) -> Result<Model> {
    Model::from_path(path).map_err(Error::new)
}
