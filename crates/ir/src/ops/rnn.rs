//! Recurrent layers: RNN, GRU and LSTM. What their cells compute is in `rnn_cell`.

use super::rnn_cell::{Activation, Direction as OneDirection};
use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// ONNX `RNN`, `GRU` or `LSTM`: `X [S, N, I], W [D, G*H, I], R [D, G*H, H], B [D, 2*G*H]?, sequence_lens [N]?,
/// initial_h [D, N, H]?, initial_c?, P [D, 3*H]? -> Y [S, D, N, H], Y_h [D, N, H], Y_c`, the last three for LSTM alone.
/// S steps, N batch, I inputs, H hidden, D directions, G gates.
#[derive(Debug, Clone, PartialEq)]
pub struct Recurrent {
    /// Which of the three.
    pub cell: Cell,
    /// Order of the steps.
    pub direction: Direction,
    /// H; `None` is that of `R`.
    pub hidden_size: Option<usize>,
    /// ONNX's `layout` 1: the batch is the first axis of X, Y and the states.
    pub batch_first: bool,
    /// Names of the activations of each direction; empty is the cell's own.
    pub activations: Vec<String>,
    /// Parameters of the activations that have an alpha, in order.
    pub activation_alpha: Vec<f32>,
    /// Parameters of the activations that have a beta, in order.
    pub activation_beta: Vec<f32>,
    /// What enters an activation lies within this distance of 0.
    pub clip: Option<f32>,
}

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// One gate.
    Rnn,
    /// Gates update, reset, hidden.
    Gru {
        /// The reset applies behind the hidden gate's matrix.
        linear_before_reset: bool,
    },
    /// Gates input, output, forget, cell.
    Lstm {
        /// The forget gate is 1 less the input gate.
        input_forget: bool,
    },
}

/// Order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first.
    Forward,
    /// From the last.
    Reverse,
    /// Both, with weights of their own.
    Bidirectional,
}

impl Cell {
    /// Number of gates.
    pub const fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    /// Activations of one direction when none are named.
    pub(super) const fn default_activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }

    const fn inputs(self) -> usize {
        if matches!(self, Self::Lstm { .. }) { 8 } else { 6 }
    }
}

impl Direction {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Forward, "forward"), (Self::Reverse, "reverse"), (Self::Bidirectional, "bidirectional")];

    /// Number of directions.
    pub const fn count(self) -> usize {
        if matches!(self, Self::Bidirectional) { 2 } else { 1 }
    }
}

