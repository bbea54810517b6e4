//! Times of named ConvTranspose layers and of the networks in `models/`, on one thread and on two. Throughput is in
//! multiply-adds, counted alike for every form: of a layer, each input element times each tap of its group.
//!
//! `cargo bench -p tconvc-benches -- dcgan4` times those whose name contains `dcgan4`.

use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use std::path::Path;
use std::time::Duration;
use tconvc::{CompiledModel, Compiler, DType, Model, Session, Tensor, TensorView, TensorViewMut};
use tconvc_passes::cost::graph_cost;
use tconvc_testing::layers::{LAYERS, Layer};
use tconvc_testing::onnx_build::{
    Graph, Message, floats, int_attribute, ints_attribute, node, untyped, value,
};

/// Networks of `models/`, with the name and shape of their input.
const NETWORKS: [(&str, &str, [usize; 4]); 3] = [
    ("fsrcnn_x3", "low", [1, 1, 96, 96]),
    ("dcgan_digits", "z", [16, 34, 1, 1]),
    ("unet_segment", "image", [1, 1, 128, 128]),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A network of one layer.
fn model_of(layer: &Layer) -> Result<Model> {
    let [cin, cout] = layer.channels;
    let axes = layer.input.len();
    let weights = [vec![cin, cout / layer.group], vec![layer.kernel; axes]].concat();
    let all = |number: usize, count: usize| vec![number as i64; count];
    let attributes = [
        int_attribute("group", layer.group as i64),
        ints_attribute("strides", &all(layer.stride, axes)),
        ints_attribute("dilations", &all(layer.dilation, axes)),
        ints_attribute("pads", &all(layer.pad, 2 * axes)),
        ints_attribute("output_padding", &all(layer.output_padding, axes)),
    ];
    let shape: Vec<String> = [layer.batch, cin].iter().chain(layer.input).map(ToString::to_string).collect();
    let graph = Graph {
        inputs: vec![value("x", &shape.iter().map(String::as_str).collect::<Vec<_>>())],
        outputs: vec![untyped("y")],
        initializers: vec![constant("w", &weights, 1)?, constant("b", &[cout], 2)?],
        nodes: vec![node("ConvTranspose", &["x", "w", "b"], &["y"], &attributes)],
    };
    Ok(Model::from_bytes(&graph.model(17))?)
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
        both(&mut group, layer.name, |compiler| Ok(compiler.compile(&model_of(layer)?)?));
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
