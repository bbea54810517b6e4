//! Each sequence by itself: work items are the sequences of each direction and item of the batch.

use super::super::walk::first_lanes;
use super::{BIASES, Layer, Places, States, copy, finish};
use crate::builder::Builder;
use crate::error::CompileError;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_runtime::program::{Kernel, Operand};
use tconvc_tile::{Tile, TileBuilder, TileError};

/// Makes the kernel; operands are inputs, packed weights, and what `places` names.
pub(super) fn build(
    builder: &mut Builder<'_>,
    layer: Layer,
    name: String,
    operands: Vec<Operand>,
    places: &Places,
) -> Result<(), CompileError> {
    let Layer { steps, batch, inputs, hidden, directions, .. } = layer;
    let mut codes = [None; 2];
    for (code, units) in codes.iter_mut().zip(layer.vectors()) {
        if let Some(units) = units {
            let tile = write(layer, builder.tile(&format!("{name}_{units}")), units);
            *code = Some(builder.add_tile(tile)?);
        }
    }
    let state = layer.state_bytes() as i64;
    let row = 4 * hidden as i64;
    let vector = 4 * layer.lanes as i64;
    let function = builder.add_step(&name, |f| {
        let (table, begin, end, scratch) = (f.params[0], f.params[1], f.params[2], f.params[3]);
        let pointers: Vec<Value> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
        f.for_each(begin, end, |f, unit| {
            let (direction, item) = f.split(unit, batch as u64);
            let packed_bytes = 4 * (layer.blocks() * layer.block_floats()) as i64;
            let packed = f.element(pointers[1], direction, packed_bytes);
            // Two places of the hidden state in turns, then that of the cell.
            let cell = f.add_constant(scratch, 2 * state);
            let all = f.constant(hidden as i64);
            for (which, place) in [scratch, cell].into_iter().enumerate().take(layer.states()) {
                let from = places.first[which].map(|i| f.element(pointers[i], unit, row));
                copy(f, from, place, all);
            }
            f.for_count(steps as u64, |f, step| {
                let at = layer.place_of(f, step, direction);
                let sequence = f.builder.ins().imul_imm_s(at, batch as i64);
                let sequence = f.builder.ins().iadd(sequence, item);
                let x = f.element(pointers[0], sequence, 4 * inputs as i64);
                let odd = f.builder.ins().band_imm_u(step, 1);
                let even = f.builder.ins().bxor_imm_u(odd, 1);
                let (old, new) = (f.element(scratch, odd, state), f.element(scratch, even, state));
                let y = places.y.map(|i| layer.output_of(f, pointers[i], [at, direction, item]));
                f.for_count(layer.blocks() as u64, |f, block| {
                    let weights = f.element(packed, block, 4 * layer.block_floats() as i64);
                    let mut args = vec![x, old, weights];
                    args.extend([old, new, y.unwrap_or(new)].map(|base| f.element(base, block, vector)));
                    if layer.lstm {
                        args.push(f.element(cell, block, vector));
                    }
                    layer.call_for(f, codes, block, &args);
                });
            });
            let hidden_at = f.add_constant(scratch, (steps % 2) as i64 * state);
            for (which, place) in [hidden_at, cell].into_iter().enumerate().take(layer.states()) {
                if let Some(i) = places.last[which] {
                    let to = f.element(pointers[i], unit, row);
                    copy(f, Some(place), to, all);
                }
            }
        });
    })?;
    let units = directions * batch;
    let macs = units * steps * layer.gates() * hidden * (inputs + hidden);
    let rates = builder.target.rates().elementwise;
    let nanoseconds =
        macs as f64 / rates.vector_macs + (units * steps * layer.blocks()) as f64 * rates.recurrent_item;
    let partition = builder.even_partition(units as u64, nanoseconds);
    let scratch_bytes = 3 * layer.state_bytes();
    builder.push_kernel(Kernel { name, function, operands, partition, scratch_bytes, time_steps: 1 });
    Ok(())
}

/// `units` hidden units of one step: `x, h, packed, old, new, y`, and the cell's state for LSTM. `h` is the whole old
/// state, `old` these units of it; states are padded to whole vectors, `y` is not.
fn write(layer: Layer, mut b: TileBuilder, units: usize) -> Result<Tile, TileError> {
    let [x, h, packed, old, new, y] = b.pointers(["x", "h", "packed", "old", "new", "y"]);
    let cell = layer.lstm.then(|| b.pointer("cell"));
    let bytes = b.vector_bytes();
    let sums = std::array::from_fn(|i| b.load(packed.at(i as i32 * bytes)));
    b.advance(packed, BIASES as i32 * bytes);
    for (from, depth, gates) in [(x, layer.inputs, layer.of_inputs()), (h, layer.hidden, layer.of_state())] {
        let of_gates: Vec<_> = gates.iter().map(|&gate| sums[gate]).collect();
        layer.add_products(&mut b, from, packed, depth, &of_gates);
    }
    let units = first_lanes(&b, units);
    finish(&mut b, sums, units, &States { old, new, y, cell });
    b.finish()
}
