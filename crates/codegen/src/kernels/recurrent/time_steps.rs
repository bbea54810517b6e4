//! All inputs times their weights at once, then time step by time step: work items are the vectors of hidden units of each
//! direction, in both.

use super::super::walk::{choose, first_lanes};
use super::{BIASES, Layer, Places, States, copy, finish};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_runtime::program::{Kernel, Operand};
use tconvc_tile::{Tile, TileBuilder, TileError, Vector};

/// Makes both kernels; operands are inputs, packed weights, and what `places` names.
///
/// They share the gates' sums over the inputs, `[direction, vector, step, item, gate, lane]`, and the states,
/// `[direction, item]` of twice the hidden state in turns and once that of the cell.
pub(super) fn build(
    builder: &mut Builder<'_>,
    layer: Layer,
    name: &str,
    operands: Vec<Operand>,
    places: &Places,
) -> Result<(), CompileError> {
    let vector = 4 * layer.lanes;
    let units = layer.directions * layer.blocks();
    let sums = builder.shared(units * layer.steps * layer.batch * BIASES * vector);
    let states = builder.shared(layer.directions * layer.batch * 3 * layer.state_bytes());
    let operands = [vec![sums, states], operands].concat();
    inputs(builder, layer, &format!("{name}_inputs"), operands.clone(), places)?;
    time_steps(builder, layer, name, operands, places)
}

/// Operands before those of the caller.
const OWN: usize = 2;

/// Pointers to the operands of a step function: sums, states, inputs, weights, and all of them.
fn pointers(f: &mut FunctionBuilder<'_>, count: usize) -> ([Value; 4], Vec<Value>) {
    let table = f.params[0];
    let all: Vec<Value> = (0..count).map(|i| f.pointer(table, i)).collect();
    ([all[0], all[1], all[OWN], all[OWN + 1]], all)
}

impl Layer {
    /// Hidden units of a vector that exist.
    fn count_of(self, f: &mut FunctionBuilder<'_>, block: Value) -> Value {
        let before = f.builder.ins().imul_imm_s(block, self.lanes as i64);
        let all = f.constant(self.hidden as i64);
        let left = f.builder.ins().isub(all, before);
        let lanes = f.constant(self.lanes as i64);
        f.builder.ins().smin(left, lanes)
    }

    /// Where a state given or asked for has a vector of hidden units of a sequence.
    fn outside(self, f: &mut FunctionBuilder<'_>, base: Value, sequence: Value, block: Value) -> Value {
        let row = f.element(base, sequence, 4 * self.hidden as i64);
        f.element(row, block, 4 * self.lanes as i64)
    }
}

