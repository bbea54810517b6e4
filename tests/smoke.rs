//! One compiled network of each form against the reference interpreter.

use tconvc::{Compiler, Form, Model, Tensor};
use tconvc_ir::ops::{ConvTranspose, Epilogue, Padding};
use tconvc_ir::{DType, Graph, ValueType, infer, interp};

fn floats(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as i32 as f32) / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn deconv(
    n: usize,
    cin: usize,
    cout: usize,
    g: usize,
    hw: &[usize],
    k: &[usize],
    s: &[usize],
    d: &[usize],
    p: &[i64],
    op: &[usize],
) -> (Graph, Tensor) {
    let mut graph = Graph::new("g");
    let xs: Vec<usize> = [n, cin].iter().chain(hw).copied().collect();
    let ws: Vec<usize> = [cin, cout / g].iter().chain(k).copied().collect();
    let x = graph.add_input("x", ValueType::new(DType::F32, xs.clone())).unwrap();
    let w = graph.add_constant("w", Tensor::from_vec(ws.clone(), floats(ws.iter().product(), 3)).unwrap());
    let b = graph.add_constant("b", Tensor::from_vec([cout], floats(cout, 5)).unwrap());
    let conv = ConvTranspose {
        kernel_shape: vec![],
        strides: s.to_vec(),
        dilations: d.to_vec(),
        group: g,
        padding: Padding::explicit(p[..k.len()].to_vec(), p[k.len()..].to_vec()),
        output_padding: op.to_vec(),
        output_shape: vec![],
        epilogue: Epilogue::default(),
    };
    let y = graph.add_undefined("y", ValueType::unranked(DType::F32)).unwrap();
    graph.add_node_defining("up", conv, &[Some(x), Some(w), Some(b)], &[Some(y)]).unwrap();
    graph.add_output(y);
    infer::infer(&mut graph).unwrap();
    (graph, Tensor::from_vec(xs.clone(), floats(xs.iter().product(), 7)).unwrap())
}

fn check(graph: Graph, x: Tensor) {
    let expected = interp::run(&graph, &[("x", x.clone())]).unwrap().remove(0).1;
    let model = Model::from_graph(graph);
    for form in [Form::SubPixel, Form::ZeroInsert, Form::Scatter, Form::Auto] {
        for threads in [1, 2] {
            let compiled = Compiler::new().form(form).threads(threads).compile(&model).unwrap();
            let got = compiled.run([("x", x.view())]).unwrap();
            assert_eq!(got[0].shape(), expected.shape());
            let (a, b) = (got[0].elements::<f32>().unwrap(), expected.elements::<f32>().unwrap());
            let top = b.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (i, (a, b)) in a.iter().zip(b.iter()).enumerate() {
                assert!(
                    (a - b).abs() <= 1e-4 * top,
                    "{form} {threads} at {i}: {a} {b}\n{}",
                    compiled.report()
                );
            }
        }
    }
}

#[test]
fn forms_agree_with_the_interpreter() {
    let (g, x) = deconv(1, 8, 6, 1, &[9, 11], &[4, 4], &[2, 2], &[1, 1], &[1, 1, 1, 1], &[0, 0]);
    check(g, x);
    let (g, x) = deconv(2, 6, 10, 2, &[5, 37], &[3, 5], &[2, 3], &[1, 2], &[1, 2, 0, 1], &[1, 0]);
    check(g, x);
    let (g, x) = deconv(1, 3, 5, 1, &[40], &[16], &[8], &[1], &[4, 4], &[0]);
    check(g, x);
    let (g, x) =
        deconv(1, 4, 7, 1, &[3, 4, 5], &[3, 3, 3], &[2, 2, 2], &[1, 1, 1], &[1, 1, 1, 1, 1, 1], &[1, 1, 1]);
    check(g, x);
    let (g, x) = deconv(1, 4, 7, 1, &[6, 8], &[2, 2], &[2, 2], &[1, 1], &[0, 0, 0, 0], &[0, 0]);
    check(g, x);
    for (hw, k, s, p) in [
        ([4, 4], 4, 2, 1),
        ([1, 1], 4, 1, 0),
        ([8, 6], 4, 2, 1),
        ([2, 3], 3, 2, 1),
        ([9, 9], 3, 2, 1),
        ([1, 7], 2, 2, 0),
    ] {
        let (g, x) = deconv(2, 40, 37, 1, &hw, &[k, k], &[s, s], &[1, 1], &[p, p, p, p], &[0, 0]);
        check(g, x);
        let (g, x) = deconv(1, 40, 20, 2, &hw, &[k, k], &[s, s], &[1, 1], &[p, p, p, p], &[0, 0]);
        check(g, x);
    }
}
