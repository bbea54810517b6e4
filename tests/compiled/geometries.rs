//! Transposed convolutions in whole numbers, where every sum is exact: results must be equal, not close. Winograd,
//! which divides, is off here.

use crate::epilogue::with_epilogue;
use crate::layer::{Axis, Layer, check, check_extent};
use crate::support::{FORMS, Random, cases, compiler, targets};
use tconvc::{Compiler, Form, Model, Tensor};
use tconvc_ir::{DType, Graph, interp};

/// Layers compiled as one network: fewer calls, the same kernels.
const TOGETHER: usize = 24;

/// Batch, groups, channels of a group, bias: taken in turn by the geometries of a box.
const KINDS: [(usize, usize, [usize; 2], bool); 7] = [
    (1, 1, [1, 1], false),
    (1, 1, [2, 3], true),
    (2, 1, [1, 2], true),
    (1, 2, [2, 1], false),
    (1, 1, [3, 5], true),
    (2, 3, [1, 1], true),
    (1, 1, [1, 9], false),
];

pub fn layer(number: usize, axes: Vec<Axis>) -> Layer {
    let (batch, group, channels, bias) = KINDS[number % KINDS.len()];
    Layer { batch, group, channels, axes, bias, seed: number as u64 }
}

/// Every axis of a box: 1 to 3 inputs, 1 to 4 taps, strides to 4 (also above the kernel), dilations to 2, pads from -1 to
/// 2, every output padding that ONNX allows.
pub fn axes() -> Vec<Axis> {
    let mut axes = vec![];
    for input in 1..=3 {
        for kernel in 1..=4 {
            for stride in 1..=4 {
                for dilation in 1..=2 {
                    for (begin, end) in (-1..=2).flat_map(|begin| (-1..=2).map(move |end| (begin, end))) {
                        for output_padding in 0..stride.max(dilation) {
                            let pads = [begin, end];
                            axes.push(Axis { input, kernel, stride, dilation, pads, output_padding });
                        }
                    }
                }
            }
        }
    }
    axes
}

#[test]
fn extents_agree_with_the_formula() {
    axes().iter().for_each(check_extent);
}

/// The whole box in one dimension, each geometry under one target, in turn.
fn every_small_geometry(form: Form) {
    let targets = targets();
    let valid: Vec<Axis> = axes().into_iter().filter(Axis::is_valid).collect();
    assert!(valid.len() > 3500, "{}", valid.len());
    let layers: Vec<Layer> =
        valid.iter().enumerate().map(|(number, &axis)| layer(number, vec![axis])).collect();
    for (number, layers) in layers.chunks(TOGETHER).enumerate() {
        check(layers, form, &targets[number % targets.len()], 1);
    }
}

#[test]
fn every_small_geometry_as_sub_pixel() {
    every_small_geometry(Form::SubPixel);
}

#[test]
fn every_small_geometry_as_zero_insertion() {
    every_small_geometry(Form::ZeroInsert);
}

#[test]
fn every_small_geometry_as_scatter() {
    every_small_geometry(Form::Scatter);
}

/// Two and three dimensions: axes of the box that step through it at different paces.
pub fn planes_and_volumes(count: usize) -> Vec<Layer> {
    let valid: Vec<Axis> = axes().into_iter().filter(Axis::is_valid).collect();
    let pick = |number: usize, pace: usize| valid[number * pace % valid.len()];
    let of_number = |number| {
        let plane = vec![pick(number, 211), pick(number, 1709)];
        let axes = if number % 3 == 0 { [vec![pick(number, 887)], plane].concat() } else { plane };
        layer(number, axes)
    };
    (0..count).map(of_number).collect()
}

#[test]
fn small_geometries_of_two_and_three_dimensions() {
    let targets = targets();
    let layers = planes_and_volumes(cases(240));
    for (number, layers) in layers.chunks(TOGETHER).enumerate() {
        for form in FORMS {
            check(layers, form, &targets[number % targets.len()], 1 + number % 2);
        }
    }
}

