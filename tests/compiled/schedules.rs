//! Every schedule that can be chosen in the place of the estimated one computes the same, in exact integers; and measuring
//! them, keeping and taking what was found.

use crate::geometries::{
    blockwise_layer, deep_layer, random_layer, rolling_layer, stacked_layer, strided_layer,
};
use crate::layer::Layer;
use crate::support::{FORMS, cases, compiler, every_target, is_run, targets};
use crate::winograd::{TOLERANCE, wide_layer};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tconvc::{Compiler, DType, Error, Form, Model, Target, Tensor, TensorViewMut, Tuning};
use tconvc_codegen::artifact::Artifact;
use tconvc_codegen::compile;
use tconvc_codegen::options::{Choice, FastMath, Options, Schedules};
use tconvc_ir::Graph;
use tconvc_passes::plan::plan;
use tconvc_runtime::executor::Serial;
use tconvc_runtime::session::Session;

/// A layer rewritten into a form.
fn rewritten(layer: &Layer, form: Form) -> Graph {
    let mut graph = Graph::new("layer");
    let y = layer.add_to(&mut graph, 0);
    graph.add_output(y);
    compiler().form(form).rewrite(&Model::from_graph(graph)).unwrap().graph().clone()
}

fn compiled(graph: &Graph, target: &Target, fast_math: FastMath, schedules: Schedules) -> Artifact {
    let options = Options { fast_math, schedules, list_choices: true, ..Options::new(target.clone()) };
    compile::compile(graph, &plan(graph, &tconvc_passes::Limits::default()).unwrap(), &options, &Serial)
        .unwrap()
}

/// What a network of one input and one output computes.
fn run(compiled: Artifact, x: &Tensor) -> Vec<f32> {
    let program = compiled.load().unwrap();
    let mut session = Session::new(&program, Arc::new(Serial)).unwrap();
    let port = &program.outputs()[0];
    let mut words = vec![0u64; port.bytes().div_ceil(8)];
    let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..port.bytes()];
    let mut y = [TensorViewMut::from_bytes(port.dtype, &port.shape, bytes).unwrap()];
    session.run(&[x.view()], &mut y).unwrap();
    bytemuck::pod_collect_to_vec(y[0].bytes_mut())
}

/// Schedules of the convolutions of a graph, one at a time and with its name, that take the place of the estimated ones.
pub fn others(graph: &Graph, target: &Target) -> Vec<(String, Schedules)> {
    let choices = compiled(graph, target, FastMath::Off, Schedules::default()).choices;
    let of = |Choice { problem, others, .. }: Choice| {
        others.into_iter().map(move |name| (name.clone(), Schedules::from_iter([(problem.clone(), name)])))
    };
    choices.into_iter().flat_map(of).collect()
}

/// Whether tiles take several rows: `6x2x3`.
pub fn has_tiles_over_rows(schedule: &str) -> bool {
    schedule.split(' ').any(|word| word.matches('x').count() == 2)
}

#[test]
fn all_schedules_compute_the_same() {
    let targets = every_target();
    let stores = ["interleaved", "joint", "strided", "channels", "transposed", "phases"];
    let kinds = [&stores[..], &["packed", "line-buffer", "direct"], &["collapsed", "height"]].concat();
    let (mut seen, mut by_kind, mut over_rows) = (0, vec![0; kinds.len()], [0; 2]);
    for number in 0..cases(100) {
        let layers = [random_layer, deep_layer, strided_layer, blockwise_layer, stacked_layer, rolling_layer];
        let layer = layers[number % 6](9 << 32 | number as u64);
        let target = &targets[number / 6 % targets.len()];
        let (x, expected) = (layer.input(), layer.expected());
        for form in FORMS {
            let graph = rewritten(&layer, form);
            let estimated = compiled(&graph, target, FastMath::Off, Schedules::default());
            let [Choice { problem, others, .. }] = estimated.choices.as_slice() else { continue };
            for name in others {
                let schedules = Schedules::from_iter([(problem.clone(), name.clone())]);
                let other = compiled(&graph, target, FastMath::Off, schedules);
                assert_eq!(other.choices[0].chosen, *name, "{layer}, {form}, {target}");
                let is_right = !is_run(target) || run(other, &x) == expected;
                assert!(is_right, "{layer}, {form}, {target}: {name} computes something else");
                seen += 1;
                for (kind, count) in kinds.iter().zip(&mut by_kind) {
                    *count += usize::from(name.contains(kind));
                }
                if has_tiles_over_rows(name) {
                    over_rows[usize::from(name.contains("line-buffer"))] += 1;
                }
            }
        }
    }
    assert!(
        seen > 10 * cases(100) && by_kind.iter().chain(&over_rows).all(|&count| 4 * count > cases(100)),
        "{seen}: {by_kind:?} {over_rows:?}"
    );
}

