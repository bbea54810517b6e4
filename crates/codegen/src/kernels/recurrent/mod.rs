//! GRU and LSTM of f32 with constant weights: lanes run along hidden units, with weights packed for each vector of these.
//!
//! - [`sequences`] runs each sequence by itself, all of its steps one after the other: small layers over many of them.
//! - [`time_steps`] multiplies all inputs by their weights at once, and then takes the hidden units time step by time step,
//!   each shared between threads: large layers over few sequences.

mod sequences;
mod time_steps;

use super::family::{self, Codes, KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use super::walk::choose;
use crate::builder::Builder;
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::F32;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tconvc_ir::ops::{Cell, Direction};
use tconvc_ir::{Node, Op, Tensor};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Lanes, Pointer, TileBuilder, Vector};

/// Extents of a layer.
#[derive(Clone, Copy)]
struct Layer {
    lstm: bool,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
    /// Whether the only direction is backwards.
    reverse: bool,
    lanes: usize,
    /// Vectors that sums may take.
    sums: usize,
}

/// Positions of a node's inputs.
const WEIGHTS: [usize; 2] = [1, 2];
const BIAS: usize = 3;
const STATES: [usize; 2] = [5, 6];

/// GRU and LSTM.
pub(crate) struct RecurrentCells;

impl KernelFamily for RecurrentCells {
    fn name(&self) -> &'static str {
        "recurrent cell"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let Op::Recurrent(op) = &node.op else { return Err(Reason::variant(node.op.name(), "GRU or LSTM")) };
        let lstm = match op.cell {
            Cell::Gru { linear_before_reset: true } => false,
            Cell::Lstm { input_forget: false } => true,
            Cell::Gru { .. } => {
                return Err(Reason::variant("GRU with linear_before_reset = 0", "linear_before_reset = 1"));
            }
            Cell::Lstm { .. } => {
                return Err(Reason::variant("LSTM with input_forget = 1", "input_forget = 0"));
            }
            Cell::Rnn => return Err(Reason::variant(node.op.name(), "GRU or LSTM")),
        };
        let floats = [0, 1, 2, BIAS, 5, 6].into_iter().filter_map(|i| node.input(i));
        site.all_f32(floats)?;
        let usual = ["sigmoid", "tanh", "tanh"];
        let named = op.activations.chunks(if lstm { 3 } else { 2 });
        let mut all = named.flat_map(|names| names.iter().zip(usual));
        if let Some((own, _)) = all.find(|(name, usual)| !name.eq_ignore_ascii_case(usual)) {
            return Err(Reason::variant(format!("activation {own}"), "Sigmoid at gates and Tanh at states"));
        }
        for (found, is_there) in [
            ("a length for each sequence", node.input(4).is_some()),
            ("peepholes", node.input(7).is_some()),
            ("clip", op.clip.is_some()),
            ("layout = 1", op.batch_first),
        ] {
            if is_there {
                return Err(Reason::variant(found, "a layer without it"));
            }
        }
        let [w, r] = WEIGHTS.map(|i| family::input(node, i));
        let weights = [site.constant(w?, "weights")?, site.constant(r?, "weights")?];
        let bias = node.input(BIAS).map(|bias| site.constant(bias, "biases")).transpose()?;
        let shape = site.shape(family::input(node, 0)?)?;
        let (&[steps, batch, inputs], &[directions, _, hidden]) = (shape.as_slice(), weights[1].shape())
        else {
            return Err(Reason::Graph(format!("the input has shape {shape:?}")));
        };
        if steps * batch * inputs * hidden == 0 {
            return Err(Reason::variant("an empty sequence", "one with steps, inputs and hidden units"));
        }
        let layer = Layer {
            lstm,
            steps,
            batch,
            inputs,
            hidden,
            directions,
            reverse: op.direction == Direction::Reverse,
            lanes: site.target.lanes(),
            sums: site.target.vectors().accumulators(3),
        };
        Ok(Box::new(Plan { layer, node, weights, bias }))
    }
}