/// Any number of dimensions, rows of many vectors, channels of many tiles.
pub fn random_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let dimensions = 1 + random.below(3);
    let longest = [70, 24, 5][dimensions - 1];
    let axis = |random: &mut Random| loop {
        let farthest = if random.below(3) == 0 { 4 } else { 1 };
        let (stride, dilation) = (1 + random.below(5), 1 + random.below(farthest));
        let axis = Axis {
            input: 1 + random.below(longest),
            kernel: 1 + random.below([9, 6, 4][dimensions - 1]),
            stride,
            dilation,
            pads: [random.between(-2, 4), random.between(-2, 4)],
            output_padding: random.below(stride.max(dilation)),
        };
        if axis.is_valid() {
            return axis;
        }
    };
    let axes = (0..dimensions).map(|_| axis(&mut random)).collect();
    let group = [1, 1, 1, 2, 3][random.below(5)];
    let channels = [1 + random.below(if group == 1 { 12 } else { 4 }), 1 + random.below(20 / group)];
    Layer { batch: 1 + random.below(2), group, channels, axes, bias: random.below(3) > 0, seed }
}

/// One of one or two images, with a bias or without.
fn any_batch(random: &mut Random, group: usize, channels: [usize; 2], axes: Vec<Axis>, seed: u64) -> Layer {
    Layer { batch: 1 + random.below(2), group, channels, axes, bias: random.below(2) > 0, seed }
}

/// Many channels, depthwise or not, over few pixels or one: tiles with lanes along the channels, matrices times a vector.
pub fn deep_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let axis = |random: &mut Random| loop {
        let axis = Axis {
            input: [1, 1, 2, 3, 4, 7][random.below(6)],
            kernel: 1 + random.below(4),
            stride: 1 + random.below(3),
            dilation: 1,
            pads: [random.between(0, 1), random.between(0, 1)],
            output_padding: 0,
        };
        if axis.is_valid() {
            return axis;
        }
    };
    let axes = (0..=random.below(3)).map(|_| axis(&mut random)).collect();
    let (group, channels) = match random.below(3) {
        0 => (1 + random.below(20), [1, 1 + random.below(2)]),
        1 => (2, [1 + random.below(40), 1 + random.below(40)]),
        _ => (1, [1 + random.below(70), 1 + random.below(70)]),
    };
    any_batch(&mut random, group, channels, axes, seed)
}

/// Few output channels over long axes, with and without taps between strides: scatter cuts these into bands for threads.
pub fn banded_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let dimensions = 1 + random.below(3);
    let axis = |random: &mut Random, long: bool| loop {
        let axis = Axis {
            input: if long { [90, 30, 20][dimensions - 1] - random.below(12) } else { 1 + random.below(3) },
            kernel: 1 + random.below(6),
            stride: 1 + random.below(5),
            dilation: 1 + random.below(2),
            pads: [random.between(-3, 7), random.between(-3, 7)],
            output_padding: 0,
        };
        if axis.is_valid() {
            return axis;
        }
    };
    let long = random.below(dimensions);
    let axes = (0..dimensions).map(|number| axis(&mut random, number == long)).collect();
    let channels = [1 + random.below(5), 1 + random.below(2)];
    Layer { batch: 1, group: 1, channels, axes, bias: random.below(2) > 0, seed }
}

#[test]
fn bands_for_threads() {
    let targets = targets();
    let layers: Vec<Layer> = (0..cases(240)).map(|number| banded_layer(4 << 32 | number as u64)).collect();
    let mut cut = 0;
    for (number, layers) in layers.chunks(8).enumerate() {
        let (target, threads) = (&targets[number % targets.len()], 2 + number / targets.len() % 3);
        let report = check(layers, Form::Scatter, target, threads);
        // The last word of a schedule is the number of bands.
        cut += report.steps.iter().filter(|step| !step.schedule.ends_with(" 1")).count();
    }
    assert!(3 * cut > layers.len(), "only {cut} of {} layers were cut", layers.len());
}

/// Strides of several lanes and few output channels: tiles with lanes along the phases.
pub fn strided_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let dimensions = 1 + random.below(2);
    let axes = (0..dimensions).map(|number| {
        loop {
            let along_rows = number + 1 == dimensions;
            let stride = if along_rows { 5 + random.below(40) } else { 1 + random.below(4) };
            let kernel = match random.below(4) {
                0 => stride,
                1 => 2 * stride,
                _ => 1 + random.below(3 * stride),
            };
            let pads = [0; 2].map(|_| [0, 0, stride / 2, stride][random.below(4)].min(kernel) as i64);
            let output_padding = [0, 0, random.below(stride)][random.below(3)];
            let axis = Axis {
                input: 1 + random.below(30 / dimensions),
                kernel,
                stride,
                dilation: 1 + random.below(4) / 3,
                pads,
                output_padding,
            };
            if axis.is_valid() {
                break axis;
            }
        }
    });
    let axes = axes.collect();
    let channels = [20 + random.below(30), 1 + random.below(5)];
    let group = 1 + random.below(2);
    any_batch(&mut random, group, channels, axes, seed)
}

