//! Generated code touches nothing but its buffers: every operand of every kernel, packed weights and biases included, and
//! every scratch memory lies between pages that must not be touched, flush with the one behind it, then with the one before.
//! Results must be those of an ordinary run, bit for bit; that these are right is for the other tests. Where steps are shared
//! between threads, however small, each part runs alone on a copy, too: no two write the same bytes.
//!
//! The cases run in a process of their own, which tells each case and kernel, because one that reads too far ends it. Set
//! `TCONVC_CHILD` to the name of a test, and run it with `--exact NAME`, to have it in a debugger.

use crate::epilogue::with_epilogue;
use crate::geometries::{
    axes, banded_layer, blockwise_layer, deep_layer, layer, planes_and_volumes, random_layer, rolling_layer,
    stacked_layer, strided_layer, wrong_layers,
};
use crate::layer::{Axis, Layer};
use crate::models::{arrays, models};
use crate::networks::{exactly, live};
use crate::schedules::{has_tiles_over_rows, others};
use crate::support::{FORMS, Random, cases, every_target, is_run, targets};
use crate::winograd::wide_layer;
use proptest::strategy::{Strategy, ValueTree};
use std::fmt::{self, Display};
use std::sync::Arc;
use tconvc::{Compiler, Form, Model, PortInfo, Target, Tensor, TensorView, TensorViewMut};
use tconvc_codegen::compile;
use tconvc_codegen::options::{FastMath, Options, Schedules};
use tconvc_ir::Graph;
use tconvc_ir::text::print;
use tconvc_passes::plan::plan;
use tconvc_runtime::executor::Serial;
use tconvc_runtime::program::{Step, Work};
use tconvc_runtime::session::Session;
use tconvc_testing::{Cases, Edge, Guarded, graphs, in_child};

/// Layers that are compiled together.
const TOGETHER: usize = 24;

/// How a case is compiled.
#[derive(Clone)]
struct Setting<'a> {
    form: Form,
    target: &'a Target,
    threads: usize,
    fast_math: FastMath,
    schedules: Schedules,
}

impl<'a> Setting<'a> {
    fn new(form: Form, target: &'a Target, threads: usize) -> Self {
        Self { form, target, threads, fast_math: FastMath::WherePays, schedules: Schedules::default() }
    }
}

impl Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {} thread(s), {:?}", self.form, self.target, self.threads, self.schedules)
    }
}

/// Where a program runs.
#[derive(Clone, Copy)]
enum Memory {
    /// That of its session.
    Own,
    /// Every buffer at the edge of memory that must not be touched.
    Guarded(Edge),
    /// Every part of a kernel on a copy.
    ByPart,
}

