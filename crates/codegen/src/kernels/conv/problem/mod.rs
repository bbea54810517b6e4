//! Convolutions of every kind as one: output phases, each a dense convolution of taps over virtual input positions.
//!
//! Along each axis, output `o = phase.first + q * out_stride` sums taps that read position `q * in_stride + tap.shift`.
//! Position `p` holds input `p / input_dilation` where `input_dilation` divides `p` and the quotient is an input, else zero. So
//! a convolution has one phase and its stride as `in_stride`, a sub-pixel convolution has its stride as `out_stride`, and
//! zero insertion has it as `input_dilation`.

pub(crate) mod dilation;
pub(crate) mod winograd;

use crate::kernels::refusal::Reason;
use std::fmt::Write as _;
use tconvc_ir::geometry::{ConvAxis, ConvGeometry, DeconvAxis, DeconvGeometry, Phase, PhaseTap};

/// Batch, channels and axes of a convolution, with all extents known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub batch: usize,
    pub groups: usize,
    /// Input channels of a group.
    pub cin: usize,
    /// Output channels of a group.
    pub cout: usize,
    /// Always three, z, y and x; those that the network does not have are of extent 1.
    pub axes: [Axis; 3],
    pub input: Pitch,
    pub output: Pitch,
    /// Tensors of the output's shape that are read where results are stored.
    pub addends: usize,
    /// Axes that x runs through as well, innermost first; see [`Problem::collapsed`].
    pub collapses: Vec<Collapse>,
}

/// An axis whose rows follow each other along x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collapse {
    /// Steps of a row.
    pub steps: usize,
    /// Elements of the output from the first step of a row to that of the next.
    pub pitch: usize,
}

/// Elements between neighbours of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pitch {
    pub column: usize,
    pub row: usize,
    /// Between channels.
    pub plane: usize,
    /// Between the first channels of neighbouring groups or images.
    pub group: usize,
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub in_stride: usize,
    pub out_stride: usize,
    pub input_dilation: usize,
    pub phases: Vec<Phase>,
}

impl Axis {
    /// An axis that is not there.
    fn none() -> Self {
        let taps = vec![PhaseTap { kernel: 0, shift: 0 }];
        let phases = vec![Phase { first: 0, count: 1, taps }];
        Self { input: 1, output: 1, kernel: 1, in_stride: 1, out_stride: 1, input_dilation: 1, phases }
    }

    fn of_conv(axis: &ConvAxis, input_dilation: usize, offset: i64, input: usize) -> Self {
        let shift = |kernel: usize| (kernel * axis.dilation()) as i64 - axis.pad() - offset;
        let (count, last) = (axis.output(), (input as i64 - 1) * input_dilation as i64);
        // A tap that only ever reads zeros is no tap.
        let (stride, apart) = (axis.stride() as i64, input_dilation as i64);
        let reads = |tap: &PhaseTap| {
            // The steps at which it reads a position between the first input and the last.
            let from = (-tap.shift).max(0).div_euclid(stride) + i64::from((-tap.shift).max(0) % stride != 0);
            let to = (last - tap.shift).div_euclid(stride).min(count as i64 - 1);
            // Whether that is an input and no zero repeats from there on, so a few of these steps tell.
            (from..=to).take(input_dilation).any(|q| (q * stride + tap.shift) % apart == 0)
        };
        let taps = (0..axis.kernel())
            .map(|kernel| PhaseTap { kernel, shift: shift(kernel) })
            .filter(reads)
            .collect();
        Self {
            input,
            output: count,
            kernel: axis.kernel(),
            in_stride: axis.stride(),
            out_stride: 1,
            input_dilation,
            phases: vec![Phase { first: 0, count, taps }],
        }
    }

    fn of_deconv(axis: &DeconvAxis) -> Self {
        Self {
            input: axis.input(),
            output: axis.output(),
            kernel: axis.kernel(),
            in_stride: 1,
            out_stride: axis.stride(),
            input_dilation: 1,
            phases: axis.phases(),
        }
    }