/// Sums over the inputs of all steps, bias included, and the first states.
fn inputs(
    builder: &mut Builder<'_>,
    layer: Layer,
    name: &str,
    operands: Vec<Operand>,
    places: &Places,
) -> Result<(), CompileError> {
    let rows = layer.steps * layer.batch;
    // Sums, their factors, and a vector of weights.
    let together = ((layer.sums + 3) / (layer.gates() + 1)).clamp(1, rows);
    let mut tile = |rows: usize| {
        let tile = write_inputs(layer, builder.tile(&format!("{name}_{rows}")), rows);
        builder.add_tile(tile)
    };
    let code = tile(together)?;
    let rest = if rows.is_multiple_of(together) { None } else { Some(tile(rows % together)?) };
    let (vector, state) = (4 * layer.lanes as i64, layer.state_bytes() as i64);
    let function = builder.add_step(name, |f| {
        let (begin, end) = (f.params[1], f.params[2]);
        let ([sums, states, x, packed], all) = pointers(f, operands.len());
        f.for_each(begin, end, |f, unit| {
            let packed = f.element(packed, unit, 4 * layer.block_floats() as i64);
            let sums = f.element(sums, unit, rows as i64 * BIASES as i64 * vector);
            let (x_step, sums_step) =
                (4 * (together * layer.inputs) as i64, (together * BIASES) as i64 * vector);
            f.for_count((rows / together) as u64, |f, i| {
                let (x, sums) = (f.element(x, i, x_step), f.element(sums, i, sums_step));
                f.call(code, &[x, packed, sums]);
            });
            if let Some(rest) = rest {
                let done = (rows / together) as i64;
                let (x, sums) = (f.add_constant(x, done * x_step), f.add_constant(sums, done * sums_step));
                f.call(rest, &[x, packed, sums]);
            }
            let (direction, block) = f.split(unit, layer.blocks() as u64);
            let count = layer.count_of(f, block);
            f.for_count(layer.batch as u64, |f, item| {
                let sequence = f.builder.ins().imul_imm_s(direction, layer.batch as i64);
                let sequence = f.builder.ins().iadd(sequence, item);
                let own = f.element(states, sequence, 3 * state);
                for which in 0..layer.states() {
                    let from = places.first[which].map(|i| layer.outside(f, all[OWN + i], sequence, block));
                    let to = f.element(own, block, vector);
                    let to = f.add_constant(to, 2 * which as i64 * state);
                    copy(f, from, to, count);
                }
            });
        });
    })?;
    let units = layer.directions * layer.blocks();
    let macs = units * rows * layer.gates() * layer.lanes * layer.inputs;
    let partition = builder.even_partition(units as u64, macs as f64 / (4.0 * layer.lanes as f64));
    builder.push_kernel(Kernel {
        name: name.to_owned(),
        function,
        operands,
        partition,
        scratch_bytes: 0,
        time_steps: 1,
    });
    Ok(())
}

/// The sums of a vector of hidden units for some rows of inputs: `x, packed, sums`.
fn write_inputs(layer: Layer, mut b: TileBuilder, rows: usize) -> Result<Tile, TileError> {
    let [x, packed, target] = b.pointers(["x", "packed", "sums"]);
    let bytes = b.vector_bytes();
    let place = |row: usize, gate: usize| (row * BIASES + gate) as i32 * bytes;
    let gates = layer.of_inputs();
    // What no input adds to.
    for gate in (0..BIASES).filter(|gate| !gates.contains(gate)) {
        let bias = b.load(packed.at(gate as i32 * bytes));
        for row in 0..rows {
            b.store(bias, target.at(place(row, gate)));
        }
    }
    let sums: Vec<Vec<Vector>> = (0..rows)
        .map(|_| gates.iter().map(|&gate| b.load(packed.at(gate as i32 * bytes))).collect())
        .collect();
    b.advance(packed, BIASES as i32 * bytes);
    b.repeat(layer.inputs as u32, &[(x, 4), (packed, gates.len() as i32 * bytes)], |b| {
        let values: Vec<Vector> =
            (0..rows).map(|row| b.load_splat(x.at(4 * (row * layer.inputs) as i32))).collect();
        for i in 0..gates.len() {
            let weights = b.load(packed.at(i as i32 * bytes));
            for (sums, &value) in sums.iter().zip(&values) {
                b.fma(sums[i], value, weights);
            }
        }
    });
    for (row, sums) in sums.iter().enumerate() {
        for (&sum, &gate) in sums.iter().zip(gates) {
            b.store(sum, target.at(place(row, gate)));
        }
    }
    b.finish()
}