/// Compiles a network and, where code for its target is run, runs it on memory of every edge. Gives the steps.
fn check(
    tell: &mut Cases,
    about: &dyn Display,
    graph: &Graph,
    inputs: &[(String, Tensor)],
    setting: &Setting<'_>,
) -> Vec<Step> {
    tell.begin(&format_args!("{setting}: {about}"));
    let &Setting { form, target, threads, fast_math, ref schedules } = setting;
    let compiler = Compiler::new().form(form).target(target.clone()).threads(threads);
    let compiler =
        inputs.iter().fold(compiler, |compiler, (name, tensor)| compiler.input_shape(name, tensor.shape()));
    let rewritten = compiler.rewrite(&Model::from_graph(graph.clone())).unwrap();
    let plan = plan(rewritten.graph(), &tconvc_passes::Limits::default()).unwrap();
    let schedules = schedules.clone();
    let grain_ns = (threads > 1).then_some(0.0);
    let options = Options { threads, fast_math, schedules, grain_ns, ..Options::new(target.clone()) };
    let artifact = compile::compile(rewritten.graph(), &plan, &options, &Serial).unwrap();
    let steps = artifact.layout.steps.clone();
    if !is_run(target) {
        return steps;
    }
    let program = artifact.load().unwrap();
    let mut session = Session::new(&program, Arc::new(Serial)).unwrap();
    let views: Vec<TensorView<'_>> = inputs.iter().map(|(_, tensor)| tensor.view()).collect();
    let mut run = |memory: Memory| {
        let mut blocks: Vec<Guarded> =
            program.outputs().iter().map(|port| Guarded::new(port.bytes(), Edge::End)).collect();
        let outputs = program.outputs().iter().zip(&mut blocks);
        let mut outputs: Vec<TensorViewMut<'_>> = outputs
            .map(|(port, block)| TensorViewMut::from_bytes(port.dtype, &port.shape, block).unwrap())
            .collect();
        match memory {
            Memory::Own => session.run(&views, &mut outputs).unwrap(),
            Memory::ByPart => {
                let (problems, shared) = session.run_parts_alone(&views, &mut outputs).unwrap();
                assert!(problems.is_empty(), "{setting}: {}\n{about}", problems.join("\n"));
                let several = |step: &Step| matches!(&step.work, Work::Kernel(k) if k.partition.len() > 2);
                assert_eq!(shared, program.steps().iter().filter(|step| several(step)).count());
            }
            Memory::Guarded(edge) => {
                let mut last = None;
                let block = |step: &Step, bytes| {
                    if last.replace(std::ptr::from_ref(step)) != Some(std::ptr::from_ref(step))
                        && let Work::Kernel(kernel) = &step.work
                    {
                        tell.begin(&format_args!("  {edge:?}: {} of {}", kernel.name, step.node));
                    }
                    Guarded::new(bytes, edge)
                };
                session.run_apart(&views, &mut outputs, block).unwrap();
            }
        }
        blocks
    };
    let expected = run(Memory::Own);
    let by_part = (threads > 1).then_some(Memory::ByPart);
    for memory in Edge::ALL.map(Memory::Guarded).into_iter().chain(by_part) {
        let found = run(memory);
        for ((found, expected), port) in found.iter().zip(&expected).zip(program.outputs()) {
            assert!(
                **found == **expected,
                "{setting}: `{}` depends on where buffers are: {about}",
                port.name
            );
        }
    }
    steps
}

/// Whether a step's kernel has this in its name.
fn has_kernel(step: &Step, part: &str) -> bool {
    matches!(&step.work, Work::Kernel(kernel) if kernel.name.contains(part))
}

/// Layers compiled as one network: the kernels are the same, and compiling costs less.
fn check_layers(tell: &mut Cases, layers: &[Layer], setting: &Setting<'_>) {
    let mut graph = Graph::new("layers");
    let mut inputs = vec![];
    for (number, layer) in layers.iter().enumerate() {
        let y = layer.add_to(&mut graph, number);
        graph.add_output(y);
        inputs.push((format!("x{number}"), layer.input()));
    }
    let list: Vec<String> = (0..).zip(layers).map(|(number, layer)| format!("up{number}: {layer}")).collect();
    check(tell, &format_args!("layers\n{}", list.join("\n")), &graph, &inputs, setting);
}

/// The box of small geometries in one dimension, a part of it unless `TCONVC_GEOMETRIES` asks for all, and some of it in two
/// and three.
fn small_geometries(name: &str, form: Form) {
    in_child(name, |tell| {
        let targets = targets();
        let valid: Vec<Axis> = axes().into_iter().filter(Axis::is_valid).collect();
        let count = cases(432).min(valid.len());
        let line = |number: usize| layer(number, vec![valid[number]]);
        let lines: Vec<Layer> = (0..count).map(|i| line(i * valid.len() / count)).collect();
        let layers = [lines, planes_and_volumes(cases(432) / 9)].concat();
        for (number, layers) in layers.chunks(TOGETHER).enumerate() {
            check_layers(tell, layers, &Setting::new(form, &targets[number % targets.len()], 1));
        }
    });
}

#[test]
fn small_geometries_as_sub_pixel() {
    small_geometries("guard::small_geometries_as_sub_pixel", Form::SubPixel);
}

