//! Convolutions whose weights and biases are made at run time: packed by code of the program, under every form and on every target.

use crate::support::{FORMS, Random, targets};
use tconvc::{Compiler, DType, Form, Model, Tensor};
use tconvc_ir::Graph;

/// Compiles for all targets and 1 to 3 threads; nothing is interpreted, and small integers come out exactly.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn check(text: &str, form: Form, shapes: &[(&str, &[usize])], seed: u64) {
    let mut graph: Graph = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    tconvc_ir::infer::infer(&mut graph).unwrap();
    let model = Model::from_graph(graph);
    let mut random = Random::new(seed);
    let inputs: Vec<(&str, Tensor)> = shapes
        .iter()
        .map(|(name, shape)| {
            let data = random.integers(shape.iter().product());
            (*name, Tensor::from_vec(shape.to_vec(), data).unwrap())
        })
        .collect();
    let given = || inputs.iter().map(|(name, tensor)| (*name, tensor.view()));
    let expected = model.interpret(given()).unwrap();
    for target in targets() {
        for threads in [1, 2, 3] {
            let compiler = Compiler::new().form(form).target(target.clone()).threads(threads);
            let compiled = compiler.compile(&model).unwrap();
            assert_eq!(compiled.run(given()).unwrap(), expected, "{text}{target}, {form}, {threads} threads");
            let report = compiled.report();
            assert!(report.interpreted.is_empty(), "{text}{target}, {form}: {report}");
        }
    }
}

#[test]
fn plain_convolutions() {
    for (number, (x, w, attributes)) in [
        ("1, 3, 9, 11", "5, 3, 3, 3", "pads=[1, 1, 1, 1]"),
        ("2, 8, 6, 6", "24, 8, 1, 1", "strides=[2, 2]"),
        ("1, 6, 7, 20", "6, 1, 3, 3", "group=6, pads=[1, 1, 1, 1]"),
        ("1, 40, 12", "20, 20, 5", "group=2, dilations=[2]"),
        ("1, 2, 4, 5, 6", "3, 2, 2, 3, 3", "pads=[0, 1, 1, 1, 1, 1]"),
        ("1, 70, 5, 5", "40, 70, 3, 3", "pads=[1, 1, 1, 1]"),
    ]
    .into_iter()
    .enumerate()
    {
        let list = |text: &str| text.split(", ").map(|n| n.parse().unwrap_or(0)).collect::<Vec<usize>>();
        let (of_x, of_w) = (list(x), list(w));
        let outputs = of_w[0];
        let text = format!(
            "input %x : f32[{x}]\ninput %v : f32[{w}]\ninput %b : f32[{outputs}]\n%w = Neg(%v)\n\
             %c = Conv(%x, %w, %b) {{{attributes}}}\n%y = Relu(%c)\noutput %y\n"
        );
        let shapes: [(&str, &[usize]); 3] = [("x", &of_x), ("v", &of_w), ("b", &[outputs])];
        check(&text, Form::Auto, &shapes, number as u64);
        // Weights at run time and a constant bias, and the other way round.
        let constant = text.replace("input %b", "const @b").replace("%b)", "@b)");
        let bias = format!("f32[{outputs}]\n%w");
        let constant = constant.replace(&bias, &format!("f32[{outputs}] = seeded(1)\n%w"));
        assert!(constant.contains("seeded"), "{constant}");
    }
}

#[test]
fn transposed_convolutions_under_each_form() {
    for (number, (x, w, outputs, attributes)) in [
        ("1, 4, 5, 6", "4, 3, 4, 4", 3, "strides=[2, 2], pads=[1, 1, 1, 1]"),
        ("1, 4, 5, 6", "4, 3, 2, 2", 3, "strides=[2, 2]"),
        ("2, 6, 4, 4", "6, 2, 3, 3", 4, "strides=[2, 2], group=2, output_padding=[1, 1]"),
        ("1, 33, 9", "33, 17, 7", 17, "strides=[3], pads=[2, 1]"),
        ("1, 16, 8, 8", "16, 16, 3, 3", 16, "pads=[1, 1, 1, 1]"),
    ]
    .into_iter()
    .enumerate()
    {
        let list = |text: &str| text.split(", ").map(|n| n.parse().unwrap_or(0)).collect::<Vec<usize>>();
        let (of_x, of_w) = (list(x), list(w));
        let text = format!(
            "input %x : f32[{x}]\ninput %v : f32[{w}]\ninput %b : f32[{outputs}]\n%w = Neg(%v)\n\
             %y = ConvTranspose(%x, %w, %b) {{{attributes}}}\noutput %y\n"
        );
        let shapes: [(&str, &[usize]); 3] = [("x", &of_x), ("v", &of_w), ("b", &[outputs])];
        for form in FORMS.into_iter().chain([Form::Auto]) {
            check(&text, form, &shapes, 100 + number as u64);
        }
    }
}

/// As StyleGAN2 has it: weights are modulated by a style, and images of a batch are groups.
#[test]
fn weights_modulated_for_each_image() {
    let text = "input %x : f32[2, 4, 6, 6]\ninput %s : f32[2, 1, 4, 1, 1]\nconst @k : f32[1, 3, 4, 3, 3] = seeded(4)\n\
                const @to : i64[4] = [6, 4, 3, 3]\nconst @one : i64[4] = [1, 8, 6, 6]\nconst @two : i64[4] = [2, 3, 6, 6]\n\
                %m = Mul(@k, %s)\n%w = Reshape(%m, @to)\n%g = Reshape(%x, @one)\n\
                %c = Conv(%g, %w) {group=2, pads=[1, 1, 1, 1]}\n%y = Reshape(%c, @two)\noutput %y\n";
    let mut graph: Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    let model = Model::from_graph(graph);
    let x = Tensor::seeded(DType::F32, [2, 4, 6, 6], 1).unwrap();
    let s = Tensor::seeded(DType::F32, [2, 1, 4, 1, 1], 2).unwrap();
    let given = || [("x", x.view()), ("s", s.view())];
    let expected = model.interpret(given()).unwrap();
    for target in targets() {
        let compiled = Compiler::new().target(target).compile(&model).unwrap();
        let found = compiled.run(given()).unwrap();
        tconvc::compare(&found[0], &expected[0], tconvc::Tolerance::NETWORK).unwrap();
        assert!(compiled.report().interpreted.is_empty(), "{}", compiled.report());
    }
}
