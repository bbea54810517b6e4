//! Steps that are interpreted: all of them are listed, with reason and share of the time, wherever they stand; they are warned of
//! where they take much of it, and can be denied.

use crate::support::{check_reasons, compiler};
use tconvc::{DType, Error, InterpretedStep, Model, Outputs, Tensor};
use tconvc_ir::Graph;
use tconvc_testing::onnx_build::{
    self, floats, graph_attribute, int_attribute, ints, named_node, node, untyped, value,
};

fn model(text: &str) -> Model {
    let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}"));
    Model::from_graph(graph)
}

fn names(steps: &[InterpretedStep]) -> Vec<(&str, &str)> {
    steps.iter().map(|step| (step.node.as_str(), step.op.as_str())).collect()
}

/// An output that reads what is found in the data, behind sums along an axis.
const CUT: &str = "input %x : f32[6]
const @axis : i64[] = 0
%s = CumSum(%x, @axis) \"sums\"
%places = NonZero(%s) \"find\"
%twice = Abs(%places) \"twice\"
%tan = Tan(%s) \"tan\"
%y = Neg(%tan) \"neg\"
output %twice
output %y
";

/// Nodes before, between and behind two programs are listed one by one; `explain` lists what is known before the data come.
#[test]
fn nodes_between_programs_are_listed() {
    let model = model(CUT);
    let compiled = compiler().compile(&model).unwrap();
    let x = Tensor::from_vec([6], vec![1.0f32, -1.0, 2.0, 3.0, 0.5, -0.25]).unwrap();
    let mut session = compiled.session();
    let mut times = vec![];
    session.run_timed(&[x.view()], |step, time| times.push((step, time.as_secs_f64() * 1e6))).unwrap();
    let mut report = compiled.report();
    check_reasons(&report).unwrap();
    let all = [("sums", "CumSum"), ("tan", "Tan"), ("find", "NonZero"), ("twice", "Abs")];
    assert_eq!(names(&report.interpreted), all, "{report}");
    assert!(report.interpreted[2].reason.starts_with("extents follow from data"), "{report}");
    // A time for each, in the order of the report.
    assert_eq!(times.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{report}");
    let kernels: Vec<&str> = report.steps.iter().map(|step| step.kernel.as_str()).collect();
    assert_eq!(kernels[3..], ["interpreted NonZero", "interpreted Abs"], "{report}");
    report.set_times(&[1.0, 2.0, 3.0, 4.0, 10.0]);
    let shares: Vec<f64> = report.interpreted.iter().map(|step| step.share_percent.round()).collect();
    assert_eq!(shares.iter().sum::<f64>(), 85.0, "{report}");
    assert_eq!(shares[2..], [20.0, 50.0]);

    let explanation = compiler().explain(&model).unwrap();
    let before = explanation.interpreted.as_deref().unwrap();
    assert_eq!((names(before), explanation.undecided), (all[..3].to_vec(), 1), "{explanation}");
    assert!(explanation.to_string().contains("Extents of 1 node(s) follow from data"), "{explanation}");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["interpreted"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(json["undecided"], 1);
}

/// `h = tan(h)` eight times in a Loop, with an If in it, and a Scan over the rows of what is collected.
fn controlled() -> Model {
    let branch = |op: &str, name: &str, output: &str| onnx_build::Graph {
        nodes: vec![named_node(name, op, &["h"], &[output], &[])],
        outputs: vec![untyped(output)],
        ..onnx_build::Graph::default()
    };
    let body = onnx_build::Graph {
        inputs: vec![untyped("i"), untyped("go"), untyped("h")],
        outputs: vec![untyped("on"), untyped("next"), untyped("row")],
        initializers: vec![],
        nodes: vec![
            named_node("odd", "Cast", &["i"], &["odd"], &[int_attribute("to", 9)]),
            named_node(
                "which",
                "If",
                &["odd"],
                &["next"],
                &[
                    graph_attribute("then_branch", &branch("Tan", "tan", "t").encode()),
                    graph_attribute("else_branch", &branch("Sinh", "sinh", "e").encode()),
                ],
            ),
            named_node("row", "Neg", &["next"], &["row"], &[]),
            named_node("on", "Identity", &["go"], &["on"], &[]),
        ],
    };
    let slice = onnx_build::Graph {
        inputs: vec![untyped("state"), untyped("slice")],
        outputs: vec![untyped("sum"), untyped("sum2")],
        initializers: vec![],
        nodes: vec![
            named_node("add", "Add", &["state", "slice"], &["sum"], &[]),
            named_node("copy", "Identity", &["sum"], &["sum2"], &[]),
        ],
    };
    let graph = onnx_build::Graph {
        inputs: vec![value("x", &["200"]), value("rows", &["5", "200"])],
        outputs: vec![untyped("last"), untyped("total"), untyped("y")],
        initializers: vec![ints("n", &[], &[8]), floats("zero", &[200], &[0.0; 200])],
        nodes: vec![
            named_node(
                "loop",
                "Loop",
                &["n", "", "x"],
                &["last", "all"],
                &[graph_attribute("body", &body.encode())],
            ),
            named_node(
                "scan",
                "Scan",
                &["zero", "rows"],
                &["total", "sums"],
                &[graph_attribute("body", &slice.encode()), int_attribute("num_scan_inputs", 1)],
            ),
            node("Relu", &["x"], &["y"], &[]),
        ],
    };
    Model::from_bytes(&graph.model(17)).unwrap()
}

#[test]
fn nodes_in_graphs_of_control_flow_are_listed() {
    let model = controlled();
    let compiled = compiler().compile(&model).unwrap();
    let explanation = compiler().explain(&model).unwrap();
    let report = compiled.report();
    check_reasons(&report).unwrap();
    let listed = explanation.interpreted.as_deref().unwrap();
    assert_eq!(names(listed), names(&report.interpreted), "{report}\n{explanation}");
    let mut found = names(listed);
    found.sort_unstable();
    let expected = [
        ("loop", "Loop"),
        ("loop/body/which", "If"),
        ("loop/body/which/else_branch/sinh", "Sinh"),
        ("loop/body/which/then_branch/tan", "Tan"),
    ];
    assert_eq!(found, expected, "{explanation}");
    let share = |name: &str| listed.iter().find(|step| step.node == name).unwrap().share_percent;
    let inside = |of: &str| {
        let within = listed.iter().filter(|step| step.within.as_deref() == Some(of));
        within.map(|step| step.share_percent).sum::<f64>()
    };
    // What is inside takes most of the time of what is around, and not more.
    for outer in ["loop", "loop/body/which"] {
        assert!(inside(outer) <= share(outer) + 1e-9 && inside(outer) > 0.3 * share(outer), "{explanation}");
    }
    let outer: f64 = listed.iter().filter(|step| step.within.is_none()).map(|step| step.share_percent).sum();
    assert!(outer <= 100.0 + 1e-6, "{explanation}");
    // A step of the program each, whatever it holds.
    assert!(report.to_string().contains("interpreted: 1 of "), "{report}");
}

/// Sums along an axis of so many numbers beside a product of matrices.
fn mixed(numbers: usize) -> String {
    format!(
        "input %x : f32[64, 64]\ninput %z : f32[{numbers}]\nconst @w : f32[64, 64] = seeded(1)\n\
         const @axis : i64[] = 0\n%y = MatMul(%x, @w) \"product\"\n%s = CumSum(%z, @axis) \"sums\"\n\
         output %y\noutput %s\n"
    )
}

#[test]
fn a_tenth_of_the_time_is_worth_a_warning() {
    let mut warned = vec![];
    for numbers in [10, 1000, 100_000] {
        let model = model(&mixed(numbers));
        let report = compiler().compile(&model).unwrap().report();
        let [sums] = report.interpreted.as_slice() else { panic!("{report}") };
        let explanation = compiler().explain(&model).unwrap();
        let expected = sums.share_percent > 10.0;
        assert_eq!(report.warnings.len(), usize::from(expected), "{report}");
        assert_eq!(explanation.interpreted_warning().is_some(), expected, "{explanation}");
        if let Some(warning) = report.warnings.first() {
            let share = format!("{:.0} %", sums.share_percent);
            assert!(warning.contains("`sums` (CumSum)") && warning.contains(&share), "{warning}");
        }
        warned.push(expected);
    }
    assert_eq!((warned[0], warned[2]), (false, true));
}

#[test]
fn each_denied_step_is_named() {
    let deny = || compiler().deny_interpreted(true);
    let named = |error: Error| match error {
        Error::Interpreted(steps) => {
            let text = Error::Interpreted(steps.clone()).to_string();
            assert!(
                steps.iter().all(|step| text.contains(&step.node) && text.contains(&step.reason)),
                "{text}"
            );
            steps.into_iter().map(|step| step.node).collect::<Vec<_>>()
        }
        other => panic!("{other}"),
    };
    let cut = model(CUT);
    assert_eq!(named(deny().compile(&cut).err().unwrap()), ["sums", "tan", "find"]);
    assert_eq!(named(deny().listing(&cut, false).err().unwrap()), ["sums", "tan", "find"]);
    let control = named(deny().compile(&controlled()).err().unwrap());
    assert!(control.iter().any(|node| node == "loop/body/which/then_branch/tan"), "{control:?}");
    assert!(deny().compile(&model("input %x : f32[6]\n%y = Abs(%x)\noutput %y\n")).is_ok());
    // With open extents, a program is made when they are known.
    let open = model("input %x : f32[N]\n%y = Tan(%x) \"tan\"\noutput %y\n");
    let compiled = deny().compile(&open).unwrap();
    let x = Tensor::seeded(DType::F32, [4], 1).unwrap();
    assert_eq!(named(compiled.run([("x", x.view())]).err().unwrap()), ["tan"]);
}

/// What does not compile for another reason than an interpreted step is interpreted, too, and so denied.
#[test]
fn branches_that_do_not_compile_are_denied() {
    let chosen = onnx_build::Graph {
        nodes: vec![
            named_node("square", "MatMul", &["x", "x"], &["m"], &[]),
            named_node("shares", "Softmax", &["m"], &["chosen"], &[]),
        ],
        outputs: vec![untyped("chosen")],
        ..onnx_build::Graph::default()
    };
    let other = onnx_build::Graph {
        nodes: vec![named_node("copy", "Identity", &["x"], &["other"], &[])],
        outputs: vec![untyped("other")],
        ..onnx_build::Graph::default()
    };
    let branches =
        [graph_attribute("then_branch", &chosen.encode()), graph_attribute("else_branch", &other.encode())];
    let graph = onnx_build::Graph {
        inputs: vec![value("x", &["64", "64"]), value("c", &[])],
        outputs: vec![untyped("y")],
        nodes: vec![
            named_node("is", "Cast", &["c"], &["is"], &[int_attribute("to", 9)]),
            named_node("which", "If", &["is"], &["y"], &branches),
        ],
        ..onnx_build::Graph::default()
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    let (x, c) =
        (Tensor::seeded(DType::F32, [64, 64], 1).unwrap(), Tensor::from_vec([], vec![1.0f32]).unwrap());
    let run = |limit: Option<usize>, denied: bool| {
        let compiler = compiler().deny_interpreted(denied);
        let compiler = limit.map_or(compiler.clone(), |limit| compiler.workspace_limit(limit));
        compiler.compile(&model).unwrap().run([("x", x.view()), ("c", c.view())])
    };
    let named = |outputs: Outputs| vec![("y".to_owned(), outputs[0].clone())];
    let (wide, narrow) = (named(run(None, true).unwrap()), named(run(Some(8192), false).unwrap()));
    tconvc_testing::check_close(&narrow, &wide, 1e-5).unwrap();
    let error = run(Some(8192), true).err().unwrap().to_string();
    assert!(error.contains("which") && error.contains("workspace"), "{error}");
}
