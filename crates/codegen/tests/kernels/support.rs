//! Compiles one operator and compares what it computes with the definition.

use std::sync::Arc;

use tconvc_codegen::compile::compile;
use tconvc_codegen::options::{FastMath, Options};
use tconvc_ir::{Attributes, DType, Graph, Op, Tensor, TensorView, TensorViewMut, ValueType, infer};
use tconvc_passes::plan::plan;
use tconvc_runtime::executor::{Executor, Serial};
use tconvc_runtime::program::Work;
use tconvc_runtime::session::Session;
use tconvc_runtime::thread_pool::ThreadPool;
use tconvc_testing::{Edge, Guarded, targets};

/// An input of the operator under test.
pub enum Input {
    /// Handed over when the program runs.
    Given(Tensor),
    /// Known when it is compiled.
    Constant(Tensor),
    /// Not there.
    Absent,
}

/// How a program runs.
#[derive(Clone, Copy)]
enum How {
    Usual,
    /// With each buffer of every kernel at an edge.
    Apart,
    /// With each part of every kernel on a copy.
    ByPart,
}

/// One operator with its inputs.
pub struct Case {
    pub op: Op,
    pub inputs: Vec<Input>,
    pub outputs: usize,
    /// Largest difference, relative to the larger of 1 and the expected number.
    pub tolerance: f64,
    /// Whether there must be machine code for it.
    pub native: bool,
}

/// The operator of that name.
pub fn op(name: &str, attributes: Attributes) -> Op {
    Op::read(name, attributes).unwrap().unwrap()
}

/// Random numbers from -1 to 1 or so, the same for each seed.
pub fn seeded(shape: &[usize], seed: u64) -> Tensor {
    Tensor::seeded(DType::F32, shape, seed).unwrap()
}

impl Case {
    /// An operator on one given input and constants, which only moves data.
    pub fn new(op: Op, given: Tensor, constants: Vec<Tensor>) -> Case {
        let constants = constants.into_iter().map(Input::Constant);
        let inputs = std::iter::once(Input::Given(given)).chain(constants).collect();
        Case { op, inputs, outputs: 1, tolerance: 0.0, native: true }
    }

    /// With numbers that may differ by so much.
    pub fn within(self, tolerance: f64) -> Case {
        Case { tolerance, ..self }
    }

    fn tensors(&self) -> Vec<Option<&Tensor>> {
        let tensor = |input| match input {
            &Input::Given(ref tensor) | &Input::Constant(ref tensor) => Some(tensor),
            Input::Absent => None,
        };
        self.inputs.iter().map(tensor).collect()
    }

    fn graph(&self, types: &[ValueType]) -> Graph {
        let mut graph = Graph::new("case");
        let mut values = vec![];
        for (i, input) in self.inputs.iter().enumerate() {
            values.push(match input {
                Input::Given(tensor) => {
                    Some(graph.add_input(&format!("x{i}"), ValueType::of(tensor)).unwrap())
                }
                Input::Constant(tensor) => Some(graph.add_constant(&format!("c{i}"), tensor.clone())),
                Input::Absent => None,
            });
        }
        let (_, outputs) = graph.add_node("y", self.op.clone(), &values, types.to_vec()).unwrap();
        for output in outputs {
            graph.add_output(output);
        }
        infer::infer(&mut graph).unwrap();
        graph
    }

    /// Compiles and runs it everywhere, and compares.
    pub fn check(&self) {
        self.check_with(FastMath::WherePays);
    }

