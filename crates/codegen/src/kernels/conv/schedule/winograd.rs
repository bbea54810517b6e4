//! Decides whether a convolution is worth Winograd's matrices, and how it is cut up. Plain values; no code is made here.

use crate::kernels::conv::problem::winograd::{Kernels, MOST, MOST_ALONE, Matrices};
use crate::kernels::conv::problem::{Axis, Pitch, Problem};
use crate::kernels::conv::schedule::tiling::{accumulators, blocks_of, cut_channels, tile_cycles};
use crate::partition;
use tconvc_ir::geometry::{Phase, PhaseTap};
use tconvc_machine::Target;

/// The decisions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// Outputs of a phase along y and x that a tile makes.
    pub m: [usize; 2],
    /// Pieces of `m` taps each that long kernels along x are cut into: a tile's result is the sum of those of the pieces, each
    /// with the input of one of the tiles that follow.
    pub pieces: usize,
    /// Outputs of a phase along z, and tiles along y and x, in a block.
    pub planes: usize,
    pub rows: usize,
    pub columns: usize,
    /// Output channels and vectors of tiles of the micro-kernel.
    pub channels: usize,
    pub vectors: usize,
    /// Parts of the output channels. A work item is a part of a block, but a thread that has several of a block transforms
    /// its inputs once.
    pub channel_parts: usize,
}

/// Direct convolution must take this many times as long as is estimated here.
pub(crate) const GAIN: f64 = 1.05;

/// Bytes up to which the transformed weights of a layer may grow, where they are more than 9/4 of the weights themselves, as
/// those of F(2x2, 2x2) are.
const MOST_WEIGHT_BYTES: usize = 12 << 20;

/// The most pieces of a kernel: their multiply-adds are written out in the tile of the product.
const MOST_PIECES: usize = 8;

/// Outputs along z that a block may have.
const PLANES: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Output channels of a product tile; a block of a lone vector has twice as many.
const MOST_CHANNELS: usize = 12;

/// Taps of the phase that has the most.
fn most_taps(axis: &Axis) -> usize {
    axis.phases.iter().map(|phase| phase.taps.len()).max().unwrap_or(0)
}

/// True when the taps of every phase, if it has any, read neighbouring positions one after the other.
fn is_dense(axis: &Axis) -> bool {
    axis.in_stride == 1
        && axis.input_dilation == 1
        && axis.phases.len() == axis.out_stride
        && axis.phases.iter().all(|phase| {
            let shifts = sorted(phase);
            shifts.windows(2).all(|pair| pair[1].shift == pair[0].shift + 1)
        })
}

/// The taps in the order of the inputs they read.
pub(crate) fn sorted(phase: &Phase) -> Vec<PhaseTap> {
    let mut taps = phase.taps.clone();
    taps.sort_by_key(|tap| tap.shift);
    taps
}

/// The convolution as its tiles see it: a step along an axis is a tile, which reads all positions from the first to the last
/// that any phase needs. Its input tiles are those of the tiles, of a plane each.
pub(crate) fn tiles_of(problem: &Problem, m: [usize; 2], pieces: usize) -> Problem {
    let mut tiles = problem.clone();
    let z = &mut tiles.axes[0];
    let low = z.shifts().0;
    // Phases with fewer taps than others read as many planes.
    let reach = depths(z).iter().map(|(kernels, first)| (first - low) as usize + kernels.len()).max();
    let count = z.output_positions() - 1 + reach.unwrap_or(1);
    let taps = vec![PhaseTap { kernel: 0, shift: low }];
    *z = Axis {
        kernel: 1,
        out_stride: 1,
        output: count,
        phases: vec![Phase { first: 0, count, taps }],
        ..z.clone()
    };
    for ((axis, m), pieces) in tiles.axes[1..].iter_mut().zip(m).zip([1, pieces]) {
        let (low, high) = axis.shifts();
        let high = if pieces > 1 { low + (pieces * m) as i64 - 1 } else { high };
        let taps = (low..high + m as i64).map(|shift| PhaseTap { kernel: 0, shift }).collect();
        let count = axis.output_positions().div_ceil(m);
        *axis = Axis {
            input: axis.input,
            output: count,
            kernel: (high - low) as usize + m,
            in_stride: m,
            out_stride: 1,
            input_dilation: 1,
            phases: vec![Phase { first: 0, count, taps }],
        };
    }
    tiles
}

