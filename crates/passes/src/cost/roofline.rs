//! What a step of the plan has to do at least: its multiply-adds, the bytes that it reads and writes once, and the time that
//! the machine needs for the longer of the two.

use super::{Cost, Machine, node_cost, type_bytes};
use crate::plan::Step;
use tconvc_ir::{Graph, NodeId, Op};

/// Multiply-adds and bytes of a step, and the least microseconds for them. What is not known counts nothing.
pub fn step_cost(graph: &Graph, step: &Step, machine: &Machine) -> Cost {
    let macs = step.nodes.iter().fold(0u64, |sum, &node| sum.saturating_add(node_macs(graph, node)));
    let values = step.inputs.iter().chain(&step.outputs);
    let bytes: u64 = values.map(|&value| type_bytes(graph.ty(value))).sum();
    let computing = macs as f64 / machine.rates.peak_macs_per_ns();
    let moving = bytes as f64 / machine.rates.bytes_per_ns();
    let nanoseconds = computing.max(moving) / machine.threads as f64;
    Cost { macs, bytes, predicted_us: Some(nanoseconds / 1e3) }
}

/// As [`node_cost`], and those of the forms and of matrices.
fn node_macs(graph: &Graph, id: NodeId) -> u64 {
    let node = graph.node(id);
    let shape = |index| node.input(index).and_then(|id| graph.ty(id).known_shape());
    let (Some(x), Some(w)) = (shape(0), shape(1)) else { return 0 };
    let output = || node.output(0).and_then(|id| graph.ty(id).known_shape());
    let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    match &node.op {
        Op::PhaseConv(op) => op.geometry(&x, &w).map_or(0, |geometry| geometry.phase_macs()),
        // Every input value under every weight of its channel.
        Op::ColumnGemm(_) => {
            x.get(1).map_or(0, |&channels| elements(&x) / channels.max(1) as u64 * elements(&w))
        }
        Op::MatMul(_) => output().map_or(0, |y| elements(&y) * x.last().copied().unwrap_or(1) as u64),
        Op::Gemm(op) => {
            let depth = if op.trans_a { x.first() } else { x.last() };
            output().map_or(0, |y| elements(&y) * depth.copied().unwrap_or(1) as u64)
        }
        _ => node_cost(graph, id).macs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn the_longer_of_computing_and_moving_counts() {
        let mut graph: Graph = "input %x : f32[4, 100]
const @w : f32[100, 8] = seeded(1)
%m = MatMul(%x, @w)
%y = Softmax(%m)
output %y"
            .parse()
            .unwrap();
        tconvc_ir::infer::infer(&mut graph).unwrap();
        let plan = plan(&graph, &crate::Limits::default()).unwrap();
        // Ten multiply-adds and a byte a nanosecond.
        let mut machine = Machine::default();
        machine.rates.lanes = 1;
        machine.rates.cycles_per_ns = 5.0;
        machine.rates.memory.l3 = 0.2;
        let costs: Vec<Cost> = plan.steps.iter().map(|step| step_cost(&graph, step, &machine)).collect();
        assert_eq!((costs[0].macs, costs[0].bytes), (3200, 4 * (400 + 800 + 32)));
        assert_eq!(costs[0].predicted_us, Some(4.928));
        assert_eq!((costs[1].macs, costs[1].bytes, costs[1].predicted_us), (0, 256, Some(0.256)));
    }
}