/// A layer and its operands.
struct Plan<'a> {
    layer: Layer,
    node: &'a Node,
    weights: [&'a Tensor; 2],
    bias: Option<&'a Tensor>,
}

impl<'a> KernelPlan<'a> for Plan<'a> {
    fn name(&self) -> String {
        let Layer { lstm, steps, batch, inputs, hidden, .. } = self.layer;
        let cell = if lstm { "lstm" } else { "gru" };
        format!("f32_{cell}_{steps}x{batch}x{inputs}_h{hidden}")
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let Layer { steps, batch, inputs, hidden, directions, .. } = self.layer;
        let macs = directions * batch * steps * self.layer.gates() * hidden * (inputs + hidden);
        let rates = target.rates().elementwise;
        let items = directions * batch * steps * self.layer.blocks();
        macs as f64 / rates.vector_macs + items as f64 * rates.recurrent_item
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        _: &Codes,
    ) -> Result<(), CompileError> {
        let Self { layer, node, weights: [w, r], bias } = *self;
        let mut packed = vec![];
        let (w, r) = (w.elements::<f32>()?, r.elements::<f32>()?);
        let bias = bias.map(Tensor::elements::<f32>).transpose()?;
        for direction in 0..layer.directions {
            layer.pack(&mut packed, direction, [&w, &r], bias.as_deref());
        }
        let x = node.input(0).ok_or_else(|| builder.unsupported("its input is missing".into()))?;
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
        let rates = builder.target.rates();
        if layer.step_macs() as f64 / rates.elementwise.vector_macs >= rates.threads.time_step_ns {
            time_steps::build(builder, layer, &name, operands, &places)?;
        } else {
            sequences::build(builder, layer, name, operands, &places)?;
        }
        Ok(())
    }
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

    /// The sums that inputs are added to.
    fn of_inputs(self) -> &'static [usize] {
        if self.lstm { &[0, 1, 2, 3] } else { &[0, 1, 2] }
    }

    /// The sums that the hidden state is added to.
    fn of_state(self) -> &'static [usize] {
        if self.lstm { &[0, 1, 2, 3] } else { &[0, 1, 3] }
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

    /// Multiply-adds of the hidden state in a step of all sequences.
    fn step_macs(self) -> usize {
        self.directions * self.batch * self.gates() * self.hidden * self.hidden
    }

    /// Which of a vector's lanes are hidden units, in full vectors and in the last one; nothing where there is no such.
    fn vectors(self) -> [Option<usize>; 2] {
        let (full, rest) = (self.hidden / self.lanes, self.hidden % self.lanes);
        [(full > 0).then_some(self.lanes), (rest > 0).then_some(rest)]
    }

    /// Adds `depth` numbers times their weights to the sums, one of each gate; leaves both pointers behind what was read.
    fn add_products(
        self,
        b: &mut TileBuilder,
        from: Pointer,
        packed: Pointer,
        depth: usize,
        sums: &[Vector],
    ) {
        let (gates, bytes) = (sums.len(), b.vector_bytes());
        let add = |b: &mut TileBuilder, sums: &[Vector], k: usize| {
            let value = b.load_splat(from.at(4 * k as i32));
            for (i, &sum) in sums.iter().enumerate() {
                let weights = b.load(packed.at((k * gates + i) as i32 * bytes));
                b.fma(sum, value, weights);
            }
        };
        // Several sums of each gate: one alone would wait for itself.
        let unrolled = (self.sums / gates).clamp(1, 4).min(depth);
        let further: Vec<Vec<Vector>> =
            (1..unrolled).map(|_| sums.iter().map(|_| b.zero()).collect()).collect();
        let step = |count: usize| [(from, 4 * count as i32), (packed, (count * gates) as i32 * bytes)];
        b.repeat((depth / unrolled) as u32, &step(unrolled), |b| {
            add(b, sums, 0);
            for (k, sums) in (1..).zip(&further) {
                add(b, sums, k);
            }
        });
        for (&total, &part) in further.iter().flat_map(|part| sums.iter().zip(part)) {
            b.add_to(total, part);
        }
        if !depth.is_multiple_of(unrolled) {
            b.repeat((depth % unrolled) as u32, &step(1), |b| add(b, sums, 0));
        }
    }

    /// The place of a step in the sequences, of which some are taken from their ends.
    fn place_of(self, f: &mut FunctionBuilder<'_>, step: Value, direction: Value) -> Value {
        let last = f.constant(self.steps as i64 - 1);
        let mirrored = f.builder.ins().isub(last, step);
        let backwards = if self.directions == 2 { direction } else { f.constant(i64::from(self.reverse)) };
        let backwards = f.builder.ins().icmp_imm_s(IntCC::NotEqual, backwards, 0);
        f.builder.ins().select(backwards, mirrored, step)
    }

    /// Where the hidden states of a step and a sequence are put among the outputs.
    fn output_of(self, f: &mut FunctionBuilder<'_>, y: Value, [at, direction, item]: [Value; 3]) -> Value {
        let number = f.builder.ins().imul_imm_s(at, self.directions as i64);
        let number = f.builder.ins().iadd(number, direction);
        let number = f.builder.ins().imul_imm_s(number, self.batch as i64);
        let number = f.builder.ins().iadd(number, item);
        f.element(y, number, 4 * self.hidden as i64)
    }

    /// Calls the code for full vectors of hidden units, or that for the last one.
    fn call_for(
        self,
        f: &mut FunctionBuilder<'_>,
        codes: [Option<FunctionId>; 2],
        block: Value,
        args: &[Value],
    ) {
        match codes {
            [Some(full), Some(rest)] => {
                let last = (self.hidden / self.lanes) as i64;
                let whole = f.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, block, last);
                choose(f, whole, |f| f.call(full, args), |f| f.call(rest, args));
            }
            [Some(only), None] | [None, Some(only)] => f.call(only, args),
            [None, None] => {}
        }
    }
}

