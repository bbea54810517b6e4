//! Whose threads compile and run a network, and what may move between threads.

use crate::support::compiler;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tconvc::{CompiledModel, Compiler, DType, Executor, Model, Serial, Session, Tensor, ThreadPool};

/// Enough work for two threads: to compile, and to run.
const NETWORK: &str = "input %x : f32[1, 8, 48, 48]\nconst @w : f32[8, 8, 3, 3] = seeded(3)\n\
                       %a = Conv(%x, @w) {pads=[1, 1, 1, 1]}\n%b = Conv(%a, @w)\n%y = Conv(%b, @w)\noutput %y\n";

/// The same for an operator behind extents that follow from data.
const IN_PARTS: &str = "input %x : f32[1, 8, 48, 48]\n%i = NonZero(%x)\n%f = Cast(%i) {to=1}\n\
                        %y = Exp(%f)\noutput %y\n";

fn model(text: &str) -> Model {
    let mut graph: tconvc_ir::Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_graph(graph)
}

/// Counts the parts that it runs.
struct Counting<E> {
    parts: AtomicUsize,
    executor: E,
}

impl<E> Counting<E> {
    fn new(executor: E) -> Arc<Self> {
        Arc::new(Self { parts: AtomicUsize::new(0), executor })
    }

    /// Parts since the last question.
    fn take(&self) -> usize {
        self.parts.swap(0, Ordering::Relaxed)
    }
}

// SAFETY: all is passed on to another executor.
unsafe impl<E: Executor> Executor for Counting<E> {
    fn threads(&self) -> usize {
        self.executor.threads()
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        self.parts.fetch_add(parts, Ordering::Relaxed);
        self.executor.run(parts, task);
    }
}

fn input() -> Tensor {
    Tensor::seeded(DType::F32, [1, 8, 48, 48], 1).unwrap()
}

#[test]
fn what_is_shared_between_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<Session>();
    sent::<tconvc_runtime::session::Session>();
    shared::<CompiledModel>();
    shared::<Compiler>();
    shared::<Model>();
    shared::<Arc<dyn Executor>>();
    shared::<ThreadPool>();
    shared::<tconvc_runtime::program::Program>();
}

#[test]
fn sessions_run_on_the_executor_that_they_are_given_last() {
    let x = input();
    let compiled = compiler().threads(2).compile(&model(NETWORK)).unwrap();
    let (old, new) = (Counting::new(Serial), Counting::new(ThreadPool::new(2).unwrap()));
    let mut session = compiled.session().with_executor(old.clone());
    let expected = session.run(&[x.view()]).unwrap();
    assert!(old.take() > 0);
    // Its workspace of the old one goes, too.
    let mut session = session.with_executor(new.clone());
    assert_eq!(session.run(&[x.view()]).unwrap(), expected);
    assert_eq!(old.take(), 0, "the old executor is kept");
    assert!(new.take() > 0);
    assert_eq!(compiled.run([("x", x.view())]).unwrap(), expected);
    assert_eq!((old.take(), new.take()), (0, 0));
}

#[test]
fn a_network_in_parts_runs_on_the_executor_of_its_session() {
    let x = input();
    let compiled = compiler().threads(2).compile(&model(IN_PARTS)).unwrap();
    let executor = Counting::new(Serial);
    compiled.session().with_executor(executor.clone()).run(&[x.view()]).unwrap();
    assert!(executor.take() > 0, "the rest runs elsewhere");
}

#[test]
fn a_compiler_shares_its_executor_with_all_that_it_compiles() {
    let x = input();
    let executor = Counting::new(ThreadPool::new(2).unwrap());
    let compiler = compiler().executor(executor.clone());
    let compiled = compiler.clone().compile(&model(NETWORK)).unwrap();
    assert!(executor.take() > 0, "compiling is worth two threads");
    let expected = compiled.run([("x", x.view())]).unwrap();
    assert!(executor.take() > 0);
    assert_eq!(compiled.session().run(&[x.view()]).unwrap(), expected);
    assert!(executor.take() > 0);
    // Shared among as many threads as the executor has, unless another number is asked for.
    let steps = |compiler: Compiler| compiler.compile(&model(NETWORK)).unwrap().report().steps;
    assert!(steps(compiler.clone()).iter().all(|step| step.threads == 2));
    assert!(steps(compiler.threads(1)).iter().all(|step| step.threads == 1));
}

#[test]
fn any_executor_compiles_the_same() {
    let alone = compiler().compile(&model(NETWORK)).unwrap();
    for executor in [Arc::new(Serial) as Arc<dyn Executor>, Arc::new(ThreadPool::new(3).unwrap())] {
        let compiled = compiler().executor(executor).threads(1).compile(&model(NETWORK)).unwrap();
        assert_eq!(compiled.asm(), alone.asm());
        let x = input();
        assert_eq!(compiled.run([("x", x.view())]).unwrap(), alone.run([("x", x.view())]).unwrap());
    }
}

#[test]
fn sessions_may_run_side_by_side_on_one_pool() {
    let x = input();
    let compiled = compiler().threads(2).compile(&model(NETWORK)).unwrap();
    let expected = compiled.run([("x", x.view())]).unwrap();
    std::thread::scope(|scope| {
        for mut session in [compiled.session(), compiled.session(), compiled.session()] {
            let (x, expected) = (&x, &expected);
            scope.spawn(move || {
                for _ in 0..10 {
                    assert_eq!(session.run(&[x.view()]).unwrap(), *expected);
                }
            });
        }
    });
}
