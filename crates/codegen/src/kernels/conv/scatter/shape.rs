//! The sizes of a convolution in scatter form: blocks of output channels, bands, tiles. Plain values; no code is made here.

use crate::target::{Isa, Target};
use std::ops::Range;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};
use tconvc_passes::cost::WORTH_A_BAND;

/// Extents and strides of one axis; those that the network does not have are of extent 1.
#[derive(Clone)]
pub(super) struct Axis {
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
pub(super) struct Column {
    pub tap: [usize; 3],
    pub place: usize,
}

/// The sizes that everything follows from.
pub(super) struct Shape {
    pub axes: [Axis; 3],
    pub batch: usize,
    pub groups: usize,
    pub cin: usize,
    pub cout: usize,
    /// Output channels of a unit.
    pub block: usize,
    /// Pixels of a tile, of several rows only where these are whole; and vectors.
    pub pixels: Pixels,
    pub n: usize,
    /// The axis that is cut into bands, the bands, and extents of the full output of one.
    pub along: usize,
    pub bands: Vec<Band>,
    pub room: [usize; 3],
}

/// Neighbouring pixels of the input, as rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub rows: usize,
    pub columns: usize,
}

/// A part of the output along an axis.
#[derive(Debug, PartialEq)]
pub(super) struct Band {
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

impl Pixels {
    pub fn count(self) -> usize {
        self.rows * self.columns
    }

    /// Those of the tiles that cover all rows, the full ones first.
    pub fn of_tiles(self, [_, y, x]: &[Axis; 3]) -> Vec<Self> {
        let Self { rows, columns } = self;
        let rest = if rows > 1 {
            Self { rows: y.input % rows, columns }
        } else {
            Self { rows, columns: x.input % columns }
        };
        [self, rest].into_iter().filter(|pixels| pixels.count() > 0).collect()
    }

    /// As many as take the least time under so many vectors of columns.
    fn choose([_, y, x]: &[Axis; 3], vectors: usize, target: &Target) -> Self {
        let of_row = (1..=x.input).map(|columns| Self { rows: 1, columns });
        let whole_rows = (2..=y.input).map(|rows| Self { rows, columns: x.input });
        let few = of_row.chain(whole_rows).filter(|pixels| pixels.count() <= MOST_PIXELS);
        let time = |tile: Self| {
            let n = vectors_beside(tile.count(), target).min(vectors);
            let of_group = |pixels: usize, n: usize| {
                if n == 0 { 0 } else { (pixels * n).max(pixels + n).max(LATENCY).max(NEAR * n) }
            };
            let of_tile = |pixels: usize| vectors / n * of_group(pixels, n) + of_group(pixels, vectors % n);
            // Of all rows, or of one of them.
            let (extent, step) = if tile.rows > 1 { (y.input, tile.rows) } else { (x.input, tile.columns) };
            let rest = match extent % step {
                0 => 0,
                rest => of_tile(rest * tile.count() / step),
            };
            let all = extent / step * of_tile(tile.count()) + rest;
            all as f64 / (extent * tile.count() / step) as f64
        };
        few.min_by(|a, b| time(*a).total_cmp(&time(*b))).unwrap_or(Self { rows: 1, columns: 1 })
    }
}

/// The most pixels of a tile.
const MOST_PIXELS: usize = 8;

/// What a multiply-add takes until its sum can be added to, and what a vector takes that comes from the second-level cache,
/// where one multiply-add and one load take 1.
const LATENCY: usize = 8;
const NEAR: usize = 4;

/// Vectors of columns that fit the registers beside so many pixels. Sums need one each, and beside them each weight vector and
/// the pixel; a lone pixel reads weights from memory. Cranelift spills long before that.
fn vectors_beside(pixels: usize, target: &Target) -> usize {
    let registers = target.vector_registers();
    let vectors = match target.isa() {
        Isa::Portable => 8 / pixels,
        Isa::X86V3 | Isa::X86V4 if pixels == 1 => registers.min(18) - 2,
        Isa::X86V3 | Isa::X86V4 => (registers - 1) / (pixels + 1),
    };
    vectors.max(1)
}

/// How much fuller vectors must be for a unit to have more channels.
const FILL: f64 = 1.1;

/// Bytes of scratch memory that the channels of a unit should not exceed by choice.
const SCRATCH: usize = 128 << 10;

impl Shape {
    pub fn new(geometry: &DeconvGeometry, target: &Target, threads: usize) -> Self {
        let channels = geometry.channels();
        let mut axes: Vec<Axis> = geometry.axes().iter().map(Axis::new).collect();
        while axes.len() < 3 {
            axes.insert(0, Axis::none());
        }
        let axes: [Axis; 3] = axes.try_into().unwrap_or_else(|_| [Axis::none(), Axis::none(), Axis::none()]);
        let full: usize = axes.iter().map(|axis| axis.full).product();
        let taps: usize = axes.iter().map(|axis| axis.taps.len()).product();
        let cout = channels.output_per_group();
        // Enough columns for a tile of several vectors, and units for a few threads. How many there are must not matter:
        // patches are added up in another order when tiles have other columns.
        let wanted = (8 * target.lanes()).div_ceil(taps.max(1)).max(1);
        let fits = (SCRATCH / (4 * full)).max(1);
        let shared = cout.div_ceil(4).max(1);
        let most = wanted.min(fits).min(cout);
        // Few channels of many taps may leave lanes of the last vector idle: more of them if that fills it.
        let filled = |block: usize| {
            let columns = (block * taps).max(1);
            columns as f64 / columns.next_multiple_of(target.lanes()) as f64
        };
        let better =
            |block: usize, next: usize| if filled(next) > FILL * filled(block) { next } else { block };
        let block = (most.min(shared)..=most).reduce(better).unwrap_or(1);
        let vectors = (block * taps).div_ceil(target.lanes()).max(1);
        let pixels = Pixels::choose(&axes, vectors, target);
        let n = vectors_beside(pixels.count(), target).min(vectors);
        let units = channels.batch() * channels.groups() * cout.div_ceil(block);
        let along = axes.iter().position(|axis| axis.input > 1).unwrap_or(2);
        let axis = &axes[along];
        let grain = [1, pixels.rows, pixels.columns][along];
        // Bands do not change what is added to what, nor in which order.
        let wanted = if threads > 1 { (4 * threads).div_ceil(units) } else { 1 };
        let bands =
            axis.bands(wanted.min(axis.input / (WORTH_A_BAND * axis.halo(grain)).max(1)).max(1), grain);
        let mut room = [0, 1, 2].map(|i: usize| axes[i].full);
        let floats = |band: &Band| (band.inputs.len() - 1) * axis.stride + axis.reach().max(axis.stride);
        if bands.len() > 1 {
            room[along] = bands.iter().map(floats).max().unwrap_or(room[along]);
        }
        Self {
            axes,
            batch: channels.batch(),
            groups: channels.groups(),
            cin: channels.input_per_group(),
            cout,
            block,
            pixels,
            n,
            along,
            bands,
            room,
        }
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
