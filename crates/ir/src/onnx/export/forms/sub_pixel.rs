//! `PhaseConv` is a `Conv` with a kernel for each phase, `Interleave` is `DepthToSpace` or the transposition it stands for.

use super::super::chain::{Chain, attribute};
use super::super::convolution;
use super::weights::rearranged;
use super::{per_axis, signed};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::ops::{Interleave, PhaseConv};
use crate::tensor::{Tensor, element_count};

/// One spatial axis of the convolution that computes all phases.
struct PhaseAxis {
    /// For each phase, under each tap of its kernel, the tap of the transposed convolution that stands there.
    taps: Vec<Vec<Option<usize>>>,
    /// Pads of the input, negative to crop.
    pads: [i64; 2],
}

impl PhaseAxis {
    /// Output `q` of phase `f` reads input `q + shift` under tap `k` where `f + begin - k * dilation = shift * stride`.
    fn new(input: Option<usize>, kernel: usize, stride: usize, dilation: usize, pads: [i64; 2]) -> Self {
        let [begin, end] = pads;
        let (s, d) = (stride as i64, dilation as i64);
        // Outputs of a phase less inputs.
        let more = (((kernel as i64 - 1) * d + 1) - s - begin - end + s - 1).div_euclid(s);
        let reads =
            |shift: i64| input.is_none_or(|input| shift < input as i64 && shift + input as i64 + more > 0);
        let mut found = vec![];
        for phase in 0..stride {
            for tap in 0..kernel {
                let distance = phase as i64 + begin - tap as i64 * d;
                let shift = distance.div_euclid(s);
                if distance.rem_euclid(s) == 0 && reads(shift) {
                    found.push((phase, tap, shift));
                }
            }
        }
        let mut low = found.iter().map(|(_, _, shift)| *shift).min().unwrap_or(0);
        let mut high = found.iter().map(|(_, _, shift)| *shift).max().unwrap_or(0);
        if input.is_none() {
            // Taps of zero rather than crops, of which an unknown extent may not have enough.
            (low, high) = (low.min(0), high.max(-more));
        }
        let mut taps = vec![vec![None; (high - low + 1) as usize]; stride];
        for (phase, tap, shift) in found {
            taps[phase][(shift - low) as usize] = Some(tap);
        }
        Self { taps, pads: [-low, more + high] }
    }

    fn kernel(&self) -> usize {
        self.taps[0].len()
    }
}

pub(in super::super) fn phase_conv(mut chain: Chain<'_, '_>, op: &PhaseConv) -> Result<()> {
    let Some(w) = chain.ty(1).known_shape().filter(|w| w.len() > 2) else {
        return Err(Error::input(1, "W", "its shape has to be known to write the phases"));
    };
    let axes = w.len() - 2;
    let strides = per_axis(&op.strides, axes, 1);
    let dilations = per_axis(&op.dilations, axes, 1);
    let (begin, end) = (per_axis(&op.begin, axes, 0), per_axis(&op.end, axes, 0));
    // Each phase has a kernel, if only of zeros.
    element_count(&[&w[..2], &strides].concat())?;
    let input = |i: usize| chain.ty(0).shape?.get(i + 2)?.known();
    let plan: Vec<PhaseAxis> = (0..axes)
        .map(|i| PhaseAxis::new(input(i), w[i + 2], strides[i], dilations[i], [begin[i], end[i]]))
        .collect();

    let weights = weights(&mut chain, &w, op.group, &plan)?;
    let bias = bias(&mut chain, plan.iter().map(|axis| axis.taps.len()).product())?;
    let side = |which: usize| plan.iter().map(|axis| axis.pads[which]).collect::<Vec<_>>();
    let pads = [side(0), side(1)].concat();
    let mut attributes =
        attribute("kernel_shape", plan.iter().map(|axis| axis.kernel() as i64).collect::<Vec<_>>());
    attributes.set("group", op.group as i64);
    attributes.set("pads", pads);
    convolution::main(&mut chain, attributes, &[vec![weights], bias].concat());
    chain.end();
    Ok(())
}

/// Taps of all phases under all taps of the joint kernel, both row-major: places in a kernel of the weights.
fn table(kernel: &[usize], plan: &[PhaseAxis]) -> Vec<Option<usize>> {
    let mut phases: Vec<Vec<Option<usize>>> = vec![vec![Some(0)]];
    for (axis, &extent) in plan.iter().zip(kernel) {
        let joined = |so_far: &Vec<Option<usize>>, taps: &Vec<Option<usize>>| {
            let places =
                so_far.iter().flat_map(|&place| taps.iter().map(move |&tap| Some(place? * extent + tap?)));
            places.collect::<Vec<_>>()
        };
        phases =
            phases.iter().flat_map(|so_far| axis.taps.iter().map(move |taps| joined(so_far, taps))).collect();
    }
    phases.concat()
}

