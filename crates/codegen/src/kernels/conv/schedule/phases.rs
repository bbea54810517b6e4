//! Which phases a call of tiles computes together, and what they read: rows, positions, the order of their weights. Plain
//! values; no code is made here.

use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::direct::{Dataflow, Schedule};
use crate::kernels::conv::schedule::input_tile::InputTileLayout;

/// What a position of the input feeds: accumulators of some phases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    /// Bytes from the base of the row.
    pub offset: i32,
    /// Phases of the tile with a tap there, in the order of their weights.
    pub phases: Vec<usize>,
}

/// A row of the input, and the row phases of the tile that have taps in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// Bytes from the base.
    pub offset: i32,
    /// Row phases of the tile, in the order of their weights.
    pub phases: Vec<usize>,
}

impl Row {
    /// One of a tile that has one row phase.
    pub fn at(offset: i32) -> Self {
        Self { offset, phases: vec![0] }
    }
}

/// Where what tiles read lies in memory.
pub(crate) struct Layout {
    pub input_tile: InputTileLayout,
    /// Bytes between planes.
    pub plane_bytes: i64,
    /// The shift of its first position along each axis; none where it is the tensor itself.
    pub first: Option<[i64; 3]>,
}

/// Phases that tiles compute together.
pub(crate) struct PhaseGroup {
    /// Along z and y.
    pub row_phases: Vec<(usize, usize)>,
    /// Along x.
    pub x_phases: Vec<usize>,
    pub rows: Vec<Row>,
    /// In order of their offsets.
    pub positions: Vec<Position>,
    /// Bytes of the first row and position from the input tile's or the tensor's start.
    pub base: i64,
    /// The tap of each weight of a channel, in the order in which tiles read them; none where there is only a zero.
    pub taps: Vec<Option<[usize; 3]>>,
}

impl PhaseGroup {
    /// Bytes to the output of each row phase from that of the first.
    pub fn row_targets(&self, problem: &Problem) -> Vec<i32> {
        let [z, y, _] = &problem.axes;
        let place = |&(z_phase, y_phase): &(usize, usize)| {
            ((z.phases[z_phase].first * y.output + y.phases[y_phase].first) * problem.output.row) as i64
        };
        let first = place(&self.row_phases[0]);
        self.row_phases.iter().map(|pair| (4 * (place(pair) - first)) as i32).collect()
    }
}

/// Places, each with the phases (by number in their group) and the taps that read it.
type Fed<K, T> = Vec<(K, Vec<(usize, T)>)>;

/// The groups of all phases.
pub(crate) fn groups(
    problem: &Problem,
    schedule: &Schedule,
    layout: &Layout,
    lanes: usize,
) -> Vec<PhaseGroup> {
    let [z, y, x] = &problem.axes;
    let pairs = (0..z.phases.len()).flat_map(|z| (0..y.phases.len()).map(move |y| (z, y)));
    let row_groups: Vec<Vec<(usize, usize)>> = match schedule.dataflow {
        Dataflow::Joint => vec![pairs.collect()],
        _ => pairs.map(|pair| vec![pair]).collect(),
    };
    let x_groups: Vec<Vec<usize>> = match schedule.dataflow {
        Dataflow::Interleaved | Dataflow::Joint | Dataflow::Transposed => vec![(0..x.phases.len()).collect()],
        Dataflow::Strided | Dataflow::Channels => (0..x.phases.len()).map(|phase| vec![phase]).collect(),
        Dataflow::Phases => schedule.phase_groups(x, lanes).into_iter().map(Iterator::collect).collect(),
    };
    // Lanes along phases have weights for whole vectors.
    let run = if schedule.dataflow == Dataflow::Phases { lanes } else { 1 };
    let group = |(rows, columns): (&Vec<_>, &Vec<_>)| group(problem, layout, rows, columns, run);
    row_groups
        .iter()
        .flat_map(|rows| x_groups.iter().map(move |columns| (rows, columns)))
        .map(group)
        .collect()
}

fn group(
    problem: &Problem,
    layout: &Layout,
    row_phases: &[(usize, usize)],
    x_phases: &[usize],
    run: usize,
) -> PhaseGroup {
    let [z, y, x] = &problem.axes;
    let [first_z, first_y, first_x] = layout.first.unwrap_or_default();
    // The distinct rows and positions, each with the phases and the taps that read it.
    let mut by_row: Fed<i64, [usize; 2]> = vec![];
    for (index, &(z_phase, y_phase)) in row_phases.iter().enumerate() {
        for tz in &z.phases[z_phase].taps {
            for ty in &y.phases[y_phase].taps {
                let row = (tz.shift - first_z) * layout.plane_bytes
                    + (ty.shift - first_y) * i64::from(layout.input_tile.row_bytes);
                feed(&mut by_row, row, (index, [tz.kernel, ty.kernel]));
            }
        }
    }
    let mut by_position: Fed<i32, usize> = vec![];
    for (index, &phase) in x_phases.iter().enumerate() {
        for tap in &x.phases[phase].taps {
            let shift = tap.shift - first_x;
            let position = match layout.first {
                Some(_) => layout.input_tile.position(shift as usize),
                None => 4 * shift as i32,
            };
            feed(&mut by_position, position, (index, tap.kernel));
        }
    }
    by_position.sort_by_key(|(position, _)| *position);
    let first_row = by_row.iter().map(|(row, _)| *row).min().unwrap_or(0);
    let first_position = by_position.first().map_or(0, |(position, _)| *position);
    let mut taps = vec![];
    for (_, rows) in &by_row {
        for (_, columns) in &by_position {
            for &(_, [kz, ky]) in rows {
                taps.extend(columns.iter().map(|&(_, kx)| Some([kz, ky, kx])));
            }
            taps.resize(taps.len().next_multiple_of(run), None);
        }
    }
    let row = |(row, feeds): (i64, Vec<(usize, [usize; 2])>)| Row {
        offset: (row - first_row) as i32,
        phases: feeds.into_iter().map(|(phase, _)| phase).collect(),
    };
    let position = |(position, feeds): (i32, Vec<(usize, usize)>)| Position {
        offset: position - first_position,
        phases: feeds.into_iter().map(|(phase, _)| phase).collect(),
    };
    PhaseGroup {
        row_phases: row_phases.to_vec(),
        x_phases: x_phases.to_vec(),
        rows: by_row.into_iter().map(row).collect(),
        positions: by_position.into_iter().map(position).collect(),
        base: first_row + i64::from(first_position),
        taps,
    }
}

/// Adds what reads a place, which may be known already.
fn feed<K: PartialEq, T>(places: &mut Fed<K, T>, place: K, reader: (usize, T)) {
    match places.iter_mut().find(|(known, _)| *known == place) {
        Some((_, readers)) => readers.push(reader),
        None => places.push((place, vec![reader])),
    }
}
