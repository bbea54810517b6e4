//! Convolutions that nobody would write, and all compile: kernels and strides up to 4096, dilations, groups, up to 40 post-ops,
//! one to three axes, plain and transposed ones in every form, for every target. Results of the small ones are compared.
//!
//! `TCONVC_GEOMETRIES` sets their number.

use crate::support::{FORMS, Random, cases, targets};
use std::fmt;
use std::io::Write;
use tconvc::{Compiler, Form, Model, Target, Tensor};
use tconvc_codegen::compile;
use tconvc_codegen::options::{FastMath, Options};
use tconvc_ir::{Attributes, DType, Graph, Op, ValueType, interp};
use tconvc_passes::plan::plan;
use tconvc_runtime::executor::Serial;
use tconvc_runtime::program::Work;

/// Every instruction set, and every calling convention.
const TARGETS: [&str; 6] =
    ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "x86_64-pc-windows-msvc"];

/// Multiply-adds up to which results are compared.
const COMPARED: usize = 300_000;

#[derive(Debug, Clone)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: [usize; 2],
    output: usize,
}

#[derive(Debug, Clone, Copy)]
enum PostOp {
    Unary(&'static str),
    PRelu,
    Add,
}

#[derive(Debug, Clone)]
struct Case {
    form: Option<Form>,
    axes: Vec<Axis>,
    group: usize,
    channels: [usize; 2],
    bias: bool,
    post_ops: Vec<PostOp>,
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One to `most`, each power of two as likely as the next.
fn spread(random: &mut Random, most: usize) -> usize {
    let most = 1 << random.below(most.ilog2() as usize + 1);
    1 + random.below(most)
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        loop {
            let case = Self::any(&mut random, seed);
            let size = |extent: fn(&Axis) -> usize| case.axes.iter().map(extent).product::<usize>();
            let [cin, cout] = case.channels;
            let (weights, outputs) =
                (cin * cout * case.group * size(|axis| axis.kernel), size(|axis| axis.output));
            let small = |count: usize, most: usize| (1..=most).contains(&count);
            if small(weights, 1 << 16)
                && small(size(|axis| axis.input) * cin * case.group, 1 << 18)
                && small(outputs * cout * case.group, 1 << 18)
            {
                return case;
            }
        }
    }

    fn any(random: &mut Random, seed: u64) -> Self {
        let dimensions = 1 + random.below(3);
        let form = [None, None, Some(FORMS[random.below(3)]), Some(Form::Auto)][random.below(4)];
        let long = random.below(dimensions);
        let axis = |number: usize, random: &mut Random| {
            let most = if number == long { 4096 } else { 8 };
            let (kernel, stride) = (spread(random, most), spread(random, most));
            let dilation = if random.below(3) == 0 { spread(random, 64) } else { 1 };
            let reach = (kernel - 1) * dilation + 1;
            let pads =
                [0, 1].map(|_| if random.below(2) == 0 { 0 } else { random.below(reach.min(2048) + 1) });
            if form.is_some() {
                let input = 1 + random.below(if number == long { 40 } else { 6 });
                let full = (input - 1) * stride + reach;
                let output = full.saturating_sub(pads[0] + pads[1]);
                return Axis { input, kernel, stride, dilation, pads, output };
            }
            let output = 1 + random.below(if number == long { 40 } else { 6 });
            let input =
                ((output - 1) * stride + reach).saturating_sub(pads[0] + pads[1]) + random.below(stride);
            let output = (input + pads[0] + pads[1]).checked_sub(reach).map_or(0, |rest| rest / stride + 1);
            Axis { input, kernel, stride, dilation, pads, output }
        };
        let axes = (0..dimensions).map(|number| axis(number, random)).collect();
        let group = [1, 1, 1, 2, 3, 8][random.below(6)];
        let channels = [spread(random, 64 / group), spread(random, 64 / group)];
        let post_op = |random: &mut Random| match random.below(8) {
            0 => PostOp::Unary("Relu"),
            1 => PostOp::Unary("Neg"),
            2 => PostOp::Unary("Abs"),
            3 => PostOp::PRelu,
            _ => PostOp::Add,
        };
        let post_ops = (0..spread(random, 40).min(40)).map(|_| post_op(random)).collect();
        Self { form, axes, group, channels, bias: random.below(2) == 0, post_ops, seed }
    }

    fn macs(&self) -> usize {
        let taps: usize = self.axes.iter().map(|axis| axis.kernel * axis.output.max(axis.input)).product();
        taps * self.channels[0] * self.channels[1] * self.group
    }

