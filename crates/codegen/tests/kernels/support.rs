//! Compiles one operator and compares what it computes with the definition.

use std::sync::Arc;

use tconvc_codegen::compile::{FastMath, Options, compile};
use tconvc_codegen::pool::{Executor, Pool};
use tconvc_codegen::program::Work;
use tconvc_codegen::session::Session;
use tconvc_codegen::target::Target;
use tconvc_ir::{Attributes, DType, Graph, Op, Tensor, TensorView, TensorViewMut, ValueType, infer};
use tconvc_passes::plan::plan;

/// An input of the operator under test.
pub enum Input {
    /// Handed over when the program runs.
    Given(Tensor),
    /// Known when it is compiled.
    Constant(Tensor),
    /// Not there.
    Absent,
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

    /// [`Case::check`] with filtering as asked for. Gives the names of the kernels.
    pub fn check_with(&self, fast_math: FastMath) -> Vec<String> {
        let mut kernels = vec![];
        let expected = self.op.eval(&self.tensors(), self.outputs).unwrap();
        let types: Vec<ValueType> = expected.iter().map(ValueType::of).collect();
        let graph = self.graph(&types);
        let plan = plan(&graph).unwrap();
        for target in targets() {
            let mut first: Option<Vec<Vec<u8>>> = None;
            for threads in [1, 2] {
                let options = Options { target: target.clone(), threads, keep_text: false, fast_math };
                let program = compile(&graph, &plan, &options).unwrap().finish().unwrap();
                kernels.extend(program.steps().iter().filter_map(|step| match &step.work {
                    Work::Kernel(kernel) => Some(kernel.name.clone()),
                    _ => None,
                }));
                let plain = program.steps().iter().any(|step| matches!(step.work, Work::Plain(_)));
                assert_eq!(!plain, self.native, "{:?} {target}: {:?}", self.op, program.steps());
                let executor: Arc<dyn Executor> = Arc::new(Pool::new(threads).unwrap());
                let mut session = Session::new(&program, executor).unwrap();
                for at_end in [true, false] {
                    let found = self.run(&mut session, &expected, at_end);
                    for (found, expected) in found.iter().zip(&expected) {
                        self.compare(found, expected, &format!("{target}, {threads} threads"));
                    }
                    let known = first.get_or_insert_with(|| found.clone());
                    assert!(*known == found, "{:?} {target}: depends on the number of threads", self.op);
                }
            }
        }
        kernels
    }

    fn run(&self, session: &mut Session, expected: &[Tensor], at_end: bool) -> Vec<Vec<u8>> {
        let given: Vec<&Tensor> = self
            .inputs
            .iter()
            .filter_map(|input| match input {
                Input::Given(tensor) => Some(tensor),
                _ => None,
            })
            .collect();
        let inputs: Vec<Guarded> = given.iter().map(|tensor| Guarded::new(tensor.bytes(), at_end)).collect();
        let mut outputs: Vec<Guarded> =
            expected.iter().map(|tensor| Guarded::new(&vec![0xaa; tensor.bytes().len()], at_end)).collect();
        let views: Vec<TensorView<'_>> = given
            .iter()
            .zip(&inputs)
            .map(|(tensor, buffer)| {
                TensorView::from_bytes(tensor.dtype(), tensor.shape(), buffer.bytes()).unwrap()
            })
            .collect();
        let mut views_mut: Vec<TensorViewMut<'_>> = expected
            .iter()
            .zip(&mut outputs)
            .map(|(tensor, buffer)| {
                TensorViewMut::from_bytes(tensor.dtype(), tensor.shape(), buffer.bytes_mut()).unwrap()
            })
            .collect();
        session.run(&views, &mut views_mut).unwrap();
        outputs.iter().map(|buffer| buffer.bytes().to_vec()).collect()
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

/// Code of each kind that this machine runs.
fn targets() -> Vec<Target> {
    let mut all = vec![Target::host(), Target::parse("x86-64-v3").unwrap(), Target::parse("x86-64").unwrap()];
    all.retain(Target::runs_here);
    all.dedup_by_key(|target| target.to_string());
    all
}

/// Memory with pages on both sides that must not be touched; the data begins or ends at one of them.
struct Guarded {
    map: *mut libc::c_void,
    map_bytes: usize,
    data: *mut u8,
    bytes: usize,
    /// Bytes behind the data up to the next page that must not be touched; they are zero.
    rest: usize,
}

impl Guarded {
    fn new(content: &[u8], at_end: bool) -> Guarded {
        // SAFETY: fresh anonymous mappings; only the middle pages are written, and only within their length.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let middle = content.len().next_multiple_of(page).max(page);
            let map_bytes = middle + 2 * page;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), map_bytes, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let start = map.cast::<u8>().add(page);
            assert_eq!(libc::mprotect(start.cast(), middle, libc::PROT_READ | libc::PROT_WRITE), 0);
            // Buffers start at whole words; up to three bytes are left behind elements that are shorter.
            let data = if at_end { start.add((middle - content.len()) & !3) } else { start };
            std::ptr::copy_nonoverlapping(content.as_ptr(), data, content.len());
            let rest = start.add(middle).offset_from_unsigned(data) - content.len();
            Guarded { map, map_bytes, data, bytes: content.len(), rest }
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: they are in the same mapped pages.
        let behind = unsafe { std::slice::from_raw_parts(self.data.add(self.bytes), self.rest) };
        assert!(behind.iter().all(|&byte| byte == 0), "something is written behind the buffer");
        // SAFETY: these bytes are mapped and initialised as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nothing else refers to them.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.bytes) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.map, self.map_bytes) };
    }
}
