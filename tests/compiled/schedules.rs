//! Every schedule that can be chosen in the place of the estimated one computes the same, in exact integers; and measuring
//! them, keeping and taking what was found.

use crate::geometries::{deep_layer, random_layer, strided_layer};
use crate::layer::Layer;
use crate::support::{FORMS, cases, targets};
use std::fs;
use std::sync::Arc;
use tconvc::{Compiler, DType, Error, Form, Model, Target, Tensor, TensorViewMut, Tuning};
use tconvc_codegen::compile::{self, Choice, Compiled, FastMath, Options, Schedules};
use tconvc_codegen::pool::Serial;
use tconvc_codegen::session::Session;
use tconvc_ir::Graph;
use tconvc_passes::plan::plan;

/// A layer rewritten into a form.
fn rewritten(layer: &Layer, form: Form) -> Graph {
    let mut graph = Graph::new("layer");
    let y = layer.add_to(&mut graph, 0);
    graph.add_output(y);
    Compiler::new().form(form).rewrite(&Model::from_graph(graph)).unwrap().graph().clone()
}

fn compiled(graph: &Graph, target: &Target, fast_math: FastMath, schedules: Schedules) -> Compiled {
    let options = Options { fast_math, schedules, list_choices: true, ..Options::new(target.clone()) };
    compile::compile(graph, &plan(graph).unwrap(), &options).unwrap()
}

/// Schedules of the convolutions of a graph, one at a time, that take the place of the estimated ones.
pub fn others(graph: &Graph, target: &Target) -> Vec<Schedules> {
    let choices = compiled(graph, target, FastMath::Off, Schedules::default()).choices().to_vec();
    let of = |Choice { problem, others, .. }: Choice| {
        others.into_iter().map(move |name| Schedules::from_iter([(problem.clone(), name)]))
    };
    choices.into_iter().flat_map(of).collect()
}

#[test]
fn all_schedules_compute_the_same() {
    let targets = targets();
    let (mut seen, mut by_kind) = (0, [0; 4]);
    for number in 0..cases(60) {
        let layer = [random_layer, deep_layer, strided_layer][number % 3](9 << 32 | number as u64);
        let target = &targets[number / 3 % targets.len()];
        let (x, expected) = (layer.input(), layer.expected());
        for form in FORMS {
            let graph = rewritten(&layer, form);
            let estimated = compiled(&graph, target, FastMath::Off, Schedules::default());
            let [Choice { problem, others, .. }] = estimated.choices() else { continue };
            for name in others {
                let schedules = Schedules::from_iter([(problem.clone(), name.clone())]);
                let other = compiled(&graph, target, FastMath::Off, schedules);
                assert_eq!(other.choices()[0].chosen, *name, "{layer}, {form}, {target}");
                let mut session = Session::new(&other.finish().unwrap(), Arc::new(Serial)).unwrap();
                let mut words = vec![0u64; layer.output_shape().iter().product::<usize>().div_ceil(2)];
                let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..4 * expected.len()];
                let shape = layer.output_shape();
                let mut y = [TensorViewMut::from_bytes(DType::F32, &shape, bytes).unwrap()];
                session.run(&[x.view()], &mut y).unwrap();
                let found: Vec<f32> = bytemuck::pod_collect_to_vec(y[0].bytes_mut());
                assert!(found == expected, "{layer}, {form}, {target}: {name} computes something else");
                seen += 1;
                for (kind, count) in ["interleaved", "strided", "channels", "phases"].iter().zip(&mut by_kind)
                {
                    *count += usize::from(name.contains(kind));
                }
            }
        }
    }
    assert!(
        seen > 10 * cases(60) && by_kind.iter().all(|&count| 4 * count > cases(60)),
        "{seen}: {by_kind:?}"
    );
}

