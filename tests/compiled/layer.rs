//! A transposed convolution of small whole numbers, its result by the definition, and graphs of such layers.

use crate::support::Random;
use std::fmt;
use tconvc::{Compiler, Form, Model, Report, Target, Tensor};
use tconvc_ir::geometry::DeconvAxis;
use tconvc_ir::{Attributes, DType, Graph, Op, ValueType};
use tconvc_testing::add_products;

/// One spatial axis, in ONNX's words.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    pub input: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pads: [i64; 2],
    pub output_padding: usize,
}

/// A layer and the seed of its numbers.
#[derive(Debug, Clone)]
pub struct Layer {
    pub batch: usize,
    pub group: usize,
    /// Channels of a group.
    pub channels: [usize; 2],
    pub axes: Vec<Axis>,
    pub bias: bool,
    pub seed: u64,
}

/// The numbers of a layer: input, weights, bias.
struct Numbers {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
}

impl Axis {
    /// Output extent by ONNX's formula; `None` where nothing is left.
    pub fn output(&self) -> Option<usize> {
        let full = (self.input - 1) * self.stride + (self.kernel - 1) * self.dilation + 1;
        let output = full as i64 + self.output_padding as i64 - self.pads[0] - self.pads[1];
        usize::try_from(output).ok().filter(|&output| output > 0)
    }

    /// Whether ONNX allows the output padding, and something is left.
    pub fn is_valid(&self) -> bool {
        self.output().is_some() && self.output_padding < self.stride.max(self.dilation)
    }
}

impl Layer {
    fn spatial(&self, extent: impl Fn(&Axis) -> usize) -> Vec<usize> {
        self.axes.iter().map(extent).collect()
    }

    /// `[N, C, ..]`.
    pub fn input_shape(&self) -> Vec<usize> {
        [vec![self.batch, self.group * self.channels[0]], self.spatial(|axis| axis.input)].concat()
    }

    fn weight_shape(&self) -> Vec<usize> {
        [vec![self.group * self.channels[0], self.channels[1]], self.spatial(|axis| axis.kernel)].concat()
    }

    /// `[N, C, ..]`.
    pub fn output_shape(&self) -> Vec<usize> {
        let spatial = self.spatial(|axis| axis.output().unwrap());
        [vec![self.batch, self.group * self.channels[1]], spatial].concat()
    }

    fn numbers(&self) -> Numbers {
        let mut random = Random::new(self.seed);
        let count = |shape: &[usize]| shape.iter().product();
        let x = random.integers(count(&self.input_shape()));
        let w = random.integers(count(&self.weight_shape()));
        let b = if self.bias { random.integers(self.group * self.channels[1]) } else { vec![] };
        Numbers { x, w, b }
    }

    pub fn input(&self) -> Tensor {
        Tensor::from_vec(self.input_shape(), self.numbers().x).unwrap()
    }

    /// The definition: every input adds its patch of the kernel to the output, in whole numbers.
    pub fn expected(&self) -> Vec<f32> {
        let Numbers { x, w, b } = self.numbers();
        let shape = self.output_shape();
        let (inputs, kernels) = (self.spatial(|axis| axis.input), self.spatial(|axis| axis.kernel));
        let [cin, cout] = self.channels;
        let (in_plane, taps): (usize, usize) = (inputs.iter().product(), kernels.iter().product());
        let plane: usize = shape[2..].iter().product();
        let [x, w, b] =
            [x, w, b].map(|list| list.into_iter().map(|number| number as i32).collect::<Vec<_>>());
        let mut y = vec![0; shape.iter().product()];
        for (channel, sums) in y.chunks_mut(plane).enumerate() {
            sums.fill(b.get(channel % shape[1]).copied().unwrap_or_default());
        }
        let patches = self.patches();
        for (channel, x) in x.chunks(in_plane).enumerate() {
            let (n, ci) = (channel / (self.group * cin), channel % (self.group * cin));
            for co in 0..cout {
                let w = &w[(ci * cout + co) * taps..][..taps];
                let y = &mut y[(n * shape[1] + ci / cin * cout + co) * plane..][..plane];
                add_products(y, x, w, &patches);
            }
        }
        y.into_iter().map(|sum| sum as f32).collect()
    }

