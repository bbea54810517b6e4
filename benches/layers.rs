//! Times of named ConvTranspose layers and of the networks in `models/`, on one thread and on two. Throughput is in
//! multiply-adds, counted alike for every form: of a layer, each input element times each tap of its group.
//!
//! `cargo bench -p tconvc-benches -- dcgan4` times those whose name contains `dcgan4`.

use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use std::path::Path;
use std::time::Duration;
use tconvc::{CompiledModel, Compiler, DType, Model, Session, Tensor, TensorView, TensorViewMut};
use tconvc_passes::cost::graph_cost;
use tconvc_testing::onnx_build::{
    Graph, Message, floats, int_attribute, ints_attribute, node, untyped, value,
};

/// One transposed convolution; kernel, stride, dilation and pads are the same along all axes.
#[derive(Clone, Copy)]
struct Layer {
    name: &'static str,
    batch: usize,
    /// Input and output channels of all groups.
    channels: [usize; 2],
    group: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// At the begin and at the end.
    pad: usize,
    output_padding: usize,
    /// Extents of an input plane.
    input: &'static [usize],
}

/// A layer with one image, one group and no dilation.
const fn layer(
    name: &'static str,
    channels: [usize; 2],
    [kernel, stride, pad]: [usize; 3],
    input: &'static [usize],
) -> Layer {
    Layer { name, batch: 1, channels, group: 1, kernel, stride, dilation: 1, pad, output_padding: 0, input }
}

/// Generators, decoders of segmentation networks, super-resolution, vocoders, heads of detectors and pose estimators.
const LAYERS: [Layer; 24] = [
    layer("dcgan1_100x1024_k4s1_1", [100, 1024], [4, 1, 0], &[1, 1]),
    layer("dcgan2_1024x512_k4s2_4", [1024, 512], [4, 2, 1], &[4, 4]),
    layer("dcgan4_256x128_k4s2_16", [256, 128], [4, 2, 1], &[16, 16]),
    layer("dcgan5_128x3_k4s2_32", [128, 3], [4, 2, 1], &[32, 32]),
    // Layer 4 in batches, under a name that no filter for layer 4 takes.
    Layer { batch: 16, ..layer("dcgan16_256x128_k4s2_16", [256, 128], [4, 2, 1], &[16, 16]) },
    layer("unet1_1024x512_k2s2_28", [1024, 512], [2, 2, 0], &[28, 28]),
    layer("unet3_256x128_k2s2_112", [256, 128], [2, 2, 0], &[112, 112]),
    Layer { output_padding: 1, ..layer("cyclegan1_256x128_k3s2_64", [256, 128], [3, 2, 1], &[64, 64]) },
    layer("pix2pix_1024x512_k4s2_8", [1024, 512], [4, 2, 1], &[8, 8]),
    layer("pix2pixlast_128x3_k4s2_128", [128, 3], [4, 2, 1], &[128, 128]),
    Layer { output_padding: 2, ..layer("fsrcnnx3_56x1_k9s3_128", [56, 1], [9, 3, 4], &[128, 128]) },
    layer("fcn_21x21_k4s2_16", [21, 21], [4, 2, 1], &[16, 16]),
    Layer { group: 21, ..layer("fcn8sdw_21_k16s8_32", [21, 21], [16, 8, 4], &[32, 32]) },
    layer("sam2_64x32_k2s2_128", [64, 32], [2, 2, 0], &[128, 128]),
    layer("dbnet1_24x24_k2s2_160", [24, 24], [2, 2, 0], &[160, 160]),
    layer("dbnet2_24x1_k2s2_320", [24, 1], [2, 2, 0], &[320, 320]),
    layer("hifi1_512x256_k16s8_100", [512, 256], [16, 8, 4], &[100]),
    layer("hifi3_128x64_k4s2_6400", [128, 64], [4, 2, 1], &[6400]),
    layer("pose1_2048x256_k4s2_8x6", [2048, 256], [4, 2, 1], &[8, 6]),
    layer("pose3_256x256_k4s2_32x24", [256, 256], [4, 2, 1], &[32, 24]),
    layer("vnet_64x32_k2s2_16c", [64, 32], [2, 2, 0], &[16, 16, 16]),
    Layer { group: 256, ..layer("dw_256_k4s2_32", [256, 256], [4, 2, 1], &[32, 32]) },
    Layer { dilation: 2, output_padding: 1, ..layer("dil_64x64_k3s2d2_32", [64, 64], [3, 2, 2], &[32, 32]) },
    layer("s1_64x64_k3s1_64", [64, 64], [3, 1, 1], &[64, 64]),
];