impl Recurrent {
    /// Reads the operator of that name; `Ok(None)` when the name is none of the three.
    ///
    /// # Errors
    /// When an attribute is unknown or out of range.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let cell = match name {
            "RNN" => Cell::Rnn,
            "GRU" => Cell::Gru { linear_before_reset: attributes.flag("linear_before_reset", false)? },
            "LSTM" => Cell::Lstm { input_forget: attributes.flag("input_forget", false)? },
            _ => return Ok(None),
        };
        let direction = attributes.string("direction")?.unwrap_or_else(|| "forward".into());
        let direction = Direction::ALL.into_iter().find(|(_, name)| *name == direction).ok_or_else(|| {
            let accepted = "forward, reverse, bidirectional";
            Error::attribute("direction", format!("`{direction}` is not one of {accepted}"))
        })?;
        let hidden_size = attributes.int("hidden_size")?.map(|size| {
            let size = usize::try_from(size).ok().filter(|&size| size > 0);
            size.ok_or_else(|| Error::attribute("hidden_size", "expected at least 1"))
        });
        let op = Self {
            cell,
            direction: direction.0,
            hidden_size: hidden_size.transpose()?,
            batch_first: attributes.flag("layout", false)?,
            activations: attributes.strings("activations")?.unwrap_or_default(),
            activation_alpha: attributes.floats("activation_alpha")?.unwrap_or_default(),
            activation_beta: attributes.floats("activation_beta")?.unwrap_or_default(),
            clip: attributes.float("clip")?,
        };
        attributes.finish(
            "activations, activation_alpha, activation_beta, clip, direction, hidden_size, layout; \
             linear_before_reset for GRU, input_forget for LSTM",
        )?;
        op.functions()?;
        Ok(Some(op))
    }

    /// The activations of each direction.
    fn functions(&self) -> Result<Vec<Vec<Activation>>> {
        let defaults = self.cell.default_activations();
        let count = defaults.len() * self.direction.count();
        let names: Vec<&str> = if self.activations.is_empty() {
            defaults.iter().copied().cycle().take(count).collect()
        } else {
            self.activations.iter().map(String::as_str).collect()
        };
        if names.len() != count {
            return Err(Error::attribute(
                "activations",
                format!("expected {} for each direction, found {} in all", defaults.len(), names.len()),
            ));
        }
        let (mut alphas, mut betas) = (self.activation_alpha.iter(), self.activation_beta.iter());
        let parse =
            |name: &&str| Activation::parse(name, || alphas.next().copied(), || betas.next().copied());
        let functions: Vec<Activation> = names.iter().map(parse).collect::<Result<_>>()?;
        Ok(functions.chunks(defaults.len()).map(<[Activation]>::to_vec).collect())
    }

    /// X and the states with the batch where the definition has it: S, N.
    fn leading<T: Clone>(&self, x: &[T]) -> Option<[T; 3]> {
        match x {
            [a, b, c] if self.batch_first => Some([b.clone(), a.clone(), c.clone()]),
            [a, b, c] => Some([a.clone(), b.clone(), c.clone()]),
            _ => None,
        }
    }

    /// Shapes of Y and of a final state.
    fn output_shapes<T: Clone>(&self, steps: T, batch: T, directions: T, hidden: T) -> [Vec<T>; 2] {
        if self.batch_first {
            [vec![batch.clone(), steps, directions.clone(), hidden.clone()], vec![batch, directions, hidden]]
        } else {
            [vec![steps, directions.clone(), batch.clone(), hidden.clone()], vec![directions, batch, hidden]]
        }
    }

    /// Values of an optional state or zeros, [D, N, H].
    fn state(
        &self,
        input: Option<&Tensor>,
        index: usize,
        name: &'static str,
        shape: [usize; 3],
    ) -> Result<Vec<f64>> {
        let [directions, batch, hidden] = shape;
        let Some(input) = input else { return Ok(vec![0.0; directions * batch * hidden]) };
        let expected = if self.batch_first { [batch, directions, hidden] } else { shape };
        let values = shaped(input, index, name, &expected)?;
        if !self.batch_first {
            return Ok(values);
        }
        let at = |i: usize| (i / hidden % batch * directions + i / hidden / batch) * hidden + i % hidden;
        Ok((0..values.len()).map(|i| values[at(i)]).collect())
    }
}

/// The values of an input that must have that shape.
fn shaped(input: &Tensor, index: usize, name: &'static str, shape: &[usize]) -> Result<Vec<f64>> {
    if input.shape() != shape {
        return Err(Error::input(index, name, format!("expected {shape:?}, found {:?}", input.shape())));
    }
    input.to_f64s()
}

const NAMES: [&str; 8] = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"];

