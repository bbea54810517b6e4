//! The sizes of a convolution in scatter form: blocks of output channels, bands, tiles. Plain values; no code is made here.

use crate::kernels::conv::schedule::scatter_tiles::{Pixels, ScatterTiling};
use std::fmt;
use std::ops::Range;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};
use tconvc_machine::Target;

/// Taps that patches may have: each is written out.
pub(crate) const MOST_TAPS: usize = 4096;

/// Inputs of a band for each that it shares with its neighbour.
const WORTH_A_BAND: usize = 8;

/// Extents and strides of one axis; those that the network does not have are of extent 1.
#[derive(Clone)]
pub(crate) struct Axis {
    pub input: usize,
    pub output: usize,
    pub full: usize,
    pub stride: usize,
    pub pad: i64,
    /// Taps that are not cropped for every input, as kernel index and place in the patch.
    pub taps: Vec<(usize, usize)>,
}

impl Axis {
    fn new(axis: &DeconvAxis) -> Self {
        let taps = (0..axis.kernel()).filter(|&k| (0..axis.input()).any(|i| axis.target(i, k).is_some()));
        Self {
            input: axis.input(),
            output: axis.output(),
            full: axis.full_output(),
            stride: axis.stride(),
            pad: axis.pad(),
            taps: taps.map(|k| (k, k * axis.dilation())).collect(),
        }
    }

    fn none() -> Self {
        Self { input: 1, output: 1, full: 1, stride: 1, pad: 0, taps: vec![(0, 0)] }
    }
}

/// A column, of an output channel of the block and a tap: the tap, and the float of the patch that it adds to.
pub(crate) struct Column {
    pub tap: [usize; 3],
    pub place: usize,
}

/// The sizes that everything follows from.
pub(crate) struct Shape {
    pub axes: [Axis; 3],
    pub batch: usize,
    pub groups: usize,
    pub cin: usize,
    pub cout: usize,
    /// Output channels of a work item.
    pub block: usize,
    /// Pixels and vectors of a tile.
    pub pixels: Pixels,
    pub vectors: usize,
    /// The axis that is cut into bands, the bands, and extents of the full output of one.
    pub along: usize,
    pub bands: Vec<Band>,
    pub room: [usize; 3],
}

/// A part of the output along an axis.
#[derive(Debug, PartialEq)]
pub(crate) struct Band {
    /// Inputs whose patches reach into it.
    pub inputs: Range<usize>,
    /// Its outputs, cropped.
    pub outputs: Range<usize>,
    /// Full output at which the band's scratch memory begins.
    pub origin: usize,
}

impl Axis {
    /// Outputs from the first to the last of a patch.
    fn reach(&self) -> usize {
        self.taps.iter().map(|&(_, place)| place + 1).max().unwrap_or(1)
    }

    /// Inputs before a band whose patches reach into it, in multiples of `grain`.
    fn halo(&self, grain: usize) -> usize {
        ((self.reach() - 1) / self.stride).next_multiple_of(grain)
    }

    /// About so many bands, that begin at multiples of `grain` inputs.
    fn bands(&self, count: usize, grain: usize) -> Vec<Band> {
        let share = self.input.div_ceil(count).next_multiple_of(grain);
        let count = self.input.div_ceil(share);
        let cropped = |full: usize| (full as i64 - self.pad).clamp(0, self.output as i64) as usize;
        (0..count)
            .map(|number| {
                let first = number * share;
                let begin = first.saturating_sub(self.halo(grain));
                // What the last patch does not reach belongs to the last band.
                let last = number + 1 == count;
                let end = if last { self.output } else { cropped((first + share) * self.stride) };
                let start = if number == 0 { 0 } else { cropped(first * self.stride) };
                Band {
                    inputs: begin..self.input.min(first + share),
                    outputs: start..end.max(start),
                    origin: begin * self.stride,
                }
            })
            .collect()
    }
}

impl Shape {
    pub fn new(geometry: &DeconvGeometry, target: &Target, threads: usize) -> Self {
        Self::with_cycles(geometry, target, threads).0
    }

