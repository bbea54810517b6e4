//! Damaged models through the whole compiler: an error, or a compiled network; no panic, no hang, no allocation without limit.
//!
//! `TCONVC_DAMAGED` sets how many; each is made from a number, which a failure names. Every allocation of the process is
//! counted; one that would bring the sum over [`REFUSED_BYTES`] is refused.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tconvc::{Budget, Compiler, DType, Form, Limits, Model, Tensor};
use tconvc_testing::onnx_build::damage::Damage;
use tconvc_testing::onnx_build::hostile::{hostile, kind};
use tconvc_testing::onnx_build::{Graph, floats, int_attribute, ints, ints_attribute, node, untyped, value};
use tconvc_testing::target;

/// Cases in the default tests.
const DEFAULT_CASES: u64 = 300;
/// Generated models in the default tests.
const DEFAULT_HOSTILE_CASES: u64 = 140;
/// The most that a model may take on top of what was there before.
const ALLOWED_BYTES: usize = 1 << 30;
/// Where the process is stopped before the machine is.
const REFUSED_BYTES: usize = 4 << 30;
/// The longest that a model may take, of a processor's time: a busy machine is no fault of a model.
const ALLOWED_TIME: Duration = Duration::from_secs(10);

/// What a generated model is allowed, and how long for each call: less than what it is failed for.
const BUDGET_BYTES: usize = 64 << 20;
const BUDGET_TIME: Duration = Duration::from_millis(200);

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CASE: AtomicU64 = AtomicU64::new(0);
/// Counting is for one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Counting;

