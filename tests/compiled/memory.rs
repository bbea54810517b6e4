//! What a compiled network keeps in memory, and what it does not take when it may not.

use crate::support::compiler;
use std::sync::Arc;
use tconvc::{DType, Error, Model, Tensor};
use tconvc_ir::{Attributes, Dim, Graph, Op, ValueType};
#[cfg(target_os = "linux")]
use tconvc_testing::in_child;

/// A convolution whose weights are all zero, and take so many channels.
fn network(storage: &Arc<Vec<u8>>, [cout, cin]: [usize; 2], height: impl Into<Dim>) -> Model {
    let mut graph = Graph::new("network");
    let weights =
        Tensor::from_shared(DType::F32, vec![cout, cin, 1, 1], Arc::clone(storage) as _, 0).unwrap();
    let shape = vec![Dim::from(1), cin.into(), height.into(), 1.into()];
    let input = graph.add_input("x", ValueType { dtype: Some(DType::F32), shape: Some(shape) }).unwrap();
    let weights = graph.add_constant("w", weights);
    let op = Op::read("Conv", Attributes::default()).unwrap().unwrap();
    let (_, outputs) =
        graph.add_node("y", op, &[Some(input), Some(weights)], vec![ValueType::default()]).unwrap();
    for output in outputs {
        graph.add_output(output);
    }
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_graph(graph)
}

#[test]
fn weights_are_kept_only_where_they_are_packed_again() {
    let storage = Arc::new(vec![0; 4 * 32 * 16]);
    let fixed = compiler().compile(&network(&storage, [32, 16], 4)).unwrap();
    assert!(fixed.is_static());
    assert_eq!(Arc::strong_count(&storage), 1, "the network that was compiled is kept");
    let open = compiler().compile(&network(&storage, [32, 16], Dim::symbol("H"))).unwrap();
    assert!(Arc::strong_count(&storage) > 1);
    let x = Tensor::seeded(DType::F32, [1, 16, 4, 1], 1).unwrap();
    assert_eq!(fixed.run([("x", x.view())]).unwrap(), open.run([("x", x.view())]).unwrap());
    let bound = compiler().input_shape("x", [1, 16, 4, 1]);
    let bound = bound.compile(&network(&storage, [32, 16], Dim::symbol("H"))).unwrap();
    drop(open);
    assert_eq!(Arc::strong_count(&storage), 1, "{}", bound.report());
}

/// The most memory, whether it was written or not, that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn weights_are_not_packed_where_the_limit_is_too_low() {
    in_child("memory::weights_are_not_packed_where_the_limit_is_too_low", |_| {
        // Not a multiple of what lies in a vector, so that packing adds something.
        let channels = [4097, 4096];
        let bytes = 4 * channels[0] * channels[1];
        let storage = Arc::new(vec![0; bytes]);
        let model = network(&storage, channels, 1);
        let compile = |limit: usize| compiler().workspace_limit(limit).compile(&model);
        // What is taken once by the first compilation of a process.
        compiler().compile(&network(&Arc::new(vec![0; 64]), [4, 4], 1)).unwrap();
        let before = peak_bytes();
        let Err(Error::Workspace { bytes: needed, limit: 0 }) = compile(0) else { panic!("no error") };
        let taken = peak_bytes() - before;
        assert!(taken < bytes / 2, "{taken} bytes were taken to say that {needed} are too many");
        assert!(matches!(compile(needed - 1), Err(Error::Workspace { .. })));
        assert!(peak_bytes() - before < bytes / 2);
        compile(needed).unwrap();
        assert!(peak_bytes() - before >= bytes, "the test sees packed weights");
    });
}
