//! File tests: a graph, the passes to run on it, and the graph that is expected, in one file of the text form.
//!
//! ```text
//! ; Why this case is here.
//! ; passes: fold, dce
//!
//! graph g
//! ..
//!
//! ; expect
//!
//! graph g
//! ..
//! ```
//!
//! Lines `; key: value` before the graph are directives: `passes` names what to run, `evaluate: no` leaves out the
//! comparison of what both graphs compute, `tolerance` is for that comparison, and other keys are for the caller.
//! A pass that fails is expected as `; error: ..`. With `TCONVC_BLESS=1` in the environment what was found is written as
//! what is expected.

use crate::compare::check_same_meaning;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tconvc_ir::text::{Weights, parse, print};
use tconvc_ir::{Graph, infer, verify};

/// The line between a graph and what is expected of it.
const EXPECT: &str = "; expect";

/// Default of the directive `tolerance`.
const TOLERANCE: f64 = 1e-5;

/// The directives of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives(BTreeMap<String, String>);

impl Directives {
    fn read(text: &str) -> Self {
        let header = text.lines().take_while(|line| line.trim().is_empty() || line.starts_with(';'));
        let pair = |line: &str| {
            let (key, value) = line.strip_prefix(';')?.split_once(':')?;
            let key = key.trim();
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            is_key.then(|| (key.to_owned(), value.trim().to_owned()))
        };
        Self(header.filter_map(pair).collect())
    }

    /// Value of a directive.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The passes to run, in order.
    pub fn passes(&self) -> Vec<&str> {
        let list = self.get("passes").unwrap_or_default();
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
    }
}

/// The cases below a folder by name (`FOLDER/FILE.tir` or `.schedule`), in the order of their names.
///
/// # Panics
/// When a folder cannot be read, or there is no case: a harness that runs nothing must not pass.
pub fn cases(root: &Path) -> Vec<(String, PathBuf)> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a folder that can be read").path()) {
            match path.extension() {
                _ if path.is_dir() => visit(&path, found),
                Some(extension) if extension == "tir" || extension == "schedule" => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = vec![];
    visit(root, &mut found);
    assert!(!found.is_empty(), "there is no case below {}", root.display());
    found.sort();
    let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string().replace('\\', "/");
    found.into_iter().map(|path| (name(&path), path)).collect()
}

/// What runs the passes that the directives name.
pub type Apply<'a> = dyn Fn(&Directives, &mut Graph) -> Result<(), String> + 'a;

/// Runs the case of a file: types are inferred, the passes are run, and the result is compared as text. Before and after,
/// the graph must verify, and its text form must parse back to it; both must compute the same.
///
/// # Errors
/// Says what failed, with the lines that differ.
pub fn run(path: &Path, apply: &Apply<'_>) -> Result<(), String> {
    run_on(path, |text| check(text, apply))
}

/// Runs the case of a file that holds something else than a graph: `find` gets the directives and what stands before the line
/// `; expect`, and what it answers must be what stands behind that.
///
/// # Errors
/// Says what failed, with the lines that differ.
pub fn run_text(
    path: &Path,
    find: &dyn Fn(&Directives, &str) -> Result<String, String>,
) -> Result<(), String> {
    run_on(path, |text| {
        let (given, expected) = split(text);
        Ok(outcome(given, expected, &find(&Directives::read(given), given)?))
    })
}

fn run_on(path: &Path, check: impl FnOnce(&str) -> Result<Outcome, String>) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bless = std::env::var_os("TCONVC_BLESS").is_some_and(|value| !value.is_empty());
    match check(&text).map_err(|error| format!("{}: {error}", path.display()))? {
        Outcome::Same => Ok(()),
        Outcome::Differs { blessed, .. } if bless => {
            std::fs::write(path, blessed).map_err(|error| format!("{}: {error}", path.display()))
        }
        Outcome::Differs { report, .. } => Err(format!(
            "{}: the result is not the one expected (TCONVC_BLESS=1 accepts it)\n{report}",
            path.display()
        )),
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Same,
    Differs { report: String, blessed: String },
}

