//! Runs every case under `tests/filetests`: a graph, the passes its directives name, and the graph that is expected.
//! `TCONVC_BLESS=1 cargo test --test filetests` writes what was found; see `docs/text-form.md`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let case = |(name, path): (String, PathBuf)| {
        Trial::test(name, move || filetest::run(&path, &apply).map_err(Failed::from))
    };
    let trials = filetest::cases(&root).into_iter().map(case).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
