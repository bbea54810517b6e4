//! Winograd F(m, r), which is taken for layers of some channels: within rounding of the definition, whatever the geometry.

use crate::epilogue::with_epilogue;
use crate::layer::{Axis, Layer};
use crate::support::{Random, cases, compiler, targets};
use tconvc::{Compiler, DType, Form, Model, Tensor};
use tconvc_ir::{Graph, interp};
use tconvc_testing::check_close;

/// Share of the largest magnitude of the output: a tenth of what forms may differ by.
pub const TOLERANCE: f64 = 1e-5;

/// Layers that Winograd is made for: neighbouring taps, strides 1 to 3, some channels, every size from a tile up; along a lone
/// axis long kernels as well; volumes are small.
pub fn wide_layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let dimensions = 1 + random.below(3);
    let axis = |random: &mut Random| loop {
        let stride = [1, 1, 2, 2, 3][random.below(if dimensions < 3 { 5 } else { 4 })];
        // Taps a stride apart are neighbours, and leave phases without any.
        let dilation = if random.below(4) == 0 { stride } else { 1 };
        let spread = if dilation > 1 { 1 } else { stride };
        let long = dimensions == 1 && stride == 1 && random.below(2) == 0;
        let axis = Axis {
            input: 1 + random.below([90, 30, 8][dimensions - 1]),
            kernel: if long {
                4 + random.below(14)
            } else {
                (2 + random.below([3, 3, 2][dimensions - 1])) * spread - random.below(spread)
            },
            stride,
            dilation,
            pads: [random.between(-2, 4), random.between(-2, 4)],
            output_padding: random.below(stride),
        };
        if axis.is_valid() {
            return axis;
        }
    };
    let axes = (0..dimensions).map(|_| axis(&mut random)).collect();
    let group = [1, 1, 1, 2][random.below(4)];
    let least = if dimensions < 3 { 16 } else { 8 };
    let channels = [least + random.below(21), least + random.below(21)];
    Layer { batch: 1 + random.below(2), group, channels, axes, bias: random.below(3) > 0, seed }
}

#[test]
fn random_layers_with_epilogues() {
    let targets = targets();
    let mut by_winograd = 0;
    for number in 0..cases(120) {
        let layer = wide_layer(3 << 32 | number as u64);
        let (graph, inputs) = with_epilogue(&layer, &mut Random::new(number as u64));
        let named: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let expected = interp::run(&graph, &named).unwrap();
        let model = Model::from_graph(graph);
        let target = &targets[number % targets.len()];
        let run = |threads| {
            let compiler = Compiler::new().form(Form::SubPixel).target(target.clone()).threads(threads);
            let compiled = compiler.compile(&model).unwrap();
            let outputs = compiled.run(named.iter().map(|(name, tensor)| (*name, tensor.view()))).unwrap();
            (outputs[0].clone(), compiled.report().to_string())
        };
        let (one, report) = run(1);
        let found = vec![(expected[0].0.clone(), one.clone())];
        check_close(&found, &expected, TOLERANCE)
            .unwrap_or_else(|problem| panic!("{layer}, {target}: {problem}\n{report}"));
        assert!(run(2).0 == one, "{layer}, {target}: depends on the number of threads");
        by_winograd += usize::from(report.contains("winograd"));
    }
    assert!(3 * by_winograd > cases(120), "only {by_winograd} layers by Winograd");
}

/// Dilated kernels that are decomposed into rows, finished by what takes many registers, and by what only adds.
#[test]
fn decompositions_into_rows_with_epilogues() {
    let targets = targets();
    let mut seen = 0;
    for (number, finish) in ["Gelu(%a)", "Relu(%a)", "Sigmoid(%a)"].into_iter().cycle().take(9).enumerate() {
        let (kernel, dilation) = [(7, 3), (11, 2), (7, 5)][number / 3];
        let pad = dilation * (kernel / 2);
        let text = format!(
            "input %x : f32[2, 48, 611]\nconst @w : f32[48, 48, {kernel}] = seeded(1)\nconst @b : f32[48] = seeded(2)\n\
             %a = Conv(%x, @w, @b) {{dilations=[{dilation}], pads=[{pad}, {pad}]}}\n%c = {finish}\n\
             %y = Add(%c, %x)\noutput %y\n"
        );
        let mut graph: Graph = text.parse().unwrap();
        tconvc_ir::infer::infer(&mut graph).unwrap();
        let model = Model::from_graph(graph);
        let x = Tensor::seeded(DType::F32, [2, 48, 611], 3).unwrap();
        let expected = model.interpret([("x", x.view())]).unwrap();
        let expected = [("y".to_owned(), expected[0].clone())];
        for target in targets.iter().filter(|target| target.lanes() > 4) {
            let compiled = Compiler::new().target(target.clone()).threads(2).compile(&model).unwrap();
            let found = [("y".to_owned(), compiled.run([("x", x.view())]).unwrap()[0].clone())];
            check_close(&found, &expected, TOLERANCE)
                .unwrap_or_else(|problem| panic!("{text}{target}: {problem}"));
            let code = compiled.asm().unwrap_or_default();
            seen += usize::from(code.contains("winograd1x4_dilation"));
        }
    }
    let wide = targets.iter().filter(|target| target.lanes() > 4).count();
    assert!(seen >= 5 * wide, "only {seen} were cut into rows");
}

/// With it off, whole numbers stay exact.
#[test]
fn off_means_by_the_definition() {
    let layer = wide_layer(7);
    let (graph, inputs) = with_epilogue(&layer, &mut Random::new(7));
    let named: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let expected = interp::run(&graph, &named).unwrap();
    let compiled = compiler().fast_math(false).compile(&Model::from_graph(graph)).unwrap();
    assert!(!compiled.report().to_string().contains("winograd"));
    let outputs = compiled.run(named.iter().map(|(name, tensor)| (*name, tensor.view()))).unwrap();
    assert!(outputs[0] == expected[0].1);
}
