//! More operands, strides and taps than a target has registers for: the planner and the passes stop in time, algorithms fall back
//! to others, and results stay exact. Nothing here is interpreted.

use crate::support::{FORMS, Random, targets};
use tconvc::{Compiler, Form, Model, Report, Target, Tensor};
use tconvc_ir::{Attributes, DType, Graph, Op, ValueId, ValueType, interp};

/// A graph under construction, and values for its inputs.
struct Network {
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
    random: Random,
}

impl Network {
    fn new(seed: u64) -> Self {
        Self { graph: Graph::new("budgets"), inputs: vec![], random: Random::new(seed) }
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.inputs.len());
        let count = shape.iter().product();
        self.inputs
            .push((name.clone(), Tensor::from_vec(shape.to_vec(), self.random.integers(count)).unwrap()));
        self.graph.add_input(&name, ValueType::new(DType::F32, shape.to_vec())).unwrap()
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let numbers = self.random.integers(shape.iter().product());
        let name = format!("c{}", self.graph.values().count());
        self.graph.add_constant(&name, Tensor::from_vec(shape.to_vec(), numbers).unwrap())
    }

    fn node(&mut self, op: &str, attributes: Attributes, inputs: &[ValueId], shape: &[usize]) -> ValueId {
        let op = Op::read(op, attributes).unwrap().unwrap();
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let name = format!("n{}", self.graph.nodes().count());
        let types = vec![ValueType::new(DType::F32, shape.to_vec())];
        self.graph.add_node(&name, op, &inputs, types).unwrap().1[0]
    }

    fn plain(&mut self, op: &str, inputs: &[ValueId], shape: &[usize]) -> ValueId {
        self.node(op, Attributes::new(), inputs, shape)
    }

    /// Compiles and runs it, and compares every number with the interpreter's; no step may be interpreted.
    fn check(&self, about: &str, form: Form, target: &Target) -> Report {
        let compiler = Compiler::new().form(form).target(target.clone()).fast_math(false);
        let compiled = compiler.compile(&Model::from_graph(self.graph.clone()));
        let compiled = compiled.unwrap_or_else(|error| panic!("{about}, {form}, {target}: {error}"));
        let found = compiled.run(self.inputs.iter().map(|(name, x)| (name.as_str(), x.view()))).unwrap();
        let inputs: Vec<_> = self.inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
        let expected = interp::run(&self.graph, &inputs).unwrap();
        for ((_, found), (_, expected)) in found.iter().zip(&expected) {
            let (found, expected) = (found.elements::<f32>().unwrap(), expected.elements::<f32>().unwrap());
            assert!(found == expected, "{about}, {form}, {target}");
        }
        let report = compiled.report();
        let interpreted = report.steps.iter().find(|step| step.kernel.starts_with("interpreted"));
        assert!(interpreted.is_none(), "{about}, {form}, {target}: {interpreted:?}");
        report
    }
}

/// A convolution, plain or transposed, with so many residuals and slopes behind it.
fn with_operands(transposed: bool, channels: [usize; 2], kernel: usize, operands: usize) -> Network {
    let mut net = Network::new((operands * 7 + kernel) as u64);
    let [cin, cout] = channels;
    let x = net.input(&[1, cin, 9, 18]);
    let pads = |pad: i64| Attributes::new().with("pads", vec![pad; 4]);
    let (mut y, shape) = if transposed {
        let w = net.constant(&[cin, cout, kernel, kernel]);
        let shape = [1, cout, 2 * 8 + kernel, 2 * 17 + kernel];
        let attributes = pads(0).with("strides", vec![2i64, 2]);
        (net.node("ConvTranspose", attributes, &[x, w], &shape), shape)
    } else {
        let w = net.constant(&[cout, cin, kernel, kernel]);
        let shape = [1, cout, 9, 18];
        (net.node("Conv", pads(kernel as i64 / 2), &[x, w], &shape), shape)
    };
    for number in 0..operands {
        // Slopes that are whole numbers keep results exact; alone they grow too fast.
        if number % 5 == 3 {
            let slopes = net.random.integers(cout).into_iter().map(f32::signum).collect::<Vec<_>>();
            let name = format!("slope{number}");
            let slopes = net.graph.add_constant(&name, Tensor::from_vec([cout, 1, 1], slopes).unwrap());
            y = net.plain("PRelu", &[y, slopes], &shape);
        } else {
            let other = net.input(&shape);
            y = net.plain("Add", &[y, other], &shape);
        }
        if number % 4 == 1 {
            y = net.plain("Relu", &[y], &shape);
        }
    }
    net.graph.add_output(y);
    net
}

