//! What the importer makes of files, well-formed or not quite: names, order, constants, subgraphs, functions, other files.

use std::path::PathBuf;
use tconvc_ir::{AttributeValue, DType, Definition, Dim, Op, Tensor, onnx};
use tconvc_testing::onnx_build::*;

/// One input `x` of shape [1, 2], one output `y`.
fn graph(nodes: Vec<Message>) -> Graph {
    Graph {
        inputs: vec![value("x", &["1", "2"])],
        outputs: vec![value("y", &["1", "2"])],
        initializers: vec![],
        nodes,
    }
}

fn read(graph: &Graph) -> tconvc_ir::Graph {
    onnx::read_bytes(&graph.model(17)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(graph: &Graph, with: &str) {
    let error = onnx::read_bytes(&graph.model(17)).map(|_| ()).expect_err(with).to_string();
    assert!(error.contains(with), "expected `{with}` in: {error}");
}

fn order(graph: &tconvc_ir::Graph) -> Vec<String> {
    let order = graph.order().expect("the graph has no cycle");
    order.into_iter().map(|id| graph.node(id).name.clone()).collect()
}

/// A folder of its own for a test; removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tconvc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("model")).expect("a folder for the test can be made");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file for the test can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn nodes_may_stand_in_any_order() {
    let nodes = vec![
        named_node("c", "Relu", &["b"], &["y"], &[]),
        named_node("a", "Relu", &["x"], &["a"], &[]),
        named_node("b", "Add", &["a", "x"], &["b"], &[]),
    ];
    assert_eq!(order(&read(&graph(nodes))), ["a", "b", "c"]);
}

#[test]
fn names_that_do_not_fit_are_named() {
    let relu = |name: &str, from: &str, to: &str| named_node(name, "Relu", &[from], &[to], &[]);
    refused(&graph(vec![relu("n", "z", "y")]), "node `n` (Relu): graph: input 0 is `z`");
    refused(&graph(vec![]), "output `y` is made by no node");
    refused(&graph(vec![relu("n", "x", "y"), relu("m", "x", "y")]), "`y` is made by node `n`, too");
    let overwritten = vec![named_node("n", "Range", &[], &["x"], &[]), relu("m", "x", "y")];
    refused(&graph(overwritten), "two values are named `x`");
    refused(&graph(vec![relu("n", "b", "a"), relu("m", "a", "b"), relu("o", "x", "y")]), "cycle");
    refused(&graph(vec![relu("n", "y", "y")]), "cycle");
    let mut twice = graph(vec![relu("n", "x", "y")]);
    twice.initializers = vec![floats("w", &[1], &[0.0]), floats("w", &[1], &[0.0])];
    refused(&twice, "two values are named `w`");
}

#[test]
fn node_names_become_unique() {
    let nodes = vec![
        named_node("n", "Relu", &["x"], &["a"], &[]),
        named_node("n", "Relu", &["a"], &["b"], &[]),
        node("Relu", &["b"], &["y"], &[]),
    ];
    assert_eq!(order(&read(&graph(nodes))), ["n", "n.1", "Relu_2"]);
}

#[test]
fn initialisers_among_the_inputs_are_defaults() {
    let mut model = graph(vec![node("Add", &["x", "w"], &["y"], &[])]);
    model.inputs.push(value("w", &["2"]));
    model.initializers.push(floats("w", &[2], &[1.0, 2.0]));
    for ir_version in [3, 8] {
        let bytes = tconvc_testing::onnx_build::model(ir_version, 9, &model.encode(), &[]);
        let graph = onnx::read_bytes(&bytes).unwrap();
        assert_eq!(graph.inputs().len(), 2);
        let w = graph.find_value("w").unwrap();
        let expected = Tensor::from_vec([2], vec![1f32, 2.0]).unwrap();
        assert_eq!((graph.constant(w), graph.default_of(w)), (None, Some(&expected)));
        assert!(onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap() == graph);
    }
}

#[test]
fn every_kind_of_constant_node_is_a_constant() {
    let text = |name: &str| [field(1, name), field(4, "ab"), int(20, 3)].concat();
    let texts = [field(1, "value_strings"), field(9, "a"), field(9, ""), int(20, 8)].concat();
    let sparse = [field(1, floats("", &[1], &[3.0])), field(2, ints("", &[1], &[1])), int(3, 2)].concat();
    let sparse = [field(1, "sparse_value"), field(22, sparse), int(20, 11)].concat();
    let cases: Vec<(Message, DType, Vec<usize>)> = vec![
        (tensor_attribute("value", &floats("t", &[2], &[1.0, 2.0])), DType::F32, vec![2]),
        (float_attribute("value_float", 1.5), DType::F32, vec![]),
        (floats_attribute("value_floats", &[1.5]), DType::F32, vec![1]),
        (int_attribute("value_int", 3), DType::I64, vec![]),
        (ints_attribute("value_ints", &[3, 4, 5]), DType::I64, vec![3]),
        (text("value_string"), DType::String, vec![]),
        (texts, DType::String, vec![2]),
        (sparse, DType::F32, vec![2]),
    ];
    for (attribute, dtype, shape) in cases {
        let mut model = graph(vec![node("Constant", &[], &["c"], &[attribute])]);
        model.outputs = vec![value("c", &[])];
        let graph = read(&model);
        let tensor = graph.constant(graph.outputs()[0]).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape.as_slice()));
        assert!(onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap() == graph, "{dtype}");
    }
    refused(&graph(vec![node("Constant", &[], &["y"], &[])]), "expected one of value, sparse_value");
}

