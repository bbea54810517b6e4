//! Transposed convolutions with signed pads, epilogues, and the three forms, written as plain ONNX, mean what they meant.
//!
//! Written and read again they are run by the reference interpreter, which has no `Col2Im`; so the scatter form, and
//! everything again by ONNX Runtime, is for `tests/python/check_cases.py`: with `TCONVC_KEEP` set to a folder, the models are
//! left there in the layout of ONNX's backend tests.

use std::path::PathBuf;
use tconvc_ir::geometry::{Channels, DeconvAxis, DeconvGeometry};
use tconvc_ir::ops::{
    ColumnGemm, ConvTranspose, Epilogue, EpilogueStep, Interleave, OverlapAdd, Padding, PhaseConv, Unary,
    ZeroInsert,
};
use tconvc_ir::{DType, Dim, Graph, Op, Tensor, ValueId, ValueType, infer, interp, onnx};

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit) as usize
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Small integers, so that sums are exact.
    fn tensor(&mut self, shape: Vec<usize>) -> Tensor {
        let data = (0..shape.iter().product()).map(|_| self.between(-4, 4) as f32).collect();
        Tensor::from_vec(shape, data).expect("the shape is small")
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Direct,
    Scatter,
    ZeroInsert,
    SubPixel,
}

const FORMS: [Form; 4] = [Form::Direct, Form::Scatter, Form::ZeroInsert, Form::SubPixel];

