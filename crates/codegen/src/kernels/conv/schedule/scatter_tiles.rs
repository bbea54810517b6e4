//! How a transposed convolution in scatter form is cut up: tiles are chosen where their time is estimated.

use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};
use tconvc_machine::{Rates, Target, VectorIsa};

/// A block of output channels, and the tiles of pixels and columns (output channel and tap) that its patches are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScatterTiling {
    /// Output channels whose full output lies in scratch memory at once.
    pub block: usize,
    /// Pixels of a tile, of several rows only where these are whole.
    pub pixels: Pixels,
    /// Vectors of columns of a tile.
    pub vectors: usize,
}

/// Neighbouring pixels of the input, as rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pixels {
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

/// How many times as fast blocks of more channels must be to be taken: fewer leave more work items for threads.
const WORTH_MORE: f64 = 1.08;

/// Bytes of scratch memory that the channels of a block should not exceed by choice.
const SCRATCH: usize = 256 << 10;

/// The most pixels of a tile.
const MOST_PIXELS: usize = 8;

/// The most vectors of a lone pixel.
const MOST_ALONE: usize = 16;

impl ScatterTiling {
    /// The tiling for a target, and the cycles that it is estimated to take on one core, as fitted to 345 layers: half are
    /// estimated at 0.91 to 1.12 of the time they take, depthwise ones at less than half. It does not depend on the number of
    /// threads: patches are added up in another order when tiles have other columns.
    pub fn choose(geometry: &DeconvGeometry, target: &Target) -> (Self, f64) {
        let (layer, lanes) = (Layer::new(geometry, target), target.lanes());
        let full: usize = geometry.axes().iter().map(DeconvAxis::full_output).product();
        // Enough columns for a tile of several vectors, and blocks for a few threads.
        let wanted = (8 * lanes).div_ceil(layer.taps.max(1)).max(1);
        let fits = (SCRATCH / (4 * full).max(1)).max(1);
        let most = wanted.min(fits).min(layer.cout).max(1);
        let least = layer.cout.div_ceil(4).clamp(1, most);
        let mut best = layer.best_tiling(least);
        for next in (least + 1..=most).map(|block| layer.best_tiling(block)) {
            if WORTH_MORE * next.1 < best.1 {
                best = next;
            }
        }
        best
    }
}

/// The sizes that the time of a layer depends on.
struct Layer {
    isa: &'static VectorIsa,
    rates: Rates,
    /// Lines of the first-level cache that share a set, and bytes after which addresses do.
    ways: usize,
    period_bytes: usize,
    lanes: usize,
    /// Images times groups, and channels of a group.
    images: usize,
    cin: usize,
    cout: usize,
    /// Inputs along z, y and x.
    extents: [usize; 3],
    taps: usize,
    /// Neighbouring taps along x.
    in_run: usize,
}

impl Layer {
    fn new(geometry: &DeconvGeometry, target: &Target) -> Self {
        let l1d = target.caches().l1d;
        let channels = geometry.channels();
        let mut extents = [1; 3];
        for (extent, axis) in extents.iter_mut().rev().zip(geometry.axes().iter().rev()) {
            *extent = axis.input();
        }
        let in_run = geometry.axes().last().filter(|x| x.dilation() == 1).map_or(1, taps_of);
        Self {
            isa: target.vectors(),
            rates: target.rates(),
            ways: l1d.ways,
            period_bytes: l1d.period_bytes(),
            lanes: target.lanes(),
            images: channels.batch() * channels.groups(),
            cin: channels.input_per_group(),
            cout: channels.output_per_group(),
            extents,
            taps: all_taps(geometry),
            in_run: in_run.max(1),
        }
    }

    /// The tiling with such blocks that takes the fewest cycles, and these.
    fn best_tiling(&self, block: usize) -> (ScatterTiling, f64) {
        let [_, rows, columns] = self.extents;
        let vectors = (block * self.taps).div_ceil(self.lanes).max(1);
        let of_row = (1..=columns).map(|columns| Pixels { rows: 1, columns });
        let whole_rows = (2..=rows).map(|rows| Pixels { rows, columns });
        let few = of_row.chain(whole_rows).filter(|pixels| pixels.count() <= MOST_PIXELS);
        let with = |pixels: Pixels| {
            let vectors = most_vectors(pixels.count(), self.isa).min(vectors);
            let tiling = ScatterTiling { block, pixels, vectors };
            (tiling, self.cycles(&tiling))
        };
        let best = few.map(with).min_by(|a, b| a.1.total_cmp(&b.1));
        best.unwrap_or_else(|| with(Pixels { rows: 1, columns: 1 }))
    }

