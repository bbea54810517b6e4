//! RoiAlign: regions of a feature map, each sampled to the same size.

use super::support::inputs::{at_most, check_dtype, check_size, common_dtype, required};
use super::support::lists::output_shape;
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `RoiAlign`: `X [N, C, H, W], rois [R, 4], batch_indices [R] -> Y [R, C, output_height, output_width]`.
///
/// A region is `x1, y1, x2, y2`. Where the maximum is taken it is that of the weighted neighbours of all samples, not of the
/// samples themselves, as ONNX's evaluator and runtimes have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlign {
    /// Extents of the output, height first.
    pub output: [usize; 2],
    /// Samples along each axis of a bin; 0 takes as many as the bin is large.
    pub sampling_ratio: usize,
    /// From the regions' coordinates to those of the feature map.
    pub spatial_scale: f32,
    /// Coordinates name corners of pixels, not their middles (`half_pixel`).
    pub half_pixel: bool,
    /// The maximum, not the mean.
    pub max: bool,
}

/// Most samples of one output, so that no region can ask for work without end.
const MOST_SAMPLES: f64 = 65_536.0;

impl RoiAlign {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let mut extent = |name: &str, least: i64| {
            let value = attributes.int(name)?.unwrap_or(least);
            let extent = usize::try_from(value).ok().filter(|_| value >= least && value <= 1 << 20);
            extent
                .ok_or_else(|| Error::attribute(name, format!("expected {least} to 1048576, found {value}")))
        };
        let output = [extent("output_height", 1)?, extent("output_width", 1)?];
        let sampling_ratio = extent("sampling_ratio", 0)?;
        let spatial_scale = attributes.float("spatial_scale")?.unwrap_or(1.0);
        let mut choice = |name: &str, names: [&str; 2]| match attributes.string(name)? {
            None => Ok(false),
            Some(text) if text == names[0] => Ok(false),
            Some(text) if text == names[1] => Ok(true),
            Some(text) => {
                Err(Error::attribute(name, format!("`{text}` is not one of {}, {}", names[0], names[1])))
            }
        };
        let whole = choice("coordinate_transformation_mode", ["half_pixel", "output_half_pixel"])?;
        let max = choice("mode", ["avg", "max"])?;
        attributes.finish(
            "coordinate_transformation_mode, mode, output_height, output_width, sampling_ratio, spatial_scale",
        )?;
        Ok(Self { output, sampling_ratio, spatial_scale, half_pixel: !whole, max })
    }

    /// Where a region begins along an axis, the size of a bin, and the samples of each.
    fn axis(&self, from: f64, to: f64, bins: usize) -> Result<(f64, f64, usize)> {
        let shift = if self.half_pixel { 0.5 } else { 0.0 };
        let start = from * f64::from(self.spatial_scale) - shift;
        let mut size = to * f64::from(self.spatial_scale) - shift - start;
        if !self.half_pixel {
            size = size.max(1.0);
        }
        let bin = size / bins as f64;
        let samples = if self.sampling_ratio > 0 { self.sampling_ratio as f64 } else { bin.ceil() };
        if samples > MOST_SAMPLES {
            let problem =
                format!("a region from {from} to {to} takes {samples} samples in each of {bins} bins");
            return Err(Error::input(1, "rois", format!("{problem}; accepted are {MOST_SAMPLES}")));
        }
        Ok((start, bin, samples.max(0.0) as usize))
    }
}

/// The two neighbours of a position along an axis, with their weights; nothing outside.
fn neighbours(place: f64, extent: usize) -> Option<[(usize, f64); 2]> {
    if place.is_nan() || place < -1.0 || place > extent as f64 || extent == 0 {
        return None;
    }
    let place = place.max(0.0);
    let low = place as usize;
    if low + 1 >= extent {
        return Some([(extent - 1, 1.0), (extent - 1, 0.0)]);
    }
    let rest = place - low as f64;
    Some([(low, 1.0 - rest), (low + 1, rest)])
}

