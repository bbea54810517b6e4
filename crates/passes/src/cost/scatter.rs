//! How a transposed convolution in scatter form is cut up: tiles are chosen where their time is estimated.

use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};

/// A block of output channels, and the tiles of pixels and columns (output channel and tap) that its patches are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScatterTiling {
    /// Output channels whose full output lies in scratch memory at once.
    pub block: usize,
    /// Pixels of a tile, of several rows only where these are whole.
    pub pixels: Pixels,
    /// Vectors of columns of a tile.
    pub vectors: usize,
}

/// Neighbouring pixels of the input, as rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels {
    /// How many rows.
    pub rows: usize,
    /// How many of each row.
    pub columns: usize,
}

impl Pixels {
    /// How many there are.
    pub fn count(self) -> usize {
        self.rows * self.columns
    }

    /// The tiles that cover a plane of rows, and how many there are of each: full ones, and those that are left.
    pub fn of_tiles(self, [rows, columns]: [usize; 2]) -> Vec<(Self, usize)> {
        let in_rows = self.rows > 1;
        let (extent, step) = if in_rows { (rows, self.rows) } else { (columns, self.columns) };
        let times = if in_rows { 1 } else { rows };
        let of =
            |inputs| if in_rows { Self { rows: inputs, ..self } } else { Self { columns: inputs, ..self } };
        let all = [(of(step), extent / step * times), (of(extent % step), times)];
        all.into_iter().filter(|(pixels, count)| pixels.count() * count > 0).collect()
    }
}

/// How many times as fast blocks of more channels must be to be taken.
const WORTH_MORE: f64 = 1.08;

/// Bytes of scratch memory that the channels of a block should not exceed by choice.
const SCRATCH: usize = 256 << 10;

/// The most pixels of a tile.
const MOST_PIXELS: usize = 8;

/// In what a multiply-add or a load takes: until a sum can be added to again.
const LATENCY: usize = 8;

/// Cycles of the inner loop for each that its instructions need, of a call of a tile, of a run of neighbouring columns that is added
/// to the output, and of an input channel in a tile where channels collide. Fitted to 345 layers; but for depthwise ones, half
/// take 0.9 to 1.1 of the estimate.
const LOOP: f64 = 1.11;
const CALL: f64 = 31.0;
const RUN: f64 = 1.5;
const COLLISION: f64 = 3.0;

/// Channels that lie whole pages apart fall on each other in the first-level cache, where there are more than its ways.
const PAGE_BYTES: usize = 4096;
const WAYS: usize = 12;

impl ScatterTiling {
    /// The tiling for vectors of so many f32 lanes. It does not depend on the number of threads: patches are added up in another
    /// order when tiles have other columns.
    pub fn choose(geometry: &DeconvGeometry, lanes: usize) -> Self {
        let (taps, cout) = (all_taps(geometry), geometry.channels().output_per_group());
        let full: usize = geometry.axes().iter().map(DeconvAxis::full_output).product();
        // Enough columns for a tile of several vectors, and blocks for a few threads.
        let wanted = (8 * lanes).div_ceil(taps.max(1)).max(1);
        let fits = (SCRATCH / (4 * full).max(1)).max(1);
        let shared = cout.div_ceil(4).max(1);
        let most = wanted.min(fits).min(cout).max(1);
        let of_blocks = (most.min(shared)..=most).map(|block| Self::with_block(geometry, lanes, block));
        // Fewer channels leave more units for threads.
        let better =
            |best: (f64, Self), next: (f64, Self)| if WORTH_MORE * next.0 < best.0 { next } else { best };
        let (_, tiling) = of_blocks.reduce(better).unwrap_or_else(|| Self::with_block(geometry, lanes, 1));
        tiling
    }

    /// The tiling with such blocks that takes the fewest cycles, and these.
    fn with_block(geometry: &DeconvGeometry, lanes: usize, block: usize) -> (f64, Self) {
        let [_, rows, columns] = extents(geometry);
        let vectors = (block * all_taps(geometry)).div_ceil(lanes).max(1);
        let of_row = (1..=columns).map(|columns| Pixels { rows: 1, columns });
        let whole_rows = (2..=rows).map(|rows| Pixels { rows, columns });
        let few = of_row.chain(whole_rows).filter(|pixels| pixels.count() <= MOST_PIXELS);
        let with = |pixels: Pixels| {
            let tiling = Self { block, pixels, vectors: most_vectors(pixels.count(), lanes).min(vectors) };
            (tiling.cycles(geometry, lanes), tiling)
        };
        let best = few.map(with).min_by(|a, b| a.0.total_cmp(&b.0));
        best.unwrap_or_else(|| with(Pixels { rows: 1, columns: 1 }))
    }

    /// The inner loop of all tiles over so many pixels and vectors of columns, for an input channel, in half cycles.
    fn inner_loop(&self, pixels: usize, vectors: usize, lanes: usize) -> usize {
        // Weights come from the second-level cache, 32 bytes a cycle.
        let near = lanes / 4;
        let of_tile = |n: usize| {
            if n == 0 { 0 } else { (pixels * n).max(pixels + n).max(LATENCY).max(near * n) }
        };
        vectors / self.vectors * of_tile(self.vectors) + of_tile(vectors % self.vectors)
    }

