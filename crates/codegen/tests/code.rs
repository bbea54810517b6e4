//! Code around tiles: steps, calls, loops, texts, memory.

use tconvc_codegen::module::{CodeError, CodeModule, JitCode};
use tconvc_machine::Target;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::executor::Executor;
use tconvc_runtime::thread_pool::ThreadPool;
use tconvc_testing::target;
use tconvc_tile::{Tile, TileBuilder};

/// `y[0 .. lanes] = x[0 .. lanes] * w + 1`.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn scale(target: &Target, name: &str) -> Tile {
    let mut b = TileBuilder::new(name, target);
    let [x, w, y] = b.pointers(["x", "w", "y"]);
    let v = b.load(x.at(0));
    b.horner(v, v, 0.0);
    let v = b.load(x.at(0));
    let one = b.splat(1.0);
    b.fma(one, v, w.at(0).splat());
    b.store(one, y.at(0));
    b.finish().unwrap()
}

/// A step of rows: operand 0 in, 1 a scalar, 2 out; a work item is a row of two vectors, the second is written from the
/// first vector's copy in scratch.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn row_step(module: &mut CodeModule, target: &Target) -> FunctionId {
    let tile = module.tile(scale(target, "scale")).unwrap();
    let bytes = i64::from(target.vector_bytes() as u32);
    module
        .step("rows", |g| {
            let [operands, begin, end, scratch] = g.params[..] else { panic!("four parameters") };
            let [x, w, y] = [0, 1, 2].map(|i| g.pointer(operands, i));
            g.for_each(begin, end, |g, row| {
                let (from, to) = (g.element(x, row, bytes), g.element(y, row, 2 * bytes));
                g.call(tile, &[from, w, to]);
                g.call(tile, &[from, w, scratch]);
                let second = g.add_constant(to, bytes);
                g.for_count(1, |g, _| g.call(tile, &[scratch, w, second]));
            });
        })
        .unwrap()
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn compile(target: &Target) -> (JitCode, FunctionId) {
    let mut module = CodeModule::new(target).unwrap();
    let id = row_step(&mut module, target);
    (module.lower().unwrap().finish().unwrap(), id)
}

#[test]
fn steps_call_tiles_on_ranges_and_threads() {
    for name in ["host", "portable", "x86-64", "aarch64"] {
        let target = Target::parse(name).unwrap();
        if !target.runs_here() {
            continue;
        }
        let (code, id) = compile(&target);
        let step = code.step(id).unwrap();
        let (rows, lanes) = (37, target.lanes());
        let x: Vec<f32> = (0..rows * lanes).map(|i| i as f32).collect();
        let w = [2.0_f32];
        for threads in [1, 3] {
            let mut y = vec![0.0_f32; 2 * rows * lanes];
            let table =
                [x.as_ptr().cast_mut().cast::<u8>(), w.as_ptr().cast_mut().cast(), y.as_mut_ptr().cast()];
            let table = table.map(|p| p as usize);
            let pool = ThreadPool::new(threads).unwrap();
            let parts = pool.threads();
            Executor::run(&pool, parts, &|part| {
                let (begin, end) = (rows * part / parts, rows * (part + 1) / parts);
                let operands = table.map(|p| p as *mut u8);
                let mut scratch = vec![0.0_f32; lanes];
                // SAFETY: the operands are rows of the sizes that the step was made for; parts are disjoint.
                unsafe { step(operands.as_ptr(), begin as u64, end as u64, scratch.as_mut_ptr().cast()) };
            });
            for (i, y) in y.iter().enumerate() {
                let x = x[i / (2 * lanes) * lanes + i % lanes];
                let once = 2.0 * x + 1.0;
                let want = if i / lanes % 2 == 0 { once } else { 2.0 * once + 1.0 };
                assert_eq!(*y, want, "{target}, {threads} threads, element {i}");
            }
        }
    }
}

#[test]
fn a_tile_is_no_step_and_names_are_unique() {
    let target = target();
    let mut module = CodeModule::new(&target).unwrap();
    let tile = scale(&target, "scale");
    let id = module.tile(tile.clone()).unwrap();
    assert_eq!(module.tile(tile.clone()).unwrap(), id, "the same tile again");
    let mut other = TileBuilder::new("scale", &target);
    other.pointer("p");
    let error = module.tile(other.finish().unwrap()).unwrap_err();
    assert!(matches!(&error, CodeError::Duplicate { name } if name == "scale"), "{error}");
    let error = module.step("scale", |_| {}).unwrap_err();
    assert!(matches!(error, CodeError::Duplicate { .. }), "{error}");
    let error = module.step("caller", |g| g.call(id, &[])).unwrap_err();
    assert!(matches!(error, CodeError::Function { .. }), "{error}");
    let code = module.lower().unwrap().finish().unwrap();
    assert!(code.step(id).is_none());
}

#[test]
fn foreign_code_can_be_read_but_not_run() {
    let architecture = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86-64" };
    let system = if cfg!(windows) { "x86_64-unknown-linux-gnu+v3" } else { "x86_64-pc-windows-msvc+v3" };
    for other in [architecture, system] {
        let target = Target::parse(other).unwrap();
        let mut module = CodeModule::new(&target).unwrap().keep_text();
        row_step(&mut module, &target);
        let module = module.lower().unwrap();
        assert!(module.code_bytes() > 0);
        assert!(module.clif().contains("; rows") && module.asm().contains("scale:"), "{}", module.asm());
        let error = module.finish().unwrap_err();
        assert!(matches!(error, CodeError::Foreign { .. }), "{error}");
    }
}

#[test]
fn texts_name_what_is_called() {
    let target = Target::parse("x86-64-v3").unwrap();
    let mut module = CodeModule::new(&target).unwrap().keep_text();
    row_step(&mut module, &target);
    let module = module.lower().unwrap();
    let (clif, asm) = (module.clif(), module.asm());
    assert!(clif.contains("tile scale f32x8 (x, w, y) {") && clif.contains("; rows\nfunction"), "{clif}");
    assert!(asm.contains("vfmadd231ps ymm") && asm.contains("  ; scale"), "{asm}");
}

#[test]
fn library_calls_are_refused() {
    use cranelift_codegen::ir::{InstBuilder, types::F32};
    let target = Target::parse("x86-64").unwrap();
    let mut module = CodeModule::new(&target).unwrap();
    module
        .step("calls_fma", |g| {
            let flags = cranelift_codegen::ir::MemFlagsData::trusted();
            let x = g.builder.ins().load(F32, flags, g.params[3], 0);
            let y = g.builder.ins().fma(x, x, x);
            g.builder.ins().store(flags, y, g.params[3], 0);
        })
        .unwrap();
    let error = module.lower().err().expect("no library is linked");
    assert!(error.to_string().contains("needs the library function"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn dropping_code_gives_its_memory_back() {
    let target = target();
    let executable = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|l| l.contains("r-xp") && !l.contains('/') && !l.contains('[')).count()
    };
    let kept = compile(&target);
    let before = executable();
    for _ in 0..200 {
        drop(compile(&target));
    }
    // Other tests of this process come and go.
    assert!(executable() < before + 20, "{} mappings, {before} before", executable());
    drop(kept);
}