/// Kernels no larger than the strides over planes and volumes of any width: rows that follow each other as one long row.
pub fn blockwise_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let dimensions = 2 + random.below(2);
    let axes = (0..dimensions).map(|_| {
        let stride = 1 + random.below(4);
        Axis {
            input: 1 + random.below([38, 9][dimensions - 2]),
            kernel: if random.below(4) == 0 { 1 + random.below(stride) } else { stride },
            stride,
            dilation: 1,
            pads: [0; 2],
            output_padding: 0,
        }
    });
    let mut axes: Vec<Axis> = axes.collect();
    // What the last patch does not reach is part of the output as well.
    for axis in &mut axes {
        axis.output_padding = axis.stride - axis.kernel;
    }
    let channels = [1 + random.below(30), 1 + random.below(40)];
    let group = 1 + random.below(2);
    any_batch(&mut random, group, channels, axes, seed)
}

/// Few output channels over planes whose rows come out in whole blocks: neighbouring rows in one tile.
pub fn stacked_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let mut axis = |input: usize| {
        let (stride, pad) = (1 + random.below(3), random.below(3));
        Axis {
            input,
            kernel: stride + 2 * pad,
            stride,
            dilation: 1,
            pads: [pad as i64; 2],
            output_padding: 0,
        }
    };
    let axes = vec![axis([4, 6, 8, 12][seed as usize % 4]), axis(1 + seed as usize / 4 % 40)];
    let group = [1, 1, 3][random.below(3)];
    let channels = [1 + random.below(12), 1 + random.below(4)];
    any_batch(&mut random, group, channels, axes, seed)
}

/// Few output channels over planes of many rows, and over long rows: windows that can roll over the input.
pub fn rolling_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let extents = match random.below(3) {
        0 => vec![200 + random.below(800)],
        _ => vec![5 + random.below(12), 16 + random.below(60)],
    };
    let axis = |input: usize| {
        let (stride, dilation) = (1 + random.below(3), 1 + random.below(2));
        let kernel = 1 + random.below(3 * stride);
        Axis {
            input,
            kernel,
            stride,
            dilation,
            pads: [0; 2].map(|_| random.below(dilation * (kernel - 1) / 2 + 2) as i64),
            output_padding: random.below(stride),
        }
    };
    let axes = extents.into_iter().map(axis).collect();
    let (group, channels) = (1 + random.below(2), [8 + random.below(12), 1 + random.below(5)]);
    any_batch(&mut random, group, channels, axes, seed)
}

/// Few output channels over inputs that do not stay in the second-level cache: windows that roll by estimate.
pub fn far_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let mut axis = |input: usize| {
        let stride = 1 + random.below(2);
        Axis { input, kernel: stride + 2, stride, dilation: 1, pads: [1; 2], output_padding: 0 }
    };
    let axes = vec![axis(36 + seed as usize % 7), axis(120 + seed as usize % 17)];
    Layer { batch: 1, group: 1, channels: [16, 2 + random.below(2)], axes, bias: true, seed }
}

#[test]
fn windows_roll_over_what_is_far() {
    for (number, target) in targets().iter().enumerate() {
        let layers: Vec<Layer> = (0..3).map(|i| far_layer(5 << 32 | (3 * number + i) as u64)).collect();
        for threads in [1, 2] {
            let report = check(&layers, Form::SubPixel, target, threads);
            let rolling = report.layers.iter().filter(|layer| layer.schedule.contains("line-buffer")).count();
            assert!(rolling > 1, "{target}, {threads} threads:\n{report}");
        }
    }
}

/// Small images and so few output channels that these are one tile: threads share the phases.
#[test]
fn threads_share_phases() {
    let axis =
        |input, kernel, stride| Axis { input, kernel, stride, dilation: 1, pads: [0, 1], output_padding: 0 };
    for target in targets() {
        let layer = |batch, axes| Layer {
            batch,
            group: 1,
            channels: [600, target.lanes()],
            axes,
            bias: true,
            seed: 3,
        };
        let layers = [
            layer(1, vec![axis(9, 4, 5), axis(8, 3, 3)]),
            layer(3, vec![axis(7, 5, 2), axis(5, 2, 3)]),
            layer(1, vec![axis(3, 3, 2), axis(4, 3, 2), axis(3, 2, 2)]),
        ];
        for threads in [1, 2, 3, 5] {
            let report = check(&layers, Form::SubPixel, &target, threads);
            let is_shared = |schedule: &str| {
                let mut words = schedule.split(' ').skip(1);
                matches!(words.next(), Some("channels" | "transposed")) && words.nth(3) != Some("1")
            };
            let count = report.layers.iter().filter(|layer| is_shared(&layer.schedule)).count();
            assert!(threads == 1 || count > 0, "{target}, {threads} threads:\n{report}");
        }
    }
}

