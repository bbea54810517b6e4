//! Runs every case under `tests/filetests`: a graph, the passes its directives name, and the graph that is expected.
//! `TCONVC_BLESS=1 cargo test --test filetests` writes what was found; see `docs/text-form.md`.

use std::path::Path;
use tconvc_ir::Graph;
use tconvc_passes::pipeline::{find, run_passes};
use tconvc_passes::{Form, Options, Pass, optimise};
use tconvc_testing::filetest::{self, Directives};

/// The passes by name, in their order, each to its fixpoint; `passes: all` is the whole pipeline. The directive `form`
/// forces a form.
fn apply(directives: &Directives, graph: &mut Graph) -> Result<(), String> {
    let mut options = Options::default();
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

fn case(path: &Path) -> datatest_stable::Result<()> {
    Ok(filetest::run(path, &apply)?)
}

datatest_stable::harness! {
    { test = case, root = "tests/filetests", pattern = r"\.tir$" },
}
