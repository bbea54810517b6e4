//! The trained networks of `models/`: outputs of the framework that trained them, stored beside them, under every form,
//! with the same bits on one thread and on two.

use crate::support::{FORMS, check_reasons, targets};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::path::{Path, PathBuf};
use tconvc::{Compiler, Form, Model, Tensor, Tolerance, compare};

pub fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut models: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    models.sort();
    assert!(!models.is_empty());
    models
}

/// Arrays beside a model; all are f32.
pub fn arrays(model: &Path) -> Vec<(String, Tensor)> {
    let mut npz = NpzReader::new(File::open(model.with_extension("npz")).unwrap()).unwrap();
    let names = npz.names().unwrap();
    let read = |name: String| {
        let array: ndarray::ArrayD<f32> = npz.by_name(&name).unwrap();
        let tensor = Tensor::from_vec(array.shape(), array.iter().copied().collect()).unwrap();
        (name.trim_end_matches(".npy").to_owned(), tensor)
    };
    names.into_iter().map(read).collect()
}

#[test]
fn trained_networks_give_what_their_framework_gave() {
    for path in models() {
        let model = Model::from_path(&path).unwrap();
        let arrays = arrays(&path);
        let is_input = |name: &str| model.inputs().iter().any(|port| port.name == name);
        let (inputs, expected): (Vec<_>, Vec<_>) = arrays.iter().partition(|(name, _)| is_input(name));
        assert!(!expected.is_empty(), "{}", path.display());
        for target in targets() {
            for form in [FORMS.as_slice(), &[Form::Auto]].concat() {
                let run = |threads| {
                    let compiler = Compiler::new().form(form).target(target.clone()).threads(threads);
                    let compiled = compiler.compile(&model).unwrap();
                    let inputs = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
                    let outputs = compiled.run(inputs).unwrap();
                    check_reasons(&compiled.report())
                        .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
                    outputs
                };
                let outputs = run(1);
                for (name, expected) in &expected {
                    let got = outputs.get(name).unwrap();
                    if let Err(problem) = compare(got, expected, Tolerance::NETWORK) {
                        panic!("{}, {form}, {target}: `{name}`: {problem}", path.display());
                    }
                }
                assert!(run(2) == outputs, "{}, {form}, {target}: two threads differ", path.display());
            }
        }
    }
}