#[test]
fn symbols_are_the_files_own() {
    let mut model = graph(vec![node("Relu", &["x"], &["y"], &[])]);
    model.inputs = vec![value("x", &["batch size", "", "d0", "-1"])];
    model.outputs = vec![value("y", &["batch size", "2*d0 - 1", "", "other"])];
    let graph = read(&model);
    let dims = |id| graph.ty(id).shape.clone().unwrap();
    let input = dims(graph.inputs()[0]);
    assert_eq!(input[0], Dim::symbol("batch size"));
    assert_eq!(input[2], Dim::symbol("d0"));
    // Extents without a name are unknown, each by itself.
    let names: Vec<_> = [1, 3].iter().map(|&i: &usize| input[i].as_symbol().unwrap()).collect();
    assert!(names[0] != names[1] && !names.contains(&"d0"), "{names:?}");
    let output = dims(graph.outputs()[0]);
    assert_eq!(output[0], input[0]);
    assert_eq!(output[1].to_string(), "2*d0 - 1");
    assert!(output[2].is_unknown());
    let again = onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap();
    assert!(again == graph);
}

/// `If` on `c` with a branch that reads `a` and `b` of the graph around it.
fn branching() -> Graph {
    let branch = |op: &str| Graph {
        outputs: vec![value("inner", &[])],
        nodes: vec![node(op, &["a", "b"], &["inner"], &[])],
        ..Graph::default()
    };
    let inner = graph_attribute("then_branch", &branch("Add").encode());
    let other = graph_attribute("else_branch", &branch("Mul").encode());
    let mut model = graph(vec![
        named_node("if", "If", &["c"], &["y"], &[inner, other]),
        node("Relu", &["x"], &["a"], &[]),
        node("Neg", &["x"], &["b"], &[]),
        tconvc_cast(),
    ]);
    model.inputs.push(value("k", &[]));
    model
}

fn tconvc_cast() -> Message {
    node("Cast", &["k"], &["c"], &[int_attribute("to", 9)])
}

#[test]
fn subgraphs_keep_what_they_read_alive() {
    let mut graph = read(&branching());
    let id = *graph.order().unwrap().last().unwrap();
    let names: Vec<String> =
        graph.node(id).inputs().iter().map(|id| graph.value(id.unwrap()).name.clone()).collect();
    assert_eq!(names, ["c", "a", "b"]);
    let Op::Opaque(op) = &graph.node(id).op else { panic!("{:?}", graph.node(id).op) };
    assert_eq!(op.captures, 2);
    assert!(matches!(op.attributes.get("then_branch"), Some(AttributeValue::Opaque(_))));
    assert!(onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap() == graph);

    // A value that a subgraph reads may get another name; the subgraph follows.
    let a = graph.find_value("a").unwrap();
    graph.rename_value(a, "renamed").unwrap();
    let again = onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap();
    let id = *again.order().unwrap().last().unwrap();
    assert_eq!(again.node(id).inputs(), graph.node(id).inputs());
    assert_eq!(again.value(again.node(id).inputs()[1].unwrap()).name, "renamed");
}

#[test]
fn subgraphs_nest_only_so_deep() {
    let mut model = graph(vec![node("Relu", &["x"], &["y"], &[])]);
    for _ in 0..200 {
        model = graph(vec![node("If", &["x"], &["y"], &[graph_attribute("then_branch", &model.encode())])]);
    }
    refused(&model, "nested more than");
}

