//! The work items of a direct convolution: how many there are, and what they weigh against each other.

use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::direct::{Dataflow, Schedule};
use crate::kernels::conv::schedule::tiling::{blocks_of, channels_of_parts};
use std::ops::Range;

/// Extents of the space of work items, outermost first.
pub(crate) struct WorkItems {
    pub batch_groups: u64,
    pub z: u64,
    pub y: u64,
    pub x: u64,
    pub parts: u64,
}

impl WorkItems {
    pub fn new(problem: &Problem, schedule: &Schedule) -> Self {
        let [z, y, x] = &problem.axes;
        Self {
            batch_groups: (problem.batch * problem.groups) as u64,
            z: z.output_positions().div_ceil(schedule.planes(problem)) as u64,
            y: y.output_positions().div_ceil(schedule.rows) as u64,
            x: x.output_positions().div_ceil(schedule.columns) as u64,
            parts: schedule.parts as u64,
        }
    }

    pub fn total(&self) -> u64 {
        self.batch_groups * self.z * self.y * self.x * self.parts
    }

    /// What the work items weigh against each other.
    pub fn weights(&self, problem: &Problem, schedule: &Schedule, lanes: usize) -> Vec<u64> {
        let [z, y, x] = &problem.axes;
        let parts = match schedule.dataflow {
            Dataflow::Phases => vec![1; schedule.parts],
            _ if schedule.parts_phases(problem, lanes) => {
                let groups = schedule.products_of_groups(problem);
                let products = |part| groups[of_part(groups.len(), part, schedule.parts)].iter().sum();
                (0..schedule.parts).map(products).collect()
            }
            _ => {
                let (block, _) = schedule.channel_block(problem, lanes);
                channels_of_parts(problem.cout, block, schedule.parts)
            }
        };
        let rows = blocks_of(z.output_positions(), schedule.planes(problem))
            .flat_map(|planes| blocks_of(y.output_positions(), schedule.rows).map(move |rows| planes * rows));
        let input_tiles = rows.flat_map(|rows| {
            blocks_of(x.output_positions(), schedule.columns).map(move |steps| rows * steps)
        });
        let input_tiles: Vec<u64> = input_tiles.map(|steps| steps as u64).collect();
        let input_tiles = input_tiles.repeat(self.batch_groups as usize);
        if schedule.across {
            parts.iter().flat_map(|channels| input_tiles.iter().map(move |steps| steps * channels)).collect()
        } else {
            input_tiles.iter().flat_map(|steps| parts.iter().map(move |channels| steps * channels)).collect()
        }
    }
}

/// The groups of phases that a part of them has.
pub(crate) fn of_part(groups: usize, part: usize, parts: usize) -> Range<usize> {
    groups * part / parts..groups * (part + 1) / parts
}