    /// Estimated cycles of one core.
    pub fn cycles(&self, geometry: &DeconvGeometry, lanes: usize) -> f64 {
        let channels = geometry.channels();
        let (cin, cout) = (channels.input_per_group(), channels.output_per_group());
        let [planes, rows, columns] = extents(geometry);
        let taps = all_taps(geometry);
        let in_run = geometry.axes().last().map_or(1, |x| if x.dilation() == 1 { taps_of(x) } else { 1 });
        let blocks = [(self.block, cout / self.block), (cout % self.block, 1)];
        let collide = cin > WAYS && (4 * planes * rows * columns).is_multiple_of(PAGE_BYTES);
        let collisions = if collide { COLLISION * cin as f64 } else { 0.0 };
        let of_block = |block: usize| {
            let vectors = (block * taps).div_ceil(lanes);
            let runs = (block * taps).div_ceil(in_run.max(1)) + vectors;
            let of_tile = |pixels: Pixels| {
                let loops = (cin * self.inner_loop(pixels.count(), vectors, lanes)) as f64 / 2.0;
                let calls = vectors.div_ceil(self.vectors) as f64;
                LOOP * loops + (CALL + collisions) * calls + RUN * (pixels.count() * runs) as f64
            };
            let tiles = self.pixels.of_tiles([rows, columns]).into_iter();
            tiles.map(|(pixels, count)| count as f64 * of_tile(pixels)).sum::<f64>()
        };
        let patches: f64 = blocks.into_iter().map(|(block, count)| count as f64 * of_block(block)).sum();
        (channels.batch() * channels.groups() * planes) as f64 * patches
    }
}

/// Vectors of columns that fit the registers beside so many pixels. Sums need one each, and beside them each weight vector and
/// the pixel; a lone pixel reads weights from memory. Cranelift, which makes code of four lanes, spills long before that.
fn most_vectors(pixels: usize, lanes: usize) -> usize {
    let registers = 2 * lanes;
    let vectors = match (lanes, pixels) {
        (..8, _) => 8 / pixels,
        (_, 1) => registers.min(18) - 2,
        _ => (registers - 1) / (pixels + 1),
    };
    vectors.max(1)
}

/// Inputs along z, y and x.
fn extents(geometry: &DeconvGeometry) -> [usize; 3] {
    let mut extents = [1; 3];
    for (extent, axis) in extents.iter_mut().rev().zip(geometry.axes().iter().rev()) {
        *extent = axis.input();
    }
    extents
}

/// Taps that are not cropped for every input: others are not computed.
fn taps_of(axis: &DeconvAxis) -> usize {
    (0..axis.kernel()).filter(|&k| !axis.inputs_under(k).is_empty()).count()
}

pub(super) fn all_taps(geometry: &DeconvGeometry) -> usize {
    geometry.axes().iter().map(taps_of).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::Channels;

    #[test]
    fn tiles_cover_every_pixel_once() {
        for rows in 1..=9 {
            for columns in 1..=9 {
                let of_row = (1..=columns).map(|columns| Pixels { rows: 1, columns });
                let whole_rows = (2..=rows).map(|rows| Pixels { rows, columns });
                for pixels in of_row.chain(whole_rows) {
                    let tiles = pixels.of_tiles([rows, columns]);
                    let all: usize = tiles.iter().map(|(pixels, count)| pixels.count() * count).sum();
                    assert_eq!(all, rows * columns, "{pixels:?} of {rows}x{columns}");
                    assert_eq!(tiles[0].0, pixels);
                }
            }
        }
    }

    /// Tiles of square kernels with stride 2, `[rows, columns]` pixels of 64 channels each.
    fn tiling(pixels: [usize; 2], cout: usize, kernel: usize, lanes: usize) -> ScatterTiling {
        let axes = pixels.map(|input| DeconvAxis::new(input, kernel, 2, 1, [0, 0]).unwrap());
        let geometry = DeconvGeometry::new(Channels::new(1, 64, cout, 1).unwrap(), axes.to_vec()).unwrap();
        let tiling = ScatterTiling::choose(&geometry, lanes);
        assert!(tiling.cycles(&geometry, lanes) > 0.0);
        tiling
    }

    #[test]
    fn tiles_fit_the_registers_and_narrow_ones_take_several_rows() {
        for (lanes, registers) in [(4, 16), (8, 16), (16, 32)] {
            for columns in 1..=20 {
                for (cout, kernel) in [(1, 2), (3, 4), (80, 3), (16, 9)] {
                    let ScatterTiling { block, pixels, vectors } = tiling([20, columns], cout, kernel, lanes);
                    assert!((1..=cout).contains(&block));
                    assert!(pixels.rows == 1 || pixels.columns == columns, "{pixels:?}");
                    let beside = if pixels.count() == 1 { 2 } else { vectors + 1 };
                    assert!(pixels.count() * vectors + beside <= registers, "{pixels:?} {vectors}");
                }
                let pixels = tiling([20, columns], 80, 3, lanes).pixels;
                assert!(pixels.count() > 1, "{pixels:?}");
            }
        }
    }
}