const NETWORK: &str = "input %x : f32[1, 6, 9, 10]
const @w : f32[6, 4, 4, 4] = seeded(1)
const @v : f32[3, 4, 3, 3] = seeded(2)
%a = ConvTranspose(%x, @w) {strides=[2, 2], pads=[1, 1, 1, 1]}
%b = Relu(%a)
%y = Conv(%b, @v) {pads=[1, 1, 1, 1]}
output %y
";

fn network() -> Model {
    let mut graph: Graph = NETWORK.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_graph(graph)
}

#[test]
fn what_was_measured_is_kept_and_taken() {
    let model = network();
    let compiler = Compiler::new();
    let mut tuning = Tuning::new();
    let mut layers = vec![];
    compiler.tune(&model, &mut tuning, |progress| layers.push((progress.done, progress.layers))).unwrap();
    assert_eq!(layers, [(0, 2), (1, 2)]);
    assert!(tuning.len() > 2, "{tuning:?}");
    let once = tuning.clone();
    compiler.tune(&model, &mut tuning, |_| {}).unwrap();
    assert!(tuning == once, "what is known was measured again");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("of/measurements.json");
    assert!(Tuning::read(&file).unwrap().is_empty());
    tuning.write(&file).unwrap();
    assert!(Tuning::read(&file).unwrap() == tuning);

    let x = Tensor::seeded(DType::F32, [1, 6, 9, 10], 3).unwrap();
    let expected = model.interpret([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
    let report = |tuning: &Tuning, threads| {
        let compiled = Compiler::new().threads(threads).tuning(tuning).compile(&model).unwrap();
        let found = compiled.run([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
        assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-4));
        compiled.report()
    };
    assert_eq!(report(&tuning, 1).layers[0].reason, "it was measured to be the fastest");
    // Measured for one thread only.
    assert_ne!(report(&tuning, 2).layers[0].reason, "it was measured to be the fastest");

    // Another form and schedules that do not exist: the form is taken, schedules are estimated.
    let text = fs::read_to_string(&file).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for record in json["settings"].as_object_mut().unwrap().values_mut() {
        for (list, name) in [("forms", "zero-insert"), ("schedules", "channels 9x99 packed 1x1 0")] {
            record[list].as_object_mut().unwrap().values_mut().for_each(|entry| *entry = name.into());
        }
    }
    fs::write(&file, json.to_string()).unwrap();
    let edited = report(&Tuning::read(&file).unwrap(), 1);
    assert_eq!(edited.layers[0].form, "zero-insert");
    assert_eq!(edited.steps[1].kernel, report(&Tuning::new(), 1).steps[1].kernel);
}

#[test]
fn files_of_measurements_are_joined_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuning.json");
    let measured = |threads| {
        let mut tuning = Tuning::new();
        Compiler::new().threads(threads).tune(&network(), &mut tuning, |_| {}).unwrap();
        tuning
    };
    let (one, two) = (measured(1), measured(2));
    one.write(&file).unwrap();
    two.write(&file).unwrap();
    assert_eq!(Tuning::read(&file).unwrap().len(), one.len() + two.len());

    let text = fs::read_to_string(&file).unwrap();
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    fs::write(&file, text.replace(&version, "\"0.0.0\"")).unwrap();
    assert!(Tuning::read(&file).unwrap().is_empty());
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let error = Tuning::read(&file).unwrap_err();
    assert!(matches!(error, Error::Tuning { .. }) && error.to_string().contains("tuning.json"), "{error}");
    assert!(one.write(&file).is_err(), "a file that is not understood was overwritten");
    assert!(one.write(folder.path().join("tuning.json/below")).is_err());
}

#[test]
fn open_extents_cannot_be_measured() {
    let text = NETWORK.replace("f32[1, 6, 9, 10]", "f32[1, 6, H, 10]");
    let mut graph: Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    let model = Model::from_graph(graph);
    let error = Compiler::new().tune(&model, &mut Tuning::new(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("`x` f32[1, 6, H, 10]"), "{error}");
    Compiler::new().input_shape("x", [1, 6, 4, 10]).tune(&model, &mut Tuning::new(), |_| {}).unwrap();
}
