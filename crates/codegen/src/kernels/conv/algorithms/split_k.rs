//! A convolution of many input channels as several of fewer, each of which adds to what the one before has stored.
//!
//! Input tiles hold all input channels of some rows; where there are too many, input tiles are of a row or two, and copies are mostly
//! of rows that the next input tile copies again. Few output channels are soon stored and read.

use crate::kernels::conv::problem::{Axis, Problem};
use crate::kernels::conv::schedule::direct::direct_cycles;
use std::ops::Range;
use tconvc_machine::Target;

/// Most parts: each is a kernel of its own.
const MOST: usize = 16;

/// Input channels below which a part is not worth its call.
const FEWEST: usize = 32;

/// The estimated cycles, and the number of parts that takes the fewest.
pub(crate) fn choose(problem: &Problem, target: &Target) -> (f64, usize) {
    let steps = |axis: &Axis| axis.phases.iter().map(|phase| phase.count).sum::<usize>();
    let outputs: usize = problem.axes.iter().map(steps).product();
    let stored = (problem.batch * problem.groups * problem.cout * outputs) as f64 / target.lanes() as f64;
    let mut best = (direct_cycles(problem, target), 1);
    for parts in [2, 4, 8, MOST] {
        if !fits(problem, parts) {
            break;
        }
        let part = Problem { cin: problem.cin.div_ceil(parts), ..problem.clone() };
        // What is there already, added to each vector of results.
        let cycles = parts as f64 * direct_cycles(&part, target) + (parts - 1) as f64 * stored;
        if cycles < best.0 {
            best = (cycles, parts);
        }
    }
    best
}

/// Whether each of so many parts is worth its call.
pub(crate) fn fits(problem: &Problem, parts: usize) -> bool {
    parts == 1 || (1..=MOST).contains(&parts) && problem.cin.div_ceil(parts) >= FEWEST
}

/// The input channels of each part.
pub(crate) fn parts(problem: &Problem, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let cin = problem.cin;
    (0..parts).map(move |part| cin * part / parts..cin * (part + 1) / parts)
}
