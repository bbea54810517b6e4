//! Networks whose extents change from call to call: two threads on one compiled network, programs kept and forgotten.

use crate::support::{Random, compiler};
use tconvc::{CompiledModel, DType, Model, Tensor};
use tconvc_ir::Graph;

/// Sizes of a network, and calls for each.
const SIZES: usize = 50;
const ROUNDS: usize = 3;

/// Up, a skip beside it, a convolution, pixels: batch, height and width are open.
const IMAGES: &str = "input %x : f32[N, 3, H, W]
const @up : f32[3, 4, 4, 4] = seeded(1)
const @bias : f32[4] = seeded(2)
const @conv : f32[8, 7, 3, 3] = seeded(3)
const @scales : f32[4] = [1.0, 1.0, 2.0, 2.0]
%a = ConvTranspose(%x, @up, @bias) {strides=[2, 2], pads=[1, 1, 1, 1]}
%b = Sigmoid(%a)
%c = Resize(%x, _, @scales) {mode=\"linear\"}
%d = Concat(%b, %c) {axis=1}
%e = Conv(%d, @conv) {pads=[1, 1, 1, 1]}
%y = DepthToSpace(%e) {blocksize=2}
output %y
";

/// A vocoder's way up: batch and length are open.
const AUDIO: &str = "input %x : f32[N, 4, L]
const @first : f32[4, 6, 8] = seeded(1)
const @second : f32[6, 2, 16] = seeded(2)
const @conv : f32[2, 2, 7] = seeded(3)
%a = ConvTranspose(%x, @first) {strides=[4], pads=[2, 2]}
%b = LeakyRelu(%a) {alpha=0.1}
%c = ConvTranspose(%b, @second) {strides=[8], pads=[4, 4]}
%d = Conv(%c, @conv) {pads=[3, 3]}
%y = Tanh(%d)
output %y
";

fn model(text: &str) -> Model {
    let graph: Graph = text.parse().unwrap();
    Model::from_graph(graph)
}

/// An input and what the interpreter makes of it.
fn case(model: &Model, shape: &[usize], seed: u64) -> (Tensor, Tensor) {
    let x = Tensor::seeded(DType::F32, shape, seed).unwrap();
    let y = model.interpret([("x", x.view())]).unwrap();
    (x, y[0].clone())
}

fn agrees(got: &Tensor, expected: &Tensor) {
    assert_eq!(got.shape(), expected.shape());
    let (got, expected) = (got.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let largest = expected.iter().fold(1f64, |largest, x| largest.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= 1e-5 * largest, "element {i} is {got}, expected {expected}");
    }
}

/// Fifty sizes, each several times and in another order in each of two threads, which meet the same new sizes at once.
fn sizes_from_two_threads(text: &str, shapes: &[Vec<usize>]) {
    let model = model(text);
    let cases: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| case(&model, shape, i as u64)).collect();
    let compiled = compiler().threads(1).compile(&model).unwrap();
    assert_eq!((compiled.is_static(), compiled.compilations()), (false, 0));
    let calls = |compiled: &CompiledModel, seed: u64| {
        let mut random = Random::new(seed);
        let mut order: Vec<usize> = (0..ROUNDS * cases.len()).map(|i| i % cases.len()).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        let mut session = compiled.session();
        for (turn, i) in order.into_iter().enumerate() {
            let (x, expected) = &cases[i];
            let outputs = if turn % 2 == 0 {
                session.run(&[x.view()]).unwrap()
            } else {
                compiled.run([("x", x.view())]).unwrap()
            };
            agrees(&outputs[0], expected);
        }
    };
    std::thread::scope(|scope| {
        let (compiled, calls) = (&compiled, &calls);
        scope.spawn(move || calls(compiled, 1));
        scope.spawn(move || calls(compiled, 2));
    });
    assert_eq!((compiled.compilations(), compiled.programs()), (shapes.len(), shapes.len()));
}

/// So many shapes of which no two are equal.
fn distinct(mut shape: impl FnMut(&mut Random) -> Vec<usize>) -> Vec<Vec<usize>> {
    let (mut random, mut shapes) = (Random::new(9), vec![]);
    while shapes.len() < SIZES {
        let shape = shape(&mut random);
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes
}

#[test]
fn images_of_fifty_sizes() {
    let shapes = distinct(|random| vec![1 + random.below(3), 3, 1 + random.below(12), 1 + random.below(12)]);
    sizes_from_two_threads(IMAGES, &shapes);
}

#[test]
fn audio_of_fifty_lengths() {
    sizes_from_two_threads(AUDIO, &distinct(|random| vec![1 + random.below(2), 4, 1 + random.below(60)]));
}

/// What was used least recently is forgotten, and nothing else is compiled again.
#[test]
fn programs_are_bounded() {
    let model = model("input %x : f32[L]\n%y = Relu(%x)\noutput %y\n");
    let compiled = compiler().compile(&model).unwrap();
    let call = |length: usize| {
        let (x, expected) = case(&model, &[length], 1);
        agrees(&compiled.run([("x", x.view())]).unwrap()[0], &expected);
        (compiled.compilations(), compiled.programs())
    };
    for length in 1..=64 {
        assert_eq!(call(length), (length, length));
    }
    assert_eq!(call(1), (64, 64), "it is known");
    assert_eq!(call(65), (65, 64), "2 is forgotten");
    assert_eq!(call(1), (65, 64), "1 was used since");
    assert_eq!(call(2), (66, 64), "2 is compiled again");
}