    /// Every input `i` with a tap `k` and the output `o` that they meet in: all as flat indices.
    fn patches(&self) -> Vec<[u32; 3]> {
        let mut patches = vec![[0, 0, 0]];
        for axis in &self.axes {
            let (output, taps) = (axis.output().unwrap(), 0..axis.kernel);
            let pairs = (0..axis.input).flat_map(|i| taps.clone().map(move |k| (i, k)));
            let along: Vec<[u32; 3]> = pairs
                .filter_map(|(i, k)| {
                    let o = (i * axis.stride + k * axis.dilation) as i64 - axis.pads[0];
                    let o = usize::try_from(o).ok().filter(|&o| o < output)?;
                    Some([i as u32, k as u32, o as u32])
                })
                .collect();
            let extents = [axis.input, axis.kernel, output].map(|extent| extent as u32);
            let below = |outer: [u32; 3]| {
                along.iter().map(move |inner| [0, 1, 2].map(|at| outer[at] * extents[at] + inner[at]))
            };
            patches = patches.into_iter().flat_map(below).collect();
        }
        patches
    }

    /// Puts the layer into a graph, from an input `x{number}` to an output `y{number}`.
    pub fn add_to(&self, graph: &mut Graph, number: usize) -> tconvc_ir::ValueId {
        let Numbers { w, b, .. } = self.numbers();
        let input = ValueType::new(DType::F32, self.input_shape());
        let x = graph.add_input(&format!("x{number}"), input).unwrap();
        let w = graph.add_constant(&format!("w{number}"), Tensor::from_vec(self.weight_shape(), w).unwrap());
        let b = self
            .bias
            .then(|| graph.add_constant(&format!("b{number}"), Tensor::from_vec([b.len()], b).unwrap()));
        let list = |number: fn(&Axis) -> i64| self.axes.iter().map(number).collect::<Vec<i64>>();
        let attributes = Attributes::new()
            .with("group", self.group as i64)
            .with("strides", list(|axis| axis.stride as i64))
            .with("dilations", list(|axis| axis.dilation as i64))
            .with("pads", [list(|axis| axis.pads[0]), list(|axis| axis.pads[1])].concat())
            .with("output_padding", list(|axis| axis.output_padding as i64));
        let op = Op::read("ConvTranspose", attributes).unwrap().unwrap();
        let y = graph
            .add_undefined(&format!("y{number}"), ValueType::new(DType::F32, self.output_shape()))
            .unwrap();
        graph.add_node_defining(&format!("up{number}"), op, &[Some(x), Some(w), b], &[Some(y)]).unwrap();
        y
    }
}

/// Compiles layers as one network and compares every output with the definition: all must be equal. Gives what was compiled.
pub fn check(layers: &[Layer], form: Form, target: &Target, threads: usize) -> Report {
    let mut graph = Graph::new("layers");
    for (number, layer) in layers.iter().enumerate() {
        let y = layer.add_to(&mut graph, number);
        graph.add_output(y);
    }
    let compiler = Compiler::new().form(form).target(target.clone()).threads(threads).fast_math(false);
    let compiled = compiler.compile(&Model::from_graph(graph)).unwrap_or_else(|error| {
        let list: Vec<String> = layers.iter().map(ToString::to_string).collect();
        panic!("{form}, {target}: {error}; one of\n{}", list.join("\n"))
    });
    let names: Vec<String> = (0..layers.len()).map(|number| format!("x{number}")).collect();
    let inputs: Vec<Tensor> = layers.iter().map(Layer::input).collect();
    let views = names.iter().map(String::as_str).zip(inputs.iter().map(Tensor::view));
    let outputs = compiled.run(views).unwrap();
    for (number, layer) in layers.iter().enumerate() {
        let (got, expected) = (&outputs[number], layer.expected());
        assert_eq!(got.shape(), layer.output_shape(), "{layer}, {form}, {target}");
        let got = got.elements::<f32>().unwrap();
        if let Some(at) = got.iter().zip(&expected).position(|(got, expected)| got != expected) {
            let (got, expected) = (got[at], expected[at]);
            panic!("{layer}, {form}, {target}, {threads} threads: element {at} is {got}, not {expected}");
        }
    }
    compiled.report()
}

/// The geometry type must agree on what is valid and how large the output is.
pub fn check_extent(axis: &Axis) {
    let pads = [axis.pads[0], axis.pads[1] - axis.output_padding as i64];
    let checked = DeconvAxis::new(axis.input, axis.kernel, axis.stride, axis.dilation, pads);
    assert_eq!(checked.ok().map(|axis| axis.output()), axis.output(), "{axis:?}");
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} g{} {}->{}", self.batch, self.group, self.channels[0], self.channels[1])?;
        for axis in &self.axes {
            let Axis { input, kernel, stride, dilation, pads, output_padding } = axis;
            write!(f, " [i{input} k{kernel} s{stride} d{dilation} p{pads:?} op{output_padding}]")?;
        }
        write!(f, "{} seed {}", if self.bias { " bias" } else { "" }, self.seed)
    }
}
