//! The command line, as data.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tconvc::{Compat, Form, Target};

/// Compiles neural networks that up-sample.
#[derive(Parser)]
#[command(name = "tconvc", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compile a model, and show or write what comes out
    Compile(Compile),
    /// Run a model on arrays
    Run(Run),
    /// Time a model
    Bench(Bench),
    /// Check results against the reference interpreter or stored outputs
    Verify(Verify),
    /// Say for each ConvTranspose which form is used, and why
    Explain(Explain),
    /// Print the graph as text
    Inspect(Inspect),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// How much a command may take.
#[derive(Args)]
pub struct LimitOptions {
    /// Most MiB for tensors, packed weights, workspaces and files together; otherwise an eighth of the machine's memory, but
    /// 1024 and no more than half of it, and twice the size of the files
    #[arg(long = "memory-limit", value_name = "MIB")]
    pub memory: Option<u32>,
    /// Seconds after which the command ends with an error; otherwise as many as it takes
    #[arg(long = "time-limit", value_parser = seconds, value_name = "S")]
    pub time: Option<f64>,
    /// Most rounds of Loop and Scan in a run, nested ones included
    #[arg(long = "round-limit", default_value_t = 1 << 18, value_name = "N")]
    pub rounds: u32,
}

/// Options of everything that compiles.
#[derive(Args)]
pub struct CompileOptions {
    /// Form of all transposed convolutions
    #[arg(long, default_value = "auto", value_parser = form, value_name = "auto|scatter|zero-insert|sub-pixel")]
    pub form: Form,
    /// Whose meaning operators have where engines disagree
    #[arg(long, default_value = "onnx", value_parser = compat, value_name = "onnx|onnxruntime")]
    pub compat: Compat,
    /// Extents of an input that the model leaves open
    #[arg(long = "shape", value_parser = shape, value_name = "NAME=1x3x224x224")]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Processor to make code for
    #[arg(long, default_value = "host", value_parser = target, value_name = "host|x86-64-v3|x86-64-v4|aarch64|..")]
    pub target: Target,
    /// Threads that share each layer
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Whether sums may be rounded otherwise than by the definition where that is faster
    #[arg(long, default_value = "on", value_enum, value_name = "on|off", hide_possible_values = true)]
    pub fast_math: Switch,
    /// Measure forms and schedules on this machine, those that the cache does not know, and take the fastest
    #[arg(long)]
    pub tune: bool,
    /// File that keeps what `--tune` measures; in the user's cache folder otherwise
    #[arg(long, requires = "tune", value_name = "FILE")]
    pub tune_cache: Option<PathBuf>,
    /// Most MiB that a compiled network may take for values between its layers
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub workspace_limit: u32,
    #[command(flatten)]
    pub limits: LimitOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Args)]
pub struct Compile {
    /// ONNX file
    pub model: PathBuf,
    /// What to show or write
    #[arg(long, default_value = "jit", value_enum)]
    pub emit: Emit,
    /// File to write to, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub options: CompileOptions,
    /// Stop rewriting after this pass, or after its first N rewrites
    #[arg(long, value_name = "PASS[:N]")]
    pub stop_after: Option<String>,
    /// Arrays to run on with `--emit jit`; seeded ones otherwise
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Option<PathBuf>,
    /// Check the result against the reference interpreter
    #[arg(long)]
    pub verify: bool,
    /// What is an error: `interpreted`, a step that no kernels are made for
    #[arg(long, value_enum, value_name = "WHAT")]
    pub deny: Vec<Deny>,
}

/// What can be denied.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// Steps that are run by their operators' definition
    Interpreted,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// Compile, run once, and report
    Jit,
    /// The rewritten graph as text
    Ir,
    /// The rewritten graph as an ONNX file
    Onnx,
    /// The code generator's own text
    Clif,
    /// Assembly
    Asm,
    /// The rewritten graph for Graphviz
    Dot,
}

#[derive(Args)]
pub struct Run {
    /// ONNX file
    pub model: PathBuf,
    /// Input arrays, under the names of the model's inputs
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Vec<PathBuf>,
    /// One input array
    #[arg(long = "input", value_parser = named_file, value_name = "NAME=FILE.npy")]
    pub input: Vec<(String, PathBuf)>,
    /// File for the outputs, under the names of the model's outputs
    #[arg(long, value_name = "OUT.npz")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub options: CompileOptions,
}

#[derive(Args)]
pub struct Bench {
    /// ONNX file
    pub model: PathBuf,
    /// Input arrays; seeded ones otherwise
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub options: CompileOptions,
    /// How long to measure
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "S")]
    pub seconds: f64,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Time of each step as well, and its share of what the machine could do
    #[arg(long, conflicts_with = "json")]
    pub profile: bool,
    /// File for the steps of a few runs as a Chrome trace
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

#[derive(Args)]
pub struct Verify {
    /// ONNX files, or folders: of a case in ONNX's backend-test layout, of such folders, or of ONNX files
    #[arg(required = true, value_name = "MODEL-OR-FOLDER")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub options: CompileOptions,
}

#[derive(Args)]
pub struct Explain {
    /// ONNX file
    pub model: PathBuf,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub options: CompileOptions,
}

#[derive(Args)]
pub struct Inspect {
    /// ONNX file
    pub model: PathBuf,
    /// Rewrite up to and with this pass first
    #[arg(long, value_name = "PASS[:N]")]
    pub after: Option<String>,
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Extents of an input that the model leaves open
    #[arg(long = "shape", value_parser = shape, value_name = "NAME=1x3x224x224")]
    pub shapes: Vec<(String, Vec<usize>)>,
}

#[derive(Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

fn form(text: &str) -> Result<Form, String> {
    text.parse().map_err(|error: tconvc::OptionError| error.to_string())
}

fn compat(text: &str) -> Result<Compat, String> {
    text.parse().map_err(|error: tconvc::OptionError| error.to_string())
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|error| error.to_string())
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = || format!("`{text}` is not of the form NAME=1x3x224x224");
    // Names may hold an equals sign; extents do not.
    let (name, extents) = text.rsplit_once('=').ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    if extents.is_empty() {
        return Ok((name.to_owned(), vec![]));
    }
    let extents =
        extents.split('x').map(|extent| extent.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    Ok((name.to_owned(), extents))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("`{text}` is not a number from 0 to 3600")),
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err(format!("`{text}` is not of the form NAME=FILE.npy")),
    }
}