fn check(text: &str, apply: &Apply<'_>) -> Result<Outcome, String> {
    let (given, expected) = split(text);
    let directives = Directives::read(given);
    let mut graph = parse(given, &Weights::none()).map_err(|error| error.to_string())?;
    infer::infer(&mut graph).map_err(|error| error.to_string())?;
    check_graph(&graph).map_err(|error| format!("before the passes: {error}"))?;
    let before = graph.clone();
    let found = match apply(&directives, &mut graph) {
        Err(error) => format!("; error: {error}\n"),
        Ok(()) => {
            check_graph(&graph).map_err(|error| format!("after the passes: {error}\n{graph:?}"))?;
            if directives.get("evaluate") != Some("no") {
                let tolerance = match directives.get("tolerance") {
                    None => TOLERANCE,
                    Some(text) => {
                        text.parse().map_err(|_| format!("directive tolerance: `{text}` is no number"))?
                    }
                };
                check_same_meaning(&before, &graph, tolerance).map_err(|error| {
                    format!("{error} (the directive `; evaluate: no` leaves this check out)\n{graph:?}")
                })?;
            }
            print(&graph)
        }
    };
    Ok(outcome(given, expected, &found))
}

fn outcome(given: &str, expected: Option<&str>, found: &str) -> Outcome {
    let (wanted, found) = (expected.unwrap_or_default().trim_matches('\n').trim_end(), found.trim_end());
    if expected.is_some() && wanted == found {
        return Outcome::Same;
    }
    let report = difference(wanted, found);
    Outcome::Differs { report, blessed: format!("{}\n\n{EXPECT}\n\n{found}\n", given.trim_end()) }
}

/// The part before the line `; expect`, and the part behind it.
fn split(text: &str) -> (&str, Option<&str>) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == EXPECT {
            return (&text[..at], Some(&text[at + line.len()..]));
        }
        at += line.len();
    }
    (text, None)
}

fn check_graph(graph: &Graph) -> Result<(), String> {
    verify::verify(graph).map_err(|error| error.to_string())?;
    let again = parse(&print(graph), &Weights::of(graph)).map_err(|error| format!("its text: {error}"))?;
    if again == *graph { Ok(()) } else { Err("its text form parses to another graph".into()) }
}

/// Lines of both texts, those that differ marked with `-` (expected) and `+` (found).
fn difference(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    // Longest common subsequence, from the back.
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, vec![]);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("- {}", a[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::ops::Unary;

    const CASE: &str = "; A reason: with a colon.\n; passes: a, b\n; form: scatter\n\ngraph g\ninput %x : f32[2]\n\
                        %y = Relu(%x)\noutput %y\n";

    fn bless(text: &str, apply: &Apply<'_>) -> (String, String) {
        match check(text, apply).unwrap() {
            Outcome::Differs { report, blessed } => (report, blessed),
            Outcome::Same => panic!("nothing to bless"),
        }
    }

    #[test]
    fn directives_are_read() {
        let directives = Directives::read(CASE);
        assert_eq!(directives.passes(), ["a", "b"]);
        assert_eq!(directives.get("form"), Some("scatter"));
        assert_eq!(directives.get("x"), None);
    }

    #[test]
    fn a_blessed_case_passes() {
        let nothing: &Apply<'_> = &|_, _| Ok(());
        let (report, blessed) = bless(CASE, nothing);
        assert!(report.contains("+ %y : f32[2] = Relu(%x)"), "{report}");
        assert_eq!(check(&blessed, nothing), Ok(Outcome::Same));
        assert!(blessed.starts_with(CASE));
        let (report, again) = bless(&blessed.replace("f32[2] = Relu", "f32[3] = Relu"), nothing);
        assert!(report.contains("- %y : f32[3] = Relu(%x)\n+ %y : f32[2] = Relu(%x)"), "{report}");
        assert_eq!(again, blessed);
    }

    #[test]
    fn a_pass_that_fails_is_expected_as_an_error() {
        let (_, blessed) = bless(CASE, &|_, _| Err("no".into()));
        assert!(blessed.ends_with("; expect\n\n; error: no\n"), "{blessed}");
    }

    #[test]
    fn a_pass_that_changes_the_meaning_is_caught() {
        let negate: &Apply<'_> = &|_, graph| {
            let y = graph.find_value("y").and_then(|id| graph.producer(id));
            *graph.op_mut(y.ok_or("no node")?) = Unary::Neg.into();
            Ok(())
        };
        assert!(check(CASE, negate).unwrap_err().contains("of `y` is"));
        let unchecked = format!("; evaluate: no\n{CASE}");
        assert!(matches!(check(&unchecked, negate), Ok(Outcome::Differs { .. })));
    }

    #[test]
    fn a_pass_that_breaks_the_graph_is_caught() {
        let retype: &Apply<'_> = &|_, graph| {
            let y = graph.find_value("y").ok_or("no value")?;
            graph.set_ty(y, "f32[3]".parse().map_err(|error| format!("{error}"))?);
            Ok(())
        };
        assert!(check(CASE, retype).unwrap_err().contains("after the passes: "));
    }
}