/// `[Cout * S, Cin/group, ..]`, channel `c * S + f` with the taps of phase `f`.
fn weights(chain: &mut Chain<'_, '_>, w: &[usize], group: usize, plan: &[PhaseAxis]) -> Result<String> {
    let (cin, cout) = (w[0] / group, w[1]);
    let kernel: usize = w[2..].iter().product();
    let phases: usize = plan.iter().map(|axis| axis.taps.len()).product();
    let joint: Vec<usize> = plan.iter().map(PhaseAxis::kernel).collect();
    let too_many = || Error::Size(format!("{phases} phases of {joint:?} taps are too many to write out"));
    let size =
        joint.iter().try_fold(phases, |size, &extent| size.checked_mul(extent)).ok_or_else(too_many)?;
    element_count(&[group, cout, cin, size])?;
    let table = table(&w[2..], plan);
    let taps = table.len() / phases.max(1);
    let shape: Vec<usize> = [group * cout * phases, cin].into_iter().chain(joint).collect();
    let places = (0..group * cout).flat_map(|channel| {
        let table = &table;
        (0..phases).flat_map(move |phase| {
            (0..cin).flat_map(move |ci| {
                let plane = (channel / cout * cin + ci) * cout + channel % cout;
                table[phase * taps..][..taps].iter().map(move |place| Some(plane * kernel + (*place)?))
            })
        })
    });
    if let Some(weights) = rearranged(chain, 1, "weights", shape.clone(), places)? {
        return Ok(weights);
    }
    // Not constant: a tap of zero behind the others, then all by their places.
    let places: Vec<i64> = table.iter().map(|place| place.unwrap_or(kernel) as i64).collect();
    let flat = chain.ints("shape", &[0, 0, kernel as i64]);
    let value = chain.aside("Reshape", Attributes::new(), &[chain.input(1), flat]);
    let zero = chain.ints("pads", &[0, 0, 0, 0, 0, 1]);
    let value = chain.aside("Pad", Attributes::new(), &[value, zero]);
    let places = chain.ints("places", &places);
    let value = chain.aside("Gather", attribute("axis", 2), &[value, places]);
    let apart = signed(&[group, cin, cout, phases, taps]);
    let apart = chain.ints("shape", &apart);
    let value = chain.aside("Reshape", Attributes::new(), &[value, apart]);
    let value = chain.aside("Transpose", attribute("perm", vec![0, 2, 3, 1, 4]), &[value]);
    let shape = chain.ints("shape", &signed(&shape));
    Ok(chain.aside("Reshape", Attributes::new(), &[value, shape]))
}

/// Each bias once for each phase; none when there is none.
fn bias(chain: &mut Chain<'_, '_>, phases: usize) -> Result<Vec<String>> {
    if chain.node.input(2).is_none() {
        return Ok(vec![]);
    }
    if let Some([channels]) = chain.ty(2).known_shape().as_deref() {
        let places = (0..*channels).flat_map(|place| std::iter::repeat_n(Some(place), phases));
        if let Some(bias) = rearranged(chain, 2, "bias", vec![channels * phases], places)? {
            return Ok(vec![bias]);
        }
    }
    let column = chain.ints("axes", &[1]);
    let value = chain.aside("Unsqueeze", Attributes::new(), &[chain.input(2), column]);
    let repeats = chain.ints("repeats", &[1, phases as i64]);
    let value = chain.aside("Tile", Attributes::new(), &[value, repeats]);
    let flat = chain.constant("shape", &Tensor::from_i64s(&[-1]));
    Ok(vec![chain.aside("Reshape", Attributes::new(), &[value, flat])])
}

pub(in super::super) fn interleave(mut chain: Chain<'_, '_>, op: &Interleave) -> Result<()> {
    let axes = op.output.len();
    let strides = signed(&op.phases()?);
    let output = signed(&op.output);
    let inner: Vec<i64> =
        output.iter().zip(&strides).map(|(&output, &stride)| (output + stride - 1) / stride).collect();
    match strides[..] {
        [a, b] if a == b && a > 1 => {
            chain.main("DepthToSpace", attribute("mode", "CRD").with("blocksize", a), &[]);
        }
        _ if strides.iter().all(|&stride| stride == 1) => {}
        _ => {
            chain.reshape(&[&[0, -1], &strides[..], &inner[..]].concat())?;
            let pairs = (0..axes).flat_map(|i| [2 + axes + i, 2 + i]);
            let order: Vec<i64> = [0, 1].into_iter().chain(pairs).map(|axis| axis as i64).collect();
            chain.main("Transpose", attribute("perm", order), &[]);
            let merged: Vec<i64> = inner.iter().zip(&strides).map(|(inner, stride)| inner * stride).collect();
            chain.reshape(&[&[0, 0], &merged[..]].concat())?;
        }
    }
    let past: Vec<i64> = (0..axes).map(|i| output[i] - inner[i] * strides[i]).collect();
    chain.pad(&vec![0; axes], &past);
    convolution::finish(chain, &op.epilogue, 1)
}