impl Schedule {
    /// The matrices_of_phases that there are, with their estimated cycles; they do not depend on the number of threads but for the
    /// split.
    pub fn candidates(problem: &Problem, target: &Target, threads: usize) -> Vec<(f64, Self)> {
        let [z, y, x] = &problem.axes;
        let (taps_z, taps_y, taps_x) = (most_taps(z), most_taps(y), most_taps(x));
        // One tap takes one product, whatever the way.
        if !is_dense(z) || taps_z == 0 || !is_dense(y) || !is_dense(x) || taps_y * taps_x < 2 {
            return vec![];
        }
        let most = |other: usize| if other == 1 { MOST_ALONE } else { MOST };
        let ms_x = outputs_of(taps_x, most(taps_y));
        let ms_y = outputs_of(taps_y, most(taps_x));
        let whole = ms_y.into_iter().flat_map(|m_y| ms_x.iter().map(move |&m_x| ([m_y, m_x], 1)));
        let long = z.output == 1 && taps_z == 1 && taps_y == 1 && x.phases.len() == 1;
        let in_pieces = [3, 4].into_iter().filter(|&m| long && taps_x > m);
        let in_pieces =
            in_pieces.map(|m| ([1, m], taps_x.div_ceil(m))).filter(|(_, pieces)| *pieces <= MOST_PIECES);
        // All results of a row are interleaved in registers.
        whole
            .chain(in_pieces)
            .filter(|([_, m_x], _)| m_x * x.phases.len() <= 8)
            .filter_map(|(m, pieces)| {
                let with = |planes| Self::with(problem, target, (m, pieces, planes), threads);
                let all =
                    (1..=z.output_positions()).filter(|planes| PLANES.contains(planes)).filter_map(with);
                all.min_by(|a, b| a.0.total_cmp(&b.0))
            })
            .collect()
    }