/// By every Winograd schedule there is, and directly.
#[test]
fn all_winograd_schedules_compute_the_same() {
    let targets = every_target();
    let mut seen = 0;
    for number in 0..cases(24) {
        let layer = wide_layer(10 << 32 | number as u64);
        let target = &targets[number % targets.len()];
        let (x, expected) = (layer.input(), layer.expected());
        let largest = expected.iter().fold(1f32, |largest, value| largest.max(value.abs()));
        let graph = rewritten(&layer, Form::SubPixel);
        let estimated = compiled(&graph, target, FastMath::WherePays, Schedules::default());
        for Choice { problem, chosen, others } in &estimated.choices {
            for name in others.iter().filter(|name| name.starts_with("winograd")) {
                let schedules = Schedules::from_iter([(problem.clone(), name.clone())]);
                let other = compiled(&graph, target, FastMath::WherePays, schedules);
                assert_eq!(other.choices[0].chosen, *name, "{layer}, {target}, in the place of {chosen}");
                let found = if is_run(target) { run(other, &x) } else { expected.clone() };
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(
                        (found - expected).abs() <= TOLERANCE as f32 * largest,
                        "{layer}, {target}, {name}: {found}, not {expected}"
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > cases(24), "only {seen} schedules");
}

/// The decomposition of a dilated convolution is a choice like others, as columns and as rows.
#[test]
fn decompositions_can_be_chosen() {
    let mut seen = [0; 2];
    for (dilation, kernel, extent) in [(2, 3, 41), (3, 7, 90), (4, 3, 41), (5, 11, 131), (16, 3, 200)] {
        let pad = dilation * (kernel / 2);
        let text = format!(
            "input %x : f32[2, 3, {extent}]\nconst @w : f32[2, 3, {kernel}] = seeded(1)\n\
             %y = Conv(%x, @w) {{dilations=[{dilation}], pads=[{pad}, {pad}]}}\noutput %y\n"
        );
        let mut graph: Graph = text.parse().unwrap();
        tconvc_ir::infer::infer(&mut graph).unwrap();
        let x = Tensor::seeded(DType::F32, [2, 3, extent], 2).unwrap();
        let expected = Model::from_graph(graph.clone()).interpret([("x", x.view())]).unwrap();
        let expected = expected[0].elements::<f32>().unwrap();
        for target in every_target() {
            let estimated = compiled(&graph, &target, FastMath::WherePays, Schedules::default());
            let Choice { problem, chosen, others } = estimated.choices[0].clone();
            for name in others.into_iter().chain([chosen]).collect::<Vec<_>>() {
                let schedules = Schedules::from_iter([(problem.clone(), name.clone())]);
                let other = compiled(&graph, &target, FastMath::WherePays, schedules);
                assert_eq!(other.choices[0].chosen, name);
                let found = if is_run(&target) { run(other, &x) } else { expected.to_vec() };
                for (found, expected) in found.iter().zip(expected.iter()) {
                    assert!((found - expected).abs() < 1e-5, "{name}: {found}, not {expected}");
                }
                for (seen, kind) in seen.iter_mut().zip(["dilation", "dilation as rows"]) {
                    *seen += usize::from(name == kind);
                }
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen >= 5), "{seen:?}");
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
fn measuring_stops_when_told_and_keeps_the_layers_that_are_done() {
    let model = network();
    let (mut tuning, done) = (Tuning::new(), AtomicUsize::new(0));
    let go_on = || done.load(Ordering::Relaxed) == 0;
    let stopped = compiler().tune_while(
        &model,
        &mut tuning,
        |progress| done.store(progress.done, Ordering::Relaxed),
        go_on,
    );
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert!(!tuning.is_empty());
    let first = tuning.clone();
    compiler().tune(&model, &mut tuning, |_| {}).unwrap();
    assert!(tuning.len() > first.len());
}

#[test]
fn what_was_measured_is_kept_and_taken() {
    let model = network();
    let mut tuning = Tuning::new();
    let mut layers = vec![];
    compiler().tune(&model, &mut tuning, |progress| layers.push((progress.done, progress.layers))).unwrap();
    assert_eq!(layers, [(0, 2), (1, 2)]);
    assert!(tuning.len() > 2, "{tuning:?}");
    let once = tuning.clone();
    compiler().tune(&model, &mut tuning, |_| {}).unwrap();
    assert!(tuning == once, "what is known was measured again");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("of/measurements.json");
    assert!(Tuning::read(&file).unwrap().is_empty());
    tuning.write(&file).unwrap();
    assert!(Tuning::read(&file).unwrap() == tuning);

    let x = Tensor::seeded(DType::F32, [1, 6, 9, 10], 3).unwrap();
    let expected = model.interpret([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
    let report = |tuning: &Tuning, threads| {
        let compiled = compiler().threads(threads).tuning(tuning).compile(&model).unwrap();
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
        compiler().threads(threads).tune(&network(), &mut tuning, |_| {}).unwrap();
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
    let error = compiler().tune(&model, &mut Tuning::new(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("`x` f32[1, 6, H, 10]"), "{error}");
    compiler().input_shape("x", [1, 6, 4, 10]).tune(&model, &mut Tuning::new(), |_| {}).unwrap();
}

#[test]
fn rows_of_phases_that_are_alike_share_their_code() {
    for target in targets() {
        let calls = |rows: usize| {
            let text = format!(
                "input %x : f32[1, 64, 14, 14]
const @w : f32[64, 3, {rows}, 4] = seeded(1)
%y = ConvTranspose(%x, @w) {{strides=[{rows}, 4]}}
output %y
"
            );
            let model = Model::from_graph(text.parse().unwrap());
            let compiler = Compiler::new().form(Form::SubPixel).target(target.clone());
            compiler.listing(&model, true).unwrap().matches("call fn").count()
        };
        assert!(calls(8) > 0 && calls(32) <= calls(8), "{target}: {} calls, then {}", calls(8), calls(32));
    }
}
