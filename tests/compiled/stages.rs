//! Networks in which extents follow from data: compiled in parts, whatever the data.

use crate::support::compiler;
use tconvc::{DType, Model, Tensor, TensorViewMut};
use tconvc_ir::Graph;

/// Rows of the largest channel are picked, and enlarged; how many there are, only the data tell.
const PICKED: &str = "const @up : f32[3, 2, 4] = seeded(1)
const @weights : f32[3, 3, 3] = seeded(2)
const @least : f32[1] = [0.25]
const @axes : i64[2] = [0, 1]
%a = Conv(%x, @weights) {pads=[1, 1]} \"conv\"
%rows = ReduceMax(%a, @axes) {keepdims=0}
%large = Greater(%rows, @least)
%places = NonZero(%large) \"find\"
const @zero : i64[1] = [0]
%list = Squeeze(%places, @zero)
%picked = Gather(%a, %list) {axis=2}
%y = ConvTranspose(%picked, @up) {strides=[2], pads=[1, 1]} \"up\"
output %y
output %list
output %a
";

fn model(text: &str) -> Model {
    let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}"));
    Model::from_graph(graph)
}

fn agrees(got: &Tensor, expected: &Tensor) {
    assert_eq!((got.dtype(), got.shape()), (expected.dtype(), expected.shape()));
    for (got, expected) in got.to_f64s().unwrap().iter().zip(expected.to_f64s().unwrap()) {
        assert!((got - expected).abs() <= 1e-5, "{got}, expected {expected}");
    }
}

#[test]
fn the_rest_is_compiled_for_what_is_found() {
    for (input, is_static) in [("f32[2, 3, 20]", true), ("f32[N, 3, L]", false)] {
        let model = model(&format!("input %x : {input}\n{PICKED}"));
        let compiled = compiler().threads(2).compile(&model).unwrap();
        assert_eq!(compiled.is_static(), is_static);
        let mut session = compiled.session();
        let mut counts = vec![];
        for seed in 0..8 {
            let x = Tensor::seeded(DType::F32, [2, 3, 20], seed).unwrap();
            let expected = model.interpret([("x", x.view())]).unwrap();
            let got = session.run(&[x.view()]).unwrap();
            assert_eq!(got.len(), 3);
            for ((name, got), (known, expected)) in got.iter().zip(expected.iter()) {
                assert_eq!(name, known);
                agrees(got, expected);
            }
            counts.push(got[1].shape()[0]);
        }
        counts.sort_unstable();
        counts.dedup();
        assert!(counts.len() > 2, "the data should differ: {counts:?}");
        let report = compiled.report();
        let kernels: Vec<&str> = report.steps.iter().map(|step| step.kernel.as_str()).collect();
        assert!(kernels.contains(&"interpreted NonZero"), "{kernels:?}");
        assert_eq!(report.layers.len(), 1, "{report}");
        assert_eq!(report.layers[0].node, "up");
    }
}

/// Every step is observed, in the order of the report, and outputs may be the caller's memory.
#[test]
fn steps_are_observed_and_outputs_may_be_given() {
    let model = model(&format!("input %x : f32[2, 3, 20]\n{PICKED}"));
    let compiled = compiler().compile(&model).unwrap();
    let x = Tensor::seeded(DType::F32, [2, 3, 20], 1).unwrap();
    let mut session = compiled.session();
    let expected = session.run(&[x.view()]).unwrap();
    let mut memory: Vec<Vec<u8>> = expected.iter().map(|(_, tensor)| vec![0; tensor.bytes().len()]).collect();
    let mut seen = vec![];
    {
        let mut outputs: Vec<TensorViewMut<'_>> = expected
            .iter()
            .zip(&mut memory)
            .map(|((_, tensor), bytes)| {
                TensorViewMut::from_bytes(tensor.dtype(), tensor.shape(), bytes).unwrap()
            })
            .collect();
        session.run_observed(&[x.view()], &mut outputs, |step, _| seen.push(step)).unwrap();
        let error = session.run_into(&[x.view()], &mut outputs[..2]).unwrap_err();
        assert_eq!(error.to_string(), "the model has 3 outputs, 2 are given");
    }
    for ((_, tensor), bytes) in expected.iter().zip(&memory) {
        assert_eq!(tensor.bytes(), bytes);
    }
    assert_eq!(seen, (0..compiled.report().steps.len()).collect::<Vec<_>>());
}

