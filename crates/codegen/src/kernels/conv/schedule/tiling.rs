//! How a convolution is cut into tiles, and what a tile costs: what every schedule is made of.

use tconvc_machine::{Rates, Target};

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: i32 = 64;

/// Bytes between weights in use and those asked for. They are read once, in order, and the queue to memory is long.
pub(crate) const WEIGHTS_AHEAD: i32 = 12288;

/// Cuts `total` into parts of at most `most`, as even as whole `grain`s allow.
pub(crate) fn cut(total: usize, most: usize, grain: usize) -> Vec<usize> {
    let grains = total.div_ceil(grain);
    let parts = grains.div_ceil((most / grain).max(1)).max(1);
    let mut left = total;
    (0..parts)
        .map(|part| {
            let share = (grains / parts + usize::from(part < grains % parts)) * grain;
            let share = share.min(left);
            left -= share;
            share
        })
        .filter(|&share| share > 0)
        .collect()
}

/// The sizes that [`cut`] by ones gives, each with how often; sizes of 0 are left out.
pub(crate) fn cut_sizes(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = total.div_ceil(most.max(1)).max(1);
    let (share, more) = (total / parts, total % parts);
    [(share + 1, more), (share, parts - more)].into_iter().filter(|&(size, count)| size * count > 0)
}

/// Tiles of `m` channels, and the one of what remains: sizes with their counts.
pub(crate) fn cut_channels(cout: usize, m: usize) -> Vec<(usize, usize)> {
    let (full, rest) = (cout / m, cout % m);
    [(m, full), (rest, 1)].into_iter().filter(|&(size, count)| size > 0 && count > 0).collect()
}

/// Channels of each of so many parts of the tiles of `block` channels.
pub(crate) fn channels_of_parts(channels: usize, block: usize, parts: usize) -> Vec<u64> {
    let tiles = channels.div_ceil(block);
    let bound = |part: usize| (tiles * part / parts * block).min(channels) as u64;
    (0..parts).map(|part| bound(part + 1) - bound(part)).collect()
}

/// What blocks of `size` have of `total`, one after the other.
pub(crate) fn blocks_of(total: usize, size: usize) -> impl Iterator<Item = usize> + Clone {
    (0..total).step_by(size.max(1)).map(move |first| size.min(total - first))
}

/// Vector registers that accumulators may take, beside so many vectors.
pub(crate) fn accumulators(target: &Target, n: usize) -> usize {
    target.vectors().accumulators(n)
}

/// Cycles that a tile takes for one input channel and one row of taps; so many loads for each vector of `n`.
pub(crate) fn tile_cycles(
    rates: &Rates,
    phases: usize,
    taps: usize,
    loads: usize,
    [m, n]: [usize; 2],
) -> f64 {
    let (fma, loads) = ((taps * m * n) as f64, (loads * n + taps * m) as f64);
    rates.work_cycles(fma, loads).max(rates.latency * taps as f64 / phases as f64) + 1.0
}

/// Whether so many equal work items leave a thread idle for long, so that output channels are to be parted as well.
pub(crate) fn is_uneven(items: usize, threads: usize) -> bool {
    threads > 1 && items < 4 * threads && !items.is_multiple_of(threads)
}

/// Whether results with lanes along the channels are transposed: a square of vectors, and room to turn it.
pub(crate) fn transposes(target: &Target) -> bool {
    target.vectors().has_spare_registers()
}

/// Taps of a row whose weights are held at once by a tile of so many sums, `n` of them a pixel.
pub(crate) fn held_taps(target: &Target, sums: usize, n: usize) -> usize {
    if !target.vectors().has_spare_registers() {
        return 1;
    }
    (accumulators(target, 0).saturating_sub(sums) / n.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_even_and_complete() {
        assert_eq!(cut(28, 24, 8), [16, 12]);
        assert_eq!(cut(7, 3, 1), [3, 2, 2]);
        assert_eq!(cut(5, 8, 8), [5]);
        for total in 1..60 {
            for most in 1..20 {
                let parts = cut(total, most, 1);
                assert_eq!(parts.iter().sum::<usize>(), total);
                assert!(parts.iter().all(|&part| part <= most && part > 0));
                let sizes = cut_sizes(total, most).flat_map(|(size, count)| vec![size; count]);
                assert_eq!(parts, sizes.collect::<Vec<_>>());
            }
        }
        assert_eq!(cut_channels(21, 4), [(4, 5), (1, 1)]);
        assert_eq!(cut_channels(3, 4), [(3, 1)]);
    }
}