#[test]
fn small_geometries_as_zero_insertion() {
    small_geometries("guard::small_geometries_as_zero_insertion", Form::ZeroInsert);
}

#[test]
fn small_geometries_as_scatter() {
    small_geometries("guard::small_geometries_as_scatter", Form::Scatter);
}

/// Random layers with activations and residuals behind them, each in these settings; counts those that have a step like this.
fn random_layers<'t>(
    tell: &mut Cases,
    targets: &'t [Target],
    count: usize,
    layer: impl Fn(u64) -> Layer,
    settings: impl Fn(usize, &'t Target) -> Vec<Setting<'t>>,
    is_wanted: impl Fn(&Step) -> bool,
) -> usize {
    let mut found = 0;
    for number in 0..count {
        let layer = layer(number as u64);
        let (graph, inputs) = with_epilogue(&layer, &mut Random::new(number as u64));
        // The rest of the number varies in each target.
        for setting in settings(number / targets.len(), &targets[number % targets.len()]) {
            let steps = check(tell, &layer, &graph, &inputs, &setting);
            found += usize::from(steps.iter().any(&is_wanted));
        }
    }
    found
}

/// Rows of many vectors in one to three dimensions.
#[test]
fn random_geometries() {
    in_child("guard::random_geometries", |tell| {
        let layer = |number| random_layer(4 << 32 | number);
        let settings = |rest, target| FORMS.map(|form| Setting::new(form, target, 1 + rest % 2)).to_vec();
        random_layers(tell, &targets(), cases(80), layer, settings, |_| true);
    });
}

#[test]
fn many_channels_over_few_pixels() {
    in_child("guard::many_channels_over_few_pixels", |tell| {
        let layer = |number| deep_layer(5 << 32 | number);
        let settings = |_, target| FORMS.map(|form| Setting::new(form, target, 1)).to_vec();
        random_layers(tell, &targets(), cases(60), layer, settings, |_| true);
    });
}

#[test]
fn rows_that_follow_each_other() {
    in_child("guard::rows_that_follow_each_other", |tell| {
        let layer = |number| blockwise_layer(10 << 32 | number);
        let settings = |rest, target| vec![Setting::new(Form::SubPixel, target, 1 + rest % 2)];
        let folded = |step: &Step| step.schedule.contains("collapsed");
        let found = random_layers(tell, &every_target(), cases(60), layer, settings, folded);
        assert!(4 * found > cases(60), "only {found} layers were folded");
    });
}

#[test]
fn rows_of_few_channels() {
    in_child("guard::rows_of_few_channels", |tell| {
        let layer = |number| stacked_layer(11 << 32 | number);
        let settings = |rest, target| vec![Setting::new(FORMS[rest % 2], target, 1 + rest % 2)];
        let together = |step: &Step| step.schedule.contains("joint");
        let found = random_layers(tell, &every_target(), cases(60), layer, settings, together);
        assert!(4 * found > cases(60), "only {found} layers had tiles of several rows");
    });
}

/// Small ones, which do not roll by estimate.
#[test]
fn windows_that_roll() {
    in_child("guard::windows_that_roll", |tell| {
        let targets = every_target();
        let mut seen = 0;
        for number in 0..cases(80) {
            let layer = rolling_layer(12 << 32 | number as u64);
            let setting = Setting::new(Form::SubPixel, &targets[number % targets.len()], 1 + number % 2);
            seen += check_others(tell, &layer, number, &setting, |_, name| name.contains("line-buffer"));
        }
        assert!(seen > cases(80), "only {seen} schedules had windows that roll");
    });
}