    /// Cycles and schedule with tiles of `m` outputs; nothing where the weights would grow too much.
    fn with(
        problem: &Problem,
        target: &Target,
        (m, pieces, planes): ([usize; 2], usize, usize),
        threads: usize,
    ) -> Option<(f64, Self)> {
        let [z, y, x] = &problem.axes;
        let (lanes, rates) = (target.lanes(), target.rates());
        let (transforms, memory) = (rates.transforms, rates.memory);
        let products = |axis: &Axis, m: usize| -> usize {
            axis.phases.iter().map(|phase| Matrices::products(m, phase.taps.len())).sum()
        };
        let products_x = if pieces > 1 { Matrices::products(m[1], m[1]) } else { products(x, m[1]) };
        let products_y = products(y, m[0]);
        let terms = products_y * products_x;
        let pairs = problem.groups * problem.cin * problem.cout;
        // Taps along z are summed up: their products are those of pieces, each with the input of another plane.
        let (taps_z, phases_z) = (most_taps(z), z.phases.len());
        let (bytes, plain_bytes) =
            (4 * terms * pieces * taps_z * phases_z * pairs, 4 * z.kernel * y.kernel * x.kernel * pairs);
        if bytes > MOST_WEIGHT_BYTES.max(9 * plain_bytes / 4) {
            return None;
        }
        let (tiles_y, tiles_x) = (y.output_positions().div_ceil(m[0]), x.output_positions().div_ceil(m[1]));
        // As many tiles as keep the factors of a block in the second-level cache, but two vectors at least.
        let terms_of_phase = products_y.div_ceil(y.phases.len()) * products_x;
        let of_tile = 4 * terms_of_phase * problem.cin;
        let in_planes = planes + taps_z - 1;
        let room = target.caches().l2.bytes / 2 / of_tile / in_planes;
        let least = if in_planes > 1 { lanes } else { 2 * lanes };
        let most = (room / lanes * lanes).clamp(least, 8 * lanes);
        let columns = if tiles_x > most {
            // Even blocks, of whole vectors.
            tiles_x.div_ceil(tiles_x.div_ceil(most)).next_multiple_of(lanes)
        } else {
            tiles_x
        };
        let rows = (most / columns).clamp(1, tiles_y);
        let rows = tiles_y.div_ceil(tiles_y.div_ceil(rows));
        if planes > 1 && rows * columns * in_planes * of_tile > target.caches().l2.bytes / 4 * 3 {
            return None;
        }
        let (cin, cout) = (problem.cin as f64, problem.cout as f64);
        let in_rows: usize = (0..tiles_x)
            .step_by(columns)
            .map(|first| columns.min(tiles_x - first).div_ceil(lanes))
            .sum::<usize>()
            * tiles_y;
        let both = m[0] > 1 && m[1] > 1;
        let [transform_in, transform_out] =
            if both { transforms.both } else { transforms.one }.map(|of_term| of_term * terms as f64);
        // Elements that are no neighbours come and go one by one, and the further they are apart the fewer are in a line.
        let each = |pitch: Pitch, neighbours: f64| match pitch.column {
            1 => neighbours,
            apart => (rates.moves.far_lane + apart.min(16) as f64 / 8.0) * lanes as f64,
        };
        let input_tile = each(problem.input, transforms.gathered) * (products_y * m[1]) as f64;
        let output_bytes = 4 * problem.batch * problem.groups * problem.cout * problem.output.plane;
        let is_far = output_bytes > target.caches().l3.bytes / 2;
        let dataflow = if is_far { transforms.stored + transforms.stored_far } else { transforms.stored };
        let stores = each(problem.output, dataflow) * (m[0] * y.phases.len() * m[1] * x.phases.len()) as f64;
        let blocks_z = z.output_positions().div_ceil(planes);
        let of_planes = |planes: usize| (planes * phases_z) as f64;
        let inputs = in_rows as f64
            * cin
            * (transform_in + input_tile)
            * of_planes(z.output_positions() + blocks_z * (taps_z - 1));
        let outputs = in_rows as f64 * cout * (transform_out + stores) * of_planes(z.output_positions());
        // Cycles of the products of an image, and the tile that they take, with blocks of so many rows.
        let products = |rows: usize, most: usize| {
            let (product, channels, vectors) = micro_kernel(
                problem,
                target,
                (planes * rows * columns).div_ceil(lanes),
                (most, pieces * taps_z),
            );
            let schedule = Self { m, pieces, planes, rows, columns, channels, vectors, channel_parts: 1 };
            let in_all: u64 = schedule.of_image(problem, lanes).iter().sum();
            ((in_all as usize * phases_z * terms) as f64 * cin * product, channels, vectors)
        };
        let (in_products, channels, vectors) = products(rows, MOST_CHANNELS);
        // The weights pass by once for each block.
        let passes = blocks_z * tiles_y.div_ceil(rows) * tiles_x.div_ceil(columns);
        let group_bytes = (bytes / problem.groups) as f64;
        let stream = if bytes > target.caches().l3.bytes / 2 {
            memory.shown_far * group_bytes / memory.far
        } else if bytes > target.caches().l2.bytes / 2 {
            memory.shown_l3 * group_bytes / memory.l3
        } else {
            0.0
        };
        let images = problem.batch * problem.groups;
        // Threads do not change the choice of a matrices.
        let cycles = images as f64 * (in_products + inputs + outputs + stream * passes as f64);
        let tiles = problem.cout.div_ceil(channels);
        let mut schedule = Self { m, pieces, planes, rows, columns, channels, vectors, channel_parts: 1 };
        if threads == 1 || partition::is_even(&schedule.block_vectors(problem, lanes), threads) {
            return Some((cycles, schedule));
        }
        schedule.channel_parts = tiles;
        let share = tiles_y.div_ceil(threads);
        if z.output_positions() == 1 && images * passes < threads && share * columns >= lanes {
            // Parts of the channels read a part of the weights, blocks of rows transform a part of the inputs.
            let (in_blocks, channels, vectors) = products(share, 2 * MOST_CHANNELS);
            let parts = tiles.div_ceil(threads) as f64 / tiles as f64;
            let of_channels = inputs + (in_products + outputs) * parts + memory.shared * stream * parts;
            let of_rows = (inputs + in_blocks + outputs) / threads as f64 + memory.shared * stream;
            if of_rows < of_channels {
                schedule = Self { rows: share, channels, vectors, channel_parts: 1, ..schedule };
            }
        }
        Some((cycles, schedule))
    }
}

impl Schedule {
    /// Bytes of all transformed inputs and of all products.
    pub fn moved_bytes(&self, problem: &Problem) -> u64 {
        let [z, y, x] = &problem.axes;
        let terms = |axis: &Axis, m: usize, pieces: usize| -> usize {
            if pieces > 1 {
                return Matrices::products(m, m);
            }
            axis.phases.iter().map(|phase| Matrices::products(m, phase.taps.len())).sum()
        };
        let tiles = z.output_positions()
            * y.output_positions().div_ceil(self.m[0])
            * x.output_positions().div_ceil(self.m[1]);
        let terms = z.phases.len() * terms(y, self.m[0], 1) * terms(x, self.m[1], self.pieces);
        let planes = problem.batch * problem.groups * (problem.cin + problem.cout);
        (4 * planes as u64).saturating_mul((tiles * terms) as u64)
    }