    /// Smallest and largest shift of any tap; zeros when there is none.
    pub fn shifts(&self) -> (i64, i64) {
        let shifts = || self.phases.iter().flat_map(|phase| &phase.taps).map(|tap| tap.shift);
        (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0))
    }

    /// Positions from the first to the last that so many neighbouring steps read.
    pub fn reach(&self, steps: usize) -> usize {
        let (low, high) = self.shifts();
        (steps - 1) * self.in_stride + (high - low) as usize + 1
    }

    /// The most outputs of a phase.
    pub fn output_positions(&self) -> usize {
        self.phases.iter().map(|phase| phase.count).max().unwrap_or(0)
    }

    /// True when every position that a tap reads is an input, for all steps of the longest phase.
    pub fn is_inside(&self) -> bool {
        let (low, high) = self.shifts();
        let last = (self.output_positions() as i64 - 1) * self.in_stride as i64;
        self.input_dilation == 1 && low >= 0 && high + last < self.input as i64
    }

    /// True when each step of every phase reads its own input at most, and no output lies beyond the last step.
    fn is_blockwise(&self) -> bool {
        let own = |phase: &Phase| phase.count == self.input && phase.taps.iter().all(|tap| tap.shift == 0);
        self.in_stride == 1
            && self.input_dilation == 1
            && self.phases.len() == self.out_stride
            && self.output == self.out_stride * self.input
            && self.phases.iter().all(own)
    }

    /// True when output and input are the same sequence under one tap of weight.
    fn is_pointwise(&self) -> bool {
        let same = [PhaseTap { kernel: 0, shift: 0 }];
        self.input == self.output
            && self.in_stride == 1
            && self.input_dilation == 1
            && self.phases.len() == 1
            && self.phases[0].taps == same
    }
}

/// Elements of a plane that is collapsed into a row of a volume.
const MOST_COLLAPSED: usize = 1024;

impl Problem {
    pub fn of_conv(geometry: &ConvGeometry) -> Self {
        let axes = geometry.axes().iter().map(|axis| Axis::of_conv(axis, 1, 0, axis.input()));
        Self::new(geometry.channels(), axes.collect())
    }

    /// A convolution over the zero-inserted input; `inserts` are the axes of the insertion, as transposed convolutions with
    /// a one-tap kernel.
    pub fn of_insertion(geometry: &ConvGeometry, inserts: &[DeconvAxis]) -> Self {
        let axes = geometry.axes().iter().zip(inserts);
        let axes =
            axes.map(|(axis, insert)| Axis::of_conv(axis, insert.stride(), -insert.pad(), insert.input()));
        Self::new(geometry.channels(), axes.collect())
    }

    pub fn of_phases(geometry: &DeconvGeometry) -> Self {
        Self::new(geometry.channels(), geometry.axes().iter().map(Axis::of_deconv).collect())
    }

    fn new(channels: tconvc_ir::geometry::Channels, mut axes: Vec<Axis>) -> Self {
        while axes.len() < 3 {
            axes.insert(0, Axis::none());
        }
        let axes: [Axis; 3] = axes.try_into().unwrap_or_else(|_| [Axis::none(), Axis::none(), Axis::none()]);
        let mut problem = Self {
            batch: channels.batch(),
            groups: channels.groups(),
            cin: channels.input_per_group(),
            cout: channels.output_per_group(),
            axes,
            input: Pitch { column: 1, row: 0, plane: 0, group: 0 },
            output: Pitch { column: 1, row: 0, plane: 0, group: 0 },
            addends: 0,
            collapses: vec![],
        };
        problem.flatten();
        let [z, y, x] = &problem.axes;
        let pitch = |[z, y, x]: [usize; 3], channels| {
            let plane = z * y * x;
            Pitch { column: 1, row: x, plane, group: channels * plane }
        };
        problem.input = pitch([z.input, y.input, x.input], problem.cin);
        problem.output = pitch([z.output, y.output, x.output], problem.cout);
        problem.leave_out_rows();
        problem
    }

    /// Rows that no output reads are no rows: those between the steps of a lone tap. They only make rows lie further apart.
    fn leave_out_rows(&mut self) {
        let [z, y, _] = &mut self.axes;
        let stride = y.in_stride;
        let reads_first = matches!(y.phases.as_slice(), [phase] if matches!(phase.taps.as_slice(), [tap] if tap.shift == 0));
        if z.input == 1 && stride > 1 && reads_first && y.is_inside() {
            (y.input, y.in_stride) = (y.output_positions(), 1);
            self.input.row *= stride;
        }
    }

    /// Joins axes whose outputs read just their own place, so that 1x1 convolutions run along one long axis.
    fn flatten(&mut self) {
        for (outer, inner) in [(1, 2), (0, 1), (1, 2)] {
            if self.axes[outer].is_pointwise() && self.axes[inner].is_pointwise() {
                let extent = self.axes[outer].input * self.axes[inner].input;
                let axis = &mut self.axes[inner];
                (axis.input, axis.output, axis.phases[0].count) = (extent, extent, extent);
                // A lone output has a stride that never shows.
                axis.out_stride = 1;
                self.axes[outer] = Axis::none();
            }
        }
    }

