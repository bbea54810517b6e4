//! `Scan`: sums along slices, in either direction and along any axis, with values from the definition.

use tconvc_ir::{DType, Tensor, infer, interp, onnx};
use tconvc_testing::onnx_build::*;

/// The state and a slice of x are added; the sum is the state and is collected.
fn body(slice: &[&str]) -> Message {
    Graph {
        inputs: vec![value("before", slice), value("slice", slice)],
        outputs: vec![value("after", slice), value("row", slice)],
        initializers: vec![],
        nodes: vec![
            node("Add", &["before", "slice"], &["after"], &[]),
            // A value of the graph around.
            node("Mul", &["after", "factor"], &["row"], &[]),
        ],
    }
    .encode()
}

fn model(x: &[&str], state: &[&str], slice: &[&str], attributes: &[Message], opset: i64) -> Message {
    let attributes =
        [&[int_attribute("num_scan_inputs", 1), graph_attribute("body", &body(slice))], attributes].concat();
    Graph {
        inputs: vec![value("start", state), value("x", x)],
        outputs: vec![untyped("end"), untyped("y")],
        initializers: vec![floats("factor", &[], &[10.0])],
        nodes: vec![named_node("s", "Scan", &["start", "x"], &["end", "y"], &attributes)],
    }
    .model(opset)
}

fn run(model: &[u8], start: &Tensor, x: &Tensor) -> tconvc_ir::Result<Vec<(Vec<usize>, Vec<f64>)>> {
    let mut graph = onnx::read_bytes(model)?;
    infer::infer(&mut graph)?;
    let inputs = [("start", start.clone()), ("x", x.clone())];
    let results = interp::run(&graph, &inputs)?;
    Ok(results.iter().map(|(_, tensor)| (tensor.shape().to_vec(), tensor.to_f64s().unwrap())).collect())
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sums_along_slices() {
    let (start, x) = (tensor(&[2], &[1.0, 2.0]), tensor(&[3, 2], &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]));
    let plain = model(&["3", "2"], &["2"], &["2"], &[], 17);
    let results = run(&plain, &start, &x).unwrap();
    assert_eq!(results[0], (vec![2], vec![7.0, 8.0]));
    assert_eq!(results[1], (vec![3, 2], vec![20.0, 30.0, 40.0, 50.0, 70.0, 80.0]));
    // From the end, and collected from the end: the last slice stands first again.
    let ways =
        [ints_attribute("scan_input_directions", &[1]), ints_attribute("scan_output_directions", &[1])];
    let results = run(&model(&["3", "2"], &["2"], &["2"], &ways, 17), &start, &x).unwrap();
    assert_eq!(results[1].1, [70.0, 80.0, 60.0, 70.0, 40.0, 50.0]);
    // Along the columns, collected as columns.
    let axes = [ints_attribute("scan_input_axes", &[-1]), ints_attribute("scan_output_axes", &[1])];
    let start = tensor(&[3], &[0.0; 3]);
    let results = run(&model(&["3", "2"], &["3"], &["3"], &axes, 17), &start, &x).unwrap();
    assert_eq!(results[1], (vec![3, 2], vec![10.0, 20.0, 20.0, 40.0, 30.0, 60.0]));
}

#[test]
fn open_extents_and_no_slice_at_all() {
    let open = model(&["T", "2"], &["2"], &["2"], &[], 17);
    let start = tensor(&[2], &[1.0, 2.0]);
    let results = run(&open, &start, &Tensor::zeros(DType::F32, [0, 2]).unwrap()).unwrap();
    assert_eq!(results, [(vec![2], vec![1.0, 2.0]), (vec![0, 2], vec![])]);
    let mut graph = onnx::read_bytes(&open).unwrap();
    infer::infer(&mut graph).unwrap();
    let y = graph.find_value("y").unwrap();
    assert_eq!(graph.ty(y).to_string(), "f32[T, 2]");
}

#[test]
fn what_does_not_fit_is_named() {
    let (start, x) = (tensor(&[2], &[0.0; 2]), tensor(&[3, 2], &[0.0; 6]));
    let error = |attributes: &[Message], opset: i64| {
        run(&model(&["3", "2"], &["2"], &["2"], attributes, opset), &start, &x).unwrap_err().to_string()
    };
    let axis = error(&[ints_attribute("scan_input_axes", &[2])], 17);
    assert!(axis.contains("node `s` (Scan)") && axis.contains("scan_input_axes"), "{axis}");
    let count = error(&[ints_attribute("scan_output_axes", &[0, 0])], 17);
    assert!(count.contains("a number for each of 1 tensors, found 2"), "{count}");
    let way = error(&[ints_attribute("scan_input_directions", &[2])], 17);
    assert!(way.contains("expected 0 or 1, found 2"), "{way}");
    assert!(error(&[], 8).contains("accepted is opset 9"));
}
