//! GRU and LSTM of f32 with constant weights: one tile computes a vector of hidden units of one step from the input, the
//! old state and weights packed for them; units of work are the sequences of each direction and item of the batch.

use super::walk::{choose, first_lanes};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::{FunctionId, Glue};
use crate::program::{Kernel, Operand};
use crate::tile::{Pointer, Tile, TileBuilder, TileError, Vector};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::F32;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tconvc_ir::ops::{Cell, Direction, Recurrent};
use tconvc_ir::{DType, Node};

/// Extents of a layer.
#[derive(Clone, Copy)]
struct Layer {
    lstm: bool,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
    lanes: usize,
}

/// Positions of a node's inputs.
const WEIGHTS: [usize; 2] = [1, 2];
const BIAS: usize = 3;
const STATES: [usize; 2] = [5, 6];

/// Makes the kernel; `false` for other cells, lengths for each sequence, peepholes and activations of one's own.
pub(super) fn build(builder: &mut Builder<'_>, node: &Node, op: &Recurrent) -> Result<bool, CompileError> {
    let lstm = match op.cell {
        Cell::Gru { linear_before_reset: true } => false,
        Cell::Lstm { input_forget: false } => true,
        _ => return Ok(false),
    };
    let floats = [0, 1, 2, BIAS, 5, 6]
        .into_iter()
        .filter_map(|i| node.input(i))
        .all(|value| builder.graph.ty(value).dtype == Some(DType::F32));
    let usual = ["sigmoid", "tanh", "tanh"];
    let named = op.activations.chunks(if lstm { 3 } else { 2 });
    let own = named
        .flat_map(|names| names.iter().zip(usual))
        .any(|(name, usual)| !name.eq_ignore_ascii_case(usual));
    let more = node.input(4).is_some() || node.input(7).is_some() || op.clip.is_some() || op.batch_first;
    let (Some(x), [Some(w), Some(r)]) = (node.input(0), WEIGHTS.map(|i| node.input(i))) else {
        return Ok(false);
    };
    if !floats || own || more {
        return Ok(false);
    }
    let bias = node.input(BIAS);
    let (Some(w), Some(r)) = (builder.constant(w), builder.constant(r)) else { return Ok(false) };
    let constant_bias = bias.and_then(|bias| builder.constant(bias));
    let (&[steps, batch, inputs], &[directions, _, hidden]) = (builder.shape(x)?.as_slice(), r.shape())
    else {
        return Ok(false);
    };
    if bias.is_some() != constant_bias.is_some() || steps * batch * inputs * hidden == 0 {
        return Ok(false);
    }
    let layer = Layer { lstm, steps, batch, inputs, hidden, directions, lanes: builder.target.lanes() };
    let cell = if lstm { "lstm" } else { "gru" };
    let name = builder.unique(&format!("f32_{cell}_{steps}x{batch}x{inputs}_h{hidden}"));
    let mut packed = vec![];
    let (w, r) = (w.elements::<f32>()?, r.elements::<f32>()?);
    let bias = constant_bias.map(tconvc_ir::Tensor::elements::<f32>).transpose()?;
    for direction in 0..directions {
        layer.pack(&mut packed, direction, [&w, &r], bias.as_deref());
    }
    let mut tile = |units: usize| -> Result<Option<FunctionId>, CompileError> {
        if units == 0 {
            return Ok(None);
        }
        let tile = layer.write(builder.tile(&format!("{name}_{units}")), units);
        tile.ok().map(|tile| builder.add_tile(Ok(tile))).transpose()
    };
    let (full, rest) = (hidden / layer.lanes, hidden % layer.lanes);
    let codes = [tile(if full > 0 { layer.lanes } else { 0 })?, tile(rest)?];
    if codes[0].is_some() != (full > 0) || codes[1].is_some() != (rest > 0) {
        return Ok(false);
    }
    let mut operands = vec![builder.operand(x)?, builder.pack(&packed)];
    let mut more = |builder: &mut Builder<'_>, value| -> Result<Option<usize>, CompileError> {
        let Some(value) = value else { return Ok(None) };
        operands.push(builder.operand(value)?);
        Ok(Some(operands.len() - 1))
    };
    let outputs = node.outputs();
    let output = |i: usize| outputs.get(i).copied().flatten();
    let mut places = Places { y: more(builder, output(0))?, first: [None; 2], last: [None; 2] };
    for (state, &input) in STATES.iter().enumerate().take(layer.states()) {
        places.first[state] = more(builder, node.input(input))?;
        places.last[state] = more(builder, output(1 + state))?;
    }
    let reverse = op.direction == Direction::Reverse;
    layer.kernel(builder, name, operands, (places, codes, reverse))?;
    Ok(true)
}

/// Vectors of bias for a vector of hidden units: one a gate, and that of GRU's candidate in two parts.
const BIASES: usize = 4;

/// Numbers of the operands that need not be there: all hidden states, and the states before and behind.
struct Places {
    y: Option<usize>,
    first: [Option<usize>; 2],
    last: [Option<usize>; 2],
}