#[test]
fn functions_are_inlined() {
    let leaky = [field(1, "alpha"), field(21, "slope"), int(20, 1)].concat();
    let function = [
        field(1, "Twice"),
        field(4, "in"),
        field(5, "out"),
        field(7, node("LeakyRelu", &["in"], &["middle"], &[leaky])),
        field(7, node("Add", &["middle", "middle"], &["out"], &[])),
        field(9, int(2, 17)),
        field(10, "custom"),
        field(11, float_attribute("slope", 0.25)),
    ]
    .concat();
    let call = |to: &str, from: &str, attributes: &[Message]| {
        [named_node(to, "Twice", &[from], &[to], attributes), field(7, "custom")].concat()
    };
    let nodes = vec![call("a", "x", &[]), call("y", "a", &[float_attribute("slope", 0.5)])];
    let graph = onnx::read_bytes(&model(8, 17, &graph(nodes).encode(), &[function])).unwrap();
    let ops: Vec<_> = graph.order().unwrap().iter().map(|&id| graph.node(id).op.clone()).collect();
    let alphas: Vec<_> = ops.iter().map(|op| op.attributes().get("alpha").cloned()).collect();
    let alpha = |value: f32| Some(AttributeValue::Float(value));
    assert_eq!(alphas, [alpha(0.25), None, alpha(0.5), None]);
    assert!(graph.find_value("a/middle").is_some() && graph.find_value("y/middle").is_some());
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let function = [
        field(1, "F"),
        field(4, "in"),
        field(5, "out"),
        field(7, [node("F", &["in"], &["a"], &[]), field(7, "custom")].concat()),
        field(7, [node("F", &["a"], &["out"], &[]), field(7, "custom")].concat()),
        field(10, "custom"),
    ]
    .concat();
    let nodes = vec![[node("F", &["x"], &["y"], &[]), field(7, "custom")].concat()];
    let bytes = model(8, 17, &graph(nodes).encode(), &[function]);
    let error = onnx::read_bytes(&bytes).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("functions nested more than"), "{error}");
}

#[test]
fn unknown_operators_stay_as_they_came() {
    let attributes = [
        int_attribute("i", 7),
        [field(1, "bytes"), field(4, [0xff, 0xfe]), int(20, 3)].concat(),
        [field(1, "nan"), float(2, f32::from_bits(0x7fc0_1234)), int(20, 1)].concat(),
    ];
    let nodes =
        vec![[node("Magic", &["x", "", "x", ""], &["", "y"], &attributes), field(7, "custom")].concat()];
    let graph = read(&graph(nodes));
    let [id] = graph.order().unwrap()[..] else { panic!("one node is expected") };
    let node = graph.node(id);
    let Op::Opaque(op) = &node.op else { panic!("{:?}", node.op) };
    assert_eq!((op.domain.as_str(), op.op_type.as_str(), node.inputs().len()), ("custom", "Magic", 4));
    let Some(AttributeValue::Float(nan)) = op.attributes.get("nan") else { panic!("a float is expected") };
    assert_eq!(nan.to_bits(), 0x7fc0_1234);
    let again = onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap();
    let Op::Opaque(copy) = &again.node(id).op else { panic!("{:?}", again.node(id).op) };
    assert_eq!(copy.attributes.get("bytes"), op.attributes.get("bytes"));
    assert_eq!(again.node(id).inputs().len(), 4);
}

#[test]
fn our_own_operators_are_not_taken_from_files() {
    for name in [
        "Clamp",
        "GeluTanh",
        "FakeQuantize",
        "ZeroInsert",
        "PhaseConv",
        "Interleave",
        "ColumnGemm",
        "OverlapAdd",
    ] {
        refused(&graph(vec![node(name, &["x"], &["y"], &[])]), "which ONNX does not have");
    }
    let attribute = [field(1, "epilogue"), field(9, "Relu"), int(20, 8)].concat();
    refused(&graph(vec![node("Conv", &["x", "x"], &["y"], &[attribute])]), "is not known to ONNX");
}

#[test]
fn opsets_out_of_reach_are_refused() {
    for opset in [0, 29, -1, i64::MAX] {
        let bytes = graph(vec![]).model(opset);
        let error = onnx::read_bytes(&bytes).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("accepted are 1 to 28"), "{error}");
    }
}