/// Layers that were wrong once: a phase without steps in the last block of a row, and axes joined where one has a stride.
pub fn wrong_layers() -> Vec<Layer> {
    let axis = |input, kernel, stride, pads, output_padding| Axis {
        input,
        kernel,
        stride,
        dilation: 1,
        pads,
        output_padding,
    };
    let layer = |channels, axes| Layer { batch: 2, group: 1, channels, axes, bias: true, seed: 8 };
    vec![
        layer([25, 4], vec![axis(8, 1, 1, [0, 0], 0), axis(13, 9, 9, [0, 9], 4)]),
        layer([26, 1], vec![axis(2, 1, 1, [0, 0], 0), axis(1, 1, 3, [0, 0], 0)]),
        layer([3, 2], vec![axis(6, 1, 1, [0, 0], 0), axis(1, 1, 3, [0, 0], 0), axis(7, 1, 3, [0, 0], 0)]),
    ]
}

#[test]
fn random_geometries_under_each_form() {
    let targets = targets();
    let mut layers: Vec<Layer> = (0..cases(240)).map(|number| random_layer(number as u64)).collect();
    for kind in [deep_layer, strided_layer, blockwise_layer, stacked_layer] {
        layers.extend((0..cases(120)).map(|number| kind(3 << 32 | number as u64)));
    }
    for (number, layers) in layers.chunks(8).enumerate() {
        for form in [FORMS.as_slice(), &[Form::Auto]].concat() {
            check(layers, form, &targets[number % targets.len()], 1 + number / targets.len() % 2);
        }
    }
}

#[test]
fn layers_that_were_wrong() {
    for target in targets() {
        for form in FORMS {
            check(&wrong_layers(), form, &target, 2);
        }
    }
}

/// Activations and residuals behind a layer, on numbers that stay exact.
#[test]
fn random_geometries_with_epilogues() {
    let targets = targets();
    for number in 0..5 * cases(80) {
        let kinds = [random_layer, deep_layer, strided_layer, blockwise_layer, stacked_layer];
        let layer = kinds[number % 5](1 << 32 | number as u64);
        let mut random = Random::new(number as u64);
        let (graph, inputs) = with_epilogue(&layer, &mut random);
        let named: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let expected = interp::run(&graph, &named).unwrap();
        let target = &targets[number / 5 % targets.len()];
        let model = Model::from_graph(graph);
        for form in FORMS {
            let compiler = Compiler::new().form(form).target(target.clone()).fast_math(false);
            let compiled = compiler.compile(&model).unwrap();
            let outputs = compiled.run(named.iter().map(|(name, tensor)| (*name, tensor.view()))).unwrap();
            assert!(outputs[0] == expected[0].1, "{layer}, {form}, {target}\n{}", compiled.report());
        }
    }
}

/// Floats this time: the same bits from one thread and from several, whatever form is chosen.
#[test]
fn threads_do_not_change_results() {
    let axis = Axis { input: 14, kernel: 4, stride: 2, dilation: 1, pads: [1, 1], output_padding: 0 };
    let close = Layer { batch: 1, group: 1, channels: [64, 1], axes: vec![axis; 2], bias: true, seed: 0 };
    for number in 0..cases(150) {
        let kinds = [random_layer, banded_layer, deep_layer, blockwise_layer, stacked_layer, far_layer];
        // Once a layer whose forms are predicted to take about the same time.
        let layer = if number == 0 { close.clone() } else { kinds[number % 6](2 << 32 | number as u64) };
        let mut graph = Graph::new("threads");
        let y = layer.add_to(&mut graph, 0);
        graph.add_output(y);
        let model = Model::from_graph(graph);
        let x = Tensor::seeded(DType::F32, layer.input_shape(), 9).unwrap();
        for form in [FORMS.as_slice(), &[Form::Auto]].concat() {
            let run = |threads| {
                let compiled = compiler().form(form).threads(threads).compile(&model).unwrap();
                compiled.run([("x0", x.view())]).unwrap()
            };
            let one = run(1);
            for threads in [2, 3] {
                assert!(run(threads) == one, "{layer}, {form}, {threads} threads");
            }
        }
    }
}