impl Operator for Recurrent {
    fn name(&self) -> &str {
        match self.cell {
            Cell::Rnn => "RNN",
            Cell::Gru { .. } => "GRU",
            Cell::Lstm { .. } => "LSTM",
        }
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        match self.cell {
            Cell::Gru { linear_before_reset: true } => attributes.set("linear_before_reset", true),
            Cell::Lstm { input_forget: true } => attributes.set("input_forget", true),
            _ => {}
        }
        if let Some((_, name)) =
            Direction::ALL.iter().skip(1).find(|(direction, _)| *direction == self.direction)
        {
            attributes.set("direction", *name);
        }
        if let Some(size) = self.hidden_size {
            attributes.set("hidden_size", size as i64);
        }
        if self.batch_first {
            attributes.set("layout", true);
        }
        if !self.activations.is_empty() {
            attributes.set("activations", self.activations.clone());
        }
        for (name, values) in
            [("activation_alpha", &self.activation_alpha), ("activation_beta", &self.activation_beta)]
        {
            if !values.is_empty() {
                attributes.set(name, crate::AttributeValue::Floats(values.clone()));
            }
        }
        if let Some(clip) = self.clip {
            attributes.set("clip", clip);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, self.cell.inputs())?;
        let mut dtypes = vec![];
        for (index, name) in NAMES.into_iter().enumerate().filter(|(index, _)| *index != 4) {
            let input =
                if index < 3 { Some(required(inputs, index, name)?) } else { optional(inputs, index) };
            dtypes.push((index, name, input.and_then(|input| input.ty.dtype)));
        }
        check_dtype(0, "X", dtypes[0].2, DType::is_float, "floats")?;
        let dtype = common_dtype(&dtypes)?;
        if let Some(lens) = optional(inputs, 4) {
            check_dtype(4, "sequence_lens", lens.ty.dtype, |dtype| dtype == DType::I32, "i32")?;
        }
        let (x, r) = (required(inputs, 0, "X")?.ty, required(inputs, 2, "R")?.ty);
        let shapes = match &x.shape {
            None => [None, None],
            Some(shape) => {
                let [steps, batch, _] = self.leading(shape).ok_or_else(|| {
                    Error::input(0, "X", format!("expected [steps, batch, inputs], found {x}"))
                })?;
                let hidden = match (self.hidden_size, r.shape.as_deref()) {
                    (Some(size), _) => size.into(),
                    (None, Some([_, _, hidden])) => hidden.clone(),
                    (None, _) => Dim::unknown(),
                };
                self.output_shapes(steps, batch, self.direction.count().into(), hidden).map(Some)
            }
        };
        let [y, state] = shapes.map(|shape| ValueType { dtype, shape });
        let states = std::iter::repeat_n(state, outputs.saturating_sub(1));
        Ok(std::iter::once(y).chain(states).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, self.cell.inputs())?;
        let (x, r) = (required(inputs, 0, "X")?, required(inputs, 2, "R")?);
        check_dtype(0, "X", Some(x.dtype()), DType::is_float, "floats")?;
        let (directions, gates) = (self.direction.count(), self.cell.gates());
        let [steps, batch, size] = self.leading(x.shape()).ok_or_else(|| {
            Error::input(0, "X", format!("expected [steps, batch, inputs], found {:?}", x.shape()))
        })?;
        let hidden = match (self.hidden_size, r.shape()) {
            (Some(size), _) => size,
            (None, &[_, _, hidden]) => hidden,
            (None, found) => {
                return Err(Error::input(2, "R", format!("expected three axes, found {found:?}")));
            }
        };
        let rows = gates.checked_mul(hidden).ok_or_else(|| Error::Size("hidden_size is too large".into()))?;
        let w = shaped(required(inputs, 1, "W")?, 1, "W", &[directions, rows, size])?;
        let r = shaped(r, 2, "R", &[directions, rows, hidden])?;
        let bias = match optional(inputs, 3) {
            Some(bias) => shaped(bias, 3, "B", &[directions, 2 * rows])?,
            None => vec![0.0; directions * 2 * rows],
        };
        let peepholes = match optional(inputs, 7) {
            Some(peepholes) => shaped(peepholes, 7, "P", &[directions, 3 * hidden])?,
            None => vec![0.0; directions * 3 * hidden],
        };
        let lens = match optional(inputs, 4) {
            None => vec![steps; batch],
            Some(lens) if lens.shape() != [batch] => {
                return Err(Error::input(
                    4,
                    "sequence_lens",
                    format!("expected [{batch}], found {:?}", lens.shape()),
                ));
            }
            Some(lens) => {
                let length = |&length: &i64| {
                    let length = usize::try_from(length).ok().filter(|&length| length <= steps);
                    length.ok_or_else(|| Error::input(4, "sequence_lens", format!("expected 0 to {steps}")))
                };
                lens.to_i64s()?.iter().map(length).collect::<Result<_>>()?
            }
        };
        let mut h = self.state(optional(inputs, 5), 5, "initial_h", [directions, batch, hidden])?;
        let mut c = self.state(optional(inputs, 6), 6, "initial_c", [directions, batch, hidden])?;
        let data = x.to_f64s()?;
        let [y_shape, state_shape] = self.output_shapes(steps, batch, directions, hidden);
        let mut y = vec![0.0; element_count(&y_shape)?];
        for (d, functions) in self.functions()?.into_iter().enumerate() {
            let part = |values: &[f64], length: usize| values[d * length..][..length].to_vec();
            let direction = OneDirection {
                cell: self.cell,
                w: part(&w, rows * size),
                r: part(&r, rows * hidden),
                bias: part(&bias, 2 * rows),
                peepholes: part(&peepholes, 3 * hidden),
                functions,
                clip: self.clip.map(f64::from),
            };
            let backward = self.direction == Direction::Reverse || d == 1;
            for (n, &length) in lens.iter().enumerate() {
                let state = (d * batch + n) * hidden..(d * batch + n + 1) * hidden;
                for step in 0..length {
                    let step = if backward { length - 1 - step } else { step };
                    let (from, to) = if self.batch_first {
                        (n * steps + step, (n * steps + step) * directions + d)
                    } else {
                        (step * batch + n, (step * directions + d) * batch + n)
                    };
                    direction.step(
                        &data[from * size..][..size],
                        &mut h[state.clone()],
                        &mut c[state.clone()],
                    );
                    y[to * hidden..][..hidden].copy_from_slice(&h[state.clone()]);
                }
            }
        }
        let turned = |values: &[f64]| -> Vec<f64> {
            if !self.batch_first {
                return values.to_vec();
            }
            let at =
                |i: usize| (i / hidden % directions * batch + i / hidden / directions) * hidden + i % hidden;
            (0..values.len()).map(|i| values[at(i)]).collect()
        };
        let mut results = vec![from_f64s(x.dtype(), &y_shape, &y)?];
        for state in [h, c].into_iter().take(outputs.saturating_sub(1)) {
            results.push(from_f64s(x.dtype(), &state_shape, &turned(&state))?);
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let value = |i: usize| ((i * 31 + seed * 17) % 23) as f64 / 23.0 - 0.5;
        Tensor::from_vec(shape, (0..count).map(value).collect()).unwrap()
    }

    fn plain(cell: Cell) -> Recurrent {
        Recurrent {
            cell,
            direction: Direction::Forward,
            hidden_size: None,
            batch_first: false,
            activations: vec![],
            activation_alpha: vec![],
            activation_beta: vec![],
            clip: None,
        }
    }

    const CELLS: [Cell; 5] = [
        Cell::Rnn,
        Cell::Gru { linear_before_reset: false },
        Cell::Gru { linear_before_reset: true },
        Cell::Lstm { input_forget: false },
        Cell::Lstm { input_forget: true },
    ];

    /// X [3, 2, 4], W, R and B of one direction.
    fn inputs(cell: Cell, directions: usize) -> [Tensor; 4] {
        let rows = cell.gates() * 5;
        [
            tensor(&[3, 2, 4], 0),
            tensor(&[directions, rows, 4], 1),
            tensor(&[directions, rows, 5], 2),
            tensor(&[directions, 2 * rows], 3),
        ]
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_f64s().unwrap()
    }

    fn turn_steps(x: &Tensor) -> Tensor {
        let row = x.len() / x.shape()[0];
        let data = values(x).chunks(row).rev().flatten().copied().collect::<Vec<f64>>();
        Tensor::from_vec(x.shape(), data).unwrap()
    }

    #[test]
    fn gru_agrees_with_a_direct_loop() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let cell = Cell::Gru { linear_before_reset: false };
        let given = inputs(cell, 1);
        let [x, w, r, b] = [0, 1, 2, 3].map(|i| values(&given[i]));
        let y = plain(cell).eval(&given.iter().map(Some).collect::<Vec<_>>(), 2).unwrap();
        for n in 0..2 {
            let mut h = [0.0; 5];
            for t in 0..3 {
                let gate = |g: usize, j: usize, h: &[f64]| -> f64 {
                    let row = g * 5 + j;
                    let from_x: f64 = (0..4).map(|i| w[row * 4 + i] * x[(t * 2 + n) * 4 + i]).sum();
                    let from_h: f64 = (0..5).map(|i| r[row * 5 + i] * h[i]).sum();
                    from_x + from_h + b[row] + b[15 + row]
                };
                let z: Vec<f64> = (0..5).map(|j| sigmoid(gate(0, j, &h))).collect();
                let reset: Vec<f64> = (0..5).map(|j| sigmoid(gate(1, j, &h)) * h[j]).collect();
                let next: Vec<f64> =
                    (0..5).map(|j| (1.0 - z[j]) * gate(2, j, &reset).tanh() + z[j] * h[j]).collect();
                h.copy_from_slice(&next);
                let found = &values(&y[0])[(t * 2 + n) * 5..][..5];
                assert!(found.iter().zip(h).all(|(a, b)| (a - b).abs() < 1e-12));
            }
            assert_eq!(values(&y[1])[n * 5..][..5], values(&y[0])[(4 + n) * 5..][..5]);
        }
    }