    /// The same with rows, and small planes, as one long row, so that vectors are full whatever the width. Only where each step
    /// reads its own input: kernels as large as the stride, or smaller.
    pub fn collapsed(&self) -> Option<Self> {
        let mut collapsed = self.clone();
        let [_, y, x] = &self.axes;
        let adjacent = |pitch: Pitch, row: usize, rows: usize| {
            pitch.row == row && pitch.plane.is_multiple_of((row * rows).max(1))
        };
        if !self.collapses.is_empty()
            || !adjacent(self.input, x.input, y.input)
            || !adjacent(self.output, x.output, y.output)
        {
            return None;
        }
        for outer in [1, 0] {
            let ([.., x], axis) = (&collapsed.axes, &collapsed.axes[outer]);
            let small = outer == 1 || x.input <= MOST_COLLAPSED;
            if axis.input == 1 && axis.output == 1 {
                continue;
            }
            if axis.input == 1 || !small || !axis.is_blockwise() || !x.is_blockwise() {
                break;
            }
            let pitch = axis.out_stride
                * if outer == 1 { self.output.row } else { self.axes[1].output * self.output.row };
            collapsed.collapses.push(Collapse { steps: x.input, pitch });
            let extent = axis.input * x.input;
            let (axis, x) = match &mut collapsed.axes {
                [z, _, x] if outer == 0 => (z, x),
                [_, y, x] => (y, x),
            };
            axis.input = 1;
            axis.phases.iter_mut().for_each(|phase| phase.count = 1);
            (x.input, x.output) = (extent, extent * x.out_stride);
            collapsed.input.row = extent;
            x.phases.iter_mut().for_each(|phase| phase.count = extent);
        }
        (!collapsed.collapses.is_empty()).then_some(collapsed)
    }

    /// The same with so many rows of each phase as phases of their own, so that a tile of all phases reads the rows that they share
    /// once. Only where all phases have a multiple of so many rows.
    pub fn height_to_phase(&self, rows: usize) -> Option<Self> {
        let y = &self.axes[1];
        if y.input_dilation > 1
            || !self.collapses.is_empty()
            || y.phases.iter().any(|phase| phase.count % rows > 0)
        {
            return None;
        }
        let of_row = |row: usize| {
            let moved =
                move |tap: &PhaseTap| PhaseTap { shift: tap.shift + (row * y.in_stride) as i64, ..*tap };
            y.phases.iter().map(move |phase| Phase {
                first: phase.first + row * y.out_stride,
                count: phase.count / rows,
                taps: phase.taps.iter().map(moved).collect(),
            })
        };
        let mut problem = self.clone();
        problem.axes[1] = Axis {
            in_stride: y.in_stride * rows,
            out_stride: y.out_stride * rows,
            phases: (0..rows).flat_map(of_row).collect(),
            ..y.clone()
        };
        Some(problem)
    }

    /// Elements of the output from the first step of a phase along x to this one.
    pub fn place(&self, step: usize) -> usize {
        let (mut place, mut rest) = (0, step);
        for collapse in self.collapses.iter().rev() {
            place += rest / collapse.steps * collapse.pitch;
            rest %= collapse.steps;
        }
        place + rest * self.axes[2].out_stride
    }

    /// What the steps of an input tile along x are a multiple of.
    pub fn grain(&self, lanes: usize) -> usize {
        self.collapses.last().map_or(lanes, |collapse| collapse.steps)
    }

    /// Elements of the output for each step along x, over multiples of the grain.
    pub fn step_pitch(&self) -> usize {
        self.collapses.last().map_or(self.axes[2].out_stride, |collapse| collapse.pitch / collapse.steps)
    }

    /// Whether the code for it stays small: few phases, kernels that are written out or loop evenly, input tiles that fit.
    ///
    /// # Errors
    /// What there is too much of; what is refused is no network's layer.
    pub fn check_compilable(&self) -> Result<(), Reason> {
        let phases = self.axes.iter().fold(1usize, |product, axis| product.saturating_mul(axis.phases.len()));
        let taps = |axis: &Axis| axis.phases.iter().map(|phase| phase.taps.len()).max().unwrap_or(0);
        let taps = self.axes.iter().fold(1usize, |product, axis| product.saturating_mul(taps(axis)));
        let reach = |axis: &Axis| {
            let (low, high) = axis.shifts();
            (high - low) as f64 + axis.in_stride as f64
        };
        let input_tile = self.cin as f64 * self.axes.iter().map(reach).product::<f64>();
        Reason::within("phases", phases, 2048)?;
        Reason::within("taps of a phase", taps, 8192)?;
        Reason::within("taps of all phases", phases.saturating_mul(taps), 1 << 18)?;
        Reason::within("input elements for an output element", input_tile as usize, 16_000_000)
    }

