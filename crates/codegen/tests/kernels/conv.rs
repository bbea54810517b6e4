//! Convolutions by Winograd F(m, r) and by dilation decomposition, with guarded memory: every remainder of tiles, blocks and
//! channels.

use crate::support::{Case, Input, op, seeded};
use tconvc_codegen::options::FastMath;
use tconvc_ir::Attributes;

/// Checks a convolution with a bias. Every kernel must be `expected` by its name.
fn check(input: &[usize], weights: &[usize], attributes: Attributes, fast_math: FastMath, expected: &str) {
    let (x, w) = (seeded(input, 1), seeded(weights, 2));
    let inputs = vec![Input::Given(x), Input::Constant(w), Input::Constant(seeded(&weights[..1], 3))];
    // Rounding goes with the sum of the magnitudes, not with what is left of it.
    let tolerance = 2.5e-7 * weights[1..].iter().product::<usize>() as f64;
    let case = Case { op: op("Conv", attributes), inputs, outputs: 1, tolerance, native: true };
    for kernel in case.check_with(fast_math) {
        assert!(kernel.contains(expected), "{input:?} {weights:?}: {kernel}, not {expected}");
    }
}

fn winograd(input: &[usize], weights: &[usize], pads: &[i64], group: i64) {
    let attributes = Attributes::new().with("pads", pads.to_vec()).with("group", group);
    check(input, weights, attributes, FastMath::Always, "winograd");
}

#[test]
fn every_remainder_of_tiles() {
    for height in 1..=9 {
        // Of a single position one tap is left.
        for width in 1 + usize::from(height == 1)..=9 {
            winograd(&[1, 16, height, width], &[18, 16, 3, 3], &[1, 1, 1, 1], 1);
        }
    }
    for width in (10..140).step_by(7) {
        winograd(&[1, 16, 5, width], &[16, 16, 3, 3], &[1, 1, 1, 1], 1);
        winograd(&[1, 16, width], &[16, 16, 3], &[1, 1], 1);
    }
}

#[test]
fn kernels_pads_and_groups() {
    for (kernel, pads) in [
        ([2, 2], [0, 0, 1, 1]),
        ([3, 2], [1, 0, 1, 1]),
        ([2, 4], [1, 3, 0, 0]),
        ([5, 5], [2, 2, 2, 2]),
        ([1, 3], [0, 1, 0, 1]),
        ([3, 1], [2, 0, 0, 0]),
        ([3, 3], [0, 0, 0, 0]),
        ([3, 3], [4, 5, 6, 3]),
    ] {
        for channels in [1, 3, 16, 17, 24] {
            let weights = [channels + 3, channels, kernel[0], kernel[1]];
            winograd(&[2, channels, 13, 21], &weights, &pads, 1);
        }
        winograd(&[1, 40, 11, 12], &[42, 20, kernel[0], kernel[1]], &pads, 2);
    }
}

/// Decomposed dilation of every remainder, with and without Winograd.
#[test]
fn dilated_along_one_axis() {
    for dilation in [2, 3, 5, 7, 8, 24, 40] {
        for extent in [2 * dilation, 2 * dilation + 3, 5 * dilation - 1, 9 * dilation] {
            for channels in [3, 20] {
                let (input, weights) = ([2, channels, extent], [channels + 1, channels, 3]);
                let each = |pads: [usize; 2]| {
                    let attributes = Attributes::new()
                        .with("pads", pads.map(|pad| pad as i64).to_vec())
                        .with("dilations", vec![dilation as i64]);
                    check(&input, &weights, attributes.clone(), FastMath::Always, "dilation");
                    check(&input, &weights, attributes, FastMath::Off, "conv");
                };
                each([dilation, dilation]);
                if extent > 2 * dilation {
                    each([0, 0]);
                    each([0, 3]);
                }
            }
        }
    }
}

/// Kernels in pieces, along a line and in rows of a plane.
#[test]
fn long_kernels() {
    for kernel in 4..=32 {
        for width in [kernel, 40, 131] {
            let pad = kernel as i64 / 2;
            winograd(&[1, 16, width], &[18, 16, kernel], &[pad, pad - 1], 1);
        }
        winograd(&[2, 20, 5, 37], &[9, 20, 1, kernel], &[0, 3, 0, kernel as i64 - 1], 1);
    }
    winograd(&[1, 32, 700], &[34, 16, 11], &[5, 5], 2);
    winograd(&[1, 200, 600], &[20, 200, 7], &[0, 0], 1);
}

/// Taps along z are summed up over the planes of a block.
#[test]
fn volumes() {
    for depth in 1..=9 {
        for (height, width) in [(3, 5), (4, 21), (13, 40)] {
            winograd(&[1, 16, depth, height, width], &[18, 16, 3, 3, 3], &[1; 6], 1);
        }
    }
    for (kernel, pads) in [
        ([2, 3, 3], [0, 1, 1, 1, 1, 1]),
        ([5, 2, 3], [4, 0, 0, 1, 1, 2]),
        ([4, 1, 3], [-1, 0, 1, 2, 0, 1]),
        ([1, 3, 3], [0, 1, 1, 0, 1, 1]),
        ([3, 3, 3], [5, 0, 0, 4, 3, 3]),
    ] {
        for channels in [1, 3, 17, 100] {
            let weights = [&[channels + 3, channels], &kernel[..]].concat();
            winograd(&[2, channels, 7, 9, 11], &weights, &pads, 1);
        }
        winograd(&[1, 40, 18, 8, 17], &[&[42, 20], &kernel[..]].concat(), &pads, 2);
    }
}

/// Channels beyond which blocks hold few tiles.
#[test]
fn many_channels() {
    winograd(&[1, 200, 17, 18], &[10, 200, 3, 3], &[1, 1, 1, 1], 1);
    winograd(&[1, 10, 40, 41], &[100, 10, 3, 3], &[1, 1, 1, 1], 1);
}
