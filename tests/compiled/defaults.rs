//! Inputs that may be left out: what a model says counts until a caller says otherwise, whatever it is used for.

use crate::support::compiler;
use tconvc::{Model, Session, Tensor, TensorView};
use tconvc_ir::Graph;
use tconvc_testing::onnx_build::{Graph as Built, floats, model, named_node, node, untyped, value};

fn model_of(lines: &str) -> Model {
    let graph: Graph =
        format!("graph g\nopset 21\n{lines}").parse().unwrap_or_else(|error| panic!("{error}"));
    Model::from_graph(graph)
}

fn f32s(shape: &[usize], seed: u64) -> Tensor {
    Tensor::seeded(tconvc::DType::F32, shape.to_vec(), seed).unwrap()
}

fn views(given: &[(&'static str, Tensor)]) -> Vec<(&'static str, TensorView<'static>)> {
    given.iter().map(|(name, tensor)| (*name, Box::leak(Box::new(tensor.clone())).view())).collect()
}

/// The compiled network, and the network as it is exported and read again, agree with the interpreter.
fn agree(what: &str, model: &Model, given: &[(&'static str, Tensor)]) -> Vec<Tensor> {
    let expected = model.interpret(views(given)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let compiled = compiler().compile(model).unwrap_or_else(|error| panic!("{what}: {error}"));
    let got = compiled.run(views(given)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let export = compiler().export(model).unwrap_or_else(|error| panic!("{what}: {error}"));
    let again = Model::from_bytes(export.bytes()).unwrap();
    assert_eq!(
        again.inputs().iter().map(|port| (port.name.clone(), port.optional)).collect::<Vec<_>>(),
        model.inputs().iter().map(|port| (port.name.clone(), port.optional)).collect::<Vec<_>>(),
        "{what}: inputs of the export"
    );
    let exported = again.interpret(views(given)).unwrap_or_else(|error| panic!("{what}, exported: {error}"));
    for (name, expected) in expected.iter() {
        for (how, got) in [("compiled", &got), ("exported", &exported)] {
            let got = got.get(name).unwrap();
            assert_eq!(got.shape(), expected.shape(), "{what}, {how}");
            let (got, expected) = (got.to_f64s().unwrap(), expected.to_f64s().unwrap());
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{what}, {how}: {a} is not {b}");
            }
        }
    }
    expected.iter().map(|(_, tensor)| tensor.clone()).collect()
}

const X: &str = "input %x : f32[1, 2, 4, 4]\n";

/// Operator by operator: the input left out, and given.
#[test]
fn what_is_given_counts_wherever_it_is_used() {
    let ints = |values: &[i64]| Tensor::from_i64s(values);
    let cases: Vec<(&str, String, Tensor)> = vec![
        (
            "weights",
            format!("{X}input %w : f32[2, 3, 2, 2] default f32[2, 3, 2, 2] = seeded(3)\n\
                     %y = ConvTranspose(%x, %w) {{strides=[2, 2]}}\noutput %y"),
            f32s(&[2, 3, 2, 2], 9),
        ),
        (
            "bias",
            format!("{X}const @w : f32[3, 2, 3, 3] = seeded(2)\ninput %b : f32[3] default f32[3] = [1.0, 2.0, 3.0]\n\
                     %y = Conv(%x, @w, %b)\noutput %y"),
            f32s(&[3], 5),
        ),
        (
            "sizes",
            format!("{X}input %s : i64[4] default i64[4] = [1, 2, 8, 8]\n\
                     %y = Resize(%x, _, _, %s) {{mode=\"nearest\"}}\noutput %y"),
            ints(&[1, 2, 6, 5]),
        ),
        (
            "scales",
            format!("{X}input %s : f32[4] default f32[4] = [1.0, 1.0, 2.0, 2.0]\n\
                     %y = Resize(%x, _, %s) {{mode=\"nearest\"}}\noutput %y"),
            Tensor::from_vec([4], vec![1f32, 1.0, 3.0, 1.0]).unwrap(),
        ),
        (
            "pads",
            format!("{X}input %p : i64[8] default i64[8] = [0, 0, 1, 1, 0, 0, 1, 1]\n%y = Pad(%x, %p)\noutput %y"),
            ints(&[0, 0, 0, 2, 0, 0, 3, 0]),
        ),
        (
            "ends of a slice",
            format!("{X}const @from : i64[1] = [1]\nconst @axis : i64[1] = [2]\n\
                     input %to : i64[1] default i64[1] = [3]\n%y = Slice(%x, @from, %to, @axis)\noutput %y"),
            ints(&[2]),
        ),
        (
            "a shape",
            format!("{X}input %s : i64[2] default i64[2] = [2, 16]\n%r = Reshape(%x, %s)\n%y = Abs(%r)\noutput %y"),
            ints(&[8, 4]),
        ),
        (
            "axes of a reduction",
            format!("{X}input %axes : i64[K] default i64[1] = [1]\n\
                     %y = ReduceSum(%x, %axes) {{keepdims=0}}\noutput %y"),
            ints(&[2, 3]),
        ),
        (
            "repeats",
            format!("{X}input %times : i64[4] default i64[4] = [1, 1, 1, 2]\n%y = Tile(%x, %times)\noutput %y"),
            ints(&[2, 1, 1, 1]),
        ),
        (
            "indices",
            format!("{X}input %i : i64[] default i64[] = 1\n%y = Gather(%x, %i) {{axis=1}}\noutput %y"),
            Tensor::scalar(0i64),
        ),
        (
            "statistics",
            format!("{X}const @s : f32[2] = [1.0, 2.0]\nconst @b : f32[2] = [0.0, 1.0]\n\
                     input %m : f32[2] default f32[2] = [0.5, 0.25]\nconst @v : f32[2] = [1.0, 4.0]\n\
                     %y = BatchNormalization(%x, @s, @b, %m, @v)\noutput %y"),
            f32s(&[2], 8),
        ),
        (
            "state",
            "input %x : f32[3, 1, 2]\nconst @w : f32[1, 6, 2] = seeded(4)\nconst @r : f32[1, 6, 2] = seeded(5)\n\
             input %h : f32[1, 1, 2] default f32[1, 1, 2] = [0.5, -0.5]\n\
             %y, %last = GRU(%x, @w, @r, _, _, %h) {hidden_size=2}\noutput %y\noutput %last"
                .into(),
            f32s(&[1, 1, 2], 8),
        ),
        (
            "a scale of quantisation",
            format!("{X}input %s : f32[] default f32[] = 0.25\nconst @z : u8[] = 128\n\
                     %q = QuantizeLinear(%x, %s, @z)\n%y = DequantizeLinear(%q, %s, @z)\noutput %y"),
            Tensor::scalar(0.125f32),
        ),
        (
            "an output as well",
            format!("{X}input %a : f32[] default f32[] = 2.0\n%y = Mul(%x, %a)\noutput %y\noutput %a"),
            Tensor::scalar(3f32),
        ),
        ("not used", format!("{X}input %a : f32[] default f32[] = 2.0\n%y = Abs(%x)\noutput %y"), Tensor::scalar(3f32)),
        (
            "of another shape than its default",
            format!("{X}input %a : f32[C, 1, 1] default f32[1, 1, 1] = [2.0]\n%y = Mul(%x, %a)\noutput %y"),
            f32s(&[2, 1, 1], 3),
        ),
    ];
    for (what, lines, given) in cases {
        let model = model_of(&lines);
        let name: &'static str =
            model.inputs().iter().find(|port| port.optional).unwrap().name.clone().leak();
        let x = model.inputs()[0].clone();
        let shape: Vec<usize> = x.shape.unwrap().iter().map(|dim| dim.parse().unwrap()).collect();
        let x = ("x", f32s(&shape, 1));
        let left_out = agree(what, &model, std::slice::from_ref(&x));
        let overridden = agree(what, &model, &[x, (name, given)]);
        assert_eq!(left_out == overridden, what == "not used", "{what}");
    }
}

/// A condition and a count, of which the file's own spelling needs attributes with graphs.
#[test]
fn branches_follow_what_is_given() {
    let branch = |op: &str, output: &str| {
        Built {
            nodes: vec![node(op, &["x"], &[output], &[])],
            outputs: vec![untyped(output)],
            ..Built::default()
        }
        .encode()
    };
    let condition: Vec<u8> = [
        tconvc_testing::onnx_build::int(2, 9),
        tconvc_testing::onnx_build::field(8, "c"),
        tconvc_testing::onnx_build::field(9, [1u8]),
    ]
    .concat();
    let graph = Built {
        inputs: vec![value("x", &["2", "3"]), untyped("c")],
        outputs: vec![untyped("y")],
        initializers: vec![condition],
        nodes: vec![named_node(
            "if",
            "If",
            &["c"],
            &["y"],
            &[
                tconvc_testing::onnx_build::graph_attribute("then_branch", &branch("Neg", "t")),
                tconvc_testing::onnx_build::graph_attribute("else_branch", &branch("Abs", "e")),
            ],
        )],
    };
    for ir_version in [3, 8] {
        let model = Model::from_bytes(&model(ir_version, 17, &graph.encode(), &[])).unwrap();
        let x = ("x", f32s(&[2, 3], 1));
        let then = agree("then", &model, std::slice::from_ref(&x));
        assert_ne!(
            then,
            agree("else", &model, &[x.clone(), ("c", Tensor::from_bools([], [false]).unwrap())])
        );
        assert_eq!(then, agree("then", &model, &[x, ("c", Tensor::from_bools([], [true]).unwrap())]));
        let compiled = compiler().compile(&model).unwrap();
        assert!(
            !compiled.report().steps.iter().any(|step| step.kernel.contains("If")),
            "the default is known"
        );
    }
}

/// Old files list every weight among the inputs.
#[test]
fn files_before_ir_version_4_may_be_overridden_too() {
    let graph = Built {
        inputs: vec![value("x", &["1", "1", "3"]), value("w", &["1", "1", "2"]), value("b", &["1"])],
        outputs: vec![untyped("y")],
        initializers: vec![floats("w", &[1, 1, 2], &[1.0, 2.0]), floats("b", &[1], &[0.5])],
        nodes: vec![node("Conv", &["x", "w", "b"], &["y"], &[])],
    };
    let model = Model::from_bytes(&model(3, 8, &graph.encode(), &[])).unwrap();
    let x = ("x", Tensor::from_vec([1, 1, 3], vec![1f32, 2.0, 3.0]).unwrap());
    assert_eq!(agree("old", &model, std::slice::from_ref(&x))[0].to_f64s().unwrap(), [5.5, 8.5]);
    let b = ("b", Tensor::from_vec([1], vec![-1f32]).unwrap());
    assert_eq!(agree("old", &model, &[x, b])[0].to_f64s().unwrap(), [4.0, 7.0]);
}

const PRODUCT: &str = "input %x : f32[2, 3]\ninput %w : f32[3, 2] default f32[3, 2] = seeded(3)\n\
    input %s : f32[] default f32[] = 2.0\n%p = MatMul(%x, %w)\n%y = Mul(%p, %s)\noutput %y";

/// One program for what is left out, one for what is given, whatever its value.
#[test]
fn programs_are_kept() {
    let model = model_of(PRODUCT);
    let compiled = compiler().compile(&model).unwrap();
    let x = f32s(&[2, 3], 1);
    assert_eq!(compiled.compilations(), 1);
    for seed in 0..3 {
        let w = f32s(&[3, 2], seed);
        compiled.run([("x", x.view()), ("w", w.view())]).unwrap();
        compiled.run([("x", x.view())]).unwrap();
    }
    assert_eq!(compiled.compilations(), 2);
    let s = Tensor::scalar(7f32);
    compiled.run([("x", x.view()), ("s", s.view())]).unwrap();
    assert_eq!(compiled.compilations(), 3, "another input is another program");
    let sized = model_of(
        "input %x : f32[1, 1, 2, 2]\ninput %s : i64[4] default i64[4] = [1, 1, 4, 4]\n\
                          %y = Resize(%x, _, _, %s) {mode=\"nearest\"}\noutput %y",
    );
    let compiled = compiler().compile(&sized).unwrap();
    let x = f32s(&[1, 1, 2, 2], 1);
    for (extent, programs) in [(3, 2), (5, 3), (3, 3), (5, 3)] {
        let sizes = Tensor::from_i64s(&[1, 1, extent, extent]);
        let outputs = compiled.run([("x", x.view()), ("s", sizes.view())]).unwrap();
        assert_eq!(outputs[0].shape(), [1, 1, extent as usize, extent as usize]);
        assert_eq!(compiled.compilations(), programs, "extents follow from the value");
    }
    assert!(compiled.report().steps.iter().all(|step| !step.kernel.starts_with("interpreted")));
}

/// A session takes the inputs that have to be given, or all of them.
#[test]
fn sessions_take_both() {
    let model = model_of(PRODUCT);
    let compiled = compiler().compile(&model).unwrap();
    let mut session: Session = compiled.session();
    let (x, w, s) = (f32s(&[2, 3], 1), f32s(&[3, 2], 7), Tensor::scalar(-1f32));
    let short = session.run(&[x.view()]).unwrap();
    let all = session.run(&[x.view(), w.view(), s.view()]).unwrap();
    assert_ne!(short, all);
    assert_eq!(session.run(&[x.view()]).unwrap(), short);
    assert_eq!(session.run(&[x.view(), w.view(), s.view()]).unwrap(), all);
    let error = session.run(&[x.view(), w.view()]).unwrap_err().to_string();
    assert_eq!(error, "the model has 1 inputs, and 2 that may be left out; 2 are given");
    let ordered = compiled.order([("s", s.view()), ("x", x.view())]).unwrap();
    assert_eq!(ordered.len(), 3, "what is left out stands there with its default");
}

/// A shape for an input says that it will be given, whatever the default's shape.
#[test]
fn shapes_of_optional_inputs_make_them_required() {
    let model =
        model_of("input %x : f32[N]\ninput %a : f32[M] default f32[1] = [2.0]\n%y = Mul(%x, %a)\noutput %y");
    let compiled = compiler().input_shape("x", [3]).input_shape("a", [3]).compile(&model).unwrap();
    assert!(compiled.is_static() && compiled.inputs().iter().all(|port| !port.optional));
    let (x, a) = (f32s(&[3], 1), f32s(&[3], 2));
    assert!(compiled.run([("x", x.view())]).is_err());
    compiled.run([("x", x.view()), ("a", a.view())]).unwrap();
    let open = compiler().compile(&model).unwrap();
    for n in [2, 4] {
        let x = f32s(&[n], 1);
        assert_eq!(open.run([("x", x.view())]).unwrap()[0].shape(), [n]);
        let a = f32s(&[n], 2);
        assert_eq!(open.run([("x", x.view()), ("a", a.view())]).unwrap()[0].shape(), [n]);
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let compiled = compiler().compile(&model_of(PRODUCT)).unwrap();
    let (x, wrong) = (f32s(&[2, 3], 1), f32s(&[3, 3], 2));
    let error = |inputs: Vec<(&'static str, TensorView<'_>)>| compiled.run(inputs).unwrap_err().to_string();
    assert_eq!(
        error(vec![("x", x.view()), ("w", wrong.view())]),
        "input `w` f32[3, 2] is expected, f32[3, 3] is given"
    );
    assert_eq!(error(vec![("w", wrong.view())]), "input `x` f32[2, 3] is missing");
    assert_eq!(
        error(vec![("v", x.view())]),
        "the model has no input `v`; its inputs are `x` f32[2, 3]; `w` f32[3, 2], `s` f32[] may be left out"
    );
}