impl Layer {
    fn gates(self) -> usize {
        if self.lstm { 4 } else { 3 }
    }

    fn states(self) -> usize {
        if self.lstm { 2 } else { 1 }
    }

    fn blocks(self) -> usize {
        self.hidden.div_ceil(self.lanes)
    }

    /// Floats of packed weights for a vector of hidden units.
    fn block_floats(self) -> usize {
        self.lanes * (self.gates() * (self.inputs + self.hidden) + BIASES)
    }

    /// Bytes of a state with its last vector filled up.
    fn state_bytes(self) -> usize {
        4 * self.blocks() * self.lanes
    }

    /// For each vector of hidden units: bias, then the gates' weights for each input, then for each hidden unit.
    fn pack(self, packed: &mut Vec<f32>, direction: usize, weights: [&[f32]; 2], bias: Option<&[f32]>) {
        let (gates, hidden) = (self.gates(), self.hidden);
        let rows = gates * hidden;
        let of = |side: usize, gate: usize, unit: usize| {
            let at = direction * 2 * rows + side * rows + gate * hidden + unit;
            bias.and_then(|bias| bias.get(at)).copied().unwrap_or(0.0)
        };
        for block in 0..self.blocks() {
            let mut vector = |value: &dyn Fn(usize) -> f32| {
                packed.extend(
                    (block * self.lanes..)
                        .take(self.lanes)
                        .map(|unit| if unit < hidden { value(unit) } else { 0.0 }),
                );
            };
            for gate in 0..BIASES {
                vector(&|unit| match (self.lstm, gate) {
                    (false, 2) => of(0, 2, unit),
                    (false, 3) => of(1, 2, unit),
                    _ => of(0, gate, unit) + of(1, gate, unit),
                });
            }
            for (side, depth) in [self.inputs, hidden].into_iter().enumerate() {
                for k in 0..depth {
                    for gate in 0..gates {
                        vector(&|unit| {
                            weights[side][((direction * gates + gate) * hidden + unit) * depth + k]
                        });
                    }
                }
            }
        }
    }

    /// `units` hidden units of one step: `x, h, packed, old, new, y`, and the cell's state for LSTM. `h` is the whole old
    /// state, `old` these units of it; states are padded to whole vectors, `y` is not.
    fn write(self, mut b: TileBuilder, units: usize) -> Result<Tile, TileError> {
        let [x, h, packed, old, new, y] = b.pointers(["x", "h", "packed", "old", "new", "y"]);
        let cell = self.lstm.then(|| b.pointer("cell"));
        let (gates, bytes) = (self.gates(), b.vector_bytes());
        let sums: Vec<Vector> = (0..BIASES).map(|i| b.load(packed.at(i as i32 * bytes))).collect();
        b.advance(packed, BIASES as i32 * bytes);
        let side = |b: &mut TileBuilder, from: Pointer, depth: usize, sums: &[Vector]| {
            b.repeat(depth as u32, &[(from, 4), (packed, gates as i32 * bytes)], |b| {
                let value = b.load_splat(from.at(0));
                for (i, &sum) in sums.iter().enumerate() {
                    let weights = b.load(packed.at(i as i32 * bytes));
                    b.fma(sum, value, weights);
                }
            });
        };
        let which = first_lanes(&b, units);
        if let Some(cell) = cell {
            side(&mut b, x, self.inputs, &sums);
            side(&mut b, h, self.hidden, &sums);
            let [input, output, forget, candidate] = [0, 1, 2, 3].map(|i| sums[i]);
            let candidate = b.tanh(candidate);
            let input = b.sigmoid(input);
            let added = b.mul(input, candidate);
            let forget = b.sigmoid(forget);
            let before = b.load(cell.at(0));
            b.fma(added, forget, before);
            b.store(added, cell.at(0));
            let value = b.tanh(added);
            let output = b.sigmoid(output);
            let value = b.mul(output, value);
            b.store(value, new.at(0));
            b.store_lanes(value, y.at(0), which);
        } else {
            side(&mut b, x, self.inputs, &[sums[0], sums[1], sums[2]]);
            side(&mut b, h, self.hidden, &[sums[0], sums[1], sums[3]]);
            let [update, reset, candidate, behind] = [0, 1, 2, 3].map(|i| sums[i]);
            let reset = b.sigmoid(reset);
            b.fma(candidate, reset, behind);
            let candidate = b.tanh(candidate);
            let update = b.sigmoid(update);
            let before = b.load(old.at(0));
            let change = b.sub(before, candidate);
            b.fma(candidate, update, change);
            b.store(candidate, new.at(0));
            b.store_lanes(candidate, y.at(0), which);
        }
        b.finish()
    }

