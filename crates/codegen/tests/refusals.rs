//! Each family of kernels: nodes that it takes, and every reason for which it refuses one. Nothing runs: plans are surveyed.

use std::fmt::Write as _;
use tconvc_codegen::compile::{Estimate, compile, survey};
use tconvc_codegen::options::Options;
use tconvc_ir::{Graph, infer};
use tconvc_machine::Target;
use tconvc_passes::Limits;
use tconvc_passes::plan::{Plan, plan};
use tconvc_runtime::executor::Serial;

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn target() -> Target {
    Target::parse("x86-64-v3").unwrap()
}

fn graph(text: &str) -> Graph {
    let mut graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    infer::infer(&mut graph).unwrap_or_else(|error| panic!("{error}\n{text}"));
    graph
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn planned(graph: &Graph) -> Plan {
    plan(graph, &Limits::of(target().vectors())).unwrap()
}

fn estimates(text: &str) -> Vec<Estimate> {
    let graph = graph(text);
    survey(&graph, &planned(&graph), &target())
}

/// One node of a type and shape, with constants before it; the last line makes `%y`.
fn node(input: &str, lines: &str) -> String {
    format!("input %x : {input}\n{lines}\noutput %y")
}

/// Name, input, lines. Those that are taken come first in each family.
const CASES: &[(&str, &str, &str)] = &[
    ("convolution", "f32[1, 2, 5, 5]", "const @w : f32[3, 2, 3, 3] = seeded(1)\n%y = Conv(%x, @w)"),
    ("weights at run time", "f32[1, 2, 5, 5]", "input %w : f32[3, 2, 3, 3]\n%y = Conv(%x, %w)"),
    (
        "bias at run time",
        "f32[1, 2, 5, 5]",
        "input %b : f32[3]\nconst @w : f32[3, 2, 3, 3] = seeded(1)\n%y = Conv(%x, @w, %b)",
    ),
    ("f16", "f16[1, 2, 5, 5]", "input %w : f16[3, 2, 3, 3]\n%y = Conv(%x, %w)"),
    (
        "slopes at run time",
        "f32[1, 2, 5, 5]",
        "input %s : f32[3, 1, 1]\nconst @w : f32[3, 2, 3, 3] = seeded(1)\n%y = Conv(%x, @w, _, %s) {epilogue=[\"PRelu\"]}",
    ),
    (
        "many taps of patches",
        "f32[1, 1, 2, 2]",
        "const @w : f32[1, 1, 80, 80] = seeded(1)\n%c = ColumnGemm(%x, @w)\n%y = OverlapAdd(%c) {input=[2, 2], kernel=[80, 80]}",
    ),
    ("many taps", "f32[1, 1, 100, 100]", "const @w : f32[1, 1, 95, 95] = seeded(1)\n%y = Conv(%x, @w)"),
    (
        "large input tile",
        "f32[1, 1, 9000, 9000]",
        "const @w : f32[1, 1, 2, 2] = seeded(1)\n%y = Conv(%x, @w) {dilations=[5000, 5000]}",
    ),
    ("cast", "f32[4]", "%y = Cast(%x) {to=i32}"),
    ("cast of f16", "f16[4]", "%y = Cast(%x) {to=f32}"),
    ("cast of u64", "u64[4]", "%y = Cast(%x) {to=f32}"),
    ("pooling", "f32[1, 2, 6, 6]", "%y = MaxPool(%x) {kernel_shape=[2, 2], strides=[2, 2]}"),
    ("pooling of f64", "f64[1, 2, 6, 6]", "%y = MaxPool(%x) {kernel_shape=[2, 2]}"),
    ("lp pooling", "f32[1, 2, 6, 6]", "%y = LpPool(%x) {kernel_shape=[2, 2]}"),
    ("indices of maxima", "f32[1, 2, 6, 6]", "%y, %i = MaxPool(%x) {kernel_shape=[2, 2]}\noutput %i"),
    ("reduction", "f32[2, 3, 4]", "const @a : i64[1] = [1]\n%y = ReduceMean(%x, @a)"),
    ("reduction of integers", "i32[2, 3]", "const @a : i64[1] = [1]\n%y = ReduceSum(%x, @a)"),
    ("axes at run time", "f32[2, 3]", "input %a : i64[1]\n%y : f32[2, 1] = ReduceSum(%x, %a)"),
    ("axes apart", "f32[2, 3, 4]", "const @a : i64[2] = [0, 2]\n%y = ReduceSum(%x, @a)"),
    ("product of a row", "f32[2, 3]", "const @a : i64[1] = [1]\n%y = ReduceProd(%x, @a)"),
    ("reduction of nothing", "f32[2, 0]", "const @a : i64[1] = [1]\n%y = ReduceSum(%x, @a)"),
    ("global lp pooling", "f32[1, 2, 6, 6]", "%y = GlobalLpPool(%x) {p=3}"),
    ("product", "f32[2, 3]", "const @w : f32[3, 4] = seeded(1)\n%y = MatMul(%x, @w)"),
    ("product of integers", "i32[2, 3]", "input %w : i32[3, 4]\n%y = MatMul(%x, %w)"),
    ("transposed right side", "f32[2, 3]", "input %w : f32[4, 3]\n%y = Gemm(%x, %w) {transB=1}"),
    (
        "post-ops of another shape",
        "f32[2, 3]",
        "const @w : f32[3, 4] = seeded(1)\nconst @r : f32[2, 1] = seeded(2)\n%m = MatMul(%x, @w)\n%y = Add(%m, @r)",
    ),
    (
        "post-ops of what is refused",
        "f32[2, 3]",
        "input %w : f32[4, 3]\n%m = Gemm(%x, %w) {transB=1}\n%y = Relu(%m)",
    ),
    (
        "recurrent cell",
        "f32[5, 1, 3]",
        "const @w : f32[1, 16, 3] = seeded(1)\nconst @r : f32[1, 16, 4] = seeded(2)\n%y = LSTM(%x, @w, @r) {hidden_size=4}",
    ),
    (
        "recurrent weights at run time",
        "f32[5, 1, 3]",
        "input %w : f32[1, 16, 3]\nconst @r : f32[1, 16, 4] = seeded(2)\n%y = LSTM(%x, %w, @r) {hidden_size=4}",
    ),
    (
        "reset after",
        "f32[5, 1, 3]",
        "const @w : f32[1, 12, 3] = seeded(1)\nconst @r : f32[1, 12, 4] = seeded(2)\n%y = GRU(%x, @w, @r) {hidden_size=4}",
    ),
    (
        "plain recurrence",
        "f32[5, 1, 3]",
        "const @w : f32[1, 4, 3] = seeded(1)\nconst @r : f32[1, 4, 4] = seeded(2)\n%y = RNN(%x, @w, @r) {hidden_size=4}",
    ),
    (
        "clip",
        "f32[5, 1, 3]",
        "const @w : f32[1, 16, 3] = seeded(1)\nconst @r : f32[1, 16, 4] = seeded(2)\n%y = LSTM(%x, @w, @r) {hidden_size=4, clip=1.0}",
    ),
    ("softmax", "f32[2, 8]", "%y = Softmax(%x)"),
    ("hardmax", "f32[2, 8]", "%y = Hardmax(%x)"),
    ("softmax of f64", "f64[2, 8]", "%y = Softmax(%x)"),
    ("normalisation", "f32[2, 8]", "const @s : f32[8] = seeded(1)\n%y = LayerNormalization(%x, @s)"),
    (
        "statistics",
        "f32[2, 8]",
        "const @s : f32[8] = seeded(1)\n%y, %m = LayerNormalization(%x, @s)\noutput %m",
    ),
    (
        "broadcast scale",
        "f32[2, 3, 8]",
        "const @s : f32[8] = seeded(1)\n%y = LayerNormalization(%x, @s) {axis=1}",
    ),
    (
        "resampling",
        "f32[1, 1, 4, 4]",
        "const @s : f32[4] = [1.0, 1.0, 2.0, 2.0]\n%y = Resize(%x, _, @s) {mode=\"linear\"}",
    ),
    (
        "resampling of f64",
        "f64[1, 1, 4, 4]",
        "const @s : f32[4] = [1.0, 1.0, 2.0, 2.0]\n%y = Resize(%x, _, @s) {mode=\"linear\"}",
    ),
    (
        "a region",
        "f32[1, 1, 4, 4]",
        "const @r : f32[8] = [0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 0.9, 0.9]\nconst @s : f32[4] = [1.0, 1.0, 2.0, 2.0]\n\
         %y = Resize(%x, @r, @s) {mode=\"linear\", coordinate_transformation_mode=\"tf_crop_and_resize\"}",
    ),
    ("movement", "f32[2, 3]", "%y = Transpose(%x) {perm=[1, 0]}"),
    ("strings", "str[2, 3]", "%y = Transpose(%x) {perm=[1, 0]}"),
    (
        "nearest of bytes",
        "u8[1, 1, 2, 2]",
        "const @s : f32[4] = [1.0, 1.0, 2.0, 2.0]\n%y = Resize(%x, _, @s)",
    ),
    (
        "updates added",
        "f32[4]",
        "const @i : i64[1, 1] = [2]\ninput %u : f32[1]\n%y = ScatterND(%x, @i, %u) {reduction=\"add\"}",
    ),
    (
        "a place twice",
        "f32[4]",
        "const @i : i64[2, 1] = [2, 2]\ninput %u : f32[2]\n%y = ScatterND(%x, @i, %u)",
    ),
    ("indices at run time", "f32[4]", "input %i : i64[1, 1]\ninput %u : f32[1]\n%y = ScatterND(%x, %i, %u)"),
    ("gathered at run time", "f32[4]", "input %i : i64[2]\n%y = Gather(%x, %i)"),
    ("an index out of range", "f32[4]", "const @i : i64[1] = [9]\n%y = Gather(%x, @i)"),
    ("elementwise", "f32[4]", "%y = Relu(%x)"),
    ("elementwise of integers", "i64[4]", "%y = Abs(%x)"),
    ("no vector code", "f32[4]", "%y = Tan(%x)"),
    ("no kernel", "f32[4]", "const @a : i64[] = 0\n%y = CumSum(%x, @a)"),
];

#[test]
fn each_family_says_what_it_takes_and_what_not() {
    let mut table = String::new();
    for (name, input, lines) in CASES {
        let _ = writeln!(table, "{name}:");
        for estimate in estimates(&node(input, lines)) {
            match estimate.refusal {
                None => table.push_str("    compiled\n"),
                Some(refusal) => _ = writeln!(table, "    {}: {}", refusal.family, refusal.reason),
            }
        }
    }
    insta::assert_snapshot!(table);
}

/// What is found out without code is what comes out.
#[test]
fn surveys_and_compilations_agree() {
    for (name, input, lines) in CASES.iter().filter(|(name, ..)| *name != "large input tile") {
        let text = node(input, lines);
        let (graph, surveyed) = (graph(&text), estimates(&text));
        let made = compile(&graph, &planned(&graph), &Options::new(target()), &Serial).unwrap();
        let refusals = |all: &[Estimate]| all.iter().map(|one| one.refusal.clone()).collect::<Vec<_>>();
        assert_eq!(refusals(&surveyed), refusals(&made.estimates), "{name}");
        let steps: usize = made.estimates.iter().map(|estimate| estimate.steps).sum();
        assert!(steps <= made.layout.steps.len(), "{name}");
    }
}

/// Nodes that were planned for more registers than there are: they are refused with numbers, on each target; none is an error.
#[test]
fn nodes_that_do_not_fit_say_so() {
    let mut lines = String::new();
    for i in 0..40 {
        let _ = writeln!(lines, "input %a{i} : f32[64]");
    }
    let mut last = "%x".to_owned();
    for i in 0..40 {
        let next = if i == 39 { "%y".to_owned() } else { format!("%t{i}") };
        let _ = writeln!(lines, "{next} = Add({last}, %a{i})");
        last = next;
    }
    let graph = graph(&node("f32[64]", lines.trim_end()));
    let plan = plan(&graph, &Limits { fused_inputs: 41, ..Limits::default() }).unwrap();
    for name in ["x86-64-v4", "x86-64-v3", "x86-64", "aarch64"] {
        let target = Target::parse(name).unwrap();
        let made = compile(&graph, &plan, &Options::new(target.clone()), &Serial).unwrap();
        let [Estimate { refusal: Some(refusal), .. }] = made.estimates.as_slice() else {
            panic!("{name}: {:?}", made.estimates)
        };
        assert!(refusal.reason.contains("registers are needed"), "{name}: {refusal}");
    }
}
