//! A session in its stride allocates nothing: the whole process is counted, the threads of the pool included.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tconvc::{Compiler, DType, Form, Model, Tensor, TensorViewMut};
use tconvc_testing::target;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn repeated_runs_allocate_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fsrcnn_x3.onnx");
    let model = Model::from_path(path).unwrap();
    let x = Tensor::seeded(DType::F32, [1, 1, 20, 24], 1).unwrap();
    for form in [Form::Auto, Form::SubPixel, Form::ZeroInsert, Form::Scatter] {
        for threads in [1, 2] {
            for fixed in [true, false] {
                let mut compiler = Compiler::new().target(target()).form(form).threads(threads);
                if fixed {
                    compiler = compiler.input_shape("low", x.shape());
                }
                let compiled = compiler.compile(&model).unwrap();
                let mut session = compiled.session();
                let inputs = [x.view()];
                let expected = session.run(&inputs).unwrap();
                let shape = expected[0].shape().to_vec();
                let mut y = vec![0f32; expected[0].len()];
                let mut outputs =
                    [TensorViewMut::from_bytes(DType::F32, &shape, bytemuck::cast_slice_mut(&mut y))
                        .unwrap()];
                session.run_into(&inputs, &mut outputs).unwrap();
                let plain = compiled.report().steps.iter().any(|step| step.kernel.starts_with("interpreted"));
                assert!(!plain, "every step of this network is compiled:\n{}", compiled.report());
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                for _ in 0..20 {
                    session.run_into(&inputs, &mut outputs).unwrap();
                }
                let made = ALLOCATIONS.load(Ordering::SeqCst) - before;
                assert_eq!(made, 0, "{form}, {threads} threads, fixed shapes: {fixed}");
                assert_eq!(expected[0].elements::<f32>().unwrap(), y);
            }
        }
    }
}