/// Where a vector of hidden units has its states; `y` may have fewer lanes.
struct States {
    old: Pointer,
    new: Pointer,
    y: Pointer,
    cell: Option<Pointer>,
}

/// The new state from the sums of the gates: for LSTM of the input, output and forget gate and the candidate, for GRU of
/// the update and reset gate and the candidate's two parts. `old` is the hidden state before, and `cell` that of the
/// cell, of the same units.
fn finish(b: &mut TileBuilder, sums: [Vector; BIASES], units: Lanes, states: &States) {
    let value = if let Some(cell) = states.cell {
        let [input, output, forget, candidate] = sums;
        let candidate = b.tanh(candidate);
        let input = b.sigmoid(input);
        let added = b.mul(input, candidate);
        let forget = b.sigmoid(forget);
        let before = b.load(cell.at(0));
        b.fma(added, forget, before);
        b.store(added, cell.at(0));
        let value = b.tanh(added);
        let output = b.sigmoid(output);
        b.mul(output, value)
    } else {
        let [update, reset, candidate, behind] = sums;
        let reset = b.sigmoid(reset);
        b.fma(candidate, reset, behind);
        let candidate = b.tanh(candidate);
        let update = b.sigmoid(update);
        let before = b.load(states.old.at(0));
        let change = b.sub(before, candidate);
        b.fma(candidate, update, change);
        candidate
    };
    b.store(value, states.new.at(0));
    b.store_lanes(value, states.y.at(0), units);
}

/// Copies floats, or writes zeros where there is nothing to copy.
fn copy(f: &mut FunctionBuilder<'_>, from: Option<Value>, to: Value, count: Value) {
    let zero = f.constant(0);
    f.for_each(zero, count, |f, i| {
        let value = match from {
            Some(from) => {
                let from = f.element(from, i, 4);
                f.builder.ins().load(F32, MemFlagsData::trusted(), from, 0)
            }
            None => f.builder.ins().f32const(0.0),
        };
        let to = f.element(to, i, 4);
        f.builder.ins().store(MemFlagsData::trusted(), value, to, 0);
    });
}
