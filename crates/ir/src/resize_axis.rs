//! Resampling along one axis: for each output index, the input indices it reads and their weights. Evaluation and code
//! generation take the same table, so that they cannot disagree. How an operator states extents is not here.

use crate::error::{Error, Result};

/// Where an output index lies on the input axis: ONNX's `coordinate_transformation_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Coordinates {
    /// Centres of elements: `(x + 0.5) / scale - 0.5`.
    #[default]
    HalfPixel,
    /// As `HalfPixel`, but the centre of the output stays on that of the input when the extent was rounded.
    HalfPixelSymmetric,
    /// As `HalfPixel`, but an output of one element reads the first.
    PytorchHalfPixel,
    /// First on first, last on last.
    AlignCorners,
    /// `x / scale`.
    Asymmetric,
    /// Between the ends of the region of interest; outside the input, a constant.
    TfCropAndResize,
    /// `(x + 0.5) / scale` (opset 11 only).
    TfHalfPixelForNn,
}

/// Which neighbour `nearest` takes: ONNX's `nearest_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The nearer one, the left one at half.
    #[default]
    PreferFloor,
    /// The nearer one, the right one at half.
    PreferCeil,
    /// The left one.
    Floor,
    /// The right one.
    Ceil,
}

/// The function that weighs the neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// One neighbour.
    Nearest(Rounding),
    /// Two neighbours.
    Linear,
    /// Four neighbours, by a cubic with this coefficient.
    Cubic(f32),
}

/// One axis that is resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResizeAxis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the output.
    pub output: usize,
    /// Outputs for each input; not exactly the ratio of the extents where that was rounded.
    pub scale: f64,
    /// Start and end of the region of interest, as fractions of the input.
    pub roi: [f64; 2],
    /// Where outputs lie.
    pub coordinates: Coordinates,
    /// How neighbours are weighed.
    pub filter: Filter,
    /// Stretch the filter over what one output stands for when there are fewer outputs than inputs.
    pub antialias: bool,
    /// Neighbours outside the input weigh nothing, unless there is but one; else they repeat the border.
    pub exclude_outside: bool,
}

/// An input that an output reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResizeTap {
    /// Index into the input axis.
    pub source: usize,
    /// Its weight.
    pub weight: f64,
}

/// What each output of an axis reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizeTable {
    taps: Vec<ResizeTap>,
    /// Taps of output `o` are `ends[o - 1]..ends[o]`.
    ends: Vec<usize>,
}

/// Most taps of a table.
const MAX_TAPS: usize = 1 << 25;

impl ResizeTable {
    /// Inputs that output `o` reads, by rising index, each once; none where it is the extrapolation value.
    pub fn taps(&self, o: usize) -> &[ResizeTap] {
        let start = o.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.taps[start..self.ends[o]]
    }

    /// Extent of the output.
    pub fn output(&self) -> usize {
        self.ends.len()
    }

    /// Largest number of inputs that one output reads.
    pub fn most_taps(&self) -> usize {
        (0..self.output()).map(|o| self.taps(o).len()).max().unwrap_or(0)
    }

    /// The input that output `o` copies, when it reads one with weight 1.
    pub fn copied(&self, o: usize) -> Option<usize> {
        match self.taps(o) {
            [tap] if tap.weight == 1.0 => Some(tap.source),
            _ => None,
        }
    }
}

impl ResizeAxis {
    /// True when the output is the input.
    pub fn is_identity(&self) -> bool {
        self.input == self.output
            && self.scale == 1.0
            && (self.coordinates != Coordinates::TfCropAndResize || self.roi == [0.0, 1.0])
            && self.coordinates != Coordinates::TfHalfPixelForNn
    }

    /// Position of output `x` on the input axis. One that is on an element, or half way between two, but for rounding
    /// errors, is exactly there: what `nearest` takes must not depend on them.
    pub fn position(&self, x: usize) -> f64 {
        let position = self.unrounded_position(x);
        let half = (position * 2.0).round() / 2.0;
        if (position - half).abs() <= 1e-12 * position.abs().max(1.0) { half } else { position }
    }