/// Every number of operands that a post-op may have, and more of them, behind tiles of every kind.
#[test]
fn any_number_of_operands_behind_a_convolution() {
    for target in targets() {
        let most = target.vectors().post_op_operands();
        for operands in [1, 4, 5, 6, most - 1, most, most + 1, 12, 24, 40] {
            for (channels, kernel) in [([3, 5], 3), ([17, 33], 1), ([4, 40], 3)] {
                with_operands(false, channels, kernel, operands).check(
                    &format!("{operands} operands, {channels:?}, k{kernel}"),
                    Form::Auto,
                    &target,
                );
            }
        }
        for (number, form) in FORMS.into_iter().enumerate() {
            for operands in [5 + number, most, 13] {
                let about = format!("{operands} operands, transposed");
                with_operands(true, [5, 6], 4, operands).check(&about, form, &target);
            }
        }
    }
}

/// The journal names the convolution, how many operands it has, and how many the target allows.
#[test]
fn the_rest_of_the_operands_is_said() {
    let target = Target::parse("x86-64-v3").unwrap();
    let net = with_operands(false, [16, 16], 3, 14);
    let compiler = Compiler::new().target(target);
    let rewritten = compiler.rewrite(&Model::from_graph(net.graph)).unwrap();
    let refused = rewritten.journal().refused().find(|entry| entry.pass == "epilogue").unwrap().to_string();
    assert!(refused.contains("n0 has 8 operand(s), and the target registers for 8"), "{refused}");
}

/// Rows of Adds over more inputs than there are registers for: several steps, none of them interpreted.
#[test]
fn any_number_of_inputs_of_fused_elementwise_nodes() {
    for target in targets() {
        let most = target.vectors().fused_inputs();
        for inputs in [2, 9, 10, most - 1, most, most + 1, 2 * most - 1, 2 * most, 40] {
            for splat in [false, true] {
                let mut net = Network::new(inputs as u64);
                let shape = [3, 5, 7];
                let mut sum = net.input(&shape);
                for number in 1..inputs {
                    let other = if splat && number % 2 == 1 { vec![1] } else { shape.to_vec() };
                    let other = net.input(&other);
                    let op = ["Add", "Sub", "Add"][number % 3];
                    sum = net.plain(op, &if number % 4 == 0 { [other, sum] } else { [sum, other] }, &shape);
                }
                net.graph.add_output(sum);
                let report = net.check(&format!("{inputs} inputs"), Form::Auto, &target);
                let steps = (inputs - 1).div_ceil(most - 1);
                assert_eq!(report.steps.len(), steps, "{inputs} inputs, {target}");
            }
        }
    }
}

/// All leaves of a tree before any of its sums, in the order of the graph: few are alive at once in the code.
#[test]
fn trees_of_elementwise_nodes_take_few_registers() {
    for target in targets() {
        let mut net = Network::new(3);
        let shape = [2, 37];
        let leaves: Vec<ValueId> = (0..target.vectors().fused_inputs()).map(|_| net.input(&shape)).collect();
        let mut level: Vec<ValueId> =
            leaves.iter().map(|&leaf| net.plain("Sigmoid", &[leaf], &shape)).collect();
        level = level.into_iter().map(|value| net.plain("Ceil", &[value], &shape)).collect();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| if pair.len() == 2 { net.plain("Add", pair, &shape) } else { pair[0] })
                .collect();
        }
        net.graph.add_output(level[0]);
        let report = net.check("a tree", Form::Auto, &target);
        assert_eq!(report.steps.len(), 1, "{target}");
    }
}

/// Sum, Mean, Max and Min of any number of inputs, some of them broadcast, some read again: in parts, in the order of the inputs.
#[test]
fn operators_of_any_number_of_inputs() {
    for target in targets() {
        let most = target.vectors().fused_inputs();
        for op in ["Sum", "Mean", "Max", "Min"] {
            for inputs in [3, most, most + 1, 2 * most, 150] {
                let mut net = Network::new(inputs as u64);
                let shape = [3, 5, 7];
                let shapes: [&[usize]; 5] = [&shape, &[5, 1], &[1], &shape, &[7]];
                let mut values: Vec<ValueId> =
                    (0..inputs).map(|number| net.input(shapes[(number + inputs / 5) % 5])).collect();
                values.push(values[inputs / 2]);
                values.push(values[inputs / 2]);
                // Halves, quarters and eighths are exact.
                if op == "Mean" {
                    let count = values.len().next_power_of_two();
                    values.extend(std::iter::repeat_n(values[0], count - values.len()));
                }
                let full = net.input(&shape);
                values[1] = full;
                let y = net.plain(op, &values, &shape);
                net.graph.add_output(y);
                let report = net.check(&format!("{op} of {inputs}"), Form::Auto, &target);
                assert!(report.declined.is_empty(), "{report}");
                let most_steps = values.len().div_ceil(most - 1) + 2;
                assert!(report.steps.len() <= most_steps, "{op} of {inputs}, {target}: {report}");
            }
        }
    }
}