/// The time steps.
fn time_steps(
    builder: &mut Builder<'_>,
    layer: Layer,
    name: &str,
    operands: Vec<Operand>,
    places: &Places,
) -> Result<(), CompileError> {
    let mut codes = [None; 2];
    for (code, units) in codes.iter_mut().zip(layer.vectors()) {
        if let Some(units) = units {
            let tile = write_step(layer, builder.tile(&format!("{name}_{units}")), units);
            *code = Some(builder.add_tile(tile)?);
        }
    }
    let units = layer.directions * layer.blocks();
    let (vector, state) = (4 * layer.lanes as i64, layer.state_bytes() as i64);
    // Weights of the state stand behind those of the inputs.
    let before = vector * (BIASES + layer.gates() * layer.inputs) as i64;
    let function = builder.add_step(name, |f| {
        let (begin, end) = (f.params[1], f.params[2]);
        let ([sums, states, _, packed], all) = pointers(f, operands.len());
        f.for_each(begin, end, |f, index| {
            let (step, unit) = f.split(index, units as u64);
            let (direction, block) = f.split(unit, layer.blocks() as u64);
            let packed = f.element(packed, unit, 4 * layer.block_floats() as i64);
            let packed = f.add_constant(packed, before);
            let at = layer.place_of(f, step, direction);
            let odd = f.builder.ins().band_imm_u(step, 1);
            let even = f.builder.ins().bxor_imm_u(odd, 1);
            let row = (layer.batch * BIASES) as i64 * vector;
            let sums = f.element(sums, unit, layer.steps as i64 * row);
            let sums = f.element(sums, at, row);
            let is_last = f.builder.ins().icmp_imm_u(IntCC::Equal, step, layer.steps as i64 - 1);
            f.for_count(layer.batch as u64, |f, item| {
                let sequence = f.builder.ins().imul_imm_s(direction, layer.batch as i64);
                let sequence = f.builder.ins().iadd(sequence, item);
                let own = f.element(states, sequence, 3 * state);
                let (h, next) = (f.element(own, odd, state), f.element(own, even, state));
                let (old, new) = (f.element(h, block, vector), f.element(next, block, vector));
                let cell = f.add_constant(own, 2 * state);
                let cell = f.element(cell, block, vector);
                let y = places.y.map(|i| {
                    let row = layer.output_of(f, all[OWN + i], [at, direction, item]);
                    f.element(row, block, vector)
                });
                let sums = f.element(sums, item, BIASES as i64 * vector);
                let mut args = vec![sums, h, packed, old, new, y.unwrap_or(new)];
                if layer.lstm {
                    args.push(cell);
                }
                layer.call_for(f, codes, block, &args);
                if places.last.iter().any(Option::is_some) {
                    let finish = |f: &mut FunctionBuilder<'_>| {
                        let count = layer.count_of(f, block);
                        for (which, from) in [new, cell].into_iter().enumerate() {
                            if let Some(i) = places.last[which] {
                                let to = layer.outside(f, all[OWN + i], sequence, block);
                                copy(f, Some(from), to, count);
                            }
                        }
                    };
                    choose(f, is_last, finish, |_| {});
                }
            });
        });
    })?;
    let nanoseconds = layer.step_macs() as f64 / builder.target.rates().elementwise.vector_macs;
    let partition = builder.even_partition(units as u64, nanoseconds);
    let time_steps = layer.steps as u64;
    builder.push_kernel(Kernel {
        name: name.to_owned(),
        function,
        operands,
        partition,
        scratch_bytes: 0,
        time_steps,
    });
    Ok(())
}

/// `units` hidden units of one step: `sums, h, packed, old, new, y`, and the cell's state for LSTM; see
/// [`sequences`](super::sequences).
fn write_step(layer: Layer, mut b: TileBuilder, units: usize) -> Result<Tile, TileError> {
    let [source, h, packed, old, new, y] = b.pointers(["sums", "h", "packed", "old", "new", "y"]);
    let cell = layer.lstm.then(|| b.pointer("cell"));
    let bytes = b.vector_bytes();
    let sums = std::array::from_fn(|i| b.load(source.at(i as i32 * bytes)));
    let of_gates: Vec<Vector> = layer.of_state().iter().map(|&gate| sums[gate]).collect();
    layer.add_products(&mut b, h, packed, layer.hidden, &of_gates);
    let units = first_lanes(&b, units);
    finish(&mut b, sums, units, &States { old, new, y, cell });
    b.finish()
}