#[test]
fn tiles_over_rows() {
    in_child("guard::tiles_over_rows", |tell| {
        let (targets, mut seen) = (every_target(), 0);
        for number in 0..cases(90) {
            let layers = [random_layer, stacked_layer, rolling_layer];
            let layer = layers[number % 3](13 << 32 | number as u64);
            let setting = Setting::new(Form::SubPixel, &targets[number / 3 % targets.len()], 1 + number % 2);
            seen += check_others(tell, &layer, number, &setting, |_, name| has_tiles_over_rows(name));
        }
        assert!(seen > 2 * cases(90), "only {seen} schedules had tiles over rows");
    });
}

#[test]
fn few_channels_at_large_strides() {
    in_child("guard::few_channels_at_large_strides", |tell| {
        let layer = |number| strided_layer(7 << 32 | number);
        let settings = |rest, target| vec![Setting::new(Form::SubPixel, target, 1 + rest % 3)];
        let found = random_layers(tell, &every_target(), cases(60), layer, settings, |step| {
            has_kernel(step, "_phases")
        });
        assert!(2 * found > cases(60), "only {found} layers had lanes along the phases");
    });
}

#[test]
fn bands_for_threads() {
    in_child("guard::bands_for_threads", |tell| {
        let layer = |number| banded_layer(9 << 32 | number);
        let settings = |rest, target| vec![Setting::new(Form::Scatter, target, 2 + rest % 3)];
        // The last word of a schedule is the number of bands.
        let is_cut = |step: &Step| has_kernel(step, "scatter") && !step.schedule.ends_with(" 1");
        let found = random_layers(tell, &every_target(), cases(60), layer, settings, is_cut);
        assert!(3 * found > cases(60), "only {found} layers were cut into bands");
    });
}

/// Layers for Winograd.
#[test]
fn winograd_layers() {
    in_child("guard::winograd_layers", |tell| {
        let layer = |number| wide_layer(6 << 32 | number);
        let settings = |_, target| {
            vec![Setting { fast_math: FastMath::Always, ..Setting::new(Form::SubPixel, target, 1) }]
        };
        let found = random_layers(tell, &every_target(), cases(60), layer, settings, |step| {
            has_kernel(step, "winograd")
        });
        assert!(10 * found > 8 * cases(60), "only {found} layers by Winograd");
    });
}

/// A layer under the schedules, by their number and name, that measurements may choose in the place of the estimated ones;
/// counts them.
fn check_others(
    tell: &mut Cases,
    layer: &Layer,
    number: usize,
    setting: &Setting<'_>,
    is_wanted: impl Fn(usize, &str) -> bool,
) -> usize {
    let (graph, inputs) = with_epilogue(layer, &mut Random::new(number as u64));
    let compiler = Compiler::new().form(setting.form).target(setting.target.clone());
    let rewritten = compiler.rewrite(&Model::from_graph(graph.clone())).unwrap();
    let others = others(rewritten.graph(), setting.target).into_iter().enumerate();
    let wanted: Vec<_> = others.filter(|(index, (name, _))| is_wanted(*index, name)).collect();
    for (_, (_, schedules)) in &wanted {
        let schedules = schedules.clone();
        let setting = Setting {
            fast_math: FastMath::Off,
            schedules,
            ..Setting::new(setting.form, setting.target, setting.threads)
        };
        check(tell, layer, &graph, &inputs, &setting);
    }
    wanted.len()
}

#[test]
fn other_schedules() {
    in_child("guard::other_schedules", |tell| {
        let targets = every_target();
        let mut seen = 0;
        for number in 0..cases(60) {
            let layers =
                [random_layer, deep_layer, strided_layer, blockwise_layer, stacked_layer, rolling_layer];
            let layer = layers[number % 6](8 << 32 | number as u64);
            let setting = Setting::new(FORMS[number / 2 % 2], &targets[number / 6 % targets.len()], 1);
            // A third of them each time: that is one of every kind.
            seen += check_others(tell, &layer, number, &setting, |index, _| index % 3 == number % 3);
        }
        assert!(seen > 2 * cases(60), "only {seen} schedules");
    });
}