    /// Vectors of product tiles in each block of all images.
    pub fn block_vectors(&self, problem: &Problem, lanes: usize) -> Vec<u64> {
        self.of_image(problem, lanes).repeat(problem.batch * problem.groups)
    }

    /// The same of one image.
    fn of_image(&self, problem: &Problem, lanes: usize) -> Vec<u64> {
        let [z, y, x] = &problem.axes;
        let (tiles_y, tiles_x) =
            (y.output_positions().div_ceil(self.m[0]), x.output_positions().div_ceil(self.m[1]));
        let (run, of_plane) = (self.vectors * lanes, self.rows * self.columns);
        let planes = blocks_of(z.output_positions(), self.planes);
        let rows = planes.flat_map(|planes| blocks_of(tiles_y, self.rows).map(move |rows| (planes, rows)));
        let blocks = rows.flat_map(|(planes, rows)| {
            blocks_of(tiles_x, self.columns).map(move |columns| (planes - 1) * of_plane + rows * columns)
        });
        blocks.map(|tiles| (tiles.div_ceil(run) * self.vectors) as u64).collect()
    }
}

/// Outputs that tiles may make under so many taps at most, with so many products.
fn outputs_of(taps: usize, most: usize) -> Vec<usize> {
    if taps == 1 { vec![1] } else { (2..=4).filter(|m| m + taps - 1 <= most).collect() }
}

/// The product tile that needs the fewest cycles for all channels and so many vectors: cycles of a vector for each input
/// channel, channels (up to so many) and vectors; for so many pieces.
fn micro_kernel(
    problem: &Problem,
    target: &Target,
    vectors: usize,
    (most, pieces): (usize, usize),
) -> (f64, usize, usize) {
    // All pieces but the first read vectors that lie in two cache lines.
    let (loads, rates) = (2 * pieces - 1, target.rates());
    let mut best = (f64::INFINITY, 1, 1);
    for n in 1..=vectors.clamp(1, 4) {
        for m in 1..=problem.cout.clamp(1, most) {
            if m * n > accumulators(target, n) {
                continue;
            }
            // A call and the stores, shared by all input channels.
            let call = rates.calls.product / problem.cin.max(1) as f64;
            let tiles = cut_channels(problem.cout, m).into_iter();
            let cycles: f64 = tiles
                .map(|(m, count)| count as f64 * (tile_cycles(&rates, 1, pieces, loads, [m, n]) + call))
                .sum();
            let cycles = cycles * vectors.div_ceil(n) as f64 / vectors as f64;
            if cycles < best.0 * 0.999 {
                best = (cycles, m, n);
            }
        }
    }
    best
}

/// `winograd 2x2 4x8 6x2 1`: outputs, block, tile of the product, parts. With kernels in three pieces it is `2x2/3`; a block of
/// three planes is `3x4x8`.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { m: [y, x], pieces, planes, rows, columns, channels, vectors, channel_parts } = self;
        let pieces = if *pieces > 1 { format!("/{pieces}") } else { String::new() };
        let planes = if *planes > 1 { format!("{planes}x") } else { String::new() };
        write!(f, "winograd {y}x{x}{pieces} {planes}{rows}x{columns} {channels}x{vectors} {channel_parts}")
    }
}

/// Matrices of the phases of an axis whose kernels are in so many pieces.
pub(crate) fn matrices_of_phases(axis: &Axis, m: usize, pieces: usize) -> Vec<(Matrices, Kernels, i64)> {
    axis.phases
        .iter()
        .map(|phase| {
            let taps = sorted(phase);
            let first = taps.first().map_or(0, |tap| tap.shift);
            let each = if pieces > 1 { m } else { taps.len() };
            let mut kernels: Kernels = taps.iter().map(|tap| Some(tap.kernel)).collect();
            kernels.resize(pieces * each, None);
            (Matrices::new(m, each), kernels, first)
        })
        .collect()
}

/// Kernel indices of the taps of each phase along z, in the order of the inputs they read, as many for each; and the first input.
pub(crate) fn depths(axis: &Axis) -> Vec<(Kernels, i64)> {
    let of_phase = |phase: &Phase| {
        let taps = sorted(phase);
        let mut kernels: Kernels = taps.iter().map(|tap| Some(tap.kernel)).collect();
        kernels.resize(most_taps(axis), None);
        (kernels, taps.first().map_or(axis.shifts().0, |tap| tap.shift))
    };
    axis.phases.iter().map(of_phase).collect()
}