/// Code is made for targets that do not run here, too.
#[test]
fn operators_of_many_inputs_compile_for_every_target() {
    let mut random = Random::new(7);
    for name in ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "x86_64-pc-windows-gnu"] {
        let target = Target::parse(name).unwrap();
        for _ in 0..12 {
            let inputs = 1 + random.below(200);
            let op = ["Sum", "Mean", "Max", "Min"][random.below(4)];
            let shape = [1 + random.below(4), 1 + random.below(40)];
            let mut net = Network::new(inputs as u64);
            let mut values: Vec<ValueId> = vec![net.input(&shape)];
            for _ in 1..inputs {
                let known = values[random.below(values.len())];
                let shapes = [vec![], vec![1], vec![shape[1]], vec![shape[0], 1], shape.to_vec()];
                values.push(if random.below(6) == 0 { known } else { net.input(&shapes[random.below(5)]) });
            }
            let y = net.plain(op, &values, &shape);
            net.graph.add_output(y);
            let compiler = Compiler::new().target(target.clone()).deny_interpreted(true);
            let listing = compiler.listing(&Model::from_graph(net.graph), false);
            listing.unwrap_or_else(|error| panic!("{op} of {inputs}, {name}: {error}"));
        }
    }
}

/// Products of matrices with more behind them than a tile has registers for.
#[test]
fn any_number_of_inputs_behind_a_product() {
    for target in targets() {
        for operands in [3, 5, 8, 11, 15] {
            let mut net = Network::new(operands as u64);
            let shape = [6, 19];
            let (x, w) = (net.input(&[6, 5]), net.constant(&[5, 19]));
            let mut y = net.plain("MatMul", &[x, w], &shape);
            for number in 0..operands {
                let other = net.input(if number % 3 == 2 { &[19] } else { &shape });
                y = net.plain(if number % 2 == 0 { "Add" } else { "Sub" }, &[y, other], &shape);
            }
            net.graph.add_output(y);
            net.check(&format!("{operands} operands of a product"), Form::Auto, &target);
        }
    }
}

/// Rows whose neighbours are far apart: patches, spectrograms.
#[test]
fn convolutions_of_any_stride() {
    for target in targets() {
        for (kernel, stride) in [(16, 16), (17, 17), (32, 32), (33, 33), (7, 29), (1, 31), (25, 10), (64, 48)]
        {
            for channels in [[1, 9], [3, 40]] {
                let mut net = Network::new(stride as u64);
                let input = kernel + 20 * stride + 3;
                let x = net.input(&[1, channels[0], input]);
                let w = net.constant(&[channels[1], channels[0], kernel]);
                let attributes = Attributes::new()
                    .with("strides", vec![stride as i64])
                    .with("pads", vec![kernel as i64 / 2, kernel as i64 / 3]);
                let output = (input + kernel / 2 + kernel / 3 - kernel) / stride + 1;
                let y = net.node("Conv", attributes, &[x, w], &[1, channels[1], output]);
                net.graph.add_output(y);
                net.check(&format!("k{kernel} s{stride} {channels:?}"), Form::Auto, &target);
            }
        }
    }
}

/// Taps that lie far apart and far outside make many kinds of edges; code for these must not take more stack than a small
/// thread has.
#[test]
fn steps_run_on_a_stack_of_64_kib() {
    for target in targets() {
        for (transposed, dilation) in [(false, 3000), (true, 3000), (false, 40_000), (false, 400_000)] {
            let mut net = Network::new(5);
            let x = net.input(&[1, 2, 8]);
            let w = net.constant(&[2, 2, 3]);
            let pads = if transposed { vec![0; 2] } else { vec![2 * dilation; 2] };
            let attributes = Attributes::new().with("dilations", vec![dilation]).with("pads", pads);
            let op = if transposed { "ConvTranspose" } else { "Conv" };
            let y = net.node(op, attributes, &[x, w], &[1, 2, 8 + 2 * dilation as usize]);
            net.graph.add_output(y);
            let compiled =
                Compiler::new().target(target.clone()).compile(&Model::from_graph(net.graph.clone()));
            let compiled = compiled.unwrap_or_else(|error| panic!("{op} {dilation}, {target}: {error}"));
            // What has more kinds of edges than code is made for is interpreted, and the report says so.
            let report = compiled.report();
            assert!(!report.interpreted.is_empty() || dilation < 400_000, "{op} {dilation}, {target}");
            let says = |text: &str| text.contains("1025 kinds of input tiles");
            assert!(
                report.declined.iter().all(|text| text.contains("node `n0`") && says(text)),
                "{report:?}"
            );
            let refused = report.interpreted.iter().all(|step| step.node == "n0" && says(&step.reason));
            assert!(refused, "{report:?}");
            let inputs = net.inputs.clone();
            let run = move || compiled.run(inputs.iter().map(|(name, x)| (name.as_str(), x.view()))).unwrap();
            let found = std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap();
            let inputs: Vec<_> = net.inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
            let expected = interp::run(&net.graph, &inputs).unwrap();
            let (found, expected) =
                (found[0].elements::<f32>().unwrap(), expected[0].1.elements::<f32>().unwrap());
            assert!(found == expected, "{op} {dilation}, {target}");
        }
    }
}
