//! Advice on checkerboards: patterns that a transposed convolution paints on even areas.

use tconvc_ir::Tensor;
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};

/// A warning when neighbouring outputs are reached by different numbers of taps, and the weights, where known, do not make up
/// for it.
pub(super) fn advice(geometry: &DeconvGeometry, weights: Option<&Tensor>) -> Option<String> {
    let uneven = geometry.axes().iter().find(|axis| {
        !axis.kernel().is_multiple_of(axis.stride()) || axis.dilation() > 1 && axis.stride() > 1
    })?;
    let (kernel, stride) = (uneven.kernel(), uneven.stride());
    let mut counts: Vec<usize> = (0..stride)
        .map(|residue| (0..kernel).filter(|tap| tap * uneven.dilation() % stride == residue).count())
        .collect();
    counts.sort_unstable();
    let (least, most) = (counts.first()?, counts.last()?);
    if least == most || weights.is_some_and(|weights| is_even(weights, geometry)) {
        return None;
    }
    Some(format!(
        "a kernel of {kernel} at stride {stride} covers outputs by {least} to {most} taps in turn, which shows as a pattern; \
             take a kernel that is a multiple of the stride, or Resize (nearest or linear) and then Conv"
    ))
}

/// Whether weights make a constant input a constant output, whatever the number of taps of each phase: an interpolation, or one
/// that a convolution behind it was joined with. Only f32 weights are looked at.
fn is_even(weights: &Tensor, geometry: &DeconvGeometry) -> bool {
    let axes = geometry.axes();
    let taps: usize = axes.iter().map(DeconvAxis::kernel).product();
    let phases: usize = axes.iter().map(DeconvAxis::stride).product();
    // The phase of each tap, row-major over the axes like the tap itself.
    let phase_of = |tap: usize| {
        let (mut rest, mut phase, mut place) = (tap, 0, 1);
        for axis in axes.iter().rev() {
            phase += rest % axis.kernel() * axis.dilation() % axis.stride() * place;
            (rest, place) = (rest / axis.kernel(), place * axis.stride());
        }
        phase
    };
    let phase_of: Vec<usize> = (0..taps).map(phase_of).collect();
    // Most weights are found uneven at their first kernel.
    let Ok(mut values) = weights.each::<f32>() else { return false };
    let mut kernels = std::iter::from_fn(|| {
        let kernel: Vec<f32> = values.by_ref().take(taps).collect();
        (!kernel.is_empty()).then_some(kernel)
    });
    kernels.all(|kernel| {
        let mut sums = vec![0.0; phases];
        for (&value, &phase) in kernel.iter().zip(&phase_of) {
            sums[phase] += f64::from(value);
        }
        let largest = kernel.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        sums.iter().all(|sum| (sum - sums[0]).abs() <= 1e-5 * f64::from(largest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::Channels;

    #[test]
    fn even_weights_make_constants_of_constants() {
        let axis = |kernel, stride| DeconvAxis::new(4, kernel, stride, 1, [0, 0]).unwrap();
        let even = |values: Vec<f32>, axes: Vec<DeconvAxis>| {
            let shape: Vec<usize> = [1, 1].into_iter().chain(axes.iter().map(DeconvAxis::kernel)).collect();
            let geometry = DeconvGeometry::new(Channels::new(1, 1, 1, 1).unwrap(), axes).unwrap();
            is_even(&Tensor::from_vec(shape, values).unwrap(), &geometry)
        };
        // Linear interpolation, and 1 2 3 behind copies.
        assert!(even(vec![0.5, 1.0, 0.5], vec![axis(3, 2)]));
        assert!(even(vec![3.0, 5.0, 6.0, 3.0, 1.0], vec![axis(5, 3)]));
        assert!(!even(vec![1.0, 1.0, 1.0], vec![axis(3, 2)]));
        // Along two axes, and a kernel whose phases differ along one of them.
        let linear = [0.5, 1.0, 0.5];
        let product = linear.iter().flat_map(|a| linear.map(|b| a * b)).collect();
        assert!(even(product, vec![axis(3, 2), axis(3, 2)]));
        assert!(!even(vec![0.5, 0.5, 1.0, 1.0, 0.5, 0.4], vec![axis(3, 2), axis(2, 2)]));
    }
}