#[test]
fn files_that_are_no_model_are_refused() {
    for bytes in [&b""[..], b"\x08\x08", b"hello", b"\x89PNG\r\n\x1a\n", &[0xff; 64]] {
        let error = onnx::read_bytes(bytes).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("malformed model"), "{error}");
    }
    let folder = Folder::new("no-model");
    let error = onnx::read_path(&folder.0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("is not a plain file"), "{error}");
    let error = onnx::read_path(folder.0.join("absent.onnx")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("absent.onnx"), "{error}");
    let path = folder.write("cut.onnx", &graph(vec![]).model(17)[..9]);
    let error = onnx::read_path(path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cut.onnx") && error.contains("cut off"), "{error}");
}

/// A model with one external tensor of three floats.
fn with_external(entries: &[(&str, &str)]) -> Message {
    let mut model = graph(vec![]);
    model.outputs = vec![value("w", &["3"])];
    model.initializers = vec![external("w", &[3], entries)];
    model.model(17)
}

#[test]
fn external_data_are_read_from_the_models_folder() {
    let folder = Folder::new("external");
    let data: Vec<u8> = [0f32, 1.0, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    folder.write("model/weights.bin", &data);
    let read = |entries: &[(&str, &str)]| {
        let path = folder.write("model/m.onnx", &with_external(entries));
        onnx::read_path(path).map(|graph| graph.constant(graph.outputs()[0]).unwrap().clone())
    };
    let expected = Tensor::from_vec([3], vec![1f32, 2.0, 3.0]).unwrap();
    let location = ("location", "weights.bin");
    assert_eq!(read(&[location, ("offset", "4"), ("length", "12")]).unwrap(), expected);
    assert_eq!(read(&[("location", "./weights.bin"), ("offset", "4")]).unwrap(), expected);
    for (entries, with) in [
        (&[location, ("offset", "12")][..], "reach from byte 12 over 12 bytes"),
        (&[location, ("length", "16")], "external data of 16 bytes"),
        (&[location, ("offset", "-4")], "offset of external data is `-4`"),
        (&[location, ("offset", "18446744073709551615")], "reach from byte"),
        (&[("location", "../secret")], "inside the model's folder"),
        (&[("location", "a/../../secret")], "inside the model's folder"),
        (&[("location", "/etc/hostname")], "inside the model's folder"),
        (&[("location", "")], "inside the model's folder"),
        (&[], "inside the model's folder"),
        (&[("location", ".")], "not a plain file"),
        (&[("location", "absent")], "absent"),
    ] {
        folder.write("secret", &data);
        let error = read(entries).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(with) && error.contains("m.onnx"), "{error}");
    }
    let error = onnx::read_bytes(&with_external(&[location])).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("not read from a file"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_models_folder() {
    let folder = Folder::new("links");
    folder.write("secret", &[0; 12]);
    folder.write("model/inside", &[0; 12]);
    std::os::unix::fs::symlink("../secret", folder.0.join("model/out")).unwrap();
    std::os::unix::fs::symlink("inside", folder.0.join("model/in")).unwrap();
    let path = |location| folder.write("model/m.onnx", &with_external(&[("location", location)]));
    assert!(onnx::read_path(path("in")).is_ok());
    let error = onnx::read_path(path("out")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("inside the model's folder"), "{error}");
}

#[test]
fn many_nodes_take_no_quadratic_time() {
    const COUNT: usize = 20_000;
    let names: Vec<String> = (0..=COUNT).map(|i| if i == 0 { "x".into() } else { format!("v{i}") }).collect();
    let chain = |name: &'static str| {
        let node = move |pair: &[String]| named_node(name, "Relu", &[&pair[0]], &[&pair[1]], &[]);
        let mut model = graph(names.windows(2).map(node).rev().collect());
        model.outputs = vec![value(&names[COUNT], &["1", "2"])];
        model
    };
    let star = names[1..].iter().map(|to| node("Relu", &["x"], &[to], &[])).collect();
    let mut star = graph(star);
    star.outputs = names[1..].iter().map(|name| value(name, &["1", "2"])).collect();
    for model in [chain(""), chain("same"), star] {
        let start = std::time::Instant::now();
        let graph = read(&model);
        assert_eq!(graph.node_count(), COUNT);
        let again = onnx::read_bytes(&onnx::write(&graph).unwrap()).unwrap();
        assert_eq!(again.node_count(), COUNT);
        // A second when it is linear, minutes when it is not.
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}

#[test]
fn values_know_where_they_are_from() {
    let graph = read(&graph(vec![node("Relu", &["x"], &["y"], &[])]));
    assert!(matches!(graph.value(graph.inputs()[0]).definition(), Definition::Input));
    assert!(matches!(graph.value(graph.outputs()[0]).definition(), Definition::Node(..)));
}
