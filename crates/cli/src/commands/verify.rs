//! `tconvc verify`.

use super::{compiler, load, tuned};
use crate::args::{CompileOptions, Verify};
use crate::error::{Error, Result};
use crate::{arrays, inputs, output, stop};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tconvc::{Agreement, Budget, PortInfo, Tensor, Tolerance, compare};

/// What is checked: a model, or a case in the layout of ONNX's backend tests.
enum Case {
    Model(PathBuf),
    Backend(PathBuf),
}

/// Checks every case, a line each; status 1 when one failed.
pub fn run(options: &Verify) -> Result<ExitCode> {
    let budget = stop::begin(&options.options.limits);
    let mut cases = vec![];
    for path in &options.paths {
        let before = cases.len();
        collect(path, &mut cases)?;
        if cases.len() == before {
            return Err(Error::in_file(path, "neither an ONNX file nor a folder that holds one"));
        }
    }
    let bar = output::bar(cases.len());
    let (mut passed, mut failed) = (0, 0);
    for case in &cases {
        let path = match case {
            Case::Model(path) | Case::Backend(path) => path,
        };
        bar.set_message(path.display().to_string());
        let result = match case {
            Case::Model(path) => model(path, &options.options, &budget),
            Case::Backend(path) => backend(path, &options.options, &budget),
        };
        let line = match result {
            Ok(what) => {
                passed += 1;
                format!("ok      {}: {what}", path.display())
            }
            Err(error) => {
                failed += 1;
                // Errors of reading name the file themselves.
                let (path, error) = (path.display().to_string(), error.to_string());
                let problem = error.strip_prefix(&format!("{path}: ")).unwrap_or(&error);
                format!("FAILED  {path}: {problem}")
            }
        };
        bar.suspend(|| output::line(&line))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    output::line(&format!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn collect(path: &Path, cases: &mut Vec<Case>) -> Result<()> {
    if !path.is_dir() {
        if !path.is_file() {
            return Err(Error::in_file(path, "no such file or folder"));
        }
        cases.push(Case::Model(path.to_owned()));
        return Ok(());
    }
    if path.join("model.onnx").is_file() {
        cases.push(Case::Backend(path.to_owned()));
        return Ok(());
    }
    for entry in entries(path)? {
        if entry.is_dir() {
            collect(&entry, cases)?;
        } else if entry.extension().is_some_and(|extension| extension == "onnx") {
            cases.push(Case::Model(entry));
        }
    }
    Ok(())
}

/// Entries of a folder, sorted.
fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let read =
        |path: &Path| fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = read(path).map_err(|error| Error::in_file(path, error))?;
    paths.sort();
    Ok(paths)
}

/// A model on the arrays beside it and against the outputs among them, else on seeded inputs against the interpreter.
fn model(path: &Path, options: &CompileOptions, budget: &Budget) -> Result<String> {
    let model = load(path, budget)?;
    let stored = inputs::stored(path);
    let mut given = vec![];
    if let Some(file) = &stored {
        let ports = model.inputs();
        given = inputs::pick(&ports, "input", &arrays::read_npz(file)?, budget)?;
        let is_given = |port: &PortInfo| given.iter().any(|(name, _)| *name == port.name);
        if !ports.iter().all(|port| port.optional || is_given(port)) {
            return Err(Error::in_file(file, "it does not hold every input of the model"));
        }
    }
    let compiler = tuned(compiler(options, budget)?, options, &model, &given)?;
    let compiled = compiler.compile(&model)?;
    let tensors = inputs::or_seeded(given, compiled.inputs(), budget)?;
    let got = compiled.run(inputs::views(&tensors))?;
    let mut expected: Vec<(String, Tensor)> = match &stored {
        Some(file) => inputs::pick(compiled.outputs(), "output", &arrays::read_npz(file)?, budget)?,
        None => vec![],
    };
    let against = if expected.is_empty() { "the reference interpreter" } else { "stored outputs" };
    if expected.is_empty() {
        let outputs = compiler.interpret(&model, inputs::views(&tensors))?;
        expected = outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    }
    let mut agreement = Agreement::default();
    for (name, expected) in &expected {
        let Some(got) = got.get(name) else {
            return Err(Error::new(format!("the model has no output `{name}`")));
        };
        agreement = agreement.and(
            compare(got, expected, model.tolerance(name, Tolerance::NETWORK))
                .map_err(|problem| Error::new(format!("output `{name}`: {problem}")))?,
        );
    }
    Ok(format!("{} output(s) within {agreement} of {against}", expected.len()))
}

/// A case of ONNX's backend tests: every data set in its folder.
fn backend(folder: &Path, options: &CompileOptions, budget: &Budget) -> Result<String> {
    let model = load(&folder.join("model.onnx"), budget)?;
    let mut sets = 0;
    for set in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let tensors = tensors(&set, "input", &model.inputs())?;
        let shaped = tensors.iter().fold(compiler(options, budget)?, |compiler, (name, tensor)| {
            compiler.input_shape(name, tensor.shape())
        });
        let got = tuned(shaped, options, &model, &[])?.compile(&model)?.run(inputs::views(&tensors))?;
        for (name, expected) in self::tensors(&set, "output", &model.outputs())? {
            let Some(got) = got.get(&name) else {
                return Err(Error::new(format!("the model has no output `{name}`")));
            };
            compare(got, &expected, Tolerance::BACKEND)
                .map_err(|problem| Error::new(format!("output `{name}`: {problem}")))?;
        }
        sets += 1;
    }
    Ok(format!("{sets} data set(s)"))
}

/// `KIND_0.pb`, `KIND_1.pb` and so on, under the names of the ports.
fn tensors(set: &Path, kind: &str, ports: &[PortInfo]) -> Result<Vec<(String, Tensor)>> {
    let mut named = vec![];
    for (index, port) in ports.iter().enumerate() {
        let path = set.join(format!("{kind}_{index}.pb"));
        if port.optional && !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| Error::in_file(&path, error))?;
        let (_, tensor) = tconvc::read_tensor(&bytes).map_err(|error| Error::in_file(&path, error))?;
        named.push((port.name.clone(), tensor));
    }
    Ok(named)
}
