//! Runs the command in a folder of its own, and makes the files it works on.

use ndarray::{Array, IxDyn};
use ndarray_npy::{NpzWriter, WritableElement};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tconvc_ir::Graph;
use tconvc_testing::target_name;
use tempfile::TempDir;

/// Commands that make code; those in tests make it for [`target_name`], unless they say otherwise.
const COMPILING: [&str; 5] = ["compile", "run", "bench", "verify", "explain"];

/// A folder for the files of a test.
pub struct Folder {
    folder: TempDir,
    /// Whether commands that make code are told the target; what is wrong with a command's words shows without.
    pub names_target: bool,
}

/// The repository's own models.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

impl Folder {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), names_target: true }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a model that is given in the text form.
    pub fn model(&self, name: &str, text: &str) {
        let mut graph: Graph = text.parse().unwrap();
        tconvc_ir::infer::infer(&mut graph).unwrap();
        fs::write(self.path(name), tconvc_ir::onnx::write(&graph).unwrap()).unwrap();
    }

    /// Copies a model of the repository, under its own name.
    pub fn trained(&self, name: &str) {
        fs::copy(models().join(name), self.path(name)).unwrap();
    }

    /// Writes an npz file with one array.
    pub fn npz<T: WritableElement + Clone>(&self, name: &str, key: &str, shape: &[usize], value: T) {
        let mut npz = NpzWriter::new(File::create(self.path(name)).unwrap());
        npz.add_array(key, &Array::from_elem(IxDyn(shape), value)).unwrap();
        npz.finish().unwrap();
    }

    /// Runs the command; gives the exit status and all that it printed, with what differs from run to run taken out.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.run_in(arguments, &[])
    }

    /// As [`Folder::run`], with variables of the environment; those without a value are taken out of it.
    pub fn run_in(&self, arguments: &[&str], environment: &[(&str, Option<&Path>)]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tconvc"));
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(arguments);
        if self.names_target
            && arguments.first().is_some_and(|command| COMPILING.contains(command))
            && !arguments.contains(&"--target")
        {
            command.args(["--target", target_name()]);
        }
        command.current_dir(self.folder.path()).env("NO_COLOR", "1").env("COLUMNS", "100");
        let output = command.output().unwrap();
        let status = output.status.code().map_or("killed".into(), |code| code.to_string());
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        format!("$ tconvc {}\n{}exit status {status}\n", arguments.join(" "), text.concat())
    }

    /// As [`Folder::run`] for several lines; arguments are separated by spaces.
    pub fn run_all(&self, lines: &[&str]) -> String {
        let run = |line: &&str| self.run(&line.split_whitespace().collect::<Vec<_>>());
        lines.iter().map(run).collect::<Vec<_>>().join("\n")
    }
}

/// Compares with the snapshot of that name. Times become `[T]`, long lists of numbers `[..]`.
pub fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("../snapshots");
    settings.set_omit_expression(true);
    let text = without_measurements(text);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The text with `[T]`, `[S]` and `[D]` in the place of times, shares of them and distances, and long lists of numbers cut to `[..]`.
fn without_measurements(text: &str) -> String {
    let numbers = [
        ("predicted ", " times", "[T]"),
        ("\"predicted_us\": ", "", "[T]"),
        ("within ", " of", "[D]"),
        ("", " % of the time", "[S]"),
        ("\"share_percent\": ", "", "[S]"),
        ("", " %", "[S]"),
        ("", " us", "[T]"),
        ("", " ms", "[T]"),
    ];
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e');
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let length = if out.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            0
        } else {
            rest.find(|c| !is_part(c)).unwrap_or(rest.len())
        };
        let (number, after) = rest.split_at(length);
        let is_number = number.starts_with(|c: char| c.is_ascii_digit());
        let measured = numbers.iter().find(|(before, unit, _)| {
            // Where the length of a number shows, so does its padding.
            is_number && out.ends_with(before) && after.starts_with(unit)
        });
        if let Some((_, unit, place)) = measured {
            if *unit == " us" {
                out.truncate(out.trim_end_matches(' ').len());
                out.push(' ');
            }
            out.push_str(place);
            rest = after;
        } else if let Some(behind) = long_list(rest) {
            out.push_str("[..]");
            rest = behind;
        } else {
            let (taken, behind) = rest.split_at(length.max(first.len_utf8()));
            out.push_str(taken);
            rest = behind;
        }
    }
    out
}

/// What is behind a list of more than eight numbers that the text begins with.
fn long_list(text: &str) -> Option<&str> {
    let (list, behind) = text.strip_prefix('[')?.split_once(']')?;
    let are_numbers = list.split(", ").take(8).all(|number| number.parse::<f64>().is_ok());
    (list.split(", ").count() > 8 && are_numbers).then_some(behind)
}