/// What a case consists of besides its form.
struct Case {
    geometry: DeconvGeometry,
    x: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
    epilogue: Epilogue,
    operands: Vec<Tensor>,
    /// Batch and spatial extents are symbols.
    symbolic: bool,
    /// Weights and bias are inputs.
    weights_given: bool,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let geometry = loop {
            let axes = 1 + random.below(3);
            let axis = |random: &mut Random| {
                let [input, kernel, stride, dilation] = [5, 4, 4, 3].map(|limit| 1 + random.below(limit));
                let pads = [random.between(-3, 4), random.between(-4, 4)];
                DeconvAxis::new(input, kernel, stride, dilation, pads).ok()
            };
            let Some(axes) = (0..axes).map(|_| axis(random)).collect::<Option<Vec<_>>>() else { continue };
            let groups = 1 + random.below(2);
            let channels = Channels::new(
                1 + random.below(2),
                groups * (1 + random.below(3)),
                groups * (1 + random.below(3)),
                groups,
            );
            break DeconvGeometry::new(channels.expect("groups divide channels"), axes).expect("it is small");
        };
        let output = geometry.output_shape();
        let mut operands = vec![];
        let mut steps = vec![];
        for _ in 0..random.below(3) {
            steps.push(match random.below(6) {
                0 => EpilogueStep::Unary(Unary::Relu),
                1 => EpilogueStep::Unary(Unary::LeakyRelu { alpha: 0.25 }),
                2 => EpilogueStep::Unary(Unary::Clamp { min: -3.0, max: 6.0 }),
                3 => EpilogueStep::Unary(Unary::Clamp { min: f32::NEG_INFINITY, max: 5.0 }),
                4 => {
                    let mut slopes = vec![1; output.len() - 1];
                    slopes[0] = output[1];
                    operands.push(random.tensor(slopes));
                    EpilogueStep::PRelu
                }
                _ => {
                    operands.push(random.tensor(output.clone()));
                    EpilogueStep::Add
                }
            });
        }
        let (x, w) = (random.tensor(geometry.input_shape()), random.tensor(geometry.weight_shape()));
        let bias = (random.below(3) > 0).then(|| random.tensor(vec![output[1]]));
        let (symbolic, weights_given) = (random.below(3) == 0, random.below(4) == 0);
        Self { geometry, x, w, bias, epilogue: Epilogue { steps }, operands, symbolic, weights_given }
    }

    /// The graph in that form, and its inputs.
    fn graph(&self, form: Form) -> (Graph, Vec<(String, Tensor)>) {
        let mut graph = Graph::new("case");
        graph.opsets.insert(String::new(), 21);
        let mut inputs = vec![];
        let mut input = |graph: &mut Graph, name: &str, tensor: &Tensor, symbolic: bool| {
            let extent = |(i, &extent): (usize, &usize)| {
                if symbolic && i != 1 { Dim::symbol(&format!("{name}{i}")) } else { extent.into() }
            };
            let shape: Vec<Dim> = tensor.shape().iter().enumerate().map(extent).collect();
            inputs.push((name.to_owned(), tensor.clone()));
            graph.add_input(name, ValueType::new(DType::F32, shape)).expect("names are unique")
        };
        let x = input(&mut graph, "x", &self.x, self.symbolic && form != Form::Scatter);
        let mut weights = |graph: &mut Graph, name: &str, tensor: &Tensor| {
            if self.weights_given {
                input(graph, name, tensor, false)
            } else {
                graph.add_constant(name, tensor.clone())
            }
        };
        let w = weights(&mut graph, "w", &self.w);
        let b = self.bias.as_ref().map(|bias| weights(&mut graph, "b", bias));
        let operands: Vec<ValueId> =
            self.operands.iter().map(|operand| graph.add_constant("operand", operand.clone())).collect();
        let operands = || operands.iter().copied().map(Some);
        let (g, epilogue) = (&self.geometry, self.epilogue.clone());
        let mut node = |op: Op, inputs: Vec<Option<ValueId>>| {
            let (_, outputs) =
                graph.add_node("n", op, &inputs, vec![ValueType::default()]).expect("inputs exist");
            outputs[0]
        };
        let y = match form {
            Form::Direct => {
                let axes = g.axes();
                let sizes = |get: fn(&DeconvAxis) -> usize| axes.iter().map(get).collect::<Vec<_>>();
                let op = ConvTranspose {
                    kernel_shape: vec![],
                    strides: sizes(DeconvAxis::stride),
                    dilations: sizes(DeconvAxis::dilation),
                    group: g.channels().groups(),
                    padding: Padding::Explicit {
                        begin: axes.iter().map(DeconvAxis::pad).collect(),
                        end: axes.iter().map(DeconvAxis::pad_end).collect(),
                    },
                    output_padding: vec![],
                    output_shape: vec![],
                    epilogue,
                };
                node(op.into(), [Some(x), Some(w), b].into_iter().chain(operands()).collect())
            }
            Form::Scatter => {
                let columns = node(ColumnGemm::from_geometry(g).into(), vec![Some(x), Some(w)]);
                let op = OverlapAdd::from_geometry(g, epilogue);
                node(op.into(), [Some(columns), b].into_iter().chain(operands()).collect())
            }
            Form::ZeroInsert => {
                let (insert, conv) = ZeroInsert::from_geometry(g, epilogue).expect("it is small");
                let stretched = node(insert.into(), vec![Some(x)]);
                let flipped = self.flipped();
                let w = graph.add_constant("flipped", flipped);
                let inputs: Vec<_> = [Some(stretched), Some(w), b].into_iter().chain(operands()).collect();
                let (_, outputs) =
                    graph.add_node("n", conv, &inputs, vec![ValueType::default()]).expect("inputs exist");
                outputs[0]
            }
            Form::SubPixel => {
                let phases = node(PhaseConv::from_geometry(g).into(), vec![Some(x), Some(w), b]);
                let op = Interleave::from_geometry(g, epilogue);
                node(op.into(), [Some(phases)].into_iter().chain(operands()).collect())
            }
        };
        graph.add_output(y);
        graph.remove_unused_values();
        infer::infer(&mut graph).unwrap_or_else(|error| panic!("{form:?}: {error}"));
        inputs.retain(|(name, _)| graph.find_value(name).is_some());
        (graph, inputs)
    }

    /// Weights of the convolution of the zero-insertion form.
    fn flipped(&self) -> Tensor {
        let channels = self.geometry.channels();
        let (cin, cout) = (channels.input_per_group(), channels.output_per_group());
        let kernel: usize = self.w.shape()[2..].iter().product();
        let w = self.w.elements::<f32>().expect("weights are f32");
        let mut flipped: Vec<f32> = vec![];
        for channel in 0..channels.output() {
            for ci in 0..cin {
                let plane = (channel / cout * cin + ci) * cout + channel % cout;
                flipped.extend(w[plane * kernel..][..kernel].iter().rev());
            }
        }
        let shape = [&[channels.output(), cin], &self.w.shape()[2..]].concat();
        Tensor::from_vec(shape, flipped).expect("as many as there were")
    }
}

fn run(graph: &Graph, inputs: &[(String, Tensor)]) -> Tensor {
    let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let outputs = interp::run(graph, &inputs).unwrap_or_else(|error| panic!("{error}"));
    outputs[0].1.clone()
}

