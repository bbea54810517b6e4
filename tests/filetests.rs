//! Runs every case under `tests/filetests`: a graph, the passes its directives name, and the graph that is expected; and under
//! `schedules`, what is decided about named layers for a target and its caches.
//! `TCONVC_BLESS=1 cargo test --test filetests` writes what was found; see `docs/text-form.md`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tconvc_codegen::costs::KernelCosts;
use tconvc_ir::{Bindings, Graph, infer};
use tconvc_machine::Target;
use tconvc_passes::cost::Machine;
use tconvc_passes::pipeline::{find, run_passes};
use tconvc_passes::{Form, Options, Pass, optimise};
use tconvc_testing::filetest::{self, Directives};
use tconvc_testing::layers::{LAYERS, Layer};

/// The passes by name, in their order, each to its fixpoint; `passes: all` is the whole pipeline. The directive `form`
/// forces a form.
fn apply(directives: &Directives, graph: &mut Graph) -> Result<(), String> {
    let target = Target::parse("x86-64-v3@zen3").map_err(|error| error.to_string())?;
    let mut options = options_for(&target, 1);
    if let Some(form) = directives.get("form") {
        options.form = form.parse::<Form>().map_err(|error| error.to_string())?;
    }
    let names = directives.passes();
    if names == ["all"] {
        return optimise(graph, &options).map(drop).map_err(|error| error.to_string());
    }
    for name in names {
        let pass: &dyn Pass = find(name).map_err(|error| error.to_string())?;
        run_passes(graph, &[pass], &options).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The options of a compiler for a target.
fn options_for(target: &Target, threads: usize) -> Options {
    let code = tconvc_codegen::options::Options::new(target.clone());
    Options {
        machine: Machine::new(target.rates(), threads),
        algorithms: Arc::new(KernelCosts::new(&code)),
        ..Options::default()
    }
}

/// What is decided about every layer, a line each: form, what lanes run along, schedule.
fn decisions(directives: &Directives) -> Result<String, String> {
    let directive = |key: &str| directives.get(key).ok_or_else(|| format!("the directive {key} is missing"));
    let threads = directive("threads")?.parse().map_err(|error| format!("directive threads: {error}"))?;
    let target = Target::parse(directive("target")?).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for layer in &LAYERS {
        let (form, schedule, along) = decision(layer, &target, threads)?;
        writeln!(text, "{:<27}{:<12}{along:<9}{schedule}", layer.name, form.name())
            .map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn decision(layer: &Layer, target: &Target, threads: usize) -> Result<(Form, String, &'static str), String> {
    let text = |error: &dyn std::fmt::Display| format!("{}: {error}", layer.name);
    let geometry = layer.geometry().map_err(|error| text(&error))?;
    let mut graph: Graph = graph_of(layer).parse().map_err(|error| text(&error))?;
    infer::bind(&mut graph, &Bindings::new()).map_err(|error| text(&error))?;
    let journal = optimise(&mut graph, &options_for(target, threads)).map_err(|error| text(&error))?;
    let entry = journal.applied().find(|entry| entry.pass == "forms").ok_or_else(|| text(&"no form"))?;
    if entry.decision.subject != geometry.to_string() {
        return Err(text(&format!("{} is not {geometry}", entry.decision.subject)));
    }
    let form: Form = entry.decision.chosen.parse().map_err(|error| text(&error))?;
    let costs = KernelCosts::new(&tconvc_codegen::options::Options::new(target.clone()));
    let decided = costs.decide(&geometry, form, threads).map_err(|error| text(&error))?;
    Ok((form, decided.schedule, decided.vectors_along))
}

/// The layer as text; what is decided does not depend on the weights.
fn graph_of(layer: &Layer) -> String {
    let [cin, cout] = layer.channels;
    let axes = layer.input.len();
    let list = |of: &[usize]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let all = |number: usize, count: usize| list(&vec![number; count]);
    format!(
        "input %x : f32[{}, {cin}, {}]\ninput %w : f32[{cin}, {}, {}]\n%y = ConvTranspose(%x, %w) {{dilations=[{}], \
         group={}, output_padding=[{}], pads=[{}], strides=[{}]}}\noutput %y\n",
        layer.batch,
        list(layer.input),
        cout / layer.group,
        all(layer.kernel, axes),
        all(layer.dilation, axes),
        layer.group,
        all(layer.output_padding, axes),
        all(layer.pad, 2 * axes),
        all(layer.stride, axes),
    )
}

/// Files of schedules hold directives alone; all others are graphs.
fn run(path: &Path) -> Result<(), String> {
    if path.extension().is_some_and(|extension| extension == "schedule") {
        return filetest::run_text(path, &|directives, _| decisions(directives));
    }
    filetest::run(path, &apply)
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let case = |(name, path): (String, PathBuf)| Trial::test(name, move || run(&path).map_err(Failed::from));
    let trials = filetest::cases(&root).into_iter().map(case).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