    /// The sizes, and the cycles that it is estimated to take on one core, output included.
    pub fn with_cycles(geometry: &DeconvGeometry, target: &Target, threads: usize) -> (Self, f64) {
        let channels = geometry.channels();
        let mut axes: Vec<Axis> = geometry.axes().iter().map(Axis::new).collect();
        while axes.len() < 3 {
            axes.insert(0, Axis::none());
        }
        let axes: [Axis; 3] = axes.try_into().unwrap_or_else(|_| [Axis::none(), Axis::none(), Axis::none()]);
        let cout = channels.output_per_group();
        let (ScatterTiling { block, pixels, vectors }, cycles) = ScatterTiling::choose(geometry, target);
        let items = channels.batch() * channels.groups() * cout.div_ceil(block);
        let along = axes.iter().position(|axis| axis.input > 1).unwrap_or(2);
        let axis = &axes[along];
        let grain = [1, pixels.rows, pixels.columns][along];
        // Bands do not change what is added to what, nor in which order.
        let wanted = if threads > 1 { (4 * threads).div_ceil(items) } else { 1 };
        let most = (axis.input / (WORTH_A_BAND * axis.halo(grain)).max(1)).max(1);
        // Few bands are as many for each thread.
        let even = if most > threads { most / threads * threads } else { most };
        let bands = axis.bands(wanted.min(even), grain);
        let mut room = [0, 1, 2].map(|i: usize| axes[i].full);
        let floats = |band: &Band| (band.inputs.len() - 1) * axis.stride + axis.reach().max(axis.stride);
        if bands.len() > 1 {
            room[along] = bands.iter().map(floats).max().unwrap_or(room[along]);
        }
        let shape = Self {
            axes,
            batch: channels.batch(),
            groups: channels.groups(),
            cin: channels.input_per_group(),
            cout,
            block,
            pixels,
            vectors,
            along,
            bands,
            room,
        };
        let copied = shape.copied_cycles(target);
        (shape, cycles + copied)
    }

    /// Cycles in which scratch memory is cleared and copied to the output, whatever the tiles.
    fn copied_cycles(&self, target: &Target) -> f64 {
        let (calls, outputs) = (target.rates().calls, self.axes.each_ref().map(|axis| axis.output));
        let (rows, row) = outputs.split_at(self.row_axis());
        let rows = (self.batch * self.groups * self.cout * rows.iter().product::<usize>()) as f64;
        let vectors = row.iter().product::<usize>().div_ceil(target.lanes()) as f64;
        rows * (calls.patch_row + vectors * calls.patch_vector)
    }

    /// Work items: a block of channels of an image and group, and a band.
    pub fn work_items(&self) -> usize {
        self.batch * self.groups * self.blocks() * self.bands.len()
    }

    /// Bytes that patches read and write where they are added up; the patch of a lone pixel is the output.
    pub fn added_bytes(&self) -> u64 {
        let taps: usize = self.axes.iter().map(|axis| axis.taps.len()).product();
        let points = self.input_plane();
        let factors = [8, self.batch, points, self.groups * self.cout, taps];
        if points == 1 { 0 } else { factors.iter().fold(1, |all: u64, &n| all.saturating_mul(n as u64)) }
    }

    /// The outermost axis of what is copied out at once: whole rows, and planes, of which nothing is cropped follow each other.
    pub fn row_axis(&self) -> usize {
        let is_whole = |axis: usize| {
            let Axis { output, full, pad, .. } = self.axes[axis];
            pad == 0 && output == full && output == self.room[axis]
        };
        [2, 1].into_iter().take_while(|&axis| is_whole(axis)).last().map_or(2, |axis| axis - 1)
    }

    /// Floats of the full output of a channel of a band.
    pub fn full_plane(&self) -> usize {
        self.room.iter().product()
    }

    /// Inputs and outputs of a band along an axis, and the full output at which its scratch memory begins.
    pub fn along(&self, axis: usize, band: &Band) -> (Range<usize>, Range<usize>, usize) {
        if axis == self.along {
            return (band.inputs.clone(), band.outputs.clone(), band.origin);
        }
        (0..self.axes[axis].input, 0..self.axes[axis].output, 0)
    }

    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    pub fn blocks(&self) -> usize {
        self.cout.div_ceil(self.block)
    }

    /// The columns of a block of so many channels.
    pub fn columns(&self, channels: usize) -> Vec<Column> {
        let ([z, y, x], [room_z, room_y, room_x]) = (&self.axes, self.room);
        let mut columns = vec![];
        for channel in 0..channels {
            for &(kz, dz) in &z.taps {
                for &(ky, dy) in &y.taps {
                    for &(kx, dx) in &x.taps {
                        let place = ((channel * room_z + dz) * room_y + dy) * room_x + dx;
                        columns.push(Column { tap: [kz, ky, kx], place });
                    }
                }
            }
        }
        columns
    }
}

/// `2x4x3 8 1`: pixels by vectors of a tile, channels of a block, bands.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pixels { rows, columns } = self.pixels;
        let rows = if rows > 1 { format!("{rows}x") } else { String::new() };
        write!(f, "{rows}{columns}x{} {} {}", self.vectors, self.block, self.bands.len())
    }
}