/// What is found first decides what is looked for next.
#[test]
fn cuts_behind_cuts() {
    let model = model(
        "input %x : f32[4, 6]
%a = NonZero(%x)
%b = Cast(%a) {to=f32}
%c = NonZero(%b)
%d = Cast(%c) {to=f32}
%y = NonZero(%d)
output %y
",
    );
    let compiled = compiler().compile(&model).unwrap();
    for zeros in 0..5 {
        let values = (0..24).map(|i| if i % 5 < zeros { 0.0 } else { 1.0f32 }).collect();
        let x = Tensor::from_vec([4, 6], values).unwrap();
        let expected = model.interpret([("x", x.view())]).unwrap();
        assert_eq!(compiled.run([("x", x.view())]).unwrap(), expected);
    }
}

#[test]
fn many_cuts_and_unknown_operators_are_refused_before_anything_runs() {
    let cuts: Vec<String> = (0..100)
        .map(|i| format!("%n{i} = NonZero(%v{i}) \"find{i}\"\n%v{} = Cast(%n{i}) {{to=f32}}\n", i + 1))
        .collect();
    let model = model(&format!("input %x : f32[4]\n%v0 = Identity(%x)\n{}output %v100\n", cuts.concat()));
    let compiled = compiler().compile(&model).unwrap();
    let x = Tensor::from_vec([4], vec![0f32; 4]).unwrap();
    let error = compiled.run([("x", x.view())]).unwrap_err().to_string();
    assert!(error.contains("`find64`") && error.contains("64 places"), "{error}");

    let model = self::model(
        "input %x : f32[4]\n%a = NonZero(%x)\n%y = com.example::Mystery(%a) \"odd\"\noutput %y\n",
    );
    let error = compiler().compile(&model).err().unwrap().to_string();
    assert!(error.contains("`odd`") && error.contains("com.example::Mystery"), "{error}");
}

/// A Resize to sizes that are an input is compiled for these, and so is what stands behind it.
#[test]
fn sizes_that_are_inputs() {
    let model = model(
        "graph \"g\"\nopset 21\n\ninput %x : f32[1, 2, 5, 4]\ninput %s : i64[2]\nconst @f : i64[2] = [1, 2]\n\
         const @w : f32[3, 2, 3, 3] = seeded(3)\n\n%n = Neg(%x)\n%t = Concat(@f, %s) {axis=0}\nconst @g : i64[2] = [1, 3]\n%u = Concat(@g, %s) {axis=0}\n\
         %r = Resize(%n, _, _, %t) {mode=\"linear\"}\n%y = Conv(%r, @w)\n%z = Resize(%y, _, _, %u)\noutput %y\noutput %z\n",
    );
    let compiled = compiler().compile(&model).unwrap();
    let mut session = compiled.session();
    for (round, sizes) in [[9, 8], [3, 12], [9, 8], [10, 8], [3, 12]].into_iter().enumerate() {
        let x = Tensor::seeded(DType::F32, [1, 2, 5, 4], round as u64).unwrap();
        let s = Tensor::from_i64s(&sizes);
        let expected = model.interpret([("x", x.view()), ("s", s.view())]).unwrap();
        let found = session.run(&[x.view(), s.view()]).unwrap();
        agrees(&found[0], &expected[0]);
        agrees(&found[1], &expected[1]);
        let report = compiled.report();
        assert!(report.interpreted.is_empty(), "{report}");
        assert!(report.steps.iter().any(|step| step.kernel.contains("conv")), "{report}");
    }
}