    fn kernel(
        self,
        builder: &mut Builder<'_>,
        name: String,
        operands: Vec<Operand>,
        (places, codes, reverse): (Places, [Option<FunctionId>; 2], bool),
    ) -> Result<(), CompileError> {
        let Self { steps, batch, inputs, hidden, directions, .. } = self;
        let state = self.state_bytes() as i64;
        let row = 4 * hidden as i64;
        let function = builder.add_step(&name, |glue| {
            let (table, begin, end, scratch) =
                (glue.params[0], glue.params[1], glue.params[2], glue.params[3]);
            let pointers: Vec<Value> = (0..operands.len()).map(|i| glue.pointer(table, i)).collect();
            glue.for_each(begin, end, |glue, unit| {
                let (direction, item) = glue.split(unit, batch as u64);
                let packed_bytes = 4 * (self.blocks() * self.block_floats()) as i64;
                let packed = glue.element(pointers[1], direction, packed_bytes);
                // Two places of the hidden state in turns, then that of the cell.
                let cell = glue.add_constant(scratch, 2 * state);
                for (which, place) in [scratch, cell].into_iter().enumerate().take(self.states()) {
                    let from = places.first[which].map(|i| glue.element(pointers[i], unit, row));
                    copy(glue, from, place, hidden);
                }
                glue.for_count(steps as u64, |glue, step| {
                    let last = glue.constant(steps as i64 - 1);
                    let mirrored = glue.builder.ins().isub(last, step);
                    let backwards = if directions == 2 {
                        glue.builder.ins().icmp_imm_s(IntCC::NotEqual, direction, 0)
                    } else {
                        let reverse = glue.constant(i64::from(reverse));
                        glue.builder.ins().icmp_imm_s(IntCC::NotEqual, reverse, 0)
                    };
                    let at = glue.builder.ins().select(backwards, mirrored, step);
                    let sequence = glue.builder.ins().imul_imm_s(at, batch as i64);
                    let sequence = glue.builder.ins().iadd(sequence, item);
                    let x = glue.element(pointers[0], sequence, 4 * inputs as i64);
                    let odd = glue.builder.ins().band_imm_u(step, 1);
                    let even = glue.builder.ins().bxor_imm_u(odd, 1);
                    let (old, new) = (glue.element(scratch, odd, state), glue.element(scratch, even, state));
                    let y = places.y.map(|i| {
                        let number = glue.builder.ins().imul_imm_s(at, directions as i64);
                        let number = glue.builder.ins().iadd(number, direction);
                        let number = glue.builder.ins().imul_imm_s(number, batch as i64);
                        let number = glue.builder.ins().iadd(number, item);
                        glue.element(pointers[i], number, row)
                    });
                    self.step(glue, [x, old, packed, new, y.unwrap_or(new), cell], codes);
                });
                let hidden_at = glue.add_constant(scratch, (steps % 2) as i64 * state);
                for (which, place) in [hidden_at, cell].into_iter().enumerate().take(self.states()) {
                    if let Some(i) = places.last[which] {
                        let to = glue.element(pointers[i], unit, row);
                        copy(glue, Some(place), to, hidden);
                    }
                }
            });
        })?;
        let units = directions * batch;
        let macs = units * steps * self.gates() * hidden * (inputs + hidden);
        let nanoseconds = macs as f64 / 8.0 + (units * steps * self.blocks()) as f64 * 40.0;
        let splits = builder.even_splits(units as u64, nanoseconds);
        let scratch_bytes = 3 * self.state_bytes();
        builder.push_kernel(Kernel { name, function, operands, splits, scratch_bytes });
        Ok(())
    }

    /// All hidden units of one step.
    fn step(
        self,
        glue: &mut Glue<'_>,
        [x, old, packed, new, y, cell]: [Value; 6],
        [full, rest]: [Option<FunctionId>; 2],
    ) {
        let vector = 4 * self.lanes as i64;
        let blocks = glue.constant(self.blocks() as i64);
        let zero = glue.constant(0);
        glue.for_each(zero, blocks, |glue, block| {
            let mut args = vec![x, old, glue.element(packed, block, 4 * self.block_floats() as i64)];
            args.extend([old, new, y].map(|base| glue.element(base, block, vector)));
            if self.lstm {
                args.push(glue.element(cell, block, vector));
            }
            match (full, rest) {
                (Some(full), Some(rest)) => {
                    let last = (self.hidden / self.lanes) as i64;
                    let whole = glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, block, last);
                    choose(glue, whole, |glue| glue.call(full, &args), |glue| glue.call(rest, &args));
                }
                (Some(only), None) | (None, Some(only)) => glue.call(only, &args),
                (None, None) => {}
            }
        });
    }
}

/// Copies floats, or writes zeros where there is nothing to copy.
fn copy(glue: &mut Glue<'_>, from: Option<Value>, to: Value, count: usize) {
    glue.for_count(count as u64, |glue, i| {
        let value = match from {
            Some(from) => {
                let from = glue.element(from, i, 4);
                glue.builder.ins().load(F32, MemFlagsData::trusted(), from, 0)
            }
            None => glue.builder.ins().f32const(0.0),
        };
        let to = glue.element(to, i, 4);
        glue.builder.ins().store(MemFlagsData::trusted(), value, to, 0);
    });
}
