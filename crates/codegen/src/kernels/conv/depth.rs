//! A convolution of many input channels as several of fewer, each of which adds to what the one before has stored.
//!
//! Windows hold all input channels of some rows; where there are too many, windows are of a row or two, and copies are mostly
//! of rows that the next window copies again. Few output channels are soon stored and read.

use super::problem::Problem;
use super::rows::direct_cycles;
use crate::target::Target;
use std::ops::Range;

/// Most parts: each is a kernel of its own.
const MOST: usize = 16;

/// Input channels below which a part is not worth its call.
const FEWEST: usize = 32;

/// The input channels of each part, and the estimated cycles; one part of all where that is best.
pub(super) fn split(problem: &Problem, target: &Target) -> (f64, Vec<Range<usize>>) {
    let outputs: usize = problem.axes.iter().map(|axis| axis.output).product();
    let stored = (problem.batch * problem.groups * problem.cout * outputs) as f64 / target.lanes() as f64;
    let mut best = (direct_cycles(problem, target), 1);
    for parts in [2, 4, 8, MOST] {
        let cin = problem.cin.div_ceil(parts);
        if cin < FEWEST {
            break;
        }
        let part = Problem { cin, ..problem.clone() };
        // What is there already, added to each vector of results.
        let cycles = parts as f64 * direct_cycles(&part, target) + (parts - 1) as f64 * stored;
        if cycles < best.0 {
            best = (cycles, parts);
        }
    }
    let (cycles, parts) = best;
    let bound = |part: usize| problem.cin * part / parts;
    (cycles, (0..parts).map(|part| bound(part)..bound(part + 1)).collect())
}