    fn unrounded_position(&self, x: usize) -> f64 {
        let (x, input, output) = (x as f64, self.input as f64, self.scale * self.input as f64);
        let half_pixel = (x + 0.5) / self.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                input / 2.0 * (1.0 - self.output as f64 / output) + (x + 0.5) / self.scale - 0.5
            }
            Coordinates::PytorchHalfPixel if output == 1.0 => -0.5,
            Coordinates::PytorchHalfPixel => half_pixel,
            Coordinates::AlignCorners if output == 1.0 => 0.0,
            Coordinates::AlignCorners => x * (input - 1.0) / (output - 1.0),
            Coordinates::Asymmetric => x / self.scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / self.scale,
            Coordinates::TfCropAndResize => {
                let [start, end] = self.roi.map(|fraction| fraction * (input - 1.0));
                if output == 1.0 {
                    start + (end - start) / 2.0
                } else {
                    start + x * (end - start) / (output - 1.0)
                }
            }
        }
    }

    /// The filter's scale and the neighbours it reaches, counted from the left one.
    fn reach(&self) -> (f64, i64, i64) {
        let scale = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let half = match self.filter {
            Filter::Nearest(_) => return (1.0, 0, 2),
            Filter::Linear => 1.0,
            Filter::Cubic(_) => 2.0,
        };
        let first = (-half / scale).floor() as i64 + 1;
        (scale, first, 2 - first)
    }

    /// Weight of a neighbour `i` for a position `ratio` right of neighbour 0, before they are made to sum to 1.
    fn weight(&self, i: i64, ratio: f64, scale: f64) -> f64 {
        let distance = (i as f64 - ratio) * scale;
        match self.filter {
            Filter::Nearest(rounding) => {
                let right = match rounding {
                    // A position on an element is that element, whatever the rounding.
                    _ if ratio == 1.0 => true,
                    Rounding::PreferFloor => ratio > 0.5,
                    Rounding::PreferCeil => ratio >= 0.5,
                    Rounding::Floor => false,
                    Rounding::Ceil => true,
                };
                f64::from(u8::from(right == (i == 1)))
            }
            Filter::Linear => (1.0 - distance.abs()).max(0.0),
            Filter::Cubic(a) => {
                let (a, x) = (f64::from(a), distance.abs());
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
                } else {
                    0.0
                }
            }
        }
    }

    /// What each output reads.
    ///
    /// # Errors
    /// When the input is empty but the output is not, the scale is no positive number, or the table is too large.
    pub fn table(&self) -> Result<ResizeTable> {
        let mut table = ResizeTable { taps: vec![], ends: vec![] };
        if self.output == 0 {
            return Ok(table);
        }
        if self.input == 0 || !self.scale.is_finite() || self.scale <= 0.0 {
            return Err(Error::Geometry(format!(
                "resizing an axis of {} to {} with a scale of {}: accepted are a positive scale and an input that is not empty",
                self.input, self.output, self.scale
            )));
        }
        let (scale, first, end) = self.reach();
        let most = end.saturating_sub(first).saturating_mul(self.output as i64);
        if most > MAX_TAPS as i64 {
            return Err(Error::Size(format!(
                "resizing an axis of {} to {} takes {most} weights, accepted are {MAX_TAPS}",
                self.input, self.output
            )));
        }
        table.ends.reserve_exact(self.output);
        for x in 0..self.output {
            let position = self.position(x);
            let outside = position < 0.0 || position > (self.input - 1) as f64;
            if !(outside && self.coordinates == Coordinates::TfCropAndResize) {
                self.add_taps(&mut table.taps, position, (scale, first, end));
            }
            table.ends.push(table.taps.len());
        }
        Ok(table)
    }

    fn add_taps(&self, taps: &mut Vec<ResizeTap>, position: f64, (scale, first, end): (f64, i64, i64)) {
        // The left neighbour is to the left, even of a position on an element: the ratio is above 0.
        let left = position.ceil() - 1.0;
        let (left, ratio) = (left as i64, position - left);
        let last = self.input as i64 - 1;
        let start = taps.len();
        let exclude = self.exclude_outside && !matches!(self.filter, Filter::Nearest(_));
        let mut sum = 0.0;
        for i in first..end {
            let weight = self.weight(i, ratio, scale);
            let source = left.saturating_add(i);
            if weight == 0.0 || (exclude && !(0..=last).contains(&source)) {
                continue;
            }
            sum += weight;
            let source = source.clamp(0, last) as usize;
            match taps[start..].last_mut() {
                Some(tap) if tap.source == source => tap.weight += weight,
                _ => taps.push(ResizeTap { source, weight }),
            }
        }
        // Weights of a filter that is not stretched sum to 1 by themselves.
        if sum != 0.0 && (exclude || self.antialias) {
            taps[start..].iter_mut().for_each(|tap| tap.weight /= sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: usize, output: usize, filter: Filter) -> ResizeAxis {
        ResizeAxis {
            input,
            output,
            scale: output as f64 / input as f64,
            roi: [0.0, 1.0],
            coordinates: Coordinates::HalfPixel,
            filter,
            antialias: false,
            exclude_outside: false,
        }
    }

    const FILTERS: [Filter; 4] = [
        Filter::Nearest(Rounding::Floor),
        Filter::Nearest(Rounding::PreferCeil),
        Filter::Linear,
        Filter::Cubic(-0.75),
    ];
    const COORDINATES: [Coordinates; 6] = [
        Coordinates::HalfPixel,
        Coordinates::HalfPixelSymmetric,
        Coordinates::PytorchHalfPixel,
        Coordinates::AlignCorners,
        Coordinates::Asymmetric,
        Coordinates::TfCropAndResize,
    ];

    /// Rows are sorted, inside, without repetition, and a constant stays the same.
    #[test]
    fn weights_sum_to_one() {
        for (input, output) in [(1, 1), (1, 5), (5, 1), (4, 8), (8, 4), (7, 3), (3, 7), (6, 6)] {
            for filter in FILTERS {
                for coordinates in COORDINATES {
                    for (antialias, exclude_outside) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let axis = ResizeAxis {
                            coordinates,
                            antialias,
                            exclude_outside,
                            ..axis(input, output, filter)
                        };
                        let table = axis.table().unwrap();
                        assert_eq!(table.output(), output);
                        for o in 0..output {
                            let taps = table.taps(o);
                            let sum: f64 = taps.iter().map(|tap| tap.weight).sum();
                            assert!((sum - 1.0).abs() < 1e-12, "{axis:?} at {o}: {taps:?}");
                            assert!(taps.windows(2).all(|pair| pair[0].source < pair[1].source), "{axis:?}");
                            assert!(taps.iter().all(|tap| tap.source < input), "{axis:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn doubling_by_nearest_repeats() {
        for rounding in [Rounding::Floor, Rounding::PreferFloor] {
            let axis =
                ResizeAxis { coordinates: Coordinates::Asymmetric, ..axis(3, 6, Filter::Nearest(rounding)) };
            let table = axis.table().unwrap();
            let sources: Vec<_> = (0..6).map(|o| table.copied(o)).collect();
            assert_eq!(sources, [0, 0, 1, 1, 2, 2].map(Some), "{rounding:?}");
        }
    }

    #[test]
    fn an_axis_of_the_same_extent_is_copied() {
        for filter in FILTERS {
            for coordinates in COORDINATES {
                let axis = ResizeAxis { coordinates, ..axis(5, 5, filter) };
                assert!(axis.is_identity());
                let table = axis.table().unwrap();
                assert!((0..5).all(|o| table.copied(o) == Some(o)), "{axis:?}");
            }
        }
    }

    #[test]
    fn hostile_axes_are_refused() {
        let huge = ResizeAxis { antialias: true, ..axis(1 << 31, 1, Filter::Cubic(-0.75)) };
        assert!(huge.table().is_err());
        assert!(axis(1, 1 << 31, Filter::Linear).table().is_err());
        assert!(axis(0, 3, Filter::Linear).table().is_err());
        for scale in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert!(ResizeAxis { scale, ..axis(4, 4, Filter::Linear) }.table().is_err());
        }
    }
}