// SAFETY: every call is answered by the system's allocator or refused; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        PEAK.fetch_max(live, Ordering::SeqCst);
        if live > REFUSED_BYTES {
            LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
            let case = CASE.load(Ordering::SeqCst);
            // Standard error is not buffered: writing numbers to it allocates nothing.
            let _ = writeln!(std::io::stderr(), "case {case} asks for {} bytes more", layout.size());
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps to the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the pointer came from `alloc` above, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What this thread has had of a processor, where the system says so; else the time.
fn now(start: Instant) -> Duration {
    let stated = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = stated.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads, compiles, runs and interprets within a budget; true where it ran.
fn run(bytes: &[u8], case: u64) -> Result<bool, tconvc::Error> {
    let limits = Limits::default().with_memory(BUDGET_BYTES).with_time(BUDGET_TIME).with_rounds(5000);
    let budget = Budget::new(limits);
    let model = Model::read_bytes_with(bytes, &budget)?;
    let form = Form::ALL[case as usize % Form::ALL.len()];
    let compiler = Compiler::new().target(target()).form(form).threads(1 + case as usize / 4 % 2);
    let compiled = compiler.budget(&budget).workspace_limit(BUDGET_BYTES).compile(&model)?;
    let mut tensors = vec![];
    for port in compiled.inputs() {
        let dims = port.shape.iter().flatten().map(|dim| dim.parse().unwrap_or(5));
        let _budget = budget.enter();
        tensors.push((port.name.clone(), Tensor::seeded(DType::F32, dims.collect::<Vec<usize>>(), case)?));
    }
    let views = || tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
    compiled.run(views())?;
    drop(compiled);
    model.interpret(views())?;
    Ok(true)
}

/// Compiles under a form and on a number of threads; extents that the model leaves open are five.
fn compile(bytes: &[u8], case: u64) -> Result<bool, tconvc::Error> {
    let model = Model::from_bytes(bytes)?;
    let form = Form::ALL[case as usize % Form::ALL.len()];
    let mut compiler = Compiler::new().target(target()).form(form).threads(1 + case as usize / 4 % 2);
    for port in model.inputs() {
        let open = |dim: &String| dim.parse().unwrap_or(5);
        let shape = port.shape.map_or(vec![1, 2, 3, 4], |dims| dims.iter().map(open).collect());
        compiler = compiler.input_shape(&port.name, shape);
    }
    Ok(compiler.compile(&model)?.is_static())
}

/// Compiles a model; gives what is wrong with how that went, or whether there is code now.
fn survives(bytes: &[u8], case: u64) -> Result<bool, String> {
    survives_as(|| compile(bytes, case), case)
}

fn survives_as(it: impl FnOnce() -> Result<bool, tconvc::Error>, case: u64) -> Result<bool, String> {
    CASE.store(case, Ordering::SeqCst);
    let before = LIVE.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let clock = Instant::now();
    let start = now(clock);
    let result = catch_unwind(AssertUnwindSafe(it));
    let (took, grew) = (now(clock).saturating_sub(start), PEAK.load(Ordering::SeqCst) - before);
    if took > ALLOWED_TIME {
        return Err(format!("took {took:?}"));
    }
    if grew > ALLOWED_BYTES {
        return Err(format!("took {grew} bytes"));
    }
    match result {
        Err(_) => Err("panicked".into()),
        Ok(Ok(code)) => Ok(code),
        Ok(Err(error)) if error.to_string().is_empty() => Err("failed without a message".into()),
        Ok(Err(_)) => Ok(false),
    }
}

#[test]
fn damaged_models_are_errors_or_compile() {
    let _alone = alone();
    let cases = std::env::var("TCONVC_DAMAGED").ok().and_then(|count| count.parse().ok());
    let cases: u64 = cases.unwrap_or(DEFAULT_CASES);
    let trained = ["fsrcnn_x3", "dcgan_digits"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
        std::fs::read(path.with_extension("onnx")).unwrap()
    });
    let damage = Damage::with(trained);
    let (mut compiled, mut failed) = (0, vec![]);
    for case in 0..cases {
        match survives(&damage.model(case), case) {
            Ok(code) => compiled += u64::from(code),
            Err(problem) => failed.push(format!("case {case} {problem}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // Damage that is always refused at the door would test little.
    assert!(compiled > cases / 10, "{compiled} of {cases} are compiled");
}

/// `TCONVC_HOSTILE` sets how many, `TCONVC_HOSTILE_FROM` the first.
#[test]
fn generated_models_keep_to_their_budget() {
    let _alone = alone();
    let number = |name: &str| std::env::var(name).ok().and_then(|count| count.parse::<u64>().ok());
    let cases = number("TCONVC_HOSTILE").unwrap_or(DEFAULT_HOSTILE_CASES);
    let first = number("TCONVC_HOSTILE_FROM").unwrap_or(0);
    let (mut ran, mut failed) = (0, vec![]);
    for case in first..first + cases {
        if std::env::var_os("TCONVC_HOSTILE_VERBOSE").is_some() {
            let _ = writeln!(std::io::stderr(), "case {case} ({})", kind(case));
        }
        let bytes = hostile(case);
        match survives_as(|| run(&bytes, case), case) {
            Ok(result) => ran += u64::from(result),
            Err(problem) => failed.push(format!("case {case} ({}) {problem}", kind(case))),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // What is always refused would test little.
    assert!(ran > cases / 10, "{ran} of {cases} ran");
}

/// Well-formed models that ask for more than they are worth.
#[test]
fn hostile_models_are_errors_or_compile() {
    let _alone = alone();
    let one = |dims: &[&str], nodes, initializers| Graph {
        inputs: vec![value("x", dims)],
        outputs: vec![untyped("y")],
        initializers,
        nodes,
    };
    let small = ["1", "2", "3", "4"];
    let kernel = || vec![floats("w", &[2, 2, 3, 3], &[0.5; 36])];
    let strided = |stride| ints_attribute("strides", &[stride, stride]);
    let deconv = |stride| node("ConvTranspose", &["x", "w"], &["y"], &[strided(stride)]);
    let huge = ["1", "2", "60000", "60000"];
    let name = |index: usize, count: usize| match index {
        0 => "x".to_owned(),
        _ if index == count => "y".to_owned(),
        _ => format!("v{index}"),
    };
    let long = |op: &str, count: usize| {
        let step = |index| node(op, &[&name(index, count)], &[&name(index + 1, count)], &[]);
        one(&small, (0..count).map(step).collect(), vec![])
    };
    let resized = |scale: f32| {
        let resize = node("Resize", &["x", "", "scales"], &["y"], &[]);
        one(&small, vec![resize], vec![floats("scales", &[4], &[1.0, 1.0, scale, scale])])
    };
    let expand = node("Expand", &["x", "to"], &["y"], &[]);
    let pad = node("Pad", &["x", "pads"], &["y"], &[]);
    let concat = node("Concat", &vec!["x"; 2000], &["y"], &[int_attribute("axis", 1)]);
    let tile = node("Tile", &["x", "times"], &["y"], &[]);
    let cases = [
        ("large input", one(&huge, vec![deconv(2)], kernel())),
        ("large stride", one(&small, vec![deconv(20_000)], kernel())),
        ("strides of every phase", one(&small, vec![deconv(300)], kernel())),
        ("many Sigmoid", long("Sigmoid", 2_000)),
        ("many Softmax", long("Softmax", 1_000)),
        ("large resize", resized(5_000.0)),
        ("larger resize", resized(4e8)),
        ("expand", one(&small, vec![expand], vec![ints("to", &[4], &[40_000, 2, 3, 40_000])])),
        ("pad", one(&small, vec![pad], vec![ints("pads", &[8], &[0, 0, 0, 0, 0, 0, 0, 1 << 30])])),
        ("concat", one(&small, vec![concat], vec![])),
        ("tile", one(&small, vec![tile], vec![ints("times", &[4], &[1, 1, 1 << 20, 1 << 20])])),
    ];
    let mut failed = vec![];
    for (name, graph) in cases {
        for case in 0..Form::ALL.len() as u64 {
            if let Err(problem) = survives(&graph.model(17), case) {
                failed.push(format!("{name}, {}, {problem}", Form::ALL[case as usize].name()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