impl Operator for RoiAlign {
    fn name(&self) -> &str {
        "RoiAlign"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value, default) in [
            ("output_height", self.output[0], 1),
            ("output_width", self.output[1], 1),
            ("sampling_ratio", self.sampling_ratio, 0),
        ] {
            if value != default {
                attributes.set(name, value as i64);
            }
        }
        if self.spatial_scale != 1.0 {
            attributes.set("spatial_scale", self.spatial_scale);
        }
        if !self.half_pixel {
            attributes.set("coordinate_transformation_mode", "output_half_pixel");
        }
        if self.max {
            attributes.set("mode", "max");
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (x, rois) = (required(inputs, 0, "X")?.ty, required(inputs, 1, "rois")?.ty);
        let images = required(inputs, 2, "batch_indices")?.ty;
        check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
        let dtype = common_dtype(&[(0, "X", x.dtype), (1, "rois", rois.dtype)])?;
        let index = |dtype| matches!(dtype, DType::I64 | DType::I32);
        check_dtype(2, "batch_indices", images.dtype, index, "i64")?;
        let channels = match x.shape.as_deref() {
            None => Dim::unknown(),
            Some([_, channels, _, _]) => channels.clone(),
            Some(_) => return Err(Error::input(0, "X", format!("expected [N, C, H, W], found {x}"))),
        };
        let count = match rois.shape.as_deref() {
            None => Dim::unknown(),
            Some([count, four]) if four.equals(&4.into()) != Some(false) => count.clone(),
            Some(_) => return Err(Error::input(1, "rois", format!("expected [R, 4], found {rois}"))),
        };
        let count = match images.shape.as_deref() {
            Some([images]) if images.equals(&count) != Some(false) => {
                if count.is_unknown() {
                    images.clone()
                } else {
                    count
                }
            }
            None => count,
            Some(_) => {
                let problem = format!("expected [{count}] as there are regions, found {images}");
                return Err(Error::input(2, "batch_indices", problem));
            }
        };
        let shape = vec![count, channels, self.output[0].into(), self.output[1].into()];
        Ok(vec![ValueType { dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, rois) = (required(inputs, 0, "X")?, required(inputs, 1, "rois")?);
        let shape = output_shape(self, inputs)?;
        check_size(DType::F64, &shape)?;
        let [images, channels, height, width] = *x.shape() else {
            return Err(Error::input(0, "X", format!("expected four axes, found {:?}", x.shape())));
        };
        let (data, regions) = (x.to_f64s()?, rois.to_f64s()?);
        let (plane, bins) = (height * width, self.output[0] * self.output[1]);
        let mut results = vec![0.0; shape.iter().product()];
        let owners = required(inputs, 2, "batch_indices")?.to_i64s()?;
        for ((region, owner), results) in
            regions.chunks_exact(4).zip(owners).zip(results.chunks_mut((channels * bins).max(1)))
        {
            let image = usize::try_from(owner).ok().filter(|&image| image < images);
            let image = image.ok_or_else(|| {
                Error::input(2, "batch_indices", format!("{owner} is none of {images} images"))
            })?;
            let (top, tall, rows) = self.axis(region[1], region[3], self.output[0])?;
            let (left, wide, columns) = self.axis(region[0], region[2], self.output[1])?;
            if (rows * columns) as f64 > MOST_SAMPLES {
                let problem = format!("{rows} x {columns} samples a bin; accepted are {MOST_SAMPLES}");
                return Err(Error::input(1, "rois", problem));
            }
            for bin in 0..bins {
                let (y, x) = (bin / self.output[1], bin % self.output[1]);
                let place = |start: f64, bin: f64, number: usize, i: usize, count: usize| {
                    start + bin * (number as f64 + (i as f64 + 0.5) / count as f64)
                };
                let samples: Vec<Option<[(usize, f64); 4]>> = (0..rows * columns)
                    .map(|i| {
                        let y = neighbours(place(top, tall, y, i / columns, rows), height)?;
                        let x = neighbours(place(left, wide, x, i % columns, columns), width)?;
                        let both = |i: usize, j: usize| (y[i].0 * width + x[j].0, y[i].1 * x[j].1);
                        Some([both(0, 0), both(0, 1), both(1, 0), both(1, 1)])
                    })
                    .collect();
                for channel in 0..channels {
                    let plane = &data[(image * channels + channel) * plane..][..plane];
                    let weighted = |sample: &Option<[(usize, f64); 4]>| {
                        sample.map_or([0.0; 4], |sample| sample.map(|(at, weight)| weight * plane[at]))
                    };
                    let terms = samples.iter().flat_map(weighted);
                    results[channel * bins + bin] = match samples.len() {
                        0 => 0.0,
                        _ if self.max => terms.fold(f64::NEG_INFINITY, f64::max),
                        count => terms.sum::<f64>() / count as f64,
                    };
                }
            }
        }
        Ok(vec![from_f64s(x.dtype(), &shape, &results)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(output: [usize; 2], sampling_ratio: usize) -> RoiAlign {
        RoiAlign { output, sampling_ratio, spatial_scale: 1.0, half_pixel: false, max: false }
    }

    fn run(op: &RoiAlign, x: &Tensor, regions: &[f32], images: &[i64]) -> Result<Tensor> {
        assert_eq!(RoiAlign::read(op.attributes()), Ok(*op));
        let rois = Tensor::from_vec([regions.len() / 4, 4], regions.to_vec()).unwrap();
        Ok(op.eval(&[Some(x), Some(&rois), Some(&Tensor::from_i64s(images))], 1)?.remove(0))
    }

    /// `10 y + x`, so that a sample tells where it was taken.
    fn map() -> Tensor {
        Tensor::from_vec(
            [2, 1, 4, 4],
            (0..32).map(|i| (i % 16 / 4 * 10 + i % 4 + i / 16 * 100) as f32).collect(),
        )
        .unwrap()
    }

    #[test]
    fn bins_are_means_of_samples() {
        // Two bins from 0 to 2 along each axis, sampled in their middles.
        let y = run(&plain([2, 2], 1), &map(), &[0.0, 0.0, 2.0, 2.0], &[1]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [105.5, 106.5, 115.5, 116.5]);
        // Half a pixel earlier.
        let half = RoiAlign { half_pixel: true, ..plain([2, 2], 1) };
        let y = run(&half, &map(), &[0.0, 0.0, 2.0, 2.0], &[0]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [0.0, 1.0, 10.0, 11.0]);
        // As many samples as the bin is large: rows 0.5, 1.5, 2.5 and columns likewise.
        let y = run(&plain([1, 1], 0), &map(), &[0.0, 0.0, 3.0, 3.0], &[0]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [16.5]);
        let scaled = RoiAlign { spatial_scale: 0.5, ..plain([1, 1], 1) };
        let y = run(&scaled, &map(), &[0.0, 0.0, 2.0, 2.0], &[0]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [5.5]);
    }

    #[test]
    fn the_greatest_weighted_neighbour() {
        let op = RoiAlign { max: true, ..plain([1, 1], 1) };
        let y = run(&op, &map(), &[1.0, 1.0, 2.0, 2.0], &[0]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [22.0 * 0.25]);
    }

    #[test]
    fn what_lies_outside_is_zero_and_what_is_wrong_is_named() {
        let y = run(&plain([1, 1], 1), &map(), &[20.0, 20.0, 30.0, 30.0], &[0]).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [0.0]);
        let y = run(&plain([2, 1], 1), &map(), &[], &[]).unwrap();
        assert_eq!(y.shape(), [0, 1, 2, 1]);
        let error = run(&plain([1, 1], 1), &map(), &[0.0; 4], &[2]).unwrap_err().to_string();
        assert_eq!(error, "input 2 (batch_indices): 2 is none of 2 images");
        let error = run(&plain([1, 1], 0), &map(), &[0.0, 0.0, 1e9, 1e9], &[0]).unwrap_err().to_string();
        assert!(error.contains("accepted are 65536"), "{error}");
        let wrong = Attributes::new().with("output_height", 0);
        assert!(RoiAlign::read(wrong).unwrap_err().to_string().contains("expected 1 to"));
        let wrong = Attributes::new().with("mode", "median");
        assert!(RoiAlign::read(wrong).unwrap_err().to_string().contains("avg, max"));
    }
}