#[test]
fn layers_that_were_wrong() {
    in_child("guard::layers_that_were_wrong", |tell| {
        let layers = wrong_layers();
        for (form, target) in
            FORMS.iter().flat_map(|form| targets().into_iter().map(move |target| (*form, target)))
        {
            check_layers(tell, &layers, &Setting::new(form, &target, 2));
        }
    });
}

/// A plain convolution in the text form: every kind of stride, dilation, pads and groups.
fn convolution(seed: u64) -> String {
    let mut random = Random::new(seed);
    let dimensions = 1 + random.below(3);
    let group = [1, 1, 2, 5][random.below(4)];
    let [cin, cout] = [0; 2].map(|_| 1 + random.below([40, 12, 6][dimensions - 1] / group));
    let mut lists = [const { vec![] }; 5];
    for _ in 0..dimensions {
        let (kernel, dilation) = (1 + random.below(4), 1 + random.below([9, 3, 2][dimensions - 1]));
        let reach = dilation * (kernel - 1);
        let input = reach + 1 + random.below([60, 16, 4][dimensions - 1]);
        let pad = if random.below(2) == 0 { 0 } else { dilation };
        for (list, number) in lists.iter_mut().zip([input, kernel, 1 + random.below(3), dilation, pad]) {
            list.push(number);
        }
    }
    let [input, kernel, strides, dilations, pads] = lists;
    let (batch, pads) = (1 + random.below(2), [pads.clone(), pads].concat());
    let x = [vec![batch, group * cin], input].concat();
    let w = [vec![group * cout, cin], kernel].concat();
    format!(
        "input %x : f32{x:?}
const @w : f32{w:?} = seeded(1)
const @b : f32[{}] = seeded(2)
%y = Conv(%x, @w, @b) {{group={group}, strides={strides:?}, dilations={dilations:?}, pads={pads:?}}}
output %y
",
        group * cout
    )
}

#[test]
fn plain_convolutions() {
    in_child("guard::plain_convolutions", |tell| {
        let targets = targets();
        for number in 0..cases(240) {
            let text = convolution(7 << 32 | number as u64);
            let graph: Graph = text.parse().unwrap();
            let target = &targets[number % targets.len()];
            let setting = Setting::new(Form::Auto, target, 1 + number / targets.len() % 2);
            check(
                tell,
                &format_args!("convolution\n{}", text.trim_end()),
                &graph,
                &tconvc_testing::inputs(&graph, 1).unwrap(),
                &setting,
            );
        }
    });
}

/// Networks of every operator that decoders are made of.
#[test]
fn random_networks() {
    in_child("guard::random_networks", |tell| {
        let targets = targets();
        let mut runner = exactly(1);
        for number in 0..cases(1200) / 10 {
            let graph = live(graphs().new_tree(&mut runner).unwrap().current());
            let form = [FORMS.as_slice(), &[Form::Auto]].concat()[number % 4];
            let target = &targets[number % targets.len()];
            let setting = Setting::new(form, target, 1 + number / targets.len() % 2);
            check(
                tell,
                &format_args!("network\n{}", print(&graph).trim_end()),
                &graph,
                &tconvc_testing::inputs(&graph, 3).unwrap(),
                &setting,
            );
        }
    });
}

#[test]
fn trained_networks() {
    in_child("guard::trained_networks", |tell| {
        for path in models() {
            let model = Model::from_path(&path).unwrap();
            let arrays = arrays(&path);
            let input = |port: &PortInfo| arrays.iter().find(|(name, _)| *name == port.name).unwrap().clone();
            let inputs: Vec<(String, Tensor)> = model.inputs().iter().map(input).collect();
            for target in targets() {
                let setting = Setting::new(Form::Auto, &target, 2);
                let program = check(tell, &path.display(), model.graph(), &inputs, &setting);
                let shared = |step: &Step| matches!(&step.work, Work::Kernel(k) if k.partition.len() > 2);
                assert!(program.iter().any(shared), "{}: nothing is shared", path.display());
            }
        }
    });
}
