//! GRU and LSTM against the definition.

use crate::support::{Case, Input, op, seeded};
use tconvc_ir::{Attributes, DType, Tensor};

/// Steps, batch, inputs, hidden units; the last ones are computed time step by time step.
const SIZES: [[usize; 4]; 9] = [
    [33, 1, 8, 4],
    [1, 33, 8, 8],
    [5, 2, 3, 16],
    [4, 3, 9, 21],
    [2, 1, 1, 1],
    [7, 1, 5, 101],
    [3, 2, 1, 96],
    [1, 4, 11, 67],
    [4, 60, 3, 13],
];

fn inputs(
    cell: &str,
    directions: usize,
    [steps, batch, inputs, hidden]: [usize; 4],
    all: bool,
) -> Vec<Input> {
    let lstm = cell == "LSTM";
    let gates = if lstm { 4 } else { 3 };
    let mut list = vec![
        Input::Given(seeded(&[steps, batch, inputs], 1)),
        Input::Constant(seeded(&[directions, gates * hidden, inputs], 2)),
        Input::Constant(seeded(&[directions, gates * hidden, hidden], 3)),
    ];
    if all {
        list.push(Input::Constant(seeded(&[directions, 2 * gates * hidden], 4)));
        list.push(Input::Absent);
        list.push(Input::Given(seeded(&[directions, batch, hidden], 5)));
        if lstm {
            list.push(Input::Given(seeded(&[directions, batch, hidden], 6)));
        }
    }
    list
}

#[test]
fn cells() {
    for cell in ["GRU", "LSTM"] {
        for size in SIZES {
            for (direction, directions) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
                for all in [true, false] {
                    let mut attributes = Attributes::new().with("direction", direction);
                    if cell == "GRU" {
                        attributes.set("linear_before_reset", 1);
                    }
                    let (op, inputs) = (op(cell, attributes), inputs(cell, directions, size, all));
                    let outputs = if cell == "LSTM" { 3 } else { 2 };
                    Case { op, inputs, outputs, tolerance: 1e-5, native: true }.check();
                }
            }
        }
    }
}

/// What differs from the usual cell is interpreted, not computed otherwise.
#[test]
fn other_cells_are_interpreted() {
    let size = [3, 2, 4, 5];
    let plain = |op, inputs, outputs| Case { op, inputs, outputs, tolerance: 1e-5, native: false }.check();
    plain(op("GRU", Attributes::new()), inputs("GRU", 1, size, true), 2);
    let clipped = Attributes::new().with("clip", 0.25f32);
    plain(op("LSTM", clipped), inputs("LSTM", 1, size, true), 3);
    let mut lengths = inputs("LSTM", 1, size, true);
    lengths[4] = Input::Constant(Tensor::from_vec([2], vec![3i32, 1]).unwrap());
    plain(op("LSTM", Attributes::new()), lengths, 3);
    let relu = vec!["Sigmoid".to_owned(), "Relu".to_owned()];
    let relu = Attributes::new().with("linear_before_reset", 1).with("activations", relu);
    plain(op("GRU", relu), inputs("GRU", 1, size, true), 2);
    let mut given = inputs("GRU", 1, size, false);
    given[1] = Input::Given(Tensor::seeded(DType::F32, [1, 15, 4], 8).unwrap());
    plain(op("GRU", Attributes::new().with("linear_before_reset", 1)), given, 2);
}