    #[test]
    fn both_directions_are_the_two_single_ones() {
        for cell in CELLS {
            let outputs = 2 + usize::from(matches!(cell, Cell::Lstm { .. }));
            let given = inputs(cell, 2);
            let both = Recurrent { direction: Direction::Bidirectional, ..plain(cell) };
            let y = both.eval(&given.iter().map(Some).collect::<Vec<_>>(), outputs).unwrap();
            for d in 0..2 {
                let half = |tensor: &Tensor| {
                    let mut shape = tensor.shape().to_vec();
                    shape[0] = 1;
                    let part = tensor.len() / 2;
                    Tensor::from_vec(shape, values(tensor)[d * part..][..part].to_vec()).unwrap()
                };
                let single = [given[0].clone(), half(&given[1]), half(&given[2]), half(&given[3])];
                let direction = [Direction::Forward, Direction::Reverse][d];
                let op = Recurrent { direction, ..plain(cell) };
                let one = op.eval(&single.iter().map(Some).collect::<Vec<_>>(), outputs).unwrap();
                for (state, both) in one[1..].iter().zip(&y[1..]) {
                    assert_eq!(values(state), values(both)[d * 10..][..10], "{cell:?}");
                }
                // Reversed steps in, reversed steps out.
                let turned =
                    [turn_steps(&single[0]), single[1].clone(), single[2].clone(), single[3].clone()];
                let turned =
                    Recurrent { direction: [Direction::Reverse, Direction::Forward][d], ..plain(cell) }
                        .eval(&turned.iter().map(Some).collect::<Vec<_>>(), 1)
                        .unwrap();
                assert_eq!(values(&turn_steps(&turned[0])), values(&one[0]), "{cell:?}");
            }
        }
    }