    /// [`Case::check`] with Winograd as asked for. Gives the names of the kernels.
    pub fn check_with(&self, fast_math: FastMath) -> Vec<String> {
        let mut kernels = vec![];
        let expected = self.op.eval(&self.tensors(), self.outputs).unwrap();
        let types: Vec<ValueType> = expected.iter().map(ValueType::of).collect();
        let graph = self.graph(&types);
        let plan = plan(&graph, &tconvc_passes::Limits::default()).unwrap();
        for target in targets() {
            let mut first: Option<Vec<Vec<u8>>> = None;
            for threads in [1, 2] {
                let grain_ns = Some(0.0);
                let options = Options { threads, fast_math, grain_ns, ..Options::new(target.clone()) };
                let program = compile(&graph, &plan, &options, &Serial).unwrap().load().unwrap();
                kernels.extend(program.steps().iter().filter_map(|step| match &step.work {
                    Work::Kernel(kernel) => Some(kernel.name.clone()),
                    _ => None,
                }));
                let interpreted =
                    program.steps().iter().any(|step| matches!(step.work, Work::Interpreted(_)));
                assert_eq!(!interpreted, self.native, "{:?} {target}: {:?}", self.op, program.steps());
                let executor: Arc<dyn Executor> = Arc::new(ThreadPool::new(threads).unwrap());
                let mut session = Session::new(&program, executor).unwrap();
                for (edge, how) in [
                    (Edge::End, How::Usual),
                    (Edge::End, How::Apart),
                    (Edge::Start, How::Apart),
                    (Edge::End, How::ByPart),
                ] {
                    let found = self.run(&mut session, &expected, edge, how);
                    // The others must be the same to the bit.
                    let known = first.get_or_insert_with(|| {
                        for (found, expected) in found.iter().zip(&expected) {
                            self.compare(found, expected, &format!("{target}, {threads} threads"));
                        }
                        found.clone()
                    });
                    assert!(
                        *known == found,
                        "{:?} {target}: depends on the number of threads, or on where buffers are",
                        self.op
                    );
                }
            }
        }
        kernels
    }

    /// Inputs and outputs lie at an edge.
    fn run(&self, session: &mut Session, expected: &[Tensor], edge: Edge, how: How) -> Vec<Vec<u8>> {
        let given: Vec<&Tensor> = self
            .inputs
            .iter()
            .filter_map(|input| match input {
                Input::Given(tensor) => Some(tensor),
                _ => None,
            })
            .collect();
        let inputs: Vec<Guarded> = given
            .iter()
            .map(|tensor| {
                let mut block = Guarded::new(tensor.bytes().len(), edge);
                block.copy_from_slice(tensor.bytes());
                block
            })
            .collect();
        let mut outputs: Vec<Guarded> =
            expected.iter().map(|tensor| Guarded::new(tensor.bytes().len(), edge)).collect();
        let views: Vec<TensorView<'_>> = given
            .iter()
            .zip(&inputs)
            .map(|(tensor, buffer)| TensorView::from_bytes(tensor.dtype(), tensor.shape(), buffer).unwrap())
            .collect();
        let mut views_mut: Vec<TensorViewMut<'_>> = expected
            .iter()
            .zip(&mut outputs)
            .map(|(tensor, buffer)| {
                TensorViewMut::from_bytes(tensor.dtype(), tensor.shape(), buffer).unwrap()
            })
            .collect();
        match how {
            How::Usual => session.run(&views, &mut views_mut).unwrap(),
            How::Apart => {
                session.run_apart(&views, &mut views_mut, |_, bytes| Guarded::new(bytes, edge)).unwrap();
            }
            How::ByPart => {
                let (problems, _) = session.run_parts_alone(&views, &mut views_mut).unwrap();
                assert!(problems.is_empty(), "{:?}: {}", self.op, problems.join("\n"));
            }
        }
        outputs.iter().map(|block| block.to_vec()).collect()
    }

    fn compare(&self, found: &[u8], expected: &Tensor, wher: &str) {
        if self.tolerance == 0.0 {
            assert!(found == expected.bytes(), "{:?} {wher}: {}", self.op, difference(found, expected));
            return;
        }
        let found: Vec<f32> = found.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        for (i, (found, expected)) in found.iter().zip(expected.to_f64s().unwrap()).enumerate() {
            let found = f64::from(*found);
            let close = (found - expected).abs() <= self.tolerance * expected.abs().max(1.0)
                || found == expected
                || found.is_nan() && expected.is_nan();
            assert!(close, "{:?} {wher}: element {i} is {found}, expected {expected}", self.op);
        }
    }
}

/// The first element that differs.
fn difference(found: &[u8], expected: &Tensor) -> String {
    let size = expected.bytes().len() / expected.len().max(1);
    let pairs = found.chunks(size.max(1)).zip(expected.bytes().chunks(size.max(1)));
    let Some((i, (found, expected))) = pairs.enumerate().find(|(_, (a, b))| a != b) else {
        return "equal".into();
    };
    format!("element {i} is {found:?}, expected {expected:?}")
}