    /// What tells it from problems that take other schedules: batch, groups, channels and, along each axis, extents, kernel, strides
    /// and shifts; what is added.
    pub fn key(&self) -> String {
        let mut key = format!("{} {} {}x{}", self.batch, self.groups, self.cin, self.cout);
        for axis in &self.axes {
            let ((low, high), taps) =
                (axis.shifts(), axis.phases.iter().map(|phase| phase.taps.len()).sum::<usize>());
            let Axis { input, output, kernel, in_stride, out_stride, input_dilation, .. } = axis;
            let strides = format!("{in_stride},{out_stride},{input_dilation}");
            let _ = write!(key, " | {input}>{output} k{kernel} s{strides} {low}..{high} {taps}");
        }
        if self.addends > 0 {
            let _ = write!(key, " | +{}", self.addends);
        }
        key
    }

    /// Taps of all phases together.
    pub fn taps(&self) -> usize {
        let taps = |axis: &Axis| axis.phases.iter().map(|phase| phase.taps.len()).sum::<usize>();
        self.axes.iter().map(taps).product()
    }

    /// Multiply-adds.
    pub fn macs(&self) -> u64 {
        let per_axis =
            |axis: &Axis| axis.phases.iter().map(|phase| phase.count * phase.taps.len()).sum::<usize>();
        let pairs = self.batch * self.groups * self.cin * self.cout;
        self.axes.iter().map(per_axis).fold(pairs as u64, |product, taps| product.saturating_mul(taps as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::Channels;

    /// Along each axis, joined ones too, the phases of a transposed convolution write every output once, in each transform of it.
    #[test]
    fn phases_cover_the_outputs() {
        let (mut joined, mut cut, mut collapsed) = (0, 0, 0);
        for n in 0..3 * 3 * 2 * 2 * 3 * 3 {
            let digit = |below: usize, base: usize| n / below % base + 1;
            let axis = |input, kernel, stride| DeconvAxis::new(input, kernel, stride, 1, [0, 0]).unwrap();
            let axes = vec![
                axis(digit(1, 3), digit(9, 2), digit(36, 3)),
                axis(digit(3, 3), digit(18, 2), digit(108, 3)),
            ];
            let outputs: usize = axes.iter().map(DeconvAxis::output).product();
            let geometry = DeconvGeometry::new(Channels::new(1, 1, 1, 1).unwrap(), axes).unwrap();
            let problem = Problem::of_phases(&geometry);
            joined += usize::from(problem.axes[1].output == 1 && geometry.axes()[0].output() > 1);
            assert_eq!(problem.axes.iter().map(|axis| axis.output).product::<usize>(), outputs);
            let blocks: Vec<Problem> = (2..5).filter_map(|rows| problem.height_to_phase(rows)).collect();
            cut += blocks.len();
            for axis in [&problem].into_iter().chain(&blocks).flat_map(|problem| &problem.axes) {
                let of_phase = |phase: &Phase| {
                    let (first, step) = (phase.first, axis.out_stride);
                    (0..phase.count).map(move |q| first + q * step)
                };
                let mut written: Vec<usize> = axis.phases.iter().flat_map(of_phase).collect();
                written.sort_unstable();
                assert_eq!(written, (0..axis.output).collect::<Vec<_>>(), "{geometry:?}");
            }
            collapsed += usize::from(problem.collapsed().is_some_and(|collapsed| {
                let [z, y, x] = &collapsed.axes;
                let mut written = vec![];
                for (z_phase, y_phase) in z.phases.iter().flat_map(|z| y.phases.iter().map(move |y| (z, y))) {
                    let row = (z_phase.first * y.output + y_phase.first) * collapsed.output.row;
                    for phase in &x.phases {
                        written
                            .extend((0..phase.count).map(|step| row + phase.first + collapsed.place(step)));
                    }
                }
                written.sort_unstable();
                assert_eq!(written, (0..outputs).collect::<Vec<_>>(), "{geometry:?}");
                true
            }));
        }
        assert!(cut > 20 && collapsed > 5, "{cut}, {collapsed}");
        assert!(joined > 5);
    }

    #[test]
    fn rows_that_nobody_reads_are_left_out() {
        let of = |kernel, pad| {
            let axis = |input| ConvAxis::new(input, kernel, 2, 1, [pad, pad]).unwrap();
            Problem::of_conv(
                &ConvGeometry::new(Channels::new(1, 3, 4, 1).unwrap(), vec![axis(7), axis(9)]).unwrap(),
            )
        };
        let lone = of(1, 0);
        assert_eq!((lone.axes[1].input, lone.axes[1].in_stride), (4, 1));
        assert_eq!((lone.input.row, lone.input.plane, lone.axes[2].in_stride), (18, 63, 2));
        // Others read rows between the steps, or none at the edge.
        for other in [of(3, 1), of(1, 1)] {
            assert_eq!((other.axes[1].input, other.axes[1].in_stride, other.input.row), (7, 2, 9));
        }
    }
}