/// Networks of `models/`, with the name and shape of their input.
const NETWORKS: [(&str, &str, [usize; 4]); 3] = [
    ("fsrcnn_x3", "low", [1, 1, 96, 96]),
    ("dcgan_digits", "z", [16, 34, 1, 1]),
    ("unet_segment", "image", [1, 1, 128, 128]),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

impl Layer {
    fn macs(&self) -> u64 {
        let [cin, cout] = self.channels;
        let taps = self.kernel.pow(self.input.len() as u32);
        (self.batch * cin * (cout / self.group) * taps * self.input.iter().product::<usize>()) as u64
    }

    fn model(&self) -> Result<Model> {
        let [cin, cout] = self.channels;
        let axes = self.input.len();
        let weights = [vec![cin, cout / self.group], vec![self.kernel; axes]].concat();
        let all = |number: usize, count: usize| vec![number as i64; count];
        let attributes = [
            int_attribute("group", self.group as i64),
            ints_attribute("strides", &all(self.stride, axes)),
            ints_attribute("dilations", &all(self.dilation, axes)),
            ints_attribute("pads", &all(self.pad, 2 * axes)),
            ints_attribute("output_padding", &all(self.output_padding, axes)),
        ];
        let shape: Vec<String> =
            [self.batch, cin].iter().chain(self.input).map(ToString::to_string).collect();
        let graph = Graph {
            inputs: vec![value("x", &shape.iter().map(String::as_str).collect::<Vec<_>>())],
            outputs: vec![untyped("y")],
            initializers: vec![constant("w", &weights, 1)?, constant("b", &[cout], 2)?],
            nodes: vec![node("ConvTranspose", &["x", "w", "b"], &["y"], &attributes)],
        };
        Ok(Model::from_bytes(&graph.model(17))?)
    }
}

/// A tensor of seeded numbers.
fn constant(name: &str, shape: &[usize], seed: u64) -> Result<Message> {
    let dims: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    Ok(floats(name, &dims, &Tensor::seeded(DType::F32, shape, seed)?.elements()?))
}

/// A network whose shapes are known, with seeded inputs and memory for the outputs.
struct Run {
    session: Session,
    inputs: Vec<Tensor>,
    outputs: Vec<(Vec<usize>, Vec<f32>)>,
}

impl Run {
    fn new(compiled: &CompiledModel) -> Result<Self> {
        let mut inputs = vec![];
        for port in compiled.inputs() {
            let extents = port.shape.iter().flatten().map(|extent| extent.parse());
            let shape: Vec<usize> = extents.collect::<std::result::Result<_, _>>()?;
            inputs.push(Tensor::seeded(DType::F32, shape, 3)?);
        }
        let mut session = compiled.session();
        let outputs = session.run(&inputs.iter().map(Tensor::view).collect::<Vec<_>>())?;
        let memory = |(_, tensor): (&str, &Tensor)| (tensor.shape().to_vec(), vec![0.0; tensor.len()]);
        Ok(Self { session, inputs, outputs: outputs.iter().map(memory).collect() })
    }

    fn time(&mut self, bencher: &mut Bencher<'_>) -> Result<()> {
        let inputs: Vec<TensorView<'_>> = self.inputs.iter().map(Tensor::view).collect();
        let outputs = self.outputs.iter_mut().map(|(shape, data)| TensorViewMut::new(shape, data));
        let mut outputs: Vec<TensorViewMut<'_>> = outputs.collect::<std::result::Result<_, _>>()?;
        let mut result = Ok(());
        bencher.iter(|| result = self.session.run_into(&inputs, &mut outputs));
        Ok(result?)
    }
}

/// Times a network on one thread and on two; what is not asked for is not compiled.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    compile: impl Fn(Compiler) -> Result<CompiledModel>,
) {
    for threads in [1, 2] {
        let mut run = None;
        group.bench_function(format!("{name}/{threads}"), |bencher| {
            // Called again for every sample.
            let prepare =
                || compile(Compiler::new().threads(threads)).and_then(|compiled| Run::new(&compiled));
            let timed = match run.get_or_insert_with(prepare) {
                Ok(run) => run.time(bencher),
                Err(error) => Err(error.to_string().into()),
            };
            timed.unwrap_or_else(|error| panic!("{name}: {error}"));
        });
    }
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    for layer in &LAYERS {
        group.throughput(Throughput::Elements(layer.macs()));
        both(&mut group, layer.name, |compiler| Ok(compiler.compile(&layer.model()?)?));
    }
}

fn networks(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("network");
    for (name, input, shape) in NETWORKS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name).with_extension("onnx");
        let model = Model::from_path(path)?;
        let known = Compiler::new().input_shape(input, shape);
        let rewritten = known.without_pass("forms").rewrite(&model)?;
        group.throughput(Throughput::Elements(graph_cost(rewritten.graph()).macs));
        both(&mut group, name, |compiler| Ok(compiler.input_shape(input, shape).compile(&model)?));
    }
    Ok(())
}

fn main() -> Result<()> {
    let criterion = Criterion::default().warm_up_time(Duration::from_millis(500));
    let mut criterion = criterion.measurement_time(Duration::from_secs(2)).configure_from_args();
    layers(&mut criterion);
    networks(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