    /// Estimated cycles of one core.
    fn cycles(&self, tiling: &ScatterTiling) -> f64 {
        let [planes, rows, columns] = self.extents;
        let (calls, moves) = (self.rates.calls, self.rates.moves);
        // Channels that lie whole periods apart fall on each other, where there are more than ways.
        let collide = self.cin > self.ways && (4 * planes * rows * columns).is_multiple_of(self.period_bytes);
        let collisions = if collide { moves.colliding_channel * self.cin as f64 } else { 0.0 };
        let tiles = tiling.pixels.of_tiles([rows, columns]);
        let of_block = |block: usize| {
            let vectors = (block * self.taps).div_ceil(self.lanes);
            let runs = (block * self.taps).div_ceil(self.in_run) + vectors;
            let in_block = vectors.div_ceil(tiling.vectors) as f64;
            let of_tile = |pixels: usize| {
                let inner = (self.cin * self.inner_loops(pixels, vectors, tiling.vectors)) as f64 / 2.0;
                calls.patch_loop * inner
                    + (calls.patch + collisions) * in_block
                    + calls.patch_run * (pixels * runs) as f64
            };
            tiles.iter().map(|(pixels, count)| *count as f64 * of_tile(pixels.count())).sum::<f64>()
        };
        let blocks = [(tiling.block, self.cout / tiling.block), (self.cout % tiling.block, 1)];
        let patches: f64 = blocks.into_iter().map(|(block, count)| count as f64 * of_block(block)).sum();
        (self.images * planes) as f64 * patches
    }

    /// Half cycles of the inner loops of the tiles that so many pixels and vectors of columns need, for an input channel; a
    /// tile has `n` vectors.
    fn inner_loops(&self, pixels: usize, vectors: usize, n: usize) -> usize {
        // Weights come from the second-level cache.
        let near = (2.0 * self.isa.vector_bytes as f64 / self.rates.memory.l2_ahead) as usize;
        let latency = (2.0 * self.rates.latency) as usize;
        let of_tile = |n: usize| {
            if n == 0 { 0 } else { (pixels * n).max(pixels + n).max(latency).max(near * n) }
        };
        vectors / n * of_tile(n) + of_tile(vectors % n)
    }
}

/// Vectors of columns that fit the registers beside so many pixels. Sums need one each, and beside them each weight vector and
/// the pixel; a lone pixel reads weights from memory. Cranelift spills long before that.
fn most_vectors(pixels: usize, isa: &VectorIsa) -> usize {
    let vectors = match (isa.most_sums, pixels) {
        (Some(most), _) => most / pixels,
        (None, 1) => isa.accumulators(1).min(MOST_ALONE),
        (None, _) => isa.accumulators(0) / (pixels + 1),
    };
    vectors.max(1)
}

/// Taps that are not cropped for every input: others are not computed.
fn taps_of(axis: &DeconvAxis) -> usize {
    (0..axis.kernel()).filter(|&k| !axis.inputs_under(k).is_empty()).count()
}

fn all_taps(geometry: &DeconvGeometry) -> usize {
    geometry.axes().iter().map(taps_of).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::Channels;
    use tconvc_machine::Caches;

    fn target(name: &str) -> Target {
        Target::parse(name).unwrap().with_caches(Caches::ZEN5)
    }

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

    /// The tiling of a square kernel with stride 2 over `[rows, columns]` pixels, and its cycles.
    fn tiling(
        pixels: [usize; 2],
        channels: [usize; 2],
        kernel: usize,
        target: &Target,
    ) -> (ScatterTiling, f64) {
        let axes = pixels.map(|input| DeconvAxis::new(input, kernel, 2, 1, [0, 0]).unwrap());
        let channels = Channels::new(1, channels[0], channels[1], 1).unwrap();
        ScatterTiling::choose(&DeconvGeometry::new(channels, axes.to_vec()).unwrap(), target)
    }

    #[test]
    fn tiles_fit_the_registers_and_narrow_ones_take_several_rows() {
        for target in ["x86_64-unknown-linux-gnu", "aarch64", "x86-64-v3", "x86-64-v4"].map(target) {
            let registers = target.vector_registers();
            for columns in 1..=20 {
                for (cout, kernel) in [(1, 2), (3, 4), (80, 3), (16, 9)] {
                    let (ScatterTiling { block, pixels, vectors }, _) =
                        tiling([20, columns], [64, cout], kernel, &target);
                    assert!((1..=cout).contains(&block));
                    assert!(pixels.rows == 1 || pixels.columns == columns, "{pixels:?}");
                    let beside = if pixels.count() == 1 { 2 } else { vectors + 1 };
                    assert!(pixels.count() * vectors + beside <= registers, "{pixels:?} {vectors}");
                }
                let (ScatterTiling { pixels, .. }, _) = tiling([20, columns], [64, 80], 3, &target);
                assert!(pixels.count() > 1, "{pixels:?}");
            }
        }
    }

    #[cfg(not(windows))]
    #[test]
    fn estimates_are_near_what_was_measured() {
        // Microseconds that a Zen 5 of about 4 GHz took, with sixteen lanes.
        for (pixels, channels, kernel, measured) in [
            ([96, 1], [384, 80], 3, 232.0),
            ([14, 14], [512, 512], 2, 1825.0),
            ([20, 20], [100, 40], 5, 384.0),
            ([16, 16], [64, 3], 4, 8.4),
            ([4, 4], [256, 128], 4, 72.0),
            ([32, 32], [64, 6], 3, 49.5),
        ] {
            let (tiling, cycles) = tiling(pixels, channels, kernel, &target("x86-64-v4"));
            let estimated = cycles / 4000.0;
            let ratio = estimated / measured;
            assert!((0.9..1.25).contains(&ratio), "{channels:?} {pixels:?} {tiling:?}: {estimated} us");
        }
    }
}