    #[test]
    fn short_sequences_stop_and_leave_zeros() {
        let cell = Cell::Lstm { input_forget: false };
        let given = inputs(cell, 1);
        let lens = Tensor::from_vec([2], vec![3i32, 1]).unwrap();
        let with = [Some(&given[0]), Some(&given[1]), Some(&given[2]), Some(&given[3]), Some(&lens)];
        let y = plain(cell).eval(&with, 3).unwrap();
        let all = values(&y[0]);
        assert!(all[15..20].iter().chain(&all[25..30]).all(|y| *y == 0.0));
        assert_eq!(values(&y[1])[5..], all[5..10]);
        let wrong = Tensor::from_vec([2], vec![4i32, 1]).unwrap();
        assert!(plain(cell).eval(&[with[0], with[1], with[2], with[3], Some(&wrong)], 3).is_err());
    }

    #[test]
    fn batch_first_turns_axes_alone() {
        let cell = Cell::Gru { linear_before_reset: true };
        let given = inputs(cell, 2);
        let states = tensor(&[2, 2, 5], 9);
        let turn = |tensor: &Tensor| {
            let [a, b] = [tensor.shape()[0], tensor.shape()[1]];
            let row = tensor.len() / a / b;
            let data = values(tensor);
            let turned =
                (0..data.len()).map(|i| data[(i / row % a * b + i / row / a) * row + i % row]).collect();
            let shape: Vec<usize> = [b, a].iter().chain(&tensor.shape()[2..]).copied().collect();
            Tensor::from_vec(shape, turned).unwrap()
        };
        let op = Recurrent { direction: Direction::Bidirectional, ..plain(cell) };
        let run = |op: &Recurrent, x: &Tensor, h: &Tensor| {
            op.eval(&[Some(x), Some(&given[1]), Some(&given[2]), None, None, Some(h)], 2).unwrap()
        };
        let y = run(&op, &given[0], &states);
        let op = Recurrent { batch_first: true, ..op };
        let z = run(&op, &turn(&given[0]), &turn(&states));
        assert_eq!(z[0].shape(), [2, 3, 2, 5]);
        assert_eq!(turn(&z[1]), y[1]);
        for (at, value) in values(&z[0]).into_iter().enumerate() {
            let (n, t, d, j) = (at / 30, at / 10 % 3, at / 5 % 2, at % 5);
            assert_eq!(value, values(&y[0])[((t * 2 + d) * 2 + n) * 5 + j]);
        }
    }

    #[test]
    fn attributes_read_back_and_shapes_are_inferred() {
        for cell in CELLS {
            let op = Recurrent {
                direction: Direction::Reverse,
                hidden_size: Some(5),
                activations: cell.default_activations().iter().map(|_| "LeakyRelu".into()).collect(),
                activation_alpha: vec![0.5],
                clip: Some(2.0),
                ..plain(cell)
            };
            assert_eq!(Recurrent::read(op.name(), op.attributes()), Ok(Some(op.clone())));
            let given = inputs(cell, 1);
            let types: Vec<ValueType> = given.iter().map(ValueType::of).collect();
            let infos: Vec<_> =
                types.iter().map(|ty| Some(InputInfo { ty, constant: None, extents: None })).collect();
            let y = op.eval(&given.iter().map(Some).collect::<Vec<_>>(), 2).unwrap();
            assert_eq!(op.infer(&infos, 2).unwrap(), [ValueType::of(&y[0]), ValueType::of(&y[1])]);
        }
        let wrong = Attributes::new().with("activations", vec!["Tanh".to_owned()]);
        assert!(Recurrent::read("GRU", wrong).is_err());
        assert!(Recurrent::read("RNN", Attributes::new().with("direction", "up")).is_err());
    }
}