    fn graph(&self) -> (Graph, Vec<(String, Tensor)>) {
        let mut random = Random::new(self.seed);
        let mut graph = Graph::new("convolution");
        let [cin, cout] = self.channels;
        let spatial = |extent: fn(&Axis) -> usize| self.axes.iter().map(extent).collect::<Vec<usize>>();
        let shape = |channels: [usize; 2], extent| [channels.to_vec(), spatial(extent)].concat();
        let x_shape = shape([1, cin * self.group], |axis| axis.input);
        let y_shape = shape([1, cout * self.group], |axis| axis.output);
        let rows = if self.form.is_some() { [cin * self.group, cout] } else { [cout * self.group, cin] };
        let w_shape = shape(rows, |axis| axis.kernel);
        let numbers = |shape: &[usize], random: &mut Random| {
            Tensor::from_vec(shape, random.integers(shape.iter().product())).unwrap()
        };
        let mut inputs = vec![("x".to_owned(), numbers(&x_shape, &mut random))];
        let x = graph.add_input("x", ValueType::new(DType::F32, x_shape)).unwrap();
        let mut operands = vec![Some(x), Some(graph.add_constant("w", numbers(&w_shape, &mut random)))];
        if self.bias {
            operands.push(Some(graph.add_constant("b", numbers(&[cout * self.group], &mut random))));
        }
        let list =
            |number: fn(&Axis) -> usize| self.axes.iter().map(|axis| number(axis) as i64).collect::<Vec<_>>();
        let attributes = Attributes::new()
            .with("group", self.group as i64)
            .with("strides", list(|axis| axis.stride))
            .with("dilations", list(|axis| axis.dilation))
            .with("pads", [list(|axis| axis.pads[0]), list(|axis| axis.pads[1])].concat());
        let name = if self.form.is_some() { "ConvTranspose" } else { "Conv" };
        let ty = || vec![ValueType::new(DType::F32, y_shape.clone())];
        let op = Op::read(name, attributes).unwrap().unwrap();
        let mut last = graph.add_node("conv", op, &operands, ty()).unwrap().1[0];
        for (number, post_op) in self.post_ops.iter().enumerate() {
            let (name, operand) = match post_op {
                PostOp::Unary(name) => (*name, None),
                PostOp::PRelu => {
                    let slopes = [vec![cout * self.group], vec![1; self.axes.len()]].concat();
                    let slopes = Tensor::from_vec(slopes, vec![1.0f32; cout * self.group]).unwrap();
                    ("PRelu", Some(graph.add_constant(&format!("slope{number}"), slopes)))
                }
                PostOp::Add => {
                    let name = format!("r{number}");
                    if self.macs() <= COMPARED {
                        inputs.push((name.clone(), numbers(&y_shape, &mut random)));
                    }
                    let ty = ValueType::new(DType::F32, y_shape.clone());
                    ("Add", Some(graph.add_input(&name, ty).unwrap()))
                }
            };
            let op = Op::read(name, Attributes::new()).unwrap().unwrap();
            let operands: Vec<_> = [Some(last), operand].into_iter().flatten().map(Some).collect();
            last = graph.add_node(&format!("step{number}"), op, &operands, ty()).unwrap().1[0];
        }
        graph.add_output(last);
        (graph, inputs)
    }
}

/// What came of all cases.
#[derive(Debug, Default)]
struct Tally {
    compiled: usize,
    interpreted: usize,
    compared: usize,
    declined: usize,
}

/// Compiles a case for a target; gives whether a step is interpreted.
fn compile_for(case: &Case, graph: &Graph, target: &Target, tally: &mut Tally) {
    let compiler = Compiler::new().target(target.clone()).form(case.form.unwrap_or_default());
    let rewritten = compiler.rewrite(&Model::from_graph(graph.clone()));
    let rewritten = rewritten.unwrap_or_else(|error| panic!("{target}: {error}: {case}"));
    let plan = plan(rewritten.graph(), &tconvc_passes::Limits::of(target.vectors())).unwrap();
    let fast_math = [FastMath::WherePays, FastMath::Always][case.seed as usize % 2];
    let options = Options { fast_math, ..Options::new(target.clone()) };
    let compiled = compile::compile(rewritten.graph(), &plan, &options, &Serial);
    let compiled = compiled.unwrap_or_else(|error| panic!("{target}: {error}: {case}"));
    tally.compiled += 1;
    tally.declined += compiled.declined.len();
    let interpreted = compiled.layout.steps.iter().any(|step| matches!(step.work, Work::Interpreted(_)));
    tally.interpreted += usize::from(interpreted);
}

#[test]
fn every_convolution_compiles_for_every_target() {
    let all = TARGETS.map(|name| Target::parse(name).unwrap());
    let here = targets();
    let mut tally = Tally::default();
    for number in 0..cases(150) {
        let case = Case::new(number as u64);
        let (graph, inputs) = case.graph();
        // Few of these have code of their own for each target, all have for one in turn.
        for (index, target) in all.iter().enumerate() {
            if cases(0) > 0 || (number + index) % 3 == 0 {
                compile_for(&case, &graph, target, &mut tally);
            }
        }
        if case.macs() > COMPARED {
            continue;
        }
        tally.compared += 1;
        let target = &here[number % here.len()];
        let compiler =
            Compiler::new().target(target.clone()).form(case.form.unwrap_or_default()).fast_math(false);
        let compiled = compiler.compile(&Model::from_graph(graph.clone())).unwrap();
        let found = compiled.run(inputs.iter().map(|(name, x)| (name.as_str(), x.view()))).unwrap();
        let inputs: Vec<_> = inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
        let expected = interp::run(&graph, &inputs).unwrap();
        let (found, expected) =
            (found[0].elements::<f32>().unwrap(), expected[0].1.elements::<f32>().unwrap());
        assert!(found == expected, "{target}: {case}");
    }
    // Few have more phases, taps or elements in reach than code is made for.
    assert!(tally.compared * 10 > cases(150), "{tally:?}");
    assert!(tally.interpreted * 10 < tally.compiled, "{tally:?}");
    if std::env::var_os("TCONVC_GEOMETRIES").is_some() {
        let _ = writeln!(std::io::stderr(), "{tally:?}");
    }
}
