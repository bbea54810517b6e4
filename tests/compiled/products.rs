//! Products of matrices with elementwise nodes behind them.

use crate::support::targets;
use tconvc::{Compiler, DType, Model, Tensor};
use tconvc_ir::Graph;
use tconvc_testing::check_close;

/// Compiles a network of inputs `x`, `z` and `v` under all targets, and compares; gives the number of steps.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn steps(text: &str, [x, z, v]: [&[usize]; 3]) -> usize {
    let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let text = format!(
        "input %x : f32[{}]\ninput %z : f32[{}]\ninput %v : f32[{}]\n{text}output %y\n",
        shape(x),
        shape(z),
        shape(v)
    );
    let mut graph: Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    let model = Model::from_graph(graph);
    let tensors = [("x", x, 5), ("z", z, 6), ("v", v, 7)]
        .map(|(name, shape, seed)| (name, Tensor::seeded(DType::F32, shape.to_vec(), seed).unwrap()));
    let given = || tensors.iter().map(|(name, tensor)| (*name, tensor.view()));
    let expected = [("y".to_owned(), model.interpret(given()).unwrap()[0].clone())];
    let mut steps = 0;
    for target in targets() {
        for threads in [1, 2] {
            let compiled = Compiler::new().target(target.clone()).threads(threads).compile(&model).unwrap();
            let found = [("y".to_owned(), compiled.run(given()).unwrap()[0].clone())];
            check_close(&found, &expected, 1e-6)
                .unwrap_or_else(|problem| panic!("{text}{target}: {problem}"));
            steps = compiled.report().steps.len();
        }
    }
    steps
}

#[test]
fn tails_are_done_by_the_tiles_of_the_product() {
    let weights = "const @w : f32[20, 37] = seeded(3)\n";
    for (rows, tail) in [
        (&[29, 20][..], "%y = Gelu(%a)\n"),
        (&[29, 20], "%b = Add(%a, %v)\n%y = Relu(%b)\n"),
        (&[2, 29, 20], "%b = Add(%v, %a)\n%c = Tanh(%b)\n%d = Mul(%b, %c)\n%y = Add(%d, %z)\n"),
        (&[5, 20], "%t = Tanh(%z)\n%b = Sub(%t, %a)\n%y = Div(%b, %v)\n"),
        (&[1, 20], "%y = Mul(%a, %z)\n"),
    ] {
        let result = [&rows[..rows.len() - 1], &[37]].concat();
        let text = format!("{weights}%a = MatMul(%x, @w)\n{tail}");
        let found = steps(&text, [rows, &result, &[37]]);
        // Of values with two readers each has a step of its own.
        assert_eq!(found, if tail.contains("%d") { 2 } else { 1 }, "{text}");
        assert_eq!(steps(&text, [rows, &result, &[1]]), found, "{text}");
    }
    let gemm = "const @w : f32[37, 20] = seeded(3)\nconst @c : f32[37] = seeded(4)\n\
                %a = Gemm(%x, @w, @c) {transB=1, alpha=0.5, beta=2.0}\n%b = Add(%a, %z)\n%y = Mul(%b, %v)\n";
    assert_eq!(steps(gemm, [&[30, 20], &[30, 37], &[1, 37]]), 1);
}

/// Matrices of a batch, each with a right side of its own.
#[test]
fn tails_of_batches() {
    let text = "%a = MatMul(%x, %z)\n%b = Relu(%a)\n%y = Mul(%b, %v)\n";
    for factor in [&[1][..], &[11], &[3, 7, 11]] {
        assert_eq!(steps(text, [&[3, 7, 5], &[3, 5, 11], factor]), 1);
    }
}

/// A number for each row is broadcast in another way: a kernel of its own, in the place of the product.
#[test]
fn tails_that_tiles_cannot_do() {
    let text =
        "const @w : f32[20, 37] = seeded(3)\n%a = MatMul(%x, @w)\n%b = Mul(%a, %v)\n%y = Add(%b, %z)\n";
    steps(text, [&[29, 20], &[29, 37], &[29, 1]]);
    // A right side that is neither constant nor in rows is interpreted.
    let plain = "%a = Gemm(%x, %z) {transB=1}\n%b = Relu(%a)\n%y = Add(%b, %v)\n";
    steps(plain, [&[6, 5], &[7, 5], &[7]]);
}

/// Behind a product with a vector the last axis is that of the rows.
#[test]
fn tails_of_vectors() {
    let text = "%a = MatMul(%x, %v)\n%y = Add(%a, %z)\n";
    for addend in [&[3, 7][..], &[7], &[3, 1], &[1]] {
        steps(text, [&[3, 7, 5], addend, &[5]]);
    }
    let text = "%a = MatMul(%v, %x)\n%y = Mul(%a, %z)\n";
    for factor in [&[11][..], &[1]] {
        assert_eq!(steps(text, [&[5, 11], factor, &[5]]), 1);
    }
}

#[test]
fn a_step_has_one_product() {
    let text = "const @w : f32[20, 37] = seeded(3)\nconst @u : f32[37, 37] = seeded(4)\n%a = MatMul(%x, @w)\n\
                %b = MatMul(%z, @u)\n%c = Add(%a, %b)\n%y = Mul(%c, %v)\n";
    assert_eq!(steps(text, [&[29, 20], &[29, 37], &[37]]), 2);
}