/// Leaves a case where `check_cases.py` finds it.
fn keep(name: &str, bytes: &[u8], inputs: &[(String, Tensor)], output: (&str, &Tensor)) {
    let Some(folder) = std::env::var_os("TCONVC_KEEP") else { return };
    let data = PathBuf::from(folder).join(name).join("test_data_set_0");
    std::fs::create_dir_all(&data).expect("the folder to keep cases in can be made");
    let write = |path: PathBuf, bytes: &[u8]| std::fs::write(path, bytes).expect("a case can be written");
    write(data.join("../model.onnx"), bytes);
    for (i, (name, tensor)) in inputs.iter().enumerate() {
        write(data.join(format!("input_{i}.pb")), &onnx::write_tensor(name, tensor));
    }
    write(data.join("output_0.pb"), &onnx::write_tensor(output.0, output.1));
}

#[test]
fn forms_are_written_as_what_they_mean() {
    let cases = if std::env::var_os("TCONVC_KEEP").is_some() { 400 } else { 120 };
    for seed in 0..cases {
        let case = Case::new(&mut Random(seed));
        let expected = {
            let (graph, inputs) = case.graph(Form::Direct);
            run(&graph, &inputs)
        };
        for form in FORMS {
            let (graph, inputs) = case.graph(form);
            let name = format!("seed {seed}, {form:?}, {:?}", case.geometry);
            assert!(run(&graph, &inputs) == expected, "{name}: the form itself");
            let bytes = onnx::write(&graph).unwrap_or_else(|error| panic!("{name}: {error}"));
            let again = onnx::read_bytes(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let output = &graph.value(graph.outputs()[0]).name;
            assert_eq!(&again.value(again.outputs()[0]).name, output, "{name}");
            let own = ["ZeroInsert", "PhaseConv", "Interleave", "ColumnGemm", "OverlapAdd"];
            for id in again.order().unwrap() {
                let op = again.node(id).op.name();
                assert!(
                    !own.contains(&op) && (form == Form::Direct || op != "ConvTranspose"),
                    "{name}: {op}"
                );
            }
            let mut typed = again.clone();
            infer::infer(&mut typed).unwrap_or_else(|error| panic!("{name}: {error}"));
            if form != Form::Scatter {
                assert!(run(&typed, &inputs) == expected, "{name}");
            }
            assert!(onnx::read_bytes(&onnx::write(&again).unwrap()).unwrap() == again, "{name}: second trip");
            keep(&format!("{seed}-{form:?}"), &bytes, &inputs, (output, &expected));
        }
    }
}

#[test]
fn elementwise_operators_of_our_own_are_spelled_out() {
    let unaries = [
        Unary::Clamp { min: -1.0, max: 1.0 },
        Unary::Clamp { min: f32::NEG_INFINITY, max: f32::INFINITY },
        Unary::Clamp { min: 0.0, max: f32::INFINITY },
        Unary::GeluTanh,
        Unary::Swish { alpha: 1.0 },
        Unary::Swish { alpha: 0.5 },
        Unary::FakeQuantize { scale: 0.25, low: -2.0, high: 3.0 },
    ];
    let x = Random(1).tensor(vec![2, 3]);
    for unary in unaries {
        let mut graph = Graph::new("case");
        graph.opsets.insert(String::new(), 21);
        let input = graph.add_input("x", ValueType::new(DType::F32, [2usize, 3])).unwrap();
        let (_, outputs) = graph.add_node("n", unary, &[Some(input)], vec![ValueType::default()]).unwrap();
        graph.add_output(outputs[0]);
        infer::infer(&mut graph).unwrap();
        let bytes = onnx::write(&graph).unwrap();
        let again = onnx::read_bytes(&bytes).unwrap();
        if !matches!(unary, Unary::Swish { .. } | Unary::FakeQuantize { .. }) {
            assert!(again == graph, "{unary:?}");
        }
        let inputs = [("x".to_owned(), x.clone())];
        let (expected, found) = (run(&graph, &inputs), run(&again, &inputs));
        let pairs = expected.to_f64s().unwrap().into_iter().zip(found.to_f64s().unwrap());
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-6), "{unary:?}: {expected:?} {found:?}");
        let name = graph.value(graph.outputs()[0]).name.clone();
        keep(&unary.spell(), &bytes, &inputs, (&name, &expected));
    }
}
